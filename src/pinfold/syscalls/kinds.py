"""The vocabulary of the table: what an argument of a system call is.

A kind says how the argument is read from a register or from memory, and how the log shows it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Kind(Enum):
    """What one argument register holds."""

    DIRFD = "dirfd"
    """Descriptor of the directory that the *next* argument's path is relative to, or AT_FDCWD."""
    PATH = "path"
    """Pointer to a NUL-terminated path; judged, rewritten and pinned."""
    PATH_OR_NULL = "path-or-null"
    """The same, where NULL means the descriptor before it and is never followed."""
    TEXT = "text"
    """Pointer to a NUL-terminated string that names no file (a symbolic link's content): pinned,
    logged, not judged."""
    OPEN_FLAGS = "open-flags"
    """``O_*`` bits."""
    AT_FLAGS = "at-flags"
    """``AT_*`` bits; with AT_EMPTY_PATH an empty path means the descriptor itself."""
    OPEN_HOW = "open-how"
    """Pointer to ``struct open_how``, its size in the *next* argument; pinned."""
    MODE = "mode"
    """Permission bits, shown in octal."""
    NUMBER = "number"
    """A scalar, shown as it is."""
    LEFT = "left"
    """A pointer that no verdict looks at: left alone and not logged (an out buffer, argv)."""


O_NAMES: Final = (
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o4010000, "O_SYNC"),
    (0o10000, "O_DSYNC"),
    (0o20000, "O_ASYNC"),
    (0o40000, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"),
    (0o20200000, "O_TMPFILE"),
    (0o200000, "O_DIRECTORY"),
    (0o400000, "O_NOFOLLOW"),
    (0o1000000, "O_NOATIME"),
    (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"),
)
"""``asm-generic/fcntl.h``; a name of several bits stands before the names of its parts."""

_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")

AT_NAMES: Final = (
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
    (0x8000, "AT_RECURSIVE"),
)


def _bits(value: int, names: tuple[tuple[int, str], ...]) -> list[str]:
    found = []
    for bits, name in names:
        if value & bits == bits:
            found.append(name)
            value &= ~bits
    if value:
        found.append(hex(value))
    return found


def show_open_flags(value: int) -> str:
    """Returns ``O_*`` bits in words, as ``strace`` would; unknown bits in hexadecimal."""
    return "|".join([_ACCESS[value & 3], *_bits(value & ~3, O_NAMES)])


def show_at_flags(value: int) -> str:
    """Returns ``AT_*`` bits in words, ``0`` for none."""
    return "|".join(_bits(value, AT_NAMES)) or "0"
