"""What only one of the two forms of the trace back end has to get right, asked of both."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.sandbox import PIPE, Sandbox
from pinfold.syscalls.numbers import X86_64 as NR
from tests.kernel import support
from tests.kernel.support import PATIENCE, TRAP_ALL, execute, next_line, pinfold, state_of
from tests.programs import build, values

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("form")

FREEZER: Final = Path("/sys/fs/cgroup/freezer")
CYCLES: Final = 20


@pytest.mark.parametrize("how", ["seccomp", "tsync", "prctl"])
def test_a_filter_that_looks_where_calls_are_made(how: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    command: list[str | Path] = [build("own_filter"), how, file]
    bare = execute(command)
    assert values(bare.stdout)["after"] == "0"
    assert values(bare.stdout)["refused"] == "1"
    done = pinfold(*TRAP_ALL, "--", *command)
    assert done.stderr == ""
    assert done.stdout == bare.stdout
    assert done.returncode == bare.returncode == 0


def test_a_signal_that_nobody_puts_anything_back_for() -> None:
    # The control of all tests that find no pin's address in a frame: they would see one.
    command = support.changed("TraceBackend.put_back = lambda self, task: None")
    done = execute([*command, *TRAP_ALL, "--", build("storm"), "5000", "4000"])
    found = values(done.stdout)
    assert int(found["bad_frames"]) > 0


@pytest.fixture
def frozen_group() -> Iterator[Path]:
    group = FREEZER / f"pinfold-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group to freeze tasks with: {error}")
    yield group
    with contextlib.suppress(FileNotFoundError):
        (group / "freezer.state").write_text("THAWED")
    group.rmdir()


def _reaches(file: Path, word: str) -> None:
    end = time.monotonic() + PATIENCE
    while file.read_text().strip() != word:
        assert time.monotonic() < end, file


def _sleeps(pid: int) -> int:
    # How often it has gone to sleep of itself.
    fields = Path(f"/proc/{pid}/status").read_text().partition("\nvoluntary_ctxt_switches:")[2]
    return int(fields.split()[0])


def _blocked(pid: int, after: int) -> None:
    # Until the task sleeps in an open, and has slept often enough for it not to be the one before:
    # in the stop of its trapped call it sleeps (state t), and in the call (state S).
    end = time.monotonic() + PATIENCE
    call = str(NR["openat"])
    while (
        _sleeps(pid) < after
        or state_of(pid) != "S"
        or Path(f"/proc/{pid}/syscall").read_text().split()[0] != call
    ):
        assert time.monotonic() < end


def test_a_call_that_is_made_again_without_any_stop(tmp_path: Path, frozen_group: Path) -> None:
    # A task that was frozen in a call makes it again, and its tracer hears nothing of it before.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    log = tmp_path / "log"
    box = Sandbox(deny=["/nonexistent-pinfold"], audit=log)
    with box.popen([str(build("restart_fifo")), str(fifo)], stdout=PIPE, text=True) as process:
        pid = int(next_line(process.stdout).removeprefix("pid="))
        state = frozen_group / "freezer.state"
        _blocked(pid, 0)
        (frozen_group / "cgroup.procs").write_text(str(pid))
        for _ in range(CYCLES):
            state.write_text("FROZEN")
            _reaches(state, "FROZEN")
            before = _sleeps(pid)
            state.write_text("THAWED")
            _blocked(pid, before + 2)
        with open(fifo, "wb"):
            out, _ = process.communicate()
        assert process.returncode == 0
    assert values(out) == {"result": "opened", "registers": "ok"}
    assert log.read_bytes().count(os.fsencode(fifo)) > CYCLES
