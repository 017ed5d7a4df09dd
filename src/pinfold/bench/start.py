"""What it costs to start a program: a bare one, a supervised one, one in a process that is warm.

Warm is a process that has run a sandbox before, as a program has that uses ``pinfold.Sandbox`` more
than once. It is one of its own (``python -m pinfold.bench.warm``): what this process has measured
before has made it larger than such a program is, and a larger process is forked more slowly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from typing import IO, TYPE_CHECKING, Final

from pinfold.bench.measure import Settings, Table, Way, WrongError, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RULE: Final = ("--deny", "/etc/shadow")
_POLICY: Final = ("--policy", "builtin:build")


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what starting a program costs.

    Raises:
        WrongError: A program did not end well.
    """
    pinfold = command()
    python = (sys.executable, "-c", "pass")
    bare = [
        ("true", "nothing around it", ("true",)),
        ("python", "python -c pass", python),
        ("run", "pinfold run -- true", (*pinfold, "run", "--", "true")),
        ("run-deny", "the same with --deny", (*pinfold, "run", *_RULE, "--", "true")),
        (
            "run-policy",
            "the same with --policy builtin:build",
            (*pinfold, "run", *_POLICY, "--", "true"),
        ),
    ]
    with _Warm() as warm:
        ways = [Way(name, what, partial(_started, argv)) for name, what, argv in bare]
        ways += [Way(name, what, partial(warm.run, name)) for name, what in WARM.items()]
        yield table(
            "start", "true", "starting `true`", ways, settings, unit="ms", reference="true", warm=2
        )


WARM: Final = {
    "warm-subprocess": "subprocess.run(['true'])",
    "warm": "Sandbox().run(['true'])",
    "warm-deny": "Sandbox(deny=…).run(['true'])",
    "warm-policy": "Sandbox(policy='builtin:build').run(['true'])",
}
"""What a warm process does, by the word that tells it to."""


def command() -> tuple[str, ...]:
    """Returns how ``pinfold`` is called: the script that was installed, if there is one."""
    script = os.path.join(os.path.dirname(sys.executable), "pinfold")
    if os.access(script, os.X_OK):
        return (script,)
    found = shutil.which("pinfold")
    return (found,) if found else (sys.executable, "-m", "pinfold")


def _started(argv: Sequence[str]) -> float:
    before = time.perf_counter_ns()
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    took = time.perf_counter_ns() - before
    if done.returncode:
        raise WrongError(f"{argv}: ended with {done.returncode}: {done.stderr}")
    return took / 1e6


class _Warm:
    # A warm process, which is told what to do.

    def __enter__(self) -> _Warm:
        self._cleanup = contextlib.ExitStack()
        process = self._cleanup.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "pinfold.bench.warm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._to: IO[str] = process.stdin
        self._back: IO[str] = process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        # Its input ends, and so does it.
        self._cleanup.close()

    def run(self, word: str) -> float:
        self._to.write(f"{word}\n")
        told = self._back.readline()
        if not told:
            raise WrongError(f"{word}: the warm process has ended")
        return float(told)
