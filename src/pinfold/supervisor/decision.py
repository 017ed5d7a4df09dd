"""What is decided about a trapped call; apart from who decides, since few runs need that at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from pinfold.backends.base import Plan
    from pinfold.policy.calls import Argument, Later
    from pinfold.policy.rules import PathVerdict
    from pinfold.supervisor.reading import Read

ERROR: Final = "error"
"""The verdict of a call that fails as the kernel would have failed it (EFAULT, ENAMETOOLONG, …)."""
UNPINNED: Final = "unpinned"
"""The verdict of a call that fails because its arguments could not be pinned."""


class Judged(NamedTuple):
    """What was decided about one path argument."""

    argument: int
    asked: bytes
    """The path as the task gave it."""
    names: tuple[bytes, ...]
    """The absolute names that were judged; empty when there was none to judge."""
    pinned: bytes | None
    """What the slot holds in the end; None for a path that the kernel will not be able to use, as
    it could not have used the task's own."""
    pointer: int
    """Address of that in the task."""
    verdict: PathVerdict | None = None
    real: bytes | None = None
    """The one of ``names`` that links lead to, where that is known."""
    direct: bool = False
    """Whether what is pinned has no symbolic link in it."""
    jump: bytes = b""
    """A link in ``/proc`` that jumps to a file without a name, which another task may exchange."""
    leads: bytes = b""
    """For an exec, what is executed if nothing is exchanged meanwhile, where that is known."""


class Decision(NamedTuple):
    """A plan and how it came about."""

    plan: Plan
    action: str
    """A word of ``policy.calls``, or ``error``."""
    rule: str | None
    judged: tuple[Judged, ...]
    others: tuple[Argument, ...] = ()
    """Further pointer arguments, as pinned."""
    replaced: tuple[tuple[int, Any, Any], ...] = ()
    """(argument, what it was, what it is) of what a rule replaced, apart from paths."""
    value: int | bytes | None = None
    """What is returned or served by verdict."""


class Waiting(NamedTuple):
    """A call that a policy has not decided yet."""

    read: Read
    later: Later
