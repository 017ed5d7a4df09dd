"""The supervisor's loop: one stop at a time, each dealt with before the next is looked at.

The loop owns its thread. ptrace binds tasks to the thread that seized them, waits are restricted to
that thread's own, and its end kills every task (``PTRACE_O_EXITKILL``).

A stop is one of: a trapped call (seccomp), the end of a redirected call, a new task, an exec, a
signal about to be delivered, job control. Anything that goes wrong with a single call fails that
call. Anything that goes wrong with the loop itself ends the sandbox: its tasks are killed before
the error is passed on.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import COMPAT_CS, CS, ORIG_RAX, RDI
from pinfold.backends.base import Deny
from pinfold.codec.base import SlotFull
from pinfold.errors import TraceeGone
from pinfold.linux import ptrace
from pinfold.linux.process import process_of
from pinfold.pins.arena import SLOT_SIZE
from pinfold.policy.rules import DENY, REDIRECT
from pinfold.supervisor.engine import UNPINNED, Decision
from pinfold.supervisor.family import Family
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.tracee.inject import replay
from pinfold.uapi import ptrace as abi
from pinfold.uapi.prctl import CLONE_VFORK, CLONE_VM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.backends.trace import TraceBackend
    from pinfold.pins.arena import Slot
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.task import Task
    from pinfold.tracee.waits import Waits

OPTIONS: Final = (
    abi.PTRACE_O_TRACESYSGOOD
    | abi.PTRACE_O_TRACEFORK
    | abi.PTRACE_O_TRACEVFORK
    | abi.PTRACE_O_TRACECLONE
    | abi.PTRACE_O_TRACEEXEC
    | abi.PTRACE_O_TRACESECCOMP
    | abi.PTRACE_O_EXITKILL
)

_FLAGS_OF: Final = {NR["fork"]: 0, NR["vfork"]: CLONE_VM | CLONE_VFORK}
_SI_TKILL: Final = -6


class Supervisor:
    """Supervises one sandbox from its first stop to its last.

    Args:
        main: The process that pinfold started: it is seized, and about to run COMMAND.
        waits: The thread's wait queue.
        backend: Carries out plans.
        engine: Decides.
        shapes: What is trapped, by system call number.
        record: Called with each decision before it is carried out.
        on_stop: Called when COMMAND was stopped by job control, with the signal.
        on_refused: Called with one line about a program that was refused whole.

    Attributes:
        denied: Calls that a rule denied.
        redirected: Calls that a rule sent elsewhere.
        trapped: Calls that were judged.
        executed: Whether COMMAND has been executed.
        refused: Whether COMMAND was executed and killed at once, as a 32-bit program.
        stopped: Whether COMMAND is stopped by job control.

    Preconditions: made and run by the thread that seized ``main``.
    """

    def __init__(
        self,
        main: int,
        waits: Waits,
        backend: TraceBackend,
        engine: Engine,
        shapes: Mapping[int, Shape],
        *,
        record: Callable[[Task, Shape, Decision], None],
        on_stop: Callable[[int], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._main = main
        self._waits = waits
        self._backend = backend
        self._engine = engine
        self._shapes = shapes
        self._record = record
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._family = Family()
        task = self._family.adopt(main, main)
        task.shares = False
        self._status: int | None = None
        self.denied = 0
        self.redirected = 0
        self.trapped = 0
        self.executed = False
        self.refused = False
        self.stopped = False

    @property
    def most(self) -> int:
        """How many tasks there were at one time, at most."""
        return self._family.most

    def run(self) -> int:
        """Returns COMMAND's wait status, when it has ended and nothing of the sandbox is left.

        Raises:
            Exception: Whatever went wrong in the loop; the sandbox was killed first.
        """
        try:
            self._supervise()
        finally:
            self._end()
        return self._status if self._status is not None else signal.SIGKILL

    def _supervise(self) -> None:
        next_stop = self._waits.next
        known = self._family.get
        trapped = self._trapped
        while self._status is None:
            tid, status = next_stop()
            task = known(tid)
            try:
                if not stops.stopped(status):
                    self._ended(tid, status)
                    continue
                if task is None:
                    task = self._unknown(tid)
                if status == stops.SECCOMP_STOP:
                    trapped(task)
                elif status == stops.SYSCALL_STOP:
                    self._backend.exit_stop(task)
                else:
                    self._other(task, status)
            except TraceeGone:
                # Killed while we worked on it; its end is in the queue or will be.
                continue

    def _trapped(self, task: Task) -> None:
        registers = task.load()
        call = self._shapes.get(registers[ORIG_RAX])
        backend = self._backend
        if call is None:
            # Not our filter's doing: a filter of the target's own asked for a tracer. Without one
            # the call would fail with ENOSYS.
            backend.deny(task, Deny(errno.ENOSYS))
            return
        found = self._decided(task, call)
        if found is None:
            return
        slot, decision = found
        self.trapped += 1
        # Before the call is let go: what is done is in the log, whatever happens next.
        self._record(task, call, decision)
        if decision.action == DENY:
            self.denied += 1
        elif decision.action == REDIRECT:
            self.redirected += 1
        backend.carry_out(task, slot, decision.plan)

    def _decided(self, task: Task, call: Shape) -> tuple[Slot, Decision] | None:
        # None when the stop is dealt with: a pin is being installed, or cannot be.
        size = SLOT_SIZE
        while True:
            slot = self._backend.slot_for(task, size)
            if isinstance(slot, int):
                if slot:
                    self._record(task, call, Decision(Deny(slot), UNPINNED, None, ()))
                return None
            base = self._backend.address_of(task, slot)
            try:
                return slot, self._engine.decide(task, call, slot, base)
            except SlotFull as full:
                size = max(full.needed, slot.size + 1)

    def _other(self, task: Task, status: int) -> None:
        event = stops.stop_event(status)
        number = stops.stop_signal(status)
        if event in stops.NEW_TASK_EVENTS:
            self._born(task)
        elif event == abi.PTRACE_EVENT_EXEC:
            self._executed(task)
        elif stops.is_group_stop(status):
            task.listen()
            self._group_stopped(task, number)
        elif event == abi.PTRACE_EVENT_STOP:
            # New, or continued: a stop that we still owed it is void.
            task.restop = False
            task.held = [held for held in task.held if held[0] != signal.SIGSTOP]
            if task.tid == self._main:
                self.stopped = False
            task.resume()
        elif event == 0:
            self._signalled(task, number)
        else:
            task.resume()

    def _signalled(self, task: Task, number: int) -> None:
        self._backend.signalled(task)
        if task.held:
            number = replay(task, number)
        elif number == signal.SIGSTOP and _sent_by_tgkill(task):
            # Sent by an injection to join a group stop; void if that was continued meanwhile.
            number = number if task.restop else 0
            task.restop = False
        task.resume(number)

    def _group_stopped(self, task: Task, number: int) -> None:
        if task.tid == self._main and not self.stopped:
            self.stopped = True
            if self._on_stop is not None:
                self._on_stop(number)

    def _born(self, parent: Task) -> None:
        with parent.guard:
            tid = ptrace.event_message(parent.tid)
        registers = parent.load()
        number = registers[ORIG_RAX]
        flags = _FLAGS_OF.get(number, registers[RDI])
        child = self._family.get(tid) or self._family.adopt(tid, tid)
        self._family.related(parent, child, flags)
        parent.resume()

    def _unknown(self, tid: int) -> Task:
        # A task's first stop, before its parent's event.
        task = self._family.adopt(tid, process_of(tid))
        task.program = _program_of(tid)
        return task

    def _executed(self, task: Task) -> None:
        with task.guard:
            former = ptrace.event_message(task.tid)
        ended = self._family.executed(task, former, _program_of(task.tid))
        if ended is not None:
            self._backend.gone(ended)
        self._backend.executed(task)
        first = task.tid == self._main and not self.executed
        if task.load()[CS] == COMPAT_CS:
            self._refuse(task, first=first)
            return
        if first:
            self.executed = True
        task.resume()

    def _refuse(self, task: Task, *, first: bool) -> None:
        self.refused = self.refused or first
        if self._on_refused is not None:
            self._on_refused(
                f"{os.fsdecode(task.program)} is a 32-bit program: its system calls have other"
                " numbers and structures, which pinfold does not judge; it was killed"
            )
        _kill(task.tgid)

    def _ended(self, tid: int, status: int) -> None:
        task = self._family.remove(tid)
        if task is not None:
            self._backend.gone(task)
        if tid == self._main:
            self._status = status

    def _end(self) -> None:
        # Kills and reaps whatever is left. Tasks that are born meanwhile show up in the wait.
        for task in self._family:
            _kill(task.tgid)
        while True:
            try:
                tid, status = self._waits.next()
            except ChildProcessError:
                return
            if stops.stopped(status):
                _kill(process_of(tid))
                _let_die(tid)
            else:
                self._ended(tid, status)


def _kill(tgid: int) -> None:
    try:
        os.kill(tgid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _let_die(tid: int) -> None:
    try:
        ptrace.resume(abi.PTRACE_CONT, tid)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise


def _sent_by_tgkill(task: Task) -> bool:
    # Only an injection sends SIGSTOP this way; anybody's kill() has another si_code.
    with task.guard:
        info = ptrace.get_siginfo(task.tid).raw
    _, _, code = abi.SIGINFO_HEAD.unpack_from(info)
    return bool(code == _SI_TKILL and int.from_bytes(info[16:20], "little") == os.getpid())


def _program_of(tid: int) -> bytes:
    try:
        return os.readlink(b"/proc/%d/exe" % tid)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
            return b""
        raise
