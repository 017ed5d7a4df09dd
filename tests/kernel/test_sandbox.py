"""``Sandbox`` as a value, and what ``run`` does with it."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold.policy.model import Limits
from pinfold.sandbox import PIPE, Sandbox
from tests.kernel.support import PATIENCE, TRAP_ALL, alive, execute
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAP: Final = (TRAP_ALL[1],)


@pytest.fixture(autouse=True)
def _nothing_used_up() -> Iterator[None]:
    descriptors = set(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert set(threading.enumerate()) == threads


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two files, each holding its name, and a policy that denies the second."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "policy.toml").write_text(
        f"""
        version = 1
        [[rule]]
        name = "not two"
        on = "open"
        path = "{tmp_path}/two"
        action = "deny"
        [limits]
        files = 100
        """
    )
    return tmp_path


def test_it_compares_by_value_and_does_not_change(tree: Path) -> None:
    box = Sandbox(map={f"{tree}/a": f"{tree}/one"}, deny=[tree / "two"], ro=["/usr"])
    same = Sandbox(
        map=[(tree / "a", os.fsencode(tree / "one"))], deny=(f"{tree}/two",), ro=("/usr",)
    )
    assert box == same
    assert box != dataclasses.replace(box, real=True)
    assert hash(box) == hash(same)
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.real = True  # type: ignore[misc]  # what a user may get wrong


def test_iterators_are_used_up_once(tree: Path) -> None:
    box = Sandbox(deny=iter([str(tree / "one")]), map=iter([(f"{tree}/a", f"{tree}/two")]))
    for _ in range(2):
        done = box.run(["cat", tree / "one", tree / "a"], capture_output=True)
        assert (done.denied, done.redirected, done.stdout) == (1, 1, b"two\n")


def test_it_can_be_pickled_and_run_elsewhere(tree: Path) -> None:
    box = Sandbox(
        map={f"{tree}/a": f"{tree}/one"}, deny=[tree / "two"], limits=Limits(files=64), audit=True
    )
    copy = pickle.loads(pickle.dumps(box))
    assert copy == box
    done = copy.run(["cat", "a", "two"], cwd=tree, capture_output=True)
    assert (done.stdout, done.denied, done.redirected) == (b"one\n", 1, 1)
    code = (
        "import pickle, sys; box = pickle.load(sys.stdin.buffer)\n"
        "done = box.run(['cat', 'a'], capture_output=True)\n"
        "sys.stdout.buffer.write(pickle.dumps(done))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(box),
        cwd=tree,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    there = pickle.loads(other.stdout)
    assert isinstance(there, pinfold.CompletedRun)
    assert (there.stdout, there.redirected, there.returncode) == (b"one\n", 1, 0)
    assert there.audit


def test_relative_paths_are_taken_when_it_is_made(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    box = Sandbox(map={"a": "one"}, audit="log", ro=["/"], rw=["."])
    monkeypatch.chdir("/")
    done = box.run(["sh", "-c", "cat a; echo x > made"], cwd=tree, capture_output=True)
    assert (done.stdout, done.stderr) == (b"one\n", b"")
    assert (tree / "made").exists()
    assert (tree / "log").exists()


def test_without_a_working_directory(tree: Path) -> None:
    code = (
        f"import os; os.mkdir({str(tree / 'gone')!r}); os.chdir({str(tree / 'gone')!r})\n"
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
        "import pinfold; from pinfold.sandbox import Sandbox\n"
        f"os.rmdir({str(tree / 'gone')!r})\n"
        f"print(Sandbox(deny=['/x'], ro=['/']).run(['true'], cwd='/').returncode)\n"
        "try: Sandbox(map={'a': '/b'})\n"
        "except pinfold.PolicyError as error: print('refused')"
    )
    done = execute([sys.executable, "-c", code])
    assert done.stdout == "0\nrefused\n", done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"deny": ["relative"]},
        {"deny": "/etc"},
        {"ro": "/usr"},
        {"rw": b"/usr"},
        {"map": {"": "/a"}},
        {"map": {"/a": ""}},
        {"inspect": "nothing"},
        {"limits": Limits(memory=-1)},
        {"limits": Limits(files=1 << 40)},
    ],
)
def test_what_is_malformed_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(pinfold.PolicyError):
        Sandbox(**options)


def test_a_policy_from_a_file(tree: Path) -> None:
    for given in (str(tree / "policy.toml"), tree / "policy.toml", [tree / "policy.toml"]):
        box = Sandbox(policy=given, audit=True)
        done = box.run(["cat", "one", "two"], cwd=tree, capture_output=True)
        assert (done.stdout, done.denied) == (b"one\n", 1)
        assert done.audit is not None
        assert "not two" in {record.get("rule") for record in done.audit}
    assert Sandbox(policy=tree / "policy.toml") == Sandbox(policy=str(tree / "policy.toml"))


def test_a_policy_that_is_not_there_or_malformed(tree: Path) -> None:
    with pytest.raises(pinfold.PolicyError):
        Sandbox(policy=tree / "none.toml")
    (tree / "policy.toml").write_text("version = 2")
    with pytest.raises(pinfold.PolicyError):
        pinfold.run(["true"], policy=tree / "policy.toml")


def test_run_takes_a_policy_limits_and_dry_run(tree: Path) -> None:
    command = ["sh", "-c", "ulimit -n; cat two"]
    options: dict[str, Any] = {"cwd": tree, "capture_output": True, "text": True}
    done = pinfold.run(command, policy=tree / "policy.toml", **options)
    assert (done.stdout, done.denied) == ("100\n", 1)
    # The lower of two limits holds.
    for files, expected in ((50, "50\n"), (200, "100\n")):
        done = pinfold.run(
            command, policy=tree / "policy.toml", limits=Limits(files=files), **options
        )
        assert done.stdout == expected
    done = pinfold.run(command, policy=tree / "policy.toml", dry_run=True, audit=True, **options)
    bare = execute(["sh", "-c", "ulimit -n"]).stdout
    assert done.stdout == f"{bare}two\n"
    assert done.audit is not None
    assert "deny" in {record["verdict"] for record in done.audit}


def test_a_handler(tree: Path) -> None:
    policy = pinfold.Policy()

    @policy.on("open", path=str(tree / "two"))
    def no_two(call: Any) -> Any:
        return call.deny("EPERM")

    done = Sandbox(policy=policy).run(["cat", "one", "two"], cwd=tree, capture_output=True)
    assert done.stdout == b"one\n"
    assert b"not permitted" in done.stderr
    assert done.denied == 1


def test_a_handler_that_raises_is_reported(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = pinfold.Policy()

    @policy.on("open", path=str(tree / "two"))
    def broken(call: Any) -> Any:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "pinfold"):
        done = Sandbox(policy=policy).run(["cat", "two"], cwd=tree, capture_output=True)
    assert (done.returncode, done.denied) == (1, 1)
    assert "ZeroDivisionError" in caplog.text


def test_a_log_begins_and_ends(tree: Path) -> None:
    log = tree / "log"
    box = Sandbox(deny=[tree / "two"], map={tree / "a": tree / "one"}, audit=log)
    assert (
        box.run(["sh", "-c", "cat two; exit 3"], cwd=tree, stderr=subprocess.DEVNULL).audit is None
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["type"] == "start"
    assert lines[0]["argv"] == ["sh", "-c", "cat two; exit 3"]
    assert lines[0]["cwd"] == str(tree)
    assert lines[0]["rules"] == [f"map {tree}/a={tree}/one", f"deny {tree}/two"]
    assert lines[-1]["type"] == "end"
    assert (lines[-1]["reason"], lines[-1]["exit"]) == ("ended", 3)
    assert lines[-1]["verdicts"]["deny"] == 1
    # Also when the command was never executed, and when it was killed.
    with pytest.raises(pinfold.LaunchError):
        box.run(["no-such-command"])
    assert "LaunchError" in json.loads(log.read_text().splitlines()[-1])["reason"]
    with pytest.raises(subprocess.TimeoutExpired):
        box.run(["sleep", "300"], timeout=0.2)
    assert json.loads(log.read_text().splitlines()[-1])["exit"] == 128 + signal.SIGKILL


def test_a_log_that_cannot_be_opened(tree: Path) -> None:
    with pytest.raises(pinfold.AuditError):
        pinfold.run(["true"], audit=tree / "none/log")
    with pytest.raises(pinfold.AuditError):
        pinfold.run(["true"], audit="/dev/full")


def test_a_path_to_confine_to_that_is_not_there(tree: Path) -> None:
    for option in ("ro", "rw"):
        with pytest.raises(pinfold.PolicyError, match="cannot be allowed"):
            Sandbox(**{option: [tree / "none"]}).run(["true"])  # type: ignore[arg-type]  # keyword by name


def test_twenty_at_once(tree: Path) -> None:
    def one(number: int) -> tuple[bytes, int]:
        name = tree / f"own-{number}"
        name.write_text(f"{number}")
        done = Sandbox(map={tree / "mine": name}, deny=[tree / "two"]).run(
            ["cat", "mine", "two"], cwd=tree, capture_output=True
        )
        return done.stdout, done.denied

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == [(b"%d" % number, 1) for number in range(20)]


def test_one_sandbox_many_times_at_once(tree: Path) -> None:
    box = Sandbox(map={tree / "a": tree / "one"}, deny=[tree / "two"])
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(box.run, ["cat", tree / "a"], capture_output=True) for _ in range(16)]
        assert [run.result().stdout for run in runs] == [b"one\n"] * 16


def test_an_interrupt_kills_the_sandbox() -> None:
    code = (
        "import os, signal, subprocess, sys, threading\n"
        "from pinfold.sandbox import Sandbox\n"
        "reader, writer = os.pipe()\n"
        "def interrupt():\n"
        "    pids = os.read(reader, 100); os.write(1, pids); os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "script = 'trap \"\" INT; setsid sleep 300 & echo $$ $! >&%d; wait' % writer\n"
        "box = Sandbox(deny=['/x'])\n"
        "try: box.run(['bash', '-c', script], pass_fds=[writer], capture_output=True)\n"
        "except KeyboardInterrupt: print('interrupted', threading.active_count())\n"
    )
    done = execute([sys.executable, "-c", code], cwd=ROOT)
    pids, interrupted = done.stdout.splitlines()
    assert interrupted == "interrupted 1"
    assert not any(alive(int(pid)) for pid in pids.split())


def test_text_without_text_is_refused_like_by_subprocess() -> None:
    for run in (subprocess.run, Sandbox(deny=TRAP).run):
        with pytest.raises(TypeError):
            run(["cat"], input="text", capture_output=True)


def test_run_and_its_timeout() -> None:
    box = Sandbox(deny=TRAP)
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        box.run(["sh", "-c", "echo x; exec sleep 300"], stdout=PIPE, timeout=1, text=True)
    assert (caught.value.cmd, caught.value.timeout) == (["sh", "-c", "echo x; exec sleep 300"], 1)
    assert (caught.value.stdout, caught.value.stderr) == (b"x\n", None)


def test_in_a_process_with_a_running_loop() -> None:
    import asyncio

    async def main() -> bytes:
        done: bytes = Sandbox(deny=TRAP).run(["echo", "x"], capture_output=True).stdout
        return done

    assert asyncio.run(main()) == b"x\n"


def test_what_it_costs_to_import() -> None:
    # asyncio and logging are for those who use them.
    code = (
        "import sys, pinfold; pinfold.run(['true'], deny=['/x'])\n"
        "names = ('asyncio', 'logging', 'msgspec', 'rich', 'json')\n"
        "print([name for name in names if name in sys.modules])"
    )
    assert execute([sys.executable, "-c", code]).stdout == "[]\n"
