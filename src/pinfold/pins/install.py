"""Putting an arena into a task's memory: deliver the memfd, map, seal, close, verify.

The delivery alone also hands a task any other descriptor, as the result of its call.

The task is in the seccomp stop of a trapped call. That call is changed into ``getpid`` with a
secret in its arguments, which our filter (and nobody else's) answers with a notification; the memfd
is handed over in the reply (``SECCOMP_ADDFD_FLAG_SEND``). ``getpid``, because filters outside and
inside ours let it through, where an unused number would be refused by a container's. Then ``mmap``,
``mseal`` and ``close`` are injected, the kernel is asked what is there now, and the instruction
pointer goes back so that the original call is made again, and traps again.

While the descriptor is open in the target, another of its threads may copy it. That gains it read
access to the arena, which it has anyway: the memfd is sealed against writing, resizing and more
seals. Between ``mmap`` and ``mseal`` a thread may replace the mapping; then it is the replacement
that is sealed, and the check that follows sees it. A filter of the task's own may pretend that the
calls were made; the kernel is asked whether they were.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import (
    ARGUMENTS,
    NO_SYSCALL,
    ORIG_RAX,
    RAX,
    RIP,
    SYSCALL_LENGTH,
)
from pinfold.linux import ptrace, seccomp
from pinfold.pins import sealed
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import stops
from pinfold.tracee.inject import Injector
from pinfold.uapi import ptrace as ptrace_abi
from pinfold.uapi import seccomp as seccomp_abi

if TYPE_CHECKING:
    from pinfold.pins.arena import Arena
    from pinfold.pins.live import LiveCheck
    from pinfold.tracee.task import Task
    from pinfold.tracee.waits import Waits

DELIVERY_CALL: Final = NR["getpid"]

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

        Returns 0 when the original call is about to be made again (with the pin in place, or
        because a signal came first), or the errno that the original call will return instead.
        Either way the task is to be resumed freely.

        Preconditions: the task is in the seccomp stop of a call.

        Raises:
            TraceeGone: The task died.
        """
        with Injector(task, self._waits) as inject:
            number = inject.after[ORIG_RAX]
            outcome = self._install(task, arena, inject)
            if outcome:
                _return(inject, -outcome)
            else:
                _make_again(inject, number)
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
        with Injector(task, self._waits) as inject:
            number = inject.after[ORIG_RAX]
            result = self._deliver(task, descriptor, inject, os.O_CLOEXEC if close_on_exec else 0)
            if result == _AGAIN:
                _make_again(inject, number)
                return -errno.EINTR
            _return(inject, result)
        return result

    def _install(self, task: Task, arena: Arena, inject: Injector) -> int:
        descriptor = self._deliver(task, arena.fd, inject, os.O_CLOEXEC)
        if descriptor < 0:
            return 0 if descriptor == _AGAIN else -descriptor
        base = sealed.map_sealed(inject, descriptor, arena.size)
        if base < 0:
            return errno.ENOMEM
        if self._live.sealed(task.tid, arena, base):
            task.space.pins[arena.number] = base
            return 0
        sealed.unmap(inject, base, arena.size)
        return errno.EPERM

    def _deliver(self, task: Task, descriptor: int, inject: Injector, flags: int) -> int:
        # Returns the descriptor's number in the task, or a negative errno.
        # Not the task's own buffer: that one still shows the call, and may end up in the log.
        registers = self._work
        ctypes.memmove(registers, inject.after, ctypes.sizeof(registers))
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


def _make_again(inject: Injector, number: int) -> None:
    inject.after[ORIG_RAX] = NO_SYSCALL
    inject.after[RIP] -= SYSCALL_LENGTH
    inject.after[RAX] = number
