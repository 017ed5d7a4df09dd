"""From a decision to an entry of the log; on the way of each call, so nothing is made twice.

Calls that are made again and again come with one and the same decision (``supervisor.quick``), and
what an entry shows of it is kept with it.
"""

from __future__ import annotations

import errno
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.audit.record import Entry, Path, Repeated
from pinfold.backends.base import Deny

if TYPE_CHECKING:
    from pinfold.supervisor.decision import Decision
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller

_MOST: Final = 1024
"""Decisions whose paths are kept."""
_LONGEST: Final = 1024
"""Bytes of path and name, where they are."""

_arguments: Final = itemgetter(*ARGUMENTS)
_tuple: Final = tuple.__new__
"""What making a named tuple comes down to, in half the time."""


class Entries:
    """Makes the entries of one run.

    Args:
        dry: Whether verdicts are only noted.
    """

    __slots__ = ("_dry", "_paths")

    def __init__(self, *, dry: bool) -> None:
        self._dry = dry
        # By id; the decision is there so that nobody else gets that id.
        self._paths: dict[int, tuple[Decision, tuple[Path, ...]]] = {}

    def of(self, task: Caller, call: Shape, decision: Decision) -> Entry:
        """Returns the entry of a call that is about to be made, or not.

        Preconditions: its registers are loaded, and are still the task's own.
        """
        plan, action, rule, judged, others, replaced, value = decision
        kept = self._paths.get(id(decision))
        if kept is not None:
            paths = kept[1]
            if type(paths) is tuple:
                paths = Repeated(paths)
                self._paths[id(decision)] = decision, paths
        else:
            paths = tuple(
                [
                    _tuple(Path, (argument, asked, names[0] if names else b"", pinned))
                    for argument, asked, names, pinned, *_ in judged
                ]
            )
            if len(paths) == 1 and not others and len(paths[0][1]) + len(paths[0][2]) <= _LONGEST:
                if len(self._paths) >= _MOST:
                    self._paths.clear()
                self._paths[id(decision)] = decision, paths
        return _tuple(
            Entry,
            (
                time.time(),
                task.tgid,
                task.tid,
                task.program,
                call.row,
                _arguments(task.registers),
                paths,
                {one.at: one.value for one in others} if others else {},
                replaced,
                action,
                rule,
                _name_of(plan.errno) if isinstance(plan, Deny) else None,
                value,
                self._dry,
            ),
        )


def _name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))
