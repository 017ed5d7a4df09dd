"""Which calls can be redirected, and what becomes of registers where one makes a task or a program.

These tests are about the kernel, so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import blocking, raw, support
from tests.conformance.support import BASE, NULL, PAGE, SIZE, ZERO, Memory
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pinfold import Notification
    from tests.conformance.support import Target

ALL_SIX: Final = {index: index + 1 for index in range(6)}
FUTEX_WAIT: Final = 0
I386_GETPGID: Final = 132


# Calls whose registers could not be given back


@pytest.mark.parametrize(
    ("kind", "number", "possible"),
    [
        ("int80", I386_GETPGID, False),
        ("x32", NR["getpgid"], False),
        ("vsyscall", NR["time"], False),
        ("sigreturn", NR["rt_sigreturn"], False),
        ("plain", NR["getpgid"], True),
    ],
)
def test_calls_of_another_kind(revision: int, kind: str, number: int, possible: bool) -> None:
    """Refused with EOPNOTSUPP, and can still be answered in every other way."""
    assert revision in (raw.FIRST, raw.LATER)
    if kind == "vsyscall" and "[vsyscall]" not in support.maps(os.getpid()):
        pytest.skip("this kernel has no vsyscall page")
    with raw.started("kern_odd", kind, str(number)) as (target, _):
        call = target.receive()
        refusal = 0 if possible else errno.EOPNOTSUPP
        if possible:
            assert raw.send(target.listener, call.id, {0: os.getpid()}) == refusal
        else:
            for args in ({0: 0}, ALL_SIX, {5: 1}):
                assert raw.send(target.listener, call.id, args) == refusal
            target.listener.resume(call.id)
        seen = target.finish()
    if kind == "plain":
        assert seen["result"] == str(os.getpgid(0))
    elif kind == "x32":
        # The head of a process group; or a kernel that has no such calls.
        assert seen["result"] in (str(target.pid), str(-errno.ENOSYS))
    else:
        assert int(seen["result"]) >= 0


def test_a_call_that_there_is_not(revision: int) -> None:
    """ENOSYS with other arguments is still ENOSYS, and the registers come back."""
    assert revision in (raw.FIRST, raw.LATER)
    number = 9999
    words = support.script(f"call:none:{number}:1:2:3:4:5:6")
    with support.target("native", words, trap=[number]) as target:
        assert raw.send(target.listener, target.receive().id, ALL_SIX) == 0
        seen = target.finish()
    assert seen["none.result"] == str(-errno.ENOSYS)
    assert seen["none.registers"] == "ok"


# Calls that make a process


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("fork", ALL_SIX),
        ("vfork", ALL_SIX),
        ("clone", {0: int(signal.SIGCHLD), 1: 0, 2: 0, 3: 0, 4: 0, 5: 0}),
    ],
)
def test_a_process_that_a_redirected_call_makes(
    revision: int, name: str, replaced: dict[int, int]
) -> None:
    """It comes out with its own registers, as its parent does, whichever of them were replaced."""
    assert revision in (raw.FIRST, raw.LATER)
    command = (str(build("kern_forks", "-static")), str(NR[name]))
    with support.target("native", command, trap=[name]) as target:
        assert raw.send(target.listener, target.receive().id, replaced) == 0
        seen = target.finish()
    assert seen == {"result": "0", "parent": "ok", "child": "ok", "made": "1", "status": "0"}


def test_a_process_that_a_pinned_clone3_makes(revision: int, pin: Memory) -> None:
    """Its whole structure lies in the pin."""
    command = (str(build("kern_forks", "-static")), str(NR["clone3"]), "0x1000", "88")
    arguments = struct.pack("<11Q", 0, 0, 0, 0, signal.SIGCHLD, *(0,) * 6)
    with support.target("native", command, trap=["clone3"]) as target:
        call = target.receive()
        target.install(call, pin)
        pin.write(0, arguments)
        named = raw.named(revision, pin.fd)
        assert raw.send(target.listener, call.id, {0: BASE, 1: 88}, {0: 88}, named) == 0
        seen = target.finish()
    assert seen == {"result": "0", "parent": "ok", "child": "ok", "made": "1", "status": "0"}


@pytest.mark.parametrize("name", ["fork", "clone"])
def test_a_redirected_call_that_makes_no_process(revision: int, name: str) -> None:
    assert revision in (raw.FIRST, raw.LATER)
    command = (str(build("kern_forks", "-static")), str(NR[name]))
    with support.target("native", command, trap=[name]) as target:
        call = target.receive()
        if name == "clone":
            # CLONE_THREAD alone is refused.
            assert raw.send(target.listener, call.id, {0: 0x10000, 2: 7}) == 0
            wanted = errno.EINVAL
        else:
            target.listener.send(call.id, error=errno.EAGAIN)
            wanted = errno.EAGAIN
        seen = target.finish()
    assert seen == {"result": str(-wanted), "parent": "ok"}


def test_children_of_a_thread_that_was_redirected_before(revision: int, pin: Memory) -> None:
    """Nothing of an earlier redirect is left for a fork to copy."""
    words = support.script("open:one", "fork", "open:two", "end", "open:three")
    paths = (b"/dev/null", b"/dev/zero", b"/dev/null")
    with support.target("native", words) as target:
        for index, path in enumerate(paths):
            call = target.receive()
            if index == 0:
                target.install(call, pin)
            length = pin.put(path)
            args = {1: BASE, 2: os.O_RDONLY | os.O_CLOEXEC, 3: 3, 4: 4, 5: 5}
            named = raw.named(revision, pin.fd)
            assert raw.send(target.listener, call.id, args, {1: length}, named) == 0
        seen = target.finish()
    assert seen["one.registers"] == seen["two.registers"] == seen["three.registers"] == "ok"
    assert (seen["one.rdev"], seen["two.rdev"], seen["three.rdev"]) == (NULL, ZERO, NULL)


# Calls that replace the program


def vector(at: int, words: Sequence[bytes]) -> bytes:
    """Returns strings and the table of pointers to them, as they lie from an address on."""
    table = len(words) * 8 + 8
    pointers, strings = [], b""
    for word in words:
        pointers.append(at + table + len(strings))
        strings += word + b"\0"
    return struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0) + strings


class Exec:
    """An execve whose path, arguments and environment are all in a pin."""

    def __init__(self, pin: Memory, path: bytes, arguments: Sequence[bytes]) -> None:
        pin.write(0, path + b"\0")
        table = vector(BASE + PAGE, arguments)
        pin.write(PAGE, table)
        nothing = vector(BASE + 2 * PAGE, [b"HERE=1"])
        pin.write(2 * PAGE, nothing)
        self.lengths = (len(path) + 1, len(table), len(nothing))

    def send(self, target: Target, call: Notification, named: int, first: int = 0) -> int:
        """Redirects a call whose path is argument ``first``; returns the errno."""
        args = {first + index: BASE + index * PAGE for index in range(3)}
        lengths = {first + index: length for index, length in enumerate(self.lengths)}
        return raw.send(target.listener, call.id, args, lengths, named)


def executing(how: str, *words: str) -> tuple[str, ...]:
    """Returns the command whose call of this kind is not its first one."""
    arguments = "0:0:0" if how == "execve" else f"{-100 & (1 << 64) - 1:#x}:0:0:0:0"
    return support.script(*words, f"call:exec:{NR[how]}:{arguments}", "open:after")


@pytest.mark.parametrize("how", ["execve", "execveat"])
@pytest.mark.parametrize("kind", ["program", "script"])
def test_an_exec_wholly_in_the_pin(
    revision: int, pin: Memory, tmp_path: Path, how: str, kind: str
) -> None:
    """Its path, arguments and environment; the new program has its own registers and memory."""
    program = os.fsencode(build("conf_script", "-static"))
    arguments = [b"named", b"open:new", b"say:here"]
    if kind == "script":
        script = tmp_path / "script"
        script.write_bytes(b"#!" + program + b" open:new\n")
        script.chmod(0o755)
        program = os.fsencode(script)
        arguments = [b"named"]
    first = 0 if how == "execve" else 1
    with support.target("native", executing(how), trap=["execve", "execveat", "openat"]) as target:
        # The start of the program itself.
        target.listener.resume(target.receive().id)
        call = target.receive()
        assert call.data.nr == NR[how]
        target.install(call, pin)
        image = Exec(pin, program, arguments)
        assert image.send(target, call, raw.named(revision, pin.fd), first) == 0
        call = target.receive()
        assert target.path(call) == b"/no/such/new"
        assert f"{BASE:08x}-" not in support.maps(target.pid)
        with open(f"/proc/{target.pid}/environ", "rb") as environment:
            assert environment.read() == b"HERE=1\0"
        named = raw.named(revision, pin.fd)
        assert raw.send(target.listener, call.id, {1: BASE}, {1: 10}, named) == errno.EFAULT
        target.install(call, pin)
        length = pin.put(b"/dev/null")
        assert raw.send(target.listener, call.id, {1: BASE}, {1: length}, named) == 0
        if kind == "script":
            # The interpreter takes the script's name for a word that it does not know.
            seen = target.finish(2)
        else:
            seen = target.finish()
            assert seen["here.pid"] == str(target.pid)
    assert seen["new.rdev"] == NULL
    assert seen["new.registers"] == "ok"


@pytest.mark.parametrize("how", ["execve", "execveat"])
@pytest.mark.parametrize("kind", ["missing", "no_program", "directory", "long"])
def test_an_exec_that_fails(
    revision: int, pin: Memory, tmp_path: Path, how: str, kind: str
) -> None:
    """The program goes on, with its own registers, in the memory that it had."""
    (tmp_path / "no_program").write_bytes(b"\x01no program")
    (tmp_path / "no_program").chmod(0o755)
    (tmp_path / "directory").mkdir()
    path, wanted = {
        "missing": (os.fsencode(tmp_path / "missing"), errno.ENOENT),
        "no_program": (os.fsencode(tmp_path / "no_program"), errno.ENOEXEC),
        "directory": (os.fsencode(tmp_path / "directory"), errno.EACCES),
        "long": (b"/" + b"x" * 300, errno.ENAMETOOLONG),
    }[kind]
    first = 0 if how == "execve" else 1
    with support.target("native", executing(how), trap=["execve", "execveat", "openat"]) as target:
        target.listener.resume(target.receive().id)
        call = target.receive()
        target.install(call, pin)
        named = raw.named(revision, pin.fd)
        assert Exec(pin, path, [b"x"]).send(target, call, named, first) == 0
        call = target.receive()
        length = pin.put(b"/dev/null")
        assert raw.send(target.listener, call.id, {1: BASE}, {1: length}, named) == 0
        seen = target.finish()
    assert seen["exec.result"] == str(-wanted)
    assert seen["exec.registers"] == seen["after.registers"] == "ok"
    assert seen["after.rdev"] == NULL


def test_an_exec_of_a_thread_that_is_not_the_first(revision: int, pin: Memory) -> None:
    words = support.script("thread", f"call:exec:{NR['execve']}:0:0:0", "end", "join")
    program = os.fsencode(build("conf_script", "-static"))
    with support.target("native", words, trap=["execve", "openat"]) as target:
        target.listener.resume(target.receive().id)
        call = target.receive()
        assert call.pid != target.pid
        target.install(call, pin)
        image = Exec(pin, program, [b"named", b"say:here", b"open:new"])
        assert image.send(target, call, raw.named(revision, pin.fd)) == 0
        call = target.receive()
        assert call.pid == target.pid
        target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["here.tid"] == str(target.pid)
    assert seen["new.result"] == str(-errno.EXDEV)
    assert seen["new.registers"] == "ok"


# Calls that go on by restart_syscall


def test_an_interrupted_futex_begins_anew(revision: int, pin: Memory) -> None:
    """It remembers its pointer, which was for one call: so it comes to the listener once more.

    And nothing is left that a restart_syscall of the program's own could go on with.
    """
    words = support.script(
        f"call:wait:{NR['futex']}:0:{FUTEX_WAIT}:0:0:0:0", f"call:again:{NR['restart_syscall']}"
    )
    with support.target("native", words, trap=["futex"]) as target:
        call = target.receive()
        target.install(call, pin)
        pin.write(0, struct.pack("<I", 5))
        pin.write(PAGE, struct.pack("<qq", 3600, 0))
        named = raw.named(revision, pin.fd)
        args = {0: BASE, 2: 5, 3: BASE + PAGE}
        for _ in range(3):
            assert raw.send(target.listener, call.id, args, {0: 4, 3: 16}, named) == 0
            blocking.await_sleep(call.pid, NR["futex"], BASE)
            blocking.stop(target.pid)
            # What it would go on with by itself is another word by now.
            pin.write(0, struct.pack("<I", 6))
            blocking.go_on(target.pid)
            again = target.receive()
            assert again.id != call.id
            assert again.data.args == (0, FUTEX_WAIT, 0, 0, 0, 0)
            pin.write(0, struct.pack("<I", 5))
            call = again
        target.listener.send(call.id, value=77)
        seen = target.finish()
    assert seen["wait.result"] == "77"
    assert seen["again.result"] == str(-errno.EINTR)
    assert seen["wait.registers"] == seen["again.registers"] == "ok"


def test_an_interrupted_futex_that_nobody_redirected_goes_on(revision: int) -> None:
    """The control: what has no pointer into a pin is restarted as ever, and asks nobody."""
    assert revision in (raw.FIRST, raw.LATER)
    where = f"{BASE:#x}"
    words = support.script(
        f"share:word:{where}:{PAGE:#x}:0:{60}", f"call:wait:{NR['futex']}:{where}:0:0:0:0:0"
    )
    with Memory() as pin, support.target("native", words, trap=["mmap", "futex"]) as target:
        while True:
            call = target.receive()
            if call.data.nr == NR["futex"]:
                break
            if call.data.args[4] == 60:
                target.listener.add_fd(call.id, pin.fd, newfd=60)
            target.listener.resume(call.id)
        # A scalar is replaced: the bits of the operation, by the same ones.
        assert raw.send(target.listener, call.id, {1: FUTEX_WAIT}) == 0
        blocking.await_sleep(call.pid, NR["futex"], BASE)
        blocking.stop(target.pid)
        pin.write(0, struct.pack("<I", 1))
        blocking.go_on(target.pid)
        # Without a timeout it is an ordinary restart, of the program's own call.
        call = target.receive()
        assert call.data.args[:2] == (BASE, FUTEX_WAIT)
        target.listener.resume(call.id)
        seen = target.finish()
    assert seen["wait.result"] == str(-errno.EAGAIN)
    assert seen["wait.registers"] == "ok"


@pytest.mark.parametrize("name", ["nanosleep", "clock_nanosleep"])
def test_an_interrupted_sleep_goes_on(revision: int, pin: Memory, name: str) -> None:
    """It remembers a time, and no pointer to read: so it goes on, and is not judged again."""
    first = 0 if name == "nanosleep" else 2
    arguments = "0:0" if name == "nanosleep" else "1:0:0:0"
    words = support.script(f"call:sleep:{NR[name]}:{arguments}")
    with support.target("native", words, trap=[name]) as target:
        call = target.receive()
        target.install(call, pin)
        pin.write(0, struct.pack("<qq", 6, 0))
        named = raw.named(revision, pin.fd)
        assert raw.send(target.listener, call.id, {first: BASE}, {first: 16}, named) == 0
        blocking.until("it sleeps", lambda: support.waits_in(target.pid, name))
        blocking.stop(target.pid)
        pin.write(0, bytes(SIZE))
        blocking.go_on(target.pid)
        # Nothing more is trapped: ``finish`` would fail.
        seen = target.finish()
    assert seen["sleep.result"] == "0"
    assert seen["sleep.registers"] == "ok"
