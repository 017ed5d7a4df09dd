"""``pinfold audit``: what became of a run, and whether its log is what was written."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from pinfold.cli.streams import complain
from pinfold.errors import AuditError
from pinfold.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pinfold.audit.collect import Collection, Section
    from pinfold.audit.verify import Verification

_HELP = {"help_option_names": ["-h", "--help"]}
_FAILED = 125


@click.group("audit", context_settings=_HELP)
def command() -> None:
    """Verify a log that `pinfold run --audit` wrote, or report on it."""


@command.command("verify", context_settings=_HELP)
@click.option(
    "--expect",
    metavar="HEX",
    help="The head that the log must have, as `pinfold run -v` told it. Without this nobody can"
    " tell a log from one that was written anew.",
)
@click.argument("names", metavar="FILE...", nargs=-1, required=True)
def verify(expect: str | None, names: Sequence[str]) -> int:
    """Check that each FILE is whole and that each line follows from the one before.

    '-' is standard input. The exit status is 0 when all are in order, 1 when something is wrong,
    125 when a FILE cannot be read. What is wrong is told as FILE:LINE on standard error.
    """
    from pinfold.audit.verify import verify as check  # noqa: PLC0415 (as all that is slow)

    if expect is not None:
        expect = expect.lower()
        if not re.fullmatch("[0-9a-f]{64}", expect):
            raise click.UsageError("--expect takes 64 hexadecimal digits")
        if len(names) != 1:
            raise click.UsageError("--expect goes with one FILE")
    status = 0
    for name in names:
        try:
            with _opened(name) as stream:
                found = check(stream, expect)
        except OSError as error:
            complain(f"{_shown(name)}: {error.strerror}")
            status = _FAILED
            continue
        if found.ok:
            click.echo(f"{_shown(name)}: {_calls(found)}, complete, head {found.head}")
        else:
            _blame(name, found)
            status = status or 1
    return status


@command.command("report", context_settings=_HELP)
@click.option(
    "-o",
    "--output",
    metavar="HTML",
    help="Write a page to look at in a browser as well; it is one file, and loads nothing.",
)
@click.argument("name", metavar="FILE")
def report(output: str | None, name: str) -> int:
    """Say what FILE tells: calls by group and verdict, programs, denials, redirects.

    '-' is standard input. A log that is not in order is reported on all the same, with a line on
    standard error and in the page that says so.
    """
    from pinfold.audit.collect import collect  # noqa: PLC0415 (as all that is slow)

    if output is not None:
        _keep_apart(name, output)
    try:
        with _opened(name) as stream:
            collection = collect(stream)
    except OSError as error:
        raise AuditError(f"{_shown(name)}: {error.strerror}") from error
    assert collection.verification is not None
    _blame(name, collection.verification)
    if output is not None:
        _write_page(output, collection, name)
    _summarise(name, collection)
    return 0


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with open(name, "rb") as stream:
            yield stream


def _blame(name: str, found: Verification) -> None:
    for problem in found.problems:
        where = f":{problem.line}" if problem.line else ""
        line = f"{_shown(name)}{where}: {problem.what}"
        click.echo(line, err=True)


def _keep_apart(name: str, output: str) -> None:
    # Before anything is read, and long before the page's file is emptied.
    log = sys.stdin.fileno() if name == "-" else name
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(log), os.stat(output)):
            raise click.UsageError(f"the page would take the place of the log {_shown(output)}")


def _write_page(output: str, collection: Collection, name: str) -> None:
    from pinfold.audit.page import page  # noqa: PLC0415 (as all that is slow)

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        # As private as the log is.
        with open(os.open(output, flags, 0o600), "w", encoding="utf-8") as file:
            for piece in page(collection, _shown(name)):
                file.write(piece)
    except OSError as error:
        raise AuditError(f"cannot write {_shown(output)}: {error.strerror}") from error


def _summarise(name: str, collection: Collection) -> None:
    from pinfold.audit.collect import sections  # noqa: PLC0415 (as all that is slow)
    from pinfold.audit.page import moment  # noqa: PLC0415

    found = collection.verification
    assert found is not None
    said = "complete" if found.ok else "NOT VERIFIED"
    head = f"{_shown(name)}: {_calls(found)}, {said}"
    if collection.first is not None and collection.last is not None:
        head += (
            f", {moment(collection.first)}, {max(0.0, collection.last - collection.first):.1f} s"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale may have no letters for what a log tells.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stdout.isatty():
        click.echo(head)
        for section in sections(collection):
            _print_plain(section)
        return
    from rich.console import Console  # noqa: PLC0415 (slow to import)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(Text(head, style="bold" if found.ok else "bold red"))
    for section in sections(collection):
        if section.rows:
            table = Table(
                title=Text(section.title),
                title_justify="left",
                caption=Text(section.more) if section.more else None,
                caption_justify="left",
            )
            for column in section.columns:
                table.add_column(Text(column))
            for row in section.rows:
                table.add_row(*(Text(cell, overflow="fold") for cell in row))
            console.print(table)
        else:
            console.print(Text(f"{section.title}: none"))


def _print_plain(section: Section) -> None:
    click.echo(f"\n{section.title}" + ("" if section.rows else ": none"))
    if not section.rows:
        return
    rows = [section.columns, *section.rows]
    # The last column is as long as it likes.
    widths = [max(len(row[at]) for row in rows) for at in range(len(section.columns) - 1)]
    for row in rows:
        cells = [*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]
        click.echo("  " + "  ".join(cells).rstrip())
    if section.more:
        click.echo(f"  … {section.more}")


def _calls(found: Verification) -> str:
    return f"{found.calls} call{'' if found.calls == 1 else 's'}"


def _shown(name: str) -> str:
    return printable(os.fsencode(name))
