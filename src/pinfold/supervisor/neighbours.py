"""Whether a task that a call names belongs to the sandbox.

Where tasks are traced, an id that the sandbox's own bookkeeping has belongs to it: the id of a
traced task is free again only after its end was waited for, which is when it is forgotten. Of any
other id the kernel is asked who traces it, since a task may be named before its first stop was
seen. Nobody but tasks of this sandbox is traced by this thread.

Where nobody traces, the kernel is asked who is in the sandbox's domain (``launch.keeper``).

A task that lives in a pid namespace below ours can name nobody but those who live there too, and
they all come from the sandbox: no task enters a namespace from outside (``setns`` is refused, and
we never do).

What is judged is in a register, which nobody but us can change. An id could still be another task's
by the time of the call, if its owner ends, is waited for, and a process of ours is started under
that id, before the caller has entered the kernel any further: we start none but the bell
(``tracee.bell``), once a run.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Protocol

from pinfold.errors import TraceeGone
from pinfold.linux.process import status_field, tracer_of

if TYPE_CHECKING:
    from pinfold.supervisor.family import Family
    from pinfold.tracee.caller import Caller


class Membership(Protocol):
    """Knows who belongs to a sandbox."""

    def refusal(self, tid: int) -> int:
        """Returns 0 for a task of the sandbox, EPERM for another one, ESRCH when there is none."""


class Traced:
    """Those belong to a sandbox who are traced by its thread.

    Args:
        family: Those who are known to exist.

    Preconditions: made by the thread that traces them.
    """

    __slots__ = ("_family", "_tracer")

    def __init__(self, family: Family) -> None:
        self._family = family
        self._tracer = threading.get_native_id()

    def refusal(self, tid: int) -> int:
        """See :class:`Membership`."""
        if self._family.get(tid) is not None:
            return 0
        tracer = tracer_of(tid)
        if tracer is None:
            return errno.ESRCH
        return 0 if tracer == self._tracer else errno.EPERM


class Neighbours:
    """Tells the tasks of a sandbox from all others.

    Args:
        members: Knows them.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Membership) -> None:
        self._members = members

    def refusal(self, task: Caller, said: int) -> int:
        """Returns the errno that a call fails with for the task it names; 0 when it may be made.

        Args:
            task: Who makes the call.
            said: The register with the id, of which the kernel takes a C int.

        Raises:
            TraceeGone: The caller died.
        """
        tid = said & 0xFFFFFFFF
        if tid == 0 or tid >> 31:
            return 0  # of what is negative the kernel says itself that there is no such task
        refused = self._members.refusal(tid)
        if refused:
            spaces = status_field(task.tid, b"NSpid")
            if spaces is None:
                raise TraceeGone(task.tid)
            if len(spaces.split()) > 1:
                return 0
        return refused
