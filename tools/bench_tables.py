#!/usr/bin/env python3
"""Puts what `pinfold bench --json` measured into the tables of docs/performance.md.

    pinfold bench --json > today.json
    .venv/bin/python tools/bench_tables.py today.json

A table stands between `<!-- bench: GROUP TABLE -->` and `<!-- end -->`; instead of a group and a
table, `bars` and `machine` stand for these. Of several files, each table is from the last that has
it. What is in no file stays as it is, and is named; so is what has no place on the page.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pinfold.bench import report
from pinfold.bench.measure import Table
from pinfold.bench.report import Report, Section

TARGET = Path(__file__).parents[1] / "docs/performance.md"
PLACE = re.compile(r"(<!-- bench: ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(section: Section) -> str:
    """Returns a table, without the columns that have nothing in them."""
    rows = [section.columns, *section.rows]
    last = len(section.columns) - 1
    columns = [at for at in range(last + 1) if any(row[at] for row in section.rows)]
    lines = [[_cell(row[at]) for at in columns] for row in rows]
    lines.insert(1, ["---:" if 0 < at < last else "---" for at in columns])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"\nNot measured: {_cell(note)}.\n" for note in section.notes)


def _titled(table: Table) -> str:
    return f"{table.what[:1].upper()}{table.what[1:]}:\n\n{markdown(report.section(table))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def filled(page: str, reports: Sequence[Report]) -> tuple[str, list[str]]:
    """Returns the page with all tables that were measured, and what is amiss."""
    made: dict[str, str] = {}
    for one in reports:
        made["machine"] = report.in_words(one.about) + ".\n"
        if one.bars:
            made["bars"] = markdown(report.bars(one.bars))
        for table in one.tables:
            made[f"{table.group} {table.name}"] = _titled(table)
    amiss = []
    left = set(made)

    def replaced(found: re.Match[str]) -> str:
        text = made.get(found[2])
        left.discard(found[2])
        if text is None:
            amiss.append(f"not in these reports: {found[2]}")
            return found[0]
        return f"{found[1]}\n{text}\n{found[3]}"

    page = PLACE.sub(replaced, page)
    return page, [*amiss, *(f"no place on the page: {name}" for name in sorted(left))]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fills the tables of docs/performance.md.")
    parser.add_argument("reports", nargs="+", type=Path, help="what pinfold bench --json printed")
    reports = [report.decoded(path.read_bytes()) for path in parser.parse_args().reports]
    page, amiss = filled(TARGET.read_text(), reports)
    TARGET.write_text(page)
    for line in amiss:
        print(line, file=sys.stderr)
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
