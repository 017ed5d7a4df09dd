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
import threading
from typing import TYPE_CHECKING, Any, Final

from pinfold.arch.x86_64 import COMPAT_CS, CS, ORIG_RAX, RAX, RDI
from pinfold.backends.base import Deny, Kill, Redirect
from pinfold.codec.base import SlotFull
from pinfold.errors import TraceeGone
from pinfold.linux import ptrace
from pinfold.linux.process import kill, process_of, tracer_of
from pinfold.pins.arena import SLOT_SIZE
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE
from pinfold.policy.rules import DENY, REDIRECT
from pinfold.supervisor.crowd import FORKS, Crowd
from pinfold.supervisor.ending import reap
from pinfold.supervisor.engine import UNPINNED, Decision, Waiting
from pinfold.supervisor.family import Family
from pinfold.supervisor.neighbours import Neighbours
from pinfold.supervisor.parked import ParkingLot
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.tracee.inject import replay
from pinfold.tracee.real import as_name
from pinfold.uapi import ptrace as abi
from pinfold.uapi.prctl import CLONE_VFORK, CLONE_VM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.backends.trace import TraceBackend
    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Verdict
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.parked import Parked
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
_SENDMSG: Final = NR["sendmsg"]


class Supervisor:
    """Supervises one sandbox from its first stop to its last.

    Args:
        main: The process that pinfold started: it is seized, and about to run COMMAND.
        waits: The thread's wait queue.
        backend: Carries out plans.
        engine: Decides.
        shapes: What is trapped, by system call number.
        record: Called with each decision before it is carried out; what it returns is given to
            ``over``.
        over: Called with that, and the call's result (signed), when a call is over; with None when
            it never came back. None where nobody asks: then no call is followed to its end for it.
        tasks: Most tasks at one time; None for no limit.
        on_stop: Called when COMMAND was stopped by job control, with the signal.
        on_refused: Called with one line about a program that was refused whole.

    Attributes:
        denied: Calls that a rule denied.
        redirected: Calls that a rule sent elsewhere.
        trapped: Calls that were judged.
        executed: Whether COMMAND has been executed.
        on_executed: Called when it has.
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
        record: Callable[[Task, Shape, Decision], object],
        over: Callable[[Any, int | None], None] | None = None,
        tasks: int | None = None,
        on_executed: Callable[[], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._main = main
        self._waits = waits
        self._backend = backend
        self._engine = engine
        self._shapes = shapes
        self._record = record
        self._over = over
        self._begun: dict[int, object] = {}
        self._on_executed = on_executed
        self._parked = ParkingLot()
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._family = Family()
        self._crowd = Crowd(self._family, tasks) if tasks is not None else None
        self._neighbours = Neighbours(self._family)
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

    @property
    def tasks(self) -> int:
        """How many tasks there are now."""
        return len(self._family)

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
                if task is None:
                    if self._parked.rang(tid, status):
                        self._go_on()
                        continue
                    if stops.stopped(status):
                        task = self._unknown(tid)
                if not stops.stopped(status) or task is None:
                    self._ended(tid, status)
                elif status == stops.SECCOMP_STOP:
                    trapped(task)
                elif status == stops.SYSCALL_STOP:
                    self._exit_stop(task)
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
        if call.names >= 0:
            failed = self._neighbours.refusal(task, registers[call.names])
            if failed:
                backend.deny(task, Deny(failed))
                return
            if not call.judged:
                task.resume()
                return
        if self._crowd is not None and registers[ORIG_RAX] in FORKS:
            if not self._crowd.admit(task):
                backend.deny(task, Deny(errno.EAGAIN))
                return
            if not call.judged:
                task.resume_to_exit()
                return
        self._decide(task, call, SLOT_SIZE)

    def _decide(self, task: Task, call: Shape, size: int, *, patient: bool = True) -> None:
        while True:
            if patient and self._backend.crowded(task, size) and self._later(task):
                return
            slot = self._backend.slot_for(task, size)
            if isinstance(slot, int):
                # The stop is dealt with: a pin is being installed, or cannot be.
                if self._crowd is not None:
                    self._crowd.arrived(task.tid)
                if slot:
                    self._noted(task, call, Decision(Deny(slot), UNPINNED, None, ()), -slot)
                return
            base = self._backend.address_of(task, slot)
            try:
                decision = self._engine.decide(task, call, slot, base)
            except SlotFull as full:
                size = max(full.needed, slot.size + 1)
                continue
            if isinstance(decision, Waiting):
                failed = self._park(slot, decision)
                if failed is None:
                    return
                decision = failed
            self._settle(task, call, slot, decision)
            return

    def _later(self, task: Task) -> bool:
        # Puts a trapped call off until others are over that were let go, or nothing else is left to
        # do. Another arena would have to be pinned in every process.
        if not self._waits.postpone(task.tid, stops.SECCOMP_STOP):
            return False
        if self._crowd is not None:
            self._crowd.arrived(task.tid)
        return True

    def _park(self, slot: Slot, waiting: Waiting) -> Decision | None:
        # Returns a denial when nobody could tell us of the verdict.
        try:
            self._parked.park(slot, waiting)
        except OSError as error:
            read = waiting.read
            rule = f"no process for an answer that takes time: {error.strerror}"
            return Decision(Deny(errno.EAGAIN), DENY, rule, read.judged, read.others)
        return None

    def _go_on(self) -> None:
        # With calls whose verdicts have come.
        for parked, verdict in self._parked.ready():
            try:
                self._answered(parked, verdict)
            except TraceeGone:
                continue

    def _answered(self, parked: Parked, verdict: Verdict) -> None:
        read = parked.waiting.read
        read.task.load()
        try:
            decision = self._engine.finish(parked.waiting, verdict)
        except SlotFull as full:
            size = max(full.needed, parked.slot.size + 1)
            self._decide(read.task, read.call, size, patient=False)
        else:
            self._settle(read.task, read.call, parked.slot, decision)

    def _settle(self, task: Task, call: Shape, slot: Slot, decision: Decision) -> None:
        self.trapped += 1
        # Before the call is let go: what is done is in the log, whatever happens next.
        token = self._record(task, call, decision)
        if decision.action in (DENY, KILL):
            self.denied += 1
        elif decision.action in (REDIRECT, RETURN, SERVE, INJECT):
            self.redirected += 1
        if call.executes:
            made = isinstance(decision.plan, Redirect)
            task.executing = tuple(one.leads for one in decision.judged) if made else ()
        result = self._backend.carry_out(task, slot, decision.plan)
        if result is not None and self._crowd is not None:
            self._crowd.arrived(task.tid)
        if self._over is not None:
            if result is not None:
                self._over(token, result)
            else:
                self._begun[task.tid] = token

    def _noted(self, task: Task, call: Shape, decision: Decision, result: int) -> None:
        token = self._record(task, call, decision)
        if self._over is not None:
            self._over(token, result)

    def _exit_stop(self, task: Task) -> None:
        if self._crowd is not None:
            self._crowd.arrived(task.tid)
        if self._over is None:
            self._backend.exit_stop(task)
            return
        registers = task.load()
        sends = registers[ORIG_RAX] == _SENDMSG
        if not sends:
            # Before the task goes on, so that what it does next comes after.
            self._finish(task.tid, _signed(registers[RAX]))
        self._backend.exit_stop(task)
        if sends and task.batch is None:
            # Of a sendmmsg, the result is there with its last message.
            self._finish(task.tid, _signed(registers[RAX]))

    def _finish(self, tid: int, result: int | None) -> None:
        token = self._begun.pop(tid, None)
        if token is not None and self._over is not None:
            self._over(token, result)

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
        child = self._family.get(tid)
        if child is None and _is_traced(tid):
            child = self._family.adopt(tid, tid)
        if child is not None:
            self._family.related(parent, child, flags)
        if self._crowd is not None:
            self._crowd.arrived(parent.tid)
        if self._backend.follows(parent):
            parent.resume_to_exit()
        else:
            parent.resume()

    def _unknown(self, tid: int) -> Task:
        # A task's first stop, before its parent's event.
        task = self._family.adopt(tid, process_of(tid))
        task.program = _program_of(tid)
        return task

    def _executed(self, task: Task) -> None:
        with task.guard:
            former = ptrace.event_message(task.tid)
        # The verdict of whoever had this id before, and waits no more.
        self._parked.drop(task.tid)
        self._parked.drop(former)
        if former != task.tid:
            self._finish(task.tid, None)
        self._finish(former, 0)
        maker = self._family.get(former) or task
        named, maker.executing = maker.executing, ()
        by = maker.program
        ended = self._family.executed(task, former, _program_of(task.tid))
        if ended is not None:
            self._backend.gone(ended)
        self._backend.executed(task)
        if self._is_refused(task, named, by):
            kill(task.tgid)
            return
        first = task.tid == self._main and not self.executed
        if task.load()[CS] == COMPAT_CS:
            self._refuse(task, first=first)
            return
        if first:
            self.executed = True
            if self._on_executed is not None:
                self._on_executed()
        task.resume()

    def _is_refused(self, task: Task, named: tuple[bytes, ...], by: bytes) -> bool:
        # Whether what runs now, the interpreter of a script perhaps, is not to run.
        call = self._shapes.get(NR["execve"])
        if call is None:
            return False
        task.load()
        decision = self._engine.executed(task, named, by)
        if decision is None:
            return False
        self._record(task, call, decision)
        self.denied += 1
        return isinstance(decision.plan, Kill)

    def _refuse(self, task: Task, *, first: bool) -> None:
        self.refused = self.refused or first
        if self._on_refused is not None:
            self._on_refused(
                f"{os.fsdecode(task.program)} is a 32-bit program: its system calls have other"
                " numbers and structures, which pinfold does not judge; it was killed"
            )
        kill(task.tgid)

    def _ended(self, tid: int, status: int) -> None:
        self._parked.drop(tid)
        self._finish(tid, None)
        task = self._family.remove(tid)
        if task is not None:
            self._backend.gone(task)
            if self._crowd is not None:
                self._crowd.ended(task)
        if tid == self._main:
            self._status = status

    def _end(self) -> None:
        # Kills and reaps whatever is left. Tasks that are born meanwhile show up in the wait.
        for task in self._family:
            kill(task.tgid)
        try:
            self._parked.close()
        finally:
            reap(self._waits, self._family, self._ended)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _sent_by_tgkill(task: Task) -> bool:
    # Only an injection sends SIGSTOP this way; anybody's kill() has another si_code.
    with task.guard:
        info = ptrace.get_siginfo(task.tid).raw
    _, _, code = abi.SIGINFO_HEAD.unpack_from(info)
    return bool(code == _SI_TKILL and int.from_bytes(info[16:20], "little") == os.getpid())


def _is_traced(tid: int) -> bool:
    # A child that was killed at once may have been waited for before its parent's event came. What
    # was known of it would never end, and be taken for what is known of the next task of that id.
    return tracer_of(tid) == threading.get_native_id()


def _program_of(tid: int) -> bytes:
    try:
        return as_name(os.readlink(b"/proc/%d/exe" % tid))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
            return b""
        raise
