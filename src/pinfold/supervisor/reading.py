"""A trapped call whose arguments have been read into its slot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.codec.openhow import OpenHow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.codec.image import Image
    from pinfold.policy.calls import Argument
    from pinfold.supervisor.decision import Judged
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller


class Read(NamedTuple):
    """A call whose arguments are in its slot."""

    task: Caller
    call: Shape
    image: Image
    judged: tuple[Judged, ...]
    others: tuple[Argument, ...]
    scalars: dict[int, int]
    """By argument, what replaces numbers."""
    action: str
    rule: str | None
    """What ``--map`` and ``--deny`` say."""

    @property
    def open_flags(self) -> int:
        """The ``O_*`` flags of an open, 0 for any other call."""
        how = how_of(self.others)
        if how is not None:
            return how.flags
        if self.call.row.name == "creat":
            return os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return self.task.registers[self.call.flags] if self.call.flags >= 0 else 0

    @property
    def closes_on_exec(self) -> bool:
        """Whether the descriptor that the call makes is to be closed by an exec."""
        at = _CLOSES.get(self.call.row.name)
        if at is None:
            return bool(self.open_flags & os.O_CLOEXEC)
        return bool(self.task.registers[ARGUMENTS[at[0]]] & at[1])


_CLOSES: Final = {
    "socket": (1, os.O_CLOEXEC),
    "accept4": (3, os.O_CLOEXEC),
    "memfd_create": (1, 1),
}
"""Calls that make a descriptor: the argument with their flags, and the one for close-on-exec."""


def how_of(others: Iterable[Argument]) -> OpenHow | None:
    """Returns the ``open_how`` among a call's arguments."""
    for one in others:
        if isinstance(one.value, OpenHow):
            return one.value
    return None
