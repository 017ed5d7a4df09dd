"""Ways that take turns, and what a run of them comes to.

A way does its work once and says what that took. In each round every way has one turn, in an order
that is drawn anew, so that whatever else the machine does falls on all of them alike. Two ways of
one race can be compared round by round: a slow round is slow for both, and the ratio stays.

The first rounds warm up, and do not count: pins are installed in them, files are read for the
first time.
"""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pinfold.errors import PinfoldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class WrongError(PinfoldError):
    """The work was not done, or not as it was to be. There is nothing to measure then."""


class Way(NamedTuple):
    """One way to do some work."""

    name: str
    what: str
    """In a sentence, for those who read the figures."""
    run: Callable[[], float]
    """Does it, makes sure that it was done, and returns what it took in the unit of the race."""


class Spread(msgspec.Struct, frozen=True):
    """Where some numbers lie."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""
    least: float
    most: float


class Row(msgspec.Struct, frozen=True):
    """What one way came to."""

    name: str
    what: str
    value: Spread
    ratio: Spread | None
    """To the reference in the same round; None for the reference."""
    rounds: tuple[float, ...]
    """One number for each round, in their order."""


class Table(msgspec.Struct, frozen=True):
    """What a race came to: rows that were measured together, and compare with each other."""

    group: str
    name: str
    what: str
    unit: str
    reference: str
    """Name of the row that ratios refer to; empty where there are none."""
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    """What could not be measured here, and why."""

    def row(self, name: str) -> Row | None:
        """Returns the row of that name, if there is one."""
        return next((row for row in self.rows if row.name == name), None)


class Settings(NamedTuple):
    """What a run was asked for."""

    rounds: int
    quick: bool = False
    """Whether it is only to be seen that everything works: as little work as possible."""
    cpu: int = 0
    """Where everything is when it is to share one CPU."""
    say: Callable[[str], None] = lambda _words: None
    """Takes a few words on what is being done."""

    def times(self, count: int) -> int:
        """Returns how often to repeat something within a round."""
        return max(1, count // 50) if self.quick else count


def spread(values: Sequence[float]) -> Spread:
    """Returns where some numbers lie; a single one lies where it is.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    low = high = values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high, min(values), max(values))


def ratios(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Returns how many times as much each round of one way was as the same round of another.

    Raises:
        ValueError: They are not of the same rounds.
    """
    return tuple(one / other for one, other in zip(values, others, strict=True))


def excesses(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Returns by how much each round of one way was more than the same round of another.

    Raises:
        ValueError: They are not of the same rounds.
    """
    return tuple(one - other for one, other in zip(values, others, strict=True))


def race(
    ways: Sequence[Way], rounds: int, *, warm: int = 1, seed: int | None = None
) -> dict[str, tuple[float, ...]]:
    """Lets ways take turns, and returns what each took in each round, by name.

    Args:
        ways: Of different names.
        rounds: How many count.
        warm: How many come before these.
        seed: Of the orders; None for other ones each time.

    Raises:
        ValueError: Two of them have one name.
        WrongError: From a way, whose work was not done.
    """
    took: dict[str, list[float]] = {way.name: [] for way in ways}
    if len(took) != len(ways):
        raise ValueError("two ways of one name")
    order = list(ways)
    dice = random.Random(seed)  # noqa: S311 (a play of dice, not a secret)
    for number in range(warm + rounds):
        dice.shuffle(order)
        for way in order:
            one = way.run()
            if number >= warm:
                took[way.name].append(one)
    return {name: tuple(values) for name, values in took.items()}


def table(
    group: str,
    name: str,
    what: str,
    ways: Sequence[Way],
    settings: Settings,
    *,
    unit: str,
    reference: str,
    warm: int = 1,
    missing: Iterable[str] = (),
) -> Table:
    """Lets ways take turns, and returns the table of it.

    Args:
        group: That the table belongs to.
        name: Of the table, in the group.
        what: The title.
        ways: In the order of their rows.
        settings: How many rounds there are.
        unit: Of what the ways return.
        reference: Name of the way that ratios refer to; empty for no ratios.
        warm: How many rounds do not count.
        missing: What could not be measured here, and why.

    Raises:
        WrongError: From a way, whose work was not done.
    """
    settings.say(f"{group}: {name}")
    took = race(ways, settings.rounds, warm=warm)
    whats = {way.name: way.what for way in ways}
    return tabled(group, name, what, whats, took, unit=unit, reference=reference, missing=missing)


def tabled(
    group: str,
    name: str,
    what: str,
    whats: Mapping[str, str],
    took: Mapping[str, Sequence[float]],
    *,
    unit: str,
    reference: str = "",
    missing: Iterable[str] = (),
) -> Table:
    """Returns the table of numbers that were measured together.

    Args:
        group: That the table belongs to.
        name: Of the table, in the group.
        what: The title.
        whats: What each row is, by name, in order.
        took: The numbers of each row, one for each round.
        unit: Of the numbers.
        reference: Name of the row that ratios refer to; empty for no ratios.
        missing: What could not be measured here, and why.
    """
    rows = [
        Row(
            row,
            whats[row],
            spread(took[row]),
            spread(ratios(took[row], took[reference])) if reference and row != reference else None,
            tuple(took[row]),
        )
        for row in whats
    ]
    return Table(group, name, what, unit, reference, tuple(rows), tuple(missing))
