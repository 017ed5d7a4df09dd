"""The same program twice, without pinfold and with it, and what is different between the two.

Different is what a program prints, so the programs print all that it could notice: results, errno,
what was written where, what became of files, what arrived at the other end.

The run without pinfold has the rights that pinfold leaves a program: a container's usual
capabilities at most, and no new ones. Both runs are in a directory of the same name, since names
and their lengths are part of what is compared.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.linux.caps import CONTAINER_DEFAULT
from tests.kernel.support import TRAP_ALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.kernel.support import Done, User

INSPECT_ALL: Final = ("--inspect", "all")
"""Every pointer argument is pinned; no path is resolved, as no rule and no log asks for it."""
PATHS: Final = TRAP_ALL
"""Paths are pinned, and resolved for a rule that never matches."""
BOTH: Final = (*INSPECT_ALL, *TRAP_ALL)

LIMIT: Final = 300.0
"""Seconds that a run may take; none needs a tenth of it on a machine with nothing else to do."""

_CALL: Final = re.compile(r"(.*?): (-?\d+(?: .*)?)")
"""What was called, what it returned and all else about it."""

_SHOWN: Final = 12
_EACH: Final = 3
_WIDTH: Final = 300


class Outcome(NamedTuple):
    """How one run went."""

    status: int
    lines: list[str]
    complaints: str


def bare(user: User, program: Path, *arguments: str, text: str | None = None) -> Outcome:
    """Returns how a program went without pinfold, with the rights that it has with it."""
    prefix: list[str | Path] = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    if os.geteuid() == 0:
        kept = ",".join(f"+cap_{number}" for number in sorted(CONTAINER_DEFAULT))
        prefix.append(f"--bounding-set=-all,{kept}")
    command: list[str | Path] = [*prefix, "--", program, *arguments]
    with _Work(user) as work:
        return _outcome(user.bare(*command, cwd=work, timeout=LIMIT, **_input(text)))


def pinned(
    user: User, options: Sequence[str], program: Path, *arguments: str, text: str | None = None
) -> Outcome:
    """Returns how a program went under ``pinfold run OPTIONS``."""
    with _Work(user) as work:
        return _outcome(
            user.pinfold(
                *options, "--", program, *arguments, cwd=work, timeout=LIMIT, **_input(text)
            )
        )


def _input(text: str | None) -> Mapping[str, str]:
    return {} if text is None else {"input": text}


def _outcome(done: Done) -> Outcome:
    return Outcome(done.returncode, done.stdout.splitlines(), done.stderr)


class _Work:
    """A fresh directory of the user's, always under the same name."""

    def __init__(self, user: User) -> None:
        self._user = user
        self._path = user.directory / "work"

    def __enter__(self) -> Path:
        self._path.mkdir()
        self._user.own(self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        # Some of what a program leaves may not be entered.
        subprocess.run(["chmod", "-R", "u+rwx", self._path], check=False, capture_output=True)
        shutil.rmtree(self._path)


def entries(lines: Sequence[str]) -> dict[str, str]:
    """Returns what was printed about each call, by the call.

    A line that begins with spaces belongs to the one before it.

    Raises:
        ValueError: Two calls have the same name.
    """
    found: dict[str, str] = {}
    call = ""
    for line in lines:
        if line.startswith("    ") and call:
            found[call] += f" | {line.strip()}"
            continue
        made = _CALL.fullmatch(line)
        call, rest = made.groups() if made else (line, "")
        if call in found:
            raise ValueError(f"two lines for {call!r}")
        found[call] = rest
    return found


def differences(one: Sequence[str], other: Sequence[str], known: str | None = None) -> str:
    """Returns, as text, what was not printed the same; nothing if all was.

    Calls that differ in the same way are shown together. Those whose names match ``known`` are left
    out.
    """
    left, right = entries(one), entries(other)
    if known is not None:
        left = {call: said for call, said in left.items() if not re.fullmatch(known, call)}
        right = {call: said for call, said in right.items() if not re.fullmatch(known, call)}
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for call in [*left, *(call for call in right if call not in left)]:
        first, second = left.get(call, "not made"), right.get(call, "not made")
        if first != second:
            grouped[first[:_WIDTH], second[:_WIDTH]].append(call)
    ordered = sorted(grouped.items(), key=lambda item: -len(item[1]))
    text = []
    for (first, second), calls in ordered[:_SHOWN]:
        text.append(f"{len(calls)} times, such as {'; '.join(calls[:_EACH])}:")
        text.append(f"  bare:   {first}")
        text.append(f"  pinned: {second}")
    if len(ordered) > _SHOWN:
        text.append(f"and {len(ordered) - _SHOWN} more kinds of difference")
    return "\n".join(text)


def went_well(outcome: Outcome, least: int) -> None:
    """Checks that a run came to its end and did what it was to do.

    Args:
        outcome: The run.
        least: Lines that it must have printed.
    """
    assert outcome.complaints == ""
    assert outcome.status == 0
    assert len(outcome.lines) >= least


__all__ = [
    "BOTH",
    "INSPECT_ALL",
    "PATHS",
    "Outcome",
    "bare",
    "differences",
    "entries",
    "pinned",
    "went_well",
]
