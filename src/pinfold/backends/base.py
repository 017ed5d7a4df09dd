"""The contract between the engine, which decides, and a back end, which carries out.

A back end

1. brings each trapped call to the supervisor with its task unable to run, and no other way;
2. gives the engine a slot for the call's bytes, pinned and checked in the memory that the task has
   *now*, or fails the call by itself with one of the documented errnos;
3. carries out exactly one :class:`Plan` for it, once;
4. has the call run in the task, with its credentials, descriptors and directories;
5. lets the task see its own register values again before it runs any code of its own;
6. never lets a pin's address reach a register or signal frame that the task can look at;
7. gives the slot back when the call is over, however it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinfold.linux.seccomp import RawNotification


class Deny(NamedTuple):
    """The call is not made; the caller gets ``errno``."""

    errno: int


class Redirect(NamedTuple):
    """The call is made with some argument registers replaced."""

    registers: tuple[tuple[int, int], ...]
    """Pairs of an argument's index and its new value (``u64``): an address in the slot, a number,
    or an address at which the kernel finds nothing to read."""
    number: int | None = None
    """Another call that is made in its place; None makes the one that trapped."""


class SendFirst(NamedTuple):
    """The first message of a ``sendmmsg`` is sent, by ``sendmsg``; see ``backends.batch``."""

    message: int
    """Address of its ``msghdr`` in the slot, or one at which there is nothing to read."""


class Return(NamedTuple):
    """The call is not made; the caller gets ``value``."""

    value: int


class Serve(NamedTuple):
    """The call is not made; the caller gets a descriptor of a read-only file with ``content``."""

    content: bytes
    close_on_exec: bool


class Inject(NamedTuple):
    """The call is not made; the caller gets a copy of a descriptor of ours."""

    descriptor: int
    close_on_exec: bool
    ours: bool = False
    """Whether it is the back end's to close."""


class Kill(NamedTuple):
    """The call is not made; the caller's process is killed."""


Plan = Deny | Redirect | SendFirst | Return | Serve | Inject | Kill


class ListenerBackend(Protocol):
    """What carries out the calls of ``pinfold.Listener``, whose docstrings say what each does.

    Ids are those that ``receive`` gave out, whatever the kernel calls the same call meanwhile. All
    methods raise ``OSError`` with the kernel's errno. They may be called from several threads.
    """

    @property
    def name(self) -> str:
        """``native`` or ``interrupt``."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable when ``receive`` would not block."""

    def receive(self, timeout: float | None) -> RawNotification | None:
        """Returns the next notification; None when none came, or it went away again.

        Raises:
            EOFError: No process is left under the filter.
        """

    def id_valid(self, cookie: int) -> bool:
        """Returns whether the notification waits for its answer."""

    def send(self, cookie: int, value: int, error: int, flags: int) -> None:
        """Answers; ``error`` is 0 or a negative errno."""

    def add_fd(self, cookie: int, fd: int, newfd: int | None, newfd_flags: int, send: bool) -> int:
        """Returns the number that the descriptor got in the task."""

    def set_flags(self, flags: int) -> None:
        """Sets the listener's flags."""

    def pin_install(self, cookie: int, memfd: int, address: int, size: int, flags: int) -> int:
        """Returns the address of the new pin."""

    def send_redirect(
        self, cookie: int, args: Mapping[int, int], ptr_len: Mapping[int, int], flags: int
    ) -> None:
        """Resumes the call with some arguments replaced."""

    def close(self) -> None:
        """Closes the listener; may be called twice."""
