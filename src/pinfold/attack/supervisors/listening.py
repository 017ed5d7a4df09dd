"""A supervisor on ``pinfold.Listener``: the rule of the attacks on a listener's back end.

Each thread of the target has a slot of one pin. A thread has at most one call in flight, so when it
is heard of again its last call is over, and its slot may be written. A slot whose thread has ended
goes to the next one that needs it.

Where something else is mapped in the pin's place, a program's fake of it perhaps, the pin is put
somewhere else. Only the redirect tells: the kernel is asked each time, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Final

from pinfold.attack.rule import judge
from pinfold.attack.supervisors.reading import copied
from pinfold.bpf import Arg
from pinfold.codec.base import UNREADABLE, SlotFull
from pinfold.codec.image import Image
from pinfold.errors import TraceeGone
from pinfold.handover import supervise as start
from pinfold.linux.process import set_dumpable
from pinfold.pins.arena import SLOT_SIZE, Arena
from pinfold.policy.calls import Trapped
from pinfold.policy.rules import DENY
from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.refused import REFUSED
from pinfold.uapi.prctl import CLONE_PARENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pinfold.listener import Listener, Notification

_SLOTS: Final = 512
_PINS_AT: Final = (0x7000_0000, 0x7100_0000, 0x7200_0000, 0x7300_0000)
"""Where the pin may be, the first that is free."""
_UNPINNABLE: Final = frozenset({"sendmmsg"})
"""The kernel writes to what these read, which a pin does not let it."""


def supervise(name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    How many calls were denied is the last line on standard error.

    Args:
        name: ``interrupt`` or ``native``: the back end.
        command: What to run.
        real: Not known here: an attack on real names is for a supervisor that judges them.

    Raises:
        PinfoldError: It could not be run.
    """
    assert not real
    backend: Any = name
    trap = [one.row.name for one in EVERYTHING.values() if one.row.name not in _UNPINNABLE]
    with start(command, trap=trap, refuse=_refusals(), backend=backend) as child:
        set_dumpable(False)
        supervisor = Supervisor(child.listener)
        for call in child.listener:
            supervisor.answer(call)
        print(f"{name}: denied={supervisor.denied} trapped={supervisor.trapped}", file=sys.stderr)
        return child.wait()


def _refusals() -> Mapping[Any, int]:
    refused: dict[Any, int] = dict.fromkeys(_UNPINNABLE, errno.ENOSYS)
    # Its child would be ours, and nobody would wait for it.
    refused["clone", Arg(0, CLONE_PARENT, CLONE_PARENT)] = errno.EPERM
    for one in REFUSED:
        call = one.name if one.argument < 0 else (one.name, Arg(one.argument, one.mask, one.value))
        refused[call] = one.errno
    return refused


class Supervisor:
    """Answers a listener's notifications, each with its arguments pinned.

    Args:
        listener: Where they come from.

    Attributes:
        denied: Calls that the rule denied.
        trapped: Calls that were judged.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._arena = Arena(0, _SLOTS * SLOT_SIZE)
        self._free = list(range(0, _SLOTS * SLOT_SIZE, SLOT_SIZE))
        self._slots: dict[int, int] = {}
        self.denied = 0
        self.trapped = 0

    def answer(self, call: Notification) -> None:
        """Answers one notification."""
        self.trapped += 1
        try:
            failed = self._judged(call)
        except (SlotFull, TraceeGone, OSError) as error:
            failed = getattr(error, "errno", None) or errno.EPERM
        if failed:
            with contextlib.suppress(FileNotFoundError):  # the call is gone
                self._listener.send(call.id, error=failed)

    def _judged(self, call: Notification) -> int:
        # Returns an errno that the call is to fail with; 0 when it was let go.
        slot = self._slot_of(call.pid)
        for base in _PINS_AT:
            failed = self._judged_at(call, base, slot)
            if failed != errno.EEXIST:
                return failed
        return errno.ENOMEM

    def _judged_at(self, call: Notification, base: int, slot: int) -> int:
        # The same; EEXIST when something else is at ``base``.
        memory = self._arena.memory
        memory.tid = call.pid
        image = Image(self._arena.view, slot, SLOT_SIZE, base + slot, memory)
        row = EVERYTHING[call.data.nr].row
        read = copied(image, row, call.data.args)
        if read.errno:
            return read.errno
        verdict = judge(Trapped(row, call.data.args, b"", read.arguments, {}))
        if verdict.action == DENY:
            self.denied += 1
            return verdict.errno
        pointers = {one.at: one.pointer for one in read.arguments}
        if not pointers:
            # Nothing of it was in memory: what was judged is in its registers.
            self._listener.resume(call.id)
            return 0
        end = base + slot + SLOT_SIZE
        lengths = {at: end - to for at, to in pointers.items() if to != UNREADABLE}
        try:
            self._listener.send_redirect(call.id, pointers, lengths)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            # Not pinned here yet, or not any more.
            try:
                self._listener.pin_install(call.id, self._arena.fd, base, self._arena.size)
            except FileExistsError:
                return errno.EEXIST
            self._listener.send_redirect(call.id, pointers, lengths)
        return 0

    def _slot_of(self, tid: int) -> int:
        slot = self._slots.get(tid)
        if slot is not None:
            return slot
        if not self._free:
            gone = [one for one in self._slots if not os.path.exists(f"/proc/{one}")]
            self._free += [self._slots.pop(one) for one in gone]
        if not self._free:
            raise OSError(errno.ENOMEM, f"more than {_SLOTS} threads have calls in flight")
        self._slots[tid] = self._free.pop()
        return self._slots[tid]
