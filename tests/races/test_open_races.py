"""The check/use race on paths: pinfold wins it every time, and a control shows that there is one.

Each program of ``tests/programs/race_*.c`` rewrites a path between an allowed and a denied name
while it opens it. Under pinfold no attempt may reach the denied file, and nothing but the two
honest outcomes may happen. The same program under the naive supervisor of ``tests/naive.py``, which
checks and then tells the kernel to continue, has to reach it often: a control with few escapes
means that the test is not testing, and fails.

How often depends on the CPUs. With two, about a quarter of the attempts. With one, an escape needs
a task switch between check and use, some in ten thousand: the report says so, and the control gets
more attempts and a lower bar.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.programs import ROOT, build, values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CPUS: Final = len(os.sched_getaffinity(0))
ATTEMPTS: Final = 50_000
BOTH_AT_LEAST: Final = 500
"""Fewer allowed or refused attempts would mean that the name hardly changed."""

CONTROL_ATTEMPTS: Final = 4_000 if CPUS > 1 else 20_000
CONTROL_ESCAPES: Final = 100 if CPUS > 1 else 3
CONTROL_ROUNDS: Final = 30
"""The control is run until it has lost often enough, at most this many times.

With two free CPUs one round is plenty: it loses a quarter. Where other load takes them, a round
may lose a twentieth of that, or nothing at all, since the peer did not run meanwhile.
"""

CALL_ATTEMPTS: Final = 10_000
EXECVE_ATTEMPTS: Final = 1_500

PINFOLD: Final = (sys.executable, "-m", "pinfold", "run")
NAIVE: Final = (sys.executable, str(ROOT / "tests" / "naive.py"))


class Names:
    """Two names that differ in one byte, in a directory of their own; one of them is denied."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        self.allowed = directory / "secret-A"
        self.denied = directory / "secret-D"

    def as_files(self) -> None:
        """Makes files that the programs tell apart by their first byte and their size."""
        self.allowed.write_text("A")
        self.denied.write_text("DD")

    def as_kind_for(self, call: str) -> None:
        """Makes what ``call`` works on."""
        if call == "readlink":
            self.allowed.symlink_to("A")
            self.denied.symlink_to("D")
        elif call == "chdir":
            self.allowed.mkdir()
            self.denied.mkdir()
        elif call == "execve":
            for name, ends in ((self.allowed, "true"), (self.denied, "false")):
                name.write_text(f"#!/bin/{ends}\n")
                name.chmod(0o755)
        else:
            self.as_files()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    """Returns the names, in a directory that anyone can enter."""
    for directory in tmp_path.parents[:2]:
        if directory.stat().st_uid == os.getuid():
            directory.chmod(0o755)
    return Names(tmp_path)


def race(supervisor: Sequence[str], names: Names, program: Sequence[str]) -> dict[str, int]:
    """Returns the counts that ``program`` printed under ``supervisor``."""
    done = subprocess.run(
        [*supervisor, "--deny", str(names.denied), "--", *program],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{program[0]} ended with {done.returncode}: {done.stderr}"
    assert done.stdout.count("\n") == 1, done.stdout
    counts = {key: int(value) for key, value in values(done.stdout).items()}
    outcomes = counts["escapes"] + counts["allowed"] + counts["refused"] + counts["other"]
    assert outcomes == counts["attempts"], f"some attempts have no outcome: {counts}"
    return counts


def control(names: Names, program: Sequence[str], attempts: int, wanted: int) -> dict[str, int]:
    """Returns the counts of the naive supervisor's races, made until it lost ``wanted`` of them."""
    total = {"attempts": 0, "escapes": 0}
    for _ in range(CONTROL_ROUNDS):
        arguments = [str(attempts) if word == "ATTEMPTS" else word for word in program]
        counts = race(NAIVE, names, arguments)
        total = {key: total[key] + counts[key] for key in total}
        if total["escapes"] >= wanted:
            break
    return total


def check(
    name: str,
    names: Names,
    program: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    attempts: int = ATTEMPTS,
    control_attempts: int = CONTROL_ATTEMPTS,
) -> None:
    """Runs the control and pinfold, reports both and judges them."""
    wanted = CONTROL_ESCAPES * control_attempts // CONTROL_ATTEMPTS
    lost = control(names, program, control_attempts, wanted)
    report = f"\n{name}: control escapes={lost['escapes']}/{lost['attempts']}"
    if CPUS == 1:
        report += " (one CPU: the race is rare, this says little)"
    with capsys.disabled():
        print(report, end=" ", flush=True)
    assert lost["escapes"] >= wanted, (
        f"the control escaped {lost['escapes']} times in {lost['attempts']} attempts "
        f"on {CPUS} CPUs, {wanted} are wanted: this test is not testing"
    )
    arguments = [str(attempts) if word == "ATTEMPTS" else word for word in program]
    counts = race(PINFOLD, names, arguments)
    with capsys.disabled():
        print("pinfold " + " ".join(f"{k}={v}" for k, v in counts.items()), end=" ", flush=True)
    assert counts["escapes"] == 0
    assert counts["other"] == 0
    assert counts["attempts"] == attempts
    least = min(BOTH_AT_LEAST, attempts // 20)
    assert counts["allowed"] >= least
    assert counts["refused"] >= least


@pytest.mark.timeout(600)
@pytest.mark.parametrize("peer", ["thread", "shared", "clonevm"])
def test_a_peer_that_rewrites_the_path_never_gets_the_denied_file(
    peer: str, names: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    names.as_files()
    program = [str(build(f"race_{peer}")), str(names.allowed), str(names.denied), "ATTEMPTS"]
    check(f"race_{peer}", names, program, capsys)


@pytest.mark.timeout(600)
def test_a_read_only_page_is_no_argument_for_continuing(
    names: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its peer writes through /proc/self/mem, which may also be refused altogether."""
    names.as_files()
    program = [str(build("race_procmem")), str(names.allowed), str(names.denied)]
    done = subprocess.run(
        [*PINFOLD, "--deny", str(names.denied), "--", *program, "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer = values(done.stdout).get("memory")
    if answer is not None:
        assert int(answer) in (-errno.EACCES, -errno.EPERM)
        return
    check("race_procmem", names, [*program, "ATTEMPTS"], capsys)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "call", ["open", "openat2", "stat", "lstat", "statx", "readlink", "chdir", "link", "execve"]
)
def test_no_path_call_can_be_raced(
    call: str, names: Names, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names.as_kind_for(call)
    program = [
        str(build("race_pointer_calls")),
        call,
        str(names.allowed),
        str(names.denied),
        "ATTEMPTS",
        str(tmp_path / "scratch"),
    ]
    attempts = EXECVE_ATTEMPTS if call == "execve" else CALL_ATTEMPTS
    controls = 800 if call == "execve" and CPUS > 1 else CONTROL_ATTEMPTS
    check(f"race_pointer_calls {call}", names, program, capsys, attempts, controls)
