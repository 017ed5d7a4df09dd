"""From the table and the refusals to the cases of a filter (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

Test = tuple[int, int, int]
"""(argument, mask, value): true when ``args[argument] & mask == value``."""
Answers = dict[int, list[tuple[tuple[Test, ...], int]]]
"""Per call number: (tests, filter return value) pairs, the first whose tests all hold applies."""

_ALL = 0xFFFFFFFFFFFFFFFF
_UNNAMED = {
    row.number: index
    for row in TABLE.values()
    for index in row.pinned
    if row.pinned == (index,) and row.arguments[index][1] is Kind.SOCKADDR_OR_NULL
}
"""By number: the one argument of a call that is pinned, where NULL means that there is none."""


def answers(
    trapped: Iterable[int],
    *,
    trap: int,
    allow: int,
    refuse: int,
    delivery: int,
    secret: tuple[int, int],
    hand_over: int,
) -> Answers:
    """Returns what the filter answers to which call.

    Args:
        trapped: Numbers of the calls to be judged.
        trap: Return value that brings a call to the supervisor.
        allow: Return value of a call without the one pointer that there would be to judge: a
            ``sendto`` without an address, which is what ``send`` is made of.
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
        cases = result.setdefault(number, [])
        pointer = _UNNAMED.get(number)
        if pointer is not None:
            cases.append((((pointer, _ALL, 0),), allow))
        cases.append(((), trap))
    result[delivery] = [(((0, _ALL, secret[0]), (1, _ALL, secret[1])), hand_over)]
    return result
