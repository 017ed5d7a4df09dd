"""What the kernel opens besides the file that an exec names: interpreters of scripts, and loaders.

They are told by the first bytes of a file, which is looked at before the exec. Whoever may write
that file, or the directories on the way, may change it between the look and the exec: this is what
a supervisor does that is not told of the exec itself (``supervisor.engine`` has the other way).

Kernel: ``load_script`` in ``fs/binfmt_script.c``; ``load_elf_binary`` in ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final

_HEAD: Final = 256
"""``BINPRM_BUF_SIZE``: the kernel looks no further for a script's interpreter."""
_BLANK: Final = b" \t"
_IDENT: Final = b"\x7fELF\x02\x01"
"""A 64-bit little-endian ELF file; what else there is, the filter kills."""
_EHDR: Final = struct.Struct("=16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("=IIQQQQQQ")
_PT_INTERP: Final = 3
_MOST_HEADERS: Final = 64 * 1024 // _PHDR.size
_PATH_MAX: Final = 4096


def of_file(path: bytes) -> bytes | None:
    """Returns the interpreter that a file names, None where there is none to be seen.

    Args:
        path: The file, in our view. Nothing but a regular file is opened.

    Raises:
        OSError: It cannot be looked at.
    """
    held = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            return None
        opened = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(held)
    try:
        head = os.pread(opened, _HEAD, 0)
        if head.startswith(b"#!"):
            return _of_script(head)
        if head.startswith(_IDENT):
            return _of_program(opened, head)
        return None
    finally:
        os.close(opened)


def _of_script(head: bytes) -> bytes | None:
    line = head[2:].partition(b"\n")[0].strip(_BLANK).partition(b"\0")[0]
    for blank in _BLANK:
        line = line.partition(bytes((blank,)))[0]
    return line or None


def _of_program(opened: int, head: bytes) -> bytes | None:
    if len(head) < _EHDR.size:
        return None
    fields = _EHDR.unpack_from(head)
    offset, size, count = fields[5], fields[9], fields[10]
    if size != _PHDR.size or not 0 < count <= _MOST_HEADERS:
        return None
    table = os.pread(opened, size * count, offset)
    for kind, _, at, _, _, length, *_ in _PHDR.iter_unpack(table[: len(table) // size * size]):
        if kind == _PT_INTERP:
            if not 2 <= length <= _PATH_MAX:
                return None
            return os.pread(opened, length, at).partition(b"\0")[0] or None
    return None
