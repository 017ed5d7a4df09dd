"""A forked child that does what a test asks for, over one socket; it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import traceback
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.linux import process
from tests.kernel.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FAILED: Final = 99


class Forked(NamedTuple):
    """A child and our end of the conversation."""

    pid: int
    channel: socket.socket

    def exit_code(self) -> int:
        """Waits for the child's end, without reaping it."""
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


@contextlib.contextmanager
def forked(body: Callable[[socket.socket], object]) -> Iterator[Forked]:
    """Runs ``body`` in a child; it exits with 0 when ``body`` returned, and with 99 when it raised.

    Both ends of the conversation time out, and the child dies with the suite.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.settimeout(PATIENCE)
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(2 * PATIENCE))
            process.die_with_parent(signal.SIGKILL)
            ours.close()
            body(theirs)
            status = 0
        except BaseException:  # noqa: BLE001 (nothing may get out of the child)
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    try:
        yield Forked(pid, ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()


def descriptors() -> dict[str, str]:
    """Returns what is open in this process, by number."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is in the listing, and gone by now.
        with contextlib.suppress(FileNotFoundError):
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found
