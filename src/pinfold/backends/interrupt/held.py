"""A task that the tracer holds: its state, and what its registers say of its call.

A task is in one of four states:

    PARKED   stopped, out of its notification, with the registers of an interrupted call (``rax``
             -ERESTARTSYS): whoever resumes it has it make its call again.
    FLYING   it makes its call, redirected or not, and is stopped again when that is over: by the
             single step, or, where a step would disturb SIGTRAP, at the exit of the call.
    LEAVING  it was seized in vain; it is let go at its next stop, whatever that is.
    RETURNING  its call is over, and signals that were held back are still to be handed out.

What a stop of a flying task means is told by its instruction pointer. On the call instruction: the
call was not made, and all registers get their own values, those of the interrupted call; then a
signal does what it would have done to it. After the instruction: it was made, or refused by another
filter, or interrupted in its turn; the arguments are put back, and the kernel goes on from there:
it restarts the call with the arguments of the task's own, or builds a signal frame that shows them.

Between the step and its end another thread may overwrite the call instruction. As for injected
calls (``tracee.inject``) ``rcx`` and ``r11`` tell whether it was a call that ended.

A filter with ``WAIT_KILLABLE_RECV`` promises that a call is not interrupted once it was received. A
signal that is pending while such a call flies is therefore held back, and sent again when the
second notification was received: from there on the kernel keeps the promise itself.
"""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import (
    ARGUMENTS,
    NO_SYSCALL,
    ORIG_RAX,
    R11,
    RAX,
    RCX,
    RIP,
    SYSCALL_INSTRUCTION,
    SYSCALL_LENGTH,
    TRAP_FLAG,
)
from pinfold.errors import TraceeGone
from pinfold.linux import process, ptrace
from pinfold.tracee import stops
from pinfold.tracee.inject import SIGTRAP_BIT, UNTOUCHED, has_sigtrap, replay
from pinfold.tracee.task import AddressSpace, Task
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    import ctypes

    from pinfold.backends.interrupt.wire import Shared

PARKED: Final = 1
FLYING: Final = 2
LEAVING: Final = 3
RETURNING: Final = 4

_OWN_DOING: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals that an instruction causes: held back, it would only cause them again."""


class Held(Task):
    """A task that we trace at the moment."""

    __slots__ = (
        "asleep",
        "entering",
        "first",
        "flown",
        "how",
        "number",
        "quiet",
        "saved",
        "state",
        "substituted",
        "work",
    )

    def __init__(self, tid: int) -> None:
        # Its process is looked up when it is parked.
        super().__init__(tid, tid, AddressSpace())
        self.state = LEAVING
        self.work = ptrace.Registers()
        self.saved: ctypes.Array[ctypes.c_uint64] = ptrace.Registers()
        """As they were when it was parked."""
        self.quiet = False
        """Whether it ignores SIGTRAP."""
        self.substituted = 0
        """Bit i: argument i is not the task's own at the moment."""
        self.number = 0
        """Of the request that made it fly."""
        self.asleep = False
        """Whether it was seen to sleep in its call without a second notification."""
        self.flown = b""
        """Its call as ``/proc/TID/syscall`` shows it: number, arguments; and the call's address."""
        self.how = abi.PTRACE_SINGLESTEP
        self.entering = False
        """Whether the stop at the entry of its call is still to come."""
        self.first: tuple[int, ctypes.Array[ctypes.c_char]] | None = None
        """A signal that was reported before the end of the step, and is to be taken after it."""

    def about_to_call(self) -> ctypes.Array[ctypes.c_uint64]:
        """Returns the registers by which it makes its own call again, for :meth:`fly`.

        Preconditions: it is parked.
        """
        registers = self.work
        ptrace.copy_registers(registers, self.saved)
        registers[RIP] -= SYSCALL_LENGTH
        registers[RAX] = registers[ORIG_RAX]
        registers[ORIG_RAX] = NO_SYSCALL
        registers[RCX] = registers[R11] = UNTOUCHED
        return registers

    def fly(self, number: int, substituted: int) -> None:
        """Lets it make its call.

        Args:
            number: Of the request.
            substituted: A bit for each argument that was replaced in :meth:`about_to_call`.
        """
        self.substituted = substituted
        with self.guard:
            ptrace.set_registers(self.tid, self.work)
            # The call runs under the task's own signal mask. A step's SIGTRAP is forced on the
            # task, which would undo that it blocks or ignores it.
            by_step = not (self.quiet or ptrace.get_signal_mask(self.tid) & SIGTRAP_BIT)
            self.asleep = False
            self.flown = _shown(self.work, self.saved[RIP])
            self.how = abi.PTRACE_SINGLESTEP if by_step else abi.PTRACE_SYSCALL
            self.entering = not by_step
            self.number = number
            self.state = FLYING
            ptrace.resume(self.how, self.tid)

    def look_up(self) -> None:
        """Learns what the kernel says of it: its process, and whether it ignores SIGTRAP."""
        fields = process.status_fields(self.tid, b"Tgid", b"SigIgn")
        if fields is None:
            raise TraceeGone(self.tid)
        self.tgid = int(fields[0])
        self.quiet = has_sigtrap(fields[1])

    def at_call_instruction(self, pointer: int) -> bool:
        """Returns whether a call instruction lies before an address.

        What is stepped over must be one. The vsyscall page has none.
        """
        try:
            word = ptrace.peek(self.tid, pointer - SYSCALL_LENGTH)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise TraceeGone(self.tid) from error
            return False
        return word[:SYSCALL_LENGTH] == SYSCALL_INSTRUCTION

    def call_over(self) -> bool:
        """Returns whether its call is over, as its registers tell.

        Preconditions: they are loaded; it is past the entry stop, where there is one.
        """
        registers = self.registers
        return registers[RCX] == registers[RIP] == self.saved[RIP] and registers[R11] != UNTOUCHED

    def step_is_due(self, status: int) -> bool:
        """Returns whether the step's own stop is still to come, and makes it come.

        A group stop is reported before it, and so is the SIGSYS of a filter. The SIGTRAP that is
        pending must not be left behind: it would end the task.
        """
        if self.how != abi.PTRACE_SINGLESTEP or not self.call_over():
            return False
        if status == stops.STEP_STOP and not self.sent_by_someone():
            return False
        self.put_first(status)
        with self.guard:
            ptrace.resume(abi.PTRACE_CONT, self.tid)
        return True

    def put_first(self, status: int) -> None:
        """Keeps the signal of a signal-delivery stop for when it is let go."""
        if not stops.stop_event(status) and status != stops.SYSCALL_STOP:
            number = replay(self, stops.stop_signal(status))
            with self.guard:
                self.first = (number, ptrace.get_siginfo(self.tid))

    def hold_back(self, status: int, shared: Shared) -> bool:
        """Passes over a stop before a call that is not to be interrupted; returns whether it was.

        A signal that it was about is kept, for :meth:`resend`.
        """
        if stops.stop_event(status):
            # It joins a group stop when it is let go.
            if not stops.is_group_stop(status):
                return False
        else:
            number = stops.stop_signal(status)
            if number in _OWN_DOING or status == stops.SYSCALL_STOP:
                return False
            number = replay(self, number)
            with self.guard:
                self.held.append((number, ptrace.get_siginfo(self.tid)))
            shared.hold(self.number)
        with self.guard:
            ptrace.resume(self.how, self.tid)
        return True

    def resend(self) -> None:
        """Sends it the signals again that were held back."""
        for number, _ in self.held:
            try:
                process.signal_thread(self.tgid, self.tid, number)
            except OSError as error:
                # EAGAIN: of a real-time signal, where the program has lowered the limit of what may
                # be pending since. It is lost, as one that is sent now would be.
                if error.errno not in (errno.ESRCH, errno.EAGAIN):
                    raise

    def put_back(self, registers: ctypes.Array[ctypes.c_uint64]) -> None:
        """Puts its own arguments into registers that were loaded after its call."""
        for index, register in enumerate(ARGUMENTS):
            if self.substituted & 1 << index:
                registers[register] = self.saved[register]
        if self.how == abi.PTRACE_SINGLESTEP and not self.saved[R11] & TRAP_FLAG:
            # The processor saves the flags there, with the step's own.
            registers[R11] &= ~TRAP_FLAG

    def signal_to_take(self, status: int) -> int:
        """Returns the signal that it is to take now; 0 at stops that are about something else."""
        if self.first is not None:
            number, info = self.first
            with self.guard:
                ptrace.set_siginfo(self.tid, info)
            return number
        if stops.stop_event(status) or status == stops.SYSCALL_STOP:
            return 0
        if status == stops.STEP_STOP and not self.sent_by_someone():
            return 0
        return replay(self, stops.stop_signal(status))


def _shown(registers: ctypes.Array[ctypes.c_uint64], pointer: int) -> bytes:
    # Preconditions: these registers are about to make the call.
    number = registers[RAX]
    number -= (number >> 63) << 64
    rest = " ".join(f"{registers[register]:#x}" for register in ARGUMENTS)
    return f"{number} {rest} {pointer:#x}".encode()
