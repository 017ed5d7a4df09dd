"""Programs started under a filter, and listeners that change hands."""

from __future__ import annotations

import array
import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold.bpf import Arg
from pinfold.launch.spawn import HAND_OVER_CALLS
from pinfold.linux import libc, process, seccomp
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import seccomp as abi
from tests.kernel.forked import Forked, descriptors, forked
from tests.kernel.support import NOBODY, PATIENCE, alive, ends, execute, next_line, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.support import User

DEVNULL: Final = subprocess.DEVNULL
LOW: Final = 0xFFFFFFFF
NAMES: Final = {number: name for name, number in NR.items()}
ALL_OTHERS: Final = sorted(NR.keys() - set(HAND_OVER_CALLS))
PYTHON: Final = (sys.executable, "-I", "-S", "-c")


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def serve(child: pinfold.Supervised) -> list[str]:
    """Lets every call continue until nobody is left; returns their names."""
    seen: list[str] = []
    while True:
        try:
            call = child.listener.receive(PATIENCE)
        except FileNotFoundError:
            return seen
        seen.append(NAMES[call.data.nr])
        child.listener.resume(call.id)


def output(argv: list[str], **options: Any) -> tuple[int, str]:
    """Returns how a program went that nobody has to answer, and what it wrote."""
    options.setdefault("trap", ())
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream:
        try:
            child = pinfold.supervise(argv, stdout=writer, **options)
        finally:
            os.close(writer)
        with child:
            text = stream.read()
            return child.wait(PATIENCE), text


# What is trapped


def test_every_other_call_may_be_trapped() -> None:
    # Nothing but the two is called before the listener is here: anything else would never return.
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        for attempt in range(5):
            with pinfold.supervise(
                ["/bin/echo", str(attempt)], trap=ALL_OTHERS, stdin=DEVNULL, stdout=writer
            ) as child:
                seen = serve(child)
                assert child.wait(PATIENCE) == 0
            # The listener's own descriptor is closed, then comes the program.
            assert seen[:2] == ["close", "execve"]
            assert seen[-1] == "exit_group"
            assert {"write", "mmap"} < set(seen)
        os.close(writer)
        assert stream.read() == b"0\n1\n2\n3\n4\n"


def test_all_calls_of_a_program_that_cannot_be_executed() -> None:
    with pinfold.supervise(["/nonexistent/program"], trap=ALL_OTHERS) as child:
        assert set(serve(child)) == {"close", "execve", "exit_group"}
        with pytest.raises(pinfold.LaunchError, match="command not found"):
            child.wait(PATIENCE)


@pytest.mark.parametrize("name", HAND_OVER_CALLS)
@pytest.mark.parametrize("form", ["name", "number", "tuple"])
@pytest.mark.parametrize("how", ["trap", "refuse"])
def test_calls_of_the_hand_over_cannot_be_trapped(name: str, form: str, how: str) -> None:
    calls: dict[str, Any] = {"name": name, "number": NR[name], "tuple": (name, Arg(0, LOW, 1))}
    trap, refuse = ([calls[form]], {}) if how == "trap" else ([], {calls[form]: errno.EPERM})
    with pytest.raises(pinfold.PolicyError, match=f"^{name} can be neither trapped nor refused"):
        pinfold.supervise(["true"], trap=["openat", *trap], refuse=refuse)


def test_the_start_is_a_call_like_any_other() -> None:
    with pinfold.supervise(["/bin/true"], trap=["execve"]) as child:
        call = child.listener.receive(PATIENCE)
        assert (call.pid, NAMES[call.data.nr]) == (child.pid, "execve")
        assert child.listener.read_string(call, call.data.args[0]) == b"/bin/true"
        assert child.poll() is None
        assert child.returncode is None
        child.listener.resume(call.id)
        assert child.wait(PATIENCE) == 0


def test_a_start_that_is_denied() -> None:
    with pinfold.supervise(["/bin/true"], trap=["execve"]) as child:
        child.listener.send(child.listener.receive(PATIENCE).id, error=errno.EPERM)
        with pytest.raises(pinfold.LaunchError, match="/bin/true: cannot execute") as caught:
            child.wait(PATIENCE)
        assert caught.value.exit_code == child.returncode == 126
        # And again.
        with pytest.raises(pinfold.LaunchError):
            child.poll()


def test_refusals_and_arguments() -> None:
    script = (
        "import errno, os, socket\n"
        "def attempt(call, *args):\n"
        "    try: call(*args)\n"
        "    except OSError as error: print(errno.errorcode[error.errno])\n"
        "    else: print('done')\n"
        "attempt(os.rmdir, '/nonexistent')\n"
        "attempt(socket.socket, socket.AF_INET)\n"
        "attempt(socket.socket, socket.AF_UNIX)\n"
        "attempt(os.getpriority, os.PRIO_PROCESS, 0)\n"
        "attempt(os.getpriority, os.PRIO_USER, 0)\n"
    )
    reader, writer = os.pipe()
    with (
        os.fdopen(reader) as stream,
        pinfold.supervise(
            [*PYTHON, script],
            trap=[("getpriority", Arg(0, LOW, os.PRIO_USER))],
            refuse={"rmdir": errno.EXDEV, ("socket", Arg(0, LOW, socket.AF_INET)): errno.ENOLINK},
            stdout=writer,
        ) as child,
    ):
        os.close(writer)
        call = child.listener.receive(PATIENCE)
        assert call.data.args[0] == os.PRIO_USER
        child.listener.send(call.id, error=errno.ESTALE)
        assert child.wait(PATIENCE) == 0
        assert stream.read().split() == ["EXDEV", "ENOLINK", "done", "done", "ESTALE"]


def test_what_the_program_starts_is_under_the_filter() -> None:
    with pinfold.supervise(["sh", "-c", "(rmdir /nonexistent-a); :"], trap=["rmdir"]) as child:
        call = child.listener.receive(PATIENCE)
        assert call.pid != child.pid
        child.listener.send(call.id)
        assert child.wait(PATIENCE) == 0


def test_asyncio() -> None:
    import asyncio

    async def main() -> list[bytes]:
        seen = []
        with pinfold.supervise(["cat", "/dev/null"], trap=["openat"]) as child:
            async for call in child.listener:
                seen.append(child.listener.read_string(call, call.data.args[1]))
                child.listener.resume(call.id)
            assert child.wait(PATIENCE) == 0
        return seen

    assert b"/dev/null" in asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_filter_flags() -> None:
    flag = abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    with pinfold.supervise(["true"], trap=["openat"], flags=flag) as child:
        assert "openat" in serve(child)
        assert child.wait(PATIENCE) == 0
    with pytest.raises(pinfold.LaunchError, match=r"install the filter for.*Invalid argument"):
        pinfold.supervise(["true"], trap=["openat"], flags=1 << 30)


def test_back_ends() -> None:
    with pinfold.supervise(["true"], trap=(), backend="interrupt") as child:
        assert child.listener.backend == "interrupt"
        assert child.wait(PATIENCE) == 0
    with pytest.raises(ValueError, match="no back end"):
        pinfold.supervise(["true"], trap=(), backend="nonsense")  # type: ignore[arg-type]


# How the program starts


def test_streams(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("some input\n")
    script = "cat; echo out; echo err >&2"
    with open(tmp_path / "in") as source, open(tmp_path / "out", "w") as target:
        with pinfold.supervise(
            ["sh", "-c", script], trap=(), stdin=source, stdout=target, stderr=subprocess.STDOUT
        ) as child:
            assert child.wait(PATIENCE) == 0
        with pinfold.supervise(
            ["sh", "-c", script], trap=(), stdin=DEVNULL, stdout=target.fileno(), stderr=DEVNULL
        ) as child:
            assert child.wait(PATIENCE) == 0
    assert (tmp_path / "out").read_text() == "some input\nout\nerr\nout\n"


def test_streams_are_inherited() -> None:
    script = (
        "import pinfold, sys\n"
        "with pinfold.supervise(['sh', '-c', 'cat; echo err >&2'], trap=()) as child:\n"
        "    sys.exit(child.wait(60))\n"
    )
    done = execute([sys.executable, "-c", script], input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "err\n")


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_pipes_are_not_made(stream: str) -> None:
    with pytest.raises(ValueError, match=r"os.pipe\(\)"):
        pinfold.supervise(["true"], trap=(), **{stream: subprocess.PIPE})  # type: ignore[arg-type]


def test_directory_and_environment(tmp_path: Path) -> None:
    for cwd in (tmp_path, str(tmp_path), os.fsencode(tmp_path)):
        assert output(["pwd"], cwd=cwd) == (0, f"{tmp_path}\n")
    assert output(["/usr/bin/env"], env={"A": "b"}) == (0, "A=b\n")
    assert output(["/usr/bin/env"], env={b"A": b"b"}) == (0, "A=b\n")
    assert output(["env"], env={"PATH": "/nowhere:/usr/bin"}) == (0, "PATH=/nowhere:/usr/bin\n")
    os.environ["PINFOLD_TEST"] = "inherited"
    try:
        assert output(["sh", "-c", "echo $PINFOLD_TEST"]) == (0, "inherited\n")
    finally:
        del os.environ["PINFOLD_TEST"]


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(pinfold.LaunchError, match="working directory"):
        pinfold.supervise(["true"], trap=(), cwd="/nonexistent")


def test_descriptors() -> None:
    with open(os.devnull) as kept, open(os.devnull) as other:
        os.set_inheritable(other.fileno(), True)
        script = (
            "import os\n"
            "print([fd for fd in range(3, 1000) if os.path.lexists(f'/proc/self/fd/{fd}')])"
        )
        assert output([*PYTHON, script], pass_fds=[kept.fileno()]) == (0, f"[{kept.fileno()}]\n")


def test_signals_are_as_usual() -> None:
    # Python ignores two of them, and what is blocked here is our own business. What was ignored
    # when the suite was started stays ignored.
    command = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
    bare = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert output(command) == (0, bare)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_handlers_do_not_run_in_the_program() -> None:
    def handler(*_: object) -> None:
        os.write(2, b"a handler ran in the wrong process")

    before = signal.signal(signal.SIGUSR1, handler)
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    old = signal.set_wakeup_fd(waker.fileno())
    try:
        # It has not been executed yet, and is still a copy of this process.
        with pinfold.supervise(["/bin/true"], trap=["execve"]) as child:
            child.listener.receive(PATIENCE)
            child.send_signal(signal.SIGUSR1)
            assert child.wait(PATIENCE) == -signal.SIGUSR1
        woken.setblocking(False)
        with pytest.raises(BlockingIOError):
            woken.recv(1)
    finally:
        signal.set_wakeup_fd(old)
        signal.signal(signal.SIGUSR1, before)
        woken.close()
        waker.close()


def test_garbage_is_not_collected_in_the_program() -> None:
    script = (
        "import gc, os, pinfold\n"
        "class Noisy:\n"
        "    def __init__(self): self.itself = self\n"
        "    def __del__(self, here=os.getpid()):\n"
        "        if os.getpid() != here: os.write(2, b'a finalizer ran in the wrong process')\n"
        "gc.set_threshold(1)\n"
        "os.register_at_fork(before=Noisy)\n"
        "with pinfold.supervise(['true'], trap=()) as child:\n"
        "    print(child.wait(60), gc.isenabled())\n"
    )
    done = execute([sys.executable, "-c", script])
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")


def test_no_new_privileges() -> None:
    status, text = output(["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"])
    assert (status, text.split()) == (0, ["NoNewPrivs:", "1", "Seccomp:", "2"])


def test_it_has_no_listener() -> None:
    with pinfold.supervise(["sleep", "300"], trap=["execve"]) as child:
        call = child.listener.receive(PATIENCE)
        # Otherwise nobody would end its calls when the supervisor is gone.
        with pytest.raises(FileNotFoundError, match="no seccomp listener"):
            pinfold.take_listener(child.pid)
        child.listener.resume(call.id)


# How it ends


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)]
)
def test_exit_status(script: str, status: int) -> None:
    with pinfold.supervise(["sh", "-c", script], trap=()) as child:
        assert child.wait(PATIENCE) == status
        assert child.returncode == child.poll() == child.wait() == status
    assert child.returncode == status


def test_125_to_127_of_its_own() -> None:
    for status in (125, 126, 127):
        with pinfold.supervise(["sh", "-c", f"exit {status}"], trap=()) as child:
            assert child.wait(PATIENCE) == status


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("no-such-program-anywhere", 127, "command not found in PATH"),
        ("/nonexistent/program", 127, "/nonexistent/program: command not found"),
        ("/etc", 126, "/etc: cannot execute: is a directory"),
        ("/etc/passwd", 126, "/etc/passwd: cannot execute: Permission denied"),
    ],
)
def test_programs_that_cannot_be_executed(name: str, code: int, text: str) -> None:
    with pinfold.supervise([name], trap=()) as child:
        for _ in range(2):
            with pytest.raises(pinfold.LaunchError, match=text) as caught:
                child.wait(PATIENCE)
            assert caught.value.exit_code == child.returncode == code


def test_poll() -> None:
    with pinfold.supervise(["cat", "/no/such/file"], trap=["openat"], stderr=DEVNULL) as child:
        assert child.poll() is None
        serve(child)
        end = time.monotonic() + PATIENCE
        while child.poll() is None:
            assert time.monotonic() < end
        assert child.poll() == child.returncode == 1


def test_timeouts() -> None:
    with pinfold.supervise(["sleep", "300"], trap=()) as child:
        for seconds in (0, 0.01, -1):
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                child.wait(seconds)
            assert caught.value.cmd == ["sleep", "300"]
        child.terminate()
        assert child.wait(PATIENCE) == -signal.SIGTERM
        assert child.wait(0) == -signal.SIGTERM


def test_signals() -> None:
    with pinfold.supervise(["sleep", "300"], trap=()) as child:
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == -signal.SIGINT
        # It is gone, and its number may be somebody else's.
        child.send_signal(signal.SIGKILL)
        child.kill()
        child.terminate()


def test_others_can_signal_while_one_waits() -> None:
    with pinfold.supervise(["sleep", "300"], trap=()) as child:
        found: list[int] = []
        waiting = threading.Barrier(3)

        def wait() -> None:
            waiting.wait(PATIENCE)
            found.append(child.wait(PATIENCE))

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        waiting.wait(PATIENCE)
        child.kill()
        for thread in threads:
            thread.join()
        assert found == [-signal.SIGKILL] * 2


def test_the_block_ends_it() -> None:
    with pinfold.supervise(["sleep", "300"], trap=()) as child:
        assert alive(child.pid)
    assert child.returncode == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{child.pid}")
    with pytest.raises(OSError, match="closed") as caught:
        child.listener.receive(0)
    assert caught.value.errno == errno.EBADF
    child.close()
    assert child.poll() == child.wait() == -signal.SIGKILL


def test_the_block_ends_what_waits_for_an_answer() -> None:
    for flags in (0, abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV):
        with pinfold.supervise(["/bin/true"], trap=["execve"], flags=flags) as child:
            child.listener.receive(PATIENCE)
        assert child.returncode == -signal.SIGKILL
        with pinfold.supervise(["/bin/true"], trap=["execve"], flags=flags) as child:
            pass
        assert child.returncode == -signal.SIGKILL


def test_the_block_hides_no_error() -> None:
    with (
        pytest.raises(RuntimeError, match="of the body"),
        pinfold.supervise(["/nonexistent/program"], trap=()),
    ):
        raise RuntimeError("of the body")


def test_what_it_left_behind_gets_enosys() -> None:
    script = (
        "import os, sys\n"
        "if os.fork(): os._exit(0)\n"
        "print(os.getpid(), flush=True)\n"
        "os.read(0, 1)\n"
        "try: os.rmdir('/nonexistent')\n"
        "except OSError as error: print(error.errno, flush=True)\n"
    )
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        stack.callback(theirs.close)
        stream = stack.enter_context(ours.makefile("r"))
        with pinfold.supervise(
            [*PYTHON, script], trap=["rmdir"], stdin=theirs.fileno(), stdout=theirs.fileno()
        ) as child:
            orphan = int(stream.readline())
            assert child.wait(PATIENCE) == 0
        assert alive(orphan)
        ours.send(b"x")
        assert int(stream.readline()) == errno.ENOSYS


def test_it_ends_with_the_thread_that_started_it() -> None:
    made: list[pinfold.Supervised] = []
    thread = threading.Thread(
        target=lambda: made.append(pinfold.supervise(["sleep", "300"], trap=()))
    )
    thread.start()
    thread.join()
    with made[0] as child:
        assert child.wait(PATIENCE) == -signal.SIGKILL


def test_it_ends_with_the_supervisor() -> None:
    script = (
        "import pinfold, sys\n"
        "with pinfold.supervise(['sleep', '300'], trap=()) as child:\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with started([sys.executable, "-c", script]) as supervisor:
        pid = int(next_line(supervisor.stdout))
        pidfd = os.pidfd_open(pid)
        try:
            supervisor.kill()
            assert ends(pidfd)
        finally:
            os.close(pidfd)


def test_somebody_else_has_waited_for_it() -> None:
    with pinfold.supervise(["true"], trap=()) as child:
        os.waitpid(child.pid, 0)
        with pytest.raises(ChildProcessError):
            child.wait(PATIENCE)
        with pytest.raises(ChildProcessError):
            child.poll()
    child.kill()


def test_others_children_are_left_alone() -> None:
    with started(["sh", "-c", "exit 5"]) as other:
        with pinfold.supervise(["true"], trap=()) as child:
            assert child.wait(PATIENCE) == 0
        assert other.wait(PATIENCE) == 5


# What cannot be


@pytest.mark.parametrize("argv", ["true", b"true", (), []])
def test_commands_that_are_none(argv: Any) -> None:
    with pytest.raises(pinfold.PolicyError, match="sequence"):
        pinfold.supervise(argv, trap=())


def test_text_that_exec_would_refuse() -> None:
    for argv, env in ((["a\0b"], {}), (["true", "a\0b"], {}), (["true"], {"A": "a\0b"})):
        with pytest.raises(ValueError, match="embedded null byte"):
            pinfold.supervise(argv, trap=(), env=env)
    for name in ("", "A=B"):
        with pytest.raises(ValueError, match="no name of an environment variable"):
            pinfold.supervise(["true"], trap=(), env={name: "x"})


def test_calls_that_are_none() -> None:
    with pytest.raises(pinfold.PolicyError, match="openat"):
        pinfold.supervise(["true"], trap=["opennat"])
    with pytest.raises(pinfold.PolicyError, match="sequence"):
        pinfold.supervise(["true"], trap="openat")


def test_inside_a_sandbox_that_has_a_listener() -> None:
    def work(channel: socket.socket) -> None:
        listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
        with pytest.raises(pinfold.UnsupportedError, match=r"EBUSY.*outside"):
            pinfold.supervise(["true"], trap=["openat"])
        assert libc.syscall("getpid", NR["getpid"]) == os.getpid()
        os.close(listener)
        channel.send(b"refused")

    with forked(work) as child:
        assert child.channel.recv(7) == b"refused"


def test_without_any_rights(unprivileged: User) -> None:
    script = (
        "import errno, pinfold\n"
        "with pinfold.supervise(['cat', '/no/such/file'], trap=['openat'], stderr=-3) as child:\n"
        "    for call in child.listener:\n"
        "        path = child.listener.read_string(call, call.data.args[1])\n"
        "        if path == b'/no/such/file': print(pinfold.from_loader(call.pid, "
        "call.data.instruction_pointer))\n"
        "        child.listener.resume(call.id)\n"
        "    print(child.wait(60))\n"
    )
    done = unprivileged.python("-c", script)
    assert (done.stdout, done.stderr) == ("False\n1\n", "")


# install_filter


def in_child(body: Callable[[], object]) -> None:
    """Does something that cannot be undone, in a child."""

    def work(channel: socket.socket) -> None:
        body()
        channel.send(b"done")

    with forked(work) as child:
        assert child.channel.recv(4) == b"done"


def no_new_privs() -> str:
    return (process.status_field(os.getpid(), b"NoNewPrivs") or b"?").decode()


def test_no_new_privileges_only_where_needed() -> None:
    def rich() -> None:
        os.close(pinfold.install_filter(pinfold.notify_filter(["rmdir"])))
        assert no_new_privs() == "0"

    def poor() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
        assert no_new_privs() == "0"
        os.close(pinfold.install_filter(pinfold.notify_filter(["rmdir"])))
        assert no_new_privs() == "1"

    if os.geteuid() == 0:
        in_child(rich)
    in_child(poor)


def test_the_filter_is_on_the_calling_thread() -> None:
    def seccomp_mode() -> str:
        tid = threading.get_native_id()
        return (process.status_field(tid, b"Seccomp") or b"?").decode()

    def body() -> None:
        modes: list[str] = []

        def work() -> None:
            os.close(pinfold.install_filter(pinfold.notify_filter(["rmdir"])))
            modes.append(seccomp_mode())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert modes == ["2"]
        assert seccomp_mode() == "0"

    in_child(body)


def test_a_listener_is_closed_by_exec() -> None:
    def body() -> None:
        listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
        assert not os.get_inheritable(listener)
        # An answer for its own calls would never come: the last one is closed first.
        os.close(listener)
        with pytest.raises(OSError, match="not implemented"):
            os.rmdir("/nonexistent")

    in_child(body)


def test_one_listener_in_a_chain() -> None:
    def body() -> None:
        code = pinfold.notify_filter(["rmdir"])
        first = pinfold.install_filter(code)
        with pytest.raises(OSError, match="one in a chain") as caught:
            pinfold.install_filter(code)
        assert caught.value.errno == errno.EBUSY
        os.close(first)

    in_child(body)


@pytest.mark.parametrize("code", [b"", b"\0" * 7, b"\0" * 9, b"\xff" * 8, b"\0" * 8 * 5000])
def test_filters_that_are_none(code: bytes) -> None:
    def body() -> None:
        with pytest.raises(OSError, match="seccomp") as caught:
            pinfold.install_filter(code)
        assert caught.value.errno == errno.EINVAL

    in_child(body)


def test_flags_that_are_none() -> None:
    def body() -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            pinfold.install_filter(pinfold.notify_filter([]), 1 << 30)
        flag = abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        os.close(pinfold.install_filter(pinfold.notify_filter([]), flag))

    in_child(body)


# send_listener and receive_listener

KINDS: Final = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]


class Pair:
    """Two connected sockets."""

    def __init__(self, kind: int = socket.SOCK_SEQPACKET) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.ours.settimeout(PATIENCE)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    def send(self, data: bytes, *fds: int) -> None:
        """Sends descriptors that need not be listeners."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
        self.theirs.sendmsg([data], [rights] if fds else [])


def refusal(pair: Pair) -> OSError:
    """Returns why what arrives is no listener; nothing of it is left open."""
    before = descriptors()
    with pytest.raises(OSError, match="listener") as caught:
        pinfold.receive_listener(pair.ours)
    assert descriptors() == before
    return caught.value


def answer(listener: int, value: int) -> None:
    """Answers one call."""
    assert select.select([listener], [], [], PATIENCE)[0]
    seccomp.send(listener, seccomp.receive(listener).id, value=value)


def under_filter(channel: socket.socket, hand_over: Callable[[int], None]) -> None:
    """Puts the calling process under a filter, makes a trapped call, and tells its result."""
    listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
    hand_over(listener)
    os.close(listener)
    channel.send(str(libc.syscall("rmdir", NR["rmdir"], 0)).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_sent_and_received(kind: socket.SocketKind) -> None:
    with Pair(kind) as pair:

        def work(channel: socket.socket) -> None:
            under_filter(channel, lambda fd: pinfold.send_listener(pair.theirs, fd))

        with forked(work) as child:
            listener = pinfold.receive_listener(pair.ours)
            try:
                assert not os.get_inheritable(listener)
                answer(listener, 77)
                assert child.channel.recv(8) == b"77"
            finally:
                os.close(listener)


def test_credentials_may_come_along() -> None:
    with Pair() as pair:
        pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

        def work(channel: socket.socket) -> None:
            under_filter(channel, lambda fd: pinfold.send_listener(pair.theirs, fd))

        with forked(work) as child:
            listener = pinfold.receive_listener(pair.ours)
            answer(listener, 78)
            assert child.channel.recv(8) == b"78"
            os.close(listener)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_peer_that_closes(kind: socket.SocketKind) -> None:
    with Pair(kind) as pair:
        pair.theirs.close()
        assert isinstance(refusal(pair), ConnectionResetError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_without_a_listener(kind: socket.SocketKind) -> None:
    with Pair(kind) as pair, open(os.devnull) as null:
        pair.send(b"L")
        assert refusal(pair).errno == errno.EBADMSG
        pair.send(b"L", null.fileno())
        assert refusal(pair).errno == errno.ENOTTY
        pair.send(b"L", null.fileno(), null.fileno())
        assert refusal(pair).errno == errno.EBADMSG
        for count in (3, 4, 5, 6, 7, 100, 253):
            pair.send(b"L", *[null.fileno()] * count)
            assert refusal(pair).errno in {errno.EBADMSG, errno.EMSGSIZE}
        # The socket still works.
        pair.send(b"L", pair.theirs.fileno())
        assert refusal(pair).errno == errno.ENOTTY


def test_two_listeners_are_not_one() -> None:
    with listener_holder() as holder, Pair() as pair:
        (number,) = numbers_of(holder)
        listener = pinfold.take_listener(holder.pid, number)
        try:
            pair.send(b"L", listener, listener)
            assert refusal(pair).errno == errno.EBADMSG
            pinfold.send_listener(pair.theirs, listener)
            os.close(pinfold.receive_listener(pair.ours))
        finally:
            os.close(listener)


def fill() -> None:
    """Leaves no room for another descriptor."""
    while True:
        try:
            os.dup(0)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return


def test_no_room_for_another_descriptor() -> None:
    def body() -> None:
        with Pair() as pair:
            pair.send(b"L", pair.theirs.fileno())
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            fill()
            with pytest.raises(OSError, match="RLIMIT_NOFILE") as caught:
                pinfold.receive_listener(pair.ours)
            assert caught.value.errno == errno.EMSGSIZE

    in_child(body)


def test_a_socket_that_times_out() -> None:
    with Pair() as pair:
        pair.ours.settimeout(0.01)
        with pytest.raises(TimeoutError):
            pinfold.receive_listener(pair.ours)


def test_only_listeners_are_sent() -> None:
    with Pair() as pair, open(os.devnull) as null:
        for wrong in (null.fileno(), pair.ours.fileno()):
            with pytest.raises(
                OSError, match=f"descriptor {wrong} is no seccomp listener"
            ) as caught:
                pinfold.send_listener(pair.theirs, wrong)
            assert caught.value.errno == errno.ENOTTY
        for closed in (-1, 1 << 20):
            with pytest.raises(OSError, match=f"descriptor {closed} is not open") as caught:
                pinfold.send_listener(pair.theirs, closed)
            assert caught.value.errno == errno.EBADF
        pair.ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            pair.ours.recv(1)


def test_a_name_makes_no_listener(tmp_path: Path) -> None:
    folder = tmp_path / "anon_inode:seccomp notify"
    folder.write_text("")
    with Pair() as pair, open(folder) as file:
        memfd = os.memfd_create("anon_inode:seccomp notify")
        for fd in (file.fileno(), memfd):
            pair.send(b"L", fd)
            assert refusal(pair).errno == errno.ENOTTY
        os.close(memfd)


# take_listener


def listener_holder(count: int = 1) -> Any:
    """Returns a child that has listeners open and makes no trapped call; it says their numbers."""

    def work(channel: socket.socket) -> None:
        numbers: list[int] = []

        def install() -> None:
            numbers.append(pinfold.install_filter(pinfold.notify_filter(["rmdir"])))

        for _ in range(count):
            # One in a chain, so each in a thread of its own.
            thread = threading.Thread(target=install)
            thread.start()
            thread.join()
        channel.send(" ".join(map(str, numbers)).encode())
        channel.recv(1)

    return forked(work)


def numbers_of(holder: Forked) -> list[int]:
    return [int(word) for word in holder.channel.recv(100).split()]


def test_taken_from_a_process_that_knows_nothing_of_it() -> None:
    def work(channel: socket.socket) -> None:
        listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
        channel.send(str(listener).encode())
        channel.recv(1)
        os.close(listener)
        channel.send(str(libc.syscall("rmdir", NR["rmdir"], 0)).encode())

    for by_number in (False, True):
        with forked(work) as child:
            number = int(child.channel.recv(8))
            listener = pinfold.take_listener(child.pid, number if by_number else None)
            try:
                assert not os.get_inheritable(listener)
                child.channel.send(b"g")
                answer(listener, 79)
                assert child.channel.recv(8) == b"79"
            finally:
                os.close(listener)


def test_taken_by_a_thread_id() -> None:
    def work(channel: socket.socket) -> None:
        def body() -> None:
            listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
            channel.send(f"{threading.get_native_id()} {listener}".encode())
            channel.recv(1)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    with forked(work) as child:
        tid, number = (int(word) for word in child.channel.recv(100).split())
        assert tid != child.pid
        os.close(pinfold.take_listener(tid))
        os.close(pinfold.take_listener(tid, number))
        child.channel.send(b"g")
        assert child.exit_code() == 0


def test_none_and_several() -> None:
    with listener_holder(0) as holder:
        assert not numbers_of(holder)
        with pytest.raises(
            FileNotFoundError, match=f"process {holder.pid} has no seccomp listener"
        ):
            pinfold.take_listener(holder.pid)
    with listener_holder(2) as holder:
        first, second = numbers_of(holder)
        with pytest.raises(
            OSError, match=f"several seccomp listeners .{first}, {second}"
        ) as caught:
            pinfold.take_listener(holder.pid)
        assert caught.value.errno == errno.EINVAL
        os.close(pinfold.take_listener(holder.pid, second))


def test_descriptors_that_are_no_listener() -> None:
    with listener_holder() as holder:
        (number,) = numbers_of(holder)
        before = descriptors()
        with pytest.raises(OSError, match=f"has no descriptor {number + 1000}") as caught:
            pinfold.take_listener(holder.pid, number + 1000)
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match=f"descriptor 1 of process {holder.pid} is no") as caught:
            pinfold.take_listener(holder.pid, 1)
        assert caught.value.errno == errno.ENOTTY
        assert descriptors() == before


def test_a_process_that_is_gone() -> None:
    with forked(lambda _: None) as child:
        assert child.exit_code() == 0
        # Still there to be reaped, with nothing open.
        with pytest.raises(OSError, match=str(child.pid)):
            pinfold.take_listener(child.pid)
        with pytest.raises(OSError, match=str(child.pid)):
            pinfold.take_listener(child.pid, 3)
    for fd in (None, 3):
        with pytest.raises(ProcessLookupError, match=f"no process {child.pid}"):
            pinfold.take_listener(child.pid, fd)


def test_a_process_that_we_may_not_trace() -> None:
    def hide(channel: socket.socket) -> None:
        listener = pinfold.install_filter(pinfold.notify_filter(["rmdir"]))
        process.set_dumpable(False)
        channel.send(str(listener).encode())
        channel.recv(1)

    with forked(hide) as hidden:
        number = int(hidden.channel.recv(8))

        def take() -> None:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            for fd in (None, number):
                with pytest.raises(
                    PermissionError, match=r"CAP_SYS_PTRACE.*send_listener"
                ) as caught:
                    pinfold.take_listener(hidden.pid, fd)
                assert caught.value.errno == errno.EPERM

        in_child(take)
