"""What a wait status says, as plain integers and predicates (pure).

A status is what ``waitpid`` returns. For a stop the low byte is 0x7f, the next byte is the signal
and the bits above 16 are the ptrace event. ``ptrace(2)``, section "Stopped states".
"""

from __future__ import annotations

import signal
from typing import Final

from pinfold.uapi import ptrace as abi

SYSCALL_STOP: Final = ((signal.SIGTRAP | 0x80) << 8) | 0x7F
"""Status of a syscall-exit stop under ``PTRACE_O_TRACESYSGOOD``."""

SECCOMP_STOP: Final = (abi.PTRACE_EVENT_SECCOMP << 16) | (signal.SIGTRAP << 8) | 0x7F
STEP_STOP: Final = (signal.SIGTRAP << 8) | 0x7F
"""A plain SIGTRAP: the end of a single step, or a SIGTRAP that somebody sent."""

NEW_TASK_EVENTS: Final = frozenset(
    {abi.PTRACE_EVENT_FORK, abi.PTRACE_EVENT_VFORK, abi.PTRACE_EVENT_CLONE}
)
JOB_CONTROL_SIGNALS: Final = frozenset(
    {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)


def stopped(status: int) -> bool:
    """Returns whether the task stopped, as opposed to ended."""
    return status & 0xFF == 0x7F


def stop_signal(status: int) -> int:
    """Returns the signal number of a stop (0x80 is added in a syscall stop)."""
    return status >> 8 & 0xFF


def stop_event(status: int) -> int:
    """Returns the ``PTRACE_EVENT_*`` of a stop, 0 for a signal-delivery or syscall stop."""
    return status >> 16


def is_group_stop(status: int) -> bool:
    """Returns whether the task stopped because its process was stopped by job control.

    Under ``PTRACE_SEIZE`` this is ``PTRACE_EVENT_STOP`` with the stopping signal; with SIGTRAP the
    same event means that the task is new, or that the process was continued.
    """
    return (
        stop_event(status) == abi.PTRACE_EVENT_STOP and stop_signal(status) in JOB_CONTROL_SIGNALS
    )


def exit_code(status: int) -> int:
    """Returns what a shell would report for an ended process: its code, or 128 + signal."""
    number = status & 0x7F
    return 128 + number if number else status >> 8 & 0xFF
