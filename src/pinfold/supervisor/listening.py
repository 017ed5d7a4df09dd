"""The supervisor's loop where nobody traces: one notification at a time, each dealt with in full.

It hears of trapped calls, and of nothing else that happens in the sandbox: not of forks, execs and
ends, not of signals. What it needs to know about a caller it asks the kernel while that waits
(``tracee.notified``); who belongs to the sandbox, the keeper knows (``launch.keeper``).

Three things end the loop: COMMAND has ended; somebody wants COMMAND killed; the keeper is gone,
which nobody in the sandbox can bring about. Whatever it was, the keeper kills what is left. COMMAND
itself is waited for by a thread of its own, as its stops by job control, which nothing but a wait
tells of, would otherwise have to be polled for.

An error in the loop kills the sandbox before it is passed on, as in ``supervisor.loop``. A single
call that goes wrong fails; one whose thread was killed is dropped. No call is left without an
answer: its thread would wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ORIG_RAX, RDI
from pinfold.backends.base import Deny, Redirect
from pinfold.backends.notified import CallGone, Moved
from pinfold.codec.base import SlotFull
from pinfold.errors import InternalError, TraceeGone
from pinfold.linux import process
from pinfold.linux.seccomp import Receiver
from pinfold.pins.arena import SLOT_SIZE
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE
from pinfold.policy.rules import DENY, REDIRECT
from pinfold.supervisor.decision import UNPINNED, Decision, Waiting
from pinfold.supervisor.neighbours import Neighbours
from pinfold.supervisor.parked import ParkingLot
from pinfold.supervisor.waking import Waking
from pinfold.supervisor.watching import Watch
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee.notified import Notified
from pinfold.tracee.remote import read_string
from pinfold.uapi.prctl import CLONE_FILES, CLONE_FS, CLONE_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.backends.kept import Kept
    from pinfold.backends.notified import NotifiedBackend
    from pinfold.launch.keeper import Keeper
    from pinfold.launch.spawn import Launched
    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Verdict
    from pinfold.supervisor.callers import Callers
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.parked import Parked
    from pinfold.supervisor.quick import Known
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Registers
    from pinfold.tracee.notified import Known as Common

_CLONE: Final = NR["clone"]
_EXECVE: Final = NR["execve"]
_PTRACE: Final = NR["ptrace"]
_TRIES: Final = 4
"""Places that a pin is tried at for one call."""
_UNLIMITED: Final = "COMMAND was executed without its limits"


def _nothing() -> None:
    pass


def _nothing_known(_task: object, _registers: object) -> None:
    pass


class Listening:
    """Supervises one sandbox by the notifications of its listener.

    Args:
        launched: COMMAND's process, its listener, and the channel that its exec closes.
        keeper: The sandbox's keeper.
        backend: Carries out plans.
        callers: The threads that were heard of.
        common: What these have in common.
        engine: Decides; None where no call is judged.
        shapes: What is trapped, by system call number.
        record: Called with each decision before it is carried out.
        flush: Called where what was recorded must not wait: somebody was asked about the call.
        limit: Sets COMMAND's resource limits; called when it makes its first exec.
        limited: Whether there are any.
        on_executed: Called when COMMAND was executed.
        on_stop: Called when COMMAND was stopped by job control, with the signal.

    Attributes:
        denied: Calls that a rule denied.
        redirected: Calls that a rule sent elsewhere.
        trapped: Calls that were judged.
        refused: Whether COMMAND was executed and killed at once; never.
        most: Threads of which calls were trapped and that were not known to have ended, at most.

    Preconditions: made and run by one thread.
    """

    def __init__(
        self,
        launched: Launched,
        keeper: Keeper,
        backend: NotifiedBackend,
        callers: Callers,
        common: Common,
        engine: Engine | None,
        shapes: Mapping[int, Shape],
        *,
        record: Callable[[Notified, Shape, Decision], object],
        flush: Callable[[], None] = _nothing,
        limit: Callable[[], None] | None = None,
        on_executed: Callable[[], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        self._launched = launched
        self._keeper = keeper
        self._backend = backend
        self._callers = callers
        callers.gone = self._forget
        self._common = common
        self._shapes = shapes
        self._find: Callable[[Notified, Registers], Known | None] = _nothing_known
        self._logs = False
        if engine is not None:
            from pinfold.supervisor.quick import Quick  # noqa: PLC0415 (as in ``supervisor.loop``)

            self._engine = engine
            self._quick = Quick(shapes, engine)
            self._find = self._quick.find
            self._logs = engine.logs
        self._record = record
        self._flush = flush
        self._limit = limit
        self._on_executed = on_executed
        self._on_stop = on_stop
        self._neighbours = Neighbours(keeper)
        self._waking = Waking()
        self._parked = ParkingLot(self._waking)
        self._receiver = Receiver(launched.listener)
        self._watch = Watch(launched, self._waking.ring)
        self._wanted_dead = False
        self.denied = 0
        self.redirected = 0
        self.trapped = 0
        self.most = 0
        self.refused = False

    @property
    def executed(self) -> bool:
        """Whether COMMAND has been executed."""
        return self._watch.executed

    @property
    def stopped(self) -> bool:
        """Whether COMMAND is stopped by job control."""
        return self._watch.stopped

    @property
    def tasks(self) -> int:
        """How many threads were heard of and are not known to have ended."""
        return len(self._callers)

    def stop(self) -> None:
        """Has everything killed; from any thread. Does nothing when it is over."""
        self._wanted_dead = True
        self._waking.ring()

    def run(self) -> int:
        """Returns COMMAND's wait status, when it has ended and nothing of the sandbox is left.

        Raises:
            Exception: Whatever went wrong in the loop; the sandbox was killed first.
        """
        try:
            self._supervise()
        finally:
            self._end()
        status = self._watch.ended()
        if self.executed and self._limit is not None:
            raise InternalError(_UNLIMITED)
        return status

    def _supervise(self) -> None:
        self._watch.start()
        # Each descriptor that is polled costs each call something: those that hardly ever have
        # anything to say are polled as one. The listener itself is none of them, since an epoll
        # would not pass on that the supervisor is to be woken on the caller's processor.
        with select.epoll() as others:
            for fd in (
                self._waking.fileno(),
                self._launched.channel.fileno(),
                self._launched.pidfd,
                self._keeper.pidfd,
            ):
                others.register(fd, select.EPOLLIN)
            self._serve(others)

    def _serve(self, others: select.epoll) -> None:
        listener = self._launched.listener
        polled = select.poll()
        polled.register(listener, select.POLLIN)
        polled.register(others, select.POLLIN)
        poll = polled.poll
        receive = self._receive
        while not self._wanted_dead:
            for fd, event in poll():
                if fd != listener:
                    if self._heard(others):
                        return
                elif event & select.POLLIN:
                    receive()
                else:
                    # Nobody is left under the filter. COMMAND's end comes next.
                    polled.unregister(listener)

    def _heard(self, others: select.epoll) -> bool:
        # Whatever it is, but a call. Returns whether COMMAND has ended.
        for fd, _ in others.poll(0):
            if fd == self._waking.fileno():
                self._waking.heard()
                self._woken()
            elif fd == self._launched.channel.fileno():
                others.unregister(fd)
                self._executes()
            elif fd == self._keeper.pidfd:
                raise InternalError("the sandbox's keeper has ended")
            else:
                return True
        return False

    def _woken(self) -> None:
        for number in self._watch.stops():
            if self._on_stop is not None:
                self._on_stop(number)
        if self._watch.lost:
            self._wanted_dead = True
        for parked, verdict in self._parked.ready():
            self._answered(parked, verdict)

    def _executes(self) -> None:
        if not self._watch.executes():
            return
        if self._limit is not None:
            raise InternalError(_UNLIMITED)
        if self._on_executed is not None:
            self._on_executed()

    # Calls.

    def _receive(self) -> None:
        fields = self._receiver.next()
        if fields is None:
            return
        tid = fields[1]
        task = self._callers.get(tid)
        if task is None:
            task = self._callers.add(tid)
            self.most = max(self.most, len(self._callers))
        else:
            # It calls again: its last call is over, and if that had no verdict yet, nobody waits.
            self._parked.drop(tid)
            self._backend.over(task)
        registers = task.called(fields)
        try:
            known = self._find(task, registers)
            if known is None or not self._go(task, known):
                self._take(task, registers)
        except CallGone:
            return
        except TraceeGone:
            self._fail(task, errno.EPERM)
        except OSError as error:
            # Something about the thread could not be asked (EMFILE, say).
            self._fail(task, error.errno or errno.EPERM)

    def _fail(self, task: Notified, number: int) -> None:
        # The thread is gone, or cannot be looked at; it must not wait for ever.
        with contextlib.suppress(CallGone):
            self._backend.deny(task, number)

    def _go(self, task: Notified, known: Known) -> bool:
        # With a decision that was made before, and the bytes in the slot. Returns whether that was
        # possible.
        kept: Kept = task.kept
        if known.pinned is not None:
            kept.view[kept.start : kept.start + len(known.pinned)] = known.pinned
        if known.notable or self._logs:
            self._record(task, known.shape, known.decision)
        try:
            if known.errno:
                self._backend.deny(task, known.errno)
            else:
                self._backend.let_go(task, known.register)
        except (Moved, OSError):
            # It takes the long way, which says what cannot be done.
            return False
        self.trapped += 1
        if known.notable and known.decision.action == DENY:
            self.denied += 1
        elif known.notable:
            self.redirected += 1
        return True

    def _take(self, task: Notified, registers: Registers) -> None:
        # The long way.
        number = registers[ORIG_RAX]
        call = self._shapes.get(number)
        if call is None:
            self._backend.deny(task, errno.ENOSYS)
            return
        failed = self._looked_at(task, call, registers)
        if failed:
            self._backend.deny(task, failed)
        elif call.judged:
            self._decide(task, call, SLOT_SIZE)
        else:
            self._backend.resume(task)

    def _looked_at(self, task: Notified, call: Shape, registers: Registers) -> int:
        # What is not a question of rules. Returns the errno that the call fails with, or 0.
        number = registers[ORIG_RAX]
        if call.names >= 0:
            return self._neighbours.refusal(task, registers[call.names])
        if number == _PTRACE:
            # Whoever it makes its tracer has to wait for it, and we do not.
            parent = process.status_field(task.tid, b"PPid")
            return errno.EPERM if parent is None or int(parent) == os.getpid() else 0
        if number == _CLONE and _shares(registers[RDI]):
            self._common.shared = True
        elif number == _EXECVE and self._limit is not None and not self.executed:
            self._begins(task)
        return 0

    def _begins(self, task: Notified) -> None:
        # COMMAND's process is about to be COMMAND, if there is such a file; it tries one path after
        # the other. Its limits would be in the way of what it does between two tries.
        assert self._limit is not None
        if task.tid == self._launched.pid and _names_a_file(task):
            limit, self._limit = self._limit, None
            limit()

    def _decide(self, task: Notified, call: Shape, size: int) -> None:
        for _ in range(_TRIES):
            try:
                if self._decided(task, call, size):
                    return
            except OSError as error:
                self._unpinned(task, call, error.errno or errno.EPERM)
                return
        self._unpinned(task, call, errno.EPERM)

    def _unpinned(self, task: Notified, call: Shape, number: int) -> None:
        self._record(task, call, Decision(Deny(number), UNPINNED, None, ()))
        self._backend.deny(task, number)

    def _decided(self, task: Notified, call: Shape, size: int) -> bool:
        # Returns whether the call is dealt with; else the pin lies somewhere else by now.
        while True:
            slot = self._backend.slot_for(task, size)
            base = self._backend.address_of(task, slot)
            try:
                decision = self._engine.decide(task, call, slot, base)
            except SlotFull as full:
                size = max(full.needed, slot.size + 1)
                continue
            break
        if isinstance(decision, Waiting):
            self._parked.park(slot, decision)
            return True
        return self._settle(task, call, slot, decision)

    def _answered(self, parked: Parked, verdict: Verdict) -> None:
        read = parked.waiting.read
        task = read.task
        assert isinstance(task, Notified)
        try:
            try:
                decision = self._engine.finish(parked.waiting, verdict)
            except SlotFull as full:
                self._decide(task, read.call, max(full.needed, parked.slot.size + 1))
                return
            try:
                if not self._settle(task, read.call, parked.slot, decision, asked=True):
                    self._decide(task, read.call, SLOT_SIZE)
            except OSError as error:
                self._unpinned(task, read.call, error.errno or errno.EPERM)
        except CallGone:
            return
        except TraceeGone:
            self._fail(task, errno.EPERM)

    def _settle(
        self, task: Notified, call: Shape, slot: Slot, decision: Decision, *, asked: bool = False
    ) -> bool:
        # Returns whether it was carried out; else the pin has come to lie somewhere else.
        if call.executes and isinstance(decision.plan, Redirect):
            decision = self._engine.executions.ahead(task, decision) or decision
        self._quick.learn(task, decision)
        # Before the call is let go: what is done is in the log, whatever happens next.
        self._record(task, call, decision)
        if asked:
            self._flush()
        try:
            self._backend.carry_out(task, slot, decision.plan)
        except Moved:
            return False
        self.trapped += 1
        if decision.action in (DENY, KILL):
            self.denied += 1
        elif decision.action in (REDIRECT, RETURN, SERVE, INJECT):
            self.redirected += 1
        return True

    def _forget(self, task: Notified) -> None:
        # It is gone. A verdict that comes yet must not be written to a slot that is another's.
        self._parked.drop(task.tid)
        self._backend.gone(task)

    # The end.

    def _end(self) -> None:
        # Kills whatever is left, and waits for COMMAND.
        try:
            self._kill()
        finally:
            self._parked.close()
            self._waking.take_down()

    def _kill(self) -> None:
        try:
            self._keeper.end()
        except InternalError:
            # What we know of is killed all the same.
            self._watch.kill()
            raise
        finally:
            with contextlib.suppress(InternalError):
                self._watch.ended()


def _shares(flags: int) -> bool:
    # Whether a clone makes a process that shares more with its parent than memory.
    return not flags & CLONE_THREAD and bool(flags & (CLONE_FS | CLONE_FILES))


def _names_a_file(task: Notified) -> bool:
    # Whether an exec of COMMAND's process, which is still ours, may find something.
    try:
        path = read_string(task.tid, task.registers[RDI])
    except OSError:
        return False
    return os.path.isfile(os.path.join(b"/proc/%d/cwd" % task.tid, path))
