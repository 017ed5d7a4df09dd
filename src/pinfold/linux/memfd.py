"""Sealed memory files: ``memfd_create(2)`` and the seals of ``fcntl(2)``."""

from __future__ import annotations

import errno
import fcntl
import os

from pinfold.uapi import mman

PIN_SEALS = mman.F_SEAL_SEAL | mman.F_SEAL_SHRINK | mman.F_SEAL_GROW | mman.F_SEAL_FUTURE_WRITE
"""No one may write, resize or change the seals; mappings that exist keep their rights."""


def create(name: str, size: int) -> int:
    """Returns a sealable, non-executable memory file of ``size`` bytes (close-on-exec).

    Raises:
        OSError: EMFILE, ENOMEM and the like.
    """
    flags = mman.MFD_CLOEXEC | mman.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | mman.MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int, seals: int) -> None:
    """Adds seals; call it after our own writable mapping exists.

    Raises:
        OSError: EPERM when the file is sealed against sealing; EINVAL for unknown seals.
    """
    fcntl.fcntl(fd, mman.F_ADD_SEALS, seals)
