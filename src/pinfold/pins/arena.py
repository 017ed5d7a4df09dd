"""Arenas and slots: the memory that pinned arguments live in.

An arena is one memfd. We map it writable, then seal it against everything else, so that no one will
ever write it but through the mapping that existed before. It is mapped read-only into targets as a
whole, once per address space, and handed out in slots: one slot holds the arguments of one call
that is under way. A slot is written only while its thread is stopped, and given back when its call
is over, so a sandbox needs as many slots as calls that are blocked in the kernel at one time; more
arenas are made when that is not enough.

An arena of the smallest slots, which nearly every call uses, has one more page after them: code
that calls return through (``pins.trampoline``). It is the only page that is mapped executable.

Every process of a sandbox can read every slot. That tells it which paths its peers use, and nothing
that a peer could not tell it anyway; processes that must not know this of each other belong in
different sandboxes.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.errors import UnsupportedError
from pinfold.pins import trampoline
from pinfold.pins.pin import Pin
from pinfold.pins.sealed import file_of
from pinfold.tracee.memory import Memory
from pinfold.uapi.fs import PATH_MAX

if TYPE_CHECKING:
    import mmap

SLOT_SIZE: Final = 2 * PATH_MAX
"""The smallest slots: two long paths, or the arguments of a usual program."""

SLOTS: Final = 256
"""Smallest slots in an arena: 2 MiB of address space in a process, touched only as it is used."""


class _Class(NamedTuple):
    size: int  # of a slot
    slots: int  # in an arena
    arenas: int  # at most


_LARGER: Final = (
    _Class(16 * SLOT_SIZE, 8, 16),
    _Class(128 * SLOT_SIZE, 1, 16),
    _Class(1024 * SLOT_SIZE, 1, 8),
)
"""The largest holds the largest arguments of a program (6 MiB, ``codec.vector``), and replacements
for them that are not much longer."""

MAX_ARENAS: Final = 64
"""Beyond 16,384 calls under way at one time a call is refused with ENOMEM."""


class Slot(NamedTuple):
    """The bytes of one call: ``size`` of them, at ``offset`` in ``arena``."""

    arena: Arena
    offset: int
    size: int
    kind: int
    """Index of its size among those of the pool."""


class Arena(Pin):
    """One pin that slots are cut from, mapped writable here and nowhere else.

    Args:
        number: Its number in the pool; what ``AddressSpace.pins`` is keyed on.
        size: Bytes, a multiple of the page size.
        code: Whether a code page comes after them.

    Attributes:
        code: Likewise.
        memory: Reads task memory into ``view``.
        file: Which memfd it is, for the live check.

    Raises:
        OSError: EMFILE or ENOMEM.
    """

    __slots__ = ("code", "file", "memory", "number")

    def __init__(self, number: int, size: int, *, code: bool = False) -> None:
        super().__init__(size, trampoline.CODE if code else b"")
        self.number = number
        self.code = code
        try:
            self.file = file_of(self.fd)
            self.memory = Memory(address_of(self.view))
        except BaseException:
            self.close()
            raise


class ArenaPool:
    """Hands out slots, and makes a further arena when all are in use.

    Args:
        slots: Smallest slots in an arena.
        code: Whether arenas of these have a code page.

    Preconditions: used by one thread.
    """

    __slots__ = ("_arenas", "_classes", "_code", "_free", "_used")

    def __init__(self, slots: int = SLOTS, *, code: bool = True) -> None:
        self._code = code
        self._classes = [_Class(SLOT_SIZE, slots, MAX_ARENAS), *_LARGER]
        self._arenas: list[Arena] = []
        # By class: where each of its arenas has free slots, by number, oldest arena first.
        self._free: list[dict[int, list[int]]] = [{} for _ in self._classes]
        self._used = 0

    def grow(self) -> None:
        """Makes an arena of the smallest slots beforehand, so that no call has to wait for it.

        Raises:
            UnsupportedError: RLIMIT_FSIZE leaves no room for one.
            OSError: EMFILE or ENOMEM.
        """
        self._grow(0)

    def _grow(self, kind: int) -> tuple[int, list[int]]:
        size, slots, most = self._classes[kind]
        free = self._free[kind]
        if len(free) == most:
            raise OSError(
                errno.ENOMEM, f"more than {most * slots} calls with slots of {size} bytes in flight"
            )
        arena = self._made(kind)
        self._arenas.append(arena)
        free[arena.number] = offsets = list(reversed(range(0, arena.size, size)))
        return arena.number, offsets

    def _made(self, kind: int) -> Arena:
        while True:
            size, slots, most = self._classes[kind]
            try:
                return Arena(len(self._arenas), slots * size, code=self._code and not kind)
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
                if slots == 1:
                    text = (
                        f"RLIMIT_FSIZE leaves no room for a pin of {size} bytes; raise its hard"
                        " limit (`ulimit -f`)"
                    )
                    if kind:
                        raise OSError(errno.ENOMEM, text) from error
                    raise UnsupportedError(text) from error
                # As many as fit; more arenas make up for it.
                self._classes[kind] = _Class(size, slots // 2, most)

    def take(self, size: int = SLOT_SIZE) -> Slot:
        """Returns a free slot, from the arena of the lowest number: most tasks know that one.

        Args:
            size: Bytes that it must have at least.

        Raises:
            OSError: E2BIG when no slot is that large; ENOMEM or EMFILE when no arena can be added.
        """
        kind = next((kind for kind, one in enumerate(self._classes) if size <= one.size), None)
        if kind is None:
            raise OSError(errno.E2BIG, f"arguments of {size} bytes or more cannot be pinned")
        found = next((one for one in self._free[kind].items() if one[1]), None)
        number, free = found or self._grow(kind)
        self._used += 1
        return Slot(self._arenas[number], free.pop(), self._classes[kind].size, kind)

    def crowded(self, size: int = SLOT_SIZE) -> bool:
        """Returns whether a slot could only be had from a further arena, while others are in use.

        A further arena has to be pinned in each process that comes to use it, and there are only so
        many; calls that are about to end give slots back.
        """
        for free, one in zip(self._free, self._classes, strict=True):
            if size <= one.size:
                return bool(free) and not any(free.values())
        return False

    def plenty(self) -> bool:
        """Returns whether so many of the smallest slots are free that a task may keep one."""
        return sum(map(len, self._free[0].values())) > self._classes[0].slots // 4

    def give_back(self, slot: Slot) -> None:
        """Makes a slot available for the next call."""
        self._used -= 1
        self._free[slot.kind][slot.arena.number].append(slot.offset)

    @property
    def in_use(self) -> int:
        """Slots that are handed out now."""
        return self._used

    def close(self) -> None:
        """Closes every arena."""
        for arena in self._arenas:
            arena.close()
        self._arenas.clear()
        self._free.clear()


def address_of(view: mmap.mmap) -> int:
    """Returns where a mapping of ours starts."""
    # The buffer export must not outlive this function, or the mapping could not be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
