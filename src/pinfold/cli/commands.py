"""The command line as ``click`` sees it: all commands, help, and what is said about wrong usage."""

from __future__ import annotations

from importlib import import_module

import click

from pinfold import __version__
from pinfold.cli import COMMANDS, FAILED, fail


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"pinfold.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="pinfold")
def group() -> None:
    """A sandbox supervisor whose decisions hold.

    What pinfold judged is byte for byte what the kernel acts on: arguments are copied into sealed
    memory before they are looked at, and the program's call is pointed there.
    """


def run() -> object:
    """Returns what the command that is named on the command line returns."""
    try:
        return group.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(FAILED) from error
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see `{error.ctx.command_path} --help`)"
        fail(error.format_message() + hint)
    except click.Abort:
        fail("interrupted")
