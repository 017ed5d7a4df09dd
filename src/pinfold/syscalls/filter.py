"""From the table and the refusals to the cases of a filter (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterable

Test = tuple[int, int, int]
"""(argument, mask, value): true when ``args[argument] & mask == value``."""
Answers = dict[int, list[tuple[tuple[Test, ...], int]]]
"""Per call number: (tests, filter return value) pairs, the first whose tests all hold applies."""


def answers(
    trapped: Iterable[int],
    *,
    trap: int,
    refuse: int,
    delivery: int,
    secret: tuple[int, int],
    hand_over: int,
) -> Answers:
    """Returns what the filter answers to which call.

    Args:
        trapped: Numbers of the calls to be judged.
        trap: Return value that brings a call to the supervisor.
        refuse: Return value of a refusal, to which the errno is added.
        delivery: Number of the call that asks for the memfd, with ``secret`` as its first two
            arguments.
        secret: Two 64-bit numbers.
        hand_over: Return value for it.
    """
    result: Answers = {}
    for row in REFUSED:
        test = () if row.argument < 0 else ((row.argument, row.mask, row.value),)
        result.setdefault(X86_64[row.name], []).append((test, refuse | row.errno))
    for number in trapped:
        result.setdefault(number, []).append(((), trap))
    whole = 0xFFFFFFFFFFFFFFFF
    result[delivery] = [(((0, whole, secret[0]), (1, whole, secret[1])), hand_over)]
    return result
