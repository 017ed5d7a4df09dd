"""``AsyncPopen``: a command in a sandbox for programs that run an event loop of asyncio.

It works in whatever loop is running, and takes no thread of the loop's pool: the sandbox's own
thread tells when it was started and when it is over.

Sandboxes of a loop are set up one after another, each when the process of the one before exists. To
set one up is work of the loop's thread, and what follows is work of a thread that competes with it
for the interpreter. Begun all at once, many starts would keep the loop from everything else. A
start is not waited for any further: a handler may take its time to judge the exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from pinfold.popen import CompletedRun, End
from pinfold.running import Running, Signalled
from pinfold.streams import Streams, command_from, run_streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType
    from typing import Unpack

    from pinfold.running import Configuration
    from pinfold.streams import RunOptions, StartOptions, StrOrBytes

_CHUNK: Final = 65536

_turns: Final[weakref.WeakValueDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = (
    weakref.WeakValueDictionary()
)
"""By loop, held by whoever sets up a sandbox in it, as long as there is anybody who wants to."""


class AsyncPopen(Signalled):
    """A command that was started in a sandbox; an asynchronous context manager.

    Made by ``Sandbox.popen_async``. Leaving its ``async with`` block waits for the command's end,
    and kills it first when an exception (CancelledError included) ends the block. Cancelling one of
    the methods only ends that wait, as with ``asyncio.subprocess``. Keep the object: when it is
    garbage, the command is killed.

    Attributes:
        args: The command, as it was given.
        stdin: ``asyncio.StreamWriter``, where that was to be a ``PIPE``; else None.
        stdout: ``asyncio.StreamReader``, likewise.
        stderr: Likewise.
        pid: Process id of the command.
        returncode: None before its end was seen; then its exit status, or the negative number of
            the signal that ended it.
    """

    def __init__(self, args: Sequence[StrOrBytes], running: Running) -> None:
        self.args = args
        self.pid = running.pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._owner = os.getpid()
        self._running = running
        self._end = End(running)
        self._over = asyncio.Event()
        self._sources: list[_Source] = []
        self._output: tuple[bytes | None, bytes | None] = (None, None)

    def __repr__(self) -> str:
        return f"<AsyncPopen: returncode: {self.returncode} args: {self.args!r}>"

    async def __aenter__(self) -> AsyncPopen:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        for source in self._sources:
            source.close()
        if self.stdin is not None:
            self.stdin.close()
        await self._over.wait()
        if kind is None:
            self._end.check()

    def __del__(self, _warn: Any = warnings.warn, _getpid: Any = os.getpid) -> None:
        if self._running.over or self._owner != _getpid():
            return
        _warn(f"subprocess {self.pid} is still running", ResourceWarning, source=self)
        self._running.kill_soon()

    async def wait(self) -> int:
        """Waits until nothing of the sandbox is left, and returns ``returncode``.

        Raises:
            PinfoldError: The sandbox was killed because something went wrong.
        """
        await self._over.wait()
        self._end.check()
        assert self.returncode is not None
        return self.returncode

    async def communicate(
        self,
        input: bytes | None = None,  # noqa: A002 (as asyncio.subprocess has it)
    ) -> tuple[bytes | None, bytes | None]:
        """Sends input, reads all output, waits for the end; returns what was written to the pipes.

        Args:
            input: For the command's standard input, which is then closed.

        Raises:
            PinfoldError: As from ``wait``.
        """
        _, out, err = await asyncio.gather(
            self._send(input), _everything(self.stdout), _everything(self.stderr)
        )
        self._output = (out, err)
        await self.wait()
        return self._output

    @property
    def _job(self) -> Running:
        return self._running

    async def result(self) -> CompletedRun:
        """Waits for the end and returns it, with counts and records.

        Its output is what ``communicate`` has returned, if that was called.

        Raises:
            PinfoldError: As from ``wait``.
        """
        await self.wait()
        return self._end.completed(self.args, *self._output)

    async def _connect(self, streams: Streams, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.stdin = await _writer(loop, streams.take(0))
        self.stdout = await self._reader(loop, streams.take(1), limit)
        self.stderr = await self._reader(loop, streams.take(2), limit)
        reference = weakref.ref(self)

        def over() -> None:
            process = reference()
            if process is not None:
                process._ended()  # noqa: SLF001 (our own)

        self._running.watch(_in_loop(loop, over))

    async def _reader(
        self, loop: asyncio.AbstractEventLoop, fd: int | None, limit: int
    ) -> asyncio.StreamReader | None:
        if fd is None:
            return None
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, io.FileIO(fd, "rb"))
        self._sources.append(_Source(transport, protocol))
        return reader

    def _ended(self) -> None:
        # In the loop, when nothing of the sandbox is left.
        for source in self._sources:
            source.finish()
        if self.stdin is not None:
            # A close would wait until all is written, and somebody outside of the sandbox may hold
            # the other end and never read. What has nothing left to write is on its way out.
            transport = self.stdin.transport
            if not transport.is_closing() or transport.get_write_buffer_size():
                transport.abort()
        self.returncode = self._end.returncode()
        self._over.set()

    async def _send(self, data: bytes | None) -> None:
        if self.stdin is None:
            return
        # The command may end without having read it all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if data:
                self.stdin.write(data)
                await self.stdin.drain()
        self.stdin.close()


class _Source:
    # The transport of a pipe that we read.

    def __init__(self, transport: asyncio.ReadTransport, protocol: asyncio.Protocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def finish(self) -> None:
        # Reads what is in the pipe and ends the stream, whoever still holds the other end.
        if self._transport.is_closing():
            return
        self._transport.pause_reading()
        fd = self._transport.get_extra_info("pipe").fileno()
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(fd, _CHUNK):
                self._protocol.data_received(chunk)
        self._protocol.eof_received()
        self._transport.close()

    def close(self) -> None:
        self._transport.close()


async def start(
    sandbox: Configuration,
    args: Sequence[StrOrBytes],
    *,
    limit: int,
    **options: Unpack[StartOptions],
) -> AsyncPopen:
    """Does what ``Sandbox.popen_async`` does."""
    loop = asyncio.get_running_loop()
    launched, started = asyncio.Event(), asyncio.Event()
    turn = _turns.setdefault(loop, asyncio.Lock())
    async with contextlib.AsyncExitStack() as stack:
        async with turn:
            streams = stack.enter_context(
                Streams(options.get("stdin"), options.get("stdout"), options.get("stderr"))
            )
            command = command_from(
                args,
                streams,
                cwd=options.get("cwd"),
                env=options.get("env"),
                pass_fds=options.get("pass_fds", ()),
            )
            running = Running(
                sandbox, command, _in_loop(loop, launched.set), _in_loop(loop, started.set)
            )
            await stack.enter_async_context(_killed_by_errors(running))
            await launched.wait()
        await started.wait()
        # Returns or raises at once.
        running.await_start()
        process = AsyncPopen(args, running)
        await process._connect(streams, limit)  # noqa: SLF001 (our own)
        return process


async def run(
    sandbox: Configuration, args: Sequence[StrOrBytes], **options: Unpack[RunOptions]
) -> CompletedRun:
    """Does what ``Sandbox.run_async`` does."""
    given = options.pop("input", None)
    capture_output = options.pop("capture_output", False)
    timeout = options.pop("timeout", None)
    check = options.pop("check", False)
    text, encoding, errors = (
        options.pop("text", False),
        options.pop("encoding", None),
        options.pop("errors", None),
    )
    as_text = text or encoding is not None or errors is not None
    streams = run_streams(
        options.pop("stdin", None),
        options.pop("stdout", None),
        options.pop("stderr", None),
        capture_output,
        given,
    )
    data = _encoded(given, encoding, errors) if as_text else given
    rest = cast("StartOptions", options)
    rest["stdin"], rest["stdout"], rest["stderr"] = streams
    async with await start(sandbox, args, limit=_CHUNK, **rest) as process:
        # Not cancelled by the timeout: what it has read would be lost.
        exchange = asyncio.ensure_future(process.communicate(cast("bytes | None", data)))
        try:
            done, _ = await asyncio.wait({exchange}, timeout=timeout)
            if not done:
                process.kill()
                out, err = await exchange
                raise subprocess.TimeoutExpired(args, timeout or 0.0, out or None, err or None)
            result = await process.result()
            await exchange
        finally:
            exchange.cancel()
    if as_text:
        result.stdout = _decoded(result.stdout, encoding, errors)
        result.stderr = _decoded(result.stderr, encoding, errors)
    if check:
        result.check_returncode()
    return result


@contextlib.asynccontextmanager
async def _killed_by_errors(running: Running) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        running.kill_soon()
        await _gone(running)
        raise


async def _gone(running: Running) -> None:
    gone = asyncio.Event()
    running.watch(_in_loop(asyncio.get_running_loop(), gone.set))
    await gone.wait()


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Callable[[], None]:
    # For any thread. When the loop is closed, nobody is left who wants to know.
    def call() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(function)

    return call


async def _writer(loop: asyncio.AbstractEventLoop, fd: int | None) -> asyncio.StreamWriter | None:
    if fd is None:
        return None
    # A reader's protocol: the only public one that a writer can wait on for its close.
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, io.FileIO(fd, "wb"))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _everything(reader: asyncio.StreamReader | None) -> bytes | None:
    return None if reader is None else await reader.read()


def _encoded(given: Any, encoding: str | None, errors: str | None) -> bytes | None:
    if given is None:
        return None
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding, errors, write_through=True) as file:
        file.write(given)
        return buffer.getvalue()


def _decoded(data: bytes | None, encoding: str | None, errors: str | None) -> str | None:
    return None if data is None else io.TextIOWrapper(io.BytesIO(data), encoding, errors).read()
