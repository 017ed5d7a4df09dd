"""The listener's benchmark does its work and prints what it says; times are not looked at."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = ROOT / "bench" / "listener.py"
SECONDS = 100
WAYS = ["bare", "continue", "resume", "redirect", "install"]
TINY = ("--rounds", "3", "--calls", "5", "--installs", "2")
SPREAD = ["median", "quartile_low", "quartile_high", "min", "max"]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def ordered(values: Sequence[float]) -> bool:
    return list(values) == sorted(values)


def test_json() -> None:
    done = bench(*TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    ways = found.pop("ways")
    assert found == {
        "kernel": os.uname().release,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "cpus": len(os.sched_getaffinity(0)),
        "backend": "interrupt",
        "rounds": 3,
        "calls": 5,
        "installs": 2,
    }
    assert [way["name"] for way in ways] == WAYS
    for way in ways:
        assert list(way) == ["name", "what", "microseconds", "ratio", "rounds"]
        assert len(way["rounds"]) == 3
        for numbers in (way["microseconds"], way["ratio"]):
            assert list(numbers) == SPREAD
            in_order = ("min", "quartile_low", "median", "quartile_high", "max")
            assert ordered([numbers[name] for name in in_order])
            assert numbers["min"] > 0
        assert way["microseconds"]["min"] == min(way["rounds"])
        assert way["microseconds"]["max"] == max(way["rounds"])
        assert way["microseconds"]["median"] == sorted(way["rounds"])[1]
    reference = ways[1]
    assert set(reference["ratio"].values()) == {1.0}
    for way in ways:
        pairs = zip(way["rounds"], reference["rounds"], strict=True)
        assert way["ratio"]["max"] == pytest.approx(max(one / other for one, other in pairs))


def test_table() -> None:
    cpu = min(os.sched_getaffinity(0))
    done = bench("--rounds", "1", "--calls", "1", "--installs", "1", "--cpu", str(cpu))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts, table, whats = done.stdout.split("\n\n")
    assert "cpus 1, backend interrupt, rounds 1" in facts
    assert len({len(line) for line in table.splitlines()[1:]}) == 1
    rows = [line.split() for line in table.splitlines()[3:]]
    assert [row[0] for row in rows] == WAYS
    assert {len(row) for row in rows} == {6}
    assert rows[1][4:] == ["1.00", "1.00-1.00"]
    assert [line.split()[0] for line in whats.splitlines()] == WAYS


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--rounds", "0"), "less than 1"),
        (("--calls", "x"), "invalid"),
        (("--backend", "trace"), "invalid choice"),
        (("--rounds", "2999", "--installs", "11"), "pins stay mapped"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], says: str) -> None:
    done = bench(*options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr


def test_calls_that_were_not_redirected_are_no_result() -> None:
    spec = importlib.util.spec_from_file_location("bench_listener", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    way = module.Way("wrong", "resumes the bait", True, module.serve_resume)
    with (
        module.started("auto", [way]) as (target,),
        pytest.raises(RuntimeError, match="wrong: 3 of 3 calls failed"),
    ):
        target.run(3)


def test_a_back_end_that_is_not_there_is_no_result() -> None:
    done = bench(*TINY, "--backend", "native")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "UnsupportedError" in done.stderr
