"""Logs that cannot be written any more, in the middle of a run.

One line says so, and the exit status is 125. The program makes directories, one after the other.
Where lines are written at once, each that is there has its line; else those that were waiting have
none, which are few.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold.audit import writer
from pinfold.audit.verify import verify
from tests.faults import support
from tests.kernel.support import PINFOLD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST: Final = 3000
SOME: Final = 20
LINE: Final = 300
"""Bytes that the line about a directory has at least."""
WAIT: Final = writer.ROOM // LINE
"""Directories whose lines wait, at most."""
_MAKER: Final = f"""
import os, sys
for number in range({MOST}):
    os.mkdir(f"{{sys.argv[1]}}/{{number}}")
"""


def maker(made: Path) -> tuple[str, ...]:
    """Returns the command that makes directories."""
    made.mkdir()
    return (sys.executable, "-I", "-c", _MAKER, str(made))


def logged(lines: bytes, made: Path) -> set[int]:
    """Returns which directories have a whole line."""
    found = set()
    for line in lines[: lines.rfind(b"\n") + 1].splitlines():
        record = json.loads(line)
        if record.get("syscall") == "mkdir":
            path = record["args"]["path"]
            if path.startswith(f"{made}/"):
                found.add(int(path.rpartition("/")[2]))
    return found


def ended(command: subprocess.Popen[bytes], what: int) -> None:
    """Checks how a command ended whose log could not be written."""
    _, errors = command.communicate(timeout=support.BOUND)
    said = errors.decode().splitlines()
    assert len(said) == 1, said
    assert said[0].startswith("pinfold: cannot write the audit log ")
    assert os.strerror(what) in said[0]
    assert command.returncode == 125


def compare(made: Path, lines: bytes, *, late: bool) -> int:
    """Checks that directories have their lines; returns how many there are."""
    there = {int(name) for name in os.listdir(made)}
    found = logged(lines, made)
    if not late:
        assert there == found
    assert found <= there
    assert len(there - found) <= WAIT
    return len(there)


def started(
    log: str | Path, made: Path, *before: str, late: bool = True, **options: Any
) -> subprocess.Popen[bytes]:
    """Starts a command with a log."""
    more = () if late else ("--log-sync",)
    return subprocess.Popen(
        [*before, *PINFOLD, "--audit", str(log), *more, "--", *maker(made)],
        stderr=subprocess.PIPE,
        **options,
    )


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    made = tmp_path / "made"
    os.mkfifo(tmp_path / "fifo")
    with started(tmp_path / "fifo", made) as command:
        with open(tmp_path / "fifo", "rb", buffering=0) as reader:
            read = b""
            while len(logged(read, made)) < SOME:
                read += reader.read(4096)
        ended(command, errno.EPIPE)
    assert SOME - 1 <= len(os.listdir(made)) < MOST


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_may_not_grow(tmp_path: Path, late: bool) -> None:
    made, log = tmp_path / "made", tmp_path / "log"
    with started(log, made, late=late) as command:
        support.until(lambda: log.exists() and len(logged(log.read_bytes(), made)) > SOME)
        size = log.stat().st_size + 1000
        resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (size, size))
        ended(command, errno.EFBIG)
    data = log.read_bytes()
    assert SOME < compare(made, data, late=late) < MOST
    problems = [one.what for one in verify(io.BytesIO(data)).problems]
    assert all("no end" in what or "have no line" in what for what in problems)


@pytest.mark.parametrize("late", [False, True])
def test_a_full_disk(tmp_path: Path, late: bool) -> None:
    made, disk = tmp_path / "made", tmp_path / "disk"
    disk.mkdir()
    script = (
        f'mount -t tmpfs -o size=64k,mode=0777 tmpfs {disk} && "$@";'
        f" status=$?; cp {disk}/log {tmp_path}/log; exit $status"
    )
    before = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    with started(disk / "log", made, *before, late=late) as command:
        ended(command, errno.ENOSPC)
    assert 0 < compare(made, (tmp_path / "log").read_bytes(), late=late) < MOST


class _Broken:
    """``os`` as the writer sees it: a disk that fails after so many bytes."""

    def __init__(self, room: int, number: int) -> None:
        self._left = room
        self._number = number

    def write(self, fd: int, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError(self._number, os.strerror(self._number))
        return os.write(fd, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture(params=[errno.EIO, errno.ENOSPC, errno.EBADF], ids=errno.errorcode.get)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Breaks logs after some hundred lines."""
    monkeypatch.setattr(writer, "os", _Broken(3 * writer.ROOM, request.param))
    yield request.param
    monkeypatch.undo()


@pytest.mark.parametrize("late", [False, True])
def test_a_disk_that_fails_under_a_host_process(tmp_path: Path, broken: int, late: bool) -> None:
    made, log = tmp_path / "made", tmp_path / "log"
    with pytest.raises(pinfold.AuditError, match=os.strerror(broken)):
        pinfold.run(maker(made), audit=log, log_sync=not late, timeout=support.BOUND)
    assert 0 < compare(made, log.read_bytes(), late=late) < MOST


def test_a_directory_that_vanishes(tmp_path: Path) -> None:
    """The file is still there for who has it open: that is no failure, and the run goes on."""
    made, log = tmp_path / "made", tmp_path / "logs" / "log"
    log.parent.mkdir()
    with started(log, made) as command:
        support.until(lambda: log.exists() and len(logged(log.read_bytes(), made)) > SOME)
        shutil.rmtree(log.parent)
        _, errors = command.communicate(timeout=support.BOUND)
    assert (command.returncode, errors) == (0, b"")
    assert len(os.listdir(made)) == MOST
