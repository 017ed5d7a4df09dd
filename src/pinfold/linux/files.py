"""Opening a name to learn what it leads to, within a root directory of one's choice."""

from __future__ import annotations

import ctypes
import os

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import fs

_HERE = os.O_PATH | os.O_CLOEXEC


def location(root: bytes, path: bytes, *, jumps: bool = True) -> bytes:
    """Returns where a path leads, every symbolic link followed, as seen from our own root.

    Nothing is opened in the sense of reading it: a FIFO does not block, a device is not touched.

    Args:
        root: Directory that ``path`` starts from, and that ``..`` and absolute links do not leave.
        path: A path within it.
        jumps: Whether links in ``/proc`` may be followed that jump to a file, as only *our* walk
            would.

    Raises:
        OSError: As from ``open(2)``; ELOOP for a jump that is not to be made; EXDEV for one where
            ``root`` is not our own root.

    Kernel: ``RESOLVE_IN_ROOT`` in ``openat2(2)``.
    """
    if root == b"/" and jumps:
        found = os.open(b"/" + path, _HERE)
    else:
        resolve = 0 if root == b"/" else fs.RESOLVE_IN_ROOT
        if not jumps:
            resolve |= fs.RESOLVE_NO_MAGICLINKS
        top = os.open(root, _HERE | os.O_DIRECTORY)
        try:
            found = _open_in_root(top, path.lstrip(b"/") or b".", resolve)
        finally:
            os.close(top)
    try:
        return os.readlink(b"/proc/self/fd/%d" % found)
    finally:
        os.close(found)


def _open_in_root(root: int, path: bytes, resolve: int) -> int:
    how = fs.OPEN_HOW.pack(_HERE, 0, resolve)
    name = ctypes.create_string_buffer(path)
    structure = ctypes.create_string_buffer(how, len(how))
    return libc.syscall(
        "openat2",
        NR["openat2"],
        root,
        ctypes.addressof(name),
        ctypes.addressof(structure),
        len(how),
    )
