"""From the table and the refusals to the cases of a filter (pure)."""

from __future__ import annotations

import errno
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.neighbours import BY_NUMBER
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED, UNTRACED
from pinfold.syscalls.table import TABLE
from pinfold.uapi.net import ROUTING_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pinfold.syscalls.forms import Forms, Test

Answers = dict[int, list[tuple[tuple["Test", ...], int]]]
"""Per call number: (tests, filter return value) pairs, the first whose tests all hold applies."""

_ALL = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_UNNAMED = {
    row.number: index
    for row in TABLE.values()
    for index in row.pinned
    if row.pinned == (index,) and row.arguments[index][1] is Kind.SOCKADDR_OR_NULL
}
"""By number: the one argument of a call that is pinned, where NULL means that there is none."""
NO_FORMS: Final[Mapping[int, Forms]] = MappingProxyType({})


class Delivery(NamedTuple):
    """The call by which a memfd is asked for, where the supervisor traces."""

    number: int
    secret: tuple[int, int]
    """Its first two arguments."""
    answer: int
    """Return value of the filter for it."""


def answers(
    trapped: Iterable[int],
    *,
    trap: int,
    allow: int,
    refuse: int,
    delivery: Delivery | None,
    whole: Collection[int] = (),
    neighbours: Collection[int] = (),
    fixed_addresses: bool = False,
    forms: Mapping[int, Forms] = NO_FORMS,
) -> Answers:
    """Returns what the filter answers to which call.

    Args:
        trapped: Numbers of the calls to be judged.
        trap: Return value that brings a call to the supervisor.
        allow: Return value of a call without the one pointer that there would be to judge: a
            ``sendto`` without an address, which is what ``send`` is made of.
        refuse: Return value of a refusal, to which the errno is added.
        delivery: The call that asks for the memfd; None where the supervisor does not trace: what
            is refused only for that passes then.
        whole: Numbers of calls that are trapped even without the one pointer.
        neighbours: Those of ``trapped`` that are trapped only for the task that they name: forms
            that are about the caller pass.
        fixed_addresses: Whether nothing but the address of a call may say where it goes: socket
            options that do are refused then.
        forms: By number, the forms of a trapped call that go through all the same.
    """
    result: Answers = {}
    refused = REFUSED
    if delivery is None:
        refused = (*(row for row in REFUSED if not row.traced), *UNTRACED)
    for row in refused:
        test = () if row.argument < 0 else ((row.argument, row.mask, row.value),)
        result.setdefault(X86_64[row.name], []).append((test, refuse | row.errno))
    if fixed_addresses:
        for level, option in ROUTING_OPTIONS:
            tests = ((1, _LOW, level), (2, _LOW, option))
            result.setdefault(X86_64["setsockopt"], []).append((tests, refuse | errno.EPERM))
    for number in trapped:
        cases = result.setdefault(number, [])
        pointer = _UNNAMED.get(number)
        if pointer is not None and number not in whole:
            cases.append((((pointer, _ALL, 0),), allow))
        if number in neighbours:
            cases.extend((tests, allow) for tests in BY_NUMBER[number].passes)
        cases.extend(
            (tests, allow if through else trap) for tests, through in forms.get(number, ())
        )
        cases.append(((), trap))
    if delivery is not None:
        # First of all that is said about this call.
        one, other = delivery.secret
        asks = ((0, _ALL, one), (1, _ALL, other)), delivery.answer
        result.setdefault(delivery.number, []).insert(0, asks)
    return result
