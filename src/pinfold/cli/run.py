"""``pinfold run``."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

import click

from pinfold.audit.writer import AuditWriter
from pinfold.cli.streams import claim, complain
from pinfold.errors import LaunchError, PolicyError
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.session import Limits, Session, require_machine
from pinfold.tracee.stops import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pinfold.session import Outcome

T = TypeVar("T")

_FORWARDED: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGWINCH,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
    }
)
_STOPPING: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_PATIENCE: Final = 2.0
"""Seconds that COMMAND may take to tidy the terminal before it obeys a stop."""
_OVER: Final = signal.SIGRTMAX
_SI_KERNEL: Final = 0x80
"""``si_code`` of a signal from the terminal: COMMAND, in the same process group, got it too."""


@click.command(
    "run",
    context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": False},
    options_metavar="[OPTIONS] --",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="FROM=TO",
    help="Redirect a path argument that names FROM, or lies below it, to TO. Longest FROM wins.",
)
@click.option(
    "--deny",
    "denies",
    multiple=True,
    metavar="GLOB",
    help="Answer a path argument that matches with EACCES. '*' stays within a directory, '**'"
    " crosses them; a GLOB without wildcards also covers what lies below it.",
)
@click.option(
    "--audit", metavar="FILE", help="Write a JSON line for every trapped call; '-' is stderr."
)
@click.option(
    "--inspect",
    type=click.Choice(["paths", "all"]),
    default="paths",
    show_default=True,
    help="What is pinned, and shown by --audit: path arguments, or all that the kernel reads of a"
    " call, such as argv, environments, socket addresses and attributes.",
)
@click.option(
    "--real",
    is_flag=True,
    help="Judge also the name that symbolic links lead to, and open what has that name.",
)
@click.option(
    "--ro",
    multiple=True,
    metavar="PATH",
    help="Let the program read and execute below PATH. With any --ro or --rw, everything else is"
    " out of its reach (Landlock).",
)
@click.option("--rw", multiple=True, metavar="PATH", help="Let the program do anything below PATH.")
@click.option(
    "--keep-caps",
    is_flag=True,
    help="Started by root: leave the program all capabilities, not just a container's usual ones.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say what is set up and how it went.")
@click.argument("argv", metavar="COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)
def command(
    maps: Sequence[str],
    denies: Sequence[str],
    audit: str | None,
    inspect: str,
    real: bool,
    ro: Sequence[str],
    rw: Sequence[str],
    keep_caps: bool,
    verbose: bool,
    argv: Sequence[str],
) -> int:
    """Run COMMAND with its path arguments judged, rewritten and pinned.

    \b
    Examples:
      pinfold run --map /etc/hostname=/etc/debian_version -- cat /etc/hostname
      pinfold run --deny '/etc/shadow' -- sh -c 'cd /etc; cat ./../etc/shadow'
      pinfold run --ro /usr --ro /lib --ro /lib64 --ro /bin --rw . --rw /tmp -- make

    The exit status is COMMAND's own; 128 + N when signal N ended it, 127 when it was not found,
    126 when it cannot be executed, 125 when pinfold itself failed.
    """  # noqa: D301 (click takes a backspace character for "keep these lines as they are")
    if not argv:
        raise click.UsageError("no COMMAND given")
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Whoever started us left it so. COMMAND gets the default too.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    require_machine()
    cwd = _working_directory()
    pairs = [_rule("--map", text, lambda rule: parse_map(rule, cwd)) for text in maps]
    rules = PathRules(pairs, [_rule("--deny", text, parse_deny) for text in denies])
    say = complain if verbose else _quiet
    for source, target in pairs:
        if not os.path.lexists(target):
            say(f"{os.fsdecode(target)} does not exist (mapped from {os.fsdecode(source)})")
    writer = AuditWriter.open(audit) if audit is not None else None
    try:
        runner = _Runner(
            argv,
            rules,
            Limits(
                [os.fsencode(path) for path in ro], [os.fsencode(path) for path in rw], keep_caps
            ),
            writer,
            say,
            inspect_all=inspect == "all",
            real=real,
        )
        return runner.run()
    finally:
        if writer is not None:
            writer.close()


class _Runner:
    # The main thread waits for signals, the session's thread supervises.

    def __init__(
        self,
        argv: Sequence[str],
        rules: PathRules,
        limits: Limits,
        writer: AuditWriter | None,
        say: Callable[[str], None],
        *,
        inspect_all: bool,
        real: bool,
    ) -> None:
        self._say = say
        self._limits = limits
        self._stop_lock = threading.Lock()
        self._stop_until = 0.0
        # Blocked before any thread exists, so that only sigwaitinfo below ever takes them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {_OVER})
        self._session = Session(
            Command(
                tuple(os.fsencode(arg) for arg in argv),
                _environment(),
                streams=claim(),
                signal_mask=frozenset(before),
            ),
            rules,
            limits,
            inspect_all=inspect_all,
            real=real,
            sink=writer.write if writer is not None else None,
            on_stop=self._stop_with_command,
            on_refused=complain,
        )

    def run(self) -> int:
        session = self._session
        for line in session.warnings:
            complain(f"warning: {line}")
        if not session.traps:
            line = "no --map, --deny, --audit or --inspect all: no call is judged"
            if self._limits.ro or self._limits.rw:
                self._say(line + ", the program is only confined to its paths")
            else:
                complain(f"warning: {line}, and no path is out of reach")
        main = threading.main_thread().ident
        assert main is not None
        session.start(on_end=lambda: signal.pthread_kill(main, _OVER))
        self._wait()
        outcome = self._result()
        self._say(
            f"{outcome.trapped} calls judged, {outcome.denied} denied, {outcome.redirected}"
            f" redirected; at most {outcome.most} tasks at a time"
        )
        return exit_code(outcome.status)

    def _result(self) -> Outcome:
        try:
            return self._session.result()
        except LaunchError as error:
            if error.exit_code not in (126, 127) or not (self._limits.ro or self._limits.rw):
                raise
            hint = (
                "with --ro or --rw the program, its interpreter and its libraries must be below one"
                " of these paths (often --ro /usr --ro /lib --ro /lib64 --ro /bin)"
            )
            raise LaunchError(f"{error}; {hint}", error.exit_code) from error

    def _wait(self) -> None:
        session = self._session
        while True:
            info = signal.sigwaitinfo(_FORWARDED | {_OVER})
            session.launched.wait()
            if info.si_signo == _OVER:
                if session.join(0) or session.over:
                    return
                session.signal(_OVER)
            elif info.si_signo == signal.SIGCONT:
                # `fg` continues the whole process group; COMMAND is told only if it was left out.
                if session.stopped:
                    session.signal(signal.SIGCONT)
            else:
                if info.si_signo in _STOPPING:
                    with self._stop_lock:
                        self._stop_until = time.monotonic() + _PATIENCE
                    if session.stopped:
                        self._stop_with_command(info.si_signo)
                if info.si_code != _SI_KERNEL:
                    session.signal(info.si_signo)

    def _stop_with_command(self, _number: int) -> None:
        # The shell that started us waits for *us* to stop, so when job control stops COMMAND, stop
        # as well. Not for any other stop: one task of the sandbox may stop another and continue it
        # later, and a stopped supervisor would never see that.
        with self._stop_lock:
            wanted, self._stop_until = self._stop_until, 0.0
        if time.monotonic() < wanted:
            os.kill(os.getpid(), signal.SIGSTOP)


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


def _environment() -> dict[bytes, bytes]:
    # As we were started. Python may have set LC_CTYPE in its own copy (PEP 538).
    try:
        with open("/proc/self/environ", "rb") as started:
            entries = started.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in entries)
    return {name: value for name, equals, value in pairs if equals}
