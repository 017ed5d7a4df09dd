"""What the conformance tests share: targets under a listener, memory to pin, bounded waits.

How to use it. A test takes the fixture ``backend`` (the name of a back end that this machine has),
starts a target under a filter and talks to its ``Listener``::

    words = support.script("open:first", "open:second")
    with support.target(backend, words) as target, support.Memory() as pin:
        call = target.receive()                              # openat("/no/such/first")
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        with support.refused(errno.EFAULT):                  # this errno and nothing else
            target.listener.send_redirect(call.id, {1: BASE + SIZE}, {1: 1})
        target.listener.send_redirect(call.id, {1: BASE}, {1: pin.put(b"/dev/null")})
        target.listener.send(target.receive().id, error=errno.EXDEV)
        seen = target.finish()                               # what it printed, as by ``values``
        assert seen["first.rdev"] == "103"
        assert seen["second.result"] == str(-errno.EXDEV)

``script`` runs ``tests/programs/conf_script.c``: one word an action (its head lists them), among
them blocks that fork, vfork, spawn and start threads. Any other command does as well. The target
is started by ``tests/programs/conf_launch.c``, which installs the filter on itself and sends the
listener over a Unix socket; the suite is never under a filter. Programs that are not built with
``-static`` have their loader's calls trapped too: see ``Target.serve``.

Every wait is bounded by ``PATIENCE``: ``receive`` raises ``TimeoutError``, ``line`` and ``finish``
raise ``AssertionError``, and after ``WATCH`` seconds a watchdog kills the target's whole process
group, so that whatever waits for it ends. ``finish`` fails when a call is trapped that the test did
not answer, when the exit status is not the expected one, or when the watchdog had to act.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from pinfold import Listener, Notification, Pin, receive_listener
from pinfold.linux import memfd, redirect
from pinfold.syscalls.numbers import X86_64 as NR
from tests.programs import build, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pinfold.listener import Backend

PATIENCE: Final = float(os.environ.get("PINFOLD_PATIENCE", "40"))
"""Seconds after which anything that should have happened counts as not happening."""
WATCH: Final = 2 * PATIENCE
"""Seconds after which a target is killed, whatever it does."""

FIRST_REVISION: Final = "PINFOLD_FIRST_REVISION"
"""In the environment, it has targets install their filter without the REDIRECT flag."""

PAGE: Final = mmap.PAGESIZE
BASE: Final = 0x7000_0000
"""Where nothing is mapped in the targets."""
SIZE: Final = 4 * PAGE

Trap: TypeAlias = str | int | tuple[str, int, int, int]
"""A call by name or number; or a name, and an argument that has a value in the bits of a mask."""

PLACEHOLDER: Final = "/etc/passwd"
"""A path that targets put where it shall never be read."""


DEVICES: Final = {
    name: f"{os.stat(f'/dev/{name}').st_rdev:x}"
    for name in ("null", "zero", "full", "random", "urandom")
}
"""Files that the targets can tell apart, and what ``conf_script`` prints as their ``rdev``."""
NULL: Final = DEVICES["null"]
ZERO: Final = DEVICES["zero"]


class Memory(Pin):
    """Memory to be pinned, of ``SIZE`` bytes unless told otherwise; a context manager."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)

    def __enter__(self) -> Memory:
        return self

    def put(self, text: bytes, at: int = 0) -> int:
        """Writes a string and its NUL; returns how many bytes that are."""
        self.write(at, text + b"\0")
        return len(text) + 1


def memory_file(seals: int, content: bytes = b"") -> int:
    """Returns a memfd of ``SIZE`` bytes with these seals and no others."""
    fd = memfd.create("pinfold-conformance", SIZE)
    os.pwrite(fd, content, 0)
    if seals:
        memfd.seal(fd, seals)
    return fd


class Target:
    """A program under a filter, and its listener. Made by :func:`target`.

    Attributes:
        process: The program, with pipes for standard input and output.
        pid: Its process id.
        listener: Its listener, in the back end of the test.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], listener: Listener, watch: float = WATCH
    ) -> None:
        self.process: Final = process
        self.pid: Final = process.pid
        self.listener: Final = listener
        self.expired = False
        """Whether the watchdog killed it."""
        self._output = bytearray()
        self._open = True
        self._watchdog = threading.Timer(watch, self._expire)
        self._watchdog.daemon = True
        self._watchdog.start()

    def receive(self, timeout: float = PATIENCE) -> Notification:
        """Returns the next notification.

        Raises:
            TimeoutError: None came.
            OSError: ENOENT: the target is gone.
        """
        return self.listener.receive(timeout)

    def path(self, call: Notification, argument: int = 1) -> bytes:
        """Returns the string that an argument of the call points to."""
        return self.listener.read_string(call, call.data.args[argument])

    def install(self, call: Notification, pin: Memory, address: int = BASE) -> None:
        """Pins all of some memory for a call."""
        assert self.listener.pin_install(call.id, pin.fd, address, pin.size) == address

    def redirect(
        self, call: Notification, pin: Memory, path: bytes, at: int = 0, argument: int = 1
    ) -> None:
        """Sends a call to another path, which is put into a pin at ``BASE``."""
        length = pin.put(path, at)
        self.listener.send_redirect(call.id, {argument: BASE + at}, {argument: length})

    def go(self) -> None:
        """Writes the byte that the program's next ``go`` waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"g")

    def line(self) -> str:
        """Returns the next line that the program prints; it also counts for ``finish``.

        Raises:
            AssertionError: None came in time, or the output ended.
        """
        start = self._output.rfind(b"\n") + 1
        end = time.monotonic() + PATIENCE
        # A byte at a time, so that a line that follows stays in the pipe for the next call.
        while self._output.find(b"\n", start) < 0:
            assert self._read(1, end), f"no whole line came, only {bytes(self._output)!r}"
        return os.fsdecode(bytes(self._output[start:-1]))

    def serve(self, answer: Callable[[Notification], None]) -> None:
        """Answers every call until the program's output ends."""
        end = time.monotonic() + PATIENCE
        watched: list[int] = [self.listener.fileno(), self._stdout()]
        while self._open:
            ready, _, _ = select.select(watched, [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the target did not end; it said {bytes(self._output)!r}"
            if self._stdout() in ready:
                self._read(1 << 16, end)
            if self.listener.fileno() in ready:
                try:
                    call = self.listener.receive(0)
                except TimeoutError:
                    continue
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise
                    watched.remove(self.listener.fileno())
                else:
                    answer(call)

    def finish(
        self, status: int = 0, answer: Callable[[Notification], None] | None = None
    ) -> dict[str, str]:
        """Waits for the end of the program; returns all that it printed.

        Args:
            status: What ``subprocess`` would call its return code: negative for a signal.
            answer: Called for what is still trapped; without it, nothing may be.
        """
        self.serve(answer or self._unexpected)
        assert self.wait() == status
        assert not self.expired, "the watchdog ended the target"
        return values(os.fsdecode(bytes(self._output)))

    def wait(self) -> int:
        """Returns the return code of the program, without reaping it.

        Raises:
            AssertionError: It did not end in time.
        """
        assert ends(self.pid), f"the target did not end; it said {bytes(self._output)!r}"
        # Not reaped before ``close``: until then its process group has an owner. Its end is told to
        # a tracer first, and so may not be there yet for us.
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        until(lambda: os.waitid(os.P_PID, self.pid, how) is not None)
        result = os.waitid(os.P_PID, self.pid, how)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def kill(self) -> None:
        """Kills the program and everything in its process group."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends everything that was started; may be called twice."""
        self._watchdog.cancel()
        self._watchdog.join()
        self.kill()
        self.listener.close()
        with self.process:
            pass

    def _expire(self) -> None:
        self.expired = True
        self.kill()

    def _stdout(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def _read(self, most: int, end: float) -> bool:
        # Returns False at the end of the output, or of the time.
        if not select.select([self._stdout()], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        found = os.read(self._stdout(), most)
        self._output += found
        self._open = bool(found)
        return self._open

    def _unexpected(self, call: Notification) -> None:
        # Answered, so that the target can end and be looked at.
        self.listener.send(call.id, error=errno.ENOSYS)
        raise AssertionError(f"a call that the test did not expect: {call}")


def script(*words: str) -> tuple[str, ...]:
    """Returns the command that runs ``conf_script`` with these words."""
    return (str(build("conf_script", "-static")), *words)


def pathlike(command: Sequence[str | Path]) -> list[str]:
    """Returns a command as strings."""
    return [os.fspath(word) for word in command]


@contextlib.contextmanager
def target(
    backend: Backend,
    command: Sequence[str | Path],
    trap: Sequence[Trap] = ("openat",),
    filter_flags: int = 0,
    watch: float = WATCH,
) -> Iterator[Target]:
    """Starts a program under a filter; kills what is left of it in the end.

    Args:
        backend: Of the listener.
        command: A path and its arguments.
        trap: Calls to be notified of. With ``execve`` among them the first
            notification is the start of the program itself; ``sendmsg`` is used for the hand-over
            and cannot be.
        filter_flags: Added to SECCOMP_FILTER_FLAG_NEW_LISTENER.
        watch: Seconds after which the watchdog kills the target.
    """
    assert "sendmsg" not in trap, "it hands the listener over"
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = launch(theirs, command, trap, filter_flags)
        try:
            listener = received(ours, backend)
        except BaseException:
            process.kill()
            with process:
                pass
            raise
    with watching(process, listener, watch) as one:
        yield one


@contextlib.contextmanager
def watching(
    process: subprocess.Popen[bytes], listener: Listener, watch: float = WATCH
) -> Iterator[Target]:
    """Makes a target of what was started in another way; ends it in the end."""
    one = Target(process, listener, watch)
    try:
        yield one
    finally:
        one.close()


def received(sock: socket.socket, backend: Backend) -> Listener:
    """Returns the listener that was sent over a socket."""
    sock.settimeout(PATIENCE)
    fd = receive_listener(sock)
    try:
        return Listener(fd, backend)
    except BaseException:
        # Not owned then.
        os.close(fd)
        raise


def launch(
    handover: socket.socket,
    command: Sequence[str | Path],
    trap: Sequence[Trap],
    filter_flags: int = 0,
) -> subprocess.Popen[bytes]:
    """Starts ``conf_launch``, which sends its listener over ``handover``.

    The process dies with the calling *thread*: call this from one that stays.
    """
    calls = ",".join(_call(call) for call in trap)
    return subprocess.Popen(
        [
            *(str(build("conf_launch")), str(handover.fileno()), str(os.getpid())),
            *(str(filter_flags), calls, *pathlike(command)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Nothing of ours is left in a buffer when the program is gone.
        bufsize=0,
        pass_fds=(handover.fileno(),),
        env={"PATH": "/usr/bin:/bin"}
        | {key: "1" for key in (FIRST_REVISION,) if key in os.environ},
        process_group=0,
    )


def _call(call: Trap) -> str:
    if isinstance(call, tuple):
        name, argument, mask, value = call
        return f"{NR[name]}:{argument}:{mask:#x}:{value:#x}"
    return str(NR[call] if isinstance(call, str) else call)


def names_memfd(backend: Backend, listener: Listener) -> bool:
    """Returns whether a redirect of this listener names the one memfd of all its pointers."""
    return backend == "native" and redirect.revision(listener.fileno()) == redirect.LATER


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """Demands that the block raises an ``OSError`` with one of these errnos."""
    found = 0
    try:
        yield
    except OSError as error:
        found = error.errno or -1
    names = [errno.errorcode.get(number, "nothing") for number in (found, *numbers)]
    assert found in numbers, f"{names[0]} was raised instead of {' or '.join(names[1:])}"


def ends(pid: int, seconds: float = PATIENCE) -> bool:
    """Waits for the end of a process; returns whether it came. One that is gone has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def readable(fd: int, seconds: float = PATIENCE) -> bool:
    """Waits until a descriptor is readable; returns whether it became so."""
    return bool(select.select([fd], [], [], seconds)[0])


def until(true: Callable[[], bool]) -> None:
    """Waits for what the kernel only shows to those who look, and tells nobody.

    Raises:
        AssertionError: It did not become true in time.
    """
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.002)


def waits_in(tid: int, call: str) -> bool:
    """Returns whether a task is blocked inside this call (not in a notification of it)."""
    try:
        with open(f"/proc/{tid}/syscall") as now, open(f"/proc/{tid}/wchan") as where:
            return now.read().split()[0] == str(NR[call]) and "seccomp" not in where.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def maps(pid: int) -> str:
    """Returns the memory map of a process."""
    with open(f"/proc/{pid}/maps") as text:
        return text.read()


def status(tid: int) -> dict[str, str]:
    """Returns what the kernel says of a task."""
    with open(f"/proc/{tid}/status") as text:
        fields = (line.partition(":") for line in text)
        return {name: value.strip() for name, _, value in fields}


def vm_flags(pid: int, address: int) -> list[str]:
    """Returns the ``VmFlags`` of the mapping that starts at an address, if there is one."""
    with open(f"/proc/{pid}/smaps") as text:
        here = False
        for line in text:
            name, *values = line.split()
            if not name.endswith(":"):
                here = int(name.partition("-")[0], 16) == address
            elif here and name == "VmFlags:":
                return values
    return []
