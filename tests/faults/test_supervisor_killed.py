"""The supervisor is killed at random moments under load, two hundred times: nothing survives it.

This process is the reaper of all that becomes an orphan. So when it has no child any more, there is
no process of any sandbox, and with it no memory file and no pin.
"""

from __future__ import annotations

import contextlib
import operator
import os
import random
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import Pin, Sandbox, supervise
from pinfold.launch import spawn
from pinfold.policy.handlers.policy import Policy
from tests.faults import support
from tests.faults.hooks import Calls
from tests.faults.support import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pinfold import Listener, Notification

KILLS: Final = {"command": 40, "policy": 32, "sandbox": 76, "listener": 52}
AT_ONCE: Final = 4
LONGEST: Final = 0.3
SHORTEST: Final = 0.00005
RETURNED: Final = 99
SAMPLED: Final = 40
LATE: Final = 500
"""By so many calls of its own the supervisor has gone through everything there is."""
STARTING: Final = 85
"""The new process makes about so many before it executes COMMAND."""
EARLY: Final = 10
"""By then it has asked to die with its parent."""
_PIN_AT: Final = 0x7000_0000
_CLI: Final = (sys.executable, "-m", "pinfold", "run")


class Victim:
    """A supervisor in a process of its own, under load, to be killed.

    Attributes:
        scene: Its files.
        temporary: Its ``TMPDIR``.
        log: Its log.
        mark: A file that is there, with something in it, when calls are being judged.
        pid: The process.
    """

    def __init__(self, directory: Path) -> None:
        self.scene = Scene(directory)
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.log = directory / "log"
        self.mark = self.log
        self.pid = 0

    def begin(self, kind: str) -> None:
        """Starts it."""
        load = self.scene.program("fault_load")
        if kind in ("command", "policy"):
            self._command(load, everything=kind == "policy")
            return
        if kind == "listener":
            self.mark = self.temporary.parent / "mark"
        self.fork(_supervise if kind == "listener" else _run, load)

    def fork(self, body: Callable[[Victim, tuple[str, ...]], None], load: tuple[str, ...]) -> None:
        """Starts it as a copy of this process."""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.environ["TMPDIR"] = str(self.temporary)
                with open(self.scene.output, "wb") as output:
                    os.dup2(output.fileno(), 1)
                body(self, load)
            finally:
                os._exit(RETURNED)

    def is_over_or_busy(self) -> bool:
        """Returns whether it is dead, or has judged a call."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        return self.log.exists() and b'"call"' in self.log.read_bytes()

    def _command(self, load: tuple[str, ...], *, everything: bool) -> None:
        options: tuple[str, ...] = self.scene.options()
        if everything:
            policy = self.scene.directory / "policy.toml"
            policy.write_text(self.scene.policy())
            options = ("--policy", str(policy), "--inspect", "all")
        with open(self.scene.output, "wb") as output:
            self.pid = os.posix_spawn(
                sys.executable,
                [*_CLI, "--audit", str(self.log), *options, "--", *load],
                {**os.environ, "TMPDIR": str(self.temporary)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                    (os.POSIX_SPAWN_OPEN, 2, str(self.temporary.parent / "err"), _NEW, 0o600),
                ],
            )


_NEW: Final = os.O_WRONLY | os.O_CREAT


def _run(victim: Victim, load: tuple[str, ...]) -> None:
    # With a policy and with path rules in turn.
    here = victim.scene.directory
    if os.getpid() % 2:
        policy = Policy.parse(victim.scene.policy())
        box = Sandbox(policy=policy, inspect="all", audit=victim.log)
    else:
        box = Sandbox(deny=[here / "denied"], map={here / "open": here / "other"}, audit=victim.log)
    box.run(load)


def _supervise(victim: Victim, load: tuple[str, ...]) -> None:
    here = os.fsencode(victim.scene.directory)
    # Each path stays where it is: calls of several threads are under way.
    paths = {here + b"/open": (0, here + b"/other\0"), here + b"/denied": (2048, b"")}
    with Pin(4096) as pin, supervise(load, trap=["openat"], backend="interrupt") as program:
        for offset, path in paths.values():
            pin.write(offset, path)
        for call in program.listener:
            with contextlib.suppress(OSError):
                _answer(program.listener, call, pin, paths)
                if not victim.mark.exists():
                    victim.mark.write_bytes(b"redirected")


def _answer(
    listener: Listener, call: Notification, pin: Pin, paths: dict[bytes, tuple[int, bytes]]
) -> None:
    offset, path = paths[listener.read_string(call, call.data.args[1])]
    if not path:
        listener.send(call.id, error=13)
        return
    with contextlib.suppress(FileExistsError):
        listener.pin_install(call.id, pin.fd, _PIN_AT, pin.size)
    listener.send_redirect(call.id, {1: _PIN_AT + offset}, {1: len(path)})


def _moment(choice: random.Random, victim: Victim, *, logged: bool) -> float:
    """Returns when to kill a supervisor that has begun.

    The first millisecond is as interesting as all that follows. Where ``logged``, the time counts
    from the log's first line, as a busy machine may take longer than any moment to get there.
    """
    if logged:
        support.until(lambda: victim.mark.exists() and victim.mark.stat().st_size > 0)
    wait: float = SHORTEST * (LONGEST / SHORTEST) ** choice.random()
    return time.monotonic() + wait


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KILLS)
def test_nothing_survives(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    seed = support.seed()
    request.node.user_properties.append(("seed", seed))
    choice = random.Random(seed)
    shared = set(os.listdir("/dev/shm"))
    worked = 0
    for first in range(0, KILLS[kind], AT_ONCE):
        victims = []
        for number in range(first, first + AT_ONCE):
            directory = tmp_path / f"{number}"
            directory.mkdir()
            victims.append(Victim(directory))
            victims[-1].begin(kind)
        logged = first % (2 * AT_ONCE) == 0
        moments = [(_moment(choice, victim, logged=logged), victim) for victim in victims]
        for moment, victim in sorted(moments, key=operator.itemgetter(0)):
            # The moment is what is tested; nothing waits for anything here.
            time.sleep(max(0.0, moment - time.monotonic()))
            os.kill(victim.pid, signal.SIGKILL)
        for victim in victims:
            assert os.waitpid(victim.pid, 0)[1] == signal.SIGKILL, seed
        support.nobody_is_left()
        for victim in victims:
            assert os.listdir(victim.temporary) == [], seed
            victim.scene.no_escape()
            if victim.log.exists():
                assert support.chain_problems(victim.log) == [], seed
            worked += victim.mark.exists() and victim.mark.stat().st_size > 0
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if "pinfold" in name}
    assert worked >= KILLS[kind] // 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("here", [True, False], ids=["supervisor", "new process"])
def test_nothing_survives_a_death_at_any_call(
    tmp_path: Path, here: bool, request: pytest.FixtureRequest
) -> None:
    """Right before a call of the supervisor, or of the process that it has just forked.

    The latter's first calls come before it has asked to die with its parent.
    """
    seed = support.seed()
    request.node.user_properties.append(("seed", seed))
    choice = random.Random(seed)
    numbers = sorted(choice.sample(range(1, LATE), SAMPLED))
    if not here:
        numbers = [*range(1, EARLY), *sorted(choice.sample(range(EARLY, STARTING), EARLY))]
    died = 0
    for at in numbers:
        directory = tmp_path / f"{at}"
        directory.mkdir()
        victim = Victim(directory)
        victim.fork(partial(_die, at=at, here=here), victim.scene.program("fault_load"))
        if not here:
            # COMMAND may have begun to work before the new process has made so many calls.
            support.until(victim.is_over_or_busy)
            os.kill(victim.pid, signal.SIGKILL)
        died += os.waitpid(victim.pid, 0)[1] == signal.SIGKILL
        support.nobody_is_left()
        victim.scene.no_escape()
        assert os.listdir(victim.temporary) == []
        assert support.chain_problems(victim.log) == []
    assert died == len(numbers)


def _die(victim: Victim, load: tuple[str, ...], *, at: int, here: bool) -> None:
    supervisor = os.getpid()
    real = os.kill

    def kill() -> int:
        try:
            real(supervisor, signal.SIGKILL)
        except PermissionError:
            # The new process is confined by now. The supervisor is killed from outside.
            return 0
        while not here and os.getppid() == supervisor:
            os.sched_yield()
        return 0

    patch = pytest.MonkeyPatch()
    if not here:
        # As with the command line, where COMMAND may inherit anything.
        patch.setattr(spawn, "close_others", lambda _kept: None)
    Calls(patch, at, kill, here=here)
    _run(victim, load)
