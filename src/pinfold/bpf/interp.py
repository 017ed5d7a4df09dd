"""The checker and the interpreter for the classic BPF that seccomp accepts.

Both serve as an oracle, for what the compiler emits and for filters written by others, so they
cover the whole language and not only the part that the compiler uses. The kernel is the authority,
and tests hold both against it.

Where the language surprises:

- The accumulator and the index register start at zero; scratch words have no value until stored,
  and the checker refuses a program in which a load could come first.
- A division by an index register of zero ends the filter with 0, which reads as KILL_THREAD.
- A shift by the index register counts modulo 32. A constant shift of 32 or more is refused.
- ``mod``, ``ret x``, and loads of bytes, half words and packet headers exist in classic BPF, but
  seccomp refuses them.
- ``len`` is the size of ``struct seccomp_data``, not of a packet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.bpf.asm import Insn, assemble
from pinfold.bpf.facts import FULL
from pinfold.uapi import bpf as abi
from pinfold.uapi.seccomp import SECCOMP_DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WORDS: Final = struct.Struct(f"={SECCOMP_DATA.size // 4}I")

_LOAD: Final = abi.BPF_LD | abi.BPF_W | abi.BPF_ABS
_LENGTH: Final = frozenset({abi.BPF_LD | abi.BPF_LEN, abi.BPF_LDX | abi.BPF_LEN})
_CONSTANT: Final = frozenset({abi.BPF_LD | abi.BPF_IMM, abi.BPF_LDX | abi.BPF_IMM})
_RECALL: Final = frozenset({abi.BPF_LD | abi.BPF_MEM, abi.BPF_LDX | abi.BPF_MEM})
_STORE: Final = frozenset({abi.BPF_ST, abi.BPF_STX})
_TO_X: Final = abi.BPF_MISC | abi.BPF_TAX
_TO_A: Final = abi.BPF_MISC | abi.BPF_TXA
_JUMP: Final = abi.BPF_JMP | abi.BPF_JA
_NEGATE: Final = abi.BPF_ALU | abi.BPF_NEG
_RETURN_K: Final = abi.BPF_RET | abi.BPF_K
_RETURN_A: Final = abi.BPF_RET | abi.BPF_A

_ARITHMETIC: Final[dict[int, Callable[[int, int], int]]] = {
    abi.BPF_ADD: lambda a, b: a + b,
    abi.BPF_SUB: lambda a, b: a - b,
    abi.BPF_MUL: lambda a, b: a * b,
    abi.BPF_DIV: lambda a, b: a // b,
    abi.BPF_OR: lambda a, b: a | b,
    abi.BPF_AND: lambda a, b: a & b,
    abi.BPF_XOR: lambda a, b: a ^ b,
    abi.BPF_LSH: lambda a, b: a << (b & 31),
    abi.BPF_RSH: lambda a, b: a >> (b & 31),
}
_COMPARISON: Final[dict[int, Callable[[int, int], bool]]] = {
    abi.BPF_JEQ: lambda a, b: a == b,
    abi.BPF_JGT: lambda a, b: a > b,
    abi.BPF_JGE: lambda a, b: a >= b,
    abi.BPF_JSET: lambda a, b: a & b != 0,
}
_SOURCES: Final = (abi.BPF_K, abi.BPF_X)
_ALU: Final = {abi.BPF_ALU | op | src: fn for op, fn in _ARITHMETIC.items() for src in _SOURCES}
_BRANCH: Final = {abi.BPF_JMP | op | src: fn for op, fn in _COMPARISON.items() for src in _SOURCES}
_DIVIDE: Final = abi.BPF_ALU | abi.BPF_DIV
_SHIFTS: Final = frozenset({abi.BPF_ALU | abi.BPF_LSH, abi.BPF_ALU | abi.BPF_RSH})

_LEGAL: Final = frozenset(
    {_LOAD, _TO_X, _TO_A, _JUMP, _NEGATE, _RETURN_K, _RETURN_A}
    | _LENGTH
    | _CONSTANT
    | _RECALL
    | _STORE
    | _ALU.keys()
    | _BRANCH.keys()
)


class SeccompData(NamedTuple):
    """``struct seccomp_data``: what a filter sees of a call.

    Args:
        nr: System call number; -1 and ``0xffffffff`` are the same.
        arch: ``AUDIT_ARCH_*``.
        instruction_pointer: Address behind the instruction that made the call.
        args: The six argument registers, modulo 2**64; missing ones are zero.
    """

    nr: int
    arch: int
    instruction_pointer: int = 0
    args: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """Returns the struct's 64 bytes, in this machine's byte order.

        Raises:
            ValueError: There are more than six arguments.
        """
        if len(self.args) > 6:
            raise ValueError(f"a system call has six arguments, not {len(self.args)}")
        args = (*self.args, 0, 0, 0, 0, 0, 0)[:6]
        nr = (self.nr + (1 << 31)) % (1 << 32) - (1 << 31)
        return SECCOMP_DATA.pack(
            nr, self.arch, self.instruction_pointer, *(arg % (1 << 64) for arg in args)
        )


class Result(NamedTuple):
    """How a run of a filter ended.

    Args:
        value: ``u32``; the filter's return value.
        steps: How many instructions ran.
    """

    value: int
    steps: int


def run(
    program: Sequence[Insn], data: bytes | SeccompData, path: list[int] | None = None
) -> Result:
    """Returns what the filter answers for a call, and what that cost.

    Args:
        program: A program; ``check`` says whether the kernel would take it.
        data: The call, as 64 bytes of ``struct seccomp_data`` or by name.
        path: If given, the index of each instruction that runs is appended to it.

    Raises:
        ValueError: The run met an instruction that ``check`` refuses, or ``data`` has a wrong size.

    Kernel: net/core/filter.c and kernel/seccomp.c.
    """
    raw = data.pack() if isinstance(data, SeccompData) else data
    if len(raw) != _WORDS.size:
        raise ValueError(f"struct seccomp_data has {_WORDS.size} bytes, not {len(raw)}")
    machine = _Machine(_WORDS.unpack(raw))
    pc = steps = 0
    while pc < len(program):
        insn = program[pc]
        if complaint := _complaint(insn, pc, len(program)):
            raise ValueError(f"instruction {pc}: {complaint}")
        if path is not None:
            path.append(pc)
        steps += 1
        if insn.code == _RETURN_K:
            return Result(insn.k, steps)
        if insn.code == _RETURN_A:
            return Result(machine.a, steps)
        if insn.code == _DIVIDE | abi.BPF_X and machine.x == 0:
            return Result(0, steps)
        pc += 1 + machine.step(insn)
    raise ValueError("the program ran off its end without a return")


class _Machine:
    """The registers and scratch words of one run."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self.a = 0
        self.x = 0
        self._words = words
        self._memory = [0] * abi.BPF_MEMWORDS

    def step(self, insn: Insn) -> int:
        # Carries out anything but a return; the result is how many instructions to skip.
        code, jt, jf, k = insn
        if code == _JUMP:
            return k
        operand = self.x if code & abi.BPF_X else k
        if code in _BRANCH:
            return jt if _BRANCH[code](self.a, operand) else jf
        if code in _ALU:
            self.a = _ALU[code](self.a, operand) & FULL
        elif code == _NEGATE:
            self.a = -self.a & FULL
        elif code == _TO_X:
            self.x = self.a
        elif code == _TO_A:
            self.a = self.x
        elif code in _STORE:
            self._memory[k] = self.a if code == abi.BPF_ST else self.x
        elif code & 7 == abi.BPF_LD:
            self.a = self._load(code, k)
        else:
            self.x = self._load(code, k)
        return 0

    def _load(self, code: int, k: int) -> int:
        if code in _CONSTANT:
            return k
        if code in _RECALL:
            return self._memory[k]
        return _WORDS.size if code in _LENGTH else self._words[k // 4]


def check(program: Sequence[Insn]) -> None:
    """Refuses what the kernel refuses as a seccomp filter, with the reason.

    Raises:
        ValueError: The kernel would answer EINVAL.

    Kernel: ``bpf_check_classic`` in net/core/filter.c, ``seccomp_check_filter`` in
    kernel/seccomp.c.
    """
    length = len(program)
    if not 1 <= length <= abi.BPF_MAXINSNS:
        raise ValueError(f"a filter has 1 to {abi.BPF_MAXINSNS} instructions, not {length}")
    assemble(program)  # refuses fields that do not fit
    for pc, insn in enumerate(program):
        if complaint := _complaint(insn, pc, length):
            raise ValueError(f"instruction {pc}: {complaint}")
    if program[-1].code not in {_RETURN_K, _RETURN_A}:
        raise ValueError("the last instruction is not a return")
    for pc in _unstored(program):
        raise ValueError(f"instruction {pc}: M[{program[pc].k}] may be loaded before it is stored")


def _complaint(insn: Insn, pc: int, length: int) -> str | None:
    # What is wrong with one instruction by itself, or None.
    code, jt, jf, k = insn
    left = length - pc - 1
    if code not in _LEGAL:
        return f"code {code:#x} is not accepted in a seccomp filter"
    if code == _LOAD and (k % 4 or k >= _WORDS.size):
        return f"offset {k} is not that of a word of struct seccomp_data"
    if (code in _RECALL or code in _STORE) and k >= abi.BPF_MEMWORDS:
        return f"there is no M[{k}]; there are {abi.BPF_MEMWORDS} words"
    if code == _DIVIDE and k == 0:
        return "division by the constant zero"
    if code in _SHIFTS and k >= 32:
        return f"a shift by {k} bits"
    if (code == _JUMP and k >= left) or (code in _BRANCH and max(jt, jf) >= left):
        return "the jump leads out of the program"
    return None


def _unstored(program: Sequence[Insn]) -> Iterator[int]:
    # Loads of scratch words that are not stored on every way there. One pass is enough, as all
    # ways lead forward. As in the kernel, a way is also assumed from a return to the instruction
    # behind it, and instructions that no way leads to may load anything.
    everything = (1 << abi.BPF_MEMWORDS) - 1
    arriving = [everything] * len(program)
    stored = 0
    for pc, (code, jt, jf, k) in enumerate(program):
        stored &= arriving[pc]
        if code in _STORE:
            stored |= 1 << k
        elif code in _RECALL and not stored >> k & 1:
            yield pc
        elif code == _JUMP or code in _BRANCH:
            for distance in (k,) if code == _JUMP else (jt, jf):
                arriving[pc + 1 + distance] &= stored
            stored = everything
