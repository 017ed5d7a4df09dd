"""Forms of a call that its registers tell apart, and which of them need no supervisor (pure).

A filter sees a call's number and its registers, and no memory. Where that is enough to know what
would be decided, and it is that the call is made as it is, the filter can let it through.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

Test = tuple[int, int, int]
"""(argument, mask, value): true when ``args[argument] & mask == value``."""


class Form(NamedTuple):
    """A form of a call."""

    tests: tuple[Test, ...]
    """All of them hold; without any, it is every form."""
    passes: bool
    """Whether it goes through."""


Forms: TypeAlias = tuple[Form, ...]
"""The first form whose tests hold decides. What is none of them does not go through."""

WHOLE: Final[Forms] = (Form((), True),)
"""A call that goes through whatever its registers are."""
NOTHING: Final[Forms] = ()
"""A call that never does."""

_MOST: Final = 64
"""A filter has no room for endless lists, and a call with so many forms is trapped."""


def both(one: Forms, other: Forms) -> Forms:
    """Returns the forms that go through where two parties have to agree."""
    if one == WHOLE:
        return other
    if other == WHOLE:
        return one
    if not one or not other or (len(one) + 1) * (len(other) + 1) > _MOST:
        return NOTHING
    rest = Form((), False)
    found = [
        Form(_joined(first.tests, second.tests), first.passes and second.passes)
        for first in (*one, rest)
        for second in (*other, rest)
        if not _contradict(first.tests, second.tests)
    ]
    while found and not found[-1].passes:
        found.pop()
    return tuple(found)


def _joined(one: tuple[Test, ...], other: tuple[Test, ...]) -> tuple[Test, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _contradict(one: tuple[Test, ...], other: tuple[Test, ...]) -> bool:
    return any(
        argument == at and (value ^ wanted) & mask & bits
        for argument, mask, value in one
        for at, bits, wanted in other
    )
