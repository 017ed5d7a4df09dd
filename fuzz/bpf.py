"""Filters: what is compiled does what its cases say, and any bytes are a program or are refused.

An input is a filter's cases, tried with the calls that are likely to tell a wrong filter from a
right one (``tests/unit/bpf/model.py``); or a program as the kernel would be given it, which the
checker refuses, or the interpreter brings to its end for any call.
"""

from __future__ import annotations

import os
import sys
from typing import Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main, refused

with instrumented(__name__):
    from pinfold.bpf import Arg, Case, Insn, assemble, check, compile_filter, disassemble, run
    from pinfold.bpf.dump import dump_program
    from pinfold.uapi import bpf as abi

from tests.unit.bpf.model import U64, Filter

FULL: Final = 0xFFFFFFFF
ACTIONS: Final = (0x7FF00000, 0x00050001, 0x00050002, 0x7FFF0000, 0)
MASKS: Final = (0, 1, FULL, FULL << 32, U64, 0xF000F, 1 << 63, 3 << 31)
NUMBERS: Final = (*range(13), 300, 334, 0x3FFFFFFE, 0x3FFFFFFF)
CODES: Final = (
    *(abi.BPF_LD | abi.BPF_W | abi.BPF_ABS, abi.BPF_RET | abi.BPF_K, abi.BPF_RET | abi.BPF_A),
    *(abi.BPF_MISC | abi.BPF_TAX, abi.BPF_MISC | abi.BPF_TXA, abi.BPF_ST, abi.BPF_STX),
    *(abi.BPF_LD | abi.BPF_MEM, abi.BPF_LDX | abi.BPF_MEM, abi.BPF_JMP | abi.BPF_JA),
    *(abi.BPF_JMP | code for code in (abi.BPF_JEQ, abi.BPF_JGT, abi.BPF_JGE, abi.BPF_JSET)),
    *(abi.BPF_ALU | code for code in range(0, 0xB0, 0x10)),
    *(abi.BPF_ALU | abi.BPF_X | code for code in range(0, 0xB0, 0x10)),
)


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    if given.number(1) & 1:
        _compiled(given)
    else:
        _program(given)


def _compiled(given: Given) -> None:
    cases = {}
    for _ in range(given.below(6)):
        cases[given.pick(NUMBERS)] = [
            Case(tuple(_argument(given) for _ in range(given.below(4))), given.pick(ACTIONS))
            for _ in range(given.below(4))
        ]
    wanted = Filter(cases, given.pick(ACTIONS), x32=given.pick((None, 0, 0x7FFF0000)))
    program = compile_filter(
        wanted.cases,
        default=wanted.default,
        arch=wanted.arch,
        wrong_arch=wanted.wrong_arch,
        minus_one=wanted.minus_one,
        x32=wanted.x32,
    )
    check(program)
    assert disassemble(assemble(program)) == program
    calls = list(wanted.calls())
    # Some of them, from anywhere: there may be thousands.
    step = 1 + len(calls) // 150
    for call in calls[given.below(step) :: step]:
        assert run(program, call).value == wanted.expect(call), call


def _argument(given: Given) -> Arg:
    how = given.number(1)
    mask = MASKS[how % len(MASKS)] if how < 0xC0 else given.number()
    value = given.pick((0, 1, 2, U64)) if how & 1 else given.number()
    return Arg(given.below(6), mask, value & mask)


def _instruction(given: Given) -> Insn:
    how = given.number(1)
    code = CODES[how % len(CODES)] if how < 0xF0 else given.number(2)
    k = given.number(1) if how & 1 else given.number(4)
    if how & 2:
        k &= 0x3C
    return Insn(code, given.below(4), given.below(4), k)


def _program(given: Given) -> None:
    program = [_instruction(given) for _ in range(given.below(24))]
    if given.number(1) & 3:
        program.append(Insn(abi.BPF_RET | abi.BPF_K, 0, 0, given.number(4)))
    raw = given.rest()
    if len(raw) % abi.SOCK_FILTER.size == 0:
        assert assemble(disassemble(raw)) == raw
    else:
        assert refused(disassemble, raw, by=ValueError) is None
    packed = assemble(program)
    assert disassemble(packed) == program
    shown = dump_program(program)
    assert shown.count("\n") == len(program)
    try:
        check(program)
    except ValueError:
        # It may be run all the same, as far as it gets.
        refused(run, program, bytes(64), by=ValueError)
        return
    for call in (bytes(64), b"\xff" * 64, (raw + bytes(64))[:64]):
        path: list[int] = []
        result = run(program, call, path)
        assert result.steps == len(path) <= len(program)
        assert path == sorted(set(path))
        assert 0 <= result.value <= FULL


if __name__ == "__main__":
    main("bpf", one)
