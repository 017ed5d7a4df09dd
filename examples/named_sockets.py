"""Runs a command that may connect to the Unix sockets whose names it is given, and to nothing else.

    python examples/named_sockets.py --socket /run/user/1000/bus -- COMMAND...

Only stream sockets are left: without ``connect`` they reach nobody, as an address that is given to
``sendto`` or ``sendmsg`` fails on them. Datagram sockets (of ``socketpair``, too) and io_uring need
no ``connect``; ``pidfd_getfd`` and ``ptrace`` take other people's sockets. ``socketcall`` is for
32-bit code, which is killed. Not covered: descriptors that the command inherits or that a server
sends it; who made the file behind a name; ``/proc/PID/mem`` of other processes of the same user.
"""

import argparse
import asyncio
import os
import socket
from contextlib import suppress
from errno import EACCES, EPERM

import pinfold
from pinfold.bpf import Arg

UNIX, LARGEST, SLOT, PIN_AT = socket.AF_UNIX.to_bytes(2, "little"), 110, 128, 0x7000_0000
REFUSED = {(call, Arg(0, 0, 0)): EPERM for call in ("io_uring_setup", "ptrace", "pidfd_getfd")}
for call in ("socket", "socketpair"):
    for argument, bits, only in ((0, 32, socket.AF_UNIX), (1, 4, socket.SOCK_STREAM)):
        # Any other value differs from this one in some bit.
        REFUSED |= {(call, Arg(argument, 1 << n, 1 << n & ~only)): EACCES for n in range(bits)}


async def serve(listener: pinfold.Listener, names: list[bytes]) -> None:
    slots = {UNIX + name: SLOT * index for index, name in enumerate(names)}
    with pinfold.Pin(SLOT * len(names)) as pin:
        for sockaddr, slot in slots.items():  # once: calls at the same time share no bytes
            pin.write(slot, sockaddr + b"\0")
        async for call in listener:
            _, address, length, *_ = call.data.args
            try:
                asked = listener.read(call, address, min(length & 0xFFFFFFFF, LARGEST))
                asked = asked[:2] + asked[2:].partition(b"\0")[0]  # an abstract name is empty so
                where, size = PIN_AT + slots[asked], len(asked) + 1
                with suppress(FileExistsError):  # here already; the redirect tells if it is not
                    listener.pin_install(call.id, pin.fd, PIN_AT, pin.size)
                listener.send_redirect(call.id, {1: where, 2: size}, {1: size})
            except (OSError, KeyError):
                with suppress(FileNotFoundError):  # the call is gone
                    listener.send(call.id, error=EACCES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", action="append", type=os.fsencode, required=True)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    with pinfold.supervise(given.command, trap=["connect"], refuse=REFUSED) as child:
        asyncio.run(serve(child.listener, given.socket))
        try:
            status = child.wait()
        except pinfold.LaunchError as error:
            parser.exit(error.exit_code, f"{error}\n")
    parser.exit(status if status >= 0 else 128 - status)
