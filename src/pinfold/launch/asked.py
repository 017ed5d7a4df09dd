"""What a filter does about certain calls, by asking the filter itself.

Which calls go through is worked out in several steps, from rules to instructions. What must hold
whatever these do is asked of the instructions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pinfold import bpf
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi.seccomp import AUDIT_ARCH_X86_64, SECCOMP_RET_TRACE

if TYPE_CHECKING:
    from collections.abc import Iterable

_READING: Final = (os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, os.O_RDWR, os.O_RDWR | os.O_CLOEXEC)
"""Flags of an open after which the file can be read."""


def traps_reading(code: bytes, calls: Iterable[str]) -> bool:
    """Returns whether a filter traps every open by name that a file can be read after.

    Args:
        code: The filter, as ``struct sock_filter`` bytes.
        calls: Calls that have to be trapped as well, with zero for all arguments.
    """
    program = bpf.disassemble(code)
    cases: list[tuple[str, tuple[int, ...]]] = [(name, ()) for name in calls]
    cases.append(("openat2", ()))
    for how in _READING:
        cases += [("open", (0, how)), ("openat", (0, 0, how))]
    return all(
        bpf.run(program, bpf.SeccompData(X86_64[name], AUDIT_ARCH_X86_64, 0, arguments)).value
        == SECCOMP_RET_TRACE
        for name, arguments in cases
    )
