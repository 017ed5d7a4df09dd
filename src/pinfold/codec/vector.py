"""Argument vectors (``argv``, ``envp``): arrays of pointers to strings, up to NULL.

The kernel reads such an array twice, first to count it, then from its end to copy the strings. An
array that cannot be read up to its NULL fails in the first pass, before any string is looked at,
and so does one with an element that is an error pointer. Then the whole vector is
:data:`~pinfold.codec.base.UNREADABLE`. A string that cannot be read fails in the second pass; it
makes one unreadable element, and the kernel says what it would have said, E2BIG or EFAULT,
whichever comes first on its way.

Strings of one vector mostly lie close together. So memory is read by the page, into the slot's
unused end, and what a page holds beyond one string is kept for others. It may be outdated by then,
which matters no more than any other moment of reading would: the strings are put into the image,
and it is the image that is judged.

The kernel lets strings and pointers of both vectors together take up a quarter of the stack limit,
at most :data:`LIMIT`. What is certainly beyond that is not copied: a target could otherwise have us
copy memory without end. An element that is too long, or the first one that is too much, and all
after it, become a string without an end, so that the kernel says E2BIG, unless it has something
else to say before. An array of pointers that alone is too much is refused here, and so are strings
that lie so far apart that :data:`MOST_READ` bytes had to be read for them: hundreds of thousands of
arguments, each on a page of its own, would keep the supervisor busy for half a minute.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from pinfold.codec.base import UNREADABLE, Refused, SlotFull
from pinfold.uapi.binfmts import MAX_ARG_STRLEN
from pinfold.uapi.mman import PAGE_SIZE
from pinfold.values import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.codec.image import Image

LIMIT: Final = 6 << 20
"""Most bytes of strings and pointers that any kernel takes, whatever the stack limit."""

_WORD: Final = 8
_FIRST: Final = 64 * _WORD
_LARGEST: Final = 4096 * _WORD

MOST_READ: Final = 64 << 20
"""Most bytes that are read for the strings of one vector, each reading counted as a page at least:
more than ten times what the largest one takes up, if it is dense."""

_NONE: Final = (1 << 64, b"")


class StringVector(Value):
    """A vector in an image.

    Preconditions: its values are asked for while the slot is still that of the call.
    """

    image: Image
    pointer: int
    """What the argument register is to hold: 0, an address in the slot, or ``UNREADABLE``."""
    length: int
    """Elements before the NULL; 0 when the array could not be read."""
    start: int
    """Offset of the first string; they lie one after the other."""
    end: int
    unreadable: tuple[int, ...]
    """Indices of the elements whose string could not be read or is too long, ascending."""
    cost: int
    """Bytes of strings and pointers, as the kernel counts them."""

    @property
    def absent(self) -> bool:
        """Whether the argument was NULL, which the kernel takes for an empty vector."""
        return self.pointer == 0

    @property
    def faulted(self) -> bool:
        """Whether something could not be read, so that the call is going to fail."""
        return self.pointer == UNREADABLE or bool(self.unreadable)

    @property
    def values(self) -> list[bytes]:
        """The strings in the image; an empty one for an element that could not be read."""
        if len(self.unreadable) == self.length:
            return [b""] * self.length
        found = self.image.bytes_at(self.start, self.end - self.start - 1).split(b"\0")
        if not self.unreadable:
            return found
        readable = iter(found)
        missing = frozenset(self.unreadable)
        return [b"" if index in missing else next(readable) for index in range(self.length)]


def decode(image: Image, address: int, budget: int = LIMIT) -> StringVector:
    """Copies a vector of the task, array and strings.

    Args:
        image: Where to.
        address: Value of the argument register.
        budget: Bytes of strings and pointers at most; for the second vector of a call, what the
            ``cost`` of the first one left.

    Raises:
        Refused: E2BIG, for pointers that alone are too much, and for strings too far apart.
        SlotFull: It does not fit.

    Kernel: ``count``, ``bprm_stack_limits`` and ``copy_strings`` in ``fs/exec.c``.
    """
    used = image.used
    if address == 0:
        return StringVector(image, 0, 0, used, used, (), 0)
    array = image.reserve(0, _WORD)
    pointers = _pointers(image, address)
    if pointers is None:
        return StringVector(image, UNREADABLE, 0, used, used, (), 0)
    start = image.used
    left = max(0, budget - len(pointers) * _WORD)
    unreadable, overlong, left = _strings(image, pointers, left)
    end = image.used
    if overlong:
        endless = image.address_of(image.put(b"x" * MAX_ARG_STRLEN))
        for index in overlong:
            pointers[index] = endless
    image.words(array, pointers)
    pointer = image.address_of(array)
    missing = tuple(sorted(unreadable + overlong))
    return StringVector(image, pointer, len(pointers), start, end, missing, budget - left)


def _pointers(image: Image, address: int) -> list[int] | None:
    # Leaves the array in the image, with its NULL; None when the kernel could not count it.
    found: list[int] = []
    wanted = _FIRST
    while True:
        got, fault = image.peek(address + len(found) * _WORD, wanted, _WORD)
        count = got // _WORD
        chunk = struct.unpack(f"={count}Q", image.bytes_at(image.used, count * _WORD))
        end = chunk.index(0) if 0 in chunk else count
        if max(chunk[:end], default=0) > UNREADABLE:
            return None
        found += chunk[:end]
        if end < count:
            image.reserve((end + 1) * _WORD)
        elif fault:
            return None
        if len(found) * _WORD > LIMIT:
            raise Refused(errno.E2BIG)
        if end < count:
            return found
        image.reserve(count * _WORD)
        wanted = min(wanted * 8, _LARGEST)


def _strings(image: Image, pointers: list[int], left: int) -> tuple[list[int], list[int], int]:
    # Puts the strings into the image one after the other and aims the pointers at them. Returns
    # which elements cannot be read, which are too long or too much, and what is left of the budget.
    unreadable: list[int] = []
    overlong: list[int] = []
    pieces: list[bytes] = []
    windows: dict[int, tuple[int, bytes]] = {}
    spent = 0
    at = image.address_of(image.used)
    for index, pointer in enumerate(pointers):
        page = pointer // PAGE_SIZE
        start, window = windows.get(page, _NONE)
        begin = pointer - start
        end = window.find(b"\0", begin) + 1 if begin >= 0 else 0
        if not end:
            image.put(b"".join(pieces))
            pieces.clear()
            longest = min(left, MAX_ARG_STRLEN)
            window, begin = _window(image, pointer, longest), 0
            end = window.find(b"\0") + 1
            spent += max(len(window), PAGE_SIZE)
            if spent > MOST_READ:
                raise Refused(errno.E2BIG)
            windows[page] = pointer, window
            if not end and len(window) < longest:
                pointers[index] = UNREADABLE
                unreadable.append(index)
                continue
        length = end - begin
        if not 0 < length <= min(left, MAX_ARG_STRLEN):
            overlong.append(index)
            left -= min(left, MAX_ARG_STRLEN)
            continue
        pieces.append(window[begin:end])
        pointers[index] = at
        at += length
        left -= length
    image.put(b"".join(pieces))
    return unreadable, overlong, left


def _window(image: Image, address: int, longest: int) -> bytes:
    # Returns the task's bytes to the end of a page, or further if there is no NUL before: as far
    # as there is one, or a page that cannot be read, or to more than a string may have.
    found = b""
    wanted = PAGE_SIZE - address % PAGE_SIZE
    while len(found) < longest:
        if len(found) >= image.room:
            raise SlotFull(image.used + len(found) + 1)
        got, fault = image.peek(address + len(found), wanted)
        piece = image.bytes_at(image.used, got)
        found += piece
        if fault or b"\0" in piece:
            break
        wanted = max(PAGE_SIZE, 4 * len(found))
    return found


def encode(image: Image, values: Sequence[bytes]) -> int:
    """Writes a vector of ours; returns the value for the argument register.

    Args:
        image: Where to.
        values: The strings, any number of them.

    Raises:
        ValueError: A string has a NUL byte, which would end it there.
        SlotFull: It does not fit.
    """
    for value in values:
        if b"\0" in value:
            raise ValueError(f"an argument cannot have a NUL byte: {value!r}")
    array = image.reserve((len(values) + 1) * _WORD, _WORD)
    at = image.address_of(image.put(b"\0".join([*values, b""])))
    pointers = []
    for value in values:
        pointers.append(at)
        at += len(value) + 1
    image.words(array, [*pointers, 0])
    return image.address_of(array)
