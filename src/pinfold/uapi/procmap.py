"""``linux/fs.h``: the ``PROCMAP_QUERY`` ioctl on ``/proc/PID/maps`` (Linux 6.11)."""

import struct
from typing import Final

from pinfold.uapi.ioctl import iowr

PROCMAP_QUERY_VMA_READABLE: Final = 0x01
PROCMAP_QUERY_VMA_WRITABLE: Final = 0x02
PROCMAP_QUERY_VMA_EXECUTABLE: Final = 0x04
PROCMAP_QUERY_VMA_SHARED: Final = 0x08
PROCMAP_QUERY_COVERING_OR_NEXT_VMA: Final = 0x10

PROCMAP_QUERY_STRUCT: Final = struct.Struct("=9Q4I2Q")
"""``struct procmap_query``: size, query_flags, query_addr, vma_start, vma_end, vma_flags,
vma_page_size, vma_offset, inode, dev_major, dev_minor, vma_name_size, build_id_size,
vma_name_addr, build_id_addr."""

PROCMAP_QUERY: Final = iowr("f", 17, PROCMAP_QUERY_STRUCT.size)
