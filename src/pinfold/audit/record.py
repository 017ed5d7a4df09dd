r"""One line of the audit log (pure).

A record shows the bytes that the kernel was pointed at, not bytes that were read from the program:
``path`` is what the slot holds. Names that are not UTF-8 survive: each byte that does not decode
becomes a lone surrogate (U+DC80 to U+DCFF, as ``os.fsdecode`` does), written as a ``\u`` escape.

Of an environment only the names are shown: the values are where secrets are. Of a vector of many
strings the first ones are, with the number of those that are left out; of bytes without a meaning
of their own, the length and the first of them. What a handler served is shown by length and hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec.message import Message, descriptors
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr
from pinfold.codec.sockaddr import show as show_address
from pinfold.codec.vector import StringVector
from pinfold.codec.xattr import XattrArgs
from pinfold.policy.calls import RETURN, SERVE
from pinfold.syscalls.kinds import (
    NULLABLE,
    POINTERS,
    Kind,
    as_int,
    show_at_flags,
    show_open_flags,
)
from pinfold.uapi.fs import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pinfold.syscalls.table import Row


class Path(NamedTuple):
    """One path argument of a call."""

    argument: int
    asked: bytes
    """As the program gave it."""
    name: bytes
    """The absolute name that was judged; empty where there was none."""
    pinned: bytes | None
    """As the kernel got it; for a denied call, as it was judged. None when the program's could not
    be read, or had no end."""


class Repeated(tuple[Path, ...]):
    """The paths of calls that were decided once and are made again and again: one object.

    Attributes:
        kept: What whoever writes the log of these calls remembers of them.
    """

    kept: tuple[Any, ...] | None = None


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
    others: Mapping[int, Any]
    """Further pointer arguments by index, as pinned; see ``policy.calls.Argument``."""
    replaced: Sequence[tuple[int, Any, Any]]
    """(argument, what it was, what it is) of those, and of numbers, that a rule replaced."""
    verdict: str
    rule: str | None
    errno: str | None
    """Name of the errno that the call failed with by verdict."""
    value: int | bytes | None = None
    """The result of a ``return``, the content of a ``serve``."""
    dry: bool = False
    """Whether the verdict was noted only, and the call made as it was."""


def describe(entry: Entry) -> dict[str, Any]:
    """Returns the record of one call as plain values, in the order of the log's fields."""
    record: dict[str, Any] = {
        "time": round(entry.time, 6),
        "pid": entry.pid,
        "tid": entry.tid,
        "program": text(entry.program),
        "syscall": entry.row.name,
        "args": _arguments(entry),
        "verdict": entry.verdict,
    }
    names = [text(path.name) for path in entry.paths if path.name]
    if names:
        record["names"] = names
    if entry.rule is not None:
        record["rule"] = entry.rule
    if entry.errno is not None:
        record["errno"] = entry.errno
    substituted: dict[str, dict[str, Any]] = {
        entry.row.arguments[path.argument][0]: {
            "from": text(path.asked),
            "to": text(path.pinned),
        }
        for path in entry.paths
        if path.pinned is not None and path.pinned != path.asked
    }
    for index, before, after in entry.replaced:
        name, kind = entry.row.arguments[index]
        substituted[name] = {"from": _show(name, kind, before), "to": _show(name, kind, after)}
    if substituted:
        record["substituted"] = substituted
    if entry.verdict == RETURN and isinstance(entry.value, int):
        record["value"] = entry.value
    if entry.verdict == SERVE and isinstance(entry.value, bytes):
        record["content"] = _digest(entry.value)
    if entry.dry:
        record["dry_run"] = True
    return record


def start(
    *,
    argv: Sequence[bytes],
    cwd: bytes,
    uid: int,
    kernel: str,
    dry: bool = False,
    rules: Sequence[str] = (),
    policy: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Returns what a caller has to tell for the first line of a log.

    Args:
        argv: COMMAND and its arguments.
        cwd: The directory that it starts in.
        uid: The user that it runs as.
        kernel: Release of the kernel.
        dry: Whether verdicts are noted only.
        rules: The rules of the command line, as the log shows them.
        policy: Policy files in order: name, SHA-256 in hexadecimal of the bytes that were read.
    """
    return {
        "argv": _strings("argv", argv),
        "cwd": text(cwd),
        "uid": uid,
        "kernel": kernel,
        "mode": "dry-run" if dry else "enforce",
        "rules": list(rules),
        "policy": [{"file": name, "sha256": digest} for name, digest in policy],
    }


def text(data: bytes) -> str:
    """Returns bytes as text; those that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _arguments(entry: Entry) -> dict[str, Any]:
    paths = {path.argument: path for path in entry.paths}
    numbers = {index: new for index, _, new in entry.replaced if isinstance(new, int)}
    shown: dict[str, Any] = {}
    for index, (name, kind) in enumerate(entry.row.arguments):
        path = paths.get(index)
        value = entry.others.get(index)
        if path is not None:
            shown[name] = None if path.pinned is None else text(path.pinned)
        elif isinstance(value, OpenHow):
            shown["flags"] = show_open_flags(value.flags)
            shown["mode"] = oct(value.mode)
            shown["resolve"] = hex(value.resolve)
        elif value is not None:
            shown[name] = _show(name, kind, value)
        elif kind in NULLABLE and entry.registers[index] == 0:
            shown[name] = None
        elif kind in _NUMBERS:
            shown[name] = number(kind, numbers.get(index, entry.registers[index]))
    return shown


_NUMBERS: Final = frozenset(Kind) - POINTERS - {Kind.VARIES}
_STRINGS_SHOWN: Final = 1024
_TEXT_SHOWN: Final = 65536
_BYTES_SHOWN: Final = 32


def _show(name: str, kind: Kind, value: Any) -> Any:
    if isinstance(value, int):
        return number(kind, value)
    if isinstance(value, bytes):
        return text(value) if kind in _TEXTS and len(value) <= _TEXT_SHOWN else _bytes(value)
    if isinstance(value, Sockaddr):
        return None if value.address is None else show_address(value.address)
    if isinstance(value, Message):
        return _message(value)
    if isinstance(value, XattrArgs):
        return _bytes(value.value) | {"flags": value.flags}
    if isinstance(value, OpenHow):
        return show_open_flags(value.flags)
    return _strings(name, value.values if isinstance(value, StringVector) else value)


_TEXTS: Final = frozenset(
    {Kind.PATH, Kind.PATH_OR_NULL, Kind.TEXT, Kind.WORD, Kind.WORD_OR_NULL, Kind.NAME}
)


def _strings(name: str, values: Sequence[bytes]) -> Any:
    if name == "envp":
        values = [value.partition(b"=")[0] for value in values]
    shown = []
    room = _TEXT_SHOWN
    for value in values[:_STRINGS_SHOWN]:
        room -= len(value)
        if room < 0:
            break
        shown.append(text(value))
    left = len(values) - len(shown)
    return [*shown, {"omitted": left}] if left else shown


def _bytes(value: bytes) -> dict[str, Any]:
    return {"length": len(value), "hex": value[:_BYTES_SHOWN].hex()}


def _digest(content: bytes) -> dict[str, Any]:
    from hashlib import sha256  # noqa: PLC0415 (slow to import, and most runs serve nothing)

    return {"length": len(content), "sha256": sha256(content).hexdigest()}


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "to": None if message.name is None else show_address(message.name),
        "length": sum(vector.length for vector in message.iovecs),
    }
    passed = descriptors(message.control)
    if passed:
        shown["descriptors"] = passed
    return shown


def is_number(kind: Kind) -> bool:
    """Returns whether an argument of a kind is shown as a number, or as words for one."""
    return kind in _NUMBERS


def number(kind: Kind, value: int) -> str | int:
    """Returns a register's value as it is shown for an argument of such a kind."""
    if kind is Kind.DIRFD:
        value = as_int(value)
        return "AT_FDCWD" if value == AT_FDCWD else value
    if kind in (Kind.FD, Kind.INTEGER):
        return as_int(value)
    if kind is Kind.OPEN_FLAGS:
        return show_open_flags(value & 0xFFFFFFFF)
    if kind is Kind.AT_FLAGS:
        return show_at_flags(value & 0xFFFFFFFF)
    if kind is Kind.MODE:
        return oct(value & 0xFFFFFFFF)
    return value
