"""Filters and their listeners: ``seccomp(2)`` and the ioctls of ``seccomp_unotify(2)``."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
from typing import Final, NamedTuple

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import bpf
from pinfold.uapi import seccomp as abi

_make_blank: Final = struct.Struct(f"{abi.SECCOMP_NOTIF.size}x").pack_into
_SIG_BLOCK: Final = 0
_SIG_SETMASK: Final = 2
_SIGSET_BYTES: Final = 8
_SIGNALS: Final = ctypes.c_uint64(~(1 << 31 | 1 << 32))
"""All but 32 and 33, which the C library keeps for itself."""


class FilterProgram:
    """A filter ready to be installed: made before a fork, so that the child only makes one call.

    Args:
        code: An array of ``struct sock_filter``.
    """

    __slots__ = ("_code", "_program")

    def __init__(self, code: bytes) -> None:
        self._code = ctypes.create_string_buffer(code, len(code))
        length = len(code) // bpf.SOCK_FILTER.size
        packed = bpf.SOCK_FPROG.pack(length, ctypes.addressof(self._code))
        self._program = ctypes.create_string_buffer(packed, len(packed))

    def install(self, flags: int = 0) -> int:
        """Installs the filter on the calling thread; returns a listener with ``NEW_LISTENER``.

        Raises:
            OSError: EBUSY when an outer filter has a listener already (one in a chain); EACCES
                without ``no_new_privs`` or CAP_SYS_ADMIN; EINVAL for a malformed program.
        """
        return libc.syscall(
            "seccomp",
            NR["seccomp"],
            abi.SECCOMP_SET_MODE_FILTER,
            flags,
            ctypes.addressof(self._program),
        )


def knows_flags(flags: int) -> bool:
    """Returns whether filters can be installed with these flags, at the cost of one call.

    The kernel looks at the flags before it reads a filter, of which there is none here.

    Kernel: ``seccomp_set_mode_filter`` in ``kernel/seccomp.c``.
    """
    try:
        libc.syscall("seccomp", NR["seccomp"], abi.SECCOMP_SET_MODE_FILTER, flags, 0)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


class RawNotification(NamedTuple):
    """``struct seccomp_notif``; ``pid`` is a *thread* id, as seen by the reader."""

    id: int
    pid: int
    flags: int
    nr: int
    arch: int
    instruction_pointer: int
    args: tuple[int, int, int, int, int, int]


def receive(listener: int) -> RawNotification:
    """Returns the next notification; blocks until there is one.

    Raises:
        OSError: ENOENT when the call went away before it was received (its thread was killed or
            interrupted); EINTR.
    """
    buffer = bytearray(abi.SECCOMP_NOTIF.size)
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_RECV, buffer)
    cookie, pid, flags, nr, arch, ip, *args = abi.SECCOMP_NOTIF.unpack(buffer)
    a, b, c, d, e, f = args
    return RawNotification(cookie, pid, flags, nr, arch, ip, (a, b, c, d, e, f))


class Receiver:
    """Receives a listener's notifications, for the hot loop: as they come, into one buffer.

    Args:
        listener: The listener descriptor.

    Preconditions: used by one thread.
    """

    __slots__ = ("_buffer", "_listener")

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._buffer = bytearray(abi.SECCOMP_NOTIF.size)

    def next(self) -> tuple[int, ...] | None:
        """Returns the fields of ``struct seccomp_notif``; None when there is none (any more).

        Blocks when nothing was announced.

        Raises:
            OSError: The listener is none, or closed.
        """
        # The kernel refuses a buffer that is not blank.
        _make_blank(self._buffer, 0)
        try:
            fcntl.ioctl(self._listener, abi.SECCOMP_IOCTL_NOTIF_RECV, self._buffer)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise
            return None
        return abi.SECCOMP_NOTIF.unpack(self._buffer)


def send(listener: int, cookie: int, *, value: int = 0, error: int = 0, flags: int = 0) -> None:
    """Answers a notification.

    Args:
        listener: The listener descriptor.
        cookie: Its id.
        value: What the call returns, where ``error`` is 0.
        error: A negative errno.
        flags: ``SECCOMP_USER_NOTIF_FLAG_CONTINUE``.

    Raises:
        OSError: ENOENT when it is gone; EINPROGRESS when it was answered already.
    """
    reply = bytearray(abi.SECCOMP_NOTIF_RESP.pack(cookie, value, error, flags))
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_SEND, reply)


def add_descriptor(
    listener: int, cookie: int, descriptor: int, *, newfd: int = 0, newfd_flags: int, flags: int
) -> int:
    """Puts a copy of ``descriptor`` into the notifying task; returns its number there.

    Raises:
        OSError: EMFILE when the task's table is full; ENOENT when the notification is gone; EINTR
            when a signal came first, but not with ``SECCOMP_ADDFD_FLAG_SEND``.

    Kernel: ``SECCOMP_IOCTL_NOTIF_ADDFD`` in ``seccomp_unotify(2)``.
    """
    argument = abi.SECCOMP_NOTIF_ADDFD.pack(cookie, flags, descriptor, newfd, newfd_flags)
    # Mutable: given an immutable buffer fcntl.ioctl returns its bytes instead of the result.
    request = (listener, abi.SECCOMP_IOCTL_NOTIF_ADDFD, bytearray(argument))
    if not flags & abi.SECCOMP_ADDFD_FLAG_SEND:
        return int(fcntl.ioctl(*request))
    # Interrupted by a signal, it leaves a notification that is answered, with 0, and no descriptor.
    before = ctypes.c_uint64()
    _change_mask(_SIG_BLOCK, _SIGNALS, before)
    try:
        return int(fcntl.ioctl(*request))
    finally:
        _change_mask(_SIG_SETMASK, before)


def _change_mask(how: int, mask: ctypes.c_uint64, before: ctypes.c_uint64 | None = None) -> None:
    # signal.pthread_sigmask() makes an object of each signal: it takes longer than all the rest.
    libc.syscall(
        "rt_sigprocmask",
        NR["rt_sigprocmask"],
        how,
        ctypes.addressof(mask),
        0 if before is None else ctypes.addressof(before),
        _SIGSET_BYTES,
    )


def is_valid(listener: int, cookie: int) -> bool:
    """Returns whether a notification was received and waits for its answer.

    Raises:
        OSError: EBADF or ENOTTY when ``listener`` is none.

    Kernel: ``SECCOMP_IOCTL_NOTIF_ID_VALID`` in ``seccomp_unotify(2)``.
    """
    argument = bytearray(abi.SECCOMP_NOTIF_ID.pack(cookie))
    try:
        fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_ID_VALID, argument)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def set_flags(listener: int, flags: int) -> None:
    """Sets listener flags such as ``SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`` (Linux 6.6).

    Raises:
        OSError: EINVAL where the kernel does not know a flag.
    """
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags)
