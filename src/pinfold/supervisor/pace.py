"""When the supervisor and a task share a processor: counting stops (pure).

The loop counts stops of one and the same task in rounds, and asks at the end of a round; it tells
of a stop of any other task at once. Nothing else happens at a stop.

A task that is alone, and stops often, is worth sharing a processor with. One that stops seldom is
not: little is gained, and it could be kept on a processor that others are busy on while one next to
it is idle. For the same reason the two are parted from time to time and meet again where the
scheduler has put the supervisor by then.
"""

from __future__ import annotations

from typing import Final

ROUND: Final = 32
"""Stops of one task in a row, before it is asked again whether it is worth it."""
OFTEN_NS: Final = ROUND * 500_000
"""How long a round may take: a wake-up on another processor costs some 25 us, twice a stop, which
is a tenth of this."""
ROUNDS: Final = 512
"""Rounds after which the two are parted for a moment."""
NEVER: Final = 1 << 62
"""A round that does not end."""

JOIN: Final = 1
PART: Final = 2
STAY: Final = 0


class Pace:
    """Decides whether to share a processor, and with whom.

    Attributes:
        partner: The task that it is shared with, 0 for none; set by who carries decisions out.
    """

    __slots__ = ("_rounds", "_since", "partner")

    def __init__(self) -> None:
        self.partner = 0
        self._since = 0
        self._rounds = 0

    def other(self) -> int:
        """Returns what to do when a task stops that is not the one that stopped last."""
        self._since = 0
        return PART if self.partner else STAY

    def round(self, tid: int, now: int) -> int:
        """Returns what to do when a task has stopped for a whole round, and nobody else.

        Args:
            tid: The task.
            now: The time in nanoseconds, of any clock that does not go back.
        """
        since, self._since = self._since, now
        # How long the first one took is not known: that time is not asked for at each stop.
        often = not since or now - since <= OFTEN_NS
        if self.partner != tid:
            self._rounds = 0
            return JOIN if often else STAY
        self._rounds += 1
        if not often or self._rounds >= ROUNDS:
            return PART
        return STAY
