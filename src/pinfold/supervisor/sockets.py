"""Socket addresses of a trapped call: what they name, and nothing left to chance about it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from pinfold.codec.message import Message, routes
from pinfold.codec.sockaddr import Inet, Inet6, Sockaddr, Unix, Unspec, ipv4, ipv6
from pinfold.supervisor.plans import written
from pinfold.uapi.fs import AT_FDCWD
from pinfold.uapi.net import UNIX_PATH_MAX

if TYPE_CHECKING:
    from pinfold.policy.calls import Argument
    from pinfold.supervisor.reading import Read
    from pinfold.tracee.names import Names


def name(
    resolver: Names,
    read: Read,
    one: Argument,
    names: dict[str, tuple[bytes, ...]],
    others: dict[int, Argument],
    *,
    real: bool,
) -> int:
    """Finds out the name of a Unix socket; returns an errno when the call must fail, else 0.

    It is a path from the working directory; see ``supervisor.pathnames`` about those.

    Args:
        resolver: Resolves paths.
        read: The call.
        one: An argument that may have an address.
        names: Gets the names.
        others: Gets the argument with another address, where that has to be pinned.
        real: Whether what links lead to is judged, and pinned.

    Raises:
        SlotFull: A larger slot is needed.
        TraceeGone: The task died.
    """
    path = _path(one.value)
    if not path:
        return 0
    task = read.task
    try:
        meaning = resolver.resolve(
            task.tid,
            task.tgid,
            AT_FDCWD,
            path,
            absolute=task.shares,
            follow=read.call.row.group != "bind" if real else None,
        )
    except OSError as error:
        return error.errno or errno.EACCES
    names[one.name] = meaning.names
    pinned = path
    # Where another task may exchange what a link in /proc jumps to, the name is pinned.
    exposed = meaning.exposed(task.tgid, shares=task.shares)
    if exposed and meaning.real is None:
        return errno.EACCES
    if real and meaning.real is not None and (exposed or not meaning.jumps):
        pinned = meaning.seen_by_task(meaning.real) or b""
    elif task.shares and path[:1] != b"/":
        pinned = meaning.absolute or b""
    if pinned != path:
        if not 0 < len(pinned) <= UNIX_PATH_MAX:
            return errno.EACCES
        others[one.at] = written(read.image, one, Unix(pinned), read.scalars)
    return 0


def settle(read: Read, one: Argument, others: dict[int, Argument]) -> int:
    """Leaves nothing about an address to the socket's state, or to options that go with a message.

    Returns an errno when the call must fail, else 0.

    Args:
        read: The call.
        one: An argument that may have an address.
        others: Gets the argument with another address, where that has to be pinned.

    Raises:
        SlotFull: A larger slot is needed.
    """
    value = one.value
    if isinstance(value, Message) and routes(value.control):
        return errno.EPERM
    address = value.name if isinstance(value, Message) else getattr(value, "address", None)
    if isinstance(address, Unspec) and read.call.row.group == "send":
        address = address.as_inet
    if read.call.row.group == "bind" or not isinstance(address, Inet | Inet6):
        return 0
    mapped = address.as_inet if isinstance(address, Inet6) else None
    if mapped is not None and not int(mapped.host):
        mapped_self = Inet6(ipv6(_LOOPBACK_MAPPED), address.port)
        others[one.at] = written(read.image, one, mapped_self, read.scalars)
    elif not int(address.host):
        # To connect to "anywhere" is to connect to oneself, at the address that the socket is bound
        # to, if it is. It is made the address that is judged.
        itself: Inet | Inet6 = (
            Inet(ipv4(_LOOPBACK), address.port)
            if isinstance(address, Inet)
            else Inet6(ipv6(_LOOPBACK6), address.port, address.flow, address.scope)
        )
        others[one.at] = written(read.image, one, itself, read.scalars)
    return 0


_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK6: Final = "::1"
_LOOPBACK_MAPPED: Final = "::ffff:127.0.0.1"


def _path(value: Any) -> bytes | None:
    address = value.address if isinstance(value, Sockaddr) else None
    if isinstance(value, Message):
        address = value.name
    return address.path if isinstance(address, Unix) else None
