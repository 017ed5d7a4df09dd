"""Socket addresses: what the kernel will read, as a value that rules can judge, and as text.

An address means what the *socket* makes of it, and the socket's family is not in it. So a value
here says no more than the bytes do. Known traps, for whoever writes rules over these values:

- An address shorter than its family needs is :class:`Short`, never an address of that family. Most
  sockets refuse it, but with rules of their own; to take it for harmless has been a way around
  other sandboxes.
- AF_UNSPEC dissolves a connection in ``connect``. In ``sendto`` an IPv4 socket takes it for
  AF_INET, and in ``bind`` too if the host is 0.0.0.0: see :attr:`Unspec.as_inet`.
- An IPv6 socket reaches IPv4 hosts by ``::ffff:1.2.3.4`` (see :attr:`Inet6.as_inet`), and by plain
  AF_INET addresses.
- Connecting to 0.0.0.0 or ``::`` reaches the machine itself.
- The path of a Unix socket is walked by the kernel like any other path, links included.

Kernel: ``move_addr_to_kernel`` in ``net/socket.c``; ``unix_validate_addr``, ``unix_bind``,
``ip4_datagram_connect``, ``udp_sendmsg``, ``inet6_bind``, ``netlink_sendmsg``, ``vsock_addr_cast``.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec.base import UNREADABLE
from pinfold.codec.text import escaped, unescaped
from pinfold.errors import PolicyError
from pinfold.uapi import net
from pinfold.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from pinfold.codec.image import Image

_FAMILY: Final = net.SA_FAMILY.size
_UNIX_MAX: Final = _FAMILY + net.UNIX_PATH_MAX


# Classes with an equality of their own: as tuples, Unix(b"x") would equal Abstract(b"x").
class Unix(Value):
    """A Unix socket with a path: 1 to 108 bytes without NUL, relative to the task's directory."""

    path: bytes


class Abstract(Value):
    """A Unix socket with a name that is no path: up to 107 bytes of any value."""

    name: bytes


class Unnamed(Value):
    """AF_UNIX and nothing else: ``bind`` then chooses an abstract name."""


class Inet(Value):
    """An IPv4 address and port."""

    host: IPv4Address
    port: int


class Inet6(Value):
    """An IPv6 address and port; ``flow`` in host byte order, ``scope`` an interface's number."""

    host: IPv6Address
    port: int
    flow: int = 0
    scope: int = 0

    @property
    def as_inet(self) -> Inet | None:
        """The IPv4 address that is meant by an IPv4-mapped one."""
        host = self.host.ipv4_mapped
        return None if host is None else Inet(host, self.port)


class Netlink(Value):
    """A netlink port (0 is the kernel) and a mask of multicast groups."""

    pid: int
    groups: int


class Vsock(Value):
    """A context id (2 is the host) and port of a virtual machine socket."""

    cid: int
    port: int
    flags: int = 0


class Unspec(Value):
    """AF_UNSPEC, with whatever follows it."""

    data: bytes = b""

    @property
    def as_inet(self) -> Inet | None:
        """What an IPv4 datagram socket takes it for; None when it is too short for that."""
        if _FAMILY + len(self.data) < net.SOCKADDR_IN.size:
            return None
        return _inet(net.SA_FAMILY.pack(net.AF_UNSPEC) + self.data)


class Other(Value):
    """An address of a family that is not taken apart here, or a Unix one longer than can be."""

    family: int
    data: bytes


class Short(Value):
    """Bytes that are too few for their family, or for a family; see the module head.

    None at all mean that the length was 0: where the kernel has a choice, it uses the peer.
    """

    data: bytes


Address = Unix | Abstract | Unnamed | Inet | Inet6 | Netlink | Vsock | Unspec | Other | Short


class Sockaddr(NamedTuple):
    """A socket address in an image."""

    pointer: int
    """What the kernel is to be given: an address in the slot, or ``UNREADABLE``."""
    raw: bytes
    address: Address | None
    """None when the kernel will refuse the call without an address: for its length, or EFAULT."""


def decode(image: Image, address: int, length: int) -> Sockaddr:
    """Copies a socket address of the task.

    Where the kernel is not going to read anything, because it refuses the length or because it is
    0, the pointer is ``UNREADABLE`` as well: should it read after all, it gets nothing unjudged.

    Args:
        image: Where to.
        address: Value of the pointer; a caller for whom NULL means no address asks first.
        length: Value of the length's register, of which the kernel takes a C int.

    Raises:
        SlotFull: It does not fit.
    """
    length &= 0xFFFFFFFF
    if length == 0:
        return Sockaddr(UNREADABLE, b"", Short(b""))
    if length > net.SOCKADDR_STORAGE_SIZE:  # negative ones among them
        return Sockaddr(UNREADABLE, b"", None)
    offset = image.copy(address, length, 8)
    if offset is None:
        return Sockaddr(UNREADABLE, b"", None)
    raw = image.bytes_at(offset, length)
    return Sockaddr(image.address_of(offset), raw, parse(raw))


def parse(raw: bytes) -> Address:
    """Returns what the bytes of a socket address say; bytes beyond the family's own are ignored."""
    if len(raw) < _FAMILY:
        return Short(raw)
    (family,) = net.SA_FAMILY.unpack_from(raw)
    known = _KNOWN.get(family)
    if known is None:
        return Other(family, raw[_FAMILY:])
    least, reader = known
    return Short(raw) if len(raw) < least else reader(raw)


def _unix(raw: bytes) -> Address:
    if len(raw) == _FAMILY:
        return Unnamed()
    if len(raw) > _UNIX_MAX:
        return Other(net.AF_UNIX, raw[_FAMILY:])
    if raw[_FAMILY] == 0:
        return Abstract(raw[_FAMILY + 1 :])
    return Unix(raw[_FAMILY:].partition(b"\0")[0])


def _inet(raw: bytes) -> Inet:
    _, port, host = net.SOCKADDR_IN.unpack_from(raw)
    return Inet(ipv4(host), int.from_bytes(port, "big"))


def _inet6(raw: bytes) -> Inet6:
    _, port, flow, host, scope = net.SOCKADDR_IN6.unpack(
        raw[: net.SOCKADDR_IN6.size]
        if len(raw) >= net.SOCKADDR_IN6.size
        # The kernel looks at the scope only when all of it is there.
        else raw[: net.SIN6_LEN_RFC2133] + bytes(4)
    )
    return Inet6(ipv6(host), int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope)


def ipv4(host: bytes | str) -> IPv4Address:
    """Returns an IPv4 address, of four bytes or as text."""
    from ipaddress import IPv4Address  # noqa: PLC0415 (slow, and many programs never need one)

    return IPv4Address(host)


def ipv6(host: bytes | str) -> IPv6Address:
    """Returns an IPv6 address, of sixteen bytes or as text."""
    from ipaddress import IPv6Address  # noqa: PLC0415 (likewise)

    return IPv6Address(host)


def _netlink(raw: bytes) -> Netlink:
    _, pid, groups = net.SOCKADDR_NL.unpack_from(raw)
    return Netlink(pid, groups)


def _vsock(raw: bytes) -> Vsock:
    _, port, cid, flags = net.SOCKADDR_VM.unpack_from(raw)
    return Vsock(cid, port, flags)


# By family: bytes that the kernel insists on, and what reads them.
_KNOWN: Final[dict[int, tuple[int, Callable[[bytes], Address]]]] = {
    net.AF_UNSPEC: (_FAMILY, lambda raw: Unspec(raw[_FAMILY:])),
    net.AF_UNIX: (_FAMILY, _unix),
    net.AF_INET: (net.SOCKADDR_IN.size, _inet),
    net.AF_INET6: (net.SIN6_LEN_RFC2133, _inet6),
    net.AF_NETLINK: (net.SOCKADDR_NL.size, _netlink),
    net.AF_VSOCK: (net.SOCKADDR_VM.size, _vsock),
}


def pack(address: Address) -> bytes:
    """Returns the bytes of a socket address, such that :func:`parse` gives ``address`` again.

    Raises:
        ValueError: There are none: a path or name is too long, a number too large.
    """
    try:
        raw = _packed(address)
    except (ArithmeticError, ValueError, struct.error) as error:
        raise ValueError(f"{address} does not fit a socket address") from error
    if len(raw) > net.SOCKADDR_STORAGE_SIZE or parse(raw) != address:
        raise ValueError(f"no socket address says {address}")
    return raw


def _packed(address: Address) -> bytes:
    family = net.SA_FAMILY.pack
    match address:
        case Unix(path):
            # A NUL where there is room for one, as programs do it.
            return (family(net.AF_UNIX) + path + b"\0")[:_UNIX_MAX]
        case Abstract(name):
            return family(net.AF_UNIX) + b"\0" + name
        case Unnamed():
            return family(net.AF_UNIX)
        case Inet(host, port):
            return net.SOCKADDR_IN.pack(net.AF_INET, port.to_bytes(2, "big"), host.packed)
        case Inet6(host6, port, flow, scope):
            return net.SOCKADDR_IN6.pack(
                net.AF_INET6,
                port.to_bytes(2, "big"),
                flow.to_bytes(4, "big"),
                host6.packed,
                scope,
            )
        case Netlink(pid, groups):
            return net.SOCKADDR_NL.pack(net.AF_NETLINK, pid, groups)
        case Vsock(cid, port, flags):
            return net.SOCKADDR_VM.pack(net.AF_VSOCK, port, cid, flags)
        case Unspec(data):
            return family(net.AF_UNSPEC) + data
        case Other(number, data):
            return family(number) + data
        case Short(data):
            return data


def show(address: Address) -> str:
    """Returns an address as text, a different one for each address."""
    match address:
        case Unix(path):
            text = escaped(path)
            return "unix:" + ("\\x40" + text[1:] if text.startswith("@") else text)
        case Abstract(name):
            return f"unix:@{escaped(name)}"
        case Unnamed():
            return "unix"
        case Inet(host, port):
            return f"inet:{host}:{port}"
        case Inet6():
            return _show_inet6(address)
        case Netlink(pid, groups):
            return f"netlink:{pid}:{groups:#x}"
        case Vsock(cid, port, flags):
            return f"vsock:{cid}:{port}" + (f",flags={flags:#x}" if flags else "")
        case Unspec(data):
            return f"unspec:{data.hex()}" if data else "unspec"
        case Other(family, data):
            return f"family-{family}:{data.hex()}"
        case Short(data):
            return f"short:{data.hex()}"


def _show_inet6(address: Inet6) -> str:
    mapped = address.host.ipv4_mapped
    # How Python writes a mapped address has changed between its versions.
    host = str(address.host) if mapped is None else f"::ffff:{mapped}"
    scope = f"%{address.scope}" if address.scope else ""
    flow = f",flow={address.flow:#x}" if address.flow else ""
    return f"inet6:[{host}{scope}]:{address.port}{flow}"


_FORMS: Final = (
    "write unix:/PATH, unix:@NAME, inet:HOST:PORT, inet6:[HOST]:PORT, netlink:PID:GROUPS,"
    " vsock:CID:PORT or unspec"
)
_NUMBER: Final = rb"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})"
# Compiled when one is needed: no program but a policy writes addresses as text.
_INET: Final = rb"([0-9.]+):([0-9]{1,5})"
_INET6: Final = rb"\[([0-9a-fA-F:.]+)(?:%([0-9]{1,10}))?\]:([0-9]{1,5})(?:,flow=" + _NUMBER + rb")?"
_NETLINK: Final = _NUMBER + rb":" + _NUMBER
_VSOCK: Final = _NUMBER + rb":" + _NUMBER + rb"(?:,flags=" + _NUMBER + rb")?"
_HEX: Final = rb"(?:[0-9a-fA-F]{2})+"


def parse_text(text: bytes) -> Address:
    r"""Returns the address that a policy names, written as :func:`show` writes it.

    In ``unix:`` addresses ``\\`` is a backslash and ``\xNN`` a byte. What has no name to put trust
    in, a ``short:`` address or an unknown family, cannot be named.

    Raises:
        PolicyError: It is malformed, or cannot be an address.
    """
    family, colon, rest = text.partition(b":")
    reader = _TEXT.get(family if colon else text)
    if reader is None or (not rest and colon):
        raise PolicyError(f"{escaped(text)}: not a socket address; {_FORMS}")
    try:
        address = reader(rest)
        pack(address)
    except ValueError as error:
        raise PolicyError(f"{escaped(text)}: {error}") from error
    return address


def _unix_text(rest: bytes) -> Address:
    if not rest:
        return Unnamed()
    if rest.startswith(b"@"):
        return Abstract(unescaped(rest[1:]))
    path = unescaped(rest)
    if b"\0" in path:
        raise ValueError("no path has a NUL byte; a name that is no path begins with `@`")
    return Unix(path)


def _inet_text(rest: bytes) -> Address:
    host, port = _fields(_INET, rest, "inet:HOST:PORT, such as inet:127.0.0.1:80")
    return Inet(ipv4(host.decode("ascii")), int(port))


def _inet6_text(rest: bytes) -> Address:
    host, scope, port, flow = _fields(_INET6, rest, "inet6:[HOST]:PORT, such as inet6:[::1]:80")
    return Inet6(ipv6(host.decode("ascii")), int(port), _number(flow), _number(scope))


def _netlink_text(rest: bytes) -> Address:
    pid, groups = _fields(_NETLINK, rest, "netlink:PID:GROUPS, such as netlink:0:0x0")
    return Netlink(_number(pid), _number(groups))


def _vsock_text(rest: bytes) -> Address:
    cid, port, flags = _fields(_VSOCK, rest, "vsock:CID:PORT, such as vsock:2:1024")
    return Vsock(_number(cid), _number(port), _number(flags))


def _unspec_text(rest: bytes) -> Address:
    if rest and not re.fullmatch(_HEX, rest):
        raise ValueError("not hexadecimal; write unspec alone, or unspec: and bytes such as 00ff")
    return Unspec(bytes.fromhex(rest.decode("ascii")))


_TEXT: Final[dict[bytes, Callable[[bytes], Address]]] = {
    b"unix": _unix_text,
    b"inet": _inet_text,
    b"inet6": _inet6_text,
    b"netlink": _netlink_text,
    b"vsock": _vsock_text,
    b"unspec": _unspec_text,
}


def _fields(form: bytes, rest: bytes, wanted: str) -> tuple[bytes, ...]:
    match = re.fullmatch(form, rest)
    if match is None:
        raise ValueError(f"write {wanted}")
    return match.groups(default=b"")


def _number(text: bytes) -> int:
    return int(text, 16 if text.startswith(b"0x") else 10) if text else 0
