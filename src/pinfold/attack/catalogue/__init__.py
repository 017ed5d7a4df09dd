"""Every attack, by family."""

from __future__ import annotations

from typing import Final

from pinfold.attack.catalogue.bypasses import BYPASSES
from pinfold.attack.catalogue.exhausting import EXHAUSTING
from pinfold.attack.catalogue.fuzz import FUZZ
from pinfold.attack.catalogue.model import Attack
from pinfold.attack.catalogue.pins import PINS
from pinfold.attack.catalogue.races import RACES
from pinfold.attack.catalogue.reaching import REACHING
from pinfold.attack.catalogue.signals import SIGNALS

__all__ = ["ATTACKS", "Attack"]

ATTACKS: Final[tuple[Attack, ...]] = (
    *RACES,
    *PINS,
    *SIGNALS,
    *BYPASSES,
    *REACHING,
    *EXHAUSTING,
    *FUZZ,
)
"""In the order in which the table shows them."""
