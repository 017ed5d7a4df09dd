"""What a rule sees of a trapped call, and what it may answer (pure).

A call is judged on bytes that are pinned already: what a rule reads here is what the kernel gets.
Paths have their own rules (``policy.rules``) and come first; a rule over whole calls sees what they
made of them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from pinfold.policy.rules import ALLOW, DENY, REDIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinfold.syscalls.kinds import Kind
    from pinfold.syscalls.table import Row


class Argument(NamedTuple):
    """One pointer argument, as it is pinned."""

    at: int
    """Its index."""
    name: str
    kind: Kind
    value: Any
    """By kind: ``bytes`` for strings and buffers; the value of its codec for anything else."""
    pointer: int
    """What the register is to hold (``u64``)."""


class Call(NamedTuple):
    """A trapped call."""

    row: Row
    registers: tuple[int, ...]
    """The six argument registers, before anything was changed."""
    program: bytes
    """Path of the program that the task runs."""
    arguments: tuple[Argument, ...]
    """The pinned pointer arguments, in order; NULL ones are left out."""
    names: Mapping[str, bytes]
    """For each path argument, by its name, the absolute name that it means."""

    def value(self, name: str) -> Any:
        """Returns the value of a pinned argument by its name in the table.

        Raises:
            KeyError: The call has none of that name, or it is NULL.
        """
        for argument in self.arguments:
            if argument.name == name:
                return argument.value
        raise KeyError(name)


class Ruling(NamedTuple):
    """What a rule over whole calls says."""

    action: str = ALLOW
    rule: str | None = None
    errno: int = 0
    replace: Mapping[str, Any] = {}
    """New values by argument name: ``bytes`` for a path (absolute, as the task sees it), a string
    or a buffer; a sequence of ``bytes`` for a vector; an address or its ``bytes`` for a socket
    address, or for the address of a message; an ``OpenHow``; an ``int`` for a scalar."""


ALLOWED = Ruling()


def denied(rule: str, number: int = errno.EACCES) -> Ruling:
    """Returns the ruling that fails a call with an errno."""
    return Ruling(DENY, rule, number)


def redirected(rule: str, **replace: Any) -> Ruling:
    """Returns the ruling that has a call made with other arguments."""
    return Ruling(REDIRECT, rule, 0, replace)
