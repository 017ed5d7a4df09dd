"""A process that asks at its terminal about calls that are made up; run by ``test_ask``.

Usage: ``python -m tests.kernel.asking SCENARIO FILE``. Verdicts go to FILE, a line each.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

from pinfold.cli.ask import TerminalAsker
from tests.unit.policy.trapped import trapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.policy.calls import Later, Trapped, Verdict

PATIENCE = 60.0
CALL = trapped("openat", b"/etc/hosts", program=b"/usr/bin/editor")
OTHER = trapped("openat", b"/etc/passwd", program=b"/usr/bin/editor")


class Client:
    """Asks, and writes down what was answered."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (as long as the process)
        self._asker: TerminalAsker | None = None

    def note(self, text: str) -> None:
        self._file.write(f"{text}\n")

    def open(self, seconds: float = PATIENCE) -> TerminalAsker:
        self._asker = TerminalAsker.open(seconds)
        assert self._asker is not None
        return self._asker

    def ask(self, *calls: Trapped) -> None:
        """Asks about each, one after the other."""
        for call in calls:
            self.begin(call)[1]()

    def begin(self, call: Trapped) -> tuple[Later, Callable[[], None]]:
        """Begins to ask; returns the verdict to come, and what waits for it."""
        assert self._asker is not None
        later = self._asker(call, "a rule")
        come = threading.Event()

        def done(verdict: Verdict) -> None:
            self.note(f"{verdict.action} {verdict.errno} {verdict.rule}")
            come.set()

        def wait() -> None:
            assert come.wait(PATIENCE)

        later.start(done)
        return later, wait


def plain(client: Client) -> None:
    """The same call four times, another one in between."""
    client.open()
    client.ask(CALL, OTHER, CALL, CALL, OTHER)


def one(client: Client) -> None:
    """One call; the mode of the terminal before and after."""
    before = termios.tcgetattr(0)
    client.open()
    client.ask(CALL)
    client.note("same mode" if termios.tcgetattr(0) == before else "another mode")


def interrupted(client: Client) -> None:
    """One call, by somebody who hears of interrupts."""
    come = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: come.set())
    client.open()
    client.ask(CALL)
    end = time.monotonic() + PATIENCE
    while not come.wait(0.05) and time.monotonic() < end:
        continue
    client.note(f"interrupt {come.is_set()}")


def raw(client: Client) -> None:
    """One call while the program has the terminal in a mode of its own."""
    mode = termios.tcgetattr(0)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(0, termios.TCSANOW, mode)
    one(client)


def early(client: Client) -> None:
    """One call, asked when a file is there."""
    client.open()
    print("ready", flush=True)
    with open(sys.argv[3]) as go:
        go.read()
    client.ask(CALL)


def slow(client: Client) -> None:
    """One call that nobody answers in time."""
    client.open(0.2)
    client.ask(CALL)


def stopped(client: Client) -> None:
    """One call on a terminal that takes no output."""
    client.open(0.2)
    termios.tcflow(0, termios.TCOOFF)
    client.ask(CALL)
    termios.tcflow(0, termios.TCOON)


def hostile(client: Client) -> None:
    """A call with whatever could confuse who reads it."""
    client.open()
    bad = b"\x1b[2J\r\npinfold: allow once [y]\x07\xc2\x9b1m\xe2\x80\xae\xff"
    client.ask(
        trapped("execve", b"/bin/" + bad, program=b"/" + bad, argv=[bad, b'"', b"x" * 9000, b"end"])
    )


def background(client: Client) -> None:
    """Nobody is asked from the background, nor later on by who has got there."""
    asker = client.open()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            client.note(f"opened {TerminalAsker.open() is not None}")
            # Somebody else's foreground: the process that has it gave it away.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with open("/dev/tty", "rb", buffering=0) as tty:
                os.tcsetpgrp(tty.fileno(), os.getpgrp())
            os.write(ready_write, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.read(ready_read, 1)
    client.ask(CALL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    asker.close()


def nowhere(client: Client) -> None:
    """There is no terminal."""
    client.note(f"opened {TerminalAsker.open() is not None}")


def cancelled(client: Client) -> None:
    """Three calls at a time; the first two are not waited for when the first one is shown."""
    asker = client.open()
    first, _ = client.begin(CALL)
    second, _ = client.begin(OTHER)
    print("begun", flush=True)
    with open(sys.argv[3]) as go:
        go.read()
    second.cancel()
    _, wait = client.begin(trapped("unlink", b"/third", program=b"/bin/rm"))
    first.cancel()
    wait()
    asker.close()


def closed(client: Client) -> None:
    """The run ends while a question is shown, and one waits."""
    before = termios.tcgetattr(0)
    asker = client.open()
    first = client.begin(CALL)[1]
    second = client.begin(OTHER)[1]
    print("begun", flush=True)
    with open(sys.argv[3]) as go:
        go.read()
    asker.close()
    asker.close()
    first()
    second()
    client.begin(CALL)[1]()
    client.note("same mode" if termios.tcgetattr(0) == before else "another mode")
    client.note(f"threads {threading.active_count()}")


def exits(client: Client) -> None:
    """The process ends while a question is shown."""
    client.open()
    client.begin(CALL)
    print("begun", flush=True)
    with open(sys.argv[3]) as go:
        go.read()
    sys.exit(7)


def together(client: Client) -> None:
    """Five calls at a time, one of them twice."""
    client.open()
    calls = [trapped("unlink", b"/%d" % number) for number in (1, 2, 3, 1, 4)]
    for wait in [client.begin(call)[1] for call in calls]:
        wait()


def gone(client: Client) -> None:
    """The terminal hangs up while a question is shown."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    client.open()
    client.ask(CALL, OTHER)
    client.note("over")


if __name__ == "__main__":
    globals()[sys.argv[1]](Client(sys.argv[2]))
