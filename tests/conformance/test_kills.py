"""Death at every moment: of the target, of a thread, of the supervisor, of what works for it.

Whoever is left gets an errno, ENOENT for a call that is gone, and gets it soon; nothing is left
behind; and no call is made that nobody judged. Every wait here is bounded, if by nothing else then
by the watchdog of the target: a test that hangs is a test that fails.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import abandon, support
from tests.conformance.blocking import (
    AFTER,
    HAVE_PIN,
    OWN,
    PIN,
    SIGTRAPS,
    STEPS,
    TRAP,
    UNANSWERED,
    Fifo,
    await_call,
    await_sleep,
    blocked,
    install,
    is_own,
    program,
    redirect,
    redirect_and_sleep,
    sleeps_in,
    tracers,
    unless_gone,
    until,
    waits_to_seize,
    with_sigtrap,
)
from tests.conformance.support import BASE, PAGE, PATIENCE, Memory, Target, ends, refused
from tests.kernel import support as processes
from tests.programs import ROOT, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pinfold.listener import Backend, Listener, Notification
    from tests.conformance.blocking import Step

OPEN: Final = NR["open"]
MEMFD: Final = "memfd:pinfold"
ENDED: Final = 7
ROUNDS: Final = 20

every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
sigtraps = pytest.mark.parametrize("sigtrap", SIGTRAPS)
unanswered = pytest.mark.parametrize("step", UNANSWERED, ids=lambda step: step.__name__)


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    """Returns a FIFO without readers or writers."""
    return Fifo.made(tmp_path / "fifo")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/task"))
    yield
    until("every thread ends", lambda: set(os.listdir("/proc/self/task")) <= before)


def told(target: Target) -> dict[str, str]:
    """Returns what the program's next line says."""
    return values(target.line())


def over(listener: Listener, call: Notification, pin: Memory) -> None:
    """Checks that a call is gone, whatever is asked about it."""
    assert not listener.id_valid(call.id)
    for ask in (
        lambda: listener.send_redirect(call.id, {0: BASE}, {0: 1}),
        lambda: listener.send_redirect(call.id, {1: 0}),
        lambda: listener.pin_install(call.id, pin.fd, BASE, pin.size),
        lambda: listener.add_fd(call.id, pin.fd),
        lambda: listener.add_fd(call.id, pin.fd, send=True),
        lambda: listener.send(call.id, error=errno.EPERM),
        lambda: listener.resume(call.id),
        lambda: listener.read(call, call.data.args[0], 1),
        lambda: listener.read_string(call, call.data.args[0]),
    ):
        with refused(errno.ENOENT):
            ask()


def nobody_is_left(listener: Listener) -> None:
    """Checks that no notification will come any more, and that ``receive`` says so."""
    with refused(errno.ENOENT):
        listener.receive(PATIENCE)
    assert list(listener) == []


def holders(what: str) -> dict[int, list[str]]:
    """Returns the processes of pinfold's own that have a file open or mapped, and how."""
    found: dict[int, list[str]] = {}
    for pid in tracers():
        names = []
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                names.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        with open(f"/proc/{pid}/maps") as maps:
            names += [line.strip() for line in maps]
        if held := [name for name in names if what in name]:
            found[pid] = held
    return found


# SIGKILL of the target


def test_a_kill_before_the_call_is_received(backend: Backend) -> None:
    with support.target(backend, program("sig_open", PIN, OWN), TRAP) as target:
        await_call(target)
        target.kill()
        assert target.wait() == -signal.SIGKILL
        nobody_is_left(target.listener)


@every_step
@sigtraps
def test_a_kill_at_every_step(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step, sigtrap: str
) -> None:
    # What a process of pinfold's inherits is not what it is asked about here, but what it gets.
    pin.view.madvise(mmap.MADV_DONTFORK)
    command = with_sigtrap(sigtrap, *program("sig_open", PIN, OWN))
    with support.target(backend, command, TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        target.kill()
        assert target.wait() == -signal.SIGKILL
        over(target.listener, call, pin)
        nobody_is_left(target.listener)
        over(target.listener, call, pin)
        assert holders(MEMFD) == {}


@unanswered
def test_a_kill_that_the_supervisor_overlooks(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    """It goes on at once: what it asks for is done, or the call is gone; then it is gone."""
    with support.target(backend, program("sig_open", PIN, OWN), TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        target.kill()
        with unless_gone():
            if step not in HAVE_PIN:
                install(target.listener, call, pin)
            redirect(target.listener, call, pin, fifo.path)
        assert target.wait() == -signal.SIGKILL
        over(target.listener, call, pin)
        nobody_is_left(target.listener)


def test_a_kill_right_after_the_redirect(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    with support.target(backend, program("sig_open", PIN, OWN), TRAP) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, fifo.path)
        target.kill()
        assert target.wait() == -signal.SIGKILL
        over(target.listener, call, pin)
        nobody_is_left(target.listener)


def test_a_kill_after_everything_was_answered(backend: Backend, pin: Memory) -> None:
    with support.target(backend, program("sig_open", PIN, OWN), TRAP) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, b"/dev/null")
        after = target.receive()
        assert is_own(after, AFTER, target)
        over(target.listener, call, pin)
        target.kill()
        assert target.wait() == -signal.SIGKILL
        over(target.listener, after, pin)
        nobody_is_left(target.listener)


class Killer(threading.Thread):
    """Kills processes that make calls, each at a random moment after one of its calls was seen.

    On a machine that is slow at serving calls it waits until there are two served ones for a kill.

    Args:
        seed: Of the randomness.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._seen: dict[int, int] = {}
        self._told = threading.Event()
        self.kills = 0
        self.served = 0

    def saw(self, process: int, call: int) -> None:
        """Makes a process eligible."""
        self._seen[process] = call

    def run(self) -> None:
        """Kills, until told to end."""
        while not self._told.wait(self._random.uniform(0, 0.02)):
            alive = list(self._seen)
            if alive and self.served >= 2 * self.kills:
                victim = self._random.choice(alive)
                del self._seen[victim]
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1

    def end(self) -> None:
        """Ends it."""
        self._told.set()
        self.join()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("threads", [1, 3])
def test_two_hundred_kills_at_random(
    backend: Backend, pin: Memory, request: pytest.FixtureRequest, threads: int
) -> None:
    """Under load, in four processes at a time. Nothing is left of them, and the listener works."""
    deaths, at_once = 200, 4
    seed = random.randrange(1 << 32)
    request.node.user_properties.append(("seed", seed))
    killer = Killer(seed)
    length = pin.put(b"/dev/null")
    pin.view.madvise(mmap.MADV_DONTFORK)
    errors: dict[int, int] = {}
    command = program("kill_loop", str(at_once), str(threads), str(deaths), OWN)
    with support.target(backend, command, TRAP) as target:
        assert told(target)["ready"] == str(target.pid)
        groups: dict[int, int] = {}

        def serve(call: Notification) -> None:
            process = groups.setdefault(call.pid, _process_of(call.pid))
            if process == target.pid:
                # The last call of all.
                install(target.listener, call, pin)
                target.listener.send_redirect(call.id, {0: BASE}, {0: length})
                return
            if process:
                killer.saw(process, call.id)
            try:
                try:
                    target.listener.send_redirect(call.id, {0: BASE}, {0: length})
                except OSError as error:
                    if error.errno != errno.EFAULT:
                        raise
                    # Its memory is new; or another of its threads was first.
                    install(target.listener, call, pin)
                    target.listener.send_redirect(call.id, {0: BASE}, {0: length})
                killer.served += 1
            except OSError as error:
                number = error.errno or 0
                errors[number] = errors.get(number, 0) + 1

        killer.start()
        try:
            seen = target.finish(answer=serve)
        finally:
            killer.end()
        assert seen["after.result"] == "0", seed
        assert holders(MEMFD) == {}
        for pid in tracers():
            # Its own, and nothing of 200 dead processes.
            assert len(os.listdir(f"/proc/{pid}/fd")) < 16, seed
    assert errors.keys() <= {errno.ENOENT}, (seed, errors)
    assert killer.kills >= deaths
    assert killer.served > deaths


def _process_of(tid: int) -> int:
    # 0 when it is gone.
    try:
        with open(f"/proc/{tid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Tgid"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


@every_step
def test_a_process_id_that_is_used_again(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    """Nothing that is asked about the dead call reaches its namesake."""
    with support.target(backend, program("kill_reuse", OWN), TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(call.pid, signal.SIGKILL)
        second = int(told(target)["second"])
        if second in (-errno.EPERM, -errno.ENOSYS):
            pytest.skip("choosing a process id (clone3 with set_tid) is not permitted here")
        assert second == call.pid
        await_sleep(second, NR["epoll_wait"])
        for _ in range(3):
            over(target.listener, call, pin)
        assert sleeps_in(second, NR["epoll_wait"])
        target.go()
        seen = target.finish()
    assert seen["wait.result"] == "1"
    assert seen["status"] == "0"


# Threads that end or execute while another one's call is judged


@every_step
def test_a_sibling_ends_the_process(backend: Backend, pin: Memory, fifo: Fifo, step: Step) -> None:
    with support.target(backend, program("kill_threads", "exit", OWN), TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        target.go()
        assert target.wait() == ENDED
        over(target.listener, call, pin)
        nobody_is_left(target.listener)
        assert target.finish(ENDED).get("call.result") is None


@every_step
@sigtraps
@pytest.mark.parametrize("who", ["exec", "exec_thread", "exec_over"])
def test_a_sibling_executes_a_program(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step, who: str, sigtrap: str
) -> None:
    """The call is gone, with its thread and all pins; the new program's call is another one."""
    command = with_sigtrap(sigtrap, *program("kill_threads", who, OWN))
    with support.target(backend, command, TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        target.go()
        second = target.receive()
        assert second.pid == target.pid
        assert is_own(second, AFTER, target)
        over(target.listener, call, pin)
        with refused(errno.EFAULT):
            target.listener.send_redirect(second.id, {0: BASE}, {0: 1})
        install(target.listener, second, pin)
        redirect(target.listener, second, pin, b"/dev/null")
        seen = target.finish()
    assert seen.get("call.result") is None
    assert seen.get("registers") is None
    assert seen["again.result"] == "0"
    assert seen["again.pid"] == str(target.pid)
    assert seen["again.leader"] == "1"


@contextlib.contextmanager
def held_up(file: Path) -> Iterator[None]:
    """Has whoever opens a file wait for the end of the block (a lease, ``fcntl(2)``)."""
    before = signal.signal(signal.SIGIO, lambda *_: None)
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="what a tracer waits for is root's to see")
def test_an_exec_waits_for_one_thread_while_another_is_redirected(
    backend: Backend, pin: Memory, fifo: Fifo, tmp_path: Path
) -> None:
    """To seize one waits for the exec, and that waits until somebody has reaped the other."""
    interpreter = tmp_path / "interpreter"
    shutil.copy("/bin/true", interpreter)
    script = tmp_path / "script"
    script.write_text(f"#!{interpreter}\n")
    script.chmod(0o755)
    outcome: list[int] = []

    def ask(target: Target, call: Notification) -> None:
        try:
            redirect(target.listener, call, pin, b"/dev/null", PAGE)
            outcome.append(0)
        except OSError as error:
            outcome.append(error.errno or 0)

    with support.target(backend, program("kill_seized", str(script), OWN), TRAP) as target:
        blocked(target.listener, target.receive(), pin, fifo)
        with held_up(interpreter):
            target.go()
            await_sleep(target.pid, NR["execve"])
            target.go()
            asking = threading.Thread(target=ask, args=(target, target.receive()))
            asking.start()
            until(
                "the tracer waits for the exec, or there is none",
                lambda: bool(outcome) or any(map(waits_to_seize, tracers())),
            )
        asking.join(PATIENCE)
        target.finish()
    assert outcome == [errno.ENOENT if backend == "interrupt" else 0]


@pytest.mark.parametrize("how", ["returns", "blocks"])
def test_a_redirected_thread_ends(backend: Backend, pin: Memory, fifo: Fifo, how: str) -> None:
    with support.target(backend, program("kill_threads", "leave", OWN), TRAP) as target:
        call = target.receive()
        assert call.pid != target.pid
        install(target.listener, call, pin)
        if how == "blocks":
            redirect_and_sleep(target.listener, call, pin, fifo)
            fifo.release()
        else:
            redirect(target.listener, call, pin, b"/dev/null")
        after = target.receive()
        assert after.pid == target.pid
        over(target.listener, call, pin)
        redirect(target.listener, after, pin, b"/dev/null")
        seen = target.finish()
    assert seen["call.result"] == seen["after.result"] == "0"
    assert seen["joined"] == "1"
    assert seen.get("registers") is None


# The supervisor gives up its listener, or dies


@every_step
def test_closing_the_listener(backend: Backend, pin: Memory, fifo: Fifo, step: Step) -> None:
    """What is unanswered gets ENOSYS; what was redirected ends in its own time."""
    with support.target(backend, program("sig_open", PIN, OWN, "none"), TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        target.listener.close()
        if step is blocked:
            assert sleeps_in(call.pid, OPEN, BASE)
            fifo.release()
        assert target.wait() == 0
        lines = [told(target) for _ in range(3)]
        until("the tracer ends", lambda: not tracers())
    seen = lines[0] | lines[1] | lines[2]
    assert seen["call.result"] == ("0" if step is blocked else str(-errno.ENOSYS))
    assert seen["after.result"] == str(-errno.ENOSYS)
    assert seen["call.registers"] == seen["after.registers"] == "ok"


def test_closing_the_listener_while_a_redirected_call_blocks(
    backend: Backend, pin: Memory, fifo: Fifo
) -> None:
    """It keeps nobody else waiting: whatever else is pending gets ENOSYS at once."""
    count = 5
    with support.target(backend, program("sig_threads", str(count), OWN), TRAP) as target:
        calls = [target.receive() for _ in range(count - 1)]
        blocked(target.listener, calls[0], pin, fifo)
        with refused(errno.EEXIST):
            install(target.listener, calls[1], pin)
        with refused(errno.EFAULT):
            target.listener.send_redirect(calls[2].id, {0: BASE + pin.size}, {0: 1})
        await_call(target)
        target.listener.close()
        seen: dict[str, str] = {}
        while sum(key.endswith(".result") for key in seen) < count - 1:
            seen |= told(target)
        assert {value for key, value in seen.items() if key.endswith(".result")} == {
            str(-errno.ENOSYS)
        }
        assert sleeps_in(calls[0].pid, OPEN, BASE)
        fifo.release()
        assert target.wait() == 0
        last = told(target)
        until("the tracer ends", lambda: not tracers())
    assert sorted(last.values()) == ["0", "0", "ok"]


class Abandoned:
    """A target, and a supervisor of it that is a process of its own, ready to be killed.

    Args:
        target: The program; its death is the end of the test.
        supervisor: The process.
    """

    def __init__(
        self, target: subprocess.Popen[bytes], supervisor: subprocess.Popen[bytes]
    ) -> None:
        self.target = target
        self.supervisor = supervisor

    def kill(self) -> None:
        """Kills the supervisor."""
        self.supervisor.kill()
        assert ends(self.supervisor.pid)
        self.supervisor.wait()

    def end(self, fifo: Fifo | None = None) -> tuple[int, dict[str, str]]:
        """Waits for the end of the target and of every helper; returns its status and output."""
        if fifo is not None:
            fifo.release()
        assert ends(self.target.pid), "the target did not end"
        helpers = tracers()
        for helper in helpers:
            assert ends(helper), f"{helper} of {helpers} did not end"
        assert self.target.stdout is not None
        output = os.fsdecode(self.target.stdout.read())
        return self.target.wait(), values(output)


@contextlib.contextmanager
def abandoned(
    backend: Backend, command: tuple[str, ...], step: str, calls: int, fifo: Fifo
) -> Iterator[Abandoned]:
    """Starts a target and a supervisor; waits until that has gone as far as ``step``."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            target = support.launch(theirs, command, TRAP)
        channel, far = socket.socketpair()
        try:
            with channel:
                with far:
                    arguments = (backend, step, str(calls), os.fsdecode(fifo.path))
                    supervisor = subprocess.Popen(
                        [sys.executable, "-m", abandon.__name__, str(far.fileno()), *arguments],
                        pass_fds=(far.fileno(),),
                        cwd=ROOT,
                    )
                try:
                    ours.settimeout(PATIENCE)
                    channel.settimeout(PATIENCE)
                    _, received, _, _ = socket.recv_fds(ours, 1, 1)
                    socket.send_fds(channel, [b"L"], received)
                    # Ours would keep it open.
                    os.close(received[0])
                    assert channel.recv(1) == abandon.READY
                    yield Abandoned(target, supervisor)
                finally:
                    supervisor.kill()
                    supervisor.wait()
        finally:
            target.kill()
            with target:
                pass


def closed_or_killed(status: int, result: str | None) -> None:
    """Checks what became of a call that nobody answered: it was not made."""
    assert (status, result) in ((0, str(-errno.ENOSYS)), (-signal.SIGKILL, None))


@unanswered
def test_the_supervisor_is_killed(backend: Backend, fifo: Fifo, step: Step) -> None:
    command = program("sig_open", PIN, OWN, "none")
    with abandoned(backend, command, step.__name__, 1, fifo) as both:
        both.kill()
        status, seen = both.end()
    closed_or_killed(status, seen.get("call.result"))
    if status == 0:
        assert seen["call.registers"] == seen["after.registers"] == "ok"
        assert seen["after.result"] == str(-errno.ENOSYS)


def test_the_supervisor_is_killed_while_a_redirected_call_blocks(
    backend: Backend, fifo: Fifo
) -> None:
    """The call was judged, and may end; or its program is killed. The next one was not."""
    command = program("sig_open", PIN, OWN, "none")
    with abandoned(backend, command, "blocked", 1, fifo) as both:
        both.kill()
        pid = both.target.pid
        alive = processes.alive(pid) and sleeps_in(pid, OPEN, BASE)
        status, seen = both.end(fifo if alive else None)
    assert (status, seen.get("call.result")) in ((0, "0"), (-signal.SIGKILL, None))
    if status == 0:
        assert seen["call.registers"] == "ok"
        assert seen["after.result"] == str(-errno.ENOSYS)


@every_step
def test_the_supervisor_is_killed_with_several_calls(
    backend: Backend, fifo: Fifo, step: Step
) -> None:
    """One call is as far as ``step``, one is received, and two are pending."""
    count = 4
    command = program("sig_threads", str(count), OWN)
    with abandoned(backend, command, step.__name__, 2, fifo) as both:
        both.kill()
        if step is blocked:
            # The blocked call must not keep the others waiting: they end first, or all are killed.
            until(
                "the other calls end",
                lambda: not processes.alive(both.target.pid) or _threads(both.target.pid) == 2,
            )
        alive = processes.alive(both.target.pid)
        status, seen = both.end(fifo if step is blocked and alive else None)
    results = sorted(value for key, value in seen.items() if key.endswith(".result"))
    if status == 0:
        judged = ["0"] if step is blocked else []
        assert results == [str(-errno.ENOSYS)] * (count - len(judged)) + judged
        assert {value for key, value in seen.items() if key.endswith(".registers")} == {"ok"}
    else:
        assert status == -signal.SIGKILL
        assert set(results) <= {str(-errno.ENOSYS)}


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


# What works for the supervisor dies


def kill_the_tracer() -> None:
    """Kills the one process that the interrupt back end has started."""
    (tracer,) = tracers()
    os.kill(tracer, signal.SIGKILL)
    assert ends(tracer)
    reap(tracer)


def reap(tracer: int) -> None:
    """Reaps an orphan that was handed to us, unless it was not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(tracer, 0)


def only_with_a_tracer(backend: Backend) -> None:
    if backend != "interrupt":
        pytest.skip(f"the back end {backend} has no processes of its own")


def lost(listener: Listener, call: Notification, pin: Memory) -> None:
    """Checks that nothing can be pinned or redirected any more, and that it is said at once."""
    for _ in range(2):
        with refused(errno.EIO, errno.ENOENT):
            listener.pin_install(call.id, pin.fd, BASE + pin.size, pin.size)
        with refused(errno.EIO, errno.ENOENT):
            listener.send_redirect(call.id, {0: BASE}, {0: 1})


@pytest.mark.parametrize("step", [*HAVE_PIN, STEPS[3]], ids=lambda step: step.__name__)
def test_the_tracer_is_killed(backend: Backend, pin: Memory, fifo: Fifo, step: Step) -> None:
    """The kernel kills what it had stopped; what waits in a notification gets an answer."""
    only_with_a_tracer(backend)
    with support.target(backend, program("sig_open", PIN, OWN, "none"), TRAP) as target:
        call = target.receive()
        step(target.listener, call, pin, fifo)
        kill_the_tracer()
        lost(target.listener, call, pin)
        try:
            target.listener.send(call.id, error=errno.EPERM)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.ENOENT)  # noqa: PT017 (both are right)
            assert target.wait() == -signal.SIGKILL
            return
        try:
            after = target.receive()
        except FileNotFoundError:
            # The answer was taken by a task that had been killed already.
            assert target.wait() == -signal.SIGKILL
            return
        lost(target.listener, after, pin)
        target.listener.send(after.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["call.result"] == str(-errno.EPERM)
    assert seen["after.result"] == str(-errno.EXDEV)


def test_the_tracer_is_killed_while_it_has_nothing_to_do(
    backend: Backend, pin: Memory, fifo: Fifo
) -> None:
    """Calls can be received and answered as before, but not pinned or redirected."""
    only_with_a_tracer(backend)
    with support.target(backend, program("sig_open", PIN, OWN, "none"), TRAP) as target:
        call = target.receive()
        install(target.listener, call, pin)
        redirect(target.listener, call, pin, b"/dev/null")
        after = target.receive()
        kill_the_tracer()
        lost(target.listener, after, pin)
        assert target.listener.id_valid(after.id)
        target.listener.send(after.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["call.result"] == "0"
    assert seen["after.result"] == str(-errno.EXDEV)
    assert fifo.path


@pytest.mark.timeout(200)
def test_the_tracer_is_killed_under_load(backend: Backend, pin: Memory) -> None:
    """Whatever the supervisor is waiting for at that moment, it does not wait for ever."""
    only_with_a_tracer(backend)
    length = pin.put(b"/dev/null")
    for number in range(ROUNDS):
        redirects = 0
        with support.target(backend, program("kill_loop", "0", "4", "0", OWN), TRAP) as target:
            call = target.receive()
            install(target.listener, call, pin)
            (tracer,) = tracers()
            timer = threading.Timer(number * 0.005, os.kill, (tracer, signal.SIGKILL))
            timer.start()
            end = time.monotonic() + PATIENCE
            found = 0
            while not found:
                assert time.monotonic() < end
                try:
                    target.listener.send_redirect(call.id, {0: BASE}, {0: length})
                    redirects += 1
                    call = target.receive()
                except OSError as error:
                    found = error.errno or 0
            timer.join()
            assert found in (errno.EIO, errno.ENOENT), (number, redirects)
            target.kill()
            assert target.wait() == -signal.SIGKILL
            assert [one.id for one in target.listener if target.listener.id_valid(one.id)] == []
        reap(tracer)
