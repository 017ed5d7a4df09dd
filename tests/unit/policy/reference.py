"""A glob matcher that is easy to believe: one rule a line, every alternative tried."""

from __future__ import annotations

import functools
import re

from hypothesis import strategies as st

from pinfold.paths import normalise

PIECES = [b"a", b"b", b".", b"\xc3", b"?", b"*", b"**", b"[ab]", b"[!a]", b"[^.-b]", rb"\*", rb"\b"]
SLASH = len(PIECES)


def matches(pattern: bytes, path: bytes) -> bool:
    if not re.search(rb"[*?[]", re.sub(rb"\\.", b"", pattern)):
        name = re.sub(rb"\\(.)", rb"\1", pattern)
        return name in {b"/", path} or path.startswith(name + b"/")
    return _spells(pattern, b"" if path == b"/" else path)


@functools.lru_cache(maxsize=100_000)
def _spells(pattern: bytes, text: bytes) -> bool:
    if not pattern:
        return not text
    if gap := re.match(rb"/\*\*+(?=/)", pattern):
        rest = pattern[gap.end() :]
        return text[:1] == b"/" and any(_spells(rest, text[at:]) for at in range(len(text)))
    if stars := re.match(rb"\*+", pattern):
        run = re.match(rb".*" if len(stars[0]) > 1 else rb"[^/]*", text, re.DOTALL)
        assert run is not None
        rest = pattern[stars.end() :]
        return any(_spells(rest, text[at:]) for at in range(run.end() + 1))
    one = re.match(rb"\\.|\[.*?\]|.", pattern)
    assert one is not None
    if one[0] == b"?" or one[0][:1] == b"[":
        wanted = b"." if one[0] == b"?" else one[0].replace(b"[!", b"[^")
        taken = text[:1] not in {b"", b"/"} and re.match(wanted, text) is not None
    else:
        taken = text[:1] == one[0][-1:]
    return taken and _spells(pattern[one.end() :], text[1:])


def _pattern(codes: bytes) -> bytes:
    pieces = [PIECES[code] if code < SLASH else b"/" for code in codes]
    components = [part for part in b"".join(pieces).split(b"/") if part not in {b"", b".", b".."}]
    return b"/" + b"/".join(components)


names = st.text("ab.*\xc3/", max_size=12).map(lambda text: normalise(b"/" + text.encode("latin-1")))
"""Normal names over few letters, so that patterns often match them."""

_absolute = st.text([chr(code) for code in range(SLASH + 4)], max_size=12).map(
    lambda codes: _pattern(codes.encode())
)
patterns = st.one_of(_absolute, _absolute.map(lambda pattern: b"**" + pattern.rstrip(b"/")))


@functools.lru_cache(maxsize=100_000)
def spells(pattern: bytes, text: bytes) -> bool:
    """Whether a pattern for bytes that are no path matches all of ``text``."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(spells(pattern[1:], text[at:]) for at in range(len(text) + 1))
    one = re.match(rb"\\.|\[.*?\]|.", pattern, re.DOTALL)
    assert one is not None
    if one[0] == b"?":
        taken = bool(text)
    elif one[0][:1] == b"[":
        taken = re.match(one[0].replace(b"[!", b"[^"), text, re.DOTALL) is not None
    else:
        taken = text[:1] == one[0][-1:]
    return taken and spells(pattern[one.end() :], text[1:])


plain_patterns = st.lists(
    st.sampled_from([*PIECES, b"/", b"[/b]", b"[!/]", b"\xff"]), max_size=7
).map(b"".join)
"""Patterns for bytes that are no path."""
