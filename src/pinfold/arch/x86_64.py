"""x86-64: ``user_regs_struct`` by index, argument registers, the ``syscall`` instruction.

``struct user_regs_struct`` (``sys/user.h``) is 27 unsigned longs; a register here is its index.
"""

from typing import Final

MACHINE: Final = "x86_64"

REGISTERS: Final = 27
R15: Final = 0
R14: Final = 1
R13: Final = 2
R12: Final = 3
RBP: Final = 4
RBX: Final = 5
R10: Final = 7
R11: Final = 6
R9: Final = 8
R8: Final = 9
RAX: Final = 10
RCX: Final = 11
RDX: Final = 12
RSI: Final = 13
RDI: Final = 14
ORIG_RAX: Final = 15
RIP: Final = 16
CS: Final = 17
EFLAGS: Final = 18
RSP: Final = 19

ARGUMENTS: Final = (RDI, RSI, RDX, R10, R8, R9)
"""Registers of the six system call arguments, in order."""

SYSCALL_INSTRUCTION: Final = b"\x0f\x05"
SYSCALL_LENGTH: Final = len(SYSCALL_INSTRUCTION)

TRAP_FLAG: Final = 0x100
"""In ``eflags``: the task makes a single step."""

COMPAT_CS: Final = 0x23
"""Code segment of a 32-bit task; a 64-bit one runs in 0x33."""

NO_SYSCALL: Final = 0xFFFFFFFFFFFFFFFF
"""``orig_rax`` of a task that is in no call: nothing is restarted when it is resumed."""
