from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.bpf import Insn, SeccompData, assemble, check, disassemble, run
from pinfold.bpf.asm import Graph
from pinfold.uapi import bpf as abi
from tests.unit.bpf.model import Coverage, jumps

FULL = 0xFFFFFFFF
insns = st.builds(
    Insn, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, FULL)
)


# Bytes


@given(st.lists(insns))
def test_assembled_programs_come_back(program: list[Insn]) -> None:
    code = assemble(program)
    assert len(code) == 8 * len(program)
    assert disassemble(code) == program


@pytest.mark.skipif(sys.byteorder == "big", reason="the expected bytes are little-endian")
def test_layout_is_that_of_sock_filter() -> None:
    assert assemble([Insn(0x1234, 0x56, 0x78, 0x9ABCDEF0)]).hex() == "34125678f0debc9a"


@pytest.mark.parametrize(
    "insn",
    [Insn(0x10000, 0, 0, 0), Insn(0, 256, 0, 0), Insn(0, 0, -1, 0), Insn(0, 0, 0, 1 << 32)],
)
def test_fields_that_do_not_fit_are_refused(insn: Insn) -> None:
    with pytest.raises(ValueError, match=r"instruction 1: .* does not fit"):
        assemble([Insn(6, 0, 0, 0), insn])


def test_half_an_instruction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12 bytes are not a whole number of 8-byte"):
        disassemble(bytes(12))


# Nodes


def test_equal_nodes_are_one() -> None:
    graph = Graph()
    one, two = graph.ret(1), graph.ret(2)
    assert graph.ret(1) == one != two
    assert graph.equal(16, FULL, 5, one, two) == graph.equal(16, FULL, 5, one, two)
    assert graph.equal(16, FULL, 5, one, two) != graph.equal(16, FULL, 5, two, one)


def test_a_test_with_one_way_out_is_no_test() -> None:
    graph = Graph()
    assert graph.program(graph.equal(16, FULL, 5, graph.ret(1), graph.ret(1))) == [
        Insn(abi.BPF_RET, 0, 0, 1)
    ]


def test_what_the_root_does_not_reach_is_left_out() -> None:
    graph = Graph()
    one, two = graph.ret(1), graph.ret(2)
    graph.equal(20, FULL, 7, one, two)
    root = graph.equal(16, FULL, 5, one, two)
    graph.equal(24, FULL, 7, root, two)
    assert len(graph.program(root)) == 4


def test_a_word_is_loaded_once_on_each_way() -> None:
    graph = Graph()
    ends = [graph.ret(value) for value in range(4)]
    last = graph.equal(16, FULL, 3, ends[3], ends[0])
    middle = graph.equal(16, FULL, 2, ends[2], last)
    program = graph.program(graph.equal(16, FULL, 1, ends[1], middle))
    assert [insn.code for insn in program].count(abi.BPF_LD | abi.BPF_ABS) == 1


def test_a_masked_word_is_loaded_again_for_another_mask_only() -> None:
    graph = Graph()
    ends = [graph.ret(value) for value in range(4)]
    other = graph.equal(16, 0xF0, 0x30, ends[3], ends[0])
    same = graph.equal(16, 0xF, 2, ends[2], other)
    first = graph.equal(16, 0xF, 3, ends[1], same)
    whole = graph.equal(16, FULL, 9, ends[0], first)
    program = graph.program(whole)
    codes = [insn.code for insn in program]
    assert codes.count(abi.BPF_LD | abi.BPF_ABS) == 2
    assert codes.count(abi.BPF_ALU | abi.BPF_AND) == 2
    for word in range(256):
        want = 0 if word == 9 else {3: 1, 2: 2}.get(word & 0xF, 3 if word & 0xF0 == 0x30 else 0)
        assert run(program, SeccompData(0, 0, 0, (word,))).value == want


def test_jumps_from_elsewhere_enter_at_the_load() -> None:
    # The last test is entered once with its word in the accumulator and once with another.
    graph = Graph()
    ends = [graph.ret(value) for value in range(3)]
    last = graph.equal(16, FULL, 3, ends[2], ends[0])
    known = graph.equal(16, FULL, 1, ends[1], last)
    program = graph.program(graph.equal(24, FULL, 0, known, last))
    coverage = Coverage(program)
    for first in (0, 1, 3):
        for second in (0, 1):
            want = 2 if first == 3 else 1 if first == 1 and second == 0 else 0
            assert coverage.run(SeccompData(0, 0, 0, (first, second))) == want
    assert not coverage.missing()


# Distances. Pictures: T is the jump in question, . is padding, F and G are far tests.


def far_test(graph: Graph, value: int) -> int:
    """A test of the low word of argument 0, in four instructions with its two returns."""
    return graph.equal(16, FULL, value, graph.ret(value), graph.ret(value + 1))


def padding(graph: Graph, size: int, far: int) -> int:
    """Tests of the high word of argument 0 that take just so many instructions and go on to far."""
    node = graph.equal(20, FULL, 0, graph.ret(5), far)
    for value in range(1, size - 2):
        node = graph.equal(20, FULL, value, graph.ret(5), node)
    program = graph.program(node)
    assert program[size] == Insn(abi.BPF_LD | abi.BPF_ABS, 0, 0, 16)
    assert len(program) == size + 4
    return node


def follow(program: list[Insn], low: int, high: int, second: int, third: int = 0) -> int:
    return run(program, SeccompData(0, 0, 0, (low | high << 32, second | third << 32))).value


@pytest.mark.parametrize("distance", [253, 254, 255, 256, 257])
@pytest.mark.parametrize("on_yes", [True, False])
def test_one_far_way(distance: int, on_yes: bool) -> None:
    # T [JA] ....... F
    graph = Graph()
    far = far_test(graph, 70)
    near = padding(graph, distance, far)
    top = graph.equal(24, FULL, 9, *((far, near) if on_yes else (near, far)))
    program = graph.program(top)
    check(program)
    assert jumps(program) == (distance > 255)
    to_far, to_near = (9, 0) if on_yes else (0, 9)
    # A high word of 0 tells whether the padding was passed through.
    assert follow(program, 70, 0, to_far) == 70
    assert follow(program, 0, 0, to_far) == 71
    assert follow(program, 70, 0, to_near) == 5
    assert follow(program, 70, FULL, to_near) == 70


@pytest.mark.parametrize(("gap", "expected"), [(253, 1), (254, 1), (255, 2), (256, 2)])
@pytest.mark.parametrize("on_yes", [True, False])
def test_a_landing_for_one_way_may_push_the_other_out_of_reach(
    gap: int, expected: int, on_yes: bool
) -> None:
    # R T [JA] [JA] ...... F G, where F is just in reach as long as nothing stands behind T
    graph = Graph()
    deep = far_test(graph, 80)
    far = far_test(graph, 70)
    near = padding(graph, gap, far)
    tested = graph.equal(24, FULL, 9, *((far, deep) if on_yes else (deep, far)))
    program = graph.program(graph.equal(28, FULL, 1, tested, near))
    check(program)
    assert jumps(program) == expected
    to_far, to_deep = (9, 0) if on_yes else (0, 9)
    for word in (70, 71, 80, 81):
        assert follow(program, word, 0, to_far, 1) == (70 if word == 70 else 71)
        assert follow(program, word, 0, to_deep, 1) == (80 if word == 80 else 81)
        assert follow(program, word, 0, to_far) == 5


def test_a_landing_is_shared_by_jumps_in_reach_of_it() -> None:
    graph = Graph()
    far = far_test(graph, 70)
    node = graph.ret(6)
    for value in range(300):
        node = graph.equal(20, FULL, value, graph.ret(5), node)
    for value in range(100):
        node = graph.equal(24, FULL, value, far, node)
    # Without sharing there would be a hundred landings.
    program = graph.program(node)
    check(program)
    assert jumps(program) == 1
    for value in range(101):
        assert follow(program, 70, 0, value) == (70 if value < 100 else 5)


@pytest.mark.parametrize("count", [254, 255, 256, 257, 511, 512, 513, 768])
def test_one_return_wanted_all_along_a_chain(count: int) -> None:
    graph = Graph()
    node = graph.ret(1)
    for value in range(count):
        node = graph.equal(16, FULL, value, graph.ret(2), node)
    program = graph.program(node)
    check(program)
    assert jumps(program) == 0
    coverage = Coverage(program)
    for value in range(count + 1):
        assert coverage.run(SeccompData(0, 0, 0, (value,))) == (2 if value < count else 1)
    assert not coverage.missing()
    # One load, the tests, the return at the bottom, and the other once for each stretch.
    assert len(program) <= 2 + count + count // 255 + 1


def test_4096_instructions_are_accepted_and_4097_are_not() -> None:
    def chain(count: int) -> list[Insn]:
        graph = Graph()
        node = graph.ret(1)
        for value in range(count):
            node = graph.equal(16, FULL, value, graph.ret(2), node)
        return graph.program(node)

    # A load, a return at the bottom, and another one for each 255 tests.
    longest = next(count for count in range(4075, 4085) if len(chain(count)) == 4096)
    check(chain(longest))
    with pytest.raises(
        ValueError, match=r"takes 4097 instructions; the kernel accepts at most 4096"
    ):
        chain(longest + 1)
