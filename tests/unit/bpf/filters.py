"""The programs whose dumps are kept in ``golden/``, one file each.

After a change that is meant to alter what the compiler emits, write the files anew, then read the
difference before committing it::

    python -m tests.unit.bpf.filters
"""

from __future__ import annotations

from pathlib import Path

from pinfold.bpf import Arg, Case, Insn, dump_program
from pinfold.syscalls.numbers import AARCH64, X86_64
from pinfold.uapi import bpf as abi
from pinfold.uapi.seccomp import (
    AUDIT_ARCH_AARCH64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
)
from tests.unit.bpf.model import U64, Filter

GOLDEN = Path(__file__).parent / "golden"

ALWAYS_TRACE = (Case((), SECCOMP_RET_TRACE),)
LOW = 0xFFFFFFFF


def errno(number: int) -> int:
    return SECCOMP_RET_ERRNO | number


FILTERS = {
    # Guards only.
    "empty": Filter({}),
    # Neighbours with one decision are one interval; the first and the last number have one edge.
    "intervals": Filter(
        dict.fromkeys((0, 4, 5, 6, 0x3FFFFFFF), ALWAYS_TRACE)
        | {7: (Case((), errno(1)),), 8: (Case((), SECCOMP_RET_ALLOW),)}
    ),
    # No x32: numbers go on to the top, where only -1 is special.
    "aarch64": Filter(
        {
            AARCH64["openat"]: ALWAYS_TRACE,
            AARCH64["ptrace"]: (Case((), errno(1)),),
            0x40000000 + AARCH64["openat"]: (Case((), errno(2)),),
        },
        arch=AUDIT_ARCH_AARCH64,
        x32=None,
    ),
    # One test of each form: both halves, one half, a bit, no bit, a field.
    "arguments": Filter(
        {
            1: (Case((Arg(5, U64, 0x11223344_55667788),), errno(1)),),
            10: (Case((Arg(0, LOW << 32, 0),), errno(2)),),
            20: (Case((Arg(1, 1 << 63, 1 << 63),), errno(3)),),
            30: (Case((Arg(2, 0xFF, 0),), errno(4)),),
            40: (Case((Arg(3, 0xF0F, 0x101),), errno(5)),),
            50: (Case((Arg(4, 0, 0),), errno(6)),),
        }
    ),
    # What an earlier test has settled is not tested again; a loaded word is not loaded again.
    "facts": Filter(
        {
            X86_64["socket"]: (
                Case((Arg(0, LOW, 2), Arg(1, 0xF, 1)), SECCOMP_RET_TRACE),
                Case((Arg(0, LOW, 2), Arg(1, 0xF, 2)), errno(1)),
                Case((Arg(0, LOW, 2), Arg(1, 0xF, 2), Arg(2, LOW, 17)), errno(99)),
                Case((Arg(0, LOW, 10),), SECCOMP_RET_USER_NOTIF),
                Case((Arg(0, 1, 1),), errno(97)),
                Case((Arg(0, 1, 0),), SECCOMP_RET_LOG),
                Case((), errno(98)),
            ),
        }
    ),
    # Lists of several calls that end alike share their ends.
    "shared": Filter(
        {
            X86_64["open"]: (Case((Arg(1, 3, 0),), SECCOMP_RET_TRACE),),
            X86_64["creat"]: (Case((Arg(1, 3, 0),), SECCOMP_RET_TRACE),),
            X86_64["mkdir"]: (
                Case((Arg(0, LOW, 5),), SECCOMP_RET_TRAP | 7),
                Case((Arg(1, 3, 0),), SECCOMP_RET_TRACE),
            ),
        }
    ),
}


def language() -> list[Insn]:
    """Returns one instruction of every kind, and some that are none."""
    sources = (abi.BPF_K, abi.BPF_X)
    codes = [abi.BPF_ALU | op | src for op in range(0, 0xB0, 0x10) for src in sources]
    codes += [abi.BPF_JMP | op | src for op in range(0, 0x50, 0x10) for src in sources]
    codes += [cls | mode for cls in (abi.BPF_LD, abi.BPF_LDX) for mode in (0, 0x20, 0x60, 0x80)]
    codes += [abi.BPF_ST, abi.BPF_STX, abi.BPF_MISC, abi.BPF_MISC | abi.BPF_TXA]
    codes += [abi.BPF_RET | src for src in (abi.BPF_K, abi.BPF_X, abi.BPF_A)]
    codes += [abi.BPF_LD | abi.BPF_ABS | 0x10, 0x1234]
    return [Insn(code, 1, 2, 5) for code in codes]


def dumps() -> dict[str, str]:
    """Returns the expected text of each golden file, by its name without suffix."""
    texts = {name: dump_program(case.compile()) for name, case in FILTERS.items()}
    return texts | {"language": dump_program(language())}


def main() -> None:
    """Writes the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for name, text in dumps().items():
        (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
