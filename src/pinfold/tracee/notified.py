"""A thread that waits in a notification of a listener, and what the kernel says about it meanwhile.

Nobody tells us of forks, execs and ends here. So nothing about a thread is remembered from one call
to the next: who it is, what it runs and whom it shares with is asked while it waits. It runs no
code of its own then, and the answers hold until it is let go:

- Its process and its memory are its own until the call goes on. Another thread that executes a
  program kills it, and the call is gone. A redirect that the kernel takes, or a descriptor that it
  delivers, is the proof that the call was there all the time, and so that what was read under this
  thread id was about this thread: its memory, its program, its directory.
- Whether it shares its working directory or its descriptors: where its process has no other thread
  now, there is none until the call goes on, since only the process itself makes threads. That
  leaves other processes; the one way to share with these is ``clone`` with CLONE_FS or CLONE_FILES,
  which is trapped where nobody traces (``syscalls.untraced``), and from the first one on everybody
  is taken to share. No other way changes a waiting process's directory or descriptors: not a
  tracer, which needs it stopped, and not ``pidfd_getfd``, which copies out.

The slot and the place of the pin are kept: one is ours, the other is only tried.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS, ORIG_RAX, REGISTERS, RIP
from pinfold.errors import TraceeGone
from pinfold.linux.process import kill, status_field
from pinfold.paths import as_name
from pinfold.tracee.task import AddressSpace

if TYPE_CHECKING:
    from typing import Any

_ALONE: Final = 3
"""Links to the directory of a process's threads: two, and one for each of them."""

_NUMBER: Final = (1 << 64) - 1
_A, _B, _C, _D, _E, _F = ARGUMENTS


class Known:
    """What all threads of one sandbox have in common.

    Attributes:
        shared: Whether two processes may share a working directory or a descriptor table.
        programs: Whether anybody needs to know what a thread runs.
    """

    __slots__ = ("programs", "shared")

    def __init__(self, *, programs: bool) -> None:
        self.shared = False
        self.programs = programs


class Notified:
    """A thread of the sandbox, and its call.

    Args:
        tid: Its id.
        known: What is known of the sandbox.

    Attributes:
        tid: Likewise.
        cookie: The notification.
        registers: The number, the arguments and the instruction pointer of the call; nothing else.
        space: Where arenas are tried in its memory.
        kept: The slot that it keeps, None before its first call.
        larger: A larger slot of its last call, which is over when it calls again; else None.
    """

    __slots__ = (
        *("_known", "_program", "_shares", "_tgid"),
        *("cookie", "kept", "larger", "registers", "space", "tid"),
    )

    def __init__(self, tid: int, known: Known) -> None:
        self.tid: Final = tid
        self._known = known
        # A list is what costs the hot loop least.
        self.registers: list[int] = [0] * REGISTERS
        self.space = AddressSpace()
        self.kept: Any = None
        self.larger: Any = None
        self.cookie = 0
        self._tgid = 0
        self._program: bytes | None = None
        self._shares: bool | None = None

    def __repr__(self) -> str:
        return f"<thread {self.tid} in notification {self.cookie:#x}>"

    def called(self, fields: tuple[int, ...]) -> list[int]:
        """Takes a notification of this thread; returns its registers.

        Args:
            fields: Of ``struct seccomp_notif``.
        """
        registers = self.registers
        (
            self.cookie,
            _,
            _,
            number,
            _,
            registers[RIP],
            registers[_A],
            registers[_B],
            registers[_C],
            registers[_D],
            registers[_E],
            registers[_F],
        ) = fields
        registers[ORIG_RAX] = number & _NUMBER
        self._tgid = 0
        self._program = self._shares = None
        return registers

    def load(self) -> list[int]:
        """Returns the registers, which nobody changes."""
        return self.registers

    @property
    def tgid(self) -> int:
        """Its process.

        Raises:
            TraceeGone: It died.
        """
        if not self._tgid:
            found = status_field(self.tid, b"Tgid")
            if found is None:
                raise TraceeGone(self.tid)
            self._tgid = int(found)
        return self._tgid

    @property
    def program(self) -> bytes:
        """Path of the program that it runs; empty where nobody asks, and where we may not look.

        Raises:
            TraceeGone: It died; or it was killed, since its program lies deeper than a name can
                tell, and a rule about programs could be about it.
        """
        found = self._program
        if found is None:
            found = self._program = self._asked() if self._known.programs else b""
        return found

    def _asked(self) -> bytes:
        try:
            return as_name(os.readlink(b"/proc/%d/exe" % self.tid))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                kill(self.tgid)
            elif error.errno in (errno.EACCES, errno.EPERM):
                return b""
            elif error.errno not in (errno.ENOENT, errno.ESRCH):
                raise
            raise TraceeGone(self.tid) from error

    @property
    def shares(self) -> bool:
        """Whether another task may share its working directory or descriptor table.

        Raises:
            TraceeGone: It died.
        """
        found = self._shares
        if found is None:
            found = self._known.shared
            if not found:
                try:
                    found = os.stat(b"/proc/%d/task" % self.tid).st_nlink != _ALONE
                except (FileNotFoundError, ProcessLookupError) as error:
                    raise TraceeGone(self.tid) from error
                except PermissionError:
                    # Where processes are hidden from each other. Who cannot be counted may share.
                    found = True
            self._shares = found
        return found
