"""Which forms of the calls about another task come to the supervisor."""

from __future__ import annotations

import errno

import pytest

from pinfold import bpf
from pinfold.launch.filters import sandbox_filter
from pinfold.syscalls.neighbours import BY_NUMBER
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import seccomp as abi

ALLOW, TRAP = abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_TRACE
EPERM = abi.SECCOMP_RET_ERRNO | errno.EPERM
HIGH = 0xABCD << 32
"""Bits that the kernel does not look at in a C int."""


def answer(name: str, *args: int, judged: bool = False) -> int:
    code = sandbox_filter(BY_NUMBER, (1, 2), neighbours=() if judged else BY_NUMBER)
    program = bpf.disassemble(code)
    bpf.check(program)
    six = (*args, *(0,) * (6 - len(args)))
    return bpf.run(program, bpf.SeccompData(X86_64[name], abi.AUDIT_ARCH_X86_64, 0, six)).value


@pytest.mark.parametrize(
    ("name", "args", "wanted"),
    [
        ("prlimit64", (0, 7, 0x1000), ALLOW),
        ("prlimit64", (HIGH, 7, 0x1000), ALLOW),
        ("prlimit64", (1, 7, 0x1000), TRAP),
        ("prlimit64", (HIGH | 1, 7, 0x1000), TRAP),
        ("prlimit64", (0xFFFFFFFF, 7, 0x1000), TRAP),
        ("prlimit64", (1, 7, 0), ALLOW),
        ("prlimit64", (1, 7, HIGH), TRAP),  # a pointer: all of it counts
        ("sched_setaffinity", (0, 8, 0x1000), ALLOW),
        ("sched_setaffinity", (1, 8, 0x1000), TRAP),
        ("sched_setscheduler", (0, 3, 0x1000), ALLOW),
        ("sched_setscheduler", (1, 3, 0x1000), TRAP),
        ("sched_setparam", (0, 0x1000), ALLOW),
        ("sched_setparam", (1, 0x1000), TRAP),
        ("sched_setattr", (0, 0x1000), ALLOW),
        ("sched_setattr", (1, 0x1000), TRAP),
        ("setpriority", (0, 0, 5), ALLOW),
        ("setpriority", (HIGH, HIGH, 5), ALLOW),
        ("setpriority", (0, 1, 5), TRAP),
        ("setpriority", (1, 0, 5), EPERM),
        ("setpriority", (HIGH | 2, 0, 5), EPERM),
        ("setpriority", (3, 0, 5), TRAP),
        ("ioprio_set", (1, 0, 5), ALLOW),
        ("ioprio_set", (1, 1, 5), TRAP),
        ("ioprio_set", (0, 0, 5), TRAP),
        ("ioprio_set", (2, 0, 5), EPERM),
        ("ioprio_set", (HIGH | 3, 0, 5), EPERM),
    ],
)
def test_forms(name: str, args: tuple[int, ...], wanted: int) -> None:
    assert answer(name, *args) == wanted
    # Where a rule is about the call, it sees every form that is not refused.
    assert answer(name, *args, judged=True) == (EPERM if wanted == EPERM else TRAP)
