# SPDX-License-Identifier: GPL-2.0-only
"""Results of tests: read from JUnit XML or from TAP, and written as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from kernel.source import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Outcome = Literal["passed", "failed", "skipped"]

_RESULT: Final = re.compile(r"(not )?ok (\d+) (?:- )?(\S+)?\s*(?:# (SKIP|XFAIL)\s*(.*))?")
_PLAN: Final = re.compile(r"1\.\.(\d+)")
# What XML cannot hold, and tests print.
_CONTROL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(NamedTuple):
    """How one test went."""

    place: str
    name: str
    outcome: Outcome
    seconds: float
    text: str
    """Why it failed or was skipped."""

    @property
    def full(self) -> str:
        """Place and name, as shown to people."""
        return f"{self.place}::{self.name}"


def read(path: Path) -> list[Case]:
    """Returns the cases in a file that pytest wrote.

    Raises:
        KernelError: It is not there, or not whole.
    """
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise KernelError(f"{path.name}: no results: {error}") from error
    return [_case(element) for element in root.iter("testcase")]


def _case(element: ET.Element) -> Case:
    outcome: Outcome = "passed"
    texts = []
    for child in element:
        if child.tag in {"failure", "error"}:
            outcome = "failed"
        elif child.tag == "skipped" and outcome == "passed":
            outcome = "skipped"
        if child.tag in {"failure", "error", "skipped"}:
            texts += [child.get("message") or "", child.text or ""]
    return Case(
        element.get("classname") or "",
        element.get("name") or "",
        outcome,
        float(element.get("time") or 0),
        "\n".join(filter(None, texts)),
    )


def from_tap(text: str, place: str) -> list[Case]:
    """Returns the cases in what a self-test of the kernel printed.

    Tests that were announced and have no result are failures: the program died in one of them.

    Args:
        text: The output, in the kernel's dialect of TAP.
        place: Where the tests belong.

    Raises:
        KernelError: It announced no number of tests.
    """
    plan: int | None = None
    cases = []
    since: list[str] = []
    for line in text.splitlines():
        found = _PLAN.fullmatch(line)
        if found:
            plan = int(found[1])
            continue
        found = _RESULT.fullmatch(line)
        if found is None:
            since.append(line)
            continue
        # A wrong turn that the test itself expects is no failure; it is not a success either.
        outcome: Outcome = "skipped" if found[4] else "failed" if found[1] else "passed"
        name = found[3] or f"number {found[2]}"
        cases.append(Case(place, name, outcome, 0.0, found[5] or "\n".join(since)))
        since = []
    if plan is None:
        raise KernelError(f"{place}: it never said how many tests there are")
    lost = [
        Case(place, f"number {number + 1}", "failed", 0.0, "no result: " + "\n".join(since))
        for number in range(len(cases), plan)
    ]
    return cases + lost


def write(path: Path, suites: Mapping[str, Iterable[Case]]) -> None:
    """Writes the results of all suites into one file."""
    root = ET.Element("testsuites")
    for name, cases in suites.items():
        cases = list(cases)  # noqa: PLW2901 (whatever it was, it is gone through twice)
        count = Counter(case.outcome for case in cases)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(cases)),
            failures=str(count["failed"]),
            skipped=str(count["skipped"]),
            errors="0",
            time=f"{sum(case.seconds for case in cases):.3f}",
        )
        for case in cases:
            element = ET.SubElement(
                suite,
                "testcase",
                classname=_CONTROL.sub("?", case.place),
                name=_CONTROL.sub("?", case.name),
                time=f"{case.seconds:.3f}",
            )
            if case.outcome != "passed":
                tag = "failure" if case.outcome == "failed" else "skipped"
                text = _CONTROL.sub("?", case.text)
                child = ET.SubElement(element, tag, message=text.partition("\n")[0])
                child.text = text
    tree = ET.ElementTree(root)
    ET.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)
