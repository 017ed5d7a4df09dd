"""The contract between the engine, which decides, and a back end, which carries out.

A back end

1. brings each trapped call to the supervisor with its task unable to run, and no other way;
2. gives the engine a slot for the call's bytes, pinned and checked in the memory that the task has
   *now*, or fails the call by itself with one of the documented errnos;
3. carries out exactly one :class:`Plan` for it, once;
4. has the call run in the task, with its credentials, descriptors and directories;
5. lets the task see its own register values again before it runs any code of its own;
6. never lets a pin's address reach a register or signal frame that the task can look at;
7. gives the slot back when the call is over, however it ends.
"""

from __future__ import annotations

from typing import NamedTuple


class Deny(NamedTuple):
    """The call is not made; the caller gets ``errno``."""

    errno: int


class Redirect(NamedTuple):
    """The call is made with some arguments pointing into its slot.

    ``pointers`` are (argument index, offset in the slot) pairs.
    """

    pointers: tuple[tuple[int, int], ...]


Plan = Deny | Redirect
