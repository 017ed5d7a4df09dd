r"""One line of the audit log (pure).

A record shows the bytes that the kernel was pointed at, not bytes that were read from the program:
``path`` is what the slot holds. Names that are not UTF-8 survive: each byte that does not decode
becomes a lone surrogate (U+DC80 to U+DCFF, as ``os.fsdecode`` does), written as a ``\u`` escape.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.syscalls.kinds import Kind, show_at_flags, show_open_flags
from pinfold.uapi.fs import AT_FDCWD, OPEN_HOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.syscalls.table import Row

_dumps: Final = json.JSONEncoder(separators=(",", ":")).encode


class Path(NamedTuple):
    """One path argument of a call."""

    argument: int
    asked: bytes
    """As the program gave it."""
    name: bytes
    """The absolute name that was judged; empty where there was none."""
    pinned: bytes
    """As the kernel got it; for a denied call, as it was judged."""


class Entry(NamedTuple):
    """What the log knows of one trapped call."""

    time: float
    pid: int
    tid: int
    program: bytes
    row: Row
    registers: Sequence[int]
    """The six argument registers, before anything was changed."""
    paths: tuple[Path, ...]
    how: bytes
    """``struct open_how`` as pinned; empty for all calls but one."""
    verdict: str
    rule: str | None
    errno: str | None
    """Name of the errno that the call failed with by verdict."""


def describe(entry: Entry) -> dict[str, Any]:
    """Returns the record of one call as plain values, in the order of the log's fields."""
    record: dict[str, Any] = {
        "time": round(entry.time, 6),
        "pid": entry.pid,
        "tid": entry.tid,
        "program": _text(entry.program),
        "syscall": entry.row.name,
        "args": _arguments(entry),
        "verdict": entry.verdict,
    }
    names = [_text(path.name) for path in entry.paths if path.name]
    if names:
        record["names"] = names
    if entry.rule is not None:
        record["rule"] = entry.rule
    if entry.errno is not None:
        record["errno"] = entry.errno
    substituted = {
        entry.row.arguments[path.argument][0]: {
            "from": _text(path.asked),
            "to": _text(path.pinned),
        }
        for path in entry.paths
        if path.pinned != path.asked
    }
    if substituted:
        record["substituted"] = substituted
    return record


def line(entry: Entry) -> bytes:
    """Returns the record as one line of JSON, newline included."""
    return _dumps(describe(entry)).encode("ascii") + b"\n"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _arguments(entry: Entry) -> dict[str, Any]:
    paths = {path.argument: path for path in entry.paths}
    shown: dict[str, Any] = {}
    for index, (name, kind) in enumerate(entry.row.arguments):
        path = paths.get(index)
        if path is not None:
            shown[name] = _text(path.pinned)
        elif kind is Kind.OPEN_HOW:
            if entry.how:
                flags, mode, resolve = OPEN_HOW.unpack_from(entry.how)
                shown["flags"] = show_open_flags(flags)
                shown["mode"] = oct(mode)
                shown["resolve"] = hex(resolve)
        elif kind is Kind.PATH_OR_NULL and entry.registers[index] == 0:
            shown[name] = None
        elif kind not in _UNSHOWN:
            shown[name] = _show(kind, entry.registers[index])
    return shown


_UNSHOWN: Final = frozenset({Kind.LEFT, Kind.PATH, Kind.PATH_OR_NULL, Kind.TEXT})


def _show(kind: Kind, value: int) -> str | int:
    if kind is Kind.DIRFD:
        value &= 0xFFFFFFFF
        value -= (value >> 31) << 32
        return "AT_FDCWD" if value == AT_FDCWD else value
    if kind is Kind.OPEN_FLAGS:
        return show_open_flags(value & 0xFFFFFFFF)
    if kind is Kind.AT_FLAGS:
        return show_at_flags(value & 0xFFFFFFFF)
    if kind is Kind.MODE:
        return oct(value & 0xFFFFFFFF)
    return value
