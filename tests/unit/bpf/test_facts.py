"""What is known about a word, against the set of all words that are left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.bpf.facts import FULL, UNKNOWN, Word

# Four bits spread over the word stand for all 32: tests look at no others.
BITS = (0, 7, 16, 31)
WORDS = frozenset(
    sum(1 << bit for place, bit in enumerate(BITS) if pick >> place & 1) for pick in range(16)
)
words = st.sampled_from(sorted(WORDS))


@st.composite
def steps(draw: st.DrawFn) -> tuple[int, int, bool]:
    mask = draw(words)
    return mask, draw(words) & mask, draw(st.booleans())


def narrow(left: frozenset[int], mask: int, value: int, holds: bool) -> frozenset[int]:
    return frozenset(word for word in left if (word & mask == value) is holds)


@given(st.lists(steps(), max_size=12))
@settings(deadline=None, database=None, max_examples=400)
def test_contradictions_are_found_exactly(taken: list[tuple[int, int, bool]]) -> None:
    known = UNKNOWN
    left = WORDS
    for mask, value, holds in taken:
        after = known.assume(mask, value, holds=holds)
        remaining = narrow(left, mask, value, holds)
        assert (after is None) == (not remaining), (known, mask, value, holds)
        if after is not None:
            known, left = after, remaining
            assert all(word & known.mask == known.value for word in left)


@given(st.lists(steps(), max_size=6), words, st.lists(steps(), max_size=4))
@settings(deadline=None, database=None, max_examples=400)
def test_what_is_dropped_makes_no_difference_to_the_bits_asked_about(
    before: list[tuple[int, int, bool]], bits: int, after: list[tuple[int, int, bool]]
) -> None:
    whole = UNKNOWN
    for mask, value, holds in before:
        whole = whole.assume(mask, value, holds=holds) or whole
    part = whole.about(bits)
    for mask, value, holds in after:
        whole_next = whole.assume(mask & bits, value & bits, holds=holds)
        part_next = part.assume(mask & bits, value & bits, holds=holds)
        assert (whole_next is None) == (part_next is None)
        if whole_next is not None and part_next is not None:
            whole, part = whole_next, part_next


def test_facts_that_say_the_same_are_equal() -> None:
    one = UNKNOWN.assume(1, 1, holds=True)
    other = UNKNOWN.assume(1, 0, holds=False)
    assert one == other == Word(1, 1)


def test_bits_that_nobody_asks_about_are_dropped() -> None:
    known = UNKNOWN.assume(0xFF00, 0x1200, holds=True)
    assert known is not None
    assert known.about(0xFF) == UNKNOWN
    assert known.about(FULL) is known


def test_patterns_that_share_bits_are_kept_together() -> None:
    known = UNKNOWN.assume(0b011, 0b011, holds=False)
    assert known is not None
    known = known.assume(0b110, 0b110, holds=False)
    assert known is not None
    assert known.about(0b001) == known
    assert known.about(0b1000) == UNKNOWN


def test_patterns_that_cover_every_word_between_them_leave_none() -> None:
    known: Word | None = UNKNOWN
    for value in (0b00, 0b01, 0b10):
        assert known is not None
        known = known.assume(0b11, value, holds=False)
    assert known is not None
    assert known.assume(0b11, 0b11, holds=False) is None
    assert known.assume(0b11, 0b11, holds=True) == Word(0b11, 0b11)


@pytest.mark.parametrize("left", range(8))
def test_patterns_may_leave_one_word_or_none(left: int) -> None:
    known: Word | None = UNKNOWN
    for value in {*range(8)} - {left}:
        assert known is not None
        known = known.assume(0b111, value, holds=False)
    assert known is not None
    assert known.assume(0b111, left, holds=False) is None
    assert known.assume(0b111, left, holds=True) == Word(0b111, left)


@pytest.mark.parametrize("flip", range(8))
def test_overlapping_patterns_are_tried_both_ways(flip: int) -> None:
    # Two pairs of patterns leave one value each for bits 1 and 0, which no single pattern tells.
    known: Word | None = UNKNOWN
    for mask, value in ((0b011, 0b000), (0b011, 0b001), (0b101, 0b000), (0b101, 0b100)):
        assert known is not None
        known = known.assume(mask, (value ^ flip) & mask, holds=False)
    assert known is not None
    assert known.assume(0b011, ~flip & 0b011, holds=False) is None
    assert known.assume(0b011, ~flip & 0b011, holds=True) is not None
