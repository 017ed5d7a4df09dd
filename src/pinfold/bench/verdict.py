"""What a verdict costs, over few rules and many: the judges alone, without any call.

New names are ones that were never judged before; repeated ones come again and again, and their
verdicts are remembered. Rules name files one by one, or by patterns with wildcards. One name in
four is denied, and that is counted.
"""

from __future__ import annotations

import os
import time
from itertools import count
from typing import TYPE_CHECKING, Final

from pinfold import Policy
from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.bench.measure import Settings, Table, Way, WrongError, table
from pinfold.policy.calls import Argument, Trapped
from pinfold.policy.rules import DENY, PathRules
from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZES: Final = (10, 100, 1000, 10_000)
"""How many rules there are."""
NAMES: Final = 2000
"""Judged in one turn."""
_REPEATED: Final = 64
"""How many names there are of those that come again."""
_NAMED: Final = ("/srv/{}/private", "/home/user{}/.ssh", "/opt/x/{}/key", "/var/lib/app{}/keys")
_PATTERNS: Final = (
    *("/srv/{}/private/**", "/home/user{}/.ssh/*", "/opt/*/{}/key/**", "/var/lib/app{}/*/*"),
)
_MET: Final = ("/srv/{}/private/a", "/home/user{}/.ssh", "/opt/x/{}/key", "/var/lib/app{}/keys")
_PROGRAM: Final = b"/usr/bin/program"
_OPEN: Final = TABLE["openat"]


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what verdicts cost; one table after the other.

    Raises:
        WrongError: A verdict was wrong.
    """
    sizes = SIZES[:2] if settings.quick else SIZES
    for kind, patterns in (("names", _NAMED), ("patterns", _PATTERNS)):
        for means, make in (("deny", _path_rules), ("policy", _policy)):
            settings.say(f"verdict: {means}-{kind}: rules are made")
            judges = {size: make(globs(patterns, size)) for size in sizes}
            for again in (False, True):
                ways = [
                    Way(
                        str(size),
                        f"{size:,} rules",
                        _turn(judge, size, settings.times(NAMES), repeated=again),
                    )
                    for size, judge in judges.items()
                ]
                yield table(
                    "verdict",
                    f"{means}-{kind}-{'again' if again else 'new'}",
                    f"{'--deny' if means == 'deny' else '--policy'}, rules over {kind};"
                    f" {'names that come again' if again else 'new names'}",
                    ways,
                    settings,
                    unit="µs",
                    reference=str(sizes[0]),
                )


def globs(patterns: Sequence[str], size: int) -> list[str]:
    """Returns so many rules, of several kinds."""
    return [patterns[number % len(patterns)].format(number) for number in range(size)]


def _path_rules(globs: Sequence[str]) -> Callable[[bytes], str]:
    rules = PathRules([], [os.fsencode(glob) for glob in globs])

    def judge(name: bytes) -> str:
        return rules.judge((name,)).action

    return judge


def _policy(globs: Sequence[str]) -> Callable[[bytes], str]:
    text = "version = 1\n" + "".join(
        f'[[rule]]\nname = "{number}"\npath = "{glob}"\naction = "deny"\n'
        for number, glob in enumerate(globs)
    )
    rules = Policy.parse(text).judge(ask=None, report=_unheard, real=False)
    at = next(at for at, (_, kind) in enumerate(_OPEN.arguments) if kind is Kind.PATH)
    name_of, kind = _OPEN.arguments[at]
    registers = (0,) * len(ARGUMENTS)

    def judge(name: bytes) -> str:
        argument = Argument(at, name_of, kind, name, 0)
        call = Trapped(_OPEN, registers, _PROGRAM, (argument,), {name_of: (name,)})
        verdict = rules.judge(call)
        return str(getattr(verdict, "action", ""))

    return judge


def _unheard(line: str) -> None:
    raise WrongError(f"a policy without handlers says: {line}")


def _turn(
    judge: Callable[[bytes], str], size: int, names: int, *, repeated: bool
) -> Callable[[], float]:
    numbers = count()
    again = [_name(number, size, _REPEATED) for number in range(_REPEATED)] if repeated else []

    def turn() -> float:
        if again:
            asked = (again * (names // len(again) + 1))[:names]
            wanted = sum(number % len(again) % 4 == 0 for number in range(names))
        else:
            fresh = [next(numbers) for _ in range(names)]
            asked = [_name(number, size, number) for number in fresh]
            wanted = sum(number % 4 == 0 for number in fresh)
        before = time.perf_counter_ns()
        denied = [judge(name) for name in asked].count(DENY)
        took = time.perf_counter_ns() - before
        if denied != wanted:
            raise WrongError(f"{size} rules: {denied} names denied instead of {wanted}")
        return took / 1000 / names

    return turn


def _name(number: int, size: int, unique: int) -> bytes:
    # One in four is met by a rule, in its own way each time.
    if number % 4:
        return b"/usr/share/part%d/file%d" % (number % 97, unique)
    rule = number // 4 * 7 % size
    return _MET[rule % 4].format(rule).encode() + b"/%d" % unique
