"""The machine code in an arena's code page (pure).

The page is the same in every process and is never written again. A program may jump anywhere in it;
it finds nothing there that it could not have in its own code.

*Return stubs.* A redirected call needs its register back before the program's next instruction. A
stop at the exit of the call costs as much as the first one. A stub costs nothing: at the first stop
the instruction pointer is moved behind the ``syscall`` of a stub, so that this is where the call
returns to, and what the stub needs is put into ``rcx`` and ``r11``:

* ``rcx``: where the call was to return to;
* ``r11``: the redirected register's own value.

A program cannot rely on either: ``syscall`` overwrites them, with the return address and the flags.
(A program that looks finds its return address in ``rcx``, as it should, and its own value in
``r11`` instead of the flags.) They survive the call because the kernel takes the fast way back
(``sysret``) only when they agree with the instruction pointer and the flags it is to return with,
and otherwise restores every register (``iret``).

So a stub is one constant piece of code for all call sites, one a register. Nothing is looked up at
a place that another thread could write, and nothing that a stub leaves behind points into the pin.

In front of each stub is a ``syscall`` instruction. A call that the kernel makes again without a
stop has its instruction pointer moved back by the length of one, and traps again right there. By
then ``rcx`` and ``r11`` are what ``syscall`` leaves in them: the supervisor knows what they were.

*The set-up.* What is left to do when this page alone has been mapped, without a stop for each call:
map the slots, seal them and the page, close the memfd, and make the call again that the program was
stopped in, which stops it again. It is entered with the registers of that ``mmap``. The arguments
of the program's call are kept in registers that no call of these has a use for, and its number in
the stack pointer: no signal is delivered meanwhile, so nothing is ever pushed. At the last
``syscall`` the argument registers are the program's, and the others say what came of it: ``rbp``
what ``mmap`` returned, ``r12`` what ``mseal`` did (0, or else), ``rbx`` what ``close`` did. That is
good to know, and proves nothing: another thread may have replaced the page.

Kernel: ``do_syscall_64`` in arch/x86/entry/syscall_64.c.
"""

from __future__ import annotations

import struct
from typing import Final

from pinfold.arch.x86_64 import (
    ARGUMENTS,
    R8,
    R9,
    R10,
    R12,
    R13,
    R14,
    R15,
    RBP,
    RBX,
    RDI,
    RDX,
    RSI,
    RSP,
    SYSCALL_INSTRUCTION,
    SYSCALL_LENGTH,
)
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.mman import PAGE_SIZE

SIZE: Final = PAGE_SIZE
"""Bytes of a code page."""

_SYSCALL: Final = SYSCALL_INSTRUCTION
_BREAKPOINT: Final = b"\xcc"
_ROOM: Final = 8

_MOVE_FROM_R11: Final = {
    RDI: b"\x4c\x89\xdf",
    RSI: b"\x4c\x89\xde",
    RDX: b"\x4c\x89\xda",
    R10: b"\x4d\x89\xda",
    R8: b"\x4d\x89\xd8",
    R9: b"\x4d\x89\xd9",
}
_JUMP_TO_RCX: Final = b"\xff\xe1"

START: Final = 0
"""Offset of the first stub's ``syscall`` instruction in the page."""
END: Final = len(ARGUMENTS) * _ROOM
"""Offset after the last stub."""

_STUBS: Final = {
    register: index * _ROOM + SYSCALL_LENGTH for index, register in enumerate(ARGUMENTS)
}

SET_UP: Final = 64
"""Offset of the set-up."""

KEEPERS: Final = (RBX, RBP, R12, R13, R14, R15)
"""Where the set-up finds the arguments of the program's call, in order; the number is in RSP."""
KEEPER_OF_NUMBER: Final = RSP


def _number(call: str) -> bytes:
    # mov eax, NUMBER
    return b"\xb8" + struct.pack("<I", NR[call])


def _set_up() -> bytes:
    sealing_page = b"".join(
        (
            b"\xbe" + struct.pack("<I", SIZE),  # mov esi, SIZE
            _number("mseal"),
            _SYSCALL,
            b"\x49\x89\xc2",  # mov r10, rax
        )
    )
    before = b"".join(
        (
            _SYSCALL,
            b"\x49\x89\xc1",  # mov r9, rax
            b"\x48\x89\xc7",  # mov rdi, rax
            b"\x31\xd2",  # xor edx, edx
            _number("mseal"),
            _SYSCALL,
            b"\x49\x89\xc2",  # mov r10, rax
            b"\x85\xc0",  # test eax, eax
        )
    )
    page = b"\x48\x8d\x3d"  # lea rdi, [rip + ...]
    there = SET_UP + len(before) + 2 + len(page) + 4
    sealing_page = page + struct.pack("<i", -there) + sealing_page
    return b"".join(
        (
            before,
            b"\x75" + bytes([len(sealing_page)]),  # jnz: the page can still be unmapped
            sealing_page,
            b"\x44\x89\xc7",  # mov edi, r8d
            _number("close"),
            _SYSCALL,
            b"\x48\x89\xdf",  # mov rdi, rbx
            b"\x48\x89\xc3",  # mov rbx, rax
            b"\x48\x89\xee",  # mov rsi, rbp
            b"\x4c\x89\xcd",  # mov rbp, r9
            b"\x4c\x89\xe2",  # mov rdx, r12
            b"\x4d\x89\xd4",  # mov r12, r10
            b"\x4d\x89\xea",  # mov r10, r13
            b"\x4d\x89\xf0",  # mov r8, r14
            b"\x4d\x89\xf9",  # mov r9, r15
            b"\x48\x89\xe0",  # mov rax, rsp
            _SYSCALL,
        )
    )


_CODE_OF_SET_UP: Final = _set_up()

SET_UP_END: Final = SET_UP + len(_CODE_OF_SET_UP)
"""Offset where the program's call returns to when the set-up has made it; a breakpoint is there."""

CODE: Final = (
    b"".join(
        (_SYSCALL + _MOVE_FROM_R11[register] + _JUMP_TO_RCX).ljust(_ROOM, _BREAKPOINT)
        for register in ARGUMENTS
    ).ljust(SET_UP, _BREAKPOINT)
    + _CODE_OF_SET_UP
).ljust(SIZE, _BREAKPOINT)
"""What a code page holds: all of it."""


def stub_of(register: int) -> int:
    """Returns the offset in the page where a call returns to that had this register redirected.

    Args:
        register: One of ``ARGUMENTS``.
    """
    return _STUBS[register]


def inside(offset: int) -> bool:
    """Returns whether an instruction pointer at this offset from the page is in a return stub.

    A task that is there has not got its register back, unless it jumped there by itself.
    """
    return START <= offset < END
