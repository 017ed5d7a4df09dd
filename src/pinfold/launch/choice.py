"""Which back end a run takes: the native one where the kernel has it, and all that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.errors import UnsupportedError
from pinfold.linux import caps, seccomp
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import CAP_SYS_PTRACE

if TYPE_CHECKING:
    from collections.abc import Iterable

AUTO: Final = "auto"
NATIVE: Final = "native"
TRACE: Final = "trace"
MODES: Final = (AUTO, NATIVE, TRACE)

FLAGS: Final = (
    abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    | abi.SECCOMP_FILTER_FLAG_NEW_LISTENER
    | abi.SECCOMP_FILTER_FLAG_REDIRECT
)
"""How the native back end installs its filter."""


class Need(NamedTuple):
    """Something that was asked for and that the trace back end does better."""

    what: str
    """It, and what the native back end lacks for it."""
    possible: bool
    """Whether the native back end does it at all."""


class _Machine:
    # Asked once: neither a kernel nor a process's capabilities get better.

    def __init__(self) -> None:
        self._asked = False
        self._lack: str | None = None

    def lack(self) -> str | None:
        if not self._asked:
            self._lack = _lack()
            self._asked = True
        return self._lack

    def disown(self, reason: str) -> None:
        self._asked = True
        self._lack = reason


def _lack() -> str | None:
    # The flag alone tells it; that the listener knows the requests is looked at when there is one.
    if not seccomp.knows_flags(FLAGS):
        return "this kernel has no PIN_INSTALL and SEND_REDIRECT; no released one has them"
    from pinfold.launch import keeper  # noqa: PLC0415 (few kernels get that far)

    return keeper.lack() or _blind()


def _blind() -> str | None:
    # A tracer may read its tracees. Without one, Yama lets us read descendants alone, and who has
    # left its parents is nobody's descendant any more.
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", "rb") as file:
            scope = file.read().strip()
    except FileNotFoundError:
        return None
    if scope == b"0" or caps.effective() >> CAP_SYS_PTRACE & 1:
        return None
    return (
        f"kernel.yama.ptrace_scope is {scope.decode()}: calls of processes that have left their"
        " parents could not be read (0 allows it, and CAP_SYS_PTRACE)"
    )


_machine: Final = _Machine()


def lack() -> str | None:
    """Returns why this machine lacks the native back end, None when it has it.

    That takes one system call where it has not, and nothing when it was asked before.
    """
    return _machine.lack()


def disown(reason: str) -> None:
    """Notes that the native back end does not work here after all."""
    _machine.disown(reason)


def choose(wanted: str, needs: Iterable[Need]) -> tuple[str, tuple[str, ...]]:
    """Returns ``native`` or ``trace``, and warnings about what is weaker for that choice.

    Args:
        wanted: A word of ``MODES``.
        needs: What was asked for; not looked at where there is no choice.

    Raises:
        UnsupportedError: The native back end was asked for, and cannot be had, or not for this.
    """
    if wanted == TRACE:
        return TRACE, ()
    reason = lack()
    if reason is None:
        given = tuple(needs)
        impossible = next((need.what for need in given if not need.possible), None)
        if wanted == NATIVE and impossible is None:
            return NATIVE, tuple(need.what for need in given)
        if not given:
            return NATIVE, ()
        reason = impossible
    if wanted == NATIVE:
        raise UnsupportedError(f"the native back end cannot be used: {reason}")
    return TRACE, ()
