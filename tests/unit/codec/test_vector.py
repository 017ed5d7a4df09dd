from __future__ import annotations

import errno
import random
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.codec import vector
from pinfold.codec.base import UNREADABLE, Refused, SlotFull

from .kernel import Errno, Kernel
from .memory import (
    AT,
    BASE,
    BEFORE,
    BytesMemory,
    RestlessMemory,
    in_growing_slots,
    slot,
    untouched_around,
    words_drawn,
)

if TYPE_CHECKING:
    from pinfold.codec.image import Image
    from pinfold.codec.vector import StringVector

# Strings of one letter, in a page of their own; `x` is nowhere, `e` an error pointer.
LETTERS = 0x20000
WORDS = {"A": LETTERS, "B": LETTERS + 2, "x": 0x666000, "e": (1 << 64) - 4095, "u": UNREADABLE}
STRINGS = {LETTERS: b"A\0B\0" + b"\xee" * 28}


def decode(memory: BytesMemory, address: int, budget: int = vector.LIMIT) -> StringVector:
    return in_growing_slots(memory, lambda image: vector.decode(image, address, budget))


def words_at(memory: BytesMemory, pointer: int, count: int) -> list[int]:
    start = pointer - BASE + BEFORE
    return list(struct.unpack(f"<{count}Q", memory.view[start : start + 8 * count]))


def pinned_only(memory: BytesMemory, found: StringVector) -> None:
    """Every pointer of the image is one into the slot, or unreadable."""
    end = BASE + len(memory.view) - 2 * BEFORE
    if found.pointer in {0, UNREADABLE}:
        return
    assert BASE <= found.pointer < end
    *pointers, last = words_at(memory, found.pointer, found.length + 1)
    assert last == 0
    assert all(BASE <= pointer < end or pointer == UNREADABLE for pointer in pointers)


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(
    ("picture", "values", "faulted"),
    [
        ("|- - - >|A B 0 -|", [b"A", b"B"], False),
        ("|> 0 - -|", [], False),
        ("|> A B 0|", [b"A", b"B"], False),
        ("|> B A B|A 0 - -|", [b"B", b"A", b"B", b"A"], False),
        ("|> x A 0|", [b"", b"A"], True),
        ("|> A x 0|", [b"A", b""], True),
        ("|> x u 0|", [b"", b""], True),
        # What the kernel cannot count it never copies.
        ("|> A B A|#|", None, True),
        ("|> A B A|B A B A|#|", None, True),
        ("|- - - >|#|", None, True),
        ("|> A e 0|", None, True),
        ("|> e x A|#|", None, True),
        ("|> A 0 e|#|", [b"A"], False),
    ],
)
def test_arrays_at_page_ends(
    picture: str, values: list[bytes] | None, faulted: bool, shift: int
) -> None:
    if shift and values is not None:
        picture += "- - - -|"  # a last word that is on two pages
    memory, address = words_drawn(picture, WORDS, shift)
    memory.pages.update({at: bytearray(data) for at, data in STRINGS.items()})
    found = decode(memory, address)
    assert found.faulted == faulted
    assert not found.absent
    pinned_only(memory, found)
    if values is None:
        assert found.pointer == UNREADABLE
        assert found.values == []
        assert found.length == 0
    else:
        assert found.values == values
        assert found.length == len(values)
        assert found.cost == sum(8 + len(value) + 1 for value in values) - len(found.unreadable)
    assert outcome(memory, found.pointer, 0, pinned=True) == outcome(
        memory, address, 0, pinned=False
    )


def test_a_last_word_that_runs_into_an_unreadable_page() -> None:
    memory, address = words_drawn("|> A B 0|#|", WORDS, 4)
    memory.pages.update({at: bytearray(data) for at, data in STRINGS.items()})
    assert decode(memory, address).pointer == UNREADABLE


def test_null_is_no_vector() -> None:
    memory = BytesMemory({0: b"\0" * 4096})
    found = decode(memory, 0)
    assert found.absent
    assert not found.faulted
    assert (found.pointer, found.values, found.cost) == (0, [], 0)
    assert memory.reads == 0


def outcome(
    memory: BytesMemory, argv: int, envp: int, *, pinned: bool
) -> tuple[list[bytes], list[bytes]] | Errno:
    try:
        return Kernel(memory, pinned=pinned).execve(argv, envp)
    except Errno as error:
        return error


def laid_out(values: list[bytes], *, apart: int = 0, at: int = AT) -> BytesMemory:
    """Memory with a vector at ``at`` and its strings behind it, with gaps between them."""
    array = b""
    strings = b""
    start = at + 8 * (len(values) + 1)
    for value in values:
        array += struct.pack("<Q", start + len(strings))
        strings += value + b"\0" + b"g" * apart
    blob = array + bytes(8) + strings
    blob += b"\xee" * (-len(blob) % 4096)
    return BytesMemory({at + n: blob[n : n + 4096] for n in range(0, len(blob), 4096)})


@pytest.mark.parametrize("apart", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 62, 63, 64, 65, 511, 575, 576, 577, 5000])
def test_arrays_longer_than_one_piece(count: int, apart: int) -> None:
    values = [b"%d" % index for index in range(count)]
    memory = laid_out(values, apart=apart)
    found = decode(memory, AT)
    assert found.values == values
    pinned_only(memory, found)
    assert outcome(memory, found.pointer, 0, pinned=True) == (values, [])
    assert found.cost == sum(8 + len(value) + 1 for value in values)


def has_no_end(found: vector.StringVector, index: int) -> bool:
    """Whether an element is one for which the kernel says E2BIG."""
    array = found.pointer - found.image.address_of(0)
    (pointer,) = struct.unpack("<Q", found.image.bytes_at(array + 8 * index, 8))
    text = found.image.bytes_at(pointer - found.image.address_of(0), 131072)
    return len(text) == 131072 and b"\0" not in text


def test_strings_up_to_the_kernel_s_longest() -> None:
    longest = b"a" * 131071
    found = decode(laid_out([b"x", longest, b"y"]), AT)
    assert found.values == [b"x", longest, b"y"]
    found = decode(laid_out([b"x", longest + b"a", b"y"]), AT)
    assert (found.values, found.unreadable) == ([b"x", b"", b"y"], (1,))
    assert has_no_end(found, 1)


@pytest.mark.parametrize("budget", [8, 16, 100, 1000])
def test_the_budget_is_met_exactly(budget: int) -> None:
    # 8 for the pointer, 1 for the NUL
    if budget > 9:
        found = decode(laid_out([b"a" * (budget - 9)]), AT, budget)
        assert found.cost == budget
    for too_many in ([b"a" * max(0, budget - 8)], [b""] * (budget // 9 + 1)):
        found = decode(laid_out(too_many), AT, budget)
        assert found.unreadable
        assert all(has_no_end(found, index) for index in found.unreadable)


def test_an_array_without_end_is_given_up() -> None:
    class Endless(BytesMemory):
        def readable(self, address: int, length: int) -> bytes:
            return (b"\x01" * 8 * (length // 8 + 2))[address % 8 :][:length]

    memory = Endless({})
    with pytest.raises(Refused) as refused:
        vector.decode(slot(memory, 8 << 20), AT)
    assert refused.value.errno == errno.E2BIG
    assert memory.reads < 200


def test_strings_without_end_are_given_up() -> None:
    # Every pointer names the same 100,000 bytes.
    text = b"a" * 100_000 + b"\0"
    text += b"\xee" * (-len(text) % 4096)
    pages = {0x100000 + n: text[n : n + 4096] for n in range(0, len(text), 4096)}
    pages[AT] = struct.pack("<Q", 0x100000) * 500 + bytes(96)
    memory = BytesMemory(pages)
    found = vector.decode(slot(memory, 7 << 20), AT)
    assert found.unreadable == tuple(range(found.unreadable[0], 500))
    assert all(has_no_end(found, index) for index in found.unreadable)
    assert memory.reads < 500


def test_memory_is_read_by_the_page() -> None:
    values = [b"VARIABLE%d=value" % index for index in range(400)]
    memory = laid_out(values, apart=3)
    assert vector.decode(slot(memory, 65536), AT).values == values
    # Two for the array, and a second one where a string runs over the end of a page.
    assert memory.reads <= 2 + 2 * len(memory.pages)
    # In another order a page is read again for what lies before all that was asked of it so far.
    chosen = random.Random(1)
    order = chosen.sample(range(400), 400)
    array = struct.unpack_from("=400Q", b"".join(memory.pages.values()))
    for place, index in enumerate(order):
        page = memory.pages[AT + 8 * place // 4096 * 4096]
        page[8 * place % 4096 : 8 * place % 4096 + 8] = struct.pack("=Q", array[index])
    memory.reads = 0
    found = vector.decode(slot(memory, 65536), AT)
    assert found.values == [values[index] for index in order]
    assert memory.reads < 60


def test_more_pages_than_are_kept() -> None:
    count = 3 * 2048 + 5
    array = b"".join(struct.pack("=Q", 0x1000_0000 + 8192 * (n % 2050)) for n in range(count))
    array += bytes(8 + -(len(array) + 8) % 4096)
    layout = {AT + n: array[n : n + 4096] for n in range(0, len(array), 4096)}
    layout |= {0x1000_0000 + 8192 * n: (b"%d\0" % n).ljust(4096, b"x") for n in range(2050)}
    found = vector.decode(slot(BytesMemory(layout), 1 << 20), AT)
    assert found.values == [b"%d" % (n % 2050) for n in range(count)]


values_lists = st.lists(
    st.binary(max_size=30).map(lambda data: data.replace(b"\0", b"")), max_size=70
)


@settings(max_examples=300)
@given(values_lists)
def test_encoded_vectors_decode_to_what_they_were(values: list[bytes]) -> None:
    memory = BytesMemory({})
    pointer = in_growing_slots(memory, lambda image: vector.encode(image, values), 8)
    assert untouched_around(memory)
    assert outcome(memory, pointer, pointer, pinned=True) == (values, values)
    # The slot as another task's memory
    size = len(memory.view) - 2 * BEFORE
    blob = bytes(memory.view[BEFORE:-BEFORE]).ljust(size + (-size % 4096), b"\xee")
    again = BytesMemory({BASE + n: blob[n : n + 4096] for n in range(0, len(blob), 4096)})
    found = in_growing_slots(again, lambda image: vector.decode(image, pointer))
    assert found.values == values
    assert not found.faulted


def test_a_nul_inside_an_argument() -> None:
    image = slot(BytesMemory({}))
    with pytest.raises(ValueError, match="NUL"):
        vector.encode(image, [b"a", b"b\0c"])
    assert image.used == 0


def test_encoding_beside_something_else() -> None:
    memory = laid_out([b"one", b"two"])
    image = slot(memory)
    image.put(b"x")
    first = vector.decode(image, AT)
    pointer = vector.encode(image, [b"1", b"", b"3"])
    assert first.values == [b"one", b"two"]
    assert outcome(memory, first.pointer, pointer, pinned=True) == (
        [b"one", b"two"],
        [b"1", b"", b"3"],
    )
    assert first.pointer % 8 == pointer % 8 == 0


# Two vectors over few small pages, with pointers everywhere

PAGE = 64
PAGES = 8
somewhere = st.integers(AT - 8, AT + PAGES * PAGE + 8)
pointers = (
    somewhere
    | somewhere
    | st.sampled_from([0, 1, UNREADABLE, UNREADABLE - 1, UNREADABLE + 1, (1 << 64) - 1, 1 << 63])
    | st.integers(0, (1 << 64) - 1)
)
words = pointers.map(lambda value: value.to_bytes(8, "little"))
cells = words | st.sampled_from([bytes(8), b"abcdefg\0", b"abc\0def\0", b"abcdefgh"])
pages = st.lists(cells, min_size=PAGE // 8, max_size=PAGE // 8).map(b"".join)


@st.composite
def memories(draw: st.DrawFn) -> dict[int, bytes]:
    present = draw(st.sets(st.integers(0, PAGES - 1), min_size=1))
    return {AT + PAGE * number: draw(pages) for number in sorted(present)}


def both(image: Image, argv: int, envp: int) -> tuple[StringVector, StringVector]:
    first = vector.decode(image, argv)
    return first, vector.decode(image, envp, vector.LIMIT - first.cost)


@settings(max_examples=300)
@given(memories(), somewhere, pointers)
@example({AT: struct.pack("<QQ", AT + 16, 0) + b"abc\0" + b"x" * 44}, AT, AT)
def test_the_kernel_sees_the_same_through_the_image(
    layout: dict[int, bytes], argv: int, envp: int
) -> None:
    memory = BytesMemory(layout, PAGE)
    first, second = in_growing_slots(memory, lambda image: both(image, argv, envp))
    assert untouched_around(memory)
    pinned_only(memory, first)
    pinned_only(memory, second)
    seen = outcome(memory, first.pointer, second.pointer, pinned=True)
    assert seen == outcome(memory, argv, envp, pinned=False)
    assert isinstance(seen, Errno) == (first.faulted or second.faulted)
    if not isinstance(seen, Errno):
        assert seen == (first.values, second.values)


@settings(max_examples=300)
@given(memories(), somewhere, pointers, st.integers(1, 4000))
def test_a_larger_slot_gives_the_same(
    layout: dict[int, bytes], argv: int, envp: int, size: int
) -> None:
    memory = BytesMemory(layout, PAGE)
    first, second = both(slot(memory, 16384), argv, envp)
    wanted = first.values, second.values, first.pointer, second.pointer, first.cost, second.cost
    first, second = in_growing_slots(memory, lambda image: both(image, argv, envp), size)
    assert wanted == (
        first.values,
        second.values,
        first.pointer,
        second.pointer,
        first.cost,
        second.cost,
    )


@settings(max_examples=300)
@given(memories(), st.integers(), somewhere | st.integers(BASE, BASE + 300), pointers)
def test_what_restless_memory_gives_is_what_the_image_holds(
    layout: dict[int, bytes], seed: int, argv: int, envp: int
) -> None:
    memory = RestlessMemory(layout, PAGE, seed)
    try:
        first, second = both(slot(memory, 1 << 16), argv, envp)
    except (Refused, SlotFull):
        return  # An array in the slot itself grows as it is copied.
    assert untouched_around(memory)
    pinned_only(memory, first)
    pinned_only(memory, second)
    seen = outcome(memory, first.pointer, second.pointer, pinned=True)
    if first.faulted or second.faulted:
        assert isinstance(seen, Errno)
    else:
        assert seen == (first.values, second.values)


def test_many_unreadable_strings_take_no_time_in_the_square() -> None:
    count = 20_000
    array = b"".join(struct.pack("<Q", 0x2000 if n % 2 else 0x3000) for n in range(count))
    array += bytes(8)
    array += b"\xee" * (-len(array) % 4096)
    layout = {AT + n: array[n : n + 4096] for n in range(0, len(array), 4096)}
    layout[0x2000] = bytes(4096)
    memory = BytesMemory(layout)
    found = vector.decode(slot(memory, 1 << 20), AT)
    assert found.values == [b""] * count
    assert found.unreadable == tuple(range(0, count, 2))
    assert words_at(memory, found.pointer, 2) == [UNREADABLE, BASE + found.start]


@pytest.mark.parametrize("readable", [True, False])
def test_strings_that_lie_too_far_apart_are_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    monkeypatch.setattr(vector, "MOST_READ", 8 * 4096)
    strings = 0x100000
    layout = {strings + n * 4096: b"a\0" + bytes(4094) for n in range(9)} if readable else {}
    for count in (8, 9):
        pointers = [strings + n * 4096 for n in range(count)]
        layout[AT] = struct.pack(f"<{count + 1}Q", *pointers, 0).ljust(4096, b"\0")
        memory = BytesMemory(layout)
        if count == 9:
            with pytest.raises(Refused) as refused:
                vector.decode(slot(memory, 1 << 16), AT)
            assert refused.value.errno == errno.E2BIG
        else:
            found = vector.decode(slot(memory, 1 << 16), AT)
            assert found.values == [b"a" if readable else b""] * count
