"""A policy made of one function, for tests of what carries verdicts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.policy.calls import Later, Trapped, Verdict
    from pinfold.syscalls.forms import Forms
    from pinfold.syscalls.kinds import Kind


class FunctionJudge:
    """Asks a function about every trapped call."""

    literals: tuple[bytes, ...] = ()
    whole: frozenset[str] = frozenset()
    passing: Mapping[str, Forms] = {}
    addresses = False
    programs = False

    def __init__(
        self,
        judge: Callable[[Trapped], Verdict | Later],
        calls: Mapping[str, frozenset[Kind]] | None = None,
        *,
        real: bool = False,
    ) -> None:
        self.judge = judge
        self.calls: Mapping[str, frozenset[Kind]] = calls or {}
        self.real = real
        self.closed = 0

    def steady(self, name: str) -> bool:
        """Returns False: the function wants to be asked each time."""
        del name
        return False

    def executed(self, program: bytes, by: bytes) -> Verdict | None:
        """Has nothing against any program."""

    def close(self) -> None:
        """Counts."""
        self.closed += 1
