"""``pinfold check``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from pinfold.cli import options
from pinfold.cli.plain import assigned
from pinfold.cli.streams import complain
from pinfold.paths import printable
from pinfold.policy.file.doubts import said
from pinfold.policy.file.explain import explain
from pinfold.policy.file.load import load
from pinfold.policy.globs import fixed
from pinfold.policy.judging.linked import real_name
from pinfold.policy.judging.match import STRICT
from pinfold.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pinfold.policy.file.explain import Explanation
    from pinfold.policy.model import PolicyModel, Rule
    from pinfold.syscalls.kinds import Kind

_WIDTH: Final = 100
"""Columns of text at most, and where standard output is no terminal."""
_LEAST: Final = 40


@click.command("check", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print what the policy became as JSON.")
@options.variables
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path())
def command(files: Sequence[str], as_json: bool, variables: Sequence[str]) -> int:
    """Check policy files, and say in words what they do.

    The FILEs make one policy together, the first comes first; `builtin:NAME` is a ready policy.
    Nothing is run. The exit status is 0 when the policy can be used, 125 when it cannot; warnings,
    on standard error, change nothing about that.
    """
    if not files:
        raise click.UsageError("no FILE given")
    model = load(list(files), variables=assigned(variables))
    calls = _trapped(model)
    explanation = explain(model, calls)
    if as_json:
        import json  # noqa: PLC0415 (for this form alone)

        click.echo(json.dumps(_document(model, calls), indent=2))
    else:
        for line in _lines(model, explanation, files):
            click.echo(line)
    for warning in (*explanation.warnings, *links(model)):
        complain(f"warning: {warning}")
    return 0


def _trapped(model: PolicyModel) -> Mapping[str, frozenset[Kind]]:
    from pinfold.policy.judging.judge import RuleJudge  # noqa: PLC0415 (not before the policy was read)

    return RuleJudge(model, None).calls


# Text.


def _lines(model: PolicyModel, explanation: Explanation, files: Sequence[str]) -> Iterator[str]:
    from textwrap import wrap  # noqa: PLC0415 (for this form alone)

    width = _width()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    names = ", ".join(printable(os.fsencode(name)) for name in files)
    text = _printable(model.description)
    yield from wrap(f"{names}: {text}" if text else names, width)
    for section in explanation.sections:
        yield ""
        for line in wrap(section.title, width):
            yield click.style(line, bold=True) if colour else line
        for line in section.lines:
            yield from wrap(
                line,
                width,
                initial_indent="  ",
                subsequent_indent="      ",
                break_long_words=False,
                break_on_hyphens=False,
            )


def _width() -> int:
    if not sys.stdout.isatty():
        return _WIDTH
    try:
        return max(_LEAST, min(_WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns - 1))
    except OSError:
        return _WIDTH


def _printable(text: str) -> str:
    return printable(text.encode(errors="surrogateescape"))


# JSON.


def _document(model: PolicyModel, calls: Mapping[str, frozenset[Kind]]) -> dict[str, Any]:
    document: dict[str, Any] = _plain(model)
    document["trapped"] = {
        name: sorted(kind.value for kind in kinds) for name, kinds in sorted(calls.items())
    }
    return document


def _plain(value: Any) -> Any:
    from dataclasses import fields, is_dataclass  # noqa: PLC0415 (likewise)

    if isinstance(value, bytes):
        return os.fsdecode(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, frozenset):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if is_dataclass(value) and type(value).__module__ == "pinfold.policy.model":
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Value):
        from pinfold.codec.sockaddr import show  # noqa: PLC0415 (likewise)

        return show(value)  # type: ignore[arg-type]  # the only other class in a model
    return str(value)  # a network


# What only the file system knows.


def links(model: PolicyModel) -> Iterator[str]:
    """Yields a warning for each rule that names a symbolic link where links are not followed."""
    for rule in model.rules:
        for name in filter(None, map(_beginning, rule.match.program)):
            real = real_name(name)
            if real != name and rule.action.verb not in STRICT:
                yield (
                    f"{said(rule)}: {printable(name)} leads over a symbolic link to"
                    f" {printable(real)}, and the program that calls is known by its real name;"
                    " write that"
                )
                break
    if model.real or any(rule.match.real for rule in model.rules):
        return
    for rule in model.rules:
        for name in _names(rule):
            real = real_name(name)
            if real != name:
                yield (
                    f"{said(rule)}: {printable(name)} leads over a symbolic link to"
                    f" {printable(real)}, and rules are about names as they are spelt; write"
                    " real = true at the top, or name both"
                )
                break


def _names(rule: Rule) -> Iterator[bytes]:
    # The names that a rule spells out, as far as they are there; of a pattern its beginning.
    match = rule.match
    yield from match.exact
    yield from filter(None, map(_beginning, (*match.path, *match.unix)))


def _beginning(pattern: bytes) -> bytes:
    return fixed(pattern)[0]
