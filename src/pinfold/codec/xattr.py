"""Extended attributes: names, values, and ``struct xattr_args`` of the calls that end in ``at``.

Kernel: ``import_xattr_name``, ``setxattr_copy`` and ``path_setxattrat`` in ``fs/xattr.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec.base import UNREADABLE
from pinfold.codec.image import TOO_LONG
from pinfold.uapi.xattr import XATTR_ARGS, XATTR_NAME_MAX, XATTR_SIZE_MAX

if TYPE_CHECKING:
    from pinfold.codec.image import Image

_LIMIT: Final = XATTR_NAME_MAX + 1
_VALUE: Final = 0
_SIZE: Final = 8


class Bytes(NamedTuple):
    """A name or a value in an image."""

    pointer: int
    """What the kernel is to be given: an address in the slot, or ``UNREADABLE``."""
    data: bytes
    """Empty when nothing could be read, or nothing is going to be."""


class XattrArgs(NamedTuple):
    """A ``struct xattr_args`` in an image."""

    pointer: int
    """What the argument register is to hold: an address in the slot, or ``UNREADABLE``."""
    offset: int
    """Of the structure in the slot; -1 when there is none."""
    value: bytes
    """What is to be set; empty for a call that only gets."""
    size: int
    """As the task gave it."""
    flags: int


_NOTHING: Final = XattrArgs(UNREADABLE, -1, b"", 0, 0)


def decode_name(image: Image, address: int) -> Bytes:
    """Copies the name of an attribute.

    A name without a NUL in 256 bytes is copied that far: the kernel then finds it too long by
    itself, with ERANGE. So no name of more than 255 bytes is used for anything.

    Raises:
        SlotFull: It does not fit.
    """
    name = image.copy_string(address, _LIMIT)
    if not isinstance(name, int):
        return Bytes(image.address_of(name.offset), image.bytes_at(*name))
    if name != TOO_LONG:
        return Bytes(UNREADABLE, b"")
    offset = image.reserve(_LIMIT)
    return Bytes(image.address_of(offset), image.bytes_at(offset, _LIMIT))


def decode_value(image: Image, address: int, size: int) -> Bytes:
    """Copies the value of a call that sets one.

    Args:
        image: Where to.
        address: Value of the pointer.
        size: Bytes. Of none the kernel reads nothing, and more than 64 KiB it refuses (E2BIG).

    Raises:
        SlotFull: It does not fit.
    """
    offset = image.copy(address, size) if 0 < size <= XATTR_SIZE_MAX else None
    if offset is None:
        return Bytes(UNREADABLE, b"")
    return Bytes(image.address_of(offset), image.bytes_at(offset, size))


def decode_args(image: Image, address: int, size: int, *, sets: bool) -> XattrArgs:
    """Copies a ``struct xattr_args``, and the value if the call is one that sets it.

    Args:
        image: Where to.
        address: Value of the pointer to the structure.
        size: Value of the size's register. Where the kernel refuses it (EINVAL, E2BIG), nothing is
            copied.
        sets: Whether the call sets the attribute (``setxattrat``). One that gets it
            (``getxattrat``) writes to where the structure points: that stays in the task.

    Raises:
        Refused: E2BIG, see :meth:`~pinfold.codec.image.Image.copy_struct`.
        SlotFull: It does not fit.
    """
    offset = image.copy_struct(address, size, XATTR_ARGS.size)
    if offset is None:
        return _NOTHING
    value, length, flags = XATTR_ARGS.unpack(image.bytes_at(offset, XATTR_ARGS.size))
    found = b""
    if sets:
        pointer, found = decode_value(image, value, length)
        image.word(offset + _VALUE, pointer)
    return XattrArgs(image.address_of(offset), offset, found, length, flags)


def encode_value(image: Image, args: XattrArgs, data: bytes) -> XattrArgs:
    """Replaces the value that a ``struct xattr_args`` points to; returns what it is now.

    Args:
        image: Where the structure is.
        args: A structure that could be read.
        data: The new value, at most 64 KiB.

    Raises:
        ValueError: ``data`` is longer than a value can be.
        SlotFull: It does not fit.
    """
    if len(data) > XATTR_SIZE_MAX:
        raise ValueError(f"a value of {len(data)} bytes")
    assert args.offset >= 0
    image.word(args.offset + _VALUE, image.address_of(image.put(data)))
    image.replace(args.offset + _SIZE, len(data).to_bytes(4, "little"))
    return args._replace(value=data, size=len(data))
