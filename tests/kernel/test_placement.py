"""Where tasks run: on one processor with their supervisor while one is alone, and unseen.

What the supervisor does is looked at from outside, in the masks of its thread and of its tasks.
What the program sees is asked inside, at moments when it is known to have been placed.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold.linux import sched
from pinfold.sandbox import PIPE, Sandbox
from pinfold.supervisor import placement
from tests.kernel.support import NOBODY, PATIENCE, PINFOLD, TRAP_ALL, next_line, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.popen import Popen
    from tests.kernel.support import User

USUAL: Final = frozenset(os.sched_getaffinity(0))
CPUS: Final = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:\t")[2].split()[0]
"""The same, as a status file has it."""
ISOLATED: Final = ("/usr/bin/python3", "-I", "-c")
GONE: Final[frozenset[int]] = frozenset()
TRAP: Final = (TRAP_ALL[1],)

pytestmark = pytest.mark.skipif(len(USUAL) < 2, reason="one processor: there is nothing to place")

BUSY: Final = """
import os, sys, threading
def trap(times=64):
    for _ in range(times): os.path.exists("/etc/hostname")
def until(name):
    while not os.path.exists(name): trap()
print("ready", flush=True)
"""
"""Traps, alone, until a file appears."""


@pytest.fixture(autouse=True)
def _ours_stay() -> Iterator[None]:
    # No thread of the host program is touched, and none stays.
    yield
    # One that was joined may still be on its way out.
    wait_for(
        lambda: {mask(int(entry)) for entry in os.listdir("/proc/self/task")} <= {USUAL, GONE},
        "a thread of ours has other processors than before",
    )


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Waits until something is so that other processes bring about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        os.sched_yield()


def mask(tid: int) -> frozenset[int]:
    """Returns a task's processors as somebody outside sees them; empty when it is gone."""
    try:
        return sched.affinity(tid)
    except ProcessLookupError:
        return GONE


def narrow(tid: int) -> bool:
    """Returns whether a task is kept on one processor."""
    return len(mask(tid)) == 1


def supervisor() -> int:
    """Returns the thread of the one supervisor in this process."""
    (found,) = (one for one in threading.enumerate() if one.name == "pinfold")
    assert found.native_id is not None
    return found.native_id


def begun(script: str, *args: object, **options: Any) -> Popen:
    """Starts a program that says when it is about to trap."""
    options.setdefault("deny", TRAP)
    process = Sandbox(**options).popen(
        [*ISOLATED, BUSY + script, *map(str, args)], stdin=PIPE, stdout=PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def placed(process: Popen) -> None:
    """Waits until a program is kept on one processor with its supervisor."""
    thread = supervisor()
    wait_for(
        lambda: narrow(process.pid) and mask(process.pid) == mask(thread),
        "it never shared a processor",
    )


def said(process: Popen) -> str:
    """Returns what a program prints until it ends, which it does with status 0."""
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert isinstance(out, str)
    return out


def test_alone(tmp_path: Path) -> None:
    """A task that alone traps shares a processor with the supervisor's thread, and no other one."""
    with begun("until(sys.argv[1])", tmp_path / "go") as process:
        placed(process)
        for thread in threading.enumerate():
            if thread.name != "pinfold":
                assert thread.native_id is not None
                assert mask(thread.native_id) == USUAL
        (tmp_path / "go").touch()
        said(process)
    assert not [one for one in threading.enumerate() if one.name.startswith("pinfold")]


def test_idle(tmp_path: Path) -> None:
    """Nobody stays where it is when no stop comes: others may be busy there."""
    script = "until(sys.argv[1]); sys.stdin.read(1)"
    with begun(script, tmp_path / "go") as process:
        placed(process)
        (tmp_path / "go").touch()
        thread = supervisor()
        wait_for(lambda: mask(process.pid) == USUAL, "the program was not let go")
        wait_for(lambda: mask(thread) == USUAL, "the supervisor was not let go")
        process.communicate("x", timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "make",
    [
        "child = os.fork()\nif child == 0: wait()\nprint(child, flush=True)",
        "one = threading.Thread(target=wait); one.start(); print(one.native_id, flush=True)",
        "child = os.posix_spawn('/bin/cat', ['cat'], {}); print(child, flush=True)",
    ],
    ids=["fork", "thread", "spawn"],
)
def test_new_tasks(tmp_path: Path, make: str) -> None:
    """A child, and a thread, have all processors from their first instruction on."""
    script = f"""
def wait():
    sys.stdin.read(1)
until(sys.argv[1])
{make}
if "child" in globals(): os.waitpid(child, 0)
"""
    with begun(script, tmp_path / "go") as process:
        placed(process)
        (tmp_path / "go").touch()
        assert process.stdout is not None
        tid = int(process.stdout.readline())
        wait_for(lambda: mask(tid) == USUAL, "the new task has not all processors")
        wait_for(lambda: mask(process.pid) == USUAL, "its maker was not let go")
        process.communicate("xx", timeout=PATIENCE)
    assert process.returncode == 0


def test_a_child_that_traps_alone(tmp_path: Path) -> None:
    """Its parent waits for it: the supervisor goes together with the child."""
    script = """
until(sys.argv[1])
child = os.fork()
if child == 0:
    until(sys.argv[2])
    os._exit(0)
print(child, flush=True)
os.waitpid(child, 0)
"""
    with begun(script, tmp_path / "go", tmp_path / "end") as process:
        placed(process)
        (tmp_path / "go").touch()
        assert process.stdout is not None
        child = int(process.stdout.readline())
        thread = supervisor()
        wait_for(lambda: narrow(child) and mask(child) == mask(thread), "not with the child")
        assert mask(process.pid) == USUAL
        (tmp_path / "end").touch()
        said(process)


def test_two_at_work(tmp_path: Path) -> None:
    """Two that trap and compute use two processors."""
    script = """
child = os.fork()
if child: print(child, flush=True)
while not os.path.exists(sys.argv[1]):
    trap(2)
    sum(range(5000))
if child: os.waitpid(child, 0)
else: os._exit(0)
"""

    def cpu(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36]

    with begun(script, tmp_path / "end") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        for first, second in ((process.pid, child), (child, process.pid)):
            wait_for(lambda: cpu(first) != cpu(second), "both always on one processor")  # noqa: B023
            wait_for(lambda: mask(second) == USUAL, "it is kept on one")  # noqa: B023
        (tmp_path / "end").touch()
        said(process)


ASKS: Final = """
found = set()
def note(name, *masks): found.add((name, *map(frozenset, masks)))
def field(path):
    with open(path) as file:
        return [line.split()[1] for line in file if line.startswith("Cpus_allowed")]
def ask(pid=0):
    trap()
    note("asked", os.sched_getaffinity(pid))
while True:
    ask()
    ask(os.getppid())
    if os.path.exists(sys.argv[1]): break
trap()
import subprocess
print(subprocess.run(["nproc"], stdout=subprocess.PIPE, text=True).stdout.strip())
"""


@pytest.mark.parametrize("mode", ["auto", "together"])
def test_what_it_asks(tmp_path: Path, mode: str) -> None:
    """Of itself, of its parent and of its children, it sees the processors that all have."""
    script = (
        BUSY
        + ASKS
        + """
child = os.fork()
if child == 0:
    trap(200)
    sys.stdin.read(1)
    os._exit(0)
trap()
print(field(f"/proc/{child}/status") == field("/proc/self/status"))
print(field("/proc/thread-self/status")[1])
os.waitpid(child, 0)
for one in sorted(found): print(one[0], sorted(one[1]))
"""
    )
    go = tmp_path / "go"
    command = (*PINFOLD, "--cpu", mode, *TRAP_ALL, "--", *ISOLATED, script, go)
    with started(command) as process:
        assert next_line(process.stdout) == "ready"
        wait_for(
            lambda: any(narrow(int(one)) for one in os.listdir(f"/proc/{process.pid}/task")),
            "it was never placed",
        )
        go.touch()
        out, _ = process.communicate("x", timeout=PATIENCE)
    assert process.returncode == 0
    assert out.splitlines() == [str(len(USUAL)), "True", CPUS, f"asked {sorted(USUAL)}"]


def test_unprivileged(someone: User) -> None:
    """Whoever runs it: never less than all processors to see, however often it looks."""
    script = (
        "for _ in range(50):\n"
        "    trap()\n"
        "    assert os.sched_getaffinity(0) == set(map(int, sys.argv[2].split()))\n"
        "trap()\n"
        "assert f'Cpus_allowed_list:\\t{sys.argv[1]}\\n' in open('/proc/self/status').read()\n"
    )
    done = someone.pinfold(
        *(*TRAP_ALL, "--", *ISOLATED, BUSY + script, CPUS, " ".join(map(str, USUAL)))
    )
    assert done.returncode == 0, done.stderr


def test_its_own_status(tmp_path: Path) -> None:
    """A status file shows all processors, and goes on to do so through the same descriptor."""
    script = """
until(sys.argv[1])
file = open("/proc/self/status")
for _ in range(20):
    file.seek(0)
    print([line.split()[1] for line in file if line.startswith("Cpus_allowed_list")][0])
    trap()
"""
    with begun(script, tmp_path / "go") as process:
        placed(process)
        (tmp_path / "go").touch()
        out = said(process)
    assert len(set(out.split())) == 1
    assert sched.cpu_list(out.split()[0]) == sched.allowed(threading.get_native_id())


def test_its_own_mask(tmp_path: Path) -> None:
    """What a program sets is what it has, and what its children inherit."""
    cpu = min(USUAL)
    script = """
until(sys.argv[1])
mine = {int(sys.argv[2])}
os.sched_setaffinity(0, mine)
for _ in range(20):
    trap()
    assert os.sched_getaffinity(0) == mine
    child = os.fork()
    if child == 0:
        os._exit(os.sched_getaffinity(0) != mine)
    assert os.waitpid(child, 0)[1] == 0
thread = threading.Thread(target=lambda: print(os.sched_getaffinity(0))); thread.start()
thread.join()
print("set", flush=True)
until(sys.argv[3])
"""
    with begun(script, tmp_path / "go", cpu, tmp_path / "end") as process:
        placed(process)
        (tmp_path / "go").touch()
        assert process.stdout is not None
        assert process.stdout.readline() == f"{{{cpu}}}\n"
        assert process.stdout.readline() == "set\n"
        assert mask(process.pid) == {cpu}
        assert mask(supervisor()) == USUAL
        (tmp_path / "end").touch()
        said(process)


def test_it_places_another_task(tmp_path: Path) -> None:
    """A task that shares a processor gets the mask that another one sets for it, for good."""
    script = """
child = os.fork()
if child == 0:
    until(sys.argv[1])
    os._exit(0)
print(child, flush=True)
sys.stdin.read(1)
os.sched_setaffinity(child, {int(sys.argv[2])})
print("set", flush=True)
os.waitpid(child, 0)
"""
    cpu = max(USUAL)
    with begun(script, tmp_path / "end", cpu) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        child = int(process.stdout.readline())
        thread = supervisor()
        wait_for(lambda: narrow(child) and mask(child) == mask(thread), "not with the child")
        process.stdin.write("x")
        process.stdin.flush()
        assert process.stdout.readline() == "set\n"
        wait_for(lambda: mask(thread) == USUAL, "the supervisor was not let go")
        assert mask(child) == {cpu}
        (tmp_path / "end").touch()
        said(process)


def test_a_thread_that_executes(tmp_path: Path) -> None:
    """It takes over its process's id, and has all processors."""
    script = """
def work():
    until(sys.argv[1])
    os.execv(sys.executable, [sys.executable, "-I", "-c",
        "import os, sys; print(os.sched_getaffinity(0), flush=True); sys.stdin.read(1)"])
threading.Thread(target=work).start()
"""
    with begun(script, tmp_path / "go") as process:
        thread = supervisor()
        wait_for(lambda: narrow(thread), "it never shared a processor")
        (tmp_path / "go").touch()
        assert process.stdout is not None
        assert process.stdout.readline() == f"{set(USUAL)}\n"
        wait_for(lambda: mask(process.pid) == USUAL, "it was not let go")
        process.communicate("x", timeout=PATIENCE)


def test_another_user(tmp_path: Path) -> None:
    """A task that becomes another user's is let go while that can still be done."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    script = f"""
until(sys.argv[1])
os.setuid({NOBODY})
print("done", flush=True)
trap(1000)
sys.stdin.read(1)
"""
    with begun(script, tmp_path / "go") as process:
        placed(process)
        (tmp_path / "go").touch()
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert mask(process.pid) == USUAL
        process.communicate("x", timeout=PATIENCE)
    assert process.returncode == 0


def test_somebody_outside(tmp_path: Path) -> None:
    """What somebody outside sets meanwhile stays."""
    cpus = {max(USUAL)}
    with begun("until(sys.argv[1])", tmp_path / "go") as process:
        placed(process)
        thread = supervisor()

        def given_up() -> bool:
            # Sooner or later this is in a moment when it is not placed.
            os.sched_setaffinity(process.pid, cpus)
            return mask(thread) == USUAL

        wait_for(given_up, "the supervisor never let go")
        (tmp_path / "go").touch()
        said(process)


def test_together(tmp_path: Path) -> None:
    """All tasks on one processor, and none of them sees it."""
    script = """
child = os.fork()
if child:
    print(child, flush=True)
until(sys.argv[1])
for _ in range(5):
    trap()
    print(sorted(os.sched_getaffinity(0)), sorted(os.sched_getaffinity(os.getppid())))
if child:
    os.waitpid(child, 0)
"""
    with begun(script, tmp_path / "go", cpu="together") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        (one,) = mask(supervisor())
        assert mask(process.pid) == {one}
        assert mask(child) == {one}
        (tmp_path / "go").touch()
        out = said(process)
    assert set(out.splitlines()) == {f"{sorted(USUAL)} {sorted(USUAL)}"}


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """What masks are set from now on, by whom and what."""
    found: list[tuple[int, Any]] = []
    real = sched.set_affinity

    def noted(tid: int, cpus: Any) -> None:
        found.append((tid, frozenset(cpus)))
        real(tid, cpus)

    monkeypatch.setattr(sched, "set_affinity", noted)
    return found


@pytest.mark.parametrize("mode", ["auto", "spread"])
def test_turns(tmp_path: Path, mode: str) -> None:
    """The supervisor's are shorter, where the kernel can do that; nobody else's are."""
    usual = sched.time_slice(0)
    with begun("until(sys.argv[1])", tmp_path / "go", cpu=mode) as process:
        assert mode == "spread" or not usual or sched.time_slice(supervisor()) < usual
        assert mode == "auto" or sched.time_slice(supervisor()) == usual
        assert sched.time_slice(process.pid) == usual
        assert sched.time_slice(0) == usual
        (tmp_path / "go").touch()
        said(process)


LONG: Final = [*ISOLATED, BUSY + "trap(2000)"]


def test_auto_places(touched: list[tuple[int, Any]]) -> None:
    """This is how the next tests would see it."""
    assert pinfold.run(LONG, deny=TRAP, capture_output=True).returncode == 0
    assert any(len(cpus) == 1 for _, cpus in touched)


def test_spread(touched: list[tuple[int, Any]]) -> None:
    """Nothing is ever touched."""
    assert pinfold.run(LONG, deny=TRAP, cpu="spread", capture_output=True).returncode == 0
    assert not touched


@pytest.mark.parametrize("mode", ["auto", "together"])
def test_one_processor(touched: list[tuple[int, Any]], mode: Any) -> None:
    """With one that is allowed, there is nothing to do."""
    os.sched_setaffinity(0, {min(USUAL)})
    try:
        done = pinfold.run(LONG, deny=TRAP, cpu=mode, capture_output=True)
    finally:
        os.sched_setaffinity(0, USUAL)
    assert done.returncode == 0
    assert not touched


@pytest.mark.parametrize("mode", ["auto", "together"])
def test_what_cannot_be_hidden(tmp_path: Path, touched: list[tuple[int, Any]], mode: Any) -> None:
    """Where a program can open its status file without being trapped, it is not placed."""
    (tmp_path / "policy.toml").write_text(
        'version = 1\n[[rule]]\nname = "w"\non = "open"\naccess = "write"\n'
        'path = "/nonexistent/**"\naction = "deny"\n'
    )
    script = "import os, sys\nfor _ in range(500): os.close(os.open('/dev/null', os.O_WRONLY))"
    done = pinfold.run([*ISOLATED, script], policy=tmp_path / "policy.toml", cpu=mode)
    assert done.returncode == 0
    assert not touched
    assert pinfold.run(LONG, cpu=mode, capture_output=True).returncode == 0
    assert not touched


def test_what_handlers_start(touched: list[tuple[int, Any]]) -> None:
    """Functions of the host program run, and start what they like, with all processors."""
    policy = pinfold.Policy()
    seen = set()

    @policy.on("open")
    def look(_call: Any) -> None:
        seen.add(frozenset(os.sched_getaffinity(0)))

    script = BUSY + "for _ in range(1000): os.close(os.open('/dev/null', 0))"
    done = pinfold.run([*ISOLATED, script], policy=policy, deny=TRAP, capture_output=True)
    assert done.returncode == 0
    assert any(len(cpus) == 1 for _, cpus in touched)
    assert seen == {USUAL}


def test_what_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is left as it is, and not tried again."""
    tries = []

    def refused(tid: int, cpus: Any) -> None:
        tries.append((tid, cpus))
        raise PermissionError(1, "not today")

    monkeypatch.setattr(sched, "set_affinity", refused)
    assert pinfold.run(LONG, deny=TRAP, capture_output=True).returncode == 0
    assert len(tries) == 1


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the one beside it nothing is placed, and the command runs."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "pinfold-placement":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    tries: list[object] = []
    monkeypatch.setattr(sched, "set_affinity", lambda tid, cpus: tries.append((tid, cpus)))
    assert pinfold.run(LONG, deny=TRAP, capture_output=True).returncode == 0
    assert not tries


def test_several_at_once(tmp_path: Path) -> None:
    """Two sandboxes of one process do not keep their tasks on the same processor."""
    with begun("until(sys.argv[1])", tmp_path / "go") as first:
        wait_for(lambda: narrow(first.pid), "the first was never placed")
        with begun("until(sys.argv[1])", tmp_path / "go") as second:
            wait_for(
                lambda: (
                    narrow(first.pid) and narrow(second.pid) and mask(first.pid) != mask(second.pid)
                ),
                "never on two processors",
            )
            (tmp_path / "go").touch()
            said(second)
        said(first)


HOSTILE: Final = """
import random
usual = os.sched_getaffinity(0)
masks = [{one} for one in usual] + [usual]
def flip(seed):
    chance = random.Random(seed)
    tids = [int(one) for one in os.listdir("/proc/self/task")]
    for _ in range(150):
        wanted = chance.choice(masks)
        try:
            os.sched_setaffinity(chance.choice([0, os.getpid(), *tids]), wanted)
        except ProcessLookupError:
            pass
        os.sched_getaffinity(chance.choice([0, os.getppid(), *tids]))
        trap(5)
        if chance.random() < 0.1:
            child = os.fork()
            if child == 0:
                trap(40)
                os._exit(0)
            os.waitpid(child, 0)
threads = [threading.Thread(target=flip, args=(seed,)) for seed in range(4)]
trap(200)
for one in threads: one.start()
for one in threads: one.join()
for one in masks:
    os.sched_setaffinity(0, one)
    trap(200)
    assert os.sched_getaffinity(0) == one
"""


@pytest.mark.parametrize("mode", ["auto", "together"])
def test_masks_that_flip(mode: Any) -> None:
    """Threads that set each other's masks, and ask, confuse nobody."""
    done = pinfold.run(
        [*ISOLATED, BUSY + HOSTILE],
        deny=TRAP,
        cpu=mode,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["auto", "together"])
def test_asking_all_the_time(mode: Any) -> None:
    """Many tasks that do nothing but ask: each gets the right answer, and it ends."""
    script = """
usual = os.sched_getaffinity(0)
def ask():
    for _ in range(40):
        trap(40)
        assert os.sched_getaffinity(os.getpid()) == usual
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        ask()
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = pinfold.run(
        [*ISOLATED, BUSY + script], deny=TRAP, cpu=mode, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_what_is_taken_is_given_back() -> None:
    """After all that, no processor counts as taken."""
    assert not any(placement._taken._count.values())


def test_a_word_for_it() -> None:
    """Anything else is an error, when the sandbox is made."""
    with pytest.raises(pinfold.PolicyError, match="cpu is one of"):
        Sandbox(cpu="here")  # type: ignore[arg-type]
