"""``Popen`` beside ``subprocess.Popen``: what both promise is asked of both, by the same tests."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold.sandbox import DEVNULL, PIPE, STDOUT, Sandbox
from tests.kernel.support import PATIENCE, alive, execute, state_of
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOX: Final = Sandbox(deny=["/nonexistent-pinfold"])
BIG: Final = 10_000_000


@pytest.fixture(params=["subprocess", "pinfold"])
def start(request: pytest.FixtureRequest) -> Any:
    """Starts a command, in each of the two ways."""
    return subprocess.Popen if request.param == "subprocess" else BOX.popen


@pytest.fixture(autouse=True)
def _nothing_used_up() -> Iterator[None]:
    # Neither descriptors nor threads. What other tests have left to the collector is not ours.
    gc.collect()
    descriptors = set(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert set(threading.enumerate()) == threads


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


# What both promise.


def test_attributes(start: Any) -> None:
    with start(["sh", "-c", "exit 3"]) as process:
        assert process.args == ["sh", "-c", "exit 3"]
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert process.wait() == 3
        assert process.returncode == 3
        assert process.poll() == 3
        assert repr(process) == "<Popen: returncode: 3 args: ['sh', '-c', 'exit 3']>"


def test_pid_is_the_commands(start: Any) -> None:
    with start(["sh", "-c", "echo $$"], stdout=PIPE) as process:
        assert int(process.stdout.read()) == process.pid


def test_poll_is_none_until_the_end(start: Any) -> None:
    with start(["cat"], stdin=PIPE) as process:
        assert process.poll() is None
        assert process.returncode is None
        process.stdin.close()
        process.wait(PATIENCE)
        assert process.poll() == 0


def test_poll_sees_the_end_by_itself(start: Any) -> None:
    with start(["true"]) as process:
        end = time.monotonic() + PATIENCE
        while process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_the_end_by_a_signal(start: Any, number: int) -> None:
    with start(["sleep", "300"]) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number


def test_terminate_and_kill(start: Any) -> None:
    with start(["sleep", "300"]) as process:
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    with start(python("import signal; signal.pause()")) as process:
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_signals_after_the_end_are_nothing(start: Any) -> None:
    with start(["true"]) as process:
        process.wait(PATIENCE)
        process.kill()
        process.terminate()
        assert process.returncode == 0


def test_wait_with_timeout(start: Any) -> None:
    with start(["cat"], stdin=PIPE) as process:
        for seconds in (0, 0.05, -1):
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                process.wait(timeout=seconds)
            assert caught.value.cmd == ["cat"]
        process.stdin.close()
        assert process.wait(timeout=PATIENCE) == 0


def test_wait_from_several_threads(start: Any) -> None:
    with (
        start(["sh", "-c", "read x; exit 7"], stdin=PIPE) as process,
        ThreadPoolExecutor(4) as pool,
    ):
        waiting = [pool.submit(process.wait, PATIENCE) for _ in range(4)]
        process.stdin.write(b"\n")
        process.stdin.close()
        assert [one.result() for one in waiting] == [7] * 4


def test_kill_of_a_stopped_command(start: Any) -> None:
    with start(["sh", "-c", "echo x; kill -STOP $$"], stdout=PIPE) as process:
        assert process.stdout.readline() == b"x\n"
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_a_stopped_command_is_continued(start: Any) -> None:
    with start(["sh", "-c", "kill -STOP $$; exit 4"]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE) == 4


def test_files_in_bytes(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin.writable()
        assert process.stdout.readable()
        process.stdin.write(b"a\nb\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"a\n"
        process.stdin.close()
        assert process.stdout.read() == b"b\n"
        assert process.stdout.read() == b""


def test_files_without_buffers(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        assert isinstance(process.stdout, io.RawIOBase)
        process.stdin.write(b"abc")
        assert process.stdout.read(2) == b"ab"
        process.stdin.close()
        assert process.stdout.read() == b"c"


def test_files_in_text(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as process:
        process.stdin.write("é\n")
        assert process.stdout.readline() == "é\n"
        process.stdin.write("1\r\n2\r3\n")
        process.stdin.close()
        assert process.stdout.read() == "1\n2\n3\n"


def test_lines_of_bytes_cannot_be_buffered(start: Any) -> None:
    with (
        pytest.warns(RuntimeWarning, match="line buffering"),
        start(["cat"], stdin=PIPE, stdout=PIPE, bufsize=1) as process,
    ):
        assert process.communicate(b"x")[0] == b"x"


def test_characters_that_arrive_in_pieces(start: Any) -> None:
    code = "import os\nfor b in 'aé€😀'.encode() * 3: os.write(1, bytes([b]))"
    with start(python(code), stdout=PIPE, encoding="utf-8") as process:
        assert process.stdout.read() == "aé€😀" * 3
    with start(python(code), stdout=PIPE, stderr=PIPE, encoding="utf-8") as process:
        assert process.communicate() == ("aé€😀" * 3, "")


def test_encodings_and_errors(start: Any) -> None:
    with start(["printf", r"\351"], stdout=PIPE, encoding="latin-1") as process:
        assert process.communicate()[0] == "é"
    with start(["printf", r"\351"], stdout=PIPE, encoding="utf-8", errors="replace") as process:
        assert process.communicate()[0] == "\ufffd"
    with start(["cat"], stdin=PIPE, stdout=PIPE, encoding="utf-16-le") as process:
        assert process.communicate("é")[0] == "é"
    broken = start(["printf", r"\351"], stdout=PIPE, encoding="utf-8")
    with broken, pytest.raises(UnicodeDecodeError):
        broken.communicate()


def test_communicate(start: Any) -> None:
    script = "cat; echo err >&2; exit 5"
    with start(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.communicate(b"in") == (b"in", b"err\n")
        assert process.returncode == 5
        assert process.stdin.closed
        assert process.stdout.closed
        assert process.stderr.closed


def test_communicate_without_pipes(start: Any) -> None:
    with start(["true"]) as process:
        assert process.communicate() == (None, None)
        assert process.returncode == 0


def test_communicate_without_input_closes_it(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.communicate(timeout=PATIENCE) == (b"", b"")


def test_communicate_much_both_ways(start: Any) -> None:
    # Neither side may wait for the other with a full pipe.
    code = (
        "import sys\nfor chunk in iter(lambda: sys.stdin.buffer.read(70000), b''):\n"
        " sys.stdout.buffer.write(chunk); sys.stderr.buffer.write(chunk)"
    )
    data = os.urandom(1000) * (BIG // 1000)
    with start(python(code), stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        out, err = process.communicate(data, timeout=PATIENCE)
    assert out == data
    assert err == data


def test_communicate_much_that_nobody_reads(start: Any) -> None:
    with start(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.communicate(b"x" * BIG, timeout=PATIENCE) == (b"", b"")
        assert process.returncode == 0


def test_communicate_after_written_and_read(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "one\n"
        process.stdin.write("two\n")
        assert process.communicate("three\n") == ("two\nthree\n", None)


def test_communicate_after_input_was_closed(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"x")
        process.stdin.close()
        process.stdin = None
        assert process.communicate(timeout=PATIENCE) == (b"x", None)


def test_communicate_with_the_wrong_kind_of_input(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE) as binary, pytest.raises(TypeError):
        binary.communicate("text")
    text = start(["cat"], stdin=PIPE, stdout=PIPE, text=True)
    with text, pytest.raises(AttributeError):
        text.communicate(b"bytes")


def test_communicate_again_after_a_timeout(start: Any) -> None:
    script = "echo one; echo two >&2; read x; echo three; cat"
    with start(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write(b"\n")
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            process.communicate(b"", timeout=0)
        assert caught.value.timeout == 0
        assert process.communicate(timeout=PATIENCE) == (b"one\nthree\n", b"two\n")


def test_a_timeout_carries_what_came_so_far(start: Any) -> None:
    reader, writer = os.pipe()
    try:
        command = python(
            f"import os; os.write(1, b'\\xc3'); os.read({reader}, 1); os.write(1, b'\\xa9')"
        )
        with start(command, stdout=PIPE, stderr=PIPE, text=True, pass_fds=[reader]) as process:
            end = time.monotonic() + PATIENCE
            while True:
                with pytest.raises(subprocess.TimeoutExpired) as caught:
                    process.communicate(timeout=0.05)
                if caught.value.stdout:
                    break
                assert time.monotonic() < end
            assert (caught.value.stdout, caught.value.stderr) == (b"\xc3", None)
            os.write(writer, b"x")
            assert process.communicate(timeout=PATIENCE) == ("é", "")
    finally:
        os.close(reader)
        os.close(writer)


def test_input_cannot_be_given_twice(start: Any) -> None:
    with start(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(b"x" * BIG, timeout=0)
        with pytest.raises(ValueError, match="after starting communication"):
            process.communicate(b"more")
        process.kill()


def test_standard_error_into_standard_output(start: Any) -> None:
    script = "echo a; echo b >&2; echo c"
    with start(["sh", "-c", script], stdout=PIPE, stderr=STDOUT) as process:
        assert process.communicate() == (b"a\nb\nc\n", None)


def test_descriptors_and_files(start: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("from a file\n")
    with (
        source.open() as one,
        target.open("w") as two,
        start(["cat"], stdin=one, stdout=two.fileno(), stderr=DEVNULL) as process,
    ):
        assert process.wait(PATIENCE) == 0
    assert target.read_text() == "from a file\n"
    with start(["cat"], stdin=DEVNULL, stdout=PIPE) as process:
        assert process.communicate()[0] == b""


def test_streams_of_ours_may_be_exchanged(start: Any, tmp_path: Path) -> None:
    # Standard output into our 2, standard error into our 1.
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'src')!r}]\n"
        "from tests.kernel.test_popen import BOX, subprocess\n"
        f"start = {'BOX.popen' if start == BOX.popen else 'subprocess.Popen'}\n"
        "start(['sh', '-c', 'echo out; echo err >&2'], stdout=2, stderr=1).wait()"
    )
    done = execute([sys.executable, "-c", code])
    assert (done.stdout, done.stderr) == ("err\n", "out\n")


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2), (1, 2)])
@pytest.mark.parametrize("pipes", [False, True])
def test_with_streams_of_ours_closed(
    start: Any, closed: tuple[int, ...], pipes: bool, tmp_path: Path
) -> None:
    # Nothing that was made for the command meanwhile may become one of its streams.
    seen = tmp_path / "seen"
    show = (
        "import os\n"
        "def link(n):\n"
        "  try: return os.readlink(f'/proc/self/fd/{n}').partition(':')[0]\n"
        "  except OSError: return None\n"
        f"open({str(seen)!r}, 'w').write(repr([link(n) for n in range(3)]))"
    )
    code = (
        "import os, sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'src')!r}]\n"
        "from tests.kernel.test_popen import BOX, subprocess\n"
        f"for n in {closed!r}: os.close(n)\n"
        f"start = {'BOX.popen' if start == BOX.popen else 'subprocess.Popen'}\n"
        f"p = start([sys.executable, '-S', '-c', {show!r}], {'stdin=-1, stdout=-1' * pipes})\n"
        "p.communicate(timeout=60)\n"
        "os._exit(p.returncode)"
    )
    done = execute([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    expected: list[str | None] = ["/dev/null", "pipe", "pipe"]
    for number in closed:
        expected[number] = None
    if pipes:
        expected[:2] = ["pipe", "pipe"]
    found = eval(seen.read_text())
    # Python opens what it misses itself: not 0 to 2 but the file above, which then is the first.
    assert [one if one != str(seen) else None for one in found] == expected


def test_the_working_directory_and_environment(start: Any, tmp_path: Path) -> None:
    with start(["pwd"], cwd=tmp_path, stdout=PIPE) as process:
        assert process.communicate()[0] == os.fsencode(tmp_path) + b"\n"
    with start(["/usr/bin/env"], env={"A": "b"}, stdout=PIPE) as process:
        assert process.communicate()[0] == b"A=b\n"


def test_leaving_the_context_closes_the_files_and_waits(start: Any) -> None:
    with start(["sh", "-c", "cat; exit 6"], stdin=PIPE, stdout=PIPE) as process:
        pass
    assert process.returncode == 6
    assert process.stdin.closed
    assert process.stdout.closed


def test_leaving_the_context_with_unread_output(start: Any) -> None:
    with start(["sh", "-c", "yes"], stdout=PIPE, stderr=DEVNULL) as process:
        assert process.stdout.readline() == b"y\n"
    assert process.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE)


def test_leaving_the_context_with_unsent_input(start: Any) -> None:
    process = start(["true"], stdin=PIPE)
    process.stdin.write(b"x" * 1000)
    process.wait(PATIENCE)
    with pytest.raises(BrokenPipeError), process:
        pass
    assert process.returncode == 0
    assert process.stdin.closed


@pytest.mark.parametrize("args", [["echo", "a\0b"], ["a\0b"]])
def test_null_bytes(start: Any, args: list[str]) -> None:
    with pytest.raises(ValueError, match="null byte"):
        start(args)
    with pytest.raises(ValueError, match="null byte"):
        start(["true"], cwd="/a\0b")
    with pytest.raises(ValueError, match="null byte"):
        start(["true"], env={"A": "b\0"})


def test_a_name_that_no_variable_can_have(start: Any) -> None:
    with pytest.raises(ValueError, match="environment variable"):
        start(["true"], env={"A=B": "c"})


def test_nothing_is_left_of_what_could_not_be_started(start: Any) -> None:
    for _ in range(3):
        with pytest.raises((OSError, pinfold.LaunchError)):
            start(["no-such-command"], stdin=PIPE, stdout=PIPE, stderr=PIPE)


def test_threads_and_many_at_once(start: Any) -> None:
    def one(number: int) -> bytes:
        with start(["cat"], stdin=PIPE, stdout=PIPE) as process:
            out: bytes = process.communicate(b"%d" % number, PATIENCE)[0]
            return out

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("talk", [False, True])
def test_interrupted(start: Any, talk: bool) -> None:
    # A signal handler that raises while we wait: the wait ends, and can be begun again.
    def interrupt(*_: object) -> None:
        raise KeyError

    before = signal.signal(signal.SIGUSR1, interrupt)
    process = start(["sleep", "300"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    sender = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    sender.start()
    try:
        with process:
            with pytest.raises(KeyError):
                process.communicate(b"x" * BIG) if talk else process.wait()
            sender.join()
            process.kill()
            process.communicate(timeout=PATIENCE)
            assert process.returncode == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGUSR1, before)


# What only pinfold promises.


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126), ("/", 126)]
)
def test_errors_of_the_start_come_out_of_the_constructor(command: str, code: int) -> None:
    with pytest.raises(pinfold.LaunchError) as caught:
        BOX.popen([command], stdin=PIPE, stdout=PIPE)
    assert caught.value.exit_code == code


def test_a_denied_command_comes_out_of_the_constructor() -> None:
    with pytest.raises(pinfold.LaunchError, match="rule: deny") as caught:
        Sandbox(deny=["/**/true"]).popen(["true"])
    assert caught.value.exit_code == 126


def test_an_encoding_that_nobody_knows() -> None:
    with pytest.raises(LookupError):
        BOX.popen(["true"], stdin=PIPE, stdout=PIPE, encoding="no-such-encoding")


def test_a_descriptor_that_is_none() -> None:
    for wrong in (-4, -2):
        with pytest.raises(ValueError, match="no descriptor"):
            BOX.popen(["true"], stdin=wrong)
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    for options in ({"stdin": reader}, {"pass_fds": [writer]}):
        with pytest.raises(OSError, match="Bad file descriptor"):
            BOX.popen(["true"], **options)


def test_when_the_command_ends_so_do_the_others() -> None:
    with BOX.popen(["sh", "-c", "sleep 300 & echo $!"], stdout=PIPE) as process:
        left = int(process.communicate(timeout=PATIENCE)[0])
        assert process.returncode == 0
    assert not alive(left)


def test_kill_leaves_nothing() -> None:
    script = "setsid sh -c 'echo $$; exec sleep 300' & wait"
    with BOX.popen(["sh", "-c", script], stdout=PIPE) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert not alive(left)


def test_output_that_somebody_outside_keeps_open(tmp_path: Path) -> None:
    # The command gives its standard output to us over a socket; nobody closes that.
    code = (
        "import socket, sys, os\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 's')!r})\n"
        "os.write(1, b'x' * 50000); socket.send_fds(s, [b'y'], [1])"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with BOX.popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE) as process:
            peer, _ = listener.accept()
            with peer:
                _, fds, _, _ = socket.recv_fds(peer, 1, 4)
                assert len(fds) == 1
                try:
                    assert process.communicate(timeout=PATIENCE) == (b"x" * 50000, b"")
                finally:
                    os.close(fds[0])


def test_communicate_again_sends_what_is_left() -> None:
    with BOX.popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(b"x" * BIG, timeout=0)
        assert process.communicate(timeout=PATIENCE) == (b"x" * BIG, b"")


def test_communicate_returns_the_same_again() -> None:
    with BOX.popen(["sh", "-c", "echo x"], stdout=PIPE) as process:
        assert process.communicate() == (b"x\n", None)
        assert process.communicate() == (b"x\n", None)


def test_communicate_has_what_files_have_read_ahead() -> None:
    with BOX.popen(
        ["printf", r"one\ntwo\351\n"], stdout=PIPE, stderr=PIPE, errors="replace", encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        assert process.communicate() == ("two\ufffd\n", "")


def test_communicate_with_output_that_was_closed() -> None:
    with BOX.popen(["sh", "-c", "echo x >&2"], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.communicate() == (b"", b"x\n")


def test_result(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\n")
    box = Sandbox(map={str(tmp_path / "b"): str(tmp_path / "a")}, deny=[tmp_path / "c"], audit=True)
    with box.popen(["cat", "b", "c"], cwd=tmp_path, stdout=PIPE, stderr=PIPE, text=True) as process:
        process.communicate()
        done = process.result()
    assert isinstance(done, pinfold.CompletedRun)
    assert (done.args, done.returncode, done.stdout) == (["cat", "b", "c"], 1, "a\n")
    assert (done.denied, done.redirected) == (1, 1)
    assert done.audit is not None
    assert [one["verdict"] for one in done.audit].count("deny") == 1
    with BOX.popen(["sh", "-c", "exit 3"]) as process:
        done = process.result()
    assert (done.returncode, done.stdout, done.audit) == (3, None, None)


def test_an_error_of_the_sandbox_comes_out_of_every_wait() -> None:
    # The log breaks when the command is running: its reader goes away.
    reader, writer = os.pipe()
    box = Sandbox(audit=f"/proc/self/fd/{writer}")
    ready, go = os.pipe()
    try:
        process = box.popen(["sh", "-c", "read x; cat /etc/passwd"], stdin=ready, stdout=DEVNULL)
        os.close(reader)
        os.write(go, b"\n")
        for wait in (process.wait, process.poll, process.communicate, process.result, process.wait):
            with pytest.raises(pinfold.AuditError):
                wait()
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(pinfold.AuditError), process:
            pass
        with pytest.raises(KeyError), process:
            raise KeyError
    finally:
        for fd in (writer, ready, go):
            os.close(fd)


def test_garbage_is_killed_with_a_warning() -> None:
    process = BOX.popen(["sleep", "300"])
    pid = process.pid
    pidfd = os.pidfd_open(pid)
    try:
        with pytest.warns(ResourceWarning, match=f"subprocess {pid} is still running"):
            del process
        assert select.select([pidfd], [], [], PATIENCE)[0]
        _threads_end()
    finally:
        os.close(pidfd)


def test_garbage_that_has_ended_is_no_matter() -> None:
    process = BOX.popen(["true"])
    end = time.monotonic() + PATIENCE
    while process._job.join(0) is False:
        assert time.monotonic() < end
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del process
        gc.collect()


def test_a_forked_process_does_not_kill_the_sandbox_of_its_parent() -> None:
    with BOX.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                process.__del__()
            os._exit(0)
        os.waitpid(pid, 0)
        assert process.communicate(b"x", PATIENCE)[0] == b"x"
        assert process.returncode == 0


def test_the_end_of_the_supervisor_is_the_end_of_the_sandbox() -> None:
    code = (
        "import os, signal\nfrom tests.kernel.test_popen import BOX\n"
        "p = BOX.popen(['sleep', '300'])\n"
        "print(p.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = execute([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    end = time.monotonic() + PATIENCE
    while alive(pid) and state_of(pid) != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_interrupt_in_the_context_kills() -> None:
    with pytest.raises(KeyboardInterrupt), BOX.popen(["sleep", "300"]) as process:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


def test_no_zombie_is_left() -> None:
    for _ in range(3):
        with BOX.popen(["true"]) as process:
            process.wait()
        assert not os.path.exists(f"/proc/{process.pid}")


def _threads_end() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("pinfold"):
            thread.join(PATIENCE)
