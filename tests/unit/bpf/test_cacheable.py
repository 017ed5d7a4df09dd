"""Calls that are none of our business skip the filter: the kernel sees so when it is installed.

Since Linux 5.11 it follows each filter for each call number as far as it needs no argument, and
marks the calls that are always allowed (``seccomp_is_const_allow`` in kernel/seccomp.c). What it
can follow is little. A filter that does something else before it has decided is run each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from pinfold import bpf
from pinfold.launch.filters import sandbox_filter
from pinfold.pins.install import DELIVERY_CALL
from pinfold.policy.handlers.policy import Policy
from pinfold.supervisor import shapes
from pinfold.syscalls.neighbours import BY_NUMBER, NEIGHBOURS
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.uapi import bpf as code
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pinfold.bpf import Insn
    from pinfold.supervisor.shapes import Shape

SECRET: Final = (0x1122334455667788, 0x99AABBCCDDEEFF00)
LAST: Final = max(X86_64.values())

READS_A_WORD: Final = code.BPF_LD | code.BPF_W | code.BPF_ABS
COMPARES: Final[dict[int, Callable[[int, int], bool]]] = {
    code.BPF_JMP | code.BPF_JEQ | code.BPF_K: lambda a, k: a == k,
    code.BPF_JMP | code.BPF_JGE | code.BPF_K: lambda a, k: a >= k,
    code.BPF_JMP | code.BPF_JGT | code.BPF_K: lambda a, k: a > k,
    code.BPF_JMP | code.BPF_JSET | code.BPF_K: lambda a, k: bool(a & k),
}
HOT: Final = {
    *("read", "write", "close", "mmap", "munmap", "mprotect", "futex", "lseek", "fstat", "pread64"),
    *("brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "poll", "epoll_wait", "fcntl"),
    *("getdents64", "wait4", "clock_gettime", "nanosleep", "dup2", "pipe2", "gettid", "recvfrom"),
    *("writev", "sched_yield", "exit_group", "getrandom", "set_robust_list", "kill", "tgkill"),
}
"""Calls that programs make most, of those that nobody judges."""


def is_cached(program: Sequence[Insn], number: int, arch: int = abi.AUDIT_ARCH_X86_64) -> bool:
    """Whether the kernel would find that a call is always allowed: its rules, and no more."""
    value, at = 0, 0
    while at < len(program):
        insn = program[at]
        if insn.code == READS_A_WORD:
            if insn.k not in (0, 4):  # the number, the architecture
                return False
            value = (number, arch)[insn.k // 4]
        elif insn.code == code.BPF_RET | code.BPF_K:
            return insn.k == abi.SECCOMP_RET_ALLOW
        elif insn.code == code.BPF_JMP | code.BPF_JA:
            at += insn.k
        elif insn.code in COMPARES:
            at += insn.jt if COMPARES[insn.code](value, insn.k) else insn.jf
        elif insn.code == code.BPF_ALU | code.BPF_AND | code.BPF_K:
            value &= insn.k
        else:
            return False
        at += 1
    raise AssertionError("the program ran off its end")


def compiled(found: Mapping[int, Shape], **options: object) -> list[Insn]:
    filtered = sandbox_filter(
        found,
        SECRET,
        neighbours={number for number in BY_NUMBER if not found[number].judged},
        **options,  # type: ignore[arg-type]
    )
    return bpf.disassemble(filtered)


def filters() -> dict[str, tuple[list[Insn], set[int]]]:
    """Filters of sandboxes as they are, and the calls that each traps, refuses or looks into."""
    wanted = {}
    always = {X86_64[one.name] for one in REFUSED} | {DELIVERY_CALL}
    for name, base in (("nothing", {}), ("paths", shapes.PATHS), ("everything", shapes.EVERYTHING)):
        found = shapes.counted(base, NEIGHBOURS)
        forms = shapes.forms_of(found, {}, policy=False)
        wanted[name] = compiled(found, forms=forms), found.keys() | always
    for name in ("workspace", "agent", "offline"):
        judge = Policy.load(f"builtin:{name}").judge(report=print)
        found = shapes.without(shapes.with_calls({}, judge.calls), judge.passing)
        found = shapes.counted(found, NEIGHBOURS)
        forms = shapes.forms_of(found, judge.passing, policy=True)
        program = compiled(found, forms=forms, whole=judge.whole, fixed_addresses=judge.addresses)
        looked = {X86_64["setsockopt"]} if judge.addresses else set()
        wanted[name] = program, found.keys() | always | looked
    return wanted


@pytest.mark.parametrize(
    "name", ["nothing", "paths", "everything", "workspace", "agent", "offline"]
)
def test_what_is_not_trapped_skips_the_filter(name: str) -> None:
    program, looked_into = filters()[name]
    for number in range(LAST + 50):
        assert is_cached(program, number) == (number not in looked_into), number
    if name != "everything":
        assert not {number for number in looked_into if number in {X86_64[hot] for hot in HOT}}


def test_what_is_cached_is_what_is_answered() -> None:
    chosen = [(0,) * 6, (1,) * 6, ((1 << 64) - 1,) * 6, (*SECRET, 0, 0, 0, 0), (0, 0, 0, 0x1000)]
    for program, _ in filters().values():
        for number in range(LAST + 50):
            if is_cached(program, number):
                for args in chosen:
                    data = bpf.SeccompData(number, abi.AUDIT_ARCH_X86_64, 1 << 47, args)
                    assert bpf.run(program, data).value == abi.SECCOMP_RET_ALLOW


def test_no_call_of_another_kind_is() -> None:
    for program, _ in filters().values():
        for number in range(LAST + 50):
            assert not is_cached(program, number, abi.AUDIT_ARCH_I386)
            assert not is_cached(program, number | abi.X32_SYSCALL_BIT)


def test_an_open_that_only_reads_is_let_through_in_few_steps() -> None:
    program, _ = filters()["workspace"]
    data = bpf.SeccompData(X86_64["openat"], abi.AUDIT_ARCH_X86_64, 0, (0, 1, 0o2000000))
    result = bpf.run(program, data)
    assert result.value == abi.SECCOMP_RET_ALLOW
    assert result.steps <= 16
