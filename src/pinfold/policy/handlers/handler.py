"""A function that is asked about calls, and about which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinfold.policy.globs import GlobSet

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that is asked about calls, and about which ones."""

    function: Callable[..., object]
    calls: tuple[str, ...]
    """System calls by name."""
    path: tuple[bytes, ...] = ()
    """Globs as in ``policy.globs``; one must match a name of the call. Empty for no condition."""
    access: frozenset[str] = frozenset()
    """Of ``model.ACCESS``: the call does one of these with that name. Empty for no condition."""
    program: tuple[bytes, ...] = ()
    """Globs for the program that makes the call. Empty for no condition."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def path_globs(self) -> GlobSet | None:
        """Returns what matches the names, None without a condition."""
        return GlobSet(self.path) if self.path else None

    def program_globs(self) -> GlobSet | None:
        """Returns what matches the program, None without a condition."""
        return GlobSet(self.program) if self.program else None
