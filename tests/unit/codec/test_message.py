from __future__ import annotations

import array
import errno
import socket
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec import message, sockaddr
from pinfold.codec.base import UNREADABLE
from pinfold.codec.message import ControlMessage, IoVec, Message, control_messages, descriptors
from pinfold.codec.sockaddr import Abstract, Inet, Unix

from .kernel import Errno, Kernel, Sent
from .memory import (
    AT,
    BASE,
    BEFORE,
    BytesMemory,
    RestlessMemory,
    in_growing_slots,
    slot,
    untouched_around,
)

PAGE = 64
NAME = AT + 2 * PAGE
VECTOR = AT + 5 * PAGE
CONTROL = AT + 7 * PAGE
NOWHERE = 0x666000
INET = sockaddr.pack(Inet(IPv4Address("127.0.0.1"), 80))
RIGHTS = struct.pack("=Qii2i", 24, 1, 1, 4, 5)


def header(
    name: int = 0,
    namelen: int = 0,
    iov: int = 0,
    iovlen: int = 0,
    control: int = 0,
    controllen: int = 0,
    flags: int = 0,
) -> bytes:
    return struct.pack("=QiiQQQQIi", name, namelen, -1, iov, iovlen, control, controllen, flags, -1)


def memory_of(head: bytes, *, missing: frozenset[int] = frozenset()) -> BytesMemory:
    blob = bytearray(b"\xee" * (9 * PAGE))
    blob[: len(head)] = head
    blob[2 * PAGE : 2 * PAGE + len(INET)] = INET
    blob[5 * PAGE : 5 * PAGE + 32] = struct.pack("=4Q", 0x1111, 5, 0x2222, 6)
    blob[7 * PAGE : 7 * PAGE + 24] = RIGHTS
    return BytesMemory(
        {
            AT + at: bytes(blob[at : at + PAGE])
            for at in range(0, len(blob), PAGE)
            if at // PAGE not in missing
        },
        PAGE,
    )


def outcome(memory: BytesMemory, address: int, *, pinned: bool) -> Sent | Errno:
    try:
        return Kernel(memory, pinned=pinned).sendmsg(address)
    except Errno as error:
        return error


def decode(memory: BytesMemory, address: int = AT) -> Message:
    return in_growing_slots(memory, lambda image: message.decode(image, address))


def pinned_only(memory: BytesMemory, found: Message) -> None:
    """Name, vector and control data are in the slot, unreadable or NULL; bases are anywhere."""
    end = BASE + len(memory.view) - 2 * BEFORE
    if found.offset < 0:
        assert found.pointer == UNREADABLE
        return
    assert found.pointer == BASE + found.offset
    start = BEFORE + found.offset
    fields = struct.unpack("=Qi4xQQQQI4x", memory.view[start : start + 56])
    for pointer in (fields[0], fields[2], fields[4]):
        assert BASE <= pointer < end or pointer in {0, UNREADABLE}


ALL = header(NAME, 16, VECTOR, 2, CONTROL, 24, 0x4000)


def test_a_whole_message() -> None:
    memory = memory_of(ALL)
    found = decode(memory)
    assert found == Message(
        found.pointer,
        found.offset,
        Inet(IPv4Address("127.0.0.1"), 80),
        INET,
        (IoVec(0x1111, 5), IoVec(0x2222, 6)),
        RIGHTS,
        0x4000,
    )
    pinned_only(memory, found)
    wanted = Sent(INET, [(0x1111, 5), (0x2222, 6)], RIGHTS, 0x4000)
    assert outcome(memory, found.pointer, pinned=True) == wanted
    assert outcome(memory, AT, pinned=False) == wanted
    assert descriptors(found.control) == [4, 5]


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (header(), None),
        (header(NAME, 0, VECTOR, 0, CONTROL, 0), None),
        (header(NAME, -1), errno.EINVAL),
        (header(NAME, -(1 << 31)), errno.EINVAL),
        (header(0, -1), None),
        (header(0, 16), None),
        (header(NAME, 128), None),
        (header(NAME, 129), None),
        (header(NAME, 0x7FFFFFFF), None),
        (header(NOWHERE, 1), errno.EFAULT),
        (header(NOWHERE, 0), None),
        (header(NOWHERE, -1), errno.EINVAL),
        (header(NAME, 16, VECTOR, 1024), errno.EINVAL),  # for the lengths that follow the two
        (header(NAME, 16, VECTOR, 1025), errno.EMSGSIZE),
        (header(NAME, 16, VECTOR, (1 << 64) - 1), errno.EMSGSIZE),
        (header(NOWHERE, 16, VECTOR, 1025), errno.EFAULT),
        (header(NAME, 16, NOWHERE, 1), errno.EFAULT),
        (header(NAME, 16, NOWHERE, 0), None),
        (header(NAME, 16, 0, 1), errno.EFAULT),
        (header(NAME, -1, NOWHERE, 1), errno.EINVAL),
        (header(NAME, 16, VECTOR, 2, NOWHERE, 1), errno.EFAULT),
        (header(NAME, 16, VECTOR, 2, NOWHERE, 0), None),
        (header(NAME, 16, VECTOR, 2, 0, 24), errno.EFAULT),
        (header(NAME, 16, VECTOR, 1025, NOWHERE, 1), errno.EMSGSIZE),
        (header(NAME, 16, VECTOR, 2, CONTROL, 1 << 31), errno.ENOBUFS),
        (header(NAME, 16, VECTOR, 2, CONTROL, (1 << 64) - 1), errno.ENOBUFS),
        (header(NAME, 16, VECTOR, 2, CONTROL, (128 << 10) + 1), errno.ENOBUFS),
        (header(NAME, 16, VECTOR, 2, CONTROL, (256 << 10) + 1), errno.ENOBUFS),
        (header(NAME, 16, NOWHERE, 2, CONTROL, (256 << 10) + 1), errno.EFAULT),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_the_kernel_answers_as_it_would_have(head: bytes, answer: int | None) -> None:
    memory = memory_of(head)
    found = decode(memory)
    pinned_only(memory, found)
    assert untouched_around(memory)
    seen = outcome(memory, found.pointer, pinned=True)
    assert seen == outcome(memory, AT, pinned=False)
    assert (seen.number if isinstance(seen, Errno) else None) == answer
    if not isinstance(seen, Errno):
        assert seen == (found.raw_name or None, list(found.iovecs), found.control, found.flags)


@pytest.mark.parametrize("missing", [{0}, {2}, {2, 5, 7}, {5}, {7}, {1, 3, 4, 6, 8}])
def test_missing_pages(missing: set[int]) -> None:
    memory = memory_of(ALL, missing=frozenset(missing))
    found = decode(memory)
    pinned_only(memory, found)
    seen = outcome(memory, found.pointer, pinned=True)
    assert seen == outcome(memory, AT, pinned=False)
    assert isinstance(seen, Errno) == bool(missing & {0, 2, 5, 7})


@pytest.mark.parametrize(
    ("at", "missing", "readable"),
    [
        # |msghdr--|########|
        (PAGE - 56, {1}, True),
        (PAGE - 55, {1}, False),
        (PAGE - 8, {1}, False),
    ],
)
def test_headers_at_page_ends(at: int, missing: set[int], readable: bool) -> None:
    memory = memory_of(b"\xee" * at + ALL, missing=frozenset(missing))
    memory.pages.setdefault(AT + 2 * PAGE, bytearray(PAGE))
    found = decode(memory, AT + at)
    assert (found.pointer != UNREADABLE) == readable
    assert outcome(memory, found.pointer, pinned=True) == outcome(memory, AT + at, pinned=False)


@pytest.mark.parametrize(
    ("lengths", "count", "answer"),
    [
        # |base 1 |base 2 |...|########|
        ([1, 1 << 63, 2, 3], 5, errno.EINVAL),
        ([1 << 63, 1, 2, 3], 5, errno.EINVAL),
        ([1, 2, 3, (1 << 64) - 1], 5, errno.EINVAL),
        ([1, 2, 3, (1 << 63) - 1], 5, errno.EFAULT),
        ([1, 2, 3, 1 << 63], 4, errno.EINVAL),
        ([1, 2, 3, 1 << 63], 3, None),
        ([1, 2, 3, 1 << 63], 1024, errno.EINVAL),
        ([1, 2, 3, 1 << 63], 1025, errno.EMSGSIZE),
    ],
)
def test_a_length_that_is_too_large_comes_before_what_cannot_be_read(
    lengths: list[int], count: int, answer: int | None
) -> None:
    memory = memory_of(header(0, 0, VECTOR, count), missing=frozenset({6}))
    memory.pages[VECTOR][:] = b"".join(struct.pack("=QQ", 7, length) for length in lengths)
    found = decode(memory)
    pinned_only(memory, found)
    seen = outcome(memory, found.pointer, pinned=True)
    assert seen == outcome(memory, AT, pinned=False)
    assert (seen.number if isinstance(seen, Errno) else None) == answer
    looked_at = {errno.EINVAL: lengths.index(max(lengths)) + 1, None: count}.get(answer, 0)
    assert found.iovecs == tuple(IoVec(7, length) for length in lengths[:looked_at])


def test_names_longer_than_an_address_are_cut() -> None:
    memory = memory_of(header(AT + 3 * PAGE, 500))
    found = decode(memory)
    assert len(found.raw_name) == 128
    assert outcome(memory, found.pointer, pinned=True) == Sent(found.raw_name, [], b"", 0)


def test_control_data_is_bounded() -> None:
    size = message.CONTROL_MAX
    blob = header(0, 0, 0, 0, AT + 4096, size).ljust(4096, b"\0") + b"c" * size
    pages = {AT + at: blob[at : at + 4096] for at in range(0, len(blob), 4096)}
    memory = BytesMemory(pages)
    assert decode(memory).control == b"c" * size
    memory.pages[AT][:56] = header(0, 0, 0, 0, AT + 4096, size + 1)
    memory.reads = 0
    found = message.decode(slot(memory, 4096), AT)
    assert found.control == b""
    assert memory.reads == 1
    kernel = Kernel(memory, pinned=True)
    kernel.optmem_max = 1 << 30
    with pytest.raises(Errno, match="ENOBUFS"):
        kernel.sendmsg(found.pointer)


@pytest.mark.parametrize("raw", [b"", INET, b"\1\0\0name", bytes(128)])
@pytest.mark.parametrize("head", [ALL, header(0, 0, VECTOR, 2, CONTROL, 24, 0x4000)])
def test_another_address(head: bytes, raw: bytes) -> None:
    memory = memory_of(head)
    image = slot(memory)
    found = message.encode_name(image, message.decode(image, AT), raw)
    assert found.raw_name == raw
    assert found.name == (sockaddr.parse(raw) if raw else None)
    pinned_only(memory, found)
    assert outcome(memory, found.pointer, pinned=True) == Sent(
        raw or None, [(0x1111, 5), (0x2222, 6)], RIGHTS, 0x4000
    )


def test_an_address_that_is_too_long() -> None:
    image = slot(memory_of(ALL))
    found = message.decode(image, AT)
    used = image.used
    with pytest.raises(ValueError, match="129 bytes"):
        message.encode_name(image, found, bytes(129))
    assert image.used == used


# Control messages


def control(*messages: tuple[int, int, bytes]) -> bytes:
    raw = b""
    for level, kind, data in messages:
        raw += struct.pack("=Qii", 16 + len(data), level, kind) + data + b"\xee" * (-len(data) % 8)
    return raw


pieces = st.lists(st.tuples(*[st.integers(-(1 << 31), (1 << 31) - 1)] * 2, st.binary(max_size=30)))


@given(pieces)
def test_control_messages(messages: list[tuple[int, int, bytes]]) -> None:
    raw = control(*messages)
    assert control_messages(raw) == messages
    # The padding after the last one need not be there.
    if messages and (padding := -len(messages[-1][2]) % 8):
        assert control_messages(raw[:-padding]) == messages
    if messages and messages[-1][2]:
        assert control_messages(raw[: -padding - 1]) == messages[:-1]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", []),
        (bytes(15), []),
        (bytes(16), []),
        (struct.pack("=Qii", 15, 1, 1), []),
        (struct.pack("=Qii", 16, 1, 1), [(1, 1, b"")]),
        (struct.pack("=Qii", 17, 1, 1), []),
        (struct.pack("=Qii", (1 << 64) - 1, 1, 1) + bytes(64), []),
        (RIGHTS + bytes(15), [(1, 1, RIGHTS[16:])]),
        (RIGHTS + struct.pack("=Qii", 17, 1, 1), [(1, 1, RIGHTS[16:])]),
        (struct.pack("=Qii", 0, 1, 1) + RIGHTS, []),
    ],
)
def test_control_messages_end_where_the_kernel_stops(
    raw: bytes, found: list[tuple[int, int, bytes]]
) -> None:
    assert control_messages(raw) == found


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_garbage_control_data(raw: bytes) -> None:
    for found in control_messages(raw):
        assert found.data in raw
    descriptors(raw)


def test_descriptors() -> None:
    assert descriptors(control((1, 1, struct.pack("=3i", 3, -1, 7)), (1, 2, b"abcd"))) == [3, -1, 7]
    assert descriptors(control((0, 1, b"abcd"), (1, 1, b"\5\0\0\0\6\0"))) == [5]
    assert control_messages(RIGHTS)[0] == ControlMessage(1, 1, RIGHTS[16:])


def test_control_data_that_python_itself_makes() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        passed = array.array("i", [left.fileno(), right.fileno()])
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        _, found, _, _ = right.recvmsg(1, socket.CMSG_SPACE(8))
        fds = array.array("i", found[0][2])
        for fd in fds:
            socket.close(fd)
    assert control_messages(control(found[0])) == found
    assert descriptors(control(found[0])) == list(fds)


# Anything

lengths = st.sampled_from([0, 1, 2, 16, 24, 110, 128, 129, 1024, 1025, 1 << 18, 1 << 31, 1 << 63])
addresses = (
    st.integers(AT - 8, AT + 9 * PAGE)
    | st.sampled_from([0, NAME, VECTOR, CONTROL, NOWHERE, UNREADABLE, (1 << 64) - 1, 1 << 63])
    | st.integers(BASE, BASE + 200)
)
heads = st.builds(
    header,
    addresses,
    st.sampled_from([0, 1, 2, 3, 16, 110, 128, 129, -1]) | st.integers(-(1 << 31), (1 << 31) - 1),
    addresses,
    lengths | st.integers(0, 40),
    addresses,
    lengths | st.integers(0, 300),
    st.integers(0, (1 << 32) - 1),
) | st.binary(min_size=56, max_size=56)
missing = st.frozensets(st.integers(1, 8), max_size=3)


@settings(max_examples=400)
@given(heads, missing)
def test_the_kernel_sees_the_same_through_the_image(head: bytes, gone: frozenset[int]) -> None:
    memory = memory_of(head, missing=gone)
    found = decode(memory)
    assert untouched_around(memory)
    pinned_only(memory, found)
    seen = outcome(memory, found.pointer, pinned=True)
    assert seen == outcome(memory, AT, pinned=False)
    if isinstance(seen, Sent):
        assert seen == (found.raw_name or None, list(found.iovecs), found.control, found.flags)
        assert found.name == (sockaddr.parse(found.raw_name) if found.raw_name else None)


@settings(max_examples=400)
@given(heads, missing, st.integers(), addresses.filter(lambda at: at < 1 << 63))
def test_what_restless_memory_gives_is_what_the_image_holds(
    head: bytes, gone: frozenset[int], seed: int, address: int
) -> None:
    pages = {at: bytes(data) for at, data in memory_of(head, missing=gone).pages.items()}
    memory = RestlessMemory(pages, PAGE, seed)
    found = message.decode(slot(memory, 1 << 19), address)
    assert untouched_around(memory)
    pinned_only(memory, found)
    seen = outcome(memory, found.pointer, pinned=True)
    if isinstance(seen, Sent):
        assert seen == (found.raw_name or None, list(found.iovecs), found.control, found.flags)


def test_addresses_of_both_kinds_of_unix_sockets() -> None:
    for raw, name in ((b"\1\0/a\0", Unix(b"/a")), (b"\1\0\0a", Abstract(b"a"))):
        memory = memory_of(header(NAME, len(raw)))
        memory.pages[NAME][: len(raw)] = raw
        assert decode(memory).name == name
