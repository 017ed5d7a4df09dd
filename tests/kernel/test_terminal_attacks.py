"""What a program can do with the terminal that it shares with the supervisor, and cannot."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.support import PATIENCE, PINFOLD, TRAP_ALL, Terminal, execute, state_of

COUNT: Final = 200
_LINE: Final = re.compile(r'\{"type":"(start|call|end)",[^\n]*,"chain":"[0-9a-f]{64}"\}\n')
_POLL: Final = "7"
_FOR_EVER: Final = "ffffffff"
"""``poll`` and its lack of a time limit, as /proc/PID/syscall has them."""

_CONTROL: Final = """
import errno, fcntl, os, struct, termios

def tried(number, argument):
    try:
        fcntl.ioctl(0, number, argument)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "made"

TIOCLINUX = 0x541C
# The kernel takes 32 bits of the number; Python passes no more, so that a call is made by hand.
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def raw(number, data):
    made = libc.syscall(16, 0, ctypes.c_ulong(number), ctypes.c_char_p(data))
    return errno.errorcode[ctypes.get_errno()] if made < 0 else "made"

print("sti", tried(termios.TIOCSTI, b"x"), raw(1 << 32 | termios.TIOCSTI, b"x"))
print("linux", tried(TIOCLINUX, b"\\3"), raw(1 << 32 | TIOCLINUX, b"\\3"))
child = os.fork()
if child == 0:
    os.setsid()
    print("steal", tried(termios.TIOCSCTTY, 0), tried(termios.TIOCSCTTY, 1), flush=True)
    os._exit(0)
os.waitpid(child, 0)
os.close(os.open("/dev/tty", os.O_RDWR))
fcntl.ioctl(0, termios.TIOCNOTTY)
try:
    os.open("/dev/tty", os.O_RDWR)
except OSError as error:
    print("own", errno.errorcode[error.errno])
"""

_BACKGROUND: Final = f"""
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
settings = termios.tcgetattr(0)
settings[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, settings)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpid())
for number in range({COUNT}):
    try:
        os.stat(f"/nonexistent/{{number}}")
    except OSError:
        pass
"""

_NONBLOCKING: Final = f"""
import os
for number in range({COUNT}):
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x" * 1000 + b"\\n")
    except BlockingIOError:
        pass
    try:
        os.stat(f"/nonexistent/{{number}}")
    except OSError:
        pass
"""

_SUSPENDED: Final = """
import os, signal, sys, time
allowed, denied, tried = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    while True:
        for path in (allowed, denied):
            try:
                content = os.read(os.open(path, os.O_RDONLY), 1)
            except OSError:
                continue
            if content == b"D":
                os.mkdir(tried)
print("ready", flush=True)
signal.sigwait([signal.SIGTSTP])
os.kill(os.getpid(), signal.SIGSTOP)
print("again", flush=True)
os.kill(child, signal.SIGKILL)
"""


def python(script: str, *words: str | Path) -> list[str | Path]:
    """Returns a command."""
    return [sys.executable, "-I", "-c", script, *words]


def test_what_reaches_beyond_the_program_is_refused() -> None:
    with Terminal([*PINFOLD, *TRAP_ALL, "--", *python(_CONTROL)]) as terminal:
        assert terminal.status() == 0
    assert terminal.seen.splitlines() == [
        "sti EPERM EPERM",
        "linux EPERM EPERM",
        "steal EPERM EPERM",
        "own ENXIO",
    ]


def check_log(seen: str) -> None:
    """Checks that a log is whole, whatever the program wrote between its lines."""
    found = [json.loads(match[0]) for match in _LINE.finditer(seen)]
    calls = [one for one in found if one["type"] == "call"]
    assert [found[0]["type"], found[-1]["type"]] == ["start", "end"]
    assert [one["seq"] for one in calls] == list(range(1, found[-1]["calls"] + 1))
    paths = [one["args"].get("path", "") for one in calls]
    mine = [path for path in paths if path.startswith("/nonexistent/")]
    assert mine == [f"/nonexistent/{number}" for number in range(COUNT)]


def test_a_supervisor_in_the_background_still_writes() -> None:
    command = [*PINFOLD, "--audit", "-", "--", *python(_BACKGROUND)]
    with Terminal(command) as terminal:
        assert terminal.status() == 0
    check_log(terminal.seen)


def threads_wait(pid: int) -> bool:
    """Returns whether some thread of a process polls, and would do so for ever."""
    for entry in os.listdir(f"/proc/{pid}/task"):
        try:
            words = Path(f"/proc/{pid}/task/{entry}/syscall").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] == _POLL and words[3].endswith(_FOR_EVER):
            return True
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="the supervisor is not dumpable: only root sees")
def test_a_full_terminal_that_does_not_block_is_waited_for() -> None:
    command = [*PINFOLD, "--audit", "-", "--", *python(_NONBLOCKING)]
    with Terminal(command) as terminal:
        terminal.expect("^x+$")
        # Nobody reads any more: it is full soon, and a write to it would fail.
        end = time.monotonic() + PATIENCE
        while not threads_wait(terminal.process.pid):
            assert terminal.process.poll() is None
            assert time.monotonic() < end
        assert terminal.status() == 0
    check_log(terminal.seen)


def test_no_call_is_made_while_the_supervisor_is_stopped(tmp_path: Path) -> None:
    allowed, denied, tried = tmp_path / "A", tmp_path / "D", tmp_path / "tried"
    allowed.write_text("A")
    denied.write_text("D")
    program = python(_SUSPENDED, allowed, denied, tried)
    with Terminal([*PINFOLD, "--deny", denied, "--", *program]) as terminal:
        terminal.expect("^ready$")
        terminal.send("\x1a")
        end = time.monotonic() + PATIENCE
        while state_of(terminal.process.pid) != "T":
            assert time.monotonic() < end
        execute(["kill", "-CONT", str(terminal.process.pid)])
        terminal.expect("again$")
        assert terminal.status() == 0
    assert not tried.exists()
