"""Verdicts of coroutines: one thread with an event loop for each sandbox, and a clock beside it.

The program waits for the verdict, so a verdict must come, whatever a coroutine does: raise, never
end, swallow its cancellation, block the loop. The time limit is therefore kept by a thread of its
own, and whoever is first, the coroutine, the clock or the end of the sandbox, gives the verdict;
the others find it given. All calls have the same limit, so the clock's queue is in order as it is.

Both threads are started by the first coroutine, and are daemons: a loop that is blocked for good
must not keep the program that called pinfold from ending.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from errno import EPERM
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.policy.calls import Verdict, denied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from pinfold.policy.calls import Later
    from pinfold.policy.handlers.step import Step

    Steps = Generator[Step, Any, Verdict | Later]
    """What asks one handler after the other: yields what to wait for, returns the verdict."""

GRACE: Final = 2.0
"""Seconds that coroutines get to end when the sandbox has ended."""
_ENDED: Final = "the sandbox has ended"
_SWEPT: Final = 1024
"""Times that the clock keeps before it looks which of them still matter."""


class Tasks:
    """The coroutines of one sandbox.

    Args:
        seconds: How long each may take.
        report: Called with a line about one that did not end; in any thread.
    """

    def __init__(self, seconds: float, report: Callable[[str], None]) -> None:
        self.seconds: Final = seconds
        self._report = report
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiting: set[Waiting] = set()
        self._clock: _Clock | None = None

    def later(self, first: Step, steps: Steps, end: Callable[[], None]) -> Later:
        """Returns the verdict to come.

        Args:
            first: What ``steps`` has yielded.
            steps: What comes after it.
            end: Called when nobody waits any more: the verdict is there, or not wanted.
        """
        return Waiting(self, first, steps, end)

    def close(self) -> None:
        """Denies what still waits, cancels all coroutines and waits for their end, ``GRACE`` long.

        One that does not end then is left behind, with its thread, and reported.
        """
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
            loop, thread, clock = self._loop, self._thread, self._clock
        for one in waiting:
            one.conclude(denied(_ENDED, EPERM))
        if clock is not None:
            clock.close()
        if loop is None or thread is None:
            return
        self.soon(loop.stop)
        if thread is threading.current_thread():
            # A coroutine closes its own judge: the loop ends after it.
            return
        thread.join(2 * GRACE)
        if thread.is_alive():
            self._report("a handler blocks its thread though the sandbox has ended; it is left")

    # What follows is for Waiting.

    def enter(self, waiting: Waiting, first: Step | None) -> str | None:
        """Begins to run a waiting call's steps; returns why it could not."""
        with self._lock:
            if self._closed:
                return _ENDED
            if self._loop is None:
                try:
                    self._open()
                except (OSError, RuntimeError) as error:
                    return f"no thread for handlers: {error}"
            assert self._loop is not None
            assert self._clock is not None
            self._waiting.add(waiting)
            if first is not None:
                # From now and not from its first line on: another one may block the loop.
                self._clock.add(self.seconds, waiting, first)
            # Under the lock: afterwards the loop may be closed already.
            self._loop.call_soon_threadsafe(waiting.begin, self._loop)
        return None

    def _open(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            thread = threading.Thread(
                target=self._serve, args=(loop,), name="pinfold-handlers", daemon=True
            )
            clock = _Clock()
            try:
                thread.start()
            except BaseException:
                clock.close()
                raise
        except BaseException:
            loop.close()
            raise
        self._loop, self._thread, self._clock = loop, thread, clock

    def leave(self, waiting: Waiting) -> None:
        """Forgets a call whose verdict is there."""
        with self._lock:
            self._waiting.discard(waiting)

    def soon(self, action: Callable[[], object]) -> None:
        """Has the loop do something, if there still is one."""
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(action)

    def limit(self, waiting: Waiting, step: Step) -> None:
        """Has ``waiting.expire(step)`` called when the time of a step that starts now is over."""
        with self._lock:
            clock = self._clock
        if clock is not None:
            clock.add(self.seconds, waiting, step)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while not self._closed:
                self._forever(loop)
            self._end_all(loop)
        finally:
            with self._lock:
                loop.close()

    def _forever(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 (SystemExit of a task that a handler made)
            self._report(f"a task of a handler raised {type(error).__name__}")

    def _end_all(self, loop: asyncio.AbstractEventLoop) -> None:
        left = _Left()
        try:
            loop.run_until_complete(left.end())
        except BaseException as error:  # noqa: BLE001 (whatever a handler's cleaning up raises)
            self._report(f"a handler raised {type(error).__name__} when the sandbox ended")
        if left.count:
            self._report(f"{left.count} tasks of handlers did not end when they were cancelled")


class _Left:
    # What is to be ended with a loop, and how much of it did not end.

    def __init__(self) -> None:
        self.count = 0

    async def end(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=GRACE)
            self.count = len(left)
        # Threads of the loop's executor are not waited for: nothing bounds what they do.
        try:
            await asyncio.wait_for(loop.shutdown_asyncgens(), GRACE / 2)
        except TimeoutError:
            self.count += 1


class Waiting:
    """A call that waits for coroutines: a ``Later``."""

    def __init__(
        self,
        tasks: Tasks,
        first: Step,
        steps: Steps,
        end: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._first: Step | None = first
        self._steps = steps
        self._end = end
        self._lock = threading.Lock()
        self._over = False
        self._done: Callable[[Verdict], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._inner: Later | None = None
        self._step: Step | None = first

    @property
    def over(self) -> bool:
        """Whether the verdict is there, or not wanted any more."""
        return self._over

    def start(self, done: Callable[[Verdict], None]) -> None:
        """Begins; see ``calls.Later``."""
        with self._lock:
            if self._over:
                return
            self._done = done
        problem = self._tasks.enter(self, self._step)
        if problem is not None:
            self.conclude(denied(problem, EPERM))
            self._discard()

    def cancel(self) -> None:
        """Says that nobody waits any more."""
        self._give(None)
        with self._lock:
            inner = self._inner
        if inner is not None:
            inner.cancel()

    def conclude(self, verdict: Verdict) -> None:
        """Gives the verdict, unless there is one already."""
        self._give(verdict)

    def expire(self, step: Step) -> None:
        """Denies, when it still is this step that takes its time."""
        if self._step is step:
            limit = f"{self._tasks.seconds:g} seconds"
            self.conclude(denied(f"{step.who} gave no verdict within {limit}", EPERM))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the task. In the loop's thread."""
        if self._over:
            self._tasks.leave(self)
            self._discard()
            return
        self._task = loop.create_task(self._run())

    def _give(self, verdict: Verdict | None) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            done = self._done
        self._end()
        self._tasks.leave(self)
        if done is None:
            # It was never started: no loop knows of it.
            self._discard()
        else:
            self._tasks.soon(self._stop)
            if verdict is not None:
                done(verdict)

    def _stop(self) -> None:
        # In the loop's thread.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _discard(self) -> None:
        # Coroutines want to be closed when nobody awaits them.
        first, self._first = self._first, None
        if first is not None:
            close = getattr(first.awaitable, "close", None)
            if close is not None:
                close()
        self._steps.close()

    async def _run(self) -> None:
        step, self._first = self._first, None
        assert step is not None
        try:
            outcome = await self._follow(step)
        finally:
            self._steps.close()
        if isinstance(outcome, Verdict):
            self.conclude(outcome)
        elif outcome is not None:
            self._pass_on(outcome)

    async def _follow(self, step: Step) -> Verdict | Later | None:
        # None when somebody else has given the verdict meanwhile.
        while True:
            answer = await _settled(step.awaitable)
            if self._over:
                return None
            try:
                # Not isinstance, which asks an answer of a handler's what it is.
                if type(answer) is _Raised:
                    step = self._steps.throw(answer.error)
                else:
                    step = self._steps.send(answer)
            except StopIteration as end:
                outcome: Verdict | Later = end.value
                return outcome
            self._step = step
            self._tasks.limit(self, step)

    def _pass_on(self, inner: Later) -> None:
        # A person is asked, who has a time limit of their own.
        self._step = None
        with self._lock:
            if self._over:
                return
            self._inner = inner
        inner.start(self.conclude)


class _Raised(NamedTuple):
    error: BaseException


async def _settled(awaitable: Awaitable[Any]) -> Any:
    # SystemExit and the like must not get out of a task: they end the loop.
    try:
        return await awaitable
    except GeneratorExit as error:
        # Thrown into the steps, it would mean that they are to end.
        other = RuntimeError("GeneratorExit")
        other.__cause__ = error
        return _Raised(other)
    except BaseException as error:  # noqa: BLE001 (it is thrown into the steps)
        return _Raised(error)


class _Clock:
    """Expires the steps of calls that still wait when their time has come.

    Times are added in order. Nothing is kept alive by standing here, and what does not wait any
    more is forgotten as soon as it is the first, or when there is much of that.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[tuple[float, weakref.ref[Waiting], weakref.ref[Step]]] = deque()
        self._most = _SWEPT
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="pinfold-clock", daemon=True)
        self._thread.start()

    def add(self, seconds: float, waiting: Waiting, step: Step) -> None:
        with self._changed:
            when = time.monotonic() + seconds
            queue = self._queue
            while queue and not _waits(queue[0][1]()):
                queue.popleft()
            if len(queue) >= self._most:
                # Behind one that takes long.
                queue = self._queue = deque(one for one in queue if _waits(one[1]()))
                self._most = max(_SWEPT, 2 * len(queue))
            queue.append((when, weakref.ref(waiting), weakref.ref(step)))
            if len(queue) == 1:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(GRACE)

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._queue:
                    self._changed.wait()
                if self._closed:
                    return
                when, waiting, step = self._queue[0]
                left = when - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self._queue.popleft()
            _expire(waiting(), step())


def _waits(waiting: Waiting | None) -> bool:
    return waiting is not None and not waiting.over


def _expire(waiting: Waiting | None, step: Step | None) -> None:
    if waiting is not None and step is not None:
        waiting.expire(step)
