"""Descriptors of a process that starts afresh: which it keeps, and where."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_STREAMS = 3


def above_streams(fd: int) -> int:
    """Returns ``fd``, or a copy of it, with a number that is no standard stream's.

    With closed standard streams a new descriptor may have got their number.

    Raises:
        OSError: EMFILE.
    """
    while fd < _STREAMS:
        fd = os.dup(fd)
    return fd


def lifted(fd: int) -> int:
    """Moves a descriptor to a number that is no standard stream's, if it has one; returns it.

    For the process that starts others, where ``above_streams`` is for one that is about to exec:
    nothing is left at the low number, and the new one is close-on-exec.

    Raises:
        OSError: EMFILE; ``fd`` is still open then.
    """
    if fd >= _STREAMS:
        return fd
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STREAMS)
    os.close(fd)
    return higher


def inheritable() -> list[int]:
    """Returns the descriptors above the standard streams that an exec would leave open.

    In a process that has opened nothing of that kind itself, these are what it got from whoever
    started it.

    Raises:
        OSError: ``/proc`` cannot be read.
    """
    return [
        fd for fd in map(int, os.listdir("/proc/self/fd")) if fd >= _STREAMS and _survives_exec(fd)
    ]


def _survives_exec(fd: int) -> bool:
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        # The one that listed them.
        return False


def close_quietly(fds: Iterable[int]) -> None:
    """Closes descriptors; what a file system reports on that occasion is nobody's business here."""
    for fd in fds:
        os.closerange(fd, fd + 1)


def close_others(kept: Iterable[int]) -> None:
    """Closes every descriptor but the standard streams and ``kept``."""
    low = _STREAMS
    for fd in sorted(fd for fd in kept if fd >= low):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
