"""``pinfold bench``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from pinfold.bench import bars, groups, report
from pinfold.bench.measure import Settings
from pinfold.cli.streams import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.bench.report import Section

_ROUNDS = 15
_QUICK_ROUNDS = 2


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help=f"In each round every way has one turn. Default: {_ROUNDS}.",
)
@click.option("--quick", is_flag=True, help="Only see whether everything works.")
@click.option(
    "--cpu",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Where to be where everything is to share one CPU. Default: the last one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--bars", "strict", is_flag=True, help="Exit with 1 when a bar is not met, or not measured."
)
@click.option("--list", "only_list", is_flag=True, help="Show the groups, and measure nothing.")
@click.argument("names", nargs=-1, type=click.Choice(tuple(groups.GROUPS)), metavar="[GROUP]...")
def command(
    rounds: int | None,
    quick: bool,
    cpu: int | None,
    as_json: bool,
    strict: bool,
    only_list: bool,
    names: tuple[str, ...],
) -> int:
    """Measure what pinfold costs on this machine.

    Each GROUP (all by default) is measured in rounds in which all ways to do the same work have one
    turn each, and figures are set against a reference of the same round. It is made sure that the
    work was done; nothing is asserted about time. Programs are built with the system's C compiler,
    and are at work in a temporary directory.

    In the end there are the bars: figures that pinfold is held to. Docs: docs/performance.md.
    """
    if only_list:
        for group in groups.GROUPS.values():
            click.echo(f"{group.name:8}  {group.what}")
        return 0
    allowed = os.sched_getaffinity(0)
    if cpu is not None and cpu not in allowed:
        raise click.UsageError(f"--cpu {cpu}: this process may use {sorted(allowed)}")
    chosen = tuple(name for name in groups.GROUPS if name in names) or tuple(groups.GROUPS)
    settings = Settings(
        rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        quick,
        max(allowed) if cpu is None else cpu,
        complain,
    )
    about = report.about(settings)
    show = _ignored if as_json else _shown()
    if not as_json:
        click.echo(report.in_words(about))
    tables = []
    for table in groups.measured(chosen, settings):
        tables.append(table)
        show(report.section(table))
    # Of so little work, no figure says anything.
    judged = tuple(bars.judged([] if quick else tables, chosen))
    if as_json:
        click.echo(report.encoded(report.Report(about, tuple(tables), judged)))
    elif judged:
        show(report.bars(judged))
    return 1 if strict and not all(bar.met for bar in judged) else 0


def _ignored(_section: Section) -> None:
    pass


def _shown() -> Callable[[Section], None]:
    # What shows a section: as a table where somebody looks, else as lines.
    if not sys.stdout.isatty():
        return _plainly
    from rich import box  # noqa: PLC0415 (slow to import)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)

    def show(section: Section) -> None:
        shown = Table(title=Text(section.title), title_justify="left", box=box.SIMPLE_HEAD)
        last = len(section.columns) - 1
        for at, column in enumerate(section.columns):
            shown.add_column(
                Text(column),
                justify="right" if 0 < at < last else "left",
                no_wrap=0 < at < last,
            )
        for row in section.rows:
            shown.add_row(*(Text(cell, overflow="fold") for cell in row))
        if section.rows:
            console.print(shown)
        else:
            console.print(Text(section.title))
        for note in section.notes:
            console.print(Text(f"  {note}"))

    return show


def _plainly(section: Section) -> None:
    click.echo()
    for line in report.lines(section):
        click.echo(line)
