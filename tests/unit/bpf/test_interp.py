from __future__ import annotations

import struct

import pytest

from pinfold.bpf import Insn, Result, SeccompData, run
from pinfold.uapi import bpf as abi

FULL = 0xFFFFFFFF
CALL = SeccompData(
    nr=3, arch=0xC000003E, instruction_pointer=0x1122334455667788, args=tuple(range(0x10, 0x16))
)
RET_A = Insn(abi.BPF_RET | abi.BPF_A, 0, 0, 0)


def ret(value: int) -> Insn:
    return Insn(abi.BPF_RET | abi.BPF_K, 0, 0, value)


def load(value: int) -> Insn:
    return Insn(abi.BPF_LD | abi.BPF_IMM, 0, 0, value)


def index(value: int) -> Insn:
    return Insn(abi.BPF_LDX | abi.BPF_IMM, 0, 0, value)


def value_of(*program: Insn) -> int:
    return run([*program, RET_A], CALL).value


@pytest.mark.parametrize(
    ("operation", "left", "right", "result"),
    [
        (abi.BPF_ADD, FULL, 2, 1),
        (abi.BPF_SUB, 1, 2, FULL),
        (abi.BPF_MUL, 0x10001, 0x10001, 0x20001),
        (abi.BPF_DIV, FULL, 2, 0x7FFFFFFF),
        (abi.BPF_OR, 0xF0F0, 0xFF, 0xF0FF),
        (abi.BPF_AND, 0xF0F0, 0xFF, 0xF0),
        (abi.BPF_XOR, 0xF0F0, 0xFF, 0xF00F),
        (abi.BPF_LSH, 0x80000001, 1, 2),
        (abi.BPF_RSH, 0x80000001, 1, 0x40000000),
        (abi.BPF_LSH, 1, 31, 0x80000000),
        (abi.BPF_RSH, FULL, 31, 1),
    ],
)
def test_arithmetic(operation: int, left: int, right: int, result: int) -> None:
    constant = Insn(abi.BPF_ALU | operation | abi.BPF_K, 0, 0, right)
    register = Insn(abi.BPF_ALU | operation | abi.BPF_X, 0, 0, 0)
    assert value_of(load(left), constant) == result
    assert value_of(load(left), index(right), register) == result


@pytest.mark.parametrize(("operation", "result"), [(abi.BPF_LSH, 4), (abi.BPF_RSH, 1)])
def test_shifts_by_the_index_register_count_modulo_32(operation: int, result: int) -> None:
    shift = Insn(abi.BPF_ALU | operation | abi.BPF_X, 0, 0, 0)
    assert value_of(load(2), index(33), shift) == result
    assert value_of(load(2), index(32), shift) == 2


def test_division_by_an_index_of_zero_ends_the_run_with_zero() -> None:
    divide = Insn(abi.BPF_ALU | abi.BPF_DIV | abi.BPF_X, 0, 0, 0)
    assert run([load(7), divide, ret(9)], CALL) == Result(0, 2)


def test_negation() -> None:
    negate = Insn(abi.BPF_ALU | abi.BPF_NEG, 0, 0, 0)
    assert [value_of(load(value), negate) for value in (0, 1, FULL)] == [0, FULL, 1]


@pytest.mark.parametrize(
    ("operation", "left", "right", "holds"),
    [
        (abi.BPF_JEQ, 5, 5, True),
        (abi.BPF_JEQ, 5, 6, False),
        (abi.BPF_JGT, 6, 5, True),
        (abi.BPF_JGT, 5, 5, False),
        (abi.BPF_JGT, FULL, 5, True),
        (abi.BPF_JGE, 5, 5, True),
        (abi.BPF_JGE, 4, 5, False),
        (abi.BPF_JGE, 0x80000000, 0x7FFFFFFF, True),
        (abi.BPF_JSET, 6, 3, True),
        (abi.BPF_JSET, 4, 3, False),
    ],
)
def test_conditional_jumps(operation: int, left: int, right: int, holds: bool) -> None:
    for source in (abi.BPF_K, abi.BPF_X):
        k = right if source == abi.BPF_K else 0x55
        jump = Insn(abi.BPF_JMP | operation | source, 1, 2, k)
        program = [load(left), index(right), jump, ret(0), ret(1), ret(2)]
        assert run(program, CALL) == Result(1 if holds else 2, 4)


def test_unconditional_jump_uses_all_of_k() -> None:
    jump = Insn(abi.BPF_JMP | abi.BPF_JA, 0, 0, 300)
    assert run([jump, *[ret(0)] * 300, ret(1)], CALL) == Result(1, 2)


def test_every_word_of_the_data_can_be_loaded() -> None:
    words = struct.unpack("=16I", CALL.pack())
    for place, word in enumerate(words):
        assert value_of(Insn(abi.BPF_LD | abi.BPF_ABS, 0, 0, 4 * place)) == word
    assert words[:5] == (3, 0xC000003E, 0x55667788, 0x11223344, 0x10)


def test_length_is_that_of_the_data() -> None:
    assert value_of(Insn(abi.BPF_LD | abi.BPF_LEN, 0, 0, 0)) == 64
    to_a = Insn(abi.BPF_MISC | abi.BPF_TXA, 0, 0, 0)
    assert value_of(Insn(abi.BPF_LDX | abi.BPF_LEN, 0, 0, 0), to_a) == 64


def test_registers_start_at_zero_and_move() -> None:
    to_a = Insn(abi.BPF_MISC | abi.BPF_TXA, 0, 0, 0)
    to_x = Insn(abi.BPF_MISC | abi.BPF_TAX, 0, 0, 0)
    assert value_of() == 0
    assert value_of(load(1), to_a) == 0
    assert value_of(load(1), to_x, load(2), to_a) == 1


@pytest.mark.parametrize("word", [0, 15])
def test_scratch_words(word: int) -> None:
    store_a, store_x = Insn(abi.BPF_ST, 0, 0, word), Insn(abi.BPF_STX, 0, 0, word)
    back_a = Insn(abi.BPF_LD | abi.BPF_MEM, 0, 0, word)
    back_x = Insn(abi.BPF_LDX | abi.BPF_MEM, 0, 0, word)
    to_a = Insn(abi.BPF_MISC | abi.BPF_TXA, 0, 0, 0)
    assert value_of(load(7), store_a, load(8), back_a) == 7
    assert value_of(index(7), store_x, load(8), back_a) == 7
    assert value_of(load(7), store_a, index(8), back_x, to_a) == 7


def test_the_path_is_given_on_request() -> None:
    jump = Insn(abi.BPF_JMP | abi.BPF_JEQ, 1, 0, 0)
    path: list[int] = []
    assert run([jump, ret(1), ret(2)], CALL, path).steps == len(path) == 2
    assert path == [0, 2]


def test_numbers_are_the_same_with_and_without_sign() -> None:
    assert SeccompData(-1, 0).pack() == SeccompData(0xFFFFFFFF, 0).pack()
    assert SeccompData(0, 0, 0, (-1,)).pack() == SeccompData(0, 0, 0, ((1 << 64) - 1,)).pack()


def test_data_of_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"struct seccomp_data has 64 bytes, not 63"):
        run([ret(0)], bytes(63))
    with pytest.raises(ValueError, match=r"six arguments, not 7"):
        run([ret(0)], SeccompData(0, 0, 0, (0,) * 7))


def test_bytes_and_names_are_the_same_data() -> None:
    program = [Insn(abi.BPF_LD | abi.BPF_ABS, 0, 0, 56), RET_A]
    assert run(program, CALL) == run(program, CALL.pack()) == Result(0x15, 2)


def test_a_run_does_not_survive_what_the_checker_refuses() -> None:
    with pytest.raises(ValueError, match=r"ran off its end"):
        run([load(0)], CALL)
    with pytest.raises(ValueError, match=r"instruction 1: code 0xffff"):
        run([load(0), Insn(0xFFFF, 0, 0, 0), ret(0)], CALL)
