"""Writing the log: a line is in the file before the call that it is about is let go.

There is no buffer in this process. One ``write(2)`` a call costs a few percent of the call's two
context switches, and in return a log is complete up to the last call even when the supervisor is
killed with SIGKILL. A log that cannot be written ends the sandbox: what is not on record does not
happen.
"""

from __future__ import annotations

import os

from pinfold.audit.record import Entry, line
from pinfold.errors import AuditError


class AuditWriter:
    """Appends records to a descriptor.

    Args:
        descriptor: Open for writing; owned by the writer when ``close`` is true.
        name: What to call it in messages.
        close: Whether to close the descriptor in the end.
    """

    def __init__(self, descriptor: int, name: str, *, close: bool) -> None:
        self._descriptor = descriptor
        self._name = name
        self._close = close

    @classmethod
    def open(cls, path: str) -> AuditWriter:
        """Returns a writer to a file, made (mode 0600) or emptied; ``-`` means standard error.

        Raises:
            AuditError: It cannot be opened.
        """
        if path == "-":
            return cls(2, "standard error", close=False)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            return cls(os.open(path, flags, 0o600), path, close=True)
        except OSError as error:
            raise AuditError(f"cannot open the audit log {path}: {error.strerror}") from error

    def write(self, entry: Entry) -> None:
        """Writes one record.

        Raises:
            AuditError: It could not be written whole (ENOSPC, EPIPE, EFBIG, …).
        """
        data = line(entry)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log {self._name}: {error.strerror}; the sandbox was"
                " stopped"
            ) from error

    def close(self) -> None:
        """Closes what the writer owns."""
        if self._close:
            os.close(self._descriptor)
