"""What single values of a policy file mean (pure). What is wrong with one is a ``ValueError``."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

from pinfold.codec import sockaddr
from pinfold.codec.sockaddr import Inet, Inet6, Unix
from pinfold.errors import PolicyError
from pinfold.paths import printable
from pinfold.policy.model import FAMILIES
from pinfold.syscalls.groups import near
from pinfold.uapi import net

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from pinfold.codec.sockaddr import Address

ERRNOS: Final = {name: number for number, name in sorted(errno.errorcode.items())} | {
    "EWOULDBLOCK": errno.EWOULDBLOCK,
    "EDEADLOCK": errno.EDEADLOCK,
    "ENOTSUP": errno.ENOTSUP,
}
"""Numbers of errors by name; some have two."""

_AF_PACKET: Final = 17
"""``linux/socket.h``; addresses of that family are not taken apart."""
_NUMBERS: Final = dict(
    zip(
        (
            net.AF_UNIX,
            net.AF_INET,
            net.AF_INET6,
            net.AF_NETLINK,
            net.AF_VSOCK,
            _AF_PACKET,
            net.AF_UNSPEC,
        ),
        FAMILIES,
        strict=True,
    )
)
_SIZE: Final = re.compile(r"([0-9]{1,19})([KMG]?)", re.ASCII)
_SHIFT: Final = {"": 0, "K": 10, "M": 20, "G": 30}
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_HOST_PORT: Final = re.compile(rb"(?:([0-9.]+)|\[([0-9a-fA-F:.]+)\]):([0-9]{1,5})")
_LAST_PORT: Final = 0xFFFF
_MOST: Final = (1 << 63) - 1


def error_number(name: str) -> int:
    """Returns the number of an error by its name, such as ``EACCES``."""
    number = ERRNOS.get(name)
    if number is None:
        raise ValueError(f"there is no error {name!r}{near(name.upper(), ERRNOS)}")
    return number


def error_name(number: int) -> str:
    """Returns the usual name of an error."""
    return errno.errorcode.get(number, str(number))


def size(value: int | str) -> int:
    """Returns a number of bytes, written as such or as ``512M``."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(
            f"{value!r} is no size; write bytes as a number, or a whole number and K, M or G, such"
            ' as "512M"'
        )
    found = int(match[1]) << _SHIFT[match[2]]
    if found > _MOST:
        raise ValueError(f"{value} is more than there can be; leave the key out for no limit")
    return found


def ports(value: int | str) -> tuple[int, int]:
    """Returns the first and the last port of ``80``, ``"80"`` or ``"8000-8080"``."""
    if isinstance(value, int):
        return value, value
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(f'{value!r} is no port; write a number such as 80, or "8000-8080"')
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first
    if max(first, last) > _LAST_PORT:
        raise ValueError(f"{max(first, last)} is no port; they end at {_LAST_PORT}")
    if first > last:
        raise ValueError(f'this range is empty; write "{last}-{first}"')
    return first, last


def network(text: str) -> IPv4Network | IPv6Network:
    """Returns the network, or the single host, that a text such as ``10.0.0.0/8`` names."""
    import ipaddress  # noqa: PLC0415 (for policies that have an address)

    _, percent, scope = text.partition("%")
    if percent:
        shown_scope = printable(scope.partition("/")[0].encode())
        raise ValueError(
            f"an interface, here %{shown_scope}, is no part of a network; leave it out"
        )
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is no IP address or network; names are not looked up: write numbers, such as"
            " 127.0.0.1, 10.0.0.0/8 or ::1"
        ) from None
    host = text.partition("/")[0]
    raise ValueError(f"{text} has bits of a host; write {loose} for the network, or {host}")


def family(value: str | int) -> str | int:
    """Returns an address family as rules compare it: a word where there is one."""
    if isinstance(value, str) and value in FAMILIES:
        return value
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 6):
        raise ValueError(
            f"there is no address family {value!r}{near(value, FAMILIES)}; write one of"
            f" {', '.join(FAMILIES)}, or a number"
        )
    number = int(value)
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"{number} is no address family; they are 0 to 65535")
    return _NUMBERS.get(number, number)


def address(text: bytes) -> Address:
    """Returns the socket address that a redirect names."""
    match = _HOST_PORT.fullmatch(text)
    if match is not None:
        host, host6, port = match.groups()
        text = b"inet:" + host if host is not None else b"inet6:[" + host6 + b"]"
        text += b":" + port
    try:
        found = sockaddr.parse_text(text)
    except PolicyError as error:
        raise ValueError(str(error)) from error
    if isinstance(found, Unix) and not found.path.startswith(b"/"):
        raise ValueError("a socket's path begins with `/`: what else it names is up to the program")
    if isinstance(found, Inet | Inet6) and found.port == 0:
        raise ValueError("nothing can be sent to port 0; write the port after the last colon")
    return found


def variable_name(name: str) -> bytes:
    """Returns the name of an environment variable."""
    if not name or "=" in name or "\0" in name:
        raise ValueError("the name of an environment variable is not empty, without `=` and NUL")
    return name.encode()


def plain(value: bytes) -> bytes:
    """Returns a value that a string of the kernel's can hold."""
    if b"\0" in value:
        raise ValueError("no argument, name or environment variable has a NUL byte; remove it")
    return value


def shown(data: bytes) -> str:
    """Returns bytes as an error shows them, between backticks."""
    return f"`{printable(data)}`"
