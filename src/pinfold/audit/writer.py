"""Writing the log: a line is in the file before the call that it is about is let go.

There is no buffer in this process. One ``write(2)`` a call costs a few percent of the call's two
context switches, and in return a log is complete up to the last call even when the supervisor is
killed with SIGKILL. (Not when the machine loses power: nothing waits for the disk.)

A log that cannot be written ends the sandbox: what is not on record does not happen. A policy may
say that it goes on instead (``on_loss``). Then calls without a line are counted, each later call
tries again, and the first line that can be written tells of the gap. What was written of a line in
part is taken back where that is possible. Elsewhere (a pipe, somebody else's standard error) it
stays, the next line begins after a newline, and the half line is seen for what it is.

Python starts with SIGXFSZ and SIGPIPE ignored, so that a file that may not grow is EFBIG, a reader
that is gone EPIPE, and both are an ``OSError`` like a full disk's.
"""

from __future__ import annotations

import os
import select
import stat
import time
from typing import TYPE_CHECKING, Any, Literal

from pinfold import __version__
from pinfold.audit.record import Entry, describe
from pinfold.audit.schema import SCHEMA
from pinfold.errors import AuditError, InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OnLoss = Literal["stop", "continue"]


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
        head: The chain's value after the last whole line.
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
        from pinfold.audit import chain  # noqa: PLC0415

        self._seal = chain.seal
        self.head = chain.FIRST
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

    def write(self, entry: Entry) -> None:
        """Writes one call's line.

        Raises:
            AuditError: It could not be written whole (ENOSPC, EPIPE, EFBIG, …), and that ends the
                sandbox.
        """
        if self._finished:
            raise InternalError("a call was logged after the end of the log")
        self._calls += 1
        self._verdicts[entry.verdict] = self._verdicts.get(entry.verdict, 0) + 1
        try:
            self._put({"type": "call", "seq": self._calls, **describe(entry)})
        except OSError as error:
            self.lost += 1
            self._missing += 1
            self._lose(error, "calls go on without a record, as the policy has it")

    def finish(self, status: Mapping[str, Any]) -> None:
        """Writes the last line; nothing may be written after it.

        Args:
            status: ``reason``, how the run ended, and ``exit``, its exit status, if it has one.

        Raises:
            AuditError: It could not be written, and that would have ended the sandbox; not where
                ``write`` has said so before.
        """
        if self._finished:
            raise InternalError("the log was ended twice")
        self._finished = True
        failed = self._failed
        try:
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
            if not failed:
                self._lose(error, "its last line is missing")

    def close(self) -> None:
        """Closes what the writer owns."""
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

    def _put(self, fields: Mapping[str, Any]) -> None:
        if self._missing:
            self._put_whole({"type": "gap", "time": round(time.time(), 6), "lost": self._missing})
            self._missing = 0
        self._put_whole(fields)

    def _put_whole(self, fields: Mapping[str, Any]) -> None:
        line, head = self._seal(self.head, fields)
        data = b"\n" + line if self._torn else line
        done = 0
        try:
            while done < len(data):
                done += self._write(data[done:] if done else data)
        except OSError:
            if done:
                self._take_back(done)
            raise
        self._size += done
        self._torn = False
        self.head = head

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
