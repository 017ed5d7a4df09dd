"""A bell for a thread that waits for descriptors: another thread rings, and one is readable."""

from __future__ import annotations

import contextlib
import os
import threading


class Waking:
    """Wakes the thread that polls it.

    Preconditions: all but :meth:`ring` is used by the thread that waits.

    Raises:
        OSError: EMFILE.
    """

    __slots__ = ("_event", "_lock")

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # The number of a closed descriptor may be somebody else's by the time of a late ring.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """Returns the descriptor that is readable after a ring; -1 when it was taken down."""
        return self._event

    def hang(self) -> None:
        """Does nothing: it is ready."""

    def ring(self) -> None:
        """Makes the wait return; from any thread. Does nothing when it was taken down."""
        with self._lock:
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def heard(self) -> None:
        """Makes it ready for the next ring."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def take_down(self) -> None:
        """Closes it. May be called again."""
        with self._lock:
            if self._event >= 0:
                os.close(self._event)
            self._event = -1
