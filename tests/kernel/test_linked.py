"""Denials through links, and directories above what is denied, in real runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import Sandbox
from tests.kernel.support import pinfold

if TYPE_CHECKING:
    from pathlib import Path

OPEN: Final = """
import os, sys
for name in sys.argv[1:]:
    try:
        print(open(name).read())
    except OSError as error:
        print(type(error).__name__)
"""
RENAME: Final = """
import os, sys
try:
    os.rename("top/deep", "top/moved")
    print("renamed")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that a link called ``home`` leads to."""
    (tmp_path / "data/ann").mkdir(parents=True)
    (tmp_path / "data/ann/key").write_text("KEY")
    (tmp_path / "home").symlink_to("data")
    return tmp_path


@pytest.mark.parametrize("glob", ["home/ann/key", "home/ann", "home/*/key", "home"])
@pytest.mark.parametrize("how", ["--real", "policy"])
def test_deny_on_the_command_line(place: Path, glob: str, how: str) -> None:
    policy = place / "p.toml"
    policy.write_text("version = 1\nreal = true\n")
    words = ["--real"] if how == "--real" else ["--policy", policy]
    script = (sys.executable, "-c", OPEN, "home/ann/key", "data/ann/key")
    done = pinfold(*words, "--deny", place / glob, "--", *script, cwd=place)
    assert done.stdout.split() == ["PermissionError"] * 2
    plain = pinfold("--deny", place / glob, "--", *script, cwd=place)
    assert plain.stdout.split() == ["PermissionError", "KEY"]


def test_the_log_has_the_rule_as_it_was_given(place: Path) -> None:
    log = place / "log"
    script = (sys.executable, "-c", OPEN, "data/ann/key")
    pinfold("--real", "--deny", place / "home", "--audit", log, "--", *script, cwd=place)
    text = log.read_text()
    assert f"deny {place}/home" in text
    assert f"deny {place}/data" not in text


@pytest.mark.parametrize("real", [True, False])
def test_a_policy_file_under_the_option(place: Path, real: bool) -> None:
    policy = place / "p.toml"
    policy.write_text(f'version = 1\n[[rule]]\npath = "{place}/home/ann"\naction = "deny"\n')
    words = ["--real"] if real else []
    script = (sys.executable, "-c", OPEN, "data/ann/key")
    done = pinfold(*words, "--policy", policy, "--", *script, cwd=place)
    assert done.stdout.split() == ["PermissionError" if real else "KEY"]


@pytest.mark.parametrize("key", ["deny", "policy"])
def test_sandboxes(place: Path, key: str) -> None:
    policy = place / "p.toml"
    policy.write_text(f'version = 1\n[[rule]]\nexact = "{place}/home/ann/key"\naction = "deny"\n')
    sandbox = (
        Sandbox(deny=[place / "home"], real=True)
        if key == "deny"
        else Sandbox(policy=policy, real=True)
    )
    found = sandbox.run(
        [sys.executable, "-c", OPEN, place / "data/ann/key"], capture_output=True, text=True
    )
    assert found.stdout == "PermissionError\n"


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("top/deep/er/secret", "PermissionError"),
        ("top/*/er/*", "PermissionError"),
        ("top/deep/er", "PermissionError"),
        ("top/other/er", "renamed"),
        ("top/**/secret", "renamed"),
    ],
)
@pytest.mark.parametrize("how", ["--deny", "policy"])
def test_directories_above(tmp_path: Path, glob: str, expected: str, how: str) -> None:
    (tmp_path / "top/deep/er").mkdir(parents=True)
    policy = tmp_path / "p.toml"
    policy.write_text(f'version = 1\n[[rule]]\npath = "{tmp_path}/{glob}"\naction = "deny"\n')
    words = ("--deny", tmp_path / glob) if how == "--deny" else ("--policy", policy)
    done = pinfold(*words, "--", sys.executable, "-c", RENAME, cwd=tmp_path)
    assert done.stdout == expected + "\n"
    assert os.path.isdir(tmp_path / "top/moved") is (expected == "renamed")
