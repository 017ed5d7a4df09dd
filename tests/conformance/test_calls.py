"""What a redirect can do to which call, and what the call then does."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.fs import AT_FDCWD
from tests.conformance import support
from tests.conformance.support import (
    BASE,
    DEVICES,
    NULL,
    PAGE,
    SIZE,
    ZERO,
    Memory,
    Target,
    refused,
)
from tests.programs import values

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.listener import Backend

SCRIPT: Final = os.fsencode(support.script()[0])


def test_two_redirects_through_one_pin(backend: Backend, pin: Memory) -> None:
    """The second one sees the second bytes, at the same place."""
    with support.target(backend, support.script("open:one", "open:two", "open:three")) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        target.redirect(target.receive(), pin, b"/dev/zero")
        target.redirect(target.receive(), pin, b"/dev/full", SIZE - 10)
        seen = target.finish()
    assert [seen[f"{name}.rdev"] for name in ("one", "two", "three")] == [
        NULL,
        ZERO,
        DEVICES["full"],
    ]


def test_two_pins_in_one_call(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """The old name of a link from one memfd, the new one from another.

    A redirect of the later native revision names one memfd, and has to be refused.
    """
    (tmp_path / "old").write_text("x")
    here = f"{AT_FDCWD & 0xFFFFFFFF:#x}"
    words = support.script(f"call:link:{NR['linkat']}:{here}:0:{here}:0:0")
    with Memory() as second, support.target(backend, words, trap=["linkat"]) as target:
        call = target.receive()
        target.install(call, pin)
        target.install(call, second, BASE + 16 * SIZE)
        old = pin.put(os.fsencode(tmp_path / "old"))
        new = second.put(os.fsencode(tmp_path / "new"), PAGE)
        aims = {1: BASE, 3: BASE + 16 * SIZE + PAGE}
        one_memfd = support.names_memfd(backend, target.listener)
        if one_memfd:
            with refused(errno.EFAULT):
                target.listener.send_redirect(call.id, aims, {1: old, 3: new})
            target.listener.send(call.id, error=errno.EXDEV)
        else:
            target.listener.send_redirect(call.id, aims, {1: old, 3: new})
        seen = target.finish()
    assert seen["link.registers"] == "ok"
    if one_memfd:
        assert seen["link.result"] == str(-errno.EXDEV)
        assert not (tmp_path / "new").exists()
        return
    assert seen["link.result"] == "0"
    assert (tmp_path / "new").samefile(tmp_path / "old")


def test_a_pointer_and_scalars(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """An open for reading becomes one that makes a file, relative to another directory."""
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        target.install(call, pin)
        directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            number = target.listener.add_fd(call.id, directory)
        finally:
            os.close(directory)
        length = pin.put(b"made")
        wanted = {0: number, 1: BASE, 2: os.O_WRONLY | os.O_CREAT | os.O_EXCL, 3: 0o640}
        target.listener.send_redirect(call.id, wanted, {1: length})
        seen = target.finish()
    assert int(seen["call.flags"], 16) & os.O_ACCMODE == os.O_WRONLY
    assert seen["call.registers"] == "ok"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640 & ~umask()


def test_scalars_alone(backend: Backend) -> None:
    """No pin is needed; the task's own path is used, unchanged and unpinned."""
    with support.target(backend, support.script("open:call:/dev/null")) as target:
        call = target.receive()
        target.listener.send_redirect(call.id, {2: os.O_RDWR})
        seen = target.finish()
    assert int(seen["call.flags"], 16) & os.O_ACCMODE == os.O_RDWR
    assert seen["call.rdev"] == NULL
    assert seen["call.registers"] == "ok"


@pytest.mark.parametrize("directory", [AT_FDCWD, AT_FDCWD & (2**64 - 1)])
def test_a_negative_scalar(backend: Backend, pin: Memory, directory: int) -> None:
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        target.install(call, pin)
        length = pin.put(b"/dev/null")
        target.listener.send_redirect(call.id, {0: directory, 1: BASE}, {1: length})
        seen = target.finish()
    assert seen["call.rdev"] == NULL
    assert seen["call.registers"] == "ok"


def test_six_scalars(backend: Backend, pin: Memory) -> None:
    """Each of mmap's arguments shows in the resulting mapping."""
    marker = 0x1234_5000
    words = support.script(f"call:map:{NR['mmap']}:{marker:#x}:1:2:3:4:5", "go")
    where = 0x6000_0000
    with support.target(backend, words, trap=["mmap"]) as target:
        call = target.receive()
        while call.data.args[0] != marker:
            target.listener.resume(call.id)
            call = target.receive()
        number = target.listener.add_fd(call.id, pin.fd)
        how = 0x01 | 0x100000  # MAP_SHARED | MAP_FIXED_NOREPLACE
        wanted = dict(enumerate((where, 2 * PAGE, 1, how, number, PAGE)))
        target.listener.send_redirect(call.id, wanted)
        assert f"map result={where} registers=ok" in target.line()
        assert f"{where:08x}-{where + 2 * PAGE:08x} r--s {PAGE:08x}" in support.maps(target.pid)
        target.go()
        target.finish()


def test_six_arguments_two_of_them_pointers(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """A datagram: the descriptor, the bytes, their length, the flags, the address, its length."""
    path = os.fsencode(tmp_path / "socket")
    address = struct.pack("=H", socket.AF_UNIX) + path + b"\0"
    words = support.script(f"call:sent:{NR['sendto']}:1:2:3:4:5:6")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        support.target(backend, words, trap=["sendto"]) as target,
    ):
        receiver.bind(path)
        receiver.settimeout(support.PATIENCE)
        call = target.receive()
        assert call.data.args == (1, 2, 3, 4, 5, 6)
        number = target.listener.add_fd(call.id, sender.fileno())
        target.install(call, pin)
        pin.view[100:105] = b"hello"
        pin.view[PAGE : PAGE + len(address)] = address
        values = (number, BASE + 100, 5, socket.MSG_NOSIGNAL, BASE + PAGE, len(address))
        target.listener.send_redirect(call.id, dict(enumerate(values)), {1: 5, 4: len(address)})
        assert receiver.recv(100) == b"hello"
        seen = target.finish()
    assert seen["sent.result"] == "5"
    assert seen["sent.registers"] == "ok"


@pytest.mark.parametrize("name", ["openat", "newfstatat", "mkdirat", "getpgid", 1000])
def test_calls_of_all_sorts(backend: Backend, name: str | int) -> None:
    """With another first argument; the result is that of a call which was made with it."""
    number = NR[name] if isinstance(name, str) else name
    bare = subprocess.run(
        support.script(f"call:it:{number}:{2**64 - 1:#x}:1:2:3:4:5"),
        check=True,
        capture_output=True,
        text=True,
    )
    words = support.script(f"call:it:{number}:0:1:2:3:4:5")
    with support.target(backend, words, trap=[name]) as target:
        call = target.receive()
        assert call.data.nr == number
        target.listener.send_redirect(call.id, {0: 2**64 - 1})
        seen = target.finish()
    assert seen == values(bare.stdout)
    assert int(seen["it.result"]) < 0


# Programs and processes


def after_exec(*words: str) -> str:
    """Returns a word by which the script executes a program that is not there.

    Redirected to ``conf_script`` it becomes one that does these words.
    """
    return ":".join(("run", "/no/such/program", *words))


def start(target: Target) -> None:
    """Lets the program itself be executed."""
    call = target.receive()
    assert call.data.nr == NR["execve"]
    target.listener.resume(call.id)


@pytest.mark.parametrize("how", ["leader", "fork", "vfork", "thread"])
def test_execve(backend: Backend, pin: Memory, how: str) -> None:
    """The new program is nobody's tracee, has its own registers, and no pin."""
    block = [] if how == "leader" else [how]
    after = ["end", "join"] if block else []
    words = support.script(*block, after_exec("go", "call@it@39"), *after)
    with support.target(backend, words, trap=["openat", "execve"]) as target:
        start(target)
        call = target.receive()
        assert target.path(call, 0) == b"/no/such/program"
        target.install(call, pin)
        target.redirect(call, pin, SCRIPT, argument=0)
        pid = call.pid if how in ("fork", "vfork") else target.pid
        support.until(lambda: support.waits_in(pid, "read"))
        status = support.status(pid)
        assert status["TracerPid"] == "0"
        assert status["Name"] == os.fsdecode(os.path.basename(SCRIPT))[:15]
        assert f"{BASE:08x}-" not in support.maps(pid)
        target.go()
        seen = target.finish()
    assert seen["it.result"] == str(pid)
    assert seen["it.registers"] == "ok"


def test_execve_of_a_script(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """What stands after #! is read by the kernel from the file, and is no call."""
    path = tmp_path / "script"
    path.write_text(f"#!{os.fsdecode(SCRIPT)} say:it\n")
    path.chmod(0o755)
    with support.target(
        backend, support.script("run:/no/such/program:say@more"), trap=["execve"]
    ) as target:
        start(target)
        call = target.receive()
        target.install(call, pin)
        # Executed with its own path, and so with a word that conf_script does not know.
        target.redirect(call, pin, os.fsencode(path), argument=0)
        seen = target.finish(2)
    assert seen["it.pid"] == str(target.pid)


def test_execve_that_fails(backend: Backend, pin: Memory) -> None:
    """The old program goes on, with its own registers and its pin."""
    words = support.script(f"call:exec:{NR['execve']}:0:0:0", "open:after")
    with support.target(backend, words, trap=["openat", "execve"]) as target:
        start(target)
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null/none", argument=0)
        target.redirect(target.receive(), pin, b"/dev/null")
        seen = target.finish()
    assert seen["exec.result"] == str(-errno.ENOTDIR)
    assert seen["exec.registers"] == "ok"
    assert seen["after.rdev"] == NULL


def test_execve_with_argv_in_the_pin(backend: Backend, pin: Memory) -> None:
    """The pointers in the array point into the pin, too."""
    words = support.script(f"call:exec:{NR['execve']}:0:0:0")
    with support.target(backend, words, trap=["execve"]) as target:
        start(target)
        call = target.receive()
        target.install(call, pin)
        length = pin.put(SCRIPT)
        pin.put(b"say:it", 1000)
        pin.view[2048:2072] = struct.pack("=3Q", BASE, BASE + 1000, 0)
        target.listener.send_redirect(call.id, {0: BASE, 1: BASE + 2048}, {0: length, 1: 24})
        seen = target.finish()
    assert seen["it.pid"] == str(target.pid)


@pytest.mark.parametrize("name", ["exit_group", "exit"])
def test_a_call_that_ends_the_caller(backend: Backend, name: str) -> None:
    with support.target(backend, support.script(f"call:end:{NR[name]}:1"), trap=[name]) as target:
        target.listener.send_redirect(target.receive().id, {0: 42})
        assert target.finish(42) == {}


def test_a_call_that_ends_the_calling_thread(backend: Backend) -> None:
    words = support.script("thread", f"call:end:{NR['exit']}:1", "end", "join", "say:after")
    with support.target(backend, words, trap=["exit"]) as target:
        target.listener.send_redirect(target.receive().id, {0: 0})
        seen = target.finish()
    assert seen["after.pid"] == str(target.pid)


def test_a_call_that_kills_the_caller(backend: Backend) -> None:
    words = support.script(f"call:kill:{NR['kill']}:0:0")
    with support.target(backend, words, trap=["kill"]) as target:
        target.listener.send_redirect(target.receive().id, {0: target.pid, 1: signal.SIGKILL})
        assert target.finish(-signal.SIGKILL) == {}


@pytest.mark.parametrize("state", ["received", "parked", "refused", "blocked"])
def test_the_program_ends_while_a_thread_waits(
    backend: Backend, pin: Memory, state: str, tmp_path: Path
) -> None:
    """Nothing keeps it from ending, and its parent from hearing of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with support.target(backend, support.script("thread", "open:call", "end", "go")) as target:
        call = target.receive()
        if state != "received":
            with refused(errno.EFAULT):
                target.redirect(call, pin, b"/dev/null")
        if state != "refused":
            target.install(call, pin)
        if state == "blocked":
            target.redirect(call, pin, os.fsencode(fifo))
            support.until(lambda: support.waits_in(call.pid, "openat"))
        target.go()
        assert target.finish() == {}
        with refused(errno.ENOENT):
            target.listener.send(call.id, value=1)


# Corners


def test_a_pin_as_room_for_a_result(backend: Backend, pin: Memory) -> None:
    """The redirect is one; the kernel's own write into the pin fails."""
    pin.view[:] = b"P" * pin.size
    words = support.script(f"call:cwd:{NR['getcwd']}:0:0")
    with support.target(backend, words, trap=["getcwd"]) as target:
        call = target.receive()
        target.install(call, pin)
        target.listener.send_redirect(call.id, {0: BASE, 1: SIZE}, {0: SIZE})
        seen = target.finish()
    assert seen["cwd.result"] == str(-errno.EFAULT)
    assert seen["cwd.registers"] == "ok"
    assert pin.view[:] == b"P" * pin.size


@pytest.mark.parametrize("after", ["", "install", "refusal"])
def test_arguments_that_the_filter_would_have_let_through(
    backend: Backend, pin: Memory, after: str, tmp_path: Path
) -> None:
    """The filter traps openat for reading only. The redirected one is blocked in its call."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = ("openat", 2, os.O_ACCMODE, os.O_RDONLY)
    words = support.script(f"open:call:{fifo}", "open:next")
    with support.target(backend, words, trap=[reading], watch=20) as target:
        call = target.receive()
        if after == "install":
            target.install(call, pin)
        elif after == "refusal":
            with refused(errno.EFAULT):
                target.redirect(call, pin, b"/dev/null")
        target.listener.send_redirect(call.id, {2: os.O_WRONLY})
        support.until(lambda: support.waits_in(target.pid, "openat"))
        with refused(errno.ENOENT, errno.EINPROGRESS):
            target.listener.send(call.id, value=1)
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        target.listener.resume(target.receive().id)
        seen = target.finish()
    assert int(seen["call.flags"], 16) & os.O_ACCMODE == os.O_WRONLY
    assert seen["call.registers"] == "ok"


def test_arguments_of_a_personality(backend: Backend, pin: Memory) -> None:
    """READ_IMPLIES_EXEC: what the task maps is executable; the pin may be, or is refused."""
    words = support.script(f"call:it:{NR['personality']}:0x400000", "open:call", "open:next")
    with support.target(backend, words) as target:
        call = target.receive()
        try:
            target.install(call, pin)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            target.listener.send(call.id, error=errno.EXDEV)
        else:
            assert f"{BASE:08x}-{BASE + SIZE:08x} r-" in support.maps(target.pid)
            target.redirect(call, pin, b"/dev/null")
        target.listener.resume(target.receive().id)
        seen = target.finish()
    assert seen["call.rdev"] == NULL or seen["call.result"] == str(-errno.EXDEV)


def umask() -> int:
    """Returns the file mode creation mask of this process, which the targets have inherited."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
