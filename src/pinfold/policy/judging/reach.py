"""Which calls a rule can be about, and what of them has to be read for it (pure).

A rule that names calls is about those of them that can meet its conditions. One that names none is
about every call of the table that has a subject for them: something with a name, an address, or,
where it speaks of a family alone, the family of a new socket. Conditions on argv or on the
environment are about executing a program.

What a rule cannot be about is not trapped for it. So this has to say too much rather than too
little: a call that is left out here runs unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.policy.judging.access import possible
from pinfold.policy.judging.replace import ADDRESSES
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.syscalls.table import DESCRIPTOR_ROWS, TABLE, Row

if TYPE_CHECKING:
    from pinfold.policy.model import Match


class Features(NamedTuple):
    """What of a call a condition can be about."""

    row: Row
    paths: tuple[str, ...]
    """Arguments with the name of a file: paths, or the descriptor of a call that does to an open
    file what others do to a named one."""
    address: str
    """The argument with a socket address; or empty."""
    domain: int
    """Register of the address family of a socket that is made, -1 for other calls."""
    vectors: bool
    """Whether it has argv and an environment."""
    possible: frozenset[str]
    """All that it may do with what is named."""


def features(name: str) -> Features:
    """Returns what of a call a condition can be about; one that the table lacks has nothing."""
    row = TABLE.get(name) or Row(name, "", ())
    paths = [argument for argument, kind in row.arguments if kind in PATHS]
    if row in DESCRIPTOR_ROWS:
        paths.append(row.arguments[0][0])
    domains = [at for at, (argument, _) in enumerate(row.arguments) if argument == "domain"]
    words: frozenset[str] = frozenset()
    return Features(
        row,
        tuple(paths),
        next((argument for argument, kind in row.arguments if kind in ADDRESSES), ""),
        domains[0] if domains else -1,
        any(kind is Kind.STRINGS for _, kind in row.arguments),
        words.union(*possible(name).values()),
    )


class Reach(NamedTuple):
    """What is needed of a rule's conditions to tell which calls it can be about."""

    on: tuple[str, ...]
    name: bool
    """Whether there is a condition on a name: of a file, or of a Unix socket's path."""
    access: frozenset[str]
    address: bool
    """Whether there is one that only an address can meet."""
    family: bool
    vectors: bool
    """Whether there is one on argv or on the environment."""

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls, by name."""
        return tuple(name for name in self.on or TABLE if self._meets(features_of(name)))

    def _meets(self, call: Features) -> bool:
        if (self.name or self.access) and not (call.paths or call.address):
            return False
        if self.access and self.access.isdisjoint(call.possible):
            return False
        if self.address and not call.address:
            return False
        if self.family and not call.address and call.domain < 0:
            return False
        if self.vectors and not call.vectors:
            return False
        if self.on:
            return True
        return bool(call.paths or call.address) or self.family


def reach(match: Match) -> Reach:
    """Returns what calls a rule with these conditions reaches."""
    return Reach(
        match.on,
        bool(match.path or match.exact or match.real),
        match.access,
        bool(match.networks or match.ports or match.unix or match.abstract),
        bool(match.family),
        bool(match.argv or match.env),
    )


_KNOWN: Final = {name: features(name) for name in TABLE}


def features_of(name: str) -> Features:
    """Returns what of a call a condition can be about, like :func:`features`, worked out before."""
    return _KNOWN.get(name) or features(name)
