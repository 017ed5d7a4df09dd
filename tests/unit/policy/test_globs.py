from __future__ import annotations

import itertools
from typing import SupportsIndex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.errors import PolicyError
from pinfold.policy.globs import GlobSet, Pattern

from .reference import matches, names, patterns, plain_patterns, spells

YES, NO = True, False


def hits(pattern: bytes, path: bytes) -> bool:
    return GlobSet([pattern]).match(path) == 0


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        # without wildcards: the name and what is below
        (b"/etc/shadow", b"/etc/shadow", YES),
        (b"/etc/shadow", b"/etc/shadow/below", YES),
        (b"/etc/shadow", b"/etc/shadow-", NO),
        (b"/etc/shadow", b"/etc", NO),
        (b"/", b"/", YES),
        (b"/", b"/any/thing", YES),
        (rb"/a\*b", b"/a*b", YES),
        (rb"/a\*b", b"/a*b/below", YES),
        (rb"/a\*b", b"/axb", NO),
        (rb"/\a\\", b"/a\\", YES),
        (b"/a]", b"/a]", YES),
        # star
        (b"/a/*", b"/a/b", YES),
        (b"/a/*", b"/a", NO),
        (b"/a/*", b"/a/b/c", NO),
        (b"/a*c", b"/ac", YES),
        (b"/a*c", b"/abbc", YES),
        (b"/a*c", b"/ab/c", NO),
        (b"/*/b", b"/a/b", YES),
        (b"/*", b"/", NO),
        (b"/*.pem", b"/.pem", YES),
        (b"/home/*/.ssh", b"/home/u/.ssh/id", NO),
        # two stars
        (b"/a/**", b"/a/b", YES),
        (b"/a/**", b"/a/b/c", YES),
        (b"/a/**", b"/a", NO),
        (b"/a/**", b"/ab", NO),
        (b"/a/**/b", b"/a/b", YES),
        (b"/a/**/b", b"/a/x/b", YES),
        (b"/a/**/b", b"/a/x/y/b", YES),
        (b"/a/**/b", b"/a/xb", NO),
        (b"/a/**/b", b"/ab", NO),
        (b"/a/**/**/b", b"/a/b", YES),
        (b"/a/**/**/**/b", b"/a/x/b", YES),
        (b"/a/**/**/b", b"/a/xb", NO),
        (b"/a/**/**", b"/a/b", YES),
        (b"/a**/**/b", b"/a/b", YES),
        (b"/a**b", b"/ab", YES),
        (b"/a**b", b"/a/x/b", YES),
        (b"/a/**b", b"/a/x/yb", YES),
        (b"/a/***", b"/a/x/y", YES),
        (b"**/x", b"/x", YES),
        (b"**/x", b"/a/b/x", YES),
        (b"**/x", b"/ax", NO),
        (b"**/x", b"/x/y", NO),
        (b"**.pem", b"/a/b.pem", YES),
        (b"**", b"/", YES),
        (b"**", b"/a/b", YES),
        (b"/**", b"/a/b", YES),
        (b"/**", b"/", NO),
        (b"/**/b", b"/b", YES),
        # one byte
        (b"/?", b"/a", YES),
        (b"/?", b"/", NO),
        (b"/a?b", b"/a/b", NO),
        (b"/?", b"/\xc3\xa9", NO),
        (b"/??", b"/\xc3\xa9", YES),
        (b"/?", b"/\n", YES),
        # sets
        (b"/[abc]", b"/b", YES),
        (b"/[abc]", b"/d", NO),
        (b"/[a-c]", b"/b", YES),
        (b"/[!a-c]", b"/b", NO),
        (b"/[^a-c]", b"/d", YES),
        (b"/a[!b]c", b"/a/c", NO),
        (b"/a[+-9]c", b"/a/c", NO),
        (b"/a[+-9]c", b"/a5c", YES),
        (b"/[]]", b"/]", YES),
        (b"/[!]]", b"/]", NO),
        (b"/[]-a]", b"/^", YES),
        (rb"/[a\]]", b"/]", YES),
        (rb"/[\--\/]"[:-3] + b"0]", b"/.", YES),
        (b"/[a-]", b"/-", YES),
        (b"/[-a]", b"/-", YES),
        (b"/[a!]", b"/!", YES),
        (b"/[*?]", b"/x", NO),
        (b"/[e]tc", b"/etc", YES),
        (b"/[e]tc", b"/etc/below", NO),
        (b"/[\x80-\xff]", b"/\xc3", YES),
        (b"/\xff*", b"/\xff\xfe", YES),
    ],
)
def test_examples(pattern: bytes, path: bytes, expected: bool) -> None:
    assert hits(pattern, path) is expected


@pytest.mark.parametrize(
    ("pattern", "byte", "shown", "problem"),
    [
        (b"", 1, "", "begins with"),
        (b"a/b", 1, "a/b", "begins with"),
        (b"*/b", 1, "*/b", "begins with"),
        (b"/a/[bc", 4, "/a/[bc", "never closed"),
        (b"/[]", 2, "/[]", "never closed"),
        (b"/[!]", 2, "/[!]", "never closed"),
        (b"/[a-", 2, "/[a-", "never closed"),
        (b"/[a\\", 2, "/[a\\", "never closed"),
        (b"/[a/b]", 4, "/[a/b]", "never takes `/`"),
        (b"/[c-a]", 3, "/[c-a]", "exchange"),
        (b"/a\\", 3, "/a\\", "escapes nothing"),
        (b"/a\0b", 3, r"/a\x00b", "NUL"),
        (b"/a//b", 3, "/a//b", "empty component"),
        (b"//", 1, "//", "empty component"),
        (b"/a/", 3, "/a/", "empty component"),
        (b"**/", 3, "**/", "empty component"),
        (b"/a/./b", 4, "/a/./b", "`.` or `..`"),
        (b"/a/..", 4, "/a/..", "`.` or `..`"),
        (rb"/\./*", 2, r"/\./*", "`.` or `..`"),
        ("/ü\n/[".encode(), 6, r"/ü\n/[", "never closed"),
    ],
)
def test_malformed(pattern: bytes, byte: int, shown: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        GlobSet([b"/fine", pattern])
    head, text, caret = str(caught.value).split("\n")
    assert head.startswith(f"byte {byte}: ")
    assert problem in head
    assert text == "  " + shown
    column = len(pattern[: byte - 1].decode()) + shown.count(r"\n")
    assert caret == "  " + " " * column + "^"


def test_the_first_in_order_wins_whatever_its_kind() -> None:
    orders = itertools.permutations([b"/a/b", b"/a", b"/a/*", b"**/b", b"/zz", b"/zz*"])
    for order in orders:
        expected = min(order.index(pattern) for pattern in order if b"zz" not in pattern)
        assert GlobSet(order).match(b"/a/b") == expected


def test_no_patterns() -> None:
    assert GlobSet([]).match(b"/a") == -1
    assert GlobSet([]).match(b"/") == -1


def test_same_pattern_twice() -> None:
    assert GlobSet([b"/x", b"/a", b"/a", b"/b*", b"/b*"]).match(b"/a") == 1
    assert GlobSet([b"/x", b"/a", b"/a", b"/b*", b"/b*"]).match(b"/bc") == 3


@settings(max_examples=500, deadline=None)
@given(st.lists(patterns, max_size=6), st.lists(names, min_size=1, max_size=8))
@example([b"/a/**/**/b", b"**/**"], [b"/a/b", b"/"])
def test_equals_the_reference(globs: list[bytes], paths: list[bytes]) -> None:
    compiled = GlobSet(globs)
    for path in paths:
        expected = [index for index, glob in enumerate(globs) if matches(glob, path)]
        assert compiled.match(path) == (expected[0] if expected else -1)


def test_equals_the_reference_on_every_short_path() -> None:
    globs = [b"/a/**/b", b"/*a*b", b"**/a?", b"/**/[!a]/**", b"/a*/**/*b", b"/**a/*"]
    single = [GlobSet([glob]) for glob in globs]
    components = [b"a", b"b", b"ab", b"ba", b"aab"]
    for depth in range(5):
        for parts in itertools.product(components, repeat=depth):
            path = b"/" + b"/".join(parts)
            for glob, compiled in zip(globs, single, strict=True):
                assert (compiled.match(path) == 0) == matches(glob, path), (glob, path)


class Counting(list[int]):
    """The automaton's table, counting how often it is asked."""

    asked = 0

    def __getitem__(self, byte: SupportsIndex) -> int:  # type: ignore[override] # never a slice
        self.asked += 1
        return super().__getitem__(byte)


def steps(globs: list[bytes], path: bytes) -> int:
    compiled = GlobSet(globs)
    automaton = compiled._automaton
    table = automaton._advance = Counting(automaton._advance)
    found = [number for part in automaton.find(path) for number in part]
    asked = table.asked
    wild = {number for number, _ in compiled._wild}
    assert found == [number for number in compiled.matches(path) if number in wild]
    return asked


@settings(max_examples=300, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=6), names, st.integers(1, 40))
def test_never_more_steps_than_bytes(globs: list[bytes], name: bytes, times: int) -> None:
    path = name * times if name != b"/" else name
    assert steps(globs, path) <= len(path)


@pytest.mark.parametrize(
    "glob",
    [
        b"/" + b"*a" * 100 + b"b",
        b"**/a" * 100 + b"/b",
        b"/**a" * 100 + b"b",
        b"/[ab]**" * 50 + b"b",
    ],
)
def test_patterns_that_ruin_backtracking_take_a_step_a_byte(glob: bytes) -> None:
    assert steps([glob], b"/" + b"a" * 4094) == 4095
    assert steps([glob], b"/a" * 2047) <= 4094


def test_a_path_that_cannot_match_any_more_ends_the_run() -> None:
    assert steps([b"/etc/*", b"/usr/*"], b"/home" + b"/x" * 2000) == len(b"/home")


@settings(max_examples=500, deadline=None)
@given(st.lists(patterns, max_size=6), st.lists(names, min_size=1, max_size=8))
@example([b"/a/**/**/b", b"**/**", b"/", b"/a", b"/a/b"], [b"/a/b", b"/", b"/a"])
def test_all_that_match(globs: list[bytes], paths: list[bytes]) -> None:
    compiled = GlobSet(globs)
    for path in [*paths, *paths]:  # the second time over what is kept
        expected = tuple(index for index, glob in enumerate(globs) if matches(glob, path))
        assert compiled.matches(path) == expected


def test_patterns_of_all_kinds_cover_what_lies_below() -> None:
    compiled = GlobSet([b"/a/b/c", b"/a", b"/a/**", b"/a/b", b"/", b"/a", b"**"])
    assert compiled.matches(b"/a/b/c/d") == (0, 1, 2, 3, 4, 5, 6)
    assert compiled.matches(b"/a/b") == (1, 2, 3, 4, 5, 6)
    assert compiled.matches(b"/a") == (1, 4, 5, 6)
    assert compiled.matches(b"/") == (4, 6)
    assert compiled.matches(b"/x") == (4, 6)
    assert GlobSet([]).matches(b"/x") == ()


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (b"", b"", YES),
        (b"", b"a", NO),
        (b"abc", b"abc", YES),
        (b"abc", b"abcd", NO),
        (b"*", b"", YES),
        (b"*", b"/a/b\n", YES),
        (b"**", b"a/b", YES),
        (b"a*", b"a/b", YES),
        (b"*b", b"a/b", YES),
        (b"a*b", b"ab", YES),
        (b"a*a", b"a", NO),
        (b"ab*bc", b"abc", NO),
        (b"a*b*c", b"aXbYc", YES),
        (b"*a*a*", b"xax", NO),
        (b"?", b"/", YES),
        (b"?", b"", NO),
        (b"a?c", b"a\xffc", YES),
        (b"[/a]b", b"/b", YES),
        (b"[!a]b", b"/b", YES),
        (b"[+-9]", b"/", YES),
        (b"--*=[0-9]*", b"--jobs=4", YES),
        (b"--*=[0-9]*", b"--jobs=x", NO),
        (rb"\*", b"*", YES),
        (rb"\*", b"x", NO),
        (rb"a\\*", b"a\\b", YES),
        (b"a/../b", b"a/../b", YES),
        (b"\0*", b"\0x", YES),
    ],
)
def test_plain_examples(pattern: bytes, text: bytes, expected: bool) -> None:
    assert Pattern(pattern).match(text) is expected


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [(b"[a", "never closed"), (b"a\\", "escapes nothing"), (b"[b-a]", "exchange its ends")],
)
def test_plain_malformed(pattern: bytes, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        Pattern(pattern)


@settings(max_examples=1000, deadline=None)
@given(plain_patterns, st.text("ab/*\xff", max_size=10).map(lambda text: text.encode("latin-1")))
@example(b"*ab*b", b"abab")
@example(b"a*ba*a", b"abaa")
def test_plain_equals_the_reference(pattern: bytes, text: bytes) -> None:
    assert Pattern(pattern).match(text) is spells(pattern, text)


@pytest.mark.parametrize("piece", [b"*a?", b"?*", b"*[ab]", b"*a*[!c]"])
@pytest.mark.parametrize("text", [b"a" * 100_000, b"ab" * 50_000])
def test_plain_patterns_that_ruin_backtracking_take_a_step_a_byte(
    piece: bytes, text: bytes
) -> None:
    compiled = Pattern(piece * 50 + b"c")
    table = compiled._advance = Counting(compiled._advance)
    assert not compiled.match(text)
    assert table.asked == len(text)
    assert compiled.match(text + b"c")


class Searched(bytes):
    """A text, counting how much of it is searched."""

    bytes_searched = 0

    def find(self, piece: bytes, start: int = 0, end: int = 0) -> int:  # type: ignore[override]
        found = super().find(piece, start, end)
        self.bytes_searched += (end if found < 0 else found + len(piece)) - start
        return found


def test_pieces_between_stars_are_looked_for_once_along_the_text() -> None:
    text = Searched(b"ab" * 50_000)
    assert not Pattern(b"*" + b"aba*" * 5000 + b"c*").match(text)
    assert 0 < text.bytes_searched <= len(text)
    assert Pattern(b"*" + b"aba*" * 5000).match(text)
