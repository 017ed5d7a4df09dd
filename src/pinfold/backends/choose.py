"""Which back end carries out a listener's redirects, found out on the listener itself.

The native interface belongs to a descriptor as much as to a kernel: its later revision wants a flag
on the filter behind it. So the listener that was handed in is asked, and no other.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from pinfold.backends.descriptor import check_number, uninterrupted
from pinfold.backends.native import NativeBackend
from pinfold.errors import UnsupportedError
from pinfold.linux import redirect, seccomp

if TYPE_CHECKING:
    from pinfold.backends.base import ListenerBackend

NATIVE: Final = "native"
INTERRUPT: Final = "interrupt"
AUTO: Final = "auto"


def for_listener(fd: int, backend: str) -> ListenerBackend:
    """Returns the back end for a listener, which it owns from now on, unless this raises.

    Args:
        fd: The listener.
        backend: ``native``, ``interrupt`` or ``auto``.

    Raises:
        ValueError: There is no such back end.
        OSError: EBADF or ENOTTY when ``fd`` is no listener; EMFILE and the like.
        UnsupportedError: This machine lacks what was asked for.
    """
    if backend not in (NATIVE, INTERRUPT, AUTO):
        raise ValueError(f"no back end {backend!r}: {AUTO}, {NATIVE} or {INTERRUPT}")
    _check_listener(fd)
    if backend != INTERRUPT:
        known = redirect.known_requests(fd)
        revision = redirect.revision_of(known)
        if revision is not None:
            return NativeBackend(fd, revision)
        if backend == NATIVE:
            raise UnsupportedError(_lack(known))
    # Most users of the native back end never need what the other one is made of.
    from pinfold.backends.interrupt import InterruptBackend  # noqa: PLC0415

    return InterruptBackend(fd)


def available(fd: int) -> list[str]:
    """Returns the back ends that ``auto`` would take for a listener, best first.

    The interrupt back end is always among them. Whether this process may trace a task is known
    when it comes to it; ``pinfold doctor`` tells what is usual here.

    Raises:
        OSError: EBADF or ENOTTY when ``fd`` is no listener; a memfd could not be made.
    """
    _check_listener(fd)
    return [INTERRUPT] if redirect.revision(fd) is None else [NATIVE, INTERRUPT]


def _check_listener(fd: int) -> None:
    # A listener knows the request, and knows that there is no such notification.
    try:
        valid = uninterrupted(seccomp.is_valid, check_number(fd), redirect.NO_NOTIFICATION)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        # A device may have an errno of its own for what it does not know.
        raise OSError(errno.ENOTTY, f"descriptor {fd} is no seccomp listener") from error
    if valid:
        raise OSError(errno.ENOTTY, f"descriptor {fd} is no seccomp listener")


def _lack(known: tuple[str, ...]) -> str:
    found = f"it knows only {', '.join(known)}" if known else "it knows neither request"
    return (
        "the native back end needs a kernel with SECCOMP_IOCTL_NOTIF_PIN_INSTALL and"
        f" SECCOMP_IOCTL_NOTIF_SEND_REDIRECT, and no released one has them: asked about this"
        f" listener, {found}; take the back end `interrupt` or `auto`, which does the same here"
    )
