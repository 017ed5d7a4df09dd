"""Every claim of docs/security.md names what holds it, and that exists."""

from __future__ import annotations

import ast
import fnmatch
import re
from typing import Final

import pytest

from pinfold.attack.catalogue import ATTACKS
from tests.programs import ROOT

_DOCUMENT: Final = (ROOT / "docs" / "security.md").read_text()
_HEAD: Final = "| claim | held by |\n|---|---|\n"


def claims() -> list[tuple[str, str]]:
    table = _DOCUMENT.partition(_HEAD)[2].partition("\n\n")[0]
    rows = [line.strip("|").rsplit("|", 1) for line in table.splitlines()]
    return [(claim.strip(), held.strip()) for claim, held in rows]


def test_the_table_is_there() -> None:
    assert len(claims()) > 10


@pytest.mark.parametrize(("claim", "held"), claims())
def test_a_claim_is_held(claim: str, held: str) -> None:
    named = re.findall(r"`([^`]+)`", held)
    assert named, f"nothing holds: {claim}"
    for name in named:
        if name.startswith("attack "):
            glob = name.removeprefix("attack ")
            assert any(fnmatch.fnmatch(one.name, glob) for one in ATTACKS), name
        else:
            path, _, function = name.partition("::")
            found = ast.parse((ROOT / path).read_text())
            tests = {one.name for one in ast.walk(found) if isinstance(one, ast.FunctionDef)}
            assert function in tests, name
