"""Daemons that do everything not to end: when the run is over, so are they.

The suite is who their orphans are handed to, and waits for none of them before the run is over. So
the first process of a pid namespace may still be there then. It has run its last instruction, and
vanishes when the others are waited for.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.support import PATIENCE, alive, comm, pinfold, reap
from tests.programs import build

DAEMONS: Final = 4
TASKS: Final = 32
PF_EXITING: Final = 0x4
KINDS: Final = ("forks", "blocks", "vforks", "stops", "namespaces")
POLICY: Final = """
version = 1
[limits]
tasks = {tasks}
[[rule]]
action = "deny"
path = ["{denied}"]
"""


def named(name: str) -> set[int]:
    """Returns the living processes of that name."""
    everybody = map(int, filter(str.isdigit, os.listdir("/proc")))
    return {pid for pid in everybody if comm(pid) == name and alive(pid)}


def is_exiting(pid: int) -> bool:
    """Returns whether a process has begun to exit, and runs nothing any more."""
    flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]
    return bool(int(flags) & PF_EXITING)


@pytest.mark.parametrize("options", [(), ("--audit", "/dev/null")], ids=["plain", "logged"])
@pytest.mark.parametrize("kind", KINDS)
def test_daemons_end_with_the_run(kind: str, options: tuple[str, ...], tmp_path: Path) -> None:
    # A name of this test's own, by which its processes are found wherever they are.
    name = f"orphan-{os.getpid()}"
    program = tmp_path / name
    shutil.copy(build("orphans", "-pthread"), program)
    allowed, denied, escaped = tmp_path / "secret-A", tmp_path / "secret-D", tmp_path / "escaped"
    allowed.write_text("A")
    denied.write_text("D")
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(tasks=TASKS, denied=denied))
    command: tuple[str | Path, ...] = (
        "--policy",
        policy,
        *options,
        "--",
        program,
        kind,
        allowed,
        denied,
        escaped,
    )
    done = pinfold(*command)
    left = named(name)
    assert (done.stdout, done.returncode) == (f"{DAEMONS}\n", 0), done.stderr
    assert done.stderr == ""
    assert kind == "namespaces" or left == set()
    assert all(map(is_exiting, left))
    assert not escaped.exists()
    end = time.monotonic() + PATIENCE
    while named(name):
        assert time.monotonic() < end
        reap()
