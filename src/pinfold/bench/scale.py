"""What a call costs when many tasks make calls at the same time.

One thread judges them all. A call may wait for others then, but one of many is not to cost more
than the only one. Bare ones show what is the machine's: switches between more and more tasks.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from pinfold.bench.loops import BAIT, FILE, Loop, alone, boxed, words
from pinfold.bench.measure import Settings, Table, Way, table
from pinfold.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS: Final = (1, 2, 4, 16, 64)
"""Of one process."""
PROCESSES: Final = (1, 2, 4, 16, 64, 256)
"""Of one thread each."""
CALLS: Final = 3000
"""In one turn, of all tasks together; at least a few of each."""
_FEW: Final = 20


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what a call costs, made by more and more tasks; one table after the other.

    Raises:
        UnsupportedError: There is no compiler, or no tracing.
        WrongError: The work was not done.
    """
    yield _raced(settings, "threads", {size: (1, size) for size in THREADS})
    yield _raced(settings, "processes", {size: (size, 1) for size in PROCESSES})


def _raced(settings: Settings, name: str, shapes: dict[int, tuple[int, int]]) -> Table:
    free = frozenset(os.sched_getaffinity(0))
    box = Sandbox(map={BAIT: FILE})
    if settings.quick:
        shapes = dict(list(shapes.items())[:3])
    with contextlib.ExitStack() as cleanup:
        ways = []
        for size, (processes, threads) in shapes.items():
            calls = max(_FEW, settings.times(CALLS) // size)
            given = (str(processes), str(threads))
            supervised = partial(boxed, box, words("crowd", *given, BAIT), redirected=True)
            bare = partial(alone, words("crowd", *given, FILE))
            for row, what, start in (
                (str(size), "redirected", supervised),
                (f"{size} bare", "no sandbox", bare),
            ):
                loop = Loop(f"{row} {name}", free, start, size)
                cleanup.callback(loop.close)
                ways.append(Way(row, what, partial(loop.run, calls)))
        title = f"a redirected call, made by many {name} at a time"
        return table("scale", name, title, ways, settings, unit="µs", reference="1")
