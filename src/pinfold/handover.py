"""Filters that notify, and programs started under one: where ``pinfold.Listener`` gets its calls.

``notify_filter`` makes a filter, ``supervise`` starts a program under it and has the listener when
it returns. For programs that start otherwise there are the parts: ``install_filter`` in the thread
that is to be supervised, and ``send_listener`` and ``receive_listener``, or ``take_listener``, to
get the listener to who answers.

A supervisor answers from outside. One that is under its own filter, or that waits for something
which a trapped call of the program has to do first, waits for ever: between the start and the first
``receive`` the program may already be waiting, and executing it is a call like any other.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pinfold import bpf
from pinfold.errors import LaunchError, PolicyError
from pinfold.launch import filters, spawn
from pinfold.launch.spawn import HAND_OVER_CALLS
from pinfold.linux import libc
from pinfold.linux.seccomp import FilterProgram
from pinfold.listener import Backend, Listener
from pinfold.session import require_machine
from pinfold.streams import PIPE, Stream, Streams, StrOrBytes, command_from
from pinfold.syscalls.groups import near
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from pinfold.launch.spawn import Launched


_MAX_ERRNO: Final = 4095

Call: TypeAlias = str | int | tuple[Any, ...]
"""A call by name or number; or a tuple of that and the ``bpf.Arg`` tests that must all hold."""


def notify_filter(trap: Iterable[Call], refuse: Mapping[Any, int] | None = None) -> bytes:
    """Returns a filter that brings some calls to its listener, as ``struct sock_filter`` bytes.

    Calls that are not named go through. Calls of another architecture, and x32 calls, kill the
    process: their numbers mean something else. Where several tests of a call hold, a refusal wins.

    Args:
        trap: Calls to be notified of: a name, a number, or a tuple of either and tests of its
            arguments: ``("socket", Arg(0, 0xFFFFFFFF, AF_INET))``. The kernel looks at the low 32
            bits of an ``int``, so tests must, too.
        refuse: Calls, in the same form, that the filter fails by itself, with the errno that the
            caller gets; 0 claims success and does nothing.

    Raises:
        PolicyError: A call, test or errno does not exist, a test can never hold, or the filter
            gets longer than the kernel accepts.
    """
    cases: dict[int, list[bpf.Case]] = {}
    for call, number in (refuse or {}).items():
        if not 0 <= number <= _MAX_ERRNO:
            raise PolicyError(f"{call!r} cannot be refused with {number}: not an errno")
        _add(cases, call, abi.SECCOMP_RET_ERRNO | number)
    if isinstance(trap, str):
        raise PolicyError(f"the calls to trap must be a sequence: [{trap!r}]")
    for call in trap:
        _add(cases, call, abi.SECCOMP_RET_USER_NOTIF)
    try:
        return filters.assembled(cases)
    except ValueError as error:
        raise PolicyError(str(error)) from error


def _add(cases: dict[int, list[bpf.Case]], call: Call, action: int) -> None:
    name, *tests = call if isinstance(call, tuple) and call else (call,)
    if not all(isinstance(test, bpf.Arg) for test in tests):
        raise PolicyError(f"{call!r}: after the call come tests of its arguments, each an Arg")
    cases.setdefault(_number(name), []).append(bpf.Case(tuple(tests), action))


def _number(name: Any) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    if isinstance(name, str) and name in X86_64:
        return X86_64[name]
    raise PolicyError(f"there is no system call {name!r}{near(str(name), X86_64)}")


class Supervised:
    """A program that ``supervise`` started; a context manager that ends it.

    Attributes:
        pid: Its process id.
        listener: Its listener. Calls of everything that it starts come there, too.
        returncode: None before its end was seen; then its exit status, or the negative number of
            the signal that ended it; 125 to 127 where it was never executed.

    Methods may be called from several threads.
    """

    def __init__(self, args: Sequence[StrOrBytes], launched: Launched, listener: Listener) -> None:
        self.pid: Final = launched.pid
        self.listener: Final = listener
        self.returncode: int | None = None
        self._args = args
        self._launched = launched
        self._failure: LaunchError | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Supervised {self.pid}: {self._args!r}, returncode {self.returncode}>"

    def __enter__(self) -> Supervised:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the program if it still runs, reaps it, closes the listener; may be called twice.

        Processes that it has started and left are not killed; their trapped calls fail with ENOSYS.
        """
        self.kill()
        # Why it was not executed is told by wait, to whom it may concern.
        with contextlib.suppress(LaunchError, ChildProcessError):
            self.wait()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._launched.pidfd)
            self._launched.channel.close()
        self.listener.close()

    def poll(self) -> int | None:
        """Returns ``returncode``, after a look at whether the program has ended.

        Raises:
            LaunchError: It ended because it could not be executed.
            ChildProcessError: Somebody else has waited for it, and knows how it ended.
        """
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the program and returns ``returncode``.

        Somebody has to answer its calls meanwhile.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            LaunchError: It could not be executed; ``exit_code`` is 127 when it was not found, 126
                when it could not be executed.
            subprocess.TimeoutExpired: It has not ended yet.
            ChildProcessError: As from ``poll``.
        """
        if self.returncode is None and not self._ends(timeout):
            raise subprocess.TimeoutExpired(list(self._args), timeout or 0.0)
        found = self._look(0)
        assert found is not None
        return found

    def send_signal(self, number: int) -> None:
        """Sends a signal to the program; does nothing when its end was seen already."""
        with self._lock:
            if self.returncode is None and not self._closed:
                # A zombie is still there to be signalled; only somebody else's wait removes it.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._launched.pidfd, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL; a call that waits for an answer ends, too."""
        self.send_signal(signal.SIGKILL)

    def _ends(self, timeout: float | None) -> bool:
        # Waits without the lock: others may want to send a signal meanwhile.
        end = select.poll()
        end.register(self._launched.pidfd, select.POLLIN)
        return bool(end.poll(None if timeout is None else max(0.0, timeout) * 1000))

    def _look(self, options: int) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, options)
                if pid:
                    self._ended(status)
            if self._failure is not None:
                raise self._failure
            return self.returncode

    def _ended(self, status: int) -> None:
        self.returncode = os.waitstatus_to_exitcode(status)
        self._failure = spawn.reported_failure(self._launched)
        if self._failure is not None:
            self.returncode = self._failure.exit_code


def supervise(
    argv: Sequence[StrOrBytes],
    *,
    trap: Iterable[Call],
    refuse: Mapping[Any, int] | None = None,
    flags: int = 0,
    backend: Backend = "auto",
    cwd: StrOrBytes | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    pass_fds: Iterable[int] = (),
) -> Supervised:
    """Starts a program under a filter and returns with its listener.

    The program has not been executed yet then: that is a call which may be trapped like any other,
    and the caller is who answers. ``preadv2`` and ``pwritev2`` cannot be trapped or refused here:
    the new process and the supervisor use them while the listener changes hands.

    The process gains no privileges by exec (``no_new_privs``). It is killed when the calling
    *thread* ends, so that it never goes on unsupervised; keep that thread, or call this from the
    main one. Processes that it has started itself live on, and their trapped calls fail with ENOSYS
    once the listener is closed.

    Args:
        argv: The program and its arguments. A name without a slash is looked for in ``PATH``.
        trap: Calls to be notified of, as for ``notify_filter``.
        refuse: Calls that the filter fails by itself, likewise.
        flags: ``SECCOMP_FILTER_FLAG_*``, added to NEW_LISTENER.
        backend: Of the ``Listener``.
        cwd: Working directory of the program.
        env: Its environment, instead of a copy of ours.
        stdin: ``DEVNULL``, a descriptor or a file; None inherits.
        stdout: Likewise.
        stderr: Likewise, or ``STDOUT``.
        pass_fds: Descriptors that the program keeps, besides the standard three.

    Raises:
        PolicyError: A call or errno does not exist, or cannot be trapped.
        UnsupportedError: This machine lacks something, or we run in a sandbox that has a listener.
        LaunchError: The process could not be set up. A program that cannot be executed is reported
            by ``wait`` and ``poll``.
        ValueError: A stream is ``PIPE``; a null byte in an argument or in the environment.
        OSError: fork or a descriptor failed.
    """
    require_machine()
    if not isinstance(trap, str):
        trap = tuple(trap)
    program = FilterProgram(notify_filter(trap, refuse))
    _require_hand_over([*trap, *(refuse or ())])
    if PIPE in (stdin, stdout, stderr):
        raise ValueError(
            "PIPE is not supported: make one with os.pipe(), give the program's end here, and close"
            " that end after the start"
        )
    with Streams(stdin, stdout, stderr) as streams:
        command = command_from(argv, streams, cwd=cwd, env=env, pass_fds=pass_fds)
        launched = spawn.launch(command, program, flags, confine=_gain_no_privileges)
    try:
        listener = Listener(launched.listener, backend)
    except BaseException:
        os.kill(launched.pid, signal.SIGKILL)
        os.waitpid(launched.pid, 0)
        for fd in (launched.listener, launched.pidfd):
            os.close(fd)
        launched.channel.close()
        raise
    return Supervised(argv, launched, listener)


def _gain_no_privileges() -> None:
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def _require_hand_over(calls: Iterable[Call]) -> None:
    used = {X86_64[name]: name for name in HAND_OVER_CALLS}
    for call in calls:
        number = _number(call[0] if isinstance(call, tuple) else call)
        if number in used:
            raise PolicyError(
                f"{used[number]} can be neither trapped nor refused by supervise: the listener is"
                " handed over by it; have the program install the filter (install_filter) and take"
                " the listener in another way (send_listener)"
            )
