"""Who has been heard of where nobody traces: threads, with their slots."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pinfold.tracee.notified import Notified

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.tracee.notified import Known


class Callers:
    """The threads that were heard of, with their slots.

    Args:
        common: What all of them have in common.

    Attributes:
        get: Returns the thread with an id, None if it was never heard of.
        gone: Called with each that is forgotten.
    """

    __slots__ = ("_common", "_threads", "get", "gone")

    def __init__(self, common: Known) -> None:
        self._common = common
        self._threads: dict[int, Notified] = {}
        self.get = self._threads.get
        self.gone: Callable[[Notified], object] = id

    def __len__(self) -> int:
        return len(self._threads)

    def add(self, tid: int) -> Notified:
        """Returns a thread that was not heard of before."""
        found = self._threads[tid] = Notified(tid, self._common)
        return found

    def forget_ended(self) -> None:
        """Forgets the threads that are gone."""
        for tid, one in list(self._threads.items()):
            # It has vanished when it is waited for, long after its last call.
            if not os.path.exists(b"/proc/%d" % tid):
                del self._threads[tid]
                self.gone(one)
