"""Copies of a task's memory for whoever holds its listener, with the kernel's own error semantics.

The task is in a trapped call, but it is not stopped: its other threads run on, and whoever shares
its memory. So a copy says what was there at some moment during the read, and nothing about what the
kernel would find later. A thread id is no lasting name either. The reader has to ask afterwards
whether the call still waits (``Listener`` does), and to decide on bytes that it has put into a pin.

A page that the target serves by itself (``userfaultfd(2)``, a file system in user space) holds the
reader up for as long as the target likes, as it would the kernel. A page that is mapped for writing
alone, which the processor lets the kernel read all the same, counts as unreadable here.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final, TypeAlias

from pinfold.linux.uio import RemoteReader
from pinfold.uapi.fs import PATH_MAX

Reader: TypeAlias = Callable[[int, int, int], bytes]
"""A function of thread id, address and length, or limit."""

_END: Final = 1 << 64
_CHUNK: Final = 1 << 20
"""Asked for in one go; a length that is the target's choice must not cost us memory first."""


def read_bytes(tid: int, address: int, length: int) -> bytes:
    """Returns exactly ``length`` bytes.

    Args:
        tid: The task.
        address: Where they start.
        length: How many; none are always readable.

    Raises:
        OSError: EFAULT where not all of them can be read; ESRCH (``ProcessLookupError``) when the
            task is gone; EPERM when we may not look at it.
        ValueError: ``length`` is negative.

    Kernel: ``copy_from_user``; ``process_vm_readv(2)``.
    """
    if length < 0:
        raise ValueError(f"cannot read {length} bytes")
    if not length:
        return b""
    if address < 0 or address + length > _END:
        raise _error(errno.EFAULT, tid, address)
    found = bytearray()
    reader = RemoteReader()
    while len(found) < length:
        chunk = ctypes.create_string_buffer(min(length - len(found), _CHUNK))
        at = address + len(found)
        try:
            got = reader.read(tid, at, ctypes.addressof(chunk), len(chunk))
        except OSError as error:
            raise _error(error.errno, tid, at) from error
        if got < len(chunk):
            raise _error(errno.EFAULT, tid, at + got)
        found += chunk
    return bytes(found)


def read_string(tid: int, address: int, limit: int = PATH_MAX) -> bytes:
    """Returns a NUL-terminated string without its NUL.

    Args:
        tid: The task.
        address: Where it starts.
        limit: Most bytes it may have, with the NUL.

    Raises:
        OSError: EFAULT where memory ends before the NUL; ENAMETOOLONG when there is none in
            ``limit`` bytes; ESRCH (``ProcessLookupError``) when the task is gone; EPERM when we may
            not look at it.
        ValueError: ``limit`` is not positive.

    Kernel: ``strncpy_from_user``, as for a path; ``process_vm_readv(2)``.
    """
    if limit <= 0:
        raise ValueError(f"a string needs a byte for its NUL, and the limit is {limit}")
    if not 0 <= address < _END:
        raise _error(errno.EFAULT, tid, address)
    within = min(limit, _END - address)
    buffer = ctypes.create_string_buffer(within)
    try:
        length = RemoteReader().read_string(tid, address, ctypes.addressof(buffer), within)
    except OSError as error:
        raise _error(error.errno, tid, address) from error
    if length < 0:
        raise _error(errno.EFAULT if within < limit else -length, tid, address)
    return ctypes.string_at(buffer, length)


def _error(number: int | None, tid: int, address: int) -> OSError:
    # A number from a hostile task may be too large to be written in decimal.
    number = number or errno.EIO
    return OSError(number, f"process_vm_readv of task {tid} at {address:#x}: {os.strerror(number)}")
