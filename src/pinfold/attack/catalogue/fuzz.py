"""Calls at random: whatever nobody has thought of."""

from __future__ import annotations

from typing import Final

from pinfold.attack.catalogue.model import NAIVE, Attack

FUZZ: Final[tuple[Attack, ...]] = tuple(
    Attack(
        f"exhaust-fuzz-{seed}",
        "exhaust",
        "fuzz_calls",
        "threads and children make calls with any number and any arguments",
        NAIVE,
        (str(seed),),
        attempts=5_000,
        control_attempts=5_000,
        chance=True,
        unprivileged=True,
    )
    for seed in (1, 2)
)
