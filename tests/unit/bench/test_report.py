"""Bars, and what is shown of a run."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.bench import bars, report
from pinfold.bench.bars import BARS, EXCESS, RATIO, VALUE, Bar
from pinfold.bench.groups import GROUPS
from pinfold.bench.measure import Settings, Table, tabled
from tests.programs import ROOT

if TYPE_CHECKING:
    from types import ModuleType

START = tabled(
    "start",
    "true",
    "starting `true`",
    {"true": "bare", "run": "pinfold", "warm": "warm", "warm-subprocess": "warm, bare"},
    {"true": [2.0, 3.0], "run": [60.0, 61.0], "warm": [9.0, 9.0], "warm-subprocess": [2.0, 2.0]},
    unit="ms",
    reference="true",
)


def made(tables: tuple[Table, ...] = (START,), groups: tuple[str, ...] = ("start",)) -> Any:
    judged = tuple(bars.judged(tables, groups))
    return report.Report(report.about(Settings(2)), tables, judged)


def test_bars_are_of_groups_that_there_are() -> None:
    assert {bar.group for bar in BARS} <= set(GROUPS)
    assert len({bar.what for bar in BARS}) == len(BARS)


def test_a_bar_is_met_or_not() -> None:
    run, warm = made().bars
    assert (run.kind, run.unit, run.most, run.met) == (EXCESS, "ms", 60, True)
    assert run.measured is not None
    assert run.measured.median == 58.0
    assert (warm.most, warm.met) == (5, False)


def test_what_was_not_measured_is_neither() -> None:
    for tables in ((), (tabled("start", "true", "", {}, {}, unit="ms"),)):
        assert [(one.measured, one.met) for one in made(tables).bars] == [(None, None)] * 2


def test_bars_of_other_groups_are_left_out() -> None:
    assert made(groups=("stage",)).bars == ()


@pytest.mark.parametrize(
    ("kind", "base", "wanted"),
    [(RATIO, "true", (30.0, 61 / 3)), (EXCESS, "true", (58.0, 58.0)), (VALUE, "", (60.0, 61.0))],
)
def test_figures(kind: str, base: str, wanted: tuple[float, ...]) -> None:
    assert bars.figures(Bar("", "start", "true", "run", base, kind, 1), START) == wanted
    assert bars.figures(Bar("", "start", "true", "gone", base, kind, 1), START) is None


def test_figures_without_their_base() -> None:
    assert bars.figures(Bar("", "start", "true", "run", "gone", RATIO, 1), START) is None


def test_json_and_back() -> None:
    one = made()
    text = report.encoded(one)
    assert report.decoded(text) == one
    found = json.loads(text)
    assert list(found) == ["about", "tables", "bars"]
    row = found["tables"][0]["rows"][1]
    assert row["rounds"] == [60.0, 61.0]
    assert row["value"] == {"median": 60.5, "low": 60.25, "high": 60.75, "least": 60, "most": 61}


def test_lines() -> None:
    lines = list(report.lines(report.section(START)))
    assert lines[0] == "start true: starting `true`"
    assert lines[1].split() == ["ms", "middle", "half", "least", "to", "true", "middle", "half"]
    assert lines[2].split() == ["true", "2.50", "2.25-2.75", "2", "1", "bare"]
    assert lines[3].split() == ["run", "60.5", "60.2-60.8", "60", "25.2", "22.8-27.6", "pinfold"]


def test_lines_of_what_is_missing() -> None:
    one = tabled("call", "ways", "ways", {}, {}, unit="µs", missing=["native: no kernel has it"])
    lines = list(report.lines(report.section(one)))
    assert lines == ["call ways: ways", "  not here: native: no kernel has it"]


def test_bars_as_text() -> None:
    rows = report.bars(made().bars + made((), ("memory",)).bars).rows
    assert [row[-1] for row in rows] == ["met", "NOT MET", "not measured"]
    assert rows[0][1:4] == ("60 ms", "58 ms", "58-58")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.254, "0.25"), (7, "7"), (9.994, "9.99"), (12.34, "12.3"), (1234.5, "1,234"), (100, "100")],
)
def test_numbers(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_what_it_was_measured_on() -> None:
    about = report.about(Settings(7, quick=True, cpu=0))
    words = report.in_words(about)
    assert f"Linux {about.kernel}" in words
    assert "7 rounds" in words
    assert "quick" in words
    assert about.processor


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "tools" / "bench_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_put_into_the_page() -> None:
    page = (
        "before\n<!-- bench: start true -->\n\nTODO\n\n<!-- end -->\nbetween\n"
        "<!-- bench: start gone -->\n\nTODO\n\n<!-- end -->\n"
    )
    filled, amiss = tool().filled(page, [made()])
    assert amiss == [
        "not in these reports: start gone",
        "no place on the page: bars",
        "no place on the page: machine",
    ]
    assert filled.count("TODO") == 1
    assert "\nStarting `true`:\n" in filled
    assert "|  | ms | middle half | least | to true | middle half |  |" in filled
    assert "| run | 60.5 | 60.2-60.8 | 60 | 25.2 | 22.8-27.6 | pinfold |" in filled
    # Once more, over what is there.
    assert tool().filled(filled, [made()]) == (filled, amiss)


def test_the_page_has_a_place_for_each_bar() -> None:
    places = set(tool().PLACE.findall((ROOT / "docs" / "performance.md").read_text()))
    names = {name for _, name, _ in places}
    assert {"bars", "machine", *(f"{bar.group} {bar.table}" for bar in BARS)} <= names
