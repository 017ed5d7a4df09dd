"""The chain: each line of a log names a hash of everything before it (pure).

A line is ``BODY,"chain":"HEX"}`` and a newline. HEX is the SHA-256, in lower-case hexadecimal, of
the HEX of the line before (its 64 characters; for the first line 64 zeros) and of the bytes BODY.
What follows BODY has one spelling only, so each byte of a line is either hashed or checked.

The hash has no key. It shows what was changed by accident or by hand; whoever may write the file
can make a new chain, and only a head that was kept elsewhere tells the two apart.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST: Final = "0" * 64
"""What stands for the head before the first line."""

dumps: Final = json.JSONEncoder(separators=(",", ":")).encode
"""Returns fields as they stand in a line, before the chain is added."""

_TAIL: Final = re.compile(rb',"chain":"([0-9a-f]{64})"}\n')
_TAIL_LENGTH: Final = len(b',"chain":""}\n') + 64


def seal(head: str, fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """Returns fields (at least one) as a line that follows ``head``, and the line's own head."""
    line, new = follow(head.encode("ascii"), dumps(fields)[:-1].encode("ascii"))
    return line, new.decode("ascii")


def follow(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Returns a line with this body that follows ``head``, and the line's own head."""
    new = sha256(head + body).hexdigest().encode()
    return body + b',"chain":"' + new + b'"}\n', new


def head_of(line: bytes) -> bytes:
    """Returns the head of a line that was made here."""
    return line[-_TAIL_LENGTH + len(b',"chain":"') : -len(b'"}\n')]


def digest(head: str, body: bytes) -> str:
    """Returns the head after a line with this body."""
    return sha256(head.encode("ascii") + body).hexdigest()


def opened(line: bytes) -> tuple[bytes, str] | None:
    """Returns the body and the claimed head of a line, None when it does not end as it must."""
    found = _TAIL.fullmatch(line, max(0, len(line) - _TAIL_LENGTH))
    if found is None:
        return None
    return line[:-_TAIL_LENGTH], found[1].decode("ascii")
