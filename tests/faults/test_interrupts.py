"""Signals rain on the supervisor while it works: every call that it waits in is interrupted.

Their handlers are installed without SA_RESTART, as Python's are, so that the kernel ends what can
be ended with EINTR. A run goes as it does without them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import Policy, run
from pinfold.life import Outcome
from tests.conformance import support as conformance
from tests.faults import support
from tests.faults.support import Run, Scene
from tests.faults.test_stops import EXPECTED
from tests.kernel.support import PINFOLD, TRAP_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS: Final = (signal.SIGUSR1, signal.SIGALRM, signal.SIGWINCH)
RUNS: Final = 15
_RAIN: Final = """
import os, sys
pid = int(sys.argv[1])
numbers = [int(number) for number in sys.argv[2:]]
count = 0
try:
    while os.getppid() == {parent}:
        with open(f"/proc/{{pid}}/comm") as file:
            file.read()
        for task in os.listdir(f"/proc/{{pid}}/task"):
            for number in numbers:
                libc.syscall(234, pid, int(task), number)
        count += 1
except (FileNotFoundError, ProcessLookupError):
    pass
"""


@contextlib.contextmanager
def handled() -> Iterator[list[int]]:
    """Has the signals handled in its block; gives a list of those that came."""
    got: list[int] = []
    before = {number: signal.signal(number, lambda one, _: got.append(one)) for number in NUMBERS}
    try:
        yield got
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def rain(pid: int) -> Iterator[None]:
    """Has another process send signals to every thread of a process, without pause."""
    code = "import ctypes\nlibc = ctypes.CDLL(None)\n" + _RAIN.format(parent=os.getpid())
    cloud = subprocess.Popen(
        [sys.executable, "-c", code, str(pid), *(str(int(number)) for number in NUMBERS)]
    )
    try:
        yield
    finally:
        cloud.kill()
        cloud.wait()


@pytest.mark.parametrize("whole", [False, True], ids=["paths", "everything"])
def test_a_run_in_a_host_process(scene: Scene, whole: bool) -> None:
    with handled() as got, rain(os.getpid()):
        support.until(lambda: bool(got))
        for _ in range(RUNS):
            outcome = Run(scene, scene.program("fault_steps"), whole=whole).end()
            assert isinstance(outcome, Outcome), outcome
            assert outcome.status == 0
            assert scene.said() == EXPECTED
            scene.output.write_text("")
    assert len(got) > RUNS


def test_the_command_line(scene: Scene) -> None:
    """What comes is passed on to COMMAND, which ignores it."""
    script = "trap '' USR1 ALRM WINCH; echo ready; read line; for i in 1 2 3 4 5 6 7 8; do"
    script += ' /bin/cat "$0"; done'
    path = scene.directory / "open"
    with subprocess.Popen(
        [*PINFOLD, *TRAP_ALL, "--audit", scene.directory / "log", "--", "sh", "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"ready\n"
        with rain(command.pid):
            output, _ = command.communicate(b"\n", support.BOUND)
    assert command.returncode == 0
    assert output == b"A" * 8
    assert support.chain_problems(scene.directory / "log") == []


def test_a_served_file(scene: Scene) -> None:
    """Each delivery of a descriptor waits for the task: none is lost, and none claimed."""
    policy = Policy()
    policy.on("open", path=scene.directory / "denied")(lambda call: call.serve("served\n"))
    script = 'i=0; while [ $i -lt 200 ]; do read line < "$0"; echo "$line"; i=$((i+1)); done'
    with handled(), rain(os.getpid()):
        done = run(
            ["sh", "-c", script, scene.directory / "denied"],
            policy=policy,
            capture_output=True,
            timeout=support.BOUND,
        )
    assert done.stdout == b"served\n" * 200


def test_an_answer_by_descriptor() -> None:
    """``add_fd`` with ``send``: the task gets the descriptor, or the caller an error."""
    count = 300
    words = conformance.script(*(f"open:n{number}" for number in range(count)))
    with (
        handled(),
        open(os.devnull, "rb") as null,
        conformance.target("interrupt", words) as target,
        rain(os.getpid()),
    ):
        for _ in range(count):
            call = target.receive()
            target.listener.add_fd(call.id, null.fileno(), send=True)
        seen = target.finish()
    assert {seen[f"n{number}.rdev"] for number in range(count)} == {conformance.NULL}
