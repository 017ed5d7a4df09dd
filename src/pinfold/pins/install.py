"""Putting an arena into a task's memory: deliver the memfd, map, seal, close, verify.

The delivery alone also hands a task any other descriptor, as the result of its call.

The task is in the seccomp stop of a trapped call. That call is changed into ``getpid`` with a
secret in its arguments, which our filter (and nobody else's) answers with a notification; the memfd
is handed over in the reply (``SECCOMP_ADDFD_FLAG_SEND``). ``getpid``, because filters outside and
inside ours let it through, where an unused number would be refused by a container's. Then ``mmap``,
``mseal`` and ``close`` are made, and the kernel is asked what is there now.

*In one go.* Each injected call takes a stop or two. So only the code page is mapped that way; the
code in it (``pins.trampoline``) does the rest, ends with the task's own call, and so in a seccomp
stop, where the task gets its registers back and its call can be judged. That is done while nobody
else uses the task's memory, as far as we know, like right after an exec: another thread could put
code there that never ends. What it says it has done is not believed either.

*Call by call* otherwise, or where something is in the way: an executable mapping is refused, or a
filter of the task's own looks where calls are made from. The instruction pointer goes back in the
end, so that the original call is made again, and traps again. Without a code page, calls are
followed to their ends.

While the descriptor is open in the target, another of its threads may copy it. That gains it read
access to the arena, which it has anyway: the memfd is sealed against writing, resizing and more
seals. Between ``mmap`` and ``mseal`` a thread may replace the mapping; then it is the replacement
that is sealed, and the check that follows sees it. A filter of the task's own may pretend that the
calls were made; the kernel is asked whether they were.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import (
    ARGUMENTS,
    NO_SYSCALL,
    ORIG_RAX,
    RAX,
    RBP,
    RBX,
    RIP,
    SYSCALL_LENGTH,
)
from pinfold.linux import ptrace, seccomp
from pinfold.pins import sealed, trampoline
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.tracee.inject import Injector
from pinfold.uapi import mman
from pinfold.uapi import ptrace as ptrace_abi
from pinfold.uapi import seccomp as seccomp_abi

if TYPE_CHECKING:
    import ctypes

    from pinfold.pins.arena import Arena
    from pinfold.pins.live import LiveCheck
    from pinfold.tracee.task import Task
    from pinfold.tracee.waits import Waits

DELIVERY_CALL: Final = NR["getpid"]
READY: Final = -1
"""Pinned, and nothing else has changed."""

_ERESTARTSYS: Final = 512
_AGAIN: Final = -_ERESTARTSYS
"""Nothing was delivered, as if a signal had come first: the call is to be made again."""
_UNDONE: Final = (errno.EINTR, errno.EINPROGRESS, errno.ENOENT)
"""What the kernel says when a signal or a stop here came before the task had the descriptor. The
notification may count as answered then, with a result of 0: the latter two come from the call that
the kernel makes again after a stop.

Kernel: seccomp_notify_addfd in kernel/seccomp.c.
"""
_ALL: Final = 0xFFFFFFFFFFFFFFFF
_POLL_MS: Final = 20


class Installer:
    """Installs arenas in stopped tasks.

    Args:
        waits: The tracing thread's wait queue.
        listener: The listener of the sandbox's filter.
        secret: The two arguments that make ``DELIVERY_CALL`` a request for the memfd.
        live: Verifies what was installed.

    Preconditions: used by the tracing thread.
    """

    __slots__ = ("_listener", "_live", "_poll", "_secret", "_waits", "_work")

    def __init__(
        self, waits: Waits, listener: int, secret: tuple[int, int], live: LiveCheck
    ) -> None:
        self._waits = waits
        self._listener = listener
        self._secret = secret
        self._live = live
        self._work = ptrace.Registers()
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def install(self, task: Task, arena: Arena) -> int:
        """Pins ``arena`` in the task's memory and records it in ``task.space``.

        Returns ``READY`` when that is done and the task is in the seccomp stop of its call again,
        registers loaded. Otherwise it is to be resumed freely: 0 when it makes its call again (with
        the pin in place, or because a signal came first), or the errno that the call will return
        instead.

        Preconditions: the task is in the seccomp stop of a call.

        Raises:
            TraceeGone: The task died.
            OSError: We may not look at it.
        """
        page = arena.code and task.space.code.get(arena.number) != 0
        at = self._live.room_below(task.tid, trampoline.SIZE) if page else 0
        with Injector(task, self._waits, quiet=True) as inject:
            descriptor = self._deliver(task, arena.fd, inject, os.O_CLOEXEC)
            if descriptor < 0:
                outcome = 0 if descriptor == _AGAIN else -descriptor
            elif page and not task.space.shared:
                outcome = self._set_up(task, arena, inject, descriptor, at)
            else:
                outcome = self._map(task, arena, inject, descriptor, code=page)
            ptrace.copy_registers(task.registers, inject.after)
            if outcome > 0:
                _return(inject, -outcome)
            elif outcome != READY:
                _make_again(inject)
        return outcome

    def hand_over(self, task: Task, descriptor: int, *, close_on_exec: bool) -> int:
        """Makes the task's call return a copy of a descriptor, instead of being made.

        Returns the copy's number in the task, or a negative errno: what the call returns. With 0 or
        more the descriptor is there. The task is to be resumed freely. When a signal comes first,
        the call is made again, and so trapped again: -EINTR is returned then, which the task does
        not see.

        Preconditions: the task is in the seccomp stop of a call.

        Raises:
            TraceeGone: The task died.
        """
        with Injector(task, self._waits, quiet=True) as inject:
            result = self._deliver(task, descriptor, inject, os.O_CLOEXEC if close_on_exec else 0)
            if result == _AGAIN:
                _make_again(inject)
                return -errno.EINTR
            _return(inject, result)
        return result

    def _set_up(self, task: Task, arena: Arena, inject: Injector, descriptor: int, at: int) -> int:
        # By code of ours, in one go, if such can be run.
        page = sealed.map_code(inject, descriptor, arena.size, trampoline.SIZE, at)
        if page < 0:
            return self._map(task, arena, inject, descriptor)
        registers = self._work
        ptrace.copy_registers(registers, inject.after)
        _prepare(registers, page, arena.size, descriptor)
        stopped = inject.run_code(registers, page + trampoline.SET_UP_END)
        base, not_closed = (0, 1) if stopped is None else (registers[RBP], registers[RBX])
        good = self._live.sealed(task.tid, arena, base, page)
        if good:
            task.space.pins[arena.number] = base
            task.space.code[arena.number] = page
            if stopped and not not_closed:
                return READY
        if stopped:
            inject.leave_call()
        if not_closed:
            sealed.close(inject, descriptor)
        if not good:
            # Something is in the way that may let calls pass which are made from elsewhere.
            sealed.unmap(inject, page, trampoline.SIZE)
            if sealed.is_address(base):
                sealed.unmap(inject, base, arena.size)
            task.space.code[arena.number] = 0
        return 0

    def _map(
        self, task: Task, arena: Arena, inject: Injector, descriptor: int, *, code: bool = False
    ) -> int:
        # By injected calls alone.
        page = -1
        if code:
            page = sealed.map_code(inject, descriptor, arena.size, trampoline.SIZE)
        base = sealed.map_sealed(inject, descriptor, arena.size)
        good = base > 0 and self._live.sealed(task.tid, arena, base)
        if not good and page > 0:
            sealed.unmap(inject, page, trampoline.SIZE)
        if base < 0:
            return errno.ENOMEM
        if not good:
            sealed.unmap(inject, base, arena.size)
            return errno.EPERM
        if page > 0:
            sealed.seal(inject, page, trampoline.SIZE)
            if not self._live.sealed(task.tid, arena, base, page):
                page = 0
        task.space.pins[arena.number] = base
        task.space.code[arena.number] = max(page, 0)
        return 0

    def _deliver(self, task: Task, descriptor: int, inject: Injector, flags: int) -> int:
        # Returns the descriptor's number in the task, or a negative errno.
        # Not the task's own buffer: that one still shows the call, and may end up in the log.
        registers = self._work
        ptrace.copy_registers(registers, inject.after)
        registers[ORIG_RAX] = DELIVERY_CALL
        registers[ARGUMENTS[0]], registers[ARGUMENTS[1]] = self._secret
        task.store(registers)
        task.resume(0, ptrace_abi.PTRACE_SYSCALL)
        given = -errno.EPERM
        while True:
            for _ in self._poll.poll(_POLL_MS):
                answer = self._answer(task, descriptor, flags)
                if answer is not None:
                    given = answer
            # Only a look: the notification may still be on its way.
            status = self._waits.poll(task.tid)
            if status is None:
                continue
            if inject.reached(status, stops.SYSCALL_STOP):
                break
            task.resume(0, ptrace_abi.PTRACE_SYSCALL)
        if given < 0 and inject.result() == -_ERESTARTSYS:
            return _AGAIN
        return given

    def _answer(self, task: Task, descriptor: int, flags: int) -> int | None:
        # Receives one notification; returns what came of it if it was this task's.
        try:
            notification = seccomp.receive(self._listener)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        if notification.pid != task.tid:
            self._refuse(notification.id, errno.ENOSYS)
            return None
        try:
            return seccomp.add_descriptor(
                self._listener,
                notification.id,
                descriptor,
                newfd_flags=flags,
                flags=seccomp_abi.SECCOMP_ADDFD_FLAG_SEND,
            )
        except OSError as error:
            failed = self._refuse(notification.id, error.errno or errno.EPERM)
            return _AGAIN if error.errno in _UNDONE else failed

    def _refuse(self, cookie: int, number: int) -> int:
        while True:
            try:
                seccomp.send(self._listener, cookie, error=-number)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno not in _UNDONE:
                    raise
            return -number


def _return(inject: Injector, result: int) -> None:
    # The task's registers are those of a call that returned this.
    inject.after[ORIG_RAX] = NO_SYSCALL
    inject.after[RAX] = result & _ALL


def _make_again(inject: Injector) -> None:
    inject.after[RAX] = inject.after[ORIG_RAX]
    inject.after[ORIG_RAX] = NO_SYSCALL
    inject.after[RIP] -= SYSCALL_LENGTH


def _prepare(
    registers: ctypes.Array[ctypes.c_uint64], page: int, size: int, descriptor: int
) -> None:
    # From the registers of the task's call to those that the set-up begins with.
    for keeper, argument in zip(trampoline.KEEPERS, ARGUMENTS, strict=True):
        registers[keeper] = registers[argument]
    registers[trampoline.KEEPER_OF_NUMBER] = registers[ORIG_RAX]
    registers[ORIG_RAX] = NO_SYSCALL
    registers[RIP] = page + trampoline.SET_UP
    registers[RAX] = NR["mmap"]
    # Below the page: a mapping that is among the first ones is quickly found to be sealed.
    where = (page - size, size, mman.PROT_READ, mman.MAP_SHARED, descriptor, 0)
    for argument, value in zip(ARGUMENTS, where, strict=True):
        registers[argument] = value
