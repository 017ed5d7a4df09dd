r"""Globs over normal names, matched in time linear in the path whatever the patterns are.

The language, over *bytes*:

==========  ======================================================================================
``*``       any run of bytes without ``/``, also an empty one
``**``      any run of bytes; ``/**/`` is also a single ``/``, so ``/a/**/b`` matches ``/a/b``
``?``       one byte that is not ``/``
``[a-z]``   one byte of the set, never ``/``; ``[!a]`` and ``[^a]`` one byte outside it
``\x``      the byte ``x`` itself, also inside ``[]``
==========  ======================================================================================

A pattern begins with ``/`` or ``**``. One without any of the wildcards above names a file *and
everything below it*: whoever denies a directory means its contents. One with a wildcard matches
what it spells and nothing else, so ``/home/*/.ssh`` is the directory and ``/home/*/.ssh/**`` is
what lies below, and not the directory. The root is a name without components: of the wildcard
patterns only a bare ``**`` matches it. In UTF-8 a letter such as ``é`` is two bytes, so it takes
``??``, and a set can hold it only in part; ``*`` does not mind.

Paths come from a hostile target, up to 4,096 bytes each, so matching must not be a search with
backtracking, which ``re`` and ``fnmatch`` are: ``/*a*a*a*a*b`` takes them time that grows with a
power of the path's length. Instead:

- Patterns without wildcards go into a tree of dictionaries. Any number of them costs one lookup for
  each component of the path, and usually ends at the first or second.
- All others go into a tree as well, in ``policy.globtree``. What a name costs there depends on the
  places where it can be at once, and those are few unless patterns or name are made for it.
- Where they are many, all patterns with wildcards are *one* nondeterministic automaton. A pattern
  of ``n`` byte tokens has ``n + 1`` states in a row, numbered on from those of the pattern before;
  the set of states that are alive is one Python int. For a byte ``c``::

      alive = (alive & advance[c]) << 1 | alive & stay

  ``advance[c]`` holds the states whose next token takes ``c``, ``stay`` those before a star. The
  last state of a pattern is in no ``advance``, so nothing runs over into the next pattern. A slash
  has a step of its own: only ``**`` stays, and the state between the slashes of ``/**/`` is left at
  the moment it is entered, through ``skip``.

The automaton takes as many steps as the path has bytes. The cost of one grows with the number of
states, a word for each 30 of them. The tree gives up before it is much slower than that.

What is no path (an argument, a variable's value, an abstract socket's name) is matched by
:class:`Pattern`: the same language, but a slash is a byte like any other, there is no ``**``, and
nothing lies below.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Final

from pinfold.errors import PolicyError
from pinfold.paths import Tree, normalise, printable
from pinfold.policy.globtree import GlobTree, Star, Token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_NOT_SLASH = bytes(byte for byte in range(256) if byte != 0x2F)
_ANY = bytes(range(256))
_SPECIAL = b"*?[\\\0"


def malformed(text: bytes, at: int, problem: str) -> PolicyError:
    """Returns the error for a rule's ``text`` whose byte ``at`` is wrong, with a caret under it.

    Args:
        text: The rule as it was written.
        at: Index into ``text``, or its length for something missing at the end.
        problem: What is wrong and what to write instead.
    """
    caret = " " * len(printable(text[:at])) + "^"
    return PolicyError(f"byte {at + 1}: {problem}\n  {printable(text)}\n  {caret}")


class GlobSet:
    """An ordered set of patterns.

    Args:
        patterns: Globs in the language of the module head.

    Raises:
        PolicyError: A pattern is malformed, or could never match a normal name.
    """

    def __init__(self, patterns: Sequence[bytes]) -> None:
        literal: dict[bytes, list[int]] = {}
        wild: list[tuple[int, list[Token]]] = []
        for index, pattern in enumerate(patterns):
            name, tokens = parse(pattern)
            if tokens == [Star.DEEP]:
                name = b"/"  # both are everything
            if name is None:
                wild.append((index, tokens))
            else:
                literal.setdefault(name, []).append(index)
        # At each name its own patterns and those that cover it from above, in order.
        self._literals: Tree[tuple[int, ...]] = Tree()
        for name in sorted(literal, key=lambda name: 0 if name == b"/" else name.count(b"/")):
            above = self._literals.deepest(name) or ()
            self._literals.insert(name, tuple(sorted((*above, *literal[name]))))
        self._any: Final = bool(literal)
        self._tree: Final = GlobTree(wild)
        self._wild: Final = [(index, patterns[index]) for index, _ in wild]

    def _named(self, path: bytes) -> tuple[int, ...]:
        return (self._literals.deepest(path) or ()) if self._any else ()

    @cached_property
    def _automaton(self) -> _Automaton:
        # Made for the first name that the tree gives up on; usual ones never need it.
        return _Automaton((index, parse(pattern)[1]) for index, pattern in self._wild)

    def match(self, path: bytes) -> int:
        """Returns the index of the first pattern that matches the normal name ``path``, or -1."""
        literal = self._named(path)
        first = literal[0] if literal else -1
        if self._wild:
            found = self._tree.find(path)
            if found is None:
                found = self._automaton.find(path)
            for part in found:
                if first < 0 or part[0] < first:
                    first = part[0]
        return first

    def matches(self, path: bytes) -> tuple[int, ...]:
        """Returns the indexes of all patterns that match the normal name ``path``, in order."""
        literal = self._named(path)
        if not self._wild:
            return literal
        found = self._tree.find(path)
        if found is None:
            found = self._automaton.find(path)
        return tuple(sorted({*literal, *chain.from_iterable(found)})) if found else literal


class _Automaton:
    # All patterns with wildcards at once; see the head of the module.

    def __init__(self, wild: Iterable[tuple[int, list[Token]]]) -> None:
        advance: list[list[int]] = [[] for _ in range(256)]
        start: list[int] = []
        stay: list[int] = []
        deep: list[int] = []
        skip: list[int] = []
        final: dict[int, int] = {}
        state = 0
        for index, tokens in wild:
            start.append(state)
            for position, token in enumerate(tokens):
                if isinstance(token, bytes):
                    for byte in token:
                        advance[byte].append(state)
                    state += 1
                    continue
                stay.append(state)
                if token is Star.DEEP:
                    deep.append(state)
                    around = tokens[position - 1 : position], tokens[position + 1 : position + 2]
                    if around == ([b"/"], [b"/"]):
                        skip.append(state)
            final[state] = index
            state += 1
        self._start = _bits(start)
        self._advance = [_bits(states) if states else 0 for states in advance]
        self._stay = _bits(stay)
        self._deep = _bits(deep)
        self._skip = _bits(skip)
        self._final = _bits(final)
        self._index = final

    def find(self, path: bytes) -> list[list[int]]:
        """Returns the numbers of the patterns that match a normal name: one list, or none."""
        alive = self._start
        advance = self._advance
        stay = self._stay
        for component in path.split(b"/")[1:] if path != b"/" else ():
            entered = (alive & advance[0x2F]) << 1
            alive = entered | (entered & self._skip) << 1 | alive & self._deep
            for byte in component:
                alive = (alive & advance[byte]) << 1 | alive & stay
            if not alive:
                return []
        hits = alive & self._final
        return [self._numbers(hits)] if hits else []

    def _numbers(self, bits: int) -> list[int]:
        # A pass over the digits: taking the lowest bit away copies the int each time.
        digits = bits.to_bytes(bits.bit_length() // 8 + 1, "little")
        return [
            self._index[at * 8 + bit]
            for at, digit in enumerate(digits)
            if digit
            for bit in range(8)
            if digit >> bit & 1
        ]


class Pattern:
    """A pattern for bytes that are no path; see the end of the module's head.

    A text of ``n`` bytes takes ``n`` steps at most, whatever is in it. Without ``?`` and sets the
    steps are those of ``bytes.find``.

    Args:
        pattern: As it is written in a rule.

    Raises:
        PolicyError: It is malformed.
    """

    __slots__ = ("_advance", "_final", "_pieces", "_stay")

    def __init__(self, pattern: bytes) -> None:
        pieces: list[list[bytes]] = [[]]
        at = 0
        while at < len(pattern):
            token, at, _ = _token(pattern, at, _ANY)
            if isinstance(token, bytes):
                pieces[-1].append(token)
            else:
                pieces.append([])
        self._pieces: tuple[bytes, ...] = ()
        self._advance: list[int] = []
        if all(len(token) == 1 for piece in pieces for token in piece):
            self._pieces = tuple(b"".join(piece) for piece in pieces)
        else:
            self._compile(pieces)

    def _compile(self, pieces: list[list[bytes]]) -> None:
        advance: list[list[int]] = [[] for _ in range(256)]
        stay = []
        state = 0
        for number, piece in enumerate(pieces):
            if number:
                stay.append(state)
            for token in piece:
                for byte in token:
                    advance[byte].append(state)
                state += 1
        self._advance = [_bits(states) if states else 0 for states in advance]
        self._stay = _bits(stay)
        self._final = 1 << state

    def match(self, text: bytes) -> bool:
        """Returns whether the pattern matches the whole of ``text``."""
        if self._pieces:
            return _spells(self._pieces, text)
        alive = 1
        advance = self._advance
        stay = self._stay
        for byte in text:
            alive = (alive & advance[byte]) << 1 | alive & stay
            if not alive:
                return False
        return bool(alive & self._final)


def _spells(pieces: tuple[bytes, ...], text: bytes) -> bool:
    # With a star between each two of the pieces.
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return text == first
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in pieces[1:-1]:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class Above:
    """Names above what patterns can match: ``/home`` and ``/home/*`` for ``/home/*/.ssh``.

    These are the parts of a pattern before each of its slashes, up to the first ``**``: what comes
    from there on can be anywhere. Each is matched by itself, and nothing lies below it. The root is
    not among them.

    Args:
        patterns: Globs, with a number each.

    Raises:
        PolicyError: A pattern is malformed.
    """

    __slots__ = ("_globs", "_names", "_numbers")

    def __init__(self, patterns: Iterable[tuple[int, bytes]]) -> None:
        self._names: dict[bytes, list[int]] = {}
        globs: dict[bytes, list[int]] = {}
        for number, pattern in patterns:
            for text, name in _cut(pattern):
                if name is None:
                    globs.setdefault(text, []).append(number)
                else:
                    self._names.setdefault(name, []).append(number)
        self._globs = GlobSet(tuple(globs))
        self._numbers = tuple(globs.values())

    def of(self, name: bytes) -> list[int]:
        """Returns the numbers of the patterns that can match something below a normal name."""
        found = list(self._names.get(name, ()))
        for at in self._globs.matches(name):
            found += self._numbers[at]
        return found


def fixed(pattern: bytes) -> tuple[bytes, bytes]:
    """Returns the name that a pattern begins with, up to its first wildcard, and the rest of it.

    The name is whole components, and empty if there is none; a pattern without wildcards is all
    name. The rest begins with a slash.
    """
    whole = parse(pattern)[0]
    if whole is not None:
        return whole, b""
    found = b"", pattern
    for text, name in _cut(pattern):
        if name is not None:
            found = name, pattern[len(text) :]
    return found


def leading(pattern: bytes) -> tuple[bytes, ...]:
    """Returns the parts of a pattern that :class:`Above` matches names with."""
    return tuple(text for text, _ in _cut(pattern))


def _cut(pattern: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    # The text before each slash but the first, and the name that it spells, if it has no wildcard.
    spelt: bytes | None = b""
    at = 0
    while at < len(pattern):
        token, after, plain = _token(pattern, at, _NOT_SLASH)
        if token is Star.DEEP:
            return
        if token == b"/" and at:
            yield pattern[:at], spelt
        spelt = spelt + token if plain and spelt is not None and isinstance(token, bytes) else None
        at = after


def escape(text: bytes) -> bytes:
    """Returns a pattern that matches ``text`` and nothing else, but for what lies below."""
    return _WILD.sub(rb"\\\g<0>", text)


_WILD: Final = re.compile(rb"[*?\[\\]")


def _bits(states: Iterable[int]) -> int:
    """Returns the int with these bits set; one pass, where ``|=`` would copy the int each time."""
    mask = bytearray()
    for state in sorted(states):
        mask.extend(bytes((state >> 3) + 1 - len(mask)))
        mask[state >> 3] |= 1 << (state & 7)
    return int.from_bytes(mask, "little")


def parse(pattern: bytes) -> tuple[bytes | None, list[Token]]:
    """Returns the name that a pattern without wildcards spells, or else None and its tokens.

    Raises:
        PolicyError: ``pattern`` is malformed, or could never match a normal name.
    """
    simple = pattern.startswith(b"/") and pattern.translate(None, _SPECIAL) == pattern
    if simple and normalise(pattern) == pattern:
        return pattern, []
    if not pattern.startswith((b"/", b"**")):
        raise malformed(pattern, 0, "a pattern begins with `/` or `**`; perhaps write `**/` before")
    if b"\0" in pattern:
        raise malformed(pattern, pattern.index(b"\0"), "no file name has a NUL byte; remove it")
    tokens: list[Token] = []
    wild = False
    first, begin = 0, 0  # of the component being read: its first token, its first byte
    at = 0
    while at < len(pattern):
        token, after, plain = _token(pattern, at, _NOT_SLASH)
        wild |= not plain
        if token == b"/":
            if at:
                _check_component(pattern, begin, tokens[first:])
            if tokens[-3:] == [Star.DEEP, b"/", Star.DEEP]:
                del tokens[-2:]  # `**/**/` is `**/`; so no two states with a skip are in a row
            first, begin = len(tokens) + 1, after
        tokens.append(token)
        at = after
    _check_component(pattern, begin, tokens[first:])
    return None if wild else b"".join(token for token in tokens if isinstance(token, bytes)), tokens


def _token(pattern: bytes, at: int, any_of: bytes) -> tuple[Token, int, bool]:
    """Returns the token at ``at``, where the next one begins, and whether it is no wildcard.

    Args:
        pattern: The pattern.
        at: Where the token begins.
        any_of: The bytes that ``?`` takes.
    """
    byte = pattern[at : at + 1]
    if byte == b"\\":
        if at + 1 == len(pattern):
            raise malformed(pattern, at, r"`\` escapes nothing; write `\\` for a backslash")
        return pattern[at + 1 : at + 2], at + 2, True
    if byte == b"*":
        after = len(pattern) - len(pattern[at:].lstrip(b"*"))
        return Star.NAME if after == at + 1 else Star.DEEP, after, False
    if byte == b"?":
        return any_of, at + 1, False
    if byte == b"[":
        return *_parse_set(pattern, at, any_of), False
    return byte, at + 1, True


def _check_component(pattern: bytes, begin: int, tokens: list[Token]) -> None:
    if not tokens:
        at = max(begin - 1, 0)
        raise malformed(pattern, at, "names never have an empty component; remove this `/`")
    if tokens in ([b"."], [b".", b"."]):
        raise malformed(pattern, begin, "names never have a component `.` or `..`; fold it")


def _parse_set(pattern: bytes, at: int, any_of: bytes) -> tuple[bytes, int]:
    """Returns the bytes that the set at ``pattern[at:]`` takes, and where the pattern goes on."""
    listed: set[int] = set()
    begin = at
    at += 1
    negated = pattern[at : at + 1] in {b"!", b"^"}
    at += negated
    first = at
    while pattern[at : at + 1] != b"]" or at == first:
        low, after = _member(pattern, at, begin, any_of)
        high = low
        if pattern[after : after + 1] == b"-" and pattern[after + 1 : after + 2] not in {b"", b"]"}:
            high, after = _member(pattern, after + 1, begin, any_of)
        if high < low:
            raise malformed(pattern, at, "this range is empty; exchange its ends")
        listed.update(range(low, high + 1))
        at = after
    return bytes(byte for byte in any_of if (byte in listed) != negated), at + 1


def _member(pattern: bytes, at: int, begin: int, any_of: bytes) -> tuple[int, int]:
    """Returns the byte at ``at`` of a set that began at ``begin``, and where the set goes on."""
    if pattern[at : at + 1] == b"\\":
        at += 1
    if at >= len(pattern):
        raise malformed(
            pattern, begin, r"`[` is never closed; add `]`, or write `\[` for a bracket"
        )
    if pattern[at] not in any_of:
        raise malformed(pattern, at, r"a set never takes `/`; close it before, or write `\[`")
    return pattern[at], at + 1
