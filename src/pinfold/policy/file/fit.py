"""Which calls a condition can be about, and which an action can answer (pure).

A rule can be written that no call will ever meet: a port for a rename, arguments for a connect. It
does nothing, quietly, and whoever wrote it believes that it does. So what can never hold together
is found out when a policy is read. This errs on the side of "can be": a rule that is refused here
is one that cannot work.

Conditions hold of a *subject* of a call. What matters is only which sort of thing that is.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Final

from pinfold.policy.judging.reach import features_of
from pinfold.policy.model import ACCESS
from pinfold.syscalls.kinds import PATHS
from pinfold.syscalls.table import DESCRIPTOR_ROWS, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.policy.model import Match


class Sort(Enum):
    """What a subject can be."""

    NAME = auto()
    """A path argument."""
    PROGRAM = auto()
    """The path argument of an exec, which has arguments and an environment."""
    UNIX = auto()
    """The address of a Unix socket with a path."""
    ABSTRACT = auto()
    """The abstract name of a Unix socket."""
    INET = auto()
    """An address with a host and a port."""
    OTHER = auto()
    """Any other address."""
    DOMAIN = auto()
    """No address, but the family of a socket that is made."""
    NOTHING = auto()
    """None: the call is its own subject."""


EVERY: Final = frozenset(Sort)
_NAMED: Final = frozenset({Sort.NAME, Sort.PROGRAM, Sort.UNIX})
_ADDRESSES: Final = frozenset({Sort.UNIX, Sort.ABSTRACT, Sort.INET, Sort.OTHER})
_BY_DESCRIPTOR: Final = frozenset(row.name for row in DESCRIPTOR_ROWS)
_FAMILY: Final = {
    "unix": frozenset({Sort.UNIX, Sort.ABSTRACT, Sort.OTHER, Sort.DOMAIN}),
    "inet": frozenset({Sort.INET, Sort.DOMAIN}),
    "inet6": frozenset({Sort.INET, Sort.DOMAIN}),
    # An IPv4 socket takes it for an address of its own.
    "unspec": frozenset({Sort.INET, Sort.OTHER, Sort.DOMAIN}),
}
_CONDITIONS: Final = {
    "path": _NAMED,
    "exact": _NAMED,
    "real": _NAMED,
    "access": _NAMED,
    "argv": frozenset({Sort.PROGRAM}),
    "env": frozenset({Sort.PROGRAM}),
    "networks": frozenset({Sort.INET}),
    "ports": frozenset({Sort.INET, Sort.OTHER}),
    "unix": frozenset({Sort.UNIX}),
    "abstract": frozenset({Sort.ABSTRACT}),
}
_KEYS: Final = {"networks": "address", "ports": "port"}
"""Conditions that a file has another word for."""


@cache
def sorts_of(call: str) -> frozenset[Sort]:
    """Returns what the subjects of a call can be, by its name."""
    found = features_of(call)
    sorts = set()
    if found.paths:
        sorts.add(Sort.PROGRAM if found.vectors else Sort.NAME)
    if found.address:
        sorts |= _ADDRESSES
        if found.row.group == "send":
            sorts.add(Sort.NOTHING)  # without an address
    if found.domain >= 0:
        sorts.add(Sort.DOMAIN)
    return frozenset(sorts or {Sort.NOTHING})


def conditions(match: Match) -> list[tuple[str, frozenset[Sort]]]:
    """Returns the conditions that a rule has on its subject: the key, and what it can hold of."""
    found = [
        (_KEYS.get(name, name), sorts)
        for name, sorts in _CONDITIONS.items()
        if getattr(match, name)
    ]
    if match.family:
        sorts = [
            _FAMILY.get(str(one), frozenset({Sort.OTHER, Sort.DOMAIN})) for one in match.family
        ]
        found.append(("family", frozenset[Sort]().union(*sorts)))
    return found


def sorts_for(match: Match) -> frozenset[Sort]:
    """Returns what the conditions of a rule can hold of all at once."""
    return EVERY.intersection(*(sorts for _, sorts in conditions(match)))


def calls_for(match: Match) -> tuple[str, ...]:
    """Returns the calls that a rule can be about, those of its ``on`` that no condition excludes.

    Without ``on``, these are the calls of the table that have a subject which the conditions can
    hold of.
    """
    sorts = sorts_for(match) - (frozenset() if match.on else {Sort.NOTHING})
    return tuple(
        call
        for call in match.on or TABLE
        if sorts_of(call) & sorts
        and (not match.access or not match.access.isdisjoint(features_of(call).possible))
    )


def contradiction(match: Match) -> str | None:
    """Returns why no call can ever meet a rule's conditions; None when one can."""
    asked = conditions(match)
    if match.on:
        for key, sorts in asked:
            if not any(sorts_of(call) & sorts for call in match.on):
                return f"{key}: {_lack(match.on, key)}, so this never holds"
    for index, (key, sorts) in enumerate(asked):
        for other, others in asked[:index]:
            if not sorts & others:
                return f"{key} and {other} are never about the same thing; make it two rules"
    if calls_for(match):
        return None
    if match.access and calls_for(replace(match, access=frozenset())):
        which = match.on[0] if len(match.on) == 1 else "no such call"
        never = " or ".join(word for word in ACCESS if word in match.access)
        return f"access: {which} {'does not' if len(match.on) == 1 else 'can'} {never} anything"
    return "no call can meet all these conditions at once; make it two rules"


def takes(call: str) -> frozenset[str]:
    """Returns which keys of ``to`` a call can be redirected by."""
    sorts = sorts_of(call)
    keys = set()
    if Sort.UNIX in sorts or any(kind in PATHS for _, kind in features_of(call).row.arguments):
        keys.add("path")
    if Sort.PROGRAM in sorts:
        keys |= {"argv", "set_env", "unset_env"}
    if sorts & _ADDRESSES:
        keys.add("address")
    return frozenset(keys)


def misfit(calls: Iterable[str], keys: Iterable[str]) -> str | None:
    """Returns why calls cannot be redirected by these keys of ``to``; None when they can.

    Args:
        calls: The calls that the rule can be about.
        keys: The keys that are given.
    """
    calls = tuple(calls)
    keys = tuple(keys)
    for key in keys:
        if not any(key in takes(call) for call in calls):
            return f"to.{key}: {_lack(calls, key)}, so there is nothing to replace"
    for call in calls:
        # What is done to an open file is in a group with what is done by path: it is denied.
        if call not in _BY_DESCRIPTOR and not takes(call).intersection(keys):
            return f"{call} has nothing that `to` replaces; leave it out of `on`"
    return None


_SHOWN: Final = 4
"""Calls that an error lists."""
_NOUNS: Final = {
    "path": ("has", "path"),
    "exact": ("has", "path"),
    "real": ("has", "path"),
    "access": ("has", "path"),
    "argv": ("runs", "program"),
    "env": ("runs", "program"),
    "set_env": ("runs", "program"),
    "unset_env": ("runs", "program"),
    "family": ("has", "address family"),
}


def _lack(calls: tuple[str, ...], key: str) -> str:
    verb, noun = _NOUNS.get(key, ("has", "socket address"))
    if len(calls) == 1:
        return f"{calls[0]} {verb} no {noun}"
    some = ", ".join(calls[:_SHOWN]) + (", …" if len(calls) > _SHOWN else "")
    return f"none of {some} {verb} {'an' if noun[0] == 'a' else 'a'} {noun}"
