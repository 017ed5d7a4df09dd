"""Logs that run out of room: a limit on the size of files, a full disk. Each in a process apart."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from pinfold.audit.verify import verify
from tests.kernel.support import PATIENCE, execute

ROOT: Final = Path(__file__).parents[2]

HEAD: Final = """
import os, resource, sys
from pinfold.audit.writer import AuditWriter
from pinfold.errors import AuditError
from tests.unit.audit.logs import START, STATUS, entry

def limit(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

path, mode = sys.argv[1:]
writer = AuditWriter.open(path, on_loss=mode, start=START, warn=lambda line: print("warned", line))
"""


def scenario(script: str, log: Path, mode: str, *before: str) -> str:
    """Runs a script with a writer; returns what it printed."""
    done = execute(
        [*before, sys.executable, "-c", HEAD + script, str(log), mode],
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def test_a_limit_stops_it_at_a_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = """
limit(os.stat(path).st_size + 1000)
written = 0
try:
    while True:
        writer.write(entry())
        written += 1
except AuditError as error:
    print(written, error)
writer.finish(STATUS)
print(writer.head)
"""
    said, head = scenario(script, log, "stop").splitlines()
    assert said.endswith("File too large; the sandbox was stopped")
    found = lines(log)
    assert sum(one["type"] == "call" for one in found) == int(said.split()[0]) > 0
    # The line that tells of the loss is short, and may have had room; the end had none.
    assert {one["type"] for one in found[1:]} <= {"call", "gap"}
    result = verify(io.BytesIO(log.read_bytes()))
    assert result.head == head
    assert "no end" in result.problems[-1].what


def test_a_limit_that_is_lifted_leaves_a_gap(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = """
writer.write(entry())
limit(os.stat(path).st_size + 100)
for _ in range(7):
    writer.write(entry())
    assert os.stat(path).st_size < resource.getrlimit(resource.RLIMIT_FSIZE)[0] - 90
limit(resource.RLIM_INFINITY)
writer.write(entry())
writer.finish(STATUS)
"""
    said = scenario(script, log, "continue").splitlines()
    assert len(said) == 1
    assert said[0].startswith("warned cannot write the audit log")
    found = lines(log)
    assert [one["type"] for one in found] == ["start", "call", "gap", "call", "end"]
    assert found[2]["lost"] == found[4]["lost"] == 7
    assert found[3]["seq"] == 9
    problems = verify(io.BytesIO(log.read_bytes())).problems
    assert [problem.line for problem in problems] == [3]


def test_the_bytes_of_another_writer_are_not_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = """
with open(path, "ab") as other:
    other.write(b"foreign\\n")
limit(os.stat(path).st_size + 50)
writer.write(entry())
limit(resource.RLIM_INFINITY)
writer.finish(STATUS)
"""
    scenario(script, log, "continue")
    found = log.read_bytes().splitlines()
    assert found[1] == b"foreign"
    assert len(found[2]) == 50
    assert [json.loads(line)["type"] for line in found[3:]] == ["gap", "end"]


@pytest.mark.parametrize("mode", ["stop", "continue"])
def test_a_full_disk(tmp_path: Path, mode: str) -> None:
    # A disk of our own: a tmpfs of 64 KiB in a mount namespace, whose log is copied out in the end.
    disk = tmp_path / "disk"
    disk.mkdir()
    script = """
fill = open(os.path.join(os.path.dirname(path), "filler"), "wb", buffering=0)
try:
    while True:
        fill.write(bytes(4096))
except OSError:
    pass
lost = 0
try:
    while writer.lost < 3:
        writer.write(entry())
except AuditError as error:
    assert "No space left" in str(error), error
    lost = 1
assert lost == (mode == "stop")
os.unlink(fill.name)
fill.close()
if mode == "continue":
    writer.write(entry())
writer.finish(STATUS)
import shutil
shutil.copy(path, OUT)
"""
    assert shutil.which("unshare")
    mount = f'mount -t tmpfs -o size=64k,mode=0777 tmpfs {disk} && exec "$@"'
    script = script.replace("OUT", repr(str(tmp_path / "out")))
    scenario(
        script, disk / "log", mode, "unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"
    )
    data = (tmp_path / "out").read_bytes()
    found = [json.loads(line) for line in data.splitlines()]
    lost = 1 if mode == "stop" else 3
    assert found[-1]["type"] == "end"
    assert found[-1]["lost"] == lost
    # A gap's line is short: there may have been room for it, and none for the call after it.
    assert sum(one["lost"] for one in found if one["type"] == "gap") == lost
    problems = verify(io.BytesIO(data)).problems
    assert len(problems) == 1
    assert "have no line" in problems[0].what
