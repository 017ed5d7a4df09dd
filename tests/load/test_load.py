"""The load programs do what they say, in small; PINFOLD_LOAD=full has them at full size.

They check everything that they count, and end with an error where anything is not as it has to be.
Times are not looked at. The sizes here are what a busy machine of two processors can do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.programs import ROOT

if TYPE_CHECKING:
    from tests.kernel.support import User

FULL: Final = os.environ.get("PINFOLD_LOAD") == "full"
SECONDS: Final = 3600 if FULL else 600
SMALL: Final = {
    "tasks": ("--processes", "300", "--threads", "500", "--rounds", "4"),
    "cost": ("--processes", "10", "--rounds", "50"),
    "sandboxes": ("--count", "25"),
    "bomb": ("--limit", "32", "--seconds", "10", "--rounds", "2"),
}

pytestmark = pytest.mark.timeout(SECONDS + 10)


def bench(script: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / script), *options, "--json"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def load(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench("load.py", name, *(() if FULL else SMALL[name]))[name]
    return found


def test_many_tasks_in_one_sandbox() -> None:
    found = load("tasks")
    asked = (1000, 2000) if FULL else (300, 500)
    assert [(one["processes"], one["threads"]) for one in found[:3]] == [
        (asked[0], 1),
        (asked[0], 1),
        (1, asked[1]),
    ]
    for one in found:
        tasks = one["processes"] * one["threads"]
        assert one["most_tasks"] > tasks
        execs = one["execs"]
        assert one["calls"] == 3 * tasks * (one["rounds"] + execs)
        # Of an exec, there is also what the loader opens.
        assert one["judged"] >= one["calls"] + tasks * execs
        before, most, after = one["descriptors"]
        assert before == after < most


def test_what_a_call_costs_is_told_for_each_size() -> None:
    found = load("cost")
    sizes = [one["processes"] * one["threads"] for one in found]
    assert sizes == ([1, 10, 10, 100, 100, 1000, 1000] if FULL else [1, 10, 10])
    assert len({one["calls"] for one in found}) == 1


def test_many_sandboxes_at_one_time() -> None:
    found = {one.pop("way"): one for one in load("sandboxes")}
    assert list(found) == ["threads", "asyncio", "processes"]
    for name in ("threads", "asyncio"):
        # All were there: each has at least its listener, its pidfd and its arena.
        assert found[name]["descriptors"] > 3 * found[name]["sandboxes"]
    assert found["threads"]["threads"] > 2 * found["threads"]["sandboxes"]


def test_fork_bombs() -> None:
    found = load("bomb")
    assert [one["bomb"] for one in found] == ["C", "shell"]
    assert all(one["limit"] // 2 < one["most_tasks"] <= one["limit"] for one in found)


@pytest.mark.parametrize("kind", ["supervisor", "log", "host"])
def test_soak(kind: str) -> None:
    found = bench("soak.py", "--kind", kind, "--seconds", "3600" if FULL else "5")
    (one,) = found["soaks"]
    assert one["kind"] == kind
    assert one["rounds"] >= 4
    assert one["failures"] == []
    assert one["start"]["descriptors"] == one["end"]["descriptors"] >= 3


def test_as_nobody(unprivileged: User) -> None:
    scripts = unprivileged.directory / "bench"
    shutil.copytree(ROOT / "bench", scripts)
    for path in (scripts, *scripts.iterdir()):
        unprivileged.own(path)
    small = ("--processes", "30", "--threads", "40", "--rounds", "3", "--json")
    done = unprivileged.python(str(scripts / "load.py"), "tasks", *small, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tasks"]) == 5
