r"""Bytes as text for logs and rules, in a form that can be read back.

Printable UTF-8 stands for itself, a backslash is ``\\``, and any other byte ``\xNN``. Two different
byte strings never look the same.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = rb"(?i)\\(?:x([0-9a-f]{2})|(\\)|)"


def escaped(data: bytes) -> str:
    """Returns ``data`` as text."""
    return "".join(map(_escape, data.decode("utf-8", "surrogateescape")))


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def unescaped(text: bytes) -> bytes:
    r"""Returns the bytes that ``text`` stands for.

    Raises:
        ValueError: A backslash begins neither ``\\`` nor ``\xNN``.
    """
    return re.sub(_ESCAPE, _byte, text)


def _byte(match: re.Match[bytes]) -> bytes:
    if match[2]:
        return b"\\"
    if match[1]:
        return bytes.fromhex(match[1].decode("ascii"))
    raise ValueError(r"`\` must be followed by another `\` or by `x` and two hexadecimal digits")
