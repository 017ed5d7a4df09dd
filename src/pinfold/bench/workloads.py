"""What real programs take: by themselves, and in sandboxes that look at more and more of them.

Every run proves that the work was done, and what it did is compared with what the program did by
itself. How many calls were judged is told with each row, and what each of them came to: without
that nobody could say why one program slows down and another one does not.

Sandboxes are started from this process, so what the start of a Python costs is not in the figures;
it is in those of the group ``start``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pinfold.bench.measure import Settings, Table, Way, WrongError, table
from pinfold.bench.workloads_programs import FAMILIES
from pinfold.launch.spawn import Command
from pinfold.policy.handlers.policy import Policy
from pinfold.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pinfold.audit.record import Entry
    from pinfold.bench.workloads_programs import Program

_ROUNDS: Final = 5
"""Most rounds: these take seconds each, and go up and down less than single calls."""
_SECONDS: Final = 600
POLICY: Final = Path(__file__).resolve().parent / "policies" / "everyday.toml"
"""Wants ``PLACE``, the directory to work in."""


class Runner:
    """Runs a program in one way, and checks what it did against what it did by itself.

    Args:
        program: Which.
        start: Runs it with the given standard output, and returns how many calls were judged (0
            where nobody counts them).
        expected: What a run of it by itself has proved.

    Attributes:
        judged: How many calls were judged in the last run.
    """

    def __init__(
        self, program: Program, start: Callable[[Program, Any], int], expected: str
    ) -> None:
        self._program = program
        self._start = start
        self._expected = expected
        self.judged = 0

    def run(self) -> float:
        """Runs it once and returns how many milliseconds that took.

        Raises:
            WrongError: It did not do what it does by itself.
        """
        program = self._program
        program.fresh()
        with tempfile.TemporaryFile() as output:
            before = time.perf_counter_ns()
            self.judged = self._start(program, output)
            took = time.perf_counter_ns() - before
            output.seek(0)
            proved = program.proof(output.read())
        if proved != self._expected:
            raise WrongError(f"{program.name}: it did {proved}, and by itself {self._expected}")
        return took / 1e6


class Counted(NamedTuple):
    """What a program asked for in a run in which each trapped call was looked at."""

    calls: Counter[str]
    """How often, by call: ``newfstatat ""`` is one about an open file."""
    tasks: int
    """Tasks that made such a call."""

    def said(self) -> str:
        """Returns it in words: which calls there were most, programs executed, tasks."""
        most = ", ".join(f"{count:,} {name}" for name, count in self.calls.most_common(3))
        execs = f"{self.calls['execve']:,} execve, {self.tasks:,} tasks"
        return f"{self.calls.total():,} calls with paths ({most}), {execs}"


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what real programs take.

    Raises:
        WrongError: A program did not do its work.
    """
    settings = settings._replace(rounds=min(settings.rounds, _ROUNDS))
    for program, missing in prepared(settings, [name for one in FAMILIES for name in one.names]):
        if program is None:
            for line in missing:
                name, _, why = line.partition(": ")
                yield Table("work", name, name, "ms", "", (), (why,))
        else:
            yield measured(program, settings)


def prepared(
    settings: Settings, names: Collection[str]
) -> Iterator[tuple[Program | None, tuple[str, ...]]]:
    """Prepares programs one after the other, in a directory that is removed afterwards.

    Yields each program, or None with lines about some that this machine lacks something for.

    Args:
        settings: How to measure.
        names: Of the programs that are wanted.
    """
    for family in FAMILIES:
        if not set(names).intersection(family.names):
            continue
        missing = family.missing()
        if missing:
            yield None, missing
            continue
        place = Path(tempfile.mkdtemp(prefix="pinfold-bench-"))
        try:
            settings.say(f"preparing {', '.join(family.names)}")
            for program in family.prepare(place, settings.quick):
                if program.name in names:
                    yield program, ()
        finally:
            shutil.rmtree(place)


def measured(program: Program, settings: Settings) -> Table:
    """Races a program by itself against the same program in several sandboxes.

    Raises:
        WrongError: It did not do its work.
    """
    expected = proved_bare(program)
    counted = count(program)
    log = program.env["HOME"] + "/audit.jsonl"
    place = {"PLACE": program.env["HOME"]}
    ways = {
        "bare": ("by itself", bare),
        "confined": ("no rules: only what every sandbox refuses", in_sandbox(Sandbox())),
        "deny": ("--deny /etc/shadow", in_sandbox(Sandbox(deny=["/etc/shadow"]))),
        "policy": (
            "21 rules on paths, addresses and argv",
            in_sandbox(Sandbox(policy=Policy.load(str(POLICY), variables=place))),
        ),
        "log": ("--deny /etc/shadow --audit", in_sandbox(Sandbox(deny=["/etc/shadow"], audit=log))),
    }
    runners = {name: Runner(program, start, expected) for name, (_, start) in ways.items()}
    made = table(
        "work",
        program.name,
        f"{program.what}: {counted.said()}",
        [Way(name, what, runners[name].run) for name, (what, _) in ways.items()],
        settings,
        unit="ms",
        reference="bare",
        warm=0,  # each has run already
    )
    return explained(made, {name: runner.judged for name, runner in runners.items()})


def explained(made: Table, judged: dict[str, int]) -> Table:
    """Returns a table whose rows say how many calls were judged, and what each came to."""
    base = made.row(made.reference)
    assert base is not None
    rows = []
    for row in made.rows:
        calls = judged.get(row.name, 0)
        what = row.what
        if calls:
            each = (row.value.median - base.value.median) * 1000 / calls
            what += f"; {calls:,} calls judged, {each:.1f} µs more for each"
        rows.append(msgspec.structs.replace(row, what=what))
    return msgspec.structs.replace(made, rows=tuple(rows))


def proved_bare(program: Program) -> str:
    """Runs a program by itself and returns what that proves; the second run proves the same.

    Raises:
        WrongError: It did not do its work, or not twice the same.
    """
    program.fresh()
    with tempfile.TemporaryFile() as output:
        bare(program, output)
        output.seek(0)
        proved = program.proof(output.read())
    Runner(program, bare, proved).run()
    return proved


def count(program: Program) -> Counted:
    """Runs a program and counts the calls that it makes with paths.

    Raises:
        WrongError: It did not end well.
    """
    calls: Counter[str] = Counter()
    tasks: set[int] = set()

    def sink(entry: Entry) -> None:
        about_open = bool(entry.paths) and not entry.paths[0].asked
        calls[entry.row.name + (' ""' if about_open else "")] += 1
        tasks.add(entry.tid)

    program.fresh()
    with tempfile.TemporaryFile() as output:
        command = Command(
            tuple(os.fsencode(word) for word in program.argv),
            {os.fsencode(name): os.fsencode(value) for name, value in program.env.items()},
            cwd=os.fsencode(program.cwd),
            streams=(-1, output.fileno(), 2),
        )
        session = Sandbox().session(command, sink, _said)
        session.start()
        _ended(program, os.waitstatus_to_exitcode(session.result().status))
        output.seek(0)
        program.proof(output.read())
    return Counted(calls, len(tasks))


def bare(program: Program, output: Any) -> int:
    """Runs a program by itself."""
    return wrapped((), program, output)


def wrapped(before: tuple[str, ...], program: Program, output: Any) -> int:
    """Runs a program with some words before its own.

    Raises:
        WrongError: It did not end well.
    """
    done = subprocess.run(
        [*before, *program.argv],
        check=False,
        cwd=program.cwd,
        env=dict(program.env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        timeout=_SECONDS,
    )
    _ended(program, done.returncode)
    return 0


def in_sandbox(sandbox: Sandbox) -> Callable[[Program, Any], int]:
    """Returns what runs a program in a sandbox, and returns how many calls were judged."""
    return partial(_sandboxed, sandbox)


def _sandboxed(sandbox: Sandbox, program: Program, output: Any) -> int:
    done = sandbox.run(
        program.argv,
        cwd=program.cwd,
        env=dict(program.env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        timeout=_SECONDS,
    )
    _ended(program, done.returncode)
    return done.trapped


def _ended(program: Program, status: int) -> None:
    if status:
        raise WrongError(f"{program.name}: it ended with {status}")


def _said(line: str) -> None:
    raise WrongError(line)
