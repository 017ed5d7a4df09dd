#!/usr/bin/env python3
"""How pinfold bears many tasks in one sandbox, many sandboxes at one time, and a fork bomb.

    load.py tasks      1,000 processes, and 2,000 threads, that all make judged calls
    load.py cost       what one judged call costs among 1, 10, 100 and 1,000 tasks
    load.py sandboxes  100 sandboxes at one time: threads, an event loop, `pinfold run`
    load.py bomb       fork bombs under a limit of tasks, and a neighbour meanwhile

Every program checks what comes of its calls: what is allowed works, what is mapped leads elsewhere,
what is denied fails. No time is asserted. What is: all of that, that everything ends, and that no
descriptor, thread or process is left. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from load_support import PATIENCE, Sample, Stage, positive, sample

from pinfold import Sandbox
from pinfold.launch.spawn import Command
from pinfold.policy.model import Limits as Bounds
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.session import Limits, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pinfold.life import Outcome

PERIOD: Final = 0.1
"""Seconds between two looks at what this process holds."""
TICK: Final = 0.01
"""Seconds that the event loop is asked to sleep for, to see how late it is."""
FILES: Final = 1024
"""The usual RLIMIT_NOFILE, which 100 sandboxes in one process have to do with."""
NOBODY: Final = 65534

Report = dict[str, Any]


class WrongError(Exception):
    """Something did not come as it had to."""


class Shape(NamedTuple):
    """What ``load_tasks.c`` is told."""

    processes: int
    threads: int
    rounds: int
    execs: int = 0

    def argv(self, stage: Stage) -> list[str]:
        """Returns the command."""
        return [stage.program, stage.directory, *map(str, self)]


class Run:
    """A command in a sandbox of this process, with its standard output.

    Args:
        stage: Where it runs, and its rules.
        argv: The command.
        bounds: Its limits.
    """

    def __init__(self, stage: Stage, argv: Sequence[str], bounds: Bounds | None = None) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 (closed by ``result``)
        maps = [f"{source}={target}".encode() for source, target in stage.maps().items()]
        with open(os.devnull, "r+b") as nothing:
            self._session = Session(
                Command(
                    tuple(map(os.fsencode, argv)),
                    {os.fsencode(k): os.fsencode(v) for k, v in stage.environment().items()},
                    os.fsencode(stage.directory),
                    (nothing.fileno(), self._out.fileno(), nothing.fileno()),
                    close_others=True,
                ),
                PathRules(
                    [parse_map(text, b"") for text in maps],
                    [parse_deny(os.fsencode(glob)) for glob in stage.denied()],
                ),
                Limits(),
                bounds=bounds or Bounds(),
            )
            self._session.start()
            self._session.launched.wait()

    def over(self, seconds: float) -> bool:
        """Waits so long at most, and returns whether it has ended."""
        return self._session.join(seconds)

    def kill(self) -> None:
        """Ends it."""
        self._session.kill()

    def result(self) -> tuple[Outcome, str]:
        """Returns how it ended and what it wrote.

        Raises:
            PinfoldError: The sandbox had to be killed.
        """
        outcome = self._session.result()
        with self._out:
            self._out.seek(0)
            return outcome, self._out.read().decode()


def numbers(text: str) -> dict[str, int]:
    """Returns what ``load_tasks.c`` printed.

    Raises:
        WrongError: It printed nothing, or that something went wrong.
    """
    found = {key: int(value) for key, _, value in (word.partition("=") for word in text.split())}
    if found.get("wrong") != 0:
        raise WrongError(f"not every call did what it had to: {text!r}")
    return found


def measured(stage: Stage, shape: Shape) -> Report:
    """Runs a program of many tasks and returns what it did and what that took."""
    before = sample(os.getpid())
    began = time.process_time()
    run = Run(stage, shape.argv(stage))
    held = [before]
    end = time.monotonic() + PATIENCE * 5
    while not run.over(PERIOD):
        held.append(sample(os.getpid()))
        if time.monotonic() > end:
            run.kill()
            raise WrongError(f"{shape} hangs")
    cpu = time.process_time() - began
    outcome, text = run.result()
    after = settled(before)
    found = numbers(text)
    check_equal("tasks", shape.processes * shape.threads + 1, found["tasks"])
    check_equal("exit status", 0, outcome.status)
    seconds = found["nanoseconds"] / 1e9
    return {
        **shape._asdict(),
        "most_tasks": outcome.most,
        "calls": found["calls"],
        "judged": outcome.trapped,
        "seconds": round(seconds, 4),
        "judged_a_second": round(outcome.trapped / seconds),
        "cpu_us_a_call": round(cpu / outcome.trapped * 1e6, 1),
        "rss_mib": _through(before, held, after, lambda one: round(one.rss / 1048576, 1)),
        "descriptors": _through(before, held, after, lambda one: one.descriptors),
    }


def _through(
    before: Sample, held: Sequence[Sample], after: Sample, what: Callable[[Sample], float]
) -> list[float]:
    return [what(before), max(map(what, held)), what(after)]


def settled(before: Sample) -> Sample:
    """Returns what this process holds when it is back to that, apart from memory.

    Raises:
        WrongError: It never is.
    """
    end = time.monotonic() + PATIENCE
    while True:
        after = sample(os.getpid())
        # A thread that was joined may still be on its way out of the kernel.
        if after[2:] == before[2:]:
            return after
        if time.monotonic() > end:
            raise WrongError(f"{after} is left of {before}")
        os.sched_yield()


def check_equal(what: str, wanted: object, found: object) -> None:
    """Compares two things that have to be the same.

    Raises:
        WrongError: They are not.
    """
    if wanted != found:
        raise WrongError(f"{what}: {found} instead of {wanted}")


def tasks(stage: Stage, options: argparse.Namespace) -> list[Report]:
    """Many processes, many threads, both, and programs executed meanwhile."""
    processes, threads, rounds = options.processes, options.threads, options.rounds
    spread = max(1, threads // 50)
    shapes = (
        Shape(processes, 1, rounds),
        Shape(processes, 1, max(2, rounds // 4), 2),
        Shape(1, threads, rounds),
        Shape(spread, threads // spread, rounds),
        Shape(spread, threads // spread, max(1, rounds // 4), 1),
    )
    return [measured(stage, shape) for shape in shapes]


def cost(stage: Stage, options: argparse.Namespace) -> list[Report]:
    """The same number of calls, made by more and more tasks."""
    measured(stage, Shape(1, 1, 10))  # What is imported and built at first use is not their cost.
    sizes = [size for size in (1, 10, 100, 1000) if size <= options.processes]
    total = options.rounds * max(sizes)
    shapes = [
        shape
        for size in sizes
        for shape in (Shape(size, 1, total // size), Shape(1, size, total // size))
    ]
    return [measured(stage, shape) for shape in dict.fromkeys(shapes)]


# Each of many sandboxes waits for a line before its program begins, so that all are there at once.
_WAITING: Final = 'read -r _ && exec "$@"'
_SMALL: Final = Shape(3, 2, 10, 1)


def sandboxes(stage: Stage, options: argparse.Namespace) -> list[Report]:
    """Many sandboxes at one time, in three ways."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, soft), hard))
    command = ["sh", "-c", _WAITING, "sh", *_SMALL.argv(stage)]
    ways: dict[str, Callable[[Stage, list[str], int], Report]] = {
        "threads": in_threads,
        "asyncio": in_a_loop,
        "processes": in_processes,
    }
    found = []
    for name, way in ways.items():
        before = sample(os.getpid())
        began = time.monotonic()
        report = way(stage, command, options.count)
        seconds = time.monotonic() - began
        settled(before)
        found.append({"way": name, "sandboxes": options.count, "seconds": round(seconds, 2)})
        found[-1] |= report
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return found


def in_threads(stage: Stage, command: list[str], count: int) -> Report:
    """One thread for each sandbox."""
    box = Sandbox(map=stage.maps(), deny=stage.denied())
    all_there = threading.Barrier(count, timeout=PATIENCE)
    texts: list[str] = []
    failures: list[BaseException] = []
    most = []

    def one() -> None:
        try:
            with box.popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=stage.directory,
                env=stage.environment(),
            ) as process:
                if all_there.wait() == 0:
                    most.append(sample(os.getpid()))
                texts.append(process.communicate("go\n", PATIENCE)[0])
        except BaseException as error:  # noqa: BLE001 (told below)
            all_there.abort()
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        if not isinstance(failure, threading.BrokenBarrierError):
            raise failure
    check_all(texts, count)
    return _at_once(most[0])


def in_a_loop(stage: Stage, command: list[str], count: int) -> Report:
    """All of them in one event loop."""
    return asyncio.run(_in_a_loop(stage, command, count))


async def _in_a_loop(stage: Stage, command: list[str], count: int) -> Report:
    box = Sandbox(map=stage.maps(), deny=stage.denied())
    # While sandboxes start, and after that.
    phases: list[list[float]] = [[]]

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            late = phases[-1]
            before = loop.time()
            await asyncio.sleep(TICK)
            late.append(loop.time() - before - TICK)

    ticking = asyncio.create_task(tick())
    processes = await asyncio.gather(
        *(
            box.popen_async(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=stage.directory,
                env=stage.environment(),
            )
            for _ in range(count)
        )
    )
    most = sample(os.getpid())
    phases.append([])
    texts = await asyncio.wait_for(
        asyncio.gather(*(_spoken(process.communicate(b"go\n")) for process in processes)), PATIENCE
    )
    ticking.cancel()
    check_all(texts, count)
    return _at_once(most) | {
        name: {
            "median": round(statistics.median(late) * 1000, 1),
            "most": round(max(late) * 1000, 1),
        }
        for name, late in zip(("late_starting_ms", "late_working_ms"), phases, strict=True)
        # None where it was all over within one tick.
        if late
    }


async def _spoken(exchange: Awaitable[tuple[bytes | None, bytes | None]]) -> str:
    out, _ = await exchange
    return (out or b"").decode()


def in_processes(stage: Stage, command: list[str], count: int) -> Report:
    """A ``pinfold run`` for each."""
    pinfold = [sys.executable, "-m", "pinfold", "run", *stage.options(), "--"]
    processes = [
        subprocess.Popen(
            [*pinfold, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=stage.directory,
            env=stage.environment(),
        )
        for _ in range(count)
    ]
    try:
        texts = [process.communicate("go\n", PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    check_all(texts, count)
    return {}


def check_all(texts: Sequence[str], count: int) -> None:
    """Looks at what every sandbox's program has said.

    Raises:
        WrongError: One of them is not content, or silent.
    """
    check_equal("answers", count, len(texts))
    for text in texts:
        numbers(text)


def _at_once(held: Sample) -> Report:
    return {
        "descriptors": held.descriptors,
        "threads": held.threads,
        "rss_mib": round(held.rss / 1048576, 1),
    }


def bomb(stage: Stage, options: argparse.Namespace) -> list[Report]:
    """Fork bombs, each until its time is up, and another sandbox of this process meanwhile."""
    most = 4 * options.limit
    bombs = {
        "C": f"exec {stage.bomb} {most}",
        "shell": "bomb() { while :; do bomb | bomb & done; }; bomb & exec sleep 600",
    }
    bounds = Bounds(tasks=options.limit, seconds=float(options.seconds))
    neighbour = Shape(1, 1, options.rounds)
    alone = measured(stage, neighbour)
    found = []
    for name, text in bombs.items():
        # A second bound, in case the first one does not hold: it counts for nobody, not for root.
        script = f"ulimit -u 2000; {text}"
        run = Run(stage, [*_as_nobody(), "sh", "-c", script], bounds)
        beside, spoken = Run(stage, neighbour.argv(stage)).result()
        if run.over(0):
            raise WrongError(f"{name}: it was over before its neighbour")
        outcome, _ = run.result()
        left = _left(stage)
        if left:
            raise WrongError(f"{name}: left running: {left}")
        if not outcome.timed_out or not options.limit // 2 < outcome.most <= options.limit:
            raise WrongError(f"{name}: {outcome}")
        nanoseconds = numbers(spoken)["nanoseconds"]
        found.append(
            {
                "bomb": name,
                "limit": options.limit,
                "most_tasks": outcome.most,
                "neighbour_us_a_call": round(nanoseconds / 1000 / beside.trapped, 1),
                "alone_us_a_call": round(alone["seconds"] * 1e6 / alone["judged"], 1),
            }
        )
    return found


def _as_nobody() -> Sequence[str]:
    if os.geteuid():
        return ()
    ids = str(NOBODY)
    return ("setpriv", "--reuid", ids, "--regid", ids, "--clear-groups", "--")


def _left(stage: Stage) -> list[int]:
    # Whoever still works in that directory.
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            where = os.readlink(f"/proc/{entry}/cwd")
        except OSError:
            continue
        if where == stage.directory:
            found.append(int(entry))
    return found


LOADS: Final = {"tasks": tasks, "cost": cost, "sandboxes": sandboxes, "bomb": bomb}


def table(reports: Sequence[Report]) -> str:
    """Returns reports as text: a line each, under the names of what is in them."""
    names = list(dict.fromkeys(name for report in reports for name in report))
    rows = [names, *([_cell(report.get(name)) for name in names] for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "/".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options, or leaves with an explanation."""
    parser = argparse.ArgumentParser(description="How pinfold bears load.")
    parser.add_argument("load", choices=[*LOADS, "all"])
    parser.add_argument("--processes", type=positive, default=1000, help="(%(default)s)")
    parser.add_argument("--threads", type=positive, default=2000, help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=positive, default=20, help="three calls each (%(default)s)"
    )
    parser.add_argument("--count", type=positive, default=100, help="sandboxes (%(default)s)")
    parser.add_argument("--limit", type=positive, default=64, help="of a bomb (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=10, help="of a bomb (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Loads and prints; returns the exit status."""
    options = parsed(words)
    reports: dict[str, list[Report]] = {}
    with tempfile.TemporaryDirectory(prefix="pinfold-load-") as directory:
        stage = Stage(directory)
        for name in LOADS if options.load == "all" else (options.load,):
            reports[name] = LOADS[name](stage, options)
            if not options.json:
                sys.stdout.write(f"{name}\n{table(reports[name])}\n\n")
                sys.stdout.flush()
    about = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
    }
    if options.json:
        sys.stdout.write(json.dumps(about | reports, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
