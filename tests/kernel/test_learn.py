"""``pinfold learn``: what was learned lets the same program run again, and not another one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kernel.support import execute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kernel.support import Done, User

PINFOLD: Final = (sys.executable, "-m", "pinfold")
SCRIPT: Final = 'f=$(mktemp); ls / | sort > "$f"; wc -l < "$f"; rm "$f"'
SECRET: Final = "/etc/shadow"


class Place:
    """A home, a project in it and a directory for temporary files."""

    def __init__(self, base: Path) -> None:
        self.home = base / "home"
        self.cwd = self.home / "project"
        self.tmp = base / "tmp"
        for path in (self.home, self.cwd, self.tmp):
            path.mkdir()
        self.policy = base / "policy.toml"
        self.env = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
        }

    def pinfold(self, *args: str | Path, **options: Any) -> Done:
        return execute([*PINFOLD, *args], cwd=self.cwd, env=self.env, **options)

    def learn(self, *command: str | Path, options: Sequence[str] = ()) -> Done:
        return self.pinfold("learn", "-o", self.policy, *options, "--", *command, timeout=100)

    def again(self, *command: str | Path) -> Done:
        return self.pinfold("run", "--policy", self.policy, "--", *command, timeout=100)

    def bare(self, *command: str | Path) -> None:
        subprocess.run(
            command, cwd=self.cwd, env=self.env, check=True, stdout=subprocess.DEVNULL, timeout=60
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def check(place: Place, *command: str | Path, options: Sequence[str] = ()) -> tuple[Done, Done]:
    """Learns a command, runs it again under its policy, and something else, which is refused."""
    first = place.learn(*command, options=options)
    assert first.returncode == 0, first.stderr
    second = place.again(*command)
    assert second.returncode == 0, second.stderr + place.policy.read_text()
    other = place.again("cat", SECRET)
    assert other.returncode in (1, 126)
    assert "ermission denied" in other.stderr
    return first, second


def test_a_pipeline_with_a_temporary_file(place: Place) -> None:
    first, second = check(place, "sh", "-c", SCRIPT)
    assert first.stdout == second.stdout
    text = place.policy.read_text()
    assert 'path = "${TMPDIR}/tmp.*"' in text
    assert str(place.tmp) not in text
    # It may write such files, and no others.
    command = next(line for line in text.splitlines() if line.startswith('argv = ["sh"'))
    place.policy.write_text(text.replace(command, 'argv = ["sh", "-c", "*"]'))
    for name, status in (("tmp.1234567890", 0), ("other", 2)):
        assert place.again("sh", "-c", f'echo > "$TMPDIR/{name}"').returncode == status
        assert (place.tmp / name).exists() == (status == 0)


def test_for_a_user_without_rights(unprivileged: User) -> None:
    policy = unprivileged.directory / "policy.toml"
    learned = unprivileged.python("-m", "pinfold", "learn", "-o", policy, "--", "sh", "-c", SCRIPT)
    assert learned.returncode == 0, learned.stderr
    again = unprivileged.pinfold("--policy", policy, "--", "sh", "-c", SCRIPT)
    assert (again.returncode, again.stdout) == (0, learned.stdout), again.stderr
    other = unprivileged.pinfold("--policy", policy, "--", "sh", "-c", "cat /etc/passwd")
    assert other.returncode == 126


def test_python_with_imports_and_temporary_files(place: Place) -> None:
    code = """
import json, os, shutil, tempfile
with tempfile.NamedTemporaryFile("w") as file:
    json.dump([1], file)
with tempfile.TemporaryDirectory() as directory:
    open(os.path.join(directory, "a"), "w").close()
    os.rename(os.path.join(directory, "a"), os.path.join(directory, "b"))
"""
    check(place, sys.executable, "-c", code)


def test_git_status(place: Place) -> None:
    place.bare("git", "init", "-q", ".")
    (place.cwd / "new").write_text("x")
    first, second = check(place, "git", "status", "--short")
    assert first.stdout == second.stdout == "?? new\n"
    pushed = place.again("git", "push")
    assert pushed.returncode == 126


def test_make_in_parallel(place: Place) -> None:
    for name in "abc":
        (place.cwd / f"{name}.c").write_text(f"int {name}(void) {{ return 1; }}\n")
    (place.cwd / "main.c").write_text("int a(void); int main(void) { return a() - 1; }\n")
    objects = "main.o a.o b.o c.o"
    (place.cwd / "Makefile").write_text(f"prog: {objects}\n\t$(CC) -o $@ {objects}\n")
    assert place.learn("make", "-j2").returncode == 0
    for built in (*objects.split(), "prog"):
        (place.cwd / built).unlink()
    done = place.again("make", "-j2")
    assert done.returncode == 0, done.stderr
    assert (place.cwd / "prog").exists()
    assert place.again("gcc", "--version").returncode == 126


def test_pip_installs_a_wheel(place: Place) -> None:
    wheel = place.cwd / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "VALUE = 1\n")
        archive.writestr("tiny/more.py", "from tiny import VALUE\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            f"{info}/RECORD",
            f"tiny/__init__.py,,\ntiny/more.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        )
    place.bare(sys.executable, "-m", "venv", "venv")
    python = place.cwd / "venv" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--no-index", "--no-cache-dir", wheel)
    first = place.learn(*install)
    assert first.returncode == 0, first.stderr
    place.bare(python, "-m", "pip", "uninstall", "-y", "tiny")
    second = place.again(*install)
    assert second.returncode == 0, second.stderr
    place.bare(python, "-c", "import tiny; assert tiny.VALUE == 1")
    assert place.again(python, "-c", "print()").returncode == 126


def test_two_runs_tell_which_names_are_made_up(place: Place) -> None:
    (place.cwd / "count").write_text("0")
    words = "monday tuesday wednesday thursday"
    script = (
        f'set -- {words}; read n < count; shift "$n"; echo $((n + 1)) > count; : > "day-$1.log"'
    )
    done = place.learn("sh", "-c", script, options=("--runs", "2"))
    assert done.returncode == 0, done.stderr
    assert "day-*day.log" in place.policy.read_text()
    assert place.again("sh", "-c", script).returncode == 0
    assert (place.cwd / "day-wednesday.log").exists()


def test_a_policy_that_is_there_gets_what_it_lacks(place: Place) -> None:
    assert place.learn("cat", "/etc/hostname").returncode == 0
    mine = "# mine\n" + place.policy.read_text().replace("[defaults]", "[defaults] # mine, too")
    place.policy.write_text(mine)
    place.policy.chmod(0o640)
    done = place.learn("head", "-1", "/etc/passwd")
    assert done.returncode == 0
    text = place.policy.read_text()
    assert text.startswith(mine)
    added = text[len(mine) :]
    assert "# learned 20" in added
    assert 'exact = "/etc/passwd"' in added
    assert "/usr/**" not in added
    assert '+exact = "/etc/passwd"' in done.stderr
    assert place.policy.stat().st_mode & 0o777 == 0o640
    for command in (("cat", "/etc/hostname"), ("head", "-1", "/etc/passwd")):
        assert place.again(*command).returncode == 0
    # Once more: nothing is new.
    done = place.learn("head", "-1", "/etc/passwd")
    assert "nothing to add" in done.stderr
    assert place.policy.read_text() == text


def test_what_the_policy_denies_stays_denied(place: Place) -> None:
    place.policy.write_text(
        'version = 1\n[defaults]\nopen = "deny"\n'
        '[[rule]]\nname = "no names"\npath = "/etc/passwd"\naction = "deny"\n'
    )
    done = place.learn("cat", "/etc/passwd")
    assert done.returncode == 0
    assert "openat /etc/passwd: no names" in done.stderr
    assert 'exact = "/etc/passwd"' not in place.policy.read_text()
    assert place.again("cat", "/etc/passwd").returncode == 1


def test_a_dry_run_writes_nothing(place: Place) -> None:
    done = place.learn("cat", "/etc/hostname", options=("--dry-run",))
    assert "exact = " in done.stderr
    assert not place.policy.exists()
    place.policy.write_text('version = 1\n[defaults]\nopen = "deny"\n')
    before = place.policy.read_text()
    done = place.learn("cat", "/etc/hostname", options=("--dry-run",))
    assert "+[[rule]]" in done.stderr
    assert place.policy.read_text() == before


def test_to_standard_output(place: Place) -> None:
    done = place.pinfold("learn", "--", "sh", "-c", "echo hello; exit 3")
    assert done.returncode == 3
    assert done.stdout.startswith("# Learned ")
    assert "hello" in done.stderr.splitlines()
    assert "status 3" in done.stderr


@pytest.mark.parametrize(
    "name", [b"new\nline", b"quo\"te'", b"\xff\xfe", b"[a]*", b"$HOME", b"\x1b[2J"]
)
def test_hostile_names(place: Place, name: bytes) -> None:
    path = os.path.join(os.fsencode(place.cwd), name)
    Path(os.fsdecode(path)).write_text("content\n")
    first, _ = check(place, "sh", "-c", 'cat -- "$1" > out', "sh", os.fsdecode(path))
    assert "\x1b" not in first.stderr + place.policy.read_text()
    second = Path(os.fsdecode(os.path.join(os.fsencode(place.cwd), b"other")))
    shutil.copy(os.fsdecode(path), second)
    assert place.again("sh", "-c", 'cat -- "$1" > out', "sh", second).returncode == 1


def test_a_project_somewhere_else(place: Place, tmp_path: Path) -> None:
    (place.cwd / "input").write_text("x\n")
    assert place.learn("sh", "-c", "cat input > output").returncode == 0
    other = tmp_path / "else[where]*"
    shutil.copytree(place.cwd, other)
    place.cwd = other
    assert place.again("sh", "-c", "cat input > output").returncode == 0


def test_a_policy_that_lets_itself_be_written(place: Place) -> None:
    script = "for name in a b c d; do : > $name; done"
    assert "warning" not in place.learn("sh", "-c", script).stderr
    place.policy = place.cwd / "policy.toml"
    assert "may write" in place.learn("sh", "-c", script).stderr


def test_a_command_that_is_not_there(place: Place) -> None:
    done = place.learn("/nonexistent/command")
    assert done.returncode == 127
    assert not place.policy.exists()


def test_the_end_by_a_signal(place: Place) -> None:
    done = place.learn("sh", "-c", "kill -TERM $$", options=("--runs", "3"))
    assert done.returncode == 128 + signal.SIGTERM
    assert "status 143" in done.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version = 2\n", "version"),
        ("version = 1\nrule = []\n", "cannot be added"),
    ],
)
def test_a_file_that_nothing_can_be_added_to(place: Place, text: str, problem: str) -> None:
    text += '[defaults]\nopen = "deny"\n' if "rule" in text else ""
    place.policy.write_text(text)
    done = place.learn("cat", "/etc/hostname")
    assert done.returncode == 125
    assert problem in done.stderr
    assert place.policy.read_text() == text
    assert sorted(os.listdir(place.policy.parent)) == ["home", "policy.toml", "tmp"]


def test_no_directory_to_write_to(place: Place, tmp_path: Path) -> None:
    place.policy = tmp_path / "missing" / "policy.toml"
    done = place.learn("touch", "made")
    assert done.returncode == 125
    assert not (place.cwd / "made").exists()
