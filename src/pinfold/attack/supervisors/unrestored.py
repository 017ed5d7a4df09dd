"""A control of the attacks on redirected calls: it pins and redirects, and does not clean up.

The registers of a call keep the pin's addresses after it: right behind the call, in the frame of a
signal that interrupts it, and where it is restarted. Only after an exec it puts them back, into the
registers of the new program. All else is the trace back end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinfold.attack.supervisors import pinned
from pinfold.backends.trace import TraceBackend
from pinfold.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.tracee.task import Task


def supervise(name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    Args:
        name: Of the supervisor, for messages.
        command: What to run.
        real: Whether names that links lead to are judged as well.

    Raises:
        PinfoldError: It could not be run.
    """
    return pinned.supervise(name, command, real=real, kind=_Unrestored)


class _Backend(TraceBackend):
    # A trampoline would put the registers back.
    ONE_STOP = False

    __slots__ = ()

    def exit_stop(self, task: Task) -> None:
        if task.batch is not None:
            # It could not send the next message otherwise.
            super().exit_stop(task)
            return
        self.finished(task)
        task.resume()

    def executed(self, task: Task) -> None:
        flight = self._in_flight.get(task.tid)
        super().executed(task)
        for register, value in flight[1] if flight is not None else ():
            task.poke(register, value)

    def gone(self, task: Task) -> None:
        super().executed(task)


class _Unrestored(Session):
    _tracing = _Backend
