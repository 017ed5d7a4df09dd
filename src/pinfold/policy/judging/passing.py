"""What a policy can only allow, as far as a call's registers tell (pure).

A call that no rule can decide differently needs no stop. What is known without looking at memory is
little: which call it is, what an open may do with the file (its flags), the family of a new socket.
Everything else about a call counts as unknown here, and of what is unknown only this is assumed:

- A rule that does not just allow *may* hold, unless the call surely does nothing of its ``access``
  or has none of its families. That is all that is ever held against such a rule, so a condition
  that is added to the language later makes nothing pass.
- A rule that allows *must* hold, and ends the search, only if it has no other condition than its
  calls, ``access`` and, for a new socket, ``family``. It is compared as a whole with a rule that
  has these alone, so a condition that is added later makes it one that need not hold.
- Where no rule needs to hold, the default is in force.

What can only be allowed is allowed by a rule with a name, perhaps, and that is in the log. So where
there is a log this is not asked (``session``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.policy.judging.access import O_PATH, OPEN_TELLING, open_access, possible
from pinfold.policy.judging.match import families
from pinfold.policy.judging.meaning import domains
from pinfold.policy.judging.reach import features_of
from pinfold.policy.model import Match
from pinfold.policy.rules import ALLOW
from pinfold.syscalls.forms import NOTHING, WHOLE, Form
from pinfold.syscalls.kinds import Kind
from pinfold.uapi.net import AF_INET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinfold.policy.model import Rule
    from pinfold.syscalls.forms import Forms

_KEPT: Final = 1024
_LOW: Final = 0xFFFFFFFF
_KINDS: Final = 16
"""Values of the part of a socket's type that can say what family it is; see ``meaning.domains``."""
_ANY_OTHER: Final = frozenset({-1})
"""Families of a socket of which no rule speaks: a number that is none."""
_BY_FLAGS: Final = frozenset({"open", "openat"})
"""Opens whose flags are in a register."""


class Saying(NamedTuple):
    """What a rule can say of a call of which only the registers are known."""

    allows: bool
    access: frozenset[str]
    families: frozenset[int]
    bare: bool
    """Whether it has no conditions but these, and on which calls it is about."""


def saying(rule: Rule) -> Saying:
    """Returns what a rule can say."""
    match = rule.match
    allows = rule.action.verb == ALLOW
    numbers = families(match) if match.family else _NO_FAMILY
    bare = (
        allows
        # Most have one of these, and the comparison takes its time.
        and not (match.path or match.exact or match.unix or match.argv)
        and replace(match, on=(), access=_NO_WORDS, family=_NO_FAMILY) == _ANYTHING
        and all(0 <= number <= _LOW for number in numbers)
    )
    return Saying(allows, match.access, numbers, bare)


_ANYTHING: Final = Match()
_NO_WORDS: Final[frozenset[str]] = frozenset()
_NO_FAMILY: Final[frozenset[int]] = frozenset()


class _Known(NamedTuple):
    # What the registers say of a call.
    does: frozenset[str]
    """It does no more than this with anything that it names."""
    named: bool
    """Whether it names files only, and does something with each."""
    families: frozenset[int] | None
    """Of the new socket: a rule about one of these may hold, one about all of them does. None for
    calls that make none."""


def distinct(says: Iterable[Saying]) -> tuple[Saying, ...]:
    """Returns what matters of what rules say: of rules that say the same the first one does."""
    return tuple(one for one in dict.fromkeys(says) if not one.allows or one.bare)


@lru_cache(maxsize=_KEPT)
def forms(name: str, says: tuple[Saying, ...], *, default: bool) -> Forms:
    """Returns which forms of a call are allowed, whatever there is in memory.

    Args:
        name: The call.
        says: What the rules about it say, in their order.
        default: Whether it is allowed where none of them holds.
    """
    call = features_of(name)
    if call.domain >= 0:
        return _by_family(call.domain, says, default=default)
    if name in _BY_FLAGS:
        at = next(at for at, (_, kind) in enumerate(call.row.arguments) if kind is Kind.OPEN_FLAGS)
        passing = frozenset(
            words
            for words in _opens().values()
            if _is_certain(_Known(words, True, None), says, default=default)
        )
        cubes = _cubes(_BITS, 0, 0, passing)
        if cubes == [(0, 0)]:
            return WHOLE
        # The plainest one first: it is the most frequent.
        return tuple(Form(((at, mask, value),), True) for mask, value in sorted(cubes, key=_plain))
    does = possible(name)
    named = not call.address and bool(call.paths) and all(map(does.get, call.paths))
    known = _Known(_NO_WORDS.union(*does.values()), named, None)
    return WHOLE if _is_certain(known, says, default=default) else NOTHING


def without(name: str, access: frozenset[str]) -> Forms:
    """Returns the forms of a call that surely do nothing of ``access`` with whatever they name."""
    return forms(name, (Saying(False, access, _NO_FAMILY, False),), default=True)


def _is_certain(known: _Known, says: Iterable[Saying], *, default: bool) -> bool:
    for one in says:
        if not one.allows and _may_hold(one, known):
            return False
        if one.allows and _must_hold(one, known):
            return True
    return default


def _may_hold(one: Saying, known: _Known) -> bool:
    if one.access and one.access.isdisjoint(known.does):
        return False
    return not (one.families and known.families and one.families.isdisjoint(known.families))


def _must_hold(one: Saying, known: _Known) -> bool:
    if not one.bare:
        return False
    if one.access and not (known.named and known.does <= one.access):
        return False
    if not one.families:
        return True
    return known.families is not None and known.families <= one.families


# Opens.


def _flags(mask: int) -> Iterable[int]:
    # All values with no bit outside a mask.
    value = mask
    while True:
        yield value
        if not value:
            return
        value = (value - 1) & mask


@cache
def _opens() -> dict[int, frozenset[str]]:
    # All that an open can do, by the bits of its flags that tell.
    return {flags: open_access(flags) for flags in _flags(OPEN_TELLING)}


_BITS: Final = tuple(
    # The one first that makes the others meaningless.
    sorted((1 << at for at in range(32) if OPEN_TELLING >> at & 1), key=lambda bit: bit != O_PATH)
)


def _cubes(
    bits: Sequence[int], mask: int, value: int, passing: frozenset[frozenset[str]]
) -> list[tuple[int, int]]:
    # (mask, value) pairs that cover all flags that pass, and no others.
    opens = _opens()
    found = {opens[value | rest] in passing for rest in _flags(sum(bits))}
    if len(found) == 1:
        return [(mask, value)] if found.pop() else []
    bit, *rest = bits
    mask |= bit
    return [*_cubes(rest, mask, value, passing), *_cubes(rest, mask, value | bit, passing)]


def _plain(cube: tuple[int, int]) -> tuple[int, int]:
    return cube[1], cube[0]


# Sockets.


def _by_family(at: int, says: Sequence[Saying], *, default: bool) -> Forms:
    found = []
    for family in sorted({AF_INET}.union(*(one.families for one in says))):
        plain = _families(family, 0)
        tests = ((at, _LOW, family & _LOW),)
        for kind in range(_KINDS):
            special = _families(family, kind)
            if special != plain:
                passes = _is_certain(_Known(frozenset(), False, special), says, default=default)
                found.append(Form((*tests, (at + 1, _KINDS - 1, kind)), passes))
        passes = _is_certain(_Known(frozenset(), False, plain), says, default=default)
        found.append(Form(tests, passes))
    rest = _is_certain(_Known(frozenset(), False, _ANY_OTHER), says, default=default)
    return _shortened([*found, Form((), rest)])


def _families(family: int, kind: int) -> frozenset[int]:
    return frozenset(one.readings[0].family for one in domains(family, kind))


def _shortened(found: list[Form]) -> Forms:
    # A form that is decided like all that come after it need not be named.
    if len({one.passes for one in found}) == 1:
        return WHOLE if found[0].passes else NOTHING
    *named, rest = found
    while named and named[-1].passes == rest.passes:
        named.pop()
    return (*named, rest) if rest.passes else tuple(named)
