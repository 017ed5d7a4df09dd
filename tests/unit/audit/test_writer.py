"""The writer: what is in the file when, and what becomes of a log that cannot be written."""

from __future__ import annotations

import fcntl
import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.audit.verify import verify
from pinfold.audit.writer import AuditWriter
from pinfold.errors import AuditError, InternalError
from tests.unit.audit.logs import START, STATUS, entry, write

if TYPE_CHECKING:
    from pathlib import Path


def records(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = AuditWriter.open(str(path), start=START)
    heads = [writer.head]
    for _ in range(2):
        writer.write(entry())
        heads.append(writer.head)
    found = records(path.read_bytes())
    assert [record["type"] for record in found] == ["start", "call", "call"]
    assert [record["chain"] for record in found] == heads
    writer.finish(STATUS)
    assert records(path.read_bytes())[-1]["chain"] == writer.head
    writer.close()


def test_a_new_log_is_private_and_an_old_one_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head = write(path, [entry()] * 3)
    assert path.stat().st_mode & 0o777 == 0o600
    again = write(path, [entry()])
    assert again != head
    found = verify(io.BytesIO(path.read_bytes()), again)
    assert found.ok
    assert found.calls == 1


@pytest.mark.parametrize("on_loss", ["stop", "continue"])
def test_a_log_that_cannot_be_begun_is_an_error(tmp_path: Path, on_loss: Any) -> None:
    with pytest.raises(AuditError, match="cannot open"):
        AuditWriter.open(str(tmp_path / "missing" / "log"), on_loss=on_loss, start=START)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(AuditError, match=r"No space left.*nothing was started"):
        AuditWriter.open("/dev/full", on_loss=on_loss, start=START)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    writer = AuditWriter.open(str(tmp_path / "log"), start=START)
    writer.finish(STATUS)
    with pytest.raises(InternalError):
        writer.write(entry())
    with pytest.raises(InternalError):
        writer.finish(STATUS)
    writer.close()


class Pipe:
    """A log in a pipe, which the test fills and empties."""

    def __init__(self, on_loss: Any, *, blocking: bool = True) -> None:
        self.warnings: list[str] = []
        self.reader, self.end = os.pipe()
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.end, blocking)
        self.writer = AuditWriter(
            self.end, "a pipe", close=True, on_loss=on_loss, warn=self.warnings.append
        )

    def close(self) -> None:
        self.writer.close()
        if self.reader >= 0:
            os.close(self.reader)

    def hang_up(self) -> None:
        os.close(self.reader)
        self.reader = -1


def test_a_reader_that_is_gone_stops_the_sandbox() -> None:
    pipe = Pipe("stop")
    pipe.writer.write(entry())
    pipe.hang_up()
    with pytest.raises(AuditError, match=r"a pipe: Broken pipe; the sandbox was stopped"):
        pipe.writer.write(entry())
    # The end cannot be written either, and that was said already.
    pipe.writer.finish(STATUS)
    assert pipe.writer.lost == 1
    pipe.close()


def test_an_end_that_cannot_be_written_is_an_error() -> None:
    pipe = Pipe("stop")
    pipe.writer.write(entry())
    pipe.hang_up()
    with pytest.raises(AuditError, match="Broken pipe"):
        pipe.writer.finish(STATUS)
    pipe.close()


def test_a_reader_that_is_gone_need_not_stop_it() -> None:
    pipe = Pipe("continue")
    pipe.writer.write(entry())
    pipe.hang_up()
    for _ in range(5):
        pipe.writer.write(entry())
    pipe.writer.finish(STATUS)
    assert pipe.writer.lost == 5
    assert len(pipe.warnings) == 1
    assert pipe.warnings[0].startswith(
        "cannot write the audit log a pipe: Broken pipe; calls go on"
    )
    pipe.close()


def test_a_reader_that_comes_back_is_told_of_the_gap(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = AuditWriter.open(str(fifo), on_loss="continue", start=START)
    writer.write(entry())
    data = os.read(reader, 1 << 16)
    os.close(reader)
    for _ in range(3):
        writer.write(entry(verdict="deny"))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer.write(entry())
    writer.finish(STATUS)
    data += os.read(reader, 1 << 16)
    os.close(reader)
    writer.close()
    found = records(data)
    assert [(one["type"], one.get("seq")) for one in found] == [
        ("start", None),
        ("call", 1),
        ("gap", None),
        ("call", 5),
        ("end", None),
    ]
    assert found[2]["lost"] == 3
    assert found[4]["lost"] == 3
    assert found[4]["verdicts"] == {"allow": 2, "deny": 3}
    said = verify(io.BytesIO(data), writer.head)
    assert [problem.line for problem in said.problems] == [3]
    assert "3 calls before it" in said.problems[0].what


def test_half_a_line_in_a_pipe_is_ended_by_a_newline() -> None:
    pipe = Pipe("continue", blocking=False)
    pipe.writer._begin(START)
    pipe.writer.write(entry())
    data = os.read(pipe.reader, 1 << 16)
    # Longer than the pipe: a part goes in, then the reader is gone.
    started = threading.Thread(target=pipe.writer.write, args=(entry(b"/" + b"x" * 9000),))
    os.set_blocking(pipe.end, True)
    started.start()
    data += os.read(pipe.reader, 100)
    pipe.hang_up()
    started.join(60)
    assert not started.is_alive()
    assert pipe.writer.lost == 1
    pipe.reader = os.open(f"/proc/self/fd/{pipe.end}", os.O_RDONLY | os.O_NONBLOCK)
    rest = os.read(pipe.reader, 1 << 16)
    pipe.writer.write(entry())
    pipe.writer.finish(STATUS)
    rest += os.read(pipe.reader, 1 << 16)
    assert b"\n" not in rest[: rest.index(b'{"type":"gap"') - 1]
    data += rest
    pipe.close()
    problem = verify(io.BytesIO(data)).problems[0]
    assert problem.line == 3
    # Half a line, and the gap behind it; call and end follow.
    assert problem.what.endswith("of the 3 after it 1 not in order either")


def test_a_writer_waits_for_a_slow_reader() -> None:
    # Whoever shares our standard error may have set O_NONBLOCK on it.
    pipe = Pipe("stop", blocking=False)
    pipe.writer._begin(START)
    got = io.BytesIO()

    def read() -> None:
        while piece := os.read(pipe.reader, 512):
            got.write(piece)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(100):
        pipe.writer.write(entry())
    pipe.writer.finish(STATUS)
    head = pipe.writer.head
    pipe.writer.close()
    thread.join(60)
    assert not thread.is_alive()
    os.close(pipe.reader)
    got.seek(0)
    assert verify(got, head).ok
