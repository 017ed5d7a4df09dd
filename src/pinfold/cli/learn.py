"""``pinfold learn``."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from pinfold.cli import options
from pinfold.cli.runner import Runner
from pinfold.cli.streams import complain
from pinfold.errors import LaunchError, PolicyError
from pinfold.paths import normalise, printable
from pinfold.policy.calls import ALLOWED, KILL, Verdict
from pinfold.policy.learning.facts import Facts, facts_of, settled
from pinfold.policy.learning.folding import Place
from pinfold.policy.rules import DENY, PathRules
from pinfold.session import Limits, Session
from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pinfold.audit.record import Entry
    from pinfold.launch.spawn import Command
    from pinfold.policy.calls import Trapped
    from pinfold.policy.judging.judge import RuleJudge
    from pinfold.policy.learning.facts import Fact
    from pinfold.policy.learning.learn import Learned
    from pinfold.policy.model import PolicyModel
    from pinfold.syscalls.forms import Forms

_REFUSALS_SHOWN: Final = 10
_REFUSALS_KEPT: Final = 1000
_COMMAND_SHOWN: Final = 200
_SIGNALLED: Final = 128
_UNASKED: Final = " (nobody to ask)"
"""What a judge adds to the name of a rule that asks, where nobody can be asked."""


@click.command(
    "learn",
    **options.SETTINGS,
)
@click.option(
    "-o",
    "output",
    metavar="FILE",
    help="Write the policy to FILE; one that is there gets the rules that it lacks, at its end.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Run COMMAND N times: names that differ between runs become patterns.",
)
@click.option("--dry-run", is_flag=True, help="With -o: show what would change, and write nothing.")
@options.keep_caps
@options.cpu
@options.argv
def command(
    output: str | None,
    runs: int,
    dry_run: bool,
    keep_caps: bool,
    cpu: str,
    argv: Sequence[str],
) -> int:
    """Run COMMAND with everything allowed, and write a policy that allows what it did.

    What it reaches is pinned and noted: files, programs, addresses. Names that look made up become
    patterns, and many names in one directory become the directory. Read the policy before using it:
    it allows what the program did, whatever that was.

    Without -o the policy goes to standard output, and COMMAND's output to standard error.

    \b
    Examples:
      pinfold learn -o policy.toml -- make
      pinfold learn --runs 2 -o policy.toml -- pip install ./package
      pinfold run --policy policy.toml -- make

    The exit status is COMMAND's own, as for `pinfold run`; of several runs, that of the last.
    """  # noqa: D301 (click takes a backspace character for "keep these lines as they are")
    if not argv:
        raise click.UsageError("no COMMAND given")
    if dry_run and output is None:
        raise click.UsageError("--dry-run is about the file of -o; without it nothing is written")
    from pinfold.policy.learning.learn import learn  # noqa: PLC0415 (after the usage errors)

    place = _place()
    # Settled now: the name of a descriptor means nothing any more after the run.
    target = _writable(output) if output is not None else ""
    known = _Known.read(output) if output is not None and os.path.lexists(output) else None
    found, status = _watched(
        argv, runs, known, own_output=output is not None, keep_caps=keep_caps, cpu=cpu
    )
    learned = learn(
        [watch.facts for watch in found],
        place,
        addition=known is not None,
        # What is added comes before what is included, and could allow more than was done.
        fold=known is None or not known.includes,
    )
    for note in _notes(found, learned):
        complain(f"warning: {note}")
    if output is not None and _writes(learned, output):
        complain(f"warning: under this policy the program may write {output} itself; move it")
    if status:
        complain(
            f"warning: COMMAND ended with status {status}; the policy covers what it did until then"
        )
    when = f"{time.strftime('%Y-%m-%d')}: {_shown(argv)}"
    if output is None:
        # In UTF-8, whatever the locale is, as it would be in a file.
        sys.stdout.buffer.write(_text(learned, place, when).encode())
        sys.stdout.buffer.flush()
    elif known is None:
        text = _text(learned, place, when)
        if dry_run:
            _complain_lines(text)
        else:
            _save(output, target, text)
    else:
        known.extend(output, target, learned, place, when, dry_run=dry_run)
    return status


def _watched(
    argv: Sequence[str],
    runs: int,
    known: _Known | None,
    *,
    own_output: bool,
    keep_caps: bool,
    cpu: str,
) -> tuple[list[_Watch], int]:
    found: list[_Watch] = []
    masks: list[frozenset[int]] = []
    status = 0
    for left in reversed(range(runs)):
        watch = _Watch(known)

        def session(given: Command, watch: _Watch = watch, **callbacks: Any) -> Session:
            # What the first run blocks for itself is none of the second one's.
            masks.append(given.signal_mask)
            given = given._replace(signal_mask=masks[0])
            if not own_output:
                inherited, _, errors = given.streams
                given = given._replace(streams=(inherited, errors, errors))
            return Session(
                given,
                PathRules([], []),
                Limits(keep_caps=keep_caps),
                inspect_all=True,
                cpu=cpu,
                judge=watch,
                results=watch.ended,
                **callbacks,
            )

        status = Runner(argv, session, last=not left).run()
        found.append(watch)
        if status > _SIGNALLED:
            # Interrupted, most likely: whoever did that does not want another one.
            break
    return found, status


class _Begun(NamedTuple):
    # A call that is not over.
    facts: list[Fact]
    refusal: Verdict | None
    what: str


class _Watch:
    """A policy that allows everything, and notes it."""

    literals: tuple[bytes, ...] = ()
    whole: frozenset[str] = frozenset()
    passing: Mapping[str, Forms] = {}
    addresses = False
    programs = False

    def __init__(self, known: _Known | None) -> None:
        self.calls: Mapping[str, frozenset[Kind]] = dict.fromkeys(TABLE, frozenset(Kind))
        self.facts = Facts()
        self.refused: dict[str, None] = {}
        self.refused_more = False
        self.real = known is not None and known.real
        self._known = known
        self._open: dict[int, _Begun] = {}

    def steady(self, name: str) -> bool:
        """Returns False: every call is to be seen."""
        del name
        return False

    def judge(self, call: Trapped) -> Verdict:
        """Allows a call. What is pinned can be read now, and only now."""
        before = self._open.pop(call.tid, None)
        if before is not None:
            self._over(before, None)
        refusal = self._known.refusal(call) if self._known is not None else None
        if refusal is not None and refusal.rule is None:
            return ALLOWED
        self._open[call.tid] = _Begun(
            facts_of(call) if refusal is None else [], refusal, _what(call)
        )
        return ALLOWED

    def ended(self, entry: Entry, result: int | None) -> None:
        """Notes how a call ended."""
        begun = self._open.pop(entry.tid, None)
        if begun is not None:
            self._over(begun, result)

    def _over(self, begun: _Begun, result: int | None) -> None:
        self.facts.add(settled(begun.facts, result))
        refusal = begun.refusal
        # What fails as the policy would have it fail is no loss.
        if refusal is not None and (result is None or -result != refusal.errno):
            line = f"{begun.what}: {refusal.rule}"
            if len(self.refused) < _REFUSALS_KEPT or line in self.refused:
                self.refused[line] = None
            else:
                self.refused_more = True

    def executed(self, program: bytes, by: bytes) -> None:
        """Has nothing against any program."""

    def close(self) -> None:
        """Notes the calls that never ended."""
        for begun in self._open.values():
            self._over(begun, None)
        self._open.clear()


def _what(call: Trapped) -> str:
    return " ".join([call.row.name, *(printable(names[0]) for names in call.names.values())])


class _Known:
    """The policy that is there already.

    Args:
        text: The file's text.
        model: What it says.
    """

    def __init__(self, text: str, model: PolicyModel, judge: RuleJudge) -> None:
        self._text = text
        self._model = model
        self._judge = judge
        self.real = judge.real
        self.includes = len(model.files) > 1
        named = {rule.name for rule in model.rules}
        self._defaults = {f"default {word}" for word in model.defaults} - named

    @classmethod
    def read(cls, path: str) -> _Known:
        """Returns the policy of a file.

        Raises:
            PolicyError: It cannot be read, or is none.
        """
        from pinfold.policy.file.load import load  # noqa: PLC0415 (likewise)
        from pinfold.policy.judging.judge import RuleJudge  # noqa: PLC0415 (not without a file)

        model = load([path])
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        return cls(text, model, RuleJudge(model, None))

    def refusal(self, call: Trapped) -> Verdict | None:
        """Returns what the policy's rules say of a call, None when it is left to a default.

        The rule's name is None where the call is not denied, and there is nothing to learn.
        """
        verdict = self._judge.judge(call)
        if not isinstance(verdict, Verdict) or verdict.action not in (DENY, KILL):
            return ALLOWED._replace(rule=None)
        return (
            None if verdict.rule in self._defaults else verdict._replace(rule=verdict.rule or "?")
        )

    def extend(
        self, path: str, target: str, learned: Learned, place: Place, when: str, *, dry_run: bool
    ) -> None:
        """Adds rules at the end of the file, whose text stays what it is, and shows the difference.

        Args:
            path: The file, for messages.
            target: Where that leads.
            learned: What to add.
            place: Where the program ran.
            when: What is said of the run.
            dry_run: Whether nothing is written.

        Raises:
            PolicyError: The file would not be a policy any more.
        """
        from difflib import unified_diff  # noqa: PLC0415 (slow to import, and seldom needed)

        if learned.empty:
            complain(f"{path}: nothing to add; the policy allows all that was done")
            return
        from pinfold.policy.file.load import parse  # noqa: PLC0415 (not without a file)
        from pinfold.policy.learning.write import rules  # noqa: PLC0415 (likewise)

        added = rules(learned.model.rules, comments=learned.comments, variables=place.variables)
        text = self._text if self._text.endswith("\n") else self._text + "\n"
        text += "\n".join(["", f"# learned {when}", *added]) + "\n"
        directory = os.path.dirname(os.path.abspath(os.fsencode(path)))
        try:
            parse(text, path, directory=directory)
        except PolicyError as error:
            raise PolicyError(f"{path}: rules cannot be added at its end: {error}") from error
        before, after = (whole.splitlines(keepends=True) for whole in (self._text, text))
        _complain_lines("".join(unified_diff(before, after, path, path)))
        if not dry_run:
            _save(path, target, text)


def _notes(found: Sequence[_Watch], learned: Learned) -> list[str]:
    notes = list(learned.notes)
    refused = list(dict.fromkeys(line for watch in found for line in watch.refused))
    notes += [
        f"the policy denies this, and goes on to do so: {line}"
        for line in refused[:_REFUSALS_SHOWN]
    ]
    if len(refused) > _REFUSALS_SHOWN:
        least = "at least " * any(watch.refused_more for watch in found)
        notes.append(
            f"and {least}{len(refused) - _REFUSALS_SHOWN} more denials of the policy's own"
        )
    if any(watch.facts.full for watch in found):
        notes.append(
            "it did more different things than are noted; the policy covers the first ones"
        )
    return notes


def _writes(learned: Learned, path: str) -> bool:
    # Whether the next run could change the policy of the one after it.
    from pinfold.policy.globs import GlobSet  # noqa: PLC0415 (after the run)

    names = {normalise(os.path.abspath(os.fsencode(path))), os.path.realpath(os.fsencode(path))}
    return any(
        not rule.match.access
        and "openat" in rule.match.on
        and (
            not names.isdisjoint(rule.match.exact)
            or any(GlobSet(rule.match.path).match(name) >= 0 for name in names)
        )
        for rule in learned.model.rules
    )


def _text(learned: Learned, place: Place, when: str) -> str:
    from pinfold.policy.learning.write import write  # noqa: PLC0415 (after the run)

    head = (
        f"Learned {when}",
        "It allows what that run did. Asking about files (stat) is always allowed: programs look",
        "for their files in many places, and are shown names and attributes only.",
        *learned.notes,
    )
    return write(learned.model, comments=learned.comments, variables=place.variables, head=head)


def _shown(argv: Sequence[str]) -> str:
    from shlex import join  # noqa: PLC0415 (after the run)

    shown = printable(os.fsencode(join(argv)))
    return shown if len(shown) <= _COMMAND_SHOWN else shown[:_COMMAND_SHOWN] + "..."


def _place() -> Place:
    try:
        cwd = os.getcwdb()
    except FileNotFoundError as error:
        raise LaunchError("the working directory is gone; learn from another one", 125) from error
    home = os.environb.get(b"HOME", b"")
    tmp = os.environb.get(b"TMPDIR") or b"/tmp"
    return Place(*(normalise(one) if one.startswith(b"/") else b"/" for one in (home, cwd, tmp)))


def _complain_lines(text: str) -> None:
    # On standard error, as it is but for what a terminal would obey.
    for line in text.splitlines():
        data = printable(line.replace("\t", "    ").encode("utf-8", "surrogateescape"))
        click.echo(data, err=True)


def _writable(path: str) -> str:
    # Where a policy is to be written in the end. Looked at before the run, not after it.
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.path.isfile(target):
        # The new file takes its place, and that may be /dev/null.
        raise PolicyError(f"cannot write {path}: it is no regular file")
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise PolicyError(f"cannot write {path}: there is no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PolicyError(f"cannot write {path}: no files can be made in {directory}")
    return target


def _save(path: str, target: str, text: str) -> None:
    # In one step: whoever reads the file has the old policy or the new one.
    made = f"{target}.{os.getpid()}.new"
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                if os.path.exists(target):
                    os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(made, target)
        except BaseException:
            os.unlink(made)
            raise
    except OSError as error:
        raise PolicyError(f"cannot write {path}: {error.strerror}") from error
