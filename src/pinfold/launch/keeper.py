"""The keeper: a process that can signal everybody in one sandbox, and nobody else.

A tracer hears of each task, and its end kills them all. A supervisor on a listener has neither: it
hears of those that make trapped calls, and a process that has left its parents (``setsid``, a
double fork) is nobody's child any more. So who belongs to a sandbox is left to the kernel, as a
Landlock domain:

    supervisor ── fork ── COMMAND's process: enters domain K
                            ├── clone(CLONE_PARENT) ── keeper: stays in domain K, and here
                            └── enters a domain of its own within K, and executes COMMAND

``LANDLOCK_SCOPE_SIGNAL`` forbids signals to the outside of a domain. For the keeper everything but
the sandbox is outside: ``kill(-1, SIGKILL)`` kills the sandbox and nothing else, and ``kill(N, 0)``
tells whether N belongs to it. The sandbox's own domain has the scope, too, so that for it the
keeper is outside, and Landlock lets nobody trace out of a domain.

``kill(-1)`` is one sweep: the kernel holds the list of tasks, and a fork that is under way is given
up by the signal that waits for its maker. So a fork bomb is no race. Whoever is left in
another pid namespace, session, process group or (where we have CAP_KILL) under another user id is
signalled as well.

The keeper kills when it is told to, when its socket is closed, and when the supervisor's process
has ended, however that came about. It has a copy of the listener by then: with the supervisor gone,
trapped calls wait for their death, and are not answered with ENOSYS; and a listener says when
nobody is left under its filter.

It is a copy of the supervisor at the time of the fork, with no thread but this one. See
``launch.spawn`` for what such a process must not do. It can read nothing but its socket and
``/proc``, and holds no right but CAP_KILL.

Kernel: ``hook_task_kill`` in ``security/landlock/task.c``; ``kill_something_info`` in
``kernel/signal.c``; ``copy_process`` in ``kernel/fork.c``, where it looks for fatal signals.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see ``launch.spawn``
import _socket as socket
import contextlib
import errno
import os
import select
import signal
import struct
import time
from typing import TYPE_CHECKING, Final, NoReturn

from pinfold.errors import InternalError, UnsupportedError
from pinfold.linux import caps, landlock, libc, process
from pinfold.linux.descriptors import close_others, lifted
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.landlock import LANDLOCK_SCOPE_SIGNAL
from pinfold.uapi.prctl import CAP_KILL, CAP_SETUID, CLONE_PARENT, PR_SET_NO_NEW_PRIVS

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABI_SCOPE: Final = 6
_MESSAGE: Final = struct.Struct("=ci")
_HERE: Final = b"H"
_LISTENER: Final = b"L"
_MEMBER: Final = b"M"
_END: Final = b"E"
_FD: Final = struct.Struct("=i")
_CREDENTIALS: Final = struct.Struct("=3i")

_AGAIN_MS: Final = 100
"""After so long without an end, the signal is sent once more."""
_PATIENCE: Final = 2.0
"""Seconds for those that have ended and are not gone: see ``supervisor.ending``."""
_ANSWER_MS: Final = 30_000
"""A keeper that does not answer for so long was stopped or killed by somebody outside."""


def lack() -> str | None:
    """Returns why there can be no keeper here; None where there can.

    Raises:
        OSError: The kernel answered about Landlock with an errno that does not mean absence.
    """
    version = landlock.abi()
    if version < _ABI_SCOPE:
        found = f"ABI {version}" if version else "none"
        return f"it needs Landlock with ABI {_ABI_SCOPE} (Linux 6.12), and there is {found}"
    held = caps.effective()
    if held >> CAP_SETUID & 1 and not held >> CAP_KILL & 1:
        return "a program with CAP_SETUID could get out of reach, as CAP_KILL is missing"
    return None


class Keeper:
    """The supervisor's side: starts, asks and ends the keeper of one sandbox.

    Attributes:
        descriptors: What :meth:`begin` needs open in the child.
        pidfd: The keeper's process, readable when it has ended; -1 before :meth:`meet`.

    Preconditions: all but :meth:`begin` is used by one thread.

    Raises:
        OSError: A descriptor could not be had; the kernel refused the ruleset.
    """

    __slots__ = ("_ours", "_pid", "_ruleset", "_supervisor", "_theirs", "descriptors", "pidfd")

    def __init__(self) -> None:
        self._pid = 0
        self.pidfd = -1
        with contextlib.ExitStack() as failing:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            failing.callback(ours.close)
            self._ours: Final = ours
            # The kernel says who sent something, by an id that means that process to us.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._theirs = lifted(theirs.detach())
            failing.callback(os.close, self._theirs)
            self._supervisor = lifted(os.pidfd_open(os.getpid()))
            failing.callback(os.close, self._supervisor)
            self._ruleset = lifted(landlock.create_ruleset(0, LANDLOCK_SCOPE_SIGNAL))
            failing.pop_all()
        self.descriptors: Final = frozenset({self._theirs, self._supervisor, self._ruleset})

    def begin(self) -> None:
        """Enters the keeper's domain and starts it. To be called once, in the child, before exec.

        Raises:
            OSError: The kernel refused a step. The child must not exec then.
        """
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        landlock.restrict_self(self._ruleset)
        flags = CLONE_PARENT | signal.SIGCHLD
        if libc.syscall("clone", NR["clone"], flags, 0, 0, 0, 0) == 0:
            _keep(self._theirs, self._supervisor)

    def meet(self) -> None:
        """Waits for the keeper to say that it is there.

        Raises:
            InternalError: It never was.
        """
        self._close_theirs()
        kind, _, pid = self._received()
        if kind != _HERE or not pid:
            raise InternalError("the sandbox's keeper did not start")
        self._pid = pid
        self.pidfd = os.pidfd_open(pid)

    def take(self, listener: int) -> None:
        """Gives it a copy of the listener.

        Raises:
            InternalError: It has ended.
        """
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(listener))
        self._send(_LISTENER, 0, rights)

    def refusal(self, tid: int) -> int:
        """Returns 0 for a task of the sandbox, EPERM for another one, ESRCH when there is none.

        Raises:
            InternalError: The keeper has ended.
        """
        if tid == self._pid:
            # It may signal itself, and belongs to nobody's sandbox.
            return errno.EPERM
        self._send(_MEMBER, tid)
        kind, number, _ = self._received()
        if kind != _MEMBER:
            raise InternalError(f"the sandbox's keeper answers {kind!r} to a question")
        return number

    def end(self) -> None:
        """Has everything in the sandbox killed, and returns when it is gone.

        Raises:
            InternalError: The keeper has ended before. What is left is anybody's guess.
        """
        self._send(_END, 0)
        self._received()

    def close(self) -> None:
        """Ends the keeper, and with it whatever is left of the sandbox; may be called again."""
        self._close_theirs()
        if self._ours.fileno() >= 0:
            if not self._pid:
                self._find()
            self._ours.close()
        if self._pid:
            pid, self._pid = self._pid, 0
            with contextlib.suppress(ChildProcessError):  # a host that waits for any child
                os.waitpid(pid, 0)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _find(self) -> None:
        # It may have been started, and nobody has waited to hear of it.
        self._ours.shutdown(socket.SHUT_WR)
        with contextlib.suppress(InternalError):
            kind, _, pid = self._received()
            if kind == _HERE:
                self._pid = pid

    def _close_theirs(self) -> None:
        # A process that was forked by another thread meanwhile may have copies. It knows no better.
        for name in ("_theirs", "_supervisor", "_ruleset"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def _send(self, kind: bytes, number: int, *control: tuple[int, int, bytes]) -> None:
        try:
            self._ours.sendmsg([_MESSAGE.pack(kind, number)], control, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise InternalError(f"the sandbox's keeper has ended: {error}") from error

    def _received(self) -> tuple[bytes, int, int]:
        # Returns what kind of message, its number, and its sender.
        ready = select.poll()
        ready.register(self._ours, select.POLLIN)
        if not ready.poll(_ANSWER_MS):
            raise InternalError("the sandbox's keeper does not answer")
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            data, control, _, _ = self._ours.recvmsg(_MESSAGE.size, room)
        except ConnectionResetError:
            # It left unread what it was told.
            data, control = b"", []
        if len(data) != _MESSAGE.size:
            raise InternalError("the sandbox's keeper has ended")
        sender = 0
        for level, what, value in control:
            if (level, what) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                sender = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        kind, number = _MESSAGE.unpack(data)
        return kind, number, sender


def require() -> None:
    """Checks that there can be a keeper.

    Raises:
        UnsupportedError: There cannot.
    """
    reason = lack()
    if reason is not None:
        raise UnsupportedError(f"the native back end cannot be used here: {reason}")


def _keep(channel: int, supervisor: int) -> NoReturn:
    # The keeper's own life. A terminal's signals are for others.
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        process.set_name(b"pinfold-keeper")
        process.set_dumpable(False)
        for stream in range(3):
            os.closerange(stream, stream + 1)
        close_others({channel, supervisor})
        os.chdir("/")
        caps.limit_held(frozenset({CAP_KILL}))
        _serve(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel), supervisor)
    finally:
        os._exit(0)


def _serve(channel: socket.socket, supervisor: int) -> None:
    listener = -1
    try:
        channel.send(_MESSAGE.pack(_HERE, 0))
        ready = select.poll()
        ready.register(channel, select.POLLIN)
        ready.register(supervisor, select.POLLIN)
        while True:
            if any(fd == supervisor for fd, _ in ready.poll()):
                return
            data, control, _, _ = channel.recvmsg(_MESSAGE.size, socket.CMSG_SPACE(_FD.size))
            if len(data) != _MESSAGE.size:
                return
            kind, number = _MESSAGE.unpack(data)
            for _, _, value in control:
                (listener,) = _FD.unpack(value[: _FD.size])
            if kind == _MEMBER:
                channel.send(_MESSAGE.pack(_MEMBER, _membership(number)))
            elif kind == _END:
                _kill_all(listener)
                channel.send(_MESSAGE.pack(_END, 0))
    finally:
        _kill_all(listener)


def _membership(tid: int) -> int:
    try:
        os.kill(tid, 0)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _kill_all(listener: int) -> None:
    while True:
        _kill()
        if listener < 0:
            # Nobody but COMMAND's process is there before.
            return
        ready = select.poll()
        ready.register(listener, 0)
        if ready.poll(_AGAIN_MS):
            break
    # They run nothing any more; some are on their way out.
    end = time.monotonic() + _PATIENCE
    while (left := end - time.monotonic()) > 0:
        found = next(_left(), None)
        if found is None:
            return
        try:
            gone = select.poll()
            gone.register(found, select.POLLIN)
            gone.poll(left * 1000)
        finally:
            os.close(found)


def _kill() -> None:
    try:
        os.kill(-1, signal.SIGKILL)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ESRCH):
            raise


def _left() -> Iterator[int]:
    # A descriptor of each process of the sandbox that has not ended.
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid() or _membership(int(entry)):
            continue
        try:
            found = os.pidfd_open(int(entry))
        except OSError:
            continue  # gone, or the wrong time to ask: it is looked for again
        gone = select.poll()
        gone.register(found, select.POLLIN)
        if gone.poll(0):
            os.close(found)
        else:
            yield found
