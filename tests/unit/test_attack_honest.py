"""What makes the counts of a race honest."""

from __future__ import annotations

import pytest

from pinfold.attack.catalogue.model import NAIVE, Attack
from pinfold.attack.honest import BOTH_AT_LEAST, complaint
from pinfold.attack.supervisors import SUPERVISORS
from pinfold.attack.trial import Outcome

RACE = Attack("race-x", "race", "race_paths", "x", NAIVE)
ATTEMPTS = 1000


def outcome(
    allowed: int,
    refused: int,
    other: int = 0,
    *,
    denied: int | None = None,
    supervisor: str = "trace",
) -> Outcome:
    told = refused if denied is None else denied
    said = f"something else\n{supervisor}: denied={told} trapped=1009\n"
    counts = {"allowed": allowed, "refused": refused, "other": other}
    return Outcome(ATTEMPTS, 0, counts, said=said)


@pytest.mark.parametrize("allowed", [ATTEMPTS // BOTH_AT_LEAST, ATTEMPTS // 2])
def test_nothing_is_wrong_with_a_real_race(allowed: int) -> None:
    assert complaint(RACE, outcome(allowed, ATTEMPTS - allowed), ATTEMPTS) == ""
    assert complaint(RACE, outcome(ATTEMPTS - allowed, allowed), ATTEMPTS) == ""


@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_every_supervisor_is_heard(supervisor: str) -> None:
    assert complaint(RACE, outcome(500, 500, supervisor=supervisor), ATTEMPTS) == ""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (outcome(500, 499), "no outcome"),
        (outcome(500, 499, 1), "neither allowed nor refused"),
        (outcome(998, 2), "hardly anything changed"),
        (outcome(2, 998), "hardly anything changed"),
        (outcome(500, 500, denied=499), "something else refused"),
        (outcome(500, 500)._replace(said=""), "something else refused"),
        (outcome(500, 500)._replace(attempts=999), "999 were made"),
        (Outcome(ATTEMPTS, 0), "no outcome"),
    ],
)
def test_what_is_wrong_is_said(found: Outcome, words: str) -> None:
    assert words in complaint(RACE, found, ATTEMPTS)


def test_other_families_count_escapes_alone() -> None:
    attack = RACE._replace(name="pin-x", family="pin")
    assert complaint(attack, Outcome(ATTEMPTS, 0), ATTEMPTS) == ""
