# SPDX-License-Identifier: GPL-2.0-only
"""Boots a kernel, runs suites in it, and judges what came back.

A run is good when the guest came to its end by itself, every suite left results, all of them good
and the required ones not skipped, and the kernel had nothing to complain of. What is left behind,
in ``.build/kernel/results/VARIANT``: ``junit.xml`` with every test, ``console.log`` with what the
kernel wrote, ``output.log`` with what the tests printed, and each suite's own files.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from kernel import boot, build, console, junit, programs, suites
from kernel.source import BUILD, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernel.boot import Ended
    from kernel.build import Image
    from kernel.junit import Case

SHOWN: Final = 30
"""Lines shown of whatever went wrong; all of it is in the files."""
LIMIT: Final = 4 * 3600.0
"""Seconds after which a guest counts as hung. A test that hangs is ended by pytest long before."""
LIMIT_CI: Final = 1800.0
"""The same where there is little time."""


class Judged(NamedTuple):
    """What came of one boot."""

    cases: dict[str, list[Case]]
    """Tests by suite."""
    problems: list[str]
    """Why the run is not good; empty if it is."""


@contextmanager
def results(image: Image) -> Iterator[Path]:
    """Has the directory for what a run leaves behind, emptied, for this run alone.

    Raises:
        KernelError: Another run of this kernel has it.
    """
    place = BUILD / "results" / (image.variant + ("-plain" if image.plain else ""))
    with boot.kept(place):
        shutil.rmtree(place)
        place.mkdir()
        yield place


def run(
    image: Image, names: list[str], extra: list[str], *, ci: bool, cpus: int, limit: float | None
) -> int:
    """Runs suites on a kernel, and prints what came of it; returns the exit status.

    Args:
        image: The kernel.
        names: The suites.
        extra: Further arguments for pytest.
        ci: Whether to leave out what takes long.
        cpus: Processors of the guest.
        limit: Seconds that it may take; ``LIMIT`` or ``LIMIT_CI`` if it is not said.

    Raises:
        KernelError: It could not be started.
    """
    programs.prepare()
    job = suites.job(names, ci, extra)
    if limit is None:
        limit = LIMIT_CI if ci else LIMIT
    with results(image) as place:
        if "selftests" in names:
            shutil.copy(build.self_test(image.plain), place)
        print(f"booting {image.kernel.parent.name}: {', '.join(names)}", flush=True)
        ended = boot.run(image.kernel, place, job, limit, cpus, echo=True)
        judged = judge(place, ended, names, image.plain)
        junit.write(place / "junit.xml", judged.cases)
    _report(judged, ended, place)
    return 1 if judged.problems else 0


def judge(place: Path, ended: Ended, names: list[str], plain: bool = False) -> Judged:
    """Returns what came of a boot.

    Args:
        place: The directory with the guest's files.
        ended: How the boot went.
        names: The suites that should have run.
        plain: Whether the kernel is one without our part.
    """
    problems = []
    if ended.timed_out:
        problems.append(f"the guest was still running after {ended.seconds:.0f} s, and was ended")
    elif ended.status is None:
        problems.append("the guest ended before its job did")
    elif ended.status:
        problems.append(f"the guest's job ended with status {ended.status}")
    complaints = console.complaints(ended.console)
    problems += [f"kernel: {line}" for line in complaints[:SHOWN]]
    leaks = place / "kmemleak"
    if leaks.exists() and leaks.read_text().strip():
        problems.append(f"kernel: memory that nobody has any more; see {leaks}")
    cases: dict[str, list[Case]] = {}
    for name in names:
        try:
            cases[name] = _cases(place, name)
        except KernelError as error:
            problems.append(f"{name}: {error}")
            continue
        problems += _wrong(name, cases[name], plain)
        problems += _status(place, name, cases[name])
    return Judged(cases, problems)


def _cases(place: Path, name: str) -> list[Case]:
    if suites.SUITES[name].pytest:
        return junit.read(place / f"{name}.xml")
    output = place / f"{name}.tap"
    if not output.exists():
        raise KernelError("no results")
    return junit.from_tap(output.read_text(errors="replace"), name)


def _wrong(name: str, cases: list[Case], plain: bool) -> list[str]:
    suite = suites.SUITES[name]
    expected = suites.EXPECTED if not suite.pytest else {}
    found = []
    for case in cases:
        first = case.text.strip().partition("\n")[0]
        if case.outcome == "failed" and case.name not in expected:
            found.append(f"{name}: failed: {case.full}: {first}")
        if case.outcome == "passed" and case.name in expected and not plain:
            found.append(f"{name}: passed, though it is listed as failing: {case.full}")
        if case.outcome == "skipped" and suite.required(case.name, case.text):
            found.append(f"{name}: skipped: {case.full}: {first}")
    if not any(case.outcome == "passed" and suite.must in case.name for case in cases):
        found.append(f"{name}: no test that had to run did")
    return found


def _status(place: Path, name: str, cases: list[Case]) -> list[str]:
    # Something that failed is told already; here it is about ends that no test explains.
    status = place / f"{name}.status"
    if not status.exists():
        return [f"{name}: it did not come to its end"]
    code = int(status.read_text())
    if code and not any(case.outcome == "failed" for case in cases):
        return [f"{name}: every test is good, but the status is {code}"]
    return []


def _report(judged: Judged, ended: Ended, place: Path) -> None:
    print()
    for name, cases in judged.cases.items():
        count = Counter(case.outcome for case in cases)
        seconds = sum(case.seconds for case in cases)
        print(
            f"{name}: {count['passed']} passed, {count['failed']} failed,"
            f" {count['skipped']} skipped ({seconds:.0f} s of the guest's time)"
        )
    print(f"the machine ran for {ended.seconds:.0f} s; results in {place}")
    for problem in judged.problems:
        print(f"  {problem}")
    if ended.timed_out or ended.status is None:
        print("the end of the console:")
        print("\n".join(ended.console.splitlines()[-SHOWN:]))
    print("not good" if judged.problems else "good", flush=True)
