"""The trace back end: for programs that pinfold starts itself, on any kernel since 6.12.

The filter answers ``SECCOMP_RET_TRACE`` for a call to be judged. The task stops, its registers are
changed to point into the pin, and the kernel runs the whole filter stack again on the changed call:
filters outside ours judge what is really going to happen. The task stops once more when the call is
over, and the registers are put back (the two-stop form).

Putting them back at the exit stop is early enough for everything: signals are delivered, frames
built, and calls restarted only after that stop, from registers that are the task's own again. A
restarted call simply traps again, and is judged again.

After a successful exec there is nothing to restore: the new program's registers are its own, and
the path was copied into the kernel before the old memory went.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS, ORIG_RAX
from pinfold.backends import batch
from pinfold.backends.base import Deny, Inject, Kill, Redirect, Return, SendFirst, Serve
from pinfold.linux import memfd, process
from pinfold.pins.arena import SLOT_SIZE

if TYPE_CHECKING:
    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Arena, ArenaPool, Slot
    from pinfold.pins.install import Installer
    from pinfold.pins.live import LiveCheck
    from pinfold.tracee.task import Task

_WAS_SENDMMSG: Final = (ORIG_RAX, batch.SENDMMSG)


class TraceBackend:
    """Carries out plans on tasks in seccomp stops.

    Args:
        arenas: Where slots come from.
        installer: Pins arenas in tasks.
        live: The live check.
        to_exit: Whether every call that is made is to be followed to its exit stop, for its result.

    Preconditions: used by the tracing thread.
    """

    __slots__ = ("_arenas", "_in_flight", "_installer", "_live", "_to_exit")

    def __init__(
        self, arenas: ArenaPool, installer: Installer, live: LiveCheck, *, to_exit: bool = False
    ) -> None:
        self._to_exit = to_exit
        self._arenas = arenas
        self._installer = installer
        self._live = live
        # By task id: the slot, and (register, value) pairs to put back at the exit stop.
        self._in_flight: dict[int, tuple[Slot, tuple[tuple[int, int], ...]]] = {}

    def crowded(self, task: Task, size: int) -> bool:
        """Returns whether a slot for the task would be easier to have when another call is over.

        Takes back the slot that :meth:`slot_for` gave in this same stop, if any.
        """
        self.finished(task)
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
            slot = self._arenas.take(size)
        except OSError as error:
            failed = error.errno or errno.ENOMEM
            self.deny(task, Deny(failed))
            return failed
        pinned = False
        try:
            pinned = self._is_pinned(task, slot.arena)
            if pinned:
                self._in_flight[task.tid] = (slot, ())
                return slot
            failed = self._installer.install(task, slot.arena)
        except OSError as error:
            # Not allowed to look at the task (a non-dumpable image), or out of descriptors.
            failed = error.errno or errno.EPERM
            task.load()
            task.skip_call(-failed)
        finally:
            if not pinned:
                self._arenas.give_back(slot)
        task.resume()
        return failed

    def _is_pinned(self, task: Task, arena: Arena) -> bool:
        base = task.space.pins.get(arena.number)
        if base is None:
            return False
        if self._live.pinned(task.tid, arena, base):
            return True
        del task.space.pins[arena.number]
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
            self._in_flight[task.tid] = (slot, batch.begin(task, plan.message))
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

    def _redirect(self, task: Task, slot: Slot, plan: Redirect) -> None:
        if not (plan.registers or plan.number is not None or self._to_exit):
            # Nothing to put back.
            self.finished(task)
            task.resume()
            return
        registers = task.registers
        saved = []
        for index, value in plan.registers:
            register = ARGUMENTS[index]
            saved.append((register, registers[register]))
            registers[register] = value
        if plan.number is not None:
            saved.append((ORIG_RAX, registers[ORIG_RAX]))
            registers[ORIG_RAX] = plan.number
        self._in_flight[task.tid] = (slot, tuple(saved))
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
        if flight is not None:
            self._arenas.give_back(flight[0])

    def executed(self, task: Task) -> None:
        """Forgets what was pinned in the memory that an exec replaced."""
        self.finished(task)
        self._live.forget(task.tid)

    def gone(self, task: Task) -> None:
        """Forgets a task that ended."""
        self.executed(task)
