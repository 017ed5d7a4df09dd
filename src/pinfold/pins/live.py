"""The live check: is our pin, and nothing else, at this address of this task's memory *now*?

Bookkeeping cannot answer that. A forked child may lack a mapping that its parent has
(``MADV_DONTFORK``), an exec drops all of them, and either may then map memory of its own at the old
address. So before each redirect the kernel is asked (``PROCMAP_QUERY``) about the mapping that
covers the slot, and it must be

* shared, readable, not writable, not executable (what a program passes must not become code),
* of our memfd: same device, same inode,
* with the file offset that puts the arena's first byte at the pin's base. (Another offset would
  show the kernel a different slot, which somebody else's verdict is attached to.)
* one mapping over the whole pin.

That it is *sealed*, and so stays, follows from how it came there: ``pins.install`` seals before it
verifies, a fork copies the seal along, and the filter refuses ``MADV_DONTFORK`` from either call
that gives advice, the one way to have a child without it.

The descriptor of ``/proc/TID/maps`` is bound to the address space it was opened on. It is kept per
*task*, opened through that very task, and dropped at each of its exec events; only exec gives a
task another address space. Descriptors are few in some environments, and all sandboxes of a process
share them: the least recently used one is closed when there are too many.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from pinfold.errors import TraceeGone
from pinfold.linux.maps import MapsQuery, MapsQuestion, open_maps
from pinfold.pins import sealed
from pinfold.uapi.procmap import PROCMAP_QUERY_VMA_EXECUTABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.linux.maps import Mapping
    from pinfold.pins.arena import Arena


_MOST: Final = 1024
_FEWEST: Final = 2
_LOW: Final = 1 << 32
"""Below this there are programs that want certain addresses for themselves."""
_DISTANCE: Final = 1 << 20

_Answer = TypeVar("_Answer")


def shows(mapping: Mapping | None, arena: Arena, base: int) -> bool:
    """Returns whether a mapping is the whole of ``arena``, as pinned at ``base``."""
    return (
        mapping is not None
        and not mapping.flags & PROCMAP_QUERY_VMA_EXECUTABLE
        and sealed.shows(mapping, arena.file, base, base, base + arena.size)
    )


class LiveCheck:
    """Answers whether an arena is pinned in a task, by asking the kernel.

    Args:
        limit: Descriptors to keep open at most; None takes a fair part of a quarter of
            RLIMIT_NOFILE, which all that have any open share.

    Preconditions: used by the tracing thread, on stopped tasks.
    """

    __slots__ = ("_limit", "_maps", "_query", "_shares")

    _sharing = 0
    _lock = threading.Lock()

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._maps: OrderedDict[int, int] = OrderedDict()
        self._query = MapsQuery()
        self._shares = False

    def _share(self, shares: bool) -> None:
        if self._shares != shares:
            self._shares = shares
            with LiveCheck._lock:
                LiveCheck._sharing += 1 if shares else -1

    def _most(self) -> int:
        if self._limit is not None:
            return self._limit
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(_FEWEST, min(soft // 4 // LiveCheck._sharing, _MOST))

    def pinned(self, tid: int, arena: Arena, base: int) -> bool:
        """Returns whether the task's memory shows ``arena`` at ``base`` right now.

        Raises:
            TraceeGone: The task died.
            OSError: EACCES or EPERM when the task may not be looked at; EMFILE.
        """
        return shows(self._mapping(tid, base), arena, base)

    def question(self, tid: int, arena: Arena, base: int) -> MapsQuestion | None:
        """Returns what :meth:`pinned` asks, ready to be asked again; None if it is not pinned.

        Raises:
            TraceeGone: The task died.
            OSError: As :meth:`pinned`.
        """
        if not self.pinned(tid, arena, base):
            return None
        question = MapsQuestion(self._maps[tid], base)
        return question if shows(question.mapping, arena, base) else None

    def still(self, tid: int, question: MapsQuestion) -> bool:
        """Returns whether the answer is the same again; if in doubt it is not.

        What costs least, for the hot loop. A no says nothing: ask :meth:`pinned` then.
        """
        maps = self._maps.get(tid)
        return maps is not None and question.as_before(maps)

    def sealed(self, tid: int, arena: Arena, base: int, page: int = 0) -> bool:
        """Returns whether it shows it, and in a mapping that is sealed.

        Args:
            tid: The task.
            arena: The arena.
            base: Where it is to be.
            page: Where its code page is to be, sealed as well; 0 for none.

        Raises:
            TraceeGone: The task died.
            OSError: As :meth:`pinned`.
        """
        mapping = self._mapping(tid, base)
        if mapping is None or not shows(mapping, arena, base):
            return False
        if not page:
            return sealed.is_sealed(tid, mapping)
        code = self._mapping(tid, page)
        if code is None or not sealed.shows_code(code, arena.file, arena.size, page):
            return False
        return sealed.is_sealed(tid, *sorted((mapping, code)))

    def room_below(self, tid: int, size: int) -> int:
        """Returns an address below all that is mapped, where ``size`` bytes are free; 0 for none.

        Raises:
            TraceeGone: The task died.
            OSError: As :meth:`pinned`.
        """
        at = self._asked(tid, self._query.lowest) - size - _DISTANCE
        return at if at >= _LOW else 0

    def _mapping(self, tid: int, address: int) -> Mapping | None:
        return self._asked(tid, self._query.at, address)

    def _asked(self, tid: int, question: Callable[..., _Answer], *about: int) -> _Answer:
        maps = self._maps.get(tid)
        if maps is None:
            maps = self._open(tid)
        else:
            self._maps.move_to_end(tid)
        try:
            return question(maps, *about)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self.forget(tid)
            raise TraceeGone(tid) from error

    def forget(self, tid: int) -> None:
        """Drops what is kept of a task: it executed a program, or it is gone."""
        maps = self._maps.pop(tid, None)
        if maps is not None:
            os.close(maps)

    def close(self) -> None:
        """Closes every descriptor."""
        self._share(False)
        while self._maps:
            os.close(self._maps.popitem()[1])

    def _open(self, tid: int) -> int:
        self._share(True)
        most = self._most()
        while len(self._maps) >= most:
            self._close_oldest()
        with sealed.looking_at(tid):
            maps = self._opened(tid)
        self._maps[tid] = maps
        return maps

    def _opened(self, tid: int) -> int:
        while True:
            try:
                return open_maps(tid)
            except OSError as error:
                if error.errno != errno.EMFILE or not self._maps:
                    raise
            # The rest of the process needs more than it usually does.
            self._close_oldest()

    def _close_oldest(self) -> None:
        os.close(self._maps.popitem(last=False)[1])
