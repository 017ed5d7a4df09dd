"""Calls that change another task, named by its id, and ask for nothing but the same user.

Landlock keeps a sandbox from signalling whoever is outside, and from tracing it, but knows nothing
of limits and scheduling: a program could set its supervisor's limit of CPU time to nothing, take
its descriptors away, or move it to an idle class on a busy processor. So these calls are trapped
in every sandbox, and made for tasks of that sandbox alone.

The forms that name the caller itself, which are nearly all that programs make, go through the
filter, as do those that only ask.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pinfold.syscalls.numbers import X86_64

_ALL: Final = 0xFFFFFFFFFFFFFFFF
_LOW: Final = 0xFFFFFFFF

PRIO_PROCESS: Final = 0
PRIO_PGRP: Final = 1
PRIO_USER: Final = 2
IOPRIO_WHO_PROCESS: Final = 1
IOPRIO_WHO_PGRP: Final = 2
IOPRIO_WHO_USER: Final = 3


class Neighbour(NamedTuple):
    """A call that may be about another task."""

    name: str
    argument: int
    """Index of the argument that names the task: a C int, 0 for the caller."""
    passes: tuple[tuple[tuple[int, int, int], ...], ...]
    """Forms that are about nobody else, each some tests ``args[index] & mask == value``."""


def _scheduling(name: str) -> Neighbour:
    return Neighbour(name, 0, (((0, _LOW, 0),),))


_CALLS: Final = (
    # Without new limits it only asks.
    Neighbour("prlimit64", 0, (((0, _LOW, 0),), ((2, _ALL, 0),))),
    _scheduling("sched_setaffinity"),
    _scheduling("sched_setscheduler"),
    _scheduling("sched_setparam"),
    _scheduling("sched_setattr"),
    # Groups and users are refused whole: see ``refused``.
    Neighbour("setpriority", 1, (((0, _LOW, PRIO_PROCESS), (1, _LOW, 0)),)),
    Neighbour("ioprio_set", 1, (((0, _LOW, IOPRIO_WHO_PROCESS), (1, _LOW, 0)),)),
)
NEIGHBOURS: Final = {one.name: one for one in _CALLS}
"""By name of the call."""
BY_NUMBER: Final = {X86_64[one.name]: one for one in _CALLS}
