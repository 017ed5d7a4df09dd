"""The control of races in the file system: it judges where links lead, and then continues.

It is the naive supervisor, with one thing more: it follows the links of a path before it judges, as
``realpath`` does. The kernel follows them again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pinfold.attack.supervisors import naive
from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.kinds import PATHS, Kind, as_int
from pinfold.uapi.fs import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.linux.seccomp import RawNotification
    from pinfold.policy.calls import Argument


class Supervisor(naive.Supervisor):
    """Answers one listener's notifications."""

    def names(
        self, call: RawNotification, arguments: tuple[Argument, ...]
    ) -> dict[str, tuple[bytes, ...]]:
        """Returns where the paths of a call lead, by argument."""
        return {
            one.name: (os.path.realpath(os.path.join(_start(call, one.at), one.value)),)
            for one in arguments
            if one.kind in PATHS
        }


def _start(call: RawNotification, at: int) -> bytes:
    # Where a relative path starts, by the caller's entry in /proc.
    kind = EVERYTHING[call.nr].row.arguments[at - 1][1] if at else None
    fd = as_int(call.args[at - 1]) if kind is Kind.DIRFD else AT_FDCWD
    return b"/proc/%d/cwd" % call.pid if fd == AT_FDCWD else b"/proc/%d/fd/%d" % (call.pid, fd)


def supervise(_name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    Where links lead is judged in any case.
    """
    return naive.run(command, Supervisor)
