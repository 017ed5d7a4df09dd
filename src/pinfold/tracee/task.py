"""One task (a thread, in user words) that we trace, and what may be done to it while it is stopped.

The kernel refuses ptrace requests on a running task with ESRCH, which is also what it says of a
dead one. Our loop only touches a task between a stop that it reported and the request that resumes
it, so here ESRCH has one meaning: the task was killed while it was stopped (SIGKILL, or a sibling's
exec or exit, gets through every ptrace stop). ``gone_on_esrch`` is the one place that relies on it.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from pinfold.arch.x86_64 import ORIG_RAX, RAX
from pinfold.errors import TraceeGone
from pinfold.linux import ptrace
from pinfold.uapi import ptrace as abi

if TYPE_CHECKING:
    from types import TracebackType

ASSUMED: Final = 1
"""As long as its parent's event has not told."""
KNOWN: Final = 2
"""It has asked for one."""

_TO_EXIT_STOP = abi.PTRACE_SYSCALL
_FREELY = abi.PTRACE_CONT
_MASK = 0xFFFFFFFFFFFFFFFF


class gone_on_esrch:  # noqa: N801 (a context manager that reads as a phrase)
    """Turns ESRCH within its block into ``TraceeGone``; see the head of the module for why."""

    __slots__ = ("_tid",)

    def __init__(self, tid: int) -> None:
        self._tid = tid

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and error.errno == errno.ESRCH:
            raise TraceeGone(self._tid) from error


class Batch(NamedTuple):
    """A ``sendmmsg`` that has sent some of its messages; see ``backends.batch``."""

    vector: int
    """What the program gave, like the next one."""
    entries: int
    sent: int


Flight: TypeAlias = tuple[int, int, int, int]
"""A call that was let go with one argument register pointing into a pin, and is not followed.

The register, its own value, where the call returns to, and the address of the page with the return
trampolines (``pins.trampoline``). A plain tuple: one is made for each such call.
"""


class AddressSpace:
    """What we installed in one ``mm``: arena number to address. A hint, never an argument.

    Shared by tasks that share memory, copied on fork, replaced on exec. Before a pin is used its
    live mapping is checked (``pins.live``).

    Attributes:
        pins: Arena number to the address of its first slot.
        code: Arena number to the address of its code page, 0 where it could not be mapped.
        shared: Whether another task may have used this memory, or may now.
    """

    __slots__ = ("code", "pins", "shared")

    def __init__(self, pins: dict[int, int] | None = None) -> None:
        self.pins: dict[int, int] = {} if pins is None else pins
        self.code: dict[int, int] = {}
        self.shared = False


class Task:
    """A traced task.

    Attributes:
        tid: Its id in the supervisor's pid namespace.
        tgid: Its process.
        space: What is pinned in its memory.
        shares: Whether another task may share its working directory or descriptor table, so that a
            relative name can change its meaning under it.
        program: Path of the program it runs, as bytes; for the log.
        executed: Whether it has executed a program since we know it.
        held: Signal information to hand out when a signal that we held back comes again.
        executing: What the exec that it made last was told to execute, by name.
        batch: How far a ``sendmmsg`` has got that is made again for each message, else None.
        flight: The call that it was let go with last, if nobody waits for the end of that.
        filtered: Whether it may have a filter of its own: 0, ``ASSUMED`` or ``KNOWN``.
        kept: What the back end keeps for its next call; nobody else's business.
        restop: Whether a held stopping signal still has to take effect.
    """

    __slots__ = (
        "_to_registers",
        "_write",
        "batch",
        "executed",
        "executing",
        "filtered",
        "flight",
        "guard",
        "held",
        "kept",
        "program",
        "registers",
        "restop",
        "shares",
        "space",
        "tgid",
        "tid",
    )

    def __init__(self, tid: int, tgid: int, space: AddressSpace, *, shares: bool = False) -> None:
        self.tid = tid
        self.tgid = tgid
        self.space = space
        self.shares = shares
        self.guard = gone_on_esrch(tid)
        self.program = b""
        self.executed = False
        self.executing: tuple[bytes, ...] = ()
        self.registers: ctypes.Array[ctypes.c_uint64] = ptrace.Registers()
        self._to_registers = ctypes.byref(self.registers)
        self._write = ptrace.RegisterWriter(self.registers).write
        self.held: list[tuple[int, ctypes.Array[ctypes.c_char]]] = []
        self.restop = False
        self.batch: Batch | None = None
        self.flight: Flight | None = None
        self.filtered = 0
        self.kept: Any = None

    def __repr__(self) -> str:
        return f"<Task {self.tid} of {self.tgid}>"

    def load(self) -> ctypes.Array[ctypes.c_uint64]:
        """Returns the registers, freshly read into this task's own buffer."""
        if not ptrace.load_registers(self.tid, self._to_registers):
            with self.guard:
                ptrace.get_registers(self.tid, self.registers)
        return self.registers

    def store(self, registers: ctypes.Array[ctypes.c_uint64]) -> None:
        """Writes registers: all up to the instruction pointer if they are the task's own buffer."""
        if registers is self.registers and self._write(self.tid):
            return
        with self.guard:
            ptrace.set_registers(self.tid, registers)

    def poke(self, register: int, value: int) -> None:
        """Writes one register."""
        with self.guard:
            ptrace.poke_register(self.tid, register, value)

    def signal_code(self) -> int:
        """Returns the ``si_code`` of the signal that it stopped for."""
        with self.guard:
            info = ptrace.get_siginfo(self.tid)
        _, _, code = abi.SIGINFO_HEAD.unpack_from(info.raw)
        return int(code)

    def sent_by_someone(self) -> bool:
        """Returns whether a SIGTRAP is somebody's signal, and not the end of a step.

        The kernel's own have a positive code (TRAP_BRKPT, TRAP_TRACE).
        """
        return self.signal_code() <= 0

    def skip_call(self, result: int) -> None:
        """Makes the call that the task trapped on return ``result`` without being made.

        Preconditions: in a seccomp stop, registers loaded. A number of -1 tells the kernel to skip
        it (``__seccomp_filter``, the ``SECCOMP_RET_TRACE`` case).
        """
        registers = self.registers
        registers[ORIG_RAX] = _MASK
        registers[RAX] = result & _MASK
        self.store(registers)

    def resume(self, signal: int = 0, how: int = _FREELY) -> None:
        """Lets the task run on, delivering ``signal`` if given."""
        if not ptrace.resumed(how, self.tid, signal):
            with self.guard:
                ptrace.resume(how, self.tid, signal)

    def resume_to_exit(self) -> None:
        """Lets the task make its call and stop right after it.

        Preconditions: in a seccomp stop, which comes after the entry stop: the next syscall stop
        is then the exit.
        """
        self.resume(0, _TO_EXIT_STOP)

    def listen(self) -> None:
        """Leaves the task in its group stop until SIGCONT (``PTRACE_LISTEN``)."""
        self.resume(0, abi.PTRACE_LISTEN)
