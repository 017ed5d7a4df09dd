"""``linux/auxvec.h``: what the kernel tells a new program, as in ``/proc/PID/auxv``."""

import struct
from typing import Final

AT_NULL: Final = 0
AT_BASE: Final = 7

AUXV_ENTRY: Final = struct.Struct("@2L")
"""``Elf64_auxv_t``: type, value."""
