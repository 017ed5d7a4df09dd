"""Messages between the two processes of the interrupt back end, and the page that they share.

A request gets one reply, with two exceptions: a redirect that is under way and a call that is made
again (``RETRAP``) are answered by the call's second notification instead, which the supervisor
receives from the kernel. Only where that does not come, there is a reply to say why.

Whether it came, the tracer learns from ``Shared``: the supervisor puts the request's number there
before it answers the second notification. What is marked needs no reply; so the end of a redirected
call, which may be hours later, sends nothing to anybody.

The other way, the tracer announces each call that it injects. The task's filter may bring that to
the listener too, and the supervisor, who waits for the reply, has to let it pass: exactly that one.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final, NamedTuple

INSTALL: Final = 1
"""Pin the memfd that comes along; ``address`` and ``size`` say where."""
REDIRECT: Final = 2
"""Make the call with other arguments."""
RETRAP: Final = 3
"""Make the call as it is, so that there is a notification again."""

RESEND: Final = 4
"""Let the task have the signals that were held back until its second notification was received."""

FAILED: Final = 0xFFFFFFFF
"""Number of a reply that is the text of an exception: the tracer is broken and has ended."""

LAST: Final = 0
"""Number of the last reply, when the supervisor is done: ``value`` calls are still under way."""

REQUEST: Final = struct.Struct("=IIQQQQII6Q6Q")
REPLY: Final = struct.Struct("=QIIq")
LARGEST: Final = 4096

_MARKS: Final = 4096
_MARK: Final = struct.Struct("=Q")
_INJECTED: Final = struct.Struct("=II6Q")


class Request(NamedTuple):
    """What the tracer is asked to do."""

    what: int
    tid: int
    number: int
    """Of the request, from 1; never used twice."""
    cookie: int
    """The kernel's id of the notification that the task waits in; meaningless while it is parked
    (the tracer knows which tasks are)."""
    address: int = 0
    size: int = 0
    args_mask: int = 0
    ptr_mask: int = 0
    args: tuple[int, ...] = (0,) * 6
    lengths: tuple[int, ...] = (0,) * 6

    def pack(self) -> bytes:
        """Returns the message."""
        *head, args, lengths = self
        return REQUEST.pack(*head, *args, *lengths)

    @classmethod
    def unpack(cls, message: bytes) -> Request:
        """Returns the request in a message."""
        values = REQUEST.unpack(message)
        what, tid, number, cookie, address, size, args_mask, ptr_mask = values[:8]
        return cls(
            what,
            tid,
            number,
            cookie,
            address,
            size,
            args_mask,
            ptr_mask,
            values[8:14],
            values[14:],
        )


class Reply(NamedTuple):
    """What came of a request."""

    number: int
    """Of the request."""
    errno: int
    """0, or why it was not done."""
    parked: int
    """Whether the task is out of its notification now, and stopped."""
    value: int = 0
    """The address of a pin."""

    def pack(self) -> bytes:
        """Returns the message."""
        return REPLY.pack(*self)

    @classmethod
    def unpack(cls, message: bytes) -> Reply:
        """Returns the reply in a message."""
        return cls(*REPLY.unpack(message))


class Shared:
    """Memory that a fork left shared: marks of requests, and the call that is being injected.

    Each request number has a place, which later numbers use again. A number that was overwritten
    counts as not marked: that costs a reply that nobody waits for, and is ignored.
    """

    __slots__ = ("_view",)

    def __init__(self) -> None:
        self._view = mmap.mmap(-1, _MARKS * _MARK.size + _INJECTED.size + _MARK.size)

    def mark(self, number: int) -> None:
        """Says that the second notification of a request was received."""
        _MARK.pack_into(self._view, number % _MARKS * _MARK.size, number)

    def has_mark(self, number: int) -> bool:
        """Returns whether a request is marked."""
        return bool(_MARK.unpack_from(self._view, number % _MARKS * _MARK.size)[0] == number)

    def hold(self, number: int) -> None:
        """Says that signals of the task that a request is about are held back for the moment."""
        _MARK.pack_into(self._view, _MARKS * _MARK.size + _INJECTED.size, number)

    def holds(self, number: int) -> bool:
        """Returns whether :meth:`hold` was last called for this request, the current one."""
        at = _MARKS * _MARK.size + _INJECTED.size
        return bool(_MARK.unpack_from(self._view, at)[0] == number)

    def announce(self, tid: int, nr: int, args: tuple[int, ...]) -> None:
        """Says which call a task is going to make for us, since its filter may bring it here."""
        _INJECTED.pack_into(self._view, _MARKS * _MARK.size, tid, nr, *args)

    def announced(self) -> tuple[int, int, tuple[int, ...]]:
        """Returns the task, the number and the arguments of the last announcement."""
        tid, nr, *args = _INJECTED.unpack_from(self._view, _MARKS * _MARK.size)
        return tid, nr, tuple(args)

    def close(self) -> None:
        """Unmaps it."""
        self._view.close()
