"""On which processors a task may run, and how long its turns are (``sched(7)``).

A set of processors is a ``frozenset`` of their numbers. There are two answers to which a task may
use: :func:`affinity` leaves out those that are switched off, :func:`allowed` does not; to give a
task back what it had takes the latter.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final

from pinfold.linux.libc import error, function, syscall
from pinfold.linux.process import status_field
from pinfold.syscalls.numbers import X86_64 as NR

if TYPE_CHECKING:
    from collections.abc import Iterable

_getcpu = function("sched_getcpu", ctypes.c_int)

_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period."""
_SCHED_OTHER: Final = 0
_SCHED_BATCH: Final = 3
_SCHED_FLAG_RESET_ON_FORK: Final = 0x01


def current_cpu() -> int:
    """Returns the processor that the calling thread runs on, at this moment.

    Raises:
        OSError: ENOSYS.

    Kernel: ``getcpu(2)``.
    """
    cpu = _getcpu()
    if cpu < 0:
        raise error("sched_getcpu")
    return cpu


def affinity(tid: int) -> frozenset[int]:
    """Returns the processors that a task may run on, 0 for the calling thread.

    Raises:
        OSError: ESRCH when it is gone.

    Kernel: ``sched_getaffinity(2)``.
    """
    return frozenset(os.sched_getaffinity(tid))


def set_affinity(tid: int, cpus: Iterable[int]) -> None:
    """Says which processors a task may run on; those that its cgroup lacks are left out.

    Raises:
        OSError: ESRCH when it is gone, EPERM when it is another user's, EINVAL when none is left.

    Kernel: ``sched_setaffinity(2)``.
    """
    os.sched_setaffinity(tid, cpus)


def allowed(tid: int) -> frozenset[int]:
    """Returns the processors that a task may run on, with those that are switched off.

    Raises:
        OSError: ESRCH when it is gone.

    Kernel: ``Cpus_allowed_list`` in ``proc_pid_status(5)``.
    """
    text = status_field(tid, b"Cpus_allowed_list")
    if text is None:
        raise ProcessLookupError(tid)
    return cpu_list(text.decode())


def cpu_list(text: str) -> frozenset[int]:
    """Returns the numbers in a list as the kernel writes it: ``0-2,5``."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def time_slice(tid: int) -> int:
    """Returns how long the turns of a task are, in nanoseconds; 0 where the kernel does not tell.

    Raises:
        OSError: ESRCH when it is gone.

    Kernel: ``sched_getattr(2)``; for ordinary tasks since 857b158dc5e8 ("sched/eevdf: Use
    sched_attr::sched_runtime to set request/slice suggestion", 6.12).
    """
    room = ctypes.create_string_buffer(_ATTRIBUTES.size)
    syscall("sched_getattr", NR["sched_getattr"], tid, ctypes.addressof(room), _ATTRIBUTES.size, 0)
    return int(_ATTRIBUTES.unpack(room.raw)[5])


def set_time_slice(tid: int, nanoseconds: int) -> bool:
    """Asks for turns of another length for a task of an ordinary class; whether that was granted.

    A shorter turn comes sooner, and processor time stays the same. What the task starts has turns
    of the usual length. Kernels that know no such request accept it, and change nothing.

    Raises:
        OSError: ESRCH when it is gone, EPERM when it is another user's.

    Kernel: ``sched_setattr(2)``, see :func:`time_slice`.
    """
    room = ctypes.create_string_buffer(_ATTRIBUTES.size)
    syscall("sched_getattr", NR["sched_getattr"], tid, ctypes.addressof(room), _ATTRIBUTES.size, 0)
    size, policy, flags, nice, priority, _, deadline, period = _ATTRIBUTES.unpack(room.raw)
    if policy not in (_SCHED_OTHER, _SCHED_BATCH) or nice < 0:
        return False  # what it starts would lose that
    flags |= _SCHED_FLAG_RESET_ON_FORK
    _ATTRIBUTES.pack_into(
        room, 0, size, policy, flags, nice, priority, nanoseconds, deadline, period
    )
    syscall("sched_setattr", NR["sched_setattr"], tid, ctypes.addressof(room), 0)
    return time_slice(tid) == nanoseconds
