"""What must not grow with the number of tasks and sandboxes, and what is shared fairly."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import threading
import warnings
from typing import TYPE_CHECKING, TypeVar

import pytest

from pinfold import Sandbox
from pinfold.errors import TraceeGone
from pinfold.linux import process
from pinfold.pins import sealed
from pinfold.pins.arena import SLOT_SIZE, Arena, ArenaPool
from pinfold.pins.install import Installer
from pinfold.pins.live import LiveCheck
from pinfold.tracee.waits import Waits
from tests.kernel.support import PATIENCE, in_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.tracee.task import Task

T = TypeVar("T")
BASE = 0x7F0000000000
STOP, OTHER_STOP, END = 0x057F, 0x137F, 9


def alone(body: Callable[[], T]) -> T:
    """Returns what a thread without children makes of it: waits see nobody else's."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(body()))
    thread.start()
    thread.join(PATIENCE)
    return found[0]


def test_one_task_is_found_among_many() -> None:
    waits = Waits()
    for tid in range(1, 2001):
        waits.push_back(tid, STOP)
    for tid in range(1, 2001):
        assert waits.stop_of(tid) == STOP
    assert alone(waits.ready) is None


def test_what_is_kept_keeps_its_order() -> None:
    def body() -> None:
        waits = Waits()
        waits.push_back(2, STOP)
        waits.push_back(1, OTHER_STOP)
        waits.push_back(1, STOP)
        assert [waits.next() for _ in range(3)] == [(1, STOP), (1, OTHER_STOP), (2, STOP)]

    alone(body)


def test_an_end_is_kept_for_the_loop() -> None:
    def body() -> None:
        waits = Waits()
        waits.push_back(1, END)
        with pytest.raises(TraceeGone):
            waits.stop_of(1)
        with pytest.raises(TraceeGone):
            waits.poll(1)
        assert waits.next() == (1, END)

    alone(body)


def test_a_postponed_stop_comes_last_and_once() -> None:
    def body() -> None:
        waits = Waits()
        waits.push_back(2, STOP)
        assert waits.postpone(1, STOP)
        assert waits.next() == (2, STOP)
        assert waits.next() == (1, STOP)
        assert not waits.postpone(1, STOP)
        # Only once in a row.
        assert waits.postpone(1, STOP)

    alone(body)


def test_the_end_of_a_postponed_task_voids_its_stop() -> None:
    def body() -> None:
        waits = Waits()
        assert waits.postpone(1, STOP)
        waits.push_back(1, END)
        assert waits.next() == (1, END)
        assert waits.ready() is None
        with pytest.raises(ChildProcessError):
            waits.next()

    alone(body)


def test_a_postponed_stop_is_not_put_off_for_ever() -> None:
    def body() -> None:
        waits = Waits()
        assert waits.postpone(1, STOP)
        passed = 0
        while passed < 10_000:
            waits.push_back(2, STOP)
            if waits.next() == (1, STOP):
                break
            passed += 1
        assert 100 < passed < 10_000

    alone(body)


def test_an_arena_is_added_when_slots_are_in_use() -> None:
    pool = ArenaPool(slots=2)
    try:
        assert not pool.crowded()
        slots = [pool.take(), pool.take()]
        assert pool.crowded()
        # Of this size there is no arena yet, so that nobody could give one back.
        assert not pool.crowded(SLOT_SIZE + 1)
        pool.give_back(slots.pop())
        assert not pool.crowded()
        larger = [pool.take(SLOT_SIZE + 1) for _ in range(8)]
        assert pool.crowded(SLOT_SIZE + 1)
        assert not pool.crowded()
        assert len({slot.arena.number for slot in larger}) == 1
    finally:
        pool.close()


def test_a_pin_for_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of tasks that call at one time do with the slots of one arena, however busy."""
    installed: list[int] = []
    install = Installer.install

    def counted(self: Installer, task: Task, arena: Arena) -> int:
        installed.append(arena.number)
        return install(self, task, arena)

    monkeypatch.setattr(Installer, "install", counted)
    script = (
        "import os\n"
        "go, ready = os.pipe(), os.pipe()\n"
        "def child():\n"
        "    os.close(go[1]); os.write(ready[1], b'x'); os.read(go[0], 1)\n"
        "    for _ in range(20): os.stat('/')\n"
        "    os.execv('/bin/true', ['true'])\n"
        "for _ in range(300):\n"
        "    if os.fork() == 0: child()\n"
        "for _ in range(300): os.read(ready[0], 1)\n"
        "os.close(go[1])\n"
        "for _ in range(300): assert os.wait()[1] == 0\n"
    )
    done = Sandbox(deny=["/nonexistent-pinfold"]).run(["/usr/bin/python3", "-I", "-c", script])
    assert done.returncode == 0
    # Two for the first program, and one for each of 300; a signal or a full arena may cost another.
    assert 300 < len(installed) < 450


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    pids = []
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(1)
        pids.append(pid)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_sandboxes_share_the_descriptors_of_their_process(sleepers: list[int]) -> None:
    def body() -> None:
        arena = Arena(0, 4096)
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        before = len(os.listdir("/proc/self/fd"))
        checks = [LiveCheck() for _ in range(4)]
        for check in checks * 2:
            for pid in sleepers:
                assert not check.pinned(pid, arena, BASE)
        # A quarter of what there is, for all of them.
        assert len(os.listdir("/proc/self/fd")) == before + 20
        for check in checks[1:]:
            check.close()
        for pid in sleepers:
            assert not checks[0].pinned(pid, arena, BASE)
        assert len(os.listdir("/proc/self/fd")) == before + 20
        checks[0].close()
        assert len(os.listdir("/proc/self/fd")) == before

    in_fork(body, 60)


def test_a_check_does_with_what_is_left(sleepers: list[int]) -> None:
    def body() -> None:
        arena = Arena(0, 4096)
        check = LiveCheck()
        for pid in sleepers[:2]:
            assert not check.pinned(pid, arena, BASE)
        soft = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        with contextlib.suppress(OSError):
            while os.dup(0):
                continue
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        for pid in sleepers:
            assert not check.pinned(pid, arena, BASE)

    in_fork(body, 60)


def test_processes_that_are_forked_from_many_threads_at_one_time() -> None:
    """The collector stays as it was, and off in the children; so do the filters of warnings."""

    def one() -> None:
        for _ in range(20):
            pid = process.fork()
            if pid == 0:
                os._exit(int(gc.isenabled()))
            statuses.append(os.waitpid(pid, 0)[1])

    def body() -> None:
        before = list(warnings.filters)
        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 320
        assert gc.isenabled()
        assert list(warnings.filters) == before

    statuses: list[int] = []
    in_fork(body, 120)


def test_how_a_seal_is_shown_is_asked_by_many_threads_at_one_time() -> None:
    def one() -> None:
        marks.extend(sealed._seal_mark.__wrapped__() for _ in range(20))

    def body() -> None:
        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(marks) == 320
        assert len(set(marks)) == 1

    marks: list[bytes] = []
    in_fork(body, 120)
