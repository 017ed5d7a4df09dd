"""The control by ptrace alone: a tracer that is asked by a filter, and nothing else.

It copies the arguments at the seccomp stop, applies the rule, and makes the call fail or lets it
run. It is naive in what a tracer takes for granted:

- it has no listener, so that the program may have one;
- it believes that every seccomp stop is its own filter's, whose data say which call it is;
- ``tracer`` knows its first task only. Others have no tracer, which is as good as a denial, unless
  somebody else traces them. ``follower`` has the kernel attach it to new tasks, and takes for
  granted that there are no others;
- a call whose arguments it cannot read is let go.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, NoReturn

from pinfold.arch.x86_64 import ARGUMENTS, NO_SYSCALL, ORIG_RAX, RAX
from pinfold.attack.rule import judge
from pinfold.attack.supervisors import naive
from pinfold.attack.supervisors.reading import copied
from pinfold.codec.image import Image
from pinfold.errors import TraceeGone
from pinfold.linux import process, ptrace, seccomp
from pinfold.pins.arena import Arena
from pinfold.policy.calls import Trapped
from pinfold.policy.rules import DENY
from pinfold.supervisor.shapes import EVERYTHING
from pinfold.uapi import ptrace as abi
from pinfold.uapi.seccomp import SECCOMP_RET_TRACE

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOM: Final = 8 << 20
"""More than the arguments of any call take up."""
_NOWHERE: Final = 1 << 40
"""Where the copy would be in the task, if it were there."""
_OPTIONS: Final = {
    "tracer": abi.PTRACE_O_TRACESECCOMP | abi.PTRACE_O_EXITKILL,
    "follower": abi.PTRACE_O_TRACESECCOMP
    | abi.PTRACE_O_EXITKILL
    | abi.PTRACE_O_TRACEFORK
    | abi.PTRACE_O_TRACEVFORK
    | abi.PTRACE_O_TRACECLONE,
}
_STOPPING: Final = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


class Supervisor:
    """Carries its tracees from stop to stop."""

    def __init__(self) -> None:
        self._arena = Arena(0, _ROOM)
        self._registers = ptrace.Registers()

    def stopped(self, tid: int, status: int) -> None:
        """Handles one stop and resumes the task."""
        event, number = status >> 16, os.WSTOPSIG(status)
        how = abi.PTRACE_CONT
        if event == abi.PTRACE_EVENT_SECCOMP:
            self._judge(tid)
        elif event == abi.PTRACE_EVENT_STOP and number in _STOPPING:
            how = abi.PTRACE_LISTEN
        ptrace.resume(how, tid, 0 if event else number)

    def _judge(self, tid: int) -> None:
        registers = self._registers
        ptrace.get_registers(tid, registers)
        known = EVERYTHING.get(ptrace.event_message(tid))
        if known is None:
            return
        arguments = tuple(int(registers[index]) for index in ARGUMENTS)
        memory = self._arena.memory
        memory.tid = tid
        image = Image(self._arena.view, 0, _ROOM, _NOWHERE, memory)
        read = copied(image, known.row, arguments)
        verdict = judge(Trapped(known.row, arguments, b"", read.arguments, {}))
        if verdict.action == DENY:
            registers[ORIG_RAX] = NO_SYSCALL
            registers[RAX] = -verdict.errno & NO_SYSCALL
            ptrace.set_registers(tid, registers)


def supervise(name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    The end of the first process ends the supervision, and with it whatever is still traced. Where a
    link leads is not looked at, even where that is to be judged.
    """
    program = seccomp.FilterProgram(naive.filter_program(SECCOMP_RET_TRACE, numbered=True))
    reader, writer = os.pipe()
    first = process.fork()
    if first == 0:
        _child(program, reader, writer, command)
    os.close(reader)
    ptrace.seize(first, _OPTIONS[name])
    os.close(writer)
    supervisor = Supervisor()
    while True:
        tid, status = os.waitpid(-1, abi.WALL)
        if os.WIFSTOPPED(status):
            try:
                supervisor.stopped(tid, status)
            except (ProcessLookupError, TraceeGone):  # killed while it was stopped
                continue
        elif tid == first:
            return os.waitstatus_to_exitcode(status)


def _child(
    program: seccomp.FilterProgram, traced: int, other_end: int, command: Sequence[str]
) -> NoReturn:
    # Reads the end of file that comes when it is traced: a trapped call without a tracer fails.
    status = 127
    try:
        process.die_with_parent(signal.SIGKILL)
        naive.without_privileges()
        os.close(other_end)
        os.read(traced, 1)
        program.install()
        os.execv(command[0], list(command))
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(status)
