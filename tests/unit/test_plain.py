"""A plain command line is understood without click, exactly as click would."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.cli import plain, run
from pinfold.cli.plain import Option

SLOW = ("click", "inspect", "dataclasses", "socket", "pathlib", "ipaddress", "json", "argparse")
"""What takes longer to import than a run without it."""

PLAIN = [
    ["true"],
    ["--", "true"],
    ["--", "ls", "-l", "--", "--map"],
    ["ls", "/", ""],
    ["--map", "/a=/b", "--map=/c=/d", "--deny", "*", "--", "true"],
    ["--audit", "a", "--audit=b", "-v", "--real", "--real", "true"],
    ["--inspect", "all", "--inspect=paths", "--", "-x"],
    ["--policy=", "--set", "a=b", "--keep-caps", "true"],
]
LEFT = [
    [],
    ["--"],
    ["-v"],
    ["--help"],
    ["-h"],
    ["--nothing", "true"],
    ["--rea", "true"],
    ["-vv", "true"],
    ["-v=1", "true"],
    ["--real=1", "true"],
    ["--audit", "-", "--", "true"],
    ["--audit"],
    ["--audit", "--", "true"],
    ["--inspect", "some", "--", "true"],
    ["true", "-v"],
    ["true", "--", "x"],
    ["-", "true"],
    ["true", "-"],
]


def by_click(words: list[str]) -> dict[str, Any]:
    command = run.command
    assert isinstance(command, click.Command)
    return dict(command.make_context("run", list(words)).params)


@pytest.mark.parametrize("words", PLAIN)
def test_what_is_plain(words: list[str]) -> None:
    assert plain.parse(run.OPTIONS, words) == by_click(words)


@pytest.mark.parametrize("words", LEFT)
def test_what_is_left_to_click(words: list[str]) -> None:
    assert plain.parse(run.OPTIONS, words) is None


def spelt() -> st.SearchStrategy[str]:
    names = [name for one in run.OPTIONS for name in one.spellings]
    return st.one_of(
        st.sampled_from([*names, "--", "-", "", "true", "all", "paths", "-x", "--help", "/a=/b"]),
        st.builds("{}={}".format, st.sampled_from(names), st.sampled_from(["", "x", "all", "a=b"])),
    )


@given(st.lists(spelt(), max_size=6))
def test_it_never_differs_from_click(words: list[str]) -> None:
    found = plain.parse(run.OPTIONS, words)
    if found is not None:
        assert found == by_click(words)


def test_each_default_is_that_of_click() -> None:
    assert plain.parse(run.OPTIONS, ["true"]) == by_click(["true"])
    parameters = {one.name for one in run.command.params if one.name != "argv"}
    assert parameters == {one.parameter for one in run.OPTIONS}


def test_several_values_are_kept_in_order() -> None:
    options = (Option(("--of", "-o"), "found", "", metavar="X", many=True),)
    assert plain.parse(options, ["-o", "1", "--of=2", "x"]) == {"found": ("1", "2"), "argv": ("x",)}


def modules(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_what_the_command_line_imports_before_it_knows_the_command() -> None:
    found = {name for name in modules("import pinfold.cli") if name.startswith("pinfold")}
    assert found == {"pinfold", "pinfold.cli", "pinfold.cli.streams", "pinfold.errors"}


def test_what_a_run_does_not_import() -> None:
    assert not modules("import pinfold.cli.run").intersection(SLOW)


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert modules("import pinfold") == {"pinfold", "__future__"}
