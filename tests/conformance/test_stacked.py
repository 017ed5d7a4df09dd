"""Redirects beside other filters: what another filter of the task forbids, a redirect does not get.

The oracle of a redirected call is the same call made directly, with the arguments that the redirect
sets, and continued by its supervisor. It holds for filters that are older than the notifying one
and for newer ones alike.

A back end that has the task make calls of its own depends on what the task's filters let through.
What they refuse must make ``pin_install`` fail, leave nothing behind, and stay unnoticed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.listener import Listener
from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import support
from tests.conformance.blocking import (
    AFTER,
    OWN,
    PIN,
    SIGTRAPS,
    TRAP,
    install,
    is_own,
    program,
    redirect,
    unless_gone,
    with_sigtrap,
)
from tests.conformance.support import BASE, PATIENCE, Memory, Target, refused
from tests.programs import values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pinfold.listener import Backend

OPEN: Final = NR["open"]
WRITES: Final = os.O_WRONLY | os.O_CLOEXEC
READS: Final = os.O_RDONLY | os.O_CLOEXEC
SYS_SECCOMP: Final = 1


@contextlib.contextmanager
def two_filters(
    backend: Backend, order: str, action: str, path: Path, sigtrap: str = "plain"
) -> Iterator[Target]:
    """Starts the program with a notifying and a judging filter, and takes its listener."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            number = str(theirs.fileno())
            command = program("stack_filters", number, order, action, str(path), PIN)
            process = subprocess.Popen(
                with_sigtrap(sigtrap, *command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        try:
            ours.settimeout(PATIENCE)
            _, received, _, _ = socket.recv_fds(ours, 1, 1)
            os.set_inheritable(received[0], False)
            listener = Listener(received[0], backend)
        except BaseException:
            process.kill()
            with process:
                pass
            raise
        with support.watching(process, listener) as target:
            ours.send(b"G")
            yield target


ACTIONS: Final = {
    "errno": False,
    "kill": False,
    "kill_thread": False,
    "trap": False,
    "trace": True,
    "log": True,
    "allow": True,
}
"""Whether the direct call gets to its supervisor: USER_NOTIF wins over TRACE, LOG and ALLOW."""


@pytest.mark.parametrize("order", ["outer", "inner"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("sigtrap", SIGTRAPS)
def test_a_redirected_call_is_judged_by_every_filter(
    backend: Backend, pin: Memory, tmp_path: Path, order: str, action: str, sigtrap: str
) -> None:
    file = tmp_path / "file"
    file.write_text("A")
    with two_filters(backend, order, action, file, sigtrap) as target:
        if ACTIONS[action]:
            direct = target.receive()
            assert direct.data.args[1] == WRITES
            target.listener.resume(direct.id)
        call = target.receive()
        assert call.data.args[1] == READS
        install(target.listener, call, pin)
        length = pin.put(os.fsencode(file))
        # One that is killed for it may be gone before the answer is given.
        with unless_gone() if action.startswith("kill") else contextlib.nullcontext():
            target.listener.send_redirect(call.id, {0: BASE, 1: WRITES}, {0: length})
        assert not target.listener.id_valid(call.id)
        seen = target.finish()
    if action.startswith("kill"):
        assert seen["child_direct.signal"] == str(int(signal.SIGSYS))
        assert seen["child_redirected.signal"] == seen["child_direct.signal"]
        assert "redirected.result" not in seen
        return
    assert seen["redirected.registers"] == "ok"
    if action == "trace" and backend == "native":
        # CONTINUE is a way past a tracer, and a redirect is none: there is nobody to ask here.
        assert seen["direct.result"] == "0"
        assert seen["redirected.result"] == str(-errno.ENOSYS)
        return
    for what in ("result", "mode"):
        assert seen[f"redirected.{what}"] == seen[f"direct.{what}"], what
    if action == "errno":
        assert seen["redirected.result"] == str(-errno.EPERM)
    if ACTIONS[action]:
        assert seen["redirected.mode"] == str(os.O_WRONLY)
    if action == "trap":
        frame = {"pins": "0", "in_call": "1", "own": "1", "stepping": "0", "at_call": "1"}
        frame |= {"code": str(SYS_SECCOMP), "call": str(OPEN), "number": str(OPEN)}
        for number, flags in ((1, WRITES), (2, READS)):
            found = {key: seen[f"sigsys{number}.{key}"] for key in (*frame, "flags")}
            assert found == frame | {"flags": str(flags)}, number


@pytest.mark.parametrize("order", ["outer", "inner"])
def test_what_no_filter_forbids_is_redirected(
    backend: Backend, pin: Memory, tmp_path: Path, order: str
) -> None:
    """The control: the same program, and a redirect that the judging filter has nothing against."""
    file = tmp_path / "file"
    file.write_text("A")
    with two_filters(backend, order, "errno", file) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, os.fsencode(file))
        seen = target.finish()
    assert seen["redirected.result"] == "0"
    assert seen["redirected.mode"] == str(os.O_RDONLY)
    assert seen["direct.result"] == str(-errno.EPERM)


def test_a_call_that_was_refused_can_be_refused_again(
    backend: Backend, pin: Memory, tmp_path: Path
) -> None:
    """A refusal by another filter is the end of the call, not of the thread's redirects."""
    file = tmp_path / "file"
    file.write_text("A")
    words = support.script(f"call:first:{OPEN}:0:0", f"call:second:{OPEN}:0:0")
    with support.target(backend, words, TRAP) as target:
        for _ in range(2):
            call = target.receive()
            if call.data.args[0] == 0:
                with contextlib.suppress(FileExistsError):
                    install(target.listener, call, pin)
                redirect(target.listener, call, pin, os.fsencode(file))
        seen = target.finish()
    assert int(seen["first.result"]) > 2
    assert int(seen["second.result"]) > 2


# Filters that forbid what a back end has the task do

INSTALL_ERRNOS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOMEM)

FORBIDDEN: Final = (
    ("mmap",),
    ("mseal",),
    ("close",),
    ("close_range",),
    ("munmap",),
    ("mseal", "munmap"),
    ("close", "close_range"),
    ("mmap", "close", "close_range"),
)
forbidden = pytest.mark.parametrize("calls", FORBIDDEN, ids="-".join)


def forbidding(
    backend: Backend, when: str, action: str, calls: tuple[str, ...]
) -> contextlib.AbstractContextManager[Target]:
    """Starts the program that forbids itself some calls."""
    numbers = [str(NR[call]) for call in calls]
    return support.target(backend, program("stack_forbid", when, action, OWN, *numbers), TRAP)


def mapped(target: Target, pin: Memory) -> list[str]:
    """Returns the mappings of the pin's memfd in the target."""
    inode = str(os.fstat(pin.fd).st_ino)
    with open(f"/proc/{target.pid}/maps") as maps:
        return [line for line in maps if "memfd:pinfold" in line and line.split()[4] == inode]


def opened(target: Target) -> list[str]:
    """Returns the target's descriptors of memfds."""
    found = []
    for entry in os.listdir(f"/proc/{target.pid}/fd"):
        name = os.readlink(f"/proc/{target.pid}/fd/{entry}")
        if "memfd:" in name:
            found.append(f"{entry}: {name}")
    return found


def nothing_is_left(target: Target, pin: Memory, calls: tuple[str, ...]) -> None:
    """Checks that an install left nothing behind that could have been taken away."""
    if not {"mseal", "munmap"} <= set(calls):
        assert mapped(target, pin) == []
    if not {"close", "close_range"} <= set(calls):
        assert opened(target) == []


def needs(calls: tuple[str, ...]) -> bool:
    """Returns whether no pin can be made without these calls."""
    return bool({"mmap", "mseal"} & set(calls))


def unnoticed(seen: dict[str, str], action: str) -> None:
    """Checks that the program saw no signal but that of its own call, at the end."""
    assert seen["call.registers"] == seen["after.registers"] == "ok"
    assert seen["call.hits"] == seen["after.hits"] == "0"
    assert seen["end.same_action"] == "1"
    if action == "trap":
        assert seen["own.hits"] == "1"


@forbidden
@pytest.mark.parametrize("action", ["errno", "trace", "trap"])
def test_a_filter_that_forbids_what_an_install_needs(
    backend: Backend, pin: Memory, calls: tuple[str, ...], action: str
) -> None:
    with forbidding(backend, "first", action, calls) as target:
        call = target.receive()
        if backend == "interrupt" and needs(calls):
            # What could not be taken away is in the way of the second attempt.
            stuck = [errno.EEXIST] if {"mseal", "munmap"} <= set(calls) else []
            for _ in range(2):
                with refused(*INSTALL_ERRNOS, *stuck):
                    target.listener.pin_install(call.id, pin.fd, BASE, pin.size)
                nothing_is_left(target, pin, calls)
                assert target.listener.id_valid(call.id)
                # What cannot be a pin must not be taken for one.
                with refused(errno.EFAULT):
                    target.listener.send_redirect(call.id, {0: BASE}, {0: pin.size})
            target.listener.send(call.id, error=errno.EXDEV)
            wanted = -errno.EXDEV
        else:
            install(target.listener, call, pin)
            assert len(mapped(target, pin)) == 1
            if not {"close", "close_range"} <= set(calls):
                assert opened(target) == []
            redirect(target.listener, call, pin, b"/dev/null")
            wanted = 0
        after = target.receive()
        assert is_own(after, AFTER, target)
        target.listener.send(after.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["call.result"] == str(wanted)
    assert seen["after.result"] == str(-errno.EXDEV)
    unnoticed(seen, action)


@forbidden
def test_a_filter_that_kills_for_what_an_install_needs(
    backend: Backend, pin: Memory, calls: tuple[str, ...]
) -> None:
    """It is the program's own doing: it ends, and the supervisor is told, and does not hang."""
    with forbidding(backend, "first", "kill", calls) as target:
        call = target.receive()
        try:
            install(target.listener, call, pin)
        except OSError as error:
            assert error.errno == errno.ENOENT  # noqa: PT017 (it may succeed as well)
            assert target.wait() == -signal.SIGSYS
            assert not target.listener.id_valid(call.id)
            return
        assert not needs(calls) or backend == "native"
        redirect(target.listener, call, pin, b"/dev/null")
        target.listener.send(target.receive().id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["call.result"] == "0"


@forbidden
@pytest.mark.parametrize("action", ["errno", "trace", "trap"])
def test_a_filter_that_comes_after_the_pin(
    backend: Backend, pin: Memory, calls: tuple[str, ...], action: str
) -> None:
    """Either the pin still serves, or the redirect is refused: never anything in between."""
    with forbidding(backend, "later", action, calls) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, b"/dev/null")
        after = target.receive()
        assert is_own(after, AFTER, target)
        wanted = 0
        try:
            redirect(target.listener, after, pin, b"/dev/null")
        except OSError as error:
            assert error.errno in (errno.EFAULT, errno.EPERM)  # noqa: PT017 (it may succeed)
            assert "mseal" in calls
            assert target.listener.id_valid(after.id)
            target.listener.send(after.id, error=errno.EXDEV)
            wanted = -errno.EXDEV
        seen = target.finish()
    assert seen["call.result"] == "0"
    assert seen["after.result"] == str(wanted)
    unnoticed(seen, action)


# One listener in a chain


def test_a_second_listener(backend: Backend, pin: Memory) -> None:
    with support.target(backend, program("stack_nested", OWN), TRAP) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, b"/dev/null")
        seen = values(target.line())
        assert target.wait() == 0
    assert seen["listener"] == str(-errno.EBUSY)
    assert seen["result"] == "0"
    assert seen["registers"] == "ok"
