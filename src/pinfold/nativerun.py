"""A run on the native back end: COMMAND's process, its keeper, its arenas, and their loop."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from pinfold.backends.notified import NotifiedBackend
from pinfold.errors import UnsupportedError
from pinfold.launch import choice, spawn
from pinfold.launch.keeper import Keeper
from pinfold.linux import redirect, seccomp
from pinfold.pins.arena import ArenaPool
from pinfold.supervisor.callers import Callers
from pinfold.supervisor.listening import Listening
from pinfold.tracee.notified import Known
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.launch.confine import Confinement
    from pinfold.launch.spawn import Command, Launched
    from pinfold.linux.seccomp import FilterProgram
    from pinfold.supervisor.decision import Decision
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller


class NotNativeError(UnsupportedError):
    """The filter's flag means something else to this kernel. Nothing of COMMAND has run."""


class NativeRun:
    """Starts a command's process under a filter whose listener redirects, and its keeper.

    Args:
        command: What to run.
        confinement: Applied in the child.
        program: The filter.

    Attributes:
        launched: The process, about to execute its command.

    Preconditions: made, used and closed by the thread that supervises.

    Raises:
        NotNativeError: See there.
        LaunchError: A step in the child failed.
        UnsupportedError: An outer sandbox holds a listener, or we may not fetch the child's.
        OSError: fork or a descriptor failed.
    """

    __slots__ = ("_arenas", "_confinement", "_keeper", "launched")

    launched: Final[Launched]

    def __init__(self, command: Command, confinement: Confinement, program: FilterProgram) -> None:
        self._confinement = confinement
        self._arenas = ArenaPool(code=False)
        with contextlib.ExitStack() as failing:
            failing.callback(self._arenas.close)
            self._keeper = Keeper()
            failing.callback(self._keeper.close)
            self.launched = spawn.launch(
                command,
                program,
                choice.FLAGS,
                confine=self._confine,
                kept=self._keeper.descriptors | {confinement.descriptor},
                ready=lambda _: self._keeper.meet(),
                taken=self._taken,
                meanwhile=self._arenas.grow,
            )
            failing.pop_all()

    def _confine(self) -> None:
        # In the child.
        self._keeper.begin()
        self._confinement.apply()

    def _taken(self, listener: int) -> None:
        if redirect.revision(listener) != redirect.LATER:
            raise NotNativeError("this kernel has another meaning for SECCOMP_FILTER_FLAG_REDIRECT")
        self._keeper.take(listener)
        try:
            seccomp.set_flags(listener, abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it only costs time
                raise

    def loop(
        self,
        engine: Engine | None,
        shapes: Mapping[int, Shape],
        *,
        programs: bool,
        record: Callable[[Caller, Shape, Decision], object],
        flush: Callable[[], None],
        limit: Callable[[], None] | None,
        on_executed: Callable[[], None] | None,
        on_stop: Callable[[int], None] | None,
    ) -> Listening:
        """Returns the loop that supervises it.

        Args:
            engine: Decides; None where no call is judged.
            shapes: What is trapped.
            programs: Whether anybody needs to know which programs run.
            record: As for ``Listening``, like all that follow.
            flush: Likewise.
            limit: Likewise.
            on_executed: Likewise.
            on_stop: Likewise.
        """
        common = Known(programs=programs)
        callers = Callers(common)
        backend = NotifiedBackend(self.launched.listener, self._arenas, callers.forget_ended)
        return Listening(
            self.launched,
            self._keeper,
            backend,
            callers,
            common,
            engine,
            shapes,
            record=record,
            flush=flush,
            limit=limit,
            on_executed=on_executed,
            on_stop=on_stop,
        )

    def close(self) -> None:
        """Ends the keeper, and with it whatever is left of the sandbox; gives up the arenas."""
        try:
            self._keeper.close()
        finally:
            self._arenas.close()
