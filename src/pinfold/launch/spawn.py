"""From a command to a stopped, confined and filtered process, with its listener here.

The parent forks; child and parent then talk over one socket pair:

    child                                   supervisor
    streams, directory, confinement
    "R" ready for the filter          →
                                      ←     PTRACE_SEIZE for a sandbox that is traced, "S"
    installs the filter
    "F" + number of the listener      →
                                      ←     pidfd_getfd, "G"
    execve, judged like any other
    "E" + errno + index, if it failed →     (end of file when it succeeded)

The child is seized before it has a filter, since a call that the filter sends to a tracer fails
without one; and it holds its first trapped call until the listener was fetched.

Code in the child runs between fork and exec in a process that may have had other threads: it makes
plain calls with what was prepared before, imports nothing, takes no locks, collects no garbage
(finalizers of the parent's objects would run), and leaves by ``os._exit`` whatever happens.

From the filter to "G" it makes no call but ``HAND_OVER_CALLS``: any other might be trapped, and
nobody is there yet to answer. Hence messages go by two calls that programs hardly use, and the
first two messages go the same way as the next two: what the interpreter needs memory for is there
when the filter comes.
"""

from __future__ import annotations

# The parts of ``signal`` and ``socket`` that are C. To make enumerations of all that it knows takes
# ``socket`` longer than we take for a whole launch; and ``signal`` makes them of all it returns, in
# memory that the child has to copy first.
import _signal  # type: ignore[import-not-found]  # not among mypy's modules
import _socket as socket
import contextlib
import errno
import os
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from pinfold.errors import LaunchError, UnsupportedError
from pinfold.launch.command import candidates
from pinfold.linux import process, ptrace, uio
from pinfold.linux.descriptors import above_streams, close_others
from pinfold.uapi.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pinfold.launch.confine import Confinement
    from pinfold.linux.seccomp import FilterProgram

HAND_OVER_CALLS: Final = ("pwritev2", "preadv2")
"""What the child calls between the installation of its filter and the supervisor's "G"."""

_MESSAGE: Final = struct.Struct("=cii")
_READY: Final = b"R"
_SEIZED: Final = b"S"
_FILTERED: Final = b"F"
_GO: Final = b"G"
_FAILED: Final = b"X"
_NO_EXEC: Final = b"E"

_STAGES: Final = (
    "set up the standard streams of",
    "enter the working directory of",
    "confine",
    "install the filter for",
)
_STREAMS, _DIRECTORY, _CONFINE, _FILTER = range(4)

_RESTORED: Final = (_signal.SIGPIPE, _signal.SIGXFSZ)
"""Python ignores these; COMMAND starts with them as they usually are."""


class Command(NamedTuple):
    """What to run and how it starts, all in bytes and descriptors."""

    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    cwd: bytes | None = None
    streams: tuple[int, int, int] = (0, 1, 2)
    """Descriptors that become its 0, 1 and 2; -1 leaves one closed."""
    close_others: bool = False
    """Whether descriptors above 2 are closed even if they are inheritable."""
    pass_fds: frozenset[int] = frozenset()
    signal_mask: frozenset[int] = frozenset()
    """Signals that are blocked when it starts."""


class Launched(NamedTuple):
    """A process that is about to execute its command, under a filter whose listener we have."""

    pid: int
    pidfd: int
    """Descriptor of the process; the caller's to close, like the next two."""
    listener: int
    """Listener descriptor of its filter."""
    channel: socket.socket
    """Where the child reports an exec that failed; see :func:`exec_failure`."""
    paths: tuple[bytes, ...]
    """The paths that it tries, in order."""


def spawn(
    command: Command,
    confinement: Confinement,
    program: FilterProgram,
    options: int,
    *,
    meanwhile: Callable[[], None] | None = None,
) -> Launched:
    """Starts a command's process, seized, up to its first exec.

    Args:
        command: What to run.
        confinement: Applied in the child.
        program: The filter.
        options: ``PTRACE_O_*`` options for the process and all that come from it.
        meanwhile: As for :func:`launch`.

    Preconditions: called by the thread that will supervise. The caller gets three descriptors and a
    child to look after.

    Raises:
        LaunchError: A step in the child failed.
        UnsupportedError: ptrace is not permitted, or an outer sandbox holds a listener.
        OSError: fork or a descriptor failed.
    """
    return launch(
        command,
        program,
        confine=confinement.apply,
        kept=frozenset({confinement.descriptor}),
        ready=lambda pid: _seize(pid, options),
        meanwhile=meanwhile,
    )


def launch(
    command: Command,
    program: FilterProgram,
    flags: int = 0,
    *,
    confine: Callable[[], None],
    kept: frozenset[int] = frozenset(),
    ready: Callable[[int], None] | None = None,
    taken: Callable[[int], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Launched:
    """Starts a command's process, up to its first exec.

    The process is killed when the calling thread ends.

    Args:
        command: What to run.
        program: The filter; ``HAND_OVER_CALLS`` must pass it.
        flags: Added to ``SECCOMP_FILTER_FLAG_NEW_LISTENER``.
        confine: Called in the child before it has the filter.
        kept: Descriptors that ``confine`` needs.
        ready: Called here with the child's id before it has the filter.
        taken: Called here with the listener before the child goes on. The child is killed when it
            raises.
        meanwhile: Called here once, while the child gets itself ready: what else takes time. The
            child is killed when it raises.

    Raises:
        LaunchError: A step in the child failed, or somebody killed it.
        UnsupportedError: An outer sandbox holds a listener, or we may not fetch the child's.
        OSError: fork or a descriptor failed.
    """
    paths = candidates(command.argv[0], command.env)
    us = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = process.fork()
        if pid == 0:
            _child(us, command, program, flags, confine, kept, theirs.detach(), paths)
        theirs.close()
        try:
            pidfd = os.pidfd_open(pid)
            try:
                if meanwhile is not None:
                    meanwhile()
                listener = _take_over(pid, pidfd, ours, command.argv[0], ready, taken)
            except BaseException as error:
                os.close(pidfd)
                if isinstance(error, BrokenPipeError | ConnectionResetError | ProcessLookupError):
                    raise _ended_early(command.argv[0]) from error
                raise
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return Launched(pid, pidfd, listener, ours, paths)


def abandon(launched: Launched) -> None:
    """Kills the process and waits for its end; does nothing when it was waited for.

    Preconditions: called by the thread that started it.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(launched.pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        # Stops that it was seized for are not asked for.
        os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)


def exec_failure(launched: Launched, denied: str | None) -> LaunchError:
    """Returns why the command was not executed, as the child told before it ended.

    Args:
        launched: The process, which has ended.
        denied: Why its last call was denied, for the message; None if it was not.
    """
    reported = reported_failure(launched, denied)
    if reported is None:
        name = os.fsdecode(launched.paths[-1])
        return LaunchError(f"{name}: ended before it was executed", 125)
    return reported


def reported_failure(launched: Launched, denied: str | None = None) -> LaunchError | None:
    """Returns what the child told before it ended; None when it told nothing.

    To be asked once.

    Args:
        launched: The process, which has ended.
        denied: Why its last call was denied, for the message; None if it was not.
    """
    launched.channel.setblocking(False)
    try:
        data = launched.channel.recv(_MESSAGE.size)
    except OSError:
        data = b""
    if len(data) != _MESSAGE.size:
        return None
    kind, number, index = _MESSAGE.unpack(data)
    if kind != _NO_EXEC:
        name = os.fsdecode(launched.paths[-1])
        return LaunchError(f"{name}: cannot {_STAGES[index]} it: {os.strerror(number)}", 125)
    path = os.fsdecode(launched.paths[index])
    if number in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(path):
            return LaunchError(f"{path}: its interpreter was not found", 127)
        return LaunchError(
            f"{path}: command not found"
            if len(launched.paths) == 1
            else f"{os.path.basename(path)}: command not found in PATH",
            127,
        )
    text = os.strerror(number)
    if os.path.isdir(path):
        text = "is a directory"
    elif denied is not None:
        text += f" ({denied})"
    return LaunchError(f"{path}: cannot execute: {text}", 126)


def _seize(pid: int, options: int) -> None:
    try:
        ptrace.seize(pid, options)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raise UnsupportedError(
            "not permitted to trace a process of our own (PTRACE_SEIZE: EPERM): allow it with"
            " `sysctl kernel.yama.ptrace_scope=1`, or in a container with `--cap-add=SYS_PTRACE`;"
            " under a debugger or strace that follows children it cannot work"
        ) from error


def _take_over(
    pid: int,
    pidfd: int,
    channel: socket.socket,
    name: bytes,
    ready: Callable[[int], None] | None,
    taken: Callable[[int], None] | None,
) -> int:
    _expect(channel, _READY, name)
    if ready is not None:
        ready(pid)
    channel.send(_SEIZED)
    number = _expect(channel, _FILTERED, name)
    try:
        listener = process.take_descriptor(pidfd, number)
    except PermissionError as error:
        raise UnsupportedError(
            "not permitted to take a descriptor of a process of our own (pidfd_getfd: EPERM):"
            " allow it with `sysctl kernel.yama.ptrace_scope=1`, or in a container with"
            " `--cap-add=SYS_PTRACE`"
        ) from error
    try:
        if taken is not None:
            taken(listener)
        channel.send(_GO)
    except BaseException:
        os.close(listener)
        raise
    return listener


def _ended_early(name: bytes) -> LaunchError:
    return LaunchError(f"{os.fsdecode(name)}: its process ended before it was started", 125)


def _expect(channel: socket.socket, wanted: bytes, name: bytes) -> int:
    data = channel.recv(_MESSAGE.size)
    kind, number, stage = _MESSAGE.unpack(data) if len(data) == _MESSAGE.size else (b"", 0, 0)
    if kind == wanted:
        return int(number)
    what = os.fsdecode(name)
    if kind != _FAILED:
        raise _ended_early(name)
    if stage == _FILTER and number == errno.EBUSY:
        raise UnsupportedError(
            "the seccomp filter was refused (EBUSY): pinfold runs inside a sandbox that has a"
            " listener, and the kernel allows one in a chain; run pinfold outside it"
        )
    raise LaunchError(f"cannot {_STAGES[stage]} {what}: {os.strerror(number)}", 125)


def _child(
    parent: int,
    command: Command,
    program: FilterProgram,
    flags: int,
    confine: Callable[[], None],
    kept: frozenset[int],
    channel: int,
    paths: Sequence[bytes],
) -> NoReturn:
    # See the head of the module for what must not be done here.
    stage = _STREAMS
    status = 125
    try:
        channel = above_streams(channel)
        process.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            # It died before. Our copy of its end of the channel would keep us waiting for ever.
            os._exit(status)
        process.set_dumpable(True)
        _set_streams(command.streams)
        if command.close_others:
            close_others({*command.pass_fds, channel, *kept})
        for fd in command.pass_fds:
            os.set_inheritable(fd, True)
        stage = _DIRECTORY
        if command.cwd is not None:
            os.chdir(command.cwd)
        stage = _CONFINE
        confine()
        _restore_signals()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, command.signal_mask)
        stage = _FILTER
        if _exchange(channel, _READY, 0, 0) != _SEIZED:
            os._exit(status)
        listener = program.install(flags | SECCOMP_FILTER_FLAG_NEW_LISTENER)
        if _exchange(channel, _FILTERED, listener, 0) != _GO:
            os._exit(status)
        # It would keep the child waiting for an answer when everybody else has closed it. The
        # filter may refuse the call; exec closes it too.
        with contextlib.suppress(OSError):
            os.close(listener)
        number, index = _execute(paths, command)
        uio.write(channel, _MESSAGE.pack(_NO_EXEC, number, index))
    except OSError as error:
        uio.write(channel, _MESSAGE.pack(_FAILED, error.errno or 0, stage))
    finally:
        os._exit(status)


def _restore_signals() -> None:
    # Exec takes handlers away in any case. Until then they would be the caller's, in the wrong
    # process, and Python's own part of them may make a call that is trapped (set_wakeup_fd).
    for number in range(1, _signal.NSIG):
        if number in _RESTORED or callable(_signal.getsignal(number)):
            _signal.signal(number, _signal.SIG_DFL)


def _exchange(channel: int, kind: bytes, number: int, index: int) -> bytes:
    # Calls nothing but HAND_OVER_CALLS.
    uio.write(channel, _MESSAGE.pack(kind, number, index))
    return uio.read(channel, 1)


def _execute(paths: Sequence[bytes], command: Command) -> tuple[int, int]:
    # Returns (errno, index of the path it is about) if nothing could be executed, as execvp(3).
    failed = (errno.ENOENT, 0)
    for index, path in enumerate(paths):
        number = _try(path, command.argv, command.env)
        if number == errno.ENOEXEC:
            number = _try(b"/bin/sh", (b"/bin/sh", path, *command.argv[1:]), command.env)
            return number, index
        if number in (errno.ENOENT, errno.ENOTDIR):
            if failed[0] != errno.EACCES:
                failed = (number, index)
        elif number == errno.EACCES:
            failed = (number, index)
        else:
            return number, index
    return failed


def _try(path: bytes, argv: tuple[bytes, ...], env: Mapping[bytes, bytes]) -> int:
    try:
        os.execve(path, argv, env)
    except OSError as error:
        return error.errno or errno.EIO


def _set_streams(streams: tuple[int, int, int]) -> None:
    moved = [
        above_streams(os.dup(fd)) if fd >= 0 and fd != at else fd for at, fd in enumerate(streams)
    ]
    for at, fd in enumerate(moved):
        if fd < 0:
            _close_quietly(at)
        elif fd != at:
            os.dup2(fd, at, inheritable=True)
            os.close(fd)
        elif _is_open(at):
            os.set_inheritable(at, True)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
