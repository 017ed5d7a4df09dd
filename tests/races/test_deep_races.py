"""The check/use race on everything behind a pointer: pinned it is lost every time.

Each case of ``tests/programs/race_deep_*.c`` makes one call over and over, while a peer rewrites a
byte of what the call's pointers lead to: strings, addresses, structures, arrays of pointers, and
the pointers and lengths inside them. One rule (``deep_rule.py``) allows one of the two forms and
denies the other. Under pinfold no attempt may be made in the denied form, and nothing may happen
but the two honest outcomes; what was refused was refused by the rule.

The control (``tests/naive_deep.py``) has the same rule, reads just as deep and tells the kernel to
continue. It has to lose often: a control with few escapes means that the test is not testing, and
fails. With two CPUs free it loses up to a quarter of its attempts. With one CPU it loses some in
ten thousand, which is too slow to wait for: each case then runs under pinfold alone and is skipped
by name, since nothing shows that it was a race.

The length of an address that is an argument by itself is in a register, where nobody can race it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.programs import ROOT, build, values

if TYPE_CHECKING:
    from collections.abc import Sequence

CPUS: Final = len(os.sched_getaffinity(0))

ATTEMPTS: Final = {"exec": 750, "sockets": 5_000, "files": 5_000}
BOTH_AT_LEAST: Final = 20
"""One attempt in so many has to be allowed, and one refused: else the bytes hardly changed."""

CONTROL_ATTEMPTS: Final = {"exec": 200, "sockets": 1_000, "files": 1_000}
CONTROL_ESCAPES: Final = {"exec": 10, "sockets": 25, "files": 25}
CONTROL_ROUNDS: Final = 20
CONTROL_GROWTH: Final = 8
"""The control is run until it has lost often enough, at most so many times, and for longer each
time: twice as long as before, at most so many times as long as the first time.

With two free CPUs one round is plenty. Where other load takes them, a round may lose nothing at
all, since the peer did not run between its check and the kernel's use.
"""

PINFOLD: Final = (sys.executable, "-m", "tests.races.pinned_deep")
NAIVE: Final = (sys.executable, "-m", "tests.naive_deep")
BARE: Final = ("-static", "-nostdlib", "-fno-stack-protector")
"""How a program without a C library is built."""
UNSUPPORTED: Final = 77

CASES: Final = {
    "exec": ("argv", "argv-pointer", "argv-end", "envp", "envp-pointer"),
    "sockets": (
        "connect-unix",
        "connect-inet",
        "bind",
        "sendto",
        "sendmsg-name",
        "sendmsg-pointer",
        "sendmsg-namelen",
        "sendmsg-rights",
        "sendmsg-control",
        "sendmsg-controllen",
        "sendmmsg-name",
        "sendmmsg-pointer",
        "setsockopt",
    ),
    "files": (
        "rename-old",
        "rename-new",
        "rename-both",
        "openat2-flags",
        "openat2-resolve",
        "setxattr-name",
        "setxattr-value",
        "symlink",
        "utimensat",
    ),
}
"""By program; the head of each says what its cases are."""

PEERS: Final = (
    ("process", "store"),
    ("clonevm", "store"),
    ("thread", "pread"),
    ("thread", "vm-writev"),
    ("process", "pread"),
    ("clonevm", "vm-writev"),
)
"""Peers other than a thread that stores, and writers that are the kernel itself."""

REMAPPERS: Final = (("thread", "remap"), ("clonevm", "remap"))
"""Peers that exchange whole pages."""

DEEPEST: Final = (("exec", "argv-pointer"), ("sockets", "sendmmsg-pointer"))
"""What every peer is tried on: nothing else is read in as many steps."""

REMAPPED: Final = (("exec", "argv-pointer"), ("sockets", "sendmsg-control"))
"""The same for pages: ``sendmmsg`` also writes to its vector, to whatever page is there."""


class Race(NamedTuple):
    """One case with one peer."""

    kind: str
    case: str
    peer: str
    writer: str

    def __str__(self) -> str:
        return f"race_deep_{self.kind} {self.peer} {self.writer} {self.case}"

    def run(self, supervisor: Sequence[str], attempts: int) -> tuple[dict[str, int], str]:
        """Returns what the program counted under ``supervisor``, and the latter's last words."""
        # Not pytest's own: the name of this one leaves room in a socket address.
        with tempfile.TemporaryDirectory(prefix="pinfold-deep-") as directory:
            argument = directory if self.kind != "exec" else str(build("race_deep_child", *BARE))
            program = str(build(f"race_deep_{self.kind}"))
            done = subprocess.run(
                [*supervisor, program, self.peer, self.writer, self.case, str(attempts), argument],
                check=False,
                capture_output=True,
                text=True,
                timeout=240,
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
            )
        if done.returncode == UNSUPPORTED:
            pytest.skip(f"{self}: this machine has no {values(done.stdout)['unsupported']}")
        assert done.returncode == 0, f"{self} ended with {done.returncode}: {done.stderr}"
        counts = {key: int(value) for key, value in values(done.stdout).items()}
        outcomes = counts["escapes"] + counts["allowed"] + counts["refused"] + counts["other"]
        assert outcomes == counts["attempts"] == attempts, f"{self}: attempts are missing: {counts}"
        return counts, done.stderr


def control(race: Race) -> str:
    """Runs the control until it has lost often enough; returns what to report of it."""
    escapes = attempts = 0
    for round_ in range(CONTROL_ROUNDS):
        longer = min(1 << round_, CONTROL_GROWTH)
        counts, _said = race.run(NAIVE, longer * CONTROL_ATTEMPTS[race.kind])
        escapes += counts["escapes"]
        attempts += counts["attempts"]
        if escapes >= CONTROL_ESCAPES[race.kind]:
            return f"control escapes={escapes}/{attempts}"
    pytest.fail(
        f"{race}: the control escaped {escapes} times in {attempts} attempts on {CPUS} CPUs,"
        f" {CONTROL_ESCAPES[race.kind]} are wanted: this test is not testing"
    )


def check(race: Race, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs the control and pinfold, reports both and judges them."""
    report = control(race) if CPUS > 1 else "no control on one CPU"
    counts, said = race.run(PINFOLD, ATTEMPTS[race.kind])
    with capsys.disabled():
        pinned = " ".join(f"{key}={value}" for key, value in counts.items())
        print(f"\n{race}: {report} pinfold {pinned}", end=" ", flush=True)
    assert counts["escapes"] == 0
    assert counts["other"] == 0
    assert counts["allowed"] >= counts["attempts"] // BOTH_AT_LEAST
    assert counts["refused"] >= counts["attempts"] // BOTH_AT_LEAST
    assert int(values(said)["denied"]) == counts["refused"], "something else refused some calls"
    if CPUS == 1:
        pytest.skip(f"{race}: on one CPU its control would lose too seldom to prove a race")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases]
)
def test_nothing_behind_a_pointer_can_be_raced(
    kind: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(Race(kind, case, "thread", "store"), capsys)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("peer", "writer", "kind", "case"),
    [
        (*peer, *case)
        for peers, cases in ((PEERS, DEEPEST), (REMAPPERS, REMAPPED))
        for peer in peers
        for case in cases
    ],
)
def test_no_peer_can_race(
    peer: str, writer: str, kind: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(Race(kind, case, peer, writer), capsys)
