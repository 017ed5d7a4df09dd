"""Random calls (``attacks/fuzz_calls.c``) under ``pinfold run``, with all that it can log.

The rule of the attacks is kept by ``--deny`` here. The supervisor survives, the log is in order and
whole, and what is printed of it can be shown to anybody's terminal.

``PINFOLD_FUZZ_CALLS=1000000 PINFOLD_FUZZ_SEED=7`` tries more, and others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.attack import programs, stage

if TYPE_CHECKING:
    from pathlib import Path

CALLS: Final = int(os.environ.get("PINFOLD_FUZZ_CALLS", "8000"))
SEED: Final = os.environ.get("PINFOLD_FUZZ_SEED", "1")


def pinfold(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pinfold", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100 + CALLS / 100,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.timeout(150 + CALLS // 50)
def test_the_log_of_random_calls(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    with stage.prepared() as directory:
        program = directory / "programs" / "fuzz_calls"
        program.write_bytes(programs.build("fuzz_calls").read_bytes())
        program.chmod(0o755)
        rules = [word for path in stage.denied_paths(directory) for word in ("--deny", path)]
        done = pinfold(
            *("run", "--inspect", "all", "--audit", log, *rules, "--"),
            *(program, directory, str(CALLS), SEED),
        )
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(word.split("=") for word in done.stdout.split())
    assert told["attempts"] == str(CALLS)
    assert told["escapes"] == "0"
    # Some were let through and some were not.
    assert int(told["allowed"]) > CALLS // 200
    assert int(told["refused"]) > CALLS // 200
    _printed(log)


def _printed(log: Path) -> None:
    verified = pinfold("audit", "verify", log)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "complete" in verified.stdout
    reported = pinfold("audit", "report", log)
    assert (reported.returncode, reported.stderr) == (0, "")
    for text in (verified.stdout, reported.stdout):
        assert all(line.isprintable() for line in text.split("\n"))
    verdicts = set()
    with open(log, encoding="ascii") as lines:
        for line in lines:
            record = json.loads(line)
            verdicts.add(record.get("verdict"))
    assert {"allow", "deny", "error"} <= verdicts
    # A byte of it changed, somewhere in the middle.
    content = bytearray(log.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    log.write_bytes(content)
    assert pinfold("audit", "verify", log).returncode == 1
