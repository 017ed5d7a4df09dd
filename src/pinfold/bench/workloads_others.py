"""What real programs take in other sandboxes and tracers, of those that are installed here.

They do not do the same. Bubblewrap judges no call, it hides files behind mounts. strace decides
nothing, and neither does PRoot, which rewrites paths on the program's own stack, where another
thread can rewrite them once more. Sandlock denies one file, as pinfold does here.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.bench.measure import Settings, Table, Way, table
from pinfold.bench.workloads import (
    Runner,
    bare,
    explained,
    in_sandbox,
    prepared,
    proved_bare,
    wrapped,
)
from pinfold.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.bench.workloads_programs import Program

_ROUNDS: Final = 3
_PROGRAMS: Final = ("git-status", "python", "c-build-tiny", "shell")
_DENIED: Final = "/etc/shadow"


class Other(NamedTuple):
    """Another sandbox, as words before a command."""

    name: str
    what: str
    program: str
    """What must be installed: a program, or ``python:MODULE``."""
    before: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether this machine has it."""
        kind, _, module = self.program.partition(":")
        if module:
            return importlib.util.find_spec(module) is not None
        return shutil.which(kind) is not None


OTHERS: Final = (
    Other(
        "bwrap",
        "bubblewrap; a mount hides one file",
        "bwrap",
        (
            *("bwrap", "--die-with-parent", "--bind", "/", "/", "--dev-bind", "/dev", "/dev"),
            *("--proc", "/proc", "--ro-bind", "/dev/null", _DENIED, "--"),
        ),
    ),
    Other(
        "strace-seccomp",
        "strace -f --seccomp-bpf -e trace=%file, which stops only calls with paths",
        "strace",
        ("strace", "-f", "--seccomp-bpf", "-e", "trace=%file", "-o", "/dev/null", "--"),
    ),
    Other(
        "strace",
        "strace -f, which stops every call twice",
        "strace",
        ("strace", "-f", "-o", "/dev/null", "--"),
    ),
    Other("proot", "PRoot on the same root", "proot", ("proot", "-r", "/")),
    Other(
        "sandlock",
        "Sandlock with fs_denied of one file, from a fresh Python",
        "python:sandlock",
        (sys.executable, "-m", "pinfold.bench.workloads_sandlock", _DENIED),
    ),
)


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what real programs take in other sandboxes.

    Raises:
        WrongError: A program did not do its work.
    """
    settings = settings._replace(rounds=min(settings.rounds, _ROUNDS))
    for program, missing in prepared(settings, _PROGRAMS):
        if program is None:
            for line in missing:
                name, _, why = line.partition(": ")
                if name in _PROGRAMS:
                    yield Table("others", name, name, "ms", "", (), (why, *_lacking()))
        else:
            yield measured(program, settings)


def measured(program: Program, settings: Settings) -> Table:
    """Races a program by itself, in pinfold, and in the others that are installed.

    Raises:
        WrongError: It did not do its work.
    """
    expected = proved_bare(program)
    starts: dict[str, tuple[str, Callable[[Program, Any], int]]] = {
        "bare": ("by itself", bare),
        "pinfold": (f"pinfold, --deny {_DENIED}", in_sandbox(Sandbox(deny=[_DENIED]))),
    }
    for one in OTHERS:
        if one.installed:
            starts[one.name] = one.what, partial(wrapped, one.before)
    runners = {name: Runner(program, start, expected) for name, (_, start) in starts.items()}
    made = table(
        "others",
        program.name,
        program.what,
        [Way(name, what, runners[name].run) for name, (what, _) in starts.items()],
        settings,
        unit="ms",
        reference="bare",
        warm=0,
        missing=_lacking(),
    )
    return explained(made, {name: runner.judged for name, runner in runners.items()})


def _lacking() -> tuple[str, ...]:
    return tuple(f"{one.name}: not installed" for one in OTHERS if not one.installed)
