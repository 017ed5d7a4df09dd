"""What a filter of ``notify_filter`` answers, by the interpreter."""

from __future__ import annotations

import errno
import random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinfold
from pinfold.bpf import Arg, SeccompData, disassemble, run
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import seccomp as abi

LOW: Final = 0xFFFFFFFF
NOTIFY: Final = abi.SECCOMP_RET_USER_NOTIF
ALLOW: Final = abi.SECCOMP_RET_ALLOW
KILL: Final = abi.SECCOMP_RET_KILL_PROCESS


def refused(number: int) -> int:
    return abi.SECCOMP_RET_ERRNO | number


def answer(code: bytes, name: str | int, *args: int, arch: int = abi.AUDIT_ARCH_X86_64) -> int:
    number = NR[name] if isinstance(name, str) else name
    return run(disassemble(code), SeccompData(number, arch, 0, args)).value


def test_traps_and_refusals() -> None:
    code = pinfold.notify_filter(["openat", NR["connect"]], {"mount": errno.EPERM, 39: 0})
    assert answer(code, "openat") == answer(code, "connect") == NOTIFY
    assert answer(code, "mount") == refused(errno.EPERM)
    assert answer(code, "getpid") == refused(0)
    assert answer(code, "read") == ALLOW


def test_nothing_at_all() -> None:
    assert {answer(pinfold.notify_filter([]), name) for name in NR} == {ALLOW}


def test_other_calling_conventions() -> None:
    code = pinfold.notify_filter(["openat"])
    for arch in (abi.AUDIT_ARCH_I386, abi.AUDIT_ARCH_AARCH64):
        assert answer(code, "openat", arch=arch) == KILL
    assert answer(code, abi.X32_SYSCALL_BIT | NR["openat"]) == KILL
    assert answer(code, -1) == refused(errno.ENOSYS)


def test_tests_of_arguments() -> None:
    code = pinfold.notify_filter(
        [("socket", Arg(0, LOW, 2)), ("ioctl", Arg(0, LOW, 3), Arg(1, LOW, 4))],
        {("socket", Arg(1, 0xF, 2)): errno.EACCES},
    )
    assert answer(code, "socket", 2, 1) == NOTIFY
    assert answer(code, "socket", 2 | 1 << 32, 1) == NOTIFY
    assert answer(code, "socket", 1, 1) == ALLOW
    assert answer(code, "ioctl", 3, 4) == NOTIFY
    assert answer(code, "ioctl", 3, 5) == answer(code, "ioctl", 2, 4) == ALLOW
    # Where both hold, the refusal wins.
    assert answer(code, "socket", 2, 2) == refused(errno.EACCES)


def test_any_iterable_will_do() -> None:
    code = pinfold.notify_filter(name for name in ("openat", "connect"))
    assert answer(code, "connect") == NOTIFY


@given(st.integers(0, LOW), st.integers(0, LOW))
def test_all_values_but_one(value: int, asked: int) -> None:
    # How to refuse everything else, as examples/named_sockets.py does.
    bits = [1 << bit for bit in range(32)]
    code = pinfold.notify_filter(
        [], {("socket", Arg(0, bit, bit & ~value)): errno.EACCES for bit in bits}
    )
    assert answer(code, "socket", value) == ALLOW
    assert answer(code, "socket", asked) == (ALLOW if asked == value else refused(errno.EACCES))
    for bit in bits:
        assert answer(code, "socket", value ^ bit) == refused(errno.EACCES)


def test_every_call_by_itself() -> None:
    names = random.Random(1).sample(sorted(NR), 60)
    code = pinfold.notify_filter(names)
    assert {name for name in NR if answer(code, name) == NOTIFY} == set(names)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("opeant", "openat"),
        ("conect", "connect"),
        ("stat64", "stat"),
        ("OPENAT", None),
        ("", None),
    ],
)
def test_unknown_names(wrong: str, hint: str | None) -> None:
    for trap, refuse in (([wrong], {}), ([], {wrong: 1}), ([(wrong, Arg(0, 1, 1))], {})):
        with pytest.raises(pinfold.PolicyError, match=f"no system call '{wrong}'") as caught:
            pinfold.notify_filter(trap, refuse)
        if hint is not None:
            assert hint in str(caught.value).partition("did you mean")[2]


@pytest.mark.parametrize(
    ("trap", "refuse"),
    [
        ("openat", {}),
        ([None], {}),
        ([True], {}),
        ([()], {}),
        ([-1], {}),
        ([1 << 30], {}),
        ([("openat", 3)], {}),
        ([("openat", Arg(6, 1, 1))], {}),
        ([("openat", Arg(0, 1, 2))], {}),
        ([("openat", Arg(0, 1 << 64, 0))], {}),
        ([], {"openat": -1}),
        ([], {"openat": 4096}),
    ],
)
def test_what_cannot_be_meant(trap: Any, refuse: Any) -> None:
    with pytest.raises(pinfold.PolicyError):
        pinfold.notify_filter(trap, refuse)


def test_too_long_for_the_kernel() -> None:
    with pytest.raises(pinfold.PolicyError, match="4096"):
        pinfold.notify_filter([("socket", Arg(0, LOW, value)) for value in range(5000)])
