"""The fields of a log's lines: one table, for what is checked and for what is documented (pure).

``docs/audit.md`` shows this table, ``audit.verify`` holds each line against it. Fields may be added
in later versions without a new schema number, so a field that is not here is no error.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SCHEMA: Final = 1


class Field(NamedTuple):
    """One field of a kind of line."""

    name: str
    kind: str
    """A key of ``KINDS``."""
    always: bool
    meaning: str


def _is_integer(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 64


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (type(value) is float and isfinite(value))


KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda value: type(value) is str,
    "integer": _is_integer,
    "count": lambda value: _is_integer(value) and value >= 0,
    "number": _is_number,
    "true": lambda value: value is True,
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
    "texts": lambda value: type(value) is list and all(type(one) is str for one in value),
}
"""What a value has to be. Integers are those that a register can hold, of either sign."""

_TYPE: Final = Field("type", "text", True, "what line this is")
_TIME: Final = Field("time", "number", True, "seconds since 1970, UTC")
_CHAIN: Final = Field("chain", "text", True, "see “The chain”; always the last field")

LINES: Final[dict[str, tuple[Field, ...]]] = {
    "start": (
        _TYPE,
        Field("schema", "integer", True, f"`{SCHEMA}`: the fields are those described here"),
        Field("pinfold", "text", True, "version of pinfold"),
        _TIME,
        Field("on_loss", "text", True, "`stop` or `continue`: see “When it cannot be written”"),
        Field("argv", "array", True, "COMMAND and its arguments"),
        Field("cwd", "text", True, "directory that it starts in"),
        Field("uid", "count", True, "user that it runs as"),
        Field("kernel", "text", True, "release of the kernel"),
        Field("mode", "text", True, "`enforce`, or `dry-run`: verdicts are only noted"),
        Field("rules", "texts", True, "rules of the command line, in order"),
        Field("policy", "array", True, "policy files, in order: objects of `file` and `sha256`"),
        _CHAIN,
    ),
    "call": (
        _TYPE,
        Field("seq", "count", True, "number of the call, from 1; calls that were lost count"),
        _TIME,
        Field("pid", "count", True, "the process, as seen from outside the sandbox"),
        Field("tid", "count", True, "the thread"),
        Field("program", "text", True, "path of the program that it runs"),
        Field("syscall", "text", True, "the call's name"),
        Field("args", "object", True, "decoded arguments by name, pointers' targets *as pinned*"),
        Field("verdict", "text", True, "see “Verdicts”"),
        Field("names", "texts", False, "absolute names that the paths mean, as judged"),
        Field("rule", "text", False, "the rule or handler that decided"),
        Field("errno", "text", False, "what the call failed with by verdict"),
        Field("substituted", "object", False, "by argument, `from` what was asked `to` what is"),
        Field("value", "integer", False, "for `return`: the result"),
        Field("content", "object", False, "for `serve`: `length` and `sha256` of the content"),
        Field("dry_run", "true", False, "the verdict was noted and the call made as it was"),
        _CHAIN,
    ),
    "gap": (
        _TYPE,
        _TIME,
        Field("lost", "count", True, "calls right before this line that have no line"),
        _CHAIN,
    ),
    "end": (
        _TYPE,
        _TIME,
        Field("exit", "integer", False, "exit status, as `pinfold run` passes it on"),
        Field("reason", "text", True, "how the run ended"),
        Field("calls", "count", True, "calls in all, those that were lost included"),
        Field("lost", "count", True, "calls that have no line"),
        Field("verdicts", "object", True, "calls by verdict"),
        _CHAIN,
    ),
}
"""The fields of each kind of line, in the order in which they are written."""

OLD: Final = tuple(field for field in LINES["call"] if field.name not in ("type", "seq", "chain"))
"""The fields of every line of a log from before there was a schema."""

VERDICTS: Final[dict[str, str]] = {
    "allow": "made with the arguments that were judged",
    "redirect": "made with arguments that a rule replaced",
    "deny": "failed with `errno`, by a rule",
    "return": "not made; the program got `value` as its result",
    "serve": "not made; the program got a descriptor of `content`",
    "inject": "not made; the program got a descriptor of the supervisor's",
    "kill": "not made; the process was killed, by a rule",
    "error": "failed as the kernel would have it: EFAULT, ENAMETOOLONG, …",
    "unpinned": "failed, since its arguments could not be pinned",
}
DENIALS: Final = frozenset({"deny", "kill", "unpinned"})
"""The verdicts by which a program did not get what it asked for."""


def check(record: Mapping[str, Any], fields: tuple[Field, ...] | None = None) -> str | None:
    """Returns what is wrong with a line's fields, None for nothing.

    Args:
        record: The line.
        fields: What it has to have; None for what its ``type`` says.
    """
    if fields is None:
        kind = record.get("type")
        if type(kind) is not str or kind not in LINES:
            return "it has no type that is known"
        fields = LINES[kind]
    for name, kind, always, _ in fields:
        if name not in record:
            if always:
                return f"it has no field {name!r}"
        elif not KINDS[kind](record[name]):
            return f"its field {name!r} is no {kind}"
    return None


def tables() -> Iterator[tuple[str, str]]:
    """Yields each kind of line, and its table as ``docs/audit.md`` has it."""
    for kind, fields in LINES.items():
        rows = ["| field | type | | meaning |", "|---|---|---|---|"]
        rows += [
            f"| `{name}` | {what} | {'' if always else 'if so'} | {meaning} |"
            for name, what, always, meaning in fields
        ]
        yield kind, "\n".join(rows)
    rows = ["| verdict | the call was |", "|---|---|"]
    yield (
        "verdict",
        "\n".join([*rows, *(f"| `{one}` | {said} |" for one, said in VERDICTS.items())]),
    )
