"""Where in a TOML text a key is (pure).

``tomllib`` reads a text but forgets where it found what, and people want a line and a column. So,
when there is something to say about a text that ``tomllib`` has accepted already, it is walked a
second time, by its lexical structure alone: headers, keys, strings, brackets. Because the text is
known to be valid, nothing here checks anything.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.paths import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

Path = tuple[str | int, ...]
"""A key path: ``("rule", 3, "port", 0)``; the empty one is the document."""


class Position(NamedTuple):
    """A place in a text, as editors count: both numbers begin at 1."""

    line: int
    column: int
    """In characters."""


_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_LITERAL: Final = re.compile(r"'[^']*'")
# These are compiled when one is met.
_LONG_BASIC: Final = r'(?s)"""[^"\\]*(?:(?:\\.|"{1,2}(?!"))[^"\\]*)*"{3,5}'
_LONG_LITERAL: Final = r"'''[^']*(?:'{1,2}(?!')[^']*)*'{3,5}"
_PLAIN: Final = r"[^,\]}#\n]*"
"""A number, a truth value or a time; spaces after it included."""


class Positions:
    """The keys and values of one text.

    Args:
        text: TOML that ``tomllib`` accepts.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._keys: dict[Path, int] = {(): 0}
        self._values: dict[Path, int] = {(): 0}
        self._counts: dict[Path, int] = {}
        self._begins = [0, *(match.end() for match in re.finditer("\n", text))]
        self._document()

    def key(self, path: Sequence[str | int]) -> Position:
        """Returns where a key is written, for a table its header, or the nearest one around it."""
        return self._position(self._nearest(self._keys, tuple(path)))

    def value(self, path: Sequence[str | int], into: int = 0) -> Position:
        """Returns where the value of a key begins, or that of the nearest one around it.

        Args:
            path: The key path.
            into: How many characters further on, in a string on one line; see :meth:`spelt`.
        """
        return self._position(self._nearest(self._values, tuple(path)) + into)

    def spelt(self, path: Sequence[str | int], value: str) -> bool:
        """Returns whether a string is written just as it reads, between single quote characters.

        Its character ``n`` is then ``n + 1`` characters after the beginning of the value.
        """
        at = self._values.get(tuple(path))
        if at is None or not value:
            return False
        quote = self._text[at]
        return self._text.startswith(value + quote, at + 1) and "\n" not in value

    def line(self, number: int) -> str:
        """Returns a line of the text by its number, without its end."""
        return self._text[self._begins[number - 1] :].partition("\n")[0].rstrip("\r")

    def _nearest(self, found: dict[Path, int], path: Path) -> int:
        while path not in found:
            path = path[:-1]
        return found[path]

    def _position(self, at: int) -> Position:
        line = bisect_right(self._begins, at)
        return Position(line, at - self._begins[line - 1] + 1)

    # What follows reads on from an index and returns the index after what it has read.

    def _document(self) -> None:
        table: Path = ()
        at = self._skip(0)
        while at < len(self._text):
            if self._text[at] == "[":
                table, at = self._header(at)
            else:
                at = self._pair(table, at)
            at = self._skip(at)

    def _header(self, begin: int) -> tuple[Path, int]:
        many = self._text.startswith("[[", begin)
        keys, at = self._dotted(begin + 1 + many)
        path: Path = ()
        for key, _ in keys[:-1]:
            path = (*path, key)
            self._note(path, begin, begin)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        path = (*path, keys[-1][0])
        if many:
            self._note(path, begin, begin)
            index = self._counts.get(path, 0)
            self._counts[path] = index + 1
            path = (*path, index)
        # A table that was known only as part of another's name has its header here.
        self._keys[path] = self._values[path] = begin
        return path, at + 1 + many

    def _pair(self, table: Path, at: int) -> int:
        keys, at = self._dotted(at)
        path = table
        for key, begin in keys[:-1]:
            path = (*path, key)
            self._note(path, begin, begin)
        key, begin = keys[-1]
        path = (*path, key)
        at = self._space(at + 1)  # after the equals sign
        self._note(path, begin, at)
        return self._value(path, at)

    def _value(self, path: Path, at: int) -> int:
        first = self._text[at]
        if first in "\"'":
            return self._string(at)
        if first == "[":
            return self._array(path, at)
        if first == "{":
            return self._inline(path, at)
        match = re.compile(_PLAIN).match(self._text, at)
        assert match is not None
        return match.end()

    def _array(self, path: Path, at: int) -> int:
        at = self._skip(at + 1)
        index = 0
        while self._text[at] != "]":
            element = (*path, index)
            self._note(element, at, at)
            at = self._skip(self._value(element, at))
            if self._text[at] == ",":
                at = self._skip(at + 1)
            index += 1
        return at + 1

    def _inline(self, path: Path, at: int) -> int:
        at = self._skip(at + 1)
        while self._text[at] != "}":
            at = self._skip(self._pair(path, at))
            if self._text[at] == ",":
                at = self._skip(at + 1)
        return at + 1

    def _dotted(self, at: int) -> tuple[list[tuple[str, int]], int]:
        # The parts of a key with their places; spaces after it are read as well.
        keys = []
        while True:
            begin = self._space(at)
            if self._text[begin] in "\"'":
                at = self._string(begin)
                key = tomllib.loads(f"k={self._text[begin:at]}")["k"]
            else:
                match = _BARE_KEY.match(self._text, begin)
                assert match is not None
                key, at = match[0], match.end()
            keys.append((key, begin))
            at = self._space(at)
            if self._text[at] != ".":
                return keys, at
            at += 1

    def _string(self, at: int) -> int:
        long = self._text.startswith(('"""', "'''"), at)
        if self._text[at] == '"':
            match = (re.compile(_LONG_BASIC) if long else _BASIC).match(self._text, at)
        else:
            match = (re.compile(_LONG_LITERAL) if long else _LITERAL).match(self._text, at)
        assert match is not None
        return match.end()

    def _skip(self, at: int) -> int:
        # Space, line ends and comments.
        match = _BLANK.match(self._text, at)
        assert match is not None
        return match.end()

    def _space(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()

    def _note(self, path: Path, key: int, value: int) -> None:
        self._keys.setdefault(path, key)
        self._values.setdefault(path, value)


_STEP: Final = r"\.([^.\[]+)|\[(\d+|\.\.\.)\]"


def parse_path(text: str) -> Path:
    """Returns the key path that msgspec writes as ``$.rule[3].port[0]``; up to a ``[...]``."""
    path: Path = ()
    for match in re.finditer(_STEP, text):
        if match[2] == "...":
            break
        path = (*path, match[1] if match[1] is not None else int(match[2]))
    return path


def show_path(path: Path) -> str:
    """Returns a key path as text: ``rule[3].port[0]``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{_shown(key)}" for key in path)
    return text.removeprefix(".")


def _shown(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else f'"{printable(key.encode())}"'
