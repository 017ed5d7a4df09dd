from __future__ import annotations

from math import ceil, log2

import pytest

from pinfold.bpf import Arg, Case, SeccompData, check, compile_filter, run
from pinfold.bpf.asm import Graph
from pinfold.bpf.compile import _flatten as flatten
from pinfold.bpf.compile import _with_facts as with_facts
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import bpf as abi
from pinfold.uapi.seccomp import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_TRACE,
)
from tests.unit.bpf.model import U64, Coverage, Filter, jumps

LOW = 0xFFFFFFFF
TRACED = (Case((), SECCOMP_RET_TRACE),)


def errno(number: int) -> Case:
    return Case((), SECCOMP_RET_ERRNO | number)


def compile_cases(*cases: Case) -> None:
    Filter({1: cases}).compile()


def returns(wanted: Filter) -> list[int]:
    return [insn.k for insn in wanted.compile() if insn.code == abi.BPF_RET | abi.BPF_K]


# What is refused


def test_argument_that_does_not_exist_is_refused() -> None:
    for index in (-1, 6):
        with pytest.raises(
            ValueError, match=rf"system call 1, case 0: there is no argument {index}"
        ):
            compile_cases(Case((Arg(index, 1, 1),), 0))


def test_test_that_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"case 1: argument 2 under mask 0x6 can never equal 0x1"):
        compile_cases(errno(1), Case((Arg(2, 6, 1),), 0))


@pytest.mark.parametrize(("mask", "value"), [(U64 + 1, 0), (-1, 0), (U64, U64 + 1), (U64, -1)])
def test_test_of_more_than_64_bits_is_refused(mask: int, value: int) -> None:
    with pytest.raises(ValueError, match=r"argument 0 does not fit 64 bits"):
        compile_cases(Case((Arg(0, mask, value),), 0))


@pytest.mark.parametrize("action", [-1, 1 << 32])
def test_action_of_more_than_32_bits_is_refused(action: int) -> None:
    with pytest.raises(ValueError, match=r"system call 1, case 0: the action .* does not fit"):
        compile_cases(Case((), action))


@pytest.mark.parametrize("name", ["default", "arch", "wrong_arch", "minus_one", "x32"])
def test_parameters_of_more_than_32_bits_are_refused(name: str) -> None:
    good = {"default": 0, "arch": 0, "wrong_arch": 0, "minus_one": 0, "x32": 0}
    for bad in (-1, 1 << 32):
        with pytest.raises(ValueError, match=rf"{name} is .*, which does not fit 32 bits"):
            compile_filter({}, **good | {name: bad})


@pytest.mark.parametrize("number", [-1, 0x40000000, 0xFFFFFFFF])
def test_numbers_that_the_guards_answer_cannot_be_listed(number: int) -> None:
    with pytest.raises(ValueError, match=r"is not a system call number"):
        Filter({number: TRACED}).compile()


def test_without_x32_numbers_run_up_to_minus_two() -> None:
    wanted = Filter({0x40000000: TRACED, 0xFFFFFFFE: TRACED}, x32=None)
    program = wanted.compile()
    for nr in (0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF):
        data = SeccompData(nr, AUDIT_ARCH_X86_64)
        assert run(program, data).value == wanted.expect(data), hex(nr)
    with pytest.raises(ValueError, match=r"they run from 0 to 4294967294"):
        Filter({0xFFFFFFFF: TRACED}, x32=None).compile()


# What is emitted


def test_guards_come_first() -> None:
    program = Filter({1: TRACED}).compile()
    load = abi.BPF_LD | abi.BPF_W | abi.BPF_ABS
    assert program[0] == (load, 0, 0, 4)
    assert program[1].code == abi.BPF_JMP | abi.BPF_JEQ
    assert program[1].k == AUDIT_ARCH_X86_64
    assert program[3] == (load, 0, 0, 0)
    assert program[4].code == abi.BPF_JMP | abi.BPF_JGE
    assert program[4].k == 0x40000000


def test_minus_one_may_be_answered_like_x32() -> None:
    program = Filter({}, minus_one=7, x32=7).compile()
    assert [insn.k for insn in program].count(7) == 1
    assert all(run(program, SeccompData(nr, AUDIT_ARCH_X86_64)).value == 7 for nr in (-1, -2))


def test_up_to_the_first_argument_the_kernel_can_follow_the_filter() -> None:
    program = Filter({9: TRACED, 12: (Case((Arg(0, 0xF0, 0x30),), 0),)}).compile()
    followed = {
        abi.BPF_LD | abi.BPF_W | abi.BPF_ABS,
        abi.BPF_JMP | abi.BPF_JEQ,
        abi.BPF_JMP | abi.BPF_JGE,
        abi.BPF_JMP | abi.BPF_JA,
        abi.BPF_RET | abi.BPF_K,
    }
    for nr in (0, 8, 9, 10, 11, 13, 400):
        path: list[int] = []
        run(program, SeccompData(nr, AUDIT_ARCH_X86_64), path)
        assert {program[pc].code for pc in path} <= followed


def test_neighbours_with_one_decision_are_one_interval() -> None:
    spread = Filter(dict.fromkeys((1, 3, 5), TRACED)).compile()
    joined = Filter(dict.fromkeys(range(1, 300), TRACED)).compile()
    assert len(joined) == len(Filter({1: TRACED}).compile()) < len(spread)


def test_lists_that_decide_alike_need_not_be_equal() -> None:
    plain = Filter({1: TRACED, 2: TRACED}).compile()
    longer = (Case((Arg(0, 0, 0),), SECCOMP_RET_TRACE), errno(1))
    assert Filter({1: TRACED, 2: longer}).compile() == plain


def test_lists_that_come_to_the_default_leave_no_trace() -> None:
    nothing = Filter({}).compile()
    split = (Case((Arg(0, 1, 0),), SECCOMP_RET_ALLOW), Case((), SECCOMP_RET_ALLOW))
    for cases in ((), (Case((), SECCOMP_RET_ALLOW),), split):
        assert Filter({5: cases}).compile() == nothing


def test_identical_returns_are_one() -> None:
    both = (Case((Arg(0, LOW, 1),), 0x50001), Case((Arg(1, LOW, 1),), 0x50001))
    found = returns(Filter({1: both, 3: (*both, errno(2)), 5: (errno(2),)}))
    assert len(found) == len(set(found))


def test_a_half_that_is_not_looked_at_is_not_loaded() -> None:
    def loads(mask: int, value: int) -> set[int]:
        program = Filter({1: (Case((Arg(1, mask, value),), 0),)}).compile()
        return {insn.k for insn in program if insn.code == abi.BPF_LD | abi.BPF_W | abi.BPF_ABS}

    assert loads(LOW, 5) == {0, 4, 24}
    assert loads(LOW << 32, 5 << 32) == {0, 4, 28}
    assert loads(U64, 5) == {0, 4, 24, 28}
    assert loads(0, 0) == {0, 4}


def test_a_case_that_an_earlier_one_covers_is_not_emitted() -> None:
    first = Case((Arg(0, LOW, 2),), 0x50001)
    covered = Case((Arg(0, U64, 2), Arg(1, 1, 1)), 0x50063)
    assert 0x50063 not in returns(Filter({1: (first, covered)}))
    assert 0x50063 in returns(Filter({1: (covered, first)}))


def test_what_was_settled_is_remembered_past_tests_of_other_bits() -> None:
    first, other = Case((Arg(0, 1, 1),), 0x50001), Case((Arg(0, 2, 2),), 0x50002)
    again = Case((Arg(0, 1, 1), Arg(1, LOW, 5)), 0x50063)
    settled = Filter({1: (first, other, again)})
    assert settled.compile() == Filter({1: (first, other)}).compile()


def test_tests_that_exclude_each_other_are_not_emitted() -> None:
    never = Case((Arg(0, 3, 1), Arg(0, 2, 2)), 0x50063)
    assert Filter({1: (never,)}).compile() == Filter({}).compile()


# What it costs


def test_calls_cost_the_logarithm_of_the_intervals() -> None:
    numbers = sorted(X86_64.values())[::4]
    program = Filter(dict.fromkeys(numbers, TRACED)).compile()
    # ld arch, jeq, ld nr, jge x32, the search, ret
    bound = 5 + ceil(log2(2 * len(numbers) + 1))
    costs = [run(program, SeccompData(nr, AUDIT_ARCH_X86_64)).steps for nr in range(500)]
    assert max(costs) <= bound
    assert min(costs) >= bound - 2


def test_a_long_list_is_not_nested_in_python() -> None:
    cases = [Case((Arg(0, LOW, value),), 0x50000 + value % 9) for value in range(600)]
    wanted = Filter({1: cases})
    program = wanted.compile()
    check(program)
    coverage = Coverage(program)
    for value in range(601):
        data = SeccompData(1, AUDIT_ARCH_X86_64, 0, (value,))
        assert coverage.run(data) == wanted.expect(data)
    for nr, arch in (
        (0, AUDIT_ARCH_X86_64),
        (-1, AUDIT_ARCH_X86_64),
        (-2, AUDIT_ARCH_X86_64),
        (1, 0),
    ):
        coverage.run(SeccompData(nr, arch))
    assert coverage.run(SeccompData(2, AUDIT_ARCH_X86_64)) == SECCOMP_RET_ALLOW
    assert not coverage.missing()


def test_facts_that_multiply_fall_back_to_the_plain_list() -> None:
    # Every way of setting ten bits is a state of its own, as a second round asks for them again.
    bits = [1 << bit for bit in range(10)]
    first = [Case((Arg(0, bit, bit), Arg(1, bit, bit)), 1) for bit in bits]
    again = [Case((Arg(0, bit, bit), Arg(2, LOW, bit)), 0x50000 | bit) for bit in bits]
    steps = flatten((*first, *again), SECCOMP_RET_ALLOW)
    assert with_facts(Graph(), steps) is None
    assert all(isinstance(step, int) or step.mask for step in steps)
    wanted = Filter({1: (*first, *again)})
    program = wanted.compile()
    tests = sum(isinstance(step, tuple) for step in steps)
    # Each test takes a load and a jump; each of the twelve actions and each guard one instruction.
    assert len(program) <= 2 * tests + 12 + 10
    for data in wanted.calls():
        assert run(program, data).value == wanted.expect(data)


# The edges of jumps and of length


@pytest.mark.parametrize("count", [120, 126, 127, 128, 129, 254, 255, 256, 257, 700])
def test_far_jumps_lead_where_near_ones_would(count: int) -> None:
    shared = (Case((Arg(0, LOW, 1),), SECCOMP_RET_TRACE),)
    lists = {nr: (errno(nr),) if nr % 3 else shared for nr in range(count)}
    wanted = Filter(lists, x32=None)
    program = wanted.compile()
    check(program)
    coverage = Coverage(program)
    for nr in (*range(count + 1), -1):
        for arg in (0, 1):
            data = SeccompData(nr, AUDIT_ARCH_X86_64, 0, (arg,))
            assert coverage.run(data) == wanted.expect(data)
    coverage.run(SeccompData(0, 0))
    assert not coverage.missing()
    assert (jumps(program) > 0) == (count > 200)


def test_longest_filter_is_4096_instructions() -> None:
    def distinct(count: int) -> Filter:
        return Filter({nr: (errno(nr),) for nr in range(count)}, x32=None)

    fits, fails = 1, 4096
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            distinct(middle).compile()
        except ValueError as exc:
            assert "the kernel accepts at most 4096" in str(exc)  # noqa: PT017 (bisecting)
            fails = middle
        else:
            fits = middle
    program = distinct(fits).compile()
    assert 4090 <= len(program) <= 4096
    check(program)
    for nr in range(fits):
        assert run(program, SeccompData(nr, AUDIT_ARCH_X86_64)).value == 0x50000 + nr
    with pytest.raises(ValueError, match=r"the filter takes 4\d+ instructions"):
        distinct(fits + 1).compile()
