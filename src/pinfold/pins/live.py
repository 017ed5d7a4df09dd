"""The live check: is our pin, and nothing else, at this address of this task's memory *now*?

Bookkeeping cannot answer that. A forked child may lack a mapping that its parent has
(``MADV_DONTFORK``), an exec drops all of them, and either may then map memory of its own at the old
address. So before each redirect the kernel is asked (``PROCMAP_QUERY``) about the mapping that
covers the slot, and it must be

* shared, readable, not writable,
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
from typing import TYPE_CHECKING, Final

from pinfold.errors import TraceeGone
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.pins import sealed

if TYPE_CHECKING:
    from pinfold.linux.maps import Mapping
    from pinfold.pins.arena import Arena


_MOST: Final = 1024
_FEWEST: Final = 2


def shows(mapping: Mapping | None, arena: Arena, base: int) -> bool:
    """Returns whether a mapping is the whole of ``arena``, as pinned at ``base``."""
    return sealed.shows(mapping, arena.file, base, base, base + arena.size)


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

    def sealed(self, tid: int, arena: Arena, base: int) -> bool:
        """Returns whether it shows it, and in a mapping that is sealed.

        Raises:
            TraceeGone: The task died.
            OSError: As :meth:`pinned`.
        """
        mapping = self._mapping(tid, base)
        return (
            mapping is not None and shows(mapping, arena, base) and sealed.is_sealed(tid, mapping)
        )

    def _mapping(self, tid: int, address: int) -> Mapping | None:
        maps = self._maps.get(tid)
        if maps is None:
            maps = self._open(tid)
        else:
            self._maps.move_to_end(tid)
        try:
            return self._query.at(maps, address)
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
