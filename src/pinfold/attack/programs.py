"""Finds the attack programs' sources and builds them with the system's compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.compiled import Sources

if TYPE_CHECKING:
    from pathlib import Path

_ATTACKS: Final = Sources("attack programs", "attack/programs", "attacks", "attacks")


def sources() -> Path:
    """Returns the directory of the C sources: in the package, or beside it in a source tree.

    Raises:
        UnsupportedError: It was left out of this installation.
    """
    return _ATTACKS.place()


def build(name: str, *flags: str) -> Path:
    """Returns the executable made from ``NAME.c``.

    Args:
        name: The program.
        flags: Further options for the compiler.

    Raises:
        UnsupportedError: There is no compiler, or it refused; the message holds what it said.
    """
    return _ATTACKS.build(name, *flags)
