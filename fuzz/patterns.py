"""Globs against a slow reader (``tests/unit/policy/reference.py``) that tries every alternative.

An input is some patterns and some names, over few letters, so that they often meet; or any bytes at
all. A pattern is refused with ``PolicyError`` or means what it says, and no name takes long.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main

with instrumented(__name__):
    from pinfold.errors import PolicyError
    from pinfold.paths import normalise
    from pinfold.policy import globs
    from pinfold.policy.globs import Above, GlobSet, Pattern

from tests.unit.policy import reference

if TYPE_CHECKING:
    from collections.abc import Callable

PIECES: Final = (*reference.PIECES, b"/", b"/", b"/", b"/a/", b"/**/", b"/**/**/", b"**/", b"/*")
LETTERS: Final = (b"a", b"b", b".", b"*", b"\xc3", b"/", b"/", b"/a/b")
COMMON: Final = (b"/", b"/a", b"/a/b", b"/a/b/c", b"/b", b"/.a", b"/a*", b"/*")


def pattern(given: Given) -> bytes:
    """Returns a pattern that is well formed, if ``/`` and ``.`` are where they may be."""
    pieces = b"".join(given.pick(PIECES) for _ in range(given.below(9)))
    if pieces.startswith(b"**"):
        return pieces.rstrip(b"/")
    parts = [part for part in pieces.split(b"/") if part not in {b"", b".", b".."}]
    return b"/" + b"/".join(parts)


def names(given: Given) -> list[bytes]:
    """Returns normal names."""
    return [*COMMON, *(_name(given) for _ in range(given.below(6)))]


def _name(given: Given) -> bytes:
    return normalise(b"/" + b"".join(given.pick(LETTERS) for _ in range(given.below(9))))


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    how = given.number(1) % 4
    if how == 0:
        _any(given)
    elif how == 1:
        _bytes(given)
    else:
        _set([pattern(given) for _ in range(1 + given.below(4))], names(given))


def _set(patterns: list[bytes], tried: list[bytes]) -> None:
    good = []
    for each in patterns:
        try:
            GlobSet([each])
        except PolicyError:
            # Only for a component that no normal name has.
            parts = [globs.escape(part) for part in each.split(b"/")]
            assert {b".", b"..", b""} & {part.replace(b"\\", b"") for part in parts}, each
            continue
        good.append(each)
    compiled = GlobSet(good)
    above = Above(enumerate(good))
    for name in tried:
        wanted = tuple(at for at, each in enumerate(good) if reference.matches(each, name))
        assert compiled.matches(name) == wanted, (good, name)
        assert compiled.matches(name) == wanted, (good, name)
        assert compiled.match(name) == (wanted[0] if wanted else -1), (good, name)
        above.of(name)
        # What is escaped is that name and what lies below.
        alone = GlobSet([globs.escape(name)])
        assert alone.match(name) == 0, name
    for each in good:
        _parted(each, tried)


def _parted(each: bytes, tried: list[bytes]) -> None:
    # Whatever a pattern matches lies at or below the name that it begins with, and below a name
    # that ``Above`` finds for each directory on the way, up to the first ``**``.
    begins, rest = globs.fixed(each)
    assert not rest or rest.startswith((b"/", b"**")), (each, rest)
    for name in tried:
        if reference.matches(each, name) and begins:
            assert name == begins or name.startswith(begins.rstrip(b"/") + b"/"), (each, name)


def _bytes(given: Given) -> None:
    each = b"".join(given.pick((*reference.PIECES, b"/", b"[/b]", b"[!/]")) for _ in range(7))
    text = b"".join(given.pick((*LETTERS, b"", b"")) for _ in range(12))
    assert Pattern(each).match(text) == reference.spells(each, text), (each, text)


def _any(given: Given) -> None:
    # Whatever bytes a pattern is made of, and a name of the length that the kernel allows.
    name = normalise(b"/" + given.text(64).replace(b"\0", b"/"))
    raw = given.rest()
    makers: tuple[Callable[[bytes], GlobSet | Pattern], ...] = (lambda one: GlobSet([one]), Pattern)
    for make in makers:
        try:
            found = make(raw)
        except PolicyError as error:
            assert str(error).startswith("byte ")
            assert all(line.isprintable() for line in str(error).split("\n"))
            continue
        found.match(name)
        found.match((name * 4096)[:4095])
    if raw.startswith((b"/", b"**")):
        try:
            globs.parse(raw)
        except PolicyError:
            return
        globs.fixed(raw)
        globs.leading(raw)


if __name__ == "__main__":
    main("patterns", one)
