"""What a program did, as facts that a policy can be learned from (pure).

A fact is about one subject of a call (a path, an address, the call itself), in the terms in which a
rule speaks: the name that was judged, what the call does with it, the argv of an exec. What differs
from call to call and that no rule can ask about (descriptors, sizes, most flags) is left out, so
that a program that opens a file a thousand times says one thing.

A program chooses what it does, and how many different things: facts are bounded in number and size.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr
from pinfold.codec.vector import StringVector
from pinfold.policy.judging.access import access_of
from pinfold.syscalls.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Trapped

MOST: Final = 50_000
"""Facts that are kept of one run."""
ROOM: Final = 32 << 20
"""Bytes of names and arguments in them."""
_ARGUMENTS: Final = 64
_BYTES: Final = 8192
_PRIVATE: Final = 0o077
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Fact(NamedTuple):
    """One thing that was done."""

    call: str
    group: str
    name: bytes = b""
    """The normal name of a path, or of a Unix socket's path; empty for anything else."""
    access: frozenset[str] = frozenset()
    """What the call does with the path; see ``policy.judging.access``."""
    address: Address | None = None
    argv: tuple[bytes, ...] | None = None
    rest: bool = False
    """Whether the argv was longer than this."""
    family: int = -1
    """Of a new socket."""
    errno: int = 0
    """How it failed, where that matters: ENOENT and ENOTDIR; of an exec any."""
    listed: bool = False
    """Whether it was opened as a directory."""
    made: bool = False
    """Whether the call made it, and would have failed if it had been there."""
    private: bool = False
    """Whether that was for the owner alone: how temporary files are made."""


class Facts:
    """The facts of one run, each once, in the order in which they were first seen.

    Attributes:
        full: Whether there were more than are kept.
    """

    def __init__(self) -> None:
        self._facts: dict[Fact, None] = {}
        self._room = ROOM
        self.full = False

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, facts: list[Fact]) -> None:
        """Adds facts that are not there yet."""
        for fact in facts:
            if fact in self._facts:
                continue
            size = len(fact.name) + sum(map(len, fact.argv or ()))
            if len(self._facts) < MOST and size <= self._room:
                self._facts[fact] = None
                self._room -= size
            else:
                self.full = True


def facts_of(call: Trapped) -> list[Fact]:
    """Returns what a call is about, as if it were going to succeed.

    Preconditions: the slot is still that of the call, as in ``vector.StringVector``.
    """
    row = call.row
    base = Fact(row.name, row.group)
    found: list[Fact] = []
    access = access_of(call)
    values = {argument.name: argument.value for argument in call.arguments}
    addresses = {name: address for name, value in values.items() if (address := _address(value))}
    for argument, names in call.names.items():
        if argument in addresses:
            continue
        does = access.get(argument, frozenset())
        found.extend(base._replace(name=name, access=does) for name in dict.fromkeys(names))
    for argument, address in addresses.items():
        names = call.names.get(argument, (b"",))
        found.extend(base._replace(address=address, name=name) for name in dict.fromkeys(names))
    if not found:
        domain = row.arguments[0][0] == "domain" if row.arguments else False
        return [base._replace(family=call.registers[0] & 0xFFFFFFFF) if domain else base]
    if row.group == "exec" and "argv" in values:
        argv, rest = _argv(values["argv"])
        return [fact._replace(argv=argv, rest=rest) for fact in found]
    if row.group in ("open", "mkdir") and len(found) <= _NAMES:
        return [_made(fact, call, values) for fact in found]
    return found


_NAMES: Final = 2
"""A path means two names at most where its spelling is ambiguous."""


def settled(facts: list[Fact], result: int | None) -> list[Fact]:
    """Returns the facts of a call, with how it ended.

    Args:
        facts: As ``facts_of`` made them.
        result: The result register, signed; None for a call that never came back.
    """
    if result is None or not -_ERRNO_MAX <= result < 0:
        return facts
    number = -result
    return [
        fact._replace(
            errno=number if number in _ABSENT or fact.group == "exec" else 0,
            made=False,
            private=False,
        )
        for fact in facts
    ]


_ERRNO_MAX: Final = 511
"""Beyond are the codes of interrupted calls, which are made again."""


def _address(value: object) -> Address | None:
    if isinstance(value, Sockaddr):
        return value.address
    return value.name if isinstance(value, Message) else None


def _argv(value: StringVector | list[bytes]) -> tuple[tuple[bytes, ...], bool]:
    whole = value.values if isinstance(value, StringVector) else value
    kept: list[bytes] = []
    room = _BYTES
    for argument in whole[:_ARGUMENTS]:
        room -= len(argument)
        if room < 0:
            break
        kept.append(argument)
    return tuple(kept), len(kept) < len(whole)


def _made(fact: Fact, call: Trapped, values: dict[str, object]) -> Fact:
    how = values.get("how")
    flags = how.flags if isinstance(how, OpenHow) else 0
    mode = how.mode if isinstance(how, OpenHow) else 0
    for index, (_, kind) in enumerate(call.row.arguments):
        if kind is Kind.OPEN_FLAGS:
            flags = call.registers[index]
        elif kind is Kind.MODE:
            mode = call.registers[index]
    exclusive = os.O_CREAT | os.O_EXCL
    makes = fact.group == "mkdir" or flags & exclusive == exclusive
    return fact._replace(
        listed=fact.group == "open" and bool(flags & os.O_DIRECTORY),
        made=makes,
        private=makes and not mode & _PRIVATE,
    )
