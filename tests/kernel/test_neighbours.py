"""Other tasks' limits and scheduling: a sandbox's own may be set, nobody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.policy.calls import ALLOWED, denied
from tests.kernel.judged import Run, only
from tests.kernel.support import TRAP_ALL, pinfold

if TYPE_CHECKING:
    from pinfold.policy.calls import Trapped, Verdict
    from tests.kernel.support import User

ISOLATED: Final = ("/usr/bin/python3", "-I", "-c")

ON_A_TASK: Final = """
import ctypes, errno, os, resource, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
attributes = struct.pack("=IIQiIQQQ", 48, 3, 0, 1, 0, 0, 0, 0)
param = struct.pack("=i", 0)
room = ctypes.create_string_buffer(16)
mask = struct.pack("=Q", 1 << min(os.sched_getaffinity(0)))
def on(tid):
    limit = struct.pack("=qq", *resource.prlimit(0, resource.RLIMIT_CORE))
    return {
        "prlimit64": call(302, tid, resource.RLIMIT_CORE, limit, None),
        "prlimit64 asks": call(302, tid, resource.RLIMIT_CORE, None, room),
        "sched_setaffinity": call(203, tid, 8, mask),
        "sched_setparam": call(142, tid, param),
        "sched_setscheduler": call(144, tid, 3, param),
        "sched_setattr": call(314, tid, attributes, 0),
        "setpriority": call(141, 0, tid, 1),
        "ioprio_set": call(251, 1, tid, 2 << 13 | 7),
    }
"""
"""Calls about a task, named as nobody's libc names it; each answer is an errno's name or ``ok``."""

CALLS: Final = (
    *("prlimit64", "prlimit64 asks", "sched_setaffinity", "sched_setparam"),
    *("sched_setscheduler", "sched_setattr", "setpriority", "ioprio_set"),
)
GRANTED: Final = dict.fromkeys(CALLS, "ok")
REFUSED: Final = {**dict.fromkeys(GRANTED, "EPERM"), "prlimit64 asks": "ok"}
NOBODY_THERE: Final = dict.fromkeys(GRANTED, "ESRCH")

OWN: Final = """
import threading
print(on(0)); print(on(os.getpid()))
ready, done = threading.Event(), threading.Event()
def work():
    global tid
    tid = threading.get_native_id(); ready.set(); done.wait()
thread = threading.Thread(target=work); thread.start(); ready.wait()
print(on(tid)); done.set(); thread.join()
told, tell = os.pipe()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild:
        os.write(tell, b"%d\\n" % grandchild); os.waitpid(grandchild, 0)
    else:
        os.setsid(); os.close(writer); os.read(reader, 1)
    os._exit(0)
grandchild = int(os.read(told, 20))
print(on(child)); print(on(grandchild))
os.write(writer, b"x"); os.waitpid(child, 0)
print(on(child))
"""
"""Oneself, by both names; a thread; a child; a grandchild in another session; one that ended."""


def answers(text: str) -> list[dict[str, str]]:
    """Returns the answers that a program has printed."""
    return [eval(line, {}) for line in text.splitlines()]  # our own program wrote it


@pytest.mark.parametrize("rules", [(), TRAP_ALL, ("--inspect", "all")], ids=" ".join)
def test_tasks_of_the_sandbox(someone: User, rules: tuple[str, ...]) -> None:
    """Whatever it names of its own it may change, as without a sandbox."""
    script = ON_A_TASK + OWN
    free = someone.bare(*ISOLATED, script)
    assert answers(free.stdout) == [GRANTED] * 5 + [NOBODY_THERE], free.stderr
    done = someone.pinfold(*rules, "--", *ISOLATED, script)
    assert done.returncode == 0, done.stderr
    assert answers(done.stdout) == answers(free.stdout)


@pytest.mark.parametrize("rules", [(), TRAP_ALL, ("--inspect", "all")], ids=" ".join)
def test_the_supervisor(someone: User, rules: tuple[str, ...]) -> None:
    """Neither the supervisor's process nor any of its threads."""
    script = ON_A_TASK + (
        "parent = os.getppid()\n"
        "threads = [int(one) for one in os.listdir(f'/proc/{parent}/task')]\n"
        "assert len(threads) > 1\n"
        "for tid in threads: print(on(tid))\n"
    )
    done = someone.pinfold(*rules, "--", *ISOLATED, script)
    assert done.returncode == 0, done.stderr
    found = answers(done.stdout)
    assert found
    assert found == [REFUSED] * len(found)


def test_it_is_the_sandbox_that_refuses(someone: User) -> None:
    """Without it, a process of the same user may be changed."""
    done = someone.bare(
        *ISOLATED,
        ON_A_TASK + "child = os.fork()\n"
        "if child == 0: print(on(os.getppid())); raise SystemExit\n"
        "os.waitpid(child, 0)\n",
    )
    assert answers(done.stdout) == [GRANTED], done.stderr


def test_another_sandbox(someone: User) -> None:
    """Of the same user, at the same time."""
    inner = "import os; print(os.getpid(), flush=True); os.read(0, 1)"
    host = (
        "import subprocess, sys\n"
        "box = [sys.executable, '-m', 'pinfold', 'run', '--']\n"
        "other = subprocess.Popen([*box, *sys.argv[1:4], sys.argv[4]],\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "pid = other.stdout.readline().strip()\n"
        "done = subprocess.run([*box, *sys.argv[1:4], sys.argv[5] + f'print(on({pid}))'],\n"
        "    stdout=subprocess.PIPE, text=True)\n"
        "other.communicate('x')\n"
        "print(done.stdout, end='')\n"
    )
    done = someone.python("-c", host, *ISOLATED, inner, ON_A_TASK)
    assert answers(done.stdout) == [REFUSED], done.stderr


def test_an_id_is_a_c_int(someone: User) -> None:
    """What the kernel does not look at is no way around, and what is negative is nobody."""
    script = ON_A_TASK + (
        "print(on(os.getppid() | 1 << 32)); print(on(os.getpid() | 1 << 40))\n"
        "print(call(302, -1, 4, room, None), call(141, 0, -1, 1))\n"
    )
    done = someone.pinfold("--", *ISOLATED, script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert answers("\n".join(lines[:2])) == [REFUSED, GRANTED]
    assert lines[2] == "ESRCH ESRCH"


def test_groups_and_users(someone: User) -> None:
    """These would be about the supervisor, too: refused whole, and asking is not."""
    script = ON_A_TASK + (
        "print(call(141, 1, 0, 1), call(141, 2, 0, 1), call(251, 2, 0, 1), call(251, 3, 0, 1))\n"
        "print(call(140, 1, 0), call(140, 2, os.getuid()), call(252, 2, 0))\n"
    )
    done = someone.pinfold("--", *ISOLATED, script)
    assert done.stdout == "EPERM EPERM EPERM EPERM\nok ok ok\n", done.stderr


def test_a_pid_namespace(someone: User) -> None:
    """Whoever lives in one can name nobody outside, whatever number the supervisor has outside."""
    script = ON_A_TASK + (
        "flags = 0x10000000 | 0x20000000\n"  # CLONE_NEWUSER, CLONE_NEWPID
        "assert call(272, flags) == 'ok', 'no namespaces here'\n"
        "outside = os.getppid()\n"
        "first = os.fork()\n"
        "if first == 0:\n"
        "    assert os.getpid() == 1\n"
        "    child = os.fork()\n"
        "    if child == 0: os.read(reader, 1); os._exit(0)\n"
        "    print(on(child), flush=True); print(on(outside), flush=True)\n"
        "    os.kill(child, 9); os.wait(); os._exit(0)\n"
        "os.waitpid(first, 0)\n"
    ).replace("first = os.fork()", "reader, _ = os.pipe()\nfirst = os.fork()", 1)
    done = someone.pinfold("--", *ISOLATED, script)
    assert answers(done.stdout) == [GRANTED, NOBODY_THERE], done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "taskset -p 1 $child",
        "renice -n 3 -p $child",
        "prlimit --pid $child --nofile=10",
        "chrt -b -p 0 $child",
        "ionice -c 3 -p $child",
        "nice -n 2 true",
        "taskset 1 true",
        "chrt -b 0 true",
        "ionice -c 3 true",
        "prlimit --nofile=10 true",
    ],
)
def test_real_programs(command: str) -> None:
    """The usual tools, about a child and about themselves."""
    done = pinfold(
        "--", "sh", "-c", f"sleep 60 & child=$!; {command}; status=$?; kill $child; exit $status"
    )
    assert done.returncode == 0, done.stderr


def test_a_policy_is_asked_as_well() -> None:
    """A policy sees every form; what it allows is still refused for whoever is outside."""
    seen: list[int] = []

    def judge(call: Trapped) -> Verdict:
        seen.append(call.registers[0])
        return denied("test") if call.registers[1] == 7 else ALLOWED

    script = ON_A_TASK + (
        "print(call(302, 0, 4, room, None), call(302, os.getppid(), 4, room, None))\n"
        "print(call(302, 0, 7, None, room))\n"
    )
    done = Run(
        (*ISOLATED, script), only("prlimit64")(judge), calls={"prlimit64": frozenset()}, logs=False
    )
    assert done.out == "ok EPERM\nEACCES\n"
    assert os.getpid() not in seen
