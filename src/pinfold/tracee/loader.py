"""Was a call made by the dynamic loader? A hint, not a boundary.

Supervisors like to leave the loader's own calls alone: it opens the libraries that a program is
linked with before a single instruction of the program runs. The kernel tells every process where it
has put the loader (``AT_BASE``), and a call where it came from (its instruction pointer); when both
addresses lie in mappings of the same file, the loader's text made the call.

Nothing may be *allowed* for that reason alone. A program can

- jump to a call instruction in the loader's text with registers of its own choosing;
- write its own instructions there: those pages are private, and ``mprotect`` or ``/proc/self/mem``
  open them;
- map the loader's file a second time, executable, wherever it likes;
- change what ``/proc/PID/auxv`` says: ``PR_SET_MM_AUXV`` takes CAP_SYS_RESOURCE, but
  ``PR_SET_MM_MAP`` sets the same vector and takes no privilege at all (kernels with
  CONFIG_CHECKPOINT_RESTORE). It can so name any mapping of its own as the loader.

And there are honest cases it does not see: a loader that is run as a program
(``/lib64/ld-linux-x86-64.so.2 PROGRAM``) has no ``AT_BASE``, and ``dlopen`` is the loader's text at
work for the program.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING, Final

from pinfold.linux.maps import MapsQuery, file_at, find_in_text, open_maps
from pinfold.uapi.auxvec import AT_BASE, AT_NULL, AUXV_ENTRY
from pinfold.uapi.procmap import PROCMAP_QUERY_VMA_EXECUTABLE, PROCMAP_QUERY_VMA_SHARED

if TYPE_CHECKING:
    from pinfold.linux.maps import Mapping

_RIGHTS: Final = PROCMAP_QUERY_VMA_EXECUTABLE | PROCMAP_QUERY_VMA_SHARED


def from_loader(pid: int, instruction_pointer: int) -> bool:
    """Returns whether a call came from the dynamic loader's text: a hint, see ``tracee/loader.py``.

    False also for programs that have no loader.

    Args:
        pid: The process, or one of its threads, as in ``Notification.pid``.
        instruction_pointer: Where the call was made, as in ``Notification.data``.

    Raises:
        OSError: ESRCH (``ProcessLookupError``) when the task is gone; EACCES or EPERM
            (``PermissionError``) when we may not look at it.

    Kernel: ``proc_pid_auxv(5)``, ``PROCMAP_QUERY``.
    """
    try:
        maps = open_maps(pid)
        try:
            base = _loader_base(pid)
            if not base:
                return False
            loader = _mapping(maps, base)
            caller = _mapping(maps, instruction_pointer)
        finally:
            os.close(maps)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        raise OSError(errno.ESRCH, f"task {pid} is gone") from error
    if loader is None or caller is None or not loader.inode:
        return False
    return _file(loader) == _file(caller) and caller.flags & _RIGHTS == PROCMAP_QUERY_VMA_EXECUTABLE


@cache
def own_loader() -> bytes | None:
    """Returns the file of the loader that loaded this process.

    None for a static one, and where we may not look: a process that is not dumpable cannot see its
    own memory unless it is root. So it is to be asked before that, and remembers.

    Raises:
        OSError: ``/proc`` cannot be read.
    """
    try:
        base = _loader_base(os.getpid())
        return mapped_file(os.getpid(), base) if base else None
    except PermissionError:
        return None


def mapped_file(tid: int, address: int) -> bytes | None:
    """Returns the name of the file that a task has mapped at an address; None where it has none.

    Right after an exec, the instruction pointer is where the program begins: in the loader that its
    ELF header names, wherever and whatever that is, or in the program itself.

    Raises:
        OSError: ESRCH when the task is gone; EACCES or EPERM when we may not look at it.
    """
    try:
        maps = open_maps(tid)
    except FileNotFoundError as error:
        raise OSError(errno.ESRCH, f"task {tid} is gone") from error
    try:
        return file_at(maps, address)
    finally:
        os.close(maps)


def _loader_base(pid: int) -> int:
    # Returns AT_BASE, 0 where there is none.
    with open(f"/proc/{pid}/auxv", "rb") as file:
        vector = file.read()
    if not vector:
        # Newer kernels say so themselves, when the file is opened.
        raise OSError(errno.ESRCH, f"/proc/{pid}/auxv: the task has no memory any more")
    for kind, value in AUXV_ENTRY.iter_unpack(vector[: -(len(vector) % AUXV_ENTRY.size) or None]):
        if kind == AT_BASE:
            return int(value)
        if kind == AT_NULL:
            break
    return 0


def _mapping(maps: int, address: int) -> Mapping | None:
    if not 0 <= address < 1 << 64:
        return None
    try:
        return MapsQuery().at(maps, address)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return find_in_text(maps, address)


def _file(mapping: Mapping) -> tuple[int, int, int]:
    return mapping.major, mapping.minor, mapping.inode
