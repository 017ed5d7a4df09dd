"""Which processor the supervisor and its tasks run on, without the tasks knowing.

A stop wakes the supervisor, and the supervisor wakes the task. Where another processor is idle the
kernel has the one that wakes up run there, which can cost several times what the stop costs on
one processor. So while one task alone traps, and often, both are kept on one processor (``auto``);
``supervisor.pace`` decides when. The kernel offers nothing softer: the wake-up of a task is no
synchronous one, so each of the two has to be told where it may run.

**What a task has of its own.** As long as no task of the sandbox has called ``sched_setaffinity``,
all have the processors that the supervisor's thread had when it began: *home*. A task that is let
go gets exactly these, and a new one that inherited less gets them before it runs: it is in its
first stop. The first ``sched_setaffinity`` of a sandbox ends placement in it for good, before the
call is made: whoever places itself knows better, and no older mask is ever put over its own. The
calls that change a task's user end it as well, since another user's task could not be let go any
more. The same goes for a mask that somebody outside has changed, and for what the kernel refuses.

**What a task sees.** ``sched_getaffinity`` traps; everybody is let go before, and the call is over
before anybody is placed again. An open of something called ``status``, which may be
``/proc/PID/status`` under whatever name the directory has, ends placement for good: such a file can
be read at any time later. Where not all opens that read are trapped, nothing is ever placed. What
is left to see: on which processor one runs, which may be so by chance, and the file itself, for a
program that has it under another name (through a symbolic link of its own making). That costs
nothing but the secret: processors are hidden so that programs count them as they would without us,
and a program that wants to know whether it is traced reads so in the same file.

**Who else must not be touched.** Threads and processes that the supervisor's thread starts inherit
its mask: it is let go while the bell (``tracee.bell``) is hung, and while functions of the host
program judge (:meth:`Placement.aside`).

**A thread beside it** lets go when no stop comes for a while: a task that computes could be kept on
a processor that others are busy on. It touches nothing but masks, under a lock, and never traces.

A task id whose mask is set is one of a task that we have not waited for, with one exception: a
thread that executes a program gives its own id up a moment before we hear of it. Only a mask of a
single processor, as we set them, is ever replaced by home.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pinfold.linux import sched
from pinfold.linux.process import process_of, status_fields
from pinfold.supervisor.pace import JOIN, NEVER, PART, ROUND, Pace
from pinfold.syscalls.numbers import X86_64 as NR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pinfold.policy.calls import Judge, Later, Trapped, Verdict

AUTO: Final = "auto"
TOGETHER: Final = "together"
SPREAD: Final = "spread"
MODES: Final = (AUTO, TOGETHER, SPREAD)

ASKS: Final = NR["sched_getaffinity"]
_USERS: Final = {NR["setuid"]: 1, NR["setreuid"]: 2, NR["setresuid"]: 3}
"""Calls that set user ids, and how many."""
CALLS: Final = ("sched_getaffinity", "sched_setaffinity", "setuid", "setreuid", "setresuid")
"""What has to be trapped where tasks are placed."""
OPENS: Final = ("open", "openat", "openat2")
"""What has to be trapped, whenever it reads, so that tasks may be placed."""

_LOW: Final = 0xFFFFFFFF
_TELLS: Final = b"status"
_TURN_NS: Final = 100_000
"""How long turns of the supervisor are, which is the least there is, and several stops of work.
Where several tasks are busy nobody shares a processor, and the supervisor waits for its turn on one
that a task computes on. Whoever asks for less at a time is let in earlier."""
_IDLE: Final = 0.05
"""Seconds without a round of stops after which the two are parted."""
_DROWSY: Final = 20
"""How often the thread beside looks with nothing to do, before it waits to be told."""


class _Taken:
    # How many sandboxes of this process keep tasks on which processor: two that do not move must
    # not meet on one while the next is idle.

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: dict[int, int] = {}

    def take(self, wanted: int, others: Iterable[int]) -> int:
        with self._lock:
            count = self._count
            best = min((wanted, *sorted(others)), key=lambda cpu: count.get(cpu, 0))
            count[best] = count.get(best, 0) + 1
            return best

    def give_back(self, cpu: int) -> None:
        with self._lock:
            self._count[cpu] -= 1


_taken: Final = _Taken()


def tells(names: Iterable[bytes | None]) -> bool:
    """Returns whether a file of one of these names may tell where a task runs."""
    return any(name is not None and name.rpartition(b"/")[2] == _TELLS for name in names)


class Placement:
    """Places the supervisor's thread and the tasks of one sandbox.

    Args:
        mode: ``auto``, ``together`` or ``spread``.

    Attributes:
        active: Whether there is anything to decide: not in ``spread``, nor with one processor.

    Preconditions: made, and used unless said otherwise, by the thread of the supervisor.
    """

    __slots__ = (
        *("_changed", "_closed", "_cpu", "_drowsy", "_ended", "_foreign", "_hidden", "_home"),
        *("_mode", "_narrowed", "_own", "_pace", "_rounds", "_suspects", "_usual", "_watch"),
        "active",
    )

    def __init__(self, mode: str) -> None:
        self._mode: Final = mode
        self._hidden: Callable[[], bool] = bool  # says no
        self._usual: Final = sched.affinity(0) if mode != SPREAD else frozenset()
        self.active: Final = len(self._usual) > 1
        self._pace = Pace()
        self._ended = not self.active
        self._own = threading.get_native_id()
        # With processors that are switched off; and whether a mask was ever changed.
        self._home: frozenset[int] = frozenset()
        self._narrowed = False
        # Whether a task may have a mask of its own making, and who may be in the middle of a fork
        # that began while it had ours.
        self._foreign = False
        self._suspects: set[int] = set()
        self._cpu = -1
        # Shared with the thread beside: all masks are changed with this held.
        self._changed = threading.Condition(threading.RLock())
        self._rounds = 0
        self._closed = False
        self._drowsy = False
        self._watch: threading.Thread | None = None

    def start(self, hidden: Callable[[], bool]) -> None:
        """Begins, before COMMAND is executed.

        Args:
            hidden: Called once, before anything is placed: whether every open that reads is
                trapped, and every call of ``CALLS``.
        """
        self._hidden = hidden
        if self.active:
            try:
                sched.set_time_slice(0, _TURN_NS)
            except OSError:
                return  # EPERM, as from a filter around us: then its turns stay as they are

    # What the loop calls.

    def other(self, tid: int) -> int:
        """Notes a stop of another task than the last; returns how long its first round is."""
        if self._suspects:
            self._suspects.discard(tid)
        if self._pace.other() == PART:
            with self._changed:
                self._part()
        return NEVER if self._ended or self._mode != AUTO else ROUND

    def round(self, tid: int) -> int:
        """Notes that nobody but this task has stopped for a whole round; returns the next round."""
        if self._ended or self._mode != AUTO:
            return NEVER
        self._rounds += 1
        verdict = self._pace.round(tid, time.monotonic_ns())
        if verdict == JOIN and self._may() and self._beside():
            with self._changed:
                self._join((tid,))
        elif verdict == PART:
            with self._changed:
                self._part()
        return ROUND

    def asks(self, tasks: Iterable[int], call: Callable[[], None]) -> None:
        """Lets a trapped call run to its end that tells which processors a task has.

        Args:
            tasks: All tasks of the sandbox.
            call: Has it run, and returns when it is over; raises when its caller is dead.
        """
        with self._changed:
            narrowed = self._cpu >= 0
            self._let_all_go(tasks)
        try:
            call()
        finally:
            if narrowed and self._mode == TOGETHER and not self._ended:
                with self._changed:
                    self._join(tasks)

    def end(self, caller: int, tasks: Iterable[int]) -> None:
        """Lets everybody go, and places nobody any more: a task is about to place one itself.

        Args:
            caller: Who does that; it is stopped.
            tasks: All tasks of the sandbox.
        """
        with self._changed:
            self._ended = self._foreign = True
            self._let_all_go(tasks)
        self._suspects.discard(caller)

    def ends(self, number: int, arguments: Sequence[int]) -> bool:
        """Returns whether a trapped call of ``CALLS`` is a reason for :meth:`end`.

        Args:
            number: Of the call.
            arguments: Its first registers.
        """
        # Many programs set the user that they have (make does, in each child): nothing changes.
        ids = {one & _LOW for one in arguments[: _USERS.get(number, 0)]}
        return not ids or not ids <= {_LOW, os.geteuid()}

    def opens(self, tasks: Iterable[int], names: Iterable[bytes | None]) -> None:
        """Notes names that are about to be opened: if one may tell who is placed where, it ends."""
        if self._ended:
            return
        if tells(names):
            with self._changed:
                self._ended = True
                self._let_all_go(tasks)

    def born(self, child: int) -> None:
        """Sees to the mask of a new task, before it runs.

        Preconditions: ``child`` is traced by us, and in its first stop or about to be.
        """
        if not self._narrowed or (self._foreign and not self._is_ours(child)):
            return
        with self._changed:
            if self._mode == TOGETHER and self._cpu >= 0:
                self._set(child, (self._cpu,))
            else:
                self._widen(child)

    def forked(self, parent: int) -> None:
        """Notes that a task has made another one: from now on there are two that can run."""
        if parent == self._pace.partner:
            with self._changed:
                self._part()
        self._suspects.discard(parent)

    def executed(self, tid: int, former: int) -> None:
        """Notes that a task executes a program, which had another id before, perhaps."""
        self._suspects.discard(former)
        if self._mode == TOGETHER and not self._narrowed and self._may():
            # COMMAND. Threads that were to be started with the run are there by now.
            with self._changed:
                self._join((tid,))
        if former == tid:
            return
        if self._pace.partner in (tid, former):
            with self._changed:
                self._gone()
        if not self._foreign:
            self.born(tid)

    def ended(self, tid: int) -> None:
        """Notes that a task has ended: its id is not to be used any more."""
        if self._suspects:
            self._suspects.discard(tid)
        if tid == self._pace.partner:
            with self._changed:
                self._gone()

    def close(self) -> None:
        """Gives the thread of the supervisor its processors back. No task is left."""
        with self._changed:
            self._ended = self._closed = True
            self._gone()
            self._changed.notify_all()
        if self._watch is not None:
            self._watch.join()

    # For what the host program does in this thread.

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block, what this thread starts inherits its usual processors."""
        if self._cpu < 0:
            yield
            return
        with self._changed:
            self._widen(self._own)
        try:
            yield
        finally:
            with self._changed:
                if self._cpu >= 0:
                    self._set(self._own, (self._cpu,))

    # Masks. All but the first two with the lock held.

    def _may(self) -> bool:
        if not self._ended and not self._home:
            try:
                self._home = sched.allowed(self._own)
            except OSError:
                self._ended = True  # what cannot be told cannot be given back
            else:
                self._ended = not self._hidden()
        return not self._ended

    def _is_ours(self, child: int) -> bool:
        # Whether a new task may have begun while we had narrowed the one that made it, though by
        # now masks may be the tasks' own.
        with self._changed:
            suspects = list(self._suspects)
        if not suspects:
            return False
        fields = status_fields(child, b"Tgid", b"PPid")
        return fields is not None and not set(map(int, fields)).isdisjoint(
            map(process_of, suspects)
        )

    def _join(self, tasks: Iterable[int]) -> None:
        here = sched.current_cpu()
        if sched.affinity(0) != self._usual or here not in self._usual:
            self._ended = True  # somebody outside has placed us
            return
        self._cpu = _taken.take(here, self._usual)
        self._narrowed = True
        placed: list[int] = []
        for tid in tasks if self._set(self._own, (self._cpu,)) else ():
            mask = self._mask(tid)
            if mask == self._usual:
                if self._set(tid, (self._cpu,)):
                    placed.append(tid)
            elif mask is not None:
                self._ended = True  # somebody outside has placed it
        if self._ended or not placed:
            self._gone()
            for tid in placed:
                self._suspects.add(tid)
                self._widen(tid)
        elif self._mode == AUTO:
            self._pace.partner = placed[0]
            if self._drowsy:
                self._changed.notify()

    def _part(self) -> None:
        partner = self._pace.partner
        if partner:
            # It may be running, and in the middle of a fork.
            self._suspects.add(partner)
            self._gone()
            self._widen(partner)

    def _let_all_go(self, tasks: Iterable[int]) -> None:
        if self._mode == AUTO:
            self._part()
        elif self._cpu >= 0:
            self._gone()
            for tid in tasks:
                self._suspects.add(tid)
                self._widen(tid)

    def _gone(self) -> None:
        # Nobody shares our processor any more, or nobody that has to be told.
        self._pace.partner = 0
        cpu, self._cpu = self._cpu, -1
        if cpu >= 0:
            _taken.give_back(cpu)
            self._widen(self._own)

    def _widen(self, tid: int) -> None:
        # Only what we have narrowed: what somebody outside has set meanwhile is left alone.
        mask = self._mask(tid)
        if mask is None:
            return
        if len(mask) == 1:
            self._set(tid, self._home)
        elif mask != self._usual:
            self._ended = True

    def _mask(self, tid: int) -> frozenset[int] | None:
        try:
            return sched.affinity(tid)
        except ProcessLookupError:
            return None
        except OSError:
            self._ended = True  # a security module has it (EPERM)
            return None

    def _set(self, tid: int, cpus: Iterable[int]) -> bool:
        try:
            sched.set_affinity(tid, cpus)
        except ProcessLookupError:
            return False
        except OSError:
            # Another user's by now (EPERM), say, or its cgroup has none of these left (EINVAL).
            self._ended = True
            return False
        return True

    # The thread beside.

    def _beside(self) -> bool:
        # Whether it is there. Before anything is narrowed: it would inherit that.
        if self._watch is None:
            watch = threading.Thread(target=self._look, name="pinfold-placement", daemon=True)
            try:
                watch.start()
            except RuntimeError:
                self._ended = True  # no thread is left for it
                return False
            self._watch = watch
        return True

    def _look(self) -> None:
        quiet = 0
        with self._changed:
            while not self._closed:
                self._drowsy = quiet >= _DROWSY
                rounds = self._rounds
                self._changed.wait(None if self._drowsy else _IDLE)
                quiet = 0 if self._cpu >= 0 or self._drowsy else quiet + 1
                if self._cpu >= 0 and self._rounds == rounds:
                    self._part()


def aside(judge: Judge | None, placement: Placement) -> Judge | None:
    """Returns the policy, if functions of the host program judge, as one that lets us go for them.

    Args:
        judge: The policy.
        placement: What lets go.
    """
    if not placement.active or not getattr(judge, "foreign", False):
        return judge
    return cast("Judge", _Aside(judge, placement))


class _Aside:
    def __init__(self, judge: Any, placement: Placement) -> None:
        self._judge = judge
        self._placement = placement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def judge(self, call: Trapped) -> Verdict | Later:
        with self._placement.aside():
            verdict: Verdict | Later = self._judge.judge(call)
            return verdict
