"""``pinfold attack``: what it prints, and what it exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.attack import campaign, measure, trial
from pinfold.attack.campaign import Row, planned, totals
from pinfold.attack.catalogue import ATTACKS
from pinfold.attack.catalogue.model import INTERRUPT, TRACE
from pinfold.attack.measure import (
    ESCAPED,
    FAILED,
    HELD,
    LOST,
    NOT_LOST,
    UNSUPPORTED,
    Count,
)
from pinfold.errors import PolicyError

if TYPE_CHECKING:
    from pinfold.attack.catalogue import Attack

QUICK = "bypass-int80"
"""An attack that makes few attempts."""


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pinfold", "attack", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def quick() -> Attack:
    (attack,) = [one for one in ATTACKS if one.name == QUICK]
    return attack


def test_a_table_and_a_summary() -> None:
    done = cli(QUICK, "--against", "none")
    assert (done.returncode, done.stderr) == (0, "")
    head, row, *rest = done.stdout.splitlines()
    assert head.split() == ["attack", "control", "trace", "interrupt", "verdict"]
    times = f"0/{quick().attempts}"
    assert row.split()[0] == QUICK
    assert row.split()[2:] == [times, times, "held"]
    assert rest[-1].split()[0] == "all"
    assert rest[-1].split()[2:] == [times, times, "1"]


def test_one_back_end_without_controls_in_json() -> None:
    done = cli(QUICK, "--backend", "trace", "--no-control", "--json", "--against", "none")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["attack"] == QUICK
    assert found["verdict"] == "held"
    assert found["control"] is None
    assert [one["supervisor"] for one in found["pinned"]] == ["trace"]
    assert found["pinned"][0]["escapes"] == 0


def test_the_list_names_every_attack_and_makes_none() -> None:
    done = cli("--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [one.name for one in ATTACKS]


def test_an_attack_that_does_not_exist() -> None:
    done = cli("no-such-thing")
    assert done.returncode == 125
    assert done.stdout == ""
    assert "no attack 'no-such-thing'" in done.stderr


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    done = cli(QUICK, "--no-control", "--against", "none", "--backend", "trace")
    assert done.returncode == 125
    assert "there is no C compiler (/nowhere/cc)" in done.stderr


def test_an_escape_is_told_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a supervisor that loses: the table must say so."""
    monkeypatch.setattr(trial, "command", lambda _name, attack: real(attack.control, attack))
    count = measure.defended(quick(), TRACE, 2)
    assert count.verdict == ESCAPED
    assert count.escapes > 0


real = trial.command


def row(control: str, *pinned: str) -> Row:
    counts = tuple(Count(TRACE, 1, int(word == ESCAPED), word) for word in pinned)
    return Row(quick(), Count("naive", 1, int(control == LOST), control), counts)


@pytest.mark.parametrize(
    ("made", "verdict", "holds"),
    [
        (row(LOST, HELD, HELD), HELD, True),
        (row(LOST, HELD, UNSUPPORTED), HELD, True),
        (row(UNSUPPORTED, UNSUPPORTED), UNSUPPORTED, True),
        (row(LOST, HELD, ESCAPED), ESCAPED, False),
        (row(NOT_LOST, ESCAPED), ESCAPED, False),
        (row(LOST, FAILED, HELD), FAILED, False),
        (row(NOT_LOST, HELD), NOT_LOST, False),
        (row(FAILED, HELD), NOT_LOST, False),
    ],
)
def test_the_verdict_is_the_worst_of_a_row(made: Row, verdict: str, holds: bool) -> None:
    assert (made.verdict, made.holds) == (verdict, holds)


def test_totals_leave_out_what_was_not_tried() -> None:
    found = totals([row(LOST, HELD), row(LOST, UNSUPPORTED), row(UNSUPPORTED, HELD)])
    family = found[quick().family]
    assert family[TRACE] == (2, 0, 2)
    assert family[campaign.CONTROLS] == (2, 2, 2)


@pytest.mark.parametrize("backend", [TRACE, INTERRUPT])
def test_attempts_are_spread_over_the_races(backend: str) -> None:
    wanted = 3_000_000
    plan = planned([], (backend,), (), attempts=wanted)
    made = [one for one in plan.attacks if backend in one.backends]
    total = sum(plan.times(one, backend) for one in made)
    assert wanted <= total <= wanted + len(made)
    for one in made:
        assert plan.times(one, backend) >= one.attempts


def test_a_name_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(PolicyError, match="no attack 'rase-\\*'"):
        planned(["race-*", "rase-*"], (TRACE,), ())
