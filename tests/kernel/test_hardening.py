"""What the supervisor's own process keeps, and what it has given up, while COMMAND runs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from pinfold.errors import LaunchError
from pinfold.launch import restrict
from pinfold.launch.spawn import Command
from pinfold.linux import libc
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import prctl as prctl_abi
from tests.kernel.support import PATIENCE, PINFOLD, TRAP_ALL, execute, in_fork, next_line, started

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.kernel.support import User

LEARN: Final = (*PINFOLD[:-1], "learn")
TRACE: Final = (*PINFOLD[:-1], "trace")
COMMANDS: Final = {
    "run": PINFOLD,
    "rules": (*PINFOLD, *TRAP_ALL),
    "trace": (*TRACE, "-o", "/dev/null"),
    "learn": LEARN,
}
each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
WAITING: Final = "echo up >&2; read line"


def await_up(process: subprocess.Popen[str]) -> None:
    """Waits for COMMAND, whatever pinfold itself has to say before."""
    while next_line(process.stderr) != "up":
        continue


# Descriptors.


@each_command
def test_a_pipe_that_the_command_has_closed_has_ended(command: Sequence[str]) -> None:
    reader, writer = os.pipe()
    try:
        script = f"exec {writer}>&-; {WAITING}"
        with started(
            [*command, "--", "bash", "-c", script], pass_fds=[writer], stderr=subprocess.PIPE
        ) as process:
            os.close(writer)
            writer = -1
            await_up(process)
            assert select.select([reader], [], [], PATIENCE)[0]
            assert os.read(reader, 1) == b""
            assert process.poll() is None
            process.communicate("", PATIENCE)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


@each_command
def test_the_command_inherits_what_is_open(command: Sequence[str]) -> None:
    reader, writer = os.pipe()
    try:
        done = execute([*command, "--", "bash", "-c", f"echo there >&{writer}"], pass_fds=[writer])
        assert done.returncode == 0
        assert os.read(reader, 64) == b"there\n"
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.skipif(os.geteuid() != 0, reason="the process is closed to everybody but root")
def test_nothing_inherited_is_left_open() -> None:
    reader, writer = os.pipe()
    try:
        pipe = os.readlink(f"/proc/self/fd/{writer}")
        with started(
            [*PINFOLD, *TRAP_ALL, "--", "sh", "-c", WAITING],
            pass_fds=[writer],
            stderr=subprocess.PIPE,
        ) as process:
            await_up(process)
            found = {os.readlink(one) for one in Path(f"/proc/{process.pid}/fd").iterdir()}
            assert pipe not in found
            process.communicate("", PATIENCE)
    finally:
        os.close(reader)
        os.close(writer)


def test_every_run_of_learn_inherits(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        options = ("--runs", "3", "-o", tmp_path / "policy.toml")
        done = execute(
            [*LEARN, *options, "--", "bash", "-c", f"echo there >&{writer}"], pass_fds=[writer]
        )
        assert done.returncode == 0, done.stderr
        assert os.read(reader, 64) == b"there\n" * 3
    finally:
        os.close(reader)
        os.close(writer)


def test_learn_replaces_nothing_but_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = execute([*LEARN, "-o", tmp_path / "pipe", "--", "touch", tmp_path / "made"])
    assert done.returncode == 125
    assert "no regular file" in done.stderr
    assert not (tmp_path / "made").exists()


def test_learn_writes_to_a_descriptor_that_it_has_closed(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('version = 1\n[defaults]\nopen = "deny"\n')
    with open(tmp_path / "policy.toml") as file:
        output = f"/proc/self/fd/{file.fileno()}"
        done = execute([*LEARN, "-o", output, "--", "true"], pass_fds=[file.fileno()])
    assert done.returncode == 0, done.stderr
    assert "[[rule]]" in (tmp_path / "policy.toml").read_text()


def test_an_inherited_descriptor_as_a_log() -> None:
    reader, writer = os.pipe()
    try:
        done = execute([*PINFOLD, "--audit", f"/dev/fd/{writer}", "--", "true"], pass_fds=[writer])
        os.close(writer)
        writer = -1
        with open(reader, "rb", closefd=False) as log:
            lines = log.read().splitlines()
        assert done.returncode == 0
        assert lines[-1].startswith(b'{"type":"end"')
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


# The filter.


def filters(status: str) -> tuple[int, int, int]:
    """Returns the mode, the number of filters and no_new_privs that ``/proc/PID/status`` shows."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["Seccomp"]), int(fields["Seccomp_filters"]), int(fields["NoNewPrivs"])


def own() -> tuple[int, int, int]:
    """Returns the same of this process."""
    return filters(Path("/proc/self/status").read_text())


@each_command
def test_every_thread_is_under_the_filter(command: Sequence[str]) -> None:
    _, before, _ = own()
    with started(
        [*command, "--", "sh", "-c", WAITING], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        await_up(process)
        tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        assert len(tasks) > 1
        for task in tasks:
            assert filters((task / "status").read_text()) == (2, before + 1, 1)
        process.communicate("", PATIENCE)
        assert process.returncode == 1


def test_it_is_there_before_the_first_instruction(someone: User) -> None:
    _, before, _ = own()
    done = someone.pinfold("--", "grep", "-h", "Seccomp_filters:", "/proc/self/status")
    mine = int(done.stdout.split()[1])
    # Nobody reads another process faster than a program that does nothing else.
    done = someone.pinfold("--", "sh", "-c", "exec grep -h Seccomp_filters: /proc/$PPID/status")
    assert (mine, int(done.stdout.split()[1])) == (before + 1, before + 1)


def test_the_last_run_of_learn_is_restricted(tmp_path: Path) -> None:
    _, before, _ = own()
    seen = tmp_path / "seen"
    script = f"grep Seccomp_filters: /proc/$PPID/status >> {seen}"
    done = execute(
        [*LEARN, "--runs", "2", "-o", tmp_path / "policy.toml", "--", "sh", "-c", script]
    )
    assert done.returncode == 0, done.stderr
    counts = [int(line.split()[1]) for line in seen.read_text().splitlines()]
    assert counts == [before, before + 1]


def test_a_process_that_uses_the_library_is_left_alone() -> None:
    before = own()
    box = pinfold.Sandbox(deny=["/nonexistent"])
    with box.popen(["sh", "-c", WAITING], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stderr is not None
        assert job.stderr.readline() == b"up\n"
        assert own() == before
        job.communicate(b"\n")
    assert own() == before


def test_what_fails_then_ends_the_run(tmp_path: Path) -> None:
    def refuse() -> None:
        raise LaunchError("cannot restrict pinfold itself", 125)

    made = tmp_path / "made"
    session = Session(
        Command((b"touch", os.fsencode(made)), dict(os.environb)),
        PathRules([], []),
        Limits(),
        on_launched=refuse,
    )
    session.start()
    with pytest.raises(LaunchError, match="restrict"):
        session.result()
    assert not made.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(session.pid, 0)


PROGRAM: Final = restrict.prepare()


def end_of(body: Callable[[], object]) -> int:
    """Returns the exit code of a process that restricts itself and does something."""
    child = os.fork()
    if child == 0:
        status = 70
        with contextlib.suppress(BaseException):
            os.setsid()
            # A call that gets through is made with arguments that no call takes.
            restrict.restrict(PROGRAM)
            result = body()
            status = result if isinstance(result, int) else 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def failure(name: str, *args: int) -> int:
    """Returns the errno that a system call fails with, 0 for none."""
    try:
        libc.syscall(name, NR[name], *args)
    except OSError as error:
        return error.errno or -1
    return 0


def test_each_refused_call_ends_the_process() -> None:
    survived = [
        name
        for name in restrict.KILLED
        if end_of(partial(failure, name, *[-1] * 6)) != -signal.SIGSYS
    ]
    assert survived == []
    assert len(set(restrict.KILLED)) == len(restrict.KILLED)


@pytest.mark.parametrize(("name", "number"), restrict.ANSWERED.items())
def test_what_libraries_try_is_answered(name: str, number: int) -> None:
    assert end_of(lambda: failure(name, -1, -1, -1)) == number


@pytest.mark.parametrize(
    "request_",
    [
        *(0, 4, 5, 16, 31),  # TRACEME, POKETEXT, POKEDATA, ATTACH, SYSEMU
        *(0x4200, 0x4206, 0x4207, 0x420C),  # SETOPTIONS, SEIZE, INTERRUPT, SECCOMP_GET_FILTER
        (1 << 32) + 16,
    ],
)
def test_no_further_process_can_be_traced(request_: int) -> None:
    assert end_of(lambda: failure("ptrace", request_, -1)) == -signal.SIGSYS


@pytest.mark.parametrize("request_", restrict.REQUESTS)
def test_what_is_asked_of_tracees_is_not_refused(request_: int) -> None:
    assert end_of(lambda: failure("ptrace", request_, os.getpid())) == errno.ESRCH


@pytest.mark.parametrize("bit", range(64))
def test_a_clone_into_a_namespace_ends_the_process(bit: int) -> None:
    spaces = (
        *(prctl_abi.CLONE_NEWNS, prctl_abi.CLONE_NEWCGROUP, prctl_abi.CLONE_NEWUTS),
        *(prctl_abi.CLONE_NEWIPC, prctl_abi.CLONE_NEWUSER, prctl_abi.CLONE_NEWPID),
        prctl_abi.CLONE_NEWNET,
    )
    # CLONE_THREAD without CLONE_SIGHAND and CLONE_VM is EINVAL, so that nothing is ever made.
    ended = end_of(lambda: failure("clone", prctl_abi.CLONE_THREAD | 1 << bit))
    assert (ended == -signal.SIGSYS) == (1 << bit in spaces)


@pytest.mark.parametrize("option", [prctl_abi.PR_SET_MM, prctl_abi.PR_SET_PTRACER])
def test_options_that_end_the_process(option: int) -> None:
    assert end_of(lambda: failure("prctl", option, -1, -1, -1, -1)) == -signal.SIGSYS


def test_calls_of_another_kind_end_the_process() -> None:
    # getpid of x32
    assert end_of(lambda: libc.syscall("getpid", 0x40000000 | NR["getpid"])) == -signal.SIGSYS


def test_a_thread_that_was_there_before_is_restricted() -> None:
    def body() -> None:
        go, asked = threading.Event(), threading.Event()

        def other() -> None:
            asked.set()
            go.wait()
            failure("unshare", -1)

        thread = threading.Thread(target=other)
        thread.start()
        asked.wait()
        restrict.restrict(PROGRAM)
        go.set()
        thread.join()

    with pytest.raises(AssertionError):
        in_fork(body, 30)


def test_what_a_supervisor_needs_still_works(tmp_path: Path) -> None:
    def body() -> None:
        thread = threading.Thread(target=lambda: (tmp_path / "made").write_text("x"))
        thread.start()
        thread.join()
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        os.replace(tmp_path / "made", tmp_path / "renamed")
        os.unlink(tmp_path / "renamed")
        for name in ("zoneinfo", "plistlib"):
            __import__(name)

    assert end_of(body) == 0


# The way in.

_PEEK: Final = """
import os, sys
from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR

def reached(pid):
    found = []
    for name in ("mem", "environ", "maps", "fd/0", "exe"):
        try:
            path = f"/proc/{pid}/{name}"
            os.readlink(path) if name in ("fd/0", "exe") else open(path, "rb").read(0)
            found.append(name)
        except PermissionError:
            pass
    pidfd = os.pidfd_open(pid)
    try:
        os.close(libc.syscall("pidfd_getfd", NR["pidfd_getfd"], pidfd, 0))
        found.append("pidfd_getfd")
    except PermissionError:
        pass
    os.close(pidfd)
    return found
"""
"""What somebody else of the same user gets at of a process."""

_CLI: Final = (
    _PEEK
    + """
import subprocess
command = [sys.executable, "-m", "pinfold", "run", *sys.argv[1:]]
command += ["--", "sh", "-c", "echo up; read x"]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
    job.stdout.readline()
    print(reached(job.pid))
    job.communicate(b"x")
"""
)

_API: Final = (
    _PEEK
    + """
import asyncio, glob, subprocess, threading
import pinfold
ask, asked = os.pipe()
tell, told = os.pipe()
parent = os.getpid()
peeker = os.fork()
if peeker == 0:
    os.close(asked)
    while command := os.read(ask, 16):
        others = []
        for name in glob.glob(f"/proc/{parent}/task/*/children"):
            others += map(int, open(name).read().split())
        others = set(others) - {os.getpid(), int(command)}
        os.write(told, repr([reached(parent), *map(reached, others)]).encode() + b"\\n")
    os._exit(0)
def peek(command):
    os.write(asked, b"%d" % command)
    print(os.read(tell, 4096).decode().strip())
policy = pinfold.Policy()
called, go = threading.Event(), threading.Event()
@policy.on("open", path="/nonexistent/asked")
async def handler(call):
    called.set()
    await asyncio.to_thread(go.wait)
    return pinfold.deny()
peek(0)
with pinfold.Sandbox(policy=policy).popen(["cat", "/nonexistent/asked"]) as job:
    called.wait()
    peek(job.pid)
    go.set()
peek(0)
os.close(asked)
os.waitpid(peeker, 0)
"""
)

_EVERYTHING: Final = ["mem", "environ", "maps", "fd/0", "exe", "pidfd_getfd"]


def test_nobody_gets_at_the_command_line_tools_process(unprivileged: User) -> None:
    for options in ((), TRAP_ALL):
        done = unprivileged.python("-c", _CLI, *options)
        assert done.stdout.splitlines()[0] == "[]", done


def test_nobody_gets_at_a_process_while_it_supervises(unprivileged: User) -> None:
    done = unprivileged.python("-c", _API)
    before, during, after = map(json.loads, done.stdout.replace("'", '"').splitlines())
    # The second one is the bell, which wakes the supervisor for a verdict.
    assert during == [[], []], done
    # Not for a reason of another kind.
    assert before == after == [_EVERYTHING]
