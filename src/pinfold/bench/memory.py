"""What a supervisor holds of the machine: memory and descriptors, by the number of processes.

It is ``pinfold run``, in a process of its own. Each process of the sandbox has made a trapped call,
so that all that is kept of a process is there; then they sleep while it is looked at.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.bench.loops import BAIT, FILE, Loop, Started, words
from pinfold.bench.measure import Settings, Table, WrongError, tabled
from pinfold.bench.start import command

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES: Final = (1, 100, 1000)
"""In the sandbox."""
MOST_ROUNDS: Final = 3
"""It hardly differs."""
_MAPPED: Final = f"--map={BAIT}={FILE}"
_KILOBYTES: Final = 1024 / 1e6


class Held(NamedTuple):
    """What a process holds."""

    rss: float
    """Megabytes (of 1,000,000 bytes), shared ones included."""
    pss: float
    """Megabytes, of shared ones its share."""
    descriptors: int


def tables(settings: Settings) -> Iterator[Table]:
    """Looks at supervisors of more and more processes.

    Raises:
        UnsupportedError: There is no compiler.
        WrongError: The work was not done.
    """
    sizes = PROCESSES[:1] if settings.quick else PROCESSES
    found: dict[int, list[Held]] = {size: [] for size in sizes}
    for _ in range(min(settings.rounds, MOST_ROUNDS)):
        for size in sizes:
            settings.say(f"memory: {size} processes")
            try:
                found[size].append(_supervising(size))
            except PermissionError as error:
                missing = f"{error.filename}: only root may look at a supervisor"
                yield Table("memory", "rss", "the supervisor's memory", "MB", "", (), (missing,))
                return
    whats = {str(size): f"{size:,} processes" for size in sizes}
    for name, what, unit in (
        ("rss", "the supervisor's memory", "MB"),
        ("pss", "the same, of what is shared its share", "MB"),
        ("descriptors", "the supervisor's descriptors", ""),
    ):
        took = {str(size): [float(getattr(one, name)) for one in found[size]] for size in sizes}
        yield tabled("memory", name, what, whats, took, unit=unit)


def _supervising(size: int) -> Held:
    # What a supervisor holds when all its processes have made a call.
    argv = [*command(), "run", _MAPPED, "--", *words("crowd", str(size), "1", BAIT)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    begun = Started(process.stdin.fileno(), process.stdout.fileno(), lambda _: None, process.pid)
    with process:
        try:
            loop = Loop(
                f"{size} processes", frozenset(os.sched_getaffinity(0)), lambda: begun, size
            )
            loop.run(2)
            return held(process.pid)
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdin.close()
            if process.wait() > 0:
                raise WrongError(f"{argv}: ended with {process.returncode}")


def held(pid: int) -> Held:
    """Returns what a process holds now.

    Raises:
        PermissionError: It is not ours to look at.
        OSError: It is gone.
    """
    fields = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in list(file)[1:]:
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) * _KILOBYTES
    return Held(fields["Rss"], fields["Pss"], len(os.listdir(f"/proc/{pid}/fd")))
