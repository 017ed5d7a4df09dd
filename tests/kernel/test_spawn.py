"""COMMAND's process, killed by somebody before it is COMMAND."""

from __future__ import annotations

import os
import signal

import pytest

from pinfold.errors import LaunchError
from pinfold.launch import filters, spawn
from pinfold.launch.spawn import Command
from pinfold.linux.seccomp import FilterProgram
from tests.kernel.forked import descriptors
from tests.kernel.support import children


class Steps:
    """Kills the process in one of the steps that are called here.

    Args:
        at: Which.
        before: The children that were there before.
    """

    def __init__(self, at: str, before: set[int]) -> None:
        self._at = at
        self._before = before

    def meanwhile(self) -> None:
        self._reached("meanwhile")

    def ready(self, _pid: int) -> None:
        self._reached("ready")

    def taken(self, _listener: int) -> None:
        self._reached("taken")

    def _reached(self, step: str) -> None:
        if step == self._at:
            (pid,) = children() - self._before
            os.kill(pid, signal.SIGKILL)
            # It is gone, and still there to be waited for.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("at", ["meanwhile", "ready", "taken"])
def test_it_is_killed(at: str) -> None:
    before, open_before = children(), descriptors()
    steps = Steps(at, before)
    with (
        open(os.devnull, "r+b", buffering=0) as nothing,
        pytest.raises(LaunchError, match="/bin/true: its process ended before") as told,
    ):
        spawn.launch(
            Command((b"/bin/true",), {}, streams=(nothing.fileno(),) * 3),
            FilterProgram(filters.assembled({})),
            confine=lambda: None,
            ready=steps.ready,
            taken=steps.taken,
            meanwhile=steps.meanwhile,
        )
    assert told.value.exit_code == 125
    assert children() == before
    assert descriptors() == open_before
