"""Waiting for held tasks, and making them wait for nobody.

An interrupted task may be killed and replaced by the exec of a sibling without a word to its tracer
(``de_thread`` in fs/exec.c). So whoever waits here looks from time to time whether the task is
still ours.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.errors import TraceeGone
from pinfold.linux import process
from pinfold.tracee.inject import Injector
from pinfold.tracee.waits import Waits

if TYPE_CHECKING:
    from pinfold.backends.interrupt.held import Held
    from pinfold.backends.interrupt.wire import Shared

LOOK_MS: Final = 5
_ALL: Final = (1 << 64) - 1
_SIGNALFD_READ: Final = 128 * 16


class Announcing(Injector):
    """An injector that tells the supervisor of each call beforehand; see ``wire``."""

    __slots__ = ("_shared",)

    def __init__(self, held: Held, waits: Waits, shared: Shared) -> None:
        super().__init__(held, waits, held.quiet)
        self._shared = shared

    def call(self, number: int, *args: int) -> int:
        """Returns what the call returned, as ``Injector.call``."""
        # Registers that the caller leaves out stay what they are.
        rest = [self.after[register] for register in ARGUMENTS[len(args) :]]
        self._shared.announce(self._task.tid, number, (*(value & _ALL for value in args), *rest))
        try:
            return super().call(number, *args)
        finally:
            # The same call by the task itself is not ours.
            self._shared.announce(0, 0, (0,) * len(ARGUMENTS))


class Patient(Waits):
    """Wait results, with the doubt that the one waited for may never come."""

    __slots__ = ("_descriptor", "_poll")

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def stop_of(self, tid: int) -> int:
        """Returns the next stop status of one task, keeping all other results for later.

        Raises:
            TraceeGone: It ended, or is no longer ours.
        """
        while True:
            status = self.poll(tid)
            if status is not None:
                return status
            if self._poll.poll(LOOK_MS):
                self.drain()
            elif not ours(tid):
                raise TraceeGone(tid)

    def drain(self) -> None:
        """Forgets that SIGCHLD came, before looking what it was about."""
        try:
            os.read(self._descriptor, _SIGNALFD_READ)
        except BlockingIOError:
            return


def ours(tid: int) -> bool:
    """Returns whether the calling process traces ``tid``."""
    return process.tracer_of(tid) == os.getpid()
