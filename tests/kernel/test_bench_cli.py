"""``pinfold bench`` does its work, and prints what it says. Times are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pinfold.bench import report
from pinfold.bench.call import FREE, LENGTHS, named
from pinfold.bench.groups import GROUPS
from pinfold.bench.loops import BAIT, FILE, Loop, alone, boxed, in_session, words
from pinfold.bench.measure import WrongError
from pinfold.bench.start import WARM
from pinfold.policy.rules import PathRules
from pinfold.sandbox import Sandbox
from pinfold.session import Limits, Session

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.launch.spawn import Command

SECONDS = 100
ROUNDS = 2
FLOORS = [f"c-{name}" for name in ("notify", "notify-sync", "notify-read", "stop", "stops")]


def bench(*options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pinfold", "bench", *options],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
    )


def measured(*groups: str) -> report.Report:
    done = bench("--quick", "--json", *groups)
    assert done.returncode == 0, done.stderr
    found = report.decoded(done.stdout)
    assert (found.about.quick, found.about.rounds) == (True, ROUNDS)
    for table in found.tables:
        for row in table.rows:
            assert len(row.rounds) == ROUNDS
            assert all(number > 0 for number in row.rounds)
            assert (row.ratio is None) == (row.name == table.reference or not table.reference)
    return found


def rows(found: report.Report) -> dict[str, list[str]]:
    return {table.name: [row.name for row in table.rows] for table in found.tables}


def test_calls() -> None:
    found = rows(measured("call"))
    ways = found.pop("ways")
    one = ["bare", *FLOORS, "python-notify", "redirect", "redirect, two stops", "interrupt"]
    assert [name for name in one if name not in ways] == []
    both = [FREE.format(name) for name in one]
    assert not set(both) & set(ways) or set(both) < set(ways)
    assert list(found) == ["asks", *(f"path-{length}" for length in LENGTHS)]
    assert {"bare", "deny-other", "redirect", "denied", "policy", "log", "real"} < set(
        found["asks"]
    )


def test_start_and_verdicts() -> None:
    # Given in any order, measured in theirs.
    found = measured("start", "verdict")
    assert [table.group for table in found.tables] == ["verdict"] * 8 + ["start"]
    names = rows(found)
    assert names["true"] == ["true", "python", "run", "run-deny", "run-policy", *WARM]
    assert names["deny-names-new"] == ["10", "100"]
    # So little was done that no figure says anything.
    assert [bar.met for bar in found.bars] == [None] * 10


def test_stages_and_scale() -> None:
    found = rows(measured("stage", "scale"))
    assert found["steps"][:3] == ["bare", "c-stop", "trap"]
    assert found["steps"][-2:] == ["one stop", "two stops"]
    assert "live check" in found["functions"]
    assert found["threads"][:2] == ["1", "1 bare"]


def test_memory() -> None:
    found = measured("memory")
    if os.geteuid() == 0:
        assert rows(found) == {"rss": ["1"], "pss": ["1"], "descriptors": ["1"]}
    else:
        assert "only root" in found.tables[0].missing[0]


def test_text_and_bars() -> None:
    done = bench("--quick", "--rounds", "1", "--bars", "verdict")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("pinfold ")
    assert "quick: figures mean nothing" in lines[0]
    assert sum(line.startswith("verdict ") for line in lines) == 8
    assert sum(line.endswith("not measured") for line in lines[lines.index("bars") :]) == 8
    assert "\033" not in done.stdout.decode()
    told = done.stderr.decode().splitlines()
    assert all(line.startswith("pinfold: verdict: ") for line in told)


def test_list() -> None:
    done = bench("--list")
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == list(GROUPS)


@pytest.mark.parametrize(
    ("options", "told"),
    [(["nonsense"], b"nonsense"), (["--cpu", "9999"], b"--cpu 9999"), (["--rounds", "0"], b"0")],
)
def test_wrong_usage(options: list[str], told: bytes) -> None:
    done = bench(*options)
    assert done.returncode == 125
    assert told in done.stderr
    assert done.stdout == b""


def one_cpu() -> frozenset[int]:
    return frozenset({max(os.sched_getaffinity(0))})


def test_a_call_that_fails_is_told() -> None:
    loop = Loop("gone", one_cpu(), lambda: alone(words("loop", BAIT)))
    try:
        with pytest.raises(WrongError, match="gone: 7 calls did not end as they had to"):
            loop.run(7)
    finally:
        loop.close()


def test_a_call_that_succeeds_is_told_where_it_must_fail() -> None:
    loop = Loop("there", one_cpu(), lambda: alone(words("loop", FILE, "13")))
    try:
        with pytest.raises(WrongError, match="there: 3 calls"):
            loop.run(3)
    finally:
        loop.close()


def test_calls_that_nobody_redirected_are_told() -> None:
    box = Sandbox(deny=["/etc/shadow"])
    loop = Loop("x", one_cpu(), lambda: boxed(box, words("loop", FILE), redirected=True))
    loop.run(3)
    with pytest.raises(WrongError, match="of 3 calls 0 were redirected"):
        loop.close()


def test_calls_that_passed_a_session_by_are_told() -> None:
    def made(command: Command) -> Session:
        return Session(command, PathRules([], [b"/x"]), Limits())

    loop = Loop("x", one_cpu(), lambda: in_session(made, words("loop", FILE), redirected=True))
    loop.run(3)
    with pytest.raises(WrongError, match="3 calls, ended as"):
        loop.close()


def test_an_end_in_the_middle_is_told() -> None:
    loop = Loop("false", one_cpu(), lambda: alone(["false"]))
    try:
        with pytest.raises(WrongError, match="false: the program"):
            loop.run(1)
    finally:
        loop.close()


@pytest.mark.parametrize("length", LENGTHS)
def test_names_are_as_long_as_they_are_to_be(tmp_path: Path, length: int) -> None:
    name = named(str(tmp_path), length)
    assert len(name) == length
    with open(name):
        pass
