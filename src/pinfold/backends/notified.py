"""The native back end of a sandbox: a kernel with PIN_INSTALL and SEND_REDIRECT, and no tracer.

The filter answers ``SECCOMP_RET_USER_NOTIF`` for a call to be judged, and its thread waits. A plan
is one answer to the listener. The kernel looks by itself whether the arguments of a redirect lie in
our memfd, sealed and read-only, in the memory that the thread has *now*; it gives them back before
the program sees a register; and it has the filters around ours judge what is really made. So
nothing is verified here, nothing restored, and what is remembered about a thread's memory is only a
place to try: what is not there is refused (EFAULT), and then put there.

The kernel looks at the bytes from each pointer to the end of the slot. Structures inside point to
others before them, in the same mapping, which nobody can cut a piece from: it is sealed, and the
advice not to pass a part of it on to children is refused in every sandbox.

**Where the pin goes.** Every arena has a place that is the same in all processes of a sandbox,
chosen at random for each sandbox, below everything that programs usually have: there the first try
almost always succeeds. Where a program has something of its own, the kernel chooses.

**Whose slot is whose.** A thread has at most one call in flight, and the kernel is done with the
arguments of one before the thread can make the next: what a call that is restarted reads once more,
it reads as the program's own, and traps again. So a thread keeps its slot, and the slot may be
written as soon as the thread is heard of again. Until then it may be in a call that still reads it
(it waits in the open of a FIFO, say). When slots are needed, those of threads that are gone are
taken back: a thread's id vanishes from ``/proc`` only when it is in no call any more.

**What cannot be done** without a tracer is to make another call than the one that trapped: opens
by real name (``supervisor.reopen``), and the messages of a ``sendmmsg`` one by one
(``backends.batch``). The former is not asked for of this back end; the latter is answered with
ENOSYS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import struct
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.backends.base import Deny, Inject, Kill, Redirect, Return, SendFirst, Serve
from pinfold.backends.descriptor import uninterrupted
from pinfold.backends.kept import Kept
from pinfold.linux import memfd, redirect, seccomp
from pinfold.pins.arena import SLOT_SIZE
from pinfold.tracee.task import AddressSpace
from pinfold.uapi import seccomp as abi
from pinfold.uapi.mman import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Arena, ArenaPool, Slot
    from pinfold.tracee.notified import Notified

_LOWEST: Final = 0x5510_0000_0000
_PLACES: Final = 0x30_0000_0000
"""Below the lowest address that the kernel gives a program, above what programs (and sanitizers)
map at addresses of their own choice."""
_STRIDE: Final = 1 << 24
"""More than any arena has."""
_TRIES: Final = 4
"""Addresses at which a pin is tried for one call."""
_SEND_REDIRECT: Final = abi.SECCOMP_IOCTL_NOTIF_SEND_REDIRECT
_ioctl: Final = fcntl.ioctl
_set_notification: Final = struct.Struct("=Q").pack_into
"""Of a request: it is the first field of each."""
_ALL: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_CONTINUE: Final = abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE
_INDEX: Final = {register: index for index, register in enumerate(ARGUMENTS)}
_VOID: Final = frozenset({errno.ENOENT, errno.ESRCH})
"""What the kernel says of a notification that is void."""
_MOVED: Final = 1024
"""Processes remembered that have their pin in another place."""


class CallGone(Exception):  # noqa: N818 (normal life)
    """The notification is void: its thread was killed."""


class Moved(Exception):  # noqa: N818 (a finding, not an error)
    """The pin has come to lie in another place; the call is to be judged once more, for that."""


class _Kept(Kept):
    # With the answers that redirect one argument to its beginning, by the argument's register: but
    # for the notification they are the same each time.
    __slots__ = ("answers",)

    def __init__(self, tid: int, slot: Slot, space: AddressSpace) -> None:
        super().__init__(tid, slot, space, None, 0)
        self.answers: Final[dict[int, bytearray]] = {}


class NotifiedBackend:
    """Carries out plans on threads that wait in notifications.

    Args:
        listener: The listener, of a filter with SECCOMP_FILTER_FLAG_REDIRECT.
        arenas: Where slots come from.
        reclaim: Called when slots are short: gives back those of threads that are gone.

    Preconditions: used by one thread.
    """

    __slots__ = ("_arenas", "_listener", "_moved", "_places", "_reclaim")

    def __init__(self, listener: int, arenas: ArenaPool, reclaim: Callable[[], None]) -> None:
        self._listener = listener
        self._arenas = arenas
        self._reclaim = reclaim
        self._places = _LOWEST + secrets.randbelow(_PLACES // PAGE_SIZE) * PAGE_SIZE
        # By process: where the kernel put a pin whose place was taken. Only ever tried.
        self._moved: dict[int, dict[int, int]] = {}

    def slot_for(self, task: Notified, size: int = SLOT_SIZE) -> Slot:
        """Returns a slot for the call of a thread; the one that it keeps, if that is large enough.

        Asked again for the same call, for a larger one, it takes the first larger one back.

        Raises:
            OSError: E2BIG, ENOMEM or EMFILE: there is none.
        """
        self.over(task)
        if size > SLOT_SIZE:
            task.larger = slot = self._take(size)
            task.space.pins.setdefault(slot.arena.number, self._place(slot.arena))
            return slot
        if task.kept is None:
            slot = self._take(SLOT_SIZE)
            task.space.pins.setdefault(slot.arena.number, self._place(slot.arena))
            self._keep(task, slot)
        kept: Kept = task.kept
        return kept.slot

    def _keep(self, task: Notified, slot: Slot) -> None:
        task.kept = _Kept(task.tid, slot, task.space)

    def _take(self, size: int) -> Slot:
        if self._arenas.crowded(size):
            self._reclaim()
        return self._arenas.take(size)

    def _place(self, arena: Arena) -> int:
        return self._places + arena.number * _STRIDE

    def over(self, task: Notified) -> None:
        """Takes back what the last call of a thread needed beyond the slot that it keeps."""
        if task.larger is not None:
            self._arenas.give_back(task.larger)
            task.larger = None

    def gone(self, task: Notified) -> None:
        """Takes back the slots of a thread that is gone."""
        self.over(task)
        if task.kept is not None:
            self._arenas.give_back(task.kept.slot)
            task.kept = None

    def address_of(self, task: Notified, slot: Slot) -> int:
        """Returns where the thread's memory is expected to have a slot."""
        return task.space.pins[slot.arena.number] + slot.offset

    def carry_out(self, task: Notified, slot: Slot, plan: Plan) -> None:
        """Does what the engine decided.

        Raises:
            CallGone: The call was gone before.
            Moved: The pin had to be put somewhere else.
            OSError: It could not be pinned (ENOMEM, EPERM, …). The call still waits.
        """
        if isinstance(plan, Redirect):
            self._redirect(task, slot, plan)
        elif isinstance(plan, Deny):
            self.deny(task, plan.errno)
        elif isinstance(plan, Return):
            self._send(task, value=plan.value)
        elif isinstance(plan, Kill):
            self._kill(task)
        elif isinstance(plan, SendFirst):
            self.deny(task, errno.ENOSYS)
        else:
            self._give(task, plan)

    def let_go(self, task: Notified, register: int) -> None:
        """Has the call made with one argument pointing to the slot that the thread keeps.

        Args:
            task: The thread; it has a slot.
            register: Of the argument.

        Raises:
            Exception: As :meth:`carry_out`.
        """
        kept: _Kept = task.kept
        answer = kept.answers.get(register)
        if answer is None:
            answer = kept.answers[register] = _to_start(kept, _INDEX[register])
        _set_notification(answer, 0, task.cookie)
        self._made(task, kept.slot.arena, answer)

    def resume(self, task: Notified) -> None:
        """Has the call made as it is: nothing of it was in memory.

        Raises:
            CallGone: The call was gone before.
        """
        self._send(task, flags=_CONTINUE)

    def deny(self, task: Notified, number: int) -> None:
        """Makes the call fail.

        Raises:
            CallGone: The call was gone before.
        """
        self._send(task, error=-number)

    def _send(self, task: Notified, *, value: int = 0, error: int = 0, flags: int = 0) -> None:
        value &= _ALL
        signed = value - (_ALL + 1) if value & _SIGN else value
        with _gone():
            uninterrupted(
                seccomp.send, self._listener, task.cookie, value=signed, error=error, flags=flags
            )

    def _redirect(self, task: Notified, slot: Slot, plan: Redirect) -> None:
        assert plan.number is None, "a listener cannot have another call made"
        start = self.address_of(task, slot)
        end = start + slot.size
        mask = pointers = 0
        args = [0] * 6
        lengths = [0] * 6
        for index, value in plan.registers:
            mask |= 1 << index
            args[index] = value & _ALL
            if start <= value < end:
                # All behind it, whatever of that the kernel will read.
                pointers |= 1 << index
                lengths[index] = end - value
        if not mask:
            self.resume(task)
            return
        flags = abi.SECCOMP_REDIRECT_FLAG_CONTINUE
        arena = slot.arena
        self._made(
            task,
            arena,
            redirect.encode_redirect(task.cookie, flags, mask, pointers, args, lengths, arena.fd),
        )

    def _made(self, task: Notified, arena: Arena, how: bytes | bytearray) -> None:
        if self._sent(how):
            return
        self._install(task, arena)
        if not self._sent(how):
            # Not even where it has just been put: somebody has changed the memory meanwhile.
            raise OSError(errno.EPERM, f"the pin of {task} does not stay")

    def _sent(self, how: bytes | bytearray) -> bool:
        # Returns whether the call goes on; else there is no such pin in its memory.
        while True:
            try:
                _ioctl(self._listener, _SEND_REDIRECT, how)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in _VOID:
                    raise CallGone from error
                if error.errno != errno.EFAULT:
                    raise
                return False
            return True

    def _install(self, task: Notified, arena: Arena) -> None:
        # Where the pin was expected, and was not. Raises Moved when it has come to lie elsewhere.
        base = task.space.pins[arena.number]
        try:
            self._map(task, arena, base)
        except FileExistsError:
            pass
        else:
            return
        places = self._moved.setdefault(task.tgid, {})
        known = places.get(arena.number, base)
        if known == base:
            known = places[arena.number] = self._map(task, arena, 0)
        if len(self._moved) > _MOVED:
            del self._moved[next(iter(self._moved))]
        task.space = AddressSpace({**task.space.pins, arena.number: known})
        if task.kept is not None:
            self._keep(task, task.kept.slot)
        raise Moved

    def _map(self, task: Notified, arena: Arena, address: int) -> int:
        while True:
            try:
                with _gone():
                    return redirect.pin_install_at(
                        self._listener, task.cookie, 0, arena.fd, address, arena.size, 0
                    )
            except InterruptedError:
                continue

    def _give(self, task: Notified, plan: Serve | Inject) -> None:
        made = plan.descriptor if isinstance(plan, Inject) and plan.ours else -1
        try:
            if isinstance(plan, Serve):
                made = memfd.with_content("pinfold-served", plan.content)
            given = plan.descriptor if isinstance(plan, Inject) else made
            with _gone():
                uninterrupted(
                    seccomp.add_descriptor,
                    self._listener,
                    task.cookie,
                    given,
                    newfd_flags=os.O_CLOEXEC if plan.close_on_exec else 0,
                    flags=abi.SECCOMP_ADDFD_FLAG_SEND,
                )
        finally:
            if made >= 0:
                os.close(made)

    def _kill(self, task: Notified) -> None:
        # The process is meant that has the call: as long as that waits, its id is nobody else's.
        try:
            process = os.pidfd_open(task.tgid)
        except ProcessLookupError as error:
            raise CallGone from error
        try:
            if not uninterrupted(seccomp.is_valid, self._listener, task.cookie):
                raise CallGone
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError as error:
            raise CallGone from error
        finally:
            os.close(process)


class _gone(contextlib.AbstractContextManager[None]):  # noqa: N801 (a context manager)
    # Turns what the kernel says of a notification that is void into CallGone.

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _VOID:
            raise CallGone from error


def _to_start(kept: Kept, index: int) -> bytearray:
    # The answer that redirects this one argument to the slot's beginning; without a notification.
    args = [0] * 6
    lengths = [0] * 6
    args[index] = kept.address
    lengths[index] = kept.slot.size
    bit = 1 << index
    flags = abi.SECCOMP_REDIRECT_FLAG_CONTINUE
    return bytearray(
        redirect.encode_redirect(0, flags, bit, bit, args, lengths, kept.slot.arena.fd)
    )
