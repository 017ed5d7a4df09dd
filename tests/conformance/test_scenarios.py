"""The four scenarios that must pass on every back end, as the specification tells them."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from tests.conformance import support
from tests.conformance.support import BASE, NULL, PAGE, SIZE, Memory, refused
from tests.programs import build

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.listener import Backend, Notification

UNTOUCHED: Final = b"/this/should/never/be/touched"

REGISTERS: Final = (
    *("rdi", "rsi", "rdx", "r10", "r8", "r9"),
    *("rbx", "rbp", "r12", "r13", "r14", "r15"),
    *("rcx", "r11", "flags", "rsp"),
)


def test_remote(backend: Backend, pin: Memory) -> None:
    """A child that prepares nothing is sent to /dev/null, after two redirects that are refused."""
    words = support.script(f"open:call:{os.fsdecode(UNTOUCHED)}")
    with support.target(backend, words) as target:
        call = target.receive()
        assert target.path(call) == UNTOUCHED
        assert target.listener.pin_install(call.id, pin.fd, BASE, SIZE) == BASE
        length = pin.put(b"/dev/null")
        with refused(errno.EFAULT):
            target.listener.send_redirect(call.id, {1: BASE + SIZE}, {1: 1})
        with refused(errno.EFAULT):
            target.listener.send_redirect(call.id, {1: BASE}, {1: SIZE + 1})
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        seen = target.finish()
    assert seen["call.rdev"] == NULL
    assert seen["call.registers"] == "ok"
    assert seen["call.string"] == "kept"


class Executes:
    """The supervisor of the two scenarios with an execve: redirects the bait, continues the rest.

    Args:
        target: What it watches.
        pin: What it redirects to.
        bait: A file that must never be opened.
    """

    def __init__(self, target: support.Target, pin: Memory, bait: Path) -> None:
        self._listener = target.listener
        self._target = target
        self._pin = pin
        self._bait = os.fsencode(bait)
        self.redirected = 0
        self.continued = 0

    def redirect(self, call: Notification) -> None:
        """Pins afresh and sends the call to /dev/null."""
        assert self._listener.pin_install(call.id, self._pin.fd, BASE, SIZE) == BASE
        length = self._pin.put(b"/dev/null")
        self._listener.send_redirect(call.id, {1: BASE}, {1: length})
        self.redirected += 1

    def by_path(self, call: Notification) -> None:
        """Tells the bait by its name."""
        if self._target.path(call) == self._bait:
            self.redirect(call)
        else:
            self.resume(call)

    def by_caller(self, call: Notification) -> None:
        """Tells the loader's calls from the program's by where they were made."""
        if pinfold.from_loader(call.pid, call.data.instruction_pointer):
            assert self._target.path(call) != self._bait
            self.resume(call)
        else:
            assert self._target.path(call) == self._bait
            self.redirect(call)

    def resume(self, call: Notification) -> None:
        self._listener.resume(call.id)
        self.continued += 1


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """Returns a file whose content must not be seen."""
    path = tmp_path / "bait"
    path.write_text("bait=taken\n")
    return path


def test_execve(backend: Backend, pin: Memory, bait: Path) -> None:
    """After an execve the old pin is gone; a fresh one at the same address works."""
    words = support.script("open:first", f"run:/bin/cat:{bait}")
    with support.target(backend, words) as target:
        supervisor = Executes(target, pin, bait)
        supervisor.redirect(target.receive())
        assert f"first result=3 rdev={NULL}" in target.line()
        seen = target.finish(0, supervisor.by_path)
    assert supervisor.redirected == 2
    assert supervisor.continued >= 1, "cat has a loader, which opens libraries"
    assert "bait" not in seen


def test_execve_over_a_socket(backend: Backend, pin: Memory, bait: Path) -> None:
    """The child's own listener, sent over a Unix socket; loader opens are known by the caller."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            words = support.script("open:first", f"run:/bin/cat:{bait}")
            process = support.launch(theirs, words, ["openat"])
        try:
            listener = support.received(ours, backend)
        except BaseException:
            process.kill()
            with process:
                pass
            raise
    with support.watching(process, listener) as target:
        supervisor = Executes(target, pin, bait)
        supervisor.redirect(target.receive())
        seen = target.finish(0, supervisor.by_caller)
    assert supervisor.redirected == 2
    assert supervisor.continued >= 1, "cat has a loader, which opens libraries"
    assert seen["first.rdev"] == NULL
    assert "bait" not in seen


def check_registers(seen: dict[str, str], name: str) -> None:
    wrong = {register: seen[f"{name}.{register}"] for register in REGISTERS}
    wrong = {register: value for register, value in wrong.items() if value != "ok"}
    assert not wrong, f"{name} left {wrong}"


def test_abi(backend: Backend, pin: Memory) -> None:
    """Registers right after the ``syscall`` instruction, with one and with all six redirected."""
    program = [build("conf_abi", "-static")]
    with support.target(backend, program, trap=["openat", "sendto"]) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        length = pin.put(b"/dev/null")
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        call = target.receive()
        assert call.data.args[1:] == (1, 2, 3, 4, 5)
        values = {0: 2**64 - 1, 1: BASE, 2: length, 3: 0, 4: BASE + PAGE, 5: 16}
        target.listener.send_redirect(call.id, values, {1: length, 4: 16})
        seen = target.finish()
    assert int(seen["openat.result"]) >= 0
    assert seen["sendto.result"] == str(-errno.EBADF)
    for name in ("getpid", "openat", "sendto"):
        check_registers(seen, name)


@pytest.mark.parametrize("answer", ["continue", "value", "error"])
def test_abi_of_other_answers(backend: Backend, pin: Memory, answer: str) -> None:
    """An answer that redirects nothing changes no register either, even after an install."""
    program = [build("conf_abi", "-static")]
    with support.target(backend, program, trap=["openat", "sendto"]) as target:
        for _ in range(2):
            call = target.receive()
            if call.data.args[1] != 1:
                target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
            with refused(errno.EFAULT):
                target.listener.send_redirect(call.id, {1: BASE - 1}, {1: 1})
            if answer == "continue":
                target.listener.resume(call.id)
            elif answer == "value":
                target.listener.send(call.id, value=77)
            else:
                target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    wanted = {"value": 77, "error": -errno.EXDEV}
    assert int(seen["openat.result"]) == wanted.get(answer, -errno.ENOENT)
    assert int(seen["sendto.result"]) == wanted.get(answer, -errno.EBADF)
    for name in ("getpid", "openat", "sendto"):
        check_registers(seen, name)
