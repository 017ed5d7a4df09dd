"""Argument lists of one program, and the few patterns that stand for them (pure).

Of an argument list the program and its first words are what a reader of a policy cares about
(``git status``). What names files, counts or is made up differs from run to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.policy.globs import escape
from pinfold.policy.learning.folding import decodable, random_part
from pinfold.policy.model import REST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.policy.learning.facts import Fact
    from pinfold.policy.learning.folding import Names

MOST: Final = 4
"""So many lists of one program are kept; more become what they begin with."""
_LONGEST: Final = 24
"""Of a longer list only the beginning is kept."""

Variant = tuple[bytes, ...]
"""A pattern of ``model.Match.argv``."""


def variant(fact: Fact, names: Names) -> Variant:
    """Returns the pattern for the argv of an exec."""
    # No argument at all is an empty one, as for the kernel.
    argv = fact.argv or (b"",)
    last = fact.name.rpartition(b"/")[2]
    own = argv[0].rpartition(b"/")[2]
    # A rule that allows compares its first element with both of these.
    first = names.pattern(fact.name).glob.rpartition(b"/")[2] if own == last else b"*"
    rest = fact.rest or len(argv) > _LONGEST
    kept = argv[1:_LONGEST] if rest else argv[1:]
    found = (first, *(_argument(one, names) for one in kept))
    return (*found, REST) if rest else found


def _argument(argument: bytes, names: Names) -> bytes:
    option, equals, value = argument.partition(b"=")
    dashed = option.startswith(b"-")
    if _varies(argument):
        return b"*"
    if equals and dashed and _varies(value):
        return decodable(escape(option)) + b"=*"
    if dashed and argument[2:3] == b"/":
        return decodable(escape(argument[:2])) + b"*"
    for component, glob in names.random.items():
        if component in argument:
            return decodable(glob.join(map(escape, argument.split(component))))
    if not any(blank in argument for blank in (b" ", b"\n")):
        looks = random_part(argument, temporary=False)
        if looks is not None:
            return decodable(looks)
    return _REST_ITSELF if argument == REST else decodable(escape(argument))


_REST_ITSELF: Final = b"[.].."


def _varies(argument: bytes) -> bool:
    # A path or a number. A text with spaces may begin with a path, and is what a shell is told.
    return argument.isdigit() or (argument.startswith(b"/") and b" " not in argument)


def folded(variants: Sequence[Variant]) -> list[Variant]:
    """Returns few patterns that cover all of those."""
    found = _aligned(variants)
    if len(found) <= MOST:
        return found
    by_word: dict[Variant, list[Variant]] = {}
    for one in found:
        by_word.setdefault(one[:2] if _is_word(one[1:2]) else one[:1], []).append(one)
    found = []
    for head, members in by_word.items():
        found.extend(members if len(members) == 1 else [(*head, REST)])
    if len(found) <= MOST * MOST:
        return found
    return list(dict.fromkeys((*one[:1], REST) for one in found))


def _aligned(variants: Sequence[Variant]) -> list[Variant]:
    # Long lists that differ in a few places are one list with stars there.
    found: list[Variant] = []
    for one in variants:
        for index, other in enumerate(found):
            both = _both(one, other)
            if both is not None:
                found[index] = both
                break
        else:
            found.append(one)
    return list(dict.fromkeys(found))


def _both(one: Variant, other: Variant) -> Variant | None:
    if len(one) != len(other) or len(one) < _ALIGNED or one[:2] != other[:2]:
        return None
    if (one[-1] == REST) != (other[-1] == REST):
        return None
    both = tuple(a if a == b else b"*" for a, b in zip(one, other, strict=True))
    varied = both.count(b"*") - one.count(b"*")
    return both if varied * _SHARE <= len(one) else None


_ALIGNED: Final = 6
_SHARE: Final = 3
"""One in so many may differ."""


def _is_word(argument: Variant) -> bool:
    return bool(argument) and argument[0].replace(b"-", b"").isalnum() and argument[0][:1] != b"-"
