"""What each process of a sandbox may use: resource limits of the kernel.

They are set from outside, by ``prlimit(2)``, in the stop after the first exec: COMMAND's image is
there and has not run an instruction, and it is the only task of the sandbox, so that whatever runs
in it inherits them.

Not in the child, between fork and exec. That is a fork of the supervisor and has the supervisor's
address space, which RLIMIT_AS counts: 64 MiB would be exceeded already, Python could not so much as
allocate what it reports errors with, and the pin for the exec's own arguments could not be mapped.
Nor before the exec from outside, for the second reason.

A pin is part of the program's address space: 1 MiB, as much again for each of two sizes of longer
arguments, 8 MiB for the largest (``pins.arena``); and for a moment it takes a descriptor. A program
that is left less than that, by a limit or because it has used it up, has its trapped calls fail
with ENOMEM or EMFILE.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final, TypeAlias

from pinfold.errors import PolicyError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.policy.model import Limits

Prepared: TypeAlias = tuple[tuple[int, int, int], ...]
"""(resource, soft limit, hard limit) each."""

_RESOURCES: Final = {
    "cpu": resource.RLIMIT_CPU,
    "memory": resource.RLIMIT_AS,
    "files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
}
_MOST: Final = 2**63 - 1
"""What ``prlimit`` of Python takes; larger ones mean no limit to the kernel, or another one."""


def prepare(
    limits: Limits, inherited: Callable[[int], tuple[int, int]] = resource.getrlimit
) -> Prepared:
    """Returns the resource limits to set.

    CPU time has a hard limit one second above the soft one, so that a program can do something
    about SIGXCPU before it is killed. All others are as hard as they are soft.

    Args:
        limits: What was asked for.
        inherited: Tells the (soft, hard) limit that a program would start with.

    Raises:
        PolicyError: One is negative, or above the hard limit that is inherited.
    """
    found = []
    for name, number in _RESOURCES.items():
        asked = getattr(limits, name)
        if asked is None:
            continue
        if not 0 <= asked <= _MOST:
            raise PolicyError(f"limit {name} = {asked}: must be from 0 to {_MOST}")
        most = inherited(number)[1]
        if most != resource.RLIM_INFINITY and asked > most:
            raise PolicyError(
                f"limit {name} = {asked}: pinfold itself was started with a hard limit of {most},"
                " and a sandbox gets no more than that"
            )
        hard = asked
        if name == "cpu" and (most == resource.RLIM_INFINITY or asked < most):
            hard = min(asked + 1, _MOST)
        found.append((number, asked, hard))
    return tuple(found)


def apply(pid: int, prepared: Prepared) -> None:
    """Sets the limits of a process; to be called while it stands at its first exec.

    Raises:
        UnsupportedError: They could not be set. The process must not go on then.
    """
    for number, soft, hard in prepared:
        try:
            resource.prlimit(pid, number, (soft, hard))
        except OSError as error:
            raise UnsupportedError(
                f"a resource limit could not be set for COMMAND (prlimit: {error.strerror})"
            ) from error
