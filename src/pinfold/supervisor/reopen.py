"""Opens by real name: the kernel is given a path without symbolic links, and told to meet none.

An open whose real name was judged becomes an ``openat2`` of that name with
``RESOLVE_NO_SYMLINKS``. If a component has been exchanged for a link meanwhile, it fails with
ELOOP. So the file that is opened has the judged name when it is opened, whatever the file system
does between; and it is opened by the task itself, with its credentials, its umask, its Landlock
domain, blocking where it blocks. (An open made by the supervisor and handed over would have none of
these.)

A pipe has no name. Where another task may exchange the descriptor behind ``/dev/stdout`` and its
like, the supervisor takes hold of what the link leads to, looks whether it is a pipe, opens *that*,
and hands it over. Nothing else without a name is opened then.

``openat2`` is stricter than its elders about flags and modes that mean nothing. What they would
have ignored is left out.

Kernel: ``build_open_how`` and ``build_open_flags`` in ``fs/open.c``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.backends.base import Inject, Redirect
from pinfold.codec import openhow
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.fs import (
    AT_FDCWD,
    OPEN_HOW,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_WAYS,
)

if TYPE_CHECKING:
    from pinfold.codec.image import Image
    from pinfold.codec.openhow import OpenHow
    from pinfold.supervisor.decision import Judged
    from pinfold.tracee.caller import Registers

_OPENAT2: Final = NR["openat2"]
_U64: Final = (1 << 64) - 1
_O_LARGEFILE: Final = 0o100000
_O_SYNC_ITSELF: Final = 0o4000000
_O_TMPFILE_ITSELF: Final = 0o20000000
_VALID: Final = (
    os.O_ACCMODE
    | os.O_CREAT
    | os.O_EXCL
    | os.O_NOCTTY
    | os.O_TRUNC
    | os.O_APPEND
    | os.O_NONBLOCK
    | os.O_DSYNC
    | os.O_ASYNC
    | os.O_DIRECT
    | _O_LARGEFILE
    | os.O_DIRECTORY
    | os.O_NOFOLLOW
    | os.O_NOATIME
    | os.O_CLOEXEC
    | os.O_PATH
    | _O_SYNC_ITSELF
    | _O_TMPFILE_ITSELF
)
_WITH_O_PATH: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH | os.O_CLOEXEC
_MODE: Final = 0o7777


def plan(
    call: str,
    registers: Registers,
    image: Image,
    judged: Judged,
    how: OpenHow | None,
) -> Redirect | int | None:
    """Returns how an open is made by its real name.

    Returns an errno when it cannot be, and None when it is to be made as it is: it names a
    descriptor or nothing.

    Raises:
        SlotFull: A larger slot is needed.
    """
    if call == "openat2":
        if how is None or how.offset < 0:
            # The kernel refuses its structure.
            return None
        if how.resolve & RESOLVE_WAYS:
            return errno.EACCES
        if not judged.direct:
            return None
        openhow.encode(image, how._replace(resolve=how.resolve | RESOLVE_NO_SYMLINKS))
        return Redirect(((0, AT_FDCWD & _U64), (1, judged.pointer), (2, how.pointer)))
    if not judged.direct:
        return None
    flags, mode = _asked(call, registers)
    structure = image.put(OPEN_HOW.pack(flags, mode, RESOLVE_NO_SYMLINKS), 8)
    return Redirect(
        (
            (0, AT_FDCWD & _U64),
            (1, judged.pointer),
            (2, image.address_of(structure)),
            (3, OPEN_HOW.size),
        ),
        _OPENAT2,
    )


_NO_PIPE: Final = (
    (os.O_DIRECTORY, errno.ENOTDIR),
    (os.O_NOFOLLOW, errno.ELOOP),
    (os.O_CREAT | os.O_EXCL, errno.EEXIST),
)
"""What the kernel answers to opens of a pipe that ask for something else."""


def pipe(link: bytes, flags: int, resolve: int) -> Inject | int:
    """Returns how a pipe is opened that another task may exchange meanwhile; else an errno.

    Args:
        link: The link in ``/proc`` that leads to it, in our view.
        flags: ``O_*`` flags of the open.
        resolve: ``RESOLVE_*`` flags of the open.
    """
    for refused, found in _NO_PIPE:
        if flags & refused == refused:
            return found
    if resolve & (RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS):
        return errno.ELOOP
    if resolve & RESOLVE_WAYS:
        return errno.EACCES
    try:
        held = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EACCES
    try:
        # Not a FIFO with a name: that may be another one than was judged, with other rights.
        if not os.readlink(f"/proc/self/fd/{held}").startswith("pipe:["):
            return errno.EACCES
        # Not to wait here for somebody at the other end, as the task itself would have.
        kept = flags & (os.O_ACCMODE | os.O_APPEND | os.O_PATH)
        opened = os.open(f"/proc/self/fd/{held}", kept | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EACCES
    finally:
        os.close(held)
    if not flags & (os.O_NONBLOCK | os.O_PATH):
        os.set_blocking(opened, True)
    return Inject(opened, bool(flags & os.O_CLOEXEC), ours=True)


def _asked(call: str, registers: Registers) -> tuple[int, int]:
    if call == "creat":
        flags, mode = os.O_CREAT | os.O_WRONLY | os.O_TRUNC, registers[ARGUMENTS[1]]
    else:
        first = 1 if call == "open" else 2
        flags, mode = registers[ARGUMENTS[first]], registers[ARGUMENTS[first + 1]]
    flags &= _VALID
    if flags & os.O_PATH:
        flags &= _WITH_O_PATH
    makes = flags & (os.O_CREAT | _O_TMPFILE_ITSELF)
    return flags, mode & _MODE if makes else 0
