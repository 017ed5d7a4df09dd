"""Results come back whole: from pytest, from the kernel's self-tests, into one file."""

from pathlib import Path

import pytest

from kernel import junit
from kernel.junit import Case
from kernel.source import KernelError

PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="3">
<testcase classname="t" name="good" time="0.5" />
<testcase classname="t" name="bad" time="1.5"><failure message="no">trace</failure></testcase>
<testcase classname="t" name="left" time="0"><skipped message="why">here</skipped></testcase>
<testcase classname="t" name="late" time="1"><error message="in the end">x</error></testcase>
</testsuite></testsuites>
"""
TAP = """TAP version 13
1..4
# Starting 4 tests from 2 test cases.
#  RUN           global.one ...
#            OK  global.one
ok 1 global.one
#  RUN           global.two ...
# file.c:12:two:Expected 1 (1) == 2 (2)
# two: Test failed
not ok 2 global.two
#  RUN           global.three ...
ok 3 global.three # SKIP not here
#  RUN           global.four ...
"""


def test_pytest(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PYTEST)
    assert junit.read(path) == [
        Case("t", "good", "passed", 0.5, ""),
        Case("t", "bad", "failed", 1.5, "no\ntrace"),
        Case("t", "left", "skipped", 0.0, "why\nhere"),
        Case("t", "late", "failed", 1.0, "in the end\nx"),
    ]


@pytest.mark.parametrize("text", [None, "", PYTEST[:-30]])
def test_half_a_file_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "a.xml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(KernelError, match=r"a\.xml"):
        junit.read(path)


def test_tap() -> None:
    cases = junit.from_tap(TAP, "self")
    assert [(case.name, case.outcome) for case in cases] == [
        ("global.one", "passed"),
        ("global.two", "failed"),
        ("global.three", "skipped"),
        ("number 4", "failed"),
    ]
    assert "Expected 1 (1) == 2 (2)" in cases[1].text
    assert cases[2].text == "not here"
    assert "global.four" in cases[3].text


def test_tap_of_a_program_that_never_began() -> None:
    with pytest.raises(KernelError, match="how many"):
        junit.from_tap("cannot execute\n", "self")


def test_written_and_read_again(tmp_path: Path) -> None:
    cases = [
        Case("t", "good", "passed", 0.5, ""),
        Case("t", "bad", "failed", 1.5, "a <b> & \0 \x1b[31mred\nmore"),
        Case("t", "left[\udce4]", "skipped", 0.0, "why"),
    ]
    path = tmp_path / "all.xml"
    junit.write(path, {"first": cases, "second": iter(cases[:1])})
    again = junit.read(path)
    assert [case.outcome for case in again] == ["passed", "failed", "skipped", "passed"]
    assert again[1].text.endswith("a <b> & ? ?[31mred\nmore")
    assert again[2].name == "left[?]"
    assert 'tests="3" failures="1" skipped="1"' in path.read_text()
