"""Verdicts by which a call is not made: another result, a served file, a descriptor, a kill."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from pinfold.errors import LaunchError
from pinfold.policy.calls import (
    ALLOWED,
    INJECT,
    KILL,
    RETURN,
    SERVE,
    Verdict,
    denied,
    redirected,
)
from pinfold.policy.rules import PathRules
from pinfold.syscalls.kinds import Kind
from tests.kernel.judged import PYTHON, Run, only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pinfold.policy.calls import Trapped

OPENS = {name: frozenset[Kind]() for name in ("open", "openat", "openat2", "creat")}
SOCKET = {"socket": frozenset[Kind]()}
WANTED = b"/nonexistent/wanted"


def about(name: bytes, verdict: Verdict) -> Callable[[Trapped], Verdict]:
    """Answers for one path, and allows all others."""
    return lambda call: verdict if name in call.names.get("path", ()) else ALLOWED


def test_served(tmp_path: Path) -> None:
    """The program reads what we say, cannot write it, and sees an ordinary call."""
    script = (
        "import os, fcntl\n"
        f"first = os.open({WANTED!r}, os.O_RDONLY | os.O_CLOEXEC)\n"
        f"second = os.open({WANTED!r}, os.O_RDONLY)\n"
        "print(os.read(first, 3), os.read(second, 100), os.read(first, 100))\n"
        "print(os.get_inheritable(first), fcntl.fcntl(second, fcntl.F_GETFD))\n"
        "print(os.fstat(first).st_size)\n"
        "for write in (lambda: os.write(first, b'x'), lambda: os.ftruncate(first, 0),\n"
        "              lambda: os.write(os.open('/proc/self/fd/%d' % first, os.O_RDWR), b'x')):\n"
        "    try: print('written', write())\n"
        "    except OSError as error: print(error.errno)\n"
    )
    verdict = Verdict(SERVE, "test", value=b"served bytes")
    done = Run((*PYTHON, script), about(WANTED, verdict), calls=OPENS)
    lines = done.out.splitlines()
    assert lines[0] == "b'ser' b'served bytes' b'ved bytes'"
    # Python asks for close-on-exec whatever it is given.
    assert lines[1] == "False 1"
    assert lines[2] == "12"
    assert lines[3] == str(errno.EBADF)
    assert lines[4] == str(errno.EINVAL)
    assert lines[5] in (str(errno.EPERM), str(errno.EACCES))
    assert done.redirected == 2
    assert [one["verdict"] for one in done.records].count("serve") == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (os.O_WRONLY, errno.EACCES),
        (os.O_RDWR, errno.EACCES),
        (os.O_TRUNC, errno.EACCES),
        (os.O_DIRECTORY, errno.ENOTDIR),
    ],
)
def test_served_for_reading_only(flags: int, expected: int) -> None:
    """What asks for more than to read does not get it."""
    script = (
        "import os\n"
        f"try: os.open({WANTED!r}, {flags})\n"
        "except OSError as error: print(error.errno)\n"
    )
    verdict = Verdict(SERVE, "test", value=b"x")
    done = Run((*PYTHON, script), about(WANTED, verdict), calls=OPENS)
    assert done.out == f"{expected}\n"


def test_served_without_close_on_exec() -> None:
    """The flag is the call's own."""
    script = f"cat 5<{WANTED.decode()} <&5; exec 6<{WANTED.decode()}; exec cat <&6"
    verdict = Verdict(SERVE, "test", value=b"for sh\n")
    done = Run(("sh", "-c", script), about(WANTED, verdict), calls=OPENS)
    assert done.out == "for sh\n" * 2


def test_served_elsewhere_than_by_an_open() -> None:
    """A served stat makes no sense, and is a denial."""
    script = f"import os\ntry: os.stat({WANTED!r})\nexcept OSError as error: print(error.errno)"
    verdict = Verdict(SERVE, "test", value=b"x")
    done = Run((*PYTHON, script), about(WANTED, verdict))
    assert done.out == f"{errno.EPERM}\n"


def test_served_to_many_threads() -> None:
    """Each gets a file of its own, while others do the same."""
    script = (
        "import os, threading\n"
        "def work():\n"
        "    for _ in range(50):\n"
        f"        fd = os.open({WANTED!r}, 0)\n"
        "        assert os.read(fd, 100) == b'served'\n"
        "        os.close(fd)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print('ok')\n"
    )
    verdict = Verdict(SERVE, "test", value=b"served")
    done = Run((*PYTHON, script), about(WANTED, verdict), calls=OPENS)
    assert done.out == "ok\n"
    assert done.redirected == 200


def test_injected() -> None:
    """A socket of ours is what the program's ``socket`` returns."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = (
            "import socket\n"
            "one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n"
            "one.sendall(b'hello'); print(one.get_inheritable())\n"
        )
        verdict = Verdict(INJECT, "test", value=theirs.fileno())
        done = Run((*PYTHON, script), only("socket")(lambda _: verdict), calls=SOCKET)
        theirs.close()
        assert done.out == "False\n"
        assert ours.recv(100) == b"hello"
        assert ours.recv(100) == b""
    verdicts = {one["verdict"] for one in done.records if one["syscall"] == "socket"}
    assert verdicts == {"inject"}


def test_injected_descriptor_that_is_not_open() -> None:
    """It fails, as the call would with a bad descriptor."""
    script = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error.errno)"
    verdict = Verdict(INJECT, "test", value=1 << 20)
    done = Run((*PYTHON, script), only("socket")(lambda _: verdict), calls=SOCKET)
    assert done.out == f"{errno.EBADF}\n"


@pytest.mark.parametrize("value", [0, 7, -errno.EXDEV])
def test_returned(value: int) -> None:
    """The call is not made, and returns what we say."""
    script = (
        "import ctypes, os\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "print(c.mkdir(b'/nonexistent/wanted', 0o700), ctypes.get_errno())"
    )
    verdict = Verdict(RETURN, "test", value=value)
    done = Run((*PYTHON, script), about(WANTED, verdict))
    assert done.out == (f"{value} 0\n" if value >= 0 else f"-1 {-value}\n")
    assert not os.path.exists(WANTED)


def test_a_call_that_is_not_in_the_table() -> None:
    """Its registers are all there is of it."""
    script = (
        "import os\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0)); os.setpriority(os.PRIO_PROCESS, 0, 3)\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))"
    )
    seen: list[tuple[int, ...]] = []

    def judge(call: Trapped) -> Verdict:
        seen.append(call.registers[:3])
        return Verdict(RETURN, "test", value=0)

    calls = {"setpriority": frozenset[Kind]()}
    done = Run((*PYTHON, script), only("setpriority")(judge), calls=calls)
    assert seen == [(0, 0, 3)]
    assert done.out == "0\n0\n"
    assert done.records[-1]["syscall"] == "setpriority"


def test_killed() -> None:
    """The process is gone, with all its threads; its parent goes on."""
    script = (
        "import os, threading, time\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"    os.stat({WANTED!r}); print('alive', flush=True)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = Run((*PYTHON, script), about(WANTED, Verdict(KILL, "test")))
    assert done.out == f"{-signal.SIGKILL}\n"
    assert done.denied == 1
    assert done.status == 0


def test_dry_run(tmp_path: Path) -> None:
    """What is denied, mapped, served or killed is only noted; the calls are made as asked."""
    for name in ("denied", "mapped", "served", "killed", "by-policy"):
        (tmp_path / name).write_text(name)
    (tmp_path / "other").write_text("other")
    here = os.fsencode(tmp_path)

    def judge(call: Trapped) -> Verdict:
        answers = {
            here + b"/served": Verdict(SERVE, "test", value=b"no"),
            here + b"/killed": Verdict(KILL, "test"),
            here + b"/by-policy": redirected("test", path=here + b"/other"),
        }
        name = call.names.get("path", (b"",))[0]
        return answers.get(name, ALLOWED)

    names = ["denied", "mapped", "served", "killed", "by-policy"]
    done = Run(
        ("cat", *(str(tmp_path / name) for name in names)),
        judge,
        rules=PathRules([(here + b"/mapped", here + b"/other")], [here + b"/denied"]),
        dry_run=True,
    )
    assert done.out == "".join(names)
    assert done.status == 0
    noted = [(one["verdict"], one["args"]["path"]) for one in done.records if "rule" in one]
    opened = [one for one in noted if one[1].startswith(str(tmp_path))]
    assert opened == [
        ("deny", f"{tmp_path}/denied"),
        ("redirect", f"{tmp_path}/mapped"),
        ("serve", f"{tmp_path}/served"),
        ("kill", f"{tmp_path}/killed"),
        ("redirect", f"{tmp_path}/by-policy"),
    ]


def test_left_alone_unless_logged() -> None:
    """What nobody has looked at stays the program's own, and so is not in the pin."""
    script = (
        "import ctypes, os, sys\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        # A write-only buffer cannot be pinned; the kernel reads it all the same.
        "print(c.syscall(82, b'/nonexistent/a', b'/nonexistent/b'), ctypes.get_errno())"
    )
    left = Verdict(left=frozenset({"old_path"}))
    for logs in (True, False):
        done = Run((*PYTHON, script), only("rename")(lambda _: left), logs=logs)
        assert done.out == f"-1 {errno.ENOENT}\n"


@pytest.mark.parametrize("user_space", ["sh", "python"])
def test_results(user_space: str) -> None:
    """Each judged call has a result, in the order in which they end."""
    results: list[tuple[str, str, int | None]] = []
    commands = {
        "sh": ("sh", "-c", "cat /nonexistent/x; true | cat; exec /bin/true"),
        "python": (*PYTHON, "import os; os.path.exists('/nonexistent/x'); os._exit(0)"),
    }
    done = Run(
        commands[user_space],
        lambda _: ALLOWED,
        results=lambda entry, value: results.append(
            (entry.row.name, os.fsdecode(entry.paths[0].asked) if entry.paths else "", value)
        ),
    )
    assert len(results) == done.outcome.trapped == len(done.records)
    missing = [one for one in results if one[1] == "/nonexistent/x"]
    assert {value for _, _, value in missing} == {-errno.ENOENT}
    executed = [value for name, _, value in results if name == "execve"]
    assert 0 in executed
    assert all(value is not None for _, _, value in results)
    opened = [value for name, _, value in results if name == "openat"]
    assert any(value is not None and value >= 3 for value in opened)


def test_results_of_answers() -> None:
    """What is not made has the result that it was given."""
    results: dict[str, int | None] = {}
    script = (
        "import os\n"
        "for call in (os.stat, os.rmdir, os.mkdir):\n"
        "    try: call('/nonexistent/wanted')\n"
        "    except OSError: pass\n"
        "os.kill(os.getpid(), 9)\n"
    )
    answers = {"rmdir": denied("test", errno.EXDEV), "mkdir": Verdict(RETURN, "test", value=5)}
    Run(
        (*PYTHON, script),
        lambda call: answers.get(call.row.name, ALLOWED),
        results=lambda entry, value: results.__setitem__(entry.row.name, value),
    )
    assert results["rmdir"] == -errno.EXDEV
    assert results["mkdir"] == 5


def test_a_call_that_never_comes_back(tmp_path: Path) -> None:
    """Its result is None."""
    os.mkfifo(tmp_path / "fifo")
    results: list[int | None] = []
    script = (
        "import os, threading\n"
        f"threading.Thread(target=os.open, args=('{tmp_path}/fifo', 0), daemon=True).start()\n"
        f"while not os.path.exists('/proc/self/task'): pass\n"
        "import time; time.sleep(0.2); os._exit(3)"
    )
    done = Run(
        (*PYTHON, script),
        lambda _: ALLOWED,
        results=lambda entry, value: (
            results.append(value) if entry.paths and b"fifo" in entry.paths[0].asked else None
        ),
    )
    assert results == [None]
    assert done.status == 3


def test_a_hard_link_is_recognised(tmp_path: Path) -> None:
    """With real names, a denied file is denied under every name that it has."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "plain").write_text("plain")
    os.link(tmp_path / "secret", tmp_path / "hard")
    os.symlink("hard", tmp_path / "soft")
    os.link(tmp_path / "plain", tmp_path / "plain-too")
    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for name in ('secret', 'hard', 'soft', './soft', 'plain', 'plain-too'):\n"
        "    try: print(open(name).read())\n"
        "    except OSError as error: print(error.errno)\n"
        "try: os.link('hard', 'more')\n"
        "except OSError as error: print(error.errno)\n"
    )
    rules = PathRules([], [os.fsencode(tmp_path / "secret")])
    done = Run((*PYTHON, script, str(tmp_path)), lambda _: ALLOWED, rules=rules, real=True)
    refused = str(errno.EACCES)
    assert done.out.split() == [refused] * 4 + ["plain"] * 2 + [refused]


@pytest.mark.parametrize("way", ["fexecve", "proc", "memfd"])
def test_an_exec_by_descriptor_is_judged(way: str) -> None:
    """What a descriptor is open on is what is executed, and what is judged."""
    script = (
        "import ctypes, os, sys\n"
        "fd = os.open('/bin/true', os.O_PATH)\n"
        "if sys.argv[1] == 'memfd':\n"
        "    fd = os.memfd_create('mine', 0)\n"
        "    os.sendfile(fd, os.open('/bin/true', 0), 0, 1 << 20)\n"
        "try:\n"
        "    if sys.argv[1] == 'proc': os.execv('/proc/self/fd/%d' % fd, ['x'])\n"
        "    os.execve(fd, ['x'], {})\n"
        "except OSError as error: print(error.errno)\n"
    )
    true = os.fsencode(os.path.realpath("/bin/true"))
    seen: list[bytes] = []

    def judge(call: Trapped) -> Verdict:
        names = call.names.get("path", ())
        seen.extend(names)
        bad = any(name == true or name.startswith(b"/memfd:mine") for name in names)
        return denied("test", errno.EPERM) if bad else ALLOWED

    calls = {name: frozenset({Kind.STRINGS}) for name in ("execve", "execveat")}
    done = Run((*PYTHON, script, way), only(*calls)(judge), calls=calls, real=True)
    assert done.out == f"{errno.EPERM}\n", seen


def test_an_exec_by_descriptor_beside_a_thread() -> None:
    """Another thread could exchange the descriptor."""
    script = (
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "fd = os.open('/bin/true', os.O_PATH)\n"
        "try: os.execve(fd, ['x'], {})\n"
        "except OSError as error: print(error.errno, flush=True)\n"
        "os._exit(0)"
    )
    calls = {name: frozenset[Kind]() for name in ("execve", "execveat")}
    done = Run((*PYTHON, script), lambda _: ALLOWED, calls=calls)
    assert done.out == f"{errno.EACCES}\n"


def test_an_open_file_is_judged_by_its_name(tmp_path: Path) -> None:
    """``fchmod`` and its like name a file, too; a pipe has no name to judge."""
    (tmp_path / "file").touch(0o600)
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "os.fchmod(fd, 0o640)\n"
        "try: os.ftruncate(fd, 100)\n"
        "except OSError as error: print(error.errno)\n"
        "os.fchmod(os.pipe()[0], 0o600)\n"
    )
    name = os.fsencode(tmp_path / "file")

    def judge(call: Trapped) -> Verdict:
        named = call.names.get("fd") == (name,)
        return denied("test", errno.EPERM) if call.row.group == "truncate" and named else ALLOWED

    calls = {name: frozenset[Kind]() for name in ("fchmod", "ftruncate")}
    done = Run((*PYTHON, script, str(tmp_path / "file")), judge, calls=calls)
    assert done.out == f"{errno.EPERM}\n"
    found = (tmp_path / "file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o640, 0)


@pytest.mark.parametrize("way", ["fchmod", "empty", "null"])
def test_every_form_about_an_open_file(tmp_path: Path, way: str) -> None:
    """An empty path with a descriptor is no way around a rule, and NULL is none."""
    (tmp_path / "file").touch(0o600)
    script = (
        "import ctypes, os, sys\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "calls = {'fchmod': (91, fd, 0o640), 'empty': (452, fd, b'', 0o640, 0x1000),\n"
        "         'null': (280, fd, None, None, 0)}\n"
        "print(c.syscall(*calls[sys.argv[2]]), ctypes.get_errno())\n"
    )
    name = os.fsencode(tmp_path / "file")
    calls = {name: frozenset[Kind]() for name in ("fchmod", "fchmodat2", "utimensat")}

    def judge(call: Trapped) -> Verdict:
        return denied("test", errno.EPERM) if (name,) in call.names.values() else ALLOWED

    done = Run((*PYTHON, script, str(tmp_path / "file"), way), only(*calls)(judge), calls=calls)
    assert done.out == f"-1 {errno.EPERM}\n"


THREADED = (
    "import os, sys, threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "def attempt(call):\n"
    "    try: return call()\n"
    "    except OSError as error: return error.errno\n"
)


def test_a_pipe_beside_a_thread() -> None:
    """It has no name that could be pinned, and is opened all the same: that very pipe."""
    script = THREADED + (
        "reader, writer = os.pipe()\n"
        "again = os.open('/dev/fd/%d' % writer, os.O_WRONLY)\n"
        "os.write(again, b'x'); print(os.read(reader, 9), os.get_blocking(again))\n"
        "print(os.get_inheritable(again), os.path.samestat(os.fstat(again), os.fstat(writer)))\n"
        "print(attempt(lambda: os.open('/dev/fd/%d' % reader, os.O_RDONLY | os.O_NONBLOCK)) > 2)\n"
        "sys.stdout.flush(); os._exit(0)"
    )
    done = Run((*PYTHON, script), lambda _: ALLOWED, real=True)
    assert done.out == "b'x' True\nFalse True\nTrue\n"


def test_what_has_no_name_beside_a_thread(tmp_path: Path) -> None:
    """A memory file, or one that was removed, is not opened again, nor changed by its link."""
    script = THREADED + (
        "memory = os.memfd_create('x')\n"
        "gone = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); os.unlink(sys.argv[1])\n"
        "for fd in (memory, gone):\n"
        "    name = '/proc/self/fd/%d' % fd\n"
        "    print(attempt(lambda: os.open(name, os.O_RDWR)), attempt(lambda: os.chmod(name, 0)))\n"
        "    print(os.stat(name).st_size)\n"
        "sys.stdout.flush(); os._exit(0)"
    )
    done = Run((*PYTHON, script, str(tmp_path / "x")), lambda _: ALLOWED, real=True)
    assert done.out == f"{errno.EACCES} {errno.EACCES}\n0\n" * 2


def test_the_interpreter_of_a_script_is_denied(tmp_path: Path) -> None:
    """With real names, by ``--deny`` as well: the process is killed before it begins."""
    script = tmp_path / "script"
    script.write_text("#!/bin/cat\nshown\n")
    script.chmod(0o755)
    cat = os.fsencode(os.path.realpath("/bin/cat"))
    command = ("sh", "-c", f"{script}; echo $?")
    for dry in (False, True):
        done = Run(command, lambda _: ALLOWED, rules=PathRules([], [cat]), real=True, dry_run=dry)
        assert done.out.endswith("0\n" if dry else f"{128 + signal.SIGKILL}\n")
        assert ("shown" in done.out) == dry
        (record,) = [one for one in done.records if one["verdict"] == "kill"]
        assert record["args"]["path"] == os.fsdecode(cat)
        assert record.get("dry_run", False) == dry


@pytest.mark.parametrize("family", ["inet", "inet6", "mapped"])
def test_nowhere_in_particular_is_the_machine_itself(family: str) -> None:
    """The address that was judged is the one that is connected to, whatever the socket has."""
    hosts = {"inet": "0.0.0.0", "inet6": "::", "mapped": "::ffff:0.0.0.0"}
    script = (
        "import socket, sys\n"
        "kind = socket.AF_INET if ':' not in sys.argv[1] else socket.AF_INET6\n"
        "one = socket.socket(kind, socket.SOCK_DGRAM)\n"
        "one.connect((sys.argv[1], 9)); print(one.getpeername()[0])\n"
    )
    found = {"inet": "127.0.0.1", "inet6": "::1", "mapped": "::ffff:127.0.0.1"}
    done = Run((*PYTHON, script, hosts[family]), lambda _: ALLOWED)
    assert done.out == f"{found[family]}\n"


def test_command_itself_is_judged() -> None:
    """A policy that denies COMMAND says so."""
    with pytest.raises(LaunchError, match=r"rule: no exec") as raised:
        Run(("/bin/true",), only("execve")(lambda _: denied("no exec")))
    assert raised.value.exit_code == 126


def test_nothing_is_left_open() -> None:
    """Served files and injected descriptors are not kept here."""
    before = len(os.listdir("/proc/self/fd"))
    script = f"for n in 1 2 3; do cat {WANTED.decode()}; done"
    with contextlib.ExitStack():
        Run(("sh", "-c", script), about(WANTED, Verdict(SERVE, "test", value=b"x")), calls=OPENS)
    assert len(os.listdir("/proc/self/fd")) == before
