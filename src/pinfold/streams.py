"""What a caller gives a program to start with: its arguments, environment and standard streams.

A stream is given as ``subprocess`` has it: a descriptor, a file, ``PIPE``, ``DEVNULL``, ``STDOUT``,
or None for the caller's own.

Descriptors made here never have the number of a standard stream, even where the caller runs with
one of them closed: the program, whose stream that number is, would inherit it.

``Exchange`` is the other half: it feeds and drains pipes until the program has ended, or for a
while. The end counts, not the end of file. When a sandbox has ended nothing in it can write any
more, but somebody outside who was handed a pipe could keep it open for ever.
"""

from __future__ import annotations

import errno
import io
import os
import select
import selectors
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from pinfold.errors import PolicyError
from pinfold.launch.spawn import Command
from pinfold.linux.descriptors import lifted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PIPE: Final = subprocess.PIPE
STDOUT: Final = subprocess.STDOUT
DEVNULL: Final = subprocess.DEVNULL

StrOrBytes: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Stream: TypeAlias = int | IO[Any] | None

_CHUNK: Final = 65536
_CLOSED: Final = -1
"""In a ``Command``: the program starts without this stream."""


def command_from(
    args: Sequence[StrOrBytes],
    streams: Streams,
    *,
    cwd: StrOrBytes | None = None,
    env: Mapping[Any, Any] | None = None,
    pass_fds: Iterable[int] = (),
) -> Command:
    """Returns what to start, from what a caller gave.

    Args:
        args: The program and its arguments, a sequence.
        streams: Its standard streams.
        cwd: Its working directory.
        env: Its environment, instead of a copy of ours.
        pass_fds: Descriptors that it keeps, besides the standard three.

    Raises:
        PolicyError: ``args`` is no sequence, or an empty one.
        ValueError: A null byte somewhere; no name for an environment variable.
        OSError: EBADF for a descriptor that is not open.
    """
    if isinstance(args, str | bytes | os.PathLike) or not args:
        raise PolicyError("the command must be a sequence: its name, then its arguments")
    kept = frozenset(pass_fds)
    for fd in kept:
        os.fstat(fd)
    command = Command(
        tuple(os.fsencode(arg) for arg in args),
        _environment(env),
        None if cwd is None else os.fsencode(cwd),
        streams.theirs,
        close_others=True,
        pass_fds=kept,
    )
    # What exec and chdir refuse for a reason that no errno tells.
    for text in (*command.argv, *command.env.keys(), *command.env.values(), command.cwd or b""):
        if b"\0" in text:
            raise ValueError(f"embedded null byte in {os.fsdecode(text)!r}")
    return command


def _environment(env: Mapping[Any, Any] | None) -> Mapping[bytes, bytes]:
    if env is None:
        return dict(os.environb)
    found = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    for name in found:
        if not name or b"=" in name:
            raise ValueError(f"{os.fsdecode(name)!r} is no name of an environment variable")
    return found


def run_streams(
    stdin: Stream, stdout: Stream, stderr: Stream, capture_output: bool, given: str | bytes | None
) -> tuple[Stream, Stream, Stream]:
    """Returns the three streams that the arguments of ``subprocess.run`` mean.

    Raises:
        ValueError: They do not go together.
    """
    if given is not None and stdin is not None:
        raise ValueError("stdin and input may not both be used")
    if capture_output and (stdout is not None or stderr is not None):
        raise ValueError("stdout and stderr may not be used with capture_output")
    if capture_output:
        stdout = stderr = PIPE
    return (PIPE if given is not None else stdin), stdout, stderr


Environment: TypeAlias = "Mapping[str, str] | Mapping[bytes, bytes]"


class StartOptions(TypedDict, total=False):
    """How a command starts; each as ``subprocess`` has it."""

    cwd: StrOrBytes | None
    env: Environment | None
    stdin: Stream
    stdout: Stream
    stderr: Stream
    pass_fds: Iterable[int]


class RunOptions(StartOptions, total=False):
    """What ``run`` takes besides the command; each as ``subprocess.run`` has it."""

    capture_output: bool
    input: str | bytes | None
    text: bool
    encoding: str | None
    errors: str | None
    timeout: float | None
    check: bool


class Streams:
    """The standard streams of a program that is about to start; a context manager.

    Attributes:
        theirs: The descriptors that become its 0, 1 and 2.

    Raises:
        ValueError: A number that is no descriptor.
        OSError: EBADF for one that is not open; a descriptor could not be made.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self._ours: dict[int, int] = {}
        self._opened: list[int] = []
        try:
            out = self._one(1, stdout)
            self.theirs: Final = (
                self._one(0, stdin),
                out,
                out if _is(stderr, STDOUT) else self._one(2, stderr),
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, number: int) -> int | None:
        """Returns our end of the pipe to stream ``number``, now the caller's; None without one."""
        return self._ours.pop(number, None)

    def close_theirs(self) -> None:
        """Closes what was made for the program; to be called when it has it."""
        while self._opened:
            os.close(self._opened.pop())

    def close(self) -> None:
        """Closes everything that was made and not taken; may be called twice."""
        self.close_theirs()
        while self._ours:
            os.close(self._ours.popitem()[1])

    def _one(self, number: int, stream: Stream) -> int:
        if stream is None:
            return number if _is_inheritable(number) else _CLOSED
        if _is(stream, PIPE):
            return self._pipe(number)
        if _is(stream, DEVNULL):
            self._opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._lift_last()
        fd = stream if isinstance(stream, int) else stream.fileno()
        if fd < 0:
            raise ValueError(f"{fd} is no descriptor for standard stream {number}")
        # A closed one must not be taken by something of ours before the program gets it.
        os.fstat(fd)
        return fd

    def _pipe(self, number: int) -> int:
        reader, writer = os.pipe()
        theirs, ours = (reader, writer) if number == 0 else (writer, reader)
        self._opened.append(theirs)
        self._ours[number] = ours
        self._ours[number] = lifted(ours)
        return self._lift_last()

    def _lift_last(self) -> int:
        self._opened[-1] = lifted(self._opened[-1])
        return self._opened[-1]


def _is(stream: Stream, constant: int) -> bool:
    return isinstance(stream, int) and stream == constant


def _is_inheritable(fd: int) -> bool:
    # A closed one may have been taken by a descriptor of ours or of anybody's. Those are not
    # inheritable, in Python, and the program must not get them.
    try:
        return os.get_inheritable(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False


class Source(io.FileIO):
    """Our end of a pipe that the program writes to.

    Once ``Exchange`` has read the pipe to its end, what it has got is read here. So the buffers and
    decoders that a user has put on top of it, and what they hold already, stay in use.
    """

    _got: bytes | None = None

    def give(self, data: bytes) -> None:
        """Has ``data``, and then the end, read instead of the pipe."""
        self._got = data

    def readinto(self, buffer: Any) -> int:
        """Reads into ``buffer``, as ``io.RawIOBase``."""
        if self._got is None:
            return super().readinto(buffer)
        room = memoryview(buffer).cast("B")
        data = self.read(len(room))
        room[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Reads at most ``size`` bytes, or all, as ``io.RawIOBase``."""
        if self._got is None:
            return super().read(-1 if size is None else size)
        at = len(self._got) if size is None or size < 0 else size
        data, self._got = self._got[:at], self._got[at:]
        return data

    def readall(self) -> bytes:
        """Reads to the end, as ``io.RawIOBase``."""
        return super().readall() if self._got is None else self.read()


class Exchange:
    """Feeds a program's input and keeps its output until it has ended.

    Args:
        writer: Descriptor of the pipe to its standard input; -1 for none.
        data: What to write there.
        readers: Descriptors of the pipes to read.
        done: Called when there is nothing more to write.

    Attributes:
        got: By descriptor, what was read so far, in pieces.
    """

    def __init__(
        self, writer: int, data: bytes, readers: Iterable[int], done: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._left = memoryview(data)
        self._open = set(readers)
        self._done = done
        self.got: Final[dict[int, list[bytes]]] = {fd: [] for fd in self._open}

    def run(self, over: int, deadline: float | None) -> bool:
        """Moves data until ``over`` is readable (true) or the deadline has passed (false).

        May be called again.

        Args:
            over: A descriptor that becomes readable when nothing of the program is left.
            deadline: As by ``time.monotonic``; None for never.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(over, selectors.EVENT_READ)
            for fd in self._open:
                selector.register(fd, selectors.EVENT_READ)
            if self._writer >= 0:
                selector.register(self._writer, selectors.EVENT_WRITE)
            while True:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = {key.fd for key, _ in selector.select(wait)}
                if over in ready:
                    break
                for fd in ready:
                    if not (self._feed() if fd == self._writer else self._drain(fd)):
                        selector.unregister(fd)
                        self._closed(fd)
                if deadline is not None and time.monotonic() >= deadline:
                    return False
        self._rest()
        return True

    def _rest(self) -> None:
        # What the program wrote last is in the pipes; nobody in the sandbox adds to it any more.
        for fd in self._open:
            waiting = select.poll()
            waiting.register(fd, select.POLLIN)
            while waiting.poll(0) and self._drain(fd):
                pass
        self._open.clear()
        if self._writer >= 0:
            self._closed(self._writer)

    def _closed(self, fd: int) -> None:
        if fd != self._writer:
            self._open.discard(fd)
            return
        self._writer = -1
        self._done()

    def _feed(self) -> bool:
        # No more than what a pipe that is ready takes without blocking.
        try:
            self._left = self._left[os.write(self._writer, self._left[: select.PIPE_BUF]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            # The program does not read its input, and subprocess does not mind that either.
            return False
        return bool(self._left)

    def _drain(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        self.got[fd].append(chunk)
        return bool(chunk)
