"""Reads and writes over ``struct iovec``, another process's memory among them (``readv(2)``)."""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from pinfold.linux.libc import error, function, lean, syscall
from pinfold.syscalls.numbers import X86_64 as NR


class IoVec(ctypes.Structure):
    """``struct iovec``: base address and length in bytes."""

    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


_readv = function(
    "process_vm_readv",
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)

_writev = function(
    "process_vm_writev",
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)

_lean_readv = lean("process_vm_readv", blocks=True)

_strnlen = function("strnlen", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)

_FIRST: Final = 256
"""Most strings are shorter than this; the rest is read only when it is needed."""


class RemoteReader:
    """Copies bytes of another task into local memory; the iovecs are allocated once.

    Kernel: ``process_vm_readv(2)``. It honours the target's page protection, as the kernel's own
    reads of a user pointer do. Not for use by two threads at a time.
    """

    __slots__ = ("_local", "_local_at", "_remote", "_remote_at")

    def __init__(self) -> None:
        self._local = IoVec()
        self._remote = IoVec()
        self._local_at = ctypes.byref(self._local)
        self._remote_at = ctypes.byref(self._remote)

    def read(self, tid: int, address: int, local: int, length: int) -> int:
        """Returns how many bytes were copied: fewer than ``length`` where a page is unreadable.

        Args:
            tid: Task whose memory is read.
            address: Where, in that task.
            local: Address of our buffer.
            length: Bytes wanted.

        Raises:
            OSError: EFAULT when not even the first byte is readable; ESRCH when the task is gone;
                EPERM when we may not look (a non-dumpable task).
        """
        self._local.base = local
        self._local.length = length
        self._remote.base = address
        self._remote.length = length
        count = _lean_readv(tid, self._local_at, 1, self._remote_at, 1, 0)
        if count == -1:
            # For its errno; should it work now, all the better.
            count = _readv(tid, self._local_at, 1, self._remote_at, 1, 0)
            if count == -1:
                raise error("process_vm_readv", tid)
        return count

    def read_string(self, tid: int, address: int, local: int, limit: int) -> int:
        """Copies a string and its NUL; returns its length without the NUL.

        Returns a negative errno where the kernel's own copy would fail: ``-EFAULT`` for a page that
        cannot be read before the NUL, ``-ENAMETOOLONG`` when there is none in ``limit`` bytes.

        Args:
            tid: Task whose memory is read.
            address: Where the string starts, in that task.
            local: Address of our buffer of ``limit`` bytes.
            limit: Most bytes to copy, with the NUL.

        Raises:
            OSError: As from :meth:`read`, but EFAULT.

        Kernel: ``strncpy_from_user`` in ``lib/strncpy_from_user.c``.
        """
        done = 0
        while done < limit:
            wanted = (_FIRST if done == 0 and limit > _FIRST else limit) - done
            try:
                got = self.read(tid, address + done, local + done, wanted)
            except OSError as exc:
                if exc.errno != errno.EFAULT:
                    raise
                got = 0
            length = _strnlen(local + done, got)
            if length < got:
                return done + length
            if got < wanted:
                return -errno.EFAULT
            done += got
        return -errno.ENAMETOOLONG


class FixedReader:
    """Copies bytes of one task to one place, at the least cost.

    Args:
        tid: The task.
        local: Address of our buffer.
        length: Bytes to read each time.
    """

    __slots__ = ("_local", "_remote", "_tid", "_to_local", "_to_remote")

    def __init__(self, tid: int, local: int, length: int) -> None:
        self._tid = tid
        self._local = IoVec(local, length)
        self._remote = (ctypes.c_uint64 * 2)(0, length)
        self._to_local = ctypes.byref(self._local)
        self._to_remote = ctypes.byref(self._remote)

    def read(self, address: int) -> int:
        """Returns how many bytes could be copied, -1 where not even the first could.

        Args:
            address: Where in the task, a ``u64``.
        """
        self._remote[0] = address
        return _lean_readv(self._tid, self._to_local, 1, self._to_remote, 1, 0)


def write_memory(tid: int, address: int, data: bytes) -> bool:
    """Copies bytes into another task; returns whether all of them could be written.

    Raises:
        OSError: ESRCH when the task is gone; EPERM when we may not.

    Kernel: ``process_vm_writev(2)``. It honours the target's page protection.
    """
    buffer = ctypes.create_string_buffer(data, len(data))
    local = IoVec(ctypes.addressof(buffer), len(data))
    remote = IoVec(address, len(data))
    count = _writev(tid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)
    if count == -1 and ctypes.get_errno() != errno.EFAULT:
        raise error("process_vm_writev", tid)
    return count == len(data)


_HERE: Final = -1
"""An offset that stands for the file's own position, or for none where there is no such thing."""


def write(fd: int, data: bytes) -> int:
    """Writes to a file, pipe or socket; returns how many bytes were written.

    Raises:
        OSError: As from ``write(2)``, but EINTR.

    Kernel: ``pwritev2(2)``.
    """
    buffer = ctypes.create_string_buffer(data, len(data))
    return _transfer("pwritev2", fd, buffer)


def read(fd: int, length: int) -> bytes:
    """Returns at most ``length`` bytes from a file, pipe or socket; none at its end.

    Raises:
        OSError: As from ``read(2)``, but EINTR.

    Kernel: ``preadv2(2)``.
    """
    buffer = ctypes.create_string_buffer(length)
    count = _transfer("preadv2", fd, buffer)
    return buffer.raw[:count]


def _transfer(call: str, fd: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    vector = IoVec(ctypes.addressof(buffer), len(buffer))
    while True:
        try:
            # The offset takes two arguments on machines of 32 bits, and so everywhere.
            return syscall(call, NR[call], fd, ctypes.addressof(vector), 1, _HERE, _HERE, 0)
        except OSError as exc:
            if exc.errno != errno.EINTR:
                raise
