"""What a program does, however much of it, does not make the supervisor grow.

Each program here goes through two rounds of the same size, with other names in each. The first
fills whatever is kept; the second must not add to it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pinfold.audit.memory import Records
from pinfold.audit.record import Entry
from pinfold.errors import AuditError
from pinfold.policy.handlers.tasks import _SWEPT, _Clock
from pinfold.policy.learning.facts import MOST, ROOM, Fact, Facts
from pinfold.syscalls.table import TABLE
from tests.kernel.support import PATIENCE, PINFOLD, TRAP_ALL, ends, execute, next_line, started
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIB: Final = 1 << 20
_SLACK: Final = 2 * _MIB
_POLICY: Final = """
version = 1
[[rule]]
action = "deny"
path = ["/nonexistent/1-*7", "/nonexistent/2-*8"]
"""


def resident(pid: int) -> int:
    """Returns the bytes of memory of its own, files not counted, that a process has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


def await_round(process: subprocess.Popen[str]) -> None:
    """Waits for the end of a round."""
    while (line := next_line(process.stdout)) != "round":
        assert line == "busy"


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (("run", *TRAP_ALL), (150_000, 2_500, 500, 20)),
        (("run", "--audit", "/dev/null", "--inspect", "all"), (20_000, 200, 200, 50)),
        (("run", "--policy", "POLICY", "--real"), (20_000, 200, 200, 20)),
        (("trace", "-o", "/dev/null"), (20_000, 200, 200, 50)),
        (("learn", "-o", "OUTPUT"), (60_000, 200, 200, 50)),
    ],
    ids=["rules", "audit", "policy", "trace", "learn"],
)
def test_two_rounds_of_everything(
    options: Sequence[str], counts: Sequence[int], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(_POLICY)
    files = {"POLICY": str(policy), "OUTPUT": str(tmp_path / "learned.toml")}
    command = [*PINFOLD[:-1], *(files.get(word, word) for word in options), "--"]
    with started([*command, build("bounded"), *map(str, counts)]) as process:
        await_round(process)
        before = resident(process.pid)
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
        await_round(process)
        after = resident(process.pid)
        process.communicate("x", 10 * PATIENCE)
    assert process.returncode == 0
    assert after - before < before // 10 + _SLACK, (before, after)


def test_children_that_are_killed_at_birth_are_forgotten() -> None:
    # Below a shell: of the task that pinfold has started itself, the kernel tells first.
    script = f"{build('bounded')} killed; true"
    with started(
        [*PINFOLD, *TRAP_ALL, "--", "sh", "-c", script], stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for _ in range(8):
            assert next_line(process.stdout) == "ready"
            # The child's end and its parent's event are both there when the supervisor goes on,
            # and the kernel tells of the younger one first.
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            process.stdin.write("x")
            process.stdin.flush()
            child = os.pidfd_open(int(next_line(process.stdout)))
            signal.pidfd_send_signal(child, signal.SIGKILL)
            assert ends(child)
            os.close(child)
            os.kill(process.pid, signal.SIGCONT)
        assert next_line(process.stdout) == "ready"
        os.kill(process.pid, signal.SIGUSR1)
        assert next_line(process.stderr).endswith("; 3 tasks now")
        process.communicate("q", PATIENCE)
    assert process.returncode == 0


def fill(records: Records, program: bytes) -> None:
    """Adds more records than there is room for."""
    call = TABLE["fchdir"]
    for _ in range(1000):
        records.add(Entry(0.0, 1, 1, program, call, [0] * 6, (), {}, (), "allow", None, None))


def test_records_in_memory_have_a_limit() -> None:
    warned: list[str] = []
    records = Records("stop", warned.append, most=1000)
    with pytest.raises(AuditError, match="1000 bytes"):
        fill(records, b"/bin/true")
    assert 0 < len(records.plain()) < 20
    assert not warned


def test_records_beyond_the_limit_can_be_left_out() -> None:
    warned: list[str] = []
    records = Records("continue", warned.append, most=1000)
    fill(records, b"/bin/\xff")
    found = records.plain()
    assert 0 < len(found) < 20
    assert found[0]["program"] == "/bin/\udcff"
    assert len(warned) == 1


def test_facts_have_a_limit_of_their_size() -> None:
    facts = Facts()
    size = ROOM // 100
    for number in range(200):
        facts.add([Fact("open", "open", b"%d" % number * size)])
    assert len(facts) < 101
    assert facts.full
    many = Facts()
    many.add([Fact("open", "open", b"%d" % number) for number in range(MOST + 1)])
    assert len(many) == MOST
    assert many.full


class _Waiting:
    over = False


class _Step:
    pass


def test_the_clock_forgets_what_is_over_behind_one_that_takes_long() -> None:
    clock = _Clock()
    try:
        kept: list[Any] = [_Waiting(), _Step()]
        clock.add(PATIENCE, *kept)
        for _ in range(20 * _SWEPT):
            clock.add(PATIENCE, _Waiting(), _Step())  # type: ignore[arg-type]
        gc.collect()
        assert len(clock._queue) <= 2 * _SWEPT
        assert clock._queue[0][1]() is kept[0]
    finally:
        clock.close()


DEEP: Final = """
import os, shutil, sys
os.chdir(sys.argv[1])
for _ in range(22):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
shutil.copy("/bin/true", "true")
for _ in range(2):
    child = os.fork()
    if not child:
        os.execv("./true", ["true"])
    print(os.waitpid(child, 0)[1])
"""


def test_a_program_whose_name_is_longer_than_a_path_is_killed(tmp_path: Path) -> None:
    done = execute(
        [
            *PINFOLD,
            "--audit",
            tmp_path / "log",
            "--",
            "/usr/bin/python3",
            "-I",
            "-c",
            DEEP,
            tmp_path,
        ]
    )
    assert done.returncode == 0, done
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 2
