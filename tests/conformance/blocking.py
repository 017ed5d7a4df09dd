"""Calls that block after they were redirected, and how to see from outside that they do.

The programs ``sig_*`` and ``kill_*`` make their calls with open(2), which no C library makes by
itself, so that everything trapped is a call the test is about; their own path does not exist. What
they shall open stands in the pin: mostly a FIFO, where an open blocks until there is a writer.

The kernel tells nobody that a task fell asleep in a call. So ``until`` looks again and again,
with a deadline; what is waited for is a state that stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import struct
import time
from typing import TYPE_CHECKING, Final

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance.support import BASE, PATIENCE, SIZE, refused
from tests.kernel import support as processes
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pinfold.listener import Listener, Notification
    from tests.conformance.support import Memory, Target

    Step = Callable[[Listener, Notification, Memory, "Fifo"], None]

OWN: Final = "/no/such/call"
"""The path that the programs open by themselves."""
AFTER: Final = OWN + ".after"
"""The path of their last call, which shows that all is as before."""
TRAP: Final = ("open",)
PIN: Final = f"{BASE:x}-{BASE + SIZE:x}"
"""The pin, in the form in which the programs are told of it."""

SIGTRAPS: Final = ("plain", "ignore", "block")
"""What a program may do about SIGTRAP. A back end that steps has to do it in another way then."""

_NOTICE: Final = 0.002
_SI_QUEUE: Final = -1
_SIGINFO: Final = struct.Struct("=iiiiiiQ")
"""``siginfo_t`` of a queued signal: signo, errno, code, padding, pid, uid, value."""
_SIGINFO_SIZE: Final = 128
_TRACER: Final = "pinfold-tracer"


class Fifo:
    """A FIFO: an open for reading blocks until ``release``."""

    def __init__(self, path: str | Path) -> None:
        self.path: Final = os.fsencode(path)

    @classmethod
    def made(cls, path: str | Path) -> Fifo:
        """Returns a new one."""
        os.mkfifo(path)
        return cls(path)

    def release(self, byte: bytes = b"R") -> None:
        """Lets a reader that is there go on, and gives it a byte to read."""
        writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # A program that only wants to open may be done before this.
            with contextlib.suppress(BrokenPipeError):
                os.write(writer, byte)
        finally:
            os.close(writer)


def program(name: str, *words: str) -> tuple[str, ...]:
    """Returns the command of a program of ``tests/programs``."""
    return (str(build(name)), *words)


def with_sigtrap(sigtrap: str, *command: str) -> tuple[str, ...]:
    """Returns the command that runs another one with SIGTRAP ``plain``, ``ignore`` or ``block``."""
    return program("sig_with", sigtrap, *command)


def until(what: str, happened: Callable[[], bool]) -> None:
    """Waits for a state.

    Raises:
        AssertionError: It did not come about in time.
    """
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(_NOTICE)


def _proc(tid: int, name: str) -> str:
    try:
        with open(f"/proc/{tid}/{name}") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def sleeps_in(tid: int, number: int, first: int | None = None) -> bool:
    """Returns whether a task sleeps within a system call, and not in its notification.

    Args:
        tid: The task.
        number: Of the call.
        first: Its first argument; None for any.
    """
    words = _proc(tid, "syscall").split()
    if len(words) < 2 or words[0] != str(number):
        return False
    if first is not None and int(words[1], 16) != first:
        return False
    where = _proc(tid, "wchan")
    # Twice the same number in between: it cannot have moved on.
    return (
        processes.state_of(tid) == "S"
        and where != ""
        and "seccomp" not in where
        and "ptrace" not in where
        and _proc(tid, "syscall").split() == words
    )


def waits_to_seize(tid: int) -> bool:
    """Returns whether a tracer waits for the end of an exec, to seize a thread of that process."""
    return "ptrace_attach" in _proc(tid, "wchan")


def await_sleep(tid: int, number: int, first: int | None = None) -> None:
    """Waits until a task sleeps within a system call; see ``sleeps_in``."""
    until(f"{tid} sleeps in call {number}", lambda: sleeps_in(tid, number, first))


def await_call(target: Target) -> None:
    """Waits until there is a notification, and leaves it unreceived."""
    assert select.select([target.listener.fileno()], [], [], PATIENCE)[0], "nothing was trapped"


def is_own(call: Notification, path: str, target: Target) -> bool:
    """Returns whether a call is the open of this path of the program's own."""
    return call.data.nr == NR["open"] and target.path(call, 0) == os.fsencode(path)


def install(listener: Listener, call: Notification, pin: Memory) -> None:
    """Pins all of ``pin`` at BASE."""
    assert listener.pin_install(call.id, pin.fd, BASE, pin.size) == BASE


def redirect(listener: Listener, call: Notification, pin: Memory, path: bytes, at: int = 0) -> None:
    """Makes an open() that of another path, which the pin gets to hold."""
    length = pin.put(path, at)
    listener.send_redirect(call.id, {0: BASE + at}, {0: length})


def redirect_and_sleep(
    listener: Listener, call: Notification, pin: Memory, fifo: Fifo, at: int = 0
) -> None:
    """Redirects an open() to a FIFO, and waits until it sleeps there."""
    redirect(listener, call, pin, fifo.path, at)
    await_sleep(call.pid, NR["open"], BASE + at)


def block(target: Target, pin: Memory, fifo: Fifo) -> Notification:
    """Receives an open(), installs the pin, and redirects the call to a FIFO, where it blocks."""
    call = target.receive()
    blocked(target.listener, call, pin, fifo)
    return call


# How far a call has come when something happens to it.


def just_received(listener: Listener, call: Notification, pin: Memory, fifo: Fifo) -> None:
    """Nothing was done."""
    assert listener.id_valid(call.id)
    assert pin.size
    assert fifo.path


def pinned(listener: Listener, call: Notification, pin: Memory, fifo: Fifo) -> None:
    """The pin was installed through this call."""
    assert fifo.path
    install(listener, call, pin)


def refused_once(listener: Listener, call: Notification, pin: Memory, fifo: Fifo) -> None:
    """It was, and then a redirect was refused."""
    pinned(listener, call, pin, fifo)
    with refused(errno.EFAULT):
        listener.send_redirect(call.id, {0: BASE + pin.size}, {0: 1})


def refused_unpinned(listener: Listener, call: Notification, pin: Memory, fifo: Fifo) -> None:
    """A redirect was refused, as there is no pin."""
    assert pin.size
    assert fifo.path
    with refused(errno.EFAULT):
        listener.send_redirect(call.id, {0: BASE}, {0: 1})


def blocked(listener: Listener, call: Notification, pin: Memory, fifo: Fifo) -> None:
    """It was redirected and sleeps in the kernel."""
    install(listener, call, pin)
    redirect_and_sleep(listener, call, pin, fifo)


UNANSWERED: Final = (just_received, pinned, refused_once, refused_unpinned)
STEPS: Final = (*UNANSWERED, blocked)
HAVE_PIN: Final = (pinned, refused_once, blocked)


def let_after_pass(target: Target) -> None:
    """Answers the program's last call.

    A back end that was about to stop the task when a signal came may do so now: then the call comes
    once more. That nothing of the kind happens without a signal is for other tests to show.
    """
    answered = False
    while not answered:
        call = target.receive()
        with unless_gone():
            assert is_own(call, AFTER, target)
            target.listener.resume(call.id)
            answered = True


def queue_signal(pid: int, number: int, value: int) -> None:
    """Sends a signal with a value, as ``sigqueue(3)``."""
    info = ctypes.create_string_buffer(
        _SIGINFO.pack(number, 0, _SI_QUEUE, 0, os.getpid(), os.getuid(), value), _SIGINFO_SIZE
    )
    libc.syscall("rt_sigqueueinfo", NR["rt_sigqueueinfo"], pid, number, ctypes.addressof(info))


def stop(pid: int) -> None:
    """Stops a process of ours and waits until its parent, we, are told."""
    os.kill(pid, signal.SIGSTOP)
    until(f"{pid} stops", lambda: _told(pid, os.WSTOPPED) == os.CLD_STOPPED)


def go_on(pid: int) -> None:
    """Continues a stopped process and waits until its parent, we, are told."""
    os.kill(pid, signal.SIGCONT)
    until(f"{pid} continues", lambda: _told(pid, os.WCONTINUED) == os.CLD_CONTINUED)


def _told(pid: int, what: int) -> int | None:
    result = os.waitid(os.P_PID, pid, what | os.WNOHANG | os.WEXITED | os.WNOWAIT)
    if result is not None and result.si_code in (os.CLD_EXITED, os.CLD_KILLED):
        raise AssertionError(f"{pid} ended: {result}")
    result = os.waitid(os.P_PID, pid, what | os.WNOHANG)
    return None if result is None else result.si_code


def tracers() -> set[int]:
    """Returns the processes that the interrupt back end started for this one."""
    return {pid for pid in processes.descendants(os.getpid()) if processes.comm(pid) == _TRACER}


def gone(error: OSError) -> bool:
    """Returns whether an error says that the call went away."""
    return error.errno == errno.ENOENT


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """Passes over ENOENT, for loops that answer calls which may be interrupted at any time."""
    try:
        yield
    except OSError as error:
        if not gone(error):
            raise
