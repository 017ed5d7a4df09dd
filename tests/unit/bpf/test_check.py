from __future__ import annotations

import pytest

from pinfold.bpf import Insn, check
from pinfold.uapi import bpf as abi
from tests.unit.bpf.programs import ACCEPTED, ALLOW, REFUSED, op

REASONS = {
    "nothing": "1 to 4096 instructions, not 0",
    "too long": "1 to 4096 instructions, not 4097",
    "no return at the end": "the last instruction is not a return",
    "mod k": "instruction 0: code 0x94 is not accepted",
    "load across words": "offset 2 is not that of a word",
    "load behind the data": "offset 64 is not that of a word",
    "jt out of the program": "instruction 0: the jump leads out of the program",
    "ja backwards": "instruction 1: the jump leads out of the program",
    "division by zero": "division by the constant zero",
    "left shift by 32": "a shift by 32 bits",
    "store past the scratch words": r"there is no M\[16\]",
    "stored on one way": r"instruction 2: M\[3\] may be loaded before it is stored",
}


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_accepted(name: str) -> None:
    check(ACCEPTED[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(ValueError, match=REASONS.get(name, "instruction")):
        check(REFUSED[name])


def test_every_reason_is_that_of_a_program() -> None:
    assert REASONS.keys() <= REFUSED.keys()


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"instruction 0: .* does not fit"):
        check([Insn(abi.BPF_LD, 0, 0, -4), ALLOW])


def test_just_these_codes_are_accepted() -> None:
    def accepted(code: int) -> bool:
        try:
            check([op(abi.BPF_ST, 4), op(code, 4), *[ALLOW] * 6])
        except ValueError:
            return False
        return True

    assert [code for code in range(0x200) if accepted(code)] == [
        *(0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0C, 0x14, 0x15, 0x16, 0x1C, 0x1D),
        *(0x20, 0x24, 0x25, 0x2C, 0x2D, 0x34, 0x35, 0x3C, 0x3D, 0x44, 0x45, 0x4C, 0x4D, 0x54),
        *(0x5C, 0x60, 0x61, 0x64, 0x6C, 0x74, 0x7C, 0x80, 0x81, 0x84, 0x87, 0xA4, 0xAC),
    ]
