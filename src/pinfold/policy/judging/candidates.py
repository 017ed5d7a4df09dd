"""Which rules a name meets: one index of the names in all rules (pure).

Of the conditions on names of each rule one is looked up here, ``Conditions.indexed``, and whatever
the number of rules, a name costs one pass over its bytes for each kind of condition.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from pinfold.errors import PolicyError
from pinfold.paths import normalise
from pinfold.policy.globs import Above, GlobSet, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinfold.policy.judging.match import Conditions
    from pinfold.policy.judging.meaning import Meaning, Subject
    from pinfold.policy.model import Match

_PROGRAMS: Final = 256
"""Programs of which the rules about them are kept."""


class Candidates:
    """Finds rules by names, and by the program that makes a call.

    Args:
        matches: The conditions of each rule as they are written, by its number.
        conditions: The same, made ready.

    Raises:
        PolicyError: A glob is malformed, or a name does not begin with a slash.
    """

    def __init__(self, matches: Sequence[Match], conditions: Sequence[Conditions]) -> None:
        self._matches: Final = matches
        self._conditions: Final = conditions
        self._exact: Final[dict[bytes, list[int]]] = {}
        for number in self._indexed("exact"):
            for name in matches[number].exact:
                self._exact.setdefault(_normal(name), []).append(number)
        self._paths: Final = _Index((at, matches[at].path) for at in self._indexed("path"))
        self._unix: Final = _Index((at, matches[at].unix) for at in self._indexed("unix"))
        self._real: Final = _Index((at, matches[at].real) for at in self._indexed("real"))
        self._programs: Final = _Index((at, one.program) for at, one in enumerate(matches))
        self._ran: Final[dict[bytes, frozenset[int]]] = {}

    def of(self, subject: Subject, meaning: Meaning) -> list[int]:
        """Returns the rules whose indexed condition a subject meets, in no order."""
        found: list[int] = []
        name, real = meaning.name, subject.real
        if name is not None:
            found += self._exact.get(name, ())
            found += self._paths.of(name)
            if subject.address:
                found += self._unix.of(name)
        if real is not None:
            found += self._real.of(real)
        return found

    def below(self, subject: Subject, meaning: Meaning) -> list[int]:
        """Returns the rules against the program whose indexed condition something below can meet.

        These are about what lies in a directory that is renamed, or can.
        """
        found: list[int] = []
        if meaning.name is not None:
            found += self._above.of(meaning.name)
        if subject.real is not None:
            found += self._above_real.of(subject.real)
        return found

    def about_program(self, program: bytes) -> frozenset[int] | None:
        """Returns the rules whose condition on the program holds; None if it is not known."""
        if program[:1] != b"/":
            return None
        found = self._ran.get(program)
        if found is None:
            if len(self._ran) >= _PROGRAMS:
                self._ran.clear()
            found = self._ran[program] = frozenset(self._programs.of(program))
        return found

    @cached_property
    def _above(self) -> Above:
        # Made when something is renamed; most programs never do.
        matches = self._matches
        exact = [
            (at, escape(name))
            for at in self._against("exact")
            for name in map(normalise, matches[at].exact)
        ]
        return Above(
            [*exact, *((at, glob) for at in self._against("path") for glob in matches[at].path)]
        )

    @cached_property
    def _above_real(self) -> Above:
        return Above((at, glob) for at in self._against("real") for glob in self._matches[at].real)

    def _indexed(self, by: str) -> list[int]:
        return [at for at, one in enumerate(self._conditions) if one.indexed == by]

    def _against(self, by: str) -> list[int]:
        return [at for at in self._indexed(by) if self._conditions[at].strict]


class _Index:
    # Which rules have a glob that matches a name.
    __slots__ = ("_globs", "_rules")

    def __init__(self, rules: Iterable[tuple[int, tuple[bytes, ...]]]) -> None:
        pairs = [(number, glob) for number, globs in rules for glob in globs]
        self._globs = GlobSet([glob for _, glob in pairs])
        self._rules = [number for number, _ in pairs]

    def of(self, name: bytes) -> list[int]:
        return [self._rules[at] for at in self._globs.matches(name)]


def _normal(name: bytes) -> bytes:
    if not name.startswith(b"/"):
        raise PolicyError(f"{name!r} is not absolute; write it from the root")
    return normalise(name)
