"""Pointer arguments of a trapped call, copied into its slot: one reader for each kind.

Whatever is judged is in the slot, and the kernel is pointed there. Where the task's memory cannot
be read, the kernel is pointed at an address that cannot be read either, so that it says EFAULT
itself, where in the order of its checks it always did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec import message, openhow, sockaddr, vector, xattr
from pinfold.codec.base import UNREADABLE
from pinfold.codec.image import TOO_LONG
from pinfold.syscalls.kinds import FIXED, NULLABLE, Kind
from pinfold.uapi.fs import PATH_MAX
from pinfold.uapi.mman import PAGE_SIZE
from pinfold.uapi.net import SOCKADDR_STORAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pinfold.codec.image import Image

BUFFER_MAX: Final = 1 << 20
"""Most bytes of a buffer that are pinned."""
_INT: Final = 4
_OPTION_MAX: Final = 1 << 16
"""So many are of a socket option that is longer; none is."""

_TEXT_MAX: Final = {Kind.TEXT: PATH_MAX, Kind.WORD: PAGE_SIZE, Kind.WORD_OR_NULL: PAGE_SIZE}
_WORD_MAX: Final = {
    ("memfd_create", 0): 250,
    ("add_key", 0): 32,
    ("request_key", 0): 32,
    ("delete_module", 0): 64 - 8,
}
"""How far the kernel reads some words at most, by call and number of the pointer."""


class Found(NamedTuple):
    """An argument in the slot."""

    value: Any
    pointer: int


def read(
    image: Image, call: str, kind: Kind, address: int, size: int, before: Sequence[Any]
) -> Found | None:
    """Copies one argument of any kind but a path.

    Args:
        image: The slot.
        call: The system call's name.
        kind: What the argument is.
        address: Its register.
        size: The register after it.
        before: Values of the arguments that were read already.

    Returns:
        The argument; None when it is NULL and the kernel does not follow it.

    Raises:
        Refused: The call fails with an errno, for an argument vector that is too large.
        SlotFull: A larger slot is needed.
    """
    if address == 0 and kind in NULLABLE:
        return None
    fixed = FIXED.get(kind)
    if fixed is not None:
        return _bytes(image, address, fixed)
    if kind is Kind.MNT_ID_REQ:
        return _sized_by_itself(image, address)
    decode = _DECODERS.get(kind)
    if decode is not None:
        found = decode(image, address, size)
        return Found(found, found.pointer)
    return _READERS[kind](image, call, kind, address, size, before)


def _text(
    image: Image, call: str, kind: Kind, address: int, _size: int, before: Sequence[Any]
) -> Found:
    limit = _WORD_MAX.get((call, len(before)), _TEXT_MAX[kind])
    found = image.copy_string(address, limit)
    if found == TOO_LONG:
        # It is still where it was copied to, that many bytes without a NUL: the kernel will see.
        offset = image.reserve(limit)
        return Found(image.bytes_at(offset, limit), image.address_of(offset))
    if isinstance(found, int):
        return Found(b"", UNREADABLE)
    return Found(image.bytes_at(*found), image.address_of(found.offset))


def _name(
    image: Image, _call: str, _kind: Kind, address: int, _size: int, _before: Sequence[Any]
) -> Found:
    found = xattr.decode_name(image, address)
    return Found(found.data, found.pointer)


def _strings(
    image: Image, _call: str, _kind: Kind, address: int, _size: int, before: Sequence[Any]
) -> Found:
    spent = sum(one.cost for one in before if isinstance(one, vector.StringVector))
    found = vector.decode(image, address, max(0, vector.LIMIT - spent))
    return Found(found, found.pointer)


def _messages(
    image: Image, _call: str, _kind: Kind, address: int, size: int, _before: Sequence[Any]
) -> Found | None:
    # Of no messages none is read.
    if size & 0xFFFFFFFF == 0:
        return None
    found = message.decode(image, address)
    return Found(found, found.pointer)


def _xattr_args(
    image: Image, call: str, _kind: Kind, address: int, size: int, _before: Sequence[Any]
) -> Found:
    found = xattr.decode_args(image, address, size, sets=call == "setxattrat")
    return Found(found, found.pointer)


def _buffer(
    image: Image, call: str, _kind: Kind, address: int, size: int, _before: Sequence[Any]
) -> Found | None:
    if call.endswith("setxattr"):
        found = xattr.decode_value(image, address, size)
        return Found(found.data, found.pointer)
    if call in _INT_SIZES:
        # A C int: what is negative is refused before anything is read.
        size &= 0xFFFFFFFF
        if size >> 31:
            return Found(b"", UNREADABLE)
    if size == 0 or (address == 0 and call in _NULL_IS_NOTHING):
        return None
    if call == "setsockopt":
        return _option(image, address, size)
    if size > BUFFER_MAX:
        # More than any of these calls takes.
        return Found(b"", UNREADABLE)
    return _bytes(image, address, size)


def _option(image: Image, address: int, size: int) -> Found:
    # Most options are an int, whatever the length says, and the rest need not be readable: it is
    # pinned as zeros.
    if size > BUFFER_MAX:
        size = _OPTION_MAX
    offset = image.reserve(size, 8)
    got = image.copy_to(offset, address, size)
    if got < min(size, _INT):
        return Found(b"", UNREADABLE)
    image.replace(offset + got, bytes(size - got))
    return Found(image.bytes_at(offset, size), image.address_of(offset))


_NULL_IS_NOTHING: Final = frozenset({"landlock_create_ruleset", "setsockopt"})
"""Calls that test their buffer for NULL, for some options; for the rest nothing can be read there:
a task may not map page 0 without CAP_SYS_RAWIO."""

_INT_SIZES: Final = frozenset({"setsockopt", "sethostname", "setdomainname"})


def _bytes(image: Image, address: int, size: int) -> Found:
    offset = image.copy(address, size, 8)
    if offset is None:
        return Found(b"", UNREADABLE)
    return Found(image.bytes_at(offset, size), image.address_of(offset))


def _sized_by_itself(image: Image, address: int) -> Found:
    # It begins with its size, a u32; the kernel refuses sizes beyond a page before it reads more.
    head = image.copy(address, 4, 8)
    if head is None:
        return Found(b"", UNREADABLE)
    size = int.from_bytes(image.bytes_at(head, 4), "little")
    if not _MNT_ID_REQ_SIZE <= size <= PAGE_SIZE:
        return Found(image.bytes_at(head, 4), image.address_of(head))
    found = _bytes(image, address, size)
    if not found.value:
        return found
    # What was read again is what counts; its size has to be the one that was made room for.
    begin = image.bytes_at(head, 4)
    image.replace(image.used - size, begin)
    return found._replace(value=begin + found.value[4:])


_MNT_ID_REQ_SIZE: Final = 24
"""``MNT_ID_REQ_SIZE_VER0``: a smaller one is refused before more is read."""

_DECODERS: Final[dict[Kind, Callable[[Image, int, int], Any]]] = {
    Kind.SOCKADDR: sockaddr.decode,
    Kind.SOCKADDR_OR_NULL: sockaddr.decode,
    Kind.MSGHDR: lambda image, address, _: message.decode(image, address),
    Kind.OPEN_HOW: openhow.decode,
}
"""Of kinds for which a codec needs the pointer and the register after it, and says all itself."""

_READERS: Final[dict[Kind, Callable[..., Found | None]]] = {
    Kind.TEXT: _text,
    Kind.WORD: _text,
    Kind.WORD_OR_NULL: _text,
    Kind.NAME: _name,
    Kind.STRINGS: _strings,
    Kind.MMSGHDR: _messages,
    Kind.XATTR_ARGS: _xattr_args,
    Kind.BUFFER_IN: _buffer,
}

READABLE: Final = frozenset({*_DECODERS, *_READERS, *FIXED, Kind.MNT_ID_REQ})
"""Kinds that :func:`read` knows. Mounts and file handles are refused in every sandbox."""


def write(image: Image, kind: Kind, value: Any, new: Any) -> tuple[Any, int, int | None]:
    """Puts a new value of an argument into the slot.

    Args:
        image: The slot.
        kind: What the argument is.
        value: What it was, as :func:`read` found it.
        new: What it shall be; see ``policy.calls.Ruling``.

    Returns:
        The value as it is now, its pointer, and the new value of the size register or None.

    Raises:
        ValueError: It cannot be written that way: a NUL inside, too long.
        SlotFull: A larger slot is needed.
    """
    if getattr(value, "pointer", None) == UNREADABLE:
        # It could not be read, and the call fails for that, or for something that comes before.
        return value, UNREADABLE, None
    if kind in FIXED:
        if len(new) != FIXED[kind]:
            raise ValueError(f"{len(new)} bytes for a structure of {FIXED[kind]}")
        return new, image.address_of(image.put(new, 8)), None
    if kind is Kind.STRINGS:
        pointer = vector.encode(image, new)
        return list(new), pointer, None
    if kind in (Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL):
        raw = new if isinstance(new, bytes) else sockaddr.pack(new)
        if len(raw) > SOCKADDR_STORAGE_SIZE:
            raise ValueError(f"a socket address of {len(raw)} bytes")
        pointer = image.address_of(image.put(raw, 8))
        return sockaddr.Sockaddr(pointer, raw, sockaddr.parse(raw)), pointer, len(raw)
    if kind in (Kind.MSGHDR, Kind.MMSGHDR):
        raw = new if isinstance(new, bytes) else sockaddr.pack(new)
        changed = message.encode_name(image, value, raw)
        return changed, changed.pointer, None
    if kind is Kind.OPEN_HOW:
        openhow.encode(image, new)
        return new, new.pointer, None
    if kind is Kind.XATTR_ARGS:
        args = xattr.encode_value(image, value, new)
        return args, args.pointer, None
    if kind is Kind.BUFFER_IN:
        return new, image.address_of(image.put(new, 8)), len(new)
    if b"\0" in new:
        raise ValueError(f"a string cannot have a NUL byte: {new!r}")
    return new, image.address_of(image.put(new + b"\0")), None
