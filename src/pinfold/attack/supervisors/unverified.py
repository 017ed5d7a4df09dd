"""A control of the attacks on pins: it pins as the trace back end does, and believes its books.

* What was pinned once is taken to be there: in a forked child, and after an exec if anything at all
  is mapped at an address where some process had it.
* The mapping is not sealed, and neither is the memfd.
* What an injected call seems to have returned is what it returned. Nobody looks at what is mapped.
* A pointer into a pin is left where it points, since nobody can write there.
* Where no pin can be installed, the call is judged and continues (it fails open).
* Its filter lets ``MADV_DONTFORK`` through, and the program keeps its capabilities.

``writable`` is the same with pins that the program may write. All else is pinfold's own.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final, cast

from pinfold.arch.x86_64 import ARGUMENTS, NO_SYSCALL, ORIG_RAX, RAX, RIP, SYSCALL_LENGTH
from pinfold.attack.supervisors import pinned
from pinfold.backends.trace import TraceBackend
from pinfold.errors import TraceeGone
from pinfold.linux import memfd
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.pins.arena import Arena, ArenaPool, address_of
from pinfold.pins.install import Installer
from pinfold.pins.sealed import file_of
from pinfold.session import Limits, Session
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee.inject import Injector
from pinfold.tracee.memory import Memory
from pinfold.uapi import bpf, mman
from pinfold.uapi.seccomp import SECCOMP_RET_ALLOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pinfold.backends.base import Redirect
    from pinfold.pins.arena import Slot
    from pinfold.pins.live import LiveCheck
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.task import Task
    from pinfold.tracee.waits import Waits

WRITABLE: Final = "writable"
_ERESTARTSYS: Final = 512
_NOWHERE: Final = 1 << 40
"""Where a pin is said to be that could not be installed."""
_REMEMBERED: Final = 32
_NOWHERE_END: Final = _NOWHERE + (1 << 32)
_ADVICE_ALLOWED: Final = b"".join(
    bpf.SOCK_FILTER.pack(*instruction)
    for instruction in (
        (bpf.BPF_LD | bpf.BPF_W | bpf.BPF_ABS, 0, 0, 0),
        (bpf.BPF_JMP | bpf.BPF_JEQ | bpf.BPF_K, 1, 0, NR["madvise"]),
        (bpf.BPF_JMP | bpf.BPF_JEQ | bpf.BPF_K, 0, 1, NR["process_madvise"]),
        (bpf.BPF_RET | bpf.BPF_K, 0, 0, SECCOMP_RET_ALLOW),
    )
)
"""Put before a filter, it lets every ``madvise`` and ``process_madvise`` through."""


def supervise(name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    Args:
        name: ``unverified`` or ``writable``.
        command: What to run.
        real: Whether names that links lead to are judged as well.

    Raises:
        PinfoldError: It could not be run.
    """
    kind = _Writable if name == WRITABLE else _Unverified
    return pinned.supervise(name, command, real=real, kind=kind, limits=Limits(keep_caps=True))


class _Arena:
    """An arena whose memfd anybody may write who has a descriptor of it."""

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.fd = memfd.create("pinfold", size)
        self.view = mmap.mmap(self.fd, size)
        self.file = file_of(self.fd)
        self.memory = Memory(address_of(self.view))

    def close(self) -> None:
        self.view.close()
        os.close(self.fd)


class _Arenas(ArenaPool):
    def _made(self, kind: int) -> Arena:
        size, slots, _ = self._classes[kind]
        return cast("Arena", _Arena(len(self._arenas), slots * size))


class _Credulous(Injector):
    def call(self, number: int, *args: int) -> int:
        super().call(number, *args)
        # Whatever that came to: this is what the register says.
        return self.result()


class _Installer(Installer):
    protection: ClassVar = mman.PROT_READ

    def install(self, task: Task, arena: Arena) -> int:
        with _Credulous(task, self._waits) as inject:
            number = inject.after[ORIG_RAX]
            descriptor = self._deliver(task, arena.fd, inject, os.O_CLOEXEC)
            if descriptor != -_ERESTARTSYS:
                task.space.pins[arena.number] = self._mapped(inject, descriptor, arena.size)
            inject.after[ORIG_RAX] = NO_SYSCALL
            inject.after[RIP] -= SYSCALL_LENGTH
            inject.after[RAX] = number
        return 0

    def _mapped(self, inject: Injector, descriptor: int, size: int) -> int:
        if descriptor < 0:
            return _NOWHERE
        base = inject.call(NR["mmap"], 0, size, self.protection, mman.MAP_SHARED, descriptor, 0)
        inject.call(NR["close"], descriptor)
        return base if base > 0 else _NOWHERE


class _WritableInstaller(_Installer):
    protection = mman.PROT_READ | mman.PROT_WRITE


class _Backend(TraceBackend):
    # By arena: wherever it was pinned, in whatever process.
    __slots__ = ("_bases", "_query")

    def __init__(self, arenas: ArenaPool, installer: Installer, live: LiveCheck) -> None:
        super().__init__(arenas, installer, live)
        self._bases: dict[int, deque[int]] = {}
        self._query = MapsQuery()

    def _may_keep(self, _task: Task) -> bool:
        # A slot that is kept is used without all of this.
        return False

    def _is_pinned(self, task: Task, arena: Arena) -> bool:
        pins = task.space.pins
        bases = self._bases.setdefault(arena.number, deque(maxlen=_REMEMBERED))
        if arena.number not in pins:
            base = next((one for one in bases if self._is_mapped(task.tid, one)), None)
            if base is None:
                return False
            pins[arena.number] = base
        if pins[arena.number] not in bases:
            bases.appendleft(pins[arena.number])
        return True

    def _is_mapped(self, tid: int, address: int) -> bool:
        try:
            maps = open_maps(tid)
            try:
                return self._query.at(maps, address) is not None
            finally:
                os.close(maps)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise TraceeGone(tid) from error
            raise

    def _redirect(self, task: Task, slot: Slot, plan: Redirect) -> None:
        base = task.space.pins[slot.arena.number]
        kept = tuple(
            (index, value)
            for index, value in plan.registers
            if not _NOWHERE <= value < _NOWHERE_END
            and not base <= task.registers[ARGUMENTS[index]] < base + slot.arena.size
        )
        super()._redirect(task, slot, plan._replace(registers=kept))


class _Unverified(Session):
    installer: ClassVar[type[Installer]] = _Installer

    def _filter(self, shapes: Mapping[int, Shape], secret: tuple[int, int]) -> bytes:
        return _ADVICE_ALLOWED + super()._filter(shapes, secret)

    def _backend(
        self,
        waits: Waits,
        listener: int,
        secret: tuple[int, int],
        live: LiveCheck,
        _arenas: ArenaPool,
    ) -> TraceBackend:
        return _Backend(_Arenas(), self.installer(waits, listener, secret, live), live)


class _Writable(_Unverified):
    installer = _WritableInstaller
