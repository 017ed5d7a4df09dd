"""Pins as the kernel makes them: where, at which offset, within which limits, and what is none.

These tests are about the kernel, so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.conformance import raw, support
from tests.conformance.raw import Place
from tests.conformance.support import (
    BASE,
    NULL,
    PAGE,
    PLACEHOLDER,
    SIZE,
    ZERO,
    Memory,
    Target,
    maps,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold import Notification

GIB: Final = 1 << 30
MADV_DONTFORK: Final = 10
MADV_RANDOM: Final = 1
OWN_FD: Final = 60


def lowest_allowed() -> int:
    with open("/proc/sys/vm/mmap_min_addr") as text:
        return int(text.read())


def redirected(
    target: Target, call: Notification, revision: int, pin: Memory, address: int, length: int
) -> int:
    """Returns the errno of a redirect of the path to an address in a pin."""
    named = raw.named(revision, pin.fd)
    return raw.send(target.listener, call.id, {1: address}, {1: length}, named)


def mappings(pid: int) -> Iterator[tuple[int, int]]:
    """Returns where something is mapped, in the order of addresses."""
    for line in maps(pid).splitlines():
        start, _, end = line.split()[0].partition("-")
        yield int(start, 16), int(end, 16)


# Where


def test_an_offset(revision: int) -> None:
    """The pin shows the memfd from there on, and is as long as was said."""
    with (
        Memory(4 * SIZE) as pin,
        support.target("native", support.script("open:one", "open:two")) as target,
    ):
        call = target.receive()
        one = pin.put(b"/dev/null", 2 * SIZE)
        two = pin.put(b"/dev/zero", 2 * SIZE + PAGE - 3)
        pin.put(b"/dev/full", 0)
        place = Place(pin.fd, BASE, 2 * PAGE, 2 * SIZE)
        assert raw.install(target.listener, call.id, place) == (0, BASE)
        assert f"{BASE:08x}-{BASE + 2 * PAGE:08x} r--s {2 * SIZE:08x}" in maps(target.pid)
        across = 2 * PAGE - one + 1
        assert redirected(target, call, revision, pin, BASE + across, one) == errno.EFAULT
        assert redirected(target, call, revision, pin, BASE, one) == 0
        call = target.receive()
        assert redirected(target, call, revision, pin, BASE + PAGE - 3, two) == 0
        seen = target.finish()
    assert seen["one.rdev"] == NULL
    assert seen["two.rdev"] == ZERO


def test_chosen_addresses(revision: int) -> None:
    """From the side that the program's own mappings come from; each with a gap above it."""
    count = 20
    with Memory() as pin, support.target("native", support.script("open:call")) as target:
        call = target.receive()
        length = pin.put(b"/dev/null", PAGE)
        found: list[int] = []
        for index in range(count):
            number, address = raw.install(
                target.listener, call.id, Place(pin.fd, 0, SIZE, PAGE * (index % 2))
            )
            assert number == 0
            assert address
            assert address % PAGE == 0
            found.append(address)
        assert len(set(found)) == count
        # Below the stack's room and the libraries', downwards from where those of mmap are.
        assert found == sorted(found, reverse=True)
        ranges = list(mappings(target.pid))
        for address in found:
            assert (address, address + SIZE) in ranges
            above = min(start for start, _ in ranges if start > address)
            assert above - (address + SIZE) >= 256 * PAGE
        assert redirected(target, call, revision, pin, found[0] + PAGE, length) == 0
        assert target.finish()["call.rdev"] == NULL


def test_zero_is_an_address_in_the_short_form(revision: int, pin: Memory) -> None:
    """Only the longer structure lets the kernel choose; nobody gets a pin at another's NULL."""
    assert revision in (raw.FIRST, raw.LATER)
    with support.target("native", support.script("open:call")) as target:
        call = target.receive()
        before = maps(target.pid)
        request = Place(pin.fd, 0).pack(call.id)[:32]
        if lowest_allowed():
            assert raw.ask(target.listener, raw.INSTALL, request) == errno.EPERM
            assert maps(target.pid) == before
        target.listener.send(call.id, value=77)
        assert target.finish()["call.result"] == "77"


def test_addresses_that_nothing_may_be_mapped_at(revision: int, pin: Memory) -> None:
    lowest = lowest_allowed()
    with support.target("native", support.script("open:call")) as target:
        call = target.receive()
        before = maps(target.pid)
        cases = [
            (raw.TOP, PAGE, errno.ENOMEM),
            (raw.TOP - PAGE, 2 * PAGE, errno.ENOMEM),
            (1 << 47, PAGE, errno.ENOMEM),
            ((1 << 63), PAGE, errno.ENOMEM),
            ((1 << 64) - 2 * PAGE, PAGE, errno.ENOMEM),
            (BASE, raw.TOP, errno.ENOMEM),
            (0, raw.TOP, errno.ENOMEM),
            # Larger than any file may be.
            (0, 1 << 63, errno.EINVAL),
            (BASE, 1 << 63, errno.EINVAL),
            (0, (1 << 63) - PAGE, errno.ENOMEM),
        ]
        if lowest > PAGE:
            cases.append((lowest - PAGE, PAGE, errno.EPERM))
        for address, size, wanted in cases:
            place = Place(pin.fd, address, size)
            assert raw.install(target.listener, call.id, place)[0] == wanted, place
        assert maps(target.pid) == before
        # The last page that there is, and the first one that may be used.
        assert raw.install(target.listener, call.id, Place(pin.fd, raw.TOP - PAGE, PAGE))[0] == 0
        first = max(lowest, PAGE)
        assert raw.install(target.listener, call.id, Place(pin.fd, first, PAGE))[0] == 0
        length = pin.put(b"/dev/null")
        assert redirected(target, call, revision, pin, raw.TOP - PAGE, length) == 0
        assert target.finish()["call.rdev"] == NULL


@pytest.mark.parametrize(
    ("offset", "wanted"),
    [
        (1 << 62, 0),
        ((1 << 63) - 2 * SIZE, 0),
        ((1 << 63) - SIZE, errno.EINVAL),
        (1 << 63, errno.EINVAL),
        ((1 << 64) - 2 * SIZE, errno.EINVAL),
    ],
)
def test_offsets_beyond_the_memfd(revision: int, pin: Memory, offset: int, wanted: int) -> None:
    """Refused where no file could reach; otherwise of no use: nothing is there to be read."""
    with support.target("native", support.script("open:call")) as target:
        call = target.receive()
        place = Place(pin.fd, BASE, SIZE, offset)
        assert raw.install(target.listener, call.id, place)[0] == wanted
        if wanted:
            target.listener.send(call.id, error=errno.EFAULT)
        else:
            assert redirected(target, call, revision, pin, BASE, 10) == 0
        assert target.finish()["call.result"] == str(-errno.EFAULT)


def test_something_is_there_already(revision: int, pin: Memory) -> None:
    """Each byte counts, of whatever kind of mapping; nothing of it is changed."""
    words = (f"map:own:{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}", "open:call")
    last = f"kept:own2:{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}"
    with support.target("native", support.script(*words, last)) as target:
        call = target.receive()
        stack = next(
            int(line.split("-")[0], 16)
            for line in maps(target.pid).splitlines()
            if line.endswith("[stack]")
        )
        before = maps(target.pid)
        for address, size in (
            (BASE, SIZE),
            (BASE - PAGE, 2 * PAGE),
            (BASE + SIZE - PAGE, 2 * PAGE),
            (BASE - PAGE, SIZE + 2 * PAGE),
            (BASE + PAGE, PAGE),
            (stack, PAGE),
        ):
            place = Place(pin.fd, address, size)
            assert raw.install(target.listener, call.id, place)[0] == errno.EEXIST, place
        assert maps(target.pid) == before
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE + SIZE, PAGE))[0] == 0
        length = pin.put(b"/dev/null")
        assert redirected(target, call, revision, pin, BASE + SIZE, length) == 0
        seen = target.finish()
    assert seen["own2.kept"] == "1"
    assert seen["call.rdev"] == NULL


# Limits


def test_the_target_s_limit_of_address_space(revision: int) -> None:
    room = 8 * SIZE
    words = support.script(f"space:limit:{room:#x}", "open:call")
    with Memory(GIB) as pin, support.target("native", words) as target:
        call = target.receive()
        before = maps(target.pid)
        for address in (BASE, 0):
            for size in (room + PAGE, GIB):
                place = Place(pin.fd, address, size)
                assert raw.install(target.listener, call.id, place)[0] == errno.ENOMEM
        assert maps(target.pid) == before
        # What the limit leaves is to be had, and not a page more.
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE, room // 2))[0] == 0
        too_much = Place(pin.fd, 0, room // 2 + PAGE)
        assert raw.install(target.listener, call.id, too_much)[0] == errno.ENOMEM
        length = pin.put(b"/dev/null")
        assert redirected(target, call, revision, pin, BASE, length) == 0
        assert target.finish()["call.rdev"] == NULL


def test_as_many_mappings_as_there_may_be(revision: int, pin: Memory) -> None:
    words = support.script("exhaust:full", "open:call")
    assert revision in (raw.FIRST, raw.LATER)
    with support.target("native", words) as target:
        call = target.receive()
        found = {}
        for address in (0, BASE):
            found[address] = raw.install(target.listener, call.id, Place(pin.fd, address))[0]
        target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    assert found == {0: errno.ENOMEM, BASE: errno.ENOMEM}
    assert seen["full.errno"] == str(errno.ENOMEM)
    assert seen["call.result"] == str(-errno.EXDEV)


def test_locked_memory_and_the_size_of_files_are_no_limits(revision: int, pin: Memory) -> None:
    """A pin is neither locked nor written. The file may be shorter: then there is nothing."""
    with support.target("native", support.script("open:call", "open:last")) as target:
        call = target.receive()
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE, 16 * SIZE))[0] == 0
        assert redirected(target, call, revision, pin, BASE + 8 * SIZE, 10) == 0
        call = target.receive()
        length = pin.put(b"/dev/null")
        assert redirected(target, call, revision, pin, BASE, length) == 0
        seen = target.finish()
    assert seen["call.result"] == str(-errno.EFAULT)
    assert seen["last.rdev"] == NULL


# What it is


def test_what_the_kernel_says_of_a_pin(revision: int, pin: Memory) -> None:
    """Readable, shared, sealed, in no core file, and never to be written or executed."""
    with support.target("native", support.script("open:call")) as target:
        call = target.receive()
        assert revision in (raw.FIRST, raw.LATER)
        assert raw.install(target.listener, call.id, Place(pin.fd)) == (0, BASE)
        flags = set(support.vm_flags(target.pid, BASE))
        assert f"{BASE:08x}-{BASE + SIZE:08x} r--s" in maps(target.pid)
        target.listener.send(call.id, value=77)
        target.finish()
    assert {"rd", "sh", "mr", "ms", "sl", "dd", "de"} <= flags
    assert not {"wr", "ex", "mw", "me", "lo", "gd", "io", "pf"} & flags


@pytest.mark.parametrize("offset", [0, SIZE], ids=["same_offset", "other_offset"])
def test_a_sealed_mapping_of_the_target_s_own_is_no_pin(revision: int, offset: int) -> None:
    """Although it is of the very memfd, shared, sealed, and can only be read."""
    where = BASE + 16 * SIZE
    words = support.script(
        "open:first",
        f"share:own:{where:#x}:{SIZE:#x}:{offset:#x}:{OWN_FD}",
        f"seal:sealed:{where:#x}:{SIZE:#x}",
        "open:second",
    )
    with Memory(2 * SIZE) as pin, support.target("native", words) as target:
        call = target.receive()
        target.listener.add_fd(call.id, pin.fd, newfd=OWN_FD)
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE, SIZE)) == (0, BASE)
        length = pin.put(b"/dev/null")
        pin.put(b"/dev/zero", SIZE)
        assert redirected(target, call, revision, pin, BASE, length) == 0
        call = target.receive()
        flags = set(support.vm_flags(target.pid, where))
        assert {"rd", "sh", "sl"} <= flags
        assert redirected(target, call, revision, pin, where, length) == errno.EFAULT
        target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["own.result"] == seen["sealed.result"] == "0"
    assert seen["second.result"] == str(-errno.EXDEV)


def test_a_mapping_beside_a_pin_does_not_grow_it(revision: int) -> None:
    """The target maps the same memfd just behind: the pin stays as long as it was."""
    words = support.script(
        "open:first",
        f"share:own:{BASE + SIZE:#x}:{SIZE:#x}:{SIZE:#x}:{OWN_FD}",
        f"seal:sealed:{BASE + SIZE:#x}:{SIZE:#x}",
        "open:second",
    )
    with Memory(2 * SIZE) as pin, support.target("native", words) as target:
        call = target.receive()
        target.listener.add_fd(call.id, pin.fd, newfd=OWN_FD)
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE, SIZE)) == (0, BASE)
        length = pin.put(b"/dev/null", SIZE - 4)
        assert redirected(target, call, revision, pin, BASE, 1) == 0
        call = target.receive()
        assert redirected(target, call, revision, pin, BASE + SIZE - 4, length) == errno.EFAULT
        assert redirected(target, call, revision, pin, BASE + SIZE, 1) == errno.EFAULT
        target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["own.result"] == "0"
    assert seen["second.result"] == str(-errno.EXDEV)


@pytest.mark.parametrize("one_memfd", [True, False], ids=["one_memfd", "two_memfds"])
def test_two_adjacent_pins_of_one_memfd(revision: int, one_memfd: bool) -> None:
    """In the memfd and in memory one continues the other; still no access lies in both."""
    with (
        Memory(2 * SIZE) as pin,
        Memory(2 * SIZE) as other,
        support.target("native", support.script("open:call")) as target,
    ):
        second = pin if one_memfd else other
        call = target.receive()
        assert raw.install(target.listener, call.id, Place(pin.fd, BASE, SIZE))[0] == 0
        behind = Place(second.fd, BASE + SIZE, SIZE, SIZE)
        assert raw.install(target.listener, call.id, behind)[0] == 0
        for start, length in ((BASE + SIZE - 1, 2), (BASE, 2 * SIZE), (BASE, SIZE + 1)):
            assert redirected(target, call, revision, pin, start, length) == errno.EFAULT
        length = second.put(b"/dev/null", SIZE)
        assert redirected(target, call, revision, second, BASE + SIZE, length) == 0
        assert target.finish()["call.rdev"] == NULL


# Forks, and what becomes of pins in them


def test_a_child_that_does_not_get_the_pin(revision: int, pin: Memory) -> None:
    """MADV_DONTFORK is allowed on a sealed mapping; what the child maps there is no pin."""
    words = support.script(
        "open:first",
        f"advise:advised:{BASE:#x}:{SIZE:#x}:{MADV_DONTFORK}",
        *("fork", "open:without", f"map:own:{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}", "open:with"),
        *("end", "open:parent"),
    )
    with support.target("native", words) as target:
        call = target.receive()
        length = pin.put(b"/dev/null")
        assert raw.install(target.listener, call.id, Place(pin.fd))[0] == 0
        assert redirected(target, call, revision, pin, BASE, length) == 0
        for _ in range(2):
            call = target.receive()
            assert redirected(target, call, revision, pin, BASE, length) == errno.EFAULT
            target.listener.send(call.id, error=errno.EXDEV)
        call = target.receive()
        assert redirected(target, call, revision, pin, BASE, length) == 0
        seen = target.finish()
    assert seen["advised.result"] == seen["own.result"] == "0"
    assert seen["without.result"] == seen["with.result"] == str(-errno.EXDEV)
    assert seen["first.rdev"] == seen["parent.rdev"] == NULL


def test_advice_for_a_part_of_a_pin(revision: int, pin: Memory) -> None:
    """It splits the pin: each part is one, and what reaches over the split is refused."""
    words = support.script(
        "open:first", f"advise:advised:{BASE + PAGE:#x}:{PAGE:#x}:{MADV_RANDOM}", "open:second"
    )
    with support.target("native", words) as target:
        call = target.receive()
        length = pin.put(b"/dev/null")
        assert raw.install(target.listener, call.id, Place(pin.fd))[0] == 0
        assert redirected(target, call, revision, pin, BASE, length) == 0
        call = target.receive()
        assert redirected(target, call, revision, pin, BASE, SIZE) == errno.EFAULT
        assert redirected(target, call, revision, pin, BASE + PAGE - 1, 2) == errno.EFAULT
        pin.put(b"/dev/zero", PAGE)
        assert redirected(target, call, revision, pin, BASE + PAGE, length) == 0
        seen = target.finish()
    assert seen["advised.result"] == "0"
    assert seen["second.rdev"] == ZERO


def test_another_listener_s_pin_in_a_shared_memory(revision: int, pin: Memory) -> None:
    """Two processes with one memory (CLONE_VM), each under a supervisor of its own."""
    with raw.started("kern_peers", listeners=2) as (target, (of_child, of_parent)):
        child, parent = of_child.receive(), of_parent.receive()
        length = pin.put(b"/dev/null")
        named = raw.named(revision, pin.fd)
        assert raw.install(of_child, child.id, Place(pin.fd))[0] == 0
        # The mapping is there for the other one as well, and is none of its own.
        assert raw.install(of_parent, parent.id, Place(pin.fd))[0] == errno.EEXIST
        assert raw.send(of_parent, parent.id, {0: BASE}, {0: length}, named) == errno.EFAULT
        own = Place(pin.fd, BASE + 2 * SIZE)
        assert raw.install(of_parent, parent.id, own)[0] == 0
        at = {0: BASE + 2 * SIZE}
        assert raw.send(of_child, child.id, at, {0: length}, named) == errno.EFAULT
        assert raw.send(of_child, child.id, {0: BASE}, {0: length}, named) == 0
        assert raw.send(of_parent, parent.id, at, {0: length}, named) == 0
        target.listener.close()
        of_parent.close()
        until_end = target.wait()
        seen = target.process.stdout.read() if target.process.stdout else b""
    assert until_end == 0
    results = dict(word.split("=") for word in os.fsdecode(seen).split())
    assert int(results["child"]) > 2
    assert int(results["parent"]) > 2
