"""``pinfold.run``: like ``subprocess.run``, with the command's path arguments judged and pinned."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from pinfold.audit.record import describe
from pinfold.audit.writer import AuditWriter
from pinfold.errors import PolicyError
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.session import Limits, Session, require_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pinfold.audit.record import Entry
    from pinfold.session import Outcome

PIPE: Final = subprocess.PIPE
STDOUT: Final = subprocess.STDOUT
DEVNULL: Final = subprocess.DEVNULL

_CHUNK: Final = 65536

StrOrBytes = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Stream = int | IO[Any] | None


class CompletedRun(subprocess.CompletedProcess[Any]):
    """What ``subprocess.run`` returns, and what became of the calls.

    Attributes:
        denied: How many calls a rule denied.
        redirected: How many calls a rule sent elsewhere.
        audit: The log's records as dictionaries, where they were asked for; else None.
    """

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: Any = None,
        stderr: Any = None,
        *,
        denied: int = 0,
        redirected: int = 0,
        audit: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.denied = denied
        self.redirected = redirected
        self.audit = audit


def path_rules(
    maps: Mapping[str, str] | Iterable[tuple[StrOrBytes, StrOrBytes]], denies: Iterable[StrOrBytes]
) -> PathRules:
    """Returns path rules from pairs and globs as a user gives them.

    Raises:
        PolicyError: One is malformed.
    """
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = b""
    pairs = maps.items() if hasattr(maps, "items") else maps
    return PathRules(
        [parse_map(_escape(source) + b"=" + _escape(target), here) for source, target in pairs],
        [parse_deny(os.fsencode(glob)) for glob in denies],
    )


def _escape(path: StrOrBytes) -> bytes:
    return os.fsencode(path).replace(b"\\", b"\\\\").replace(b"=", b"\\=")


def run(
    args: Sequence[StrOrBytes],
    *,
    map: Mapping[str, str] | Iterable[tuple[StrOrBytes, StrOrBytes]] = (),  # noqa: A002 (the option's name)
    deny: Iterable[StrOrBytes] = (),
    audit: bool | StrOrBytes = False,
    inspect: Literal["paths", "all"] = "paths",
    real: bool = False,
    ro: Iterable[StrOrBytes] = (),
    rw: Iterable[StrOrBytes] = (),
    keep_caps: bool = False,
    cwd: StrOrBytes | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
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
    """Runs a command in a sandbox, waits for it, and returns how it went.

    May be called from any thread, several at a time. The arguments that ``subprocess.run`` has too
    mean the same. When the command ends, whatever it left running is killed.

    Args:
        args: The command and its arguments, a sequence.
        map: FROM to TO: a path argument that names FROM, or lies below it, is redirected to TO.
        deny: Globs; a path argument that matches one gets EACCES. ``**`` crosses directories.
        audit: True puts the log's records into the result, a path writes them to that file.
        inspect: ``all`` pins, and shows in the log, whatever the kernel reads of a call (argv,
            environments, socket addresses, …), and not only its paths.
        real: Judge also the name that symbolic links lead to, and open what has that name.
        ro: With this or ``rw``, a Landlock domain allows only these paths: for reading, …
        rw: … and for everything.
        keep_caps: Leave a command started by root all its capabilities.
        cwd: Working directory of the command.
        env: Its environment, instead of a copy of ours.
        stdin: ``PIPE``, ``DEVNULL``, a descriptor or a file; None inherits.
        stdout: Likewise.
        stderr: Likewise, or ``STDOUT``.
        capture_output: Collect standard output and error.
        input: Written to the command's standard input.
        text: Streams are text, as with ``encoding`` and ``errors``.
        encoding: Of text streams.
        errors: How undecodable bytes are treated.
        timeout: Seconds after which the command is killed.
        check: Raise when the exit status is not zero.
        pass_fds: Descriptors that the command keeps, besides the standard three.

    Raises:
        PolicyError: A rule is malformed.
        UnsupportedError: This machine lacks something.
        LaunchError: The command could not be started.
        AuditError: The log could not be written; the command was killed.
        subprocess.TimeoutExpired: After ``timeout``; carries the output so far.
        subprocess.CalledProcessError: With ``check``.
    """
    require_machine()
    if isinstance(args, str | bytes | os.PathLike) or not args:
        raise PolicyError("the command must be a sequence: its name, then its arguments")
    if inspect not in ("paths", "all"):
        raise PolicyError(f"inspect is 'paths' or 'all', not {inspect!r}")
    if input is not None and stdin is not None:
        raise ValueError("stdin and input may not both be used")
    if capture_output and (stdout is not None or stderr is not None):
        raise ValueError("stdout and stderr may not be used with capture_output")
    rules = path_rules(map, deny)
    as_text = text or encoding is not None or errors is not None
    records: list[dict[str, Any]] | None = [] if audit is True else None
    with contextlib.ExitStack() as stack:
        sink: Callable[[Entry], None] | None = None
        if records is not None:
            collected = records
            sink = lambda entry: collected.append(describe(entry))  # noqa: E731
        elif audit:
            writer = AuditWriter.open(os.fsdecode(_path_of(audit)))
            stack.callback(writer.close)
            sink = writer.write
        streams = stack.enter_context(
            _Streams(
                PIPE if input is not None else stdin,
                PIPE if capture_output else stdout,
                PIPE if capture_output else stderr,
            )
        )
        command = Command(
            tuple(os.fsencode(arg) for arg in args),
            _environment(env),
            None if cwd is None else os.fsencode(cwd),
            streams.theirs,
            close_others=True,
            pass_fds=frozenset(pass_fds),
        )
        limits = Limits([os.fsencode(p) for p in ro], [os.fsencode(p) for p in rw], keep_caps)
        session = Session(
            command, rules, limits, inspect_all=inspect == "all", real=real, sink=sink
        )
        session.start()
        out, err, outcome = _attend(session, streams, _data(input, encoding, errors), timeout, args)
        stdout_value = _decoded(out, encoding, errors) if as_text else out
        stderr_value = _decoded(err, encoding, errors) if as_text else err
    result = CompletedRun(
        args,
        os.waitstatus_to_exitcode(outcome.status),
        stdout_value,
        stderr_value,
        denied=outcome.denied,
        redirected=outcome.redirected,
        audit=records,
    )
    if check:
        result.check_returncode()
    return result


def _attend(
    session: Session, streams: _Streams, data: bytes, timeout: float | None, args: Any
) -> tuple[bytes | None, bytes | None, Outcome]:
    # Feeds and drains the pipes until the command has ended; kills it when that takes too long.
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        session.launched.wait()
        streams.close_theirs()
        complete = streams.pump(data, deadline) and session.join(
            None if deadline is None else max(0.0, deadline - time.monotonic())
        )
    except BaseException:
        session.kill()
        raise
    if not complete:
        session.kill()
        streams.pump(b"", None)
        out, err = streams.collected()
        raise subprocess.TimeoutExpired(args, timeout or 0.0, out, err)
    out, err = streams.collected()
    return out, err, session.result()


class _Streams:
    # The three standard streams: what the command gets, and our ends of the pipes.

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self._ours: dict[int, int] = {}
        self._opened: list[int] = []
        self._chunks: dict[int, list[bytes]] = {}
        try:
            out = self._one(1, stdout)
            self.theirs = (
                self._one(0, stdin),
                out,
                out if stderr == STDOUT else self._one(2, stderr),
            )
        except BaseException:
            self.__exit__()
            raise

    def _one(self, number: int, stream: Stream) -> int:
        if stream is None:
            return number
        if stream == PIPE:
            reader, writer = os.pipe()
            theirs, ours = (reader, writer) if number == 0 else (writer, reader)
            self._opened.append(theirs)
            self._ours[number] = ours
            os.set_blocking(ours, False)
            if number:
                self._chunks[number] = []
            return theirs
        if stream == DEVNULL:
            theirs = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._opened.append(theirs)
            return theirs
        return stream if isinstance(stream, int) else stream.fileno()

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        for fd in self._ours.values():
            os.close(fd)
        self._ours.clear()

    def close_theirs(self) -> None:
        while self._opened:
            os.close(self._opened.pop())

    def collected(self) -> tuple[bytes | None, bytes | None]:
        out, err = (b"".join(self._chunks[n]) if n in self._chunks else None for n in (1, 2))
        return out, err

    def pump(self, data: bytes, deadline: float | None) -> bool:
        # Moves data until every pipe is closed (true) or the deadline has passed (false).
        left = memoryview(data)
        with selectors.DefaultSelector() as selector:
            for number, fd in self._ours.items():
                selector.register(
                    fd, selectors.EVENT_READ if number else selectors.EVENT_WRITE, number
                )
            while selector.get_map():
                wait = None if deadline is None else deadline - time.monotonic()
                if wait is not None and wait <= 0:
                    return False
                for key, _ in selector.select(wait):
                    if key.data == 0:
                        left = left[self._feed(key.fd, left) :]
                        done = not left
                    else:
                        done = not self._drain(key.fd, key.data)
                    if done:
                        selector.unregister(key.fd)
                        os.close(self._ours.pop(key.data))
        return True

    def _feed(self, fd: int, data: memoryview) -> int:
        try:
            return os.write(fd, data[:_CHUNK])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            # The command does not read its input; subprocess.run ignores that too.
            return len(data)

    def _drain(self, fd: int, number: int) -> bool:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        self._chunks[number].append(chunk)
        return bool(chunk)


def _path_of(audit: bool | StrOrBytes) -> StrOrBytes:
    assert not isinstance(audit, bool)
    return audit


def _environment(env: Mapping[Any, Any] | None) -> Mapping[bytes, bytes]:
    if env is None:
        return dict(os.environb)
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


def _data(given: str | bytes | None, encoding: str | None, errors: str | None) -> bytes:
    if given is None:
        return b""
    return (
        given.encode(encoding or "utf-8", errors or "strict") if isinstance(given, str) else given
    )


def _decoded(data: bytes | None, encoding: str | None, errors: str | None) -> str | None:
    if data is None:
        return None
    text = data.decode(encoding or "utf-8", errors or "strict")
    return text.replace("\r\n", "\n").replace("\r", "\n")
