"""COMMAND in the place of pinfold: signals, job control, standard streams, exit status.

The main thread waits for signals, the session's thread supervises.

Once COMMAND's process is there, this process keeps no descriptor that only COMMAND was meant to
get, and gives up most of what it could do; see ``launch.restrict``.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from pinfold.cli.streams import claim, complain
from pinfold.errors import LaunchError
from pinfold.launch import restrict
from pinfold.launch.choice import TRACE
from pinfold.launch.spawn import Command
from pinfold.linux.descriptors import close_quietly, inheritable
from pinfold.session import require_machine
from pinfold.tracee.stops import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pinfold.life import Outcome
    from pinfold.session import Session

_FORWARDED: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGWINCH,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
    }
)
_STOPPING: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_PATIENCE: Final = 2.0
"""Seconds that COMMAND may take to tidy the terminal before it obeys a stop."""
_OVER: Final = signal.SIGRTMAX
_SI_KERNEL: Final = 0x80
"""``si_code`` of a signal from the terminal: COMMAND, in the same process group, got it too."""


class Runner:
    """Runs one COMMAND from the command line.

    Args:
        argv: COMMAND and its arguments.
        make: Makes the session of a ``Command``, with callbacks by name to pass on to it.
        summary: Returns what SIGUSR1 prints; with None, COMMAND gets that signal like others.
        last: Whether this process will run no other COMMAND afterwards. Else it has to keep what
            that one is to inherit, and must not be restricted yet.

    Attributes:
        session: The session.
        outcome: How the run ended, once it has.

    Preconditions: made and run by the main thread, before any other thread exists.

    Raises:
        PolicyError, UnsupportedError: As the session.
    """

    def __init__(
        self,
        argv: Sequence[str],
        make: Callable[..., Session],
        *,
        summary: Callable[[Session], str] | None = None,
        last: bool = True,
    ) -> None:
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            # Whoever started us left it so. COMMAND gets the default too.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        require_machine()
        self._inherited = inheritable() if last else []
        self._last = last
        self._summary = summary
        self._stop_lock = threading.Lock()
        self._stop_until = 0.0
        self.outcome: Outcome | None = None
        # Blocked before any thread exists, so that only sigwaitinfo below ever takes them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {_OVER})
        self.session = make(
            Command(
                tuple(os.fsencode(arg) for arg in argv),
                _environment(),
                streams=claim(),
                signal_mask=frozenset(before),
            ),
            on_stop=self._stop_with_command,
            on_refused=complain,
            on_launched=self._harden,
        )
        # A machine that turns out to be without the native back end is traced after all.
        self._restrictions = {
            traces: restrict.prepare(traces=traces)
            for traces in ({True, self.session.backend == TRACE} if last else ())
        }

    def run(self, hint: str | None = None) -> int:
        """Runs COMMAND and returns what to exit with.

        Args:
            hint: Added to the message when COMMAND cannot be executed.

        Raises:
            PinfoldError: What went wrong; nothing of the sandbox is left then.
        """
        session = self.session
        for line in session.warnings:
            complain(f"warning: {line}")
        # By kill(): a signal for one thread fails where the user has too many pending already.
        session.start(on_end=lambda: os.kill(os.getpid(), _OVER))
        self._wait()
        try:
            self.outcome = session.result()
        except LaunchError as error:
            if hint is None or error.exit_code not in (126, 127):
                raise
            raise LaunchError(f"{error}; {hint}", error.exit_code) from error
        if self.outcome.timed_out:
            complain("the run took longer than its limit, and was killed")
        return exit_code(self.outcome.status)

    def _harden(self) -> None:
        # Whoever reads from a pipe that COMMAND has closed is not to wait for us.
        close_quietly(self._inherited)
        if self._last:
            restrict.restrict(self._restrictions[self.session.backend == TRACE])

    def _wait(self) -> None:
        session = self.session
        while True:
            info = signal.sigwaitinfo(_FORWARDED | {_OVER})
            session.launched.wait()
            if info.si_signo == _OVER:
                if session.join(0) or session.over:
                    return
                session.signal(_OVER)
            elif info.si_signo == signal.SIGCONT:
                # `fg` continues the whole process group; COMMAND is told only if it was left out.
                if session.stopped:
                    session.signal(signal.SIGCONT)
            elif info.si_signo == signal.SIGUSR1 and self._summary is not None:
                complain(self._summary(session))
            else:
                if info.si_signo in _STOPPING:
                    with self._stop_lock:
                        self._stop_until = time.monotonic() + _PATIENCE
                    if session.stopped:
                        self._stop_with_command(info.si_signo)
                # The process group has it already where a terminal, or `cli.ask`, sent it.
                if info.si_code != _SI_KERNEL and info.si_pid != os.getpid():
                    session.signal(info.si_signo)

    def _stop_with_command(self, _number: int) -> None:
        # The shell that started us waits for *us* to stop, so when job control stops COMMAND, stop
        # as well. Not for any other stop: one task of the sandbox may stop another and continue it
        # later, and a stopped supervisor would never see that.
        with self._stop_lock:
            wanted, self._stop_until = self._stop_until, 0.0
        if time.monotonic() < wanted:
            os.kill(os.getpid(), signal.SIGSTOP)


def _environment() -> dict[bytes, bytes]:
    # As we were started. Python may have set LC_CTYPE in its own copy (PEP 538).
    try:
        with open("/proc/self/environ", "rb") as started:
            entries = started.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in entries)
    return {name: value for name, equals, value in pairs if equals}
