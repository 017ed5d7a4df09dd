"""Programs as text, to read and to compare.

One line an instruction: its index, the mnemonic, the operand. Jumps name the index they lead to and
not a distance; loads name the field of ``struct seccomp_data``; returned constants name the action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.uapi import bpf as abi
from pinfold.uapi import seccomp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.bpf.asm import Insn

_ACTIONS: Final = {
    seccomp.SECCOMP_RET_KILL_PROCESS: "KILL_PROCESS",
    seccomp.SECCOMP_RET_KILL_THREAD: "KILL_THREAD",
    seccomp.SECCOMP_RET_TRAP: "TRAP",
    seccomp.SECCOMP_RET_ERRNO: "ERRNO",
    seccomp.SECCOMP_RET_USER_NOTIF: "USER_NOTIF",
    seccomp.SECCOMP_RET_TRACE: "TRACE",
    seccomp.SECCOMP_RET_LOG: "LOG",
    seccomp.SECCOMP_RET_ALLOW: "ALLOW",
}
_USES_DATA: Final = frozenset({"TRAP", "ERRNO", "TRACE"})

_FIELDS: Final = {0: "nr", 4: "arch", 8: "ip.lo", 12: "ip.hi"} | {
    16 + 8 * index + 4 * high: f"args[{index}].{'hi' if high else 'lo'}"
    for index in range(6)
    for high in range(2)
}
_ALU: Final = {
    abi.BPF_ADD: "add",
    abi.BPF_SUB: "sub",
    abi.BPF_MUL: "mul",
    abi.BPF_DIV: "div",
    abi.BPF_OR: "or",
    abi.BPF_AND: "and",
    abi.BPF_LSH: "lsh",
    abi.BPF_RSH: "rsh",
    abi.BPF_MOD: "mod",
    abi.BPF_XOR: "xor",
}
_JUMPS: Final = {
    abi.BPF_JEQ: "jeq",
    abi.BPF_JGT: "jgt",
    abi.BPF_JGE: "jge",
    abi.BPF_JSET: "jset",
}
_PLAIN: Final = {
    abi.BPF_LD | abi.BPF_LEN: "ld   len",
    abi.BPF_LDX | abi.BPF_LEN: "ldx  len",
    abi.BPF_ALU | abi.BPF_NEG: "neg",
    abi.BPF_MISC | abi.BPF_TAX: "tax",
    abi.BPF_MISC | abi.BPF_TXA: "txa",
    abi.BPF_RET | abi.BPF_A: "ret  a",
}
_CONSTANT: Final = {abi.BPF_LD | abi.BPF_IMM: "ld", abi.BPF_LDX | abi.BPF_IMM: "ldx"}
_MEMORY: Final = {
    abi.BPF_LD | abi.BPF_MEM: "ld",
    abi.BPF_LDX | abi.BPF_MEM: "ldx",
    abi.BPF_ST: "st",
    abi.BPF_STX: "stx",
}


def action_name(value: int) -> str:
    """Returns a filter's return value in words, such as ``ERRNO(1)`` or ``ALLOW``.

    The data is left out where it is zero and the action has no use for it. An action that has no
    name (the kernel kills the process for it) is given as a number.

    Args:
        value: ``u32``; what the filter returned.
    """
    name = _ACTIONS.get(value & seccomp.SECCOMP_RET_ACTION_FULL)
    data = value & seccomp.SECCOMP_RET_DATA
    if name is None:
        return f"{value:#010x}"
    return f"{name}({data})" if data or name in _USES_DATA else name


def dump_program(program: Iterable[Insn]) -> str:
    """Returns the program as text, one line an instruction.

    Any instruction can be shown; one without a mnemonic is shown as its four fields.
    """
    return "".join(f"{pc:4}  {_text(pc, insn)}\n" for pc, insn in enumerate(program))


def _text(pc: int, insn: Insn) -> str:
    code, jt, jf, k = insn
    if code in _PLAIN:
        return _PLAIN[code]
    if code == abi.BPF_RET | abi.BPF_K:
        return f"ret  {action_name(k)}"
    if code == abi.BPF_LD | abi.BPF_W | abi.BPF_ABS:
        return f"ld   {_FIELDS.get(k, f'[{k}]')}"
    if code in _CONSTANT:
        return f"{_CONSTANT[code]:4} #{k:#x}"
    if code in _MEMORY:
        return f"{_MEMORY[code]:4} M[{k}]"
    if code == abi.BPF_JMP | abi.BPF_JA:
        return f"ja   {pc + 1 + k}"
    return _operation(pc, insn) or f"???  code {code:#x} jt {jt} jf {jf} k {k:#x}"


def _operation(pc: int, insn: Insn) -> str | None:
    # Instructions with an operand that is a constant or the index register.
    code, jt, jf, k = insn
    operand = "x" if code & abi.BPF_X else f"#{k:#x}"
    kind, operation = code & 7, code & ~(7 | abi.BPF_X)
    if kind == abi.BPF_ALU and operation in _ALU:
        return f"{_ALU[operation]:4} {operand}"
    if kind == abi.BPF_JMP and operation in _JUMPS:
        return f"{_JUMPS[operation]:4} {operand} then {pc + 1 + jt} else {pc + 1 + jf}"
    return None
