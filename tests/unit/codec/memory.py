"""Made-up task memory, drawn as pictures of pages, and slots to read it into."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from pinfold.codec.base import SlotFull
from pinfold.codec.image import Image

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

AT = 0x10000
"""Where the first page of a picture lies."""
BASE = 0x7000_0000
"""Where slots lie in the task."""
BEFORE = 64
"""Bytes of the view that belong to somebody else, before a slot and after it."""
FILLER = 0xEE


class BytesMemory:
    """Pages of a task; what is in none of them cannot be read.

    Args:
        pages: By address of the first byte; all of the same size.
        page: That size.
    """

    def __init__(self, pages: dict[int, bytes], page: int = 4096) -> None:
        assert all(len(data) == page and at % page == 0 for at, data in pages.items())
        self.pages = {at: bytearray(data) for at, data in pages.items()}
        self.page = page
        self.view = bytearray()
        self.reads = 0

    def readable(self, address: int, length: int) -> bytes:
        """Returns the bytes from ``address`` to the first that cannot be read."""
        found = b""
        while len(found) < length:
            start = address + len(found)
            data = self.pages.get(start - start % self.page)
            if data is None:
                break
            inside = start % self.page
            found += data[inside : inside + length - len(found)]
        return found

    def read(self, address: int, offset: int, length: int) -> int:
        assert length >= 1
        assert 0 <= address < 1 << 63
        assert offset >= BEFORE
        assert offset + length <= len(self.view) - BEFORE
        self.reads += 1
        data = self.readable(address, length)
        self.view[offset : offset + len(data)] = data
        return len(data)


class RestlessMemory(BytesMemory):
    """Memory that other threads rewrite after every read, and where the slot can be seen too."""

    def __init__(self, pages: dict[int, bytes], page: int, seed: int) -> None:
        super().__init__(pages, page)
        self.random = random.Random(seed)

    def readable(self, address: int, length: int) -> bytes:
        slot = address - BASE
        if 0 <= slot < len(self.view) - 2 * BEFORE:
            return bytes(self.view[BEFORE + slot : len(self.view) - BEFORE][:length])
        return super().readable(address, length)

    def read(self, address: int, offset: int, length: int) -> int:
        got = super().read(address, offset, length)
        chosen = self.random
        for data in self.pages.values():
            for _ in range(chosen.randrange(4)):
                at = chosen.randrange(self.page // 8) * 8
                data[at : at + 8] = chosen.choice(
                    [
                        bytes(8),
                        chosen.randbytes(8),
                        b"\xff" * 8,
                        b"AAAAAAA\0",
                        (AT + chosen.randrange(8 * self.page)).to_bytes(8, "little"),
                        (BASE + chosen.randrange(512)).to_bytes(8, "little"),
                        chosen.randrange(200).to_bytes(8, "little"),
                    ]
                )
        return got


def slot(memory: BytesMemory, size: int = 8192) -> Image:
    """Returns the image of an empty slot that ``memory`` is read into."""
    memory.view = bytearray(b"\xdd" * (size + 2 * BEFORE))
    return Image(memory.view, BEFORE, size, BASE, memory)


def untouched_around(memory: BytesMemory) -> bool:
    """Returns whether the slot's neighbours are as they were."""
    return memory.view[:BEFORE] + memory.view[-BEFORE:] == b"\xdd" * (2 * BEFORE)


def in_growing_slots(memory: BytesMemory, build: Callable[[Image], T], size: int = 64) -> T:
    """Returns what ``build`` gives in the first slot that is large enough, grown as asked for."""
    while True:
        try:
            return build(slot(memory, size))
        except SlotFull as full:
            needed = full.needed
        assert needed > size
        size = max(needed, size + size // 2)


def drawn(picture: str) -> tuple[BytesMemory, int]:
    """Returns the memory of a picture, and the address that its ``>`` points at.

    Pages stand between bars, 16 bytes each, ``#`` for one that cannot be read. A dot is a NUL,
    ``-`` a byte of no meaning.
    """
    drawings = picture.strip("|").split("|")
    pages: dict[int, bytes] = {}
    address = -1
    for number, drawing in enumerate(drawings):
        if drawing == "#":
            continue
        assert len(drawing) == 16, drawing
        at = AT + 16 * number
        if ">" in drawing:
            address = at + drawing.index(">") + 1
        table = str.maketrans({".": "\0", "-": chr(FILLER), ">": chr(FILLER)})
        pages[at] = drawing.translate(table).encode("latin-1")
    assert address >= 0
    return BytesMemory(pages, 16), address


def words_drawn(picture: str, words: dict[str, int], shift: int = 0) -> tuple[BytesMemory, int]:
    """The same for pages of four words of eight bytes each, by their letters in ``words``.

    Args:
        picture: Words are separated by blanks; ``>`` marks the one *after* which it begins.
        words: What letters stand for, besides ``-`` and ``>`` (filler) and ``0``.
        shift: Bytes by which everything but the pages is moved up.
    """
    words = {"-": 0xEEEEEEEEEEEEEEEE, ">": 0xEEEEEEEEEEEEEEEE, "0": 0, **words}
    pages: dict[int, bytes] = {}
    address = -1
    carried = b"\xee" * shift
    for number, drawing in enumerate(picture.strip("|").split("|")):
        at = AT + 32 * number
        if drawing.strip() == "#":
            carried = b"\xee" * shift
            continue
        letters = drawing.split()
        assert len(letters) == 4, drawing
        if ">" in letters:
            address = at + 8 * (letters.index(">") + 1) + shift
        data = carried + b"".join(words[letter].to_bytes(8, "little") for letter in letters)
        pages[at], carried = data[:32], data[32:]
    assert address >= 0
    return BytesMemory(pages, 32), address
