"""The two proposed listener requests: PIN_INSTALL and SEND_REDIRECT, in both revisions.

No released kernel has them. Which revision a kernel has cannot be told from the request numbers: a
kernel of the first one may take the longer PIN_INSTALL of the later one, as long as what it does
not know is zero. So a kernel is asked with a request that only the revision in question finds
nothing wrong with, for a notification that does not exist: the answer is ENOENT then. What a kernel
answers to a request that it does not know at all (EINVAL from a listener) is found out by making
one.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from pinfold.linux import memfd
from pinfold.uapi import mman
from pinfold.uapi import seccomp as abi
from pinfold.uapi.ioctl import iow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FIRST: Final = 0
"""Pins are recorded by the kernel at install."""
LATER: Final = 1
"""Nothing is recorded; a redirect names the memfd. Installs may choose an offset and an address."""

NO_NOTIFICATION: Final = (1 << 64) - 1
"""An id that no notification has, but by a chance of one in 2^64."""

PIN_INSTALL: Final = "PIN_INSTALL"
PIN_INSTALL_OFFSET: Final = "PIN_INSTALL with offset"
SEND_REDIRECT: Final = "SEND_REDIRECT"
SEND_REDIRECT_MEMFD: Final = "SEND_REDIRECT with memfd"

_UNKNOWN: Final = iow("!", 0xFF, 32)
"""A request that no kernel knows."""
_PROBE_ADDRESS: Final = 0x70000000
_ZEROS: Final = (0,) * 6


def encode_install(cookie: int, flags: int, descriptor: int, address: int, size: int) -> bytes:
    """Returns the first revision's ``struct seccomp_notif_pin_install``, 32 bytes."""
    return abi.SECCOMP_NOTIF_PIN_INSTALL.pack(cookie, flags, descriptor, address, size)


def encode_install_at(
    cookie: int, flags: int, descriptor: int, address: int, size: int, offset: int
) -> bytes:
    """Returns the later revision's ``struct seccomp_notif_pin_install``, 40 bytes."""
    return abi.SECCOMP_NOTIF_PIN_INSTALL_V1.pack(cookie, flags, descriptor, address, size, offset)


def encode_redirect(
    cookie: int,
    flags: int,
    args_mask: int,
    ptr_mask: int,
    args: Sequence[int],
    lengths: Sequence[int],
    descriptor: int = 0,
) -> bytes:
    """Returns ``struct seccomp_notif_send_redirect``, 120 bytes.

    Args:
        cookie: Notification (``u64``).
        flags: ``SECCOMP_REDIRECT_FLAG_CONTINUE`` (``u32``).
        args_mask: A bit for each argument that is replaced (``u32``).
        ptr_mask: A bit for each of these that is a pointer (``u32``).
        args: Six values (``u64``).
        lengths: Six lengths in bytes (``u64``).
        descriptor: The memfd that all pointers lie in; 0 in the first revision, where it is a pad.
    """
    return abi.SECCOMP_NOTIF_SEND_REDIRECT.pack(
        cookie, flags, args_mask, ptr_mask, descriptor, *args, *lengths
    )


def pin_install(
    listener: int, cookie: int, flags: int, descriptor: int, address: int, size: int
) -> None:
    """Maps a memfd, sealed and read-only, into the notifying task (first revision).

    Raises:
        OSError: EINVAL, EBADF, ENOENT, EINPROGRESS, ESRCH, EEXIST, EOPNOTSUPP, EINTR, ENOMEM.
    """
    argument = encode_install(cookie, flags, descriptor, address, size)
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL, argument)


def pin_install_at(
    listener: int, cookie: int, flags: int, descriptor: int, address: int, size: int, offset: int
) -> int:
    """Maps a memfd, sealed and read-only, into the notifying task; returns where (later revision).

    Args:
        listener: The listener descriptor.
        cookie: Notification.
        flags: 0.
        descriptor: A write-sealed memfd.
        address: Where; 0 lets the kernel choose.
        size: Bytes, a multiple of the page size.
        offset: Offset into the memfd, likewise.

    Raises:
        OSError: As :func:`pin_install`; EINVAL also for a memfd that is not write-sealed.
    """
    argument = bytearray(encode_install_at(cookie, flags, descriptor, address, size, offset))
    # Mutable: the kernel writes the address back.
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1, argument, True)
    return int(abi.SECCOMP_NOTIF_PIN_INSTALL_V1.unpack(argument)[3])


def send_redirect(listener: int, redirect: bytes) -> None:
    """Resumes a call with some arguments replaced.

    Args:
        listener: The listener descriptor.
        redirect: What :func:`encode_redirect` returned.

    Raises:
        OSError: EINVAL, EFAULT, ENOENT, EINPROGRESS; the notification can still be answered.
    """
    fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_SEND_REDIRECT, redirect)


def known_requests(listener: int) -> tuple[str, ...]:
    """Returns which forms of the two requests are known to this kernel, for this listener.

    Raises:
        OSError: A memfd could not be made.
    """
    size = mman.PAGE_SIZE
    pin = memfd.create("pinfold-probe", 2 * size)
    try:
        memfd.seal(pin, memfd.PIN_SEALS)
        what = (NO_NOTIFICATION, 0, pin, _PROBE_ADDRESS, size)
        how = (NO_NOTIFICATION, abi.SECCOMP_REDIRECT_FLAG_CONTINUE, 1, 0, _ZEROS, _ZEROS)
        install = abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL
        install_at = abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1
        redirect = abi.SECCOMP_IOCTL_NOTIF_SEND_REDIRECT
        requests = (
            (PIN_INSTALL, install, encode_install(*what)),
            (PIN_INSTALL_OFFSET, install_at, encode_install_at(*what, size)),
            (SEND_REDIRECT, redirect, encode_redirect(*how)),
            (SEND_REDIRECT_MEMFD, redirect, encode_redirect(*how, pin)),
        )
        unknown = unknown_answer(listener)
        answers = [
            (name, _answer(listener, request, argument)) for name, request, argument in requests
        ]
    finally:
        os.close(pin)
    return tuple(name for name, got in answers if got == errno.ENOENT != unknown)


def unknown_answer(listener: int) -> int:
    """Returns the errno of a request that does not exist."""
    return _answer(listener, _UNKNOWN, bytes(32))


def revision_of(known: Collection[str]) -> int | None:
    """Returns the newest revision of which both requests are known, None when there is none."""
    if PIN_INSTALL_OFFSET in known and SEND_REDIRECT_MEMFD in known:
        return LATER
    if PIN_INSTALL in known and SEND_REDIRECT in known:
        return FIRST
    return None


def revision(listener: int) -> int | None:
    """Returns the newest revision that this kernel speaks on this listener, None for none at all.

    Raises:
        OSError: A memfd could not be made.
    """
    return revision_of(known_requests(listener))


def _answer(listener: int, request: int, argument: bytes) -> int:
    # Returns the errno, 0 when there was none.
    while True:
        try:
            fcntl.ioctl(listener, request, argument)
        except InterruptedError:
            continue
        except OSError as error:
            return error.errno or 0
        return 0
