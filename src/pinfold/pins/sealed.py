"""A sealed, read-only mapping of a memfd in a stopped task: made there, and recognised there.

Both stock back ends are built on these three answers. ``map_sealed`` makes the mapping by injected
calls; it promises nothing yet, since another thread may have replaced it before it was sealed.
``shows`` says whether what the kernel describes at an address is the pin. ``seal`` repeats the seal
where nothing else says that a mapping which looks right is one that stays.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi.procmap import (
    PROCMAP_QUERY_VMA_READABLE,
    PROCMAP_QUERY_VMA_SHARED,
    PROCMAP_QUERY_VMA_WRITABLE,
)

if TYPE_CHECKING:
    from pinfold.linux.maps import Mapping
    from pinfold.tracee.inject import Injector

_MMAP: Final = NR["mmap"]
_MUNMAP: Final = NR["munmap"]
_MSEAL: Final = NR["mseal"]
_CLOSE: Final = NR["close"]
_CLOSE_RANGE: Final = NR["close_range"]
_TOP: Final = 1 << 56
_PAGE: Final = mman.PAGE_SIZE

_RIGHTS: Final = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE | PROCMAP_QUERY_VMA_SHARED
_AS_PINNED: Final = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_SHARED


class File(NamedTuple):
    """Which memfd: device numbers and inode."""

    major: int
    minor: int
    inode: int


def file_of(fd: int) -> File:
    """Returns which file a descriptor of ours is.

    Raises:
        OSError: EBADF.
    """
    stat = os.fstat(fd)
    return File(os.major(stat.st_dev), os.minor(stat.st_dev), stat.st_ino)


def shows(mapping: Mapping | None, file: File, base: int, start: int, end: int) -> bool:
    """Returns whether a mapping shows the task, at ``[start, end)``, what ``file`` has there.

    Args:
        mapping: What the kernel says is mapped at ``start``.
        file: The memfd.
        base: Address of the memfd's first byte in the task. With another file offset the kernel
            would read other bytes of ours, which somebody else's verdict is attached to.
        start: Address of the first byte that matters.
        end: Address after the last one.
    """
    return (
        mapping is not None
        and mapping.flags & _RIGHTS == _AS_PINNED
        and mapping.inode == file.inode
        and mapping.major == file.major
        and mapping.minor == file.minor
        and mapping.start <= start
        and mapping.end >= end
        and mapping.start - mapping.offset == base
    )


def map_sealed(inject: Injector, descriptor: int, size: int, at: int = 0) -> int:
    """Maps a memfd into the task and seals the mapping; closes the task's copy of the memfd.

    The caller has to verify what is there now.

    Args:
        inject: The stopped task.
        descriptor: The memfd's number in the task.
        size: Bytes, a multiple of the page size.
        at: Where; nothing that is mapped there is replaced. 0 lets the kernel choose.

    Returns:
        The address; or a negative errno when nothing was mapped: EEXIST where something is, ENOMEM,
        EOPNOTSUPP where the kernel cannot seal, EPERM where a filter of the task's own forbids it,
        or what such a filter answered to ``mmap``.
    """
    how = mman.MAP_SHARED | (mman.MAP_FIXED_NOREPLACE if at else 0)
    base = inject.call(_MMAP, at, size, mman.PROT_READ, how, descriptor, 0)
    mapped = 0 < base < _TOP
    unsealed = seal(inject, base, size) if mapped else 0
    close(inject, descriptor)
    if not mapped:
        return base if base < 0 else -errno.EPERM
    if unsealed:
        inject.call(_MUNMAP, base, size)
        return -errno.EOPNOTSUPP if unsealed == -errno.ENOSYS else -errno.EPERM
    return base


def close(inject: Injector, descriptor: int) -> None:
    """Closes the task's copy of a memfd."""
    if inject.call(_CLOSE, descriptor):
        # A filter of the task's own may know one way to close a descriptor and not the other.
        inject.call(_CLOSE_RANGE, descriptor, descriptor, 0)


def seal(inject: Injector, start: int, size: int) -> int:
    """Seals the pages of ``[start, start + size)``, again perhaps; returns 0 if that was done."""
    first = start & -_PAGE
    return inject.call(_MSEAL, first, (start + size + _PAGE - 1 & -_PAGE) - first, 0)


def unmap(inject: Injector, base: int, size: int) -> None:
    """Removes what :func:`map_sealed` made, as far as it is not sealed."""
    inject.call(_MUNMAP, base, size)
