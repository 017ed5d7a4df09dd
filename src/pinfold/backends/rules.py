"""The argument rules of the two redirect requests, as the native interface has them.

Every back end refuses what the kernel would refuse before anything is done to a task, with the
kernel's errno (EINVAL) and a text that names the rule and the value. What only the live mappings
can tell (EFAULT, EEXIST) is not decided here: an access that wraps around the end of memory is
well-formed, and lies in no pin.

Values are registers, and Python's ints are wider. An argument may be given as the number that C
code would write: ``AT_FDCWD`` (-100) stands for its 64 bits. Addresses, sizes and lengths are never
negative.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.uapi.mman import F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, PAGE_SIZE
from pinfold.uapi.seccomp import SECCOMP_REDIRECT_FLAG_CONTINUE

if TYPE_CHECKING:
    from collections.abc import Mapping

ARGUMENTS: Final = 6
"""Argument registers of a call."""

_U64: Final = (1 << 64) - 1
_LOWEST: Final = -(1 << 63)

Six = tuple[int, int, int, int, int, int]


class Redirection(NamedTuple):
    """The arguments of a redirect, in the form of ``struct seccomp_notif_send_redirect``."""

    args_mask: int
    """A bit for each argument that is replaced (``u32``)."""
    ptr_mask: int
    """A bit for each of these that is a pointer (``u32``)."""
    args: Six
    """New values (``u64``), 0 where nothing is replaced."""
    lengths: Six
    """Bytes that may be read at a pointer (``u64``), 0 for anything else."""


def check_install(flags: int, address: int, size: int) -> None:
    """Checks the arguments of a pin install.

    Args:
        flags: None are defined (``u32``).
        address: Where the pin starts (``u64``). 0 passes: it asks the kernel to choose, where the
            back end can do that.
        size: Bytes (``u64``).

    Raises:
        OSError: EINVAL.
    """
    if flags != 0:
        raise _invalid("pin install: flags must be 0", flags)
    if size <= 0:
        raise _invalid("pin install: size must be greater than 0", size)
    if size > _U64 or size % PAGE_SIZE:
        raise _invalid(f"pin install: size must be a multiple of {PAGE_SIZE}", size)
    if not 0 <= address <= _U64 or address % PAGE_SIZE:
        raise _invalid(f"pin install: address must be a multiple of {PAGE_SIZE}", address)
    if address + size > _U64:
        raise _invalid("pin install: address + size must be less than 2^64", address + size)


def redirect_masks(args: Mapping[int, int], ptr_len: Mapping[int, int], flags: int) -> Redirection:
    """Returns a redirect's arguments as masks and registers.

    Args:
        args: New values by argument index: 0 to 2^64 - 1, or down to -2^63 for their 64 bits.
        ptr_len: Bytes that may be read at those of ``args`` that are pointers, by index.
        flags: ``SECCOMP_REDIRECT_FLAG_CONTINUE``.

    Raises:
        OSError: EINVAL.
    """
    if flags != SECCOMP_REDIRECT_FLAG_CONTINUE:
        raise _invalid("redirect: flags must be SECCOMP_REDIRECT_FLAG_CONTINUE (1)", flags)
    if not args:
        raise OSError(errno.EINVAL, "redirect: at least one argument must be replaced, got none")
    values = [0] * ARGUMENTS
    lengths = [0] * ARGUMENTS
    args_mask = ptr_mask = 0
    for index, value in args.items():
        if not 0 <= index < ARGUMENTS:
            raise _invalid("redirect: an argument's index must be 0 to 5", index)
        if not _LOWEST <= value <= _U64:
            raise _invalid(f"redirect: argument {index} must fit 64 bits", value)
        values[index] = value & _U64
        args_mask |= 1 << index
    for index, length in ptr_len.items():
        if index not in args:
            raise _invalid("redirect: a length must be that of a replaced argument", index)
        if not 0 < length <= _U64:
            raise _invalid(f"redirect: length of argument {index} must be 1 to 2^64 - 1", length)
        lengths[index] = length
        ptr_mask |= 1 << index
    return Redirection(args_mask, ptr_mask, _six(values), _six(lengths))


def check_seals(seals: int, needed: int = 0) -> None:
    """Checks that nobody but the holder of an earlier mapping can write a pin's memfd.

    Args:
        seals: The memfd's seals (``F_SEAL_*``).
        needed: Further seals that must all be there.

    Raises:
        OSError: EINVAL.
    """
    if not seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        raise _invalid("memfd must have F_SEAL_WRITE or F_SEAL_FUTURE_WRITE", seals)
    if needed & ~seals:
        raise _invalid(f"memfd must have the seals {needed:#x}", seals)


def _six(values: list[int]) -> Six:
    a, b, c, d, e, f = values
    return a, b, c, d, e, f


def _invalid(rule: str, value: int) -> OSError:
    # Hexadecimal: Python refuses to write very large numbers in decimal.
    return OSError(errno.EINVAL, f"{rule}, got {value:#x}")
