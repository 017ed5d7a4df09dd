"""Messages between processes of ours: what is packed is what is unpacked, and nothing else is.

The tracer of the interrupt back end and the supervisor are one program, forked, on a socket pair
that nobody else has. So the reader may take a message at its word: what is asked of it here is that
a message of another length, which would be a version of another shape, raises ``struct.error`` and
is never half a request.

The messages by which a child is launched come from a process that is ours until it executes its
command, and its end is closed by the exec: it is trusted to number its stages and paths as we do.
That a message is cut off, or not there, is read as the end of the child.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main, refused

with instrumented(__name__):
    from pinfold.backends.interrupt import wire
    from pinfold.errors import LaunchError
    from pinfold.launch import spawn


if TYPE_CHECKING:
    from collections.abc import Callable


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    how = given.number(1) % 4
    if how == 0:
        _requests(given)
    elif how == 1:
        _replies(given)
    elif how == 2:
        _shared(given)
    else:
        _reported(given)


def _requests(given: Given) -> None:
    raw = given.rest()
    request = refused(wire.Request.unpack, raw, by=struct.error)
    assert (request is None) == (len(raw) != wire.REQUEST.size)
    if request is not None:
        assert request.pack() == raw
        assert len(request.args) == len(request.lengths) == 6
    assert wire.REQUEST.size <= wire.LARGEST


def _replies(given: Given) -> None:
    raw = given.rest()
    reply = refused(wire.Reply.unpack, raw, by=struct.error)
    assert (reply is None) == (len(raw) != wire.REPLY.size)
    if reply is not None:
        assert reply.pack() == raw


def _shared(given: Given) -> None:
    shared = wire.Shared()
    marked: dict[int, int] = {}
    held = 0
    said: tuple[int, int, tuple[int, ...]] = (0, 0, (0,) * 6)
    while given:
        what = given.number(1) % 3
        if what == 0:
            number = given.number(2) if given.number(1) & 1 else given.number()
            shared.mark(number)
            marked[number % 4096] = number
            assert shared.has_mark(number)
            assert number == 0 or not shared.has_mark((number + 4096) % (1 << 64))
        elif what == 1:
            held = given.number()
            shared.hold(held)
        else:
            said = given.number(4), given.number(4), tuple(given.number() for _ in range(6))
            shared.announce(*said)
        # None of them is in another's place.
        assert shared.holds(held)
        assert shared.announced() == said
        assert all(shared.has_mark(number) for number in marked.values())
    shared.close()


def _reported(given: Given) -> None:
    # Of a whole message only the errno is anything: the child numbers its stages and paths itself.
    raw = given.text(16)
    if given.number(1) & 1:
        kind, index = given.pick(((b"X", given.below(4)), (b"E", 0)))
        raw = struct.pack("=cii", kind, given.number(4) - (1 << 31), index)
    else:
        raw = raw[:8]
    assert isinstance(_told(raw, spawn.exec_failure), LaunchError)
    found = _told(raw, spawn.reported_failure)
    assert (found is None) == (len(raw) < struct.calcsize("=cii"))


def _told(
    raw: bytes, ask: Callable[[spawn.Launched, str | None], LaunchError | None]
) -> LaunchError | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(raw)
        return ask(spawn.Launched(-1, -1, -1, ours, (b"/nowhere/a",)), "denied")


if __name__ == "__main__":
    main("wire", one)
