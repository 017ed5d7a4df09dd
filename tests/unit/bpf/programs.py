"""Programs that the kernel's checker accepts or refuses, for the checker here and for the kernel.

Every accepted program allows all calls, so that a process can install it and go on.
"""

from __future__ import annotations

from pinfold.bpf import Insn
from pinfold.uapi import bpf as abi
from pinfold.uapi.seccomp import SECCOMP_RET_ALLOW

ALLOW = Insn(abi.BPF_RET | abi.BPF_K, 0, 0, SECCOMP_RET_ALLOW)


def op(code: int, k: int = 0) -> Insn:
    return Insn(code, 0, 0, k)


def load(offset: int) -> Insn:
    return op(abi.BPF_LD | abi.BPF_W | abi.BPF_ABS, offset)


def jump(jt: int, jf: int, code: int = abi.BPF_JEQ) -> Insn:
    return Insn(abi.BPF_JMP | code, jt, jf, 0)


def ja(distance: int) -> Insn:
    return op(abi.BPF_JMP | abi.BPF_JA, distance)


STORE, STORE_X = op(abi.BPF_ST, 3), op(abi.BPF_STX, 3)
RECALL, RECALL_X = op(abi.BPF_LD | abi.BPF_MEM, 3), op(abi.BPF_LDX | abi.BPF_MEM, 3)
LSH, RSH = abi.BPF_ALU | abi.BPF_LSH, abi.BPF_ALU | abi.BPF_RSH

ACCEPTED: dict[str, list[Insn]] = {
    "shortest": [ALLOW],
    "longest": [op(abi.BPF_LD | abi.BPF_IMM)] * 4095 + [ALLOW],
    "return of the accumulator": [
        op(abi.BPF_LD | abi.BPF_IMM, SECCOMP_RET_ALLOW),
        op(abi.BPF_RET | abi.BPF_A),
    ],
    "load of the first word": [load(0), ALLOW],
    "load of the last word": [load(60), ALLOW],
    "jump to the last instruction": [jump(1, 0), op(abi.BPF_MISC), ALLOW],
    "ja to the last instruction": [ja(1), op(abi.BPF_MISC), ALLOW],
    "ja over 300": [ja(300), *[op(abi.BPF_MISC)] * 300, ALLOW],
    "shift by 31": [op(LSH, 31), op(RSH, 31), ALLOW],
    "shift by any index": [op(abi.BPF_LDX | abi.BPF_IMM, 99), op(LSH | abi.BPF_X), ALLOW],
    "last scratch word": [op(abi.BPF_ST, 15), op(abi.BPF_LD | abi.BPF_MEM, 15), ALLOW],
    "stored, then loaded": [STORE, RECALL, RECALL_X, ALLOW],
    "stored on both ways": [jump(2, 0), STORE, ja(1), STORE_X, RECALL, ALLOW],
    "stored before a jump": [STORE, jump(1, 0), op(abi.BPF_MISC), RECALL, ALLOW],
    "loaded where nothing leads": [ja(1), RECALL, ALLOW],
    "stored before a return, loaded behind it": [STORE, jump(0, 1), ALLOW, RECALL, ALLOW],
    "division by an operand of 1": [op(abi.BPF_ALU | abi.BPF_DIV, 1), ALLOW],
    "k of an instruction that has none": [op(abi.BPF_MISC, 77), ALLOW],
}

REFUSED: dict[str, list[Insn]] = {
    "nothing": [],
    "too long": [op(abi.BPF_LD | abi.BPF_IMM)] * 4096 + [ALLOW],
    "no return at the end": [ALLOW, load(0)],
    "a jump at the end": [ALLOW, ja(0)],
    "unknown code": [op(0x8C), ALLOW],
    "code beyond the table": [op(0xFFFF), ALLOW],
    "code with a high bit": [op(0x100 | abi.BPF_MISC), ALLOW],
    "ret x": [ALLOW, op(abi.BPF_RET | abi.BPF_X)],
    "mod k": [op(abi.BPF_ALU | abi.BPF_MOD, 3), ALLOW],
    "mod x": [op(abi.BPF_ALU | abi.BPF_MOD | abi.BPF_X), ALLOW],
    "load of a half word": [op(abi.BPF_LD | abi.BPF_ABS | 0x08), ALLOW],
    "load of a byte": [op(abi.BPF_LD | abi.BPF_ABS | 0x10), ALLOW],
    "indirect load": [op(abi.BPF_LD | 0x40), ALLOW],
    "packet header load": [op(abi.BPF_LDX | 0xA0 | 0x10), ALLOW],
    "index load from the data": [op(abi.BPF_LDX | abi.BPF_ABS), ALLOW],
    "load across words": [load(2), ALLOW],
    "load at an odd offset": [load(1), ALLOW],
    "load behind the data": [load(64), ALLOW],
    "load far behind the data": [load(0xFFFFFFFC), ALLOW],
    "load of ancillary data": [load(0xFFFFF000), ALLOW],
    "jt out of the program": [jump(2, 0), op(abi.BPF_MISC), ALLOW],
    "jf out of the program": [jump(0, 2), op(abi.BPF_MISC), ALLOW],
    "jt far out of the program": [jump(255, 0, abi.BPF_JSET), ALLOW],
    "ja out of the program": [ja(2), op(abi.BPF_MISC), ALLOW],
    "ja backwards": [op(abi.BPF_MISC), ja(0xFFFFFFFE), ALLOW],
    "ja around the number line": [ja(0xFFFFFFFF), ALLOW],
    "division by zero": [op(abi.BPF_ALU | abi.BPF_DIV, 0), ALLOW],
    "left shift by 32": [op(LSH, 32), ALLOW],
    "right shift by 32": [op(RSH, 32), ALLOW],
    "shift by all ones": [op(RSH, 0xFFFFFFFF), ALLOW],
    "store past the scratch words": [op(abi.BPF_ST, 16), ALLOW],
    "store x past the scratch words": [op(abi.BPF_STX, 16), ALLOW],
    "load past the scratch words": [op(abi.BPF_LD | abi.BPF_MEM, 16), ALLOW],
    "load x past the scratch words": [op(abi.BPF_LDX | abi.BPF_MEM, 0x10000), ALLOW],
    "never stored": [RECALL, ALLOW],
    "never stored, into x": [RECALL_X, ALLOW],
    "another word stored": [op(abi.BPF_ST, 2), RECALL, ALLOW],
    "stored after": [RECALL, STORE, ALLOW],
    "stored on one way": [jump(1, 0), STORE, RECALL, ALLOW],
    "stored on the other way": [jump(0, 1), STORE, RECALL, ALLOW],
    "skipped by a ja": [jump(0, 1), ja(1), STORE, RECALL, ALLOW],
    "loaded behind a return": [ALLOW, RECALL, ALLOW],
}
