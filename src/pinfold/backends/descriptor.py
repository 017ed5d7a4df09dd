"""The supervisor's side of a listener descriptor, which both listener back ends stand on.

Three things are less simple than they look.

*Receiving with a time limit.* RECV knows none, so the descriptor is polled first. When two threads
see the same notification announced, only one gets it and the other would hang in RECV; so one
thread at a time polls and receives, and the others wait for their turn. The one that polled cannot
hang: the kernel counts what was announced, and a call that goes away in between leaves its count
behind, so that RECV says ENOENT and returns.

*Closing.* A descriptor number that is closed while another thread is about to use it may name
something else by then. So a descriptor is closed by the last one that uses it, and a thread that
waits is woken up by an eventfd.

*Errors.* Callers are promised ``OSError`` and nothing else, so numbers that do not fit the kernel's
types are answered as the kernel answers the nearest ones that do.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import threading
import time
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from pinfold.linux import seccomp
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pinfold.linux.seccomp import RawNotification

_LONGEST: Final = 24 * 60 * 60.0
"""Seconds; poll counts milliseconds in an int."""
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1
_DESCRIPTORS: Final = 1 << 31

_P = ParamSpec("_P")
_T = TypeVar("_T")


def uninterrupted(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Returns what a call returns; it is made again when a signal interrupts it (PEP 475).

    ``fcntl.ioctl`` does not do that by itself. The handlers of the signal have run by then, and
    what they raise is raised.
    """
    while True:
        try:
            return call(*args, **kwargs)
        except InterruptedError:
            continue


def check_cookie(cookie: int) -> int:
    """Returns a notification id that is one.

    Raises:
        OSError: ENOENT.
    """
    if not 0 <= cookie <= _U64:
        raise OSError(errno.ENOENT, f"seccomp listener: no notification has the id {cookie:#x}")
    return cookie


def check_number(descriptor: int) -> int:
    """Returns a descriptor that may be one.

    Raises:
        OSError: EBADF.
    """
    if not 0 <= descriptor < _DESCRIPTORS:
        raise OSError(errno.EBADF, f"{descriptor:#x} is no descriptor")
    return descriptor


def bounded(timeout: float | None) -> float | None:
    """Returns a time limit in seconds that ``poll`` can count; None for none."""
    return None if timeout is None else min(max(0.0, timeout), _LONGEST)


class SharedDescriptor:
    """A descriptor that is closed when it is to be, and no thread is using it any more.

    It is used in a ``with`` block, which gives its number.

    Args:
        fd: The descriptor, owned from now on.
        what: Its name, for the message of an error.
        partners: Other descriptors that are closed with it.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_partners", "_users", "_what")

    def __init__(self, fd: int, what: str, *partners: int) -> None:
        self._fd = fd
        self._partners = partners
        self._what = what
        self._users = 0
        self._closed = False
        # A signal's handler may close what the code that it interrupts is about to use.
        self._lock = threading.RLock()

    def __enter__(self) -> int:
        with self._lock:
            # In this order: a handler that closes runs either before the look, or sees a user.
            self._users += 1
            if not self._closed:
                return self._fd
            self._users -= 1
        raise OSError(errno.EBADF, f"{self._what} is closed")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._closed:
                self._close_unused()

    def number(self) -> int:
        """Returns the descriptor, for a caller that knows that it stays open.

        Raises:
            OSError: EBADF.
        """
        if self._closed:
            raise OSError(errno.EBADF, f"{self._what} is closed")
        return self._fd

    def close(self) -> None:
        """Closes the descriptor once it is unused; may be called again."""
        with self._lock:
            self._closed = True
            self._close_unused()

    def _close_unused(self) -> None:
        if not self._users and self._fd >= 0:
            fd, self._fd = self._fd, -1
            for descriptor in (fd, *self._partners):
                os.close(descriptor)


class ListenerDescriptor:
    """A listener: what a supervisor does with it that needs no redirect.

    Args:
        fd: The listener, owned from now on, unless this raises.

    Attributes:
        listener: The descriptor, to be used in a ``with`` block.

    Raises:
        OSError: EMFILE.
    """

    __slots__ = ("_poll", "_reading", "_wake", "listener")

    def __init__(self, fd: int) -> None:
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            _wake_up_here(fd)
            # Used by the thread that holds _reading, and no other: a poll object is not for two.
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
            self._poll.register(wake, select.POLLIN)
        except BaseException:
            os.close(wake)
            raise
        self._reading = threading.Lock()
        self._wake = wake
        self.listener = SharedDescriptor(fd, "seccomp listener", wake)

    def fileno(self) -> int:
        """Returns the listener's number.

        Raises:
            OSError: EBADF when it is closed.
        """
        return self.listener.number()

    def close(self) -> None:
        """Closes the listener, at the latest when a call that is under way in another thread ends.

        Threads that wait for a notification get EBADF. May be called again.
        """
        try:
            with self.listener:
                os.eventfd_write(self._wake, 1)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # It was closed before.
        self.listener.close()

    def receive(self, timeout: float | None) -> RawNotification | None:
        """Returns the next notification; None when none came, or when it went away again.

        Args:
            timeout: Seconds to wait at most, up to a day; None waits for ever, 0 not at all.

        Raises:
            EOFError: No process is left under the filter.
            OSError: EBADF when the listener is closed, also meanwhile.
        """
        timeout = bounded(timeout)
        with self.listener as fd:
            if not self._reading.acquire(False):
                start = time.monotonic()
                if not self._reading.acquire(timeout=-1 if timeout is None else timeout):
                    return None
                if timeout is not None:
                    timeout = max(0.0, timeout - (time.monotonic() - start))
            try:
                return self._take(fd) if self._announced(timeout) else None
            finally:
                self._reading.release()

    def _announced(self, timeout: float | None) -> bool:
        announced = 0
        for fd, event in self._poll.poll(None if timeout is None else timeout * 1000):
            if fd == self._wake:
                raise OSError(errno.EBADF, "seccomp listener was closed")
            announced = event
        if announced & select.POLLIN:
            return True
        if announced & select.POLLHUP:
            raise EOFError("no process is left under the listener's filter")
        if announced:
            raise OSError(errno.EBADF, f"seccomp listener: poll says {announced:#x}")
        return False

    def _take(self, fd: int) -> RawNotification | None:
        while True:
            try:
                return seccomp.receive(fd)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            # The call went away. If it was the last one's, this raises.
            self._announced(0)
            return None

    def id_valid(self, cookie: int) -> bool:
        """Returns whether a received notification waits for its answer.

        Raises:
            OSError: EBADF when the listener is closed.
        """
        with self.listener as fd:
            return 0 <= cookie <= _U64 and uninterrupted(seccomp.is_valid, fd, cookie)

    def send(self, cookie: int, value: int, error: int, flags: int) -> None:
        """Answers a notification.

        Args:
            cookie: The notification.
            value: What the call returns, where ``error`` is 0 (``s64``).
            error: 0 or a negative errno (``s32``).
            flags: ``SECCOMP_USER_NOTIF_FLAG_CONTINUE`` (``u32``).

        Raises:
            OSError: ENOENT, EINPROGRESS, EINVAL; EBADF when the listener is closed.
        """
        with self.listener as fd:
            while True:
                try:
                    seccomp.send(fd, cookie, value=value, error=error, flags=flags)
                except InterruptedError:
                    continue
                except struct.error as failed:
                    check_cookie(cookie)
                    text = f"seccomp answer: {value:#x}, {error:#x} or {flags:#x} does not fit"
                    raise OSError(errno.EINVAL, text) from failed
                return

    def add_fd(self, cookie: int, fd: int, newfd: int | None, newfd_flags: int, send: bool) -> int:
        """Puts a copy of a descriptor into the calling task; returns its number there.

        Args:
            cookie: The notification.
            fd: The descriptor.
            newfd: The number it gets; None takes the lowest.
            newfd_flags: 0 or ``O_CLOEXEC``.
            send: Whether its number is also the answer.

        Raises:
            OSError: EBADF, EMFILE, ENOENT, EINPROGRESS; EBADF when the listener is closed.
        """
        flags = abi.SECCOMP_ADDFD_FLAG_SEND if send else 0
        if newfd is not None:
            flags |= abi.SECCOMP_ADDFD_FLAG_SETFD
        with self.listener as listener:
            _check_range("new descriptor's flags", newfd_flags, 0, _U32)
            return uninterrupted(
                seccomp.add_descriptor,
                listener,
                check_cookie(cookie),
                check_number(fd),
                newfd=check_number(newfd or 0),
                newfd_flags=newfd_flags,
                flags=flags,
            )

    def set_flags(self, flags: int) -> None:
        """Sets the listener's flags.

        Raises:
            OSError: EINVAL for flags that the kernel does not know; EBADF when it is closed.
        """
        with self.listener as fd:
            _check_range("listener's flags", flags, 0, _U32 >> 1)
            uninterrupted(seccomp.set_flags, fd, flags)


def _check_range(what: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise OSError(errno.EINVAL, f"seccomp listener: {what} does not fit, got {value:#x}")


def _wake_up_here(fd: int) -> None:
    # The task and we take turns, so that waking the other up on the same CPU is the fast way.
    try:
        uninterrupted(seccomp.set_flags, fd, abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    except OSError as error:
        # Before Linux 6.6.
        if error.errno != errno.EINVAL:
            raise
