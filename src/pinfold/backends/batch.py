"""``sendmmsg`` under pins: one ``sendmsg`` after the other, each judged by itself.

The kernel writes the length of each message back into the vector as it goes. A pin cannot be
written, so the vector cannot be pinned; but each of its entries begins with a ``msghdr``, and that
can. So the call is changed into a ``sendmsg`` of the first message. When that is over, its length
is written where the program expects it, and the program makes its ``sendmmsg`` again, for the rest
of the vector: it traps, and the next message is judged. The last one leaves the number of messages
sent as the result, and the program's own registers.

As in the kernel, a message that fails after others were sent ends the call with their number, and
so does a signal.

Kernel: ``__sys_sendmmsg`` in ``net/socket.c``.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS, NO_SYSCALL, ORIG_RAX, RAX, RIP, SYSCALL_LENGTH
from pinfold.linux.uio import write_memory
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee.remote import read_bytes
from pinfold.tracee.task import Batch
from pinfold.uapi.mman import PAGE_SIZE
from pinfold.uapi.net import MMSGHDR, MSG_LEN

if TYPE_CHECKING:
    from pinfold.tracee.task import Task

SENDMSG: Final = NR["sendmsg"]
SENDMMSG: Final = NR["sendmmsg"]

_FD, _VECTOR, _COUNT, _FLAGS = ARGUMENTS[:4]
_SENDMSG_FLAGS: Final = ARGUMENTS[2]
_MOST: Final = 1024
"""UIO_MAXIOV: of a longer vector the kernel sends no more at a time."""
_LENGTH: Final = struct.Struct("=I")
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1


def begin(task: Task, message: int) -> tuple[tuple[int, int], ...]:
    """Changes a trapped ``sendmmsg`` into a ``sendmsg``; returns the registers to put back.

    Preconditions: in a seccomp stop, registers loaded. They are changed, not stored.
    """
    registers = task.registers
    changed = (_VECTOR, _SENDMSG_FLAGS, ORIG_RAX)
    saved = tuple((register, registers[register]) for register in changed)
    registers[_VECTOR] = message
    registers[_SENDMSG_FLAGS] = registers[_FLAGS]
    registers[ORIG_RAX] = SENDMSG
    return saved


def advance(task: Task) -> None:
    """Goes on after one message: to the next one, or to the end of the call.

    Preconditions: in the exit stop of the ``sendmsg``, the registers loaded and put back. They are
    changed, not stored.
    """
    registers = task.registers
    batch = task.batch or Batch(registers[_VECTOR], registers[_COUNT], 0)
    result = registers[RAX]
    if result & _SIGN:
        if batch.sent:
            _end(task, batch, batch.sent)
        # Else an error like any other, or a call to be restarted.
        return
    address = registers[_VECTOR] + MSG_LEN
    if not _write(task, address, _LENGTH.pack(result & 0xFFFFFFFF)):
        _end(task, batch, batch.sent or _ALL - errno.EFAULT + 1)
        return
    batch = batch._replace(sent=batch.sent + 1)
    left = (registers[_COUNT] & 0xFFFFFFFF) - 1
    if left == 0 or batch.sent == _MOST:
        _end(task, batch, batch.sent)
        return
    task.batch = batch
    registers[_VECTOR] += MMSGHDR.size
    registers[_COUNT] = left
    registers[RIP] -= SYSCALL_LENGTH
    registers[RAX] = SENDMMSG
    registers[ORIG_RAX] = NO_SYSCALL


def finish(task: Task, batch: Batch) -> None:
    """Ends a call between two messages, as if the last one had been all; a signal came.

    Preconditions: the task is about to make its ``sendmmsg`` again, registers loaded. They are
    changed, not stored.
    """
    task.registers[RIP] += SYSCALL_LENGTH
    _end(task, batch, batch.sent)


def refuse(task: Task, batch: Batch) -> int:
    """Returns what a ``sendmmsg`` answers whose next message is not sent.

    Preconditions: in its seccomp stop, registers loaded; its own arguments are put back there, not
    stored.
    """
    registers = task.registers
    registers[_VECTOR] = batch.vector
    registers[_COUNT] = batch.entries
    task.batch = None
    return batch.sent


def _write(task: Task, address: int, data: bytes) -> bool:
    # As put_user does: all of it or nothing.
    in_first = -address % PAGE_SIZE
    with task.guard:
        if not 0 < in_first < len(data):
            return write_memory(task.tid, address, data)
        second = address + in_first
        try:
            before = read_bytes(task.tid, second, len(data) - in_first)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            return False
        if not write_memory(task.tid, second, data[in_first:]):
            return False
        if write_memory(task.tid, address, data[:in_first]):
            return True
        write_memory(task.tid, second, before)
        return False


def _end(task: Task, batch: Batch, result: int) -> None:
    registers = task.registers
    registers[_VECTOR] = batch.vector
    registers[_COUNT] = batch.entries
    registers[RAX] = result
    registers[ORIG_RAX] = NO_SYSCALL
    task.batch = None
