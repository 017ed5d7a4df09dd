"""What a policy sees of a trapped call, and what it may answer (pure).

A call is judged on bytes that are pinned already: what a policy reads here is what the kernel gets.
``--map`` and ``--deny`` have their own rules (``policy.rules``) and come first; a policy sees what
they made of a call, and is not asked about a path that they have settled.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from pinfold.policy.rules import ALLOW, DENY, REDIRECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.syscalls.forms import Forms
    from pinfold.syscalls.kinds import Kind
    from pinfold.syscalls.table import Row

RETURN: Final = "return"
SERVE: Final = "serve"
INJECT: Final = "inject"
KILL: Final = "kill"
ASK: Final = "ask"
"""Of rules only: a person says which of the others it is."""


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


class Trapped(NamedTuple):
    """A trapped call."""

    row: Row
    registers: tuple[int, ...]
    """The six argument registers, before anything was changed."""
    program: bytes
    """Path of the program that the task runs."""
    arguments: tuple[Argument, ...]
    """The pinned pointer arguments, in order; NULL ones are left out."""
    names: Mapping[str, tuple[bytes, ...]]
    """For each argument that is a path, that has the path of a Unix socket in it, or that is the
    descriptor of a file which the call changes, by its name in the table: the normal absolute names
    that it means, the one that is spelt first. The kernel will find one of them, and the task
    chooses the spelling: a denial of any of them must hold."""
    real: Mapping[str, bytes] = {}
    """By argument, where real names are judged: the one of ``names`` that links lead to."""
    settled: frozenset[str] = frozenset()
    """Arguments that ``--map`` has sent elsewhere; a policy leaves them."""
    pid: int = 0
    tid: int = 0
    loader: Callable[[], bool] = lambda: False
    """Whether the dynamic loader makes this call: a hint, see ``tracee.loader``."""

    def value(self, name: str) -> Any:
        """Returns the value of a pinned argument by its name in the table.

        Raises:
            KeyError: The call has none of that name, or it is NULL.
        """
        for argument in self.arguments:
            if argument.name == name:
                return argument.value
        raise KeyError(name)


class Verdict(NamedTuple):
    """What a policy says of a call."""

    action: str = ALLOW
    """``ALLOW``, ``DENY``, ``REDIRECT``, ``RETURN``, ``SERVE``, ``INJECT`` or ``KILL``."""
    rule: str | None = None
    """What says so, for the log: the name of a rule or handler."""
    errno: int = 0
    """For ``DENY``."""
    replace: Mapping[str, Any] = {}
    """For ``REDIRECT``, new values by argument name: ``bytes`` for a path (absolute, in the
    supervisor's view), a string or a buffer; a sequence of ``bytes`` for a vector; an address or
    its ``bytes`` for a socket address, or for the address of a message; an ``OpenHow``; an ``int``
    for a scalar."""
    value: Any = None
    """For ``RETURN`` the result (``int``), for ``SERVE`` the content (``bytes``), for ``INJECT`` a
    descriptor of the supervisor, which is duplicated into the task."""
    left: frozenset[str] = frozenset()
    """Pointer arguments that nobody has looked at: they stay what the program passed, unless a log
    asks for them."""


class Later(Protocol):
    """A verdict that takes its time, while other tasks of the sandbox go on."""

    def start(self, done: Callable[[Verdict], None]) -> None:
        """Begins; ``done`` is called once with the verdict, in any thread, even in this one.

        It is called with a denial, too, when the time for a verdict is over or something fails.
        """

    def cancel(self) -> None:
        """Says that nobody waits any more: the task died. ``done`` need not be called."""


class Judge(Protocol):
    """A policy that is ready to be asked, by one sandbox and in the thread of its supervisor."""

    @property
    def calls(self) -> Mapping[str, frozenset[Kind]]:
        """The calls that it wants to see, by name, and which kinds of arguments of each.

        Paths are read in any case. A name need not be in the table: such a call has no arguments
        but its registers.
        """

    @property
    def passing(self) -> Mapping[str, Forms]:
        """Of ``calls``, the forms that it could only allow as they are, whatever is in memory.

        Where nobody else wants to see them, they go through the filter. A name need not be in it.
        """

    @property
    def whole(self) -> frozenset[str]:
        """Calls that it wants to see even where they lack the address that they are about."""

    @property
    def addresses(self) -> bool:
        """Whether a verdict may depend on socket addresses.

        Nothing else may say then where a call goes: options for source routing are refused.
        """

    @property
    def real(self) -> bool:
        """Whether names that links lead to are to be found out."""

    @property
    def literals(self) -> tuple[bytes, ...]:
        """Files that denials name one by one: with ``real``, hard links to them are recognised."""

    @property
    def programs(self) -> bool:
        """Whether :meth:`executed` can say anything."""

    def steady(self, name: str) -> bool:
        """Returns whether its verdicts on a call may be kept, and used again without asking.

        They may if they depend on nothing but the paths and their names, the numbers in registers,
        and the program; and if nobody needs to know how often they are asked for.

        Args:
            name: The call.
        """

    def judge(self, call: Trapped) -> Verdict | Later:
        """Returns the verdict. Raises nothing: what goes wrong in a handler is a denial."""

    def executed(self, program: bytes, by: bytes) -> Verdict | None:
        """Returns the verdict that kills a program which was executed in the end, or None.

        It need not be what the call named: the interpreter of a script, and the loader of a
        program, are opened by the kernel.

        Args:
            program: What runs now, or what it was loaded by.
            by: The program that made the call.
        """

    def close(self) -> None:
        """Ends what was started for this sandbox. Called once, when no task is left."""


ALLOWED: Final = Verdict()


def denied(rule: str | None = None, number: int = errno.EACCES) -> Verdict:
    """Returns the verdict that fails a call with an errno."""
    return Verdict(DENY, rule, number)


def redirected(rule: str | None = None, **replace: Any) -> Verdict:
    """Returns the verdict that has a call made with other arguments, by their names."""
    return Verdict(REDIRECT, rule, 0, replace)
