"""Who answers the listener of a measured program: each makes what answers so many of its calls."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final, Literal

from pinfold.bench.loops import FILE, PATIENCE
from pinfold.linux import memfd
from pinfold.listener import Listener
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Callable

_PIN_SIZE: Final = 4096
_PIN_AT: Final = 0x1000_0000_0000
"""Far from where the kernel puts mappings by itself."""


def barely(listener: int) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Continues calls with nothing in between: what a listener costs in Python at least."""
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_SET_FLAGS, abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    empty = bytes(abi.SECCOMP_NOTIF.size)
    buffer = bytearray(empty)
    reply = bytearray(abi.SECCOMP_NOTIF_RESP.pack(0, 0, 0, abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE))

    def serve(calls: int) -> None:
        for _ in range(calls):
            buffer[:] = empty
            fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_RECV, buffer)
            reply[:8] = buffer[:8]
            fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_SEND, reply)

    return serve, lambda: os.close(listener)


def redirecting(
    backend: Literal["interrupt", "native"], fd: int
) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Redirects calls through ``pinfold.Listener``, to a pin that the first of them installs.

    Raises:
        UnsupportedError: This machine lacks the back end.
    """
    with contextlib.ExitStack() as failed:
        try:
            listener = Listener(fd, backend)
        except BaseException:
            os.close(fd)
            raise
        failed.enter_context(listener)
        pin = memfd.create("pinfold-bench", _PIN_SIZE)
        failed.callback(os.close, pin)
        content = os.fsencode(FILE) + b"\0"
        with mmap.mmap(pin, _PIN_SIZE) as view:
            view[: len(content)] = content
        memfd.seal(pin, memfd.PIN_SEALS)
        close = failed.pop_all().close
    installed = False

    def serve(calls: int) -> None:
        nonlocal installed
        for _ in range(calls):
            cookie = listener.receive(PATIENCE).id
            if not installed:
                listener.pin_install(cookie, pin, _PIN_AT, _PIN_SIZE)
                installed = True
            listener.send_redirect(cookie, {1: _PIN_AT}, {1: len(content)})

    return serve, close
