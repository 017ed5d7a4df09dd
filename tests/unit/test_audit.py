"""Log records: what they show, that bytes survive, that a log that fails is an error."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.audit.record import Entry, describe, line
from pinfold.audit.record import Path as LoggedPath
from pinfold.audit.writer import AuditWriter
from pinfold.errors import AuditError
from pinfold.syscalls.table import ROWS
from pinfold.uapi.fs import OPEN_HOW

BY_NAME = {row.name: row for row in ROWS}


def entry(call: str, paths: tuple[LoggedPath, ...], *registers: int, how: bytes = b"") -> Entry:
    row = BY_NAME[call]
    return Entry(
        1.5,
        10,
        11,
        b"/bin/x",
        row,
        (*registers, *(0,) * (6 - len(registers))),
        paths,
        how,
        "allow",
        None,
        None,
    )


def test_a_record_shows_what_was_pinned() -> None:
    path = LoggedPath(1, b"a", b"/w/a", b"/other/a")
    record = describe(entry("openat", (path,), 0xFFFFFF9C, 0x1234, 0o2000002, 0))
    assert record["args"] == {
        "dirfd": "AT_FDCWD",
        "path": "/other/a",
        "flags": "O_RDWR|O_CLOEXEC",
        "mode": "0o0",
    }
    assert record["names"] == ["/w/a"]
    assert record["substituted"] == {"path": {"from": "a", "to": "/other/a"}}
    assert "0x1234" not in json.dumps(record)


def test_openat2_shows_the_structure() -> None:
    how = OPEN_HOW.pack(0o101, 0o644, 8)
    path = LoggedPath(1, b"/a", b"/a", b"/a")
    record = describe(entry("openat2", (path,), 3, 1, 2, 24, how=how))
    assert record["args"]["flags"] == "O_WRONLY|O_CREAT"
    assert record["args"]["resolve"] == "0x8"
    assert "substituted" not in record


def test_two_paths_have_two_keys() -> None:
    paths = (LoggedPath(0, b"/a", b"/a", b"/a"), LoggedPath(1, b"/b", b"/b", b"/b"))
    assert describe(entry("rename", paths))["args"] == {"old_path": "/a", "new_path": "/b"}


@given(st.binary(min_size=1).filter(lambda data: b"\0" not in data))
def test_bytes_survive(data: bytes) -> None:
    text = line(entry("open", (LoggedPath(0, data, data, data),)))
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert text.isascii()
    assert os.fsencode(json.loads(text)["args"]["path"]) == data


def test_a_full_disk_is_an_error() -> None:
    writer = AuditWriter.open("/dev/full")
    try:
        with pytest.raises(AuditError, match="No space left"):
            writer.write(entry("open", ()))
    finally:
        writer.close()


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot open"):
        AuditWriter.open(str(tmp_path / "missing" / "log"))


def test_a_new_log_is_private(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = AuditWriter.open(str(path))
    writer.write(entry("open", (LoggedPath(0, b"/a", b"/a", b"/a"),)))
    writer.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["syscall"] == "open"
