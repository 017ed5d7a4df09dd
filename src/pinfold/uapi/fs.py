"""``linux/fcntl.h``, ``linux/openat2.h`` and ``linux/limits.h``: how paths are named."""

import struct
from typing import Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000
PATH_MAX: Final = 4096
"""Longest pathname in bytes, the final NUL included."""

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_CACHED: Final = 0x20

RESOLVE_WAYS: Final = RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_NO_XDEV
"""``RESOLVE_*`` flags that are about the way from the directory to the file."""

OPEN_HOW: Final = struct.Struct("=QQQ")
"""``struct open_how`` version 0: flags, mode, resolve."""

RENAME_EXCHANGE: Final = 2
