"""``pinfold attack``."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

from pinfold.attack import campaign
from pinfold.attack.campaign import CONTROLS, Total
from pinfold.attack.catalogue import ATTACKS
from pinfold.attack.catalogue.model import PINNED, TWO_STOPS
from pinfold.attack.measure import HELD, UNSUPPORTED
from pinfold.attack.supervisors import OTHERS
from pinfold.cli.streams import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pinfold.attack.campaign import Plan, Row
    from pinfold.attack.measure import Count

_COLOURS: Final = {HELD: "green", UNSUPPORTED: "yellow"}
_NOTHING: Final = "-"


@click.command("attack", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice((*PINNED, TWO_STOPS)),
    help="Attack this back end; may be repeated. Default: all that this machine has.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Make at least N attempts in all on each back end, by making races longer.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    metavar="S",
    help="Soak: begin again with the first attack until S seconds have passed.",
)
@click.option("--no-control", is_flag=True, help="Leave out the supervisors that must lose.")
@click.option(
    "--against",
    "others",
    multiple=True,
    type=click.Choice((*OTHERS, "none")),
    help="Compare with this other sandbox. Default: all that are installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--list", "only_list", is_flag=True, help="Show the attacks, and make none.")
@click.argument("names", nargs=-1, metavar="[ATTACK]...")
def command(
    backends: tuple[str, ...],
    attempts: int | None,
    seconds: float | None,
    no_control: bool,
    others: tuple[str, ...],
    as_json: bool,
    only_list: bool,
    names: tuple[str, ...],
) -> int:
    """Attack pinfold, and count what gets through.

    Each ATTACK (a name or a glob, all by default) is a program that tries one way around the rules,
    over and over. It is run under pinfold's back ends, which must not lose a single attempt; under
    a control, a supervisor that is wrong in just that way and has to lose, or the attack proves
    nothing; and under other sandboxes where they are installed. Programs are built with the
    system's C compiler, and act on nothing but a directory and processes of their own.

    The exit status is 0 when every attack was held and every control lost, 1 when not.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    plan = campaign.planned(
        names,
        backends,
        [one for one in others if one != "none"] if others else None,
        controls=not no_control,
        attempts=attempts or 0,
    )
    if only_list:
        _list(plan, as_json)
        return 0
    columns = ([] if no_control else ["control"]) + [*plan.backends, *plan.others]
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if not as_json:
        click.echo(_line("attack", columns, "verdict"))
    rows: list[Row] = []
    for row in campaign.carried_out(plan, seconds or 0.0, _progress()):
        rows.append(row)
        if as_json:
            click.echo(json.dumps(campaign.as_dict(row)))
        else:
            click.echo(_row(row, columns, colour), color=colour)
            for note in row.notes:
                click.echo(f"    {note}")
    if not as_json:
        for line in _summary(rows, columns):
            click.echo(line)
    wrong = sorted({row.attack.name for row in rows if not row.holds})
    if wrong:
        complain(f"not held, or not tested: {', '.join(wrong)}")
    return 1 if wrong else 0


def _list(plan: Plan, as_json: bool) -> None:
    width = max(len(one.name) for one in ATTACKS)
    for one in plan.attacks:
        if as_json:
            click.echo(json.dumps({**one._asdict(), "helpers": [name for name, _ in one.helpers]}))
        else:
            against = one.control or f"no control: {one.alone}"
            click.echo(f"{one.name:{width}}  {one.about} ({against})")


def _progress() -> Callable[[str], None] | None:
    # On a terminal, what is being done now; it is overwritten.
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None

    def show(words: str) -> None:
        click.echo(f"\r\033[K{words}…\r", nl=False, err=True)

    return show


_NAME: Final = max(len(one.name) for one in ATTACKS)
_WIDTH: Final = 16


def _line(name: str, cells: Sequence[str], verdict: str) -> str:
    shown = "".join(f"{cell:>{_WIDTH}}" for cell in cells)
    return f"{name:{_NAME}}{shown}  {verdict}"


def _row(row: Row, columns: Sequence[str], colour: bool) -> str:
    counts = {one.supervisor: one for one in (*row.pinned, *row.others)}
    cells = [_cell(row.control if name == "control" else counts.get(name)) for name in columns]
    verdict = row.verdict
    if colour:
        verdict = click.style(verdict, fg=_COLOURS.get(verdict, "red"))
    return _line(row.attack.name, cells, verdict)


def _cell(count: Count | None) -> str:
    if count is None:
        return _NOTHING
    if count.verdict == UNSUPPORTED:
        return UNSUPPORTED
    return f"{count.escapes:,}/{count.attempts:,}"


def _summary(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
    yield ""
    yield _line("escapes/attempts", columns, "attacks")
    everything: dict[str, Total] = {}
    for family, found in campaign.totals(rows).items():
        names = {row.attack.name for row in rows if row.attack.family == family}
        yield _line(family, [_total(found, name) for name in columns], str(len(names)))
        for name, one in found.items():
            before = everything.get(name, Total())
            everything[name] = Total(*(a + b for a, b in zip(before, one, strict=True)))
    attacks = str(len({row.attack.name for row in rows}))
    yield _line("all", [_total(everything, name) for name in columns], attacks)


def _total(found: dict[str, Total], column: str) -> str:
    one = found.get(CONTROLS if column == "control" else column)
    return _NOTHING if one is None or not one.attacks else f"{one.escapes:,}/{one.attempts:,}"
