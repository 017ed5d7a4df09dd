"""Lines that wait: when they are written, and what becomes of those that cannot be."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from pinfold.audit import writer
from pinfold.audit.verify import verify
from pinfold.audit.writer import AuditWriter
from pinfold.errors import AuditError
from tests.unit.audit.logs import START, STATUS, entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOUND: Final = 60.0
NEVER: Final = 3600.0


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the alarm ring long after the test."""
    monkeypatch.setattr(writer, "DELAY", NEVER)


class Log:
    """A log whose lines may wait."""

    def __init__(self, path: Path, on_loss: Any = "stop") -> None:
        self.path = path
        self.warnings: list[str] = []
        self.stopped = threading.Event()
        self.writer = AuditWriter.open(
            str(path), start=START, on_loss=on_loss, warn=self.warnings.append
        )
        self.writer.late(self.stopped.set)

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines that are in the file."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def calls(self) -> int:
        """Returns how many lines of calls are in the file."""
        return sum(one["type"] == "call" for one in self.records())

    def problems(self) -> list[str]:
        """Returns what is wrong with it."""
        data = io.BytesIO(self.path.read_bytes())
        return [problem.what for problem in verify(data, self.writer.head).problems]


class Disk:
    """``os`` as the writer sees it: there is room for some bytes more, and it takes few at once."""

    def __init__(self, room: int, piece: int = 1 << 20) -> None:
        self.room = room
        self.piece = piece

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = os.write(fd, data[: min(self.room, self.piece)])
        self.room -= done
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def until(true: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    end = time.monotonic() + BOUND
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_they_are_written_when_nothing_else_happens(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for count in (1, 2):
        log.writer.write(entry())
        until(lambda count=count: log.calls() == count)  # type: ignore[misc]
    log.writer.finish(STATUS)
    log.writer.close()
    assert log.problems() == []


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    "verdict", ["deny", "kill", "redirect", "return", "serve", "inject", "error", "unpinned"]
)
def test_those_before_a_call_that_is_not_just_allowed(tmp_path: Path, verdict: str) -> None:
    log = Log(tmp_path / "log")
    for _ in range(3):
        log.writer.write(entry())
    assert log.calls() == 0
    log.writer.write(entry(verdict=verdict))
    assert log.calls() == 4
    log.writer.write(entry())
    assert log.calls() == 4
    log.writer.flush()
    assert log.calls() == 5
    log.writer.write(entry())
    log.writer.finish(STATUS)
    log.writer.close()
    assert log.calls() == 6
    assert log.problems() == []


@pytest.mark.usefixtures("slow")
def test_not_many_bytes_wait(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    length = 0
    for number in range(1, 1000):
        log.writer.write(entry())
        size = log.path.stat().st_size
        if log.calls() == number:
            length = length or size
    assert writer.ROOM <= length < 2 * writer.ROOM
    # One that is longer than all that may wait does not wait.
    calls = log.writer._calls
    log.writer.write(entry(b"/" + b"\xff" * 20000))
    assert log.calls() == calls + 1
    log.writer.finish(STATUS)
    log.writer.close()
    assert log.problems() == []


@pytest.mark.usefixtures("slow")
def test_a_pipe_has_each_line_at_once() -> None:
    reader, end = os.pipe()
    one = AuditWriter(end, "a pipe", close=True)
    one.late(lambda: None)
    before = threading.active_count()
    one.write(entry())
    assert json.loads(os.read(reader, 1 << 16))["seq"] == 1
    assert threading.active_count() == before
    one.finish(STATUS)
    one.close()
    os.close(reader)


@pytest.mark.usefixtures("slow")
def test_without_a_thread_no_line_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log = Log(tmp_path / "log")
    log.writer.write(entry())
    assert log.calls() == 1
    log.writer.finish(STATUS)
    log.writer.close()


@pytest.mark.usefixtures("slow")
def test_a_log_that_is_only_closed_has_them_too(tmp_path: Path) -> None:
    before = threading.active_count()
    log = Log(tmp_path / "log")
    log.writer.write(entry())
    assert log.calls() == 0
    log.writer.close()
    assert log.calls() == 1
    assert threading.active_count() == before


@pytest.mark.usefixtures("slow")
def test_the_end_of_the_process_writes_them(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.writer.write(entry())
    child = os.fork()
    if not child:
        # It has a copy of what waits, which is not its own to write.
        try:
            log.writer._hurry()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert log.calls() == 0
    log.writer._hurry()
    assert log.calls() == 1
    log.writer.write(entry())
    assert log.calls() == 2
    log.writer.finish(STATUS)
    log.writer.close()


@pytest.mark.parametrize("told", ["write", "flush", "finish"])
def test_what_the_alarm_cannot_write_ends_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    log = Log(tmp_path / "log")
    disk = Disk(0)
    monkeypatch.setattr(writer, "os", disk)
    log.writer.write(entry())
    assert log.stopped.wait(BOUND)
    call: dict[str, Callable[[], object]] = {
        "write": lambda: log.writer.write(entry()),
        "flush": log.writer.flush,
        "finish": lambda: log.writer.finish(STATUS),
    }
    with pytest.raises(AuditError, match=r"No space left on device; the sandbox was stopped"):
        call[told]()
    if told != "finish":
        # It was said; the end says how many are missing, if there is room for it.
        disk.room = 1 << 20
        log.writer.finish(STATUS)
        assert [one["type"] for one in log.records()] == ["start", "gap", "end"]
        assert log.records()[-1]["lost"] == log.writer.lost == 1
    log.writer.close()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("last", ["flush", "finish", "close"])
def test_what_cannot_be_written_in_the_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    log = Log(tmp_path / "log")
    log.writer.write(entry())
    monkeypatch.setattr(writer, "os", Disk(0))
    call: dict[str, Callable[[], object]] = {
        "flush": log.writer.flush,
        "finish": lambda: log.writer.finish(STATUS),
        "close": log.writer.close,
    }
    with pytest.raises(AuditError, match="No space left"):
        call[last]()
    if last != "close":
        log.writer.close()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_a_disk_that_becomes_full_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Whole lines stay, half of one is taken back, and the gap counts the others."""
    whole = Log(tmp_path / "whole")
    for number in range(4):
        whole.writer.write(entry(b"/%d" % number))
    whole.writer.close()
    lines = whole.path.read_bytes().splitlines(keepends=True)[1:]
    for room in range(0, sum(map(len, lines)), 41 if piece > 7 else 97):
        log = Log(tmp_path / f"{room}", "continue")
        begun = log.path.stat().st_size
        disk = Disk(room, piece)
        for number in range(4):
            log.writer.write(entry(b"/%d" % number))
        with monkeypatch.context() as patch:
            patch.setattr(writer, "os", disk)
            log.writer.flush()
        fits = sum(sum(map(len, lines[: count + 1])) <= room for count in range(4))
        assert log.path.stat().st_size - begun == sum(map(len, lines[:fits]))
        assert log.writer.lost == 4 - fits
        assert len(log.warnings) == 1
        # From here on lines wait again, behind the one about the gap.
        log.writer.write(entry())
        log.writer.finish(STATUS)
        log.writer.close()
        found = log.records()
        assert [one["type"] for one in found] == [
            *("start", *["call"] * fits),
            *("gap", "call", "end"),
        ]
        assert found[-3]["lost"] == found[-1]["lost"] == 4 - fits
        assert [what for what in log.problems() if "have no line" not in what] == []


def test_many_threads_worth_of_alarms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The alarm rings all the time while lines are added.
    monkeypatch.setattr(writer, "DELAY", 0.0)
    log = Log(tmp_path / "log")
    for number in range(5000):
        log.writer.write(entry(b"/%d" % number, verdict="deny" if number % 50 == 0 else "allow"))
    log.writer.finish(STATUS)
    log.writer.close()
    assert log.problems() == []
    assert log.calls() == 5000
