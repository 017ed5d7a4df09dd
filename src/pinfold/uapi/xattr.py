"""``linux/xattr.h`` and ``linux/limits.h``: extended attributes."""

import struct
from typing import Final

XATTR_NAME_MAX: Final = 255
"""Longest name in bytes, without the NUL."""

XATTR_SIZE_MAX: Final = 65536
"""Longest value in bytes."""

XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2

XATTR_ARGS: Final = struct.Struct("=QII")
"""``struct xattr_args`` version 0 (Linux 6.13): address of the value, its size, flags."""
