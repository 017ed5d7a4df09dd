"""Groups: made from the table, and words that stand for calls."""

from collections import Counter

import pytest

from pinfold.errors import PolicyError
from pinfold.syscalls.groups import DESCRIPTIONS, GROUPS, names, numbers
from pinfold.syscalls.numbers import AARCH64, X86_64
from pinfold.syscalls.table import TABLE


def test_every_row_is_in_its_group() -> None:
    assert GROUPS.keys() == DESCRIPTIONS.keys() == {row.group for row in TABLE.values()}
    assert Counter(name for group in GROUPS.values() for name in group) == Counter(list(TABLE))
    for group, members in GROUPS.items():
        assert {TABLE[name].group for name in members} == {group}


def test_a_group_holds_the_call_of_its_name() -> None:
    named = {group for group in GROUPS if group in X86_64}
    assert named >= {"open", "stat", "mount", "connect"}
    for group in named:
        assert group in GROUPS[group]


def test_descriptions_are_sentences() -> None:
    for text in DESCRIPTIONS.values():
        assert text[0].isupper()
        assert text.endswith(".")


def test_a_group_stands_for_its_calls() -> None:
    assert names("send") == ("sendto", "sendmsg", "sendmmsg")
    assert numbers("send") == (44, 46, 307)
    assert set(numbers("open")) == {2, 257, 437, 85}


def test_a_call_stands_for_itself() -> None:
    assert names("openat") == ("openat",)
    assert numbers("openat") == (257,)
    assert numbers("kill") == (62,), "an exempt call can be named, too"


def test_what_the_other_architecture_lacks_is_left_out() -> None:
    assert numbers("open", AARCH64) == (56, 437)
    assert numbers("creat", AARCH64) == ()


@pytest.mark.parametrize(
    ("word", "near"),
    [("opneat", "openat"), ("conect", "connect"), ("xatr", "xattr"), ("renameat3", "renameat2")],
)
def test_an_unknown_word_is_told_its_neighbours(word: str, near: str) -> None:
    with pytest.raises(PolicyError, match=rf"group '{word}'; did you mean .*\b{near}\b.*\?"):
        numbers(word)


@pytest.mark.parametrize("word", ["", "qqqqqq", "OPEN", "open "])
def test_a_word_without_neighbours_or_in_another_form_is_refused(word: str) -> None:
    with pytest.raises(PolicyError, match="there is no system call or group"):
        numbers(word)
