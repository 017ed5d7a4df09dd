"""A supervisor to be killed, run as a program: SOCKET BACKEND STEP CALLS FIFO.

It takes a listener over a Unix socket and receives CALLS calls. All but the last of them (but one
at least) it takes as far as STEP says, the name of a function in ``blocking``. Then it says so, and
does nothing more: its answer to the rest is its death.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, cast

from pinfold.listener import Listener
from tests.conformance import blocking
from tests.conformance.support import PATIENCE, Memory

if TYPE_CHECKING:
    from pinfold.listener import Backend
    from tests.conformance.blocking import Step

READY = b"R"


def main() -> None:
    number, backend, step, calls, fifo = sys.argv[1:]
    act = cast("Step", getattr(blocking, step))
    channel = socket.socket(fileno=int(number))
    channel.settimeout(PATIENCE)
    _, received, _, _ = socket.recv_fds(channel, 1, 1)
    os.set_inheritable(received[0], False)
    listener = Listener(received[0], cast("Backend", backend))
    memory = Memory()
    found = [listener.receive(PATIENCE) for _ in range(int(calls))]
    for call in found[:-1] or found:
        act(listener, call, memory, blocking.Fifo(fifo))
    channel.send(READY)
    signal.pause()


if __name__ == "__main__":
    main()
