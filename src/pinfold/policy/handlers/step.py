"""What stands between the handlers of a call and whoever runs coroutines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable


@dataclass(frozen=True, eq=False)
class Step:
    """A coroutine that has to be awaited before a verdict is there."""

    who: str
    """What the log calls it."""
    awaitable: Awaitable[Any]
