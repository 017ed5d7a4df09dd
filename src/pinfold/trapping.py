"""What is trapped in a run, and which forms of that go through the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pinfold.launch import filters
from pinfold.supervisor import shapes as known
from pinfold.supervisor.crowd import FORK_CALLS
from pinfold.supervisor.placement import CALLS, OPENS, SPREAD, Placement
from pinfold.syscalls.filtering import FILTERING
from pinfold.syscalls.filtering import NUMBERS as FILTERING_NUMBERS
from pinfold.syscalls.forms import WHOLE
from pinfold.syscalls.neighbours import BY_NUMBER, NEIGHBOURS
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.untraced import NUMBERS as UNTRACED_NUMBERS
from pinfold.syscalls.untraced import UNTRACED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinfold.policy.calls import Judge
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.shapes import Shape
    from pinfold.syscalls.forms import Forms


class Trapping(NamedTuple):
    """What was asked for, as far as it says what is trapped."""

    rules: PathRules
    judge: Judge | None
    inspect_all: bool
    logs: bool
    """Whether somebody wants to see all calls."""
    counts: bool
    """Whether tasks are counted."""
    judge_all: bool
    dry: bool
    traced: bool
    """Whether the supervisor traces."""
    limits: bool
    """Whether COMMAND's first exec has to be seen where nobody traces."""

    @property
    def any(self) -> bool:
        """Whether any call is judged at all."""
        return self.logs or self.inspect_all or self.judge is not None or not self.rules.empty

    def shapes(self) -> Mapping[int, Shape]:
        """Returns what is trapped, and what is read of it."""
        shapes: Mapping[int, Shape] = {}
        if self.inspect_all:
            shapes = known.EVERYTHING
        elif self.logs or not self.rules.empty:
            shapes = known.PATHS
        if self.judge is not None:
            shapes = known.with_calls(shapes, self.judge.calls)
            shapes = known.without(shapes, self.passing())
        if not self.traced:
            if shapes:
                shapes = known.counted(shapes, UNTRACED)
            else:
                shapes = known.counted(shapes, ("ptrace",))
            if self.limits:
                shapes = known.counted(shapes, ("execve",))
            return known.counted(shapes, NEIGHBOURS)
        if shapes:
            shapes = known.counted(shapes, FILTERING)
        if self.counts:
            shapes = known.counted(shapes, FORK_CALLS)
        return known.counted(shapes, NEIGHBOURS)

    def placed(
        self, mode: str, shapes: Mapping[int, Shape]
    ) -> tuple[Placement, Mapping[int, Shape]]:
        """Returns where tasks run, and what is trapped with that."""
        # Nothing can be placed where not even opens are judged; and little is trapped then.
        placement = Placement(mode if self.traced else SPREAD)
        opens = (shapes.get(X86_64[name]) for name in OPENS)
        if not placement.active or not all(one is not None and one.judged for one in opens):
            return Placement(SPREAD), shapes
        if not self.passing().keys().isdisjoint(OPENS):
            # Neither where some of them go through.
            return Placement(SPREAD), shapes
        return placement, known.placing(shapes, CALLS)

    def filter(self, shapes: Mapping[int, Shape], secret: tuple[int, int] | None) -> bytes:
        """Returns the sandbox's filter.

        Args:
            shapes: What is trapped.
            secret: See ``launch.filters``.
        """
        return filters.sandbox_filter(
            shapes,
            secret,
            whole=() if self.judge is None else self.judge.whole,
            neighbours={
                number
                for number in BY_NUMBER
                if not (shapes[number].judged or shapes[number].places)
            },
            fixed_addresses=self.judge is not None and self.judge.addresses and not self.dry,
            forms=self._forms(shapes),
        )

    def _forms(self, shapes: Mapping[int, Shape]) -> dict[int, Forms]:
        forms: dict[int, Forms] = {}
        if self._lets_through:
            forms = known.forms_of(shapes, self.passing(), policy=self.judge is not None)
        if self.traced:
            for number, ones in FILTERING_NUMBERS.items():
                if number in shapes and not shapes[number].judged:
                    forms[number] = ones
            return forms
        for number, ones in UNTRACED_NUMBERS.items():
            if number in shapes:
                rest = forms.get(number, ()) if shapes[number].judged else WHOLE
                forms[number] = (*ones, *rest)
        if self.limits:
            forms.pop(X86_64["execve"], None)
        return forms

    def passing(self) -> Mapping[str, Forms]:
        """Returns what the policy could only allow, by name of the call."""
        # The path rules judge all names.
        if self.judge is None or not self._lets_through:
            return {}
        passing = self.judge.passing
        if self.rules.empty:
            return passing
        paths = known.PATHS
        return {name: forms for name, forms in passing.items() if X86_64[name] not in paths}

    @property
    def _lets_through(self) -> bool:
        # Whether nobody wants to see calls that could only be allowed.
        return not (self.judge_all or self.dry or self.inspect_all or self.logs)
