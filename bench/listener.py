#!/usr/bin/env python3
"""What the ways of answering a listener cost, measured side by side in one run.

Each way has a child of its own, which opens and closes a file in a loop and takes the time; this
process answers its calls. The ways take turns, in another order each round, so that whatever else
the machine does falls on all of them. A ratio compares a way with `continue` in the same round.

Nothing is asserted about time. What is asserted is that the work was done: every call succeeded,
and every redirected register came back. See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pinfold import Listener
from pinfold.bench.answering import barely
from pinfold.linux import memfd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOURCE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openat_loop.c")
FILE: Final = b"/dev/null"
BAIT: Final = b"/pinfold/bench/no/such/file"
"""What a child opens whose calls are redirected: only the redirect makes it succeed."""
PIN_SIZE: Final = 4096
PINS_AT: Final = 0x1000_0000_0000
"""Far from where the kernel puts mappings by itself."""
MOST_PINS: Final = 30_000
"""In one process, of the 65,530 mappings that the kernel allows it by default."""
PATIENCE: Final = 60.0
REFERENCE: Final = "continue"


class Way(NamedTuple):
    """One way to have a call made."""

    name: str
    what: str
    redirects: bool
    """Whether the child opens :data:`BAIT`."""
    serve: Callable[[Target, str], Callable[[int], None]] | None
    """Returns what answers so many calls of a child; None where nobody has to."""


class Target:
    """A child that opens files when it is told to.

    Args:
        program: The built ``openat_loop.c``.
        way: How its calls are answered.
        backend: Back end of its Listener, where it has one.
    """

    def __init__(self, program: str, way: Way, backend: str) -> None:
        self.way = way
        self.listener = -1
        """Its listener, as long as nobody has taken it over."""
        self.backend = ""
        """Name of the back end, where one is in use."""
        self._channel, theirs = socket.socketpair()
        self._cleanup = contextlib.ExitStack()
        with theirs:
            command = [program, str(theirs.fileno()), BAIT if way.redirects else FILE]
            self._process = subprocess.Popen(
                [*command, "filter"] if way.serve else command, pass_fds=[theirs.fileno()]
            )
        self._serve: Callable[[int], None] | None = None
        try:
            self._channel.settimeout(PATIENCE)
            if way.serve:
                self.listener = self._receive_listener()
                self._serve = way.serve(self, backend)
        except BaseException:
            self.close()
            raise

    def _receive_listener(self) -> int:
        flags = socket.MSG_CMSG_CLOEXEC
        _, ancillary, _, _ = self._channel.recvmsg(1, socket.CMSG_SPACE(4), flags)
        if not ancillary:
            raise RuntimeError(f"{self.way.name}: the child could not install its filter")
        return int(struct.unpack("i", ancillary[0][2])[0])

    def keep(self, what: contextlib.AbstractContextManager[Any]) -> None:
        """Has something closed in the end."""
        self._cleanup.enter_context(what)

    def run(self, calls: int) -> float:
        """Returns the microseconds that one call took, on average over ``calls``.

        Raises:
            RuntimeError: Not every call did what it was to do.
        """
        self._channel.send(struct.pack("=I", calls))
        if self._serve is not None:
            self._serve(calls)
        answer = self._channel.recv(16)
        if len(answer) != 16:
            raise RuntimeError(f"{self.way.name}: the child ended before its calls did")
        nanoseconds, failed = struct.unpack("=QQ", answer)
        if failed:
            raise RuntimeError(f"{self.way.name}: {failed} of {calls} calls failed")
        return float(nanoseconds / calls / 1000)

    def close(self) -> None:
        """Ends the child."""
        self._process.kill()
        self._process.wait()
        self._cleanup.close()
        self._channel.close()
        if self.listener >= 0:
            os.close(self.listener)


class Pin(NamedTuple):
    """A sealed memfd that holds :data:`FILE`."""

    fd: int

    @staticmethod
    def make() -> Pin:
        """Returns a new one."""
        fd = memfd.create("pinfold-bench", PIN_SIZE)
        with mmap.mmap(fd, PIN_SIZE) as view:
            view[: len(FILE) + 1] = FILE + b"\0"
        memfd.seal(fd, memfd.PIN_SEALS)
        return Pin(fd)

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        os.close(self.fd)
        return False


def serve_raw(target: Target, _: str) -> Callable[[int], None]:
    """Returns what receives and continues calls with nothing in between: the floor in Python."""
    serve, _ = barely(target.listener)
    return serve


def listener_of(target: Target, backend: str) -> Listener:
    """Returns a Listener that is closed with its target."""
    listener = Listener(target.listener, backend)  # type: ignore[arg-type]
    target.listener = -1
    target.keep(listener)
    target.backend = listener.backend
    return listener


def serve_resume(target: Target, backend: str) -> Callable[[int], None]:
    """Returns what receives and continues calls through a Listener."""
    listener = listener_of(target, backend)

    def serve(calls: int) -> None:
        for _ in range(calls):
            listener.resume(listener.receive(PATIENCE).id)

    return serve


def serve_redirect(target: Target, backend: str) -> Callable[[int], None]:
    """Returns what redirects calls to a pin that is installed at the first of them."""
    listener = listener_of(target, backend)
    pin = Pin.make()
    target.keep(pin)
    installed = False

    def serve(calls: int) -> None:
        nonlocal installed
        for _ in range(calls):
            cookie = listener.receive(PATIENCE).id
            if not installed:
                listener.pin_install(cookie, pin.fd, PINS_AT, PIN_SIZE)
                installed = True
            listener.send_redirect(cookie, {1: PINS_AT}, {1: len(FILE) + 1})

    return serve


def serve_install(target: Target, backend: str) -> Callable[[int], None]:
    """Returns what installs a new pin for each call, and redirects the call to it."""
    listener = listener_of(target, backend)
    pin = Pin.make()
    target.keep(pin)
    address = PINS_AT

    def serve(calls: int) -> None:
        nonlocal address
        for _ in range(calls):
            cookie = listener.receive(PATIENCE).id
            listener.pin_install(cookie, pin.fd, address, PIN_SIZE)
            listener.send_redirect(cookie, {1: address}, {1: len(FILE) + 1})
            # With a gap, as neighbours could be merged.
            address += 2 * PIN_SIZE

    return serve


WAYS: Final = (
    Way("bare", "no filter, no supervisor", False, None),
    Way(REFERENCE, "RECV, SEND with CONTINUE, by bare ioctls", False, serve_raw),
    Way("resume", "Listener.receive, Listener.resume", False, serve_resume),
    Way("redirect", "Listener.receive, Listener.send_redirect", True, serve_redirect),
    Way("install", "the same with a new pin (pin_install) for each call", True, serve_install),
)


class Result(NamedTuple):
    """What one way cost: a number for each round."""

    way: Way
    microseconds: list[float]
    ratios: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Returns what ``--json`` prints of it."""
        return {
            "name": self.way.name,
            "what": self.way.what,
            "microseconds": spread(self.microseconds),
            "ratio": spread(self.ratios),
            "rounds": self.microseconds,
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median of some numbers, and how far they are from it."""
    if len(values) == 1:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "quartile_low": low,
        "quartile_high": high,
        "min": min(values),
        "max": max(values),
    }


def measure(targets: Sequence[Target], options: argparse.Namespace) -> list[Result]:
    """Returns what each way cost in each round."""
    times: dict[str, list[float]] = {target.way.name: [] for target in targets}
    order = list(targets)
    shuffle = random.Random(options.rounds)  # noqa: S311 (a play of dice, not a secret)
    for number in range(options.rounds + 1):
        shuffle.shuffle(order)
        for target in order:
            calls = options.installs if target.way.name == "install" else options.calls
            took = target.run(calls)
            if number:  # The first round warms up: it starts the tracers, and installs the pins.
                times[target.way.name].append(took)
    results = []
    for way in WAYS:
        series = times[way.name]
        pairs = zip(series, times[REFERENCE], strict=True)
        results.append(Result(way, series, [one / other for one, other in pairs]))
    return results


@contextlib.contextmanager
def started(backend: str, ways: Sequence[Way] = WAYS) -> Iterator[list[Target]]:
    """Builds the program and starts a child for each way; they are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pinfold-bench-") as directory:
        program = os.path.join(directory, "openat_loop")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, SOURCE], check=True)
        targets: list[Target] = []
        try:
            for way in ways:
                targets.append(Target(program, way, backend))  # noqa: PERF401 (each is closed)
            yield targets
        finally:
            for target in targets:
                target.close()


def table(results: Sequence[Result]) -> str:
    """Returns the results as text."""
    rows = [
        ("", "microseconds", "", "", f"ratio to {REFERENCE}", ""),
        ("", "median", "middle half", "range", "median", "middle half"),
    ]
    for result in results:
        time, ratio = spread(result.microseconds), spread(result.ratios)
        rows.append(
            (
                result.way.name,
                f"{time['median']:.1f}",
                between(time, 1),
                f"{time['min']:.1f}-{time['max']:.1f}",
                f"{ratio['median']:.2f}",
                between(ratio, 2),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def between(of: dict[str, float], digits: int) -> str:
    """Returns the middle half as text."""
    return f"{of['quartile_low']:.{digits}f}-{of['quartile_high']:.{digits}f}"


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options, or leaves with an explanation."""
    parser = argparse.ArgumentParser(description="What the ways of answering a listener cost.")
    parser.add_argument("--rounds", type=positive, default=20, help="rounds (%(default)s)")
    parser.add_argument(
        "--calls", type=positive, default=500, help="calls a way and round (%(default)s)"
    )
    parser.add_argument(
        "--installs", type=positive, default=50, help="the same for `install` (%(default)s)"
    )
    parser.add_argument("--backend", choices=("auto", "native", "interrupt"), default="auto")
    parser.add_argument("--cpu", type=int, help="put everything on this one CPU")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(words)
    if (options.rounds + 1) * options.installs > MOST_PINS:
        parser.error(f"(rounds + 1) * installs may be {MOST_PINS} at most: pins stay mapped")
    return options


def positive(text: str) -> int:
    """Returns a number of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is less.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main(words: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    options = parsed(words)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    with started(options.backend) as targets:
        results = measure(targets, options)
        backend = next(target.backend for target in targets if target.backend)
    about = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "backend": backend,
        "rounds": options.rounds,
        "calls": options.calls,
        "installs": options.installs,
    }
    if options.json:
        text = json.dumps(about | {"ways": [result.as_dict() for result in results]}, indent=2)
    else:
        facts = ", ".join(f"{name} {value}" for name, value in about.items())
        whats = "\n".join(f"{result.way.name:>8}  {result.way.what}" for result in results)
        text = f"{facts}\n\nper openat + close:\n{table(results)}\n\n{whats}"
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
