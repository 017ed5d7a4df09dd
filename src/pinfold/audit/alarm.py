"""Something that is done a little later, by a thread that otherwise sleeps."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm:
    """Calls a function some time after it was set, and again and again until that has its fill.

    Whoever sets it wakes a thread, which takes longer than whatever it is set for. So it goes on by
    itself while there is something to do.

    Args:
        delay: Seconds.
        ring: Called, in a thread of its own; returns whether to be called again. Must not raise.

    Raises:
        RuntimeError: There is no thread for it.
    """

    def __init__(self, delay: float, ring: Callable[[], bool]) -> None:
        self._delay = delay
        self._ring = ring
        # True for "set", False for "end".
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pinfold-log", daemon=True)
        self._thread.start()

    def set(self) -> None:
        """Has it ring when the delay is over; not to be set again while it goes on."""
        self._orders.put(True)

    def end(self) -> None:
        """Ends the thread, whether it was to ring or not, and waits for that."""
        self._orders.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._orders.get():
            again = True
            while again:
                try:
                    self._orders.get(timeout=self._delay)
                except Empty:
                    again = self._ring()
                else:
                    # Nothing but the end comes while it goes on.
                    return
