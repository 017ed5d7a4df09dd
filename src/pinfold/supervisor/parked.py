"""Calls whose verdict takes its time: their tasks stay stopped, all others go on.

A parked task takes no signal but SIGKILL until its verdict is there, like one in an uninterruptible
wait. What is parked is known by the task *and* the moment: a verdict for a task that has died
meanwhile, or whose id another one has got, finds nothing.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Verdict
    from pinfold.supervisor.decision import Waiting


class Parked(NamedTuple):
    """A trapped call that waits."""

    slot: Slot
    waiting: Waiting


class Ringing(Protocol):
    """What wakes the supervisor's thread; see ``tracee.bell`` and ``supervisor.waking``."""

    def hang(self) -> None:
        """Makes it ready, if it is not.

        Raises:
            OSError: What it needs is not to be had.
        """

    def ring(self) -> None:
        """Wakes the thread; from any. Does nothing when it was taken down."""

    def take_down(self) -> None:
        """Ends it. May be called again."""


class ParkingLot:
    """The calls of one sandbox that wait for a verdict.

    Args:
        bell: Wakes the supervisor's thread.

    Preconditions: used by that thread; verdicts come in from any.
    """

    __slots__ = ("_bell", "_calls", "_verdicts")

    def __init__(self, bell: Ringing) -> None:
        self._bell = bell
        self._calls: dict[int, Parked] = {}
        self._verdicts: deque[tuple[Parked, Verdict]] = deque()

    def park(self, slot: Slot, waiting: Waiting) -> None:
        """Begins to wait for a verdict.

        Raises:
            OSError: There is no process left for the bell.
        """
        self._bell.hang()
        parked = Parked(slot, waiting)
        self._calls[waiting.read.task.tid] = parked
        waiting.later.start(partial(self._come, parked))

    def _come(self, parked: Parked, verdict: Verdict) -> None:
        self._verdicts.append((parked, verdict))
        self._bell.ring()

    def ready(self) -> Iterator[tuple[Parked, Verdict]]:
        """Yields the calls that need not wait any more."""
        while self._verdicts:
            parked, verdict = self._verdicts.popleft()
            tid = parked.waiting.read.task.tid
            if self._calls.get(tid) is parked:
                del self._calls[tid]
                yield parked, verdict

    def drop(self, tid: int) -> None:
        """Forgets the call of a task that is gone, or has become another one."""
        parked = self._calls.pop(tid, None)
        if parked is not None:
            parked.waiting.later.cancel()

    def close(self) -> None:
        """Forgets all, and takes the bell down."""
        try:
            for tid in list(self._calls):
                self.drop(tid)
        finally:
            self._bell.take_down()
