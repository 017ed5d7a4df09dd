"""Clocks that jump: only the time stamps of a log know of the wall clock.

The machine's clock is never set. The process is told other times, forth and back, and another run
starts in a time namespace whose monotonic clock is far away.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold import Call, Limits, Policy, Sandbox
from pinfold.audit.summary import Summary
from pinfold.policy.model import PolicyModel
from tests.faults import support
from tests.kernel.support import PINFOLD, execute
from tests.unit.audit.logs import entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.support import Scene

SOURCES: Final = Path(pinfold.__file__).parent
WALL: Final = frozenset({"time", "time_ns", "localtime", "ctime"})
STAMPS: Final = {
    "audit/entries.py": 1,  # of a record
    "audit/writer.py": 3,  # of the start, a gap, the end
    "cli/run.py": 2,  # of the start, and of what SIGUSR1 asks for, to say how long ago
}
"""Looks at the wall clock, by file."""
_JUMPS: Final = (0.0, 1e9, -1e9, 4e9, 1.0, -1.0)


def _looks(source: Path) -> int:
    text = source.read_bytes()
    return b"time." in text and sum(
        isinstance(node, ast.Attribute)
        and node.attr in WALL
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and isinstance(node.ctx, ast.Load)
        for node in ast.walk(ast.parse(text))
    )


def test_nothing_but_time_stamps_looks_at_the_wall_clock() -> None:
    found = {
        str(source.relative_to(SOURCES)): count
        for source in SOURCES.rglob("*.py")
        if source.relative_to(SOURCES).parts[0] != "attack" and (count := _looks(source))
    }
    assert found == STAMPS
    for source in SOURCES.rglob("*.py"):
        if b"time" not in (text := source.read_bytes()):
            continue
        tree = ast.parse(text)
        names = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "time"
            for alias in node.names
        ]
        assert not WALL & set(names), source
        modules = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        assert "datetime" not in modules, source


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Makes the wall clock jump at each look; returns what it has shown."""
    shown: list[float] = []
    real = time.time
    jumps = itertools.cycle(_JUMPS)

    def jump() -> float:
        shown.append(max(0.0, real() + next(jumps)))
        return shown[-1]

    monkeypatch.setattr(time, "time", jump)
    yield shown
    monkeypatch.undo()


def test_a_log_of_jumping_times(scene: Scene, jumping: list[float]) -> None:
    here = scene.directory
    box = Sandbox(deny=[here / "denied"], map={here / "open": here / "other"}, audit=here / "log")
    with open(scene.output, "wb") as output:
        done = box.run(scene.program("fault_steps"), stdout=output, timeout=support.BOUND)
    assert done.returncode == 0
    assert support.chain_problems(here / "log") == []
    times = [json.loads(line)["time"] for line in (here / "log").read_text().splitlines()]
    assert times != sorted(times)
    assert times == [round(one, 6) for one in jumping]
    report = execute([*PINFOLD[:-1], "audit", "report", here / "log"])
    assert report.returncode == 0, report.stderr


def test_time_limits_of_jumping_times(tmp_path: Path, jumping: list[float]) -> None:
    policy = Policy(PolicyModel(handler_seconds=0.3))
    (tmp_path / "file").write_text("not to be read")

    @policy.on("open", path=tmp_path / "file")
    async def never(_call: Call) -> Any:
        import asyncio

        await asyncio.sleep(1000)

    options: dict[str, Any] = {"policy": policy, "audit": True}
    begun = time.monotonic()
    done = pinfold.run(["cat", tmp_path / "file"], stderr=subprocess.DEVNULL, **options)
    assert done.returncode == 1
    assert time.monotonic() - begun >= 0.3
    with pytest.raises(subprocess.TimeoutExpired):
        pinfold.run(["sleep", "1000"], timeout=0.3, **options)
    begun = time.monotonic()
    done = pinfold.run(["sleep", "1000"], limits=Limits(seconds=1), **options)
    assert done.returncode == -9
    assert time.monotonic() - begun >= 1
    assert jumping


def test_a_summary_in_the_past() -> None:
    summary = Summary(2_000_000_000.0)
    summary.add(entry()._replace(verdict="deny", rule="deny /a"))
    text = summary.text(1_000_000_000.0, 1)
    assert "-" not in text.replace("deny /a", ""), text


def test_another_monotonic_clock(scene: Scene) -> None:
    """Years after, or before, that of the machine."""
    unshare = shutil.which("unshare")
    assert unshare
    for offset in ("--monotonic=100000000", "--boottime=100000000"):
        before = [unshare, "--time", "--fork", offset]
        if execute([*before, "true"]).returncode != 0:
            pytest.skip("no time namespaces here")
        done = execute(
            [*before, *PINFOLD, *scene.options(), "--", *scene.program("fault_steps")],
            env={**os.environ, "TMPDIR": str(scene.directory)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"first.open={support.REDIRECTED}" in done.stdout
        assert f"denied={support.DENIED}" not in done.stdout
