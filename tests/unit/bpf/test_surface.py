from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pinfold import bpf

SOURCES = sorted(Path(bpf.__file__).parent.glob("*.py"))


def test_public_names_are_exactly_these_and_sorted() -> None:
    assert bpf.__all__ == [
        "Arg",
        "Case",
        "Insn",
        "Result",
        "SeccompData",
        "action_name",
        "assemble",
        "check",
        "compile_filter",
        "disassemble",
        "dump_program",
        "run",
    ]
    assert all(hasattr(bpf, name) for name in bpf.__all__)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_modules_are_pure(source: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    allowed = {"__future__", "collections.abc", "importlib", "struct", "typing"}
    assert not {
        name
        for name in imported
        if name not in allowed and not name.startswith(("pinfold.bpf", "pinfold.uapi"))
    }
