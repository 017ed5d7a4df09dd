"""Whether the conditions of a rule hold for one subject of a call (pure).

What a condition cannot know counts against whoever would gain by it. So most conditions are
stricter for a rule that allows than for any other one:

- *access*: an allow has to name everything that the call does with the file, any other rule one of
  it. Else an allow for reading would open a file for writing as well.
- *argv*: the first element has to match both the executed file's name and argv[0] for an allow, one
  of them for any other rule. An argv without elements is one empty element, as for the kernel.
- *env*: a variable may be there twice, and programs differ in which one they take. A value has to
  match each time for an allow, once for any other rule. An element without ``=`` is no variable.
- *path*, *exact*, *real*: of what is renamed they hold for a rule that denies, asks or kills also
  where they can be met by what lies below: with the directory it gets another name, too.
- *program*, *loader*: where it cannot be known, the condition holds for a rule that denies, asks or
  kills, and for no other.

An address that is too short for its family, or that could not be read, has no family, no host and
no port. No rule that allows can be about it. For one that denies, asks or kills a condition on any
of the three counts as met, and the call fails (EINVAL), as it does on most sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.codec.vector import StringVector
from pinfold.policy.calls import ASK, KILL
from pinfold.policy.globs import Above, GlobSet, Pattern
from pinfold.policy.judging.access import needed
from pinfold.policy.model import REST
from pinfold.policy.rules import ALLOW, DENY
from pinfold.uapi import net

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from pinfold.policy.calls import Trapped
    from pinfold.policy.judging.meaning import Meaning, Reading, Subject
    from pinfold.policy.model import Match, Rule

STRICT: Final = frozenset({DENY, ASK, KILL})
"""What holds against the program."""

_FAMILIES: Final = {
    "unix": net.AF_UNIX,
    "inet": net.AF_INET,
    "inet6": net.AF_INET6,
    "netlink": net.AF_NETLINK,
    "vsock": net.AF_VSOCK,
    "packet": net.AF_PACKET,
    "unspec": net.AF_UNSPEC,
}


def families(match: Match) -> frozenset[int]:
    """Returns the address families that a rule names, as numbers."""
    return frozenset(_FAMILIES[one] if isinstance(one, str) else one for one in match.family)


class Vectors:
    """The argument vector and the environment of a call, taken apart when first asked for.

    Args:
        call: A call, which may have neither.
        argv: The argument vector, where it is not the call's.
        env: The environment, likewise.
    """

    __slots__ = ("_argv", "_call", "_env")

    def __init__(
        self,
        call: Trapped,
        argv: Sequence[bytes] | None = None,
        env: Sequence[bytes] | None = None,
    ) -> None:
        self._call = call
        self._argv = argv if argv is None else argv or (b"",)
        self._env = env

    @property
    def argv(self) -> Sequence[bytes]:
        """The arguments, as the program will find them: never none at all."""
        if self._argv is None:
            self._argv = _strings(self._call, "argv") or (b"",)
        return self._argv

    @property
    def env(self) -> Sequence[bytes]:
        """The environment."""
        if self._env is None:
            self._env = _strings(self._call, "envp")
        return self._env

    def values(self, variable: bytes) -> list[bytes]:
        """Returns every value that an environment variable has."""
        start = variable + b"="
        return [one[len(start) :] for one in self.env if one.startswith(start)]


def _strings(call: Trapped, name: str) -> Sequence[bytes]:
    for argument in call.arguments:
        if argument.name == name:
            value = argument.value
            return value.values if isinstance(value, StringVector) else tuple(value)
    return ()


class Conditions:
    """The conditions of one rule, but for those that are looked up for all rules at a time.

    Those are the program, and one of the conditions on names (``indexed``); see
    ``policy.judging.judge``.

    Args:
        rule: The rule.

    Attributes:
        allows: Whether the rule allows.
        strict: Whether it denies, asks or kills.
        subject: Whether it can hold for what names something only.
        address: Whether it has a condition on the address's family, host or port.
        vectors: Whether it has a condition on argv or on the environment.
        indexed: ``exact``, ``path``, ``unix`` or ``real``: the condition that is looked up; or "".

    Raises:
        PolicyError: A glob or a pattern is malformed.
    """

    __slots__ = (
        "_above",
        "_above_real",
        "_abstract",
        "_access",
        "_argv",
        "_env",
        "_exact",
        "_families",
        "_loader",
        "_names",
        "_networks",
        "_ports",
        "_real",
        "_unix",
        "address",
        "allows",
        "indexed",
        "strict",
        "subject",
        "vectors",
    )

    def __init__(self, rule: Rule) -> None:
        match, action = rule.match, rule.action
        self.allows = action.verb == ALLOW
        self.strict = action.verb in STRICT
        self.address = bool(match.family or match.networks or match.ports)
        self.vectors = bool(match.argv or match.env)
        self.indexed = next(
            (name for name in ("exact", "path", "unix", "real") if getattr(match, name)), ""
        )
        self.subject = (
            bool(self.indexed or match.access or match.abstract)
            or self.address
            or action.path is not None
            or action.address is not None
        )
        self._access = match.access
        self._families = families(match)
        self._networks = _networks(match.networks)
        self._ports = match.ports
        self._abstract = tuple(map(Pattern, match.abstract))
        self._argv = tuple(map(Arguments, match.argv))
        self._env = tuple(
            (name, value if isinstance(value, bool) else Pattern(value))
            for name, value in match.env
        )
        self._loader = match.loader
        self._exact = frozenset(match.exact) if self.indexed != "exact" else frozenset()
        self._names = _further(match.path, self.indexed == "path")
        self._unix = _further(match.unix, self.indexed == "unix")
        self._real = _further(match.real, self.indexed == "real")
        self._above = _above(match.path, self.strict and self._names is not None)
        self._above_real = _above(match.real, self.strict and self._real is not None)

    def hold(
        self,
        call: Trapped,
        subject: Subject,
        meaning: Meaning,
        vectors: Vectors,
        *,
        below: bool = False,
    ) -> bool:
        """Returns whether all of them do, for one meaning of a subject.

        Args:
            call: The call.
            subject: What is judged.
            meaning: What it means.
            vectors: The call's, or what they are going to be.
            below: Whether it is enough for names that something below can meet the condition.
        """
        if self.subject and not subject.argument:
            return False
        return (
            (not self._access or self._do(subject.does))
            and (not self.address or self._at(meaning))
            and self._named(subject, meaning, below)
            and (not self.vectors or self._run(meaning.name, vectors))
            and (self._loader is None or self._loads(call, self._loader))
        )

    def _loads(self, call: Trapped, wanted: bool) -> bool:
        try:
            return call.loader() is wanted
        except OSError:
            # The task is gone or may not be looked at; see the head of the module.
            return self.strict

    def captured(self, name: bytes | None, vectors: Vectors) -> Sequence[bytes]:
        """Returns what the first ``REST`` of the pattern that matches stood for.

        It is everything after argv[0] where the rule has no pattern.
        """
        for one in self._argv:
            found = one.match(name, vectors.argv, self.allows)
            if found is not None:
                return vectors.argv[found]
        return vectors.argv[1:]

    def _do(self, does: frozenset[str]) -> bool:
        if self.allows:
            return bool(does) and needed(does) <= self._access
        return not does.isdisjoint(self._access)

    def _at(self, meaning: Meaning) -> bool:
        if meaning.unknown:
            return self.strict
        readings = meaning.readings[:1] if self.allows else meaning.readings
        return any(self._reads(one) for one in readings)

    def _reads(self, reading: Reading) -> bool:
        if self._families and reading.family not in self._families:
            return False
        if self._networks and (reading.host is None or not _within(reading.host, self._networks)):
            return False
        if not self._ports:
            return True
        port = reading.port
        # The ports of other machines' virtual sockets are another thing than those of the internet.
        if port is None or (reading.family == net.AF_VSOCK and not self._families):
            return False
        return any(first <= port <= last for first, last in self._ports)

    def _named(self, subject: Subject, meaning: Meaning, below: bool) -> bool:
        name, real = meaning.name, subject.real
        if self.indexed == "unix" and not subject.address:
            return False
        if self._abstract and not any(
            meaning.abstract is not None and one.match(meaning.abstract) for one in self._abstract
        ):
            return False
        if self._exact and name not in self._exact:
            return False
        if self._names is not None and not _fit(name, self._names, self._above if below else None):
            return False
        if self._unix is not None and (
            name is None or not subject.address or self._unix.match(name) < 0
        ):
            return False
        return self._real is None or _fit(real, self._real, self._above_real if below else None)

    def _run(self, name: bytes | None, vectors: Vectors) -> bool:
        if self._argv and not any(
            one.match(name, vectors.argv, self.allows) is not None for one in self._argv
        ):
            return False
        return all(self._has(vectors.values(variable), value) for variable, value in self._env)

    def _has(self, values: list[bytes], wanted: bool | Pattern) -> bool:
        if isinstance(wanted, bool):
            return bool(values) is wanted
        found = map(wanted.match, values)
        return bool(values) and (all(found) if self.allows else any(found))


def _above(patterns: tuple[bytes, ...], wanted: bool) -> Above | None:
    return Above((0, one) for one in patterns) if wanted else None


def _fit(name: bytes | None, patterns: GlobSet, above: Above | None) -> bool:
    if name is None:
        return False
    return patterns.match(name) >= 0 or (above is not None and bool(above.of(name)))


def _further(patterns: tuple[bytes, ...], indexed: bool) -> GlobSet | None:
    # What has to be asked rule by rule.
    return GlobSet(patterns) if patterns and not indexed else None


class Arguments:
    """A pattern for an argument vector.

    Each argument is looked at a bounded number of times, whatever the vector is: between two
    ``REST`` the first place that fits is the right one.

    Args:
        elements: A pattern an element, or ``REST``.

    Raises:
        PolicyError: An element is malformed.
    """

    __slots__ = ("_groups", "_slash", "_starts")

    def __init__(self, elements: tuple[bytes, ...]) -> None:
        groups: list[list[Pattern]] = [[]]
        for element in elements:
            if element != REST:
                groups[-1].append(Pattern(element))
            elif len(groups) == 1 or groups[-1]:  # else there is one right before
                groups.append([])
        self._groups = groups
        self._starts = bool(elements) and elements[0] != REST
        self._slash = self._starts and b"/" in elements[0]

    def match(self, name: bytes | None, argv: Sequence[bytes], allows: bool) -> slice | None:
        """Returns where in argv is what the first ``REST`` stands for; None where nothing matches.

        Args:
            name: The name of the executed file; None if it has none.
            argv: The arguments.
            allows: Whether it is for a rule that allows.
        """
        first, last = self._groups[0], self._groups[-1]
        at, end = len(first), len(argv) - len(last)
        if self._starts and (not argv or not self._begins(first[0], name, argv[0], allows)):
            return None
        skip = int(self._starts)
        if not _fits(first[skip:], argv, skip):
            return None
        if len(self._groups) == 1:
            return slice(at, at) if at == len(argv) else None
        if at > end or not _fits(last, argv, end):
            return None
        begin, stop = at, end
        for number, group in enumerate(self._groups[1:-1]):
            while at + len(group) <= end and not _fits(group, argv, at):
                at += 1
            if at + len(group) > end:
                return None
            if not number:
                stop = at
            at += len(group)
        return slice(begin, stop)

    def _begins(self, first: Pattern, name: bytes | None, argv0: bytes, allows: bool) -> bool:
        if not self._slash:
            name = None if name is None else name.rpartition(b"/")[2]
            argv0 = argv0.rpartition(b"/")[2]
        by_name = name is not None and first.match(name)
        if by_name is not allows:
            return by_name
        return first.match(argv0)


def _fits(group: list[Pattern], argv: Sequence[bytes], at: int) -> bool:
    if at + len(group) > len(argv):
        return False
    return all(one.match(argv[at + number]) for number, one in enumerate(group))


_Networks = dict[tuple[int, int], frozenset[int]]
"""By IP version and number of bits that are not looked at: the bits before."""


def _networks(networks: Iterable[IPv4Network | IPv6Network]) -> _Networks:
    found: dict[tuple[int, int], set[int]] = {}
    for one in networks:
        version, length = one.version, one.prefixlen
        address = int(one.network_address)
        if version == _IPV6 and length >= _MAPPED_LENGTH and address >> 32 == _MAPPED:
            version, length, address = 4, length - _MAPPED_LENGTH, address & 0xFFFFFFFF
        unseen = (128 if version == _IPV6 else 32) - length
        found.setdefault((version, unseen), set()).add(address >> unseen)
    return {key: frozenset(values) for key, values in found.items()}


_IPV6: Final = 6
_MAPPED_LENGTH: Final = 96
_MAPPED: Final = 0xFFFF


def _within(host: IPv4Address | IPv6Address, networks: _Networks) -> bool:
    number, version = int(host), host.version
    return any(
        version == wanted and number >> unseen in values
        for (wanted, unseen), values in networks.items()
    )
