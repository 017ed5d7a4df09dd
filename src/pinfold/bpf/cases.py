"""What a filter has to decide for one system call, as data."""

from __future__ import annotations

from typing import NamedTuple


class Arg(NamedTuple):
    """A test of one argument register: ``(args[index] & mask) == value``.

    Args:
        index: Which argument, 0 to 5.
        mask: ``u64``; the bits that are looked at. With no bit the test always holds.
        value: ``u64``; what those bits must be. A bit outside ``mask`` is an error of the author.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs on a test
    mask: int
    value: int


class Case(NamedTuple):
    """One line of a decision list: what the filter returns when every test holds.

    Args:
        when: The tests, all of which must hold; with none the case always applies.
        action: ``u32``; the filter's return value, ``SECCOMP_RET_*`` and its data.
    """

    when: tuple[Arg, ...]
    action: int
