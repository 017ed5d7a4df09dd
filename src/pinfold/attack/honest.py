"""Whether a count of zero escapes was come by honestly.

An attack that nobody let make its calls has no escapes either. What a race has to show besides is
that every attempt was allowed or refused, by the rule, and that both happened.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pinfold.attack.catalogue.model import Attack
    from pinfold.attack.trial import Outcome

BOTH_AT_LEAST: Final = 200
"""One attempt in so many has to be allowed, and one refused. With two CPUs free it is about half of
either; on a busy machine a refusal, which is quick, may be met many times while the peer waits."""
_DENIED: Final = re.compile(r"^[\w-]+: denied=(\d+) ", re.MULTILINE)


def complaint(attack: Attack, outcome: Outcome, attempts: int) -> str:
    """Returns what is wrong with the counts of a race that a back end held; empty for nothing.

    What is no race counts nothing but its escapes, and is not complained of.

    Args:
        attack: Which.
        outcome: What it came to, on a back end of pinfold.
        attempts: How many were asked for.
    """
    if attack.family != "race":
        return ""
    counts = outcome.counts
    allowed, refused, other = (counts.get(name, 0) for name in ("allowed", "refused", "other"))
    told = _DENIED.findall(outcome.said)
    if outcome.attempts != attempts:
        return f"{attempts} attempts were asked for, {outcome.attempts} were made"
    if outcome.escapes + allowed + refused + other != attempts:
        return f"some attempts have no outcome: {counts}"
    if other:
        return f"{other} attempts were neither allowed nor refused"
    if min(allowed, refused) * BOTH_AT_LEAST < attempts:
        return f"hardly anything changed: {allowed} allowed, {refused} refused"
    if [str(refused)] != told:
        return f"something else refused calls: {refused} refused, the supervisor denied {told}"
    return ""
