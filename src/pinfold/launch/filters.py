"""Filters of x86-64 programs: what all of ours have in common."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pinfold import bpf
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def assembled(cases: Mapping[int, Sequence[bpf.Case]]) -> bytes:
    """Returns a filter as ``struct sock_filter`` bytes.

    Calls that are not listed go through. Calls of another architecture, and x32 calls, kill the
    process: their numbers mean something else.

    Args:
        cases: By system call number, the decision list of that call.

    Raises:
        ValueError: As from ``bpf.compile_filter``.
    """
    return bpf.assemble(
        bpf.compile_filter(
            cases,
            default=abi.SECCOMP_RET_ALLOW,
            arch=abi.AUDIT_ARCH_X86_64,
            wrong_arch=abi.SECCOMP_RET_KILL_PROCESS,
            x32=abi.SECCOMP_RET_KILL_PROCESS,
            minus_one=abi.SECCOMP_RET_ERRNO | errno.ENOSYS,
        )
    )
