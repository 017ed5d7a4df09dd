#!/usr/bin/env python3
"""A mixed load, over and over: what a supervisor holds must not grow with what it has done.

Two ways: `supervisor` is one `pinfold run` that lives as long as the soak, with a shell in it that
does everything again and again; `host` is one process that has a new sandbox for each command, one
after another, thousands of them. A third, `log`, is `supervisor` with an audit log.

At the end of each round, when nothing but the shell is there (or no sandbox at all), memory, open
descriptors, threads and child processes are counted. The second half of the rounds is compared with
the first: memory may have grown by 5 % and 1 MiB, everything else not at all. See
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from load_support import Sample, Stage, outlast, positive, sample

from pinfold import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS: Final = {
    "pipeline": "test \"$(printf 'b\\na\\nb\\n' | sort | uniq | wc -l)\" = 2",
    "python": "test \"$(python3 -I -c 'import json; print(json.dumps([1]))')\" = '[1]'",
    "threads": "python3 -I -c '"
    "import threading, os\n"
    'threads = [threading.Thread(target=os.stat, args=("/",)) for _ in range(20)]\n'
    "for thread in threads: thread.start()\n"
    "for thread in threads: thread.join()'",
    "git": 'test -z "$(git -C repository status --porcelain)"',
    "search": 'test "$(find tree -type f | xargs grep -l needle | wc -l)" = 10',
    "make": 'make -s -C sources clean && make -s -j2 -C sources && test "$(sources/program)" = 15',
    "tasks": './load_tasks "$PWD" 4 4 10 2 >/dev/null',
    "signals": 'test "$(sh -c \'n=0; trap "n=\\$((n+1))" USR1;'
    " for i in 1 2 3 4 5 6 7 8 9; do kill -USR1 $$; done; echo $n')\" = 9",
    "stopped": "sleep 60 & kill -STOP $! && kill -CONT $! && kill $!"
    " && { wait $! 2>/dev/null || test $? = 143; }",
    "fifo": "mkfifo pipe && { cat pipe >got & echo x >pipe; wait; } && rm pipe && test -s got",
    "refused": "! cat denied 2>/dev/null && ! mount -t tmpfs none tree 2>/dev/null",
}
"""What is done in each round. Each part says by its status whether everything came as it should."""

KINDS: Final = ("supervisor", "log", "host")
GROWTH: Final = 0.05
SLACK: Final = 1 << 20
LEAST: Final = 4
"""Rounds, however long they take."""


class Verdict(NamedTuple):
    """What became of one soak."""

    kind: str
    seconds: float
    samples: list[Sample]
    failures: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns what ``--json`` prints of it."""
        first, second = self.halves()
        return {
            "kind": self.kind,
            "seconds": round(self.seconds, 1),
            "rounds": len(self.samples),
            "start": self.samples[0]._asdict(),
            "end": self.samples[-1]._asdict(),
            "first_half": _summary(first),
            "second_half": _summary(second),
            "slope_bytes_an_hour": round(slope(self.samples)),
            "failures": self.failures,
        }

    def halves(self) -> tuple[list[Sample], list[Sample]]:
        """Returns the samples of the first half and those of the second."""
        middle = len(self.samples) // 2
        return self.samples[:middle], self.samples[middle:]


def slope(samples: Sequence[Sample]) -> float:
    """Returns by how many bytes memory grows in an hour, as a straight line through all samples."""
    if len({one.at for one in samples}) < LEAST:
        return 0.0
    line = statistics.linear_regression([one.at for one in samples], [one.rss for one in samples])
    return line.slope * 3600


def judged(kind: str, seconds: float, samples: list[Sample]) -> Verdict:
    """Returns a verdict on what was counted."""
    verdict = Verdict(kind, seconds, samples, [])
    first, second = map(_summary, verdict.halves())
    most = first["rss"] * (1 + GROWTH) + SLACK
    if second["rss"] > most:
        verdict.failures.append(f"memory: {second['rss']:.0f} bytes after {first['rss']:.0f}")
    for name in ("descriptors", "threads", "children"):
        if first[name] != second[name]:
            verdict.failures.append(f"{name}: {second[name]} after {first[name]}")
    return verdict


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "rss": statistics.mean(one.rss for one in samples),
        "descriptors": max(one.descriptors for one in samples),
        "threads": max(one.threads for one in samples),
        "children": max(one.children for one in samples),
    }


def rounds(seconds: float) -> Iterator[None]:
    """Yields for each round: for so long, and as many as can be compared at least."""
    end = time.monotonic() + seconds
    done = 0
    while done < LEAST or time.monotonic() < end:
        yield
        done += 1


def of_supervisor(stage: Stage, seconds: float, log: str | None) -> Iterator[Sample]:
    """Yields what a ``pinfold run`` holds, at the end of each round of the shell in it.

    Raises:
        RuntimeError: A part of a round went wrong.
    """
    parts = "\n".join(f"({text}) || exec echo {name}" for name, text in PARTS.items())
    script = f"while read -r _; do\n{parts}\necho done\ndone\n"
    command = [sys.executable, "-m", "pinfold", "run", "--inspect", "all", *stage.options()]
    if log is not None:
        command += ["--audit", log]
    with subprocess.Popen(
        [*command, "--", "sh", "-c", script],
        cwd=stage.directory,
        env=stage.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in rounds(seconds):
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if answer != "done\n":
                process.kill()
                raise RuntimeError(f"this part of the load went wrong: {answer!r}")
            yield sample(process.pid)
        process.stdin.close()
        if process.wait(outlast(seconds)):
            raise RuntimeError(f"pinfold ended with {process.returncode}")


def of_host(stage: Stage, seconds: float) -> Iterator[Sample]:
    """Yields what this process holds, at the end of each round: a sandbox for each part.

    Raises:
        RuntimeError: A part of a round went wrong.
    """
    box = Sandbox(map=stage.maps(), deny=stage.denied(), inspect="all")
    for _ in rounds(seconds):
        for name, text in PARTS.items():
            done = box.run(
                ["sh", "-c", text],
                cwd=stage.directory,
                env=stage.environment(),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"{name} went wrong: {done.returncode}, {done.stderr}")
        held = sample(os.getpid())
        while held.threads > threading.active_count():
            # One that was joined may still be on its way out of the kernel.
            os.sched_yield()
            held = sample(os.getpid())
        yield held


def soak(kind: str, stage: Stage, seconds: float) -> Verdict:
    """Does one soak and returns what became of it."""
    began = time.monotonic()
    if kind == "host":
        samples = list(of_host(stage, seconds))
    else:
        samples = list(of_supervisor(stage, seconds, os.devnull if kind == "log" else None))
    return judged(kind, time.monotonic() - began, samples)


def shown(verdict: Verdict) -> str:
    """Returns a verdict as text."""
    found = verdict.as_dict()
    lines = [f"{verdict.kind}: {found['rounds']} rounds in {found['seconds']} s"]
    for name in ("start", "end", "first_half", "second_half"):
        one = found[name]
        lines.append(
            f"  {name:12} {one['rss'] / 1048576:7.2f} MiB  {one['descriptors']} descriptors"
            f"  {one['threads']} threads  {one['children']} children"
        )
    lines.append(f"  slope        {found['slope_bytes_an_hour'] / 1048576:7.2f} MiB an hour")
    lines += [f"  failed: {text}" for text in verdict.failures] or ["  constant"]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Soaks and prints; returns the exit status: 1 when something grew."""
    parser = argparse.ArgumentParser(description="A mixed load, over and over.")
    parser.add_argument("--seconds", type=positive, default=20, help="of each kind (%(default)s)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="all if it is left out")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(words)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="pinfold-soak-") as directory:
        stage = Stage(directory)
        stage.furnish()
        verdicts = [soak(kind, stage, options.seconds) for kind in options.kind or KINDS]
    about = {"kernel": platform.release(), "cpus": len(os.sched_getaffinity(0))}
    if options.json:
        text = json.dumps(about | {"soaks": [one.as_dict() for one in verdicts]}, indent=2)
    else:
        text = "\n".join(map(shown, verdicts))
    sys.stdout.write(text + "\n")
    return int(any(one.failures for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())
