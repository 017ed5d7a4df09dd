"""The records of a run, kept in memory for whoever started it: ``audit=True``.

The program chooses how many calls it makes and how long their arguments are, so there is a limit.
As with a log in a file, what is not on record does not happen, unless the policy has it otherwise
(``on_loss``). Records are kept as JSON, which takes a fraction of what dictionaries do, and the
size of which is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pinfold.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.audit.record import Entry
    from pinfold.audit.writer import OnLoss

MOST: Final = 64 << 20
"""Bytes of JSON that are kept: some 150,000 calls of usual programs."""


class Records:
    """The records of one run.

    Args:
        on_loss: What it means that there is no room for a record.
        warn: Called with one line, once, when the first one is left out.
        most: Bytes of JSON that are kept.
    """

    def __init__(self, on_loss: OnLoss, warn: Callable[[str], None], *, most: int = MOST) -> None:
        from pinfold.audit.encode import Encoder  # noqa: PLC0415 (most runs keep nothing)

        self._fields = Encoder().fields
        self._on_loss = on_loss
        self._warn = warn
        self._left = most
        self._most = most
        self._full = False
        self._lines: list[bytes] = []

    def add(self, entry: Entry) -> None:
        """Keeps the record of a call.

        Raises:
            AuditError: There is no room, and that ends the sandbox.
        """
        if self._full:
            return
        line = b"{%b}" % self._fields(entry).encode("ascii")
        self._left -= len(line)
        if self._left >= 0:
            self._lines.append(line)
            return
        self._full = True
        what = f"more than {self._most} bytes of records; with a path for audit they go to a file"
        if self._on_loss == "stop":
            raise AuditError(f"{what}; the sandbox was stopped")
        self._warn(f"{what}; calls go on without a record, as the policy has it")

    def plain(self) -> list[dict[str, Any]]:
        """Returns the records as dictionaries."""
        from json import loads  # noqa: PLC0415 (likewise)

        return [loads(line) for line in self._lines]
