"""One run of one command: everything wired together, in a thread of its own.

A thread, because ptrace binds the sandbox to one: its end kills the sandbox, its waits see nothing
but the sandbox, and the program that called pinfold keeps its own thread for its own business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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
from pinfold.policy.rules import ALLOW
from pinfold.supervisor import shapes as known
from pinfold.supervisor.crowd import FORK_CALLS
from pinfold.supervisor.decision import UNPINNED
from pinfold.supervisor.loop import OPTIONS, Supervisor
from pinfold.supervisor.placement import AUTO, CALLS, OPENS, SPREAD, Placement, aside
from pinfold.syscalls.filtering import FILTERING, NUMBERS
from pinfold.syscalls.neighbours import BY_NUMBER, NEIGHBOURS
from pinfold.syscalls.numbers import X86_64
from pinfold.tracee.loader import own_loader
from pinfold.tracee.stops import stopped
from pinfold.tracee.waits import Waits
from pinfold.uapi.ptrace import WALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import ClassVar

    from pinfold.audit.record import Entry
    from pinfold.audit.writer import AuditWriter
    from pinfold.launch.spawn import Command, Launched
    from pinfold.policy.calls import Judge
    from pinfold.policy.model import Limits as Bounds
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.decision import Decision
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.shapes import Shape
    from pinfold.syscalls.forms import Forms
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
        bounds: How much it may use; None for no limit.
        dry_run: Whether verdicts are only noted, and every call is made as it was asked for.
        judge_all: Whether calls that could only be allowed are judged, too. For tests: nothing else
            is different then, but that it takes longer.
        cpu: Where its tasks run: a word of ``supervisor.placement.MODES``.
        sink: Called with each log entry before the call it is about is let go; None for no log.
        late: The log that ``sink`` writes to, where lines of allowed calls may wait for a moment.
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
        bounds: Bounds | None = None,
        dry_run: bool = False,
        judge_all: bool = False,
        cpu: str = AUTO,
        sink: Callable[[Entry], None] | None = None,
        late: AuditWriter | None = None,
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
        self._seconds = None if bounds is None else bounds.seconds
        self._tasks = None if bounds is None else bounds.tasks
        self._dry = dry_run
        self._judge_all = judge_all
        self._cpu = cpu
        self._sink = sink
        self._late = late
        self._entry_of: Callable[[Task, Shape, Decision], Entry] | None = None
        if sink is not None or results is not None:
            from pinfold.audit.entries import Entries  # noqa: PLC0415 (only where there is a log)

            self._entry_of = Entries(dry=dry_run).of
        self._results = results
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._on_launched = on_launched
        if judge is not None or real:
            own_loader()  # before we are hidden, even from ourselves
        self._resources = () if bounds is None else resource_limits.prepare(bounds)
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
            shapes = known.EVERYTHING
        elif self._sink is not None or self._results is not None or not self._rules.empty:
            shapes = known.PATHS
        if self._judge is not None:
            shapes = known.with_calls(shapes, self._judge.calls)
            shapes = known.without(shapes, self._passing())
        if shapes:
            shapes = known.counted(shapes, FILTERING)
        if self._tasks is not None:
            shapes = known.counted(shapes, FORK_CALLS)
        return known.counted(shapes, NEIGHBOURS)

    def _placed(self, shapes: Mapping[int, Shape]) -> tuple[Placement, Mapping[int, Shape]]:
        # Nothing can be placed where not even opens are judged; and little is trapped then.
        placement = Placement(self._cpu)
        opens = (shapes.get(X86_64[name]) for name in OPENS)
        if not placement.active or not all(one is not None and one.judged for one in opens):
            return Placement(SPREAD), shapes
        if not self._passing().keys().isdisjoint(OPENS):
            # Neither where some of them go through.
            return Placement(SPREAD), shapes
        return placement, known.placing(shapes, CALLS)

    def _supervise(self) -> Outcome:
        secret = (_random(), _random())
        placement, shapes = self._placed(self._shapes())
        engine = self._engine(placement) if self.traps else None
        code = self._filter(shapes, secret)
        program = seccomp.FilterProgram(code)
        waits = Waits()
        live = LiveCheck()
        arenas = ArenaPool()
        try:
            # Last of all that can fail: from here on there is a process to look after.
            launched = spawn.spawn(
                self._command, self._confinement, program, OPTIONS, meanwhile=arenas.grow
            )
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
                self._supervisor = supervisor = self._loop(
                    launched.pid,
                    waits,
                    self._backend(waits, launched.listener, secret, live, arenas),
                    engine,
                    shapes,
                    record=self._record,
                    over=self._results,
                    flush=_written if self._late is None else self._late.flush,
                    tasks=self._tasks,
                    placement=placement,
                    on_executed=self._executed,
                    on_stop=self._on_stop,
                    on_refused=self._on_refused,
                )
                with self._deadline():
                    if self._late is not None:
                        # Before this thread gets its place: the log's thread is to have its own.
                        self._late.late(self._stop)
                    placement.start(partial(_is_hidden, code))
                    status = supervisor.run()
            if self._late is not None:
                # What it raises has ended the run, or would have.
                self._late.flush()
            return self._ended(status, launched, supervisor)
        except BaseException:
            # Usually the loop has done that.
            spawn.abandon(launched)
            raise
        finally:
            placement.close()
            live.close()
            arenas.close()
            os.close(launched.listener)
            launched.channel.close()

    # Apart, for those who measure what happens without their precautions, or what these cost.

    _loop: ClassVar[type[Supervisor]] = Supervisor
    _tracing: ClassVar[type[TraceBackend]] = TraceBackend

    def _filter(self, shapes: Mapping[int, Shape], secret: tuple[int, int]) -> bytes:
        return filters.sandbox_filter(
            shapes,
            secret,
            whole=() if self._judge is None else self._judge.whole,
            neighbours={
                number
                for number in BY_NUMBER
                if not (shapes[number].judged or shapes[number].places)
            },
            fixed_addresses=self._judge is not None and self._judge.addresses and not self._dry,
            forms=self._forms(shapes),
        )

    def _forms(self, shapes: Mapping[int, Shape]) -> dict[int, Forms]:
        forms: dict[int, Forms] = {}
        if self._lets_through:
            forms = known.forms_of(shapes, self._passing(), policy=self._judge is not None)
        for number, ones in NUMBERS.items():
            if number in shapes and not shapes[number].judged:
                forms[number] = ones
        return forms

    def _passing(self) -> Mapping[str, Forms]:
        # What the policy could only allow, by name of the call. The path rules judge all names.
        if self._judge is None or not self._lets_through:
            return {}
        passing = self._judge.passing
        if self._rules.empty:
            return passing
        paths = known.PATHS
        return {name: forms for name, forms in passing.items() if X86_64[name] not in paths}

    @property
    def _lets_through(self) -> bool:
        # Whether nobody wants to see calls that could only be allowed.
        return not (
            self._judge_all
            or self._dry
            or self._inspect_all
            or self._sink is not None
            or self._results is not None
        )

    def _engine(self, placement: Placement) -> Engine:
        # Imported where calls are judged: with all that it reads and resolves, that takes a while.
        from pinfold.supervisor.engine import Engine  # noqa: PLC0415
        from pinfold.tracee.names import Names  # noqa: PLC0415

        return Engine(
            self._rules,
            Names(),
            logs=self._sink is not None or self._results is not None,
            judge=aside(self._judge, placement),
            real=self._real,
            dry=self._dry,
        )

    def _backend(
        self,
        waits: Waits,
        listener: int,
        secret: tuple[int, int],
        live: LiveCheck,
        arenas: ArenaPool,
    ) -> TraceBackend:
        return self._tracing(
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
        if decision.action == ALLOW:
            return
        if decision.rule is not None and isinstance(decision.plan, Deny | Kill):
            self._last_denial = f"rule: {decision.rule}"
        elif decision.action == UNPINNED:
            self._last_denial = "its arguments could not be pinned: see `pinfold doctor`"

    def _record(self, task: Task, call: Shape, decision: Decision) -> Entry | None:
        self._note(decision)
        if self._entry_of is None:
            return None
        entry = self._entry_of(task, call, decision)
        if self._sink is not None:
            self._sink(entry)
        return entry

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        # Kills COMMAND, and with it the sandbox, when the run takes too long.
        if self._seconds is None:
            yield
            return
        timer = threading.Timer(self._seconds, self._time_is_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _time_is_up(self) -> None:
        self._timed_out = True
        self._stop()

    def _stop(self) -> None:
        # From another thread. The loop kills the rest when it sees COMMAND's end.
        self.signal(signal.SIGKILL)


def _is_hidden(code: bytes) -> bool:
    # Whether a program can only ask where it runs when we hear of it.
    from pinfold.launch.asked import traps_reading  # noqa: PLC0415 (most runs are too short for it)

    return traps_reading(code, CALLS)


def _written() -> None:
    # Each line is, before its call is let go.
    pass


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
