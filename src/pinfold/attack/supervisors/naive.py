"""The control of most attacks: a supervisor that does it the common wrong way.

It is told of a call through a seccomp listener, copies the arguments out of the caller's memory,
applies the rule, and refuses with the rule's errno or tells the kernel to continue, which then
reads all of it a second time. It reads with pinfold's own codecs, and so loses a race by nothing
but the answer.

It is careless as such supervisors are: it knows one table of system calls and does not look which
one a call is from, forgets calls that have other ways to say the same, refuses nothing else, lets a
call continue whose arguments it cannot read, and reads without a bound on time.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Final

from pinfold.attack.rule import DENIED, judge
from pinfold.attack.supervisors.reading import copied
from pinfold.codec.image import Image
from pinfold.errors import TraceeGone
from pinfold.launch import spawn
from pinfold.launch.spawn import Command
from pinfold.linux import libc, seccomp
from pinfold.pins.arena import Arena
from pinfold.policy.calls import Trapped
from pinfold.policy.rules import DENY
from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import bpf
from pinfold.uapi.net import MMSGHDR, UIO_MAXIOV
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from pinfold.uapi.seccomp import (
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pinfold.linux.seccomp import RawNotification
    from pinfold.policy.calls import Argument, Verdict

TRAPPED: Final = sorted(
    {
        *DENIED,
        *("open", "creat", "openat", "stat", "lstat", "newfstatat", "statx", "access"),
        *("readlink", "readlinkat", "chdir", "link", "unlink", "unlinkat", "renameat"),
    }
)
"""The calls that such supervisors think of, and those of the races."""
_ROOM: Final = 8 << 20
"""More than the arguments of any call take up."""
_NOWHERE: Final = 1 << 40
"""Where the copy would be in the task, if it were there."""


def filter_program(answer: int = SECCOMP_RET_USER_NOTIF, *, numbered: bool = False) -> bytes:
    """Returns a filter: ``answer`` for ``TRAPPED``, by number alone; the rest goes through.

    Args:
        answer: What such a call gets.
        numbered: Whether the number of the call is the answer's data.
    """
    load = bpf.BPF_LD | bpf.BPF_W | bpf.BPF_ABS
    equal = bpf.BPF_JMP | bpf.BPF_JEQ | bpf.BPF_K
    give = bpf.BPF_RET | bpf.BPF_K
    program = [(load, 0, 0, 0)]
    for name in TRAPPED:
        number = X86_64[name]
        program += [(equal, 0, 1, number), (give, 0, 0, answer | number * numbered)]
    program.append((give, 0, 0, SECCOMP_RET_ALLOW))
    return b"".join(bpf.SOCK_FILTER.pack(*instruction) for instruction in program)


class Supervisor:
    """Answers one listener's notifications.

    Args:
        listener: Its descriptor.
    """

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._arena = Arena(0, _ROOM)

    def answer(self) -> None:
        """Receives one notification and answers it."""
        try:
            notification = seccomp.receive(self._listener)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the caller died or took a signal
                return
            raise
        failure, flags = 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE
        for verdict in self._verdicts(notification):
            if verdict.action == DENY:
                failure, flags = -verdict.errno, 0
        try:
            seccomp.send(self._listener, notification.id, error=failure, flags=flags)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the caller died or took a signal
                raise

    def _verdicts(self, notification: RawNotification) -> Iterator[Verdict]:
        # One for a call; for a sendmmsg one for each of its messages.
        row = EVERYTHING[notification.nr].row
        registers = list(notification.args)
        memory = self._arena.memory
        memory.tid = notification.pid
        # The kernel takes a C int of it, and sends no more than UIO_MAXIOV.
        messages = min(registers[2] & 0xFFFFFFFF, UIO_MAXIOV)
        for _ in range(messages if row.name == "sendmmsg" else 1):
            image = Image(self._arena.view, 0, _ROOM, _NOWHERE, memory)
            try:
                read = copied(image, row, registers)
            except TraceeGone:
                return
            names = self.names(notification, read.arguments)
            yield judge(Trapped(row, tuple(registers), b"", read.arguments, names))
            registers[1] += MMSGHDR.size

    def names(
        self, _call: RawNotification, _arguments: tuple[Argument, ...]
    ) -> dict[str, tuple[bytes, ...]]:
        """Returns what else the paths of a call mean, by argument: nothing is looked up here."""
        return {}


def without_privileges() -> None:
    """Lets this process install a filter, where it is not root."""
    if os.geteuid() != 0:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def supervise(_name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    The end of the first process ends the supervision; what it left running gets ENOSYS after that.
    Where a link leads is not looked at, even where that is to be judged.
    """
    return run(command, Supervisor)


def run(command: Sequence[str], kind: type[Supervisor]) -> int:
    """Runs a command under a supervisor of some kind and returns its exit status."""
    launched = spawn.launch(
        Command(tuple(os.fsencode(word) for word in command), dict(os.environb)),
        seccomp.FilterProgram(filter_program()),
        confine=without_privileges,
    )
    seccomp.set_flags(launched.listener, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    supervisor = kind(launched.listener)
    poll = select.poll()
    poll.register(launched.listener, select.POLLIN)
    poll.register(launched.pidfd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if ready.get(launched.listener, 0) & select.POLLIN:
            supervisor.answer()
        elif launched.pidfd in ready:
            break
        elif launched.listener in ready:  # hung up: the last task under the filter is gone
            poll.unregister(launched.listener)
    return os.waitstatus_to_exitcode(os.waitpid(launched.pid, 0)[1])
