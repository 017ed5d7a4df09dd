"""One queue of wait results for everything that one thread traces.

Work on one task (an injected call, say) has to wait for *that* task; but it must not leave the
others unreaped meanwhile. A thread that executes a program waits inside the kernel until its killed
siblings have been reaped by their tracer; a supervisor that waits for one of these siblings alone
waits forever. So every wait here asks for any task, and what belongs to others is kept for later.

``__WNOTHREAD`` keeps the wait to children and tracees of the calling thread, so that a sandbox in a
library thread never reaps somebody else's subprocess.
"""

from __future__ import annotations

import errno
import os
from collections import deque

from pinfold.errors import TraceeGone
from pinfold.tracee.stops import stopped
from pinfold.uapi.ptrace import WALL, WNOTHREAD

_ANY = WALL | WNOTHREAD | os.WUNTRACED
"""WUNTRACED is for children that are not traced: the bell (``tracee.bell``)."""


class Waits:
    """Wait results of the calling thread's children and tracees, in the order they came.

    Preconditions: used only by the thread that traces.
    """

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[tuple[int, int]] = deque()

    def next(self) -> tuple[int, int]:
        """Returns the next (task id, status); blocks until there is one.

        Raises:
            ChildProcessError: Nothing is left to wait for.
        """
        if self._queue:
            return self._queue.popleft()
        return os.waitpid(-1, _ANY)

    def ready(self) -> tuple[int, int] | None:
        """Returns the next (task id, status) if there is one already."""
        if self._queue:
            return self._queue.popleft()
        try:
            tid, status = os.waitpid(-1, _ANY | os.WNOHANG)
        except ChildProcessError:
            return None
        return (tid, status) if tid else None

    def push_back(self, tid: int, status: int) -> None:
        """Puts a result at the head of the queue, to be handled next."""
        self._queue.appendleft((tid, status))

    def stop_of(self, tid: int) -> int:
        """Returns the next stop status of one task, keeping all other results for later.

        Raises:
            TraceeGone: It ended instead; the end is kept in the queue for the main loop.
        """
        for index, (other, status) in enumerate(self._queue):
            if other == tid:
                del self._queue[index]
                return self._live(tid, status)
        while True:
            try:
                other, status = os.waitpid(-1, _ANY)
            except ChildProcessError as error:
                raise TraceeGone(tid) from error
            if other == tid:
                return self._live(tid, status)
            self._queue.append((other, status))

    def poll(self, tid: int) -> int | None:
        """Returns a stop status of one task if there is one already, else None.

        Raises:
            TraceeGone: It ended; the end is kept in the queue for the main loop.
        """
        while True:
            try:
                other, status = os.waitpid(-1, _ANY | os.WNOHANG)
            except OSError as error:
                if error.errno != errno.ECHILD:
                    raise
                raise TraceeGone(tid) from error
            if other == 0:
                break
            self._queue.append((other, status))
        for index, (other, status) in enumerate(self._queue):
            if other == tid:
                del self._queue[index]
                return self._live(tid, status)
        return None

    def _live(self, tid: int, status: int) -> int:
        if not stopped(status):
            self._queue.append((tid, status))
            raise TraceeGone(tid)
        return status
