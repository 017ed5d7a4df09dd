"""A command on its way through a sandbox: what ``Popen`` and ``AsyncPopen`` have in common.

A session ends in a thread of its own. Whoever waits for that in another way than by joining the
thread (a selector, an event loop) has itself called back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from pinfold.audit.memory import Records
from pinfold.audit.record import start
from pinfold.audit.writer import AuditWriter
from pinfold.errors import AuditError
from pinfold.session import require_machine
from pinfold.tracee.stops import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.audit.record import Entry
    from pinfold.launch.spawn import Command
    from pinfold.life import Outcome
    from pinfold.policy.model import PolicyModel
    from pinfold.session import Session
    from pinfold.streams import StrOrBytes


class Configuration(Protocol):
    """What a ``Sandbox`` is to those that start commands in it."""

    @property
    def audit(self) -> bool | StrOrBytes:
        """Whether, or where, calls are logged."""

    @property
    def log_sync(self) -> bool:
        """Whether each line of the log is in its file before its call is let go."""

    @property
    def dry_run(self) -> bool:
        """Whether verdicts are only noted."""

    @property
    def model(self) -> PolicyModel:
        """The rules of the policy."""

    def rules_in_words(self) -> list[str]:
        """Returns further rules as the log shows them."""

    def session(
        self,
        command: Command,
        sink: Callable[[Entry], None] | None,
        report: Callable[[str], None],
        late: AuditWriter | None = None,
    ) -> Session:
        """Returns a session for one command, not started yet."""


class Running:
    """A command that was started in a sandbox.

    Args:
        sandbox: The sandbox.
        command: The command.
        after_launch: Called in any thread when the command's process exists, or never will.
        after_start: Called in any thread when ``started`` has been set.

    Raises:
        PolicyError: A path or a limit of the sandbox cannot be had.
        UnsupportedError: This machine lacks something.
        AuditError: The log cannot be opened.
    """

    def __init__(
        self,
        sandbox: Configuration,
        command: Command,
        after_launch: Callable[[], None] | None = None,
        after_start: Callable[[], None] | None = None,
    ) -> None:
        require_machine()
        self._records = (
            Records(sandbox.model.on_audit_loss, _report) if sandbox.audit is True else None
        )
        self._lock = threading.RLock()
        self._over = False
        self._watchers: list[Callable[[], None]] = []
        self._unfinished: AuditError | None = None
        self._writer: AuditWriter | None = None
        if not isinstance(sandbox.audit, bool):
            self._writer = AuditWriter.open(
                os.fsdecode(sandbox.audit),
                on_loss=sandbox.model.on_audit_loss,
                start=_told(sandbox, command),
                warn=_report,
            )
        try:
            late = None if sandbox.log_sync else self._writer
            self._session = sandbox.session(command, self._sink(), _report, late)
            for line in self._session.warnings:
                _warn(line)
            self._session.start(self._ended, after_launch, after_start)
        except BaseException:
            if self._writer is not None:
                self._writer.close()
            raise

    @property
    def pid(self) -> int:
        """The command's process id; known when ``await_start`` has returned."""
        return self._session.pid

    @property
    def started(self) -> threading.Event:
        """Set when the command was executed, or never will be."""
        return self._session.started

    @property
    def over(self) -> bool:
        """Whether nothing of the sandbox is left."""
        return self._over

    def await_start(self) -> None:
        """Waits until the command was executed.

        Raises:
            PinfoldError: It never will be; as from ``result``.
        """
        self.started.wait()
        if self._session.over:
            self.result()

    def result(self) -> Outcome:
        """Waits for the end and returns how it was.

        Raises:
            PinfoldError: What went wrong; nothing of the sandbox is left then.
        """
        # Joined first, so that nothing but an error of the run comes out of the next call.
        self._session.join(None)
        outcome = self._session.result()
        if self._unfinished is not None:
            raise self._unfinished
        return outcome

    def join(self, timeout: float | None) -> bool:
        """Waits for the end, ``timeout`` seconds at most; returns whether it has come."""
        return self._session.join(timeout)

    def signal(self, number: int) -> None:
        """Sends a signal to the command; does nothing when it has ended."""
        self._session.signal(number)

    def kill(self) -> None:
        """Kills the sandbox and waits until nothing of it is left."""
        self._session.kill()

    def kill_soon(self) -> None:
        """Has the sandbox killed, without waiting for anything."""
        if self._session.launched.is_set():
            self._session.signal(signal.SIGKILL)
        else:
            threading.Thread(target=self._session.kill, name="pinfold-kill", daemon=True).start()

    def watch(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called at the end, in any thread, or at once if that has come."""
        with self._lock:
            if not self._over:
                self._watchers.append(callback)
                return
        callback()

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Takes ``watch`` back. When this returns, the callback is not running either."""
        with self._lock:
            if callback in self._watchers:
                self._watchers.remove(callback)

    @contextlib.contextmanager
    def end_descriptor(self) -> Iterator[int]:
        """Gives a descriptor that becomes readable at the end."""
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

        def tell() -> None:
            os.eventfd_write(fd, 1)

        try:
            self.watch(tell)
            yield fd
        finally:
            self.unwatch(tell)
            os.close(fd)

    @property
    def records(self) -> list[dict[str, Any]] | None:
        """The log's records so far, where the sandbox collects them; else None."""
        return None if self._records is None else self._records.plain()

    def _sink(self) -> Callable[[Entry], None] | None:
        if self._records is not None:
            return self._records.add
        return None if self._writer is None else self._writer.write

    def _ended(self) -> None:
        # In the session's thread.
        if self._writer is not None:
            try:
                self._writer.finish(self._status())
            except AuditError as error:
                self._unfinished = error
            self._writer.close()
        with self._lock:
            self._over = True
            while self._watchers:
                self._watchers.pop()()

    def _status(self) -> dict[str, Any]:
        # What the last line of the log says.
        try:
            outcome = self._session.result()
        except Exception as error:  # noqa: BLE001 (whoever waits is told)
            return {"reason": f"{type(error).__name__}: {error}"}
        if outcome.timed_out:
            return {"reason": "time limit", "exit": exit_code(outcome.status)}
        return {"reason": "ended", "exit": exit_code(outcome.status)}


class Signalled:
    """What ``Popen`` and ``AsyncPopen`` do to a command while it runs."""

    @property
    def _job(self) -> Running:
        raise NotImplementedError

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the command; does nothing when it has ended."""
        self._job.signal(sig)

    def terminate(self) -> None:
        """Sends SIGTERM to the command."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the command, and with it all that runs in the sandbox."""
        self.send_signal(signal.SIGKILL)


def _told(sandbox: Configuration, command: Command) -> dict[str, Any]:
    # What the first line of the log says.
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = b""
    return start(
        argv=command.argv,
        cwd=here if command.cwd is None else os.path.join(here, command.cwd),
        uid=os.getuid(),
        kernel=os.uname().release,
        dry=sandbox.dry_run,
        rules=sandbox.rules_in_words(),
        policy=list(zip(sandbox.model.files, sandbox.model.digests, strict=True)),
    )


def _report(line: str) -> None:
    # Imported when there is something to say: most runs have nothing.
    import logging  # noqa: PLC0415

    logging.getLogger("pinfold").error(line)


def _warn(line: str) -> None:
    import logging  # noqa: PLC0415 (likewise)

    logging.getLogger("pinfold").warning(line)
