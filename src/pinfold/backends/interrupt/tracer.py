"""The tracer: seizes tasks, pins, redirects, restores, and lets go.

One process, one thread, one loop: requests come over a socket, stops by SIGCHLD. A task that it
knows is in one of four states:

    PARKED   stopped, out of its notification, with the registers of an interrupted call (``rax``
             -ERESTARTSYS): whoever resumes it has it make its call again.
    FLYING   it makes its call, redirected or not, and is stopped again when that is over: by the
             single step, or, where a step would disturb SIGTRAP, at the exit of the call.
    LEAVING  it was seized in vain; it is let go at its next stop, whatever that is.
    RETURNING  its call is over, and signals that were held back are still to be handed out.

Work on a parked task (an injected call) waits for that task; it never waits for a flying one.

What a stop of a flying task means is told by its instruction pointer. On the call instruction: the
call was not made, and all registers get their own values, those of the interrupted call; then a
signal does what it would have done to it. After the instruction: it was made, or refused by another
filter, or interrupted in its turn; the arguments are put back, and the kernel goes on from there:
it restarts the call with the arguments of the task's own, or builds a signal frame that shows them.

Between the step and its end another thread may overwrite the call instruction. As for injected
calls (``tracee.inject``) ``rcx`` and ``r11`` tell whether it was a call that ended.

A flying call may be let through by its filter, now that its arguments are others, and block. Nobody
hears of it then; that it sleeps in the call is what ``/proc/TID/syscall`` says.

A filter with ``WAIT_KILLABLE_RECV`` promises that a call is not interrupted once it was received. A
signal that is pending while such a call flies is therefore held back, and sent again when the
second notification was received: from there on the kernel keeps the promise itself.

An interrupted task may be killed and replaced by the exec of a sibling without a word to its
tracer (``de_thread`` in fs/exec.c). So whoever waits here looks from time to time whether the task
is still ours.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NoReturn

from pinfold.arch.x86_64 import (
    ARGUMENTS,
    NO_SYSCALL,
    ORIG_RAX,
    R11,
    RAX,
    RCX,
    RIP,
    SYSCALL_INSTRUCTION,
    SYSCALL_LENGTH,
    TRAP_FLAG,
)
from pinfold.backends.interrupt import wire
from pinfold.backends.interrupt.wire import LARGEST, Reply, Request
from pinfold.errors import TraceeGone
from pinfold.linux import process, ptrace, seccomp, signals
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.pins import sealed
from pinfold.tracee import stops
from pinfold.tracee.inject import SIGTRAP_BIT, UNTOUCHED, Injector, has_sigtrap, replay
from pinfold.tracee.task import AddressSpace, Task
from pinfold.tracee.waits import Waits
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    import ctypes

    from pinfold.backends.interrupt.wire import Shared
    from pinfold.linux.maps import Mapping

PARKED: Final = 1
FLYING: Final = 2
LEAVING: Final = 3
RETURNING: Final = 4

_OPTIONS: Final = abi.PTRACE_O_TRACESYSGOOD | abi.PTRACE_O_TRACEEXEC | abi.PTRACE_O_EXITKILL
_ERESTARTSYS: Final = 512
_INTERRUPTED: Final = (1 << 64) - _ERESTARTSYS
_ALL: Final = (1 << 64) - 1
_EVENT_STOP: Final = (abi.PTRACE_EVENT_STOP << 16) | stops.STEP_STOP
_LOOK_MS: Final = 5
_LAST_LOOK_MS: Final = 5000
_MAX_PINS: Final = 1 << 16
_SIGNALFD_READ: Final = 128 * 16
_LEARN_SECONDS: Final = 1.0
_OWN_DOING: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals that an instruction causes: held back, it would only cause them again."""


class _Refused(Exception):  # noqa: N818 (control flow: the reply to a request)
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, number))
        self.errno = number


class _Held(Task):
    """A task that we trace at the moment."""

    __slots__ = (
        "asleep",
        "entering",
        "first",
        "flown",
        "how",
        "number",
        "quiet",
        "saved",
        "state",
        "substituted",
    )

    def __init__(self, tid: int) -> None:
        # Its process is looked up when it is parked.
        super().__init__(tid, tid, AddressSpace())
        self.state = LEAVING
        self.saved: ctypes.Array[ctypes.c_uint64] = ptrace.Registers()
        """As they were when it was parked."""
        self.quiet = False
        """Whether it ignores SIGTRAP."""
        self.substituted = 0
        """Bit i: argument i is not the task's own at the moment."""
        self.number = 0
        """Of the request that made it fly."""
        self.asleep = False
        """Whether it was seen to sleep in its call without a second notification."""
        self.flown = b""
        """Its call as ``/proc/TID/syscall`` shows it: number, arguments; and the call's address."""
        self.how = abi.PTRACE_SINGLESTEP
        self.entering = False
        """Whether the stop at the entry of its call is still to come."""
        self.first: tuple[int, ctypes.Array[ctypes.c_char]] | None = None
        """A signal that was reported before the end of the step, and is to be taken after it."""


class _Announcing(Injector):
    """An injector that tells the supervisor of each call beforehand; see ``wire``."""

    __slots__ = ("_shared",)

    def __init__(self, held: _Held, waits: Waits, shared: Shared) -> None:
        super().__init__(held, waits, held.quiet)
        self._shared = shared

    def call(self, number: int, *args: int) -> int:
        """Returns what the call returned, as ``Injector.call``."""
        # Registers that the caller leaves out stay what they are.
        rest = [self.after[register] for register in ARGUMENTS[len(args) :]]
        self._shared.announce(self._task.tid, number, (*(value & _ALL for value in args), *rest))
        try:
            return super().call(number, *args)
        finally:
            # The same call by the task itself is not ours.
            self._shared.announce(0, 0, (0,) * len(ARGUMENTS))


class _Patient(Waits):
    """Wait results, with the doubt that the one waited for may never come."""

    __slots__ = ("_descriptor", "_poll")

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def stop_of(self, tid: int) -> int:
        """Returns the next stop status of one task, keeping all other results for later.

        Raises:
            TraceeGone: It ended, or is no longer ours.
        """
        while True:
            status = self.poll(tid)
            if status is not None:
                return status
            if self._poll.poll(_LOOK_MS):
                self.drain()
            elif not ours(tid):
                raise TraceeGone(tid)

    def drain(self) -> None:
        """Forgets that SIGCHLD came, before looking what it was about."""
        try:
            os.read(self._descriptor, _SIGNALFD_READ)
        except BlockingIOError:
            return


def _shown(registers: ctypes.Array[ctypes.c_uint64], pointer: int) -> bytes:
    # Preconditions: these registers are about to make the call.
    number = registers[RAX]
    number -= (number >> 63) << 64
    rest = " ".join(f"{registers[register]:#x}" for register in ARGUMENTS)
    return f"{number} {rest} {pointer:#x}".encode()


def ours(tid: int) -> bool:
    """Returns whether the calling process traces ``tid``."""
    return process.status_field(tid, b"TracerPid") == b"%d" % os.getpid()


class Tracer:
    """The tracer's process, from its first request to the end of the last redirected call.

    Args:
        listener: The listener descriptor.
        channel: Where requests come from.
        supervisor: Pidfd of the process that sends them.
        shared: See ``wire``.
    """

    def __init__(
        self, listener: int, channel: socket.socket, supervisor: int, shared: Shared
    ) -> None:
        self._listener = listener
        self._channel = channel
        self._supervisor = supervisor
        self._shared = shared
        self._signals = signals.signal_descriptor([signal.SIGCHLD])
        self._waits = _Patient(self._signals)
        self._held: dict[int, _Held] = {}
        # (memfd, address of its first byte) -> bytes that were pinned, oldest first.
        self._pins: OrderedDict[tuple[sealed.File, int], int] = OrderedDict()
        self._query = MapsQuery()
        self._killable: bool | None = None
        self._work = ptrace.Registers()

    def run(self) -> None:
        """Serves until the supervisor is done and no call is under way."""
        poll = select.poll()
        for descriptor in (self._channel.fileno(), self._supervisor, self._signals):
            poll.register(descriptor, select.POLLIN)
        serving = True
        look = _LOOK_MS
        while serving or self._held:
            ready = dict(poll.poll(look if self._held else None))
            if self._signals in ready:
                self._waits.drain()
            if self._channel.fileno() in ready:
                serving = self._serve()
            if self._supervisor in ready:
                serving = False
            self._take_stops()
            if ready:
                look = _LOOK_MS
            else:
                # Calls may block for hours; then there is less and less to look for.
                look = min(2 * look, _LAST_LOOK_MS)
                self._look_after()
            if not serving and self._listener >= 0:
                poll.unregister(self._channel.fileno())
                poll.unregister(self._supervisor)
                self._retire()

    # Requests

    def _serve(self) -> bool:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, LARGEST, 1)
        except ConnectionResetError:
            return False
        if not message:
            return False
        request = Request.unpack(message)
        try:
            reply = self._answer(request, descriptors)
        except _Refused as refused:
            reply = self._reply(request, refused.errno)
        except TraceeGone:
            self._held.pop(request.tid, None)
            reply = self._reply(request, errno.ENOENT)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if reply is not None:
            self._send(reply)
        return True

    def _answer(self, request: Request, descriptors: list[int]) -> Reply | None:
        # Stops that came in the meantime may be about the very task.
        self._take_stops()
        if request.what == wire.INSTALL:
            if len(descriptors) != 1:
                raise _Refused(errno.EBADF)
            return self._reply(request, 0, self._install(request, descriptors[0]))
        if request.what == wire.REDIRECT:
            self._redirect(request)
            return None
        held = self._held.get(request.tid)
        if request.what == wire.RESEND:
            if held is not None:
                self._resend(held)
            return self._reply(request, 0)
        if held is None or held.state != PARKED:
            raise _Refused(errno.ENOENT)
        self._about_to_call(held)
        self._fly(held, request.number, 0)
        return None

    def _reply(self, request: Request, number: int, value: int = 0) -> Reply:
        held = self._held.get(request.tid)
        parked = held is not None and held.state == PARKED
        return Reply(request.number, number, parked, value)

    def _send(self, reply: Reply) -> None:
        try:
            self._channel.send(reply.pack())
        except (BrokenPipeError, ConnectionResetError):
            # The supervisor is gone, as the next look at the socket will show.
            return

    # Pins

    def _install(self, request: Request, memfd: int) -> int:
        file = sealed.file_of(memfd)
        held = self._seized(request)
        try:
            # Only now: a task that cannot be traced keeps its descriptors as they are.
            descriptor = seccomp.add_descriptor(
                self._listener, request.cookie, memfd, newfd_flags=os.O_CLOEXEC, flags=0
            )
        except OSError as error:
            # Parked, since a task is only let go when it is stopped.
            self._park(held, request.cookie)
            raise _Refused(error.errno or errno.EPERM) from error
        self._park(held, request.cookie, descriptor)
        with _Announcing(held, self._waits, self._shared) as inject:
            base = sealed.map_sealed(inject, descriptor, request.size, request.address)
            if base < 0:
                raise _Refused(-base)
            maps = self._open_maps(held.tid)
            try:
                mapping = self._query.at(maps, base)
            finally:
                os.close(maps)
            shown = sealed.shows(mapping, file, base, base, base + request.size)
            if mapping is None or not shown or not self._is_sealed(held.tid, mapping):
                sealed.unmap(inject, base, request.size)
                raise _Refused(errno.EPERM)
        self._pins[file, base] = max(request.size, self._pins.pop((file, base), 0))
        if len(self._pins) > _MAX_PINS:
            self._pins.popitem(last=False)
        return base

    def _open_maps(self, tid: int) -> int:
        # Opened afresh each time: nobody tells us of an exec (SPEC: the live check).
        try:
            return open_maps(tid)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise TraceeGone(tid) from error
            raise _Refused(errno.EFAULT) from error

    # Redirects

    def _redirect(self, request: Request) -> None:
        held = self._held.get(request.tid)
        if held is None or held.state != PARKED:
            held = self._seized(request)
            self._park(held, request.cookie)
        if request.ptr_mask:
            self._check(held, request)
        registers = self._about_to_call(held)
        for index, register in enumerate(ARGUMENTS):
            if request.args_mask & 1 << index:
                registers[register] = request.args[index]
        self._fly(held, request.number, request.args_mask)

    def _check(self, held: _Held, request: Request) -> None:
        # The whole access inside one live pin. A pin that was installed by us is sealed, but what
        # is here now may be no heir of that: a child may lack the pin (MADV_DONTFORK), and have
        # mapped the same bytes itself.
        maps = self._open_maps(held.tid)
        try:
            for index in range(len(ARGUMENTS)):
                if not request.ptr_mask & 1 << index:
                    continue
                start = request.args[index]
                end = start + request.lengths[index]
                mapping = self._pin_at(maps, start, end) if end <= _ALL else None
                if mapping is None or not self._is_sealed(held.tid, mapping):
                    raise _Refused(errno.EFAULT)
        finally:
            os.close(maps)

    def _is_sealed(self, tid: int, mapping: Mapping) -> bool:
        try:
            return sealed.is_sealed(tid, mapping)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise TraceeGone(tid) from error
            raise _Refused(errno.EFAULT) from error

    def _pin_at(self, maps: int, start: int, end: int) -> Mapping | None:
        # The mapping there, if it is one that we installed and has all of ``[start, end)``.
        try:
            mapping = self._query.at(maps, start)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            raise _Refused(errno.EFAULT) from error
        if mapping is None:
            return None
        file = sealed.File(mapping.major, mapping.minor, mapping.inode)
        base = mapping.start - mapping.offset
        size = self._pins.get((file, base), 0)
        inside = base <= start and end <= base + size
        return mapping if inside and sealed.shows(mapping, file, base, start, end) else None

    # States

    def _seized(self, request: Request) -> _Held:
        # Returns the task, traced and in the notification ``request.cookie``.
        held = self._held.get(request.tid)
        if not self._valid(request.cookie):
            # Before anything else: the thread id may be another task's by now.
            raise _Refused(errno.ENOENT)
        if held is not None and not ours(request.tid):
            # A sibling's exec took the task's place and its id.
            self._held.pop(request.tid)
            self._report(held, errno.ENOENT)
            held = None
        if held is None:
            try:
                ptrace.seize(request.tid, _OPTIONS)
            except OSError as error:
                # A dying task says EPERM too.
                if error.errno == errno.ESRCH or not self._valid(request.cookie):
                    raise _Refused(errno.ENOENT) from error
                raise _Refused(error.errno or errno.EPERM) from error
            held = self._held[request.tid] = _Held(request.tid)
        if not self._valid(request.cookie):
            # It ended just now.
            self._release_later(held)
            raise _Refused(errno.ENOENT)
        return held

    def _valid(self, cookie: int) -> bool:
        return seccomp.is_valid(self._listener, cookie)

    def _park(self, held: _Held, cookie: int, descriptor: int = -1) -> None:
        """Takes the task out of its notification.

        A task whose filter has ``WAIT_KILLABLE_RECV`` is not interrupted; the answer takes it out
        of there, with the same result.

        Args:
            held: The task.
            cookie: The kernel's id of the notification.
            descriptor: To be closed in the task if something else came first.
        """
        with held.guard:
            ptrace.request(abi.PTRACE_INTERRUPT, held.tid)
        status = self._learn(held) if self._killable is None else None
        if status is None:
            try:
                seccomp.send(self._listener, cookie, error=-_ERESTARTSYS)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                    raise
            status = self._waits.stop_of(held.tid)
        registers = held.load()
        while held.state == FLYING and self._step_is_due(held, status):
            status = self._waits.stop_of(held.tid)
            registers = held.load()
        self._look_up(held)
        if held.state == FLYING and self._call_over(held):
            self._put_back(held, registers)
            held.store(registers)
        elif stops.stop_event(status) != abi.PTRACE_EVENT_STOP or stops.is_group_stop(status):
            # Something else came first; it does to the call what it would have done.
            self._give_way(held, status, descriptor)
        if registers[RAX] != _INTERRUPTED or registers[ORIG_RAX] == NO_SYSCALL:
            # Somebody else has answered it.
            self._give_way(held, status, descriptor)
        if not self._at_call_instruction(held, registers[RIP]):
            self._let_go(held)
            raise _Refused(errno.EOPNOTSUPP)
        ptrace.copy_registers(held.saved, registers)
        held.state = PARKED

    def _learn(self, held: _Held) -> int | None:
        # Finds out what kind of filter it is, by the first task that is interrupted: it stops, and
        # then this returns the status; or it goes on waiting, in a sleep that no signal ends.
        end = time.monotonic() + _LEARN_SECONDS
        while time.monotonic() < end:
            status = self._waits.poll(held.tid)
            if status is not None:
                self._killable = False
                return status
            state = process.status_field(held.tid, b"State")
            if state is not None and state.startswith(b"D"):
                self._killable = True
                return None
            os.sched_yield()
        return None

    def _look_up(self, held: _Held) -> None:
        fields = process.status_fields(held.tid, b"Tgid", b"SigIgn")
        if fields is None:
            raise TraceeGone(held.tid)
        held.tgid = int(fields[0])
        held.quiet = has_sigtrap(fields[1])

    def _give_way(self, held: _Held, status: int, descriptor: int) -> NoReturn:
        if descriptor >= 0:
            self._put_first(held, status)
            with _Announcing(held, self._waits, self._shared) as inject:
                sealed.close(inject, descriptor)
        self._let_go(held, self._signal_of(held, status))
        raise _Refused(errno.ENOENT)

    def _at_call_instruction(self, held: _Held, pointer: int) -> bool:
        # What is stepped over must be a call; the vsyscall page has none.
        try:
            word = ptrace.peek(held.tid, pointer - SYSCALL_LENGTH)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise TraceeGone(held.tid) from error
            return False
        return word[:SYSCALL_LENGTH] == SYSCALL_INSTRUCTION

    def _about_to_call(self, held: _Held) -> ctypes.Array[ctypes.c_uint64]:
        # The registers, in our own buffer, by which a parked task makes its own call again.
        registers = self._work
        ptrace.copy_registers(registers, held.saved)
        registers[RIP] -= SYSCALL_LENGTH
        registers[RAX] = registers[ORIG_RAX]
        registers[ORIG_RAX] = NO_SYSCALL
        registers[RCX] = registers[R11] = UNTOUCHED
        return registers

    def _fly(self, held: _Held, number: int, substituted: int) -> None:
        # Preconditions: ``_about_to_call`` registers, with what is substituted.
        held.substituted = substituted
        with held.guard:
            ptrace.set_registers(held.tid, self._work)
            # The call runs under the task's own signal mask. A step's SIGTRAP is forced on the
            # task, which would undo that it blocks or ignores it.
            by_step = not (held.quiet or ptrace.get_signal_mask(held.tid) & SIGTRAP_BIT)
            held.asleep = False
            held.flown = _shown(self._work, held.saved[RIP])
            held.how = abi.PTRACE_SINGLESTEP if by_step else abi.PTRACE_SYSCALL
            held.entering = not by_step
            held.number = number
            held.state = FLYING
            ptrace.resume(held.how, held.tid)

    def _release_later(self, held: _Held) -> None:
        # It is in no stop, and can only be let go in one.
        held.state = LEAVING
        try:
            ptrace.request(abi.PTRACE_INTERRUPT, held.tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self._held.pop(held.tid, None)

    # Stops

    def _take_stops(self) -> None:
        while True:
            found = self._waits.ready()
            if found is None:
                return
            tid, status = found
            try:
                self._dispatch(tid, status)
            except TraceeGone:
                # Killed while it was stopped; its end is still to be reported.
                continue

    def _dispatch(self, tid: int, status: int) -> None:
        if not stops.stopped(status):
            gone = self._held.pop(tid, None)
            if gone is not None:
                self._report(gone, errno.ENOENT)
            return
        if stops.stop_event(status) == abi.PTRACE_EVENT_EXEC:
            self._executed(tid)
            return
        held = self._held.get(tid)
        if held is None or held.state == PARKED:
            # Cannot happen: nobody but us resumes what we stopped.
            raise AssertionError(f"task {tid}: stop {status:#x} in no state for it")
        self._stopped(held, status)

    def _executed(self, tid: int) -> None:
        # The new program has registers of its own. A thread that was not the first of its process
        # has taken over the first one's id, and the first one, traced or not, is gone.
        try:
            former = ptrace.event_message(tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            return
        gone = self._held.pop(tid, None)
        held = self._held.pop(former, gone)
        if gone is not None and gone is not held:
            self._report(gone, errno.ENOENT)
        if held is not None:
            self._report(held, 0)
        try:
            ptrace.resume(abi.PTRACE_DETACH, tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def _stopped(self, held: _Held, status: int) -> None:
        if held.state == FLYING:
            registers = held.load()
            if held.entering and status == stops.SYSCALL_STOP and registers[RIP] == held.saved[RIP]:
                held.entering = False
                with held.guard:
                    ptrace.resume(held.how, held.tid)
                return
            over = not held.entering and self._call_over(held)
            if over and self._step_is_due(held, status):
                return
            if not over and status == _EVENT_STOP:
                # Left over from its interruption, or job control: its call is still to be made.
                with held.guard:
                    ptrace.resume(held.how, held.tid)
                return
            if not over and self._killable and self._hold_back(held, status):
                return
            done = over and registers[RAX] != _INTERRUPTED
            if over:
                self._put_back(held, registers)
            else:
                ptrace.copy_registers(registers, held.saved)
            held.store(registers)
            self._report(held, 0 if done else errno.ENOENT)
            if over and held.held:
                held.state = RETURNING
        number = self._signal_of(held, status)
        if held.state == RETURNING and held.held:
            with held.guard:
                ptrace.resume(abi.PTRACE_CONT, held.tid, number)
            return
        self._let_go(held, number)

    def _hold_back(self, held: _Held, status: int) -> bool:
        """Returns whether a stop before a call that is not to be interrupted was passed over."""
        if stops.stop_event(status):
            # It joins a group stop when it is let go.
            if not stops.is_group_stop(status):
                return False
        else:
            number = stops.stop_signal(status)
            if number in _OWN_DOING or status == stops.SYSCALL_STOP:
                return False
            number = replay(held, number)
            with held.guard:
                held.held.append((number, ptrace.get_siginfo(held.tid)))
            self._shared.hold(held.number)
        with held.guard:
            ptrace.resume(held.how, held.tid)
        return True

    def _resend(self, held: _Held) -> None:
        for number, _ in held.held:
            try:
                process.signal_thread(held.tgid, held.tid, number)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise

    def _call_over(self, held: _Held) -> bool:
        # Preconditions: registers are loaded; past the entry stop, where there is one.
        registers = held.registers
        return registers[RCX] == registers[RIP] == held.saved[RIP] and registers[R11] != UNTOUCHED

    def _step_is_due(self, held: _Held, status: int) -> bool:
        """Returns whether the step's own stop is still to come, and makes it come.

        A group stop is reported before it, and so is the SIGSYS of a filter. The SIGTRAP that is
        pending must not be left behind: it would end the task.
        """
        if held.how != abi.PTRACE_SINGLESTEP or not self._call_over(held):
            return False
        if status == stops.STEP_STOP and not self._sent_by_someone(held):
            return False
        self._put_first(held, status)
        with held.guard:
            ptrace.resume(abi.PTRACE_CONT, held.tid)
        return True

    def _put_first(self, held: _Held, status: int) -> None:
        # Keeps the signal of a signal-delivery stop for when the task is let go.
        if not stops.stop_event(status) and status != stops.SYSCALL_STOP:
            number = replay(held, stops.stop_signal(status))
            with held.guard:
                held.first = (number, ptrace.get_siginfo(held.tid))

    def _sent_by_someone(self, held: _Held) -> bool:
        with held.guard:
            info = ptrace.get_siginfo(held.tid)
        _, _, code = abi.SIGINFO_HEAD.unpack_from(info.raw)
        return bool(code <= 0)

    def _put_back(self, held: _Held, registers: ctypes.Array[ctypes.c_uint64]) -> None:
        for index, register in enumerate(ARGUMENTS):
            if held.substituted & 1 << index:
                registers[register] = held.saved[register]
        if held.how == abi.PTRACE_SINGLESTEP and not held.saved[R11] & TRAP_FLAG:
            # The processor saves the flags there, with the step's own.
            registers[R11] &= ~TRAP_FLAG

    def _signal_of(self, held: _Held, status: int) -> int:
        # The signal that the task is to take now; 0 for stops that are about something else.
        if held.first is not None:
            number, info = held.first
            with held.guard:
                ptrace.set_siginfo(held.tid, info)
            return number
        if stops.stop_event(status) or status == stops.SYSCALL_STOP:
            return 0
        if status == stops.STEP_STOP and not self._sent_by_someone(held):
            return 0
        return replay(held, stops.stop_signal(status))

    def _let_go(self, held: _Held, number: int = 0) -> None:
        self._held.pop(held.tid, None)
        with held.guard:
            ptrace.resume(abi.PTRACE_DETACH, held.tid, number)

    def _report(self, held: _Held, number: int) -> None:
        if held.state == FLYING and not self._shared.has_mark(held.number):
            self._send(Reply(held.number, number, parked=False))

    def _look_after(self) -> None:
        for held in list(self._held.values()):
            if not ours(held.tid):
                del self._held[held.tid]
                self._report(held, errno.ENOENT)
            elif held.state == FLYING and not self._shared.has_mark(held.number):
                self._look_at_call(held)

    def _look_at_call(self, held: _Held) -> None:
        # With its new arguments the filter may let the call through, without a second notification;
        # and it may block.
        if self._listener < 0:
            return
        try:
            with open(f"/proc/{held.tid}/syscall", "rb") as file:
                call = file.read()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                return
            raise
        numbers = call.split()
        asleep = b" ".join((*numbers[:7], *numbers[8:])) == held.flown and not self._announced()
        if asleep and held.asleep:
            self._report(held, 0)
            self._shared.mark(held.number)
        # Twice: it may be waiting for the lock under which it will be announced.
        held.asleep = asleep

    def _announced(self) -> bool:
        # Whether there is a notification that nobody has received: it may be the one.
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        return bool(poll.poll(0))

    def _retire(self) -> None:
        # What waits in a notification gets ENOSYS from the kernel, the parked get it from us.
        os.close(self._listener)
        self._listener = -1
        for held in list(self._held.values()):
            if held.state != PARKED:
                continue
            try:
                registers = held.load()
                registers[RAX] = _ALL - errno.ENOSYS + 1
                held.store(registers)
                self._let_go(held)
            except TraceeGone:
                self._held.pop(held.tid, None)
        self._send(Reply(wire.LAST, 0, parked=False, value=len(self._held)))
