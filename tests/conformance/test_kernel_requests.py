"""The native requests byte for byte: sizes, tails, fields, buffers, memfds, and the filter flag.

These tests are about the kernel, so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.linux import libc, memfd, redirect
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi import seccomp as abi
from tests.conformance import raw, support
from tests.conformance.raw import FIRST, INSTALL, LATER, NO_ID, REDIRECT, Place
from tests.conformance.support import BASE, NULL, PAGE, SIZE, Memory, maps
from tests.programs import build, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pinfold import Listener
    from tests.conformance.support import Target

LONG: Final = 40
WHOLE: Final = 120


@pytest.fixture
def target(revision: int) -> Iterator[Target]:
    """Returns a target whose one call the test answers with 77, whatever it did before."""
    with support.target("native", support.script("open:call")) as one:
        assert redirect.revision(one.listener.fileno()) == revision
        yield one


def ends_well(target: Target, call: int) -> None:
    """Answers the call, and checks that the target saw nothing else."""
    target.listener.send(call, value=77)
    seen = target.finish()
    assert seen["call.result"] == "77"
    assert seen["call.registers"] == "ok"


# Sizes


@pytest.mark.parametrize(
    ("size", "tail", "wanted"),
    [
        (0, 0, errno.EINVAL),
        (31, 0, errno.EINVAL),
        (32, 0, errno.ENOENT),
        (33, 0, errno.ENOENT),
        # A byte of the offset, which is no multiple of the page size then.
        (33, 1, errno.EINVAL),
        (39, 0, errno.ENOENT),
        (40, 0, errno.ENOENT),
        (41, 0, errno.ENOENT),
        (41, 1, errno.E2BIG),
        (PAGE - 1, 0, errno.ENOENT),
        (PAGE - 1, 1, errno.E2BIG),
        (PAGE, 0, errno.EINVAL),
        (2 * PAGE, 0, errno.EINVAL),
    ],
)
def test_sizes_of_an_install(
    target: Target, pin: Memory, size: int, tail: int, wanted: int
) -> None:
    """Larger ones are taken when what is unknown of them is zero."""
    call = target.receive()
    for number, answered in ((NO_ID, wanted), (call.id, 0 if wanted == errno.ENOENT else wanted)):
        request = Place(pin.fd).pack(number).ljust(size, b"\0")[:size]
        if tail:
            request[-1] = tail
        assert raw.ask(target.listener, INSTALL, request) == answered
    pinned = f"{BASE:08x}-{BASE + SIZE:08x}" in maps(target.pid)
    assert pinned == (wanted == errno.ENOENT)
    ends_well(target, call.id)


@pytest.mark.parametrize(
    ("size", "tail", "wanted"),
    [
        (0, 0, errno.EINVAL),
        (WHOLE - 1, 0, errno.EINVAL),
        (WHOLE, 0, 0),
        (WHOLE + 1, 0, 0),
        (WHOLE + 1, 1, errno.E2BIG),
        (PAGE - 1, 0, 0),
        (PAGE - 1, 1, errno.E2BIG),
        (PAGE, 0, errno.EINVAL),
    ],
)
def test_sizes_of_a_redirect(
    target: Target, revision: int, pin: Memory, size: int, tail: int, wanted: int
) -> None:
    call = target.receive()
    target.install(call, pin)
    length = pin.put(b"/dev/null")
    for number, answered in ((NO_ID, wanted or errno.ENOENT), (call.id, wanted)):
        request = bytearray(
            redirect.encode_redirect(
                number,
                raw.CONTINUE,
                *(2, 2, (0, BASE, 0, 0, 0, 0), (0, length, 0, 0, 0, 0)),
                raw.named(revision, pin.fd),
            ).ljust(size, b"\0")[:size]
        )
        if tail:
            request[-1] = tail
        assert raw.ask(target.listener, REDIRECT, request) == answered
    if wanted:
        ends_well(target, call.id)
    else:
        assert target.finish()["call.rdev"] == NULL


# Fields


@pytest.mark.parametrize(
    "place",
    [
        Place(0, flags=1),
        Place(0, flags=1 << 31),
        Place(0, size=0),
        Place(0, size=1),
        Place(0, size=PAGE + 1),
        Place(0, address=BASE + 1),
        Place(0, offset=1),
        Place(0, offset=PAGE - 1),
        Place(0, address=(1 << 64) - PAGE, size=2 * PAGE),
        Place(0, address=BASE, size=(1 << 64) - PAGE),
        Place(0, offset=(1 << 64) - PAGE, size=2 * PAGE),
    ],
    ids=str,
)
def test_fields_of_an_install(target: Target, pin: Memory, place: Place) -> None:
    call = target.receive()
    before = maps(target.pid)
    for number in (call.id, NO_ID):
        request = place._replace(memfd=pin.fd).pack(number)
        assert raw.ask(target.listener, INSTALL, request) == errno.EINVAL
    assert maps(target.pid) == before
    ends_well(target, call.id)


ZEROS: Final = (0,) * 6


@pytest.mark.parametrize(
    "fields",
    [
        (0, 1, 0, ZEROS, ZEROS),
        (2, 1, 0, ZEROS, ZEROS),
        (3, 1, 0, ZEROS, ZEROS),
        (1, 0, 0, ZEROS, ZEROS),
        (1, 1 << 6, 0, ZEROS, ZEROS),
        (1, 1 << 31 | 1, 0, ZEROS, ZEROS),
        (1, 1, 2, (0, BASE, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)),
        (1, 2, 1 << 31 | 2, (0, BASE, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)),
        (1, 2, 2, (0, BASE, 0, 0, 0, 0), ZEROS),
        (1, 2, 0, ZEROS, (0, 1, 0, 0, 0, 0)),
        (1, 2, 0, ZEROS, (0, 0, 0, 0, 0, 1)),
    ],
    ids=[
        *("no_flag", "other_flag", "one_flag_more", "no_argument", "seventh", "thirty_second"),
        *("pointer_not_replaced", "pointer_thirty_second", "no_length", "length_of_a_scalar"),
        "length_of_another",
    ],
)
def test_fields_of_a_redirect(
    target: Target,
    revision: int,
    pin: Memory,
    fields: tuple[int, int, int, tuple[int, ...], tuple[int, ...]],
) -> None:
    call = target.receive()
    target.install(call, pin)
    for number in (call.id, NO_ID):
        request = redirect.encode_redirect(number, *fields, raw.named(revision, pin.fd))
        assert raw.ask(target.listener, REDIRECT, request) == errno.EINVAL
    ends_well(target, call.id)


def test_the_field_that_names_a_memfd(target: Target, revision: int, pin: Memory) -> None:
    """Padding in the first revision, that has to be 0; in the later one it counts for pointers."""
    call = target.receive()
    target.install(call, pin)
    length = pin.put(b"/dev/null")
    pointer = ({1: BASE}, {1: length})
    listener = target.listener
    if revision == FIRST:
        for number in (1, pin.fd, (1 << 32) - 1):
            assert raw.send(listener, call.id, *pointer, number) == errno.EINVAL
            assert raw.send(listener, call.id, {2: 0}, {}, number) == errno.EINVAL
        assert raw.send(listener, call.id, *pointer) == 0
        assert target.finish()["call.rdev"] == NULL
        return
    with Memory() as other:
        unsealed = memfd.create("pinfold-unsealed", SIZE)
        free = os.dup(unsealed)
        os.close(free)
        for number, wanted in (
            (free, errno.EBADF),
            ((1 << 32) - 1, errno.EBADF),
            (unsealed, errno.EINVAL),
            (listener.fileno(), errno.EINVAL),
            (other.fd, errno.EFAULT),
        ):
            assert raw.send(listener, call.id, *pointer, number) == wanted
        os.close(unsealed)
    # Any descriptor of it will do, and none is asked for where there is no pointer.
    again = os.open(f"/proc/self/fd/{pin.fd}", os.O_RDONLY | os.O_CLOEXEC)
    assert raw.send(listener, NO_ID, {2: 0}, {}, free) == errno.ENOENT
    assert raw.send(listener, call.id, *pointer, again) == 0
    os.close(again)
    assert target.finish()["call.rdev"] == NULL


# Buffers


def ask_at(listener: Listener, code: int, address: int) -> None:
    """Makes a request whose structure is at an address of this process.

    Raises:
        OSError: As the kernel answers.
    """
    libc.syscall("ioctl", NR["ioctl"], listener.fileno(), code, address)


def test_a_buffer_that_cannot_be_read(target: Target) -> None:
    call = target.receive()
    for code in (
        abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL,
        abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1,
        abi.SECCOMP_IOCTL_NOTIF_SEND_REDIRECT,
    ):
        for address in (0, PAGE, raw.TOP, (1 << 63) - 1):
            with support.refused(errno.EFAULT):
                ask_at(target.listener, code, address)
    ends_well(target, call.id)


def test_a_buffer_that_cannot_be_written(target: Target, pin: Memory) -> None:
    """Who cannot be told where the pin is gets none; one at a fixed address needs no telling."""
    call = target.receive()
    before = maps(target.pid)
    code = abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1
    with mmap.mmap(-1, PAGE) as room:
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        for place, wanted in ((Place(pin.fd, 0), errno.EFAULT), (Place(pin.fd), 0)):
            room[:LONG] = bytes(place.pack(call.id))
            libc.syscall("mprotect", NR["mprotect"], address, PAGE, mmap.PROT_READ)
            with support.refused(wanted):
                ask_at(target.listener, code, address)
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            libc.syscall("mprotect", NR["mprotect"], address, PAGE, protection)
            assert (maps(target.pid) == before) == bool(wanted)
    ends_well(target, call.id)


# Memfds


def sealed(_: Path) -> int:
    return support.memory_file(memfd.PIN_SEALS)


def unsealed(_: Path) -> int:
    return support.memory_file(0)


def only_grown(_: Path) -> int:
    return support.memory_file(mman.F_SEAL_GROW | mman.F_SEAL_SHRINK | mman.F_SEAL_SEAL)


def write_sealed(_: Path) -> int:
    return support.memory_file(mman.F_SEAL_WRITE)


def regular(directory: Path) -> int:
    (directory / "file").write_bytes(bytes(SIZE))
    return os.open(directory / "file", os.O_RDWR | os.O_CLOEXEC)


def shared_file(_: Path) -> int:
    """In a tmpfs, which is what memfds are made of; but it was not made to be sealed."""
    return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)


def pipe(_: Path) -> int:
    end, other = os.pipe()
    os.close(other)
    return end


def device(_: Path) -> int:
    return os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)


def folder(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def event(_: Path) -> int:
    return os.eventfd(0)


def reopened(how: int) -> Callable[[Path], int]:
    def make(_: Path) -> int:
        fd = support.memory_file(memfd.PIN_SEALS)
        again = os.open(f"/proc/self/fd/{fd}", how | os.O_CLOEXEC)
        os.close(fd)
        return again

    return make


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        pytest.param(sealed, 0, id="sealed"),
        pytest.param(write_sealed, 0, id="write_sealed"),
        pytest.param(reopened(os.O_RDONLY), 0, id="for_reading"),
        pytest.param(reopened(os.O_WRONLY), errno.EACCES, id="for_writing"),
        pytest.param(reopened(os.O_PATH), errno.EBADF, id="for_nothing"),
        pytest.param(unsealed, errno.EINVAL, id="unsealed"),
        pytest.param(only_grown, errno.EINVAL, id="other_seals"),
        pytest.param(regular, errno.EINVAL, id="file"),
        pytest.param(shared_file, errno.EINVAL, id="tmpfs_file"),
        pytest.param(pipe, errno.EINVAL, id="pipe"),
        pytest.param(device, errno.EINVAL, id="device"),
        pytest.param(folder, errno.EINVAL, id="directory"),
        pytest.param(event, errno.EINVAL, id="eventfd"),
    ],
)
def test_what_can_be_pinned(
    target: Target, tmp_path: Path, make: Callable[[Path], int], wanted: int
) -> None:
    call = target.receive()
    before = maps(target.pid)
    fd = make(tmp_path)
    assert raw.install(target.listener, call.id, Place(fd))[0] == wanted
    os.close(fd)
    assert raw.install(target.listener, call.id, Place(fd, BASE + SIZE))[0] == errno.EBADF
    assert (maps(target.pid) == before) == bool(wanted)
    ends_well(target, call.id)


@pytest.mark.parametrize("number", [(1 << 32) - 1, 1 << 31, 1 << 20])
def test_no_descriptor_at_all(target: Target, number: int) -> None:
    call = target.receive()
    assert raw.install(target.listener, call.id, Place(number))[0] == errno.EBADF
    ends_well(target, call.id)


def test_the_listener_is_no_memfd(target: Target) -> None:
    call = target.receive()
    fd = target.listener.fileno()
    assert raw.install(target.listener, call.id, Place(fd))[0] == errno.EINVAL
    ends_well(target, call.id)


# The flag


@pytest.mark.parametrize("revision", ["native"], indirect=True)
def test_the_flag_of_a_filter(revision: int) -> None:
    """With a listener only, and once in a chain, also when that listener is gone."""
    assert revision == LATER
    done = subprocess.run([build("kern_flags")], check=True, capture_output=True, timeout=60)
    busy, invalid = str(-errno.EBUSY), str(-errno.EINVAL)
    assert values(done.stdout.decode()) == {
        "without_listener": invalid,
        "without_listener_log": invalid,
        "without_listener_tsync": invalid,
        "next_flag": invalid,
        "both_flags": "0",
        "tsync": "0",
        "first": "0",
        "second": busy,
        "second_unflagged": busy,
        "plain_after": "0",
        "closed_first": "0",
        "closed_second": busy,
        "closed_unflagged": "0",
        "closed_third": busy,
        "unflagged": "0",
        "unflagged_then_flagged": busy,
        "plain_between": "0",
        "unflagged_to_close": "0",
        "flagged_after_unflagged": "0",
        "parent": "0",
        "child": busy,
    }
