"""The control of the deep races: the same rule, read as deep, and then told to continue.

It is the supervisor of ``tests/naive.py`` for everything that a call's pointers lead to. It is told
of a call through a seccomp listener, copies the arguments out of the caller's memory, applies
``tests/races/deep_rule.py``, refuses with the rule's errno or tells the kernel to continue. The
kernel then reads all of it a second time.

    python -m tests.naive_deep COMMAND...

It reads with pinfold's own codecs, and so loses by nothing but the answer.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Final

from pinfold import notify_filter
from pinfold.codec.base import Refused
from pinfold.codec.image import Image
from pinfold.launch import spawn
from pinfold.launch.spawn import Command
from pinfold.linux import libc, seccomp
from pinfold.pins.arena import Arena
from pinfold.policy.calls import Argument, Trapped
from pinfold.policy.rules import DENY
from pinfold.supervisor import arguments
from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.uapi.fs import PATH_MAX
from pinfold.uapi.net import MMSGHDR
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from pinfold.uapi.seccomp import (
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)
from tests.races.deep_rule import DENIED, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.linux.seccomp import RawNotification
    from pinfold.policy.calls import Verdict

_ROOM: Final = 8 << 20
"""More than the arguments of any call take up."""
_NOWHERE: Final = 1 << 40
"""Where the copy would be in the task, if it were there."""


class Supervisor:
    """Answers one listener's notifications.

    Args:
        listener: Its descriptor.
    """

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._arena = Arena(0, _ROOM)
        self._memory = self._arena.memory

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
        self._memory.tid = notification.pid
        for _ in range(registers[2] if row.name == "sendmmsg" else 1):
            image = Image(self._arena.view, 0, _ROOM, _NOWHERE, self._memory)
            found: list[Argument] = []
            for index, (name, kind) in enumerate(row.arguments):
                value = _read(image, row.name, kind, registers[index : index + 2], found)
                if value is not None:
                    found.append(Argument(index, name, kind, value, 0))
            yield judge(Trapped(row, tuple(registers), b"", tuple(found), {}))
            registers[1] += MMSGHDR.size


def _read(
    image: Image, call: str, kind: Kind, registers: list[int], before: list[Argument]
) -> Any | None:
    # None for an argument that is no pointer, is NULL, or that this way cannot be read.
    address, size = (*registers, 0)[:2]
    if kind in PATHS:
        span = image.copy_string(address, PATH_MAX) if address else -errno.EFAULT
        return None if isinstance(span, int) else image.bytes_at(*span)
    if kind not in arguments.READABLE:
        return None
    try:
        one = arguments.read(image, call, kind, address, size, [other.value for other in before])
    except Refused:
        return None
    return None if one is None else one.value


def _no_new_privileges() -> None:
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def supervise(command: list[str]) -> int:
    """Runs ``command`` and returns its exit status, 128 + N where signal N ended it.

    The end of the first process ends the supervision; what it left running gets ENOSYS after that.
    """
    program = seccomp.FilterProgram(notify_filter(DENIED))
    launched = spawn.launch(
        Command(tuple(os.fsencode(word) for word in command), dict(os.environb)),
        program,
        confine=_no_new_privileges,
    )
    seccomp.set_flags(launched.listener, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    supervisor = Supervisor(launched.listener)
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
    status = os.waitstatus_to_exitcode(os.waitpid(launched.pid, 0)[1])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
