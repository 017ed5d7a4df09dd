"""A pin: what its maker may do with it, and what everybody else may not."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from pinfold.linux import memfd
from pinfold.pins.arena import Arena
from pinfold.uapi import mman
from tests.kernel.forked import descriptors, forked

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

PAGE: Final = mmap.PAGESIZE


@pytest.fixture
def pin() -> Iterator[pinfold.Pin]:
    with pinfold.Pin(2 * PAGE) as made:
        yield made


@pytest.mark.parametrize(
    ("size", "rounded"), [(1, 1), (PAGE - 1, 1), (PAGE, 1), (PAGE + 1, 2), (10 * PAGE, 10)]
)
def test_size_is_whole_pages(size: int, rounded: int) -> None:
    with pinfold.Pin(size) as made:
        assert made.size == rounded * PAGE == len(made.view) == os.fstat(made.fd).st_size


@pytest.mark.parametrize("size", [0, -1])
def test_no_size(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        pinfold.Pin(size)


def test_what_is_written_is_what_others_read(pin: pinfold.Pin) -> None:
    with mmap.mmap(pin.fd, pin.size, prot=mmap.PROT_READ) as theirs:
        assert theirs[:] == bytes(pin.size)
        pin.write(0, b"first")
        pin.write(PAGE - 1, bytearray(b"across"))
        pin.write(pin.size - 4, memoryview(b"last"))
        pin.write(pin.size, b"")
        assert theirs[:5] == b"first"
        assert theirs[PAGE - 1 : PAGE + 5] == b"across"
        assert theirs[-4:] == b"last"


@pytest.mark.parametrize(
    ("offset", "data"),
    [(-1, b"x"), (2 * PAGE, b"x"), (2 * PAGE - 1, b"xy"), (0, bytes(2 * PAGE + 1)), (1 << 70, b"")],
)
def test_what_does_not_fit(pin: pinfold.Pin, offset: int, data: bytes) -> None:
    pin.write(0, b"before")
    with pytest.raises(ValueError, match="do not fit into a pin of 8192 bytes"):
        pin.write(offset, data)
    assert pin.view[:6] == b"before"
    assert not any(pin.view[6:])


def test_a_view_counts_in_bytes(pin: pinfold.Pin) -> None:
    numbers = memoryview(bytearray(8)).cast("I")
    with pytest.raises(ValueError, match="8 bytes at offset"):
        pin.write(pin.size - 4, numbers)
    pin.write(pin.size - 8, numbers)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda fd: os.write(fd, b"x"),
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 4 * PAGE),
        lambda fd: os.posix_fallocate(fd, 0, 4 * PAGE),
        lambda fd: mmap.mmap(fd, PAGE),
        lambda fd: mmap.mmap(fd, PAGE, prot=mmap.PROT_WRITE),
        lambda fd: fcntl.fcntl(fd, mman.F_ADD_SEALS, 0),
        lambda fd: fcntl.fcntl(fd, mman.F_ADD_SEALS, mman.F_SEAL_WRITE),
        lambda fd: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x", 0),
    ],
)
def test_nobody_else_changes_it(pin: pinfold.Pin, attempt: Callable[[int], object]) -> None:
    pin.write(0, b"mine")
    before = descriptors().keys()
    with pytest.raises(PermissionError):
        attempt(pin.fd)
    for fd in descriptors().keys() - before:
        os.close(int(fd))
    assert pin.view[:4] == b"mine"
    assert os.fstat(pin.fd).st_size == pin.size


def test_seals_and_inheritance(pin: pinfold.Pin) -> None:
    assert fcntl.fcntl(pin.fd, mman.F_GET_SEALS) & memfd.PIN_SEALS == memfd.PIN_SEALS
    assert not os.get_inheritable(pin.fd)


def test_a_forked_child_has_no_mapping_of_it(pin: pinfold.Pin) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(pin.view))

    def look(channel: socket.socket) -> None:
        with open("/proc/self/maps") as maps:
            spans = [line.split()[0].split("-") for line in maps]
        inside = [span for span in spans if int(span[0], 16) <= address < int(span[1], 16)]
        channel.send(b"there" if inside else b"gone")

    with forked(look) as child:
        assert child.channel.recv(5) == b"gone"


def test_nothing_is_left_open() -> None:
    before = descriptors()
    made = pinfold.Pin(1)
    assert descriptors() != before
    made.close()
    assert descriptors() == before
    made.close()
    with pytest.raises(ValueError, match="closed"):
        made.write(0, b"x")
    with pytest.raises(RuntimeError, match="body"), pinfold.Pin(1):
        raise RuntimeError("body")
    assert descriptors() == before


def test_a_closed_pin_closes_nobody_elses_descriptor() -> None:
    made = pinfold.Pin(1)
    made.close()
    reader, writer = os.pipe()
    try:
        made.close()
        os.fstat(reader)
        os.fstat(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_no_room() -> None:
    def work(channel: socket.socket) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, PAGE))
        before = descriptors()
        with pytest.raises(OSError, match="too large") as caught:
            pinfold.Pin(PAGE + 1)
        assert caught.value.errno == errno.EFBIG
        assert descriptors() == before
        pinfold.Pin(PAGE).close()
        channel.send(b"refused")

    with forked(work) as child:
        assert child.channel.recv(7) == b"refused"


def test_arenas_are_pins() -> None:
    arena = Arena(0, 4 * PAGE)
    try:
        assert isinstance(arena, pinfold.Pin)
        assert fcntl.fcntl(arena.fd, mman.F_GET_SEALS) & memfd.PIN_SEALS == memfd.PIN_SEALS
    finally:
        arena.close()
