"""Programs that open and close files when they are told to, and whoever answers them.

They are in C (``bench/floors``), take the time themselves, and count the calls that did not end as
they had to. A file that is named ``BAIT`` is nowhere: only a redirect makes its opening succeed.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.bench import programs
from pinfold.bench.measure import WrongError
from pinfold.launch.spawn import Command
from pinfold.linux.process import take_descriptor
from pinfold.sandbox import PIPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pinfold.life import Outcome
    from pinfold.sandbox import Sandbox
    from pinfold.session import Session

FILE: Final = "/dev/null"
BAIT: Final = "/pinfold/bench/no/such/file"
"""What a program opens whose calls are redirected to ``FILE``."""
PATIENCE: Final = 150.0
"""Seconds after which an answer counts as never coming; the programs give up before that."""

_COUNT: Final = struct.Struct("=I")
_ANSWER: Final = struct.Struct("=QQ")


@contextlib.contextmanager
def placed(cpus: frozenset[int]) -> Iterator[None]:
    """Keeps this thread, and whatever it starts, on some CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Started(NamedTuple):
    """A program that waits to be told how many calls to make."""

    to: int
    """Descriptor of its input."""
    back: int
    """Descriptor of its output."""
    end: Callable[[int], None]
    """Ends it, and looks whether as many calls were dealt with as were made."""
    pid: int
    serve: Callable[[int], None] | None = None
    """Answers so many calls, where that is ours to do."""


class Loop:
    """A program that was started on some CPUs, with all that answers it.

    Args:
        name: For messages.
        cpus: Where it all is.
        start: Starts it.
        share: How many calls it makes in all for each that it is told to make.
    """

    def __init__(
        self, name: str, cpus: frozenset[int], start: Callable[[], Started], share: int = 1
    ) -> None:
        self._name = name
        self._cpus = cpus
        self._share = share
        self._made = 0
        with placed(cpus):
            self._started = start()

    def run(self, calls: int) -> float:
        """Has so many calls made by each of its tasks; returns the microseconds one of all took.

        Raises:
            WrongError: Not every call did what it was to do.
        """
        started = self._started
        with placed(self._cpus):
            try:
                os.write(started.to, _COUNT.pack(calls))
            except BrokenPipeError:
                raise WrongError(f"{self._name}: the program has ended") from None
            if started.serve is not None:
                started.serve(calls)
            nanoseconds, wrong = answer(self._name, started.back)
        if wrong:
            raise WrongError(f"{self._name}: {wrong} calls did not end as they had to")
        self._made += calls * self._share
        return nanoseconds / 1000 / (calls * self._share)

    def close(self) -> None:
        """Ends the program.

        Raises:
            WrongError: It did not end well, or calls passed by whoever had to answer them.
        """
        self._started.end(self._made)


def answer(name: str, back: int) -> tuple[int, int]:
    """Returns the two numbers that a program answers with.

    Raises:
        WrongError: It has ended, or takes too long.
    """
    poll = select.poll()
    poll.register(back, select.POLLIN)
    if not poll.poll(PATIENCE * 1000):
        raise WrongError(f"{name}: no answer within {PATIENCE:g} s")
    got = os.read(back, _ANSWER.size)
    if len(got) != _ANSWER.size:
        raise WrongError(f"{name}: the program ended before its calls did")
    first, second = _ANSWER.unpack(got)
    return first, second


def words(program: str, *given: str) -> list[str]:
    """Returns the command line of one of the programs.

    Raises:
        UnsupportedError: It cannot be built.
    """
    return [os.fspath(programs.build(program)), *given]


def alone(argv: Sequence[str], cwd: str | None = None) -> Started:
    """Starts a program that nobody of ours answers."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd)
    assert process.stdin is not None
    assert process.stdout is not None

    def end(_made: int) -> None:
        with process:
            process.kill()

    return Started(process.stdin.fileno(), process.stdout.fileno(), end, process.pid)


def boxed(
    box: Sandbox,
    argv: Sequence[str],
    cwd: str | None = None,
    *,
    redirected: bool = False,
    denied: bool = False,
) -> Started:
    """Starts a program in a sandbox, as anybody does who uses ``pinfold.Sandbox``.

    Args:
        box: Which.
        argv: The program.
        cwd: Its working directory.
        redirected: Whether all its calls are to be redirected.
        denied: Whether all are to be denied.
    """
    process = box.popen(argv, stdin=PIPE, stdout=PIPE, cwd=cwd)
    assert process.stdin is not None
    assert process.stdout is not None

    def end(made: int) -> None:
        process.communicate(timeout=PATIENCE)
        run = process.result()
        if run.returncode or run.redirected < made * redirected or run.denied < made * denied:
            raise WrongError(
                f"{argv}: of {made} calls {run.redirected} were redirected and {run.denied} denied;"
                f" it ended with {run.returncode}"
            )

    return Started(process.stdin.fileno(), process.stdout.fileno(), end, process.pid)


def in_session(
    make: Callable[[Command], Session], argv: Sequence[str], *, redirected: bool
) -> Started:
    """Starts a program in a session of some kind.

    Args:
        make: Makes the session.
        argv: The program.
        redirected: Whether all its calls are to be redirected.
    """
    ours, back = os.pipe(), os.pipe()
    streams = (ours[0], back[1], 2)
    session = make(Command(tuple(map(os.fsencode, argv)), dict(os.environb), streams=streams))
    try:
        session.start()
        session.started.wait()
    finally:
        os.close(ours[0])
        os.close(back[1])

    def end(made: int) -> None:
        os.close(ours[1])
        try:
            if not session.join(PATIENCE):
                session.kill()
            _check(argv, session.result(), made, redirected=redirected)
        finally:
            os.close(back[0])

    return Started(ours[1], back[0], end, session.pid)


def _check(argv: Sequence[str], outcome: Outcome, made: int, *, redirected: bool) -> None:
    if outcome.status or outcome.trapped < made or outcome.redirected < made * redirected:
        raise WrongError(f"{argv}: {made} calls, ended as {outcome}")


def listened(
    argv: Sequence[str], serve: Callable[[int], tuple[Callable[[int], None], Callable[[], None]]]
) -> Started:
    """Starts a program under a filter of its own, whose listener is ours to answer.

    Args:
        argv: The program, with ``listen``.
        serve: Given the listener, which it owns from then on; returns what answers so many calls,
            and what closes all that it has.

    Raises:
        WrongError: The program could not install its filter.
        OSError: Its listener may not be fetched.
    """
    begun = alone(argv)
    with contextlib.ExitStack() as failed:
        failed.callback(begun.end, 0)
        number, _ = answer(argv[0], begun.back)
        pidfd = os.pidfd_open(begun.pid)
        try:
            listener = take_descriptor(pidfd, number)
        finally:
            os.close(pidfd)
        serving, close = serve(listener)
        failed.pop_all()

    def end(made: int) -> None:
        try:
            begun.end(made)
        finally:
            close()

    return begun._replace(end=end, serve=serving)
