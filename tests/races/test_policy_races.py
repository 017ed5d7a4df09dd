"""The races, under policies from files, and with verdicts that take their time.

The programs are those of the deep races. Their rule is written here as a policy: with lists of what
is allowed, with denials, and with redirects, after which no attempt may be made in the denied form
and none is refused. The control is the same one, and has to lose.

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

from tests.programs import ROOT, build, values
from tests.races.test_deep_races import BARE, BOTH_AT_LEAST, CPUS, Race, control

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LATE: Final = (sys.executable, "-m", "tests.races.late_deep")
RUN: Final = (sys.executable, "-m", "pinfold", "run")
ATTEMPTS: Final = {"exec": 500, "sockets": 3_000, "files": 3_000}
LATE_ATTEMPTS: Final = {"exec": 300, "sockets": 1_500, "files": 1_500}
SWAPS: Final = 3_000

_ODD: Final = list(range(1, 65536, 2))
_CHILD: Final = build("race_deep_child", *BARE)

POLICIES: Final = {
    "argv-allowed": f"""
[defaults]
exec = "deny"
[[rule]]
on = "exec"
exact = "{build("race_deep_exec")}"
action = "allow"
[[rule]]
on = "exec"
exact = "{_CHILD}"
argv = [["*", "--mode=A"], ["*"]]
action = "allow"
""",
    "argv-denied": """
[[rule]]
on = "exec"
argv = ["*", "--mode=D", "..."]
action = "deny"
""",
    "argv-redirected": """
[[rule]]
on = "exec"
argv = ["*", "--mode=D", "..."]
action = "redirect"
to = { argv = ["raced", "--mode=A"] }
""",
    "env-denied": """
[[rule]]
on = "exec"
env = { LD_PRELOAD = true }
action = "deny"
""",
    "env-allowed": f"""
[defaults]
exec = "deny"
[[rule]]
on = "exec"
exact = "{build("race_deep_exec")}"
action = "allow"
[[rule]]
on = "exec"
exact = "{_CHILD}"
env = {{ LD_PRELOAD = false }}
action = "allow"
""",
    "env-redirected": """
[[rule]]
on = "exec"
env = { LD_PRELOAD = true }
action = "redirect"
to = { unset_env = ["LD_PRELOAD"] }
""",
    "sockets-allowed": """
[defaults]
connect = "deny"
send = "deny"
bind = "deny"
[[rule]]
on = ["connect", "send"]
unix = ["**/peer-A", "**/peer-DA"]
action = "allow"
[[rule]]
on = "bind"
unix = ["**/bound-A", "**/peer-*"]
action = "allow"
""",
    "sockets-denied": """
[[rule]]
unix = "**/peer-D"
on = ["connect", "send"]
action = "deny"
""",
    "sockets-redirected": """
[[rule]]
unix = "**/peer-D"
on = ["connect", "send"]
action = "redirect"
to = { path = "@DIRECTORY@/peer-A" }
""",
    "ports-denied": f"""
[[rule]]
on = "connect"
family = "inet"
port = {_ODD}
action = "deny"
""",
    "files-denied": """
[[rule]]
path = ["**/old-D", "**/new-D"]
on = "rename"
action = "deny"
""",
}

CASES: Final = [
    ("exec", "argv", "argv-allowed"),
    ("exec", "argv-pointer", "argv-allowed"),
    ("exec", "argv-end", "argv-allowed"),
    ("exec", "argv", "argv-denied"),
    ("exec", "argv-pointer", "argv-redirected"),
    ("exec", "argv-end", "argv-redirected"),
    ("exec", "envp", "env-denied"),
    ("exec", "envp-pointer", "env-allowed"),
    ("exec", "envp", "env-redirected"),
    ("sockets", "connect-unix", "sockets-allowed"),
    ("sockets", "connect-unix", "sockets-redirected"),
    ("sockets", "connect-inet", "ports-denied"),
    ("sockets", "bind", "sockets-allowed"),
    ("sockets", "sendto", "sockets-denied"),
    ("sockets", "sendmsg-name", "sockets-redirected"),
    ("sockets", "sendmsg-pointer", "sockets-allowed"),
    ("sockets", "sendmsg-namelen", "sockets-denied"),
    ("sockets", "sendmmsg-name", "sockets-allowed"),
    ("sockets", "sendmmsg-pointer", "sockets-redirected"),
    ("files", "rename-old", "files-denied"),
    ("files", "rename-new", "files-denied"),
]


def _under_a_policy(race: Race, policy: str, attempts: int) -> dict[str, int]:
    # As Race.run, whose supervisor does not know the directory that a redirect has to name.
    with tempfile.TemporaryDirectory(prefix="pinfold-deep-") as directory:
        file = Path(directory) / "policy.toml"
        file.write_text("version = 1\n" + POLICIES[policy].replace("@DIRECTORY@", directory))
        argument = directory if race.kind != "exec" else str(_CHILD)
        program = str(build(f"race_deep_{race.kind}"))
        words = (program, race.peer, race.writer, race.case, str(attempts), argument)
        environment = {name: one for name, one in os.environ.items() if name != "LD_PRELOAD"}
        return _counts((*RUN, "--policy", str(file), "--", *words), env=environment)


def _counts(
    command: Sequence[str], env: dict[str, str] | None = None, cwd: Path = ROOT
) -> dict[str, int]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=240, cwd=cwd, env=env
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    counts = {key: int(value) for key, value in values(done.stdout).items()}
    outcomes = counts["escapes"] + counts["allowed"] + counts["refused"] + counts["other"]
    assert outcomes == counts["attempts"], f"attempts are missing: {counts}"
    return counts


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "case", "policy"), CASES)
def test_what_a_file_says_holds(
    kind: str, case: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    race = Race(kind, case, "thread", "store")
    report = control(race) if CPUS > 1 else "no control on one CPU"
    counts = _under_a_policy(race, policy, ATTEMPTS[kind])
    with capsys.disabled():
        print(f"\n{race} {policy}: {report} pinfold {counts}", end=" ", flush=True)
    assert counts["escapes"] == 0
    assert counts["other"] == 0
    assert counts["allowed"] >= counts["attempts"] // BOTH_AT_LEAST
    if policy.endswith("redirected"):
        assert counts["refused"] == 0
    elif CPUS > 1:
        assert counts["refused"] >= counts["attempts"] // BOTH_AT_LEAST


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "case"),
    [
        ("exec", "argv"),
        ("exec", "argv-pointer"),
        ("exec", "envp-pointer"),
        ("sockets", "connect-unix"),
        ("sockets", "connect-inet"),
        ("sockets", "sendmsg-pointer"),
        ("sockets", "sendmsg-rights"),
        ("sockets", "sendmmsg-pointer"),
        ("files", "rename-both"),
        ("files", "openat2-flags"),
        ("files", "openat2-resolve"),
        ("files", "setxattr-value"),
    ],
)
def test_what_was_judged_is_what_a_late_verdict_lets_go(kind: str, case: str) -> None:
    race = Race(kind, case, "thread", "store")
    counts, said = race.run(LATE, LATE_ATTEMPTS[kind])
    assert counts["escapes"] == 0, counts
    assert counts["other"] == 0, counts
    assert counts["allowed"] >= counts["attempts"] // BOTH_AT_LEAST
    assert int(values(said)["denied"]) == counts["refused"], "something else refused some calls"


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
