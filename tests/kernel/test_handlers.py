"""Handlers in Python, asked about the calls of real programs."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import pinfold
from pinfold import Call, Policy, Verdict
from pinfold.policy.model import Action, PolicyModel
from tests.kernel.support import PATIENCE
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.support import User

PYTHON = ("/usr/bin/python3", "-I", "-c")
TRY = """
import errno, os, sys
for path in sys.argv[1:]:
    try:
        fd = os.open(path, os.O_RDONLY)
        print(os.read(fd, 100).decode())
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
"""Shows what is in files, or why they cannot be opened."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, end - time.monotonic()))
    assert set(threading.enumerate()) <= before


def run(policy: Policy, *command: str | Path, **options: Any) -> pinfold.CompletedRun:
    options.setdefault("timeout", PATIENCE)
    return pinfold.run(
        [os.fspath(one) for one in command],
        policy=policy,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )


def shown(policy: Policy, *paths: str | Path, **options: Any) -> list[str]:
    """Returns what a program finds in files under a policy."""
    done = run(policy, *PYTHON, TRY, *paths, **options)
    assert done.returncode == 0, done.stderr
    lines: list[str] = done.stdout.splitlines()
    return lines


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("one", "two", "secret"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture(params=["plain", "async"])
def wrap(request: pytest.FixtureRequest) -> Callable[[Callable[[Call], Any]], Callable[..., Any]]:
    """Makes a handler a coroutine, or leaves it as it is."""

    def wrapped(function: Callable[[Call], Any]) -> Callable[..., Any]:
        if request.param == "plain":
            return function

        async def handler(call: Call) -> Any:
            await asyncio.sleep(0)
            return function(call)

        return handler

    return wrapped


def test_files(files: Path, wrap: Any) -> None:
    policy = Policy()
    secret = os.open(files / "secret", os.O_RDONLY)
    answers: dict[str, Callable[[Call], Verdict]] = {
        "allow": lambda call: call.allow(),
        "deny": lambda call: call.deny(errno.ENOENT),
        "redirect": lambda call: call.redirect(path=files / "two"),
        "late": lambda _: pinfold.redirect(path=files / "two"),
        "serve": lambda call: call.serve(f"served for {call.access}"),
        "inject": lambda call: call.inject(secret),
        "return": lambda call: call.returns(-errno.EXDEV),
    }
    for name in answers:
        (files / name).write_text(f"own {name}")
    policy.on("open", path=files)(wrap(lambda call: answers[os.path.basename(call.path)](call)))
    assert shown(policy, *(files / name for name in answers)) == [
        "own allow",
        "ENOENT",
        "two",
        "two",
        "served for frozenset({'read'})",
        "secret",
        "EXDEV",
    ]
    os.close(secret)


def test_kill(files: Path, wrap: Any) -> None:
    policy = Policy()
    policy.on("open", path=files / "one")(wrap(lambda call: call.kill()))
    done = run(policy, *PYTHON, TRY, files / "two", files / "one", files / "two")
    assert done.returncode == -9
    assert shown(policy, files / "two") == ["two"]


def test_programs(wrap: Any) -> None:
    policy = Policy()
    seen: list[list[str]] = []

    def handler(call: Call) -> Verdict | None:
        if call.argv[:1] != ["marked"]:
            return None
        seen.append(call.argv)
        return call.redirect(
            path="/usr/bin/env",
            argv=["env"],
            env={"KEPT": call.env["KEPT"], "ADDED": "caf\udce9"},
        )

    policy.on("exec", program="/usr/bin/python3*")(wrap(handler))
    script = "import os; os.execve('/bin/sh', ['marked', b'\\xff'], {'KEPT': '1', 'GONE': '2'})"
    done = run(policy, *PYTHON, script, errors="surrogateescape")
    assert sorted(done.stdout.splitlines()) == ["ADDED=caf\udce9", "KEPT=1"]
    assert seen == [["marked", "\udcff"]]


def test_addresses(wrap: Any) -> None:
    policy = Policy()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seen: list[tuple[Any, ...]] = []

        def handler(call: Call) -> Verdict | None:
            seen.append((call.family, call.host, call.port))
            if call.port == 1:
                return call.redirect(address=f"127.0.0.1:{port}")
            return call.deny("ENETDOWN") if call.family == "inet" else None

        policy.on("connect")(wrap(handler))
        script = (
            "import socket\n"
            "for port in 1, 2:\n"
            "    s = socket.socket()\n"
            "    print(s.connect_ex(('10.1.2.3', port)), s.getpeername()[0] if port == 1 else '')\n"
        )
        done = run(policy, *PYTHON, script)
        server.settimeout(PATIENCE)
        server.accept()[0].close()
    assert done.stdout.split() == ["0", "127.0.0.1", str(errno.ENETDOWN)]
    assert seen == [("inet", "10.1.2.3", 1), ("inet", "10.1.2.3", 2)]


def test_calls_without_pointers(wrap: Any) -> None:
    policy = Policy()
    policy.on("getppid")(wrap(lambda call: call.returns(4242)))
    policy.on("fchmod")(wrap(lambda call: call.deny("EROFS") if call.mode & 0o4000 else None))
    script = (
        "import os, tempfile\n"
        "print(os.getppid())\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    os.fchmod(file.fileno(), 0o600)\n"
        "    try: os.fchmod(file.fileno(), 0o4600)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    assert run(policy, *PYTHON, script).stdout.split() == ["4242", str(errno.EROFS)]


def test_a_failing_handler_denies_and_the_run_goes_on(
    files: Path, wrap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy()
    answers: dict[str, Callable[[Call], Any]] = {
        "one": lambda call: call.argv,
        "two": lambda _: "allow",
        "secret": lambda _: sys.exit(3),
    }
    policy.on("open", path=files)(wrap(lambda call: answers[os.path.basename(call.path)](call)))
    with caplog.at_level(logging.ERROR, "pinfold"):
        paths = [files / name for name in ("one", "two", "secret")]
        done = run(policy, *PYTHON, TRY, *paths, "/etc/hostname", audit=True)
    assert done.stdout.splitlines()[:3] == ["EPERM"] * 3
    assert done.returncode == 0
    assert done.denied == 3
    rules = [one["rule"] for one in done.audit or () if one["verdict"] == "deny"]
    assert "raised MissingError: open" in rules[0]
    assert "answered wrongly: str is neither a verdict nor None" in rules[1]
    assert rules[2].endswith("raised SystemExit: 3")
    assert len(caplog.records) == 3


def test_what_the_program_cannot_pass_is_its_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy()
    policy.on("connect", "open")(lambda call: call.deny() if "secret" in call.path else None)
    policy.on("exec")(lambda call: call.deny() if "x" in call.argv else None)
    script = (
        "import ctypes, errno\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for number, args in (42, (3, 8, 16)), (59, (b'/bin/true', 8, 0)), (2, (8, 0)):\n"
        "    libc.syscall(ctypes.c_long(number), *map(lambda one: ctypes.c_char_p(one) if\n"
        "        isinstance(one, bytes) else ctypes.c_long(one), args))\n"
        "    print(errno.errorcode[ctypes.get_errno()])\n"
    )
    with caplog.at_level(logging.ERROR, "pinfold"):
        done = run(policy, *PYTHON, script)
    assert done.stdout.split() == ["EFAULT"] * 3, done.stderr
    assert caplog.records == []


def test_links_are_no_way_around(files: Path, wrap: Any) -> None:
    policy = Policy()
    (files / "deep" / "er").mkdir(parents=True)
    (files / "link").symlink_to(files / "deep" / "er")
    secret = str(files / "deep" / "secret")
    (files / "deep" / "secret").write_text("hidden")

    def handler(call: Call) -> Verdict | None:
        return call.deny() if call.path == secret else call.allow()

    policy.on("open")(wrap(handler))
    assert shown(policy, files / "link/../secret", files / "secret") == ["EACCES", "secret"]


def test_real_names_are_shown_where_the_policy_asks_for_them(files: Path) -> None:
    policy = Policy(PolicyModel(real=True))
    (files / "link").symlink_to("secret")
    seen: list[tuple[str, str | None]] = []

    @policy.on("open", path=files)
    def handler(call: Call) -> Verdict | None:
        seen.append((call.path, call.paths[0].real))
        return call.deny() if call.path.endswith("/secret") else None

    assert shown(policy, files / "link") == ["EACCES"]
    real = str(files / "secret")
    assert seen == [(str(files / "link"), real), (real, real)]


def test_rules_come_after_handlers(files: Path) -> None:
    policy = Policy.parse(
        'version = 1\n[[rule]]\nname = "closed"\non = "open"\n'
        f'path = "{files}"\naction = "deny"\nerrno = "EBUSY"\n'
    )
    policy.on("open", path=files / "one")(lambda call: call.allow())
    assert shown(policy, files / "one", files / "two") == ["one", "EBUSY"]


def test_tasks_wait_side_by_side() -> None:
    policy = Policy()
    come: list[int] = []
    all_here: list[asyncio.Event] = []

    @policy.on("exec", path="/usr/bin/true")
    async def handler(call: Call) -> Verdict:
        if not all_here:
            all_here.append(asyncio.Event())
        come.append(call.pid)
        if len(come) == 8:
            all_here[0].set()
        await all_here[0].wait()
        return call.allow()

    done = run(policy, "/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /usr/bin/true & done; wait")
    assert done.returncode == 0
    assert len(set(come)) == 8


def test_a_verdict_that_takes_too_long(files: Path) -> None:
    policy = Policy(PolicyModel(handler_seconds=0.2))

    @policy.on("open", path=files / "one")
    async def handler(_: Call) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return

    done = run(policy, *PYTHON, TRY, files / "one", files / "two", audit=True)
    assert done.stdout.split() == ["EPERM", "two"]
    (rule,) = [one["rule"] for one in done.audit or () if one["verdict"] == "deny"]
    assert rule == "handler handler gave no verdict within 0.2 seconds"


def test_a_task_that_dies_while_it_waits(files: Path) -> None:
    policy = Policy()
    waiting, cancelled = threading.Event(), threading.Event()

    @policy.on("open", path=files / "one")
    async def handler(_: Call) -> None:
        waiting.set()
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()

    @policy.on("open", path=files / "two")
    def killer(call: Call) -> Verdict:
        return call.serve("now" if waiting.is_set() else "not yet")

    script = (
        "import os, signal, sys\n"
        "child = os.fork()\n"
        "if not child: os.open(sys.argv[1], 0)\n"
        "while open(sys.argv[2]).read() != 'now': pass\n"
        "os.kill(child, signal.SIGKILL)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = run(policy, *PYTHON, script, files / "one", files / "two")
    assert done.stdout == "-9\n"
    assert cancelled.is_set()


def test_a_run_that_ends_while_a_handler_waits(files: Path) -> None:
    policy = Policy()
    waiting, cancelled = threading.Event(), threading.Event()

    @policy.on("open", path=files / "one")
    async def handler(_: Call) -> None:
        waiting.set()
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()

    with pytest.raises(subprocess.TimeoutExpired):
        run(policy, *PYTHON, TRY, files / "one", timeout=3)
    assert waiting.is_set()
    assert cancelled.wait(PATIENCE)


def test_several_sandboxes_at_a_time(files: Path) -> None:
    policy = Policy()

    @policy.on("open", path=files)
    async def handler(call: Call) -> Verdict:
        await asyncio.sleep(0.01)
        return call.serve(os.path.basename(call.path))

    found: dict[int, list[str]] = {}

    def one(number: int) -> None:
        found[number] = shown(policy, files / str(number), files / "x")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {number: [str(number), "x"] for number in range(6)}


def test_inside_a_running_loop(files: Path) -> None:
    policy = Policy()

    @policy.on("open", path=files)
    async def handler(call: Call) -> Verdict:
        await asyncio.sleep(0)
        return call.serve("served")

    async def main() -> list[str]:
        return shown(policy, files / "one")

    assert asyncio.run(main()) == ["served"]


def of_a_module(call: Call) -> Verdict:
    return call.serve(f"served to {os.path.basename(call.program)[:6]}")


def test_a_pickled_policy(files: Path) -> None:
    policy = Policy()
    policy.on("open", path=files)(of_a_module)
    assert shown(pickle.loads(pickle.dumps(policy)), files / "one") == ["served to python"]


def test_a_call_is_over_with_its_verdict(files: Path) -> None:
    policy = Policy()
    kept: list[Call] = []
    policy.on("exec", path="/usr/bin/true")(kept.append)
    assert run(policy, "/bin/sh", "-c", "/usr/bin/true a b; true").returncode == 0
    (call,) = kept
    assert call.path == "/usr/bin/true"
    with pytest.raises(LookupError, match="while execve waited"):
        _ = call.argv


def test_what_nobody_has_looked_at_stays_where_it_is() -> None:
    # The program sees it by what its own memory does: a page that it takes away while it waits
    # makes an exec fail that was not pinned.
    policy = Policy()
    looks = ["path"]

    @policy.on("exec", path="/usr/bin/true")
    async def handler(call: Call) -> Verdict:
        for name in looks:
            getattr(call, name)
        # The other thread of the program has the time to do it.
        await asyncio.sleep(0.3)
        return call.allow()

    program = build("vanishing_argv")
    assert run(policy, program).stdout.split() == ["EFAULT"]
    looks.append("argv")
    assert run(policy, program).returncode == 0


def test_as_whoever(someone: User) -> None:
    script = """
import asyncio, json, pinfold
policy = pinfold.Policy()

@policy.on("open", path="/etc/hostname")
async def handler(call):
    await asyncio.sleep(0)
    return call.serve("served")

@policy.on("unlink")
def other(call):
    return call.deny("EBUSY")

done = pinfold.run(["sh", "-c", "cat /etc/hostname; touch x; rm x; echo $?"],
    policy=policy, capture_output=True, text=True)
print(json.dumps([done.stdout, done.returncode, done.denied]))
"""
    done = someone.python("-c", script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["served1\n", 0, 1]


def test_defaults_of_a_model_without_a_file(files: Path) -> None:
    policy = Policy(PolicyModel(defaults={"unlink": Action("deny", errno.EROFS)}))
    policy.on("unlink", path=files / "one")(lambda call: call.allow())
    script = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: os.unlink(path)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    done = run(policy, *PYTHON, script, files / "one", files / "two")
    assert done.stdout.split() == [str(errno.EROFS)]
    assert [name.name for name in sorted(files.iterdir())] == ["secret", "two"]
