"""A program that makes its log as large as it can: long lines, and no room for them.

The longest lines there are come from an exec: a path, an argv and the names of an environment, all
of bytes that take six characters each in JSON.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from pinfold.audit.verify import verify
from tests.kernel.support import PATIENCE, PINFOLD, Done, execute, next_line, started

MIB: Final = 1 << 20
LINE_MOST: Final = MIB
"""What docs/audit.md promises of a line where no rule replaces anything."""
GROWTH: Final = 4 * MIB
"""Less than one more copy of the largest arguments."""
MOST: Final = 200
ROUND: Final = 20

_LARGE: Final = r"""
import errno, os, sys
path = b"/" + b"\xff" * 4094
argv = [b"\xff" * 65] * 1008 + [b"x" * 100000] * 28
env = {b"%04d" % number + b"\xff" * 60: b"v" * 2000 for number in range(1030)}

def large():
    for call in (lambda: os.execve(path, argv, env), lambda: os.rename(path, path)):
        try:
            call()
        except OSError as error:
            assert error.errno in (errno.ENAMETOOLONG, errno.E2BIG), error
        else:
            sys.exit("it was made")
"""
_ROUNDS: Final = f"""
for _ in range(2):
    for _ in range({ROUND}):
        large()
    print("round", flush=True)
    sys.stdin.readline()
"""
_MAKER: Final = f"""
for number in range({MOST}):
    large()
    os.mkdir(f"{{sys.argv[1]}}/{{number}}")
"""


def peak(pid: int) -> int:
    """Returns the most bytes of memory that a process had."""
    (line,) = (
        one
        for one in Path(f"/proc/{pid}/status").read_text().splitlines()
        if one.startswith("VmHWM:")
    )
    return int(line.split()[1]) << 10


def records(log: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log, each of which has to be whole."""
    data = log.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def made_and_logged(made: Path, log: Path) -> tuple[set[str], set[str]]:
    """Returns which directories were made, and which of them have a line."""
    paths = [one["args"]["path"] for one in records(log) if one.get("syscall") == "mkdir"]
    logged = {path.rpartition("/")[2] for path in paths if path.startswith(f"{made}/")}
    return set(os.listdir(made)), logged


def test_the_longest_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*PINFOLD, "--audit", str(log), "--inspect", "all", "--"]
    script = _LARGE + _ROUNDS
    peaks = []
    with started([*command, sys.executable, "-I", "-c", script]) as process:
        assert process.stdin is not None
        for _ in range(2):
            assert next_line(process.stdout) == "round"
            peaks.append(peak(process.pid))
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(PATIENCE) == 0
    lines = log.read_bytes().splitlines()
    longest = max(map(len, lines))
    assert LINE_MOST // 2 < longest < LINE_MOST
    assert peaks[1] - peaks[0] < GROWTH, peaks
    assert not verify(io.BytesIO(log.read_bytes())).problems
    shown = [one for one in records(log) if one.get("syscall") == "execve"]
    shown = [one for one in shown if isinstance(one["args"]["argv"][-1], dict)]
    assert len(shown) == 2 * ROUND
    for one in shown:
        assert os.fsencode(one["args"]["path"]) == b"/" + b"\xff" * 4094
        for name, count in (("argv", 1036), ("envp", 1030)):
            *strings, omitted = one["args"][name]
            assert len(strings) + omitted["omitted"] == count
            assert sum(len(os.fsencode(string)) for string in strings) <= 65536


def limited(tmp_path: Path, room: str, *options: str) -> Done:
    """Returns how a run went whose log may have 8 MiB at most; the log is in ``tmp_path``."""
    made, disk = tmp_path / "made", tmp_path / "disk"
    made.mkdir()
    disk.mkdir()
    if room == "limit":
        before = ["prlimit", f"--fsize={8 * MIB}", "--"]
    else:
        assert shutil.which("unshare")
        script = (
            f'mount -t tmpfs -o size=8m,mode=0777 tmpfs {disk} && "$@";'
            f" status=$?; cp {disk}/log {tmp_path}/log; exit $status"
        )
        before = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    audit = ["--audit", str(disk / "log"), "--inspect", "all", *options, "--"]
    program = [sys.executable, "-I", "-c", _LARGE + _MAKER, str(made)]
    done = execute([*before, *PINFOLD, *audit, *program])
    if room == "limit":
        shutil.copy(disk / "log", tmp_path / "log")
    return done


@pytest.mark.parametrize("room", ["limit", "disk"])
def test_what_has_no_room_is_not_made(tmp_path: Path, room: str) -> None:
    done = limited(tmp_path, room)
    (line,) = done.stderr.splitlines()
    assert line.startswith("pinfold: cannot write the audit log ")
    assert line.endswith("the sandbox was stopped")
    assert done.returncode == 125
    made, logged = made_and_logged(tmp_path / "made", tmp_path / "log")
    assert made == logged
    assert 0 < len(made) < MOST
    assert 7 * MIB < (tmp_path / "log").stat().st_size <= 8 * MIB


def test_what_has_no_room_is_counted_where_a_policy_has_it_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[audit]\non_loss = "continue"\n')
    done = limited(tmp_path, "limit", "--policy", str(policy))
    (line,) = done.stderr.splitlines()
    assert line.startswith("pinfold: cannot write the audit log ")
    assert done.returncode == 0
    made, logged = made_and_logged(tmp_path / "made", tmp_path / "log")
    assert len(made) == MOST
    assert logged < made
    calls = gaps = 0
    for one in records(tmp_path / "log"):
        gaps += one["lost"] if one["type"] == "gap" else 0
        if one["type"] == "call":
            calls += 1
            assert one["seq"] == calls + gaps
    assert gaps > 0
