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
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.backends.base import Deny, Kill
from pinfold.backends.trace import TraceBackend
from pinfold.errors import LaunchError, UnsupportedError
from pinfold.launch import choice, confine, spawn
from pinfold.launch import limits as resource_limits
from pinfold.launch.choice import NATIVE, TRACE, Need
from pinfold.launch.hidden import Hidden
from pinfold.life import Life, Outcome
from pinfold.linux import process, seccomp
from pinfold.pins.arena import ArenaPool
from pinfold.pins.install import Installer
from pinfold.pins.live import LiveCheck
from pinfold.policy.rules import ALLOW
from pinfold.supervisor.decision import UNPINNED
from pinfold.supervisor.loop import OPTIONS, Supervisor
from pinfold.supervisor.placement import AUTO, CALLS, SPREAD, Placement, aside
from pinfold.tracee.loader import own_loader
from pinfold.tracee.stops import stopped
from pinfold.tracee.waits import Waits
from pinfold.trapping import Trapping
from pinfold.uapi.ptrace import WALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import ClassVar

    from pinfold.audit.record import Entry
    from pinfold.audit.writer import AuditWriter
    from pinfold.launch.spawn import Command, Launched
    from pinfold.nativerun import NativeRun
    from pinfold.policy.calls import Judge
    from pinfold.policy.model import Limits as Bounds
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.decision import Decision
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.listening import Listening
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller


_REFUSES: Final = (Deny, Kill)


class Limits(NamedTuple):
    """What COMMAND may reach, apart from path rules."""

    ro: Sequence[bytes] = ()
    rw: Sequence[bytes] = ()
    keep_caps: bool = False


class Session(Life):
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
        cpu: Where its tasks run: a word of ``supervisor.placement.MODES``. The native back end
            leaves that to the kernel.
        backend: Which back end it takes: a word of ``launch.choice.MODES``.
        sink: Called with each log entry before the call it is about is let go; None for no log.
        late: The log that ``sink`` writes to, where lines of allowed calls may wait for a moment.
        results: Called with an entry and the result of its call (signed; None when it never came
            back) when that is over.
        on_stop: Called in the session's thread when COMMAND was stopped by job control.
        on_refused: Called with one line when a program was killed as a whole.
        on_launched: Called in the session's thread when COMMAND's process exists, before anything
            of COMMAND has run; what it raises ends the run.

    Attributes:
        backend: The back end that it takes: ``native`` or ``trace``.
        warnings: Lines about what is weaker than usual.

    Raises:
        PolicyError: A path to confine to does not exist.
        UnsupportedError: The kernel lacks something that was asked for; or the native back end was,
            and cannot do all the rest.
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
        backend: str = TRACE,
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
        self._entry_of: Callable[[Caller, Shape, Decision], Entry] | None = None
        if sink is not None or results is not None:
            from pinfold.audit.entries import Entries  # noqa: PLC0415 (only where there is a log)

            self._entry_of = Entries(dry=dry_run).of
        self._results = results
        self._on_stop = on_stop
        self._on_refused = on_refused
        self._on_launched = on_launched
        self._wanted = backend
        self.backend, weaker = choice.choose(backend, self._needs())
        if judge is not None or real:
            own_loader()  # before we are hidden, even from ourselves
        self._resources = () if bounds is None else resource_limits.prepare(bounds)
        self._confinement = confine.prepare(limits.ro, limits.rw, limits.keep_caps)
        self.warnings = (*weaker, *self._confinement.warnings)
        self._timed_out = False
        self._last_denial: str | None = None
        super().__init__()

    @property
    def traps(self) -> bool:
        """Whether any call is judged at all."""
        return self._trapping.any

    def _release(self) -> None:
        self._confinement.close()
        if self._judge is not None:
            self._judge.close()

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

    def _needs(self) -> Iterator[Need]:
        # What the trace back end does better.
        if self._results is not None:
            yield Need("results of calls are asked for, and only a tracer sees these", False)
        if self._tasks is not None:
            yield Need("a limit on tasks needs somebody who counts them, a tracer", False)
        if self._real or (self._judge is not None and self._judge.real):
            yield Need("to open files by real name takes another call, and so a tracer", False)
        if self._judge is not None and self._judge.programs:
            yield Need(
                "the interpreter of a script, and the loader of a program, are judged before the"
                " exec, and may be others by then",
                True,
            )
        if self._inspect_all or (self._judge is not None and "sendmmsg" in self._judge.calls):
            yield Need("sendmmsg fails with ENOSYS in this sandbox", True)

    @property
    def _trapping(self) -> Trapping:
        return Trapping(
            self._rules,
            self._judge,
            self._inspect_all,
            logs=self._sink is not None or self._results is not None,
            counts=self._tasks is not None,
            judge_all=self._judge_all,
            dry=self._dry,
            traced=self.backend == TRACE,
            limits=bool(self._resources),
        )

    def _supervise(self) -> Outcome:
        if self.backend == NATIVE:
            from pinfold.nativerun import NotNativeError  # noqa: PLC0415 (few kernels get that far)

            try:
                return self._natively()
            except NotNativeError as error:
                choice.disown(str(error))
                if self._wanted == NATIVE:
                    raise
                self.backend = TRACE
        return self._traced()

    def _natively(self) -> Outcome:
        from pinfold.nativerun import NativeRun  # noqa: PLC0415 (likewise)

        trapping = self._trapping
        shapes = trapping.shapes()
        engine = self._engine(Placement(SPREAD)) if self.traps else None
        program = seccomp.FilterProgram(trapping.filter(shapes, None))
        run = NativeRun(self._command, self._confinement, program)
        launched = run.launched
        try:
            self._has_launched(launched)
            with Hidden():
                self._tell_launched()
                self._set_launched()
                self._supervisor = listening = self._listening(run, engine, shapes)
                self._stop_all = listening.stop
                status = self._looped(listening)
            return self._ended(status, launched, listening)
        except BaseException:
            spawn.abandon(launched)
            raise
        finally:
            self._stop_all = None
            run.close()
            os.close(launched.listener)
            launched.channel.close()

    def _listening(
        self, run: NativeRun, engine: Engine | None, shapes: Mapping[int, Shape]
    ) -> Listening:
        limit = partial(resource_limits.apply, self.pid, self._resources)
        return run.loop(
            engine,
            shapes,
            programs=self._judge is not None or self._entry_of is not None,
            record=self._record,
            flush=self._flush,
            limit=limit if self._resources else None,
            on_executed=self._set_started,
            on_stop=self._on_stop,
        )

    @property
    def _flush(self) -> Callable[[], None]:
        return _written if self._late is None else self._late.flush

    def _has_launched(self, launched: Launched) -> None:
        # The child has it; many sandboxes at a time need few descriptors each.
        self._confinement.close()
        self.pid = launched.pid
        self._pidfd = launched.pidfd

    def _looped(
        self, supervisor: Supervisor | Listening, start: Callable[[], object] = bool
    ) -> int:
        # Runs the loop; returns COMMAND's wait status.
        with self._deadline():
            if self._late is not None:
                # Before this thread gets its place: the log's thread is to have its own.
                self._late.late(self._stop)
            start()
            status = supervisor.run()
        if self._late is not None:
            # What it raises has ended the run, or would have.
            self._late.flush()
        return status

    def _traced(self) -> Outcome:
        secret = (_random(), _random())
        trapping = self._trapping
        placement, shapes = trapping.placed(self._cpu, trapping.shapes())
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
        try:
            self._has_launched(launched)
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
                    flush=self._flush,
                    tasks=self._tasks,
                    placement=placement,
                    on_executed=self._executed,
                    on_stop=self._on_stop,
                    on_refused=self._on_refused,
                )
                status = self._looped(
                    supervisor, partial(placement.start, partial(_is_hidden, code))
                )
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
        return self._trapping.filter(shapes, secret)

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

    def _ended(
        self, status: int, launched: Launched, supervisor: Supervisor | Listening
    ) -> Outcome:
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

    def _not_executed(self, launched: Launched, supervisor: Supervisor | Listening) -> LaunchError:
        if supervisor.refused:
            return LaunchError(f"{os.fsdecode(launched.paths[-1])}: a 32-bit program", 126)
        return spawn.exec_failure(launched, self._last_denial)

    def _note(self, decision: Decision) -> None:
        # Kept with or without a log: why COMMAND itself may have been denied.
        if decision.action == ALLOW:
            return
        if decision.rule is not None and isinstance(decision.plan, _REFUSES):
            self._last_denial = f"rule: {decision.rule}"
        elif decision.action == UNPINNED:
            self._last_denial = "its arguments could not be pinned: see `pinfold doctor`"

    def _record(self, task: Caller, call: Shape, decision: Decision) -> Entry | None:
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
