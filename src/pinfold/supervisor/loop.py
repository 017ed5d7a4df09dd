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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pinfold.arch.x86_64 import ARGUMENTS, COMPAT_CS, CS, ORIG_RAX, RAX, RDI
from pinfold.backends.base import Deny, Kill, Redirect
from pinfold.codec.base import SlotFull
from pinfold.errors import TraceeGone
from pinfold.linux import ptrace
from pinfold.linux.process import kill, process_of
from pinfold.paths import as_name
from pinfold.pins.arena import SLOT_SIZE
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE
from pinfold.policy.rules import DENY, REDIRECT
from pinfold.supervisor.crowd import FORKS, Crowd
from pinfold.supervisor.decision import UNPINNED, Decision, Waiting
from pinfold.supervisor.ending import reap
from pinfold.supervisor.family import Family
from pinfold.supervisor.neighbours import Neighbours, Traced
from pinfold.supervisor.parked import ParkingLot
from pinfold.supervisor.placement import ASKS, SPREAD, Placement
from pinfold.syscalls.filtering import NUMBERS as FILTERING
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.tracee.bell import Bell
from pinfold.tracee.inject import replay
from pinfold.tracee.task import KNOWN, Task
from pinfold.uapi import ptrace as abi
from pinfold.uapi.prctl import CLONE_VFORK, CLONE_VM

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Mapping

    from pinfold.backends.kept import Kept
    from pinfold.backends.trace import TraceBackend
    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Verdict
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.parked import Parked
    from pinfold.supervisor.quick import Known
    from pinfold.supervisor.shapes import Shape
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
_EARLY: Final = 4096
"""Ids remembered of children that nobody knew; their parents may be dead, and tell nothing."""
_SI_TKILL: Final = -6
_TRAP_TRACE: Final = 2
_SENDMSG: Final = NR["sendmsg"]


def _nothing() -> None:
    pass


def _nothing_known(_task: object, _registers: object) -> None:
    pass


class Supervisor:
    """Supervises one sandbox from its first stop to its last.

    Args:
        main: The process that pinfold started: it is seized, and about to run COMMAND.
        waits: The thread's wait queue.
        backend: Carries out plans.
        engine: Decides; None where no call is judged.
        shapes: What is trapped, by system call number.
        record: Called with each decision before it is carried out; what it returns is given to
            ``over``.
        over: Called with that, and the call's result (signed), when a call is over; with None when
            it never came back. None where nobody asks: then no call is followed to its end for it.
        flush: Called where what was recorded must not wait: somebody was asked about the call.
        tasks: Most tasks at one time; None for no limit.
        placement: Where they run; None leaves that to the kernel.
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
        engine: Engine | None,
        shapes: Mapping[int, Shape],
        *,
        record: Callable[[Task, Shape, Decision], object],
        over: Callable[[Any, int | None], None] | None = None,
        flush: Callable[[], None] = _nothing,
        tasks: int | None = None,
        placement: Placement | None = None,
        on_executed: Callable[[], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._main = main
        self._waits = waits
        self._backend = backend
        self._shapes = shapes
        self._find: Callable[[Task, ctypes.Array[ctypes.c_uint64]], Known | None] = _nothing_known
        self._logs = False
        if engine is not None:
            # Not for all: to import it, and the engine, takes a good part of a short run.
            from pinfold.supervisor.quick import Quick  # noqa: PLC0415

            self._engine = engine
            self._quick = Quick(shapes, engine)
            self._find = self._quick.find
            self._logs = engine.logs
        self._record = record
        self._over = over
        self._flush = flush
        self._begun: dict[int, object] = {}
        # Children that were killed at birth, and waited for before their parents' events came.
        self._early: set[int] = set()
        self._on_executed = on_executed
        self._bell = Bell()
        self._parked = ParkingLot(self._bell)
        self._placement = Placement(SPREAD) if placement is None else placement
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._family = Family()
        self._crowd = Crowd(self._family, tasks) if tasks is not None else None
        self._neighbours = Neighbours(Traced(self._family))
        task = self._family.adopt(main, main)
        task.shares = task.space.shared = False
        task.filtered = 0
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
        seccomp_stop = stops.SECCOMP_STOP
        placement = self._placement
        last = left = 0
        while self._status is None:
            tid, status = next_stop()
            if tid == last:
                left -= 1
                if not left:
                    left = placement.round(tid)
            else:
                last = tid
                left = placement.other(tid)
            task = known(tid)
            try:
                if status == seccomp_stop and task is not None:
                    trapped(task)
                    continue
                if task is None:
                    if self._bell.heard(tid, status):
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
        backend = self._backend
        if task.flight is not None:
            backend.landed(task, registers)
        known = self._find(task, registers)
        if known is not None and backend.holds(task):
            self._go(task, known)
        else:
            self._take(task, registers)

    def _take(self, task: Task, registers: ctypes.Array[ctypes.c_uint64]) -> None:
        # The long way.
        backend = self._backend
        call = self._shapes.get(registers[ORIG_RAX])
        if call is None:
            # Not our filter's doing: a filter of the target's own asked for a tracer. Without one
            # the call would fail with ENOSYS.
            backend.deny(task, Deny(errno.ENOSYS))
            return
        if call.places and self._placed(task, call):
            return
        if call.names >= 0:
            failed = self._neighbours.refusal(task, registers[call.names])
            if failed:
                backend.deny(task, Deny(failed))
                return
            if not call.judged:
                task.resume()
                return
        if registers[ORIG_RAX] in FILTERING:
            self._filters(task)
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

    def _filters(self, task: Task) -> None:
        # It is about to have a filter of its own, and with SECCOMP_FILTER_FLAG_TSYNC so are the
        # other threads.
        for one in self._family:
            if one.tgid == task.tgid:
                one.filtered = KNOWN

    def _go(self, task: Task, known: Known) -> None:
        # With a decision that was made before, and the task's bytes in its slot.
        self.trapped += 1
        kept: Kept = task.kept
        if known.pinned is not None:
            kept.view[kept.start : kept.start + len(known.pinned)] = known.pinned
        if known.notable or self._logs:
            self._record(task, known.shape, known.decision)
            if known.decision.action == DENY:
                self.denied += 1
            elif known.notable:
                self.redirected += 1
        if known.errno:
            self._backend.deny(task, Deny(known.errno))
        else:
            self._backend.let_go(task, kept, known.register, kept.address)

    def _placed(self, task: Task, call: Shape) -> bool:
        # Returns whether the stop is dealt with.
        tids = [one.tid for one in self._family]
        registers = task.registers
        number = registers[ORIG_RAX]
        if number == ASKS and not call.judged:
            self._placement.asks(tids, partial(self._run_to_exit, task))
            return True
        if self._placement.ends(number, [registers[one] for one in ARGUMENTS[:3]]):
            self._placement.end(task.tid, tids)
        if call.judged or call.names >= 0:
            return False
        task.resume()
        return True

    def _run_to_exit(self, task: Task) -> None:
        # For a call that does not block; what it ends with is the loop's.
        task.resume_to_exit()
        self._waits.push_back(task.tid, self._waits.stop_of(task.tid))

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
            with self._placement.aside():
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
        task = read.task
        assert isinstance(task, Task)
        task.load()
        try:
            decision = self._engine.finish(parked.waiting, verdict)
        except SlotFull as full:
            size = max(full.needed, parked.slot.size + 1)
            self._decide(task, read.call, size, patient=False)
        else:
            self._settle(task, read.call, parked.slot, decision, asked=True)

    def _settle(
        self, task: Task, call: Shape, slot: Slot, decision: Decision, *, asked: bool = False
    ) -> None:
        self.trapped += 1
        self._quick.learn(task, decision)
        # Before the call is let go: what is done is in the log, whatever happens next.
        token = self._record(task, call, decision)
        if asked:
            self._flush()
        if call.opens:
            names = [name for one in decision.judged for name in (one.asked, one.pinned)]
            self._placement.opens((one.tid for one in self._family), names)
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
            return
        if event == abi.PTRACE_EVENT_EXEC:
            self._executed(task)
            return
        back = self._backend.put_back(task)
        if stops.is_group_stop(status):
            task.listen()
            self._group_stopped(task, number)
        elif event == abi.PTRACE_EVENT_STOP:
            # New, or continued: a stop that we still owed it is void. One that is new can have the
            # id that a thread gave up to execute a program, of which we have not heard yet.
            self._backend.renewed(task)
            task.restop = False
            task.held = [held for held in task.held if held[0] != signal.SIGSTOP]
            if task.tid == self._main:
                self.stopped = False
            task.resume()
        elif event == 0:
            if back and number == signal.SIGTRAP and task.signal_code() == _TRAP_TRACE:
                # It steps itself, and this step was made in the trampoline. The next one is made
                # where it would have been.
                number = 0
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
        if tid in self._early:
            # What was known of it would never end, and be taken for what is known of the next task
            # of that id.
            self._early.remove(tid)
        elif child is None:
            child = self._family.adopt(tid, tid)
        self._placement.forked(parent.tid)
        if child is not None:
            self._family.related(parent, child, flags)
            self._placement.born(tid)
        if self._crowd is not None:
            self._crowd.arrived(parent.tid)
        if self._backend.follows(parent):
            parent.resume_to_exit()
        else:
            parent.resume()

    def _unknown(self, tid: int) -> Task:
        # A task's first stop, before its parent's event.
        self._early.discard(tid)
        task = self._family.adopt(tid, process_of(tid))
        self._family.joined(task)
        self._placement.born(tid)
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
        self._placement.executed(task.tid, former)
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
        decision = self._engine.executions.executed(task, named, by)
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
        self._placement.ended(tid)
        task = self._family.remove(tid)
        if task is None:
            if len(self._early) >= _EARLY:
                self._early.pop()
            self._early.add(tid)
        else:
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


def _program_of(tid: int) -> bytes:
    try:
        return as_name(os.readlink(b"/proc/%d/exe" % tid))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            # It lies deeper than a name can tell, and a rule about programs could be about it.
            kill(process_of(tid))
            return b""
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
            return b""
        raise
