"""A child under a filter that brings some of its calls to a listener which the test holds."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import traceback
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold import bpf
from pinfold.linux import libc, process, seccomp
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CALL: Final = NR["getppid"]
"""The call that these filters bring to the listener, unless told otherwise."""

_SECONDS: Final = 60
_NOTIFY: Final = abi.SECCOMP_RET_USER_NOTIF


class Child(NamedTuple):
    """A child whose calls wait for an answer."""

    pid: int
    listener: int
    """The listener; whoever closes it says so by putting it out of ``owned``."""
    owned: set[int]
    """Descriptors that are closed in the end."""
    channel: socket.socket
    """One end of a conversation; ``work`` has the other one."""

    def exit_code(self) -> int:
        """Waits for the child's end, without reaping it."""
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def getppid() -> int:
    """Makes the call that comes to the listener; libc may not be asked, as it may know better."""
    return libc.syscall("getppid", CALL)


@contextlib.contextmanager
def child(
    work: Callable[[socket.socket], object],
    *,
    cases: Mapping[int, list[bpf.Case]] | None = None,
    flags: int = 0,
) -> Iterator[Child]:
    """Runs ``work`` in a forked child under a filter; the child is gone afterwards.

    The child exits with 0 when ``work`` returned, and with 1 when it raised.

    Args:
        work: What it does, given its end of the conversation.
        cases: What its filter answers; by default ``getppid`` comes to the listener.
        flags: Flags of the filter besides NEW_LISTENER.
    """
    code = bpf.compile_filter(
        {CALL: [bpf.Case((), _NOTIFY)]} if cases is None else dict(cases),
        default=abi.SECCOMP_RET_ALLOW,
        arch=abi.AUDIT_ARCH_X86_64,
        wrong_arch=abi.SECCOMP_RET_KILL_PROCESS,
        x32=abi.SECCOMP_RET_KILL_PROCESS,
        minus_one=abi.SECCOMP_RET_ERRNO | errno.ENOSYS,
    )
    program = seccomp.FilterProgram(bpf.assemble(code))
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_SECONDS)
            process.die_with_parent(signal.SIGKILL)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
            listener = program.install(abi.SECCOMP_FILTER_FLAG_NEW_LISTENER | flags)
            socket.send_fds(theirs, [b"L"], [listener])
            os.close(listener)
            work(theirs)
            status = 0
        except BaseException:  # noqa: BLE001 (nothing may get out of the child)
            traceback.print_exc()
        finally:
            os._exit(status)
    owned: set[int] = set()
    try:
        theirs.close()
        ours.settimeout(_SECONDS)
        _, received, _, _ = socket.recv_fds(ours, 1, 1)
        owned.update(received)
        (listener,) = received
        yield Child(pid, listener, owned, ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()
        for fd in owned:
            os.close(fd)
