"""How many tasks a sandbox may have at one time.

RLIMIT_NPROC counts the processes of a user, whoever started them, and does not count for root. So
the calls that make tasks are trapped, and fail with EAGAIN, as they do at that limit, when there
are as many tasks as there may be. A call that was admitted counts as a task from then on: between
it and its child's first stop, other threads make such calls too. A process that has ended counts
until its parent has waited for it, since it keeps its place in the process table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pinfold.syscalls.numbers import X86_64 as NR

if TYPE_CHECKING:
    from pinfold.supervisor.family import Family
    from pinfold.tracee.task import Task

FORK_CALLS: Final = ("clone", "fork", "vfork")
"""Calls that make tasks; ``clone3`` is refused in every sandbox."""
FORKS: Final = frozenset(NR[name] for name in FORK_CALLS)


class Crowd:
    """Counts tasks against a limit.

    Args:
        family: Those who exist.
        most: How many there may be.
    """

    __slots__ = ("_ended", "_expected", "_family", "_most")

    def __init__(self, family: Family, most: int) -> None:
        self._family = family
        self._most = most
        # Tasks that are in such a call, and whose child we have not seen.
        self._expected: set[int] = set()
        # Processes that may still be waited for.
        self._ended: set[int] = set()

    def admit(self, task: Task) -> bool:
        """Returns whether a task may make another one; it is then expected."""
        if self._count() >= self._most:
            self._ended = {pid for pid in self._ended if os.path.exists(f"/proc/{pid}")}
            if self._count() >= self._most:
                return False
        self._expected.add(task.tid)
        return True

    def _count(self) -> int:
        return len(self._family) + len(self._expected) + len(self._ended)

    def ended(self, task: Task) -> None:
        """Notes that a task has ended."""
        self.arrived(task.tid)
        if task.tid == task.tgid:
            self._ended.add(task.tid)

    def arrived(self, tid: int) -> None:
        """Notes that the child of a task was seen, or will not come; if one was expected at all."""
        self._expected.discard(tid)
