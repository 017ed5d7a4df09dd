"""``Popen``: like ``subprocess.Popen``, in a sandbox.

What is different from ``subprocess``:

- Nothing outlives its supervisor. When the command ends, whatever it left running is killed; when
  this process ends, or the object is garbage, the command is killed, too.
- Errors of pinfold come as what they are: out of the constructor when the command could not be
  started, and out of ``wait``, ``poll``, ``communicate`` and ``result`` when the sandbox had to be
  killed since (a log that cannot be written, say); ``returncode`` is then -9.
- ``communicate`` ends when the command has ended, even where somebody outside of the sandbox keeps
  its output open.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
import warnings
from typing import IO, TYPE_CHECKING, Any, Final

from pinfold.running import Running, Signalled
from pinfold.streams import Exchange, Source, Stream, Streams, StrOrBytes, command_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from pinfold.life import Outcome
    from pinfold.running import Configuration


class CompletedRun(subprocess.CompletedProcess[Any]):
    """What ``subprocess.run`` returns, and what became of the calls.

    Attributes:
        denied: How many calls a rule denied.
        redirected: How many calls a rule sent elsewhere.
        trapped: How many calls were judged.
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
        trapped: int = 0,
        audit: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.denied = denied
        self.redirected = redirected
        self.trapped = trapped
        self.audit = audit


class End:
    """How a command ended: read once from its session, then the same for everybody."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._failure: Exception | None = None

    def returncode(self) -> int:
        """Waits for the end and returns the exit status, or minus the signal that ended it."""
        with self._lock:
            if self._outcome is None and self._failure is None:
                try:
                    self._outcome = self._running.result()
                except Exception as error:  # noqa: BLE001 (``check`` raises it)
                    self._failure = error
            if self._outcome is None:
                return -signal.SIGKILL
            return os.waitstatus_to_exitcode(self._outcome.status)

    def check(self) -> None:
        """Raises what went wrong in the sandbox, if anything did; after ``returncode``."""
        if self._failure is not None:
            raise self._failure

    def completed(self, args: Any, stdout: Any, stderr: Any) -> CompletedRun:
        """Waits for the end and returns the whole result.

        Raises:
            PinfoldError: What went wrong in the sandbox.
        """
        code = self.returncode()
        self.check()
        assert self._outcome is not None
        return CompletedRun(
            args,
            code,
            stdout,
            stderr,
            denied=self._outcome.denied,
            redirected=self._outcome.redirected,
            trapped=self._outcome.trapped,
            audit=self._running.records,
        )


class Popen(Signalled):
    """A command that was started in a sandbox; a context manager that waits for its end.

    Made by ``Sandbox.popen``, which has the arguments. Methods may be called from several threads,
    as far as those of ``subprocess.Popen`` may.

    Attributes:
        args: The command, as it was given.
        stdin: File to write to, where that was to be a ``PIPE``; else None.
        stdout: File to read from, likewise.
        stderr: Likewise.
        pid: Process id of the command.
        returncode: None before its end was seen; then its exit status, or the negative number of
            the signal that ended it.
    """

    _running: Running | None = None

    def __init__(
        self,
        sandbox: Configuration,
        args: Sequence[StrOrBytes],
        *,
        bufsize: int = -1,
        cwd: StrOrBytes | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        pass_fds: Iterable[int] = (),
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        self.pid = 0
        self._owner = os.getpid()
        self._exchange: Exchange | None = None
        self._output: tuple[Any, Any] | None = None
        as_text = text or encoding is not None or errors is not None
        files = _Files(bufsize, as_text, encoding, errors)
        with Streams(stdin, stdout, stderr) as streams, contextlib.ExitStack() as undo:
            command = command_from(args, streams, cwd=cwd, env=env, pass_fds=pass_fds)
            # Before there is a process: encodings may be unknown.
            self.stdin = files.writer(streams.take(0))
            self.stdout = files.reader(streams.take(1))
            self.stderr = files.reader(streams.take(2))
            undo.callback(self._close_files)
            self._running = running = Running(sandbox, command)
            try:
                running.await_start()
            except BaseException:
                running.kill()
                raise
            undo.pop_all()
        self.pid = running.pid
        self._text = as_text
        self._sources = files.sources
        self._coding = files.coding
        self._end = End(running)

    def __repr__(self) -> str:
        return f"<Popen: returncode: {self.returncode} args: {self.args!r}>"

    def __enter__(self) -> Popen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close_files()
        finally:
            if kind is KeyboardInterrupt:
                self.kill()
            try:
                self.wait()
            except Exception:
                # Otherwise it would hide what the caller is about to see.
                if kind is None:
                    raise

    def __del__(self, _warn: Any = warnings.warn, _getpid: Any = os.getpid) -> None:
        # After a fork the object is the parent's business.
        running = self._running
        if running is None or running.over or self._owner != _getpid():
            return
        _warn(f"subprocess {self.pid} is still running", ResourceWarning, source=self)
        running.kill_soon()

    def poll(self) -> int | None:
        """Returns ``returncode``, after a look at whether the command has ended.

        Raises:
            PinfoldError: The sandbox was killed because something went wrong.
        """
        return self._ended() if self._job.over else None

    def wait(self, timeout: float | None = None) -> int:
        """Waits until nothing of the sandbox is left, and returns ``returncode``.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            subprocess.TimeoutExpired: It has not ended yet.
            PinfoldError: The sandbox was killed because something went wrong.
        """
        if not self._job.join(None if timeout is None else max(0.0, timeout)):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._ended()

    def communicate(
        self,
        input: Any = None,  # noqa: A002 (as subprocess has it)
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Sends input, reads all output, waits for the end; returns what was written to the pipes.

        After a ``TimeoutExpired`` it can be called again: no output is lost.

        Args:
            input: For the command's standard input, which is then closed: ``str`` where streams are
                text, bytes otherwise.
            timeout: Seconds to wait at most.

        Raises:
            subprocess.TimeoutExpired: The command has not ended yet; carries the output so far, in
                bytes. The command runs on.
            PinfoldError: As from ``wait``.
        """
        if self._exchange is not None and input:
            raise ValueError("Cannot send input after starting communication")
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._exchange is None:
            self._exchange = self._begin(input)
        if not self._move(deadline):
            out, err = self._so_far()
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, out, err)
        if self._output is None:
            self._output = (self._whole(self.stdout), self._whole(self.stderr))
            self._close_files()
        self._ended()
        return self._output

    def result(self) -> CompletedRun:
        """Waits for the end and returns it, with counts and records.

        Its output is what ``communicate`` has returned, if that was called.

        Raises:
            PinfoldError: As from ``wait``.
        """
        self.wait()
        out, err = self._output or (None, None)
        return self._end.completed(self.args, out, err)

    def abandon(self) -> tuple[bytes | None, bytes | None]:
        """Kills the sandbox and returns, in bytes, all output that ``communicate`` did not."""
        self._job.kill()
        if self._exchange is not None:
            self._move(None)
        return self._so_far()

    @property
    def _job(self) -> Running:
        assert self._running is not None
        return self._running

    def _ended(self) -> int:
        self.returncode = self._end.returncode()
        self._end.check()
        return self.returncode

    def _begin(self, given: Any) -> Exchange:
        data = b""
        writer = -1
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.flush()
            if given:
                data = given.encode(*self._coding) if self._text else given
                writer = self.stdin.fileno()
            else:
                self._close_input()
        readers = [file.fileno() for file in (self.stdout, self.stderr) if file and not file.closed]
        return Exchange(writer, data, readers, self._close_input)

    def _close_input(self) -> None:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()

    def _move(self, deadline: float | None) -> bool:
        assert self._exchange is not None
        with self._job.end_descriptor() as over:
            return self._exchange.run(over, deadline)

    def _so_far(self) -> tuple[bytes | None, bytes | None]:
        # None for nothing, as TimeoutExpired of subprocess has it.
        got = self._exchange.got if self._exchange is not None else {}
        out, err = (
            b"".join(got[file.fileno()]) or None
            if file is not None and not file.closed and file.fileno() in got
            else None
            for file in (self.stdout, self.stderr)
        )
        return out, err

    def _whole(self, file: IO[Any] | None) -> Any:
        if file is None:
            return None
        assert self._exchange is not None
        if file.closed:
            return "" if self._text else b""
        self._sources[file].give(b"".join(self._exchange.got[file.fileno()]))
        return file.read()

    def _close_files(self) -> None:
        # Flushing what nobody reads may fail: the others are closed all the same.
        try:
            for file in (self.stdout, self.stderr):
                if file is not None:
                    file.close()
        finally:
            if self.stdin is not None:
                self.stdin.close()


class _Files:
    # Files over our ends of pipes, as subprocess makes them.

    def __init__(
        self, bufsize: int, as_text: bool, encoding: str | None, errors: str | None
    ) -> None:
        self._line = bufsize == 1
        if self._line and not as_text:
            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer"
                " size will be used",
                RuntimeWarning,
                stacklevel=4,
            )
        self._size = io.DEFAULT_BUFFER_SIZE if bufsize < 0 or self._line else bufsize
        self._as_text = as_text
        self._encoding = encoding
        self._errors = errors
        self.coding = ("utf-8", "strict")
        self.sources: Final[dict[IO[Any], Source]] = {}

    def writer(self, fd: int | None) -> IO[Any] | None:
        if fd is None:
            return None
        raw = io.FileIO(fd, "wb")
        buffer: Any = io.BufferedWriter(raw, self._size) if self._size else raw
        return self._wrapped(buffer, write_through=True, line_buffering=self._line)

    def reader(self, fd: int | None) -> IO[Any] | None:
        if fd is None:
            return None
        source = Source(fd, "rb")
        buffer: Any = io.BufferedReader(source, self._size) if self._size else source
        file = self._wrapped(buffer)
        self.sources[file] = source
        return file

    def _wrapped(self, buffer: Any, **options: Any) -> IO[Any]:
        if not self._as_text:
            return buffer  # type: ignore[no-any-return]  # a buffer or the bare file, both readable
        try:
            file = io.TextIOWrapper(buffer, self._encoding, self._errors, **options)
        except BaseException:
            buffer.close()
            raise
        self.coding = (file.encoding, file.errors or "strict")
        return file
