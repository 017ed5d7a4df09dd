"""What makes a run good: every way in which it can be bad is told."""

import subprocess
from pathlib import Path

import pytest

from kernel import junit, suites, test
from kernel.boot import Ended
from kernel.junit import Case, Outcome

GOOD = Ended(0, timed_out=False, seconds=1.0, console="[    0.000000] Linux version 6.12\n")


def case(name: str = "one[native]", outcome: Outcome = "passed", text: str = "") -> Case:
    return Case("tests.one", name, outcome, 1.0, text)


def left(place: Path, *cases: Case, name: str = "conformance", status: int | None = 0) -> None:
    junit.write(place / f"{name}.xml", {name: cases})
    if status is not None:
        (place / f"{name}.status").write_text(f"{status}\n")


def problems(place: Path, ended: Ended = GOOD, name: str = "conformance") -> list[str]:
    return test.judge(place, ended, [name]).problems


def test_good(tmp_path: Path) -> None:
    left(tmp_path, case(), case("two[interrupt]", "skipped", "not here"))
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("reason", "faults"),
    [
        ("bypass-forgotten-getxattrat: this machine has no getxattrat", 0),
        ("race-open is not for the native back end", 0),
        # That is for the kernel's configuration to have.
        ("bypass-userfaultfd: this machine has no userfaultfd", 1),
        ("no native back end", 1),
    ],
)
def test_an_attack_that_was_skipped(tmp_path: Path, reason: str, faults: int) -> None:
    left(tmp_path, case(), case("two[native]", "skipped", reason), name="attacks")
    found = problems(tmp_path, name="attacks")
    assert len(found) == faults
    assert all("skipped" in one for one in found)


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (GOOD._replace(status=None, timed_out=True), "still running"),
        (GOOD._replace(status=None), "ended before"),
        (GOOD._replace(status=3), "status 3"),
        (GOOD._replace(console="[    1.000000] WARNING: CPU: 0\n"), "WARNING"),
    ],
)
def test_the_machine(tmp_path: Path, ended: Ended, words: str) -> None:
    left(tmp_path, case())
    (problem,) = problems(tmp_path, ended)
    assert words in problem


def test_a_leak(tmp_path: Path) -> None:
    left(tmp_path, case())
    (tmp_path / "kmemleak").write_text("\n")
    assert problems(tmp_path) == []
    (tmp_path / "kmemleak").write_text("unreferenced object 0xffff\n")
    assert "nobody has" in problems(tmp_path)[0]


def test_no_results(tmp_path: Path) -> None:
    assert "no results" in problems(tmp_path)[0]


@pytest.mark.parametrize(
    ("cases", "status", "words"),
    [
        ([case(), case("two", "failed", "because\nmore")], 1, ["failed: tests.one::two: because"]),
        ([case(), case("two[native]", "skipped", "not here")], 0, ["skipped: tests.one::two"]),
        ([case("two[interrupt]")], 0, ["no test that had to run did"]),
        ([], 5, ["no test that had to run did", "status is 5"]),
        ([case()], 3, ["status is 3"]),
        ([case()], None, ["not come to its end"]),
    ],
)
def test_a_suite(tmp_path: Path, cases: list[Case], status: int | None, words: list[str]) -> None:
    left(tmp_path, *cases, status=status)
    found = problems(tmp_path)
    assert len(found) == len(words)
    for word, problem in zip(words, found, strict=True):
        assert word in problem


def test_an_excuse(tmp_path: Path) -> None:
    reason = "race-x is not for the native back end"
    left(tmp_path, case(), case("two[native]", "skipped", reason), name="attacks")
    assert problems(tmp_path, name="attacks") == []


def test_self_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "selftests.tap").write_text("1..2\nok 1 global.one\nnot ok 2 global.two\n")
    (tmp_path / "selftests.status").write_text("1\n")
    assert "global.two" in problems(tmp_path, name="selftests")[0]
    monkeypatch.setitem(suites.EXPECTED, "global.two", "because")
    assert problems(tmp_path, name="selftests") == []
    (tmp_path / "selftests.tap").write_text("1..2\nok 1 global.one\nok 2 global.two\n")
    assert "listed as failing" in problems(tmp_path, name="selftests")[0]


def test_the_job_names_every_suite() -> None:
    job = suites.job(list(suites.SUITES), False, ["-x"])
    for name in suites.SUITES:
        assert f"/run/pinfold/{name}.status" in job
    assert "PINFOLD_MUST=native" in job


@pytest.mark.parametrize("ci", [False, True])
def test_the_job_is_shell(ci: bool) -> None:
    job = suites.job(list(suites.SUITES), ci, ["-k", "it's"])
    done = subprocess.run(["sh", "-n"], input=job, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
