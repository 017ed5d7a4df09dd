"""The bytes of both requests in both revisions, and what the native back end remembers."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from pinfold.backends.native import Installed, Kept
from pinfold.linux import memfd, redirect

COOKIE = 0x1122334455667788
CONTINUE = 1
PAGE = 4096


# What the kernel is given: written by hand, little endian, field by field


def test_install_of_the_first_revision() -> None:
    wanted = bytes.fromhex(
        "88 77 66 55 44 33 22 11"  # id
        "00 00 00 00"  # flags
        "09 00 00 00"  # memfd
        "00 00 00 70 00 00 00 00"  # target_addr
        "00 20 00 00 00 00 00 00"  # size
    )
    assert len(wanted) == 32
    assert redirect.encode_install(COOKIE, 0, 9, 0x70000000, 0x2000) == wanted


def test_install_of_the_later_revision() -> None:
    wanted = bytes.fromhex(
        "88 77 66 55 44 33 22 11"  # id
        "00 00 00 00"  # flags
        "09 01 00 00"  # memfd
        "00 10 ff ff ff 7f 00 00"  # target_addr
        "00 20 00 00 00 00 00 00"  # size
        "00 30 00 00 01 00 00 00"  # offset
    )
    assert len(wanted) == 40
    got = redirect.encode_install_at(COOKIE, 0, 0x109, 0x7FFFFFFF1000, 0x2000, 0x100003000)
    assert got == wanted


@pytest.mark.parametrize(
    ("descriptor", "field"), [((), "00 00 00 00"), ((0x109,), "09 01 00 00")], ids=["pad", "memfd"]
)
def test_redirect(descriptor: tuple[int, ...], field: str) -> None:
    wanted = bytes.fromhex(
        "88 77 66 55 44 33 22 11"  # id
        "01 00 00 00"  # flags
        "23 00 00 00"  # args_mask: 0, 1 and 5
        "02 00 00 00"  # ptr_mask: 1
        f"{field}"  # _pad in the first revision, memfd in the later one
        "9c ff ff ff ff ff ff ff"  # args[0]: AT_FDCWD
        "00 00 00 70 00 00 00 00"  # args[1]
        "00 00 00 00 00 00 00 00"  # args[2]
        "00 00 00 00 00 00 00 00"  # args[3]
        "00 00 00 00 00 00 00 00"  # args[4]
        "06 05 04 03 02 01 00 80"  # args[5]
        "00 00 00 00 00 00 00 00"  # ptr_len[0]
        "0a 00 00 00 00 00 00 00"  # ptr_len[1]
        "00 00 00 00 00 00 00 00"  # ptr_len[2]
        "00 00 00 00 00 00 00 00"  # ptr_len[3]
        "00 00 00 00 00 00 00 00"  # ptr_len[4]
        "00 00 00 00 00 00 00 00"  # ptr_len[5]
    )
    assert len(wanted) == 120
    args = ((1 << 64) - 100, 0x70000000, 0, 0, 0, 0x8000010203040506)
    lengths = (0, 10, 0, 0, 0, 0)
    got = redirect.encode_redirect(COOKIE, CONTINUE, 0x23, 0x02, args, lengths, *descriptor)
    assert got == wanted


# Which revision it is


@pytest.mark.parametrize(
    ("known", "revision"),
    [
        ((), None),
        (("PIN_INSTALL",), None),
        (("PIN_INSTALL", "PIN_INSTALL with offset"), None),
        (("SEND_REDIRECT", "SEND_REDIRECT with memfd"), None),
        (("PIN_INSTALL", "SEND_REDIRECT with memfd"), None),
        (("PIN_INSTALL with offset", "SEND_REDIRECT"), None),
        (("PIN_INSTALL", "SEND_REDIRECT"), 0),
        (("PIN_INSTALL", "SEND_REDIRECT", "SEND_REDIRECT with memfd"), 0),
        (("PIN_INSTALL with offset", "SEND_REDIRECT with memfd"), 1),
        (
            (
                "PIN_INSTALL",
                "PIN_INSTALL with offset",
                "SEND_REDIRECT",
                "SEND_REDIRECT with memfd",
            ),
            1,
        ),
    ],
)
def test_the_newest_revision_of_which_both_requests_are_known(
    known: tuple[str, ...], revision: int | None
) -> None:
    assert redirect.revision_of(known) == revision


# What is remembered of memfds


def keys(found: list[Kept]) -> list[tuple[int, int]]:
    return [kept.key for kept in found]


def key_of(fd: int) -> tuple[int, int]:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Pins:
    """Memfds a test's own, and what is remembered of them."""

    def __init__(self, limit: int) -> None:
        self.installed = Installed(limit)
        self.memfds: list[int] = []

    def new(self) -> int:
        self.memfds.append(memfd.create("test", PAGE))
        return self.memfds[-1]

    def pin(self, fd: int, start: int, pages: int = 1) -> None:
        self.installed.add(self.installed.copy(fd), start, start + pages * PAGE)

    def at(self, address: int) -> list[tuple[int, int]]:
        return keys(self.installed.at(address))

    def close(self) -> None:
        self.installed.close()
        while self.memfds:
            os.close(self.memfds.pop())


@pytest.fixture
def pins():  # type: ignore[no-untyped-def]
    before = descriptors()
    made = Pins(limit=3)
    yield made
    made.close()
    assert descriptors() == before


def test_found_by_address_with_exact_ends(pins: Pins) -> None:
    one, other = pins.new(), pins.new()
    pins.pin(one, 0x10000, 2)
    pins.pin(other, 0x12000)
    assert pins.at(0xFFFF) == []
    assert pins.at(0x10000) == pins.at(0x11FFF) == [key_of(one)]
    assert pins.at(0x12000) == pins.at(0x12FFF) == [key_of(other)]
    assert pins.at(0x13000) == []


def test_most_recently_used_first(pins: Pins) -> None:
    first, second = pins.new(), pins.new()
    pins.pin(first, 0x10000)
    pins.pin(second, 0x10000)
    assert pins.at(0x10000) == [key_of(second), key_of(first)]
    pins.installed.used(pins.installed.at(0x10000)[1])
    assert pins.at(0x10000) == [key_of(first), key_of(second)]
    pins.pin(second, 0x20000)
    assert pins.at(0x10000) == [key_of(second), key_of(first)]


def test_one_descriptor_a_memfd_however_it_is_named(pins: Pins) -> None:
    one = pins.new()
    again = os.dup(one)
    pins.memfds.append(again)
    pins.pin(one, 0x10000)
    before = descriptors()
    pins.pin(again, 0x20000)
    pins.pin(one, 0x10000)
    assert descriptors() == before
    assert pins.at(0x10000) == pins.at(0x20000) == [key_of(one)]


def test_the_least_recently_used_is_forgotten_and_closed(pins: Pins) -> None:
    memfds = [pins.new() for _ in range(4)]
    for fd in memfds[:3]:
        pins.pin(fd, 0x10000)
    pins.installed.used(pins.installed.at(0x10000)[2])
    before = len(descriptors())
    pins.pin(memfds[3], 0x10000)
    assert pins.at(0x10000) == [key_of(memfds[i]) for i in (3, 0, 2)]
    assert len(descriptors()) == before


def test_a_memfd_in_very_many_places_may_be_anywhere(pins: Pins) -> None:
    one, other = pins.new(), pins.new()
    for page in range(64):
        pins.pin(one, page * 2 * PAGE)
    assert pins.at(PAGE) == []
    pins.pin(one, 64 * 2 * PAGE)
    assert pins.at(PAGE) == pins.at(1 << 46) == [key_of(one)]
    pins.pin(other, PAGE)
    assert pins.at(PAGE) == [key_of(other), key_of(one)]


def test_a_forgotten_memfd_stays_open_for_who_is_using_it(pins: Pins) -> None:
    one = pins.new()
    pins.pin(one, 0x10000)
    (kept,) = pins.installed.at(0x10000)
    with kept.descriptor as number:
        for _ in range(3):
            pins.pin(pins.new(), 0x20000)
        assert pins.at(0x10000) == []
        assert key_of(number) == key_of(one)
    with pytest.raises(OSError, match="closed") as caught, kept.descriptor:
        pass
    assert caught.value.errno == errno.EBADF
    pins.installed.used(kept)  # does not bring it back
    assert pins.at(0x10000) == []


def test_full_descriptor_table(pins: Pins) -> None:
    memfds = [pins.new() for _ in range(3)]
    for fd in memfds[:2]:
        pins.pin(fd, 0x10000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        while True:
            try:
                taken.append(os.dup(memfds[0]))
            except OSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017 (how the loop ends)
                break
        # What is remembered makes room, the oldest first ...
        pins.pin(memfds[2], 0x10000)
        assert pins.at(0x10000) == [key_of(memfds[i]) for i in (2, 1)]
        # ... as long as there is something.
        copies = [pins.installed.copy(memfds[0]) for _ in range(2)]
        taken += copies
        assert pins.at(0x10000) == []
        with pytest.raises(OSError, match="Too many") as caught:
            pins.installed.copy(memfds[0])
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_nowhere_is_one_sealed_memfd(pins: Pins) -> None:
    import fcntl

    from pinfold.backends.rules import check_seals
    from pinfold.uapi.mman import F_GET_SEALS

    nowhere = pins.installed.nowhere()
    with nowhere as number:
        check_seals(fcntl.fcntl(number, F_GET_SEALS))
    assert pins.installed.nowhere() is nowhere
    assert pins.at(0) == []


def test_nothing_is_kept_once_it_is_closed(pins: Pins) -> None:
    one = pins.new()
    pins.pin(one, 0x10000)
    before = len(descriptors())
    pins.installed.close()
    pins.installed.close()
    assert len(descriptors()) == before - 1
    pins.pin(one, 0x10000)
    assert len(descriptors()) == before - 1
    assert pins.at(0x10000) == []
    with pytest.raises(OSError, match="closed") as caught:
        pins.installed.nowhere()
    assert caught.value.errno == errno.EBADF
