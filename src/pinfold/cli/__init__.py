"""The command line: one module a command, imported when that command is run.

Exit codes follow ``env(1)`` and ``docker run``: COMMAND's own status passes through, 128 + N when
signal N ended it, 127 when it was not found, 126 when it cannot be executed, 125 for whatever goes
wrong in pinfold itself, wrong usage included.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from pinfold import __version__
from pinfold.cli.streams import claim, complain
from pinfold.errors import PinfoldError

FAILED = 125

_COMMANDS = {
    "attack": "Attack pinfold, and count what gets through.",
    "check": "Check policy files, and say in words what they do.",
    "audit": "Verify an audit log, or report on it.",
    "doctor": "Tell what this machine can do, and what is lost where it cannot.",
    "learn": "Run a program and write a policy that allows what it did.",
    "run": "Run a program under pinned arguments.",
    "trace": "Run a program and show its calls, with the arguments that the kernel used.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        found = import_module(f"pinfold.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="pinfold")
def group() -> None:
    """A sandbox supervisor whose decisions hold.

    What pinfold judged is byte for byte what the kernel acts on: arguments are copied into sealed
    memory before they are looked at, and the program's call is pointed there.
    """


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Ends the process with one line on standard error."""
    complain(message)
    sys.exit(code)


def main() -> NoReturn:
    """Runs the command line and exits."""
    claim()
    try:
        status = group.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(FAILED)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see `{error.ctx.command_path} --help`)"
        fail(error.format_message() + hint)
    except click.Abort:
        fail("interrupted")
    except PinfoldError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        fail(f"{error.strerror or error} ({error.filename})" if error.filename else str(error))
    except Exception as error:  # noqa: BLE001 (whatever it is, the sandbox was killed before)
        fail(f"a bug in pinfold, please report it: {type(error).__name__}: {error}")
    sys.exit(status if isinstance(status, int) else 0)
