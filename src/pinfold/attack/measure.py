"""An attack on several supervisors, and what the counts say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.attack import trial
from pinfold.attack.honest import complaint
from pinfold.attack.trial import Outcome

if TYPE_CHECKING:
    from pinfold.attack.catalogue.model import Attack

HELD: Final = "held"
ESCAPED: Final = "ESCAPED"
FAILED: Final = "failed"
UNSUPPORTED: Final = "not here"
LOST: Final = "lost"
NOT_LOST: Final = "NOT LOST"

_ROUNDS: Final = 20
_GROWTH: Final = 8
"""A control is tried again until it has lost often enough: at most so many times, each twice as
long as the last one, and at most so many times as long as the first. With two CPUs free one round
is plenty. Where other load takes them, a round may lose nothing at all, since the peer did not run
between check and use."""
_SECONDS: Final = 300.0
"""How long one run may take."""
_OTHERS_SECONDS: Final = 60.0
"""How long one run may take under another sandbox."""


class Count(NamedTuple):
    """Runs of one attack under one supervisor, added up."""

    supervisor: str
    attempts: int
    escapes: int
    verdict: str
    note: str = ""
    """What went wrong, or is missing."""


def defended(attack: Attack, backend: str, attempts: int, seconds: float = _SECONDS) -> Count:
    """Returns how a back end of pinfold stood an attack.

    Args:
        attack: Which.
        backend: ``trace``, ``interrupt`` or ``native``.
        attempts: How often it is tried.
        seconds: How long it may take at most.

    Raises:
        UnsupportedError: A program could not be built.
    """
    got = trial.run(attack, trial.command(backend, attack), attempts, seconds)
    if got.unsupported:
        return Count(backend, 0, 0, UNSUPPORTED, got.unsupported)
    if got.failed:
        return Count(backend, got.attempts, got.escapes, FAILED, got.failed)
    if got.escapes:
        return Count(backend, got.attempts, got.escapes, ESCAPED, got.said.partition("\n")[0])
    wrong = complaint(attack, got, attempts)
    return Count(backend, got.attempts, 0, FAILED if wrong else HELD, wrong)


def controlled(attack: Attack, seconds: float = _SECONDS) -> Count:
    """Returns how the control lost an attack.

    Raises:
        UnsupportedError: A program could not be built.
        ValueError: The attack has no control.
    """
    if not attack.control:
        raise ValueError(f"{attack.name} has no control: {attack.alone}")
    attempts = escapes = 0
    got = Outcome()
    rounds = _ROUNDS if attack.chance else 1
    for round_ in range(rounds):
        most = min(1 << round_, _GROWTH) * (attack.control_attempts or attack.attempts)
        got = trial.run(attack, trial.command(attack.control, attack), most, seconds)
        if got.unsupported:
            return Count(attack.control, 0, 0, UNSUPPORTED, got.unsupported)
        attempts += got.attempts
        escapes += got.escapes
        if got.failed:
            return Count(attack.control, attempts, escapes, FAILED, got.failed)
        if escapes >= attack.lost:
            return Count(attack.control, attempts, escapes, LOST)
    note = f"{attack.lost} escapes are wanted: the attack is not testing"
    if attack.chance and len(os.sched_getaffinity(0)) == 1:
        note = "on one CPU its control loses too seldom to prove a race"
    return Count(attack.control, attempts, escapes, NOT_LOST, note)


def compared(attack: Attack, name: str, seconds: float = _OTHERS_SECONDS) -> Count:
    """Returns how another sandbox stood an attack; escapes are facts here, no failure.

    Raises:
        UnsupportedError: A program could not be built.
    """
    attempts = attack.control_attempts or attack.attempts
    got = trial.run(attack, trial.command(name, attack), attempts, seconds)
    if got.unsupported or got.failed:
        return Count(name, 0, 0, UNSUPPORTED, got.unsupported or got.failed)
    return Count(name, got.attempts, got.escapes, ESCAPED if got.escapes else HELD)
