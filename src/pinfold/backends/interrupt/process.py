"""Starting the tracer's process.

It is forked, not executed: the interpreter may no longer be executable for a supervisor that gave
up its rights or its root directory. It keeps nothing of the supervisor's: no descriptors (a pipe
that it held open would never end), no directory, no terminal, no signals.

It is an ordinary child, which ``close`` reaps: an orphan would stay a zombie wherever the first
process does not reap, as in many containers. A supervisor that waits for *all* of its children
waits for this one as well.

It ends when the supervisor closes the socket or dies, after the calls that are under way.

Code in the child runs after a fork in a process that may have had other threads: it imports nothing
that is not imported, takes no locks, collects no garbage, and leaves by ``os._exit``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import traceback
from typing import TYPE_CHECKING, Final, NoReturn

from pinfold.backends.interrupt import wire
from pinfold.backends.interrupt.tracer import Tracer
from pinfold.backends.interrupt.wire import FAILED, LARGEST, Reply, Shared
from pinfold.errors import InternalError
from pinfold.linux import descriptors, process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.backends.interrupt.wire import Request

_NAME: Final = b"pinfold-tracer"


class TracerProcess:
    """The tracer, as the supervisor sees it.

    Args:
        listener: The listener descriptor; the process gets a copy.

    Attributes:
        shared: Memory that both share.

    Raises:
        OSError: EMFILE, EAGAIN or ENOMEM: there is no process.
    """

    __slots__ = ("_pid", "_socket", "shared")

    def __init__(self, listener: int) -> None:
        _reap_lingering()
        self.shared = Shared()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            supervisor = os.pidfd_open(os.getpid())
            try:
                self._pid = _forked(listener, theirs, supervisor, self.shared)
            finally:
                os.close(supervisor)
        except BaseException:
            ours.close()
            self.shared.close()
            raise
        finally:
            theirs.close()
        self._socket = ours

    def fileno(self) -> int:
        """Returns the descriptor that is readable when there is a reply."""
        return self._socket.fileno()

    def ask(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        """Sends a request.

        Raises:
            OSError: EIO when the tracer is gone.
        """
        try:
            if descriptors:
                socket.send_fds(self._socket, [request.pack()], list(descriptors))
            else:
                self._socket.send(request.pack())
        except (BrokenPipeError, ConnectionResetError):
            # Why, is in what it left to be read.
            raise self._lost() from None

    def reply(self) -> Reply:
        """Returns the next reply; blocks until there is one.

        Raises:
            OSError: EIO when the tracer is gone.
            InternalError: It ended by an exception of its own.
        """
        try:
            message = self._socket.recv(LARGEST)
        except ConnectionResetError:
            message = b""
        if not message:
            raise self._lost()
        if len(message) > len(_FAILED_HEAD) and message.startswith(_FAILED_HEAD):
            text = message[len(_FAILED_HEAD) :].decode(errors="replace")
            raise InternalError(f"the tracer of the interrupt back end failed:\n{text}")
        return Reply.unpack(message)

    def close(self) -> None:
        """Lets the process end, which it does when no call is under way any more."""
        left = 0
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while message := self._socket.recv(LARGEST):
                if not message.startswith(_FAILED_HEAD):
                    reply = Reply.unpack(message)
                    if reply.number == wire.LAST:
                        left = reply.value
                        break
        except (BrokenPipeError, ConnectionResetError):
            # It was killed.
            left = 0
        self._socket.close()
        self.shared.close()
        if left:
            with _lingering_lock:
                _lingering.append(self._pid)
        else:
            _reap(self._pid, 0)
        _reap_lingering()

    def _lost(self) -> OSError:
        return OSError(
            errno.EIO,
            "the tracer process of the interrupt back end is gone; the kernel killed what it had"
            " stopped, and this listener can no longer pin or redirect",
        )


_FAILED_HEAD: Final = FAILED.to_bytes(8, "little")


_lingering: list[int] = []
_lingering_lock = threading.Lock()


def _reap_lingering() -> None:
    with _lingering_lock:
        _lingering[:] = [pid for pid in _lingering if not _reap(pid, os.WNOHANG)]


def _reap(pid: int, flags: int) -> bool:
    try:
        return os.waitpid(pid, flags)[0] == pid
    except ChildProcessError:
        # By somebody who waits for everything, or by the kernel (SIGCHLD ignored).
        return True


def _forked(listener: int, channel: socket.socket, supervisor: int, shared: Shared) -> int:
    # The child must not run a handler of ours for a signal that comes at once.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = process.fork()
        if pid == 0:
            _become_tracer(listener, channel, supervisor, shared)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _become_tracer(
    listener: int, channel: socket.socket, supervisor: int, shared: Shared
) -> NoReturn:
    try:
        os.setsid()
        # Our memory is a copy of the supervisor's.
        process.set_dumpable(False)
        process.set_name(_NAME)
        listener, supervisor, theirs = _keep_only(listener, supervisor, channel.detach())
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=theirs)
        os.chdir("/")
        Tracer(listener, channel, supervisor, shared).run()
    except BaseException:  # noqa: BLE001 (reported to whoever can raise it)
        text = traceback.format_exc().encode()[-LARGEST + len(_FAILED_HEAD) :]
        with contextlib.suppress(OSError):
            channel.send(_FAILED_HEAD + text)
    finally:
        os._exit(0)


def _keep_only(*kept: int) -> list[int]:
    high = [descriptors.above_streams(fd) for fd in kept]
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    descriptors.close_others(high)
    return high
