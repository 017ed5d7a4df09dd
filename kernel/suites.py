# SPDX-License-Identifier: GPL-2.0-only
"""What is run in the guest: each suite is a piece of shell that leaves results in a file.

Everything here is plain data; ``test.py`` boots, and judges what came of it.
"""

from __future__ import annotations

import shlex
from typing import Final, NamedTuple

from kernel.build import SELFTEST
from kernel.source import ROOT


class Suite(NamedTuple):
    """Some tests that are run together."""

    name: str
    about: str
    pytest: tuple[str, ...] = ()
    """Arguments of pytest; without any, the suite is the kernel's own self-tests."""
    brief: tuple[str, ...] = ()
    """The same where there is little time; the whole if it is empty."""
    environment: tuple[tuple[str, str], ...] = ()
    must: str = ""
    """What names of tests have in them that may not be skipped; there has to be one that passed."""
    excuses: tuple[str, ...] = ()
    """Parts of reasons for which such a test may be skipped all the same."""

    long: bool = False
    """Whether there is no time for it in CI."""

    def selected(self, ci: bool) -> tuple[str, ...]:
        """Returns the arguments of pytest."""
        return self.brief if ci and self.brief else self.pytest

    def required(self, name: str, reason: str) -> bool:
        """Returns whether it is a fault that a test was skipped, with the reason that it gave."""
        excused = any(part in reason for part in self.excuses)
        return bool(self.must) and self.must in name and not excused


_CATALOGUE: Final = "tests/attacks/test_catalogue.py"
_NATIVE: Final = (("PINFOLD_MUST", "native"),)
_BRIEF: Final = (
    *("race-open-thread", "race-argv-pointer-thread", "race-execve-thread"),
    *("pin-write-proc-mem", "pin-replace-mmap", "pin-image-dontfork", "signal-registers"),
)
"""Attacks that there is always time for: one of each kind that has to do with the kernel's part."""
_NEWER: Final = (
    *("setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr"),
    "process_madvise",
)
"""What attacks make use of and Linux 6.12 has not, or not in the way that they need it."""
_SLOW: Final = " or ".join(f"exhaust-time-{load}" for load in ("argv", "unreadable", "sparse"))
"""Attacks that keep a supervisor computing: for longer than an emulated processor is allowed to."""
_CONTRACT: Final = tuple(
    f"tests/conformance/test_{name}.py"
    for name in (
        "scenarios",
        "errnos",
        "kernel_requests",
        "kernel_pins",
        "kernel_tracers",
        "kernel_records",
    )
)
"""What of the contract there is always time for: every scenario, every errno, both revisions."""

SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite(
            "conformance",
            "the contract of the two requests, on the kernel that has them",
            pytest=("tests/conformance", "-k", "native"),
            brief=(*_CONTRACT, "-k", "native"),
            environment=(("PINFOLD_MUST", "native,native-first"),),
            must="native",
            excuses=("has no processes of its own",),
        ),
        Suite("selftests", "the kernel's own tests of seccomp"),
        Suite(
            "run",
            "pinfold run without ptrace",
            pytest=("tests/kernel/test_run_native.py", "tests/kernel/test_keeper.py"),
            environment=_NATIVE,
        ),
        Suite(
            "programs",
            "real programs and confinement, on the back end that is chosen by itself",
            pytest=("tests/kernel/test_real_programs.py", "tests/kernel/test_confine.py"),
            long=True,
        ),
        Suite(
            "answers",
            "answers of policies, without ptrace",
            pytest=("tests/kernel/test_answers.py",),
            environment=(("PINFOLD_BACKEND", "native"),),
            long=True,
        ),
        Suite(
            "attacks",
            "every attack that is for the native back end, and the controls that have to lose",
            pytest=(_CATALOGUE, "-k", f"(native or control) and not ({_SLOW})"),
            brief=(
                *(f"{_CATALOGUE}::test_nothing_escapes[{name}-native]" for name in _BRIEF),
                f"{_CATALOGUE}::test_nothing_escapes[race-open-thread-run-native]",
                f"{_CATALOGUE}::test_the_control_loses[race-open-thread]",
                f"{_CATALOGUE}::test_the_control_loses[pin-write-store]",
            ),
            environment=(("PINFOLD_ATTACK_SHARE", "20"),),
            must="native",
            excuses=("is not for the", *(f"this machine has no {name}" for name in _NEWER)),
        ),
    )
}

PATIENCE: Final = "400"
"""Seconds that a test waits for what has to come (PINFOLD_PATIENCE): emulation is slow."""

EXPECTED: Final[dict[str, str]] = {}
"""Self-tests that fail without our part, too, and why."""

# Programs are built beside the sources, where the guest cannot write: there it sees those that the
# host has built, and what it builds itself is in memory.
PREPARE: Final = """
for place in .build .hypothesis; do
	test -d {root}/$place || continue
	mkdir -p /run/written/$place /run/aside/$place
	memory=upperdir=/run/written/$place,workdir=/run/aside/$place
	mount -t overlay -o lowerdir={root}/$place,$memory overlay {root}/$place
done
cd {root}
"""

# Twice, with the time in between after which a new object can count as forgotten.
_LEAKS: Final = """
leaks=/sys/kernel/debug/kmemleak
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug 2> /dev/null
if test -e $leaks; then
	echo '== memory that nobody has any more'
	echo scan > $leaks; sleep 6; echo scan > $leaks
	cat $leaks > /run/pinfold/kmemleak
fi
true
"""


def job(names: list[str], ci: bool, extra: list[str]) -> str:
    """Returns the shell that runs suites in the guest, one after the other.

    Args:
        names: The suites.
        ci: Whether there is little time.
        extra: Further arguments for pytest.
    """
    lines = [PREPARE.format(root=shlex.quote(str(ROOT)))]
    for name in names:
        suite = SUITES[name]
        lines.append(f"echo {shlex.quote(f'== {name}: {suite.about}')}")
        results = f"/run/pinfold/{name}"
        if suite.pytest:
            settings = dict(suite.environment) | {"PINFOLD_PATIENCE": PATIENCE}
            words = [f"{key}={value}" for key, value in settings.items()]
            words += [".venv/bin/python", "-m", "pytest", "--timeout", "1200", "--tb=short"]
            words += ["-o", "faulthandler_timeout=0"]
            words += ["-q", f"--junitxml={results}.xml", *suite.selected(ci), *extra]
            lines.append(f"env {shlex.join(words)}; echo $? > {results}.status")
        else:
            lines.append(
                f"(cd /tmp && timeout 1500 /run/pinfold/{SELFTEST}) > {results}.tap 2>&1;"
                f" echo $? > {results}.status; grep -E '^not ok|^# Totals' {results}.tap"
            )
    lines.append(_LEAKS)
    return "\n".join(lines)
