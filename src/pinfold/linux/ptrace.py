"""``ptrace(2)`` as Python functions over preallocated buffers.

Preconditions: every function must be called by the thread that seized the task, with the task in a
ptrace stop unless said otherwise. ptrace relations belong to a *thread*, not to a process.
"""

from __future__ import annotations

import ctypes
from typing import Final

from pinfold.arch.x86_64 import REGISTERS, RIP
from pinfold.linux.libc import error, function, lean, syscall
from pinfold.linux.uio import IoVec
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import ptrace as abi

_ptrace = function(
    "ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_size_t, ctypes.c_size_t
)

_lean = lean("ptrace", blocks=False)
"""Of these requests none waits: the task is stopped, or they fail."""

Registers = ctypes.c_uint64 * REGISTERS
"""``struct user_regs_struct`` as an array; indices are in :mod:`pinfold.arch.x86_64`."""


def copy_registers(
    into: ctypes.Array[ctypes.c_uint64], source: ctypes.Array[ctypes.c_uint64]
) -> None:
    """Copies one :data:`Registers` array into another."""
    ctypes.memmove(into, source, ctypes.sizeof(into))


def load_registers(tid: int, into: ctypes._CArgObject) -> bool:
    """Reads all registers, at the least cost; returns whether that worked.

    Args:
        tid: The stopped task.
        into: ``ctypes.byref`` of a :data:`Registers` array.
    """
    return _lean(_GETREGS, tid, 0, into) == 0


class RegisterWriter:
    """Writes what a supervisor changes of a task's registers, at the least cost.

    Those up to the instruction pointer: of the others, which follow in ``user_regs_struct``, nobody
    changes any, and the kernel takes its time with segments.

    Args:
        values: A :data:`Registers` array.

    Kernel: ``PTRACE_SETREGSET`` with NT_PRSTATUS in ``ptrace(2)``.
    """

    __slots__ = ("_to_vector", "_vector")

    def __init__(self, values: ctypes.Array[ctypes.c_uint64]) -> None:
        self._vector = IoVec(ctypes.addressof(values), (RIP + 1) * 8)
        self._to_vector = ctypes.byref(self._vector)

    def write(self, tid: int) -> bool:
        """Writes them to a stopped task; returns whether that worked."""
        return _lean(_SETREGSET, tid, _NT_PRSTATUS, self._to_vector) == 0


def resumed(how: int, tid: int, signal: int = 0) -> bool:
    """Resumes a task, as :func:`resume` does, at the least cost; returns whether that worked."""
    return _lean(how, tid, 0, signal) == 0


_GETREGS: Final = abi.PTRACE_GETREGS
_SETREGSET: Final = abi.PTRACE_SETREGSET
_NT_PRSTATUS: Final = abi.NT_PRSTATUS

_NAMES: Final = {
    value: name
    for name, value in vars(abi).items()
    if name.startswith("PTRACE_") and "_O_" not in name
}


def request(number: int, tid: int, addr: int = 0, data: int = 0) -> int:
    """Returns the result of one ptrace request.

    Raises:
        OSError: ESRCH when the task died or is not stopped; EPERM and others as in the man page.

    Kernel: ``ptrace(2)``.
    """
    result = _ptrace(number, tid, addr, data)
    if result == -1:
        raise error(_NAMES.get(number, "ptrace"), tid)
    return result


def seize(tid: int, options: int) -> None:
    """Makes the calling thread the tracer of ``tid`` without stopping it.

    Raises:
        OSError: EPERM when it is traced already or permission is missing (``ptrace(2)``, Yama).
    """
    request(abi.PTRACE_SEIZE, tid, 0, options)


def get_registers(tid: int, into: ctypes.Array[ctypes.c_uint64]) -> None:
    """Reads all registers of the stopped task into a :data:`Registers` array."""
    if _ptrace(abi.PTRACE_GETREGS, tid, 0, ctypes.addressof(into)) == -1:
        raise error("PTRACE_GETREGS", tid)


def set_registers(tid: int, values: ctypes.Array[ctypes.c_uint64]) -> None:
    """Writes all registers of the stopped task."""
    if _ptrace(abi.PTRACE_SETREGS, tid, 0, ctypes.addressof(values)) == -1:
        raise error("PTRACE_SETREGS", tid)


def poke_register(tid: int, register: int, value: int) -> None:
    """Writes one register, given by its index in :data:`Registers`."""
    if _ptrace(abi.PTRACE_POKEUSER, tid, register * 8, value) == -1:
        raise error("PTRACE_POKEUSER", tid)


def resume(how: int, tid: int, signal: int = 0) -> None:
    """Resumes the task with ``PTRACE_CONT``, ``_SYSCALL``, ``_SINGLESTEP`` or ``_LISTEN``.

    Args:
        how: The request.
        tid: The stopped task.
        signal: Signal number to deliver to it, 0 for none.
    """
    if _ptrace(how, tid, 0, signal) == -1:
        raise error(_NAMES.get(how, "ptrace"), tid)


def event_message(tid: int) -> int:
    """Returns the message of the current event: a new task's id, a former id after exec."""
    message = ctypes.c_ulong()
    request(abi.PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value


def get_siginfo(tid: int) -> ctypes.Array[ctypes.c_char]:
    """Returns the ``siginfo_t`` of the signal whose delivery the task stopped for."""
    info = ctypes.create_string_buffer(abi.SIGINFO_SIZE)
    request(abi.PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    return info


def set_siginfo(tid: int, info: ctypes.Array[ctypes.c_char]) -> None:
    """Replaces the ``siginfo_t`` of the signal about to be delivered."""
    request(abi.PTRACE_SETSIGINFO, tid, 0, ctypes.addressof(info))


def get_signal_mask(tid: int) -> int:
    """Returns the task's blocked signals as a 64-bit mask (bit n-1 is signal n)."""
    mask = ctypes.c_uint64()
    request(abi.PTRACE_GETSIGMASK, tid, 8, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Replaces the task's blocked signals."""
    value = ctypes.c_uint64(mask)
    request(abi.PTRACE_SETSIGMASK, tid, 8, ctypes.addressof(value))


def peek(tid: int, address: int) -> bytes:
    """Returns the eight bytes at an address of the stopped task, whatever its page protection.

    Raises:
        OSError: EIO or EFAULT where nothing is mapped.
    """
    word = ctypes.c_uint64()
    # The system call, unlike the C library's function, stores the word.
    syscall("ptrace", NR["ptrace"], abi.PTRACE_PEEKDATA, tid, address, ctypes.addressof(word))
    return word.value.to_bytes(8, "little")
