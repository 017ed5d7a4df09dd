"""A program to be measured: a server and a client that exchange small messages over loopback.

``traffic.py COUNT`` sends COUNT messages, each answered by one of its own, some of them on their
way at a time, as a client of Redis with a pipeline does. Prints a digest of the answers.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys

_SIZE = 32
_AHEAD = 32


def main() -> int:
    """Runs both ends and returns an exit status."""
    count = int(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if child == 0:
            os._exit(_serve(server, count))
        digest = _ask(server.getsockname(), count)
    _, status = os.waitpid(child, 0)
    sys.stdout.write(f"{digest}\n")
    return os.waitstatus_to_exitcode(status)


def _serve(server: socket.socket, count: int) -> int:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            message = connection.recv(_SIZE, socket.MSG_WAITALL)
            if len(message) != _SIZE:
                return 1
            connection.send(message[::-1])
    return 0


def _ask(address: tuple[str, int], count: int) -> str:
    digest = hashlib.sha256()
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, count, _AHEAD):
            here = range(first, min(first + _AHEAD, count))
            for number in here:
                connection.send(b"%032d" % number)
            for _ in here:
                digest.update(connection.recv(_SIZE, socket.MSG_WAITALL))
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
