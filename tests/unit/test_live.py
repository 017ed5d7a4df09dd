"""The live check's judgement of one mapping: each property it asks for matters by itself."""

import mmap
import os
import signal

import pytest

from pinfold.linux.maps import Mapping
from pinfold.pins.arena import Arena, ArenaPool
from pinfold.pins.live import LiveCheck, shows
from pinfold.uapi.procmap import (
    PROCMAP_QUERY_VMA_EXECUTABLE,
    PROCMAP_QUERY_VMA_READABLE,
    PROCMAP_QUERY_VMA_SHARED,
    PROCMAP_QUERY_VMA_WRITABLE,
)

BASE = 0x7F0000000000
PINNED = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_SHARED
PAGE = 4096


@pytest.fixture
def arena():  # type: ignore[no-untyped-def]
    made = Arena(0, 16 * PAGE)
    yield made
    made.close()


def _mapping(arena: Arena, **changed: int) -> Mapping:
    major, minor, inode = arena.file
    good = Mapping(BASE, BASE + arena.size, PINNED, 0, inode, major, minor)
    return good._replace(**changed)


def test_the_pin_itself_passes(arena: Arena) -> None:
    assert shows(_mapping(arena), arena, BASE)


def test_nothing_mapped_fails(arena: Arena) -> None:
    assert not shows(None, arena, BASE)


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": PROCMAP_QUERY_VMA_READABLE},
        {"flags": PROCMAP_QUERY_VMA_SHARED},
        {"flags": PINNED | PROCMAP_QUERY_VMA_WRITABLE},
        {"flags": PINNED | PROCMAP_QUERY_VMA_EXECUTABLE},
        {"start": BASE + PAGE},
        {"end": BASE + 15 * PAGE},
        {"offset": PAGE},
        {"inode": 1},
        {"major": 77},
        {"minor": 77},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_each_difference_fails(arena: Arena, changed: dict[str, int]) -> None:
    assert not shows(_mapping(arena, **changed), arena, BASE)


def test_a_shifted_mapping_of_the_same_memfd_fails(arena: Arena) -> None:
    # Covers the range, is ours, read-only and shared, but shows other slots at these addresses.
    shifted = _mapping(arena, start=BASE - PAGE, end=BASE + arena.size, offset=0)
    assert not shows(shifted, arena, BASE)
    grown = _mapping(arena, start=BASE - PAGE, end=BASE + arena.size, offset=0)
    assert shows(grown, arena, BASE - PAGE)


def test_descriptors_stay_below_the_limit() -> None:
    live = LiveCheck(limit=2)
    arena = Arena(0, PAGE)
    children = []
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(1)
            children.append(pid)
        for _ in range(3):
            for pid in children:
                assert not live.pinned(pid, arena, BASE)
        assert len(os.listdir("/proc/self/fd")) == before + 2
    finally:
        live.close()
        arena.close()
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_slots_are_given_out_once_and_come_back() -> None:
    pool = ArenaPool(slots=4)
    try:
        taken = [pool.take() for _ in range(10)]
        assert len({(slot.arena.number, slot.offset) for slot in taken}) == 10
        assert pool.in_use == 10
        assert {slot.arena.number for slot in taken} == {0, 1, 2}
        for slot in taken:
            pool.give_back(slot)
        assert pool.in_use == 0
        assert pool.take().arena.number == 0
    finally:
        pool.close()


def test_an_arena_is_sealed_and_only_our_mapping_writes(arena: Arena) -> None:
    arena.view[0:5] = b"bytes"
    assert os.pread(arena.fd, 5, 0) == b"bytes"
    with pytest.raises(PermissionError):
        os.pwrite(arena.fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(arena.fd, arena.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    again = os.open(f"/proc/self/fd/{arena.fd}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
    finally:
        os.close(again)
