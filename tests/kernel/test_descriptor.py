"""A supervisor's side of a real listener: waiting, hanging up, closing, several threads."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pinfold import bpf
from pinfold.backends.descriptor import ListenerDescriptor, SharedDescriptor
from pinfold.linux import libc, seccomp
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from tests.kernel.listening import CALL, child, getppid
from tests.kernel.support import in_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.listening import Child

SECONDS = 60
LOW = 0xFFFFFFFF
CONTINUE = abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE


def call_when_told(channel: socket.socket) -> None:
    """Makes a call for each byte, and tells its result."""
    while channel.recv(1):
        try:
            result = getppid()
        except OSError as error:
            result = -(error.errno or 0)
        channel.send(result.to_bytes(8, "little", signed=True))


def told(task: Child) -> int:
    return int.from_bytes(task.channel.recv(8), "little", signed=True)


@pytest.fixture
def task() -> Iterator[Child]:
    with child(call_when_told) as made:
        yield made


@pytest.fixture
def listener(task: Child) -> Iterator[ListenerDescriptor]:
    before = descriptors()
    made = owner(task)
    yield made
    made.close()
    assert descriptors() == before - {task.listener}


def owner(task: Child) -> ListenerDescriptor:
    made = ListenerDescriptor(task.listener)
    task.owned.discard(task.listener)
    return made


def descriptors() -> set[int]:
    # Without the one that lists them.
    seen = os.listdir("/proc/self/fd")
    return {int(fd) for fd in seen if os.path.lexists(f"/proc/self/fd/{fd}")}


def failure(call: Callable[[], object]) -> int | None:
    """Returns the errno that a call fails with, None when it does not fail."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


# Waiting


def test_time_limits(task: Child, listener: ListenerDescriptor) -> None:
    for limit in (0, -1, -1e300, float("nan")):
        assert listener.receive(limit) is None
    start = time.monotonic()
    assert listener.receive(0.05) is None
    assert time.monotonic() - start >= 0.05
    task.channel.send(b"c")
    for forever in (None, 1e300, float("inf")):
        got = listener.receive(forever)
        assert got is not None
        assert (got.pid, got.nr, got.arch) == (task.pid, CALL, abi.AUDIT_ARCH_X86_64)
        listener.send(got.id, 41, 0, 0)
        assert told(task) == 41
        task.channel.send(b"c")


def test_readable_when_there_is_something(task: Child, listener: ListenerDescriptor) -> None:
    assert listener.fileno() == task.listener
    assert select.select([listener], [], [], 0)[0] == []
    task.channel.send(b"c")
    assert select.select([listener], [], [], SECONDS)[0] == [listener]


def test_nobody_left(task: Child, listener: ListenerDescriptor) -> None:
    task.channel.send(b"c")
    got = listener.receive(SECONDS)
    assert got is not None
    listener.send(got.id, 1, 0, 0)
    task.channel.shutdown(socket.SHUT_WR)
    for limit in (SECONDS, None, 0):
        with pytest.raises(EOFError, match="no process is left"):
            listener.receive(limit)
    assert task.exit_code() == 0
    assert not listener.id_valid(got.id)


def test_a_call_that_went_away_before_it_was_received(
    task: Child, listener: ListenerDescriptor
) -> None:
    task.channel.send(b"c")
    assert select.select([listener], [], [], SECONDS)[0]
    os.kill(task.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, task.pid, os.WSTOPPED)
    os.kill(task.pid, signal.SIGCONT)
    # It was told that a signal came, and makes its call again: another notification.
    until(lambda: bool(select.select([listener], [], [], 0)[0]))
    got = listener.receive(SECONDS)
    assert got is not None
    # The kernel counted two. What is received now is the one that is not there any more.
    assert listener._take(task.listener) is None
    listener.send(got.id, 5, 0, 0)
    assert told(task) == 5


def test_the_last_call_went_away_before_it_was_received(
    task: Child, listener: ListenerDescriptor
) -> None:
    task.channel.send(b"c")
    assert select.select([listener], [], [], SECONDS)[0]
    os.kill(task.pid, signal.SIGKILL)
    assert task.exit_code() == -signal.SIGKILL
    with pytest.raises(EOFError):
        listener._take(task.listener)


# Signals


def test_signals_interrupt_nothing(task: Child, listener: ListenerDescriptor) -> None:
    handled = 0
    main = threading.main_thread().ident
    assert main is not None

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1

    def disturb() -> None:
        until(listener._reading.locked)
        for count in range(1, 4):
            signal.pthread_kill(main, signal.SIGUSR1)
            until(lambda wanted=count: handled == wanted)  # type: ignore[misc]
        task.channel.send(b"c")

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        got = listener.receive(SECONDS)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert handled == 3
    assert got is not None
    assert got.pid == task.pid


def test_an_interrupted_receive_is_made_again(task: Child, listener: ListenerDescriptor) -> None:
    # The poll comes first, so that RECV itself hardly ever waits. Here it is made to.
    handled = threading.Event()
    main = threading.main_thread()
    assert main.ident is not None
    ident, waits_in = main.ident, f"/proc/self/task/{main.native_id}/syscall"

    def in_ioctl() -> bool:
        with open(waits_in, encoding="ascii") as text:
            return text.read().split()[0] == str(NR["ioctl"])

    def disturb() -> None:
        until(in_ioctl)
        signal.pthread_kill(ident, signal.SIGUSR1)
        assert handled.wait(SECONDS)
        until(in_ioctl)
        task.channel.send(b"c")

    before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        got = listener._take(task.listener)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert got is not None
    assert got.pid == task.pid


def test_a_handler_that_closes(task: Child) -> None:
    listener = owner(task)
    main = threading.main_thread().ident
    assert main is not None

    def disturb() -> None:
        until(listener._reading.locked)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: listener.close())
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with pytest.raises(OSError, match="closed") as caught:
            listener.receive(SECONDS)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.errno == errno.EBADF
    assert task.listener not in descriptors()


# Closing


def test_everything_refused_once_closed(task: Child) -> None:
    before = descriptors()
    listener = owner(task)
    task.channel.send(b"c")
    got = listener.receive(SECONDS)
    assert got is not None
    listener.close()
    listener.close()
    assert descriptors() == before - {task.listener}
    # The kernel answers what was pending.
    assert told(task) == -errno.ENOSYS
    # Another file under the same number is none of its business.
    taken = os.dup2(0, task.listener)
    calls: list[Callable[[], object]] = [
        listener.fileno,
        lambda: listener.receive(0),
        lambda: listener.receive(None),
        lambda: listener.id_valid(got.id),
        lambda: listener.send(got.id, 0, 0, CONTINUE),
        lambda: listener.add_fd(got.id, 0, None, 0, False),
        lambda: listener.set_flags(0),
    ]
    assert [failure(call) for call in calls] == [errno.EBADF] * len(calls)
    listener.close()
    os.fstat(taken)
    os.close(taken)


def test_closing_wakes_every_thread_that_waits(task: Child) -> None:
    before = descriptors()
    listener = owner(task)
    ends = Counter[int | None]()

    def wait() -> None:
        try:
            listener.receive(None)
        except OSError as error:
            ends[error.errno] += 1

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: listener.listener._users == 3 and listener._reading.locked())
    listener.close()
    for thread in threads:
        thread.join(SECONDS)
    assert ends == {errno.EBADF: 3}
    assert descriptors() == before - {task.listener}


def test_shared_descriptor_is_closed_by_its_last_user() -> None:
    fd = os.dup(0)
    shared = SharedDescriptor(fd, "the thing")
    with shared as outer:
        with shared as inner:
            assert outer == inner == fd
            shared.close()
            os.fstat(fd)
        os.fstat(fd)
        with pytest.raises(OSError, match="the thing is closed"), shared:
            pass
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    shared.close()


def test_shared_descriptor_closed_by_a_handler_in_the_midst_of_its_own_work() -> None:
    fd = os.dup(0)
    shared = SharedDescriptor(fd, "the thing")
    # Where a handler may run while this thread holds the lock.
    with shared._lock:
        shared.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


# Several threads


def test_each_notification_comes_once() -> None:
    calls = 300

    def work(channel: socket.socket) -> None:
        for _ in range(calls):
            assert getppid() > 0
        channel.send(b"done")

    with child(work) as task:
        listener = owner(task)
        received = Counter[int]()
        failures: list[BaseException] = []
        guard = threading.Lock()

        def serve(limit: float | None) -> None:
            try:
                while True:
                    got = listener.receive(limit)
                    if got is not None:
                        with guard:
                            received[got.id] += 1
                        listener.send(got.id, 7, 0, 0)
            except EOFError:
                pass
            except BaseException as error:  # noqa: BLE001 (for the main thread)
                failures.append(error)

        limits = (None, None, 0.001, SECONDS)
        threads = [threading.Thread(target=serve, args=(limit,)) for limit in limits]
        for thread in threads:
            thread.start()
        assert task.exit_code() == 0
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        listener.close()
    assert failures == []
    assert len(received) == calls
    assert set(received.values()) == {1}


# Answers


def test_answers(task: Child, listener: ListenerDescriptor) -> None:
    def received() -> int:
        task.channel.send(b"c")
        got = listener.receive(SECONDS)
        assert got is not None
        assert listener.id_valid(got.id)
        return got.id

    first = received()
    listener.send(first, 0, 0, CONTINUE)
    assert told(task) == os.getpid()
    assert not listener.id_valid(first)
    listener.send(received(), 0, -errno.EMLINK, 0)
    assert told(task) == -errno.EMLINK
    listener.send(received(), (1 << 63) - 1, 0, 0)
    assert told(task) == (1 << 63) - 1
    cookie = received()
    high = 200
    assert listener.add_fd(cookie, 0, high, 0, False) == high
    assert os.path.samestat(os.stat(f"/proc/{task.pid}/fd/{high}"), os.fstat(0))
    zero = listener.add_fd(cookie, listener.fileno(), 0, os.O_CLOEXEC, False)
    assert zero == 0
    assert "seccomp" in os.readlink(f"/proc/{task.pid}/fd/0")
    number = listener.add_fd(cookie, 0, None, os.O_CLOEXEC, True)
    assert told(task) == number
    assert not listener.id_valid(cookie)


def test_numbers_that_do_not_fit(task: Child, listener: ListenerDescriptor) -> None:
    task.channel.send(b"c")
    got = listener.receive(SECONDS)
    assert got is not None
    cookie = got.id
    top = 1 << 64
    refused: list[tuple[int, Callable[[], object]]] = [
        (errno.ENOENT, lambda: listener.send(-1, 0, 0, 0)),
        (errno.ENOENT, lambda: listener.send(top + cookie, 0, 0, 0)),
        (errno.EINVAL, lambda: listener.send(cookie, 1 << 63, 0, 0)),
        (errno.EINVAL, lambda: listener.send(cookie, -(1 << 63) - 1, 0, 0)),
        (errno.EINVAL, lambda: listener.send(cookie, 0, -(1 << 31) - 1, 0)),
        (errno.EINVAL, lambda: listener.send(cookie, 0, 0, 2)),
        (errno.EINVAL, lambda: listener.send(cookie, 0, 0, -1)),
        (errno.EINVAL, lambda: listener.send(cookie, 0, 0, (1 << 32) + CONTINUE)),
        (errno.EINVAL, lambda: listener.send(cookie, 1, 0, CONTINUE)),
        (errno.ENOENT, lambda: listener.add_fd(-1, 0, None, 0, False)),
        (errno.EBADF, lambda: listener.add_fd(cookie, -1, None, 0, False)),
        (errno.EBADF, lambda: listener.add_fd(cookie, 1 << 32, None, 0, False)),
        (errno.EBADF, lambda: listener.add_fd(cookie, 0, -1, 0, False)),
        (errno.EBADF, lambda: listener.add_fd(cookie, 0, 1 << 32, 0, False)),
        (errno.EBADF, lambda: listener.add_fd(cookie, 0, (1 << 31) - 1, 0, False)),
        (errno.EINVAL, lambda: listener.add_fd(cookie, 0, None, -1, False)),
        (errno.EINVAL, lambda: listener.add_fd(cookie, 0, None, 1 << 32, False)),
        (errno.EINVAL, lambda: listener.set_flags(1 << 5)),
        (errno.EINVAL, lambda: listener.set_flags(-1)),
        (errno.EINVAL, lambda: listener.set_flags((1 << 32) + 1)),
    ]
    for number, call in refused:
        assert failure(call) == number
    assert not listener.id_valid(-1)
    assert not listener.id_valid(top + cookie)
    assert listener.id_valid(cookie)
    listener.set_flags(0)
    listener.send(cookie, 9, 0, 0)
    assert told(task) == 9


# A kernel that lacks the flag, played by a filter


@pytest.mark.parametrize(
    ("number", "works"), [(errno.EINVAL, True), (errno.EPERM, False)], ids=["EINVAL", "EPERM"]
)
def test_only_einval_is_taken_for_a_kernel_without_sync_wake_up(number: int, works: bool) -> None:
    def body() -> None:
        answer = [
            bpf.Case(
                (bpf.Arg(1, LOW, abi.SECCOMP_IOCTL_NOTIF_SET_FLAGS),),
                abi.SECCOMP_RET_ERRNO | number,
            )
        ]
        code = bpf.compile_filter(
            {NR["ioctl"]: answer},
            default=abi.SECCOMP_RET_ALLOW,
            arch=abi.AUDIT_ARCH_X86_64,
            wrong_arch=abi.SECCOMP_RET_KILL_PROCESS,
            x32=abi.SECCOMP_RET_KILL_PROCESS,
            minus_one=abi.SECCOMP_RET_ERRNO | errno.ENOSYS,
        )
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.FilterProgram(bpf.assemble(code)).install()
        with child(call_when_told) as task:
            before = descriptors()
            if works:
                listener = owner(task)
                assert listener.receive(0) is None
                listener.close()
                return
            assert failure(lambda: ListenerDescriptor(task.listener)) == number
            assert descriptors() == before

    in_fork(body, SECONDS)
