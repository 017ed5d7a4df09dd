#!/usr/bin/env python3
"""Writes docs/conformance.md: how each test of the conformance suite went on each back end.

    pytest tests/conformance --junitxml=stock.xml              # on a stock kernel
    python3 -m kernel test conformance                         # leaves junit.xml
    .venv/bin/python tools/conformance_table.py --stock "Linux 6.18" stock.xml junit.xml

The back end stands in the name of a test, so it does not matter which file is of which kernel. A
test that was run more than once counts by its last run; one that was skipped was not run.
"""

import argparse
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "docs/conformance.md"
COLUMNS = ("native", "native-first", "interrupt")
HEADS = ("native, later revision", "native, first revision", "interrupt")
BACKEND = re.compile(r"(?<=[\[-])(native-first|native|interrupt)(?=[\]-])")
SUITE = "tests.conformance."
ROWS_OF_THEIR_OWN = ("test_scenarios", "test_errnos")
"""Files whose tests are rows of a table of the interface: each case is shown by itself."""

WORDS = {
    "test_scenarios": "The four scenarios",
    "test_errnos": "Every row of the errno tables",
    "test_pins": "Pins and address spaces",
    "test_calls": "Calls of all sorts, scalars, several pointers",
    "test_signals": "Signals, restarts, handlers that never return",
    "test_kills": "Tasks and supervisors that are killed",
    "test_hostile": "Targets that fight back",
    "test_stacked": "Other filters in the chain",
    "test_api": "The listener's interface",
    "test_kernel_requests": "The requests byte for byte (kernel only)",
    "test_kernel_pins": "Where pins may be, and what is none (kernel only)",
    "test_kernel_calls": "Which calls can be redirected (kernel only)",
    "test_kernel_tracers": "Filters that ask for a tracer (kernel only)",
    "test_kernel_records": "What others see of a redirected call (kernel only)",
    "test_kernel_load": "Storms and deaths (kernel only)",
}

DIFFERENCES = {
    "test_two_pins_in_one_call": """
A redirect of the later revision names one memfd, in which all its pointers lie. Two memfds in one
call are EFAULT there, and fine in the first revision and on `interrupt`.""",
    "test_redirect_of_a_call_that_makes_a_process": """
`clone`, `fork`, `vfork` and `clone3` cannot be redirected on `interrupt` (EOPNOTSUPP). In the
kernel they can; parent and child both come out with their own registers.""",
    "test_a_redirected_call_is_judged_by_every_filter": """
`SECCOMP_RET_TRACE` of another filter, where there is no tracer: the kernel answers a redirected
call with ENOSYS. On `interrupt` the call is sent on with CONTINUE, which passes such filters by.
""",
    "test_install_without_a_seal_on_its_size": """
A memfd that may still shrink is refused on `interrupt` (EINVAL); the kernel asks for the write seal
only.""",
    "test_an_address_of_the_kernel_s_choice": """
The first revision, as specified, has no address 0 for a place of the kernel's choice; `pin_install`
refuses it there (EINVAL).""",
    "test_a_filter_that_forbids_what_an_install_needs": """
A filter of the target's own that forbids `mmap` or `mseal` makes an install fail on `interrupt`.
The kernel has the target make no calls: the pin is there all the same.""",
    "test_a_target_without_a_free_descriptor": """
An install on `interrupt` needs a descriptor in the target, and says EMFILE without one. The kernel
opens nothing there.""",
    "test_a_supervisor_without_a_free_descriptor": """
An install on `interrupt` needs descriptors of the supervisor's, too.""",
    "test_a_task_that_somebody_else_traces": """
A task that has a tracer cannot be redirected on `interrupt` (EPERM). The kernel needs no tracer.
""",
    "test_an_ignored_signal_in_a_call_that_is_never_made_again": """
On `interrupt` a redirected call that is never restarted is ended by a signal that its task ignores,
since a traced task wakes up for those. In the kernel it is not.""",
}


OUTCOMES = {
    "passed": "pass",
    "failed": "**FAIL**",
    "known": "known failure",
    "skipped": "skipped",
}


class Case(NamedTuple):
    """How one test went."""

    file: str
    test: str
    """Name of the function."""
    case: str
    """Its parameters, without the back end."""
    column: str
    """The back end; empty for a test that has none."""
    outcome: str
    """One of ``OUTCOMES``."""
    reason: str
    seconds: float


def read(path: Path) -> list[Case]:
    """Returns the cases of the suite in a file of JUnit XML.

    Raises:
        OSError: It cannot be read.
        ET.ParseError: It is no XML.
    """
    found = (_case(element) for element in ET.parse(path).getroot().iter("testcase"))
    return [case for case in found if case is not None]


def _case(element: ET.Element) -> Case | None:
    place = element.get("classname") or ""
    if not place.startswith(SUITE):
        return None
    name = element.get("name") or ""
    test, _, rest = name.partition("[")
    backend = BACKEND.search(name)
    parameters = BACKEND.sub("", "[" + rest).strip("[]-").replace("--", "-") if rest else ""
    outcome, reason = "passed", ""
    for child in element:
        if child.tag in {"failure", "error"}:
            outcome, reason = "failed", child.get("message") or ""
            break
        if child.tag == "skipped":
            known = child.get("type") == "pytest.xfail"
            outcome, reason = "known" if known else "skipped", child.get("message") or ""
    return Case(
        place.removeprefix(SUITE),
        test,
        parameters,
        backend[0] if backend else "",
        outcome,
        reason.partition("\n")[0],
        float(element.get("time") or 0),
    )


def merged(cases: Iterable[Case]) -> list[Case]:
    """Returns one result for each test, case and back end: the last that was no skip."""
    found: dict[tuple[str, str, str, str], Case] = {}
    for case in cases:
        key = (case.file, case.test, case.case, case.column)
        if case.outcome != "skipped" or key not in found:
            found[key] = case
    return list(found.values())


def count(cases: Sequence[Case]) -> str:
    """Returns what came of some cases, as a cell of a table."""
    if not cases:
        return "-"
    outcomes = Counter(case.outcome for case in cases)
    if len(cases) == 1:
        return OUTCOMES[cases[0].outcome]
    return ", ".join(f"{outcomes[one]} {word}" for one, word in OUTCOMES.items() if outcomes[one])


def _row(name: str, cases: Sequence[Case]) -> str:
    by_column = [[case for case in cases if case.column in ("", one)] for one in COLUMNS]
    return f"| {name} | {' | '.join(count(one) for one in by_column)} |\n"


def _head(first: str) -> str:
    return f"| {first} | {' | '.join(HEADS)} |\n|---|{'---|' * len(HEADS)}\n"


def _grouped(cases: Iterable[Case], names: Iterable[str]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for name, case in zip(names, cases, strict=True):
        groups.setdefault(name, []).append(case)
    return groups


def _file(file: str, cases: list[Case]) -> str:
    text = f"\n## {WORDS.get(file, file)}\n\n`tests/conformance/{file}.py`\n\n"
    text += _head("test")
    for test, group in _grouped(cases, [case.test for case in cases]).items():
        single = {case.case for case in group} == {""}
        if file not in ROWS_OF_THEIR_OWN or single:
            number = len({case.case for case in group})
            text += _row(_words(test) + (f" ({number} cases)" if number > 1 else ""), group)
            continue
        for case, rows in _grouped(group, [one.case for one in group]).items():
            text += _row(f"{_words(test)}: `{case}`", rows)
    return text


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")


def _reasons(cases: Iterable[Case], outcome: str) -> list[str]:
    found = Counter(
        (case.column or "any", case.file, case.test, case.reason)
        for case in cases
        if case.outcome == outcome
    )
    return [
        f"- {column}, `{file}.py`, {_words(test)}"
        + (f" ({number} cases)" if number > 1 else "")
        + f": {reason}\n"
        for (column, file, test, reason), number in found.items()
    ]


def page(cases: Sequence[Case], kernels: dict[str, str]) -> str:
    """Returns the page.

    Args:
        cases: One result for each test.
        kernels: What the back ends ran on, by "native" and "stock".
    """
    tests = {case.test for case in cases}
    files = [file for file in WORDS if any(case.file == file for case in cases)]
    files += sorted({case.file for case in cases} - set(files))
    text = (
        "# Conformance\n\n"
        "<!-- Written by tools/conformance_table.py; do not edit. -->\n\n"
        "One suite holds every back end to one contract ([native.md](native.md),"
        " [kernel.md](kernel.md)). This is how it went, test by test."
        f" `native` ran on {kernels['native']}; there a filter with the flag of the later revision"
        " is served by that revision, and one without it by the first."
        f" `interrupt` ran on {kernels['stock']}."
        " Tests of the kernel only are about what no other back end can say or do.\n\n"
    )
    text += _head("file")
    for file in files:
        text += _row(f"`{file}.py`", [case for case in cases if case.file == file])
    text += _row("all", list(cases))
    text += "\nWhere the back ends differ, they do so by design, and the tests say how:\n\n"
    for test, words in DIFFERENCES.items():
        if test in tests:
            text += f"- {' '.join(words.split())} (`{test}`)\n"
    titles = (
        ("failed", "What failed"),
        ("known", "Known failures"),
        ("skipped", "What was skipped, and why"),
    )
    for outcome, title in titles:
        reasons = _reasons(cases, outcome)
        if reasons:
            text += f"\n## {title}\n\n{''.join(reasons)}"
    for file in files:
        text += _file(file, [case for case in cases if case.file == file])
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit status: 1 when a test failed."""
    parser = argparse.ArgumentParser(description="Writes docs/conformance.md.")
    parser.add_argument("results", nargs="+", type=Path, help="JUnit XML, of any back end")
    parser.add_argument(
        "--native",
        default="Linux 6.12.117 with our part in it, in an emulated machine with two processors",
        help="what the native back end ran on",
    )
    parser.add_argument("--stock", required=True, help="what the interrupt back end ran on")
    parser.add_argument("--to", type=Path, default=TARGET, help="the page")
    given = parser.parse_args(arguments)
    try:
        cases = merged(case for path in given.results for case in read(path))
    except (OSError, ET.ParseError) as error:
        parser.error(str(error))
    # A back end that its machine lacks is no result; neither is it where it was run elsewhere.
    cases = [case for case in cases if not case.reason.startswith("back end ")]
    given.to.write_text(page(cases, {"native": given.native, "stock": given.stock}))
    failed = [case for case in cases if case.outcome == "failed"]
    print(f"{len(cases)} results, {len(failed)} failures: {given.to}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
