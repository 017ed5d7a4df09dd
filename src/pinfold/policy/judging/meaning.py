"""What is judged of a call by itself, and what each of that can mean (pure).

A socket address can mean several things; each is judged, as each name of a path is:

- 0.0.0.0 and ``::`` are places to listen at for ``bind``. For anybody who sends or connects they
  are the machine itself: 127.0.0.1 or ``::1``, for ``::`` either.
- AF_UNSPEC is what the socket takes it for. In ``bind`` and in a send that can be an IPv4 address,
  in a send over a raw IPv6 socket an IPv6 address. In ``connect`` it dissolves a connection.

An IPv4-mapped IPv6 address (``::ffff:10.0.0.1``) is something else: not two meanings, but two
spellings of one. The packets are IPv4 packets to that host. An allow goes by the IPv4 address
alone, while any other rule holds if it fits either spelling. In a rule, a network below
``::ffff:0:0/96`` is the IPv4 network.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec.message import Message
from pinfold.codec.sockaddr import (
    Abstract,
    Inet,
    Inet6,
    Netlink,
    Other,
    Short,
    Sockaddr,
    Unix,
    Unnamed,
    Unspec,
    Vsock,
    parse,
)
from pinfold.policy.judging.access import access_of, moved
from pinfold.uapi import net

if TYPE_CHECKING:
    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Trapped
    from pinfold.policy.judging.reach import Features

_SOCK_TYPE: Final = 0xF
_SOCK_PACKET: Final = 10
"""An old way to ask for a packet socket: with AF_INET."""


class Reading(NamedTuple):
    """What one spelling of an address says."""

    family: int
    host: IPv4Address | IPv6Address | None = None
    port: int | None = None


class Meaning(NamedTuple):
    """One of the things that a subject can mean."""

    name: bytes | None = None
    """A normal name: of a file, or of a Unix socket."""
    readings: tuple[Reading, ...] = ()
    """Spellings of one address, the one that counts for an allow first; none for what is none."""
    abstract: bytes | None = None
    """The name of an abstract Unix socket."""
    unknown: bool = False
    """Whether it is an address of which nothing is known."""


class Subject(NamedTuple):
    """What is judged by itself: an argument that names something, or a call that has none."""

    argument: str = ""
    """Its name in the table; empty for the call as such."""
    meanings: tuple[Meaning, ...] = (Meaning(),)
    does: frozenset[str] = frozenset()
    """What the call may do with it, see ``policy.judging.access``."""
    real: bytes | None = None
    """The name that links lead to."""
    address: bool = False
    """Whether it is a socket address."""
    moves: bool = False
    """Whether it gets another name, and with it all that lies below."""


def meanings(address: Address, names: tuple[bytes, ...], group: str) -> tuple[Meaning, ...]:
    """Returns what a socket address can mean.

    Args:
        address: The address.
        names: The normal names that the path of a Unix socket can mean; may be none.
        group: The call's: ``connect``, ``bind`` or ``send``.
    """
    match address:
        case Unix():
            readings = (Reading(net.AF_UNIX),)
            return tuple(Meaning(name, readings) for name in names) or (Meaning(None, readings),)
        case Abstract(name):
            return (Meaning(None, (Reading(net.AF_UNIX),), name),)
        case Unnamed():
            return (Meaning(None, (Reading(net.AF_UNIX),)),)
        case Inet() | Inet6():
            return _hosts(address, group)
        case Netlink():
            return (Meaning(None, (Reading(net.AF_NETLINK),)),)
        case Vsock(_, port):
            return (Meaning(None, (Reading(net.AF_VSOCK, None, port),)),)
        case Unspec():
            return _unspecified(address, group)
        case Other(family):
            return (Meaning(None, (Reading(family),)),)
        case Short():
            return UNKNOWN


UNKNOWN: Final = (Meaning(unknown=True),)
"""What an address means of which nothing is known."""


def _hosts(address: Inet | Inet6, group: str) -> tuple[Meaning, ...]:
    host, port = address.host, address.port
    spelt = Reading(net.AF_INET6 if isinstance(address, Inet6) else net.AF_INET, host, port)
    mapped = address.as_inet if isinstance(address, Inet6) else None
    if mapped is not None:
        return tuple(Meaning(None, (*one.readings, spelt)) for one in _hosts(mapped, group))
    found = [spelt]
    if group != "bind" and not int(host):
        if isinstance(address, Inet6):
            found.append(Reading(net.AF_INET6, IPv6Address(1), port))
        # A socket that is bound to a mapped address takes "::" for the IPv4 one.
        found.append(Reading(net.AF_INET, IPv4Address(0x7F000001), port))
    return tuple(Meaning(None, (one,)) for one in found)


def _unspecified(address: Unspec, group: str) -> tuple[Meaning, ...]:
    found = [Meaning(None, (Reading(net.AF_UNSPEC),))]
    if group != "connect":
        inet = address.as_inet
        if inet is not None:
            found += _hosts(inet, group)
    if group == "send":
        inet6 = parse(net.SA_FAMILY.pack(net.AF_INET6) + address.data)
        if isinstance(inet6, Inet6):
            found += _hosts(inet6, group)
    return tuple(found)


def domains(domain: int, kind: int) -> tuple[Meaning, ...]:
    """Returns what the arguments of ``socket`` mean.

    Args:
        domain: The register of the address family, of which the kernel takes a C int.
        kind: The register of the socket's type.
    """
    family = domain & 0xFFFFFFFF
    found = Meaning(None, (Reading(family),))
    if family == net.AF_INET and kind & _SOCK_TYPE == _SOCK_PACKET:
        return found, Meaning(None, (Reading(net.AF_PACKET),))
    return (found,)


_NAMELESS: Final = (Meaning(),)


def subjects(features: Features, call: Trapped) -> tuple[Subject, ...]:
    """Returns what is judged of a call by itself; nothing if it names nothing.

    Args:
        features: What the call has.
        call: The call.
    """
    does, moving = access_of(call), moved(call)
    found = []
    for argument in features.paths:
        if argument not in call.settled:
            names = tuple(map(Meaning, call.names.get(argument, ()))) or _NAMELESS
            words, real = does.get(argument, frozenset()), call.real.get(argument)
            found.append(Subject(argument, names, words, real, False, argument in moving))
    argument = features.address
    if argument and argument not in call.settled:
        found += _addressed(features, call, argument, does.get(argument, frozenset()))
    if features.domain >= 0:
        at = features.domain
        found.append(Subject("domain", domains(call.registers[at], call.registers[at + 1])))
    return tuple(found)


def _addressed(
    features: Features, call: Trapped, argument: str, does: frozenset[str]
) -> tuple[Subject, ...]:
    group = features.row.group
    value = value_of(call, argument)
    address = value.address if isinstance(value, Sockaddr) else None
    if group == "send":
        # It goes to the peer if it has no address, or one of no bytes.
        if isinstance(value, Message):
            address = value.name
            if address is None:
                return ()
        if value is None or address == _NO_BYTES:
            return ()
    if address is None:
        return (Subject(argument, UNKNOWN, does, None, True),)
    names = call.names.get(argument, ())
    real = call.real.get(argument)
    return (Subject(argument, meanings(address, names, group), does, real, True),)


_NO_BYTES: Final = Short(b"")


def value_of(call: Trapped, name: str) -> Any:
    """Returns the value of a pinned argument by its name in the table; None without one."""
    for argument in call.arguments:
        if argument.name == name:
            return argument.value
    return None
