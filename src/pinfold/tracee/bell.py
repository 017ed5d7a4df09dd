"""A bell for a thread that waits for its tasks: another thread rings, and the wait returns.

``waitpid`` cannot be woken up by anything but a child. So the bell *is* a child: a process that
reads from a pipe, and stops itself for each byte. The stop is a wait result like any other, in
order with those of the tasks, and nothing has to be polled. Signals would not do: Python restarts
an interrupted wait in any thread but the main one, and their handlers belong to the host program.

The child has nothing open but its end of the pipe, takes no signal but SIGKILL and SIGSTOP, and
ends with the thread that started it. Between fork and its loop it makes plain calls only, as
``launch.spawn`` has it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import NoReturn

from pinfold.linux import process
from pinfold.linux.descriptors import above_streams, close_others
from pinfold.tracee.stops import stopped

_RINGS = 4096


class Bell:
    """Wakes the thread that made it out of its wait.

    Preconditions: all but :meth:`ring` is used by the thread that waits.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._reader = self._writer = -1
        # The number of a closed descriptor may be somebody else's by the time of a late ring.
        self._lock = threading.Lock()

    def hang(self) -> None:
        """Starts the child, if there is none.

        Raises:
            OSError: No process or descriptor is left for it (EAGAIN, EMFILE, ENOMEM).
        """
        if self._pid:
            return
        if self._writer < 0:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
        # The child must not run a handler of ours for a signal that comes at once.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = process.fork()
            if pid == 0:
                _listen(self._reader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._pid = pid

    def ring(self) -> None:
        """Makes the wait return; from any thread. Does nothing when the bell was taken down."""
        with self._lock:
            # As many rings as fit may be waiting to be heard.
            if self._writer >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"\0")

    def heard(self, tid: int, status: int) -> bool:
        """Returns whether a wait result is a ring, after making the bell ready for the next one."""
        if tid != self._pid or not tid:
            return False
        if stopped(status):
            os.kill(tid, signal.SIGCONT)
        else:
            # Somebody killed it. What it was about to tell is looked at anyway.
            self._pid = 0
            self.hang()
        return True

    def take_down(self) -> None:
        """Ends the child, which is then still to be waited for. May be called again."""
        if self._pid:
            process.kill(self._pid)
            self._pid = 0
        with self._lock:
            for descriptor in (self._reader, self._writer):
                if descriptor >= 0:
                    os.close(descriptor)
            self._reader = self._writer = -1


def _listen(reader: int) -> NoReturn:
    try:
        process.die_with_parent(signal.SIGKILL)
        reader = above_streams(reader)
        for stream in range(3):
            os.closerange(stream, stream + 1)
        close_others({reader})
        while os.read(reader, _RINGS):
            os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(0)
