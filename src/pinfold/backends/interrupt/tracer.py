"""The tracer: seizes tasks, pins, redirects, restores, and lets go.

One process, one loop: requests come over a socket, stops by SIGCHLD. What a held task is doing, and
what its stops mean, is in ``held``. Work on a parked task (an injected call) waits for that task;
the loop never waits for a flying one. A second thread helps out where seizing a task is in the way
of what that waits for (``seizing``).

A flying call may be let through by its filter, now that its arguments are others, and block. Nobody
hears of it then; that it sleeps in the call is what ``/proc/TID/syscall`` says.
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

from pinfold.arch.x86_64 import ARGUMENTS, NO_SYSCALL, ORIG_RAX, RAX, RIP
from pinfold.backends.interrupt import wire
from pinfold.backends.interrupt.held import FLYING, LEAVING, PARKED, RETURNING, Held
from pinfold.backends.interrupt.seizing import Seizing
from pinfold.backends.interrupt.waiting import LOOK_MS, Announcing, Patient, ours
from pinfold.backends.interrupt.wire import LARGEST, Reply, Request
from pinfold.errors import TraceeGone
from pinfold.linux import process, ptrace, seccomp, signals
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.pins import sealed
from pinfold.tracee import stops
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    from pinfold.backends.interrupt.wire import Shared
    from pinfold.linux.maps import Mapping

_OPTIONS: Final = abi.PTRACE_O_TRACESYSGOOD | abi.PTRACE_O_TRACEEXEC | abi.PTRACE_O_EXITKILL
_ERESTARTSYS: Final = 512
_INTERRUPTED: Final = (1 << 64) - _ERESTARTSYS
_ALL: Final = (1 << 64) - 1
_EVENT_STOP: Final = (abi.PTRACE_EVENT_STOP << 16) | stops.STEP_STOP
_LAST_LOOK_MS: Final = 5000
_MAX_PINS: Final = 1 << 16
_LEARN_SECONDS: Final = 1.0


class _Refused(Exception):  # noqa: N818 (control flow: the reply to a request)
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, number))
        self.errno = number


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
        self._waits = Patient(self._signals)
        self._seizing = Seizing(self._waits.keep)
        self._held: dict[int, Held] = {}
        # (memfd, address of its first byte) -> bytes that were pinned, oldest first.
        self._pins: OrderedDict[tuple[sealed.File, int], int] = OrderedDict()
        self._query = MapsQuery()
        self._killable: bool | None = None

    def run(self) -> None:
        """Serves until the supervisor is done and no call is under way."""
        poll = select.poll()
        for descriptor in (self._channel.fileno(), self._supervisor, self._signals):
            poll.register(descriptor, select.POLLIN)
        serving = True
        look = LOOK_MS
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
                look = LOOK_MS
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
                held.resend()
            return self._reply(request, 0)
        if held is None or held.state != PARKED:
            raise _Refused(errno.ENOENT)
        held.about_to_call()
        held.fly(request.number, 0)
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
        with Announcing(held, self._waits, self._shared) as inject:
            base = sealed.map_sealed(inject, descriptor, request.size, request.address)
            if base < 0:
                raise _Refused(-base)
            maps = self._open_maps(held.tid)
            try:
                mapping = self._mapping(maps, base)
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
            with sealed.looking_at(tid):
                return open_maps(tid)
        except OSError as error:
            raise _unseen(error) from error

    def _mapping(self, maps: int, address: int) -> Mapping | None:
        try:
            return self._query.at(maps, address)
        except OSError as error:
            raise _unseen(error) from error

    # Redirects

    def _redirect(self, request: Request) -> None:
        held = self._held.get(request.tid)
        if held is None or held.state != PARKED:
            held = self._seized(request)
            self._park(held, request.cookie)
        if request.ptr_mask:
            self._check(held, request)
        registers = held.about_to_call()
        for index, register in enumerate(ARGUMENTS):
            if request.args_mask & 1 << index:
                registers[register] = request.args[index]
        held.fly(request.number, request.args_mask)

    def _check(self, held: Held, request: Request) -> None:
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
                    # Of a task that was killed meanwhile there is nothing to be seen, either.
                    self._mapping(maps, start)
                    raise _Refused(errno.EFAULT)
        finally:
            os.close(maps)

    def _is_sealed(self, tid: int, mapping: Mapping) -> bool:
        try:
            return sealed.is_sealed(tid, mapping)
        except OSError as error:
            raise _unseen(error) from error

    def _pin_at(self, maps: int, start: int, end: int) -> Mapping | None:
        # The mapping there, if it is one that we installed and has all of ``[start, end)``.
        mapping = self._mapping(maps, start)
        if mapping is None:
            return None
        file = sealed.File(mapping.major, mapping.minor, mapping.inode)
        base = mapping.start - mapping.offset
        size = self._pins.get((file, base), 0)
        inside = base <= start and end <= base + size
        return mapping if inside and sealed.shows(mapping, file, base, start, end) else None

    # States

    def _seized(self, request: Request) -> Held:
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
                self._seizing.seize(request.tid, _OPTIONS)
            except OSError as error:
                # A dying task says EPERM too.
                if error.errno == errno.ESRCH or not self._valid(request.cookie):
                    raise _Refused(errno.ENOENT) from error
                raise _Refused(error.errno or errno.EPERM) from error
            held = self._held[request.tid] = Held(request.tid)
        if not self._valid(request.cookie):
            # It ended just now.
            self._release_later(held)
            raise _Refused(errno.ENOENT)
        return held

    def _valid(self, cookie: int) -> bool:
        return seccomp.is_valid(self._listener, cookie)

    def _park(self, held: Held, cookie: int, descriptor: int = -1) -> None:
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
        while held.state == FLYING and held.step_is_due(status):
            status = self._waits.stop_of(held.tid)
            registers = held.load()
        held.look_up()
        if held.state == FLYING and held.call_over():
            held.put_back(registers)
            held.store(registers)
        elif stops.stop_event(status) != abi.PTRACE_EVENT_STOP or stops.is_group_stop(status):
            # Something else came first; it does to the call what it would have done.
            self._give_way(held, status, descriptor)
        if registers[RAX] != _INTERRUPTED or registers[ORIG_RAX] == NO_SYSCALL:
            # Somebody else has answered it.
            self._give_way(held, status, descriptor)
        if not held.at_call_instruction(registers[RIP]):
            self._let_go(held)
            raise _Refused(errno.EOPNOTSUPP)
        ptrace.copy_registers(held.saved, registers)
        held.state = PARKED

    def _learn(self, held: Held) -> int | None:
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

    def _give_way(self, held: Held, status: int, descriptor: int) -> NoReturn:
        if descriptor >= 0:
            held.put_first(status)
            with Announcing(held, self._waits, self._shared) as inject:
                sealed.close(inject, descriptor)
        self._let_go(held, held.signal_to_take(status))
        raise _Refused(errno.ENOENT)

    def _release_later(self, held: Held) -> None:
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

    def _stopped(self, held: Held, status: int) -> None:
        if held.state == FLYING:
            registers = held.load()
            if held.entering and status == stops.SYSCALL_STOP and registers[RIP] == held.saved[RIP]:
                held.entering = False
                with held.guard:
                    ptrace.resume(held.how, held.tid)
                return
            over = not held.entering and held.call_over()
            if over and held.step_is_due(status):
                return
            if not over and status == _EVENT_STOP:
                # Left over from its interruption, or job control: its call is still to be made.
                with held.guard:
                    ptrace.resume(held.how, held.tid)
                return
            if not over and self._killable and held.hold_back(status, self._shared):
                return
            done = over and registers[RAX] != _INTERRUPTED
            if over:
                held.put_back(registers)
            else:
                ptrace.copy_registers(registers, held.saved)
            held.store(registers)
            self._report(held, 0 if done else errno.ENOENT)
            if over and held.held:
                held.state = RETURNING
        number = held.signal_to_take(status)
        if held.state == RETURNING and held.held:
            with held.guard:
                ptrace.resume(abi.PTRACE_CONT, held.tid, number)
            return
        self._let_go(held, number)

    def _let_go(self, held: Held, number: int = 0) -> None:
        self._held.pop(held.tid, None)
        with held.guard:
            ptrace.resume(abi.PTRACE_DETACH, held.tid, number)

    def _report(self, held: Held, number: int) -> None:
        if held.state == FLYING and not self._shared.has_mark(held.number):
            self._send(Reply(held.number, number, parked=False))

    def _look_after(self) -> None:
        for held in list(self._held.values()):
            if not ours(held.tid):
                del self._held[held.tid]
                self._report(held, errno.ENOENT)
            elif held.state == FLYING and not self._shared.has_mark(held.number):
                self._look_at_call(held)

    def _look_at_call(self, held: Held) -> None:
        # With its new arguments the filter may let the call through, without a second notification;
        # and it may block.
        if self._listener < 0:
            return
        asleep = _sleeps(held) and not self._announced()
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


def _unseen(error: OSError) -> _Refused:
    # What to answer where a task's memory cannot be looked at. It may have been killed.
    gone = error.errno in (errno.ESRCH, errno.ENOENT)
    return _Refused(errno.ENOENT if gone else errno.EFAULT)


def _sleeps(held: Held) -> bool:
    # Whether a task sleeps in the call that it was given.
    try:
        with open(f"/proc/{held.tid}/syscall", "rb") as file:
            numbers = file.read().split()
    except PermissionError:
        # It forbids to be looked at, or has ended but for its status: that is root's, too. Whether
        # it sleeps at all is there for everybody.
        state = process.status_field(held.tid, b"State")
        return state is not None and state.startswith(b"S")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b" ".join((*numbers[:7], *numbers[8:])) == held.flown
