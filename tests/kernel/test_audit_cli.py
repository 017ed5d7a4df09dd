"""``pinfold audit`` as users type it, over logs that the writer made."""

from __future__ import annotations

import io
import os
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from pinfold.audit.verify import verify
from tests.kernel.support import Terminal, execute, pinfold
from tests.unit.audit.logs import entry, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.support import Done


def audit(*args: str | Path, **options: object) -> Done:
    """Returns how ``pinfold audit ARGS`` went."""
    return execute([sys.executable, "-m", "pinfold", "audit", *args], **options)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log in order, of three calls, one of them denied."""
    path = tmp_path / "log"
    write(
        path, [entry(), entry(b"/secret\x1b[2J", verdict="deny"), entry(b"/bin/sh", call="execve")]
    )
    return path


def head_of(log: Path) -> str:
    return verify(io.BytesIO(log.read_bytes())).head


def test_a_log_in_order(log: Path) -> None:
    head = head_of(log)
    done = audit("verify", log)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{log}: 3 calls, complete, head {head}\n"
    assert audit("verify", log, "--expect", head.upper()).returncode == 0
    with log.open() as stdin:
        assert audit("verify", "-", stdin=stdin).stdout == f"-: 3 calls, complete, head {head}\n"


def test_a_log_that_was_changed(log: Path) -> None:
    head = head_of(log)
    log.write_bytes(log.read_bytes().replace(b"/bin/sh", b"/bin/ls"))
    done = audit("verify", log, "--expect", head)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{log}:4: it does not follow from the line before")
    assert done.stderr.count("\n") == 1


def test_another_head(log: Path) -> None:
    done = audit("verify", log, "--expect", "0" * 64)
    assert done.returncode == 1
    assert "not the one that was expected" in done.stderr


def test_several_files(log: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad\n"
    bad.write_bytes(b"\0")
    done = audit("verify", bad, log)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{log}: 3 calls")
    assert "bad\\n:1: it is cut off" in done.stderr
    for unreadable in (tmp_path / "missing", tmp_path):
        done = audit("verify", unreadable, log, bad)
        assert done.returncode == 125
        assert done.stdout.startswith(f"{log}: 3 calls")
        assert f"pinfold: {unreadable}: " in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("verify",),
        ("verify", "--expect", "abc", "log"),
        ("verify", "--expect", "0" * 64, "log", "log"),
        ("report",),
        ("report", "/nonexistent/log"),
        ("report", "/"),
        ("report", "log", "-o", "/nonexistent/page"),
        ("report", "log", "-o", "log"),
        ("report", "log", "-o", "link"),
        ("other",),
    ],
)
def test_wrong_usage(log: Path, args: tuple[str, ...]) -> None:
    (log.parent / "link").symlink_to("log")
    before = log.read_bytes()
    done = audit(*args, cwd=log.parent)
    assert done.returncode == 125
    assert done.stderr.startswith("pinfold: ")
    assert done.stderr.count("\n") == 1
    assert log.read_bytes() == before


def test_a_report(log: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = audit("report", log, "-o", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith(f"{log}: 3 calls, complete, 2023-11-14 ")
    assert "\x1b" not in done.stdout
    assert "deny EACCES" in done.stdout
    assert "/secret\\x1b[2J" in done.stdout
    assert page.stat().st_mode & 0o777 == 0o600
    HTMLParser().feed(page.read_text())
    assert "\x1b" not in page.read_text()


def test_a_report_of_a_log_that_was_changed(log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"/bin/sh", b"/bin/ls"))
    done = audit("report", log)
    assert done.returncode == 0
    assert f"{log}:4: it does not follow" in done.stderr
    assert "NOT VERIFIED" in done.stdout


@pytest.mark.parametrize("plain", [False, True])
def test_a_report_on_a_terminal(log: Path, plain: bool) -> None:
    colours = "NO_COLOR=1" if plain else "TERM=xterm"
    command = ["env", "TERM=xterm", colours, sys.executable, "-m", "pinfold", "audit", "report"]
    with Terminal([*command, log]) as terminal:
        assert terminal.status() == 0
    assert "Denials" in terminal.seen
    assert "/secret\\x1b[2J" in terminal.seen
    assert "\x1b[2J" not in terminal.seen
    assert "\u2502" in terminal.seen


def test_a_locale_without_the_letters(log: Path) -> None:
    write(log, [entry("/\u65e5".encode(), verdict="deny")])
    done = audit("report", log, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert "/\\u65e5" in done.stdout


# Logs that `pinfold run` wrote.


def test_a_log_that_run_wrote(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = pinfold("-v", "--audit", log, "--", "sh", "-c", "cat /etc/hostname; exit 3")
    assert done.returncode == 3
    head = head_of(log)
    assert head in done.stderr
    assert audit("verify", log, "--expect", head).returncode == 0
