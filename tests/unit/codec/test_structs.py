"""``struct open_how``, ``struct xattr_args``, names and values of extended attributes."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec import openhow, xattr
from pinfold.codec.base import UNREADABLE, Refused
from pinfold.codec.openhow import OpenHow
from pinfold.codec.xattr import Bytes, XattrArgs

from .kernel import Errno, Kernel
from .memory import (
    AT,
    BASE,
    BytesMemory,
    RestlessMemory,
    drawn,
    in_growing_slots,
    slot,
    untouched_around,
    words_drawn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.codec.image import Image

T = TypeVar("T")
HOW = {"F": 0o102, "M": 0o600, "R": 0x18}
U64 = st.integers(0, (1 << 64) - 1)


def outcome(call: Callable[..., object], *arguments: int) -> object:
    try:
        return call(*arguments)
    except Errno as error:
        return error


def decoded(memory: BytesMemory, build: Callable[[Image], T], room: int = 64) -> T | Errno:
    try:
        return in_growing_slots(memory, build, room)
    except Refused as refused:
        return Errno(refused.errno)


def kernels(memory: BytesMemory) -> tuple[Kernel, Kernel]:
    return Kernel(memory, pinned=True), Kernel(memory, pinned=False)


@pytest.mark.parametrize(
    ("picture", "size", "answer"),
    [
        ("|> F M R|#|", 24, None),
        ("|> F M R|#|", 23, errno.EINVAL),
        ("|> F M R|#|", 0, errno.EINVAL),
        ("|> F M R|#|", 25, errno.EFAULT),
        ("|> F M R|#|", 4097, errno.E2BIG),
        ("|> F M R|#|", (1 << 64) - 1, errno.E2BIG),
        ("|- > F M|R 0 0 0|", 24, None),
        ("|- > F M|R 0 0 0|#|", 48, None),
        ("|- > F M|R 0 0 0|#|", 49, errno.EFAULT),
        ("|- > F M|R 0 0 F|#|", 40, None),
        ("|- > F M|R 0 0 F|#|", 48, errno.E2BIG),
        ("|- > F M|#|", 24, errno.EFAULT),
        # Unknown bytes are looked for first, and up to where they cannot be read.
        ("|> F M R|0 0 0 F|#|", 57, errno.E2BIG),
        ("|> F M R|0 0 0 0|#|", 57, errno.EFAULT),
        ("|- - - >|#|", 24, errno.EFAULT),
        ("|- - - >|#|", 23, errno.EINVAL),
    ],
)
def test_open_how(picture: str, size: int, answer: int | None) -> None:
    memory, address = words_drawn(picture, HOW)
    how = decoded(memory, lambda image: openhow.decode(image, address, size))
    assert untouched_around(memory)
    if isinstance(how, Errno):
        assert answer == how.number == errno.E2BIG
        assert outcome(Kernel(memory, pinned=False).openat2, address, size) == how
        return
    pinned, plain = kernels(memory)
    seen = outcome(pinned.openat2, how.pointer, size)
    assert seen == outcome(plain.openat2, address, size)
    if answer is None:
        assert seen == (how.flags, how.mode, how.resolve) == (0o102, 0o600, 0x18)
        assert how.pointer == BASE + how.offset
    else:
        assert seen == Errno(answer)
        if answer != errno.E2BIG or size > 4096:
            assert how == OpenHow(UNREADABLE, -1, 0, 0, 0)


@pytest.mark.parametrize(("tail", "answer"), [(b"\1", errno.E2BIG), (b"\0", errno.EFAULT)])
def test_unknown_bytes_are_looked_for_before_known_ones_are_read(tail: bytes, answer: int) -> None:
    # |########|tail----|
    memory = BytesMemory({AT + 32: tail * 32}, 32)
    how = decoded(memory, lambda image: openhow.decode(image, AT + 8, 32))
    if answer == errno.E2BIG:
        assert how == Errno(answer)
    else:
        assert isinstance(how, OpenHow)
        assert outcome(Kernel(memory, pinned=True).openat2, how.pointer, 32) == Errno(answer)
    assert outcome(Kernel(memory, pinned=False).openat2, AT + 8, 32) == Errno(answer)


@given(U64, U64, U64, st.sampled_from([24, 32, 4096]))
def test_open_how_with_other_numbers(flags: int, mode: int, resolve: int, size: int) -> None:
    memory = BytesMemory({AT: struct.pack("=3Q", 1, 2, 3).ljust(4096, b"\0")})
    image = slot(memory)
    image.put(b"x")
    how = openhow.decode(image, AT, size)
    how = how._replace(flags=flags, mode=mode, resolve=resolve)
    openhow.encode(image, how)
    assert Kernel(memory, pinned=True).openat2(how.pointer, size) == (flags, mode, resolve)
    assert image.used == 8 + size


def test_open_how_with_numbers_that_do_not_fit() -> None:
    memory = BytesMemory({AT: bytes(4096)})
    image = slot(memory)
    how = openhow.decode(image, AT, 24)
    for wrong in (how._replace(flags=-1), how._replace(resolve=1 << 64)):
        with pytest.raises(ValueError, match="64 bits"):
            openhow.encode(image, wrong)
    assert Kernel(memory, pinned=True).openat2(how.pointer, 24) == (0, 0, 0)


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("|------->user.a.-|", b"user"),
        ("|-------->user-a.|#|", b"user\xeea"),
        ("|-------->user-ab|#|", None),
        ("|-------->.------|#|", b""),
        ("|--------------->|#|", None),
    ],
)
def test_names_at_page_ends(picture: str, name: bytes | None) -> None:
    memory, address = drawn(picture)
    found = in_growing_slots(memory, lambda image: xattr.decode_name(image, address), 1)
    assert found.data == (name or b"")
    assert (found.pointer == UNREADABLE) == (name is None)
    pinned, plain = kernels(memory)
    assert outcome(pinned.xattr_name, found.pointer) == outcome(plain.xattr_name, address)


@pytest.mark.parametrize("length", [254, 255, 256, 257, 1000, 4095])
def test_long_names(length: int) -> None:
    memory = BytesMemory({AT: b"n" * length + b"\0" * (4096 - length)})
    image = slot(memory)
    image.put(b"x")
    found = xattr.decode_name(image, AT)
    pinned, plain = kernels(memory)
    seen = outcome(pinned.xattr_name, found.pointer)
    assert seen == outcome(plain.xattr_name, AT)
    assert seen == (b"n" * length if length < 256 else Errno(errno.ERANGE))
    assert found.data == b"n" * min(length, 256)
    assert image.used == 1 + min(length + 1, 256)
    assert memory.reads == 1


@pytest.mark.parametrize(
    ("picture", "size", "value"),
    [
        ("|-------->abcdefg|#|", 7, b"abcdefg"),
        ("|-------->abcdefg|#|", 8, None),
        ("|-------->abcdefg|#|", 0, b""),
        ("|--------------->|#|", 0, b""),
        ("|-------->abcdefg|#|", 65537, None),
        ("|-------->abcdefg|#|", (1 << 64) - 1, None),
    ],
)
def test_values(picture: str, size: int, value: bytes | None) -> None:
    memory, address = drawn(picture)
    found = in_growing_slots(memory, lambda image: xattr.decode_value(image, address, size), 1)
    assert found.data == (value or b"")
    assert (found.pointer == UNREADABLE) == (not value)
    pinned, plain = kernels(memory)
    assert outcome(pinned.xattr_value, found.pointer, size) == outcome(
        plain.xattr_value, address, size
    )


def test_the_longest_value() -> None:
    blob = b"v" * (65536 + 4096)
    memory = BytesMemory({AT + at: blob[at : at + 4096] for at in range(0, len(blob), 4096)})
    image = slot(memory, 65536)
    assert xattr.decode_value(image, AT, 65536) == Bytes(BASE, b"v" * 65536)
    assert xattr.decode_value(image, AT, 65537) == Bytes(UNREADABLE, b"")


VALUE = 0x20000
ARGS = {
    "V": VALUE,
    "N": 0x666000,
    "4": 4 | 1 << 32,  # four bytes, flags 1
    "n": 33 | 1 << 32,
    "H": 65537,
    "Z": 0,
}


@pytest.mark.parametrize(
    ("picture", "size", "answer"),
    [
        ("|- > V 4|#|", 16, None),
        ("|- > V 4|#|", 15, errno.EINVAL),
        ("|- > V 4|#|", 17, errno.EFAULT),
        ("|- > V 4|#|", 4097, errno.E2BIG),
        ("|- > V 4|0 0 - -|", 32, None),
        ("|- > V 4|0 N - -|", 32, errno.E2BIG),
        ("|- - > V|#|", 16, errno.EFAULT),
        ("|- > V n|#|", 16, errno.EFAULT),
        ("|- > N 4|#|", 16, errno.EFAULT),
        ("|- > N Z|#|", 16, None),
        ("|- > V H|#|", 16, errno.E2BIG),
        ("|- > N H|#|", 16, errno.E2BIG),
    ],
)
def test_xattr_args(picture: str, size: int, answer: int | None) -> None:
    memory, address = words_drawn(picture, ARGS)
    memory.pages[VALUE] = bytearray(b"abcdefgh" * 4)
    args = in_growing_slots(
        memory, lambda image: xattr.decode_args(image, address, size, sets=True)
    )
    assert untouched_around(memory)
    pinned, plain = kernels(memory)
    seen = outcome(pinned.setxattrat, args.pointer, size)
    assert seen == outcome(plain.setxattrat, address, size)
    assert (seen.number if isinstance(seen, Errno) else None) == answer
    if answer is None:
        assert seen == (args.value, args.flags)
        assert len(args.value) == args.size


def test_getting_leaves_the_value_in_the_task() -> None:
    memory, address = words_drawn("|- > N n|#|", ARGS)
    args = xattr.decode_args(slot(memory), address, 16, sets=False)
    assert args == XattrArgs(BASE, 0, b"", 33, 1)
    assert Kernel(memory, pinned=True).getxattrat(args.pointer, 16) == (0x666000, 33, 1)


@given(st.binary(max_size=200), st.sampled_from([16, 24, 4096]))
def test_another_value(data: bytes, size: int) -> None:
    blob = struct.pack("=QII", AT + 4096, 4, 2).ljust(4096, b"\0") + b"abcd" * 1024
    memory = BytesMemory({AT: blob[:4096], AT + 4096: blob[4096:]})
    image = slot(memory)
    args = xattr.encode_value(image, xattr.decode_args(image, AT, size, sets=True), data)
    assert (args.value, args.size) == (data, len(data))
    assert Kernel(memory, pinned=True).setxattrat(args.pointer, size) == (data, 2)


def test_a_value_that_is_too_long() -> None:
    memory, address = words_drawn("|- > V Z|#|", ARGS)
    image = slot(memory, 1 << 17)
    args = xattr.decode_args(image, address, 16, sets=True)
    with pytest.raises(ValueError, match="65537 bytes"):
        xattr.encode_value(image, args, bytes(65537))
    args = xattr.encode_value(image, args, bytes(65536))
    assert Kernel(memory, pinned=True).setxattrat(args.pointer, 16) == (bytes(65536), 0)


words = st.sampled_from(
    [AT, AT + 60, AT + 100, BASE, BASE + 20, 0, 4, 33, 70000, UNREADABLE, 1 << 63, (1 << 64) - 1]
).map(lambda value: value.to_bytes(8, "little"))
cells = words | st.binary(min_size=8, max_size=8) | st.just(bytes(8))
blobs = st.lists(cells, min_size=24, max_size=24).map(b"".join)
addresses = st.integers(AT - 8, AT + 200) | st.integers(BASE, BASE + 100)
sizes = st.integers(0, 80) | st.sampled_from([4096, 4097, 65536, 65537]) | U64


@settings(max_examples=400)
@given(
    blobs,
    st.frozensets(st.integers(0, 2), max_size=1),
    st.none() | st.integers(),
    addresses,
    sizes,
    st.integers(1, 300),
)
def test_anything(
    blob: bytes, gone: frozenset[int], seed: int | None, address: int, size: int, room: int
) -> None:
    pages = {AT + 64 * n: blob[64 * n : 64 * n + 64] for n in range(3) if n not in gone}
    memory = BytesMemory(pages, 64) if seed is None else RestlessMemory(pages, 64, seed)
    pinned, plain = kernels(memory)

    how = decoded(memory, lambda image: openhow.decode(image, address, size), room)
    seen = how if isinstance(how, Errno) else outcome(pinned.openat2, how.pointer, size)
    assert isinstance(seen, Errno) or (not isinstance(how, Errno) and seen == how[2:])
    if seed is None:
        assert seen == outcome(plain.openat2, address, size)

    args = decoded(memory, lambda image: xattr.decode_args(image, address, size, sets=True), room)
    seen = args if isinstance(args, Errno) else outcome(pinned.setxattrat, args.pointer, size)
    assert isinstance(seen, Errno) or (
        not isinstance(args, Errno) and seen == (args.value, args.flags)
    )
    if seed is None:
        assert seen == outcome(plain.setxattrat, address, size)

    name = in_growing_slots(memory, lambda image: xattr.decode_name(image, address), room)
    seen = outcome(pinned.xattr_name, name.pointer)
    assert isinstance(seen, Errno) or seen == name.data
    if seed is None:
        assert seen == outcome(plain.xattr_name, address)

    value = in_growing_slots(memory, lambda image: xattr.decode_value(image, address, size), room)
    seen = outcome(pinned.xattr_value, value.pointer, size)
    assert isinstance(seen, Errno) or seen == value.data
    if seed is None:
        assert seen == outcome(plain.xattr_value, address, size)
    assert untouched_around(memory)
