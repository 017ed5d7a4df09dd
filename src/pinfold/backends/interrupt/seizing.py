"""Seizing a task whose process may be executing a program.

PTRACE_SEIZE waits for a lock that is held by whoever executes a program in that process
(``cred_guard_mutex``; ``ptrace_attach`` in kernel/ptrace.c). The exec first waits until all other
threads of the process are gone (``de_thread`` in fs/exec.c), and one that is traced is gone when
its tracer has waited for it: which a tracer that waits for the lock does not. Nobody would ever go
on. No signal helps, as the call is restarted after each, and nothing tells beforehand that there is
an exec.

So a second thread waits in its place. It is woken up by a timer, which is set while something is
seized and goes off only where that takes long. What it finds, ends and stops, is kept for the
tracer.

Preconditions: all signals are blocked in the process, and nobody else in it has children, or uses
ITIMER_REAL.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final

from pinfold.linux import ptrace
from pinfold.uapi.ptrace import WALL

if TYPE_CHECKING:
    from collections.abc import Callable

_LONG: Final = 0.02
"""Seconds; an exec that waits for nobody is over long before."""


class Seizing:
    """Seizes tasks for the thread that traces.

    Args:
        keep: Called by that thread with the wait results (task id, status) that were found
            meanwhile, in their order.

    Raises:
        RuntimeError: There is no second thread.
    """

    __slots__ = ("_found", "_keep", "_lock", "_under_way")

    def __init__(self, keep: Callable[[int, int], None]) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._under_way = False
        self._found: list[tuple[int, int]] = []
        threading.Thread(target=self._stand_in, daemon=True).start()

    def seize(self, tid: int, options: int) -> None:
        """Makes the calling thread the tracer of a task; see ``ptrace.seize``.

        Raises:
            OSError: As there; ESRCH or EPERM for one that has died in an exec.
        """
        self._under_way = True
        signal.setitimer(signal.ITIMER_REAL, _LONG, _LONG)
        try:
            ptrace.seize(tid, options)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            with self._lock:
                self._under_way = False
            for one, status in self._found:
                self._keep(one, status)
            self._found.clear()

    def _stand_in(self) -> None:
        while True:
            signal.sigwait({signal.SIGALRM})
            with self._lock:
                # One that comes late is about nothing any more.
                while self._under_way and self._wait():
                    continue

    def _wait(self) -> bool:
        # Unlike the tracer's own waits this one is about other threads' tracees, too.
        try:
            tid, status = os.waitpid(-1, WALL | os.WNOHANG)
        except ChildProcessError:
            return False
        if tid:
            self._found.append((tid, status))
        return bool(tid)
