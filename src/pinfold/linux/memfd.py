"""Sealed memory files: ``memfd_create(2)`` and the seals of ``fcntl(2)``."""

from __future__ import annotations

import errno
import fcntl
import os
import resource

from pinfold.uapi import mman

PIN_SEALS = mman.F_SEAL_SEAL | mman.F_SEAL_SHRINK | mman.F_SEAL_GROW | mman.F_SEAL_FUTURE_WRITE
"""No one may write, resize or change the seals; mappings that exist keep their rights."""


def create(name: str, size: int) -> int:
    """Returns a sealable, non-executable memory file of ``size`` bytes (close-on-exec).

    Raises:
        OSError: EMFILE, ENOMEM and the like; EFBIG when RLIMIT_FSIZE is smaller than ``size`` and
            cannot be lifted for the moment.
    """
    flags = mman.MFD_CLOEXEC | mman.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | mman.MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        _resize(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def with_content(name: str, content: bytes) -> int:
    """Returns a descriptor (close-on-exec) of a memory file, open for reading only.

    Nobody can open it again for writing: it is sealed against that.

    Raises:
        OSError: EMFILE, ENOMEM and the like; EFBIG as :func:`create`.
    """
    fd = create(name, len(content))
    try:
        left = memoryview(content)
        while left:
            left = left[os.pwrite(fd, left, len(content) - len(left)) :]
        seal(fd, mman.F_SEAL_SEAL | mman.F_SEAL_SHRINK | mman.F_SEAL_GROW | mman.F_SEAL_WRITE)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _resize(fd: int, size: int) -> None:
    # RLIMIT_FSIZE counts for memory files too, and is meant for what COMMAND writes.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY or size <= soft:
        os.ftruncate(fd, size)
        return
    for lifted in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, lifted)
        except (ValueError, PermissionError):
            # Only CAP_SYS_RESOURCE raises the hard limit.
            continue
        try:
            os.ftruncate(fd, size)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return


def seals(fd: int) -> int:
    """Returns the seals of a memory file.

    Raises:
        OSError: EINVAL when it is none; EBADF.
    """
    try:
        return fcntl.fcntl(fd, mman.F_GET_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, f"descriptor {fd} is no memfd") from error


def seal(fd: int, seals: int) -> None:
    """Adds seals; call it after our own writable mapping exists.

    Raises:
        OSError: EPERM when the file is sealed against sealing; EINVAL for unknown seals.
    """
    fcntl.fcntl(fd, mman.F_ADD_SEALS, seals)
