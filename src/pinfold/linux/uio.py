"""``process_vm_readv(2)``: reading another process's memory into a buffer of our own."""

from __future__ import annotations

import ctypes

from pinfold.linux.libc import error, function


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


class RemoteReader:
    """Copies bytes of another task into local memory; the iovecs are allocated once.

    Kernel: ``process_vm_readv(2)``. It honours the target's page protection, as the kernel's own
    reads of a user pointer do. Not for use by two threads at a time.
    """

    __slots__ = ("_local", "_local_at", "_remote", "_remote_at")

    def __init__(self) -> None:
        self._local = IoVec()
        self._remote = IoVec()
        self._local_at = ctypes.addressof(self._local)
        self._remote_at = ctypes.addressof(self._remote)

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
        count = _readv(tid, self._local_at, 1, self._remote_at, 1, 0)
        if count == -1:
            raise error("process_vm_readv", tid)
        return count
