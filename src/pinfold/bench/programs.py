"""Builds the programs that are measured, and the floors, with the system's compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.compiled import Sources

if TYPE_CHECKING:
    from pathlib import Path

_FLOORS: Final = Sources("programs to measure with", "bench/floors", "bench/floors", "bench")


def build(name: str, *flags: str) -> Path:
    """Returns the executable made from ``NAME.c``.

    Args:
        name: The program.
        flags: Further options for the compiler.

    Raises:
        UnsupportedError: There is no compiler, or it refused; the message holds what it said.
    """
    return _FLOORS.build(name, *flags)
