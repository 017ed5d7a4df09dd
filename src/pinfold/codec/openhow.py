"""``struct open_how`` of ``openat2``: a structure that grows with the kernel's version.

It is pinned in the size that the task gave, the part that we do not know included: whether that
part may be non-zero is the kernel's to say (E2BIG).

Kernel: ``sys_openat2`` in ``fs/open.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pinfold.codec.base import UNREADABLE
from pinfold.uapi.fs import OPEN_HOW

if TYPE_CHECKING:
    from pinfold.codec.image import Image


class OpenHow(NamedTuple):
    """A ``struct open_how`` in an image."""

    pointer: int
    """What the argument register is to hold: an address in the slot, or ``UNREADABLE``."""
    offset: int
    """Of the structure in the slot; -1 when there is none, and all numbers are 0."""
    flags: int
    mode: int
    resolve: int


_NOTHING = OpenHow(UNREADABLE, -1, 0, 0, 0)


def decode(image: Image, address: int, size: int) -> OpenHow:
    """Copies the structure.

    Args:
        image: Where to.
        address: Value of the pointer.
        size: Value of the size's register. Where the kernel refuses it (EINVAL, E2BIG), nothing is
            copied.

    Raises:
        Refused: E2BIG, see :meth:`~pinfold.codec.image.Image.copy_struct`.
        SlotFull: It does not fit.
    """
    offset = image.copy_struct(address, size, OPEN_HOW.size)
    if offset is None:
        return _NOTHING
    numbers = OPEN_HOW.unpack(image.bytes_at(offset, OPEN_HOW.size))
    return OpenHow(image.address_of(offset), offset, *numbers)


def encode(image: Image, how: OpenHow) -> None:
    """Writes flags, mode and resolve back to where ``how`` came from.

    Args:
        image: Where the structure is.
        how: A structure that could be read, with some numbers replaced.

    Raises:
        ValueError: A number does not fit 64 bits.
    """
    assert how.offset >= 0
    numbers = (how.flags, how.mode, how.resolve)
    if not all(0 <= number < 1 << 64 for number in numbers):
        raise ValueError(f"not numbers of 64 bits: {numbers}")
    image.words(how.offset, numbers)
