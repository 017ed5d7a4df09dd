"""Where a key is in a TOML text: documents are made of pieces whose places are known."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.policy.file.positions import Path, Position, Positions, parse_path, show_path

Place = tuple[Path, int, int]
"""A key path, the index of its key, the index of its value."""


def at(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


class Writer:
    """A document that grows, and the places in it."""

    def __init__(self) -> None:
        self.text = ""
        self.places: list[Place] = []

    def put(self, piece: str) -> None:
        self.text += piece

    def here(self) -> int:
        return len(self.text)


bare = st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True)
quoted = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
keys = st.one_of(bare, quoted)
spaces = st.sampled_from(["", " ", "\t", "  "])
gaps = st.sampled_from(["", " ", "\n", "\r\n", " # ]}\"'''\n", "\n\n\t"])
ends = st.sampled_from(["\n", "\r\n", ' # a = [1] "\n', "\n\n# [x]\n"])
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


def basic(text: str) -> str:
    return (
        '"'
        + "".join(
            char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}"
            for char in text
        )
        + '"'
    )


def spelled_key(draw: st.DrawFn, key: str) -> str:
    forms = [basic(key)]
    if key and key.isascii() and key.replace("-", "").replace("_", "").isalnum():
        forms.append(key)
    if "'" not in key and key.isprintable():
        forms.append(f"'{key}'")
    return draw(st.sampled_from(forms))


LONG = [
    '"""a"""', '""""a"""', '"""a""b"""', '"""a"""""', '""""""', '"""\\""""',
    '"""\n[x]\na = 1 # "\n"""',
    '"""\\\n   \\\\"""', "'''a'''", "'''''a'''", "'''a'''''", "''''''", "'''\n[[rule]]\\'''", "''",
    '""', "'a # b'", '"]"', '"\\\\"', '"}, [ # "',
]  # fmt: skip
PLAIN = ["1", "-1.5e3", "true", "inf", "1979-05-27", "1979-05-27 07:32:00", "07:32:00", "0xff"]


def write_value(draw: st.DrawFn, out: Writer, path: Path, depth: int) -> None:
    kind = draw(st.integers(0, 5 if depth else 3))
    if kind <= 1:
        out.put(draw(st.sampled_from(PLAIN)))
    elif kind == 2:
        out.put(draw(st.sampled_from(LONG)))
    elif kind == 3:
        out.put(basic(draw(quoted)))
    elif kind == 4:
        write_array(draw, out, path, depth - 1)
    else:
        write_inline(draw, out, path, depth - 1)


def write_array(draw: st.DrawFn, out: Writer, path: Path, depth: int) -> None:
    out.put("[" + draw(gaps))
    count = draw(st.integers(0, 3))
    for index in range(count):
        element = (*path, index)
        out.places.append((element, out.here(), out.here()))
        write_value(draw, out, element, depth)
        out.put(draw(gaps))
        if index < count - 1 or draw(st.booleans()):
            out.put("," + draw(gaps))
    out.put("]")


def write_inline(draw: st.DrawFn, out: Writer, path: Path, depth: int) -> None:
    out.put("{" + draw(spaces))
    names = draw(st.lists(keys, max_size=3, unique=True))
    for index, name in enumerate(names):
        write_pair(draw, out, path, [name], depth)
        out.put(draw(spaces) + ("," if index < len(names) - 1 else "") + draw(spaces))
    out.put("}")


def write_pair(draw: st.DrawFn, out: Writer, table: Path, names: list[str], depth: int) -> None:
    begins = []
    for index, name in enumerate(names):
        if index:
            out.put(draw(spaces) + "." + draw(spaces))
        begins.append(out.here())
        out.put(spelled_key(draw, name))
    out.put(draw(spaces) + "=" + draw(spaces))
    path = table
    for name, begin in zip(names, begins, strict=True):
        path = (*path, name)
        value = out.here() if path == (*table, *names) else begin
        out.places.append((path, begin, value))
    write_value(draw, out, path, depth)


@st.composite
def documents(draw: st.DrawFn) -> Writer:
    out = Writer()
    out.put(draw(st.sampled_from(["", "\n", "# é\n", "  "])))
    for name in draw(st.lists(keys, max_size=3, unique=True)):
        dotted = draw(st.lists(keys, max_size=2))
        write_pair(draw, out, (), ["p" + name, *dotted], 2)
        out.put(draw(ends))
    for number, name in enumerate(draw(st.lists(keys, max_size=3, unique=True))):
        write_tables(draw, out, f"t{number}{name}")
    return out


def write_tables(draw: st.DrawFn, out: Writer, name: str) -> None:
    many = draw(st.booleans())
    below = draw(st.lists(keys, max_size=2))
    path: Path = (name, *below)
    for index in range(draw(st.integers(1, 3)) if many else 1):
        out.put(draw(spaces))
        begin = out.here()
        parts = [spelled_key(draw, key) for key in (name, *below)]
        inner = draw(spaces) + (draw(spaces) + "." + draw(spaces)).join(parts) + draw(spaces)
        out.put(f"[[{inner}]]" if many else f"[{inner}]")
        here = (*path, index) if many else path
        out.places.append((here, begin, begin))
        out.put(draw(ends))
        for key in draw(st.lists(keys, max_size=3, unique=True)):
            out.put(draw(spaces))
            write_pair(draw, out, here, ["k" + key], 2)
            out.put(draw(ends))
        if draw(st.booleans()):
            begin = out.here()
            out.put("[" + ".".join([*parts, "sub"]) + "]")
            out.places.append(((*here, "sub"), begin, begin))
            out.put(draw(ends))
            write_pair(draw, out, (*here, "sub"), ["x"], 1)
            out.put(draw(ends))


def known(document: Any, path: Path) -> bool:
    for key in path:
        document = document[key]
    return True


@settings(max_examples=400)
@given(documents())
def test_every_key_is_found_where_it_was_put(written: Writer) -> None:
    document = tomllib.loads(written.text)
    positions = Positions(written.text)
    for path, key, value in written.places:
        assert known(document, path)
        assert positions.key(path) == at(written.text, key), path
        assert positions.value(path) == at(written.text, value), path


@settings(max_examples=200)
@given(documents())
def test_nothing_else_is_found(written: Writer) -> None:
    document = tomllib.loads(written.text)
    positions = Positions(written.text)
    for path in positions._keys:
        assert known(document, path)


TEXT = """\
version = 1
a.b = "x"

[[rule]]  # first
port = [80,
  "8000-8080"]

[rule.to]
path = '/x'
[[rule]]
to = { path = "/é", argv = ["a", "b"] }
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ((), (1, 1), (1, 1)),
        (("version",), (1, 1), (1, 11)),
        (("a",), (2, 1), (2, 1)),
        (("a", "b"), (2, 3), (2, 7)),
        (("rule",), (4, 1), (4, 1)),
        (("rule", 0), (4, 1), (4, 1)),
        (("rule", 0, "port", 1), (6, 3), (6, 3)),
        (("rule", 0, "to"), (8, 1), (8, 1)),
        (("rule", 0, "to", "path"), (9, 1), (9, 8)),
        (("rule", 1, "to", "argv", 1), (11, 34), (11, 34)),
        (("rule", 1, "nothing"), (10, 1), (10, 1)),
        (("nothing", 4), (1, 1), (1, 1)),
    ],
)
def test_examples(path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    positions = Positions(TEXT)
    assert positions.key(path) == key
    assert positions.value(path) == value


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("k = 'a[b'", "a[b", True),
        ('k = "a[b"', "a[b", True),
        ("k = 'a\\b'", "a\\b", True),
        ('k = "a\\\\b"', "a\\b", False),
        ('k = "a\\u0062"', "ab", False),
        ("k = '''ab'''", "ab", False),
        ('k = """ab"""', "ab", False),
        ("k = ''", "", False),
    ],
)
def test_spelt_as_it_reads(text: str, value: str, expected: bool) -> None:
    assert tomllib.loads(text)["k"] == value
    assert Positions(text).spelt(("k",), value) is expected


def test_lines_are_without_their_ends() -> None:
    positions = Positions("a = 1\r\nb = 2\n")
    assert [positions.line(number) for number in (1, 2, 3)] == ["a = 1", "b = 2", ""]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$", ()),
        ("$.version", ("version",)),
        ("$.rule[3].port[0]", ("rule", 3, "port", 0)),
        ("$.rule[12].env[...]", ("rule", 12, "env")),
        ("$.defaults[...]", ("defaults",)),
    ],
)
def test_paths_as_msgspec_writes_them(text: str, path: Path) -> None:
    assert parse_path(text) == path


def test_paths_as_text() -> None:
    assert show_path(("rule", 3, "env", "A B", "x\x1b")) == 'rule[3].env."A B"."x\\x1b"'
