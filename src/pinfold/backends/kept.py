"""The slot that a task keeps from call to call, with all that its next one needs worked out.

A call that is let go without waiting for its end leaves its slot in use until the task traps again:
only then it is known to be over. So the task keeps that slot, and nothing has to be looked up or
allocated for the next call: where the bytes go, where the task finds them, and the question that
the kernel is asked about the pin (``pins.live``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.linux.uio import FixedReader
from pinfold.pins import trampoline
from pinfold.pins.arena import address_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinfold.linux.maps import MapsQuestion
    from pinfold.pins.arena import Slot
    from pinfold.tracee.task import AddressSpace

FIRST: Final = 256
"""Most strings are shorter than this; others go the long way."""


class Kept:
    """A slot of one task in one address space.

    Args:
        tid: The task.
        slot: The slot, of the smallest size.
        space: The address space.
        question: About the slot's arena there; the kernel has just said that it is pinned. None
            where the kernel looks by itself.
        code: Address of the page with the return trampolines, 0 without.

    Attributes:
        slot: Likewise.
        space: Likewise; for any other this is of no use.
        question: Likewise.
        address: Where the task finds the slot.
        start: Where the slot is in the arena.
        read: Copies the beginning of a string from an address in the task to the slot; returns how
            many bytes that was, or -1.
        find: Finds bytes in the arena.
        view: The arena.
        code: Likewise.
        stubs: By argument register, where a call returns to that had it redirected; empty without.
        directory: The link to the task's working directory.
    """

    __slots__ = (
        *("address", "code", "directory", "find", "question", "read"),
        *("slot", "space", "start", "stubs", "view"),
    )

    def __init__(
        self, tid: int, slot: Slot, space: AddressSpace, question: MapsQuestion | None, code: int
    ) -> None:
        arena = slot.arena
        self.slot: Final = slot
        self.space: Final = space
        self.question: Final = cast("MapsQuestion", question)
        self.address: Final = space.pins[arena.number] + slot.offset
        self.start: Final = slot.offset
        self.view: Final = arena.view
        self.find: Final = arena.view.find
        self.read: Final = FixedReader(tid, address_of(arena.view) + slot.offset, FIRST).read
        self.directory: Final = b"/proc/%d/cwd" % tid
        self.code: Final = code
        stubs: Mapping[int, int] = {}
        if self.code:
            stubs = {one: self.code + trampoline.stub_of(one) for one in ARGUMENTS}
        self.stubs: Final = stubs
