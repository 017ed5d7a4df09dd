"""Every attack of the catalogue: its control loses it, and no back end of pinfold does.

A control that loses too seldom means that the attack is not testing, and fails. With one CPU a race
is lost too seldom to wait for: its control is then skipped by name.

On an emulated machine PINFOLD_ATTACK_SHARE says how much less often the long attacks are tried: 10
is a tenth, but a hundred times at least. Controls have to lose as often as ever.
"""

from __future__ import annotations

import os

import pytest

from pinfold.attack.campaign import here
from pinfold.attack.catalogue import ATTACKS, Attack
from pinfold.attack.catalogue.model import TWO_STOPS
from pinfold.attack.measure import HELD, LOST, UNSUPPORTED, controlled, defended

CPUS = len(os.sched_getaffinity(0))
BACKENDS = (*here(), TWO_STOPS)
SHARE = int(os.environ.get("PINFOLD_ATTACK_SHARE", "1"))
FEW = 100


def named(attack: Attack) -> str:
    return attack.name


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("attack", [one for one in ATTACKS if one.control], ids=named)
def test_the_control_loses(attack: Attack, capsys: pytest.CaptureFixture[str]) -> None:
    if attack.chance and CPUS == 1:
        pytest.skip(f"{attack.name}: on one CPU its control loses too seldom to prove a race")
    count = controlled(attack)
    if count.verdict == UNSUPPORTED:
        pytest.skip(f"{attack.name}: this machine has no {count.note}")
    with capsys.disabled():
        print(f"\n{attack.name}: {attack.control} {count.escapes}/{count.attempts}", end=" ")
    assert count.verdict == LOST, count


@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("attack", ATTACKS, ids=named)
def test_nothing_escapes(attack: Attack, backend: str) -> None:
    if backend not in attack.backends:
        pytest.skip(f"{attack.name} is not for the {backend} back end")
    attempts = min(attack.attempts, max(FEW, attack.attempts // SHARE))
    count = defended(attack, backend, attempts)
    if count.verdict == UNSUPPORTED:
        pytest.skip(f"{attack.name}: this machine has no {count.note}")
    assert count.verdict == HELD, count
    assert count.escapes == 0
    assert count.attempts == attempts


def test_an_attack_has_a_control_or_a_reason() -> None:
    for attack in ATTACKS:
        assert bool(attack.control) != bool(attack.alone), attack.name


def test_names_are_unique_and_start_with_their_family() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert attack.name.startswith(f"{attack.family}-"), attack.name
