"""Who made a trapped call: what is asked of it until the call goes on, whatever holds it there.

``tracee.task`` has the one that is traced, ``tracee.notified`` the one that waits in a
notification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pinfold.tracee.task import AddressSpace


class Registers(Protocol):
    """The registers of a call, to be looked at: by index, as ``arch`` has them."""

    def __getitem__(self, register: int, /) -> int:
        """Returns what one of them holds, a ``u64``."""


class Caller(Protocol):
    """A thread that is in a trapped call, and runs nothing until that goes on."""

    @property
    def tid(self) -> int:
        """Its id in the supervisor's pid namespace."""

    @property
    def tgid(self) -> int:
        """Its process."""

    @property
    def program(self) -> bytes:
        """Path of the program that it runs."""

    @property
    def shares(self) -> bool:
        """Whether another task may share its working directory or descriptor table."""

    @property
    def space(self) -> AddressSpace:
        """What is pinned in its memory."""

    @property
    def kept(self) -> Any:
        """The slot that it keeps; see ``backends.kept``."""

    @property
    def registers(self) -> Registers:
        """Its registers at the call, as far as they are known: number, arguments, call site."""

    def load(self) -> Registers:
        """Returns :attr:`registers`, made sure that they are the call's."""
