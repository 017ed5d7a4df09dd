"""The soak's verdict sees what grows."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from tests.programs import ROOT

MIB = 1 << 20


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    return importlib.import_module("soak")


def rounds(soak: Any, **growing: int) -> list[Any]:
    start = soak.Sample(0.0, 40 * MIB, 9, 2, 1)
    return [
        start._replace(
            at=float(number),
            **{name: getattr(start, name) + number * step for name, step in growing.items()},
        )
        for number in range(100)
    ]


def test_nothing_grows(soak: Any) -> None:
    assert soak.judged("host", 1.0, rounds(soak)).failures == []
    assert soak.slope(rounds(soak)) == 0


def test_a_little_memory_is_no_leak(soak: Any) -> None:
    # 50 rounds from half to half: 1.6 MiB, of which 2 and 1 more are allowed.
    assert soak.judged("host", 1.0, rounds(soak, rss=1 << 15)).failures == []


@pytest.mark.parametrize(
    ("growing", "says"),
    [
        ({"rss": 1 << 17}, "memory"),
        ({"descriptors": 1}, "descriptors"),
        ({"threads": 1}, "threads"),
        ({"children": 1}, "children"),
    ],
)
def test_what_grows_is_told(soak: Any, growing: dict[str, int], says: str) -> None:
    (failure,) = soak.judged("host", 1.0, rounds(soak, **growing)).failures
    assert failure.startswith(f"{says}: ")


def test_the_slope(soak: Any) -> None:
    assert soak.slope(rounds(soak, rss=MIB)) == pytest.approx(3600 * MIB)
