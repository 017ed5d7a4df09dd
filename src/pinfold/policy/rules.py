"""Path rules: which names a call may use, and which names stand for others.

A call's path can mean more than one name (a ``..`` behind a symbolic link, see
:mod:`pinfold.paths`). A deny holds if *any* of them matches, since the target chooses which
spelling to use; a map goes by the first that has one. What a map gives is judged by the denies
again, and never mapped again.

A denial holds also for a directory that is renamed with what it names in it, or can name in it:
``/a`` for ``/a/b``, and ``/home/ann`` for ``/home/*/.ssh``.

These are rules about strings: a bind mount or a second name of the same file passes them, and so
does a link unless real names are judged; see ``policy.judging.linked``.
"""

from __future__ import annotations

import errno
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.errors import InternalError, PolicyError
from pinfold.paths import Tree, join, normalise, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pinfold.policy.globs import Above

ALLOW: Final = "allow"
DENY: Final = "deny"
REDIRECT: Final = "redirect"

_CACHED: Final = 2048
"""Verdicts kept. Paths of a hostile target fill that with 24 MiB at most; usual ones take a tenth
of a kilobyte each."""


class PathVerdict(NamedTuple):
    """What becomes of a call."""

    action: str
    """``ALLOW``, ``DENY`` or ``REDIRECT``."""

    rule: str | None
    """The rule that says so, as on the command line (``deny /etc/shadow``, ``map /a=/b``)."""

    path: bytes | None
    """For ``REDIRECT``, the absolute path to use instead."""

    errno: int
    """For ``DENY``, what the call answers; else 0."""


NOT_JUDGED: Final = PathVerdict(ALLOW, None, None, 0)
"""What no rule is about."""


class _Map(NamedTuple):
    source: bytes
    target: bytes
    rule: str

    def apply(self, name: bytes) -> bytes:
        rest = name[len(self.source) :].lstrip(b"/")  # at most one slash: both are normal names
        return self.target if not rest else self.target.rstrip(b"/") + b"/" + rest


_UNLINKED: Final[Mapping[bytes, bytes]] = {}


class PathRules:
    """The maps and denies of one policy.

    Args:
        maps: Pairs FROM, TO of absolute paths; FROM stands for itself and everything below it.
        denies: Globs, see :mod:`pinfold.policy.globs`; the first that matches is the one named.
        linked: By glob, what it becomes where links are followed, and is denied in its name.

    Raises:
        PolicyError: A path or glob is malformed, or two maps have the same FROM.
    """

    def __init__(
        self,
        maps: Sequence[tuple[bytes, bytes]],
        denies: Sequence[bytes],
        linked: Mapping[bytes, bytes] = _UNLINKED,
    ) -> None:
        self.empty: Final = not maps and not denies
        """Whether there are no rules, so that every verdict is ``ALLOW``."""

        self._maps: Tree[_Map] = Tree()
        seen: dict[bytes, str] = {}
        for source, target in maps:
            rule = f"map {printable(_escape(source))}={printable(_escape(target))}"
            one = _Map(_absolute(source, rule), _absolute(target, rule), rule)
            if one.source in seen:
                raise PolicyError(f"{rule}: {seen[one.source]} already maps that name; keep one")
            seen[one.source] = rule
            self._maps.insert(one.source, one)
        said = [PathVerdict(DENY, f"deny {printable(glob)}", None, errno.EACCES) for glob in denies]
        pairs = [
            (one, verdict)
            for glob, verdict in zip(denies, said, strict=True)
            for one in (glob, linked.get(glob))
            if one is not None
        ]
        self._denied: Final = [glob for glob, _ in pairs]
        self._denials: Final = [verdict for _, verdict in pairs]
        self._match: Callable[[bytes], int] = _no_match
        self.literals: tuple[bytes, ...] = ()
        """Names that are denied one by one, without wildcards."""
        if pairs:
            from pinfold.policy.globs import GlobSet, parse  # noqa: PLC0415 (not for all)

            self._match = GlobSet(self._denied).match
            self.literals = tuple(glob for glob in self._denied if parse(glob)[0] == glob)
        self.shown: Final = (*(verdict.rule or "" for verdict in said), *seen.values())
        """All rules, as the log names them."""
        self._cache: Final[dict[tuple[tuple[bytes, ...], bool, bool], PathVerdict]] = {}

    def judge(
        self, names: tuple[bytes, ...], directory: bool = False, moves: bool = False
    ) -> PathVerdict:
        """Returns the verdict on a path.

        Args:
            names: The normal names that it may mean, the most likely first.
            directory: Whether its spelling insists on a directory, which a redirect must keep.
            moves: Whether it gets another name, and with it all that lies below.

        Raises:
            InternalError: There are no names, or one is not normal, so rules could be passed by.
        """
        key = (names, directory, moves)
        verdict = self._cache.get(key)
        if verdict is None:
            verdict = self._decide(names, directory, moves)
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[key] = verdict
        return verdict

    @cached_property
    def _above(self) -> Above:
        # Made when something is renamed; most programs never do.
        from pinfold.policy.globs import Above  # noqa: PLC0415

        return Above(enumerate(self._denied))

    def _match_below(self, name: bytes) -> int:
        # The first denial of a name or of something that can lie below it, or -1.
        found = self._above.of(name)
        own = self._match(name)
        return min(found if own < 0 else [*found, own], default=-1)

    def _decide(self, names: tuple[bytes, ...], directory: bool, moves: bool) -> PathVerdict:
        if not names:
            raise InternalError("no name to judge")
        match = self._match_below if moves else self._match
        for name in names:
            if normalise(name) != name:
                raise InternalError(f"not a normal name: {name!r}")
            denied = match(name)
            if denied >= 0:
                return self._denials[denied]
        for name in names:
            one = self._maps.deepest(name)
            if one is not None:
                break
        else:
            return NOT_JUDGED
        mapped = one.apply(name)
        denied = match(mapped)
        if denied >= 0:
            return self._denials[denied]
        return PathVerdict(
            REDIRECT, one.rule, mapped + b"/" if directory and mapped != b"/" else mapped, 0
        )


def parse_map(text: bytes, cwd: bytes) -> tuple[bytes, bytes]:
    r"""Returns FROM and TO of a map written ``FROM=TO``, as normal names.

    Args:
        text: The rule; ``\=`` and ``\\`` stand for the second byte.
        cwd: Absolute directory that relative sides are taken from; empty where there is none.

    Raises:
        PolicyError: No ``=``, an empty side, an unknown escape, a NUL byte, or a relative side
            without a ``cwd``.
    """
    from pinfold.policy.globs import malformed  # noqa: PLC0415 (not for all)

    sides = [b""]
    equals = len(text)
    at = 0
    while at < len(text):
        byte = text[at : at + 1]
        if byte == b"\0":
            raise malformed(text, at, "no file name has a NUL byte; remove it")
        if byte == b"\\":
            byte = text[at + 1 : at + 2]
            if byte not in {b"=", b"\\"}:
                raise malformed(
                    text, at, r"`\` escapes only `=` and `\`; write `\\` for a backslash"
                )
            at += 1
        elif byte == b"=" and len(sides) == 1:
            equals = at
            sides.append(b"")
            byte = b""
        sides[-1] += byte
        at += 1
    if len(sides) == 1:
        raise malformed(text, len(text), "a map is FROM=TO; add `=` and what to use instead")
    source, target = sides
    if not source:
        raise malformed(text, 0, "nothing before `=`; write the name to map")
    if not target:
        raise malformed(text, equals + 1, "nothing after `=`; write what to use instead")
    for side in sides:
        if not cwd and not side.startswith(b"/"):
            raise PolicyError("a relative name, and the working directory is gone; write it from /")
    return join(cwd, source), join(cwd, target)


def parse_deny(text: bytes) -> bytes:
    """Returns the glob ``text`` after checking it.

    Raises:
        PolicyError: It is malformed, see :mod:`pinfold.policy.globs`.
    """
    from pinfold.policy.globs import parse  # noqa: PLC0415 (not for all)

    parse(text)
    return text


def _no_match(_name: bytes) -> int:
    return -1


def _absolute(path: bytes, rule: str) -> bytes:
    if not path.startswith(b"/"):
        raise PolicyError(f"{rule}: {printable(path)!r} is not absolute; write it from the root")
    if b"\0" in path:
        raise PolicyError(f"{rule}: no file name has a NUL byte; remove it")
    return normalise(path)


def _escape(path: bytes) -> bytes:
    r"""Returns ``path`` as a side of a map is written."""
    return path.replace(b"\\", b"\\\\").replace(b"=", b"\\=")
