"""Signals and redirected calls: an interrupted one behaves as the call of the program's own would.

The oracle is the kernel without a redirect: EINTR or a new call after a handler, the remaining time
after a stop, a frame with the program's own registers. What traps again is a new notification with
the original arguments.

There are more tests of calls that are not redirected yet than one would think necessary: a back end
may have taken such a call out of its notification, and signals must not notice.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.linux import process
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.seccomp import SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
from tests.conformance import support
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
    block,
    blocked,
    go_on,
    gone,
    install,
    is_own,
    let_after_pass,
    program,
    queue_signal,
    redirect,
    redirect_and_sleep,
    sleeps_in,
    stop,
    unless_gone,
    until,
    with_sigtrap,
)
from tests.conformance.support import BASE, PAGE, Memory, Target, refused
from tests.kernel.support import state_of
from tests.programs import values

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from pinfold.listener import Backend, Notification
    from tests.conformance.blocking import Step

OPEN: Final = NR["open"]
ROUNDS: Final = 20
QUEUED: Final = 4711
SI_USER: Final = 0
SI_QUEUE: Final = -1
SI_TKILL: Final = -6


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    """Returns a FIFO without readers or writers."""
    return Fifo.made(tmp_path / "fifo")


@pytest.fixture(params=SIGTRAPS)
def sigtrap(request: pytest.FixtureRequest) -> str:
    """Returns what the program does about SIGTRAP."""
    name: str = request.param
    return name


def opening(
    backend: Backend, *words: str, flags: int = 0, sigtrap: str = "plain"
) -> contextlib.AbstractContextManager[Target]:
    """Starts the program that makes one open() and tells what signals did to it."""
    command = with_sigtrap(sigtrap, *program("sig_open", PIN, OWN, *words))
    return support.target(backend, command, TRAP, flags)


def told(target: Target) -> dict[str, str]:
    """Returns what the program's next line says."""
    return values(target.line())


def begun(target: Target) -> None:
    """Waits until the program has set its handlers."""
    assert told(target) == {"ready": str(target.pid)}


def hit(target: Target, number: int, *, rewound: bool, mask: int = 0) -> dict[str, str]:
    """Waits for a handler to run; checks that its frame holds the program's own registers.

    Args:
        target: The program.
        number: Of the handler's run, from 1.
        rewound: Whether the call is made again when the handler returns.
        mask: What is blocked then, besides SIGTRAP.
    """
    found = {key.partition(".")[2]: value for key, value in told(target).items()}
    wanted = {"pins": "0", "in_call": "1", "own": "1", "stepping": "0", "rewound": f"{rewound:d}"}
    assert {key: found[key] for key in wanted} == wanted, number
    assert int(found["mask"], 16) & ~_bit(signal.SIGTRAP) == mask
    return found


def _bit(number: int) -> int:
    return 1 << (number - 1)


def interrupted(seen: dict[str, str]) -> None:
    """Checks that the call ended with EINTR, and left the registers alone."""
    assert seen["call.result"] == str(-errno.EINTR)
    assert seen["call.registers"] == "ok"


def opened(seen: dict[str, str]) -> None:
    """Checks that the call opened the FIFO, and left the registers alone."""
    assert seen["call.result"] == "0"
    assert seen["call.registers"] == "ok"
    assert seen["call.byte"] == "R"


def again(target: Target, call: Notification) -> Notification:
    """Receives a call that was interrupted: a new notification with the program's own arguments."""
    second = target.receive()
    assert second.id != call.id
    assert second.pid == call.pid
    assert second.data == call.data
    assert is_own(second, OWN, target)
    return second


def over(target: Target, call: Notification) -> None:
    """Checks that a call is gone: nothing can be done to it any more."""
    assert not target.listener.id_valid(call.id)
    with refused(errno.ENOENT):
        target.listener.send_redirect(call.id, {0: BASE}, {0: 1})
    with refused(errno.ENOENT):
        target.listener.resume(call.id)


def complete(target: Target, call: Notification, pin: Memory, fifo: Fifo) -> dict[str, str]:
    """Redirects a call to the FIFO, has it end, and returns what the program printed."""
    redirect_and_sleep(target.listener, call, pin, fifo)
    fifo.release()
    let_after_pass(target)
    return target.finish()


steps = pytest.mark.parametrize("step", UNANSWERED, ids=lambda step: step.__name__)
every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
hows = pytest.mark.parametrize("how", ["eintr", "restart"])


def words_for(how: str) -> tuple[str, ...]:
    return ("restart",) if how == "restart" else ()


# Handlers


def test_a_handler_ends_a_redirected_call(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        frame = hit(target, 1, rewound=False)
        assert frame["code"] == str(SI_USER)
        assert frame["sender"] == str(os.getpid())
        over(target, call)
        let_after_pass(target)
        seen = target.finish()
    interrupted(seen)
    assert seen["call.hits"] == "1"
    assert seen["after.result"] == str(-errno.ENOENT)


def test_a_restarting_handler_has_the_call_trap_again(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, "restart", sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        for number in range(1, ROUNDS + 1):
            os.kill(target.pid, signal.SIGUSR1)
            hit(target, number, rewound=True)
            over(target, call)
            call = again(target, call)
            redirect_and_sleep(target.listener, call, pin, fifo)
        fifo.release()
        let_after_pass(target)
        seen = target.finish()
    opened(seen)
    assert seen["call.hits"] == str(ROUNDS)


def test_an_interrupted_call_may_be_answered_otherwise(
    backend: Backend, pin: Memory, fifo: Fifo
) -> None:
    """The second verdict is a verdict of its own: nothing of the first one stays."""
    with opening(backend, "restart") as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        hit(target, 1, rewound=True)
        target.listener.resume(again(target, call).id)
        let_after_pass(target)
        seen = target.finish()
    assert seen["call.result"] == str(-errno.ENOENT)
    assert seen["call.registers"] == "ok"


def test_a_handler_that_never_returns(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, "jump", sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        hit(target, 1, rewound=False)
        over(target, call)
        after = target.receive()
        assert is_own(after, AFTER, target)
        redirect(target.listener, after, pin, b"/dev/null")
        seen = target.finish()
    assert seen["call.result"] == "landed"
    assert seen["after.result"] == "0"
    assert seen["after.registers"] == "ok"


def test_a_handler_on_a_stack_of_its_own(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    with opening(backend, "altstack", "restart") as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        assert hit(target, 1, rewound=True)["aside"] == "1"
        opened(complete(target, again(target, call), pin, fifo))


def test_handlers_that_make_redirected_calls(
    backend: Backend, pin: Memory, tmp_path: Path, sigtrap: str
) -> None:
    """Three redirected calls of one thread, each blocked in a handler on top of the one before."""
    fifos = [Fifo.made(tmp_path / name) for name in ("outer", "middle", "inner")]
    places = [0, PAGE, 2 * PAGE]
    masks = [0, 0, _bit(signal.SIGUSR1)]
    with opening(backend, "restart", "nested", sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifos[0])
        for depth, number in enumerate((signal.SIGUSR1, signal.SIGRTMIN), start=1):
            os.kill(target.pid, number)
            hit(target, depth, rewound=True, mask=masks[depth])
            call = again(target, call)
            redirect(target.listener, call, pin, fifos[depth].path, places[depth])
            await_sleep(call.pid, OPEN, BASE + places[depth])
        for depth in (2, 1):
            fifos[depth].release()
            assert told(target) == {
                f"nested{depth}.result": "0",
                f"nested{depth}.registers": "ok",
            }
            call = again(target, call)
            redirect(target.listener, call, pin, fifos[depth - 1].path, places[depth - 1])
            await_sleep(call.pid, OPEN, BASE + places[depth - 1])
        fifos[0].release()
        let_after_pass(target)
        opened(target.finish())


# Signals that meet a call before it is redirected


@steps
@hows
def test_a_signal_before_the_redirect(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step, how: str
) -> None:
    with opening(backend, *words_for(how)) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        # The handler runs although nobody asks for anything.
        hit(target, 1, rewound=how == "restart")
        over(target, call)
        if how == "restart":
            call = again(target, call)
            if step not in HAVE_PIN:
                install(target.listener, call, pin)
            opened(complete(target, call, pin, fifo))
        else:
            let_after_pass(target)
            interrupted(target.finish())


@steps
def test_a_signal_that_the_supervisor_overlooks(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    """It goes on as if nothing had come: either the call is gone, or it meets the signal now."""
    with opening(backend) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        with unless_gone():
            if step not in HAVE_PIN:
                install(target.listener, call, pin)
            redirect(target.listener, call, pin, fifo.path)
        hit(target, 1, rewound=False)
        over(target, call)
        let_after_pass(target)
        interrupted(target.finish())


@pytest.mark.parametrize("kept", [False, True], ids=["untouched", "refused"])
def test_signals_and_redirects_at_once(
    backend: Backend, pin: Memory, fifo: Fifo, kept: bool
) -> None:
    with opening(backend, "restart") as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        for number in range(1, ROUNDS + 1):
            hit(target, number, rewound=True)
            call = once_more(target)
            if kept:
                with refused(errno.EFAULT):
                    target.listener.send_redirect(call.id, {0: BASE + pin.size}, {0: 1})
            os.kill(target.pid, signal.SIGUSR1)
            with unless_gone():
                redirect(target.listener, call, pin, fifo.path)
        hit(target, ROUNDS + 1, rewound=True)
        redirected = False
        while not redirected:
            call = once_more(target)
            with unless_gone():
                redirect(target.listener, call, pin, fifo.path)
                redirected = True
        await_sleep(call.pid, OPEN, BASE)
        fifo.release()
        let_after_pass(target)
        opened(target.finish())


def once_more(target: Target) -> Notification:
    """Receives the call that was interrupted.

    A back end that set about stopping the task when the signal came may interrupt it once more.
    """
    while True:
        call = target.receive()
        with unless_gone():
            assert is_own(call, OWN, target)
            return call


def test_a_signal_before_the_call_is_received(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    with opening(backend, "restart") as target:
        begun(target)
        await_call(target)
        os.kill(target.pid, signal.SIGUSR1)
        hit(target, 1, rewound=True)
        call = target.receive()
        install(target.listener, call, pin)
        opened(complete(target, call, pin, fifo))


def test_an_ending_signal_before_the_call_is_received(
    backend: Backend, pin: Memory, fifo: Fifo
) -> None:
    """It ends the call with EINTR, as on every listener; the later native revision knows better.

    There the call has not begun yet: the handler comes first, and the call traps again.
    """
    with opening(backend) as target:
        begun(target)
        await_call(target)
        begins_anew = support.names_memfd(backend, target.listener)
        os.kill(target.pid, signal.SIGUSR1)
        hit(target, 1, rewound=begins_anew)
        if begins_anew:
            call = target.receive()
            install(target.listener, call, pin)
            opened(complete(target, call, pin, fifo))
        else:
            let_after_pass(target)
            interrupted(target.finish())


def test_what_is_asked_of_a_call_that_is_gone_disturbs_nobody(
    backend: Backend, pin: Memory
) -> None:
    """The thread sits in another call by now, one that would notice."""
    with support.target(backend, program("sig_stale", OWN), TRAP) as target:
        begun(target)
        call = target.receive()
        os.kill(target.pid, signal.SIGUSR1)
        assert told(target)["call.result"] == str(-errno.EINTR)
        await_sleep(target.pid, NR["epoll_wait"])
        for _ in range(3):
            with refused(errno.ENOENT):
                target.listener.pin_install(call.id, pin.fd, BASE, pin.size)
            over(target, call)
        assert sleeps_in(target.pid, NR["epoll_wait"])
        target.go()
        seen = target.finish()
    assert seen["wait.result"] == "1"


@steps
def test_a_fatal_signal_before_the_redirect(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    """SIGTERM without a handler ends the program, whatever its supervisor is thinking about."""
    with opening(backend) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGTERM)
        assert target.wait() == -signal.SIGTERM
        over(target, call)


def test_a_fatal_signal_in_a_redirected_call(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGTERM)
        assert target.wait() == -signal.SIGTERM
        over(target, call)


def test_a_signal_that_is_ignored_by_default(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    """The program cannot tell; its supervisor may see the call again, as after a stop."""
    with opening(backend, sigtrap=sigtrap) as target:
        begun(target)
        block(target, pin, fifo)
        os.kill(target.pid, signal.SIGWINCH)
        # The signal is taken, or was never kept: then the call sleeps again, or still.
        until("SIGWINCH is taken", lambda: not _pending(target.pid, signal.SIGWINCH))
        while not (sleeps_in(target.pid, OPEN, BASE) and not _trapped(target)):
            if _trapped(target):
                redirect(target.listener, target.receive(), pin, fifo.path)
        fifo.release()
        let_after_pass(target)
        seen = target.finish()
    opened(seen)
    assert seen["call.hits"] == "0"


def test_an_ignored_signal_in_a_call_that_is_never_made_again(
    backend: Backend, pin: Memory, request: pytest.FixtureRequest
) -> None:
    """Such a call ends with EINTR at whatever it notices; it should not notice this."""
    if backend == "interrupt":
        request.applymarker(
            pytest.mark.xfail(
                strict=True, reason="a traced task wakes up for signals that it ignores"
            )
        )
    with support.target(
        backend, program("sig_sleep", PIN, "sigtimedwait"), ("rt_sigtimedwait",)
    ) as target:
        begun(target)
        call = target.receive()
        install(target.listener, call, pin)
        pin.view[:16] = (20 * SECONDS).to_bytes(16, "little")
        target.listener.send_redirect(call.id, {2: BASE}, {2: 16})
        await_sleep(call.pid, NR["rt_sigtimedwait"])
        os.kill(target.pid, signal.SIGWINCH)
        until("SIGWINCH is taken", lambda: not _pending(target.pid, signal.SIGWINCH))
        os.kill(target.pid, signal.SIGUSR1)
        seen = target.finish()
    waited(seen, "sigtimedwait", signal.SIGUSR1)


def test_a_parent_is_told_of_no_stops(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    """We are the parent, and wait for stops as a shell does: a back end's are none of ours."""
    with opening(backend) as target:
        begun(target)
        block(target, pin, fifo)
        everything = os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        assert os.waitid(os.P_PID, target.pid, everything) is None
        fifo.release()
        after = target.receive()
        assert os.waitid(os.P_PID, target.pid, everything) is None
        redirect(target.listener, after, pin, b"/dev/null")
        opened(target.finish())


def _pending(pid: int, number: int) -> bool:
    return any(
        int(process.status_field(pid, name) or b"0", 16) & _bit(number)
        for name in (b"SigPnd", b"ShdPnd")
    )


def _trapped(target: Target) -> bool:
    return bool(select.select([target.listener.fileno()], [], [], 0)[0])


# What comes with a signal


@every_step
def test_the_value_of_a_queued_signal(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    with opening(backend) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        queue_signal(target.pid, signal.SIGRTMIN, QUEUED)
        # Parked calls take it when they are redirected, if not before.
        with unless_gone():
            if step is not blocked:
                if step not in HAVE_PIN:
                    install(target.listener, call, pin)
                redirect(target.listener, call, pin, fifo.path)
        frame = hit(target, 1, rewound=False)
        let_after_pass(target)
        interrupted(target.finish())
    assert frame["value"] == str(QUEUED)
    assert frame["code"] == str(SI_QUEUE)
    assert frame["sender"] == str(os.getpid())


def test_queued_signals_come_in_order(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    """Several are pending at once while the call is parked; each keeps its own value."""
    with opening(backend, "restart") as target:
        begun(target)
        call = target.receive()
        install(target.listener, call, pin)
        for value in range(ROUNDS):
            queue_signal(target.pid, signal.SIGRTMIN, value)
        with unless_gone():
            redirect(target.listener, call, pin, fifo.path)
        found = []
        for number in range(1, ROUNDS + 1):
            line = {key.partition(".")[2]: value for key, value in told(target).items()}
            assert line["pins"] == line["stepping"] == "0", number
            found.append(int(line["value"]))
        assert found == list(range(ROUNDS))
        # Between two of them the call may have trapped, and been interrupted before anyone looked.
        call = again(target, call)
        opened(complete(target, call, pin, fifo))


@every_step
def test_blocked_signals_stay_blocked(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    sent = (signal.SIGUSR1, signal.SIGTERM, signal.SIGTRAP, signal.SIGRTMIN)
    with support.target(backend, program("sig_mask", OWN), TRAP) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        for number in sent[:-1]:
            os.kill(target.pid, number)
        queue_signal(target.pid, signal.SIGRTMIN, QUEUED)
        if step is not blocked:
            if step not in HAVE_PIN:
                install(target.listener, call, pin)
            redirect_and_sleep(target.listener, call, pin, fifo)
        fifo.release()
        seen = target.finish()
    assert seen["call.result"] == "0"
    assert seen["call.registers"] == "ok"
    assert seen["call.hits"] == "0"
    assert seen["call.same_mask"] == "1"
    assert int(seen["call.pending"], 16) == sum(_bit(number) for number in sent)
    assert seen["end.hits"] == str(len(sent))
    assert seen["end.pending"] == "0"
    hits = {seen[f"hit{n}.signal"]: n for n in range(1, len(sent) + 1)}
    assert hits.keys() == {str(int(number)) for number in sent[:-1]} | {"0"}
    assert seen[f"hit{hits['0']}.value"] == str(QUEUED)
    assert seen[f"hit{hits['0']}.code"] == str(SI_QUEUE)


# SIGTRAP


@pytest.mark.parametrize("what", ["default", "ignore", "block", "handler"])
def test_sigtrap_is_the_program_s_own(backend: Backend, pin: Memory, what: str) -> None:
    calls = 50
    length = pin.put(b"/dev/null")
    installed = False
    with support.target(backend, program("sig_trap", str(calls), what), TRAP) as target:

        def answer(call: Notification) -> None:
            nonlocal installed
            if not installed:
                install(target.listener, call, pin)
                installed = True
            target.listener.send_redirect(call.id, {0: BASE}, {0: length})

        seen = target.finish(answer=answer)
    assert seen["calls.failures"] == seen["calls.bad_registers"] == seen["calls.hits"] == "0"
    assert seen["calls.same_action"] == "1"
    assert seen["mask.ignored"] == f"{what == 'ignore':d}"
    assert seen["mask.caught"] == f"{what in ('handler', 'block'):d}"
    assert seen["mask.blocked"] == f"{what == 'block':d}"
    assert seen["mask.pending"] == "0"
    assert seen["scratch.next"] == "1"
    assert seen["scratch.stepping"] == "0"
    real = "1" if what in ("handler", "block") else "0"
    assert seen["real.breakpoint"] == seen["real.ourselves"] == real


@pytest.mark.parametrize("what", ["ignore", "handler", "block"])
def test_a_sigtrap_that_somebody_sends(
    backend: Backend, pin: Memory, fifo: Fifo, what: str
) -> None:
    """While the call is blocked: a back end that steps must not take it for its own."""
    with support.target(backend, program("sig_trap", "1", what), TRAP) as target:
        begun(target)
        call = block(target, pin, fifo)
        os.kill(target.pid, signal.SIGTRAP)
        if what == "handler":
            target.listener.send(target.receive().id, error=errno.EXDEV)
        else:
            if what == "ignore":
                until("SIGTRAP is taken", lambda: not _pending(target.pid, signal.SIGTRAP))
            while not (sleeps_in(target.pid, OPEN, BASE) and not _trapped(target)):
                if _trapped(target):
                    redirect(target.listener, target.receive(), pin, fifo.path)
            fifo.release()
            target.listener.send(target.receive().id, error=errno.EXDEV)
        assert not target.listener.id_valid(call.id)
        seen = target.finish()
    assert seen["calls.bad_registers"] == "0"
    assert seen["calls.same_action"] == "1"
    # One of them is the last call, which the test refuses.
    assert seen["calls.failures"] == ("2" if what == "handler" else "1")
    assert seen["calls.hits"] == f"{what == 'handler':d}"
    assert seen["mask.pending"] == f"{what == 'block':d}"


def test_a_program_that_steps_itself(backend: Backend, pin: Memory) -> None:
    """Its trap flag is its own: as many steps as there are when the call is just continued."""
    calls = 20
    length = pin.put(b"/dev/null")
    found = []
    for redirected in (False, True):
        installed = False
        with support.target(backend, program("sig_step", PIN, str(calls)), TRAP) as target:

            def answer(
                call: Notification, target: Target = target, redirected: bool = redirected
            ) -> None:
                nonlocal installed
                if not redirected:
                    target.listener.resume(call.id)
                    return
                if not installed:
                    install(target.listener, call, pin)
                    installed = True
                target.listener.send_redirect(call.id, {0: BASE}, {0: length})

            found.append(target.finish(answer=answer))
    own, redirected_ones = found
    assert own["opened"] == "0"
    assert redirected_ones["opened"] == str(calls)
    assert redirected_ones["bad_registers"] == redirected_ones["bad_frames"] == "0"
    # The program closes what it opened, in a few steps or none: they are not stepped.
    assert redirected_ones["steps"] == own["steps"]
    assert redirected_ones["after_call"] == own["after_call"]


# Job control


@steps
def test_a_stop_before_the_redirect(backend: Backend, pin: Memory, fifo: Fifo, step: Step) -> None:
    with opening(backend) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        stop(target.pid)
        assert state_of(target.pid) in "Tt"
        go_on(target.pid)
        over(target, call)
        call = again(target, call)
        if step not in HAVE_PIN:
            install(target.listener, call, pin)
        seen = complete(target, call, pin, fifo)
    opened(seen)
    assert seen["call.hits"] == "0"


@steps
def test_a_stop_that_the_supervisor_overlooks(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    with opening(backend) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGSTOP)
        with unless_gone():
            if step not in HAVE_PIN:
                install(target.listener, call, pin)
            redirect(target.listener, call, pin, fifo.path)
        until("it stops", lambda: state_of(target.pid) == "T")
        go_on(target.pid)
        over(target, call)
        call = again(target, call)
        with unless_gone():
            install(target.listener, call, pin) if not _has_pin(target) else None
        opened(complete(target, call, pin, fifo))


def _has_pin(target: Target) -> bool:
    with open(f"/proc/{target.pid}/maps") as maps:
        return "memfd:pinfold" in maps.read()


def test_a_stop_in_a_redirected_call(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        for _ in range(3):
            stop(target.pid)
            assert state_of(target.pid) == "T"
            assert not _trapped(target)
            go_on(target.pid)
            over(target, call)
            call = again(target, call)
            redirect_and_sleep(target.listener, call, pin, fifo)
        fifo.release()
        let_after_pass(target)
        seen = target.finish()
    opened(seen)
    assert seen["call.hits"] == "0"


def test_a_kill_of_a_stopped_redirected_call(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        stop(target.pid)
        os.kill(target.pid, signal.SIGKILL)
        assert target.wait() == -signal.SIGKILL
        over(target, call)


# Calls that go on for the remaining time

SLEEPS: Final = {
    "nanosleep": ("nanosleep", 0),
    "clock_nanosleep": ("clock_nanosleep", 2),
    "absolute": ("clock_nanosleep", 2),
    "futex": ("futex", 3),
    "poll": ("poll", 2),
    "ppoll": ("ppoll", 2),
}
"""System call and the argument that says how long, by what ``sig_sleep`` calls them."""
RESTARTED: Final = ("nanosleep", "clock_nanosleep", "futex", "poll")
"""Those that go on with restart_syscall() after a stop."""
TIMED_OUT: Final = {"futex": -errno.ETIMEDOUT}
"""What they return when the time is over, where that is not 0."""
SECONDS: Final = 2
A_LOT: Final = 0.95
"""Of the time again: more than a test that went well may be late, less than another whole sleep."""

sleeps = pytest.mark.parametrize("what", SLEEPS)
relative = pytest.mark.parametrize("what", RESTARTED)


def sleeping(
    backend: Backend,
    what: str,
    *words: str,
    also: tuple[str, ...] = (),
    sigtrap: str = "plain",
) -> contextlib.AbstractContextManager[Target]:
    """Starts the program that makes a call that waits, for far longer than the test."""
    command = with_sigtrap(sigtrap, *program("sig_sleep", PIN, what, *words))
    return support.target(backend, command, (SLEEPS[what][0], *also))


def waited(seen: dict[str, str], what: str, result: int | None = None) -> float:
    """Checks how a wait ended: by default, because the time was over. Returns how long it was."""
    assert seen["call.result"] == str(TIMED_OUT.get(what, 0) if result is None else result)
    assert seen["call.registers"] == "ok"
    assert seen["call.same_mask"] == "1"
    return float(seen["call.waited"])


def shorten(target: Target, what: str, call: Notification, pin: Memory, seconds: float) -> None:
    """Redirects a waiting call to another time, and waits until it waits."""
    name, argument = SLEEPS[what]
    assert call.data.nr == NR[name]
    if what == "poll":
        target.listener.send_redirect(call.id, {argument: int(seconds * 1000)})
    else:
        time_of = seconds + (time.clock_gettime(time.CLOCK_MONOTONIC) if what == "absolute" else 0)
        whole = int(time_of)
        pin.view[:16] = whole.to_bytes(8, "little") + int((time_of - whole) * 1e9).to_bytes(
            8, "little"
        )
        target.listener.send_redirect(call.id, {argument: BASE}, {argument: 16})
    await_sleep(call.pid, NR[name])


def begin_to_sleep(
    target: Target, what: str, pin: Memory, seconds: float
) -> tuple[Notification, float]:
    """Redirects the program's call; returns it, and the time at which it began at the latest."""
    begun(target)
    call = target.receive()
    if what != "poll":
        install(target.listener, call, pin)
    shorten(target, what, call, pin, seconds)
    return call, time.monotonic()


@sleeps
def test_a_wait_of_another_length(backend: Backend, pin: Memory, what: str) -> None:
    with sleeping(backend, what) as target:
        begin_to_sleep(target, what, pin, SECONDS / 4)
        seen = target.finish()
    assert SECONDS / 4 <= waited(seen, what) < SECONDS * 10


@relative
def test_a_stopped_wait_goes_on(backend: Backend, pin: Memory, what: str, sigtrap: str) -> None:
    """It does not trap again, does not end early, and does not begin anew."""
    with sleeping(backend, what, sigtrap=sigtrap) as target:
        _, begin = begin_to_sleep(target, what, pin, SECONDS)
        for _ in range(3):
            stop(target.pid)
            go_on(target.pid)
        assert time.monotonic() < begin + SECONDS, "too slow a machine to tell anything"
        await_sleep(target.pid, NR["restart_syscall"])
        seen = target.finish()
    assert waited(seen, what) >= SECONDS


@relative
def test_a_wait_that_was_over_while_it_was_stopped(
    backend: Backend, pin: Memory, what: str
) -> None:
    with sleeping(backend, what) as target:
        _, begin = begin_to_sleep(target, what, pin, SECONDS)
        stop(target.pid)
        # The time itself is what is waited for.
        time.sleep(max(0.0, begin + SECONDS - time.monotonic()))
        # It may end before one could see that it continued.
        os.kill(target.pid, signal.SIGCONT)
        seen = target.finish()
    assert waited(seen, what) < SECONDS + SECONDS * A_LOT


def test_a_stopped_wait_for_a_point_in_time(backend: Backend, pin: Memory) -> None:
    """This one is made again, with its own arguments."""
    with sleeping(backend, "absolute") as target:
        call, _ = begin_to_sleep(target, "absolute", pin, SECONDS)
        stop(target.pid)
        go_on(target.pid)
        assert not target.listener.id_valid(call.id)
        second = target.receive()
        assert second.data == call.data
        target.listener.send_redirect(second.id, {2: BASE}, {2: 16})
        seen = target.finish()
    assert waited(seen, "absolute") >= SECONDS * A_LOT


@sleeps
@hows
def test_a_handler_ends_a_wait(
    backend: Backend, pin: Memory, what: str, how: str, sigtrap: str
) -> None:
    """SA_RESTART makes no difference to these; what is left is counted from the pin's time."""
    with sleeping(backend, what, how, sigtrap=sigtrap) as target:
        call, _ = begin_to_sleep(target, what, pin, SECONDS)
        os.kill(target.pid, signal.SIGUSR1)
        found = told(target)
        assert found == {"hit1.pins": "0", "hit1.rewound": "0", "hit1.stepping": "0"}
        assert not target.listener.id_valid(call.id)
        seen = target.finish()
    assert waited(seen, what, -errno.EINTR) < SECONDS
    if what in ("nanosleep", "clock_nanosleep"):
        assert 0 < float(seen["call.left"]) <= SECONDS


@relative
def test_a_handler_after_a_stop_ends_a_wait(backend: Backend, pin: Memory, what: str) -> None:
    """The kernel makes restart_syscall() of the call then: a frame shows that, and no pin."""
    with sleeping(backend, what, "eintr") as target:
        begin_to_sleep(target, what, pin, 20 * SECONDS)
        stop(target.pid)
        go_on(target.pid)
        await_sleep(target.pid, NR["restart_syscall"])
        os.kill(target.pid, signal.SIGUSR1)
        assert told(target)["hit1.pins"] == "0"
        seen = target.finish()
    assert waited(seen, what, -errno.EINTR) < 20 * SECONDS
    if what in ("nanosleep", "clock_nanosleep"):
        assert 0 < float(seen["call.left"]) <= 20 * SECONDS


def test_a_filter_that_traps_the_restart(backend: Backend, pin: Memory) -> None:
    with sleeping(backend, "nanosleep", also=("restart_syscall",)) as target:
        call, _ = begin_to_sleep(target, "nanosleep", pin, SECONDS)
        stop(target.pid)
        go_on(target.pid)
        restart = target.receive()
        assert restart.data.nr == NR["restart_syscall"]
        assert restart.data.args == call.data.args
        target.listener.resume(restart.id)
        seen = target.finish()
    assert waited(seen, "nanosleep") >= SECONDS


@pytest.mark.parametrize("early", [False, True], ids=["blocked", "pinned"])
def test_a_wait_for_a_blocked_signal(
    backend: Backend, pin: Memory, early: bool, sigtrap: str
) -> None:
    """The call itself takes the signal, with its value, whether it came before or meanwhile."""
    command = with_sigtrap(sigtrap, *program("sig_sleep", PIN, "sigtimedwait"))
    with support.target(backend, command, ("rt_sigtimedwait",)) as target:
        begun(target)
        call = target.receive()
        install(target.listener, call, pin)
        if early:
            queue_signal(target.pid, signal.SIGUSR1, QUEUED)
        pin.view[:16] = (20 * SECONDS).to_bytes(16, "little")
        target.listener.send_redirect(call.id, {2: BASE}, {2: 16})
        if not early:
            await_sleep(call.pid, NR["rt_sigtimedwait"])
            queue_signal(target.pid, signal.SIGUSR1, QUEUED)
        seen = target.finish()
    assert waited(seen, "sigtimedwait", signal.SIGUSR1) < 20 * SECONDS
    assert seen["call.value"] == str(QUEUED)


# Storms


def weathered(seen: dict[str, str], least: int = 100) -> None:
    """Checks that every call of a storm was as it should be, and that there was a storm."""
    assert int(seen["signals"]) >= least
    # Without calls that were met in the middle, this tests nothing.
    assert int(seen["frames"]) > 10
    assert seen["same_mask"] == "1"
    for name in ("nested_failures", "bad_results", "bad_registers", "bad_frames", "bad_origins"):
        assert seen[name] == "0", name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["usr", "queue", "timer", "trap", "stop"])
def test_a_storm_of_signals(backend: Backend, pin: Memory, kind: str, threads: int) -> None:
    """Signals at every point of a call, each handler with a redirected call of its own."""
    storm(backend, pin, kind, threads)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["usr", "queue", "stop"])
@pytest.mark.parametrize("sigtrap", ["ignore", "block"])
def test_a_storm_without_sigtrap(backend: Backend, pin: Memory, kind: str, sigtrap: str) -> None:
    storm(backend, pin, kind, 1, sigtrap)


def storm(backend: Backend, pin: Memory, kind: str, threads: int, sigtrap: str = "plain") -> None:
    calls, signals = 2000 // threads, 1000
    places = {b"good": (0, pin.put(b"/dev/null")), b"bad": (PAGE, pin.put(b"/dev/null/x", PAGE))}
    command = program("sig_storm", PIN, str(calls), str(signals), kind, str(threads))
    installed = False
    with support.target(backend, with_sigtrap(sigtrap, *command), TRAP) as target:

        def answer(call: Notification) -> None:
            nonlocal installed
            with unless_gone():
                if not installed:
                    install(target.listener, call, pin)
                    installed = True
                at, length = places[target.path(call, 0).rpartition(b"/")[2]]
                target.listener.send_redirect(call.id, {0: BASE + at}, {0: length})

        seen = target.finish(answer=answer)
    assert int(seen["calls"]) >= calls
    if kind == "queue":
        assert int(seen["signals"]) == signals
    # Signals that come while it is stopped are one.
    weathered(seen, 20 if kind == "stop" else 100)


CALLS: Final = 200
"""And as many signals, in a storm during installs."""


def storm_during_installs(backend: Backend, pin: Memory, kind: str) -> tuple[dict[str, str], int]:
    """Returns what the program saw, and how many requests found their call gone."""
    room = 1 << 28
    lengths = {b"good": pin.put(b"/dev/null"), b"bad": pin.put(b"/dev/null/x", PAGE)}
    offsets = {b"good": 0, b"bad": PAGE}
    command = program("sig_storm", f"{BASE:x}-{BASE + room:x}", str(CALLS), str(CALLS), kind)
    base = BASE - pin.size
    interruptions = 0
    with support.target(backend, command, TRAP) as target:

        def answer(call: Notification) -> None:
            nonlocal base, interruptions
            base += pin.size
            assert base < BASE + room
            try:
                name = target.path(call, 0).rpartition(b"/")[2]
                assert target.listener.pin_install(call.id, pin.fd, base, pin.size) == base
                with refused(errno.EFAULT, errno.ENOENT):
                    target.listener.send_redirect(call.id, {0: base + pin.size}, {0: 1})
                target.listener.send_redirect(
                    call.id, {0: base + offsets[name]}, {0: lengths[name]}
                )
            except OSError as error:
                if not gone(error):
                    raise
                interruptions += 1

        seen = target.finish(answer=answer)
    return seen, interruptions


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["usr", "queue", "trap", "stop"])
def test_a_storm_during_installs(backend: Backend, pin: Memory, kind: str) -> None:
    """Each call gets a pin of its own, at a new address, and is refused once on the way."""
    # On a busy machine the signals may come in one burst, between calls: then once more.
    seen, interruptions = storm_during_installs(backend, pin, kind)
    for _ in range(8):
        if int(seen["frames"]) > 10 and interruptions:
            break
        seen, interruptions = storm_during_installs(backend, pin, kind)
    assert int(seen["calls"]) >= CALLS
    if kind == "queue":
        assert int(seen["signals"]) == CALLS
    # Signals that come while it is stopped are one.
    weathered(seen, 10 if kind == "stop" else 50)
    assert interruptions > 0


# Threads


def test_signals_of_threads_and_of_processes(backend: Backend, pin: Memory, fifo: Fifo) -> None:
    """One directed at a thread ends that thread's call; one directed at the process, one call."""
    count = 4
    with support.target(backend, program("sig_threads", str(count), OWN), TRAP) as target:
        tids = _thread_ids(target, count)
        calls = [target.receive() for _ in range(count)]
        assert {call.pid for call in calls} == set(tids)
        install(target.listener, calls[0], pin)
        for call in calls:
            redirect(target.listener, call, pin, fifo.path)
        for call in calls:
            await_sleep(call.pid, OPEN, BASE)
        chosen = calls[1].pid
        process.signal_thread(target.pid, chosen, signal.SIGUSR1)
        name = f"end{tids[chosen]}."
        end = told(target)
        assert end == {name + "result": "-4", name + "registers": "ok", name + "hits": "1"}
        for call in calls:
            assert sleeps_in(call.pid, OPEN, BASE) == (call.pid != chosen)
        os.kill(target.pid, signal.SIGUSR1)
        end = told(target)
        assert sorted(end.values()) == ["-4", "1", "ok"]
        assert sum(sleeps_in(call.pid, OPEN, BASE) for call in calls) == count - 2
        fifo.release()
        seen = target.finish()
    results = [seen[f"end{n}.result"] for n in range(count)]
    assert sorted(results) == ["-4", "-4", "0", "0"]
    assert {seen[f"end{n}.registers"] for n in range(count)} == {"ok"}
    assert sum(int(seen[f"end{n}.hits"]) for n in range(count)) == 2


@steps
def test_a_signal_of_one_of_several_parked_threads(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    count = 4
    with support.target(backend, program("sig_threads", str(count), OWN), TRAP) as target:
        tids = _thread_ids(target, count)
        calls = [target.receive() for _ in range(count)]
        step(target.listener, calls[0], pin, fifo)
        for call in calls[1:]:
            if step in HAVE_PIN:
                # The memory is theirs too; this parks them all the same.
                with refused(errno.EEXIST):
                    install(target.listener, call, pin)
            else:
                step(target.listener, call, pin, fifo)
        process.signal_thread(target.pid, calls[2].pid, signal.SIGUSR1)
        for call in calls:
            with unless_gone():
                if step not in HAVE_PIN and not _has_pin(target):
                    install(target.listener, call, pin)
                redirect(target.listener, call, pin, fifo.path)
        name = f"end{tids[calls[2].pid]}."
        end = told(target)
        assert end == {name + "result": "-4", name + "registers": "ok", name + "hits": "1"}
        for call in (calls[0], calls[1], calls[3]):
            await_sleep(call.pid, OPEN, BASE)
        fifo.release()
        seen = target.finish()
    assert sorted(seen[f"end{n}.result"] for n in range(count)) == ["-4", "0", "0", "0"]
    assert sum(int(seen[f"end{n}.hits"]) for n in range(count)) == 1


def _thread_ids(target: Target, count: int) -> dict[int, int]:
    # Waits until all have begun; returns their numbers by thread id.
    lines = [told(target) for _ in range(count + 1)]
    return {
        int(value): int(key.removeprefix("thread").removesuffix(".tid"))
        for line in lines
        for key, value in line.items()
        if key != "ready"
    }


# Filters whose notifications are killable only

KILLABLE: Final = SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


@steps
@hows
def test_a_killable_wait(backend: Backend, pin: Memory, fifo: Fifo, step: Step, how: str) -> None:
    """Once it was received, a signal does not end the call; what was redirected, it does."""
    with opening(backend, *words_for(how), flags=KILLABLE) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        assert target.listener.id_valid(call.id)
        if step not in HAVE_PIN:
            install(target.listener, call, pin)
        redirect(target.listener, call, pin, fifo.path)
        hit(target, 1, rewound=how == "restart")
        assert not target.listener.id_valid(call.id)
        if how == "restart":
            opened(complete(target, again(target, call), pin, fifo))
        else:
            let_after_pass(target)
            interrupted(target.finish())


@steps
def test_a_killable_wait_for_a_call_that_does_not_block(
    backend: Backend, pin: Memory, fifo: Fifo, step: Step
) -> None:
    """It is made, and the signal comes afterwards."""
    with opening(backend, flags=KILLABLE) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGUSR1)
        if step not in HAVE_PIN:
            install(target.listener, call, pin)
        redirect(target.listener, call, pin, b"/dev/null")
        let_after_pass(target)
        seen = target.finish()
    assert seen["call.result"] == "0"
    assert seen["call.registers"] == "ok"
    assert seen["hit1.pins"] == seen["hit1.stepping"] == "0"


@steps
def test_a_killable_wait_is_killable(backend: Backend, pin: Memory, fifo: Fifo, step: Step) -> None:
    with opening(backend, flags=KILLABLE) as target:
        begun(target)
        call = target.receive()
        step(target.listener, call, pin, fifo)
        os.kill(target.pid, signal.SIGKILL)
        assert target.wait() == -signal.SIGKILL
        over(target, call)


def test_a_killable_wait_and_handlers(
    backend: Backend, pin: Memory, fifo: Fifo, sigtrap: str
) -> None:
    with opening(backend, "restart", flags=KILLABLE, sigtrap=sigtrap) as target:
        begun(target)
        call = block(target, pin, fifo)
        for number in range(1, ROUNDS + 1):
            os.kill(target.pid, signal.SIGUSR1)
            hit(target, number, rewound=True)
            call = again(target, call)
            redirect_and_sleep(target.listener, call, pin, fifo)
        fifo.release()
        let_after_pass(target)
        opened(target.finish())
