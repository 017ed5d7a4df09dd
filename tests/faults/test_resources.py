"""The supervisor's own limits sink in the middle of a run: memory, descriptors, time.

It fails closed: calls fail, or the sandbox ends with one line; soon, in either case, and whole.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults import support
from tests.kernel.support import PINFOLD
from tests.programs import build

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.support import Scene

MANY: Final = 300
_GO: Final = "GO"


def _waiting(
    scene: Scene, *command: str | Path, options: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Starts a command that waits for a line, and returns when it does."""
    script = f'echo {_GO}; read line; exec "$@"'
    process = subprocess.Popen(
        [*PINFOLD, *scene.options(), *options, "--", "sh", "-c", script, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{_GO}\n".encode()
    return process


def _size(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, list[str]]:
    with process:
        output, errors = process.communicate(b"\n", support.BOUND)
    said = [line for line in errors.decode().splitlines() if line.startswith("pinfold: ")]
    assert "Traceback" not in errors.decode()
    assert support.DENIED.encode() not in output
    if process.returncode == 125:
        assert len(said) == 1, said
    return process.returncode, output, said


@pytest.mark.parametrize("less", [0, 1 << 20], ids=["no more", "less"])
def test_no_memory_for_many_tasks(scene: Scene, less: int) -> None:
    many = build("many", "-static")
    process = _waiting(scene, many, str(MANY), scene.directory / "open")
    size = _size(process.pid) - less
    resource.prlimit(process.pid, resource.RLIMIT_AS, (size, size))
    status, _, _ = _ended(process)
    assert status in (0, 125)


def test_no_memory_for_large_arguments(scene: Scene) -> None:
    """An arena for them cannot be had: the call fails, and the sandbox lives."""
    code = (
        "import os, sys\n"
        "try: os.execv('/bin/true', ['true'] + ['x' * 100000] * 20)\n"
        "except OSError as error: print(error.strerror)\n"
        "try: print(open(sys.argv[1]).read())\n"
        "except OSError as error: print(error.strerror)\n"
        "print(open(sys.argv[2]).read())\n"
    )
    files = [str(scene.directory / name) for name in ("denied", "open")]
    command = ("/usr/bin/python3", "-I", "-S", "-c", code, *files)
    process = _waiting(scene, *command, options=("--inspect", "all"))
    size = _size(process.pid) + (1 << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (size, size))
    status, output, _ = _ended(process)
    assert status == 0
    assert output.split(b"\n")[:3] == [b"Cannot allocate memory", b"Permission denied", b"B"]


def test_no_descriptors(scene: Scene) -> None:
    """What the supervisor has to look at, it cannot: calls fail, or the sandbox ends."""
    loop = 'for i in 1 2 3 4 5; do "$@"; done; true'
    process = _waiting(scene, "sh", "-c", loop, "sh", *scene.program("fault_steps"))
    count = len(os.listdir(f"/proc/{process.pid}/fd"))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (count, count))
    status, output, _ = _ended(process)
    assert status in (0, 125, 126, 127)
    assert f"denied={support.DENIED}".encode() not in output


def test_no_time(scene: Scene) -> None:
    """SIGXCPU kills the supervisor, which takes the sandbox with it."""
    process = _waiting(scene, *scene.program("fault_load"))
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (1, 2))
    with process:
        output, _ = process.communicate(b"\n", support.BOUND)
    assert process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    assert support.DENIED.encode() not in output
    support.nobody_is_left()
