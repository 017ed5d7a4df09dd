"""The image of one call's arguments, built from the start of its slot upwards.

Bytes are read from the task once, straight to the place where they stay (the strings of vectors
are moved there, see ``vector.py``). All else here, the search for a NUL included, looks at the
copy: a task that changes its memory meanwhile only chooses which bytes it passes.

A string is read in growing pieces, since most are short and a piece is one system call.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pinfold.codec.base import Refused, SlotFull
from pinfold.errors import InternalError
from pinfold.uapi.mman import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.codec.base import Memory

FAULT: Final = -errno.EFAULT
TOO_LONG: Final = -errno.ENAMETOOLONG

_FIRST: Final = 256
_GROWTH: Final = 16
_KERNEL: Final = 1 << 63
"""From here on addresses are the kernel's own. It lets no system call read them, while a supervisor
may be shown some (the vsyscall page)."""


class View(Protocol):
    """What a slot lies in: a shared mapping, or a ``bytearray``."""

    def __getitem__(self, key: slice, /) -> bytes | bytearray:
        """Returns a copy of some bytes."""

    def __setitem__(self, key: slice, value: bytes, /) -> None:
        """Replaces some bytes by as many."""

    def find(self, sub: bytes, start: int, end: int, /) -> int:
        """Returns where ``sub`` begins, -1 when it is not there."""


class Span(NamedTuple):
    """A string in the image: where it starts, and its length without the NUL."""

    offset: int
    length: int


class Image:
    """The slot of one call, filled from its start.

    Offsets are counted from the slot's first byte.

    Args:
        view: What the slot lies in; nobody else writes the slot.
        start: Offset of the slot in ``view``.
        size: Bytes of the slot.
        base: Address of the slot's first byte in the task.
        memory: The task's memory; its reads go to ``view``.
    """

    __slots__ = ("_base", "_memory", "_size", "_start", "_used", "_view")

    def __init__(self, view: View, start: int, size: int, base: int, memory: Memory) -> None:
        self._view = view
        self._start = start
        self._size = size
        self._base = base
        self._memory = memory
        self._used = 0

    @property
    def room(self) -> int:
        """Bytes of the slot that are not taken."""
        return self._size - self._used

    @property
    def used(self) -> int:
        """Bytes from the slot's start that the image takes up."""
        return self._used

    def reserve(self, length: int, align: int = 1) -> int:
        """Takes ``length`` bytes; returns their offset.

        Args:
            length: Bytes; what they hold is undefined.
            align: A power of two that the address in the task shall be a multiple of.

        Raises:
            SlotFull: They do not fit.
        """
        offset = self._used + (-(self._base + self._used) & (align - 1))
        if offset + length > self._size:
            raise SlotFull(offset + length)
        self._used = offset + length
        return offset

    def peek(self, address: int, length: int, least: int = 1) -> tuple[int, bool]:
        """Copies bytes of the task to where the next unaligned reservation will be.

        Args:
            address: Where in the task.
            length: Bytes wanted; no more are copied than the slot has room for.
            least: Bytes that there must be room for.

        Returns:
            How many were copied, and whether that is all because the next one cannot be read.

        Raises:
            SlotFull: There is no room for ``least`` bytes.
        """
        offset = self._used
        room = self._size - offset
        if room < least:
            raise SlotFull(offset + least)
        wanted = min(length, room)
        got = self._read(address, offset, wanted)
        return got, got < wanted

    def copy(self, address: int, length: int, align: int = 1) -> int | None:
        """Copies bytes of the task; returns their offset, None when not all of them can be read.

        Args:
            address: Where in the task.
            length: Bytes; none are readable anywhere.
            align: As for :meth:`reserve`.

        Raises:
            SlotFull: They do not fit.
        """
        before = self._used
        offset = self.reserve(length, align)
        if length and self._read(address, offset, length) != length:
            self._used = before
            return None
        return offset

    def copy_struct(self, address: int, size: int, known: int) -> int | None:
        """Copies a structure that may be one of a later version, larger than what we know.

        Args:
            address: Where in the task.
            size: Bytes, as the task says.
            known: Bytes that the structure has at least.

        Returns:
            Its offset; or None when there is nothing for the kernel to read: for a size that it
            refuses (EINVAL, E2BIG), or memory that cannot be read.

        Raises:
            Refused: E2BIG. Memory that cannot be read is not the first thing to go wrong: the
                kernel looks for bytes that it does not know before it reads those that it does.
            SlotFull: It does not fit.

        Kernel: ``copy_struct_from_user`` in ``include/linux/uaccess.h``.
        """
        if not known <= size <= PAGE_SIZE:
            return None
        offset = self.copy(address, size, 8)
        if offset is None and size > known:
            got, _ = self.peek(address + known, size - known)
            if any(self.bytes_at(self._used, got)):
                raise Refused(errno.E2BIG)
        return offset

    def copy_to(self, offset: int, address: int, length: int) -> int:
        """Copies bytes of the task over bytes of the image; returns how many could be read."""
        if not 0 <= offset <= offset + length <= self._used:
            raise InternalError(f"{length} bytes at {offset} of an image of {self._used}")
        return self._read(address, offset, length)

    def copy_string(self, address: int, limit: int) -> Span | int:
        """Copies a string and its NUL, as the kernel's own copy would.

        Args:
            address: Where in the task.
            limit: Most bytes to copy, with the NUL.

        Returns:
            Where it is; or ``FAULT`` when a page cannot be read before the NUL, ``TOO_LONG`` when
            there is no NUL in ``limit`` bytes. Then nothing is taken from the slot. Bytes that are
            too long lie where the next reservation will be, if that needs no alignment.

        Raises:
            SlotFull: It does not fit.

        Kernel: ``strncpy_from_user``, ``strnlen_user``.
        """
        offset = self._used
        room = self._size - offset
        first = self._start + offset
        there = 0
        while there < limit:
            if there >= room:
                raise SlotFull(offset + there + 1)
            wanted = min(max(_FIRST, _GROWTH * there), limit, room) - there
            got = self._read(address + there, offset + there, wanted)
            found = self._view.find(b"\0", first + there, first + there + got)
            if found >= 0:
                self._used = offset + found - first + 1
                return Span(offset, found - first)
            if got < wanted:
                return FAULT
            there += got
        return TOO_LONG

    def _read(self, address: int, offset: int, length: int) -> int:
        if address >= _KERNEL:
            return 0
        return self._memory.read(address, self._start + offset, length)

    def put(self, data: bytes, align: int = 1) -> int:
        """Writes bytes of ours; returns their offset.

        Raises:
            SlotFull: They do not fit.
        """
        offset = self.reserve(len(data), align)
        self.replace(offset, data)
        return offset

    def replace(self, offset: int, data: bytes) -> None:
        """Overwrites bytes that are part of the image.

        Raises:
            InternalError: They are not.
        """
        if not 0 <= offset <= offset + len(data) <= self._used:
            # Beyond it lies what another call was judged by.
            raise InternalError(f"{len(data)} bytes at {offset} of an image of {self._used}")
        start = self._start + offset
        self._view[start : start + len(data)] = data

    def word(self, offset: int, value: int) -> None:
        """Overwrites eight bytes with an unsigned number: a pointer or a ``size_t``."""
        self.replace(offset, value.to_bytes(8, "little"))

    def words(self, offset: int, values: Sequence[int]) -> None:
        """Overwrites eight bytes a number, beginning at ``offset``."""
        self.replace(offset, struct.pack(f"={len(values)}Q", *values))

    def address_of(self, offset: int) -> int:
        """Returns where the task and the kernel find a byte of the image."""
        return self._base + offset

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Returns bytes of the slot."""
        start = self._start + offset
        return bytes(self._view[start : start + length])
