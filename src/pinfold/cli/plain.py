"""The options of a command as data, and a command line in its plainest form.

To import ``click`` takes longer than to run a program in a sandbox. So a command that is to feel
instant has its options here, as rows, from which ``cli.commands`` makes what ``click`` needs; and a
command line that leaves no question open is understood without it. Whatever is not plainly right
(help, a misspelt option, a value that looks like an option, several flags in one word) is left to
``click``, which has the messages. So nobody can tell which of the two it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Option(NamedTuple):
    """An option of a command."""

    spellings: tuple[str, ...]
    parameter: str
    """Of the command's function."""
    help: str
    metavar: str | None = None
    """Name of its value; without one, and without choices, it is a flag."""
    many: bool = False
    """Whether it may be given several times; the parameter is a tuple then."""
    choices: tuple[str, ...] = ()
    """Values that it takes; the first one is the default."""


VARIABLES: Final = Option(
    ("--set",),
    "variables",
    "Give a variable of the policy a value.",
    metavar="NAME=VALUE",
    many=True,
)
KEEP_CAPS: Final = Option(
    ("--keep-caps",),
    "keep_caps",
    "Started by root: leave the program all capabilities, not just a container's usual ones.",
)
CPU: Final = Option(
    ("--cpu",),
    "cpu",
    "Where the program runs: on one processor together with pinfold while one task of it alone"
    " traps, and often; always on one; or wherever the kernel has it. The program does not see it.",
    choices=("auto", "together", "spread"),
)
BACKEND: Final = Option(
    ("--backend",),
    "backend",
    "How calls are brought here: by the kernel's own requests for it where it has them and they are"
    " enough for what was asked (auto); by these or not at all; by a tracer.",
    choices=("auto", "native", "trace"),
)


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


def parse(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any] | None:
    """Returns a command's parameters, those of COMMAND as ``argv``; None where ``click`` is to see.

    Args:
        options: The command's.
        words: The command line behind the command's name.
    """
    found: dict[str, Any] = {one.parameter: _default(one) for one in options}
    known = {spelling: one for one in options for spelling in one.spellings}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        name, equals, value = words[at].partition("=")
        at += 1
        option = known.get(name)
        if option is None or (equals and not name.startswith("--")):
            return None
        if not _takes_value(option):
            if equals:
                return None
            found[option.parameter] = True
            continue
        if not equals:
            if at == len(words) or words[at].startswith("-"):
                return None
            value = words[at]
            at += 1
        if option.choices and value not in option.choices:
            return None
        found[option.parameter] = (*found[option.parameter], value) if option.many else value
    if at < len(words) and words[at] == "--":
        at += 1
    elif any(word.startswith("-") for word in words[at:]):
        # ``click`` takes options behind the first words of COMMAND as well.
        return None
    found["argv"] = tuple(words[at:])
    return found if found["argv"] else None


def _takes_value(option: Option) -> bool:
    return option.metavar is not None or bool(option.choices)


def _default(option: Option) -> Any:
    if option.many:
        return ()
    if option.choices:
        return option.choices[0]
    return None if option.metavar is not None else False
