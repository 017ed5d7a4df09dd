"""Logs to test with, made by the real writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pinfold.audit.record import Entry, start
from pinfold.audit.record import Path as LoggedPath
from pinfold.audit.writer import AuditWriter
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

START: Final = start(
    argv=[b"cat", b"\xff"],
    cwd=b"/w",
    uid=1000,
    kernel="6.18.1",
    rules=["deny /secret"],
    policy=[("policy.toml", "0" * 64)],
)
STATUS: Final = {"exit": 0, "reason": "exited"}


def entry(path: bytes = b"/a", verdict: str = "allow", call: str = "openat", **more: Any) -> Entry:
    """Returns the entry of a call with one path."""
    row = TABLE[call]
    at = next(index for index, (name, _) in enumerate(row.arguments) if "path" in name)
    made = Entry(
        time=1_700_000_000.5,
        pid=10,
        tid=11,
        program=b"/bin/cat",
        row=row,
        registers=(0,) * 6,
        paths=(LoggedPath(at, path, path, path),),
        others={},
        replaced=(),
        verdict=verdict,
        rule="deny /secret" if verdict == "deny" else None,
        errno="EACCES" if verdict == "deny" else None,
    )
    return made._replace(**more)


def write(path: Path, entries: Iterable[Entry], *, end: bool = True) -> str:
    """Writes a log of these calls; returns its head."""
    writer = AuditWriter.open(str(path), start=START)
    for one in entries:
        writer.write(one)
    if end:
        writer.finish(STATUS)
    writer.close()
    return writer.head


def lines_of(path: Path, calls: int = 4, *, end: bool = True) -> list[bytes]:
    """Returns the lines of a log of so many calls."""
    write(path, [entry(b"/file-%d" % number) for number in range(calls)], end=end)
    return path.read_bytes().splitlines(keepends=True)
