"""``pinfold run`` on the native back end: what programs see, what rules do, and that nobody traces.

All of this is done by real programs on the real kernel; without the two requests it is skipped, see
``tests.kernel.native``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import bpf
from pinfold.launch import filters
from pinfold.linux import libc, seccomp
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from pinfold.uapi.seccomp import SECCOMP_RET_KILL_PROCESS
from tests.kernel.judged import PYTHON
from tests.kernel.native import NATIVE, native, require
from tests.kernel.support import (
    PATIENCE,
    TRAP_ALL,
    alive,
    comm,
    descendants,
    ends,
    execute,
    next_line,
    pinfold,
    started,
    user,
)
from tests.programs import build, values

if TYPE_CHECKING:
    from pathlib import Path

require()

TRACERS: Final = (
    "import glob\n"
    "for name in glob.glob('/proc/[0-9]*/task/[0-9]*/status'):\n"
    "    try: lines = open(name).readlines()\n"
    "    except OSError: continue\n"
    "    print([line.split()[1] for line in lines if line.startswith('TracerPid')][0])\n"
)
"""Prints who traces each task that there is."""


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done
    return done.stdout


WAITS: Final = "import os, signal; print(os.getpid(), flush=True); signal.pause()"

# Nobody traces.


def test_it_is_taken_by_itself() -> None:
    done = execute([sys.executable, "-m", "pinfold", "doctor", "--json"])
    assert json.loads(told(done))["backend"] == "native"
    assert set(told(pinfold(*TRAP_ALL, "--", *PYTHON, TRACERS)).split()) == {"0"}


def test_what_takes_a_tracer_is_traced(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[limits]\ntasks = 10\n")
    for options in (("--real", *TRAP_ALL), ("--policy", str(policy)), ("--inspect", "all")):
        assert len(set(told(pinfold(*options, "--", *PYTHON, TRACERS)).split())) > 1


@pytest.mark.parametrize("options", [("--real",), ("--policy",)])
def test_what_takes_a_tracer_is_refused(options: tuple[str, ...], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[limits]\ntasks = 10\n")
    given = [*options, *([str(policy)] if options == ("--policy",) else TRAP_ALL)]
    done = native(*given, "--", "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert "the native back end cannot be used: " in done.stderr


def _no_ptrace() -> None:
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    kill = [bpf.Case((), SECCOMP_RET_KILL_PROCESS)]
    seccomp.FilterProgram(filters.assembled({X86_64["ptrace"]: kill})).install()


def test_not_one_ptrace_is_made() -> None:
    # A filter around the supervisor, which it cannot lift.
    script = "cat /etc/hostname | wc -c; ls / >/dev/null; (true); exit 3"
    done = native(*TRAP_ALL, "--", "sh", "-c", script, preexec_fn=_no_ptrace)
    assert done.returncode == 3, done
    traced = execute(
        [sys.executable, "-m", "pinfold", "run", "--backend", "trace", "--", "true"],
        preexec_fn=_no_ptrace,
    )
    assert traced.returncode == -signal.SIGSYS


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_strace_works_inside(tmp_path: Path) -> None:
    log = tmp_path / "strace"
    command = ("strace", "-f", "-o", log, "sh", "-c", "cat /etc/hostname; exit 4")
    done = native("--deny", "/etc/shadow", "--", *command)
    assert done.returncode == 4, done
    text = log.read_text()
    assert '"/etc/hostname"' in text
    assert "exited with 4" in text


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_strace_sees_no_pin(tmp_path: Path) -> None:
    # The addresses that it prints without decoding are the program's own.
    log = tmp_path / "strace"
    program = build("regs_after")
    bare = execute([program])
    done = native(*TRAP_ALL, "--", "strace", "-o", log, "-e", "raw=all", program)
    assert values(done.stdout) == values(bare.stdout)
    maps = [line for line in log.read_text().splitlines() if "0x551" in line or "0x552" in line]
    assert maps == []


@pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb")
def test_gdb_works_inside() -> None:
    words = ("-q", "-batch", "-ex", "catch syscall openat", "-ex", "run", "-ex", "p 6*7")
    done = native(*TRAP_ALL, "--", "gdb", *words, "--args", "/bin/cat", "/etc/hostname")
    assert "Catchpoint 1 (call to syscall openat)" in told(done)
    assert "$1 = 42" in done.stdout


def test_it_takes_no_right() -> None:
    # For a user who is not root, in a directory of that user's own.
    with user("nobody") as someone:
        someone.file("here", "what is here")
        secret = someone.file("secret")
        script = (
            "import os; print(os.getresuid() != (0, 0, 0) or 'root'); print(open('here').read());"
            "import subprocess; print(subprocess.run(['cat', 'secret']).returncode)\n" + TRACERS
        )
        program = someone.file("program.py", script)
        options = ("--backend", "native", "--deny", secret, *TRAP_ALL)
        done = someone.pinfold(*options, "--", *PYTHON[:1], program)
    seen = told(done).splitlines()
    assert seen[:3] == ["True", "what is here", "1"]
    assert set(seen[3:]) == {"0"}
    assert "secret: Permission denied" in done.stderr


def test_nobody_becomes_our_tracee() -> None:
    script = (
        "import ctypes, os, threading\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def ask():\n"
        "    print(libc.ptrace(0, 0, 0, 0), ctypes.get_errno())\n"
        "ask()\n"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(libc.ptrace(0, 0, 0, 0) & 0xff)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert told(native("--", *PYTHON, script)).split() == ["-1", "1", "-1", "1", "0"]


# Programs.

PIPELINE: Final = (
    "for i in 1 2 3; do echo $i; done | sort -r | head -2 | tr '\\n' ' '; seq 500 | wc -l"
)
MAKEFILE: Final = "all: $(shell seq 40)\n%:\n\t@cat /etc/hostname >/dev/null; echo $@ >out-$@\n"


def test_a_pipeline() -> None:
    assert told(native(*TRAP_ALL, "--", "sh", "-c", PIPELINE)) == "3 2 500\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    done = native(*TRAP_ALL, "--", "make", "-j4", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done
    assert len(list(tmp_path.glob("out-[0-9]*"))) == 40


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git(tmp_path: Path) -> None:
    script = (
        "git init -q . && echo a >a && git add a &&"
        " git -c user.name=n -c user.email=e commit -qm m && git status --short &&"
        " git log --format=%s"
    )
    env = {**os.environ, "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    done = native(*TRAP_ALL, "--", "sh", "-c", script, cwd=tmp_path, env=env, timeout=300)
    assert told(done) == "m\n"


def test_find_over_a_tree(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"d{number}" / "e").mkdir(parents=True)
        (tmp_path / f"d{number}" / "e" / "file").touch()
    done = native(*TRAP_ALL, "--", "find", tmp_path, "-name", "file")
    assert len(told(done).splitlines()) == 50


def test_threads_and_processes() -> None:
    script = (
        "import os, subprocess, threading\n"
        "found = []\n"
        "def work(n):\n"
        "    for i in range(30):\n"
        "        with open('/etc/hostname') as f: f.read()\n"
        "        os.stat(f'/proc/self/task/{threading.get_native_id()}')\n"
        "    found.append(subprocess.run(['cat', '/etc/hostname'], stdout=-1).stdout)\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(len(found), len(set(found)))\n"
    )
    assert told(native(*TRAP_ALL, "--", *PYTHON, script, timeout=300)) == "8 1\n"


def test_more_threads_than_an_arena_has_slots() -> None:
    # Each of them keeps a slot; those of threads that are gone are used again.
    script = (
        "import os, threading\n"
        "for _ in range(4):\n"
        "    barrier = threading.Barrier(151)\n"
        "    def work():\n"
        "        assert os.stat('/etc/hostname').st_size\n"
        "        barrier.wait(); barrier.wait()\n"
        "        assert os.stat('/etc/hostname').st_size\n"
        "    threads = [threading.Thread(target=work) for _ in range(150)]\n"
        "    for t in threads: t.start()\n"
        "    barrier.wait(); barrier.wait()\n"
        "    for t in threads: t.join()\n"
        "print('done')\n"
    )
    assert told(native(*TRAP_ALL, "--", *PYTHON, script, timeout=300)) == "done\n"


def test_calls_that_wait_keep_their_arguments(tmp_path: Path) -> None:
    # Many threads wait in the open of a FIFO while others make calls: no slot is written meanwhile.
    for number in range(20):
        os.mkfifo(tmp_path / f"fifo{number}")
    script = (
        "import os, sys, threading\n"
        "top = sys.argv[1]\n"
        "found = {}\n"
        "def wait(n):\n"
        "    fd = os.open(f'{top}/fifo{n}', os.O_RDONLY)\n"
        "    found[n] = os.readlink(f'/proc/self/fd/{fd}')\n"
        "threads = [threading.Thread(target=wait, args=(n,)) for n in range(20)]\n"
        "for t in threads: t.start()\n"
        "for n in range(2000): os.path.exists(f'/nonexistent/{n}')\n"
        "for n in range(20): os.open(f'{top}/fifo{n}', os.O_WRONLY)\n"
        "for t in threads: t.join()\n"
        "print(all(found[n] == f'{top}/fifo{n}' for n in range(20)))\n"
    )
    done = native(*TRAP_ALL, "--", *PYTHON, script, str(tmp_path), timeout=300)
    assert told(done) == "True\n"


def test_signals_find_calls_as_they_are() -> None:
    # Each one is sent when the handler of the last one is done, whatever the machine's pace is.
    script = (
        "import os, signal, sys\n"
        "count = 0\n"
        "reader, writer = os.pipe()\n"
        "def handle(*_):\n"
        "    global count\n"
        "    count += 1\n"
        "    os.stat('/etc')\n"
        "    os.write(writer, b'x')\n"
        "signal.signal(signal.SIGUSR1, handle)\n"
        # Not even a call that nobody has received yet fails with EINTR; see docs/native.md.
        "signal.siginterrupt(signal.SIGUSR1, True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    for _ in range(200):\n"
        "        os.kill(os.getppid(), signal.SIGUSR1)\n"
        "        os.read(reader, 1)\n"
        "    os._exit(0)\n"
        "while count < 200: assert os.stat('/etc/hostname').st_size\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    assert told(native(*TRAP_ALL, "--", *PYTHON, script, timeout=300)) == "0\n"


@pytest.mark.parametrize("name", ["vfork_exec", "exec_from_thread", "threads64", "regs_after"])
def test_programs_see_what_they_see_without_a_sandbox(name: str) -> None:
    program = build(name)
    bare = execute([program])
    done = native(*TRAP_ALL, "--", program)
    assert (done.returncode, values(done.stdout)) == (bare.returncode, values(bare.stdout))


# Rules.


def test_a_map_and_a_denial(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("there")
    (tmp_path / "secret").write_text("secret")
    rules = ("--map", f"{tmp_path}/here={tmp_path}/there", "--deny", f"{tmp_path}/secret")
    script = f"cat {tmp_path}/here; cd {tmp_path}; cat here; cat ./../{tmp_path.name}/secret"
    done = native(*rules, "--", "sh", "-c", script)
    assert done.stdout == "therethere"
    assert "Permission denied" in done.stderr
    assert done.returncode == 1


def test_relative_paths_of_processes_that_share_a_directory(tmp_path: Path) -> None:
    # CLONE_FS without a thread: the directory can be exchanged while a path is judged.
    (tmp_path / "secret").write_text("secret")
    script = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "os.chdir(sys.argv[1])\n"
        "child = libc.syscall(56, 0x200 | 17, 0, 0, 0, 0)\n"
        "if child == 0:\n"
        "    os.chdir('/')\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(os.getcwd())\n"
        "try: open(sys.argv[1][1:] + '/secret'); print('opened')\n"
        "except PermissionError: print('denied')\n"
        "print(len(os.listdir('etc')) > 0)\n"
    )
    done = native("--deny", f"{tmp_path}/secret", "--", *PYTHON, script, str(tmp_path))
    assert told(done).split() == ["/", "denied", "True"]


def test_the_audit_log_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rules = ("--deny", "/etc/shadow", "--audit", log)
    done = native(*rules, "--", "sh", "-c", "cat /etc/shadow; cat /etc/hostname >/dev/null")
    assert done.returncode == 0, done
    verified = execute([sys.executable, "-m", "pinfold", "audit", "verify", log])
    assert verified.returncode == 0, verified
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    denied = [one for one in lines if one.get("verdict") == "deny"]
    assert [one["errno"] for one in denied] == ["EACCES"]
    assert {one["exe"].rpartition("/")[2] for one in denied if "exe" in one} <= {"cat", "coreutils"}


def test_resource_limits_hold_from_the_first_instruction(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[limits]\nfiles = 37\ncpu = 50\n")
    script = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CPU))"
    done = native("--policy", policy, "--", *PYTHON, script)
    assert told(done) == "(37, 37) (50, 51)\n"


def test_a_command_that_is_looked_for(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[limits]\nmemory = 314572800\n")
    env = {**os.environ, "PATH": f"/nonexistent:{tmp_path}:/usr/bin:/bin"}
    done = native("--policy", policy, "--", "sh", "-c", "ulimit -v", env=env)
    assert told(done) == f"{300 << 10}\n"
    done = native("--policy", policy, "--", "nonexistent", env=env)
    assert done.returncode == 127


# The end.


def test_the_end_of_command_is_the_end_of_all() -> None:
    script = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
        "os.wait()\n"
        "input()\n"
    )
    with started([*NATIVE, *TRAP_ALL, "--", *PYTHON, script]) as run:
        stray = os.pidfd_open(int(next_line(run.stdout)))
        try:
            assert run.stdin is not None
            run.stdin.close()
            assert run.wait(PATIENCE) == 1
            assert ends(stray, 0)
        finally:
            os.close(stray)


@pytest.mark.parametrize("waits", ["in a call", "for itself"])
def test_a_killed_supervisor_leaves_nothing(waits: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    last = f"open({str(fifo)!r})" if waits == "in a call" else "signal.pause()"
    script = (
        "import os, signal\n"
        "if os.fork() == 0: os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        f"{last}\n"
    )
    with started([*NATIVE, *TRAP_ALL, "--", *PYTHON, script]) as run:
        pids = [int(next_line(run.stdout)), int(next_line(run.stdout))]
        processes = [os.pidfd_open(pid) for pid in pids]
        try:
            run.kill()
            assert all(ends(process) for process in processes)
        finally:
            for process in processes:
                os.close(process)
    assert not any(map(alive, pids))


def test_a_killed_command_whose_tracer_does_not_wait() -> None:
    # A tracer inside holds back the news of its end from whoever started it.
    script = (
        "import ctypes, os, signal\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "if os.fork() == 0:\n"
        "    assert libc.ptrace(0x4206, os.getppid(), 0, 0) == 0\n"
        "    print(os.getppid(), flush=True)\n"
        "    signal.pause()\n"
        "signal.pause()\n"
    )
    with started([*NATIVE, *TRAP_ALL, "--", *PYTHON, script]) as run:
        command = int(next_line(run.stdout))
        os.kill(command, signal.SIGKILL)
        assert run.wait(PATIENCE) == 128 + signal.SIGKILL


def test_a_killed_keeper_ends_the_run() -> None:
    with started([*NATIVE, *TRAP_ALL, "--", *PYTHON, WAITS], stderr=subprocess.PIPE) as run:
        command = os.pidfd_open(int(next_line(run.stdout)))
        try:
            for pid in descendants(run.pid):
                if comm(pid) == "pinfold-keeper":
                    os.kill(pid, signal.SIGKILL)
            assert run.wait(PATIENCE) == 125
            assert ends(command)
        finally:
            os.close(command)
        assert run.stderr is not None
        assert "keeper has ended" in run.stderr.read()


def test_job_control_stops_are_told() -> None:
    from pinfold.launch.spawn import Command
    from pinfold.policy.rules import PathRules
    from pinfold.session import Limits, Session

    stops: list[int] = []

    def stopped(number: int) -> None:
        stops.append(number)
        session.signal(signal.SIGCONT)

    session = Session(
        Command((b"/bin/sh", b"-c", b"kill -STOP $$; exit 5"), {}),
        PathRules([], []),
        Limits(),
        backend="native",
        on_stop=stopped,
    )
    session.start()
    assert os.waitstatus_to_exitcode(session.result().status) == 5
    assert stops == [signal.SIGSTOP]


def test_the_interpreter_of_a_script_is_judged(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'version = 1\n[[rule]]\non = "exec"\npath = "/usr/bin/env"\naction = "deny"\n'
    )
    (tmp_path / "script").write_text("#!/usr/bin/env echo\n")
    (tmp_path / "script").chmod(0o755)
    other = tmp_path / "other"
    other.write_text(f"#!{tmp_path}/script\n")
    other.chmod(0o755)
    for name in ("script", "other"):
        done = native("--policy", policy, "--", "sh", "-c", f"./{name}; echo end", cwd=tmp_path)
        assert told(done) == "end\n"
        assert "Permission denied" in done.stderr
        assert "are judged before the exec" in done.stderr
    assert execute(["sh", "-c", "./other"], cwd=tmp_path).stdout
