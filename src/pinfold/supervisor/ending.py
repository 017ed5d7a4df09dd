"""The end of a sandbox: what is left of it is killed, and waited for.

The first process of a pid namespace ends only when the others in it are gone, and those may be
waited for by somebody outside: whoever gets the children of processes that have ended, the
machine's init as a rule. In a container whose own first process waits for nobody, such a process
would wait for ever, and so would we. It runs nothing any more. So, where only such ones are left,
they get some time, and are then left behind: they vanish when the others are waited for.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import TYPE_CHECKING, Final

from pinfold.linux import ptrace
from pinfold.linux.process import kill, status_field
from pinfold.tracee import stops
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.supervisor.family import Family
    from pinfold.tracee.waits import Waits

PATIENCE_MS: Final = 2000
"""How long it may take until the next one ends, of first processes of pid namespaces."""

_WATCHED: Final = 16
"""Of how many the end is waited for at a time."""

_PF_EXITING: Final = 0x4
_FLAGS: Final = 6
"""Of the fields of ``/proc/PID/stat`` behind the name, the task's flags (linux/sched.h)."""


def reap(waits: Waits, family: Family, ended: Callable[[int, int], None]) -> None:
    """Waits until nothing is left of a sandbox, killing whatever shows up.

    Args:
        waits: The thread's wait queue.
        family: The sandbox's tasks; each has been sent SIGKILL.
        ended: Called with the id and the wait status of each task that has ended.

    Raises:
        Exception: The first that ``ended`` raised; the others were reaped all the same.
    """
    failed: Exception | None = None
    while (found := _next(waits, family)) is not None:
        tid, status = found
        if stops.stopped(status):
            # Any of its threads names a process, and nothing has to be looked up.
            kill(tid)
            _let_die(tid)
            continue
        try:
            ended(tid, status)
        except Exception as error:  # noqa: BLE001 (raised below)
            failed = failed or error
    for tid in [task.tid for task in family]:
        ended(tid, signal.SIGKILL)
    if failed is not None:
        raise failed


def _next(waits: Waits, family: Family) -> tuple[int, int] | None:
    # Returns None when nothing is left, or nothing but first processes that others wait for.
    found = waits.ready()
    if found is not None:
        return found
    tids = [task.tid for task in family]
    if tids and all(map(_is_first, tids)):
        _await_an_end(tids[:_WATCHED])
        found = waits.ready()
        if found is not None or all(map(_is_exiting, tids)):
            return found
    try:
        return waits.next()
    except ChildProcessError:
        return None


def _is_first(tid: int) -> bool:
    spaces = status_field(tid, b"NSpid")
    return spaces is not None and len(spaces.split()) > 1 and spaces.split()[-1] == b"1"


def _is_exiting(tid: int) -> bool:
    try:
        with open(f"/proc/{tid}/stat", "rb") as status:
            text = status.read()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(text.rpartition(b")")[2].split()[_FLAGS]) & _PF_EXITING)


def _await_an_end(tids: list[int]) -> None:
    ending = select.poll()
    processes = []
    try:
        for tid in tids:
            try:
                processes.append(os.pidfd_open(tid))
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    raise
                break
            ending.register(processes[-1], select.POLLIN)
        ending.poll(PATIENCE_MS)
    finally:
        for process in processes:
            os.close(process)


def _let_die(tid: int) -> None:
    try:
        ptrace.resume(abi.PTRACE_CONT, tid)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
