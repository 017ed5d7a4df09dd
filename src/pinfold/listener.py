"""``pinfold.Listener``: the seccomp listener interface with pins and redirects, on any kernel.

A listener descriptor (``seccomp_unotify(2)``) tells a supervisor of calls that a filter wants to be
decided. ``pin_install`` and ``send_redirect`` are the two proposed ioctls that make such a decision
hold; where the kernel lacks them, the *interrupt* back end does the same by way of ptrace. The
rules and errnos are the kernel's on both: a failed call raises ``OSError`` and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from pinfold.backends import choose
from pinfold.tracee import remote
from pinfold.uapi.fs import PATH_MAX
from pinfold.uapi.seccomp import (
    SECCOMP_REDIRECT_FLAG_CONTINUE,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from types import TracebackType

    from pinfold.linux.seccomp import RawNotification

Backend = Literal["auto", "native", "interrupt"]


class Data(NamedTuple):
    """``struct seccomp_data``: the call, as its registers were when it trapped."""

    nr: int
    """System call number."""
    arch: int
    """``AUDIT_ARCH_*``."""
    instruction_pointer: int
    """Address after the call instruction."""
    args: tuple[int, int, int, int, int, int]
    """The argument registers, each a ``u64``."""


class Notification(NamedTuple):
    """``struct seccomp_notif``: a call that waits for an answer."""

    id: int
    """What the answer is addressed to (``u64``)."""
    pid: int
    """The *thread* that made the call, in the reader's pid namespace; 0 when it has none there."""
    flags: int
    data: Data


class Listener:
    """A seccomp listener descriptor whose calls can be pinned and redirected.

    Args:
        fd: A listener: from ``seccomp(2)``, over a Unix socket, or from ``pidfd_getfd(2)``. The
            Listener owns it from now on, and must be the only reader of its notifications.
        backend: ``native`` (the two ioctls), ``interrupt`` (any kernel since 6.12), or ``auto``:
            the first that works on this descriptor.

    Attributes:
        backend: Name of the back end in use.

    Methods may be called from several threads. Closing it answers what is pending with ENOSYS, as
    the kernel does, and lets calls that were redirected already end in their own time.

    Raises:
        OSError: EBADF or ENOTTY when ``fd`` is no listener.
        UnsupportedError: This machine lacks the back end that was asked for.
    """

    def __init__(self, fd: int, backend: Backend = "auto") -> None:
        self._backend = choose.for_listener(fd, backend)
        self.backend: str = self._backend.name

    def __repr__(self) -> str:
        try:
            return f"<Listener {self._backend.fileno()} ({self.backend})>"
        except OSError:
            return f"<Listener, closed ({self.backend})>"

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the descriptor up; may be called twice."""
        self._backend.close()

    def fileno(self) -> int:
        """Returns a descriptor that is readable when ``receive`` would return at once.

        It is not always the listener itself: do not read from it in any other way.
        """
        return self._backend.fileno()

    def receive(self, timeout: float | None = None) -> Notification:
        """Returns the next call that waits for an answer.

        Calls that were interrupted before they were received are never seen: the kernel ends them
        with EINTR, or makes them again, as after any signal.

        Args:
            timeout: Seconds to wait at most; None waits for ever, 0 not at all.

        Raises:
            TimeoutError: None came.
            OSError: ENOENT when no process is left under the filter, so that none will come.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                raw = self._backend.receive(timeout)
            except EOFError:
                raise OSError(
                    errno.ENOENT, "seccomp listener: no process is left under its filter"
                ) from None
            if raw is not None:
                return _notification(raw)
            if end is not None:
                timeout = end - time.monotonic()
                if timeout <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, "seccomp listener: no notification came")

    def __iter__(self) -> Iterator[Notification]:
        """Yields notifications until no process is left under the filter."""
        while True:
            try:
                raw = self._backend.receive(None)
            except EOFError:
                return
            if raw is not None:
                yield _notification(raw)

    async def __aiter__(self) -> AsyncIterator[Notification]:
        """Yields notifications, without blocking the event loop, until no process is left."""
        while True:
            try:
                raw = self._backend.receive(0)
            except EOFError:
                return
            if raw is not None:
                yield _notification(raw)
            else:
                await _readable(self.fileno())

    def id_valid(self, id: int) -> bool:  # noqa: A002 (the kernel's word)
        """Returns whether a received notification still waits for its answer."""
        return self._backend.id_valid(id)

    def send(self, id: int, *, value: int = 0, error: int = 0, flags: int = 0) -> None:  # noqa: A002
        """Answers a notification without making the call, or lets it continue as it is.

        Args:
            id: The notification.
            value: What the call returns, where ``error`` is 0 (``s64``).
            error: An errno; it may be given as the negative number that the kernel uses.
            flags: ``SECCOMP_USER_NOTIF_FLAG_CONTINUE`` makes the call with its own arguments. What
                was read from its memory before that decides nothing: see ``send_redirect``.

        Raises:
            OSError: ENOENT when the call is gone; EINPROGRESS when it was not received yet, or was
                answered; EINVAL for unknown flags, or CONTINUE with a value or an error.
        """
        self._backend.send(id, value, -abs(error), flags)

    def resume(self, id: int) -> None:  # noqa: A002
        """Lets a call continue with its own arguments: ``send`` with the CONTINUE flag.

        Raises:
            OSError: As ``send``.
        """
        self._backend.send(id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)

    def add_fd(
        self,
        id: int,  # noqa: A002
        fd: int,
        *,
        newfd: int | None = None,
        cloexec: bool = True,
        send: bool = False,
    ) -> int:
        """Puts a copy of a descriptor into the calling task and returns its number there.

        Args:
            id: The notification.
            fd: The descriptor.
            newfd: The number it gets, replacing what is open there; None takes the lowest.
            cloexec: Whether it is closed by exec.
            send: Whether its number is also the answer to the notification.

        Raises:
            OSError: EBADF, EMFILE, ENOENT, EINPROGRESS.
        """
        return self._backend.add_fd(id, fd, newfd, os.O_CLOEXEC if cloexec else 0, send)

    def set_flags(self, flags: int) -> None:
        """Sets the listener's flags; SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP is set from the start.

        Raises:
            OSError: EINVAL for flags that the kernel does not know.
        """
        self._backend.set_flags(flags)

    def pin_install(
        self,
        id: int,  # noqa: A002
        memfd: int,
        target_addr: int,
        size: int,
        *,
        flags: int = 0,
    ) -> int:
        """Maps a memfd, sealed and read-only, into the memory of the task behind a notification.

        Args:
            id: The notification.
            memfd: A memfd with F_SEAL_FUTURE_WRITE or F_SEAL_WRITE. The interrupt back end also
                asks for F_SEAL_SHRINK, as a shorter file would read as zeros.
            target_addr: Where, a multiple of the page size; 0 lets the kernel choose (not on the
                first revision of the native interface).
            size: Bytes, a multiple of the page size.
            flags: 0; none are defined.

        Returns:
            The address.

        Raises:
            OSError: EINVAL, EBADF, ENOENT, EINPROGRESS, ESRCH, EEXIST, EOPNOTSUPP, EINTR, ENOMEM,
                as the table in docs/listener.md says; on the interrupt back end also EPERM when the
                task cannot be traced.
        """
        return self._backend.pin_install(id, memfd, target_addr, size, flags)

    def send_redirect(
        self,
        id: int,  # noqa: A002
        args: Mapping[int, int],
        ptr_len: Mapping[int, int] | None = None,
        *,
        flags: int = SECCOMP_REDIRECT_FLAG_CONTINUE,
    ) -> None:
        """Makes the call with some arguments replaced; afterwards the task sees its own again.

        A redirect that is refused leaves the notification to be answered in some other way.

        Args:
            id: The notification.
            args: New values by argument index, 0 to 5.
            ptr_len: For those of ``args`` that are pointers, how many bytes the kernel may read
                there: all of them must lie in one pin of the task's current memory.
            flags: ``SECCOMP_REDIRECT_FLAG_CONTINUE``.

        Raises:
            OSError: EINVAL for malformed arguments; EFAULT for a pointer that is not inside one
                live pin; ENOENT and EINPROGRESS as for ``send``; on the interrupt back end also
                EPERM when the task cannot be traced, and EOPNOTSUPP for calls that make processes.
        """
        self._backend.send_redirect(id, args, ptr_len or {}, flags)

    def read(self, notification: Notification, address: int, length: int) -> bytes:
        """Returns bytes of the calling task's memory.

        They may have changed by the time they are returned: decide on a copy in a pin.

        Raises:
            OSError: EFAULT where the kernel could not read all of them either; ENOENT when the call
                is gone, so that what was read belongs to nobody, or to somebody else.
        """
        return self._checked(notification, remote.read_bytes, address, length)

    def read_string(self, notification: Notification, address: int, limit: int = PATH_MAX) -> bytes:
        """Returns a NUL-terminated string of the calling task's memory, without the NUL.

        Args:
            notification: The call.
            address: Where it starts.
            limit: Most bytes it may have, with the NUL.

        Raises:
            OSError: EFAULT where memory ends before the string; ENAMETOOLONG when it does not end
                within ``limit`` bytes; ENOENT when the call is gone.
        """
        return self._checked(notification, remote.read_string, address, limit)

    def _checked(
        self,
        notification: Notification,
        reader: remote.Reader,
        address: int,
        length: int,
    ) -> bytes:
        try:
            found = reader(notification.pid, address, length)
        except ProcessLookupError:
            raise _gone(notification.id) from None
        except OSError:
            if not self.id_valid(notification.id):
                raise _gone(notification.id) from None
            raise
        # The thread id may have been given to another task before we read.
        if not self.id_valid(notification.id):
            raise _gone(notification.id)
        return found


def _gone(cookie: int) -> OSError:
    return OSError(errno.ENOENT, f"seccomp notification {cookie:#x}: the call is gone")


def _notification(raw: RawNotification) -> Notification:
    data = Data(raw.nr, raw.arch, raw.instruction_pointer, raw.args)
    return Notification(raw.id, raw.pid, raw.flags, data)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
