"""Something happens to a task at every stop of a run, after the kernel has reported that stop.

The wait results are the kernel's own. Between one of them and what the supervisor does about it,
the task is killed, or another one is, or it gets a signal: as if the supervisor had been slow.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.errors import LaunchError
from pinfold.life import Outcome
from pinfold.linux.process import process_of
from pinfold.tracee import waits
from pinfold.tracee.stops import stopped
from tests.faults import support
from tests.faults.support import Run, Scene
from tests.kernel.support import children

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[int, int], None]

pytestmark = pytest.mark.usefixtures("form")

every_kind = pytest.mark.parametrize("whole", [False, True], ids=["paths", "everything"])


class _Reported:
    """``os`` as ``tracee.waits`` sees it: does something right after the n-th stop is reported."""

    def __init__(self, n: int, act: Act) -> None:
        self.count = 0
        self.victim = 0
        self._n = n
        self._act = act
        self.main = 0

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        tid, status = os.waitpid(pid, options)
        if tid and stopped(status):
            self.count += 1
            if self.count == self._n:
                self.victim = process_of(tid)
                self._act(tid, self.victim)
        return tid, status

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Act], _Reported]:
    """Arranges for something to happen after the n-th stop of the next run."""

    def arranged(n: int, act: Act) -> _Reported:
        reported = _Reported(n, act)
        monkeypatch.setattr(waits, "os", reported)
        return reported

    return arranged


def _nothing(_tid: int, _process: int) -> None:
    pass


def _kill(tid: int, _process: int) -> None:
    os.kill(tid, signal.SIGKILL)


def _stop_and_continue(_tid: int, process: int) -> None:
    os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGCONT)


def _signal(_tid: int, process: int) -> None:
    os.kill(process, signal.SIGUSR1)


def _kill_another(_tid: int, process: int) -> None:
    # Its parent or its child, whichever is in the sandbox too.
    for other in _relatives(process):
        os.kill(other, signal.SIGKILL)


def _relatives(process: int) -> set[int]:
    with (
        contextlib.suppress(FileNotFoundError, ProcessLookupError),
        open(f"/proc/{process}/stat") as file,
    ):
        parent = int(file.read().rpartition(")")[2].split()[1])
        if parent != os.getpid():
            return {parent}
    return children(process)


def _undisturbed(scene: Scene, after: Callable[[int, Act], _Reported], whole: bool) -> int:
    """Returns how many stops a run has, and checks how it goes."""
    reported = after(0, _nothing)
    outcome = Run(scene, scene.program("fault_steps"), whole=whole).end()
    assert isinstance(outcome, Outcome)
    assert outcome.status == 0
    assert scene.said() == EXPECTED
    assert reported.count > 30
    scene.output.write_text("")
    return reported.count


EXPECTED = "".join(
    f"{line}\n"
    for line in (
        *(f"{who}.open={support.REDIRECTED}" for who in ("first", "thread", "child", "program")),
        "status=0",
    )
)


@every_kind
@pytest.mark.timeout(180)
def test_a_kill_at_every_stop(
    scene: Scene, after: Callable[[int, Act], _Reported], whole: bool
) -> None:
    stops = _undisturbed(scene, after, whole)
    mains = others = unexecuted = 0
    for n in range(1, stops + 1):
        reported = after(n, _kill)
        run = Run(scene, scene.program("fault_steps"), whole=whole)
        outcome = run.end()
        said = scene.said()
        assert f"denied={support.DENIED}" not in said
        if isinstance(outcome, LaunchError):
            assert said == "", n
            unexecuted += 1
        else:
            assert isinstance(outcome, Outcome), (n, outcome)
            if reported.victim == run.session.pid:
                assert outcome.status == signal.SIGKILL, n
                mains += 1
            elif reported.victim:
                # The child: its parent goes on.
                assert outcome.status == 0, n
                assert f"status={int(signal.SIGKILL)}\n" in said, n
                others += 1
        support.nobody_is_left()
        scene.output.write_text("")
    assert unexecuted > 0
    assert mains > 10
    assert others > 10


@every_kind
@pytest.mark.timeout(180)
def test_a_kill_of_another_process_at_every_stop(
    scene: Scene, after: Callable[[int, Act], _Reported], whole: bool
) -> None:
    stops = _undisturbed(scene, after, whole)
    ends = {0: 0, int(signal.SIGKILL): 0}
    for n in range(1, stops + 1):
        after(n, _kill_another)
        outcome = Run(scene, scene.program("fault_steps"), whole=whole).end()
        assert isinstance(outcome, Outcome), (n, outcome)
        ends[outcome.status] += 1
        assert f"denied={support.DENIED}" not in scene.said()
        support.nobody_is_left()
        scene.output.write_text("")
    assert all(ends.values()), ends


@every_kind
@pytest.mark.timeout(180)
@pytest.mark.parametrize("act", [_stop_and_continue, _signal], ids=["stop", "signal"])
def test_a_signal_at_every_stop(
    scene: Scene, after: Callable[[int, Act], _Reported], whole: bool, act: Act
) -> None:
    """It changes nothing."""
    stops = _undisturbed(scene, after, whole)
    for n in range(1, stops + 1):
        after(n, act)
        outcome = Run(scene, scene.program("fault_steps"), whole=whole).end()
        assert isinstance(outcome, Outcome), (n, outcome)
        assert outcome.status == 0, (n, outcome)
        assert scene.said() == EXPECTED, n
        support.nobody_is_left()
        scene.output.write_text("")
