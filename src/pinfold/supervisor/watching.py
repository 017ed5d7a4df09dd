"""COMMAND's process where nobody traces: whether it has executed, its stops, its end.

A parent hears of the end of a child by a descriptor, of its stops by job control only by waiting.
So a thread waits. It takes nothing from other children: it waits for this one.
"""

from __future__ import annotations

# The part of ``socket`` that is C; see ``launch.spawn``.
import _socket as socket
import contextlib
import os
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from pinfold.errors import InternalError, LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.launch.spawn import Launched

_FORKNOEXEC: Final = 0x40
"""``PF_FORKNOEXEC`` (linux/sched.h): it has executed nothing since it was forked."""
_FLAGS: Final = 6
"""Of the fields of ``/proc/PID/stat`` behind the name, the task's flags."""
_ENDS: Final = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)


class Watch:
    """Waits for COMMAND's process.

    Args:
        launched: The process.
        ring: Called in another thread when there is something to be looked at.

    Attributes:
        executed: Whether COMMAND has been executed, as far as is known.
        stopped: Whether it is stopped by job control, as far as :meth:`stops` was asked.

    Preconditions: used by one thread.
    """

    __slots__ = (
        "_changes",
        "_launched",
        "_lost",
        "_ring",
        "_status",
        "_thread",
        *("executed", "stopped"),
    )

    def __init__(self, launched: Launched, ring: Callable[[], None]) -> None:
        self._launched = launched
        self._ring = ring
        self._changes: deque[tuple[int, int]] = deque()
        self._lost: OSError | None = None
        self._status: int | None = None
        self._thread = threading.Thread(target=self._wait, name="pinfold-wait", daemon=True)
        self.executed = False
        self.stopped = False

    def start(self) -> None:
        """Begins.

        Raises:
            LaunchError: There is no thread for it.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise LaunchError(f"no thread for the supervisor: {error}", 125) from error

    def _wait(self) -> None:
        pid = self._launched.pid
        changes = os.WSTOPPED | os.WCONTINUED
        try:
            while True:
                # First without taking the result: some things can only be seen as long as it is
                # there.
                found = os.waitid(os.P_PID, pid, os.WEXITED | changes | os.WNOWAIT)
                assert found is not None
                if found.si_code in _ENDS:
                    self.executed = self.executed or not self._has_only_forked()
                    self._status = os.waitpid(pid, 0)[1]
                    break
                found = os.waitid(os.P_PID, pid, changes | os.WNOHANG)
                if found is not None:
                    self._changes.append((found.si_code, found.si_status))
                    self._ring()
        except OSError as error:
            self._lost = error
            self._ring()

    @property
    def lost(self) -> bool:
        """Whether somebody else has waited for it."""
        return self._lost is not None

    def stops(self) -> list[int]:
        """Returns the signals by which it was stopped since this was last asked."""
        found = []
        while self._changes:
            code, number = self._changes.popleft()
            before, self.stopped = self.stopped, code == os.CLD_STOPPED
            if self.stopped and not before:
                found.append(number)
        return found

    def executes(self) -> bool:
        """Returns whether it was executed, when its channel has become readable.

        It is closed by the exec that succeeds, and by the end of the process.
        """
        if not self._reported() and not self._has_only_forked():
            self.executed = True
        return self.executed

    def _reported(self) -> bool:
        # Whether the child has told why nothing could be executed. That stays there to be read.
        try:
            return bool(self._launched.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _has_only_forked(self) -> bool:
        # Also when it is gone.
        try:
            with open(f"/proc/{self._launched.pid}/stat", "rb") as status:
                text = status.read()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return bool(int(text.rpartition(b")")[2].split()[_FLAGS]) & _FORKNOEXEC)

    def kill(self) -> None:
        """Kills it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._launched.pidfd, signal.SIGKILL)

    def ended(self) -> int:
        """Waits for its end and returns its wait status.

        Raises:
            InternalError: Somebody else has waited for it.
        """
        if self._thread.ident is None:
            self._wait()
        else:
            self._thread.join()
        if self._lost is not None or self._status is None:
            raise InternalError(f"somebody else waited for COMMAND: {self._lost}")
        return self._status
