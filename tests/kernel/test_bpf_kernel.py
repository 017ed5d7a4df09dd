"""The compiler, the checker and the interpreter against the running kernel.

A filter cannot be taken off again, so each one is installed in a forked child, which reports
numbers through a pipe. Calls that ignore their arguments stand for calls that do not: a filter that
looks at arguments answers them with an errno of its choosing, and that number is compared.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import traceback
from array import array
from typing import TYPE_CHECKING

import pytest

from pinfold.bpf import Arg, Case, Insn, SeccompData, assemble, check, run
from pinfold.linux import libc
from pinfold.syscalls.numbers import AARCH64, X86_64
from pinfold.uapi import bpf as abi
from pinfold.uapi import seccomp as uapi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from tests.unit.bpf.model import U64, Filter, argument_lists, jumps
from tests.unit.bpf.programs import ACCEPTED, ALLOW, REFUSED, op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NUMBERS, ARCH, X32 = {
    "x86_64": (X86_64, uapi.AUDIT_ARCH_X86_64, uapi.SECCOMP_RET_ERRNO | 71),
    "aarch64": (AARCH64, uapi.AUDIT_ARCH_AARCH64, None),
}[os.uname().machine]
MINUS_ONE = uapi.SECCOMP_RET_ERRNO | 72
IGNORANT = ("getppid", "gettid", "getuid", "geteuid", "getgid", "getegid")
SPECIAL = (-1,) if X32 is None else (-1, -2, 0x40000000, 0x40000000 + NUMBERS["getppid"])
LOW = 0xFFFFFFFF
CHILD_SECONDS = 60


def in_child(body: Callable[[], Iterable[int]]) -> tuple[list[int], int]:
    """Returns the numbers that body gave in a forked child, and how the child ended.

    The second is an exit code, or the negative number of the signal that killed it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
            with os.fdopen(writer, "wb") as pipe:
                for number in body():
                    pipe.write(struct.pack("=q", number))
        except BaseException:  # noqa: BLE001 (nothing may get out of the child)
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        sent = pipe.read()
    _, status = os.waitpid(child, 0)
    return [number for (number,) in struct.iter_unpack("=q", sent)], os.waitstatus_to_exitcode(
        status
    )


def install(program: Sequence[Insn]) -> int:
    """Installs a filter for good; returns 0 or the errno of the refusal."""
    code = array("B", assemble(program))
    fprog = array("B", abi.SOCK_FPROG.pack(len(program), code.buffer_info()[0]))
    return call(NUMBERS["seccomp"], uapi.SECCOMP_SET_MODE_FILTER, 0, fprog.buffer_info()[0])


def call(number: int, *args: int) -> int:
    """Makes a system call; returns 0 or its errno."""
    try:
        libc.syscall("call", number, *args)
    except OSError as exc:
        return exc.errno or -1
    return 0


def answer(value: int) -> int:
    """What ``call`` returns for a filter's ERRNO or ALLOW."""
    if value == uapi.SECCOMP_RET_ALLOW:
        return 0
    assert value & uapi.SECCOMP_RET_ACTION_FULL == uapi.SECCOMP_RET_ERRNO
    return value & uapi.SECCOMP_RET_DATA


def compare(program: Sequence[Insn], calls: Sequence[tuple[int, tuple[int, ...]]]) -> list[int]:
    """Asserts that kernel and interpreter answer alike; returns the answers."""

    def body() -> Iterable[int]:
        yield install(program)
        for number, args in calls:
            yield call(number, *args)

    expected = [
        answer(run(program, SeccompData(number, ARCH, 0, args)).value) for number, args in calls
    ]
    found, end = in_child(body)
    assert end == 0
    assert found[0] == 0
    assert found[1:] == expected
    return expected


# Compiled filters


def errno_list(*tests: tuple[Arg, ...], start: int = 1) -> list[Case]:
    return [Case(when, uapi.SECCOMP_RET_ERRNO | number) for number, when in enumerate(tests, start)]


def compare_lists(lists: dict[str, list[Case]]) -> list[int]:
    wanted = Filter(
        {NUMBERS[name]: cases for name, cases in lists.items()},
        arch=ARCH,
        minus_one=MINUS_ONE,
        x32=X32,
    )
    calls = [
        (NUMBERS[name], args) for name, cases in lists.items() for args in argument_lists(cases)
    ]
    calls += [(NUMBERS[name], ()) for name in IGNORANT]
    calls += [(number, ()) for number in SPECIAL]
    program = wanted.compile()
    expected = [answer(wanted.expect(SeccompData(number, ARCH, 0, args))) for number, args in calls]
    answers = compare(program, calls)
    assert answers == expected
    return answers


def test_arguments_are_told_apart_as_the_interpreter_says() -> None:
    answers = compare_lists(
        {
            "getppid": errno_list(
                (Arg(0, U64, 0x11223344_55667788),),
                (Arg(0, LOW, 0x55667788), Arg(5, U64, U64)),
                (Arg(0, LOW << 32, 0x11223344 << 32),),
                (Arg(0, 1 << 63, 1 << 63), Arg(1, 0xF0F, 0x101)),
                (Arg(1, 0xFF, 0), Arg(2, 0xFF, 0xFF)),
            ),
            "gettid": errno_list((Arg(3, 1, 1),), (Arg(3, 3, 2),), (Arg(3, 3, 0),), start=11),
            "getuid": errno_list((), start=21),
            "geteuid": errno_list((Arg(4, 0, 0), Arg(4, U64, 7)), (Arg(4, LOW, 7),), start=31),
        }
    )
    # Each case of these, an allowed call, and what -1 and numbers of x32 get.
    special = {72} if X32 is None else {71, 72}
    assert set(answers) == {0, *range(1, 6), 11, 12, 13, 21, 31, 32} | special


@pytest.mark.parametrize("seed", range(12))
def test_random_lists_are_told_apart_as_the_interpreter_says(seed: int) -> None:
    dice = random.Random(seed)

    def arg() -> Arg:
        masks = (U64, LOW, LOW << 32, 1 << dice.randrange(64), dice.getrandbits(64), 7)
        mask = dice.choice(masks)
        value = dice.choice((0, U64, dice.getrandbits(64), dice.randrange(8)))
        return Arg(dice.randrange(6), mask, value & mask)

    lists = {
        name: errno_list(
            *(tuple(arg() for _ in range(dice.randint(1, 2))) for _ in range(dice.randint(1, 4))),
            start=10 * place + 1,
        )
        for place, name in enumerate(IGNORANT)
    }
    assert len(set(compare_lists(lists))) > len(IGNORANT)


def test_jumps_too_far_for_eight_bits_lead_to_the_right_place() -> None:
    # Numbers that no kernel has, so whatever is not ENOSYS is the filter's answer.
    shared = [Case((Arg(0, LOW, 1),), uapi.SECCOMP_RET_ERRNO | 4001)]
    first = 2000
    lists = {
        first + place: [Case((), uapi.SECCOMP_RET_ERRNO | 1000 + place)] if place % 3 else shared
        for place in range(1200)
    }
    program = Filter(lists, arch=ARCH, minus_one=MINUS_ONE, x32=X32).compile()
    assert jumps(program) > 1
    calls = [(number, (argument,)) for number in lists for argument in (1, U64)]
    listed = [(number, args) for number, args in calls if number % 3 != first % 3 or args == (1,)]
    assert len(set(compare(program, listed))) == 801


def test_a_call_of_another_architecture_is_killed() -> None:
    other = uapi.AUDIT_ARCH_I386
    program = Filter({}, arch=other, minus_one=MINUS_ONE, x32=X32).compile()
    assert (
        run(program, SeccompData(NUMBERS["getppid"], ARCH)).value == uapi.SECCOMP_RET_KILL_PROCESS
    )
    found, end = in_child(lambda: [install(program), call(NUMBERS["getppid"])])
    assert (found, end) == ([], -signal.SIGSYS)


# The interpreter on the whole language


RETURNS = frozenset({abi.BPF_RET | abi.BPF_K, abi.BPF_RET | abi.BPF_A})
BODY = 40


def random_body(dice: random.Random) -> list[Insn]:
    """Instructions of every kind but returns, none of which the checker refuses."""
    codes = [code for code in range(0x100) if _accepts(code) and code not in RETURNS]
    return [_random_operand(dice, dice.choice(codes), BODY - place - 1) for place in range(BODY)]


def _random_operand(dice: random.Random, code: int, left: int) -> Insn:
    kind, operation = code & 7, code & 0xF0
    k = dice.choice((dice.getrandbits(32), dice.randrange(64)))
    near = min(left, 4)
    if code == abi.BPF_LD | abi.BPF_ABS:
        # Not the instruction pointer, which only the kernel knows.
        k = dice.choice((0, 4, *range(16, 64, 4)))
    elif kind in {abi.BPF_ST, abi.BPF_STX} or (
        kind in {abi.BPF_LD, abi.BPF_LDX} and operation == abi.BPF_MEM
    ):
        k = dice.randrange(4)
    elif code == abi.BPF_JMP | abi.BPF_JA:
        k = dice.randint(0, near)
    elif kind == abi.BPF_JMP:
        return Insn(code, dice.randint(0, near), dice.randint(0, near), k)
    elif kind == abi.BPF_ALU and operation in {abi.BPF_LSH, abi.BPF_RSH}:
        k %= 32
    elif kind == abi.BPF_ALU and operation == abi.BPF_DIV:
        k = k or 1
    return op(code, k)


def _accepts(code: int) -> bool:
    return _passes([op(abi.BPF_ST, 4), op(code, 4), *[ALLOW] * 6])


def _passes(program: Sequence[Insn]) -> bool:
    try:
        check(program)
    except ValueError:
        return False
    return True


def only_getppid(body: Sequence[Insn]) -> list[Insn]:
    """Allows all calls but ``getppid``, which is left to body."""
    number = NUMBERS["getppid"]
    return [
        op(abi.BPF_LD | abi.BPF_ABS, 0),
        Insn(abi.BPF_JMP | abi.BPF_JEQ, 1, 0, number),
        ALLOW,
        *body,
    ]


def mixed_state() -> list[Insn]:
    """Returns ERRNO with eleven bits of a mixture of both registers and the scratch words 0 to 3.

    Argument 5 says at which bit they begin.
    """
    mixed = [
        insn
        for word in (14, 0, 1, 2, 3)
        for insn in (
            op(abi.BPF_ALU | abi.BPF_MUL, 0x9E3779B1),
            op(abi.BPF_LDX | abi.BPF_MEM, word),
            op(abi.BPF_ALU | abi.BPF_ADD | abi.BPF_X),
        )
    ]
    return [
        op(abi.BPF_STX, 14),
        *mixed,
        op(abi.BPF_ST, 15),
        op(abi.BPF_LD | abi.BPF_ABS, 56),
        op(abi.BPF_MISC | abi.BPF_TAX),
        op(abi.BPF_LD | abi.BPF_MEM, 15),
        op(abi.BPF_ALU | abi.BPF_RSH | abi.BPF_X),
        op(abi.BPF_ALU | abi.BPF_AND, 0x7FF),
        op(abi.BPF_ALU | abi.BPF_OR, uapi.SECCOMP_RET_ERRNO),
        op(abi.BPF_RET | abi.BPF_A),
    ]


def programs() -> list[list[Insn]]:
    dice = random.Random(20)
    # All that a program can change starts out as something that differs from call to call.
    stores = [
        insn
        for word in range(4)
        for insn in (op(abi.BPF_LD | abi.BPF_ABS, 16 + 8 * word), op(abi.BPF_ST, word))
    ]
    stores.append(op(abi.BPF_LDX | abi.BPF_MEM, 0))
    return [only_getppid([*stores, *random_body(dice), *mixed_state()]) for _ in range(60)]


def test_random_programs_run_alike() -> None:
    dice = random.Random(21)
    divides = abi.BPF_ALU | abi.BPF_DIV | abi.BPF_X
    ran = set()
    answers = set()
    for program in programs():
        check(program)
        calls = []
        for _ in range(20):
            first = [dice.choice((0, 1, U64, dice.getrandbits(64))) for _ in range(5)]
            for shift in (0, 11, 22):
                args = (*first, shift)
                path: list[int] = []
                data = SeccompData(NUMBERS["getppid"], ARCH, 0, args)
                value = run(program, data, path).value
                ran |= {program[pc].code for pc in path}
                # Ended by a division by zero, which kills: that has a test of its own.
                if program[path[-1]].code != divides:
                    calls.append((NUMBERS["getppid"], args))
                else:
                    assert value == uapi.SECCOMP_RET_KILL_THREAD
        answers |= set(compare(program, calls))
    assert ran == {code for code in range(0x100) if _accepts(code)} - {abi.BPF_RET | abi.BPF_K}
    assert len(answers) > 500


def test_a_division_by_an_index_of_zero_kills() -> None:
    divide = op(abi.BPF_ALU | abi.BPF_DIV | abi.BPF_X)
    program = only_getppid([op(abi.BPF_LD | abi.BPF_IMM, 7), divide, ALLOW])
    data = SeccompData(NUMBERS["getppid"], ARCH)
    assert run(program, data).value == uapi.SECCOMP_RET_KILL_THREAD
    found, end = in_child(lambda: [install(program), call(NUMBERS["getppid"])])
    assert (found, end) == ([], -signal.SIGSYS)
    # With any other index the same program goes on.
    program[3] = op(abi.BPF_LDX | abi.BPF_IMM, 7)
    assert compare(program, [(NUMBERS["getppid"], ())]) == [0]


# The checker


def test_kernel_accepts_and_refuses_what_the_checker_does() -> None:
    listed = ACCEPTED | REFUSED
    listed |= {f"random {place}": program for place, program in enumerate(programs())}
    expected = {name: 0 if _passes(program) else errno.EINVAL for name, program in listed.items()}
    found, end = in_child(lambda: [install(program) for program in listed.values()])
    assert end == 0
    assert dict(zip(listed, found, strict=True)) == expected
    assert {name for name, number in expected.items() if number} == REFUSED.keys()


def test_kernel_knows_the_same_codes() -> None:
    def program(code: int) -> list[Insn]:
        # An operand that suits every code: a word's offset, a scratch word, a distance, a shift.
        k = uapi.SECCOMP_RET_ALLOW if code & 7 == abi.BPF_RET else 4
        return [
            op(abi.BPF_LDX | abi.BPF_IMM, 1),
            op(abi.BPF_LD | abi.BPF_IMM, uapi.SECCOMP_RET_ALLOW),
            op(abi.BPF_ST, 4),
            op(code, k),
            *[ALLOW] * 6,
        ]

    codes = [
        code | high for high in (0, *(1 << bit for bit in range(8, 16))) for code in range(256)
    ]
    found, end = in_child(lambda: [install(program(code)) for code in codes])
    assert end == 0
    expected = [0 if _passes(program(code)) else errno.EINVAL for code in codes]
    assert dict(zip(codes, found, strict=True)) == dict(zip(codes, expected, strict=True))
    assert expected.count(0) == 41
