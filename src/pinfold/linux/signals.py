"""Signals as a descriptor: ``signalfd(2)``."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from pinfold.linux.libc import error, function

if TYPE_CHECKING:
    from collections.abc import Iterable

_signalfd = function("signalfd", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

_SIGSET_BYTES = 128
"""``sizeof(sigset_t)`` in the C library, of which the kernel looks at the first eight."""


def signal_descriptor(signals: Iterable[int]) -> int:
    """Returns a non-blocking descriptor that is readable while one of ``signals`` is pending.

    They have to be blocked in every thread.

    Raises:
        OSError: EMFILE or ENOMEM.

    Kernel: ``signalfd(2)``; SFD_CLOEXEC and SFD_NONBLOCK are O_CLOEXEC and O_NONBLOCK.
    """
    mask = sum(1 << (number - 1) for number in signals)
    sigset = ctypes.create_string_buffer(mask.to_bytes(_SIGSET_BYTES, "little"), _SIGSET_BYTES)
    fd = int(_signalfd(-1, ctypes.addressof(sigset), os.O_CLOEXEC | os.O_NONBLOCK))
    if fd == -1:
        raise error("signalfd")
    return fd
