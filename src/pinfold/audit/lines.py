r"""A judged call as a line of text, in the manner of ``strace`` (pure).

What is shown is what was pinned: the path that the kernel walked, the argv that the new program
got. What the kernel writes is left out, since nothing of it was judged: ``newfstatat(AT_FDCWD,
"/etc/hosts", 0) = 0`` has no ``struct stat``. A size that only says how long the argument before it
is goes without saying.

A program chooses its strings, and a terminal shows them: what is not printable UTF-8 is ``\xNN``,
and text is cut, with ``...`` after it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec.message import Message, descriptors
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr
from pinfold.codec.sockaddr import show as show_address
from pinfold.codec.vector import StringVector
from pinfold.codec.xattr import XattrArgs
from pinfold.syscalls.kinds import (
    NULLABLE,
    POINTERS,
    SIZED,
    Kind,
    as_int,
    show_at_flags,
    show_open_flags,
)
from pinfold.uapi import net
from pinfold.uapi.fs import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.audit.record import Entry

STRING_SHOWN: Final = 64
"""Bytes of a string, apart from paths, unless another number is asked for."""
_STRINGS_SHOWN: Final = 64
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x22, 0x5C}
_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


class Style(NamedTuple):
    """How lines look."""

    limit: int = STRING_SHOWN
    """Bytes of a string that are shown; paths are always shown whole."""
    colour: bool = False


def call(entry: Entry, style: Style) -> str:
    """Returns the call and its pinned arguments: ``[PID] name(arguments)``.

    Preconditions: the slot is still that of the call, as in ``vector.StringVector``.
    """
    name = _painted(entry.row.name, _NAME) if style.colour else entry.row.name
    return f"[{entry.tid}] {name}({', '.join(_arguments(entry, style))})"


def result(value: int | None, style: Style) -> str:
    """Returns how a call ended: `` = VALUE``, an errno in words, `` = ?`` for no end at all.

    Args:
        value: The result register, signed; None for a call that never came back.
        style: How lines look.
    """
    if value is None:
        return " = ?"
    number = error_of(value)
    if not number:
        return f" = {value}"
    restart = _RESTARTS.get(number)
    if restart is not None:
        return f" = ? {_painted(restart, _FAILED) if style.colour else restart} (to be made again)"
    name = errno.errorcode.get(number, f"errno {number}")
    shown = _painted(name, _FAILED) if style.colour else name
    return f" = -1 {shown} ({os.strerror(number)})"


def error_of(value: int | None) -> int:
    """Returns the errno that a result register holds, 0 for none."""
    return -value if value is not None and -_ERRNO_MAX <= value < 0 else 0


_ERRNO_MAX: Final = 4095
_RESTARTS: Final = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
"""The kernel's own codes of an interrupted call; a program never sees them (linux/errno.h)."""


def quoted(data: bytes, limit: int | None = None) -> str:
    r"""Returns bytes as a string in quotes, escaped; ``...`` follows one that was cut.

    Args:
        data: Any bytes.
        limit: How many of them are shown at most; None for all.
    """
    shown = data if limit is None else data[:limit]
    if _PLAIN.issuperset(shown):
        text = shown.decode("ascii")
    else:
        text = "".join(map(_escaped, shown.decode("utf-8", "surrogateescape")))
    return f'"{text}"' if len(shown) == len(data) else f'"{text}"...'


def _escaped(char: str) -> str:
    short = _SHORT.get(char)
    if short is not None:
        return short
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


_NAME: Final = "1"
_PATH: Final = "36"
_FAILED: Final = "31"


def _painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def _arguments(entry: Entry, style: Style) -> list[str]:
    row = entry.row
    paths = {path.argument: path.pinned for path in entry.paths}
    numbers = {index: new for index, _, new in entry.replaced if isinstance(new, int)}
    shown = []
    sized = False
    for index, (name, kind) in enumerate(row.arguments):
        register = numbers.get(index, entry.registers[index])
        after_sized, sized = sized, kind in SIZED or kind is Kind.OUT
        if index in paths:
            pinned = paths[index]
            text = "?" if pinned is None else quoted(pinned)
            shown.append(_painted(text, _PATH) if style.colour else text)
        elif entry.others.get(index) is not None:
            shown.append(_pinned(name, kind, entry.others[index], style))
        elif kind is Kind.PAYLOAD:
            shown.append(f"[{entry.registers[index + 1]} bytes]")
        elif kind in POINTERS or kind is Kind.VARIES:
            if kind in _READ:
                # Nothing of it is known, for a call whose arguments could not be pinned.
                shown.append("NULL" if register == 0 and kind in NULLABLE else "?")
        elif kind is Kind.SIZE:
            if not after_sized:
                shown.append(str(register))
        elif kind is not Kind.MODE or not _without_mode(entry):
            shown.append(_number(row.name, name, kind, register))
    return shown


_READ: Final = frozenset(
    kind
    for kind in POINTERS
    if kind
    not in {
        Kind.OUT,
        Kind.INOUT,
        Kind.XATTR_ARGS_OUT,
        Kind.BPF_ATTR,
        Kind.LEFT,
    }
)


def _without_mode(entry: Entry) -> bool:
    # The mode of an open that makes nothing is whatever the register had.
    for index, (_, kind) in enumerate(entry.row.arguments):
        if kind is Kind.OPEN_FLAGS:
            flags = entry.registers[index]
            return not flags & os.O_CREAT and flags & os.O_TMPFILE != os.O_TMPFILE
    return False


def _pinned(name: str, kind: Kind, value: Any, style: Style) -> str:
    if isinstance(value, bytes):
        return quoted(value, style.limit)
    if isinstance(value, Sockaddr):
        return "?" if value.address is None else show_address(value.address)
    if isinstance(value, Message):
        return _message(value)
    if isinstance(value, XattrArgs):
        return f"{{value={quoted(value.value, style.limit)}, flags={value.flags:#x}}}"
    if isinstance(value, OpenHow):
        resolve = f", resolve={value.resolve:#x}" if value.resolve else ""
        mode = f", mode={_octal(value.mode)}" if value.mode else ""
        return f"{{flags={show_open_flags(value.flags)}{mode}{resolve}}}"
    return _strings(name, value.values if isinstance(value, StringVector) else value, style)


def _strings(name: str, values: Sequence[bytes], style: Style) -> str:
    if name == "envp":
        return f"[{len(values)} var{'' if len(values) == 1 else 's'}]"
    texts = [quoted(value, style.limit) for value in values[:_STRINGS_SHOWN]]
    if len(values) > _STRINGS_SHOWN:
        texts.append(f"... {len(values) - _STRINGS_SHOWN} more")
    return f"[{', '.join(texts)}]"


def _message(message: Message) -> str:
    parts = [] if message.name is None else [f"to={show_address(message.name)}"]
    parts.append(f"[{sum(vector.length for vector in message.iovecs)} bytes]")
    passed = descriptors(message.control)
    if passed:
        parts.append(f"descriptors={passed}")
    return f"{{{', '.join(parts)}}}"


_FAMILIES: Final = {
    net.AF_UNSPEC: "AF_UNSPEC",
    net.AF_UNIX: "AF_UNIX",
    net.AF_INET: "AF_INET",
    net.AF_INET6: "AF_INET6",
    net.AF_NETLINK: "AF_NETLINK",
    net.AF_VSOCK: "AF_VSOCK",
}
_ACCESS: Final = ((4, "R_OK"), (2, "W_OK"), (1, "X_OK"))


def _number(call_name: str, name: str, kind: Kind, value: int) -> str:
    if kind is Kind.DIRFD:
        value = as_int(value)
        return "AT_FDCWD" if value == AT_FDCWD else str(value)
    if kind in (Kind.FD, Kind.INTEGER):
        return str(as_int(value))
    if kind is Kind.OPEN_FLAGS:
        return show_open_flags(value & 0xFFFFFFFF)
    if kind is Kind.AT_FLAGS:
        return show_at_flags(value & 0xFFFFFFFF)
    if kind is Kind.MODE:
        if "access" in call_name and value < 8:
            return "|".join(word for bit, word in _ACCESS if value & bit) or "F_OK"
        return _octal(value & 0xFFFFFFFF)
    if kind is Kind.FLAGS:
        return f"{value:#x}" if value else "0"
    if name == "domain":
        return _FAMILIES.get(value & 0xFFFFFFFF, str(value))
    return str(value)


def _octal(mode: int) -> str:
    return f"0{mode:03o}" if mode else "0"
