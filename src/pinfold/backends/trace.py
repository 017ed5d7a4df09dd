"""The trace back end: for programs that pinfold starts itself, on any kernel since 6.12.

The filter answers ``SECCOMP_RET_TRACE`` for a call to be judged. The task stops, its registers are
changed to point into the pin, and the kernel runs the whole filter stack again on the changed call:
filters outside ours judge what is really going to happen.

*The two-stop form.* The task stops once more when the call is over, and the registers are put back.
That is early enough for everything: signals are delivered, frames built, and calls restarted only
after that stop, from registers that are the task's own again. A restarted call simply traps again,
and is judged again.

*The one-stop form* does without that stop. The call returns to a trampoline in the pin, which puts
the register back and jumps to where the call was made (``pins.trampoline``). What happens before
that is seen here, since a tracer gets every signal before a frame is built for it, and every group
stop: if the instruction pointer is in a trampoline then, it and the register are put back there and
then (:meth:`TraceBackend.put_back`). A call that the kernel makes again without any stop (another
thread took the signal) traps again, on the ``syscall`` instruction in front of the trampoline, and
gets its own registers back first (:meth:`TraceBackend.landed`). It is for calls of which *one*
register points into the pin; for tasks that have no filter but ours, since a filter can look at the
instruction pointer; and not for the few calls that the kernel resumes by ``restart_syscall``, which
does not trap. All others take two stops.

After a successful exec there is nothing to restore: the new program's registers are its own, and
the path was copied into the kernel before the old memory went.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, Final

from pinfold.arch.x86_64 import ARGUMENTS, EFLAGS, ORIG_RAX, R11, RCX, RIP
from pinfold.backends import batch
from pinfold.backends.base import Deny, Inject, Kill, Redirect, Return, SendFirst, Serve
from pinfold.backends.kept import Kept
from pinfold.linux import memfd, process
from pinfold.pins.arena import SLOT_SIZE
from pinfold.pins.install import READY
from pinfold.pins.trampoline import inside
from pinfold.syscalls.numbers import X86_64 as NR

if TYPE_CHECKING:
    import ctypes

    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Arena, ArenaPool, Slot
    from pinfold.pins.install import Installer
    from pinfold.pins.live import LiveCheck
    from pinfold.tracee.task import Task

_WAS_SENDMMSG: Final = (ORIG_RAX, batch.SENDMMSG)

_RESUMED: Final = frozenset(
    NR[name]
    for name in ("poll", "nanosleep", "clock_nanosleep", "futex", "futex_wait", "futex_waitv")
    if name in NR
)
"""Calls that are interrupted with ``-ERESTART_RESTARTBLOCK``: ``set_restart_fn`` in the kernel."""


class TraceBackend:
    """Carries out plans on tasks in seccomp stops.

    Args:
        arenas: Where slots come from.
        installer: Pins arenas in tasks.
        live: The live check.
        to_exit: Whether every call that is made is to be followed to its exit stop, for its result.

    Preconditions: used by the tracing thread.
    """

    ONE_STOP: ClassVar[bool] = True
    """Whether calls are let go without waiting for their end, where that can be."""

    __slots__ = ("_arenas", "_in_flight", "_installer", "_live", "_to_exit")

    def __init__(
        self, arenas: ArenaPool, installer: Installer, live: LiveCheck, *, to_exit: bool = False
    ) -> None:
        self._to_exit = to_exit
        self._arenas = arenas
        self._installer = installer
        self._live = live
        # By task id: the slot if it is to be given back, and (register, value) pairs to put back at
        # the exit stop.
        self._in_flight: dict[int, tuple[Slot | None, tuple[tuple[int, int], ...]]] = {}

    def crowded(self, task: Task, size: int) -> bool:
        """Returns whether a slot for the task would be easier to have when another call is over.

        Takes back the slot that :meth:`slot_for` gave in this same stop, if any.
        """
        self.finished(task)
        if task.kept is not None and size <= SLOT_SIZE:
            return False
        return self._arenas.crowded(size)

    def slot_for(self, task: Task, size: int = SLOT_SIZE) -> Slot | int:
        """Returns a slot for the task's trapped call, or says that this stop is dealt with.

        Asked again in the same stop, for a larger one, it takes the first one back.

        An int means that the task was resumed already: 0 when it makes its call again, because the
        arena had to be pinned first; else the errno that its call failed with.

        Preconditions: the task is in a seccomp stop, its registers are loaded.

        Raises:
            TraceeGone: The task died.
        """
        self.finished(task)
        if task.batch is not None and task.registers[ORIG_RAX] != batch.SENDMMSG:
            # It was not made again: another thread has changed the code there.
            task.batch = None
        try:
            slot = self._slot(task, size)
        except OSError as error:
            failed = error.errno or errno.ENOMEM
            self.deny(task, Deny(failed))
            return failed
        own = self._own(task, slot)
        pinned = False
        try:
            failed = 0
            pinned = self._is_pinned(task, slot.arena)
            if not pinned:
                failed = self._installer.install(task, slot.arena)
                pinned = failed == READY
            if pinned:
                self._in_flight[task.tid] = (own, ())
                if own is not None and size <= SLOT_SIZE and self._may_keep(task):
                    self._keep(task, slot)
                return slot
        except OSError as error:
            # Not allowed to look at the task (a non-dumpable image), or out of descriptors.
            failed = error.errno or errno.EPERM
            self.finished(task)
            task.load()
            task.skip_call(-failed)
        finally:
            if not pinned and own is not None:
                self._arenas.give_back(own)
        task.resume()
        return failed

    def _slot(self, task: Task, size: int) -> Slot:
        # The one that the task keeps, or a free one.
        kept: Kept | None = task.kept
        if kept is not None and size <= SLOT_SIZE:
            if kept.space is task.space:
                return kept.slot
            self._give_up(task)
        return self._arenas.take(size)

    def _may_keep(self, task: Task) -> bool:
        return not self._to_exit and task.kept is None and self._arenas.plenty()

    def _keep(self, task: Task, slot: Slot) -> None:
        question = self._live.question(task.tid, slot.arena, task.space.pins[slot.arena.number])
        if question is not None:
            code = task.space.code.get(slot.arena.number, 0) if self.ONE_STOP else 0
            task.kept = Kept(task.tid, slot, task.space, question, code)
            self._in_flight[task.tid] = (None, ())

    def _give_up(self, task: Task) -> None:
        kept: Kept | None = task.kept
        if kept is not None:
            task.kept = None
            self._arenas.give_back(kept.slot)

    def _is_pinned(self, task: Task, arena: Arena) -> bool:
        base = task.space.pins.get(arena.number)
        if base is None:
            return False
        if self._live.pinned(task.tid, arena, base):
            return True
        del task.space.pins[arena.number]
        task.space.code.pop(arena.number, None)
        return False

    def carry_out(self, task: Task, slot: Slot, plan: Plan) -> int | None:
        """Does what the engine decided, and resumes the task.

        Returns the call's result if it is over with this, else None.

        Preconditions: ``slot`` came from :meth:`slot_for` in this same stop.

        Raises:
            TraceeGone: The task died; its slot is given back by :meth:`finished`.
        """
        if isinstance(plan, Redirect):
            self._redirect(task, slot, plan)
            return None
        if isinstance(plan, SendFirst):
            self._in_flight[task.tid] = (self._own(task, slot), batch.begin(task, plan.message))
            task.store(task.registers)
            task.resume_to_exit()
            return None
        self.finished(task)
        if isinstance(plan, Deny):
            return self.deny(task, plan)
        if isinstance(plan, Return):
            return self._skip(task, plan.value)
        if isinstance(plan, Kill):
            # Nobody resumes it: a stopped task dies where it is.
            process.kill(task.tgid)
            return None
        return self._give(task, plan)

    def _own(self, task: Task, slot: Slot) -> Slot | None:
        # The slot, if it is to be given back when the call is over.
        kept: Kept | None = task.kept
        return None if kept is not None and kept.slot is slot else slot

    def holds(self, task: Task) -> bool:
        """Returns whether the slot that the task keeps is pinned in its memory right now.

        At the least cost: a no only says that this takes a closer look (:meth:`slot_for`).

        Preconditions: the task keeps a slot, and is in a seccomp stop.
        """
        kept: Kept = task.kept
        return self._live.still(task.tid, kept.question)

    def let_go(self, task: Task, kept: Kept, register: int, value: int) -> None:
        """Resumes the task with one register of its call replaced: one stop if that can be.

        Preconditions: in a seccomp stop, registers loaded; :meth:`holds`.

        Raises:
            TraceeGone: The task died.
        """
        registers = task.registers
        own = registers[register]
        if task.filtered or not kept.stubs:
            self._in_flight[task.tid] = (None, ((register, own),))
            task.poke(register, value)
            task.resume_to_exit()
            return
        site = registers[RIP]
        task.flight = (register, own, site, kept.code)
        registers[register] = value
        registers[R11] = own
        registers[RCX] = site
        registers[RIP] = kept.stubs[register]
        task.store(registers)
        task.resume()

    def landed(self, task: Task, registers: ctypes.Array[ctypes.c_uint64]) -> None:
        """Ends what :meth:`let_go` began: the task makes another call, or the same one again.

        Preconditions: in a seccomp stop, registers loaded; ``task.flight`` is not None.

        Raises:
            TraceeGone: The task died.
        """
        assert task.flight is not None
        if inside(registers[RIP] - task.flight[3]):
            self._restore(task)
        task.flight = None

    def put_back(self, task: Task) -> bool:
        """Gives the task its registers back if it is on its way to a trampoline, or in one.

        Returns whether it was.

        Preconditions: in a stop that is none of a call's, before the task can see its registers.

        Raises:
            TraceeGone: The task died.
        """
        if task.flight is not None:
            registers = task.load()
            if inside(registers[RIP] - task.flight[3]):
                registers[R11] = registers[EFLAGS]
                self._restore(task)
                task.flight = None
                return True
        return False

    def _restore(self, task: Task) -> None:
        assert task.flight is not None
        register, value, site, _ = task.flight
        registers = task.registers
        registers[register] = value
        registers[RIP] = registers[RCX] = site
        task.store(registers)

    def _redirect(self, task: Task, slot: Slot, plan: Redirect) -> None:
        if not (plan.registers or plan.number is not None or self._to_exit):
            # Nothing to put back.
            self.finished(task)
            task.resume()
            return
        registers = task.registers
        kept: Kept | None = task.kept
        if (
            kept is not None
            and kept.slot is slot
            and len(plan.registers) == 1
            and plan.number is None
            and not (self._to_exit or registers[ORIG_RAX] in _RESUMED)
        ):
            self.finished(task)
            ((index, value),) = plan.registers
            self.let_go(task, kept, ARGUMENTS[index], value)
            return
        saved = []
        for index, value in plan.registers:
            register = ARGUMENTS[index]
            saved.append((register, registers[register]))
            registers[register] = value
        if plan.number is not None:
            saved.append((ORIG_RAX, registers[ORIG_RAX]))
            registers[ORIG_RAX] = plan.number
        self._in_flight[task.tid] = (self._own(task, slot), tuple(saved))
        if len(saved) == 1:
            register = saved[0][0]
            task.poke(register, registers[register])
        elif saved:
            task.store(registers)
        task.resume_to_exit()

    def _give(self, task: Task, plan: Serve | Inject) -> int:
        made = plan.descriptor if isinstance(plan, Inject) and plan.ours else -1
        try:
            if isinstance(plan, Serve):
                made = memfd.with_content("pinfold-served", plan.content)
            given = plan.descriptor if isinstance(plan, Inject) else made
            result = self._installer.hand_over(task, given, close_on_exec=plan.close_on_exec)
        except OSError as error:
            return self._skip(task, -(error.errno or errno.ENOMEM))
        finally:
            if made >= 0:
                os.close(made)
        task.resume()
        return result

    def _skip(self, task: Task, result: int) -> int:
        if task.batch is not None:
            result = batch.refuse(task, task.batch)
        task.skip_call(result)
        task.resume()
        return result

    def address_of(self, task: Task, slot: Slot) -> int:
        """Returns where the task finds a slot that :meth:`slot_for` gave for it."""
        return task.space.pins[slot.arena.number] + slot.offset

    def deny(self, task: Task, plan: Deny) -> int:
        """Makes the task's trapped call fail, resumes the task, and returns the call's result."""
        return self._skip(task, -plan.errno)

    def exit_stop(self, task: Task) -> None:
        """Puts the registers back after a redirected call, and resumes the task."""
        flight = self._in_flight.pop(task.tid, None)
        if flight is not None:
            slot, saved = flight
            if slot is not None:
                self._arenas.give_back(slot)
            if saved and saved[-1] == _WAS_SENDMMSG:
                registers = task.load()
                for register, value in saved:
                    registers[register] = value
                batch.advance(task)
                task.store(registers)
            else:
                for register, value in saved:
                    task.poke(register, value)
        task.resume()

    def follows(self, task: Task) -> bool:
        """Returns whether the task is to stop at the end of the call that it is in."""
        return task.tid in self._in_flight

    def signalled(self, task: Task) -> None:
        """Ends what a signal ends: a ``sendmmsg`` between two of its messages.

        Preconditions: the task is about to take a signal.
        """
        if task.batch is not None:
            task.load()
            batch.finish(task, task.batch)
            task.store(task.registers)

    def finished(self, task: Task) -> None:
        """Gives back the slot of a call that ended without an exit stop (exec, death)."""
        flight = self._in_flight.pop(task.tid, None)
        if flight is not None and flight[0] is not None:
            self._arenas.give_back(flight[0])

    def renewed(self, task: Task) -> None:
        """Forgets how to look at a task's memory, which may be another task's.

        Preconditions: in a stop that is none of a call's.
        """
        self._give_up(task)
        self._live.forget(task.tid)

    def executed(self, task: Task) -> None:
        """Forgets what was pinned in the memory that an exec replaced."""
        self.finished(task)
        self._give_up(task)
        task.flight = None
        # It may have been another thread that made the exec.
        task.batch = None
        self._live.forget(task.tid)

    def gone(self, task: Task) -> None:
        """Forgets a task that ended."""
        self.executed(task)
