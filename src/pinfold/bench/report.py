"""All that was measured in one run, with what it was measured on, and how that is shown."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pinfold import __version__
from pinfold.bench.bars import Judged  # noqa: TC001 (msgspec looks it up)
from pinfold.bench.measure import Table  # noqa: TC001 (likewise)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinfold.bench.measure import Settings, Spread

BUSY: Final = 0.5
"""A load average for each CPU from which on other work is in the figures."""


class About(msgspec.Struct, frozen=True):
    """What it was measured on."""

    pinfold: str
    python: str
    kernel: str
    processor: str
    cpus: int
    """That this process may use."""
    cpu: int
    """The one that everything was on where it was to share one."""
    load: tuple[float, ...]
    """Load averages of the last 1, 5 and 15 minutes, when it began."""
    began: str
    """UTC."""
    rounds: int
    quick: bool


class Report(msgspec.Struct, frozen=True):
    """What ``--json`` prints."""

    about: About
    tables: tuple[Table, ...]
    bars: tuple[Judged, ...]


class Section(NamedTuple):
    """A table as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def about(settings: Settings) -> About:
    """Returns what this machine is, and how busy."""
    return About(
        __version__,
        platform.python_version(),
        platform.release(),
        _processor(),
        len(os.sched_getaffinity(0)),
        settings.cpu,
        tuple(round(one, 2) for one in os.getloadavg()),
        time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        settings.rounds,
        settings.quick,
    )


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def in_words(one: About) -> str:
    """Returns what it was measured on, in a line."""
    load = "/".join(f"{number:.2f}" for number in one.load)
    busy = " (busy)" if one.load[0] > BUSY * one.cpus else ""
    return (
        f"pinfold {one.pinfold}, Python {one.python}, Linux {one.kernel}, {one.cpus} CPUs of"
        f" {one.processor}, load {load}{busy}, {one.rounds} rounds, {one.began} UTC"
        + (", quick: figures mean nothing" if one.quick else "")
    )


def section(table: Table) -> Section:
    """Returns a table as text."""
    columns = ["", table.unit, "middle half", "least"]
    if table.reference:
        columns += [f"to {table.reference}", "middle half"]
    rows = []
    for row in table.rows:
        cells = [row.name, number(row.value.median), _half(row.value), number(row.value.least)]
        if table.reference:
            cells += (
                ["1", ""] if row.ratio is None else [_ratio(row.ratio.median), _half(row.ratio)]
            )
        rows.append((*cells, row.what))
    return Section(
        f"{table.group} {table.name}: {table.what}",
        (*columns, ""),
        tuple(rows),
        tuple(f"not here: {line}" for line in table.missing),
    )


def bars(judged: Sequence[Judged]) -> Section:
    """Returns bars as text."""
    rows = []
    for bar in judged:
        unit = f" {bar.unit}" if bar.unit else ""
        met = {True: "met", False: "NOT MET", None: "not measured"}[bar.met]
        cells = ("", "")
        if bar.measured is not None:
            cells = (number(bar.measured.median) + unit, _half(bar.measured))
        rows.append((bar.what, f"{bar.most:g}{unit}", *cells, met))
    return Section("bars", ("", "at most", "measured", "middle half", ""), tuple(rows))


def number(value: float) -> str:
    """Returns a figure with as many digits as it deserves."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _half(one: Spread) -> str:
    return f"{number(one.low)}-{number(one.high)}"


def lines(one: Section) -> Iterable[str]:
    """Yields a section as lines: columns of numbers to the right, words to the left."""
    yield one.title
    if one.rows:
        rows = [one.columns, *one.rows]
        widths = [max(len(row[at]) for row in rows) for at in range(len(one.columns) - 1)]
        for row in rows:
            first = f"{row[0]:{widths[0]}}"
            rest = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=False)]
            yield "  " + "  ".join([first, *rest, row[-1]]).rstrip()
    for note in one.notes:
        yield f"  {note}"


def encoded(report: Report) -> bytes:
    """Returns a report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def decoded(text: bytes) -> Report:
    """Returns the report that :func:`encoded` made a text of.

    Raises:
        msgspec.ValidationError: It is none.
    """
    return msgspec.json.decode(text, type=Report)
