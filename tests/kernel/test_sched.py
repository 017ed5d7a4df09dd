"""``linux.sched`` against the kernel."""

from __future__ import annotations

import os
import threading

import pytest

from pinfold.linux import sched
from tests.kernel.support import NOBODY, in_fork


def test_affinity() -> None:
    """As the standard library has it; and what is allowed is no less."""
    usual = sched.affinity(0)
    assert usual == os.sched_getaffinity(0)
    assert usual == sched.affinity(threading.get_native_id())
    assert usual <= sched.allowed(threading.get_native_id())
    assert sched.current_cpu() in usual


def test_setting() -> None:
    """One processor, and all again, by what was allowed."""

    def body() -> None:
        home = sched.allowed(os.getpid())
        usual = sched.affinity(0)
        sched.set_affinity(0, {max(usual)})
        assert sched.affinity(os.getpid()) == {max(usual)}
        assert sched.current_cpu() == max(usual)
        assert sched.allowed(os.getpid()) == {max(usual)}
        sched.set_affinity(os.getpid(), home)
        assert sched.affinity(0) == usual
        assert sched.allowed(os.getpid()) == home

    in_fork(body, 30)


def test_nobody() -> None:
    """Of a task that is gone there is nothing to know or to set."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for call in (sched.affinity, sched.allowed, lambda tid: sched.set_affinity(tid, {0})):
        with pytest.raises(ProcessLookupError):
            call(child)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", {0}), ("0-3", {0, 1, 2, 3}), ("0-1,5,7-8", {0, 1, 5, 7, 8}), ("", set())],
)
def test_lists(text: str, cpus: set[int]) -> None:
    """As ``proc_pid_status(5)`` has them."""
    assert sched.cpu_list(text) == cpus


def test_turns() -> None:
    """A shorter turn is granted or not; what the thread starts does not inherit it."""

    def body() -> None:
        if os.geteuid() == 0:
            os.setuid(NOBODY)  # it takes no privilege
        before = sched.time_slice(0)
        granted = sched.set_time_slice(0, 200_000)
        assert sched.time_slice(0) == (200_000 if granted else before)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(sched.time_slice(0)))
        thread.start()
        thread.join()
        assert seen == [before]

    in_fork(body, 30)


def test_turns_of_other_classes() -> None:
    """They are left alone, and so is whoever would lose its priority with what it starts."""

    def body() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        assert not sched.set_time_slice(0, 200_000)
        assert os.sched_getscheduler(0) == os.SCHED_IDLE

    in_fork(body, 30)
