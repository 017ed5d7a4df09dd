"""Which attacks are made on what and how often, and what all of it comes to."""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold import doctor
from pinfold.attack.catalogue import ATTACKS
from pinfold.attack.catalogue.model import INTERRUPT, NATIVE, RUN_NATIVE, TRACE
from pinfold.attack.measure import (
    ESCAPED,
    FAILED,
    HELD,
    NOT_LOST,
    UNSUPPORTED,
    Count,
    compared,
    controlled,
    defended,
)
from pinfold.attack.supervisors import OTHERS, installed
from pinfold.errors import PolicyError
from pinfold.launch import choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pinfold.attack.catalogue import Attack

SCALED_FROM: Final = 100
"""Attacks that are made so often by default, or more often, are made as often as it takes; what the
others try either works or does not."""


class Row(NamedTuple):
    """One attack, and how each sandbox stood it."""

    attack: Attack
    control: Count | None
    """None where there is none, or where none was asked for."""
    pinned: tuple[Count, ...]
    """By back end."""
    others: tuple[Count, ...] = ()

    @property
    def verdict(self) -> str:
        """What the row says, in a word: the worst of its counts."""
        found = {one.verdict for one in self.pinned}
        for word in (ESCAPED, FAILED):
            if word in found:
                return word
        if self.control is not None and self.control.verdict in (NOT_LOST, FAILED):
            return NOT_LOST
        return HELD if HELD in found else UNSUPPORTED

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong: it held, against an attack that works, or cannot be tried."""
        return self.verdict in (HELD, UNSUPPORTED)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong, or is missing, and where."""
        counts = [*self.pinned, *self.others]
        if self.control is not None:
            counts.insert(0, self.control)
        told = [f"{one.supervisor}: {one.note}" for one in counts if one.note]
        return tuple(dict.fromkeys(told))


class Plan(NamedTuple):
    """What is to be done."""

    attacks: tuple[Attack, ...]
    backends: tuple[str, ...]
    others: tuple[str, ...]
    controls: bool
    attempts: int
    """In all, on each back end, at least; 0 for as many as the catalogue says."""

    def times(self, attack: Attack, backend: str) -> int:
        """Returns how often an attack is made on a back end."""
        if not self.attempts or attack.attempts < SCALED_FROM:
            return attack.attempts
        made = [one for one in self.attacks if backend in one.backends]
        fixed = sum(one.attempts for one in made if one.attempts < SCALED_FROM)
        scaled = sum(one.attempts for one in made) - fixed
        wanted = max(self.attempts - fixed, scaled)
        return -(-attack.attempts * wanted // scaled)


def planned(
    names: Iterable[str],
    backends: Sequence[str] = (),
    others: Sequence[str] | None = None,
    *,
    controls: bool = True,
    attempts: int = 0,
) -> Plan:
    """Returns a plan.

    Args:
        names: Attacks, by name or glob; none for all.
        backends: Back ends; none for all that this machine has.
        others: Other sandboxes; None for all that are installed.
        controls: Whether the controls are run, too.
        attempts: In all, on each back end.

    Raises:
        PolicyError: There is no such attack.
    """
    chosen = list(names) or ["*"]
    for name in chosen:
        if not any(fnmatch.fnmatch(one.name, name) for one in ATTACKS):
            raise PolicyError(f"there is no attack {name!r}; `pinfold attack --list` shows them")
    attacks = tuple(
        one for one in ATTACKS if any(fnmatch.fnmatch(one.name, name) for name in chosen)
    )
    if not backends:
        backends = here()
    against = installed() if others is None else others
    return Plan(attacks, tuple(backends), tuple(against), controls, attempts)


def here() -> tuple[str, ...]:
    """Returns the back ends that this machine has."""
    found = [TRACE, INTERRUPT]
    if doctor.has_native():
        found.append(NATIVE)
    if choice.lack() is None:
        found.append(RUN_NATIVE)
    return tuple(found)


def carried_out(
    plan: Plan, seconds: float = 0.0, progress: Callable[[str], None] | None = None
) -> Iterator[Row]:
    """Yields a row for each attack as soon as it is done.

    Args:
        plan: What is to be done.
        seconds: Begins again with the first attack until so much time has passed; 0 for one round.
        progress: Called with a few words before each run.

    Raises:
        UnsupportedError: A program could not be built.
    """
    end = time.monotonic() + seconds
    while True:
        for attack in plan.attacks:
            yield _made(plan, attack, progress or _silent)
            if seconds and time.monotonic() >= end:
                return
        if not seconds:
            return


def _made(plan: Plan, attack: Attack, progress: Callable[[str], None]) -> Row:
    control = None
    if plan.controls and attack.control:
        progress(f"{attack.name} against {attack.control}")
        control = controlled(attack)
    pinned = []
    for backend in plan.backends:
        if backend in attack.backends:
            progress(f"{attack.name} against {backend}")
            pinned.append(defended(attack, backend, plan.times(attack, backend)))
    others = []
    for name in plan.others:
        if attack.portable not in OTHERS[name]:
            continue
        progress(f"{attack.name} against {name}")
        others.append(compared(attack, name))
    return Row(attack, control, tuple(pinned), tuple(others))


def _silent(_words: str) -> None:
    return


class Total(NamedTuple):
    """What the rows of one family, or all, come to for one sandbox."""

    attempts: int = 0
    escapes: int = 0
    attacks: int = 0
    """How many were tried."""

    def plus(self, count: Count) -> Total:
        """Returns the total with one more count."""
        if count.verdict == UNSUPPORTED:
            return self
        return Total(self.attempts + count.attempts, self.escapes + count.escapes, self.attacks + 1)


CONTROLS: Final = "controls"
"""In totals: all controls together."""


def totals(rows: Iterable[Row]) -> dict[str, dict[str, Total]]:
    """Returns totals by family, and in each by sandbox; the controls are ``CONTROLS``."""
    found: dict[str, dict[str, Total]] = {}
    for row in rows:
        family = found.setdefault(row.attack.family, {})
        if row.control is not None:
            family[CONTROLS] = family.get(CONTROLS, Total()).plus(row.control)
        for count in (*row.pinned, *row.others):
            before = family.get(count.supervisor, Total())
            family[count.supervisor] = before.plus(count)
    return found


def as_dict(row: Row) -> dict[str, Any]:
    """Returns a row as what ``pinfold attack --json`` prints."""
    return {
        "attack": row.attack.name,
        "family": row.attack.family,
        "about": row.attack.about,
        "verdict": row.verdict,
        "control": None if row.control is None else row.control._asdict(),
        "no_control_because": row.attack.alone or None,
        "pinned": [one._asdict() for one in row.pinned],
        "others": [one._asdict() for one in row.others],
    }
