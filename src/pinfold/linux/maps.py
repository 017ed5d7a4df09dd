"""One address of another process's map: ``PROCMAP_QUERY`` (Linux 6.11)."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import NamedTuple

from pinfold.uapi import procmap as abi


class Mapping(NamedTuple):
    """One mapping, as the kernel describes it."""

    start: int
    end: int
    flags: int
    """``PROCMAP_QUERY_VMA_*`` bits: readable, writable, executable, shared."""
    offset: int
    """Byte offset into the file at ``start``."""
    inode: int
    major: int
    minor: int


class MapsQuery:
    """Asks an open ``/proc/TID/maps`` about single addresses; the buffer is allocated once.

    Not for use by two threads at a time.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray(abi.PROCMAP_QUERY_STRUCT.size)

    def at(self, maps: int, address: int) -> Mapping | None:
        """Returns the mapping that covers ``address``, None where nothing is mapped.

        Args:
            maps: Descriptor of ``/proc/TID/maps``; it is bound to the address space that the task
                had when it was opened.
            address: Address in that space.

        Raises:
            OSError: ESRCH once that address space is gone; ENOTTY before Linux 6.11.
        """
        buffer = self._buffer
        abi.PROCMAP_QUERY_STRUCT.pack_into(
            buffer, 0, len(buffer), 0, address, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        )
        try:
            fcntl.ioctl(maps, abi.PROCMAP_QUERY, buffer, True)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        values = abi.PROCMAP_QUERY_STRUCT.unpack(buffer)
        return Mapping(values[3], values[4], values[5], values[7], values[8], values[9], values[10])


def open_maps(tid: int) -> int:
    """Returns a descriptor of ``/proc/TID/maps``.

    Raises:
        OSError: EACCES or EPERM when we may not look at the task; ENOENT or ESRCH when it is gone.
    """
    return os.open(f"/proc/{tid}/maps", os.O_RDONLY | os.O_CLOEXEC)
