"""The native back end against a kernel that has the two requests, played by this test.

No released kernel has them. So a child's own ``ioctl`` calls with the listener's magic are brought
to a listener that the test holds, and the test answers them by the tables of the interface: it
reads the structure from the child's memory, and writes back what the kernel would write. What the
child does is what a supervisor would do; its "listener" is an eventfd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import traceback
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import bpf
from pinfold.backends import choose
from pinfold.backends.descriptor import ListenerDescriptor
from pinfold.backends.native import NativeBackend
from pinfold.errors import UnsupportedError
from pinfold.linux import memfd, redirect
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi import seccomp as abi
from tests.kernel.listening import child

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

PAGE: Final = 4096
BASE: Final = 0x70000000
CHOSEN: Final = 0x7ABCDE000000
"""Where the played kernel puts the first pin whose address it may choose."""
CONTINUE: Final = 1
SECONDS: Final = 60
U32: Final = 0xFFFFFFFF

# Notifications of the played kernel, by what the test does with them. The number before the point
# is the address space.
FIRST, SECOND, ALONE, NOT_RECEIVED, DEAD = 0x10, 0x20, 0x30, 0x40, 0x50


class Kernel:
    """The tables of the native interface, restated.

    Args:
        revision: 0 or 1.
        extensible: Whether it takes longer structures with a zero tail, and requests whose
            direction bits differ, as the kernel's other extensible listener requests do.
        known: Request numbers that it knows.
        others: What it answers to all others.
    """

    def __init__(
        self,
        revision: int,
        extensible: bool = True,
        known: tuple[int, ...] = (5, 6),
        others: int = errno.EINVAL,
    ) -> None:
        self.revision = revision
        self.known = known
        self.others = others
        self.extensible = extensible
        self.states = dict.fromkeys((FIRST, SECOND, ALONE, DEAD), "sent") | {NOT_RECEIVED: "init"}
        self.pins: dict[int, list[tuple[int, int, tuple[int, int]]]] = {}
        self.redirects: list[tuple[int, int]] = []
        """Inode of the memfd that was named, and the answer."""
        self.installs = 0
        self.interruptions = {5: 0, 6: 0}
        """How often a request is answered with EINTR first."""
        self.refusal = 0
        """What both requests are answered with, for whatever reason of its own."""

    def answer(self, pid: int, request: int, argument: int) -> int:
        number, size = request & 0xFF, request >> 16 & 0x3FFF
        if request == 0x40082102:
            (cookie,) = struct.unpack("<Q", peek(pid, argument, 8))
            return 0 if self.states.get(cookie) == "sent" else -errno.ENOENT
        if request == 0x40082104:
            return 0
        handlers = {5: (self.install, (32, 40)[self.revision]), 6: (self.redirect, 120)}
        if number not in self.known or number not in handlers:
            return -self.others
        if self.refusal:
            return -self.refusal
        handler, least = handlers[number]
        exact = {5: (0x40202105, 0xC0282105)[self.revision], 6: 0x40782106}[number]
        if request != exact and not self.extensible:
            return -errno.EINVAL
        if not least <= size < PAGE:
            return -errno.EINVAL
        given = peek(pid, argument, size)
        if any(given[least:]):
            return -errno.E2BIG
        if self.interruptions[number]:
            self.interruptions[number] -= 1
            return -errno.EINTR
        return handler(pid, argument, given[:least])

    def install(self, pid: int, argument: int, given: bytes) -> int:
        cookie, flags, fd, address, size = struct.unpack_from("<QIIQQ", given)
        offset = struct.unpack_from("<Q", given, 32)[0] if self.revision else 0
        if flags or not size or (address | size | offset) % PAGE or address + size >= 1 << 64:
            return -errno.EINVAL
        try:
            which = memfd_of(pid, fd)
        except FileNotFoundError:
            return -errno.EBADF
        if self.revision and not seals_of(pid, fd) & (mman.F_SEAL_WRITE | mman.F_SEAL_FUTURE_WRITE):
            return -errno.EINVAL
        if refused := self.refused(cookie):
            return refused
        if cookie == DEAD:
            return -errno.ESRCH
        pins = self.pins.setdefault(cookie, [])
        if self.revision and not address:
            address = CHOSEN + len(pins) * 16 * PAGE
        if any(address < end and start < address + size for start, end, _ in pins):
            return -errno.EEXIST
        pins.append((address, address + size, which))
        self.installs += 1
        if self.revision:
            poke(pid, argument + 16, struct.pack("<Q", address))
        return 0

    def redirect(self, pid: int, argument: int, given: bytes) -> int:
        cookie, flags, args_mask, ptr_mask, fd, *values = struct.unpack("<Q4I12Q", given)
        args, lengths = values[:6], values[6:]
        if flags != 1 or not 0 < args_mask < 64 or ptr_mask & ~args_mask:
            return -errno.EINVAL
        if any(bool(lengths[i]) != bool(ptr_mask >> i & 1) for i in range(6)):
            return -errno.EINVAL
        which = None
        if self.revision:
            try:
                which = memfd_of(pid, fd)
            except FileNotFoundError:
                return -errno.EBADF
        elif fd:
            return -errno.EINVAL
        if refused := self.refused(cookie):
            return refused
        pins = [pin for pin in self.pins.get(cookie, ()) if which in (None, pin[2])]
        for i in range(6):
            if ptr_mask >> i & 1:
                inside = [start <= args[i] < args[i] + lengths[i] <= end for start, end, _ in pins]
                if not any(inside):
                    self.redirects.append((which[1] if which else 0, errno.EFAULT))
                    return -errno.EFAULT
        self.redirects.append((which[1] if which else 0, 0))
        self.states[cookie] = "answered"
        return 0

    def refused(self, cookie: int) -> int:
        state = self.states.get(cookie)
        return -errno.ENOENT if state is None else 0 if state == "sent" else -errno.EINPROGRESS


def peek(pid: int, address: int, length: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), length, address)


def poke(pid: int, address: int, data: bytes) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), data, address)


def memfd_of(pid: int, fd: int) -> tuple[int, int]:
    stat = os.stat(f"/proc/{pid}/fd/{fd}")
    return stat.st_dev, stat.st_ino


def seals_of(pid: int, fd: int) -> int:
    with open(f"/proc/{pid}/fd/{fd}", "rb") as file:
        return fcntl.fcntl(file, mman.F_GET_SEALS)


def played(kernel: Kernel, supervise: Callable[[int], object]) -> None:
    """Runs ``supervise`` in a child, on its "listener", while this process plays its kernel."""

    def work(_: socket.socket) -> None:
        supervise(os.eventfd(0))

    listener_s = bpf.Case((bpf.Arg(1, 0xFF00, ord("!") << 8),), abi.SECCOMP_RET_USER_NOTIF)
    with child(work, cases={NR["ioctl"]: [listener_s]}) as made:
        outer = ListenerDescriptor(made.listener)
        made.owned.discard(made.listener)
        with contextlib.closing(outer), contextlib.suppress(EOFError):
            while True:
                got = outer.receive(SECONDS)
                assert got is not None
                try:
                    result = kernel.answer(got.pid, got.args[1] & U32, got.args[2])
                except BaseException:
                    outer.send(got.id, 0, -errno.ENOTRECOVERABLE, 0)
                    raise
                outer.send(got.id, max(result, 0), min(result, 0), 0)
        assert made.exit_code() == 0


def failure(call: Callable[[], object]) -> int | None:
    """Returns the errno that a call fails with, None when it does not fail."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def sealed(size: int = 2 * PAGE) -> int:
    fd = memfd.create("test", size)
    memfd.seal(fd, memfd.PIN_SEALS)
    return fd


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


# Which revision it is


@pytest.mark.parametrize("extensible", [True, False], ids=["extensible", "exact"])
@pytest.mark.parametrize("revision", [0, 1])
def test_the_revision_is_recognised(revision: int, extensible: bool) -> None:
    def supervise(fd: int) -> None:
        forms = (
            {"PIN_INSTALL", "SEND_REDIRECT"},
            {"PIN_INSTALL with offset", "SEND_REDIRECT", "SEND_REDIRECT with memfd"},
        )
        assert set(redirect.known_requests(fd)) == forms[revision]
        assert redirect.revision(fd) == revision
        assert choose.available(fd) == ["native", "interrupt"]
        for name in ("auto", "native"):
            chosen = choose.for_listener(os.dup(fd), name)
            assert chosen.name == "native"
            assert isinstance(chosen, NativeBackend)
            assert chosen._revision == revision
            chosen.close()

    kernel = Kernel(revision, extensible)
    played(kernel, supervise)
    assert kernel.installs == 0
    assert kernel.redirects == []


@pytest.mark.parametrize("known", [(), (5,), (6,)], ids=["none", "install", "redirect"])
def test_half_an_interface_is_none(known: tuple[int, ...]) -> None:
    def supervise(fd: int) -> None:
        assert redirect.revision(fd) is None
        assert choose.available(fd) == ["interrupt"]
        with pytest.raises(UnsupportedError) as caught:
            choose.for_listener(fd, "native")
        assert ("neither" in str(caught.value)) == (known == ())
        assert ("only" in str(caught.value)) == (known != ())

    played(Kernel(0, known=known), supervise)


@pytest.mark.parametrize("others", [errno.ENOENT, errno.ENOTTY, errno.ENOSYS])
def test_what_unknown_requests_are_answered_with_proves_nothing(others: int) -> None:
    def supervise(fd: int) -> None:
        assert redirect.unknown_answer(fd) == others
        assert redirect.known_requests(fd) == ()

    played(Kernel(0, known=(), others=others), supervise)


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
def test_an_interface_that_refuses_this_listener_is_none(refusal: int) -> None:
    def supervise(fd: int) -> None:
        assert redirect.known_requests(fd) == ()
        assert choose.available(fd) == ["interrupt"]

    kernel = Kernel(1)
    kernel.refusal = refusal
    played(kernel, supervise)


def test_who_knows_every_notification_is_no_listener() -> None:
    def supervise(fd: int) -> None:
        for name in ("auto", "native", "interrupt"):
            assert failure(lambda: choose.for_listener(fd, name)) == errno.ENOTTY  # noqa: B023

    kernel = Kernel(0)
    kernel.states[redirect.NO_NOTIFICATION] = "sent"
    played(kernel, supervise)


# Both revisions


@pytest.mark.parametrize("revision", [0, 1])
def test_install_and_redirect(revision: int) -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, revision)
        pin = sealed()
        assert backend.id_valid(FIRST)
        assert backend.pin_install(FIRST, pin, BASE, 2 * PAGE, 0) == BASE
        twice = failure(lambda: backend.pin_install(FIRST, pin, BASE, 2 * PAGE, 0))
        assert twice == errno.EEXIST
        end = BASE + 2 * PAGE
        for pointer, length in (
            (end - 9, 10),
            (BASE, 2 * PAGE + 1),
            (BASE - 1, 10),
            (end, 1),
            (BASE, (1 << 64) - 1),
        ):
            args = {0: -100, 1: pointer}
            assert (
                failure(lambda: backend.send_redirect(FIRST, args, {1: length}, CONTINUE))  # noqa: B023
                == errno.EFAULT
            )
        # Refused redirects left the notification usable.
        backend.send_redirect(FIRST, {0: -100, 1: end - 10}, {1: 10}, CONTINUE)
        again = failure(lambda: backend.send_redirect(FIRST, {1: BASE}, {1: 10}, CONTINUE))
        assert again == errno.EINPROGRESS
        backend.close()

    kernel = Kernel(revision)
    played(kernel, supervise)
    assert kernel.states[FIRST] == "answered"
    assert kernel.redirects[-1][1] == 0


@pytest.mark.parametrize("revision", [0, 1])
def test_errnos(revision: int) -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, revision)
        pin, open_to_all = sealed(), memfd.create("test", PAGE)
        closed = os.dup(pin)
        os.close(closed)
        for cookie, which, wanted in (
            (NOT_RECEIVED, pin, errno.EINPROGRESS),
            (0x99, pin, errno.ENOENT),
            (-1, pin, errno.ENOENT),
            (1 << 64, pin, errno.ENOENT),
            (DEAD, pin, errno.ESRCH),
            (ALONE, closed, errno.EBADF),
            (ALONE, -1, errno.EBADF),
            (ALONE, 1 << 32, errno.EBADF),
            (ALONE, 0, errno.EINVAL),
            (ALONE, open_to_all, errno.EINVAL),
        ):
            got = failure(lambda: backend.pin_install(cookie, which, BASE, PAGE, 0))  # noqa: B023
            assert got == wanted, (cookie, which)
        assert failure(lambda: backend.pin_install(ALONE, pin, BASE, PAGE, 1)) == errno.EINVAL
        assert failure(lambda: backend.pin_install(ALONE, pin, BASE, 0, 0)) == errno.EINVAL
        assert failure(lambda: backend.pin_install(ALONE, pin, 1, PAGE, 0)) == errno.EINVAL
        backend.pin_install(ALONE, pin, BASE, PAGE, 0)
        for cookie, args, lengths, flags, wanted in (
            (NOT_RECEIVED, {1: BASE}, {1: 1}, 1, errno.EINPROGRESS),
            (0x99, {1: BASE}, {1: 1}, 1, errno.ENOENT),
            (1 << 64, {1: BASE}, {1: 1}, 1, errno.ENOENT),
            (ALONE, {1: BASE}, {1: 1}, 0, errno.EINVAL),
            (ALONE, {}, {}, 1, errno.EINVAL),
            (ALONE, {1: BASE}, {1: 0}, 1, errno.EINVAL),
            (ALONE, {1: 0x1234}, {1: 1}, 1, errno.EFAULT),
            (FIRST, {1: BASE}, {1: 1}, 1, errno.EFAULT),
        ):
            got = failure(lambda: backend.send_redirect(cookie, args, lengths, flags))  # noqa: B023
            assert got == wanted, (cookie, args)
        backend.send_redirect(ALONE, {1: BASE}, {1: 1}, CONTINUE)
        backend.close()
        for call in (
            lambda: backend.pin_install(ALONE, pin, BASE, PAGE, 0),
            lambda: backend.pin_install(ALONE, pin, BASE, PAGE, 1),
            lambda: backend.send_redirect(ALONE, {1: BASE}, {1: 1}, CONTINUE),
            lambda: backend.send_redirect(ALONE, {}, {}, CONTINUE),
        ):
            assert failure(call) == errno.EBADF

    played(Kernel(revision), supervise)


@pytest.mark.parametrize("revision", [0, 1])
def test_scalars_alone(revision: int) -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, revision)
        before = len(os.listdir("/proc/self/fd"))
        backend.send_redirect(FIRST, {2: 0}, {}, CONTINUE)
        backend.send_redirect(SECOND, {2: 0, 0: -1}, {}, CONTINUE)
        # One memfd at most is kept for these.
        assert len(os.listdir("/proc/self/fd")) == before + revision
        backend.close()

    kernel = Kernel(revision)
    played(kernel, supervise)
    assert kernel.states[FIRST] == kernel.states[SECOND] == "answered"


@pytest.mark.parametrize("revision", [0, 1])
def test_interrupted_requests_are_made_again(revision: int) -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, revision)
        pin = sealed()
        assert backend.pin_install(FIRST, pin, BASE, PAGE, 0) == BASE
        backend.send_redirect(FIRST, {1: BASE}, {1: 1}, CONTINUE)

    kernel = Kernel(revision)
    kernel.interruptions = {5: 3, 6: 3}
    played(kernel, supervise)
    assert kernel.states[FIRST] == "answered"
    assert kernel.interruptions == {5: 0, 6: 0}


# The first one


def test_the_first_revision_chooses_no_address() -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 0)
        pin = sealed()
        assert failure(lambda: backend.pin_install(FIRST, pin, 0, PAGE, 0)) == errno.EINVAL
        # Nor does it keep anything of a memfd.
        before = os.listdir("/proc/self/fd")
        backend.pin_install(FIRST, pin, BASE, PAGE, 0)
        assert os.listdir("/proc/self/fd") == before

    kernel = Kernel(0)
    played(kernel, supervise)
    assert kernel.installs == 1


# The later one


def test_the_kernel_chooses_the_address() -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 1)
        one, other = sealed(), sealed()
        address = backend.pin_install(FIRST, one, 0, PAGE, 0)
        second = backend.pin_install(FIRST, other, 0, PAGE, 0)
        assert (address, second) == (CHOSEN, CHOSEN + 16 * PAGE)
        backend.send_redirect(FIRST, {1: address}, {1: PAGE}, CONTINUE)

    kernel = Kernel(1)
    played(kernel, supervise)
    assert [answer for _, answer in kernel.redirects] == [0]


def test_memfds_at_the_same_address_are_tried_the_most_recent_first() -> None:
    kernel = Kernel(1)

    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 1)
        old, new, elsewhere = sealed(), sealed(), sealed()
        backend.pin_install(FIRST, old, BASE, PAGE, 0)
        backend.pin_install(SECOND, new, BASE, PAGE, 0)
        backend.pin_install(ALONE, elsewhere, 2 * BASE, PAGE, 0)
        for which in (old, new, elsewhere):
            os.close(which)  # The back end's own descriptors are enough.
        backend.send_redirect(FIRST, {1: BASE + 1, 2: BASE}, {1: 10, 2: 5}, CONTINUE)
        backend.send_redirect(SECOND, {1: BASE}, {1: 10}, CONTINUE)
        backend.send_redirect(ALONE, {1: 2 * BASE}, {1: 10}, CONTINUE)

    played(kernel, supervise)
    by_cookie = {cookie: pins[0][2][1] for cookie, pins in kernel.pins.items()}
    assert kernel.redirects == [
        (by_cookie[SECOND], errno.EFAULT),
        (by_cookie[FIRST], 0),
        (by_cookie[FIRST], errno.EFAULT),
        (by_cookie[SECOND], 0),
        (by_cookie[ALONE], 0),
    ]


def test_a_failed_install_is_not_remembered() -> None:
    kernel = Kernel(1)

    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 1)
        pin = sealed()
        before = os.listdir("/proc/self/fd")
        assert failure(lambda: backend.pin_install(DEAD, pin, BASE, PAGE, 0)) == errno.ESRCH
        assert os.listdir("/proc/self/fd") == before
        got = failure(lambda: backend.send_redirect(FIRST, {1: BASE}, {1: 1}, CONTINUE))
        assert got == errno.EFAULT

    played(kernel, supervise)
    # Asked with a memfd that is mapped nowhere: the notification could be what is wrong.
    assert [answer for _, answer in kernel.redirects] == [errno.EFAULT]


def test_pins_that_were_forgotten_are_refused() -> None:
    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 1, memfds=1)
        old, new = sealed(), sealed()
        before = len(os.listdir("/proc/self/fd"))
        backend.pin_install(FIRST, old, BASE, PAGE, 0)
        backend.pin_install(FIRST, new, 2 * BASE, PAGE, 0)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        got = failure(lambda: backend.send_redirect(FIRST, {1: BASE}, {1: 1}, CONTINUE))
        assert got == errno.EFAULT
        backend.send_redirect(FIRST, {1: 2 * BASE}, {1: 1}, CONTINUE)
        backend.close()
        backend.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1 - 1  # the listener, the eventfd

    played(Kernel(1), supervise)


def test_several_threads_install_and_redirect() -> None:
    kernel = Kernel(1)
    workers, rounds = 4, 20
    for worker in range(workers):
        for turn in range(rounds):
            kernel.states[0x1000 + worker * rounds + turn] = "sent"

    def supervise(fd: int) -> None:
        backend = NativeBackend(fd, 1, memfds=workers)
        failures = []

        def work(worker: int) -> None:
            pin = sealed()
            try:
                for turn in range(rounds):
                    cookie = 0x1000 + worker * rounds + turn
                    address = backend.pin_install(cookie, pin, BASE, PAGE, 0)
                    backend.send_redirect(cookie, {1: address}, {1: 10}, CONTINUE)
            except BaseException:  # noqa: BLE001 (for the main thread)
                failures.append(traceback.format_exc())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert failures == []
        backend.close()

    played(kernel, supervise)
    done = [state for cookie, state in kernel.states.items() if cookie >= 0x1000]
    assert done == ["answered"] * workers * rounds
