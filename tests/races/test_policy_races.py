"""The races, under policies from files, and with verdicts that take their time.

The programs are those of the attacks. Their rule is written as a policy: with lists of what is
allowed, with denials, and with redirects, after which no attempt may be made in the denied form and
none is refused. The control is that of the attack, and has to lose.

Two further programs race what no pointer leads to: a directory that is exchanged for a link between
a verdict and the kernel's walk, and a descriptor that is exchanged under its name in ``/proc``.
Their control is the kernel alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.attack import trial
from pinfold.attack.catalogue.races import RACES
from pinfold.attack.honest import BOTH_AT_LEAST, complaint
from pinfold.attack.measure import LOST, UNSUPPORTED, controlled
from tests.programs import ROOT, build, values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pinfold.attack.catalogue.model import Attack

CPUS: Final = len(os.sched_getaffinity(0))
HERE: Final = ROOT / "tests" / "races"
LATE: Final = (sys.executable, str(HERE / "late.py"))
UNDER_POLICY: Final = (sys.executable, str(HERE / "under_policy.py"))
RUN: Final = (sys.executable, "-m", "pinfold", "run")
ATTEMPTS: Final = {"race_exec": 500, "race_sockets": 2_000, "race_files": 2_000}
LATE_ATTEMPTS: Final = {"race_exec": 300, "race_sockets": 1_500, "race_files": 1_500}
SECONDS: Final = 240.0
SWAPS: Final = 3_000

ATTACKS: Final = {attack.name: attack for attack in RACES}

CASES: Final = [
    ("argv", "argv-allowed"),
    ("argv-pointer", "argv-allowed"),
    ("argv-end", "argv-allowed"),
    ("argv", "argv-denied"),
    ("argv-pointer", "argv-redirected"),
    ("argv-end", "argv-redirected"),
    ("envp", "env-denied"),
    ("envp-pointer", "env-allowed"),
    ("envp", "env-redirected"),
    ("connect-unix", "sockets-allowed"),
    ("connect-unix", "sockets-redirected"),
    ("connect-inet", "ports-denied"),
    ("bind", "sockets-allowed"),
    ("sendto", "sockets-denied"),
    ("sendmsg-name", "sockets-redirected"),
    ("sendmsg-pointer", "sockets-allowed"),
    ("sendmsg-namelen", "sockets-denied"),
    ("sendmmsg-name", "sockets-allowed"),
    ("sendmmsg-pointer", "sockets-redirected"),
    ("rename-old", "files-denied"),
    ("rename-new", "files-denied"),
]


def _attack(case: str) -> Attack:
    return ATTACKS[f"race-{case}-thread"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("case", "policy"), CASES)
def test_what_a_file_says_holds(case: str, policy: str) -> None:
    attack = _attack(case)
    if CPUS > 1:
        lost = controlled(attack)
        if lost.verdict == UNSUPPORTED:
            pytest.skip(f"{attack.name}: this machine has no {lost.note}")
        assert lost.verdict == LOST, lost
    attempts = ATTEMPTS[attack.program]
    found = trial.run(attack, (*UNDER_POLICY, policy), attempts, SECONDS)
    assert found.failed == found.unsupported == "", found
    counts = found.counts
    assert found.attempts == attempts
    assert found.escapes == counts["other"] == 0, found
    assert counts["allowed"] >= attempts // BOTH_AT_LEAST
    if policy.endswith("redirected"):
        assert counts["refused"] == 0
    elif CPUS > 1:
        assert counts["refused"] >= attempts // BOTH_AT_LEAST


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [
        "argv",
        "argv-pointer",
        "envp-pointer",
        "connect-unix",
        "connect-inet",
        "sendmsg-pointer",
        "sendmsg-rights",
        "sendmmsg-pointer",
        "rename-both",
        "openat2-flags",
        "openat2-resolve",
        "setxattr-value",
    ],
)
def test_what_was_judged_is_what_a_late_verdict_lets_go(case: str) -> None:
    attack = _attack(case)
    attempts = LATE_ATTEMPTS[attack.program]
    found = trial.run(attack, LATE, attempts, SECONDS)
    if found.unsupported:
        pytest.skip(f"{attack.name}: this machine has no {found.unsupported}")
    assert found.failed == "", found
    assert found.escapes == 0, found
    assert complaint(attack, found, attempts) == ""


def _counts(command: Sequence[str], cwd: Path = ROOT) -> dict[str, int]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=240, cwd=cwd
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    counts = {key: int(value) for key, value in values(done.stdout).items()}
    outcomes = counts["escapes"] + counts["allowed"] + counts["refused"] + counts["other"]
    assert outcomes == counts["attempts"], f"attempts are missing: {counts}"
    return counts


@pytest.fixture
def place() -> Iterator[Path]:
    # Not pytest's own: the name of this one leaves room in a socket address.
    with tempfile.TemporaryDirectory(prefix="pinfold-swap-") as directory:
        yield Path(directory)


@pytest.fixture
def vault(place: Path) -> Iterator[Path]:
    """A directory with a socket of ours, and in ``work`` a link to it that can be swapped."""
    directory = place / "vault"
    directory.mkdir()
    (place / "work" / "a").mkdir(parents=True)
    (place / "work" / "b").symlink_to(directory)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "s"))
        listening.listen(4096)
        thread = threading.Thread(target=_accept, args=(listening,))
        thread.start()
        yield directory
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listening: socket.socket) -> None:
    while True:
        try:
            listening.accept()[0].close()
        except OSError:
            return


def _swap_control(command: Sequence[str]) -> int:
    return sum(_counts(command)["escapes"] for _ in range(3))


def test_a_directory_exchanged_for_a_link_leads_to_no_socket(place: Path, vault: Path) -> None:
    """The agent's policy allows no sockets by name below a directory that it may change."""
    program = (str(build("attack_policy_swap")), str(place / "work"), str(SWAPS))
    if CPUS > 1:
        assert _swap_control(program) > 0
    command = (*RUN, "--policy", "builtin:agent", "--", *program)
    counts = _counts(command, cwd=place / "work")
    assert counts["escapes"] == counts["allowed"] == 0, counts


def test_a_descriptor_exchanged_under_its_name_is_not_opened_again(place: Path) -> None:
    """A file that may be read only, and one that may be written, take turns as one descriptor."""
    (place / "ro").write_text("ro")
    (place / "rw").write_text("rw")
    file = place / "policy.toml"
    file.write_text(
        f"""version = 1
real = true
[[rule]]
on = "open"
path = "{place}/ro"
access = "write"
action = "deny"
"""
    )
    program = (str(build("attack_policy_reopen")), str(place / "ro"), str(place / "rw"), str(SWAPS))
    if CPUS > 1:
        assert _swap_control(program) > 0
    counts = _counts((*RUN, "--policy", str(file), "--", *program))
    assert counts["allowed"] > 0
    assert counts["escapes"] == 0, counts
