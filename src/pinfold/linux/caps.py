"""Capabilities of the calling thread (``capabilities(7)``).

A set of them is an int with bit *n* for capability number *n*, as in ``/proc/PID/status``.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from functools import cache
from typing import TYPE_CHECKING, Final

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi.prctl import (
    CAP_AUDIT_WRITE,
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_KILL,
    CAP_MKNOD,
    CAP_NET_BIND_SERVICE,
    CAP_NET_RAW,
    CAP_SETFCAP,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_CHROOT,
    LINUX_CAPABILITY_VERSION_3,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTAINER_DEFAULT: Final = frozenset(
    {
        CAP_AUDIT_WRITE,
        CAP_CHOWN,
        CAP_DAC_OVERRIDE,
        CAP_FOWNER,
        CAP_FSETID,
        CAP_KILL,
        CAP_MKNOD,
        CAP_NET_BIND_SERVICE,
        CAP_NET_RAW,
        CAP_SETFCAP,
        CAP_SETGID,
        CAP_SETPCAP,
        CAP_SETUID,
        CAP_SYS_CHROOT,
    }
)
"""What container runtimes leave to root in a container."""

_lean_prctl = libc.lean("prctl", blocks=False)

_HEADER: Final = struct.Struct("=Ii")
"""``struct __user_cap_header_struct``: version, pid (0: the calling thread)."""

_DATA: Final = struct.Struct("=6I")
"""``struct __user_cap_data_struct[2]``: effective, permitted, inheritable; low words first."""


def mask(numbers: frozenset[int]) -> int:
    """Returns the set of these capability numbers."""
    return sum(1 << number for number in numbers)


def effective() -> int:
    """Returns the effective set.

    Kernel: ``capget(2)``.
    """
    return _get()[0]


def permitted() -> int:
    """Returns the permitted set.

    Kernel: ``capget(2)``.
    """
    return _get()[1]


def bounding() -> int:
    """Returns the bounding set, as far as the kernel knows capabilities.

    Kernel: ``PR_CAPBSET_READ(2const)``.
    """
    found = 0
    for number in range(64):
        try:
            found |= libc.prctl(PR_CAPBSET_READ, number) << number
        except OSError as error:
            if error.errno != errno.EINVAL:  # the first number that does not exist
                raise
            break
    return found


def limit_bounding(keep: frozenset[int]) -> None:
    """Drops every capability that is not in ``keep`` from the bounding set.

    Raises:
        OSError: EPERM when there is one to drop and CAP_SETPCAP is not effective.

    Kernel: ``PR_CAPBSET_DROP(2const)``.
    """
    surplus = bounding() & ~mask(keep)
    while surplus:
        lowest = surplus & -surplus
        libc.prctl(PR_CAPBSET_DROP, lowest.bit_length() - 1)
        surplus ^= lowest


@cache
def others(keep: frozenset[int]) -> tuple[int, ...]:
    """Returns every capability that the kernel knows and ``keep`` does not hold.

    Raises:
        OSError: The kernel does not tell.

    Kernel: ``PR_CAPBSET_READ(2const)``.
    """
    number = 0
    found = []
    while _known(number):
        if number not in keep:
            found.append(number)
        number += 1
    return tuple(found)


def _known(number: int) -> bool:
    try:
        libc.prctl(PR_CAPBSET_READ, number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def drop_bounding(numbers: Iterable[int]) -> None:
    """Drops capabilities from the bounding set, whether they are in it or not.

    Allocates next to nothing, so it may run after fork.

    Raises:
        OSError: EPERM when CAP_SETPCAP is not effective.

    Kernel: ``PR_CAPBSET_DROP(2const)``.
    """
    for number in numbers:
        if _lean_prctl(PR_CAPBSET_DROP, number, 0, 0, 0):
            libc.prctl(PR_CAPBSET_DROP, number)


def limit_held(keep: frozenset[int]) -> None:
    """Gives up every capability held that is not in ``keep``, and all inheritable and ambient ones.

    Raises:
        OSError: The kernel answered with an errno.

    Kernel: ``capset(2)``, ``PR_CAP_AMBIENT(2const)``.
    """
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    kept = mask(keep)
    now_effective, now_permitted, _ = _get()
    _set(now_effective & kept, now_permitted & kept, 0)


def limit_to(keep: frozenset[int]) -> None:
    """Gives up every capability that is not in ``keep``, for this thread and all that it execs.

    Bounding set first: that takes CAP_SETPCAP, which ``keep`` may not hold.

    Raises:
        OSError: EPERM when the bounding set has to shrink and CAP_SETPCAP is not effective.

    Kernel: ``capset(2)``, ``PR_CAPBSET_DROP(2const)``, ``PR_CAP_AMBIENT(2const)``.
    """
    limit_bounding(keep)
    limit_held(keep)


def _get() -> tuple[int, int, int]:
    """Returns effective, permitted and inheritable."""
    header = ctypes.create_string_buffer(_HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0), _HEADER.size)
    data = ctypes.create_string_buffer(_DATA.size)
    libc.syscall("capget", X86_64["capget"], ctypes.addressof(header), ctypes.addressof(data))
    low = _DATA.unpack(data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def _set(effective_set: int, permitted_set: int, inheritable_set: int) -> None:
    sets = effective_set, permitted_set, inheritable_set
    words = [one & 0xFFFFFFFF for one in sets] + [one >> 32 for one in sets]
    header = ctypes.create_string_buffer(_HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0), _HEADER.size)
    data = ctypes.create_string_buffer(_DATA.pack(*words), _DATA.size)
    libc.syscall("capset", X86_64["capset"], ctypes.addressof(header), ctypes.addressof(data))
