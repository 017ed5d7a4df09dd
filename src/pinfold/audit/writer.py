"""Writing the log: a line is in the file before the call that it is about is let go, or soon after.

Before: for each call that is denied, killed, redirected or answered, and every call of a log that
is written at once (``--log-sync``, a pipe, standard error). One ``write(2)`` a line then.

Soon after: an allowed call of a run whose log is a file of our own. Its line, chained and complete,
waits in this process until there are 64 KiB of them, a call comes that has to be on record first,
or 20 ms have passed, whichever is first. Only the sudden end of this process loses what waits: the
end of a run, in whatever way, writes it. Nothing waits for the disk in either case.

A log that cannot be written ends the sandbox: what is not on record does not happen, apart from the
lines that were waiting. A policy may say that it goes on instead (``on_loss``). Then calls without
a line are counted, each later call tries again, and the first line that can be written tells of
the gap. What was written of a line in part is taken back where that is possible. Elsewhere (a pipe,
somebody else's standard error) it stays, the next line begins after a newline, and the half line
is seen for what it is.

Python starts with SIGXFSZ and SIGPIPE ignored, so that a file that may not grow is EFBIG, a reader
that is gone EPIPE, and both are an ``OSError`` like a full disk's.
"""

from __future__ import annotations

import atexit
import os
import select
import stat
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Literal

from pinfold import __version__
from pinfold.audit.schema import SCHEMA
from pinfold.errors import AuditError, InternalError
from pinfold.policy.rules import ALLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pinfold.audit.alarm import Alarm
    from pinfold.audit.record import Entry

OnLoss = Literal["stop", "continue"]

ROOM: Final = 64 << 10
"""Bytes of lines that wait at most."""
DELAY: Final = 0.02
"""Seconds that a line waits at most, apart from what the machine needs to wake a thread."""


class AuditWriter:
    """Writes the lines of one run to a descriptor.

    Args:
        descriptor: Open for writing; owned by the writer when ``close`` is true.
        name: What to call it in messages.
        close: Whether to close the descriptor in the end.
        on_loss: What a line that cannot be written means: an error, or a line that is missing.
        warn: Called with one line, once, when the first line is lost.

    Attributes:
        lost: Calls that have no line.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        *,
        close: bool,
        on_loss: OnLoss = "stop",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        # Imported here, since every `pinfold run` imports this module and few of them write a log.
        from pinfold.audit import chain, encode  # noqa: PLC0415

        self._follow = chain.follow
        self._head_of = chain.head_of
        self._dumps = chain.dumps
        self._fields = encode.Encoder().fields
        # Of the last line that is in the file, and of the last one that waits.
        self._written = self._last = chain.FIRST.encode("ascii")
        self.lost = 0
        self._descriptor = descriptor
        self._name = name
        self._close = close
        self._on_loss = on_loss
        self._warn = warn
        # A file of somebody else's opening may have been written to, and may be so again.
        self._ours = close and stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._size = 0
        self._torn = False
        self._missing = 0
        # Everything below, and the file, belongs to whoever holds this.
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._waiting = 0
        self._alarm: Alarm | None = None
        self._set = False
        self._stop: Callable[[], None] | None = None
        self._process = 0
        self._error: BaseException | None = None
        self._failed = False
        self._finished = False
        self._calls = 0
        self._verdicts: dict[str, int] = {}

    @classmethod
    def open(
        cls,
        path: str,
        *,
        start: Mapping[str, Any],
        on_loss: OnLoss = "stop",
        warn: Callable[[str], None] | None = None,
    ) -> AuditWriter:
        """Returns a writer to a file, made (mode 0600) or emptied, with its first line written.

        A first line that cannot be written is an error whatever ``on_loss`` says: nothing has been
        started yet that could be lost.

        Args:
            path: The file; ``-`` means standard error.
            start: What the first line tells; see ``record.start``.
            on_loss: See the class.
            warn: See the class.

        Raises:
            AuditError: It cannot be opened or written.
        """
        if path == "-":
            writer = cls(2, "standard error", close=False, on_loss=on_loss, warn=warn)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            try:
                descriptor = os.open(path, flags, 0o600)
            except OSError as error:
                raise AuditError(f"cannot open the audit log {path}: {error.strerror}") from error
            writer = cls(descriptor, path, close=True, on_loss=on_loss, warn=warn)
        try:
            writer._begin(start)
        except OSError as error:
            writer.close()
            raise AuditError(
                f"cannot write the audit log {writer._name}: {error.strerror}; nothing was started"
            ) from error
        return writer

    @property
    def head(self) -> str:
        """The chain's value after the last whole line that is in the file."""
        return self._written.decode("ascii")

    def late(self, stop: Callable[[], None]) -> None:
        """Lets lines of allowed calls wait from now on, where the log is a file of our own.

        Args:
            stop: Ends the sandbox, without waiting for that; called from another thread when lines
                that were waiting cannot be written. What went wrong is raised by the next call of
                ``write``, ``flush`` or ``finish``.
        """
        from pinfold.audit.alarm import Alarm  # noqa: PLC0415 (as above)

        if not self._ours:
            return
        try:
            alarm = Alarm(DELAY, self._ring)
        except RuntimeError:
            # There is no thread to be had. Then no line waits.
            return
        self._stop = stop
        self._alarm = alarm
        # A host process may exit with a sandbox still running; a child of it has nothing to write.
        self._process = os.getpid()
        atexit.register(self._hurry)

    def write(self, entry: Entry) -> None:
        """Writes one call's line, or has it wait.

        Raises:
            AuditError: A line could not be written whole (ENOSPC, EPIPE, EFBIG, …), and that ends
                the sandbox.
        """
        verdict = entry.verdict
        with self._lock:
            if self._finished:
                raise InternalError("a call was logged after the end of the log")
            if self._error is not None:
                self._complain()
            self._calls += 1
            self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
            if self._missing and not self._told():
                return
            body = f'{{"type":"call","seq":{self._calls},{self._fields(entry)}'.encode("ascii")
            line, self._last = self._follow(self._last, body)
            self._lines.append(line)
            self._waiting += len(line)
            if self._alarm is None or verdict != ALLOW or self._waiting >= ROOM:
                self._flush()
            elif not self._set:
                self._set = True
                self._alarm.set()

    def flush(self) -> None:
        """Writes the lines that wait.

        Raises:
            AuditError: They could not be written, and that ends the sandbox; or that was so before,
                and nobody has been told.
        """
        with self._lock:
            self._complain()
            self._flush()

    def finish(self, status: Mapping[str, Any]) -> None:
        """Writes what waits, and the last line; nothing may be written after it.

        Args:
            status: ``reason``, how the run ended, and ``exit``, its exit status, if it has one.

        Raises:
            AuditError: Something could not be written, and that would have ended the sandbox; not
                where ``write`` or ``flush`` has said so before.
        """
        with self._lock:
            if self._finished:
                raise InternalError("the log was ended twice")
            self._finished = True
        self._hush()
        with self._lock:
            try:
                self._complain()
            finally:
                self._end(status)

    def close(self) -> None:
        """Closes what the writer owns.

        Raises:
            AuditError: Lines were waiting, since the log was not ended, and could not be written.
        """
        self._hush()
        try:
            if not self._finished:
                self.flush()
        finally:
            if self._close:
                os.close(self._descriptor)

    def _begin(self, told: Mapping[str, Any]) -> None:
        self._put(
            {
                "type": "start",
                "schema": SCHEMA,
                "pinfold": __version__,
                "time": round(time.time(), 6),
                "on_loss": self._on_loss,
                **told,
            }
        )

    def _end(self, status: Mapping[str, Any]) -> None:
        try:
            self._flush()
        finally:
            try:
                self._gap()
                self._put(
                    {
                        "type": "end",
                        "time": round(time.time(), 6),
                        **status,
                        "calls": self._calls,
                        "lost": self.lost,
                        "verdicts": self._verdicts,
                    }
                )
            except OSError as error:
                # What is being raised, or was said, is why.
                if not self._failed:
                    self._lose(error, "its last line is missing")

    def _complain(self) -> None:
        # Of what went wrong in the alarm's thread, once.
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _ring(self) -> bool:
        # In the alarm's thread.
        with self._lock:
            # Nothing has come for as long as a line may wait: the next one sets the alarm again.
            self._set = bool(self._lines)
            try:
                self._flush()
            except BaseException as error:  # noqa: BLE001 (it is raised in the thread of the run)
                self._error = error
            else:
                return self._set
        if self._stop is not None:
            self._stop()
        return True

    def _hush(self) -> None:
        # No line waits any more, and no other thread writes.
        with self._lock:
            alarm, self._alarm = self._alarm, None
        if alarm is not None:
            atexit.unregister(self._hurry)
            alarm.end()

    def _hurry(self) -> None:
        # This process ends, and its threads with it.
        if os.getpid() != self._process:
            return
        with self._lock:
            self._alarm = None
            self._flush()

    def _told(self) -> bool:
        # Whether there is a line about the calls that have none; if not, there is one call more.
        try:
            self._gap()
        except OSError as error:
            self._lost(1)
            self._lose(error, _GOES_ON)
            return False
        return True

    def _gap(self) -> None:
        if self._missing:
            self._put({"type": "gap", "time": round(time.time(), 6), "lost": self._missing})
            self._missing = 0

    def _put(self, fields: Mapping[str, Any]) -> None:
        # Writes a line that is about no call. None may wait.
        line, self._last = self._follow(self._last, self._dumps(fields)[:-1].encode("ascii"))
        _, error = self._send([line])
        if error is not None:
            raise error

    def _flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines, self._waiting = self._lines, [], 0
        whole, error = self._send(lines)
        if error is not None:
            self._lost(len(lines) - whole)
            self._lose(error, _GOES_ON)

    def _lost(self, calls: int) -> None:
        self.lost += calls
        self._missing += calls

    def _send(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        # Returns how many lines are in the file, and why not all.
        data = b"".join((b"\n", *lines)) if self._torn else b"".join(lines)
        done = 0
        try:
            while done < len(data):
                done += self._write(data[done:] if done else data)
        except OSError as error:
            return self._stopped(lines, done), error
        self._size += done
        self._torn = False
        self._written = self._last
        return len(lines), None

    def _stopped(self, lines: Sequence[bytes], done: int) -> int:
        # Some lines are whole, what follows them is taken back, and the chain goes on from there.
        whole = 0
        end = int(self._torn)
        for line in lines:
            if end + len(line) > done:
                break
            end += len(line)
            whole += 1
        if whole:
            self._size += end
            self._torn = False
            self._written = self._head_of(lines[whole - 1])
            done -= end
        self._last = self._written
        if done:
            self._take_back(done)
        return whole

    def _write(self, data: bytes) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                # Somebody has set O_NONBLOCK on what we share with him. We wait all the same.
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()

    def _take_back(self, done: int) -> None:
        if self._ours:
            try:
                # Not if another process has written, too: its bytes are not ours to cut.
                if os.fstat(self._descriptor).st_size == self._size + done:
                    os.ftruncate(self._descriptor, self._size)
                    return
            except OSError:
                # The half line stays, as in a pipe, and the log says so below.
                pass
        self._size += done
        # Of a line that began with a newline, that one alone ends what was torn before.
        self._torn = not (self._torn and done == 1)

    def _lose(self, error: OSError, what: str) -> None:
        # Raises, or warns once, as the policy has it.
        first = not self._failed
        self._failed = True
        message = f"cannot write the audit log {self._name}: {error.strerror}; "
        if self._on_loss == "stop":
            raise AuditError(message + "the sandbox was stopped") from error
        if first and self._warn is not None:
            self._warn(message + what)


_GOES_ON: Final = "calls go on without a record, as the policy has it"
