from __future__ import annotations

import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.paths import normalise
from pinfold.policy import globtree
from pinfold.policy.globs import GlobSet

from .reference import PIECES, matches, names, patterns

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

LONGEST = 4095
REALISTIC = (
    b"/srv/%d/private/**",
    b"/home/user%d/.ssh/*",
    b"/opt/*/%d/key/**",
    b"/var/lib/app%d/*/*",
    b"/home/*/.conf%d/**",
    b"/srv/data-%d-*.db",
    b"/data/log[0-9]/f%d?",
    b"/opt/**/v%d/bin/*",
)
ANYWHERE = (b"**/id_%d*", b"**/*.k%d", b"**/dir%d/**", b"**/*tok%d*", b"**/secret%d")
NEW = (
    b"/usr/share/part17/file%d",
    b"/srv/3/private/%d",
    b"/home/user5/.config/x%d",
    b"/opt/x/2/lib/module%d.py",
    b"/a/dir2/b%d",
)


def rules(kinds: tuple[bytes, ...], size: int) -> GlobSet:
    return GlobSet([kinds[number % len(kinds)] % number for number in range(size)])


def lines(work: Callable[[], object]) -> int:
    """Returns how many lines of the tree and of the automaton are run."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "/policy/glob" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@settings(max_examples=300, deadline=None)
@given(st.lists(patterns, max_size=8), st.lists(names, min_size=1, max_size=8), st.integers(0, 3))
@example([b"/a**b/**/c", b"/a**b"], [b"/a/b/c", b"/a/x/b/y/c", b"/ab/b/c"], 3)
@example([b"/**a**/b", b"**a**", b"/a**/**/b"], [b"/xa/y/b", b"/b/a", b"/a/b"], 3)
def test_wherever_the_tree_gives_up_the_answer_is_the_same(
    globs: list[bytes], paths: list[bytes], many: int
) -> None:
    small, large, reluctant = GlobSet(globs), GlobSet(globs), GlobSet(globs)
    small._tree._many = many
    large._tree._many = 1 << 20
    reluctant._tree._simple = False
    for path in [*paths, *paths]:
        expected = tuple(index for index, glob in enumerate(globs) if matches(glob, path))
        assert large._tree.find(path) is not None
        for one in (small, large, reluctant):
            assert one.matches(path) == expected
            assert one.match(path) == (expected[0] if expected else -1)


@pytest.mark.parametrize("seed", range(3))
def test_large_sets_equal_the_reference(seed: int) -> None:
    chosen = random.Random(seed)
    pieces = [*PIECES, b"/", b"/", b"/", b"/a/", b"/**/", b"/*/", b"/b", b"c", b"d"]

    def parts(letters: list[bytes], most: int) -> list[bytes]:
        text = b"".join(chosen.choice(letters) for _ in range(chosen.randrange(1, most)))
        return [part for part in text.split(b"/") if part not in {b"", b".", b".."}]

    globs = [b"/" + b"/".join(parts(pieces, 9)) for _ in range(800)]
    globs = [glob if at % 5 else b"**" + glob.rstrip(b"/") for at, glob in enumerate(globs)]
    letters = [b"a", b"b", b"c", b"d", b".", b"*", b"\xc3", b"/", b"/", b"/a", b"/b"]
    compiled, patient = GlobSet(globs), GlobSet(globs)
    patient._tree._many = 1 << 20
    for _ in range(30):
        path = normalise(b"/" + b"/".join(parts(letters, 14)))
        expected = tuple(at for at, glob in enumerate(globs) if matches(glob, path))
        for one in (compiled, patient):
            assert one.matches(path) == expected, path
            assert one.match(path) == (expected[0] if expected else -1), path


@pytest.mark.parametrize("kinds", [REALISTIC, ANYWHERE, (*REALISTIC, *ANYWHERE)])
def test_a_new_name_costs_the_same_over_few_rules_and_many(kinds: tuple[bytes, ...]) -> None:
    few, many = rules(kinds, len(kinds) * 3), rules(kinds, 10_000)
    fresh = [new % (500_000 + at) for at in range(20) for new in NEW]
    spent = [lines(partial(list, map(each.match, fresh))) for each in (few, many)]
    assert 0 < spent[1] <= 1.2 * spent[0]
    assert "_automaton" not in vars(many)


def test_a_name_outside_of_what_the_rules_begin_with_ends_there() -> None:
    many = rules(REALISTIC, 10_000)
    short = lines(lambda: many.match(b"/usr"))
    assert lines(lambda: many.match(b"/usr" + b"/a" * 2000)) == short


@pytest.mark.parametrize(
    "globs",
    [
        [b"/" + b"*a" * 300 + b"b"],
        [b"**/a" * 300 + b"/b"],
        [b"/" + b"**a" * 300 + b"b"],
        [b"/[ab]**" * 50 + b"b"],
        [b"**" + b"/*" * depth for depth in range(1, 150)],
        [b"**/*%d*a" % number for number in range(1000)],
        [b"**/a*%d/**/b%d" % (number % 37, number) for number in range(1000)],
        [b"/**/*" + b"a" * length for length in range(1, 300)],
        [b"**/[%c-%c]*b" % (low, high) for low in range(65, 90) for high in range(low, 91)],
    ],
)
@pytest.mark.parametrize(
    "piece", [b"a", b"/a", b"ab", b"/ab", b"/0123456789", b"0123456789", b"/a/a1", b"/a1/b1"]
)
def test_hostile_names_take_steps_in_their_length(globs: list[bytes], piece: bytes) -> None:
    compiled = GlobSet(globs)
    compiled._automaton  # noqa: B018 (it is made once)
    most = compiled._tree._many
    spent = []
    for length in (LONGEST // 4, LONGEST):
        name = (b"/" + piece.lstrip(b"/") + piece * length)[:length].rstrip(b"/")
        spent.append(lines(partial(compiled.match, name)))
        assert spent[-1] <= 12 * (most + 2) * length
    assert spent[1] <= 5 * spent[0] + 1000


def test_many_different_sets_at_one_place_are_left_to_the_automaton() -> None:
    globs = [b"/[%c-%c]x" % (97 + at % 5, 104 + at // 5) for at in range(40)]
    compiled = GlobSet(globs)
    assert compiled._tree.find(b"/ex") is None
    for name in (b"/ex", b"/ax", b"/jx", b"/ox", b"/e", b"/"):
        assert compiled.matches(name) == tuple(
            at for at, glob in enumerate(globs) if matches(glob, name)
        )


def kept_bytes(compiled: GlobSet) -> int:
    tree = compiled._tree
    return sum(
        globtree._ONE + len(text) + globtree._PLACE * (len(starts) + len(after))
        for (text, starts), after in tree._spelt.items()
    )


def test_what_is_kept_is_bounded_whatever_names_there_are() -> None:
    compiled = rules(ANYWHERE, 100)
    tree = compiled._tree
    emptied = 0
    for number in range(4000):
        before = len(tree._spelt)
        name = b"/" + b"x" * (number % 300) + b"%d/d%d/tok%d" % (number, number, number)
        expected = (at for at in range(3, 100, 5) if str(number).startswith(str(at)))
        assert compiled.matches(name) == tuple(expected)
        emptied += len(tree._spelt) < before
        assert kept_bytes(compiled) == tree._kept <= globtree._KEPT + 2000
    assert emptied


@settings(max_examples=100, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=30))
def test_what_is_kept_may_be_forgotten_at_any_time(globs: list[bytes], paths: list[bytes]) -> None:
    compiled, forgetful = GlobSet(globs), GlobSet(globs)
    for path in [*paths, *paths]:
        forgetful._tree._kept = globtree._KEPT + 1
        assert forgetful.matches(path) == compiled.matches(path)


def test_who_fills_what_is_kept_makes_no_name_dearer_than_a_new_one() -> None:
    compiled = rules(ANYWHERE, 1000)
    name = b"/usr/lib/python3/site-packages/module.py"
    new = lines(lambda: compiled.match(name))
    known = lines(lambda: compiled.match(name))
    assert known < new
    compiled._tree._kept = globtree._KEPT + 1  # the next that is new empties it
    compiled.match(b"/some/other/name")
    assert lines(lambda: compiled.match(name)) <= new


def test_last_components_are_not_kept() -> None:
    # A program that opens many files in one directory does not drive others out.
    compiled = rules(ANYWHERE, 1000)
    compiled.match(b"/usr/lib/one")
    kept = dict(compiled._tree._spelt)
    for number in range(100):
        compiled.match(b"/usr/lib/file%d" % number)
    assert compiled._tree._spelt == kept


def test_components_too_long_to_exist_are_not_kept() -> None:
    compiled = rules(ANYWHERE, 1000)
    compiled.match(b"/" + b"x" * 256 + b"/a")
    assert not compiled._tree._spelt
    compiled.match(b"/" + b"x" * 255 + b"/a")
    assert compiled._tree._spelt
