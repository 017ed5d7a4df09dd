r"""What ``${NAME}`` in a policy file stands for (pure).

A value is bytes: a directory's name need not be text. Where the text around it is a pattern, every
byte of a value that a pattern would take for more than itself gets a backslash, so that the rule
for ``${CWD}/out`` holds in a directory called ``[a]*`` as it does in any other.

``$$`` is a dollar sign; a lone one is an error, since it is most likely a variable that was meant.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Lookup = Callable[[str], bytes]
    """Gives the value of a variable, also of ``env:NAME``, or raises ``KeyError`` with a reason."""


class Form(Enum):
    """What a text is, which says how a value is put into it."""

    TEXT = auto()
    """Just text: an argument, a content."""
    PATH = auto()
    """A name of a file: text without doubled slashes."""
    GLOB = auto()
    """A pattern over names."""
    PATTERN = auto()
    """A pattern over any bytes."""
    ADDRESS = auto()
    r"""A socket address, in which ``\`` and ``\x40`` are escapes."""


class SubstitutionError(ValueError):
    """A text cannot be substituted; ``at`` is the index of the character that is wrong."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(problem)
        self.at = at


NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORM: Final = re.compile(r"\$(?:\$|\{(env:)?([A-Za-z_][A-Za-z0-9_]*)(:-)?)?")
_SLASHES: Final = re.compile(rb"//+")
_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_SPECIAL_IN_SET: Final = re.compile(rb"[*?\[\\\]!^-]")
_LARGEST: Final = 1 << 20
"""Most bytes that a text becomes. A few variables made of one another could have any number."""
_DEEPEST: Final = 16
"""Defaults within defaults."""


def substitute(text: str, lookup: Lookup, form: Form = Form.TEXT) -> bytes:
    """Returns ``text`` with what its variables stand for, as UTF-8 but for their values.

    Args:
        text: The text as it is in the file.
        lookup: Gives the values.
        form: What ``text`` is.

    Raises:
        SubstitutionError: A ``$`` begins nothing, or a variable has no value.
    """
    return _Reader(text, lookup, form).read()


class _Reader:
    def __init__(self, text: str, lookup: Lookup, form: Form, depth: int = 0) -> None:
        self._text = text
        self._lookup = lookup
        self._form = form
        self._depth = depth
        self._escaped = form not in {Form.TEXT, Form.PATH}

    def read(self) -> bytes:
        result, _ = self._until(0, "")
        return result

    def _until(self, at: int, end: str) -> tuple[bytes, int]:
        # Reads up to the character ``end``, or the whole text; returns where that was.
        result = bytearray()
        while True:
            dollar = self._text.find("$", at)
            stop = self._text.find(end, at) if end else -1
            if stop >= 0 and (dollar < 0 or stop < dollar):
                return bytes(result) + self._text[at:stop].encode(), stop
            if dollar < 0:
                return bytes(result) + self._text[at:].encode(), -1
            result += self._text[at:dollar].encode()
            value, at = self._variable(dollar)
            if value is not None and self._escaped and _escapes(result):
                raise SubstitutionError(
                    r"`\` cannot escape a variable; write `\\` for a backslash", dollar
                )
            follows = self._text[at : at + 1]
            result += self._fitted(value, result, follows) if value is not None else b"$"
            if len(result) > _LARGEST:
                problem = f"with its variables this text has more than {_LARGEST} bytes"
                raise SubstitutionError(problem, dollar)

    def _variable(self, begin: int) -> tuple[bytes | None, int]:
        # The value, None for a dollar sign; and where the text goes on.
        match = _FORM.match(self._text, begin)
        assert match is not None
        env, name, default = match.groups()
        at = match.end()
        if match[0] == "$$":
            return None, at
        if name is None:
            raise SubstitutionError(
                "`$` begins a variable, `${NAME}`; write `$$` for the sign", begin
            )
        fallback = None
        if default:
            if not env:
                problem = "only `${env:NAME:-text}` has a default; set the variable in [variables]"
                raise SubstitutionError(problem, begin)
            if self._depth == _DEEPEST:
                problem = f"more than {_DEEPEST} defaults within one another; use [variables]"
                raise SubstitutionError(problem, begin)
            plain = _Reader(self._text, self._lookup, Form.TEXT, self._depth + 1)
            fallback, at = plain._until(at, "}")
        if at < 0 or self._text[at : at + 1] != "}":
            problem = "this variable is not closed; write `${NAME}`, `${env:NAME}` or"
            raise SubstitutionError(f"{problem} `${{env:NAME:-text}}`", begin)
        try:
            value = self._lookup((env or "") + name)
        except KeyError as error:
            if fallback is None:
                raise SubstitutionError(str(error.args[0]), begin) from error
            value = fallback
        return value, at + 1

    def _fitted(self, value: bytes, before: bytearray, follows: str) -> bytes:
        # The value as it stands in what it is put into, between ``before`` and ``follows``.
        named = self._form in {Form.GLOB, Form.PATH}
        if named:
            value = _SLASHES.sub(b"/", value)
        if value.endswith(b"/") and (named or value == b"/"):
            # The root, mostly: `${CWD}/x` is `/x` then.
            last = named and not follows and before + value != b"/"
            if last or follows == "/":
                value = value[:-1]
        if self._form is Form.ADDRESS:
            return value.replace(b"\\", rb"\\").replace(b"@", rb"\x40")
        if self._form in {Form.GLOB, Form.PATTERN}:
            component = before.rfind(b"/") + 1 if named else 0
            in_set = before.find(b"[", component) >= 0
            # Perhaps in a set, where more bytes have a meaning; a backslash too many does no harm.
            return (_SPECIAL_IN_SET if in_set else _SPECIAL).sub(rb"\\\g<0>", value)
        return value


def _escapes(text: bytearray) -> bool:
    # Whether the last byte is a backslash that is not escaped itself.
    at = len(text)
    while at and text[at - 1] == 0x5C:
        at -= 1
    return bool((len(text) - at) % 2)
