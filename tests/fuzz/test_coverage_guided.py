"""The targets of ``fuzz/``: their corpora again, and a short run of each under atheris.

What a longer run finds is put into ``fuzz/corpus`` when it is fixed, so that it is tried here ever
after, on every Python.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import pytest
from fuzz.harness import FUZZ, TARGETS

if TYPE_CHECKING:
    from pathlib import Path

RUNS: Final = {
    "codec": 2000,
    "policy": 300,
    "patterns": 400,
    "audit": 500,
    "bpf": 200,
    "names": 3000,
    "wire": 2000,
}
"""Inputs tried in one run: a few seconds of each."""
SEED: Final = os.environ.get("PINFOLD_FUZZ_SEED", "1")

HAS_WHEELS: Final = (
    sys.implementation.name == "cpython"
    and sys.version_info < (3, 14)
    and sys.platform == "linux"
    and platform.machine() == "x86_64"
)


def test_every_target_is_run() -> None:
    assert set(RUNS) == set(TARGETS)
    with open(FUZZ.parent / "Makefile", encoding="utf-8") as makefile:
        assert f"for target in {' '.join(TARGETS)}; do" in makefile.read()


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    one = import_module(f"fuzz.{target}").one
    inputs = sorted((FUZZ / "corpus" / target).iterdir())
    assert len(inputs) >= 5
    for path in inputs:
        one(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_short_run(target: str, tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        assert not HAS_WHEELS, "atheris is missing, and there are wheels of it for this Python"
        pytest.skip("atheris has no wheel for this Python")
    new = tmp_path / "new"
    new.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, FUZZ / f"{target}.py", f"-runs={RUNS[target]}", f"-seed={SEED}"),
            *(f"-artifact_prefix={tmp_path}/", "-print_final_stats=1"),
            # What is found goes to the first one.
            *(new, FUZZ / "corpus" / target),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    made = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert made is not None, done.stderr[-4000:]
    assert int(made[1]) >= RUNS[target]
    # It was guided: without instrumentation there is one feature, or none.
    features = re.findall(r" ft: (\d+)", done.stderr)
    assert int(features[-1]) > 30, done.stderr[-4000:]
