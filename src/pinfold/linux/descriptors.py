"""Descriptors of a process that starts afresh: which it keeps, and where."""

from __future__ import annotations

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


def close_others(kept: Iterable[int]) -> None:
    """Closes every descriptor but the standard streams and ``kept``."""
    low = _STREAMS
    for fd in sorted(fd for fd in kept if fd >= low):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
