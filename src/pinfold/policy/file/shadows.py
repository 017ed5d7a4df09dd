"""Rules that are never reached, since an earlier rule holds whenever they do (pure).

A rule against the program holds for more than it says (``policy.judging.judge``): for directories
above that are renamed, and for where links lead. An earlier rule that is milder decides before it
all the same, but not there, so such a rule is *mostly* shadowed.

This errs on the side of "is reached": what is called unreachable can be removed, and no verdict
changes. A rule is compared with those earlier ones alone that can be as wide as it is, found by
their first condition on a name, a program, an argv or an address; a policy may have thousands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.paths import under
from pinfold.policy import globs
from pinfold.policy.calls import ASK, KILL
from pinfold.policy.file.fit import Sort, calls_for, sorts_for, sorts_of
from pinfold.policy.globs import leading
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Network, IPv6Network

    from pinfold.policy.model import Match, PolicyModel, Rule

_GLOBS: Final = ("path", "real", "unix", "program")
_SETS: Final = ("access", "argv", "family", "abstract")
_STRICTER: Final = ("access", "argv", "env", "family", "networks", "ports", "program")
"""Conditions that hold more easily for a rule against the program; see ``policy.judging.match``."""
_STRICTNESS: Final = {ASK: 1, DENY: 2, KILL: 3}
_ANCHORS: Final = ("path", "exact", "real", "unix", "program", "argv", "abstract", "networks")


class Shadowed(NamedTuple):
    """A rule that is never reached."""

    rule: Rule
    by: Rule
    """The earlier one that decides in its place."""
    mostly: bool = False
    """Whether it holds for what it does not say, and for nothing else."""


class _Ready(NamedTuple):
    # A rule with what is needed again and again.
    rule: Rule
    calls: frozenset[str]
    rank: int
    lacks: bool
    """Whether it can be about a call that names nothing."""


def shadowed(model: PolicyModel) -> Iterator[Shadowed]:
    """Yields the rules that are never reached."""
    real = model.real or any(rule.match.real for rule in model.rules)
    redirects = any(rule.action.verb == REDIRECT for rule in model.rules)
    earlier = _Earlier()
    for rule in model.rules:
        ready = _ready(rule)
        # Where a redirect leads is judged by these alone, so what comes before is another there.
        if not (redirects and rule.action.verb in {DENY, KILL}):
            for one in earlier.candidates(rule.match):
                if _covers(one, ready):
                    yield Shadowed(rule, one.rule, _holds_beyond(one, ready, real))
                    break
        earlier.add(ready)


def _ready(rule: Rule) -> _Ready:
    match = rule.match
    strict = rule.action.verb in {DENY, ASK, KILL}
    return _Ready(
        rule,
        frozenset(calls_for(match)),
        2 if strict else int(rule.action.verb != ALLOW),
        Sort.NOTHING in sorts_for(match) and any(Sort.NOTHING in sorts_of(one) for one in match.on),
    )


class _Earlier:
    # The rules so far, by what the first of their conditions names.

    def __init__(self) -> None:
        self._rules: list[_Ready] = []
        self._free: list[int] = []
        self._by: dict[tuple[str, object], list[int]] = {}

    def add(self, ready: _Ready) -> None:
        number = len(self._rules)
        self._rules.append(ready)
        key = next((key for key in _ANCHORS if getattr(ready.rule.match, key)), None)
        if key is None:
            self._free.append(number)
            return
        for one in getattr(ready.rule.match, key):
            name = globs.parse(one)[0] if key in _GLOBS else None
            self._by.setdefault((key, one if name is None else name), []).append(number)

    def candidates(self, match: Match) -> Iterator[_Ready]:
        found = set(self._free)
        for key in _ANCHORS:
            if given := getattr(match, key):
                for one in _wider(key, given[0]):
                    found.update(self._by.get((key, one), ()))
        return (self._rules[number] for number in sorted(found))


def _wider(key: str, one: object) -> Iterable[object]:
    # What a condition can name and cover this.
    if key == "networks":
        network: IPv4Network | IPv6Network = one  # type: ignore[assignment]
        return [network.supernet(new_prefix=length) for length in range(network.prefixlen + 1)]
    if key not in _GLOBS:
        return [one]
    assert isinstance(one, bytes)
    name = globs.parse(one)[0]
    if name is None:
        return [one, b"**", b"/"]
    parts = name.split(b"/")
    return [b"**", b"/", *(b"/".join(parts[:count]) for count in range(2, len(parts) + 1))]


def _covers(wide: _Ready, narrow: _Ready) -> bool:
    # Whether whatever meets ``narrow`` meets ``wide``; False where that is hard to say.
    one, other = wide.rule.match, narrow.rule.match
    if not narrow.calls <= wide.calls:
        return False
    if narrow.lacks and (not one.on or _needs_subject(wide.rule)):
        return False
    if wide.rank < narrow.rank and any(getattr(one, key) for key in _STRICTER):
        return False
    return (
        all(_globs_cover(getattr(one, key), getattr(other, key)) for key in _GLOBS)
        and (not one.exact or (bool(other.exact) and set(other.exact) <= set(one.exact)))
        and all(_set_covers(getattr(one, key), getattr(other, key)) for key in _SETS)
        and set(one.env) <= set(other.env)
        and (one.loader is None or one.loader == other.loader)
        and _networks_cover(one, other)
        and _ports_cover(one, other)
    )


def _holds_beyond(wide: _Ready, narrow: _Ready, real: bool) -> bool:
    # Whether the narrow one of two may hold where the wide one does not, for what it does not say.
    if _STRICTNESS.get(narrow.rule.action.verb, 0) <= _STRICTNESS.get(wide.rule.action.verb, 0):
        return False
    one, other = wide.rule.match, narrow.rule.match
    if one.program or (real and (one.path or one.exact or one.real or one.unix)):
        return True
    if narrow.calls.isdisjoint(GROUPS["rename"]):
        return False
    above = {
        text for glob in (*other.path, *map(globs.escape, other.exact)) for text in leading(glob)
    }
    return not all(
        (not one.path or any(_glob_covers(glob, text) for glob in one.path))
        and (not one.exact or text in one.exact)
        for text in above
    )


def _needs_subject(rule: Rule) -> bool:
    # A redirect of a path or an address is no verdict on a send that has no address.
    return rule.action.path is not None or rule.action.address is not None


def _set_covers(wide: Iterable[object], narrow: Iterable[object]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _globs_cover(wide: tuple[bytes, ...], narrow: tuple[bytes, ...]) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(any(_glob_covers(one, other) for one in wide) for other in narrow)


def _glob_covers(wide: bytes, narrow: bytes) -> bool:
    if wide in {narrow, b"**", b"/"}:
        return True
    name, below = globs.parse(wide)[0], globs.parse(narrow)[0]
    # What a name without wildcards covers is covered by a name above it.
    return name is not None and below is not None and under(below, name)


def _networks_cover(wide: Match, narrow: Match) -> bool:
    return not wide.networks or (
        bool(narrow.networks)
        and all(any(_within(one, other) for other in wide.networks) for one in narrow.networks)
    )


def _within(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def _ports_cover(wide: Match, narrow: Match) -> bool:
    return not wide.ports or (
        bool(narrow.ports)
        and all(
            any(low <= first and last <= high for low, high in wide.ports)
            for first, last in narrow.ports
        )
    )
