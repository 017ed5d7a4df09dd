"""How a listener gets from the process that has the filter to the one that answers.

The filter is installed by the thread that it is meant for, and that thread is under it from then
on. So a supervisor in another process needs the descriptor, and there are two ways:

*It is sent* over a Unix socket. The sender is under its filter already: a filter that traps
``sendmsg`` traps this very call, and nobody is there yet who could answer it. Such a process hangs
until it is killed.

*It is taken* by ``pidfd_getfd(2)``, for which the taker needs the right to trace the process. The
process has to wait meanwhile, and must not wait in a trapped call either. And it must not execute a
program: a listener is closed by exec, and a filter whose last listener is closed answers ENOSYS.

Whatever arrives is looked at before it is handed out. A peer can send any descriptor it has, and an
ioctl on it, only to see what it is, might do something; its link in ``/proc`` tells without that,
and no file can have such a name.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from pinfold.linux import libc, process
from pinfold.linux.seccomp import FilterProgram
from pinfold.uapi.bpf import SOCK_FILTER
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from pinfold.uapi.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LINK: Final = "anon_inode:seccomp notify"
_MESSAGE: Final = b"L"
_FD_SIZE: Final = array.array("i").itemsize

_CONTROL: Final = socket.CMSG_SPACE(_FD_SIZE) + socket.CMSG_SPACE(3 * _FD_SIZE)
"""Room for one descriptor (the kernel's rounding makes it two), and for credentials, which come
along where the receiver has asked for them."""


def install_filter(code: bytes, flags: int = 0) -> int:
    """Installs a filter on the calling thread, for good, and returns its listener.

    The thread gives up gaining privileges by exec (``no_new_privs``) where the kernel asks for
    that. Calls that the filter traps wait from now on until the listener's owner answers them, in
    this thread and in all that it starts.

    Args:
        code: ``struct sock_filter`` bytes, as from ``notify_filter``.
        flags: ``SECCOMP_FILTER_FLAG_*``, added to NEW_LISTENER.

    Returns:
        The listener, close-on-exec.

    Raises:
        OSError: EBUSY when a filter around this one has a listener: the kernel allows one in a
            chain. EINVAL for a malformed filter or unknown flags.

    Kernel: ``seccomp(2)``, ``SECCOMP_SET_MODE_FILTER``.
    """
    if not code or len(code) % SOCK_FILTER.size:
        raise OSError(
            errno.EINVAL, f"seccomp: a filter is whole instructions of {SOCK_FILTER.size} bytes"
        )
    program = FilterProgram(code)
    flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        try:
            return program.install(flags)
        except PermissionError:
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
            return program.install(flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise OSError(
            errno.EBUSY,
            "seccomp: a filter around this one has a listener, and the kernel allows one in a"
            " chain; run outside that sandbox",
        ) from error


def send_listener(sock: socket.socket, fd: int) -> None:
    """Sends a listener over a Unix socket; the sender's own descriptor stays open.

    Close it afterwards: as long as any is open, calls wait for an answer from its owner. A thread
    under a filter that traps ``sendmsg`` must not call this, see the head of the module.

    Raises:
        OSError: ENOTTY when ``fd`` is no listener; EBADF; as from ``sendmsg(2)``.
    """
    _require_listener(fd)
    sock.sendmsg(
        [_MESSAGE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes())]
    )


def receive_listener(sock: socket.socket) -> int:
    """Returns a listener that the peer of a Unix socket sent; it is close-on-exec.

    When something else arrives, all of it is closed.

    Raises:
        OSError: ECONNRESET when the peer closed the socket; EBADMSG when a message came without
            exactly one descriptor; EMSGSIZE when not all that was sent could be received; ENOTTY
            for a descriptor that is no listener; as from ``recvmsg(2)``.
    """
    data, control, flags, _ = sock.recvmsg(1, _CONTROL, socket.MSG_CMSG_CLOEXEC)
    arrived = list(_descriptors(control))
    try:
        _require_one(arrived, closed=not data, cut_off=bool(flags & socket.MSG_CTRUNC))
        _require_listener(arrived[0])
    except BaseException:
        for fd in arrived:
            os.close(fd)
        raise
    return arrived[0]


def take_listener(pid: int, fd: int | None = None) -> int:
    """Returns a copy of another process's listener; it is close-on-exec.

    The process knows nothing of it, and its own descriptor stays open: it should close it, or
    execute a program, since as long as any is open, calls wait for an answer from its owner.

    Args:
        pid: The process, or one of its threads.
        fd: The listener's number there; None finds the only one that it has.

    Raises:
        OSError: ESRCH when there is no such process; EPERM when we may not trace it; EBADF when it
            has no descriptor ``fd``, ENOTTY when that is no listener; ENOENT when it has none, and
            EINVAL when it has several.

    Kernel: ``pidfd_getfd(2)``.
    """
    owner = process.process_of(pid)
    try:
        pidfd = os.pidfd_open(owner)
    except ProcessLookupError as error:
        raise _no_process(pid) from error
    try:
        number = _only_listener(owner) if fd is None else fd
        try:
            listener = process.take_descriptor(pidfd, number)
        except OSError as error:
            raise _explained(error, pid, number) from error
    finally:
        os.close(pidfd)
    try:
        _require_listener(listener, f"descriptor {number} of process {pid}")
    except BaseException:
        os.close(listener)
        raise
    return listener


def _only_listener(pid: int) -> int:
    found = []
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            # It may close descriptors while we look.
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{entry}") == _LINK:
                    found.append(int(entry))
    except FileNotFoundError as error:
        raise _no_process(pid) from error
    except PermissionError as error:
        raise OSError(errno.EPERM, _no_right(pid)) from error
    if not found:
        raise OSError(
            errno.ENOENT,
            f"process {pid} has no seccomp listener open: take it before the process closes it;"
            " executing a program closes it too",
        )
    if len(found) > 1:
        numbers = ", ".join(map(str, sorted(found)))
        raise OSError(
            errno.EINVAL, f"process {pid} has several seccomp listeners ({numbers}): say which"
        )
    return found[0]


def _descriptors(control: Iterable[tuple[int, int, bytes]]) -> Iterable[int]:
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            yield from memoryview(data[: len(data) - len(data) % _FD_SIZE]).cast("i")


def _require_one(arrived: Sequence[int], *, closed: bool, cut_off: bool) -> None:
    what = "receiving a listener"
    if cut_off:
        raise OSError(
            errno.EMSGSIZE,
            f"{what}: control data was cut off: the peer sent several descriptors, or there is no"
            " room for one more here (RLIMIT_NOFILE)",
        )
    if closed and not arrived:
        raise OSError(errno.ECONNRESET, f"{what}: the peer closed the socket before it sent one")
    if len(arrived) != 1:
        raise OSError(
            errno.EBADMSG,
            f"{what}: the message carries {len(arrived)} descriptors, not 1; send it with"
            " send_listener",
        )


def _require_listener(fd: int, what: str | None = None) -> None:
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError as error:
        raise OSError(errno.EBADF, f"descriptor {fd} is not open") from error
    if link != _LINK:
        raise OSError(errno.ENOTTY, f"{what or f'descriptor {fd}'} is no seccomp listener: {link}")


def _explained(error: OSError, pid: int, number: int) -> OSError:
    if error.errno == errno.ESRCH:
        return _no_process(pid)
    if error.errno == errno.EPERM:
        return OSError(errno.EPERM, _no_right(pid))
    if error.errno == errno.EBADF:
        return OSError(errno.EBADF, f"process {pid} has no descriptor {number}")
    return error


def _no_process(pid: int) -> OSError:
    return OSError(errno.ESRCH, f"there is no process {pid}")


def _no_right(pid: int) -> str:
    return (
        f"not permitted to take descriptors of process {pid}, which needs the right to trace it:"
        " the same user and a dumpable process, or CAP_SYS_PTRACE; with"
        " `kernel.yama.ptrace_scope=1` only descendants can be traced. Or let it send the listener:"
        " send_listener"
    )
