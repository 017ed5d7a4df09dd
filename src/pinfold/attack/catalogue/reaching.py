"""Attacks on the supervisor itself: its memory, its descriptors, its limits.

Each comes twice where that makes a difference. A program that is root has rights of its own; one
without any shares the supervisor's user, which is all that many calls ask for.
"""

from __future__ import annotations

from typing import Final

from pinfold.attack.catalogue.model import NAIVE, PINNED, TRACE, Attack

_ABOUT: Final = {
    "memory": "the supervisor's memory, environment, registers and directories, and to trace it",
    "descriptors": "the supervisor's descriptors, and descriptors that were left open",
    "signals": "to stop the supervisor, by every way to send a signal",
    "limits": "to set the supervisor's resource limits",
    "scheduling": "to set the supervisor's processors, scheduling class and priorities",
    "files": "to write the supervisor's files in /proc",
    "keyring": "to exchange the supervisor's session keyring",
    "children": "to leave the supervisor children that nobody waits for",
}
_LIBRARY: Final = frozenset(
    {
        ("memory", False),
        ("descriptors", False),
        ("signals", False),
        ("signals", True),
        ("limits", False),
        ("limits", True),
        ("scheduling", False),
        ("scheduling", True),
    }
)
"""By (ways, unprivileged), what a library that answers notifications leaves to whoever starts the
program: it gives no capability up for it, and puts no Landlock domain around it."""


def _row(ways: str, *, unprivileged: bool) -> Attack:
    return Attack(
        f"reach-{ways}-user" if unprivileged else f"reach-{ways}",
        "reach",
        "reach_supervisor",
        f"{_ABOUT[ways]}{', without privileges' if unprivileged else ''}",
        NAIVE,
        (ways,),
        unprivileged=unprivileged,
        backends=(TRACE,) if (ways, unprivileged) in _LIBRARY else PINNED,
    )


REACHING: Final[tuple[Attack, ...]] = tuple(
    _row(ways, unprivileged=unprivileged)
    for ways in _ABOUT
    for unprivileged in (False, True)
    # To root, files in /proc are files: what keeps it from them is a policy, or Landlock.
    if (ways, unprivileged) != ("files", False)
)
