r"""From the names that a run used to patterns that the next run needs, too (pure).

Two things differ between runs of the same program. Names have parts that are made up each time:
temporary files, process ids, hashes. And of a tree of files, each run uses others. So a *random*
component becomes a pattern, and many names in one directory become the directory.

What a component is must be guessed from its looks, with better evidence where there is some: a
file that the program itself made, for its owner alone, in the directory for temporary files, has a
made-up name; and of two runs, what differs at the same place is made up.

A guess may widen a policy, so some names are never part of one. The directories from which
programs and their data come are whole trees; everything else is folded below the top level of a
project or of HOME only, and what is named like a secret stays a name.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.paths import under
from pinfold.policy.globs import escape

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from pinfold.policy.learning.facts import Fact

MANY: Final = 4
"""So many names in one directory stand for the directory."""

SYSTEM: Final = (b"/usr", b"/lib", b"/lib32", b"/lib64", b"/libx32", b"/bin", b"/sbin")
"""Where programs come from: read as whole trees."""


class Place(NamedTuple):
    """Where a program ran: absolute normal names."""

    home: bytes
    cwd: bytes
    tmp: bytes

    @property
    def variables(self) -> dict[str, bytes]:
        """What stands for them in a policy file; the root needs nothing to stand for it."""
        named = {"CWD": self.cwd, "TMPDIR": self.tmp, "HOME": self.home}
        return {name: value for name, value in named.items() if value != b"/"}

    def base_of(self, name: bytes) -> bytes:
        """Returns the innermost of these directories that a name lies in, the root if none."""
        found = b"/"
        for base in self:
            if len(base) > len(found) and under(name, base):
                found = base
        return found


class Pattern(NamedTuple):
    """A name with its random parts taken out."""

    glob: bytes
    """In the language of ``policy.globs``."""
    name: bytes | None
    """What it spells, where it has no wildcards."""

    @property
    def parent(self) -> bytes:
        """The glob of the directory that it lies in; empty for what lies in the root."""
        return self.glob.rpartition(b"/")[0]


_SECRET: Final = re.compile(
    rb"\.(ssh|gnupg|aws|azure|kube|docker|netrc|pgpass|password-store|git-credentials|npmrc|pypirc"
    rb"|env|vault-token|mozilla|thunderbird)|.*history|g?shadow-?|sudoers(\.d)?|id_[a-z0-9]+|_netrc"
    rb"|credentials(\..*)?|.*\.(pem|key|p12|pfx|jks|kdbx|gpg|ppk)|(?!.*\.(pyc?|[cho]|so|js|rs|go|html"
    rb"|md|txt)$).*[-_.]key",
    re.IGNORECASE,
)


def secret(name: bytes) -> bool:
    """Returns whether a name, or a directory in it, is called as secrets are."""
    return any(_SECRET.fullmatch(component) for component in name.split(b"/"))


def is_system(name: bytes) -> bytes | None:
    """Returns the directory of ``SYSTEM`` that a name lies in."""
    return next((base for base in SYSTEM if under(name, base)), None)


# Random components.

_UUID: Final = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TOKENS: Final = re.compile(rb"([-._+@=,:~#]+)")
_JOINTS: Final = re.compile(rb"([-.+@=,:~#]+)")
"""What stands around made-up names: some have ``_`` in them."""
_HASH: Final = re.compile(
    rb"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{16,}|(?=.*[0-9])(?=.*[A-F])[0-9A-F]{16,}"
)
_NUMBER: Final = re.compile(rb"[0-9]{5,}")
_STEM: Final = re.compile(rb"tmp[a-z0-9_]{8}(?![a-z0-9_])")
_WORD: Final = re.compile(rb"[A-Za-z0-9_]+")
_TAILS: Final = (6, 8, 10)
"""Lengths of the made-up part: ``mkstemp`` of C, of Python, ``mktemp`` of the shell."""
_ANY_NUMBER: Final = b"[0-9]*"


def random_part(component: bytes, *, temporary: bool) -> bytes | None:
    """Returns a glob for a component that looks made up, None for one that does not.

    Args:
        component: A component of a name.
        temporary: Whether it is in a directory for temporary files, where less is enough.
    """
    if _UUID.search(component):
        return b"*".join(escape(part) for part in _UUID.sub(b"\0", component).split(b"\0"))
    if temporary and (stem := _STEM.match(component)):
        return b"tmp*" + escape(component[stem.end() :])
    pieces = _TOKENS.split(component)
    found = [_token(piece, temporary=temporary) for piece in pieces]
    if found == [None] * len(found):
        return None
    return b"".join(
        escape(piece) if glob is None else glob for piece, glob in zip(pieces, found, strict=True)
    )


def _token(token: bytes, *, temporary: bool) -> bytes | None:
    if _HASH.fullmatch(token):
        return b"*"
    if _NUMBER.fullmatch(token):
        return _ANY_NUMBER
    if temporary and len(token) >= _TAILS[0] and _changes(token) >= _JUMPS:
        return b"*"
    return None


_JUMPS: Final = 2


def _changes(token: bytes) -> int:
    # How often a letter is followed by a digit or the other way round.
    digits = [0x30 <= byte <= 0x39 for byte in token]
    return sum(before != after for before, after in pairwise(digits))


def made_up(component: bytes) -> bytes:
    """Returns a glob for the name of a file that was made as temporary files are."""
    stem = _STEM.match(component)
    if stem:
        return b"tmp*" + escape(component[stem.end() :])
    pieces = _JOINTS.split(component)
    words = [at for at in range(0, len(pieces), 2) if len(pieces[at]) >= _TAILS[0]]
    if not words:
        return random_part(component, temporary=True) or escape(component)
    last = words[-1]
    word = pieces[last]
    if len(word) in _TAILS and not word.startswith(b"cc"):
        if len(pieces) == 1:
            # Nothing else tells it from other names there.
            return b"?" * len(word)
        kept = b""
    elif len(word) > _TAILS[1] and word == word.lower() and _WORD.fullmatch(word):
        kept = word[: -_TAILS[1]]
    else:
        kept = word[: -_TAILS[0]]
    ahead = b"".join(map(escape, pieces[:last])) + escape(kept)
    return ahead + b"*" + b"".join(map(escape, pieces[last + 1 :]))


def between(one: bytes, other: bytes) -> bytes:
    """Returns a glob for two names: what they begin and end with, and a star."""
    shorter = min(len(one), len(other))
    ahead = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    after = next(
        (at for at in range(shorter - ahead) if one[-1 - at] != other[-1 - at]), shorter - ahead
    )
    tail = one[len(one) - after :] if after else b""
    return escape(one[:ahead]) + b"*" + escape(tail)


class Names:
    """Makes patterns of the names of a run, or of several.

    Args:
        runs: The facts of each run.
        place: Where they ran.
    """

    def __init__(self, runs: Sequence[Iterable[Fact]], place: Place) -> None:
        self._place = place
        self._known: dict[tuple[bytes, bytes], bytes] = {}
        self._patterns: dict[bytes, Pattern] = {}
        seen = [dict.fromkeys(fact.name for fact in run if fact.name) for run in runs]
        for before, after in pairwise(seen):
            self._compare(before, after)
        for run in runs:
            for fact in run:
                if fact.private and self._temporary(fact.name):
                    directory, _, component = fact.name.rpartition(b"/")
                    self._known.setdefault((directory, component), made_up(component))
        self.random: dict[bytes, bytes] = {
            component: glob
            for (_, component), glob in self._known.items()
            if glob != escape(component)
        }
        """Components that are known to be made up, and their globs: they are in arguments, too."""

    def pattern(self, name: bytes) -> Pattern:
        """Returns the pattern of a normal name."""
        found = self._patterns.get(name)
        if found is None:
            found = self._patterns[name] = self._find(name)
        return found

    def temporary(self, name: bytes) -> bool:
        """Returns whether a name lies in a directory for temporary files, or is one."""
        return self._temporary(name) or under(name, self._place.tmp)

    def _temporary(self, name: bytes) -> bool:
        base = self._place.base_of(name)
        return name != base and (
            base == self._place.tmp or any(under(name, one) for one in _TEMPORARY)
        )

    def _find(self, name: bytes) -> Pattern:
        base = self._place.base_of(name)
        if name in (base, b"/") or is_system(name):
            return _pattern(escape(name), name)
        temporary = self._temporary(name)
        numbers = any(under(name, one) for one in _NUMBERED)
        at = b"" if base == b"/" else base
        glob = escape(at)
        for component in name[len(at) + 1 :].split(b"/"):
            known = self._known.get((at, component))
            if known is None:
                known = (
                    _ANY_NUMBER
                    if numbers and component.isdigit()
                    else random_part(component, temporary=temporary)
                )
            at += b"/" + component
            glob += b"/" + (escape(component) if known is None else known)
        return _pattern(glob, name)

    def _compare(self, before: Mapping[bytes, None], after: Mapping[bytes, None]) -> None:
        # What has only been in one run, at the same place and in the same order, is made up.
        ones, others = _children(before), _children(after)
        for directory, names in ones.items():
            if is_system(directory or b"/"):
                continue
            theirs = others.get(directory, {})
            gone = [name for name in names if name not in theirs]
            come = [name for name in theirs if name not in names]
            if len(gone) != len(come):
                continue
            for one, other in zip(gone, come, strict=True):
                glob = between(one, other)
                self._known[directory, one] = glob
                self._known[directory, other] = glob


_TEMPORARY: Final = (b"/tmp", b"/var/tmp", b"/dev/shm", b"/run/user")
_NUMBERED: Final = (b"/proc", b"/dev/pts")


def _pattern(glob: bytes, name: bytes) -> Pattern:
    shown = decodable(glob)
    return Pattern(shown, name if shown == escape(name) else None)


def decodable(pattern: bytes) -> bytes:
    """Returns a pattern that a policy file can hold: any byte may stand for one that is no UTF-8.

    Args:
        pattern: A glob, with ``/`` or as for argv.
    """
    try:
        pattern.decode("utf-8")
    except UnicodeDecodeError:
        return _UNDECODED.sub("?", pattern.decode("utf-8", "surrogateescape")).encode()
    return pattern


_UNDECODED: Final = re.compile("[\udc80-\udcff]")


def _children(names: Iterable[bytes]) -> dict[bytes, dict[bytes, None]]:
    found: dict[bytes, dict[bytes, None]] = {}
    for name in names:
        at = b""
        for component in name.split(b"/")[1:]:
            found.setdefault(at, {})[component] = None
            at += b"/" + component
    return found


# Trees.

_DEPTHS: Final = {b"etc": 2, b"var": 3, b"home": 3, b"run": 3, b"sys": 3, b"srv": 2, b"opt": 2}
_NEVER: Final = frozenset({b"proc", b"dev"})


def foldable(directory: bytes, place: Place) -> bool:
    """Returns whether a directory's glob may stand for what lies below it.

    Args:
        directory: A glob that ends in no star.
        place: Where the program ran.
    """
    cwd, home, tmp = map(escape, (place.cwd, place.home, place.tmp))
    if not directory or directory in (home, tmp) or secret(directory):
        return False
    if any(under(base, directory) for base in (cwd, home, tmp) if base != directory):
        return False
    if under(directory, cwd) and cwd not in (b"/", home, tmp) and not under(home, cwd):
        return True
    if under(directory, tmp):
        return True
    if under(directory, home) and home != b"/":
        below = directory[len(home) + 1 :].split(b"/")
        return len(below) >= 1 + below[0].startswith(b".")
    parts = directory.split(b"/")[1:]
    if parts[0] in _NEVER:
        return False
    return len(parts) >= _DEPTHS.get(parts[0], 2)


def trees(names: Iterable[Pattern], listed: Iterable[bytes], place: Place) -> list[bytes]:
    """Returns the directories that stand for what is read below them, as globs.

    Args:
        names: What was read.
        listed: Globs of directories whose entries were read.
        place: Where the program ran.
    """
    children: dict[bytes, set[bytes]] = {}
    for pattern in names:
        if secret(pattern.glob):
            continue
        child = pattern.glob
        children.setdefault(pattern.parent, set()).add(child)
        # In a project, a directory counts for the one that it is in.
        while (parent := child.rpartition(b"/")[0]) and under(parent, escape(place.cwd)):
            children.setdefault(parent, set()).add(child)
            child = parent
    many = [directory for directory, found in children.items() if len(found) >= MANY]
    wanted = [one for one in dict.fromkeys((*many, *listed)) if foldable(one, place)]
    return outermost(wanted)


def outermost(directories: Iterable[bytes]) -> list[bytes]:
    """Returns the directories that lie in none of the others."""
    kept: dict[bytes, None] = {}
    for one in sorted(directories, key=lambda glob: (glob.count(b"/"), glob)):
        if within(one, kept) is None:
            kept[one] = None
    return list(kept)


def within(glob: bytes, directories: Container[bytes]) -> bytes | None:
    """Returns the innermost of some directories that is, or holds, what a glob names."""
    while glob:
        if glob in directories:
            return glob
        glob = glob.rpartition(b"/")[0]
    return None
