"""Turns, and the statistics of them."""

from __future__ import annotations

import pytest

from pinfold.bench.measure import (
    Settings,
    Spread,
    Way,
    WrongError,
    excesses,
    race,
    ratios,
    spread,
    table,
    tabled,
)


def counting(turns: list[str], name: str, *took: float) -> Way:
    """A way that notes its turns, and takes what it is given, one after the other."""
    left = iter(took)

    def run() -> float:
        turns.append(name)
        return next(left)

    return Way(name, f"what {name} is", run)


def test_spread() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)


def test_spread_of_an_even_number() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0]) == Spread(2.5, 1.75, 3.25, 1.0, 4.0)


def test_one_number_lies_where_it_is() -> None:
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)


def test_spread_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


def test_ratios_and_excesses_are_of_one_round_each() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    assert excesses([2.0, 9.0], [1.0, 3.0]) == (1.0, 6.0)
    for compare in (ratios, excesses):
        with pytest.raises(ValueError, match="shorter"):
            compare([1.0, 2.0], [1.0])


def test_everybody_has_one_turn_a_round() -> None:
    turns: list[str] = []
    ways = [counting(turns, name, *range(12)) for name in "abc"]
    took = race(ways, 10, warm=2)
    assert took == dict.fromkeys("abc", tuple(range(2, 12)))
    rounds = [turns[at : at + 3] for at in range(0, len(turns), 3)]
    assert len(rounds) == 12
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)


def test_the_order_changes() -> None:
    turns: list[str] = []
    race([counting(turns, name, *range(40)) for name in "abc"], 40, warm=0, seed=1)
    assert len({tuple(turns[at : at + 3]) for at in range(0, len(turns), 3)}) == 6


def test_names_are_different() -> None:
    with pytest.raises(ValueError, match="one name"):
        race([counting([], "a", 1.0), counting([], "a", 1.0)], 1)


def test_work_that_was_not_done_ends_it() -> None:
    def run() -> float:
        raise WrongError("3 calls failed")

    with pytest.raises(WrongError, match="3 calls failed"):
        race([Way("a", "", run)], 1)


def test_table() -> None:
    said: list[str] = []
    settings = Settings(3, say=said.append)
    ways = [counting([], "slow", 0.0, 2.0, 6.0, 12.0), counting([], "bare", 0.0, 1.0, 2.0, 3.0)]
    found = table("g", "t", "a title", ways, settings, unit="ms", reference="bare")
    assert said == ["g: t"]
    slow, bare = found.rows
    assert (slow.name, slow.what, slow.rounds) == ("slow", "what slow is", (2.0, 6.0, 12.0))
    assert slow.ratio == Spread(3.0, 2.5, 3.5, 2.0, 4.0)
    assert (bare.value.median, bare.ratio) == (2.0, None)
    assert found.row("bare") is bare
    assert found.row("absent") is None


def test_a_table_without_a_reference() -> None:
    found = tabled("g", "t", "", {"a": ""}, {"a": [1.0]}, unit="MB", missing=["b: not here"])
    assert found.rows[0].ratio is None
    assert found.missing == ("b: not here",)


def test_quick_does_less() -> None:
    assert Settings(1).times(400) == 400
    assert Settings(1, quick=True).times(400) == 8
    assert Settings(1, quick=True).times(3) == 1
