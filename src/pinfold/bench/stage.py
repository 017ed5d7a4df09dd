"""What each stage of a trapped call costs, found out in two ways.

*Built up*: one supervisor after the other does one thing more than the last, from nothing but a
wait and a resumption up to all that pinfold does. The differences are what the stages cost where
they are: with cold caches, between two switches. The first ones decide nothing, so what they
supervise is our own program, and it opens a file that it may open.

*Repeated*: a task is stopped at its call, and each function of the pipeline is called on it over
and over. That is what the function costs by itself, with everything in the caches.

Both see calls that were judged before, as nearly all calls of a program are; the long way of a new
one is among the repeated.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from pinfold.arch.x86_64 import ORIG_RAX, RSI
from pinfold.bench.call import TwoStops
from pinfold.bench.loops import FILE, Loop, alone, in_session, words
from pinfold.bench.measure import Settings, Table, Way, table
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from pinfold.supervisor.loop import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.backends.kept import Kept
    from pinfold.bench.loops import Started
    from pinfold.launch.spawn import Command
    from pinfold.tracee.task import Task

CALLS: Final = 400
"""In one turn, built up."""
REPEATS: Final = 2000
"""In one turn, repeated."""
_BEFORE: Final = 100
"""Calls that are dealt with as usual at first: with them all is pinned and judged."""


class _Partly(Supervisor):
    """Deals with calls as ever at first, and then in some way of its own."""

    _left = _BEFORE

    def _trapped(self, task: Task) -> None:
        if self._left:
            self._left -= 1
            super()._trapped(task)
            return
        self.trapped += 1
        if task.flight is not None:
            # The last of the usual ones: it is over.
            self._backend.landed(task, task.load())
        self._step(task)

    def _step(self, task: Task) -> None:
        raise NotImplementedError


class _Trap(_Partly):
    def _step(self, task: Task) -> None:
        task.resume()


class _Registers(_Partly):
    def _step(self, task: Task) -> None:
        task.load()
        task.resume()


class _Read(_Partly):
    def _step(self, task: Task) -> None:
        registers = task.load()
        kept: Kept = task.kept
        start = kept.start
        kept.find(b"\0", start, start + kept.read(registers[RSI]))
        task.resume()


class _Judge(_Partly):
    def _step(self, task: Task) -> None:
        found = self._quick.find(task, task.load())
        assert found is not None
        task.resume()


class _Live(_Partly):
    def _step(self, task: Task) -> None:
        found = self._quick.find(task, task.load())
        assert found is not None
        assert self._backend.holds(task)
        task.resume()


class _Store(_Partly):
    def _step(self, task: Task) -> None:
        registers = task.load()
        found = self._quick.find(task, registers)
        assert found is not None
        assert self._backend.holds(task)
        task.store(registers)
        task.resume()


_STEPS: Final = (
    ("trap", "Python: wait, resume", _Trap),
    ("registers", "… and the registers are read", _Registers),
    ("read", "… and the path is copied to the slot", _Read),
    ("judge", "… and looked up with its verdict", _Judge),
    ("live check", "… and the kernel is asked what is mapped at the slot", _Live),
    ("write", "… and the registers are written", _Store),
)


class _Repeated(_Partly):
    """Calls one function over and over, on a task that is stopped at its call."""

    times: ClassVar[int]
    took: ClassVar[float]
    """Microseconds, of one of them."""

    def _step(self, task: Task) -> None:
        task.load()
        function = self._function(task)
        before = time.perf_counter_ns()
        for _ in range(self.times):
            function()
        after = time.perf_counter_ns()
        type(self).took = (after - before) / 1000 / self.times
        task.resume()

    def _function(self, task: Task) -> Callable[[], object]:
        raise NotImplementedError


class _Load(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return task.load


class _Copy(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return partial(task.kept.read, task.registers[RSI])


class _Find(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return partial(self._quick.find, task, task.registers)


class _Ask(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return partial(self._backend.holds, task)


class _Write(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return partial(task.store, task.registers)


class _Poke(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        return partial(task.poke, RSI, task.registers[RSI])


class _Decide(_Repeated):
    def _function(self, task: Task) -> Callable[[], object]:
        kept: Kept = task.kept
        shape = self._shapes[task.registers[ORIG_RAX]]
        return partial(self._engine.decide, task, shape, kept.slot, kept.address)


_FUNCTIONS: Final = (
    ("read registers", "PTRACE_GETREGS", _Load),
    ("read path", "process_vm_readv", _Copy),
    ("judge again", "the path is read, and its verdict found", _Find),
    ("live check", "PROCMAP_QUERY", _Ask),
    ("write registers", "PTRACE_SETREGS", _Write),
    ("write one register", "PTRACE_POKEUSER", _Poke),
    ("judge", "the long way: read, resolved, judged, planned", _Decide),
)


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what the stages of a call cost, in both ways.

    Raises:
        UnsupportedError: There is no compiler, or no tracing.
        WrongError: The work was not done.
    """
    yield _built_up(settings)
    yield _repeated(settings)


def _built_up(settings: Settings) -> Table:
    argv = words("loop", FILE)
    starts: list[tuple[str, str, Callable[[], Started]]] = [
        ("bare", "no sandbox", partial(alone, argv)),
        ("c-stop", "C: wait, resume", partial(alone, words("floor", "stop", FILE))),
    ]
    starts += [(name, what, _start(_kind(loop))) for name, what, loop in _STEPS]
    starts += [
        (
            "one stop",
            "pinfold: all that, redirected, and back by the pin's own code",
            _start(Session),
        ),
        ("two stops", "pinfold: the long way, followed to the end of the call", _start(TwoStops)),
    ]
    calls = settings.times(CALLS)
    with contextlib.ExitStack() as cleanup:
        ways = []
        for name, what, start in starts:
            loop = _loop(settings, name, start)
            cleanup.callback(loop.close)
            ways.append(Way(name, what, partial(loop.run, calls)))
        return table(
            "stage",
            "steps",
            "built up, step by step",
            ways,
            settings,
            unit="µs",
            reference="c-stop",
        )


def _repeated(settings: Settings) -> Table:
    with contextlib.ExitStack() as cleanup:
        ways = []
        for name, what, loop in _FUNCTIONS:
            loop.times = settings.times(REPEATS)
            running = _loop(settings, name, _start(_kind(loop)))
            cleanup.callback(running.close)
            ways.append(Way(name, what, partial(_turn, running, loop)))
        title = "functions, repeated on a stopped task"
        return table("stage", "functions", title, ways, settings, unit="µs", reference="")


def _turn(running: Loop, loop: type[_Repeated]) -> float:
    running.run(1)
    return loop.took


def _loop(settings: Settings, name: str, start: Callable[[], Started]) -> Loop:
    loop = Loop(name, frozenset({settings.cpu}), start)
    loop.run(_BEFORE * 2)
    return loop


def _kind(loop: type[Supervisor]) -> type[Session]:
    class Measured(Session):
        _loop = loop

    return Measured


def _start(kind: type[Session]) -> Callable[[], Started]:
    def made(command: Command) -> Session:
        return kind(command, PathRules([], [b"/etc/shadow"]), Limits())

    return partial(in_session, made, words("loop", FILE), redirected=False)
