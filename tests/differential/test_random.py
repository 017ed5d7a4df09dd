"""Random programs of system calls, bare and pinned.

``PINFOLD_DIFF_PROGRAMS=20000 PINFOLD_DIFF_SEED=7`` looks longer, and elsewhere. What a failure says
is enough to see it again: the seed, the program's number, and the program.
"""

from __future__ import annotations

import itertools
import os
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.differential import generate
from tests.differential.compare import BOTH, INSPECT_ALL, PATHS, bare, entries, pinned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.kernel.support import User

SEED: Final = int(os.environ.get("PINFOLD_DIFF_SEED", "1"))
PROGRAMS: Final = int(os.environ.get("PINFOLD_DIFF_PROGRAMS", "200"))
AT_A_TIME: Final = 250
"""Programs of one run; the directory of each is removed before the next one."""

pytestmark = pytest.mark.timeout(600 + PROGRAMS)


KNOWN: Final = (
    # The kernel looks first at the bytes that it does not know, and finds them to be set.
    (r"\d+ (file_setattr|landlock_create_ruleset): -1 E2BIG", r".*: -1 EFAULT"),
    # What cannot be read of a socket option is pinned as zeros.
    (r"\d+ setsockopt: -1 EFAULT", r".*"),
)
"""What may differ, as patterns of what is printed bare and under pinfold: docs/rules.md has it."""

KNOWN_OF_NAMES: Final = (
    # A path with ``..`` in it is walked before it is judged. Where we may not walk, that is said at
    # once, while the kernel would perhaps find fault with the flags first.
    (r"\d+ \w+: -1 E\w+", r".*: -1 EACCES"),
    (r"    not run: E\w+", r"    not run: EACCES"),
)
"""The same where paths are resolved."""


def by_program(lines: Sequence[str]) -> dict[str, list[str]]:
    """Returns the lines of each program, by its first line."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith("program "):
            current = found.setdefault(line, [])
        else:
            current.append(line)
    return found


def without_known(plain: Sequence[str], judged: Sequence[str], options: Sequence[str]) -> list[str]:
    """Returns what was printed under pinfold with the known differences taken out."""
    known = KNOWN if options is INSPECT_ALL else (*KNOWN, *KNOWN_OF_NAMES)
    found = list(judged)
    for at, (one, other) in enumerate(zip(plain, judged, strict=False)):
        if any(re.fullmatch(mine, one) and re.fullmatch(theirs, other) for mine, theirs in known):
            found[at] = one
    return found


def batches() -> Iterator[list[str]]:
    for start in range(0, PROGRAMS, AT_A_TIME):
        numbers = range(start, min(start + AT_A_TIME, PROGRAMS))
        yield [generate.program(number, SEED) for number in numbers]


def compared(user: User, options: Sequence[str], programs: Sequence[str]) -> int:
    """Compares two runs of some programs; returns how many calls did something."""
    interpreter = user.program("diff_random")
    text = "".join(programs)
    plain = bare(user, interpreter, "--programs", text=text)
    assert (plain.status, plain.complaints) == (0, "")
    judged = pinned(user, options, interpreter, "--programs", text=text)
    left, right = by_program(plain.lines), by_program(judged.lines)
    for source in programs:
        title = source.partition("\n")[0]
        plain_lines, judged_lines = left[title], right.get(title, [])
        judged_lines = without_known(plain_lines, judged_lines, options)
        if plain_lines != judged_lines:
            both = itertools.zip_longest(plain_lines, judged_lines, fillvalue="nothing more")
            first = next(pair for pair in both if pair[0] != pair[1])
            pytest.fail(
                f"seed {SEED}, {title}, {' '.join(options)}\n  bare:   {first[0]}\n"
                f"  pinned: {first[1]}\n{source}\n{judged.complaints}"
            )
    assert (judged.status, judged.complaints) == (0, "")
    return sum(
        not result.startswith("-1")
        for lines in left.values()
        for result in entries(lines).values()
        if result
    )


@pytest.mark.parametrize("options", [INSPECT_ALL, PATHS, BOTH], ids=["all", "paths", "both"])
def test_random_programs(someone: User, options: Sequence[str]) -> None:
    done = sum(compared(someone, options, programs) for programs in batches())
    # Programs of which next to nothing succeeds would compare errors only.
    assert done > PROGRAMS


def test_programs_are_the_same_for_the_same_seed() -> None:
    assert generate.program(5, 3) == generate.program(5, 3)
    assert len({generate.program(number, 3) for number in range(50)}) == 50
    for name in generate.NAMES:
        assert name.count(b"..") <= 1
        assert name[:1] != b"/" or name.startswith((b"/proc/self/", b"/proc/thread-self/"))
    assert {row.name for row in generate.ROWS}.isdisjoint(generate.LEFT_OUT)
