"""The supervisor's side of the interrupt back end: ids, receiving, and second notifications.

A call that was redirected traps again, and its second notification comes over the same descriptor
as everybody's first. So everything is received in one place, under one lock; while it waits for a
second notification, first ones of other tasks are put aside for ``receive``, and an eventfd keeps
``fileno`` readable for them.

Whoever waits for a notification polls without the lock, and takes it to receive: that two threads
are woken up by one notification costs one of them a look. A receive after such a look does not
block (see ``backends.descriptor``).

The second notification is the call only if it is the call in every register: same thread, same
number, the arguments that were set. Anything else is somebody's new call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn

from pinfold.backends.descriptor import (
    ListenerDescriptor,
    SharedDescriptor,
    bounded,
    check_number,
    uninterrupted,
)
from pinfold.backends.interrupt import wire
from pinfold.backends.interrupt.process import TracerProcess
from pinfold.backends.interrupt.wire import Reply, Request
from pinfold.backends.rules import check_install, check_seals, redirect_masks
from pinfold.errors import InternalError
from pinfold.linux import seccomp
from pinfold.linux.memfd import seals
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pinfold.linux.seccomp import RawNotification

_SWEEP_AT: Final = 1024
_NO_NUMBER: Final = 0x7FFFFFFF
"""A descriptor number that no task can have."""

_UNSTEPPABLE: Final = frozenset(
    NR[name] for name in ("fork", "vfork", "clone", "clone3", "rt_sigreturn")
)
"""Calls after which a register belongs to somebody else: a child's copy would keep the arguments of
the redirect, and a signal's return brings registers of its own."""


class _Call:
    """A call that was received and not answered yet."""

    __slots__ = ("cookie", "seen")

    def __init__(self, seen: RawNotification) -> None:
        self.seen = seen
        """As the caller was told of it; ``seen.id`` is the caller's id."""
        self.cookie = seen.id
        """The kernel's id of it now."""


class InterruptBackend:
    """A listener with pins and redirects by way of a tracer; see ``backends.base``.

    Args:
        fd: The listener, owned from now on, unless this raises.

    Raises:
        OSError: EMFILE.
    """

    name: Final = "interrupt"

    def __init__(self, fd: int) -> None:
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            ready = select.epoll()
            try:
                ready.register(fd, select.EPOLLIN)
                ready.register(bell, select.EPOLLIN)
                self._descriptor = ListenerDescriptor(fd)
            except BaseException:
                ready.close()
                raise
        except BaseException:
            os.close(bell)
            raise
        self._ready = ready
        self._bell = SharedDescriptor(bell, "seccomp listener")
        # Re-entrant for a signal handler that closes the listener.
        self._lock = threading.RLock()
        self._calls: dict[int, _Call] = {}
        self._sweep_at = _SWEEP_AT
        self._backlog: deque[RawNotification] = deque()
        self._tracer: TracerProcess | None = None
        self._number = 0
        self._closed = False

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there is something to receive."""
        if self._closed:
            raise OSError(errno.EBADF, "seccomp listener is closed")
        return self._ready.fileno()

    # Receiving

    def receive(self, timeout: float | None) -> RawNotification | None:
        """Returns the next notification, None when there is none in time or it went away."""
        timeout = bounded(timeout)
        with self._descriptor.listener as fd, self._bell as bell:
            events: dict[int, int] = {}
            if not self._backlog:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.register(bell, select.POLLIN)
                events = dict(poll.poll(None if timeout is None else timeout * 1000))
                if not events:
                    return None
            with self._lock:
                if self._closed:
                    raise OSError(errno.EBADF, "seccomp listener was closed")
                found = self._set_aside(bell, fd) or self._take(fd)
                if found is not None:
                    self._calls[found.id] = _Call(found)
                    if len(self._calls) > self._sweep_at:
                        self._sweep(fd)
                elif events.get(fd, 0) & (select.POLLIN | select.POLLHUP) == select.POLLHUP:
                    raise EOFError("no process is left under the listener's filter")
                return found

    def _set_aside(self, bell: int, fd: int) -> RawNotification | None:
        # What has gone meanwhile is left out. A task that drowns in signals makes its call again
        # and again, faster than anyone could answer, and all others would wait behind these.
        while self._backlog:
            found = self._backlog.popleft()
            if not self._backlog:
                os.eventfd_read(bell)
            if uninterrupted(seccomp.is_valid, fd, found.id):
                return found
        return None

    def _take(self, fd: int) -> RawNotification | None:
        # Preconditions: under the lock, which makes this the only reader.
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not dict(poll.poll(0)).get(fd, 0) & select.POLLIN:
            return None
        try:
            return uninterrupted(seccomp.receive, fd)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def _put_aside(self, received: RawNotification) -> None:
        with self._bell as bell:
            if not self._backlog:
                os.eventfd_write(bell, 1)
            self._backlog.append(received)

    def _sweep(self, fd: int) -> None:
        # Forgets calls that ended without an answer: their tasks were killed or interrupted.
        for cookie, call in list(self._calls.items()):
            if not uninterrupted(seccomp.is_valid, fd, call.cookie):
                del self._calls[cookie]
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._calls))

    # What the kernel does by itself

    def id_valid(self, cookie: int) -> bool:
        """Returns whether the notification waits for its answer."""
        call = self._calls.get(cookie)
        return call is not None and self._descriptor.id_valid(call.cookie)

    def send(self, cookie: int, value: int, error: int, flags: int) -> None:
        """Answers without a redirect."""
        call = self._known(cookie)
        try:
            self._descriptor.send(call.cookie, value, error, flags)
        except OSError as failed:
            if failed.errno == errno.ENOENT:
                self._calls.pop(cookie, None)
            raise
        self._calls.pop(cookie, None)

    def add_fd(self, cookie: int, fd: int, newfd: int | None, newfd_flags: int, send: bool) -> int:
        """Puts a copy of a descriptor into the task."""
        call = self._known(cookie)
        number = self._descriptor.add_fd(call.cookie, fd, newfd, newfd_flags, send)
        if send:
            self._calls.pop(cookie, None)
        return number

    def set_flags(self, flags: int) -> None:
        """Sets the listener's flags."""
        self._descriptor.set_flags(flags)

    # What it does not

    def pin_install(self, cookie: int, memfd: int, address: int, size: int, flags: int) -> int:
        """Pins a memfd in the task's memory."""
        check_install(flags, address, size)
        # While it is open in the task, a sibling could shorten the file and make it long again:
        # zeros.
        check_seals(seals(check_number(memfd)), mman.F_SEAL_SHRINK)
        call = self._known(cookie)
        with self._lock:
            self._require_traceable(call)
            request = Request(wire.INSTALL, call.seen.pid, 0, call.cookie, address, size)
            return self._done(call, "pin install", self._ask(request, [memfd])).value

    def send_redirect(
        self, cookie: int, args: Mapping[int, int], ptr_len: Mapping[int, int], flags: int
    ) -> None:
        """Resumes the call with some arguments replaced."""
        wanted = redirect_masks(args, ptr_len, flags)
        call = self._known(cookie)
        expected = tuple(
            wanted.args[i] if wanted.args_mask & 1 << i else own
            for i, own in enumerate(call.seen.args)
        )
        with self._lock:
            self._require_traceable(call)
            request = Request(
                wire.REDIRECT,
                call.seen.pid,
                0,
                call.cookie,
                args_mask=wanted.args_mask,
                ptr_mask=wanted.ptr_mask,
                args=wanted.args,
                lengths=wanted.lengths,
            )
            second = self._flown(call, request, expected)
            if isinstance(second, Reply):
                # Refused; or done, with nobody asked again.
                self._done(call, "redirect", second)
            self._calls.pop(cookie, None)
            if not isinstance(second, Reply):
                self._let_run(call, second)

    def _let_run(self, call: _Call, second: RawNotification) -> None:
        try:
            self._descriptor.send(second.id, 0, 0, abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise _gone(call) from None
            raise

    def close(self) -> None:
        """Closes the listener: what is pending gets ENOSYS, what is under way ends by itself."""
        self._descriptor.close()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self._bell as bell:
                os.eventfd_write(bell, 1)
            self._bell.close()
            self._ready.close()
            if self._tracer is not None:
                self._tracer.close()

    def _known(self, cookie: int) -> _Call:
        call = self._calls.get(cookie)
        return self._unknown(cookie) if call is None else call

    def _unknown(self, cookie: int) -> NoReturn:
        if any(waiting.id == cookie for waiting in list(self._backlog)):
            raise OSError(errno.EINPROGRESS, f"seccomp notification {cookie:#x}: not received yet")
        # Not received yet, or answered: EINPROGRESS, as long as the kernel knows it. This asks for
        # something that cannot be done, so if it was received by somebody else nothing happens.
        try:
            with self._descriptor.listener as fd:
                self._descriptor.add_fd(cookie, fd, _NO_NUMBER, 0, False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                raise OSError(
                    error.errno,
                    f"seccomp notification {cookie:#x}: {os.strerror(error.errno)}",
                ) from None
            if error.errno != errno.EBADF or self._closed:
                raise
        raise OSError(
            errno.ENOENT, f"seccomp notification {cookie:#x}: not received through this Listener"
        )

    def _require_traceable(self, call: _Call) -> None:
        if call.seen.pid == 0:
            raise OSError(errno.EPERM, "the calling task is not visible in this pid namespace")
        if call.seen.arch != abi.AUDIT_ARCH_X86_64 or call.seen.nr in _UNSTEPPABLE:
            raise OSError(
                errno.EOPNOTSUPP,
                f"call {call.seen.nr} of architecture {call.seen.arch:#x} cannot be redirected by"
                " the interrupt back end",
            )

    def _notified_again(self, call: _Call) -> None:
        # Has a parked call wait in a notification again, where signals find it. The caller goes on
        # with the id that it knows.
        request = Request(wire.RETRAP, call.seen.pid, 0, 0)
        second = self._flown(call, request, call.seen.args)
        if isinstance(second, Reply):
            # Refused by another filter, interrupted, killed: over, without us.
            self._calls.pop(call.seen.id, None)
            raise _gone(call)
        call.cookie = second.id

    def _ask(self, request: Request, descriptors: Sequence[int] = ()) -> Reply:
        tracer, number = self._asked(request, descriptors)
        found = self._await(tracer, number)
        if not isinstance(found, Reply):
            raise InternalError(f"request {request.what}: a notification for an answer: {found}")
        return found

    def _asked(
        self, request: Request, descriptors: Sequence[int] = ()
    ) -> tuple[TracerProcess, int]:
        if self._closed:
            raise OSError(errno.EBADF, "seccomp listener is closed")
        if self._tracer is None:
            with self._descriptor.listener as fd:
                self._tracer = TracerProcess(fd)
        self._number += 1
        self._tracer.ask(request._replace(number=self._number), descriptors)
        return self._tracer, self._number

    def _flown(
        self, call: _Call, request: Request, expected: tuple[int, ...]
    ) -> RawNotification | Reply:
        """Returns the second notification of a call that the tracer lets go.

        Or why there was none: it was not let go, or it was and no filter sent it here again.
        """
        tracer, number = self._asked(request)
        return self._await(tracer, number, call.seen, expected)

    def _await(
        self,
        tracer: TracerProcess,
        number: int,
        first: RawNotification | None = None,
        expected: tuple[int, ...] = (),
    ) -> Reply | RawNotification:
        # Returns the reply to request ``number``, or the second notification of ``first``. Others'
        # notifications are put aside meanwhile.
        with self._descriptor.listener as fd:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.register(tracer.fileno(), select.POLLIN)
            while True:
                events = dict(poll.poll())
                if tracer.fileno() in events:
                    reply = tracer.reply()
                    if reply.number == number:
                        return reply
                received = self._take(fd) if events.get(fd, 0) & select.POLLIN else None
                if received is None:
                    continue
                if first is not None and _same_call(received, first, expected):
                    if tracer.shared.holds(number):
                        self._ask(Request(wire.RESEND, first.pid, 0, 0))
                    tracer.shared.mark(number)
                    return received
                if (received.pid, received.nr, received.args) == tracer.shared.announced():
                    self._pass(received)
                else:
                    self._put_aside(received)

    def _pass(self, injected: RawNotification) -> None:
        # A call that the tracer has the task make; its filter brought it here like any other.
        try:
            self._descriptor.send(injected.id, 0, 0, abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _done(self, call: _Call, what: str, reply: Reply) -> Reply:
        if reply.errno == errno.ENOENT:
            self._calls.pop(call.seen.id, None)
            raise _gone(call)
        if reply.parked:
            # If it is interrupted just now, what was done or refused before that stays so; the next
            # request about it says that it is gone.
            with contextlib.suppress(FileNotFoundError):
                self._notified_again(call)
        if reply.errno:
            raise OSError(
                reply.errno,
                f"{what}, seccomp notification {call.seen.id:#x} of task {call.seen.pid}:"
                f" {os.strerror(reply.errno)}",
            )
        return reply


def _gone(call: _Call) -> OSError:
    return OSError(errno.ENOENT, f"seccomp notification {call.seen.id:#x}: the call is gone")


def _same_call(second: RawNotification, first: RawNotification, args: tuple[int, ...]) -> bool:
    return (
        second.pid == first.pid
        and second.nr == first.nr
        and second.args == args
        and second.instruction_pointer == first.instruction_pointer
        and second.arch == first.arch
    )
