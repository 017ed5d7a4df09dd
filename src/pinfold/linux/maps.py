"""One address of another process's map: ``PROCMAP_QUERY`` (Linux 6.11), or the text it replaces."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final, NamedTuple

from pinfold.uapi import procmap as abi

_LETTERS: Final = (
    (b"r", abi.PROCMAP_QUERY_VMA_READABLE),
    (b"w", abi.PROCMAP_QUERY_VMA_WRITABLE),
    (b"x", abi.PROCMAP_QUERY_VMA_EXECUTABLE),
    (b"s", abi.PROCMAP_QUERY_VMA_SHARED),
)


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
        return _mapping(buffer)

    def lowest(self, maps: int) -> int:
        """Returns the address of the first mapping.

        Args:
            maps: As for :meth:`at`.

        Raises:
            OSError: ESRCH once that address space is gone; ENOENT where nothing at all is mapped.
        """
        buffer = self._buffer
        how = abi.PROCMAP_QUERY_COVERING_OR_NEXT_VMA
        abi.PROCMAP_QUERY_STRUCT.pack_into(buffer, 0, len(buffer), how, *(0,) * 13)
        fcntl.ioctl(maps, abi.PROCMAP_QUERY, buffer, True)
        return _mapping(buffer).start


class MapsQuestion:
    """One address, asked about again and again at the least cost: is all as it was then?

    Args:
        maps: Descriptor of ``/proc/TID/maps``.
        address: Address in that space; something is mapped there.

    Attributes:
        mapping: The first answer.

    Raises:
        OSError: As from :meth:`MapsQuery.at`; ENOENT where nothing is mapped.
    """

    __slots__ = ("_answer", "_buffer", "mapping")

    def __init__(self, maps: int, address: int) -> None:
        self._buffer = bytearray(abi.PROCMAP_QUERY_STRUCT.size)
        abi.PROCMAP_QUERY_STRUCT.pack_into(
            self._buffer, 0, len(self._buffer), 0, address, *(0,) * 12
        )
        # The kernel leaves the question in the buffer as it is, and answers behind it.
        fcntl.ioctl(maps, abi.PROCMAP_QUERY, self._buffer, True)
        self._answer = self._buffer[_ANSWER]
        self.mapping: Final = _mapping(self._buffer)

    def as_before(self, maps: int) -> bool:
        """Returns whether the answer is the first one again: limits, rights, file and offset.

        Anything else, an error included, is a no.
        """
        buffer = self._buffer
        try:
            _ioctl(maps, _QUERY, buffer, True)
        except OSError:
            return False
        return buffer[_ANSWER] == self._answer


_ioctl: Final = fcntl.ioctl
_QUERY: Final = abi.PROCMAP_QUERY
_ANSWER: Final = slice(24, 80)
"""From ``vma_start`` to ``dev_minor``."""


def _mapping(buffer: bytes | bytearray) -> Mapping:
    values = abi.PROCMAP_QUERY_STRUCT.unpack(buffer)
    return Mapping(values[3], values[4], values[5], values[7], values[8], values[9], values[10])


def open_maps(tid: int) -> int:
    """Returns a descriptor of ``/proc/TID/maps``.

    Raises:
        OSError: EACCES or EPERM when we may not look at the task; ENOENT or ESRCH when it is gone.
    """
    return os.open(f"/proc/{tid}/maps", os.O_RDONLY | os.O_CLOEXEC)


def file_at(maps: int, address: int) -> bytes | None:
    """Returns the name of the file that is mapped at an address, as the kernel shows it.

    None where none is.

    Args:
        maps: Descriptor of ``/proc/TID/maps``.
        address: Address in that space.

    Raises:
        OSError: ESRCH once that address space is gone.

    Kernel: ``proc_pid_maps(5)``.
    """
    fields = _fields_at(_whole(maps), address)
    return None if fields is None else _unescaped(fields[5].strip(b" ")) or None


def _fields_at(text: bytes, address: int) -> list[bytes] | None:
    # The six fields of the line about an address: span, rights, offset, device, inode, name.
    for line in text.splitlines():
        fields = (line + b" ").split(b" ", 5)
        start, end = (int(limit, 16) for limit in fields[0].split(b"-"))
        if start <= address < end:
            return fields
    return None


def _unescaped(name: bytes) -> bytes:
    # A newline is all that the kernel escapes there.
    return name.replace(b"\\012", b"\n")


def find_in_text(maps: int, address: int) -> Mapping | None:
    """Returns the same as :meth:`MapsQuery.at`, for kernels that lack the request.

    Many times slower, and put together while the task may change its mappings.

    Args:
        maps: Descriptor of ``/proc/TID/maps``.
        address: Address in that space.

    Raises:
        OSError: ESRCH once that address space is gone.

    Kernel: ``proc_pid_maps(5)``.
    """
    text = _whole(maps)
    if not text:
        raise OSError(errno.ESRCH, "/proc/PID/maps: the address space is gone")
    fields = _fields_at(text, address)
    if fields is None:
        return None
    span, rights, offset, device, inode, _ = fields
    start, end = (int(limit, 16) for limit in span.split(b"-"))
    major, minor = (int(number, 16) for number in device.split(b":"))
    flags = sum(flag for letter, flag in _LETTERS if letter in rights)
    return Mapping(start, end, flags, int(offset, 16), int(inode), major, minor)


def _whole(maps: int) -> bytes:
    os.lseek(maps, 0, os.SEEK_SET)
    text = bytearray()
    while more := os.read(maps, 1 << 16):
        text += more
    return bytes(text)
