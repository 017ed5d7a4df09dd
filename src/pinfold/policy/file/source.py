"""The text of a policy file, and how its errors show where they are (pure)."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import Any, Final

import msgspec

from pinfold.errors import PolicyError
from pinfold.paths import printable
from pinfold.policy.file.positions import Path, Positions, parse_path, show_path
from pinfold.policy.file.schema import ACTIONS, TABLES, PolicyFile
from pinfold.syscalls.groups import near

# Compiled when there is an error to explain.
_AT: Final = r" - at `(?:key in )?([^`]*)`\Z"
_EXPECTED: Final = r"Expected `([^`]*)`(?: (of length )?([<>]=?) (\S+))?(?:, got `(.*)`)?"
_UNKNOWN: Final = r"Object contains unknown field `(.*)`"
_MISSING: Final = r"Object missing required field `(.*)`"
_VALUE: Final = r"Invalid enum value (.*)"
_SYNTAX: Final = r"(?s)(.*) \(at (?:line (\d+), column (\d+)|end of document)\)"
_LONG_NUMBER: Final = r"[0-9][0-9_]{4000}"
_BRACKETS: Final = re.compile(r"[\[{][ \t\r\n\[{]*")
_WIDE: Final = 120
"""Characters of a line that an error shows."""

_WORDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_CHOICES: Final = {
    "action": ACTIONS,
    "access": ("read", "write", "create", "exec"),
    "on_loss": ("stop", "continue"),
    "version": ("1",),
}
_ADVICE: Final[dict[Path, str]] = {
    ("rule",): "rules are an array of tables: write `[[rule]]`",
    ("variables",): 'write `[variables]` and, below it, NAME = "text"',
    ("defaults",): 'write `[defaults]` and, below it, such as exec = "deny"',
}
_ABOVE: Final = "; a key of the whole file stands above the first [table]"
_ADVICE_BY_KEY: Final = {
    "argv": 'write a list, an argument each: ["git", "push", "..."]',
    "env": 'write a table: { NAME = true, OTHER = "1*" }',
    "to": 'write a table: { path = "/x" }',
}


class Source:
    """One policy file.

    Args:
        name: What errors call it.
        text: Its content.

    Raises:
        PolicyError: It is not TOML.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        try:
            self._data: dict[str, Any] = tomllib.loads(text)
        except RecursionError:
            raise self._unread(_most_nested(text), "nested too deeply; no key needs that") from None
        except ValueError as error:
            raise self._syntax(str(error)) from error

    @cached_property
    def positions(self) -> Positions:
        """Where what is; made when it is first needed."""
        return Positions(self.text)

    def line_of(self, path: Path) -> int:
        """Returns the number of the line that a key or table begins on."""
        return self.positions.key(path).line

    def error(self, path: Path, problem: str, *, key: bool = False, into: int = 0) -> PolicyError:
        """Returns the error about a key, with its line and a caret below.

        Args:
            path: The key path.
            problem: What is wrong, and what to write instead.
            key: Point at the key, not at its value.
            into: Point that many characters further on.
        """
        at = self.positions.key(path) if key else self.positions.value(path, into)
        shown = show_path(path)
        return self._at(at.line, at.column, f"{shown}: {problem}" if shown else problem)

    def _at(self, number: int, column: int, problem: str) -> PolicyError:
        line = self.positions.line(number) if "\n" in self.text else self.text
        return PolicyError(f"{self.name}:{number}:{column}: {problem}\n{_pointed(line, column)}")

    def _syntax(self, message: str) -> PolicyError:
        match = re.fullmatch(_SYNTAX, message)
        if match is None:
            # What Python refuses, and not TOML.
            long = re.search(_LONG_NUMBER, self.text)
            problem = printable(message.encode()) if long is None else "too many digits"
            return self._unread(0 if long is None else long.start(), problem)
        lines = self.text.replace("\r\n", "\n").split("\n")
        number = int(match[2]) if match[2] else len(lines)
        line = lines[number - 1]
        column = int(match[3]) if match[3] else len(line) + 1
        problem = f"not TOML: {printable(match[1].encode())}"
        return PolicyError(f"{self.name}:{number}:{column}: {problem}\n{_pointed(line, column)}")

    def _unread(self, at: int, problem: str) -> PolicyError:
        # The error about a place in a text that is no TOML, so that nothing knows its keys.
        before = self.text[:at]
        begin = before.rfind("\n") + 1
        line = self.text[begin:].partition("\n")[0]
        number, column = before.count("\n") + 1, at - begin + 1
        return PolicyError(f"{self.name}:{number}:{column}: {problem}\n{_pointed(line, column)}")

    def parsed(self) -> PolicyFile:
        """Returns the file's content by its schema.

        Raises:
            PolicyError: A key is unknown, is missing or has a value of another type.
        """
        try:
            return msgspec.convert(self._data, PolicyFile)
        except msgspec.ValidationError as error:
            raise self._shape(str(error)) from error

    def _shape(self, message: str) -> PolicyError:
        # msgspec says what and where; said again in this format's words.
        match = re.search(_AT, message)
        path = parse_path(match[1]) if match is not None else ()
        what = message[: match.start()] if match is not None else message
        if (unknown := re.fullmatch(_UNKNOWN, what)) is not None:
            return self._unknown(path, unknown[1])
        if (missing := re.fullmatch(_MISSING, what)) is not None:
            hint = "version = 1" if missing[1] == "version" else f'{missing[1]} = "…"'
            if missing[1] == "action":
                hint = 'action = "deny", or another of ' + ", ".join(ACTIONS)
            return self.error(path, f"there is no `{missing[1]}`; write {hint}", key=True)
        if (value := re.fullmatch(_VALUE, what)) is not None:
            key = next(key for key in reversed(path) if isinstance(key, str))
            word = value[1].strip("'")
            close = near(word, _CHOICES[key]) or f"; write {', '.join(_CHOICES[key])}"
            return self.error(path, f"there is no {key} {printable(value[1].encode())}{close}")
        if match is not None and "..." in match[1]:
            path = self._culprit(path)
        return self.error(path, self._type(path, what))

    def _unknown(self, path: Path, field: str) -> PolicyError:
        table = next((TABLES[k] for k in reversed(path) if isinstance(k, str)), PolicyFile)
        known = table.__struct_fields__
        close = near(field, known) or f"; there are {', '.join(known)}"
        if path and field in PolicyFile.__struct_fields__:
            close = _ABOVE
        return self.error((*path, field), f"there is no such key{close}", key=True)

    def _culprit(self, path: Path) -> Path:
        # Which entry of a table msgspec means; it names the table alone.
        found: Any = self._data
        for key in path:
            found = found[key]
        fine = (str, bool) if path[-1] == "env" else str
        for key, value in found.items():
            if not isinstance(value, fine):
                return (*path, key)
        return path

    def _type(self, path: Path, what: str) -> str:
        match = re.fullmatch(_EXPECTED, what)
        if match is None:
            return what
        wanted, length, sign, bound, got = match.groups()
        words = [_WORDS[word] for word in wanted.split(" | ") if word in _WORDS]
        if length:
            return f"this is empty; give {words[0]} with something in it, or leave the key out"
        if sign:
            than = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}[sign]
            return f"this must be {than} {bound.removesuffix('.0')}"
        advice = _ADVICE.get(path) or _ADVICE_BY_KEY.get(str(path[-1]))
        if path[0] in {"variables", "defaults"} and path[-1] in PolicyFile.__struct_fields__[1:]:
            advice = _ABOVE.removeprefix("; ") if len(path) > 1 else advice
        found = _WORDS.get(got, f"a {got}")
        return f"expected {' or '.join(words)}, not {found}" + (f"; {advice}" if advice else "")


def _pointed(line: str, column: int) -> str:
    # The line with a caret below; of a long one the part around it.
    line = line.replace("\t", " ").rstrip("\r")
    begin = max(0, column - 1 - _WIDE // 2) if len(line) > _WIDE else 0
    shown = printable(line[begin : begin + _WIDE].encode())
    before = printable(line[begin : column - 1].encode())
    return f"  {shown}\n  {' ' * len(before)}^"


def _most_nested(text: str) -> int:
    # Where the longest run of opening brackets is: most likely what is nested too deeply.
    runs = [(run.end() - run.start(), run.start()) for run in _BRACKETS.finditer(text)]
    return max(runs, default=(0, 0))[1]
