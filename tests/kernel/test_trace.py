"""``pinfold trace`` as users type it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kernel.support import Terminal, execute

if TYPE_CHECKING:
    from tests.kernel.support import Done, User

QUIET: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
TRACE: Final = (sys.executable, "-m", "pinfold", "trace")
LINE: Final = re.compile(r"\[\d+\] \w+\(.*\) = .*")


def trace(*args: str | bytes | Path, **options: Any) -> Done:
    options.setdefault("env", QUIET)
    return execute([*TRACE, *args], **options)


def test_lines_go_to_standard_error_and_output_stays() -> None:
    done = trace("--", "cat", "/etc/hostname")
    assert done.stdout == Path("/etc/hostname").read_text()
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert any(
        line.endswith('execve("/usr/bin/cat", ["cat", "/etc/hostname"], [2 vars]) = 0')
        for line in lines
    )
    assert any(
        re.fullmatch(r'\[\d+\] openat\(AT_FDCWD, "/etc/hostname", O_RDONLY.*\) = \d+', line)
        for line in lines
    )


def test_the_exit_status_is_the_commands() -> None:
    assert trace("--", "sh", "-c", "exit 7").returncode == 7
    done = trace("--", "sh", "-c", "kill -TERM $$")
    assert done.returncode == 128 + signal.SIGTERM
    assert trace("--", "/nonexistent").returncode == 127


def test_errors_in_words() -> None:
    done = trace("--failed", "--path", "/nonexistent/**", "--", "cat", "/nonexistent/file")
    line, message = done.stderr.splitlines()
    assert line.endswith('"/nonexistent/file", O_RDONLY) = -1 ENOENT (No such file or directory)')
    assert message.startswith("cat: ")


def test_for_any_user(someone: User) -> None:
    done = someone.python("-m", "pinfold", "trace", "--group", "exec", "--", "true", env=QUIET)
    assert done.returncode == 0
    assert 'execve("/usr/bin/true", ["true"]' in done.stderr


def test_a_call_that_never_comes_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = trace("--", "timeout", "-s", "KILL", "0.5", "cat", tmp_path / "fifo")
    assert re.search(r'openat\(AT_FDCWD, ".*/fifo", O_RDONLY\) = \?\n', done.stderr)


def test_to_a_file(tmp_path: Path) -> None:
    done = trace("-o", tmp_path / "log", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert "execve(" in (tmp_path / "log").read_text()


def test_json(tmp_path: Path) -> None:
    trace("--json", "-o", tmp_path / "log", "--", "cat", "/nonexistent")
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (failed,) = [one for one in records if one["args"].get("path") == "/nonexistent"]
    assert (failed["result"], failed["errno"]) == (-2, "ENOENT")
    assert any(one["syscall"] == "execve" and one["result"] == 0 for one in records)


@pytest.mark.parametrize("word", ["open", "openat"])
def test_only_a_group(word: str) -> None:
    done = trace("--group", word, "--", "cat", "/etc/hostname")
    names = {line.split("(")[0].split()[-1] for line in done.stderr.splitlines()}
    assert names == {"openat"}


def test_an_unknown_group() -> None:
    done = trace("--group", "opne", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("pinfold: ")
    assert "open" in done.stderr


@pytest.mark.parametrize("glob", ["relative", "/a[", ""])
def test_a_glob_that_cannot_match(glob: str) -> None:
    done = trace("--path", glob, "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("pinfold: --path")


def test_a_unix_socket_by_its_path(tmp_path: Path) -> None:
    code = f"import socket; socket.socket(socket.AF_UNIX).connect_ex({str(tmp_path / 'x')!r})"
    done = trace("--path", tmp_path / "x", "--", sys.executable, "-c", code)
    assert re.search(r"connect\(\d+, unix:.*/x\) = -1 ENOENT", done.stderr)


def test_a_summary() -> None:
    done = trace("-c", "--", "sh", "-c", "cat /nonexistent 2>&-; :")
    rows = [line.split() for line in done.stderr.splitlines()]
    assert rows[0] == ["calls", "errors", "call"]
    assert rows[-1][-1] == "total"
    assert int(rows[-1][0]) == sum(int(row[0]) for row in rows[1:-1])
    assert any(row[-1] == "openat" and len(row) == 3 for row in rows)


def test_strings_are_cut_and_paths_are_not(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    done = trace("-s", "5", "--group", "exec", "--group", "open", "--", "cat", path)
    assert '["cat", "' + str(path)[:5] + '"...]' in done.stderr
    assert f'"{path}", O_RDONLY' in done.stderr


def test_what_a_program_calls_its_files_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\x1b[2J\n\xff"
    done = trace("--group", "open", "--", "sh", "-c", 'cat "$1" 2>&-', "sh", name)
    assert "\x1b" not in done.stderr
    assert r"/\x1b[2J\n\xff" in done.stderr


def test_colour_on_a_terminal_only_and_not_without_being_wanted() -> None:
    for environment, wanted in ((QUIET, True), (QUIET | {"NO_COLOR": "1"}, False)):
        with Terminal([*TRACE, "--group", "exec", "--", "true"], environment) as terminal:
            assert terminal.status() == 0
            assert ("\x1b[1mexecve\x1b[0m" in terminal.seen) == wanted
    assert "\x1b" not in trace("--", "true").stderr


@pytest.mark.parametrize("target", ["/dev/full", "/nonexistent/log"])
def test_a_trace_that_cannot_be_written_ends_the_program(tmp_path: Path, target: str) -> None:
    done = trace("-o", target, "--", "sh", "-c", f"echo hi > {tmp_path}/made")
    assert done.returncode == 125
    assert re.fullmatch(r"pinfold: cannot (open|write the trace to) .*\n", done.stderr)
    assert not (tmp_path / "made").exists()


def test_what_is_not_shown_goes_on_as_ever() -> None:
    done = trace("--group", "mkdir", "--", "sh", "-c", "cat /etc/hostname; exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == Path("/etc/hostname").read_text()


def test_no_command() -> None:
    done = trace()
    assert done.returncode == 125
    assert "no COMMAND" in done.stderr
