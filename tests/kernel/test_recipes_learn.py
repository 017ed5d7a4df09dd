"""The recipe that learns what pip does, and the tutorial: every command in them is run."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.recipes import SEARCH, Place, place, recipe
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LEARN = "Learn what an installation does, and hold it to that"
TUTORIAL: Final = ROOT / "docs" / "tutorial.md"
_CONSOLE: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def here() -> Iterator[Place]:
    """A place where ``pinfold`` and ``python3`` are on the path."""
    with place() as one:
        tools = one.around / "tools"
        tools.mkdir()
        for name, command in (
            ("pinfold", f"{sys.executable} -m pinfold"),
            ("python3", str(getattr(sys, "_base_executable", sys.executable))),
        ):
            (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (tools / name).chmod(0o755)
        one.env["PATH"] = f"{tools}:{SEARCH}"
        yield one


def wheel(here: Place, **more: str) -> None:
    """Makes the package, with further files in it."""
    info = "hello-1.0.dist-info"
    files = {
        "hello.py": "print('hello')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **more,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(here.work / "hello-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def test_pip_is_held_to_what_it_did(here: Place) -> None:
    """The same wheel installs; one that does more does not."""
    learn, check, run = recipe(LEARN).splitlines()
    wheel(here)
    assert here.bare("python3", "-m", "venv", "venv").returncode == 0
    for command in (learn, check):
        done = here.bare("sh", "-c", command)
        assert done.returncode == 0, (command, done)
    done = here.bare("sh", "-c", run)
    assert done.returncode == 0, done
    assert "Successfully installed hello-1.0" in done.stdout
    here.log = here.work / "log.jsonl"
    # Programs that the search path did not have are denied, which ends where "not found" does.
    denied = [one["names"] for one in here.records(verdict="deny")]
    assert [names for names in denied if os.path.exists(names[0])] == []
    assert here.bare("venv/bin/python", "-m", "hello").stdout == "hello\n"
    # More than it was: a program of the same name, for the next who installs something.
    wheel(here, **{"hello-1.0.data/scripts/ls": "#!python\nprint('not ls')\n"})
    done = here.bare("sh", "-c", run)
    assert done.returncode != 0
    assert not (here.work / "venv" / "bin" / "ls").exists()
    denied = [one["names"] for one in here.records(verdict="deny")]
    assert [f"{here.work}/venv/bin"] in denied, done
    # Another package is another command.
    assert here.bare("sh", "-c", run.replace("hello-1.0-", "other-1.0-")).returncode == 126


class _Step:
    # A command of the tutorial, and what it printed there.

    def __init__(self, command: str) -> None:
        self.command = command
        self.shown: list[str] = []

    def matches(self, printed: str) -> bool:
        """Compares, where a line of "…" is any number of lines and "…" in one any text."""
        pattern = ""
        for line in self.shown:
            escaped = ".*".join(map(re.escape, line.split("…")))
            pattern += r"(?:.*\n)*?" if line == "…" else rf"{escaped}\n"
        return re.fullmatch(pattern, printed) is not None


def steps() -> list[_Step]:
    """The commands of the tutorial, in order."""
    found: list[_Step] = []
    for block in _CONSOLE.findall(TUTORIAL.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(_Step(line[2:]))
            elif line.startswith("> "):
                found[-1].command += f"\n{line[2:]}"
            else:
                found[-1].shown.append(line)
    return found


def test_tutorial(here: Place) -> None:
    """Each command prints what the tutorial shows."""
    here.env |= {"COLUMNS": "100", "NO_COLOR": "1"}
    for step in steps():
        done = here.bare("sh", "-c", f"exec 2>&1\n{step.command}")
        assert step.matches(done.stdout), f"$ {step.command}\n{done.stdout}"


def test_the_tutorial_is_compared() -> None:
    """Neither another line nor a missing one passes for what is shown."""
    step = _Step("x")
    step.shown = ["first …", "…", "last"]
    assert step.matches("first x\nlast\n")
    assert step.matches("first x\na\nb\nlast\n")
    assert not step.matches("first x\nlast\nmore\n")
    assert not step.matches("last\n")
    assert not step.matches("first\nlast\n")
    assert len(steps()) > 20
