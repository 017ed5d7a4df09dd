"""The keeper: it knows who is in a sandbox, kills all of it, and nobody else.

Its sandbox here has a filter that traps nothing: no kernel has to know the native interface for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pinfold.errors import InternalError
from pinfold.launch import confine, filters, keeper, spawn
from pinfold.launch.keeper import Keeper
from pinfold.launch.spawn import Command, Launched
from pinfold.linux.seccomp import FilterProgram
from tests.kernel import support
from tests.kernel.judged import PYTHON
from tests.kernel.support import PATIENCE, comm, ends, in_fork, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if keeper.lack() is not None:
    pytest.skip(f"no keeper here: {keeper.lack()}", allow_module_level=True)

SCRIPT = """
import os, signal, sys
def leave():
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    print(os.getpid(), flush=True)
    signal.pause()
"""
BOMB = """
import os
print("x", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def both(keeper: Keeper, confinement: confine.Confinement) -> Callable[[], None]:
    def confined() -> None:
        keeper.begin()
        confinement.apply()

    return confined


def fail(_: int) -> None:
    raise ZeroDivisionError


class Sandbox:
    """A command with a keeper, and what it prints."""

    def __init__(self, script: str) -> None:
        self.keeper = Keeper()
        reader, writer = os.pipe()
        with open(os.devnull, "rb") as nothing, confine.prepare((), (), False) as confinement:
            self.launched: Launched = spawn.launch(
                Command(
                    (*map(os.fsencode, PYTHON), os.fsencode(SCRIPT + script)),
                    {},
                    streams=(nothing.fileno(), writer, 2),
                ),
                FilterProgram(filters.assembled({})),
                confine=both(self.keeper, confinement),
                kept=self.keeper.descriptors | {confinement.descriptor},
                ready=lambda _: self.keeper.meet(),
                taken=self.keeper.take,
            )
        os.close(writer)
        self.output = os.fdopen(reader)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.close()
        spawn.abandon(self.launched)
        self.output.close()
        os.close(self.launched.listener)
        os.close(self.launched.pidfd)
        self.launched.channel.close()

    def pid(self) -> int:
        return int(support.next_line(self.output))


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)


def keepers() -> list[int]:
    return [pid for pid in support.descendants(os.getpid()) if comm(pid) == "pinfold-keeper"]


def test_who_belongs_to_it() -> None:
    with Sandbox("leave()\nleave()\nsignal.pause()") as one, Sandbox("leave()\n" * 2) as other:
        ours = [one.pid(), one.pid(), one.launched.pid]
        theirs = [other.pid(), other.pid()]
        assert [one.keeper.refusal(pid) for pid in ours] == [0] * 3
        assert [one.keeper.refusal(pid) for pid in theirs] == [errno.EPERM] * 2
        assert one.keeper.refusal(os.getpid()) == errno.EPERM
        assert one.keeper.refusal(1) == errno.EPERM
        assert one.keeper.refusal((1 << 31) - 1) == errno.ESRCH
        found = keepers()
        assert len(found) == 2
        assert [one.keeper.refusal(pid) for pid in found] == [errno.EPERM] * 2


def test_all_of_it_is_killed_and_nobody_else() -> None:
    with (
        Sandbox("leave()\nleave()\nsignal.pause()") as one,
        Sandbox("leave()\nsignal.pause()") as other,
        contextlib.ExitStack() as stack,
    ):
        killed = [stack.enter_context(watched(pid)) for pid in (one.pid(), one.pid())]
        spared = other.pid()
        one.keeper.end()
        assert all(ends(process, 0) for process in killed)
        assert ends(one.launched.pidfd)
        assert state_of(spared) == "S"
        assert other.keeper.refusal(spared) == 0


def test_a_fork_bomb_is_killed() -> None:
    # In a process of its own: nobody else is to run out of processes.
    def body() -> None:
        import resource

        if os.geteuid() == 0:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(64999, 64999, 64999)
        resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))
        with Sandbox(BOMB) as one:
            support.next_line(one.output)
            one.keeper.end()
            # Comes to its end when nobody has the other one open any more.
            one.output.read()

    in_fork(body, int(PATIENCE))


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_the_end_of_the_supervisor_is_the_end_of_all(how: str) -> None:
    reader, writer = os.pipe()

    def supervise() -> None:
        one = Sandbox("leave()\nleave()\nsignal.pause()")
        pids = [one.pid(), one.pid(), one.launched.pid]
        os.write(writer, (" ".join(map(str, pids)) + "\n").encode())
        if how == "closed":
            # Somebody else has a copy of its end.
            if os.fork() == 0:
                os.read(reader_of_copy, 1)
                os._exit(0)
            os._exit(0)
        signal.pause()

    reader_of_copy, writer_of_copy = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer_of_copy)
            supervise()
        finally:
            os._exit(1)
    try:
        os.close(writer)
        with os.fdopen(reader) as told, contextlib.ExitStack() as stack:
            processes = []
            for pid in map(int, support.next_line(told).split()):
                with contextlib.suppress(ProcessLookupError):
                    processes.append(stack.enter_context(watched(pid)))
            if how == "killed":
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert all(ends(process) for process in processes)
    finally:
        os.close(writer_of_copy)
        os.close(reader_of_copy)


def test_a_keeper_that_is_gone_is_told() -> None:
    with Sandbox("signal.pause()") as one:
        (one_keeper,) = keepers()
        os.kill(one_keeper, signal.SIGKILL)
        assert ends(one.keeper.pidfd)
        with pytest.raises(InternalError, match="keeper has ended"):
            one.keeper.end()


def test_a_keeper_that_is_gone_before_it_read_what_it_was_told() -> None:
    # That is heard in another way (ECONNRESET).
    one = Keeper()
    try:
        with open(os.devnull, "rb") as listener:
            one.take(listener.fileno())
        with pytest.raises(InternalError, match="keeper has ended"):
            one.meet()
    finally:
        one.close()


def test_nobody_inside_reaches_it() -> None:
    script = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        name = open(f"/proc/{{entry}}/comm").read().strip()
    except OSError:
        continue
    if name != "pinfold-keeper":
        continue
    for number in (0, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(int(entry), number)
            print("reached")
        except PermissionError:
            print("refused")
    print("reached" if libc.ptrace(16, int(entry), 0, 0) == 0 else "refused")
    try:
        open(f"/proc/{{entry}}/mem", "rb")
        print("reached")
    except OSError:
        print("refused")
print("end {os.getpid()}", flush=True)
os.kill(-1, 0)
"""
    with Sandbox(script) as one:
        found = []
        while not (line := support.next_line(one.output)).startswith("end"):
            found.append(line)
        assert found == ["refused"] * 6


def test_a_child_that_never_starts_leaves_no_keeper() -> None:
    one = Keeper()
    with (
        pytest.raises(ZeroDivisionError),
        confine.prepare((), (), False) as confinement,
        open(os.devnull, "rb") as nothing,
    ):
        spawn.launch(
            Command((b"/bin/true",), {}, streams=(nothing.fileno(), 1, 2)),
            FilterProgram(filters.assembled({})),
            confine=both(one, confinement),
            kept=one.descriptors | {confinement.descriptor},
            ready=fail,
        )
    one.close()
    assert not keepers()
