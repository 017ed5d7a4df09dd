"""What a program that uses ``pinfold.Listener`` may rely on, beyond pins and redirects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import support
from tests.conformance.support import BASE, NULL, PAGE, PATIENCE, SIZE, ZERO, Memory, refused
from tests.kernel import support as processes
from tests.programs import build, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pinfold import Listener, Notification
    from pinfold.listener import Backend

WAIT_KILLABLE_RECV: Final = 1 << 5


def redirect(listener: Listener, call: Notification, pin: Memory, path: bytes, at: int = 0) -> None:
    """Sends a call to a path, through a pin at ``BASE`` that is installed when it is missing."""
    length = pin.put(path, at)
    try:
        listener.send_redirect(call.id, {1: BASE + at}, {1: length})
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        listener.pin_install(call.id, pin.fd, BASE, pin.size)
        listener.send_redirect(call.id, {1: BASE + at}, {1: length})


def opens(count: int) -> list[str]:
    return [f"open:at{i}" for i in range(count)]


# Waiting


def test_the_descriptor_tells_when_there_is_a_call(backend: Backend) -> None:
    with support.target(backend, support.script("go", "open:call", "go")) as target:
        listener = target.listener
        assert not support.readable(listener.fileno(), 0)
        target.go()
        assert support.readable(listener.fileno())
        poll, epoll = select.poll(), select.epoll()
        poll.register(listener, select.POLLIN)
        with epoll:
            epoll.register(listener, select.EPOLLIN)
            assert dict(poll.poll(0)) == dict(epoll.poll(0)) == {listener.fileno(): select.POLLIN}
        call = listener.receive(0)
        assert not support.readable(listener.fileno(), 0)
        listener.send(call.id, value=7)
        assert target.line().startswith("call result=7")
        assert not support.readable(listener.fileno(), 0)
        target.go()
        target.finish()


def test_the_descriptor_tells_of_a_call_behind_a_redirect(backend: Backend, pin: Memory) -> None:
    """The second call came first, from where a redirect is waited for."""
    words = support.script("thread", "open:one", "end", "thread", "open:other", "end", "join")
    with support.target(backend, words) as target:
        listener = target.listener
        first = target.receive()
        assert support.readable(listener.fileno())
        redirect(listener, first, pin, b"/dev/null")
        assert support.readable(listener.fileno(), 0)
        second = listener.receive(0)
        assert second.pid != first.pid
        assert not support.readable(listener.fileno(), 0)
        with refused(errno.ETIMEDOUT):
            listener.receive(0)
        redirect(listener, second, pin, b"/dev/null")
        seen = target.finish()
    assert seen["one.rdev"] == seen["other.rdev"] == NULL


def test_several_calls_behind_redirects_come_in_their_order(backend: Backend, pin: Memory) -> None:
    count = 8
    words = [word for i in range(count) for word in ("thread", f"open:at{i}", "end")]
    with support.target(backend, support.script(*words, "join")) as target:
        support.until(lambda: _all_trapped(target.pid, count))
        calls = [target.receive()]
        ids = [calls[0].id]
        while calls:
            redirect(target.listener, calls.pop(), pin, b"/dev/null")
            if len(ids) < count:
                calls.append(target.listener.receive(0))
                ids.append(calls[-1].id)
        seen = target.finish()
    assert ids == [ids[0] + i for i in range(count)]
    assert {seen[f"at{i}.rdev"] for i in range(count)} == {NULL}


def _all_trapped(pid: int, count: int) -> bool:
    found = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/syscall") as now:
            found += now.read().split()[0] == str(NR["openat"])
    return found == count


@pytest.mark.parametrize("timeout", [0, 0.0, 0.05, -1])
def test_a_timeout(backend: Backend, timeout: float) -> None:
    with support.target(backend, support.script("go", "open:call")) as target:
        start = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            target.receive(timeout)
        assert time.monotonic() - start >= timeout
        assert caught.value.errno == errno.ETIMEDOUT
        target.go()
        target.listener.resume(target.receive().id)
        target.finish()


def test_iteration_ends_with_the_last_process(backend: Backend) -> None:
    """The program ends long before a process that it has left behind."""
    words = support.script("spawn", "open:one", "open:two", "end", "open:three", "join")
    with support.target(backend, words) as target:
        seen = []
        for call in target.listener:
            seen.append(target.path(call))
            target.listener.resume(call.id)
        assert sorted(seen) == [b"/no/such/one", b"/no/such/three", b"/no/such/two"]
        for timeout in (0, None, 1):
            with refused(errno.ENOENT):
                target.listener.receive(timeout)
        assert list(target.listener) == []
        assert support.readable(target.listener.fileno(), 0)
        target.finish()


def test_a_killed_program_ends_the_iteration(backend: Backend) -> None:
    with support.target(backend, support.script("open:one")) as target:
        for call in target.listener:
            os.kill(call.pid, signal.SIGKILL)
        assert target.wait() == -signal.SIGKILL


def test_a_signal_handler_does_not_end_a_receive(backend: Backend) -> None:
    """It runs, and the waiting goes on (PEP 475)."""
    calls: list[int] = []

    def handler(number: int, _: object) -> None:
        calls.append(number)
        target.go()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with support.target(backend, support.script("go", "open:call")) as target:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            call = target.receive()
            assert calls == [signal.SIGALRM]
            target.listener.resume(call.id)
            target.finish()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# asyncio


def test_asyncio(backend: Backend, pin: Memory) -> None:
    """The loop serves others meanwhile, and the iteration ends with the program."""
    others = []

    async def other() -> None:
        while True:
            others.append(target.listener)
            await asyncio.sleep(0)

    async def serve() -> int:
        meanwhile = asyncio.create_task(other())
        count = 0
        async for call in target.listener:
            redirect(target.listener, call, pin, b"/dev/null")
            count += 1
        meanwhile.cancel()
        return count

    with support.target(backend, support.script(*opens(20))) as target:
        assert asyncio.run(asyncio.wait_for(serve(), PATIENCE)) == 20
        seen = target.finish()
    assert others
    assert {seen[f"at{i}.rdev"] for i in range(20)} == {NULL}


def test_two_programs_in_one_event_loop(backend: Backend) -> None:
    async def serve(target: support.Target, value: int) -> int:
        count = 0
        async for call in target.listener:
            target.listener.send(call.id, value=value)
            count += 1
        return count

    async def both() -> list[int]:
        return list(await asyncio.gather(serve(one, 101), serve(other, 102)))

    with (
        support.target(backend, support.script(*opens(10))) as one,
        support.target(backend, support.script(*opens(20))) as other,
    ):
        assert asyncio.run(asyncio.wait_for(both(), PATIENCE)) == [10, 20]
        assert {value for key, value in one.finish().items() if "result" in key} == {"101"}
        assert {value for key, value in other.finish().items() if "result" in key} == {"102"}


def test_asyncio_behind_a_redirect(backend: Backend, pin: Memory) -> None:
    """A call that was set aside wakes the loop up."""

    async def first_of() -> Notification:
        async for call in target.listener:
            return call
        raise AssertionError("no call came")

    words = support.script("thread", "open:one", "end", "thread", "open:other", "end", "join")
    with support.target(backend, words) as target:
        first = target.receive()
        assert support.readable(target.listener.fileno())
        redirect(target.listener, first, pin, b"/dev/null")
        second = asyncio.run(asyncio.wait_for(first_of(), PATIENCE))
        redirect(target.listener, second, pin, b"/dev/null")
        target.finish()


def test_a_cancelled_iteration(backend: Backend) -> None:
    """It takes nothing with it: the next call comes to the next one who asks."""

    async def cancelled() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                async for _ in target.listener:
                    raise AssertionError("no call was made")

    with support.target(backend, support.script("go", "open:call")) as target:
        asyncio.run(cancelled())
        target.go()
        target.listener.resume(target.receive().id)
        target.finish()


# Threads


def test_several_threads_receive_at_the_same_time(backend: Backend) -> None:
    """Each call comes to one of them, and in the end each of them learns that it is over."""
    writers, each, readers = 6, 25, 5
    words = [
        word
        for i in range(writers)
        for word in ("thread", *(f"open:at{i}x{j}" for j in range(each)), "end")
    ]
    got: list[bytes] = []

    def read(number: int) -> int:
        count = 0
        with Memory() as pin:
            while True:
                try:
                    call = target.receive()
                except FileNotFoundError:
                    return count
                got.append(target.path(call))
                if number % 2:
                    address = BASE + number * 2 * SIZE
                    length = pin.put(b"/dev/null")
                    try:
                        target.listener.send_redirect(call.id, {1: address}, {1: length})
                    except OSError as error:
                        if error.errno != errno.EFAULT:
                            raise
                        target.listener.pin_install(call.id, pin.fd, address, SIZE)
                        target.listener.send_redirect(call.id, {1: address}, {1: length})
                else:
                    target.listener.send(call.id, value=77)
                count += 1

    with (
        support.target(backend, support.script(*words, "join")) as target,
        ThreadPoolExecutor(readers) as pool,
    ):
        counts = list(pool.map(read, range(readers), timeout=PATIENCE))
        seen = target.finish()
    assert sum(counts) == writers * each
    assert len(set(got)) == len(got) == writers * each
    results = [value for key, value in seen.items() if key.endswith((".result", ".rdev"))]
    assert results.count("77") + results.count(NULL) == writers * each
    assert {value for key, value in seen.items() if key.endswith(".registers")} == {"ok"}


def test_answers_from_another_thread(backend: Backend, pin: Memory) -> None:
    """A Listener belongs to nobody: made here, used by a thread of its own for each call."""
    with support.target(backend, support.script(*opens(10))) as target:
        for _ in range(10):
            call = target.receive()
            worker = threading.Thread(
                target=redirect, args=(target.listener, call, pin, b"/dev/null")
            )
            worker.start()
            worker.join(PATIENCE)
            assert not worker.is_alive()
        seen = target.finish()
    assert {seen[f"at{i}.rdev"] for i in range(10)} == {NULL}


@pytest.mark.parametrize("readers", [1, 4])
@pytest.mark.parametrize("before", ["nothing", "redirect"])
def test_close_ends_a_receive_in_another_thread(
    backend: Backend, pin: Memory, readers: int, before: str
) -> None:
    found: list[int] = []

    def read() -> None:
        try:
            target.listener.receive()
        except OSError as error:
            found.append(error.errno or 0)

    words = ["open:first", "go"] if before == "redirect" else ["go"]
    with support.target(backend, support.script(*words)) as target:
        if before == "redirect":
            redirect(target.listener, target.receive(), pin, b"/dev/null")
        threads = [threading.Thread(target=read, daemon=True) for _ in range(readers)]
        for thread in threads:
            thread.start()
        support.until(lambda: all(_sleeps(thread) for thread in threads))
        target.listener.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert found == [errno.EBADF] * readers
        target.go()
        assert target.wait() == 0


def _sleeps(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


# Closing


@pytest.mark.parametrize("state", ["waiting", "received", "parked", "refused", "behind"])
def test_close_ends_what_is_pending_with_enosys(backend: Backend, pin: Memory, state: str) -> None:
    """So the kernel does, in whatever state a call waits; later calls get the same."""
    words = support.script("thread", "open:one", "end", "thread", "open:other", "end", "join")
    with support.target(backend, (*words, "open:later")) as target:
        listener = target.listener
        support.until(lambda: _all_trapped(target.pid, 2))
        if state != "waiting":
            first = target.receive()
            if state == "parked":
                listener.pin_install(first.id, pin.fd, BASE, SIZE)
            elif state == "refused":
                with refused(errno.EFAULT):
                    listener.send_redirect(first.id, {1: BASE}, {1: 1})
            elif state == "behind":
                redirect(listener, first, pin, b"/dev/null")
        listener.close()
        assert target.wait() == 0
        seen = _output(target)
    wanted = str(-errno.ENOSYS)
    assert seen["later.result"] == wanted
    results = [seen["one.result"], seen["other.result"]]
    assert results.count(wanted) == (1 if state == "behind" else 2)
    assert seen["one.registers"] == seen["other.registers"] == "ok"


def test_close_lets_a_redirected_call_end(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """It is blocked in an open when the listener goes; the task still gets its own registers."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with support.target(backend, support.script("open:call", "open:later")) as target:
        redirect(target.listener, target.receive(), pin, os.fsencode(fifo))
        support.until(lambda: support.waits_in(target.pid, "openat"))
        target.listener.close()
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        assert target.wait() == 0
        seen = _output(target)
    assert int(seen["call.result"]) >= 0
    assert seen["call.registers"] == "ok"
    assert seen["call.string"] == "kept"
    assert seen["later.result"] == str(-errno.ENOSYS)


def test_a_redirected_call_that_is_restarted_after_close(
    backend: Backend, pin: Memory, tmp_path: Path
) -> None:
    """Job control interrupts it; made again, it is a call of the task's own, with nobody to ask."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with support.target(backend, support.script("open:call", "open:later")) as target:
        redirect(target.listener, target.receive(), pin, os.fsencode(fifo))
        support.until(lambda: support.waits_in(target.pid, "openat"))
        target.listener.close()
        os.kill(target.pid, signal.SIGSTOP)
        support.until(lambda: processes.state_of(target.pid) in "Tt")
        os.kill(target.pid, signal.SIGCONT)
        assert target.wait() == 0
        seen = _output(target)
    assert seen["call.result"] == seen["later.result"] == str(-errno.ENOSYS)
    assert seen["call.registers"] == "ok"
    assert seen["call.string"] == "kept"


def _output(target: support.Target) -> dict[str, str]:
    assert target.process.stdout is not None
    return values(target.process.stdout.read().decode())


def test_a_closed_listener(backend: Backend, pin: Memory) -> None:
    """Everything says EBADF, and closing again does nothing."""
    with support.target(backend, support.script("open:call")) as target:
        listener = target.listener
        call = target.receive()
        listener.close()
        listener.close()
        for request in (
            lambda: listener.receive(0),
            listener.receive,
            lambda: list(listener),
            listener.fileno,
            lambda: listener.id_valid(call.id),
            lambda: listener.send(call.id, value=1),
            lambda: listener.resume(call.id),
            lambda: listener.add_fd(call.id, pin.fd),
            lambda: listener.set_flags(0),
            lambda: listener.pin_install(call.id, pin.fd, BASE, SIZE),
            lambda: listener.send_redirect(call.id, {0: 1}),
        ):
            with refused(errno.EBADF):
                request()
        assert "Listener" in repr(listener)


def test_what_is_no_listener(backend: Backend, pin: Memory) -> None:
    """It is refused, and stays its owner's."""
    with refused(errno.ENOTTY):
        pinfold.Listener(pin.fd, backend)
    os.fstat(pin.fd)
    ours, theirs = os.pipe()
    os.close(theirs)
    with refused(errno.ENOTTY):
        pinfold.Listener(ours, backend)
    os.close(ours)
    for number in (ours, -1, 1 << 40):
        with refused(errno.EBADF):
            pinfold.Listener(number, backend)


# Who waits for the program


@contextlib.contextmanager
def waiting(work: Callable[[], object]) -> Iterator[list[object]]:
    """Runs ``work`` in a thread meanwhile; its result is in the list when the block has ended."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    support.until(lambda: _sleeps(thread))
    yield found
    thread.join(PATIENCE)
    assert not thread.is_alive(), "its wait did not end"


REDIRECTS: Final = 300


def serve_redirects(target: support.Target, pin: Memory) -> int:
    """Redirects every call, each in a pin of its own or an old one; returns how many."""
    count = 0
    for call in target.listener:
        redirect(target.listener, call, pin, b"/dev/null" if count % 2 else b"/dev/zero")
        count += 1
    return count


@pytest.mark.parametrize("threads", [1, 3])
def test_a_waitpid_in_another_thread_sees_the_end_and_nothing_else(
    backend: Backend, pin: Memory, threads: int
) -> None:
    """No stop of the tracing that may go on behind it, and no end of another process."""
    words = [word for _ in range(threads) for word in ("thread", *["open"] * REDIRECTS, "end")]
    counter = iter(range(len(words)))
    words = [f"open:at{next(counter)}" if word == "open" else word for word in words]
    statuses: list[int] = []

    def wait() -> int:
        while True:
            pid, status = os.waitpid(target.pid, os.WUNTRACED | os.WCONTINUED)
            statuses.append(status)
            if not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status)):
                return pid

    with support.target(backend, support.script("go", *words, "join")) as target:
        with drained(target) as lines, waiting(wait) as found:
            target.go()
            assert serve_redirects(target, pin) == threads * REDIRECTS
        assert found == [target.pid]
        # Reaped, and not by subprocess.
        target.process.returncode = 0
    assert statuses == [0]
    assert len(lines) == threads * REDIRECTS
    assert all("registers=ok string=kept" in line for line in lines)


@contextlib.contextmanager
def drained(target: support.Target) -> Iterator[list[str]]:
    """Reads what the target prints, which may be more than a pipe holds."""
    lines: list[str] = []
    stream = target.process.stdout
    assert stream is not None
    thread = threading.Thread(
        target=lambda: lines.extend(line.decode() for line in stream), daemon=True
    )
    thread.start()
    yield lines
    thread.join(PATIENCE)


def test_a_popen_in_another_thread(backend: Backend, pin: Memory) -> None:
    with support.target(backend, support.script("go", *opens(100))) as target:
        with waiting(target.process.wait) as found:
            target.go()
            assert serve_redirects(target, pin) == 100
        assert found == [0]


def test_supervise_waits_in_another_thread(backend: Backend, pin: Memory) -> None:
    """The same through ``pinfold.supervise``, where the exec of the program itself is trapped."""
    reader, writer = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reader)
        try:
            child = pinfold.supervise(
                support.script(*opens(100)),
                trap=["openat", "execve"],
                refuse={"getcwd": errno.EXDEV},
                backend=backend,
                stdout=writer,
            )
        finally:
            os.close(writer)
        stack.enter_context(child)
        assert child.listener.backend == backend
        with waiting(lambda: child.wait(PATIENCE)) as found:
            count = 0
            for call in child.listener:
                if call.data.nr == NR["execve"]:
                    child.listener.resume(call.id)
                else:
                    redirect(child.listener, call, pin, b"/dev/null")
                    count += 1
        assert found == [0]
        assert count == 100
        with os.fdopen(os.dup(reader)) as output:
            seen = values(output.read())
    assert {seen[f"at{i}.rdev"] for i in range(100)} == {NULL}


def test_an_asyncio_subprocess_watcher(backend: Backend, pin: Memory) -> None:
    """The event loop's own way to learn of ends is not disturbed by redirects in its thread."""

    async def both() -> tuple[int, int]:
        other = await asyncio.create_subprocess_exec("sleep", "0.2")
        async for call in target.listener:
            redirect(target.listener, call, pin, b"/dev/null")
        return await other.wait(), 0

    with support.target(backend, support.script(*opens(50))) as target:
        assert asyncio.run(asyncio.wait_for(both(), PATIENCE)) == (0, 0)
        target.finish()


# Leaving nothing behind


def descriptors(pid: int | str = "self") -> dict[str, str]:
    """Returns what a process has open, by number."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


@pytest.mark.parametrize("ending", ["answered", "killed", "closed", "blocked"])
def test_nothing_is_left_of_a_listener(
    backend: Backend, pin: Memory, ending: str, tmp_path: Path
) -> None:
    """No descriptor, no process, no thread, whichever way it ended; again and again."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def once() -> None:
        with support.target(backend, support.script("open:one", "open:two")) as target:
            redirect(target.listener, target.receive(), pin, b"/dev/null")
            call = target.receive()
            if ending == "blocked":
                redirect(target.listener, call, pin, os.fsencode(fifo))
                support.until(lambda: support.waits_in(target.pid, "openat"))
            elif ending == "closed":
                target.listener.pin_install(call.id, pin.fd, BASE + 2 * SIZE, SIZE)
                target.listener.close()
                assert target.wait() == 0
            elif ending == "killed":
                target.listener.pin_install(call.id, pin.fd, BASE + 2 * SIZE, SIZE)
                target.kill()
            else:
                target.listener.resume(call.id)
                target.finish()

    once()
    before = descriptors()
    threads = threading.active_count()
    family = processes.descendants(os.getpid())
    for _ in range(8):
        once()
    assert descriptors() == before
    assert threading.active_count() == threads
    support.until(lambda: processes.descendants(os.getpid()) <= family)


def test_the_target_s_descriptors_stay_as_they_are(backend: Backend, pin: Memory) -> None:
    """After installs that succeed and that fail, and after redirects of every outcome."""
    count = 60
    with support.target(backend, support.script(*opens(count))) as target:
        listener = target.listener
        before = None
        for i in range(count):
            call = target.receive()
            now = descriptors(target.pid)
            before = before or now
            assert now == before
            listener.pin_install(call.id, pin.fd, BASE + 2 * i * SIZE, SIZE)
            with refused(errno.EEXIST):
                listener.pin_install(call.id, pin.fd, BASE + 2 * i * SIZE, SIZE)
            with refused(errno.EFAULT):
                listener.send_redirect(call.id, {1: BASE - 1}, {1: 1})
            assert descriptors(target.pid) == before
            length = pin.put(b"/dev/null" if i % 2 else b"/no/such/file")
            listener.send_redirect(call.id, {1: BASE + 2 * i * SIZE}, {1: length})
        seen = target.finish()
    assert [seen[f"at{i}.rdev"] for i in range(count)] == ["none", NULL] * (count // 2)
    # The lowest free number each time.
    assert len({seen[f"at{i}.result"] for i in range(count)}) == 2


def test_no_mapping_but_the_pins_stays(backend: Backend, pin: Memory) -> None:
    with support.target(backend, support.script(*opens(3))) as target:
        call = target.receive()
        before = support.maps(target.pid).splitlines()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        for _ in range(2):
            with refused(errno.EEXIST):
                target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        for _ in range(2):
            redirect(target.listener, call, pin, b"/dev/null")
            call = target.receive()
        after = support.maps(target.pid).splitlines()
        assert len(after) == len(before) + 1
        (more,) = set(after) - set(before)
        assert more.startswith(f"{BASE:08x}-{BASE + SIZE:08x} r--s 00000000")
        target.listener.resume(call.id)
        target.finish()


# Other circumstances


def test_a_task_that_somebody_else_traces(backend: Backend, pin: Memory) -> None:
    """The interrupt back end says EPERM, and everything else goes on; later it works."""
    words = support.script("open:value", "open:error", "open:continue", "open:redirect")
    with support.target(backend, words) as target:
        call = target.receive()
        with tracer(call.pid):
            for how in ("value", "error", "continue"):
                if backend == "interrupt":
                    with refused(errno.EPERM):
                        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
                    with refused(errno.EPERM):
                        target.listener.send_redirect(call.id, {2: 0})
                assert target.listener.id_valid(call.id)
                if how == "value":
                    target.listener.send(call.id, value=77)
                elif how == "error":
                    target.listener.send(call.id, error=errno.EXDEV)
                else:
                    target.listener.resume(call.id)
                call = target.receive()
        redirect(target.listener, call, pin, b"/dev/null")
        seen = target.finish()
    assert seen["value.result"] == "77"
    assert seen["error.result"] == str(-errno.EXDEV)
    assert seen["continue.result"] == str(-errno.ENOENT)
    assert seen["redirect.rdev"] == NULL


@contextlib.contextmanager
def tracer(tid: int) -> Iterator[None]:
    """Has another process trace a task meanwhile."""
    process = subprocess.Popen(
        [build("conf_tracer"), str(tid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert processes.next_line(process.stdout) == "seize=0"
            yield
        finally:
            process.kill()


def test_a_task_that_is_traced_while_it_is_parked(backend: Backend, pin: Memory) -> None:
    """A debugger that comes too late is refused by the kernel, or gets the task afterwards."""
    with support.target(backend, support.script("open:call", "open:next")) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        late = subprocess.run(
            [build("conf_tracer"), str(call.pid)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert late.stdout in {"seize=0\n", f"seize=-{errno.EPERM}\n"}
        redirect(target.listener, call, pin, b"/dev/null")
        call = target.receive()
        with tracer(call.pid):
            target.listener.resume(call.id)
            while not target.line().startswith("next"):
                continue
        # Not before the tracer is gone, which would be told of the end first.
        seen = target.finish()
    assert seen["call.rdev"] == NULL
    assert seen["next.result"] == str(-errno.ENOENT)


def test_a_filter_with_wait_killable_recv(backend: Backend, pin: Memory) -> None:
    """Received calls are interrupted by nothing but death, and can be redirected all the same."""
    words = support.script(
        *("open:redirect", "open:again", "open:value", "open:refused"),
        *("spawn", "open:doomed", "end", "exec", "open:executed"),
    )
    with support.target(backend, words, filter_flags=WAIT_KILLABLE_RECV) as target:
        listener = target.listener
        call = target.receive()
        with refused(errno.EFAULT):
            listener.send_redirect(call.id, {1: BASE}, {1: 1})
        listener.pin_install(call.id, pin.fd, BASE, SIZE)
        redirect(listener, call, pin, b"/dev/null")
        redirect(listener, target.receive(), pin, b"/dev/zero")
        listener.send(target.receive().id, value=77)
        call = target.receive()
        with refused(errno.EEXIST):
            listener.pin_install(call.id, pin.fd, BASE, SIZE)
        assert listener.id_valid(call.id)
        listener.send(call.id, error=errno.EXDEV)
        calls = sorted((target.receive(), target.receive()), key=target.path)
        doomed, executed = calls
        listener.pin_install(doomed.id, pin.fd, BASE + 2 * SIZE, SIZE)
        os.kill(doomed.pid, signal.SIGKILL)
        assert support.ends(doomed.pid)
        with refused(errno.ENOENT):
            listener.send(doomed.id, value=1)
        redirect(listener, executed, pin, b"/dev/null", PAGE)
        seen = target.finish()
    assert seen["redirect.rdev"] == NULL
    assert seen["again.rdev"] == ZERO
    assert seen["value.result"] == "77"
    assert seen["refused.result"] == str(-errno.EXDEV)
    assert seen["executed.rdev"] == NULL
    assert {value for key, value in seen.items() if key.endswith(".registers")} == {"ok"}


def test_a_notification_names_the_thread(backend: Backend) -> None:
    words = support.script("thread", "say:it", "open:it2", "end", "join")
    with support.target(backend, words) as target:
        call = target.receive()
        target.listener.resume(call.id)
        seen = target.finish()
    assert str(call.pid) == seen["it.tid"]
    assert str(target.pid) == seen["it.pid"]
    assert call.flags == 0
    assert call.data.nr == NR["openat"]
    assert call.data.arch == 0xC000003E


def test_reading_a_caller_s_memory(backend: Backend, pin: Memory) -> None:
    """In every state of its call; and not once that is gone."""
    with support.target(backend, support.script("open:call", "open:next")) as target:
        listener = target.listener
        call = target.receive()
        where = call.data.args[1]
        for _ in range(2):
            assert listener.read_string(call, where) == b"/no/such/call"
            assert listener.read(call, where + 4, 4) == b"such"
            with refused(errno.ENAMETOOLONG):
                listener.read_string(call, where, 13)
            assert listener.read_string(call, where, 14) == b"/no/such/call"
            for address in (0, 8, 2**63, 2**64 - 1, BASE + 64 * SIZE):
                with refused(errno.EFAULT):
                    listener.read_string(call, address)
                with refused(errno.EFAULT):
                    listener.read(call, address, 1)
            if not listener.id_valid(call.id):
                break
            with contextlib.suppress(FileExistsError):
                listener.pin_install(call.id, pin.fd, BASE, SIZE)
        pin.view[:] = b"x" * pin.size
        with refused(errno.EFAULT):
            listener.read_string(call, BASE + 3 * PAGE + 1)
        with refused(errno.ENAMETOOLONG):
            listener.read_string(call, BASE)
        assert listener.read(call, BASE, SIZE) == b"x" * SIZE
        with refused(errno.EFAULT):
            listener.read(call, BASE, SIZE + 1)
        listener.resume(call.id)
        target.listener.resume(target.receive().id)
        with refused(errno.ENOENT):
            listener.read_string(call, where)
        with refused(errno.ENOENT):
            listener.read(call, where, 1)
        target.finish()


def test_a_supervisor_without_a_free_descriptor(backend: Backend, pin: Memory) -> None:
    """An install that needs one says EMFILE, and works once there is one again."""
    with support.target(backend, support.script("open:call", "open:next")) as target:
        call = target.receive()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(number) for number in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        spares = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    spares.append(os.dup(0))
            for _ in range(2):
                if backend == "interrupt":
                    with refused(errno.EMFILE):
                        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
                assert target.listener.id_valid(call.id)
        finally:
            for spare in spares:
                os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        redirect(target.listener, call, pin, b"/dev/null")
        target.listener.resume(target.receive().id)
        seen = target.finish()
    assert seen["call.rdev"] == NULL


@pytest.mark.parametrize("parked", [False, True])
def test_descriptors_for_the_target(backend: Backend, pin: Memory, parked: bool) -> None:
    """Every form of add_fd, before and after an install."""
    with support.target(backend, support.script("open:one", "open:two", "go")) as target:
        listener = target.listener
        with open("/dev/zero", "rb") as zero, open("/dev/null", "rb") as null:
            call = target.receive()
            if parked:
                listener.pin_install(call.id, pin.fd, BASE, SIZE)
            lowest = listener.add_fd(call.id, zero.fileno())
            assert listener.add_fd(call.id, zero.fileno(), newfd=77, cloexec=False) == 77
            with refused(errno.EBADF):
                listener.add_fd(call.id, 1_000_000)
            with refused(errno.EBADF):
                listener.add_fd(call.id, -1)
            assert listener.add_fd(call.id, null.fileno(), newfd=77) == 77
            now = descriptors(target.pid)
            assert (now[str(lowest)], now["77"]) == ("/dev/zero", "/dev/null")
            assert listener.add_fd(call.id, null.fileno(), newfd=88, send=True) == 88
            call = target.receive()
            if parked:
                with refused(errno.EEXIST):
                    listener.pin_install(call.id, pin.fd, BASE, SIZE)
            sent = listener.add_fd(call.id, null.fileno(), send=True)
            target.go()
        seen = target.finish()
    assert seen["one.result"] == "88"
    assert seen["two.result"] == str(sent)
    assert seen["one.rdev"] == seen["two.rdev"] == NULL
    assert seen["one.registers"] == seen["two.registers"] == "ok"


@pytest.mark.parametrize("parked", [False, True])
def test_answers_that_are_malformed(backend: Backend, pin: Memory, parked: bool) -> None:
    """EINVAL as from the kernel, and the call still waits."""
    with support.target(backend, support.script("open:call")) as target:
        listener = target.listener
        call = target.receive()
        if parked:
            listener.pin_install(call.id, pin.fd, BASE, SIZE)
        for value, error, flags in (
            *((0, 0, 2), (0, 0, 1 << 31), (1, 0, 1), (0, errno.EXDEV, 1)),
            *((1 << 63, 0, 0), (-(1 << 63) - 1, 0, 0), (0, 0, 1 << 32), (0, 0, -1)),
        ):
            with refused(errno.EINVAL):
                listener.send(call.id, value=value, error=error, flags=flags)
            assert listener.id_valid(call.id)
        with refused(errno.EINVAL):
            listener.set_flags(1 << 5)
        listener.set_flags(0)
        listener.set_flags(1)
        listener.send(call.id, value=-(1 << 63))
        seen = target.finish()
    assert seen["call.result"] == str(-(1 << 63))
