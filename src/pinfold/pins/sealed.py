"""A sealed, read-only mapping of a memfd in a stopped task: made there, and recognised there.

Both stock back ends are built on these three answers. ``map_sealed`` makes the mapping by injected
calls; it promises nothing yet, since another thread may have replaced it before it was sealed.
``shows`` says whether what the kernel describes at an address is the pin; ``is_sealed`` says
whether it stays.

The result of the injected ``mseal`` is no proof of the latter. A filter of the task's own can
answer it with an errno of 0: no call is made, and everything looks as if one had succeeded. No
injected call proves anything here, since the filter sees them all. So the kernel is asked about the
mapping (``VmFlags`` in ``/proc/TID/smaps``). That file is slow for its end and quick for its
beginning; pins at low addresses are found at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.errors import TraceeGone, UnsupportedError
from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi.procmap import (
    PROCMAP_QUERY_VMA_EXECUTABLE,
    PROCMAP_QUERY_VMA_READABLE,
    PROCMAP_QUERY_VMA_SHARED,
    PROCMAP_QUERY_VMA_WRITABLE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pinfold.linux.maps import Mapping
    from pinfold.tracee.inject import Injector

_MMAP: Final = NR["mmap"]
_MUNMAP: Final = NR["munmap"]
_MSEAL: Final = NR["mseal"]
_CLOSE: Final = NR["close"]
_CLOSE_RANGE: Final = NR["close_range"]
_TOP: Final = 1 << 56
_PAGE: Final = mman.PAGE_SIZE
_CHUNK: Final = 1600
"""About two mappings: the kernel makes no more of the file than is read."""
_LARGEST_CHUNK: Final = 1 << 16

_RIGHTS: Final = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE | PROCMAP_QUERY_VMA_SHARED
_AS_PINNED: Final = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_SHARED
_AS_CODE: Final = _AS_PINNED | PROCMAP_QUERY_VMA_EXECUTABLE


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


def shows_code(mapping: Mapping | None, file: File, offset: int, at: int) -> bool:
    """Returns whether a mapping shows ``file``'s code page at ``at``, and may be executed.

    Args:
        mapping: What the kernel says is mapped there.
        file: The memfd.
        offset: Where in the memfd the page is.
        at: Address of the page.
    """
    return (
        mapping is not None
        and mapping.flags == _AS_CODE
        and shows(mapping, file, at - offset, at, at + _PAGE)
    )


def is_address(result: int) -> bool:
    """Returns whether what ``mmap`` returned is an address."""
    return 0 < result < _TOP


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
    mapped = is_address(base)
    unsealed = inject.call(_MSEAL, base, size, 0) if mapped else 0
    close(inject, descriptor)
    if not mapped:
        return base if base < 0 else -errno.EPERM
    if unsealed:
        inject.call(_MUNMAP, base, size)
        return -errno.EOPNOTSUPP if unsealed == -errno.ENOSYS else -errno.EPERM
    return base


def map_code(inject: Injector, descriptor: int, offset: int, size: int, at: int = 0) -> int:
    """Maps a memfd's code into the task, executable; seals nothing.

    Args:
        inject: The stopped task.
        descriptor: The memfd's number in the task.
        offset: Where in the memfd it is.
        size: Bytes of it.
        at: Where it should be, if nothing is there; 0 lets the kernel choose.

    Returns:
        The address; or a negative errno where that is forbidden, as a rule or to this task.
    """
    rights = mman.PROT_READ | mman.PROT_EXEC
    page = inject.call(_MMAP, at, size, rights, mman.MAP_SHARED, descriptor, offset)
    return page if is_address(page) or page < 0 else -errno.EPERM


def seal(inject: Injector, base: int, size: int) -> None:
    """Seals a mapping; the caller has to verify that."""
    inject.call(_MSEAL, base, size, 0)


def close(inject: Injector, descriptor: int) -> None:
    """Closes the task's copy of a memfd."""
    if inject.call(_CLOSE, descriptor):
        # A filter of the task's own may know one way to close a descriptor and not the other.
        inject.call(_CLOSE_RANGE, descriptor, descriptor, 0)


@contextlib.contextmanager
def looking_at(tid: int) -> Iterator[None]:
    """Opens files of a task below ``/proc`` in its block: they are missing when the task is gone.

    Raises:
        TraceeGone: It died.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            raise TraceeGone(tid) from error
        raise


def is_sealed(tid: int, *mappings: Mapping) -> bool:
    """Returns whether mappings of the stopped task are there and sealed.

    Args:
        tid: The task.
        *mappings: As the kernel has just described them, at least one, by ascending address.

    Raises:
        TraceeGone: The task died.
        OSError: EACCES or EPERM when we may not look.
    """
    heads = [b"%08x-%08x " % (mapping.start, mapping.end) for mapping in mappings]
    with looking_at(tid):
        found = _flags(f"/proc/{tid}/smaps", heads)
    return len(found) == len(heads) and all(_seal_mark() in flags for flags in found)


def _flags(path: str, heads: Sequence[bytes]) -> list[list[bytes]]:
    # The flags of the mappings whose descriptions begin with ``heads``, as far as they are there in
    # this order. A description begins a line: the name of a mapped file is the target's to choose.
    # Kernel: show_smap_vma_flags in fs/proc/task_mmu.c.
    smaps = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found: list[list[bytes]] = []
    try:
        text = b"\n"
        size = _CHUNK
        while len(found) < len(heads) and (chunk := os.read(smaps, size)):
            text += chunk
            while len(found) < len(heads):
                head = b"\n" + heads[len(found)]
                at = text.find(head)
                if at < 0:
                    text = text[-len(head) :]
                    break
                flags = text.find(b"\nVmFlags:", at)
                end = text.find(b"\n", flags + 1)
                if not 0 <= flags < end:
                    break
                found.append(text[flags:end].split())
                text = text[end:]
            size = min(2 * size, _LARGEST_CHUNK)
    finally:
        os.close(smaps)
    return found


@functools.cache
def _seal_mark() -> bytes:
    # How this kernel shows a seal: "sl", or "??" where it has no word for it yet. The page that
    # tells us is sealed, so it stays for as long as we do. It is shared, and so has a file of its
    # own: private ones that several threads make here at one time could become one mapping, and
    # not be found by where they begin.
    page = libc.syscall(
        "mmap", _MMAP, 0, _PAGE, mman.PROT_READ, mman.MAP_SHARED | mman.MAP_ANONYMOUS, -1, 0
    )
    libc.syscall("mseal", _MSEAL, page, _PAGE, 0)
    for flags in _flags("/proc/self/smaps", [b"%08x-" % page]):
        for mark in (b"sl", b"??"):
            if mark in flags:
                return mark
    raise UnsupportedError("this kernel does not show in /proc/PID/smaps whether a page is sealed")


def unmap(inject: Injector, base: int, size: int) -> None:
    """Removes what was mapped, as far as it is not sealed."""
    inject.call(_MUNMAP, base, size)
