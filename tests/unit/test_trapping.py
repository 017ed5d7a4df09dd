"""What a filter answers where nobody traces, and what is trapped then."""

from __future__ import annotations

import errno

import pytest

from pinfold import bpf
from pinfold.policy.rules import PathRules
from pinfold.syscalls.forms import Form
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.trapping import Trapping
from pinfold.uapi import prctl, ptrace
from pinfold.uapi import seccomp as abi
from tests.judges import FunctionJudge

NOTIFY = abi.SECCOMP_RET_USER_NOTIF
ALLOW = abi.SECCOMP_RET_ALLOW
THREAD = 0x3D0F00
"""The flags by which the C library makes a thread."""
FORK = 0x1200011
"""Those by which it makes a process."""
SECRET = (0x1234_5678_9ABC_DEF0, 0x0FED_CBA9_8765_4321)


def refused(number: int) -> int:
    return abi.SECCOMP_RET_ERRNO | number


def trapping(
    *denied: bytes, traced: bool = False, limits: bool = False, judge: FunctionJudge | None = None
) -> Trapping:
    return Trapping(
        PathRules([], denied),
        judge,
        inspect_all=False,
        logs=False,
        counts=False,
        judge_all=False,
        dry=False,
        traced=traced,
        limits=limits,
    )


def answer(code: bytes, name: str, *args: int) -> int:
    data = bpf.SeccompData(NR[name], abi.AUDIT_ARCH_X86_64, 0, (*args, *(0,) * (6 - len(args))))
    return bpf.run(bpf.disassemble(code), data).value


CASES = [
    ("openat", (), NOTIFY),
    ("getpid", (), ALLOW),
    ("getpid", SECRET, ALLOW),
    ("ptrace", (ptrace.PTRACE_TRACEME,), NOTIFY),
    ("ptrace", (ptrace.PTRACE_SEIZE,), ALLOW),
    ("clone", (FORK,), ALLOW),
    ("clone", (THREAD,), ALLOW),
    ("clone", (FORK | prctl.CLONE_UNTRACED,), ALLOW),
    ("clone", (FORK | prctl.CLONE_PARENT,), refused(errno.EPERM)),
    ("clone", (FORK | prctl.CLONE_FS,), NOTIFY),
    ("clone", (FORK | prctl.CLONE_FILES,), NOTIFY),
    ("clone", (prctl.CLONE_FS | prctl.CLONE_FILES | prctl.CLONE_VM,), NOTIFY),
    ("clone3", (), refused(errno.ENOSYS)),
    ("fork", (), ALLOW),
    ("seccomp", (abi.SECCOMP_SET_MODE_FILTER,), ALLOW),
    ("madvise", (0, 0, 10), refused(errno.EINVAL)),
    ("io_uring_setup", (), refused(errno.ENOSYS)),
    ("sched_setaffinity", (1,), NOTIFY),
    ("sched_setaffinity", (0,), ALLOW),
]


@pytest.mark.parametrize(("name", "args", "expected"), CASES)
def test_answers_where_nobody_traces(name: str, args: tuple[int, ...], expected: int) -> None:
    one = trapping(b"/etc/shadow")
    assert answer(one.filter(one.shapes(), None), name, *args) == expected


def test_no_call_goes_to_a_tracer() -> None:
    one = trapping(b"/etc/shadow", limits=True)
    program = bpf.disassemble(one.filter(one.shapes(), None))
    returned = {insn.k & abi.SECCOMP_RET_ACTION_FULL for insn in program if insn.code & 7 == 6}
    assert NOTIFY in returned
    assert abi.SECCOMP_RET_TRACE not in returned


def test_tracing_is_refused_where_somebody_traces() -> None:
    one = trapping(b"/etc/shadow", traced=True)
    code = one.filter(one.shapes(), SECRET)
    assert answer(code, "openat") == abi.SECCOMP_RET_TRACE
    assert answer(code, "getpid", *SECRET) == NOTIFY
    for request in (ptrace.PTRACE_TRACEME, ptrace.PTRACE_SEIZE):
        assert answer(code, "ptrace", request) == refused(errno.EPERM)
    assert answer(code, "clone", FORK | prctl.CLONE_UNTRACED) == refused(errno.EPERM)
    assert answer(code, "clone", FORK | prctl.CLONE_PARENT) == ALLOW


def test_without_rules_only_what_reaches_others_is_trapped() -> None:
    one = trapping()
    code = one.filter(one.shapes(), None)
    assert answer(code, "openat") == ALLOW
    assert answer(code, "execve") == ALLOW
    assert answer(code, "clone", FORK | prctl.CLONE_FS) == ALLOW
    assert answer(code, "ptrace", ptrace.PTRACE_TRACEME) == NOTIFY
    assert answer(code, "prlimit64", 1, 0, 1) == NOTIFY


def test_the_first_exec_is_seen_where_there_are_limits() -> None:
    one = trapping(limits=True)
    assert answer(one.filter(one.shapes(), None), "execve") == NOTIFY


def test_a_policy_on_clone_does_not_hide_who_shares() -> None:
    judge = FunctionJudge(lambda _: pytest.fail("not asked"), {"clone": frozenset()})
    judge.passing = {"clone": (Form(((0, prctl.CLONE_VM, 0),), passes=True),)}
    one = trapping(judge=judge)
    code = one.filter(one.shapes(), None)
    assert answer(code, "clone", FORK) == ALLOW
    assert answer(code, "clone", THREAD) == NOTIFY
    assert answer(code, "clone", FORK | prctl.CLONE_FS) == NOTIFY
