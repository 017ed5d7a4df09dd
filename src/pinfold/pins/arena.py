"""Arenas and slots: the memory that pinned arguments live in.

An arena is one memfd. We map it writable, then seal it against everything else, so that no one will
ever write it but through the mapping that existed before. It is mapped read-only into targets as a
whole, once per address space, and handed out in slots: one slot holds the arguments of one call
that is under way. A slot is written only while its thread is stopped, and given back when its call
is over, so a sandbox needs as many slots as calls that are blocked in the kernel at one time; more
arenas are made when that is not enough.

Every process of a sandbox can read every slot. That tells it which paths its peers use, and nothing
that a peer could not tell it anyway; processes that must not know this of each other belong in
different sandboxes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.errors import UnsupportedError
from pinfold.pins.pin import Pin
from pinfold.tracee.memory import Memory
from pinfold.uapi.fs import PATH_MAX

if TYPE_CHECKING:
    import mmap

SLOT_SIZE: Final = 2 * PATH_MAX
"""Two paths, or a path and a structure of up to a page."""

SLOTS: Final = 128
"""Slots in an arena: 1 MiB of address space in each process, touched only as it is used."""

MAX_ARENAS: Final = 64
"""Beyond 8,192 calls under way at one time a call is refused with ENOMEM."""


class Slot(NamedTuple):
    """The bytes of one call: ``SLOT_SIZE`` of them, at ``offset`` in ``arena``."""

    arena: Arena
    offset: int


class Arena(Pin):
    """One pin that slots are cut from, mapped writable here and nowhere else.

    Args:
        number: Its number in the pool; what ``AddressSpace.pins`` is keyed on.
        size: Bytes, a multiple of the page size.

    Attributes:
        memory: Reads task memory into ``view``.
        device: (major, minor) of the memfd's file system, for the live check.
        inode: Inode number of the memfd.

    Raises:
        OSError: EMFILE or ENOMEM.
    """

    __slots__ = ("device", "inode", "memory", "number")

    def __init__(self, number: int, size: int) -> None:
        super().__init__(size)
        self.number = number
        stat = os.fstat(self.fd)
        self.device = (os.major(stat.st_dev), os.minor(stat.st_dev))
        self.inode = stat.st_ino
        self.memory = Memory(_address_of(self.view))


class ArenaPool:
    """Hands out slots, and makes a further arena when all are in use.

    Preconditions: used by one thread.
    """

    __slots__ = ("_arenas", "_free", "_slots")

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._arenas: list[Arena] = []
        self._free: list[list[Slot]] = []
        self._grow()

    def _grow(self) -> None:
        if len(self._arenas) == MAX_ARENAS:
            raise OSError(errno.ENOMEM, f"more than {MAX_ARENAS * self._slots} calls in flight")
        arena = self._made()
        self._arenas.append(arena)
        self._free.append([Slot(arena, i * SLOT_SIZE) for i in reversed(range(self._slots))])

    def _made(self) -> Arena:
        while True:
            try:
                return Arena(len(self._arenas), self._slots * SLOT_SIZE)
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
                if self._slots == 1:
                    raise UnsupportedError(
                        f"RLIMIT_FSIZE leaves no room for a pin of {SLOT_SIZE} bytes; raise its"
                        " hard limit (`ulimit -f`)"
                    ) from error
                # As many as fit; more arenas make up for it.
                self._slots //= 2

    def take(self) -> Slot:
        """Returns a free slot, from the arena of the lowest number: most tasks know that one.

        Raises:
            OSError: ENOMEM or EMFILE when no arena can be added.
        """
        for free in self._free:
            if free:
                return free.pop()
        self._grow()
        return self._free[-1].pop()

    def give_back(self, slot: Slot) -> None:
        """Makes a slot available for the next call."""
        self._free[slot.arena.number].append(slot)

    @property
    def in_use(self) -> int:
        """Slots that are handed out now."""
        return sum(a.size // SLOT_SIZE for a in self._arenas) - sum(map(len, self._free))

    def close(self) -> None:
        """Closes every arena."""
        for arena in self._arenas:
            arena.close()
        self._arenas.clear()
        self._free.clear()


def _address_of(view: mmap.mmap) -> int:
    # The buffer export must not outlive this function, or the mapping could not be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
