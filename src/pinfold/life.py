"""The life of a run: it is started, waited for, signalled and killed, from any thread.

The run itself is a thread (``pinfold.session`` says why). What it does there is its subclass's.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

from pinfold.errors import InternalError, LaunchError, PinfoldError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.supervisor.listening import Listening
    from pinfold.supervisor.loop import Supervisor


class Outcome(NamedTuple):
    """How a run ended."""

    status: int
    """COMMAND's wait status."""
    denied: int
    """Calls that a rule denied."""
    redirected: int
    """Calls that a rule sent elsewhere."""
    trapped: int
    """Calls that were judged."""
    most: int
    """Tasks alive at one time, at most; on the native back end those that made a trapped call."""
    timed_out: bool = False
    """Whether it was killed because it took longer than its limit."""


class Life:
    """A run in a thread of its own.

    Attributes:
        launched: Set when COMMAND's process exists and has its descriptors, or never will.
        started: Set when COMMAND has been executed, or never will be.
        pid: COMMAND's process, once ``launched`` is set; 0 if there never was one.
    """

    def __init__(self) -> None:
        self.launched = threading.Event()
        self.started = threading.Event()
        self.pid = 0
        self._pidfd = -1
        # Again from a finalizer that runs while it is held: ``Popen.__del__`` sends a signal.
        self._lock = threading.RLock()
        self._supervisor: Supervisor | Listening | None = None
        self._stop_all: Callable[[], None] | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._on_end: Callable[[], None] | None = None
        self._after_launch: Callable[[], None] | None = None
        self._after_start: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="pinfold", daemon=True)

    def _supervise(self) -> Outcome:
        # Called in the thread: does all of it.
        raise NotImplementedError

    def _release(self) -> None:
        # Gives up what was prepared.
        raise NotImplementedError

    def start(
        self,
        on_end: Callable[[], None] | None = None,
        after_launch: Callable[[], None] | None = None,
        after_start: Callable[[], None] | None = None,
    ) -> None:
        """Starts the run. What is called must not raise.

        Args:
            on_end: Called in its thread when it is over.
            after_launch: Called there when ``launched`` has been set.
            after_start: Called there when ``started`` has been set.

        Raises:
            LaunchError: There is no thread for it.
        """
        self._on_end = on_end
        self._after_launch = after_launch
        self._after_start = after_start
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close()
            raise LaunchError(f"no thread for the supervisor: {error}", 125) from error

    def result(self) -> Outcome:
        """Waits for the end and returns how it was.

        Raises:
            PinfoldError: What went wrong; nothing of the sandbox is left then.
        """
        # ``on_end`` may ask, too.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise LaunchError("the run ended without an outcome", 125)
        return self._outcome

    def join(self, timeout: float | None) -> bool:
        """Waits for the end, ``timeout`` seconds at most; returns whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kills the sandbox and waits until nothing of it is left."""
        self.launched.wait()
        self.signal(signal.SIGKILL)
        self._thread.join()

    def signal(self, number: int) -> None:
        """Sends a signal to COMMAND; does nothing when it is not there (any more)."""
        with self._lock:
            if self._pidfd < 0:
                return
            if number == signal.SIGKILL and self._stop_all is not None:
                # Also when COMMAND is dead, but not seen to be: a tracer inside keeps it.
                self._stop_all()
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    @property
    def over(self) -> bool:
        """Whether the run has ended, though its thread may still be on its way out."""
        return self._outcome is not None or self._error is not None

    @property
    def stopped(self) -> bool:
        """Whether COMMAND is stopped by job control."""
        return self._supervisor is not None and self._supervisor.stopped

    @property
    def tasks(self) -> int:
        """How many tasks there are in the sandbox now."""
        return 0 if self._supervisor is None else self._supervisor.tasks

    def progress(self) -> str:
        """Returns a line about what was judged so far; from any thread."""
        supervisor = self._supervisor
        if supervisor is None:
            return "nothing was judged yet"
        return (
            f"{supervisor.trapped} calls judged, {supervisor.denied} denied,"
            f" {supervisor.redirected} redirected; {supervisor.tasks} tasks now"
        )

    def _run(self) -> None:
        try:
            self._outcome = self._supervise()
        except (OSError, MemoryError) as error:
            self._error = self._failed(error)
        except BaseException as error:  # noqa: BLE001 (it is raised again by result())
            self._error = error
        finally:
            # Whatever goes wrong on the way, whoever waits must hear of the end.
            try:
                self._close()
            except Exception as error:  # noqa: BLE001 (likewise)
                self._error = self._error or error
            finally:
                self._set_launched()
                self._set_started()
                if self._on_end is not None:
                    self._on_end()

    def _failed(self, error: OSError | MemoryError) -> PinfoldError:
        # Of an error that only the run as a whole can answer for. The sandbox is dead by now.
        text = str(error) or "out of memory"
        supervisor = self._supervisor
        if supervisor is None or not supervisor.executed:
            failed: PinfoldError = LaunchError(f"cannot start a sandbox: {text}", 125)
        else:
            failed = InternalError(f"the supervisor failed, and the sandbox was killed: {text}")
        failed.__cause__ = error
        return failed

    def _close(self) -> None:
        try:
            self._release()
        finally:
            with self._lock:
                if self._pidfd >= 0:
                    os.close(self._pidfd)
                    self._pidfd = -1

    def _set_launched(self) -> None:
        if self.launched.is_set():
            return
        self.launched.set()
        if self._after_launch is not None:
            self._after_launch()

    def _set_started(self) -> None:
        if self.started.is_set():
            return
        self.started.set()
        if self._after_start is not None:
            self._after_start()
