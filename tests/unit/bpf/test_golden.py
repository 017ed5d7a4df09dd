from __future__ import annotations

import pytest

from pinfold.bpf import check
from tests.unit.bpf.filters import FILTERS, GOLDEN, dumps
from tests.unit.bpf.model import Coverage


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == dumps().keys()


@pytest.mark.parametrize("name", sorted(dumps()))
def test_dump_is_the_golden_one(name: str) -> None:
    kept = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert dumps()[name] == kept, "if this is meant: python -m tests.unit.bpf.filters"


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_golden_filters_mean_what_their_cases_say(name: str) -> None:
    wanted = FILTERS[name]
    program = wanted.compile()
    check(program)
    coverage = Coverage(program)
    for data in wanted.calls():
        assert coverage.run(data) == wanted.expect(data), data
    assert not coverage.missing()
