"""The table of fields: what is documented, what is written, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pinfold.audit.schema import LINES, VERDICTS, check, tables
from pinfold.codec.openhow import OpenHow
from tests.unit.audit.logs import entry, write

DOCS = (Path(__file__).parents[3] / "docs/audit.md").read_text()


@pytest.mark.parametrize(("kind", "table"), list(tables()))
def test_the_documentation_has_the_table(kind: str, table: str) -> None:
    assert table + "\n" in DOCS, f"docs/audit.md is not what audit/schema.py says of {kind}"


def test_what_is_written_has_the_fields_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(
        path,
        [
            entry(),
            entry(verdict="deny"),
            entry(verdict="return", value=3),
            entry(verdict="serve", value=b"x", dry=True),
            entry(
                call="openat2",
                verdict="redirect",
                rule="r",
                others={2: OpenHow(0, 0, 1, 0, 0)},
                replaced=((2, OpenHow(0, 0, 0, 0, 0), OpenHow(0, 0, 1, 0, 0)),),
            ),
        ],
    )
    seen: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        assert check(record) is None
        order = [field.name for field in LINES[record["type"]]]
        assert list(record) == [name for name in order if name in record]
        seen.setdefault(record["type"], set()).update(record)
    for kind in ("start", "call", "end"):
        assert seen[kind] == {field.name for field in LINES[kind]}


def test_verdicts_are_those_of_the_engine() -> None:
    from pinfold.policy import calls
    from pinfold.policy.rules import ALLOW, DENY, REDIRECT
    from pinfold.supervisor.decision import UNPINNED

    words = {ALLOW, DENY, REDIRECT, UNPINNED, "error"}
    words |= {calls.RETURN, calls.SERVE, calls.INJECT, calls.KILL}
    assert set(VERDICTS) == words
