"""Sandboxes in an event loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold import aio
from pinfold.sandbox import DEVNULL, PIPE, STDOUT, Sandbox
from pinfold.session import Session
from tests.kernel.support import PATIENCE, alive

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

BOX: Final = Sandbox(deny=["/nonexistent-pinfold"])
BIG: Final = 10_000_000


@pytest.fixture(autouse=True)
def _nothing_used_up() -> Iterator[None]:
    descriptors = set(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())
    yield
    gc.collect()
    assert not aio._turns
    assert set(os.listdir("/proc/self/fd")) == descriptors
    for thread in set(threading.enumerate()) - threads:
        # It has told the loop of the end, and is on its way out.
        thread.join(PATIENCE)
        assert not thread.is_alive()


def within(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(bounded(), debug=True)


def test_run() -> None:
    script = "cat; echo err >&2; exit 3"
    done = within(BOX.run_async(["sh", "-c", script], input=b"in", capture_output=True))
    assert isinstance(done, pinfold.CompletedRun)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"err\n")


def test_run_without_pipes(capfd: pytest.CaptureFixture[str]) -> None:
    done = within(BOX.run_async(["echo", "x"]))
    assert (done.stdout, done.stderr) == (None, None)
    assert capfd.readouterr().out == "x\n"


def test_run_in_text() -> None:
    done = within(
        BOX.run_async(["cat"], input="é\r\n€", stdout=PIPE, stderr=STDOUT, encoding="utf-8")
    )
    assert (done.stdout, done.stderr) == ("é\n€", None)


def test_run_with_counts(tmp_path: Path) -> None:
    box = Sandbox(deny=[tmp_path / "x"], audit=True)
    done = within(box.run_async(["cat", tmp_path / "x"], stderr=DEVNULL))
    assert (done.denied, done.returncode) == (1, 1)
    assert done.audit


def test_much_both_ways() -> None:
    code = (
        "import sys\nfor chunk in iter(lambda: sys.stdin.buffer.read(70000), b''):\n"
        " sys.stdout.buffer.write(chunk); sys.stderr.buffer.write(chunk)"
    )
    data = os.urandom(1000) * (BIG // 1000)
    done = within(BOX.run_async([sys.executable, "-c", code], input=data, capture_output=True))
    assert done.stdout == data
    assert done.stderr == data


def test_much_that_nobody_reads() -> None:
    assert within(BOX.run_async(["true"], input=b"x" * BIG)).returncode == 0


def test_check_and_wrong_arguments() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        within(BOX.run_async(["false"], check=True))
    with pytest.raises(ValueError, match="input"):
        within(BOX.run_async(["cat"], input=b"", stdin=DEVNULL))


def test_timeout() -> None:
    script = "setsid sh -c 'echo $$; exec sleep 300' & echo $$; wait"
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        within(BOX.run_async(["sh", "-c", script], capture_output=True, timeout=2))
    assert caught.value.stdout is not None
    pids = [int(word) for word in caught.value.stdout.split()]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_many_at_once() -> None:
    # More than the loop's pool has threads, all waiting for the same event: none may starve.
    async def main() -> list[Any]:
        gate, opened = os.pipe()
        runs = [
            asyncio.ensure_future(
                BOX.run_async(["sh", "-c", "cat; echo $0", str(n)], stdin=gate, stdout=PIPE)
            )
            for n in range(40)
        ]
        # The pool is free for others, and the loop goes on.
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert not any(run.done() for run in runs)
        os.close(opened)
        done = await asyncio.gather(*runs)
        os.close(gate)
        return [one.stdout for one in done]

    assert within(main()) == [b"%d\n" % n for n in range(40)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Collects the sessions that are started."""
    sessions: list[Session] = []
    start = Session.start

    def noted(self: Session, *callbacks: Any) -> None:
        sessions.append(self)
        start(self, *callbacks)

    monkeypatch.setattr(Session, "start", noted)
    return sessions


def test_the_loop_goes_on_between_starts(started: list[Session]) -> None:
    new: list[int] = []

    async def others() -> None:
        seen = 0
        while True:
            new.append(len(started) - seen)
            seen = len(started)
            await asyncio.sleep(0)

    async def main() -> None:
        turning = asyncio.ensure_future(others())
        starts = (BOX.popen_async(["true"], stdin=PIPE, stdout=PIPE) for _ in range(30))
        processes = await asyncio.gather(*starts)
        turning.cancel()
        assert [await process.wait() for process in processes] == [0] * 30

    within(main())
    assert sum(new) == 30
    # In none of its turns has more than one been set up.
    assert max(new) == 1


def test_a_start_that_is_judged_for_long_holds_up_no_other() -> None:
    policy = pinfold.Policy()
    asked, answer = threading.Event(), threading.Event()

    @policy.on("execve", path="**/sleep")
    def waiting(call: pinfold.Call) -> pinfold.Verdict:
        asked.set()
        assert answer.wait(PATIENCE)
        return call.deny()

    async def main() -> None:
        box = Sandbox(policy=policy)
        late = asyncio.ensure_future(box.popen_async(["sleep", "300"]))
        try:
            assert await asyncio.to_thread(asked.wait, PATIENCE)
            assert (await BOX.run_async(["true"])).returncode == 0
            assert not late.done()
        finally:
            answer.set()
        with pytest.raises(pinfold.LaunchError):
            await late

    within(main())


def test_cancelling_a_start_before_its_turn(started: list[Session]) -> None:
    async def main() -> None:
        first, second, third = (
            asyncio.ensure_future(BOX.run_async(["sh", "-c", f"exit {n}"])) for n in range(3)
        )
        while not started:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert [run.returncode for run in await asyncio.gather(first, third)] == [0, 2]

    within(main())
    assert len(started) == 2


def test_a_start_that_fails_passes_its_turn_on() -> None:
    async def main() -> Any:
        nowhere = Sandbox(ro=["/nonexistent-pinfold"])
        return await asyncio.gather(
            nowhere.run_async(["true"]),
            BOX.run_async(["no-such-command"]),
            BOX.run_async(["true"], cwd="/nonexistent-pinfold"),
            BOX.run_async(["true"]),
            return_exceptions=True,
        )

    *failed, done = within(main())
    assert [type(error) for error in failed] == [
        pinfold.PolicyError,
        pinfold.LaunchError,
        pinfold.LaunchError,
    ]
    assert done.returncode == 0


def test_loops_in_several_threads() -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(
                within(BOX.run_async(["echo", str(n)], stdout=PIPE)).stdout
            )
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(results) == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_cancelling_a_run_kills(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> int:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        script = f"setsid sleep 300 & echo $! > {fifo}; exec cat"
        run = asyncio.ensure_future(BOX.run_async(["sh", "-c", script], stdin=PIPE, stdout=PIPE))
        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(reader, ready.set)
        await ready.wait()
        asyncio.get_running_loop().remove_reader(reader)
        pid = int(os.read(reader, 100))
        os.close(reader)
        assert alive(pid)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        # Not only on its way: when the task is over, so is the sandbox.
        assert not alive(pid)
        return pid

    within(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_cancelling_a_start_kills(turns: int) -> None:
    async def main() -> None:
        start = asyncio.ensure_future(BOX.popen_async(["sleep", "300"], stdin=PIPE, stdout=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    within(main())


def test_popen() -> None:
    async def main() -> None:
        process = await BOX.popen_async(["cat"], stdin=PIPE, stdout=PIPE)
        assert process.args == ["cat"]
        assert os.path.exists(f"/proc/{process.pid}")
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is None
        process.stdin.write(b"a\nb\n")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"a\n"
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b"b\n"
        assert await process.stdout.read() == b""
        assert process.stdout.at_eof()
        assert await process.wait() == 0
        assert process.returncode == 0
        assert repr(process) == "<AsyncPopen: returncode: 0 args: ['cat']>"

    within(main())


def test_the_limit_holds_the_command_back() -> None:
    async def main() -> None:
        async with await BOX.popen_async(["yes"], stdout=PIPE, limit=1000) as process:
            assert process.stdout is not None
            with pytest.raises(asyncio.LimitOverrunError):
                await process.stdout.readuntil(b"never")
            assert await process.stdout.readexactly(100_000) == b"y\n" * 50_000
            process.kill()

    within(main())


def test_communicate_and_result(tmp_path: Path) -> None:
    async def main() -> None:
        box = Sandbox(deny=[tmp_path / "x"], audit=True)
        process = await box.popen_async(
            ["cat", "-", tmp_path / "x"], stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate(b"in")
        assert out == b"in"
        assert err is not None
        assert b"ermission denied" in err
        done = await process.result()
        assert (done.returncode, done.denied, done.stdout) == (1, 1, b"in")
        assert done.audit

    within(main())


def test_signals() -> None:
    async def main() -> None:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
            process = await BOX.popen_async(["sleep", "300"])
            send = {signal.SIGTERM: process.terminate, signal.SIGKILL: process.kill}.get(
                number, functools.partial(process.send_signal, number)
            )
            send()
            assert await process.wait() == -number
            send()

    within(main())


def test_a_wait_that_is_given_up_leaves_the_command_alone() -> None:
    async def main() -> None:
        process = await BOX.popen_async(["cat"], stdin=PIPE, stdout=PIPE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.1)
        assert process.returncode is None
        assert await process.communicate(b"x") == (b"x", None)

    within(main())


def test_several_may_wait() -> None:
    async def main() -> None:
        process = await BOX.popen_async(["sh", "-c", "read x; exit 4"], stdin=PIPE)
        waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        await process.communicate(b"\n")
        assert await asyncio.gather(*waits) == [4] * 3

    within(main())


def test_leaving_the_context() -> None:
    async def main() -> None:
        async with await BOX.popen_async(["sh", "-c", "cat; exit 6"], stdin=PIPE) as process:
            pass
        assert process.returncode == 6
        with pytest.raises(ZeroDivisionError):
            async with await BOX.popen_async(["sleep", "300"]) as process:
                raise ZeroDivisionError
        assert process.returncode == -signal.SIGKILL
        # Unread output holds nobody up.
        async with await BOX.popen_async(["yes"], stdout=PIPE, stderr=DEVNULL) as process:
            pass
        assert process.returncode not in (None, 0)

    within(main())


def test_errors_of_the_start() -> None:
    async def main() -> None:
        for command, code in (("no-such-command", 127), ("/etc/passwd", 126)):
            with pytest.raises(pinfold.LaunchError) as caught:
                await BOX.popen_async([command], stdin=PIPE, stdout=PIPE, stderr=PIPE)
            assert caught.value.exit_code == code
        with pytest.raises(pinfold.PolicyError):
            await Sandbox(ro=["/nonexistent-pinfold"]).run_async(["true"])
        with pytest.raises(ValueError, match="null byte"):
            await BOX.run_async(["a\0b"])

    within(main())


def test_an_error_of_the_sandbox() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        box = Sandbox(audit=f"/proc/self/fd/{writer}")
        process = await box.popen_async(["sh", "-c", "read x; cat /etc/passwd"], stdin=PIPE)
        os.close(reader)
        for wait in (lambda: process.communicate(b"\n"), process.wait, process.result):
            with pytest.raises(pinfold.AuditError):
                await wait()
        assert process.returncode == -signal.SIGKILL
        os.close(writer)

    within(main())


def test_output_that_somebody_outside_keeps_open(tmp_path: Path) -> None:
    code = (
        "import socket, sys, os\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 's')!r})\n"
        "os.write(1, b'x' * 50000); socket.send_fds(s, [b'y'], [0, 1])"
    )

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            # The input is never read, and its reader lives on: both pipes are kept open.
            run = asyncio.ensure_future(
                BOX.run_async([sys.executable, "-c", code], input=b"x" * BIG, stdout=PIPE)
            )
            peer, _ = await asyncio.to_thread(listener.accept)
            with peer:
                _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 1, 4)
                try:
                    assert len(fds) == 2
                    assert (await run).stdout == b"x" * 50000
                finally:
                    for fd in fds:
                        os.close(fd)

    within(main())


def test_garbage_is_killed_with_a_warning() -> None:
    async def main() -> int:
        process = await BOX.popen_async(["sleep", "300"])
        pid = process.pid
        pidfd = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, ended.set)
        with pytest.warns(ResourceWarning, match=f"subprocess {pid} is still running"):
            del process
        await ended.wait()
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        return pid

    within(main())


def test_a_loop_that_is_closed_first() -> None:
    async def main() -> Any:
        return await BOX.popen_async(["sleep", "300"])

    process = within(main())
    process.kill()
    assert process._running.join(PATIENCE)
