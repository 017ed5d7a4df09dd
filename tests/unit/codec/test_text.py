from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.codec.text import escaped, unescaped


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"/run/a b.sock", "/run/a b.sock"),
        (b"a\\b", r"a\\b"),
        (b"\0\n\x7f", r"\x00\x0a\x7f"),
        ("é€".encode(), "é€"),
        (b"\xff\xc3(", r"\xff\xc3("),
        ("a\u2028b\u00a0".encode(), r"a\xe2\x80\xa8b\xc2\xa0"),
        (rb"\x41", r"\\x41"),
    ],
)
def test_escaped(data: bytes, text: str) -> None:
    assert escaped(data) == text
    assert unescaped(text.encode()) == data


def test_other_ways_to_write_it() -> None:
    assert unescaped(rb"\x41\X\x4a"[:4] + rb"\x4A") == b"AJ"


@pytest.mark.parametrize("text", [b"\\", b"a\\", rb"\n", rb"\x", rb"\x4", rb"\x4g", b"\\\xff"])
def test_malformed(text: bytes) -> None:
    with pytest.raises(ValueError, match="must be followed"):
        unescaped(text)


@given(st.binary() | st.text().map(str.encode))
def test_anything_comes_back(data: bytes) -> None:
    text = escaped(data)
    assert text.isprintable()
    assert unescaped(text.encode()) == data
