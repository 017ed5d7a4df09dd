"""What several commands have in common on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from pinfold.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS: Final[dict[str, Any]] = {
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": False,
    },
    "options_metavar": "[OPTIONS] --",
}
"""For a command whose last arguments are those of COMMAND."""

keep_caps: Final = click.option(
    "--keep-caps",
    is_flag=True,
    help="Started by root: leave the program all capabilities, not just a container's usual ones.",
)
variables: Final = click.option(
    "--set",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Give a variable of the policy a value.",
)
argv: Final = click.argument("argv", metavar="COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)


def assigned(texts: Sequence[str]) -> dict[str, str]:
    """Returns what ``--set`` options say.

    Raises:
        PolicyError: One has no ``=``.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise PolicyError(f"--set {text!r}: write NAME=VALUE")
        found[name] = value
    return found
