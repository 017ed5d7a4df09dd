from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.errors import InternalError
from pinfold.paths import (
    Tree,
    climbs,
    join,
    normalise,
    printable,
    under,
    wants_directory,
)

from .reference import names

messy = st.lists(st.sampled_from([b"/", b".", b"a", b"bc", b"\xff"]), max_size=14).map(b"".join)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/", b"/"),
        (b"//", b"/"),
        (b"///a", b"/a"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/a/", b"/a"),
        (b"/a/.", b"/a"),
        (b"/a/..", b"/"),
        (b"/a//b/./c/../d", b"/a/b/d"),
        (b"/.hidden", b"/.hidden"),
        (b"/...", b"/..."),
        (b"/a/..b/b..", b"/a/..b/b.."),
        (b"/\xff\n/..", b"/"),
    ],
)
def test_normalise(path: bytes, normal: bytes) -> None:
    assert normalise(path) == normal


@pytest.mark.parametrize("path", [b"", b"a", b"./a", b"../a"])
def test_normalise_refuses_relative(path: bytes) -> None:
    with pytest.raises(InternalError):
        normalise(path)


@given(messy)
def test_normalise_is_posix_but_for_two_leading_slashes(tail: bytes) -> None:
    assert normalise(b"/" + tail) == posixpath.normpath(b"/" + tail.lstrip(b"/"))


@given(messy)
def test_normalise_is_idempotent(tail: bytes) -> None:
    normal = normalise(b"/" + tail)
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("base", "path", "name"),
    [
        (b"/", b"a", b"/a"),
        (b"/w", b"a/b", b"/w/a/b"),
        (b"/w", b"/a/", b"/a"),
        (b"/w", b"", b"/w"),
        (b"/w", b".", b"/w"),
        (b"/w/x", b"../y", b"/w/y"),
        (b"/", b"../../y", b"/y"),
    ],
)
def test_join(base: bytes, path: bytes, name: bytes) -> None:
    assert join(base, path) == name


@pytest.mark.parametrize(
    "path", [b"a/..", b"/a/../b", b"a/./..", b"a//..", b"../a/..", b"/../a/.."]
)
def test_climbs(path: bytes) -> None:
    assert climbs(path)


@pytest.mark.parametrize(
    "path", [b"", b"/", b"..", b"../..", b"/..", b"./../a", b"a..", b"/a/..b", b"a/.../b"]
)
def test_does_not_climb(path: bytes) -> None:
    assert not climbs(path)


@given(messy, messy)
def test_folding_a_path_that_does_not_climb_may_be_done_in_parts(tail: bytes, more: bytes) -> None:
    """Where no ``..`` follows a name, folding takes away no component that could be a link."""
    if not climbs(tail):
        kept = [part for part in tail.split(b"/") if part not in {b"", b".", b".."}]
        assert normalise(b"/" + tail) == b"/" + b"/".join(kept)


@pytest.mark.parametrize("path", [b"/", b"a/", b"a/.", b"a/..", b".", b"..", b"/..", b"//"])
def test_wants_directory(path: bytes) -> None:
    assert wants_directory(path)


@pytest.mark.parametrize("path", [b"", b"a", b"/a", b"a.", b"a..", b"/...", b"..."])
def test_wants_no_directory(path: bytes) -> None:
    assert not wants_directory(path)


def test_under() -> None:
    assert under(b"/a", b"/a")
    assert under(b"/a/b", b"/a")
    assert under(b"/a", b"/")
    assert under(b"/", b"/")
    assert not under(b"/ab", b"/a")
    assert not under(b"/", b"/a")


def test_printable_keeps_letters_and_escapes_the_rest() -> None:
    assert printable("/tür".encode()) == "/tür"
    assert printable(b"/a\n\x1b[31m\xff\0") == r"/a\n\x1b[31m\xff\x00"
    assert printable("/\u202egnp".encode()) == r"/\u202egnp"


@given(st.dictionaries(names, st.integers(), max_size=8), names)
def test_tree_finds_the_longest_name_above(values: dict[bytes, int], path: bytes) -> None:
    tree: Tree[int] = Tree()
    for name, value in values.items():
        tree.insert(name, value)
    above = [name for name in values if under(path, name)]
    assert tree.deepest(path) == (values[max(above, key=len)] if above else None)
