"""One queue of wait results for everything that one thread traces.

Work on one task (an injected call, say) has to wait for *that* task; but it must not leave the
others unreaped meanwhile. A thread that executes a program waits inside the kernel until its killed
siblings have been reaped by their tracer; a supervisor that waits for one of these siblings alone
waits forever. So every wait here asks for any task, and what belongs to others is kept for later.

The kernel looks through tasks from the newest to the oldest, each time anew. Where some new ones
are stopped again whenever it looks, an older one would never be found. So from time to time all
results that are there are taken, and dealt with before it is asked again.

``__WNOTHREAD`` keeps the wait to children and tracees of the calling thread, so that a sandbox in a
library thread never reaps somebody else's subprocess.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict, deque

from pinfold.errors import TraceeGone
from pinfold.tracee.stops import stopped
from pinfold.uapi.ptrace import WALL, WNOTHREAD

_ANY = WALL | WNOTHREAD | os.WUNTRACED
"""WUNTRACED is for children that are not traced: the bell (``tracee.bell``)."""

_PATIENCE = 1024
"""Results that a postponed one lets pass, at most."""

_TURNS = 64
"""Results that are taken as the kernel has them, before everybody has a turn."""


class Waits:
    """Wait results of the calling thread's children and tracees; everybody's turn comes.

    What is kept for later is found by its task: while a pin is installed in one of a thousand tasks
    that are all at work, most of the others stop, too.

    Preconditions: used only by the thread that traces.
    """

    __slots__ = ("_forced", "_passed", "_postponed", "_queue", "_taken")

    def __init__(self) -> None:
        # By task; those of one task in the order they came.
        self._queue: OrderedDict[int, deque[int]] = OrderedDict()
        self._postponed: OrderedDict[int, int] = OrderedDict()
        self._passed = 0
        self._forced = 0
        self._taken = 0

    def next(self) -> tuple[int, int]:
        """Returns the next (task id, status); blocks until there is one.

        Raises:
            ChildProcessError: Nothing is left to wait for.
        """
        if not self._postponed:
            if self._queue:
                return self._first()
            self._taken += 1
            return os.waitpid(-1, _ANY) if self._taken < _TURNS else self._take(0)
        self._passed += 1
        found = self.ready() if self._passed <= _PATIENCE else None
        if found is None:
            found = self._postponed.popitem(last=False)
            self._forced = found[0]
            self._passed = 0
        else:
            # It has ended, or was replaced by an exec: the stop before that is void.
            self._postponed.pop(found[0], None)
        return found

    def postpone(self, tid: int, status: int) -> bool:
        """Has a stop come again when no other is there; returns whether that makes sense.

        It does not when it has just come again because of that. For stops that need something which
        other tasks' stops give back: nobody waits for ever, since only so many may come before.
        """
        forced, self._forced = self._forced, 0
        if tid == forced:
            return False
        if not self._postponed:
            self._passed = 0
        self._postponed[tid] = status
        return True

    def ready(self) -> tuple[int, int] | None:
        """Returns the next (task id, status) if there is one already."""
        if self._queue:
            return self._first()
        try:
            tid, status = self._take(os.WNOHANG)
        except ChildProcessError:
            return None
        return (tid, status) if tid else None

    def push_back(self, tid: int, status: int) -> None:
        """Puts a result at the head of the queue, to be handled next."""
        self._queue.setdefault(tid, deque()).appendleft(status)
        self._queue.move_to_end(tid, last=False)

    def keep(self, tid: int, status: int) -> None:
        """Keeps a result for later, behind what is there of the same task."""
        self._queue.setdefault(tid, deque()).append(status)

    def stop_of(self, tid: int) -> int:
        """Returns the next stop status of one task, keeping all other results for later.

        Raises:
            TraceeGone: It ended instead; the end is kept in the queue for the main loop.
        """
        status = self._kept(tid)
        while status is None:
            try:
                other, found = os.waitpid(-1, _ANY)
            except ChildProcessError as error:
                raise TraceeGone(tid) from error
            if other == tid:
                status = found
            else:
                self.keep(other, found)
        return self._live(tid, status)

    def poll(self, tid: int) -> int | None:
        """Returns a stop status of one task if there is one already, else None.

        Raises:
            TraceeGone: It ended; the end is kept in the queue for the main loop.
        """
        status = self._kept(tid)
        while status is None:
            try:
                other, found = os.waitpid(-1, _ANY | os.WNOHANG)
            except OSError as error:
                if error.errno != errno.ECHILD:
                    raise
                raise TraceeGone(tid) from error
            if other == 0:
                return None
            if other == tid:
                status = found
            else:
                self.keep(other, found)
        return self._live(tid, status)

    def _take(self, flags: int) -> tuple[int, int]:
        # As waitpid(). Nothing is resumed before all have been asked, so each is found but once.
        found = os.waitpid(-1, _ANY | flags)
        self._taken += 1
        if self._taken >= _TURNS:
            self._taken = 0
            self._take_all()
        return found

    def _take_all(self) -> None:
        while True:
            try:
                tid, status = os.waitpid(-1, _ANY | os.WNOHANG)
            except ChildProcessError:
                return
            if not tid:
                return
            self.keep(tid, status)

    def _first(self) -> tuple[int, int]:
        tid = next(iter(self._queue))
        status = self._kept(tid)
        assert status is not None
        return tid, status

    def _kept(self, tid: int) -> int | None:
        statuses = self._queue.get(tid)
        if statuses is None:
            return None
        status = statuses.popleft()
        if not statuses:
            del self._queue[tid]
        return status

    def _live(self, tid: int, status: int) -> int:
        if not stopped(status):
            self.keep(tid, status)
            raise TraceeGone(tid)
        return status
