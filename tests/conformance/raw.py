"""The two requests of the native interface as bytes: for what the Python interface cannot say."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.linux import redirect
from pinfold.listener import Listener
from pinfold.uapi.ioctl import iow, iowr
from tests.conformance import support
from tests.conformance.support import PATIENCE
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.conformance.support import Target

INSTALL: Final = 5
REDIRECT: Final = 6
NO_ID: Final = redirect.NO_NOTIFICATION
CONTINUE: Final = 1
TOP: Final = 0x7FFF_FFFF_F000
"""End of what a task of 64 bits may map."""
FIRST: Final = redirect.FIRST
LATER: Final = redirect.LATER


def ask(listener: Listener, number: int, request: bytes | bytearray) -> int:
    """Makes a request of as many bytes as are given; returns its errno, or 0."""
    code = (iowr if number == INSTALL else iow)("!", number, len(request))
    buffer = request if isinstance(request, bytearray) else bytearray(request)
    try:
        fcntl.ioctl(listener.fileno(), code, buffer, True)
    except OSError as error:
        return error.errno or -1
    return 0


class Place(NamedTuple):
    """What an install says, but for the notification."""

    memfd: int
    address: int = support.BASE
    size: int = support.SIZE
    offset: int = 0
    flags: int = 0

    def pack(self, call: int) -> bytearray:
        """Returns the 40 bytes of the request."""
        return bytearray(
            redirect.encode_install_at(
                call, self.flags, self.memfd, self.address, self.size, self.offset
            )
        )


def install(listener: Listener, call: int, place: Place) -> tuple[int, int]:
    """Returns the errno of an install in its long form, and the address that was written back."""
    request = place.pack(call)
    number = ask(listener, INSTALL, request)
    return number, int.from_bytes(request[16:24], "little")


def send(
    listener: Listener,
    call: int,
    args: Mapping[int, int],
    lengths: Mapping[int, int] | None = None,
    memfd: int = 0,
) -> int:
    """Returns the errno of a redirect."""
    lengths = lengths or {}
    return ask(
        listener,
        REDIRECT,
        redirect.encode_redirect(
            call,
            CONTINUE,
            sum(1 << index for index in args),
            sum(1 << index for index in lengths),
            [args.get(index, 0) for index in range(6)],
            [lengths.get(index, 0) for index in range(6)],
            memfd,
        ),
    )


def named(revision: int, memfd: int) -> int:
    """Returns what a redirect has to name for pointers into a pin of this memfd."""
    return memfd if revision == LATER else 0


@contextlib.contextmanager
def started(name: str, *words: str, listeners: int = 1) -> Iterator[tuple[Target, list[Listener]]]:
    """Starts a program that installs filters itself, and sends the listeners over a socket.

    Args:
        name: Of the program; its first argument is the socket's number, ``words`` the rest.
        listeners: How many it sends.
    """
    ours, theirs = socket.socketpair()
    found: list[Listener] = []
    with ours, contextlib.ExitStack() as stack:
        with theirs:
            process = subprocess.Popen(
                [build(name), str(theirs.fileno()), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        try:
            ours.settimeout(PATIENCE)
            for _ in range(listeners):
                _, received, _, _ = socket.recv_fds(ours, 1, 1)
                assert received, f"{name} ended before it had sent its listener"
                os.set_inheritable(received[0], False)
                found.append(Listener(received[0], "native"))
                stack.callback(found[-1].close)
        except BaseException:
            process.kill()
            with process:
                pass
            raise
        with support.watching(process, found[0]) as target:
            yield target, found
