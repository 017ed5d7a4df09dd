"""One run of one command: everything wired together, in a thread of its own.

A thread, because ptrace binds the sandbox to one: its end kills the sandbox, its waits see nothing
but the sandbox, and the program that called pinfold keeps its own thread for its own business.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.audit.record import Entry, Path
from pinfold.backends.base import Deny, Kill
from pinfold.backends.trace import TraceBackend
from pinfold.errors import InternalError, LaunchError, PinfoldError, UnsupportedError
from pinfold.launch import confine, filters, spawn
from pinfold.launch import limits as resource_limits
from pinfold.launch.hidden import Hidden
from pinfold.linux import process, seccomp
from pinfold.pins.arena import ArenaPool
from pinfold.pins.install import Installer
from pinfold.pins.live import LiveCheck
from pinfold.policy.model import NO_LIMITS
from pinfold.policy.model import Limits as Bounds
from pinfold.supervisor.crowd import FORK_CALLS
from pinfold.supervisor.engine import UNPINNED, Engine
from pinfold.supervisor.loop import OPTIONS, Supervisor
from pinfold.supervisor.shapes import EVERYTHING, PATHS, counted, with_calls
from pinfold.syscalls.neighbours import BY_NUMBER, NEIGHBOURS
from pinfold.tracee.loader import own_loader
from pinfold.tracee.names import Names
from pinfold.tracee.stops import stopped
from pinfold.tracee.waits import Waits
from pinfold.uapi.ptrace import WALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pinfold.launch.spawn import Command, Launched
    from pinfold.policy.calls import Judge
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.engine import Decision
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.task import Task


class Limits(NamedTuple):
    """What COMMAND may reach, apart from path rules."""

    ro: Sequence[bytes] = ()
    rw: Sequence[bytes] = ()
    keep_caps: bool = False


class Outcome(NamedTuple):
    """How a run ended."""

    status: int
    """COMMAND's wait status."""
    denied: int
    """Calls that a rule denied."""
    redirected: int
    """Calls that a rule sent elsewhere."""
    trapped: int
    """Calls that were judged."""
    most: int
    """Tasks alive at one time, at most."""
    timed_out: bool = False
    """Whether it was killed because it took longer than its limit."""


class Session:
    """A command in its sandbox.

    Args:
        command: What to run.
        rules: Path rules.
        limits: What it may reach.
        inspect_all: Whether every pointer argument is looked at, and not only paths.
        real: Whether names that symbolic links lead to are judged as well, and used.
        judge: A policy, asked when the path rules let a call pass; closed in the end.
        bounds: How much it may use. What concerns single processes is the confinement's.
        dry_run: Whether verdicts are only noted, and every call is made as it was asked for.
        sink: Called with each log entry before the call it is about is let go; None for no log.
        results: Called with an entry and the result of its call (signed; None when it never came
            back) when that is over.
        on_stop: Called in the session's thread when COMMAND was stopped by job control.
        on_refused: Called with one line when a program was killed as a whole.
        on_launched: Called in the session's thread when COMMAND's process exists, before anything
            of COMMAND has run; what it raises ends the run.

    Attributes:
        warnings: Lines about what is weaker than usual.
        launched: Set when COMMAND's process exists and has its descriptors, or never will.
        started: Set when COMMAND has been executed, or never will be.
        pid: COMMAND's process, once ``launched`` is set; 0 if there never was one.

    Raises:
        PolicyError: A path to confine to does not exist.
        UnsupportedError: The kernel lacks something that was asked for.
    """

    def __init__(
        self,
        command: Command,
        rules: PathRules,
        limits: Limits,
        *,
        inspect_all: bool = False,
        real: bool = False,
        judge: Judge | None = None,
        bounds: Bounds = NO_LIMITS,
        dry_run: bool = False,
        sink: Callable[[Entry], None] | None = None,
        results: Callable[[Entry, int | None], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
        on_launched: Callable[[], None] | None = None,
    ) -> None:
        self._command = command
        self._rules = rules
        self._inspect_all = inspect_all
        self._real = real
        self._judge = judge
        self._bounds = bounds
        self._dry = dry_run
        self._sink = sink
        self._results = results
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._on_launched = on_launched
        if judge is not None or real:
            own_loader()  # before we are hidden, even from ourselves
        self._resources = resource_limits.prepare(bounds)
        self._confinement = confine.prepare(limits.ro, limits.rw, limits.keep_caps)
        self.warnings = self._confinement.warnings
        self.launched = threading.Event()
        self.started = threading.Event()
        self._timed_out = False
        self.pid = 0
        self._pidfd = -1
        # Again from a finalizer that runs while it is held: ``Popen.__del__`` sends a signal.
        self._lock = threading.RLock()
        self._supervisor: Supervisor | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._on_end: Callable[[], None] | None = None
        self._after_launch: Callable[[], None] | None = None
        self._after_start: Callable[[], None] | None = None
        self._last_denial: str | None = None
        self._thread = threading.Thread(target=self._run, name="pinfold", daemon=True)

    def start(
        self,
        on_end: Callable[[], None] | None = None,
        after_launch: Callable[[], None] | None = None,
        after_start: Callable[[], None] | None = None,
    ) -> None:
        """Starts the run. What is called must not raise.

        Args:
            on_end: Called in its thread when it is over.
            after_launch: Called there when ``launched`` has been set.
            after_start: Called there when ``started`` has been set.

        Raises:
            LaunchError: There is no thread for it.
        """
        self._on_end = on_end
        self._after_launch = after_launch
        self._after_start = after_start
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close()
            raise LaunchError(f"no thread for the supervisor: {error}", 125) from error

    def result(self) -> Outcome:
        """Waits for the end and returns how it was.

        Raises:
            PinfoldError: What went wrong; nothing of the sandbox is left then.
        """
        # ``on_end`` may ask, too.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise LaunchError("the run ended without an outcome", 125)
        return self._outcome

    def join(self, timeout: float | None) -> bool:
        """Waits for the end, ``timeout`` seconds at most; returns whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kills the sandbox and waits until nothing of it is left."""
        self.launched.wait()
        self.signal(signal.SIGKILL)
        self._thread.join()

    def signal(self, number: int) -> None:
        """Sends a signal to COMMAND; does nothing when it is not there (any more)."""
        with self._lock:
            if self._pidfd < 0:
                return
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    @property
    def over(self) -> bool:
        """Whether the run has ended, though its thread may still be on its way out."""
        return self._outcome is not None or self._error is not None

    @property
    def stopped(self) -> bool:
        """Whether COMMAND is stopped by job control."""
        return self._supervisor is not None and self._supervisor.stopped

    @property
    def tasks(self) -> int:
        """How many tasks there are in the sandbox now."""
        return 0 if self._supervisor is None else self._supervisor.tasks

    def progress(self) -> str:
        """Returns a line about what was judged so far; from any thread."""
        supervisor = self._supervisor
        if supervisor is None:
            return "nothing was judged yet"
        return (
            f"{supervisor.trapped} calls judged, {supervisor.denied} denied,"
            f" {supervisor.redirected} redirected; {supervisor.tasks} tasks now"
        )

    @property
    def traps(self) -> bool:
        """Whether any call is judged at all."""
        return (
            self._sink is not None
            or self._results is not None
            or self._inspect_all
            or self._judge is not None
            or not self._rules.empty
        )

    def _run(self) -> None:
        try:
            self._outcome = self._supervise()
        except (OSError, MemoryError) as error:
            self._error = self._failed(error)
        except BaseException as error:  # noqa: BLE001 (it is raised again by result())
            self._error = error
        finally:
            # Whatever goes wrong on the way, whoever waits must hear of the end.
            try:
                self._close()
            except Exception as error:  # noqa: BLE001 (likewise)
                self._error = self._error or error
            finally:
                self._set_launched()
                self._set_started()
                if self._on_end is not None:
                    self._on_end()

    def _failed(self, error: OSError | MemoryError) -> PinfoldError:
        # Of an error that only the run as a whole can answer for. The sandbox is dead by now.
        text = str(error) or "out of memory"
        supervisor = self._supervisor
        if supervisor is None or not supervisor.executed:
            failed: PinfoldError = LaunchError(f"cannot start a sandbox: {text}", 125)
        else:
            failed = InternalError(f"the supervisor failed, and the sandbox was killed: {text}")
        failed.__cause__ = error
        return failed

    def _close(self) -> None:
        try:
            self._confinement.close()
            if self._judge is not None:
                self._judge.close()
        finally:
            with self._lock:
                if self._pidfd >= 0:
                    os.close(self._pidfd)
                    self._pidfd = -1

    def _tell_launched(self) -> None:
        if self._on_launched is None:
            return
        try:
            self._on_launched()
        except BaseException:
            process.kill(self.pid)
            while stopped(os.waitpid(self.pid, WALL)[1]):
                continue
            raise

    def _executed(self) -> None:
        resource_limits.apply(self.pid, self._resources)
        self._set_started()

    def _set_launched(self) -> None:
        if self.launched.is_set():
            return
        self.launched.set()
        if self._after_launch is not None:
            self._after_launch()

    def _set_started(self) -> None:
        if self.started.is_set():
            return
        self.started.set()
        if self._after_start is not None:
            self._after_start()

    def _shapes(self) -> Mapping[int, Shape]:
        # What is trapped, and what is read of it.
        shapes: Mapping[int, Shape] = {}
        if self._inspect_all:
            shapes = EVERYTHING
        elif self._sink is not None or self._results is not None or not self._rules.empty:
            shapes = PATHS
        if self._judge is not None:
            shapes = with_calls(shapes, self._judge.calls)
        if self._bounds.tasks is not None:
            shapes = counted(shapes, FORK_CALLS)
        return counted(shapes, NEIGHBOURS)

    def _supervise(self) -> Outcome:
        secret = (_random(), _random())
        shapes = self._shapes()
        program = seccomp.FilterProgram(self._filter(shapes, secret))
        waits = Waits()
        live = LiveCheck()
        arenas = ArenaPool()
        try:
            # Last of all that can fail: from here on there is a process to look after.
            launched = spawn.spawn(self._command, self._confinement, program, OPTIONS)
        except BaseException:
            arenas.close()
            raise
        # The child has it; many sandboxes at a time need few descriptors each.
        self._confinement.close()
        self.pid = launched.pid
        self._pidfd = launched.pidfd
        try:
            with Hidden():
                self._tell_launched()
                self._set_launched()
                self._supervisor = supervisor = Supervisor(
                    launched.pid,
                    waits,
                    self._backend(waits, launched.listener, secret, live, arenas),
                    Engine(
                        self._rules,
                        Names(),
                        logs=self._sink is not None or self._results is not None,
                        judge=self._judge,
                        real=self._real,
                        dry=self._dry,
                    ),
                    shapes,
                    record=self._record,
                    over=self._results,
                    tasks=self._bounds.tasks,
                    on_executed=self._executed,
                    on_stop=self._on_stop,
                    on_refused=self._on_refused,
                )
                with self._deadline():
                    status = supervisor.run()
            return self._ended(status, launched, supervisor)
        except BaseException:
            # Usually the loop has done that.
            spawn.abandon(launched)
            raise
        finally:
            live.close()
            arenas.close()
            os.close(launched.listener)
            launched.channel.close()

    # Two methods of their own, for those who measure what happens without their precautions.

    def _filter(self, shapes: Mapping[int, Shape], secret: tuple[int, int]) -> bytes:
        return filters.sandbox_filter(
            shapes,
            secret,
            whole=() if self._judge is None else self._judge.whole,
            neighbours={number for number in BY_NUMBER if not shapes[number].judged},
            fixed_addresses=self._judge is not None and self._judge.addresses and not self._dry,
        )

    def _backend(
        self,
        waits: Waits,
        listener: int,
        secret: tuple[int, int],
        live: LiveCheck,
        arenas: ArenaPool,
    ) -> TraceBackend:
        return TraceBackend(
            arenas,
            Installer(waits, listener, secret, live),
            live,
            to_exit=self._results is not None,
        )

    def _ended(self, status: int, launched: Launched, supervisor: Supervisor) -> Outcome:
        if not supervisor.executed:
            raise self._not_executed(launched, supervisor)
        return Outcome(
            status,
            supervisor.denied,
            supervisor.redirected,
            supervisor.trapped,
            supervisor.most,
            self._timed_out,
        )

    def _not_executed(self, launched: Launched, supervisor: Supervisor) -> LaunchError:
        if supervisor.refused:
            return LaunchError(f"{os.fsdecode(launched.paths[-1])}: a 32-bit program", 126)
        return spawn.exec_failure(launched, self._last_denial)

    def _note(self, decision: Decision) -> None:
        # Kept with or without a log: why COMMAND itself may have been denied.
        if decision.rule is not None and isinstance(decision.plan, Deny | Kill):
            self._last_denial = f"rule: {decision.rule}"
        elif decision.action == UNPINNED:
            self._last_denial = "its arguments could not be pinned: see `pinfold doctor`"

    def _record(self, task: Task, call: Shape, decision: Decision) -> Entry | None:
        self._note(decision)
        if self._sink is None and self._results is None:
            return None
        plan = decision.plan
        entry = Entry(
            time.time(),
            task.tgid,
            task.tid,
            task.program,
            call.row,
            [task.registers[register] for register in ARGUMENTS],
            tuple(
                Path(one.argument, one.asked, one.names[0] if one.names else b"", one.pinned)
                for one in decision.judged
            ),
            {one.at: one.value for one in decision.others},
            decision.replaced,
            decision.action,
            decision.rule,
            errno.errorcode.get(plan.errno, str(plan.errno)) if isinstance(plan, Deny) else None,
            decision.value,
            self._dry,
        )
        if self._sink is not None:
            self._sink(entry)
        return entry

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        # Kills COMMAND, and with it the sandbox, when the run takes too long.
        if self._bounds.seconds is None:
            yield
            return
        timer = threading.Timer(self._bounds.seconds, self._time_is_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _time_is_up(self) -> None:
        self._timed_out = True
        self.signal(signal.SIGKILL)


def _random() -> int:
    return int.from_bytes(os.urandom(8), "little")


def require_machine() -> None:
    """Checks what can be checked without trying.

    Raises:
        UnsupportedError: The processor is one that pinfold does not know yet, or this process
            ignores SIGCHLD.
    """
    machine = os.uname().machine
    if machine != "x86_64":
        raise UnsupportedError(f"pinfold knows x86_64 processors, and this is {machine}")
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        raise UnsupportedError(
            "this process ignores SIGCHLD, so the kernel would reap the sandbox behind our back;"
            " set it to SIG_DFL"
        )
