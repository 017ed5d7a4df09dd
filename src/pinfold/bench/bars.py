"""What pinfold is held to: for some figures, how large they may be.

A bar is about the median over all rounds of one run, on whatever machine that was. One run on a
busy machine that does not meet a bar proves little, and neither does one that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pinfold.bench.measure import Spread, excesses, ratios, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pinfold.bench.measure import Table

RATIO: Final = "ratio"
EXCESS: Final = "excess"
VALUE: Final = "value"


class Bar(NamedTuple):
    """One figure, and how large it may be."""

    what: str
    group: str
    table: str
    row: str
    base: str
    """The row that it is set against; empty where it stands alone."""
    kind: str
    """``RATIO``: so many times the base; ``EXCESS``: by so much more; ``VALUE``: the figure."""
    most: float


class Judged(msgspec.Struct, frozen=True):
    """A bar, and what was measured."""

    what: str
    kind: str
    unit: str
    """Of ``most`` and ``measured``; empty for a ratio."""
    most: float
    measured: Spread | None
    """None where it was not."""
    met: bool | None


def _verdict(table: str, words: str) -> Bar:
    what = f"a verdict over 10,000 rules, to one over 10: {words}"
    return Bar(what, "verdict", table, "10000", "10", RATIO, 1.2)


def _work(table: str, words: str) -> Bar:
    what = f"{words} under a policy that inspects every path, to bare"
    return Bar(what, "work", table, "policy", "bare", RATIO, 1.35)


BARS: Final = (
    Bar(
        "a redirected open, to one ptrace stop in C",
        "call",
        "ways",
        "redirect",
        "c-stop",
        RATIO,
        1.6,
    ),
    Bar(
        "a redirected open, to one notification in C",
        *("call", "ways", "redirect", "c-notify-sync", RATIO, 2.4),
    ),
    Bar(
        "a redirected open with all CPUs free, to one on one CPU",
        *("call", "ways", "redirect, free", "redirect", RATIO, 1.3),
    ),
    _verdict("deny-names-again", "--deny of names, asked again"),
    _verdict("deny-names-new", "--deny of names, new ones"),
    _verdict("deny-patterns-again", "--deny of patterns, asked again"),
    _verdict("deny-patterns-new", "--deny of patterns, new names"),
    _verdict("policy-names-again", "a policy of names, asked again"),
    _verdict("policy-names-new", "a policy of names, new ones"),
    _verdict("policy-patterns-again", "a policy of patterns, asked again"),
    _verdict("policy-patterns-new", "a policy of patterns, new names"),
    _work("git-status", "git status of a large tree"),
    _work("python", "the start of Python"),
    _work("c-build", "a build of C files"),
    Bar("pinfold run -- true, more than true", "start", "true", "run", "true", EXCESS, 60),
    Bar(
        "Sandbox.run(['true']) in a warm process, more than subprocess.run",
        *("start", "true", "warm", "warm-subprocess", EXCESS, 5),
    ),
    Bar("the supervisor's memory for 1,000 processes", "memory", "rss", "1000", "", VALUE, 40),
)


def judged(tables: Iterable[Table], groups: Sequence[str]) -> Iterator[Judged]:
    """Yields each bar of some groups, with what was measured.

    Args:
        tables: What was.
        groups: What was asked for.
    """
    found = {(table.group, table.name): table for table in tables}
    for bar in BARS:
        if bar.group not in groups:
            continue
        table = found.get((bar.group, bar.table))
        numbers = None if table is None else figures(bar, table)
        measured = spread(numbers) if numbers else None
        yield Judged(
            bar.what,
            bar.kind,
            "" if bar.kind == RATIO or table is None else table.unit,
            bar.most,
            measured,
            None if measured is None else measured.median <= bar.most,
        )


def figures(bar: Bar, table: Table) -> tuple[float, ...] | None:
    """Returns what a bar is about, a number for each round; None where a row is missing."""
    row, base = table.row(bar.row), table.row(bar.base)
    if row is None or (bar.base and base is None):
        return None
    if base is None:
        return row.rounds
    return (ratios if bar.kind == RATIO else excesses)(row.rounds, base.rounds)
