"""Rules about whom a program talked to: socket addresses, and families of sockets (pure)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from pinfold.codec.sockaddr import Inet, Inet6
from pinfold.policy.globs import escape
from pinfold.policy.judging.meaning import meanings
from pinfold.policy.learning.folding import decodable, random_part
from pinfold.policy.model import Match
from pinfold.syscalls.groups import GROUPS
from pinfold.uapi.net import AF_UNIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pinfold.codec.sockaddr import Address
    from pinfold.policy.learning.facts import Fact
    from pinfold.policy.learning.folding import Names

SOCKETS: Final = ("connect", "bind", "send")
"""Groups of calls with an address to judge."""

_EPHEMERAL: Final = (32768, 65535)
"""Ports that the kernel chooses by itself (``ip_local_port_range``)."""
_FAMILIES: Final[dict[int, str]] = {
    0: "unspec",
    1: "unix",
    2: "inet",
    10: "inet6",
    16: "netlink",
    17: "packet",
    40: "vsock",
}


def families(facts: Iterable[Fact]) -> frozenset[str | int]:
    """Returns the families of the sockets that were made, in the words of a rule."""
    return frozenset(_FAMILIES.get(fact.family, fact.family) for fact in facts if fact.family >= 0)


def peers(facts: Iterable[Fact], names: Names) -> tuple[list[tuple[str, Match]], tuple[str, ...]]:
    """Returns named conditions that cover the addresses of a run.

    Returns:
        The conditions, and lines about addresses that no rule can name.
    """
    unix: dict[bytes, dict[str, None]] = {}
    abstract: dict[bytes, dict[str, None]] = {}
    words: dict[str | int, dict[str, None]] = {}
    hosts: dict[tuple[str, int], dict[str, None]] = {}
    notes: dict[str, None] = {}
    facts = [fact for fact in facts if fact.address is not None and fact.group in SOCKETS]
    chosen = any(fact.group == "bind" and _port(fact.address) == 0 for fact in facts)
    for fact in facts:
        assert fact.address is not None
        for meaning in meanings(fact.address, (fact.name,) if fact.name else (), fact.group):
            reading = meaning.readings[0] if meaning.readings else None
            if reading is None or reading.family == AF_UNIX:
                if meaning.name is not None:
                    unix.setdefault(names.pattern(meaning.name).glob, {})[fact.group] = None
                elif meaning.abstract is not None:
                    text = _abstract(meaning.abstract)
                    abstract.setdefault(text, {})[fact.group] = None
                else:
                    notes[f"{fact.call} of an address without a name: not covered"] = None
            elif reading.host is not None and reading.port is not None:
                own = chosen and reading.port >= _EPHEMERAL[0] and reading.host.is_loopback
                where = str(ip_network(reading.host)), -1 if own else reading.port
                hosts.setdefault(where, {})[fact.group] = None
            else:
                word = _FAMILIES.get(reading.family, reading.family)
                words.setdefault(word, {})[fact.group] = None
    found = [
        *((f"Unix {_in(used)}", Match(on=_calls(used), unix=globs)) for used, globs in _by(unix)),
        *(
            (f"abstract {_in(used)}", Match(on=_calls(used), abstract=texts))
            for used, texts in _by(abstract)
        ),
        *_networks(hosts),
        *(
            (f"{word} {_in(tuple(used))}", Match(on=_calls(used), family=frozenset({word})))
            for word, used in words.items()
        ),
    ]
    return found, tuple(notes)


def _port(address: Address | None) -> int:
    return address.port if isinstance(address, Inet | Inet6) else -1


def _abstract(name: bytes) -> bytes:
    # Programs that pass the whole structure have names that end in NUL bytes, which no file can
    # hold.
    text = decodable(random_part(name, temporary=True) or escape(name))
    return text.replace(b"\0", b"?")


def _calls(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(call for group in groups for call in GROUPS[group])


def _in(groups: tuple[str, ...]) -> str:
    return ", ".join(groups)


def _by(
    found: Mapping[bytes, Mapping[str, None]],
) -> list[tuple[tuple[str, ...], tuple[bytes, ...]]]:
    # The texts of each set of groups.
    result: dict[tuple[str, ...], list[bytes]] = {}
    for text, groups in found.items():
        result.setdefault(_in_order(groups), []).append(text)
    return [(used, tuple(sorted(texts))) for used, texts in result.items()]


def _in_order(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(groups, key=SOCKETS.index))


def _networks(
    hosts: Mapping[tuple[str, int], Mapping[str, None]],
) -> list[tuple[str, Match]]:
    # What differs only in its port is one rule, and then what differs only in its host.
    ports: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for (network, port), groups in hosts.items():
        ports.setdefault((_in_order(groups), network), []).append(port)
    rules: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for (used, network), found in ports.items():
        rules.setdefault((used, tuple(sorted(found))), []).append(network)
    return [
        (
            f"addresses {_in(used)}",
            Match(
                on=_calls(used),
                networks=tuple(ip_network(network) for network in networks),
                ports=tuple(_EPHEMERAL if port < 0 else (port, port) for port in found),
            ),
        )
        for (used, found), networks in rules.items()
    ]
