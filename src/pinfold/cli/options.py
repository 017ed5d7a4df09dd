"""What several commands have in common on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pinfold.cli.plain import CPU, KEEP_CAPS, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pinfold.cli.plain import Option

C = TypeVar("C", bound="Callable[..., Any] | click.Command")

SETTINGS: Final[dict[str, Any]] = {
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": False,
    },
    "options_metavar": "[OPTIONS] --",
}
"""For a command whose last arguments are those of COMMAND."""


def option(row: Option) -> Callable[[C], C]:
    """Returns the decorator that gives a command the option of a row."""
    if row.choices:
        return click.option(
            *row.spellings,
            row.parameter,
            type=click.Choice(row.choices),
            default=row.choices[0],
            show_default=True,
            help=row.help,
        )
    if row.metavar is None:
        return click.option(*row.spellings, row.parameter, is_flag=True, help=row.help)
    return click.option(
        *row.spellings, row.parameter, multiple=row.many, metavar=row.metavar, help=row.help
    )


cpu: Final = option(CPU)
keep_caps: Final = option(KEEP_CAPS)
variables: Final = option(VARIABLES)
argv: Final = click.argument("argv", metavar="COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)


def command(name: str, rows: Sequence[Option], function: Callable[..., int]) -> click.Command:
    """Returns a command that runs COMMAND, from the rows of its options."""
    for decorate in (argv, *map(option, reversed(rows))):
        function = decorate(function)
    made: Callable[[Callable[..., int]], click.Command] = click.command(name, **SETTINGS)
    return made(function)
