"""Calls made by a stopped task on our behalf, leaving no trace in it.

A task that just trapped has a ``syscall`` instruction right before its instruction pointer. To
inject a call: put number and arguments into the registers, move the instruction pointer back onto
that instruction, and single-step. The step stops once, after the call. When the ``with`` block
ends, the registers and the signal mask are what they were, and signals that came meanwhile are
delivered.

What can go wrong, and the answer:

*Signals.* All are blocked for the duration with ``PTRACE_SETSIGMASK``; they stay pending in the
kernel and are delivered by it afterwards. SIGTRAP cannot be blocked in stepping mode: a forced
signal that is blocked or ignored resets its handler. A task that *ignores or blocks* SIGTRAP is
therefore run to a syscall stop, which is no signal and takes one stop more. SIGSYS, which a filter
of the task's own may force on it, is never blocked, for the same reason. What gets through all the
same (SIGSTOP, a SIGTRAP that someone sent) is held: sent again by ``tgkill``, and given its
original ``siginfo_t`` back when its delivery stop comes (``Injector.replay``).

*Job control.* When a sibling's group stop catches the task in the middle, it is pushed on to the
end of the injection, and SIGSTOP is sent to it again, which makes it join the stopped group. A
SIGCONT in between cancels this: the kernel discards pending stops, and reports the continuation as
``PTRACE_EVENT_STOP``.

*Lies.* Another thread can overwrite the ``syscall`` instruction or unmap the page it is on. Then
the step ends in a fault, which ends the target, or in some other instruction of two bytes that puts
a wanted value into the result register. But ``syscall`` alone leaves the return address in ``rcx``
*and* the flags in ``r11``; both hold a random number before the step, and a step that leaves one of
them alone was no call.

*The target's own filters* see the injected call. When one of them answers with a trace stop, the
call is refused (ENOSYS), as it would be without a tracer. When one answers with SIGSYS
(``SECCOMP_RET_TRAP``), that is kept from the task, and the call counts as not made: the kernel has
put the call's number back into the result register, where it looks like a success.
"""

from __future__ import annotations

import ctypes
import errno
import os
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
    SYSCALL_LENGTH,
)
from pinfold.errors import TraceeGone
from pinfold.linux import process, ptrace
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pinfold.tracee.task import Task
    from pinfold.tracee.waits import Waits

_ALL = 0xFFFFFFFFFFFFFFFF
UNTOUCHED: Final = int.from_bytes(os.urandom(8), "little")
"""What ``rcx`` and ``r11`` hold before a step; see the head of the module."""

SIGTRAP_BIT: Final = 1 << (signal.SIGTRAP - 1)
_SIGSYS_BIT: Final = 1 << (signal.SIGSYS - 1)
_FAULTS: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_HARMLESS: Final = NR["getpid"]


class Injector:
    """A scope in which a stopped task makes calls for us.

    Args:
        task: A task in a seccomp or syscall-exit stop.
        waits: The tracing thread's wait queue.
        quiet: Whether it is known to ignore SIGTRAP, or not to; None if that is to be looked up.

    Registers may be set up by the caller before the scope ends through :attr:`after`.
    """

    __slots__ = (
        "_again",
        "_how",
        "_mask",
        "_quiet",
        "_restop",
        "_saved",
        "_task",
        "_waits",
        "_work",
        "after",
    )

    def __init__(self, task: Task, waits: Waits, quiet: bool | None = None) -> None:
        self._task = task
        self._waits = waits
        self._quiet = quiet
        self._saved = ptrace.Registers()
        self._work = ptrace.Registers()
        self.after: ctypes.Array[ctypes.c_uint64] = self._saved
        self._mask = 0
        self._how = abi.PTRACE_SINGLESTEP
        self._again: list[tuple[int, ctypes.Array[ctypes.c_char]]] = []
        self._restop = False

    def __enter__(self) -> Injector:
        tid = self._task.tid
        with self._task.guard:
            ptrace.get_registers(tid, self._saved)
            self._mask = ptrace.get_signal_mask(tid)
            blocked = _ALL & ~_SIGSYS_BIT
            if not self._mask & SIGTRAP_BIT:
                blocked &= ~SIGTRAP_BIT
                if self._quiet is None:
                    self._quiet = ignores_sigtrap(tid)
            if self._quiet or blocked & SIGTRAP_BIT:
                self._how = abi.PTRACE_SYSCALL
            ptrace.set_signal_mask(tid, blocked)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, TraceeGone):
            return
        try:
            self._leave()
        except TraceeGone:
            if error is not None:
                # It runs what was set up for it here, and nobody would stop it at the end of that.
                process.kill(self._task.tgid)
            raise

    def _leave(self) -> None:
        task = self._task
        with task.guard:
            ptrace.set_registers(task.tid, self.after)
            ptrace.set_signal_mask(task.tid, self._mask)
            for number, info in self._again:
                if not _has(task.held, number):
                    task.held.append((number, info))
                process.signal_thread(task.tgid, task.tid, number)
            if self._restop:
                task.restop = True
                process.signal_thread(task.tgid, task.tid, signal.SIGSTOP)

    def call(self, number: int, *args: int) -> int:
        """Returns what the call returned: a value, or a negative errno; -EPERM if none was made.

        A call whose result may be its own number must not be made with this.

        Raises:
            TraceeGone: The task died or was replaced by an exec.
        """
        registers = self._work
        ctypes.memmove(registers, self._saved, ctypes.sizeof(registers))
        registers[RIP] = self._saved[RIP] - SYSCALL_LENGTH
        registers[RAX] = number
        registers[ORIG_RAX] = NO_SYSCALL
        registers[RCX] = registers[R11] = UNTOUCHED
        for register, value in zip(ARGUMENTS, args, strict=False):
            registers[register] = value & _ALL
        with self._task.guard:
            ptrace.set_registers(self._task.tid, registers)
            if self._how == abi.PTRACE_SYSCALL:
                self.run_to(stops.SYSCALL_STOP)
                self._skip_unless(number)
                self.run_to(stops.SYSCALL_STOP)
            else:
                self.run_to(stops.STEP_STOP)
        value = self.result()
        made = registers[RCX] == registers[RIP] == self._saved[RIP]
        if value == number and number != _HARMLESS:
            # Rolled back by SECCOMP_RET_TRAP. After a syscall stop the signal is still to come: it
            # does before the next call.
            if self._how == abi.PTRACE_SYSCALL:
                self.call(_HARMLESS)
            return -errno.EPERM
        return value if made and registers[R11] != UNTOUCHED else -errno.EPERM

    def run_code(self, registers: ctypes.Array[ctypes.c_uint64], end: int) -> bool | None:
        """Has the task run code of ours, and returns whether it ended as it should.

        None when it did not get there: the code was replaced. Its faults are kept from the task.

        Args:
            registers: What to begin with; afterwards the registers at the end.
            end: What the code ends with: the address behind a ``syscall`` instruction, where our
                filter stops the task, and a breakpoint, in case that another one gets in its way.

        With true the task is in the seccomp stop of a call like its own. Then, and only then, it is
        in that of its own call when the scope ends with :attr:`after` as it was.

        Raises:
            TraceeGone: As from :meth:`call`.
        """
        task = self._task
        task.store(registers)
        while True:
            task.resume()
            status = self._waits.stop_of(task.tid)
            if status in (stops.SECCOMP_STOP, stops.STEP_STOP):
                with task.guard:
                    ptrace.get_registers(task.tid, registers)
                if registers[RIP] == end and status == stops.SECCOMP_STOP:
                    return True
                if registers[RIP] == end + 1 and not task.sent_by_someone():
                    return False
            elif _is_fault(status) and task.signal_code() > 0:
                return None
            self.reached(status, stops.SYSCALL_STOP)

    def leave_call(self) -> None:
        """Ends the call that the task is in a seccomp stop of, unmade: others can be injected then.

        Raises:
            TraceeGone: As from :meth:`call`.
        """
        registers = self._work
        with self._task.guard:
            ptrace.get_registers(self._task.tid, registers)
            registers[ORIG_RAX] = NO_SYSCALL
            ptrace.set_registers(self._task.tid, registers)
            self._task.resume(0, abi.PTRACE_SYSCALL)
        while not self.reached(self._waits.stop_of(self._task.tid), stops.SYSCALL_STOP):
            self._task.resume(0, abi.PTRACE_SYSCALL)

    def _skip_unless(self, number: int) -> None:
        # At the entry of a call. Without the instruction under it, it is one of the task's own.
        registers = self._work
        ptrace.get_registers(self._task.tid, registers)
        if registers[RIP] != self._saved[RIP] or registers[ORIG_RAX] != number:
            registers[ORIG_RAX] = NO_SYSCALL
            ptrace.set_registers(self._task.tid, registers)

    def result(self) -> int:
        """Returns the result register as a signed number."""
        with self._task.guard:
            ptrace.get_registers(self._task.tid, self._work)
        value = self._work[RAX]
        return value - (1 << 64) if value >> 63 else value

    def run_to(self, wanted: int) -> None:
        """Resumes the task until it stops with status ``wanted``; holds whatever else comes.

        Raises:
            TraceeGone: It died, or executed a program (a sibling's exec took its place).
        """
        task = self._task
        task.resume(0, self._how)
        while not self.reached(self._waits.stop_of(task.tid), wanted):
            task.resume(0, self._how)

    def reached(self, status: int, wanted: int) -> bool:
        """Returns whether a stop is the wanted one; puts anything else aside.

        Raises:
            TraceeGone: The stop is an exec, which the main loop gets to see.
        """
        task = self._task
        if status == wanted and not (wanted == stops.STEP_STOP and self._task.sent_by_someone()):
            return True
        event = stops.stop_event(status)
        if event == abi.PTRACE_EVENT_EXEC:
            self._waits.push_back(task.tid, status)
            raise TraceeGone(task.tid)
        if event == abi.PTRACE_EVENT_SECCOMP:
            task.load()
            task.skip_call(-errno.ENOSYS)
        elif stops.is_group_stop(status):
            self._restop = True
        elif event == abi.PTRACE_EVENT_STOP:
            self._restop = False
            self._again = [held for held in self._again if held[0] != signal.SIGSTOP]
        elif event == 0 and status != stops.SYSCALL_STOP:
            number = stops.stop_signal(status)
            # Those of the kernel's making have a positive code.
            if number != signal.SIGSYS or task.signal_code() <= 0:
                self._hold(number)
        return False

    def _hold(self, number: int) -> None:
        if number in _FAULTS:
            # The instruction under the injected call was tampered with: the fault is forced, so it
            # would come back at every step. It is the target's own doing and ends the target.
            with self._task.guard:
                process.signal_thread(self._task.tgid, self._task.tid, signal.SIGKILL)
            raise TraceeGone(self._task.tid)
        if not _has(self._again, number):
            self._again.append((number, ptrace.get_siginfo(self._task.tid)))


def _is_fault(status: int) -> bool:
    return stops.stop_event(status) == 0 and stops.stop_signal(status) in _FAULTS


def _has(held: Sequence[tuple[int, object]], number: int) -> bool:
    # As in the kernel: a signal of these kinds is pending once, however often it is sent. Without
    # that, a task that is flooded with one would have us keep them all.
    return any(one == number for one, _ in held)


def replay(task: Task, number: int) -> int:
    """Returns the signal to deliver at a signal-delivery stop, after held ones got their due.

    A signal that was held during an injection comes again with the supervisor as its sender; here
    it gets its own ``siginfo_t`` back.
    """
    for index, (held, info) in enumerate(task.held):
        if held == number:
            del task.held[index]
            with task.guard:
                ptrace.set_siginfo(task.tid, info)
            return number
    return number


def ignores_sigtrap(tid: int) -> bool:
    """Returns whether a task ignores SIGTRAP, so that a single step would reset that.

    Raises:
        TraceeGone: It died.
    """
    ignored = process.status_field(tid, b"SigIgn")
    if ignored is None:
        raise TraceeGone(tid)
    return has_sigtrap(ignored)


def has_sigtrap(signals: bytes) -> bool:
    """Returns whether a set of signals, as ``/proc/TID/status`` shows it, has SIGTRAP."""
    return bool(int(signals, 16) & SIGTRAP_BIT)
