"""Limits of a whole sandbox: how many tasks it has at one time, how long it takes."""

from __future__ import annotations

import os
import signal

import pytest

from pinfold.policy.calls import ALLOWED, denied
from pinfold.policy.model import Limits
from tests.kernel.judged import PYTHON, Run, only


def test_as_many_as_there_may_be() -> None:
    """The main process and three children; the next one gets EAGAIN, until one has ended."""
    script = (
        "import os, time\n"
        "def child():\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.read(reader, 1); os._exit(0)\n"
        "    return pid\n"
        "reader, writer = os.pipe()\n"
        "children = [child() for _ in range(3)]\n"
        "try: child()\n"
        "except BlockingIOError as error: print(error.errno)\n"
        "os.write(writer, b'x'); os.wait()\n"
        "children.append(child()); print('again')\n"
        "os.write(writer, b'xxx')\n"
        "for _ in range(3): os.wait()\n"
    )
    done = Run((*PYTHON, script), lambda _: ALLOWED, bounds=Limits(tasks=4))
    assert done.out == "11\nagain\n"
    assert done.outcome.most == 4
    assert done.status == 0


def test_threads_count() -> None:
    """A thread is a task."""
    script = (
        "import threading\n"
        "done = threading.Event()\n"
        "started = 0\n"
        "try:\n"
        "    for _ in range(50):\n"
        "        threading.Thread(target=done.wait, daemon=True).start(); started += 1\n"
        "except RuntimeError: print(started)\n"
        "done.set()\n"
    )
    done = Run((*PYTHON, script), lambda _: ALLOWED, bounds=Limits(tasks=10))
    assert done.out == "9\n"


def test_a_fork_bomb() -> None:
    """It does not get beyond the limit, and the run ends when its main process does."""
    script = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    while True:\n"
        "        try: os.fork()\n"
        "        except BlockingIOError: pass\n"
        "for _ in range(20): os.stat('/'); time.sleep(0.02)\n"
    )
    done = Run((*PYTHON, script), lambda _: ALLOWED, calls={}, logs=False, bounds=Limits(tasks=20))
    assert done.status == 0
    # Those that have ended and were not waited for count as well.
    assert 10 < done.outcome.most <= 20


@pytest.mark.parametrize("command", ["sh -c 'true | cat | wc -c; (exit 3)'"])
def test_real_programs_within_the_limit(command: str) -> None:
    """Pipelines, vfork and clone go on as usual."""
    done = Run(("sh", "-c", command), lambda _: ALLOWED, bounds=Limits(tasks=8))
    assert done.out.strip() == "0"
    assert done.status == 3


def test_a_failed_clone_is_not_counted() -> None:
    """What the kernel refuses leaves its place to the next one."""
    script = (
        "import ctypes, os\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        # CLONE_SIGHAND without CLONE_VM is EINVAL.
        "for _ in range(20): assert c.syscall(56, 0x800, 0, 0, 0, 0) == -1\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0)\n"
        "print(os.wait()[0] == pid)\n"
    )
    done = Run((*PYTHON, script), lambda _: ALLOWED, bounds=Limits(tasks=2))
    assert done.out == "True\n"


def test_rules_about_making_tasks() -> None:
    """A policy can judge these calls, with a limit and without."""
    script = "import os\ntry: os.fork()\nexcept OSError as error: print(error.errno)"
    calls = {name: frozenset() for name in ("clone", "fork", "vfork")}  # type: ignore[var-annotated]
    for bounds in (Limits(), Limits(tasks=5)):
        done = Run(
            (*PYTHON, script),
            only("clone", "fork")(lambda _: denied("no")),
            calls=calls,
            bounds=bounds,
        )
        assert done.out == "13\n"
        done = Run(
            ("sh", "-c", "true; (exit 3)"),
            lambda _: ALLOWED,
            calls=calls,
            bounds=bounds,
            results=lambda _entry, _value: None,
        )
        assert done.status == 3


def test_time_is_up() -> None:
    """The run is killed, and says why."""
    done = Run(("sleep", "60"), lambda _: ALLOWED, bounds=Limits(seconds=0.3))
    assert done.outcome.timed_out
    assert done.status == -signal.SIGKILL


def test_in_time() -> None:
    """A run that ends before is not touched, and leaves no timer."""
    done = Run(("true",), lambda _: ALLOWED, bounds=Limits(seconds=60.0))
    assert not done.outcome.timed_out
    assert os.WEXITSTATUS(done.outcome.status) == 0
