"""From names to patterns: what is made up, what is a tree, and what is neither."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pinfold.policy.globs import GlobSet, escape
from pinfold.policy.learning.facts import Fact
from pinfold.policy.learning.folding import (
    Names,
    Place,
    between,
    foldable,
    made_up,
    random_part,
    secret,
    within,
)

HOME: Final = b"/home/ann"
TMP: Final = b"/tmp"
PLACE: Final = Place(HOME, b"/home/ann/src/project", TMP)


@pytest.mark.parametrize(
    "name", [b"/usr/lib/python3/keyword.py", b"/w/monkey", b"/w/keys.py", b"/w/x.c"]
)
def test_not_every_key_is_a_secret(name: bytes) -> None:
    assert not secret(name)


@pytest.mark.parametrize(
    ("component", "glob"),
    [
        (b"tmpab12cd_3", b"tmp*"),
        (b"tmpqwertyui.txt", b"tmp*.txt"),
        (b"tmp.Xb3dFg7HjK", b"tmp.*"),
        (b"ccAb12Cd.s", b"cc*.s"),
        (b"pip-unpack-x7f_q2lk", b"pip-unpack-*"),
        (b"abcdefgh", b"????????"),
        (b"log", b"log"),
        (b"a*b-Xy12Zw", rb"a\*b-*"),
    ],
)
def test_names_of_temporary_files(component: bytes, glob: bytes) -> None:
    assert made_up(component) == glob


@pytest.mark.parametrize(
    "component",
    [
        *(b"libfoo.so.6", b"python3.11", b"x86_64-linux-gnu", b"sha256sum", b"base64.py", b"utf8"),
        *(b"README.md", b"CamelCaseName", b"a", b"c++11", b"2024", b"index.lock", b"MERGE_HEAD"),
        *(b"libstdc++.so.6.0.30", b"cpython-311.pyc", b"tmpdir", b"tmpfile_list"),
    ],
)
def test_names_that_are_not_made_up(component: bytes) -> None:
    assert random_part(component, temporary=False) is None


@pytest.mark.parametrize(
    ("component", "glob"),
    [
        (b"0f3c2a1b-1111-2222-3333-444455556666.log", b"*.log"),
        (b"x.cpython-311.pyc.140234234", b"x.cpython-311.pyc.[0-9]*"),
        (b"d670460b4b4aece5915caf5c68d12f560a9fe3e4", b"*"),
    ],
)
def test_names_that_are_made_up_anywhere(component: bytes, glob: bytes) -> None:
    assert random_part(component, temporary=False) == glob


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_between_matches_both(one: bytes, other: bytes) -> None:
    assume(b"\0" not in one + other and b"/" not in one + other)
    globs = GlobSet([b"/" + between(one, other)])
    for name in (one, other):
        assume(name not in {b".", b".."})
        assert globs.match(b"/" + name) == 0


@given(st.lists(st.sampled_from((b"a", b"b", b"c")), max_size=4))
def test_within(parts: list[bytes]) -> None:
    name = b"".join(b"/" + part for part in parts)
    assert within(name, {b"/a/b"}) == (b"/a/b" if parts[:2] == [b"a", b"b"] else None)


def test_names_below_a_home_that_is_the_root() -> None:
    place = Place(b"/", b"/", b"/tmp")
    assert not foldable(b"/data", place)
    assert foldable(b"/data/x", place)


def test_the_project_is_not_folded_where_it_is_the_home() -> None:
    assert not foldable(HOME, Place(HOME, HOME, TMP))
    assert not foldable(b"/home", Place(HOME, b"/home", TMP))


def test_patterns_are_kept_apart_by_their_bytes() -> None:
    names = Names([[Fact("open", "open", b"/w/\xff"), Fact("open", "open", b"/w/?")]], PLACE)
    assert names.pattern(b"/w/\xff").glob == b"/w/?"
    assert names.pattern(b"/w/?").glob == b"/w/" + escape(b"?")
