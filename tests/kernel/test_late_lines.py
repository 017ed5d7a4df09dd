"""Lines that wait, around real programs: they come although everybody is asleep, or gone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from pinfold.audit.verify import verify
from tests.kernel.support import PATIENCE, PINFOLD, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TOUCH: Final = 'for name; do : > "$name"; done'


def until(true: Callable[[], bool]) -> None:
    """Waits for what nobody tells of."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def problems(log: Path) -> list[str]:
    """Returns what is wrong with a log."""
    return [one.what for one in verify(io.BytesIO(log.read_bytes())).problems]


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_a_program_that_sleeps_has_its_lines(tmp_path: Path, end: str) -> None:
    log, fifo = tmp_path / "log", tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*PINFOLD, "--audit", str(log), "--", "sh", "-c", f"read x < {fifo}"]
    with subprocess.Popen(command) as process:
        # It is in the open of the FIFO, and the supervisor in its wait.
        until(lambda: log.exists() and str(fifo).encode() in log.read_bytes())
        if end == "killed":
            process.kill()
        else:
            with open(fifo, "w") as writer:
                writer.write("x\n")
        assert process.wait(PATIENCE) == (-signal.SIGKILL if end == "killed" else 0)
    # Cut off, as any log of a run that was killed.
    found = problems(log)
    if end == "killed":
        (found_one,) = found
        assert found_one.startswith("it has no end")
    else:
        assert found == []


def test_what_is_denied_is_on_record_before_it_fails(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # The program looks at its own log: the line of the denial, and all before it, are there.
    script = f"cat {tmp_path}/secret; cat {log}"
    done = execute(
        [*PINFOLD, "--audit", log, "--deny", tmp_path / "secret", "--", "sh", "-c", script]
    )
    # What comes while it looks may be half there.
    lines = done.stdout[: done.stdout.rindex("\n")].splitlines()
    verdicts = [one.get("verdict") for one in map(json.loads, lines)]
    assert "deny" in verdicts
    assert problems(log) == []


def test_each_line_at_once_if_that_is_wanted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    names = [str(tmp_path / f"{number}") for number in range(50)]
    command = ("sh", "-c", _TOUCH + "; cat log", "sh", *names)
    done = execute([*PINFOLD, "--audit", log, "--log-sync", "--", *command], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert problems(log) == []
    # The last lines that it sees are about the open by which it sees them, and what follows.
    lines = done.stdout[: done.stdout.rindex("\n")].splitlines()
    assert "log" in [json.loads(line)["args"]["path"] for line in lines[-3:]]


def test_a_host_process_that_just_exits(tmp_path: Path) -> None:
    log, fifo = tmp_path / "log", tmp_path / "fifo"
    os.mkfifo(fifo)
    code = f"""
import os, sys
from pinfold import Sandbox
from pinfold.audit import writer
writer.DELAY = 3600.0
process = Sandbox(audit={str(log)!r}).popen(["sh", "-c", "read x < {fifo}"])
while b"fifo" not in open({str(log)!r}, "rb").read():
    # Nothing else writes what waits: the end of this process has to.
    if process._job._writer._lines and b"fifo" in process._job._writer._lines[-1]:
        break
"""
    done = execute([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert str(fifo).encode() in log.read_bytes()
    (found,) = problems(log)
    assert found.startswith("it has no end")


@pytest.mark.parametrize("log_sync", [False, True])
def test_from_python(tmp_path: Path, log_sync: bool) -> None:
    log = tmp_path / "log"
    for _ in range(3):
        done = pinfold.run(["sh", "-c", "exit 3"], audit=log, log_sync=log_sync)
        assert done.returncode == 3
        assert problems(log) == []
