"""``pinfold run``."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pinfold.cli.plain import BACKEND, CPU, KEEP_CAPS, VARIABLES, Option, assigned
from pinfold.cli.runner import Runner
from pinfold.cli.streams import complain
from pinfold.errors import AuditError, PinfoldError, PolicyError
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.session import Limits, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pinfold.audit.record import Entry
    from pinfold.audit.writer import AuditWriter
    from pinfold.cli.ask import TerminalAsker
    from pinfold.launch.spawn import Command
    from pinfold.policy.calls import Judge
    from pinfold.policy.model import PolicyModel

T = TypeVar("T")

_CONFINED: Final = (
    "with --ro or --rw the program, its interpreter and its libraries must be below one of these"
    " paths (often --ro /usr --ro /lib --ro /lib64 --ro /bin)"
)
_DRY: Final = "DRY RUN: verdicts are noted, and nothing is denied or redirected"


OPTIONS: Final = (
    Option(
        ("--policy",),
        "files",
        "Judge calls by the rules of a TOML file; of several, the first that says something wins."
        " 'builtin:NAME' is a ready one: agent, build, judge, pip, secrets, workspace, offline.",
        metavar="FILE",
        many=True,
    ),
    VARIABLES,
    Option(
        ("--map",),
        "maps",
        "Redirect a path argument that names FROM, or lies below it, to TO. Longest FROM wins.",
        metavar="FROM=TO",
        many=True,
    ),
    Option(
        ("--deny",),
        "denies",
        "Answer a path argument that matches with EACCES. '*' stays within a directory, '**'"
        " crosses them; a GLOB without wildcards also covers what lies below it.",
        metavar="GLOB",
        many=True,
    ),
    Option(
        ("--audit",),
        "audit",
        "Write a JSON line for every trapped call; '-' is stderr.",
        metavar="FILE",
    ),
    Option(
        ("--log-sync",),
        "log_sync",
        "Have each line of --audit in FILE before its call is let go. Else those of allowed calls"
        " may come up to 20 ms later, many at once.",
    ),
    Option(
        ("--inspect",),
        "inspect",
        "What is pinned, and shown by --audit: path arguments, or all that the kernel reads of a"
        " call, such as argv, environments, socket addresses and attributes.",
        choices=("paths", "all"),
    ),
    Option(
        ("--real",),
        "real",
        "Judge also the name that symbolic links lead to, and open what has that name.",
    ),
    Option(
        ("--ro",),
        "ro",
        "Let the program read and execute below PATH. With any --ro or --rw, everything else is"
        " out of its reach (Landlock).",
        metavar="PATH",
        many=True,
    ),
    Option(
        ("--rw",),
        "rw",
        "Let the program do anything below PATH.",
        metavar="PATH",
        many=True,
    ),
    KEEP_CAPS,
    CPU,
    BACKEND,
    Option(
        ("--dry-run",),
        "dry_run",
        "Note verdicts (--audit shows them), but make every call as it was asked for. Limits,"
        " --ro and --rw do not hold either.",
    ),
    Option(("-v", "--verbose"), "verbose", "Say what is set up and how it went."),
)


def __getattr__(name: str) -> Any:
    # For ``click``, where that is needed.
    if name != "command":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pinfold.cli import options  # noqa: PLC0415

    found = globals()[name] = options.command("run", OPTIONS, run)
    return found


def run(
    files: Sequence[str],
    variables: Sequence[str],
    maps: Sequence[str],
    denies: Sequence[str],
    audit: str | None,
    log_sync: bool,
    inspect: str,
    real: bool,
    ro: Sequence[str],
    rw: Sequence[str],
    keep_caps: bool,
    cpu: str,
    backend: str,
    dry_run: bool,
    verbose: bool,
    argv: Sequence[str],
) -> int:
    """Run COMMAND with its arguments judged, rewritten and pinned.

    \b
    Examples:
      pinfold run --map /etc/hostname=/etc/debian_version -- cat /etc/hostname
      pinfold run --deny '/etc/shadow' -- sh -c 'cd /etc; cat ./../etc/shadow'
      pinfold run --policy builtin:build --audit log.jsonl -- make -j4
      pinfold run --ro /usr --ro /lib --ro /lib64 --ro /bin --rw . --rw /tmp -- make

    --map, --deny, --ro and --rw add to policy files, and win. The exit status is COMMAND's own;
    128 + N when signal N ended it, 127 when it was not found, 126 when it cannot be executed, 125
    when pinfold itself failed. SIGUSR1 makes pinfold print what was judged so far.
    """  # noqa: D301 (click takes a backspace character for "keep these lines as they are")
    if not argv:
        from click import UsageError  # noqa: PLC0415 (only `click` lets that through)

        raise UsageError("no COMMAND given")
    cwd = _working_directory()
    pairs = [_rule("--map", text, lambda rule: parse_map(rule, cwd)) for text in maps]
    globs = [_rule("--deny", text, parse_deny) for text in denies]
    say = complain if verbose else _quiet
    for source, target in pairs:
        if not os.path.lexists(target):
            say(f"{os.fsdecode(target)} does not exist (mapped from {os.fsdecode(source)})")
    model, judge, asker = _policy(files, assigned(variables), real=real)
    real = real or (judge is not None and judge.real)
    rules = PathRules(pairs, globs, _linked(globs) if real else {})
    if dry_run:
        complain(_DRY)
    limits = Limits(
        [] if dry_run else [*map(os.fsencode, ro), *(model.ro if model is not None else ())],
        [] if dry_run else [*map(os.fsencode, rw), *(model.rw if model is not None else ())],
        keep_caps,
    )
    with (
        _logging(audit, model, argv, cwd, rules, dry=dry_run) as log,
        contextlib.closing(asker) if asker is not None else contextlib.nullcontext(),
    ):

        def session(given: Command, **callbacks: Any) -> Session:
            return Session(
                given,
                rules,
                limits,
                inspect_all=inspect == "all",
                real=real,
                judge=judge,
                bounds=None if dry_run or model is None else model.limits,
                dry_run=dry_run,
                cpu=cpu,
                backend=backend,
                sink=log.add if log is not None else None,
                late=log.writer if log is not None and not log_sync else None,
                **callbacks,
            )

        runner = Runner(argv, session, summary=lambda one: _summary(one, log))
        if not runner.session.traps:
            line = "no --policy, --map, --deny, --audit or --inspect all: no call is judged"
            if limits.ro or limits.rw:
                say(line + ", the program is only confined to its paths")
            else:
                complain(f"warning: {line}, and no path is out of reach")
        status = runner.run(hint=_CONFINED if limits.ro or limits.rw else None)
        outcome = runner.outcome
        assert outcome is not None
        would = "would have been " if dry_run else ""
        (complain if dry_run else say)(
            f"{outcome.trapped} calls judged, {outcome.denied} {would}denied,"
            f" {outcome.redirected} {would}redirected; at most {outcome.most} tasks at a time"
        )
        if log is not None:
            log.finish("time limit" if outcome.timed_out else "ended", status)
            say(f"audit log {audit}: head {log.writer.head}")
    return status


@contextlib.contextmanager
def _logging(
    path: str | None,
    model: PolicyModel | None,
    argv: Sequence[str],
    cwd: bytes,
    rules: PathRules,
    *,
    dry: bool,
) -> Iterator[_Log | None]:
    if path is None:
        yield None
        return
    from pinfold.audit.record import start  # noqa: PLC0415 (only where there is a log)
    from pinfold.audit.writer import AuditWriter  # noqa: PLC0415 (likewise)

    writer = AuditWriter.open(
        path,
        on_loss="stop" if model is None else model.on_audit_loss,
        start=start(
            argv=[os.fsencode(word) for word in argv],
            cwd=cwd,
            uid=os.getuid(),
            kernel=os.uname().release,
            dry=dry,
            rules=rules.shown,
            policy=[] if model is None else list(zip(model.files, model.digests, strict=True)),
        ),
        warn=complain,
    )
    log = _Log(writer)
    try:
        yield log
    except PinfoldError as error:
        if not log.finished:
            try:
                log.finish(f"{type(error).__name__}: {error}", error.exit_code)
            except AuditError as lost:
                # The first error is the reason; this one comes on top.
                complain(str(lost))
        raise
    finally:
        writer.close()


class _Log:
    # The audit log of a run, and what SIGUSR1 tells about it.

    def __init__(self, writer: AuditWriter) -> None:
        from pinfold.audit.summary import Summary  # noqa: PLC0415 (only where there is a log)

        self.writer = writer
        self.finished = False
        self.summary = Summary(time.time())

    def add(self, entry: Entry) -> None:
        self.writer.write(entry)
        self.summary.add(entry)

    def finish(self, reason: str, status: int) -> None:
        self.finished = True
        self.writer.finish({"reason": reason, "exit": status})


def _linked(globs: Sequence[bytes]) -> Mapping[bytes, bytes]:
    from pinfold.policy.judging.linked import where_links_lead  # noqa: PLC0415 (where links matter)

    return where_links_lead(globs)


def _policy(
    files: Sequence[str], variables: Mapping[str, str], *, real: bool
) -> tuple[PolicyModel | None, Judge | None, TerminalAsker | None]:
    if not files:
        if variables:
            raise PolicyError("--set is about the variables of a --policy, and there is none")
        return None, None, None
    # Here, since most runs that are to feel instant have no policy file.
    from pinfold.cli.ask import TerminalAsker  # noqa: PLC0415
    from pinfold.policy.handlers.policy import Policy  # noqa: PLC0415

    policy = Policy.load(*files, variables=variables)
    asker = TerminalAsker.open(policy.model.handler_seconds) if _asks(policy.model) else None
    return policy.model, policy.judge(ask=asker, report=complain, real=real), asker


def _asks(model: PolicyModel) -> bool:
    actions = [rule.action for rule in model.rules] + list(model.defaults.values())
    return any(action.verb == "ask" for action in actions)


def _summary(session: Session, log: _Log | None) -> str:
    if log is not None:
        return log.summary.text(time.time(), session.tasks)
    return session.progress()


def _quiet(_line: str) -> None:
    pass


def _rule(option: str, text: str, parse: Callable[[bytes], T]) -> T:
    # One line for an error: which option, what it was given, what is wrong and where.
    try:
        return parse(os.fsencode(text))
    except PolicyError as error:
        raise PolicyError(f"{option} {text!r}: {str(error).splitlines()[0]}") from error


def _working_directory() -> bytes:
    try:
        return os.getcwdb()
    except FileNotFoundError:
        # It was removed. Only a relative name in a map needs it, and is told so.
        return b""
