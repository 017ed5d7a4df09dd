"""``Sandbox``: what commands may do, as a value; and ``run``, for those who need it once.

A sandbox is described once and used for any number of commands, several at a time. Files and
relative paths in it are looked up when it is made: it means the same from then on, in another
directory or process.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pinfold.errors import PolicyError
from pinfold.launch import choice
from pinfold.launch import limits as resource_limits
from pinfold.policy.model import NO_LIMITS, PolicyModel
from pinfold.policy.model import Limits as Bounds
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.popen import CompletedRun, Popen
from pinfold.session import Limits, Session
from pinfold.streams import DEVNULL, PIPE, STDOUT, Stream, StrOrBytes, run_streams
from pinfold.supervisor.placement import MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Unpack

    from pinfold import Policy
    from pinfold.aio import AsyncPopen
    from pinfold.audit.record import Entry
    from pinfold.audit.writer import AuditWriter
    from pinfold.launch.spawn import Command
    from pinfold.streams import Environment, RunOptions, StartOptions

__all__ = ["DEVNULL", "PIPE", "STDOUT", "CompletedRun", "Sandbox", "run"]

Maps: TypeAlias = "Mapping[Any, StrOrBytes] | Iterable[tuple[StrOrBytes, StrOrBytes]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What commands may do. It does not change, compares by value and can be pickled.

    Its methods may be called from any thread, several at a time.

    Attributes:
        policy: A policy, or the file or files to load it from, which is done at once.
        map: FROM to TO: a path argument that names FROM, or lies below it, is redirected to TO.
        deny: Globs; a path argument that matches one gets EACCES. ``**`` crosses directories.
        inspect: ``all`` pins, and shows in the log, whatever the kernel reads of a call (argv,
            environments, socket addresses, …), and not only its paths.
        real: Judge also the name that symbolic links lead to, and open what has that name.
        ro: With this or ``rw``, a Landlock domain allows only these paths, and those of the policy:
            for reading, …
        rw: … and for everything.
        keep_caps: Leave a command started by root all its capabilities.
        limits: How much commands may use; together with the limits of the policy, the lower holds.
        audit: True puts the log's records into the result, a path writes the log to that file.
        log_sync: Have each line in that file before its call is let go; else those of allowed calls
            may come up to 20 ms later.
        dry_run: Only note verdicts, in the log; every call is made as it was asked for, and neither
            limits nor Landlock paths hold.
        cpu: Where commands run: ``auto`` keeps a task on one processor with its supervisor while it
            alone traps, and often; ``together`` keeps all there; ``spread`` leaves it to the
            kernel. Commands do not see it.
        backend: How calls are brought here: ``auto`` takes the kernel's own requests for it where
            it has them and they are enough for what was asked, else a tracer; ``native`` takes the
            former or fails; ``trace`` the latter.

    Raises:
        PolicyError: A rule is malformed.
    """

    policy: Policy | StrOrBytes | Sequence[StrOrBytes] | None = None
    map: Maps = ()
    deny: Iterable[StrOrBytes] = ()
    inspect: Literal["paths", "all"] = "paths"
    real: bool = False
    ro: Iterable[StrOrBytes] = ()
    rw: Iterable[StrOrBytes] = ()
    keep_caps: bool = False
    limits: Bounds | None = None
    audit: bool | StrOrBytes = False
    log_sync: bool = False
    dry_run: bool = False
    cpu: Literal["auto", "together", "spread"] = "auto"
    backend: Literal["auto", "native", "trace"] = "auto"

    def __post_init__(self) -> None:
        if self.inspect not in ("paths", "all"):
            raise PolicyError(f"inspect is 'paths' or 'all', not {self.inspect!r}")
        if self.cpu not in MODES:
            raise PolicyError(f"cpu is one of {', '.join(MODES)}, not {self.cpu!r}")
        if self.backend not in choice.MODES:
            raise PolicyError(f"backend is one of {', '.join(choice.MODES)}, not {self.backend!r}")
        for name in ("deny", "ro", "rw"):
            if isinstance(getattr(self, name), str | bytes | os.PathLike):
                raise PolicyError(f"{name} must be a sequence: [{getattr(self, name)!r}]")
        pairs = self.map.items() if hasattr(self.map, "items") else self.map
        self._set("policy", _loaded(self.policy))
        self._set("map", tuple((_absolute(a), _absolute(b)) for a, b in pairs))
        self._set("deny", tuple(os.fsdecode(glob) for glob in self.deny))
        self._set("ro", tuple(_absolute(path) for path in self.ro))
        self._set("rw", tuple(_absolute(path) for path in self.rw))
        if not isinstance(self.audit, bool):
            self._set("audit", _absolute(self.audit))
        # What is wrong with a rule or a limit is told here, and not by the first command.
        self._rules()
        resource_limits.prepare(self._bounds())

    def run(
        self,
        args: Sequence[StrOrBytes],
        *,
        cwd: StrOrBytes | None = None,
        env: Environment | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        capture_output: bool = False,
        input: str | bytes | None = None,  # noqa: A002 (as subprocess.run has it)
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        pass_fds: Iterable[int] = (),
    ) -> CompletedRun:
        """Runs a command, waits for it, and returns how it went, as ``subprocess.run``.

        When the command ends, whatever it left running is killed. When an exception ends the wait
        (KeyboardInterrupt, say), the sandbox is killed.

        Args:
            args: The command and its arguments, a sequence.
            cwd: Working directory of the command.
            env: Its environment, instead of a copy of ours.
            stdin: ``PIPE``, ``DEVNULL``, a descriptor or a file; None inherits.
            stdout: Likewise.
            stderr: Likewise, or ``STDOUT``.
            capture_output: Collect standard output and error.
            input: Written to the command's standard input.
            text: Streams are text, as with ``encoding`` and ``errors``.
            encoding: Of text streams; None for the locale's.
            errors: How undecodable bytes are treated.
            timeout: Seconds after which the sandbox is killed.
            check: Raise when the exit status is not zero.
            pass_fds: Descriptors that the command keeps, besides the standard three.

        Raises:
            PolicyError: A path of the sandbox does not exist.
            UnsupportedError: This machine lacks something.
            LaunchError: The command could not be started.
            AuditError: The log could not be written; the command was killed.
            subprocess.TimeoutExpired: After ``timeout``; carries the output so far, in bytes.
            subprocess.CalledProcessError: With ``check``.
            ValueError: Arguments that do not go together; a null byte in the command.
        """
        stdin, stdout, stderr = run_streams(stdin, stdout, stderr, capture_output, input)
        with self.popen(
            args,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            pass_fds=pass_fds,
        ) as process:
            try:
                process.communicate(input, timeout)
            except subprocess.TimeoutExpired as expired:
                expired.stdout, expired.stderr = process.abandon()
                raise
            except BaseException:
                process.kill()
                raise
            result = process.result()
        if check:
            result.check_returncode()
        return result

    def popen(
        self,
        args: Sequence[StrOrBytes],
        *,
        bufsize: int = -1,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[StartOptions],
    ) -> Popen:
        """Starts a command and returns when it was executed, as ``subprocess.Popen``.

        Keep the object: when it is garbage the command is killed, with a ResourceWarning.

        Args:
            args: The command and its arguments, a sequence.
            bufsize: Of the files for ``PIPE``, as for ``open``.
            text: These files are text, as with ``encoding`` and ``errors``.
            encoding: Of text; None for the locale's.
            errors: How undecodable bytes are treated.
            **options: ``cwd``, ``env``, ``stdin``, ``stdout``, ``stderr`` and ``pass_fds`` as for
                ``run``.

        Raises:
            PolicyError: A path of the sandbox does not exist.
            UnsupportedError: This machine lacks something.
            LaunchError: The command could not be started.
            AuditError: The log could not be written.
            ValueError: A null byte in the command.
        """
        return Popen(
            self, args, bufsize=bufsize, text=text, encoding=encoding, errors=errors, **options
        )

    async def run_async(
        self, args: Sequence[StrOrBytes], **options: Unpack[RunOptions]
    ) -> CompletedRun:
        """Does what ``run`` does, while other tasks of the event loop go on.

        Cancelling kills the sandbox; the task ends when nothing of it is left.

        Args:
            args: The command and its arguments, a sequence.
            **options: As for ``run``.

        Raises:
            Exception: As from ``run``.
        """
        # Imported when needed: it takes longer to import than all the rest.
        from pinfold import aio  # noqa: PLC0415

        return await aio.run(self, args, **options)

    async def popen_async(
        self, args: Sequence[StrOrBytes], *, limit: int = 65536, **options: Unpack[StartOptions]
    ) -> AsyncPopen:
        """Starts a command and returns when it was executed; streams are those of asyncio.

        Cancelling this call kills the sandbox. See ``AsyncPopen`` for what comes after it.

        Args:
            args: The command and its arguments, a sequence.
            limit: Bytes that a ``StreamReader`` holds before the command has to wait.
            **options: As for ``popen``.

        Raises:
            Exception: As from ``popen``.
        """
        from pinfold import aio  # noqa: PLC0415 (as in run_async)

        return await aio.start(self, args, limit=limit, **options)

    @property
    def model(self) -> PolicyModel:
        """The rules of the policy; none where there is no policy."""
        policy = cast("Policy | None", self.policy)
        return PolicyModel() if policy is None else policy.model

    def rules_in_words(self) -> list[str]:
        """Returns ``map`` and ``deny`` as the log shows them."""
        pairs = cast("tuple[tuple[str, str], ...]", self.map)
        globs = cast("tuple[str, ...]", self.deny)
        return [*(f"map {a}={b}" for a, b in pairs), *(f"deny {glob}" for glob in globs)]

    def session(
        self,
        command: Command,
        sink: Callable[[Entry], None] | None,
        report: Callable[[str], None],
        late: AuditWriter | None = None,
    ) -> Session:
        """Returns a session for one command, not started yet.

        Args:
            command: What to run.
            sink: Called with each log entry; None for no log.
            report: Called with one line when a program or a handler goes wrong.
            late: The log that ``sink`` writes to, where lines of allowed calls may wait.

        Raises:
            PolicyError: A path of the sandbox does not exist.
            UnsupportedError: This machine lacks something.
        """
        policy = cast("Policy | None", self.policy)
        given = self.model
        judge = None if policy is None else policy.judge(ask=None, report=report, real=self.real)
        real = self.real or (judge is not None and judge.real)
        try:
            return Session(
                command,
                self._rules(links=real),
                Limits(
                    [] if self.dry_run else [*(os.fsencode(path) for path in self.ro), *given.ro],
                    [] if self.dry_run else [*(os.fsencode(path) for path in self.rw), *given.rw],
                    self.keep_caps,
                ),
                inspect_all=self.inspect == "all",
                real=real,
                judge=judge,
                bounds=self._bounds(),
                dry_run=self.dry_run,
                cpu=self.cpu,
                backend=self.backend,
                sink=sink,
                late=late,
                on_refused=report,
            )
        except BaseException:
            if judge is not None:
                judge.close()
            raise

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _rules(self, *, links: bool = False) -> PathRules:
        pairs = cast("tuple[tuple[str, str], ...]", self.map)
        globs = [parse_deny(os.fsencode(glob)) for glob in self.deny]
        linked: Mapping[bytes, bytes] = {}
        if links and globs:
            from pinfold.policy.judging.linked import where_links_lead  # noqa: PLC0415 (not for all)

            linked = where_links_lead(globs)
        return PathRules(
            [parse_map(_escape(source) + b"=" + _escape(target), b"") for source, target in pairs],
            globs,
            linked,
        )

    def _bounds(self) -> Bounds:
        if self.dry_run:
            return NO_LIMITS
        return _lower(self.limits or NO_LIMITS, self.model.limits)


def run(
    args: Sequence[StrOrBytes],
    *,
    policy: Policy | StrOrBytes | Sequence[StrOrBytes] | None = None,
    map: Maps = (),  # noqa: A002 (the option's name)
    deny: Iterable[StrOrBytes] = (),
    inspect: Literal["paths", "all"] = "paths",
    real: bool = False,
    ro: Iterable[StrOrBytes] = (),
    rw: Iterable[StrOrBytes] = (),
    keep_caps: bool = False,
    limits: Bounds | None = None,
    audit: bool | StrOrBytes = False,
    log_sync: bool = False,
    dry_run: bool = False,
    cpu: Literal["auto", "together", "spread"] = "auto",
    backend: Literal["auto", "native", "trace"] = "auto",
    **options: Unpack[RunOptions],
) -> CompletedRun:
    """Runs a command in a sandbox, waits for it, and returns how it went.

    Args:
        args: The command and its arguments, a sequence.
        policy: As for ``Sandbox``, like all up to ``backend``.
        map: Paths to redirect.
        deny: Paths to deny.
        inspect: What is looked at.
        real: Whether links are followed.
        ro: Paths that can be read.
        rw: Paths that can be used.
        keep_caps: Whether root's capabilities stay.
        limits: How much the command may use.
        audit: Where the log goes.
        log_sync: Whether each of its lines comes before its call.
        dry_run: Whether verdicts are only noted.
        cpu: Where the command runs.
        backend: How its calls are brought here.
        **options: As for ``Sandbox.run``, and for ``subprocess.run``.

    Raises:
        Exception: As from ``Sandbox`` and from ``Sandbox.run``.
    """
    sandbox = Sandbox(
        policy=policy,
        map=map,
        deny=deny,
        inspect=inspect,
        real=real,
        ro=ro,
        rw=rw,
        keep_caps=keep_caps,
        limits=limits,
        audit=audit,
        log_sync=log_sync,
        dry_run=dry_run,
        cpu=cpu,
        backend=backend,
    )
    return sandbox.run(args, **options)


def _lower(one: Bounds, other: Bounds) -> Bounds:
    found = {}
    for field in fields(Bounds):
        values = (getattr(one, field.name), getattr(other, field.name))
        found[field.name] = min((v for v in values if v is not None), default=None)
    return Bounds(**found)


def _loaded(given: Policy | StrOrBytes | Sequence[StrOrBytes] | None) -> Policy | None:
    if given is None:
        return None
    from pinfold import Policy  # noqa: PLC0415 (it takes a while, and many have no policy)

    if isinstance(given, Policy):
        return given
    paths = [given] if isinstance(given, str | bytes | os.PathLike) else given
    return Policy.load(*(os.fsdecode(path) for path in paths))


def _absolute(path: StrOrBytes) -> str:
    # Where there is no working directory a relative path stays one; who uses it says so.
    text = os.fsdecode(path)
    try:
        return os.path.join(os.getcwd(), text) if text else text
    except FileNotFoundError:
        return text


def _escape(path: str) -> bytes:
    return os.fsencode(path).replace(b"\\", b"\\\\").replace(b"=", b"\\=")
