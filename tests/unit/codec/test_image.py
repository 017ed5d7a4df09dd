from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec.base import UNREADABLE, SlotFull
from pinfold.codec.image import FAULT, TOO_LONG, Span
from pinfold.errors import InternalError

from .memory import (
    AT,
    BASE,
    BytesMemory,
    RestlessMemory,
    drawn,
    in_growing_slots,
    slot,
    untouched_around,
)

if TYPE_CHECKING:
    from pinfold.codec.image import Image


@pytest.mark.parametrize(
    ("picture", "limit", "string"),
    [
        ("|------->abc.----|", 4096, b"abc"),
        ("|>abc.-----------|", 4, b"abc"),
        ("|>abc.-----------|", 3, TOO_LONG),
        ("|>.--------------|", 1, b""),
        ("|>.--------------|", 0, TOO_LONG),
        ("|-------->abcdef.|#|", 4096, b"abcdef"),
        ("|-------->abcdefg|#|", 4096, FAULT),
        ("|-------->abcdefg|#|", 8, FAULT),
        ("|-------->abcdefg|#|", 7, TOO_LONG),
        ("|-------------->.|#|", 4096, b""),
        ("|--------------->|#|", 4096, FAULT),
        ("|--------------->|#|", 0, TOO_LONG),
        ("|-------->abcdefg|hij.------------|", 4096, b"abcdefghij"),
        ("|-------->abcdefg|.---------------|#|", 4096, b"abcdefg"),
        ("|-------->abcdefg|hijklmnopqrstuv.|#|", 4096, b"abcdefghijklmnopqrstuv"),
        ("|-------->abcdefg|hijklmnopqrstuvw|#|", 4096, FAULT),
        ("|-------->abcdefg|#|xyz.------------|", 4096, FAULT),
        ("|#|--------------->|abc.------------|", 4096, b"abc"),
    ],
)
def test_strings_at_page_ends(picture: str, limit: int, string: bytes | int) -> None:
    memory, address = drawn(picture)
    image = slot(memory)
    image.put(b"x")
    found = image.copy_string(address, limit)
    if isinstance(string, int):
        assert found == string
        assert image.used == 1
    else:
        assert found == Span(1, len(string))
        assert image.bytes_at(1, len(string) + 1) == string + b"\0"
        assert image.used == 1 + len(string) + 1
    assert untouched_around(memory)


@pytest.mark.parametrize(
    ("picture", "length", "whole"),
    [
        ("|-------->abcdefg|#|", 7, True),
        ("|-------->abcdefg|#|", 8, False),
        ("|--------------->|abc-------------|", 3, True),
        ("|--------------->|#|", 1, False),
        ("|--------------->|#|", 0, True),
    ],
)
def test_bytes_at_page_ends(picture: str, length: int, whole: bool) -> None:
    memory, address = drawn(picture)
    image = slot(memory)
    image.put(b"x")
    offset = image.copy(address, length, 8)
    if whole:
        assert offset == 8
        assert image.bytes_at(8, length) == memory.readable(address, length)
        assert image.used == 8 + length
    else:
        assert offset is None
        assert image.used == 1


@pytest.mark.parametrize("address", [1 << 63, UNREADABLE, (1 << 64) - 1, 0xFFFFFFFFFF600000])
def test_the_kernel_s_own_addresses_are_never_read(address: int) -> None:
    memory = BytesMemory({address & -4096: b"\0" * 4096})
    image = slot(memory)
    assert image.copy_string(address, 10) == FAULT
    assert image.copy(address, 1) is None
    assert image.peek(address, 1) == (0, True)
    assert memory.reads == 0


def test_a_long_string_is_read_in_growing_pieces() -> None:
    text = b"a" * 100_000
    pages = {AT + at: (text + b"\0" * 4096)[at : at + 4096] for at in range(0, 100_000, 4096)}
    memory = BytesMemory(pages)
    image = slot(memory, 200_000)
    assert image.copy_string(AT, 131072) == Span(0, 100_000)
    assert memory.reads == 4  # 256, 4096, 65536 and 131072 bytes are there after them
    memory = BytesMemory({AT: b"a" * 255 + b"\0" * 3841})
    assert slot(memory).copy_string(AT, 4096) == Span(0, 255)
    assert memory.reads == 1


def test_room() -> None:
    memory, address = drawn("|--->abcdefg.----|")
    image = slot(memory, 8)
    assert image.copy_string(address, 100) == Span(0, 7)
    assert image.used == 8
    assert image.copy(address, 0) == 8
    for more in (
        lambda: image.put(b"x"),
        lambda: image.copy(address, 1),
        lambda: image.copy_string(address, 100),
        lambda: image.peek(address, 1),
    ):
        with pytest.raises(SlotFull) as full:
            more()
        assert full.value.needed == 9
    image = slot(memory, 7)
    with pytest.raises(SlotFull) as full:
        image.copy_string(address, 100)
    assert full.value.needed == 8
    assert untouched_around(memory)


def test_a_string_that_is_too_long_asks_for_no_room() -> None:
    memory, address = drawn("|--->abcdefg.----|")
    assert slot(memory, 7).copy_string(address, 7) == TOO_LONG


def test_peek() -> None:
    memory, address = drawn("|-------->abcdefg|#|")
    image = slot(memory, 5)
    assert image.peek(address, 5) == (5, False)
    assert image.used == 0
    assert image.peek(address, 7) == (5, False)
    assert image.bytes_at(0, 5) == b"abcde"
    with pytest.raises(SlotFull) as full:
        image.peek(address, 8, 6)
    assert full.value.needed == 6
    image = slot(memory)
    assert image.peek(address, 7) == (7, False)
    assert image.peek(address, 8) == (7, True)


def test_alignment_is_that_of_the_address() -> None:
    memory = BytesMemory({})
    image = slot(memory)
    assert image.put(b"abc") == 0
    assert image.put(b"abc", 8) == 8
    assert image.put(b"abc") == 11
    assert image.reserve(5, 4096) == 4096
    assert image.used == 4101
    image._base += 3
    assert image.reserve(1, 4) == 4101  # BASE + 4104
    assert image.reserve(1, 4) == 4105


def test_words_and_addresses() -> None:
    memory = BytesMemory({})
    image = slot(memory, 32)
    offset = image.reserve(24)
    image.words(offset, [1, UNREADABLE])
    image.word(offset + 16, (1 << 64) - 1)
    assert image.bytes_at(0, 24) == b"\1" + bytes(7) + b"\0\xf0" + b"\xff" * 14
    assert image.address_of(offset + 8) == BASE + 8
    image.replace(offset + 7, b"ab")
    assert image.bytes_at(6, 4) == b"\0ab\xf0"
    with pytest.raises(InternalError):
        image.replace(23, b"ab")
    assert untouched_around(memory)


strings = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"."))


@settings(max_examples=300)
@given(st.lists(strings, max_size=12), st.data())
def test_any_strings_in_any_order_are_what_they_are(
    texts: list[bytes], data: st.DataObject
) -> None:
    blob = b"".join(text + b"\0" for text in texts).ljust(1024, b"\xee")
    memory = BytesMemory({AT + at: blob[at : at + 16] for at in range(0, 1024, 16)}, 16)
    starts = [AT + sum(len(text) + 1 for text in texts[:index]) for index in range(len(texts))]
    order = data.draw(st.lists(st.sampled_from(range(len(texts))), max_size=20)) if texts else []
    limits = [data.draw(st.integers(0, 60)) for _ in order]

    def build(image: Image) -> list[bytes | int]:
        found = [
            image.copy_string(starts[index], limit)
            for index, limit in zip(order, limits, strict=True)
        ]
        return [span if isinstance(span, int) else image.bytes_at(*span) for span in found]

    wanted = [
        texts[index] if len(texts[index]) < limit else TOO_LONG
        for index, limit in zip(order, limits, strict=True)
    ]
    assert in_growing_slots(memory, build) == wanted


@settings(max_examples=300)
@given(st.integers(), st.lists(st.tuples(st.integers(-3, 140), st.integers(0, 90)), max_size=12))
def test_restless_memory_gives_strings_without_a_nul(
    seed: int, asked: list[tuple[int, int]]
) -> None:
    memory = RestlessMemory({AT + at: b"ABC\0EFGH" * 8 for at in (0, 64)}, 64, seed)
    image = slot(memory, 4096)
    kept = b""
    for offset, limit in asked:
        found = image.copy_string(AT + offset, limit)
        if isinstance(found, Span):
            text = image.bytes_at(found.offset, found.length + 1)
            assert text.index(b"\0") == found.length < limit
            kept += text
    assert image.bytes_at(0, image.used) == kept
