"""A person at the terminal says what becomes of a call.

The program uses the same terminal, so an answer could be meant for it, or come from it:

- What was typed before a question was shown is thrown away, and an answer ends with Enter.
- The terminal is put into a mode of our own for the question and put back afterwards. Signals from
  the keyboard are off meanwhile: ^C denies, and is then passed on as the interrupt that it is.
- All text of the program's is escaped, and attributes that it has set (hidden text) are reset.

What cannot be helped: a program that reads the terminal at the same time may get the answer's
characters, and one that writes there can draw anything, a question like ours among it. It cannot
answer: the ioctl that types into a terminal is refused in every sandbox.

Where pinfold is not in the foreground, there is nobody to ask, and the answer is no.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import termios
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from pinfold.cli.question import question
from pinfold.policy.calls import Verdict, denied

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pinfold.cli.question import Question
    from pinfold.policy.calls import Later, Trapped

_CHOICES: Final = "allow once [y], always [a], deny once [n], never [v]"
_ANSWERS: Final = {
    **dict.fromkeys(("y", "yes"), (True, False)),
    **dict.fromkeys(("a", "always"), (True, True)),
    **dict.fromkeys(("", "n", "no"), (False, False)),
    **dict.fromkeys(("v", "never"), (False, True)),
}
"""What was typed, as (allow, remember)."""
_TRIES: Final = 3
_LONGEST: Final = 32
"""Characters of an answer that are kept."""
_LAST_WORDS: Final = 1.0
"""Seconds that the terminal gets to take a line when the time for an answer is over."""
_GRACE: Final = 2.0
"""Seconds in which the terminal should be put back when the run is over."""

_INTERRUPT: Final = 0x03
_END: Final = 0x04
_ERASE: Final = frozenset({0x08, 0x7F})
_KILL: Final = 0x15
_ENTER: Final = frozenset({0x0A, 0x0D})
_IFLAG: Final = 0
_OFLAG: Final = 1
_LFLAG: Final = 3
_CC: Final = 6


class TerminalAsker:
    """Asks whoever sits at the controlling terminal, one question at a time.

    Made by :meth:`open`.

    Args:
        fd: The terminal; it is closed by :meth:`close`.
        seconds: How long an answer may take from the moment that the question is shown.
    """

    def __init__(self, fd: int, seconds: float) -> None:
        self._fd = fd
        self._seconds = seconds
        self._lock = threading.Condition()
        self._questions: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._remembered: dict[Hashable, bool] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        # Written to when the question that is shown is not to be answered any more.
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @classmethod
    def open(cls, seconds: float = 60.0) -> TerminalAsker | None:
        """Returns who asks at the controlling terminal; None where there is nobody to ask.

        That is so without a controlling terminal, and for a process in the background of one.

        Args:
            seconds: How long an answer may take; then it is a denial.
        """
        try:
            # Never blocks: the program may have stopped the output, or read what was typed.
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            # ENXIO, ENOENT or EACCES: none, or none for us.
            return None
        if not _in_foreground(fd):
            os.close(fd)
            return None
        asker = cls(fd, seconds)
        # A question may be on the terminal when the run ends in a hurry.
        atexit.register(asker.close)
        return asker

    def __call__(self, call: Trapped, rule: str) -> Later:
        """Returns the verdict to come on a call that a rule asks about.

        Args:
            call: The call; it is not used any more afterwards.
            rule: The rule's name.
        """
        return _Asked(self, question(call, rule), rule)

    def close(self) -> None:
        """Denies what is still asked, puts the terminal back and lets go of it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting = [*self._questions, *([self._current] if self._current else [])]
            self._questions.clear()
            self._lock.notify()
            thread = self._thread
        atexit.unregister(self.close)
        for one in waiting:
            one.conclude(False, "the run is over")
        self._wake()
        if thread is not None:
            thread.join(_GRACE)
            if thread.is_alive():
                # It is stuck in a terminal that takes no output; what it uses must stay open.
                return
        for fd in (self._fd, self._wake_read, self._wake_write):
            os.close(fd)

    # What follows is for _Asked and the thread.

    def put(self, asked: _Asked) -> None:
        """Queues a question, unless its answer is known."""
        with self._lock:
            known = self._remembered.get(asked.question.key)
            closed = self._closed
            if known is None and not closed:
                try:
                    self._start()
                except RuntimeError as error:
                    asked.conclude(False, f"nobody could be asked: {error}")
                    return
                self._questions.append(asked)
                self._lock.notify()
                return
        if known is None:
            asked.conclude(False, "the run is over")
        else:
            asked.conclude(known, "always" if known else "never")

    def drop(self, asked: _Asked) -> None:
        """Takes back a question that nobody waits for."""
        with self._lock:
            if asked in self._questions:
                self._questions.remove(asked)
            shown = self._current is asked
        if shown:
            self._wake()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="pinfold-ask", daemon=True)
            thread.start()
            self._thread = thread

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            # It is full, so it wakes.
            return

    def _serve(self) -> None:
        # A background process that sets a terminal's mode, or reads it, is to get an error.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTTIN})
        while True:
            with self._lock:
                self._current = None
                while not self._questions and not self._closed:
                    self._lock.wait()
                if self._closed:
                    return
                self._current = asked = self._questions.popleft()
                known = self._remembered.get(asked.question.key)
            if asked.over:
                continue
            if known is not None:
                asked.conclude(known, "always" if known else "never")
                continue
            try:
                self._answered(asked)
            except Exception as error:  # noqa: BLE001 (whatever happens, the call has a verdict)
                asked.conclude(False, f"the terminal failed: {error}")

    def _answered(self, asked: _Asked) -> None:
        if not _in_foreground(self._fd):
            asked.conclude(False, "pinfold is not in the foreground of the terminal")
            return
        interrupted = False
        with _Mode(self._fd):
            # Only now: what was typed before this moment was typed for something else.
            termios.tcflush(self._fd, termios.TCIFLUSH)
            self._drain()
            prompt = _Prompt(self._fd, self._wake_read, time.monotonic() + self._seconds)
            answer, why = prompt.ask(asked)
            interrupted = prompt.interrupted
            if answer is None:
                prompt.say(f"denied: {why}")
        allow, remember = (False, False) if answer is None else answer
        if remember:
            with self._lock:
                self._remembered[asked.question.key] = allow
        asked.conclude(allow, why)
        if interrupted:
            # As the terminal would have done it.
            os.killpg(os.getpgrp(), signal.SIGINT)

    def _drain(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                continue
        except BlockingIOError:
            return


class _Asked:
    # A question with who waits for its answer: a Later.

    def __init__(self, asker: TerminalAsker, question: Question, rule: str) -> None:
        self.question = question
        self._asker = asker
        self._rule = rule
        self._lock = threading.Lock()
        self._done: Callable[[Verdict], None] | None = None
        self._over = False

    @property
    def over(self) -> bool:
        return self._over

    def start(self, done: Callable[[Verdict], None]) -> None:
        with self._lock:
            if self._over:
                return
            self._done = done
        self._asker.put(self)

    def cancel(self) -> None:
        with self._lock:
            self._over = True
            self._done = None
        self._asker.drop(self)

    def conclude(self, allow: bool, why: str) -> None:
        # The first one counts.
        with self._lock:
            done, self._done = self._done, None
            self._over = True
        if done is not None:
            rule = f"{self._rule} ({why})"
            done(Verdict(rule=rule) if allow else denied(rule))


class _Prompt:
    # One question on the terminal.

    def __init__(self, fd: int, wake: int, end: float) -> None:
        self._fd = fd
        self._wake = wake
        self._end = end
        self._typed = bytearray()
        self.interrupted = False

    def ask(self, asked: _Asked) -> tuple[tuple[bool, bool] | None, str]:
        # What was answered, None for no answer, and how the log says it.
        left = max(1, round(self._end - time.monotonic()))
        lines = [f"pinfold: {line}" for line in asked.question.lines]
        self._write(_reset() + "\n" + "\n".join(lines) + "\n")
        for attempt in range(_TRIES):
            limit = f" ({left} s, then deny)" if attempt == 0 else ""
            self._write(f"pinfold: {_CHOICES}{limit}? ")
            line = self._line(asked)
            if not isinstance(line, str):
                return None, line.why
            answer = _ANSWERS.get(line.strip().lower())
            if answer is not None:
                return answer, _WORDS[answer]
        return None, "no answer in three tries"

    def say(self, text: str) -> None:
        self._write(f"pinfold: {text}\n")

    def _line(self, asked: _Asked) -> str | _NoAnswer:
        self._typed.clear()
        while True:
            if asked.over:
                return self._without("nobody waits for the answer any more")
            left = self._end - time.monotonic()
            if left <= 0:
                return self._without("no answer in time")
            ready, _, _ = select.select([self._fd, self._wake], [], [], left)
            if self._wake in ready:
                os.read(self._wake, 4096)
                continue
            if not ready:
                continue
            try:
                data = os.read(self._fd, 256)
            except BlockingIOError:
                # The program has read it.
                continue
            if not data:
                return self._without("the terminal is gone")
            for byte in data:
                found = self._key(byte)
                if found is not None:
                    # What comes after it was typed for something else.
                    return found

    def _key(self, byte: int) -> str | _NoAnswer | None:
        typed = self._typed
        if byte in _ENTER:
            self._write("\n")
            return typed.decode("ascii", "replace")
        if byte == _INTERRUPT:
            self.interrupted = True
            return self._without("interrupted")
        if byte == _END:
            return self._without("end of input")
        if byte in _ERASE:
            if typed:
                del typed[-1]
                self._write("\b \b")
        elif byte == _KILL:
            self._write("\b \b" * len(typed))
            typed.clear()
        elif len(typed) < _LONGEST:
            # Keys that are no letters make an answer that is none.
            typed.append(byte)
            self._write(chr(byte) if 0x20 <= byte < 0x7F else "?")
        return None

    def _without(self, why: str) -> _NoAnswer:
        self._write("\n")
        return _NoAnswer(why)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            left = max(_LAST_WORDS, self._end - time.monotonic())
            if not select.select([], [self._fd], [], left)[1]:
                raise TimeoutError("it takes no output")
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                continue


_WORDS: Final = {
    (True, False): "allowed once",
    (True, True): "always",
    (False, False): "denied once",
    (False, True): "never",
}


class _NoAnswer:
    def __init__(self, why: str) -> None:
        self.why = why


class _Mode:
    # Keys as they are typed, no echo, no signals; and back.

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before = termios.tcgetattr(self._fd)
        mode = list(self._before)
        mode[_IFLAG] = termios.ICRNL | termios.BRKINT
        mode[_OFLAG] = termios.OPOST | termios.ONLCR
        mode[_LFLAG] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        mode[_CC] = list(mode[_CC])
        mode[_CC][termios.VMIN] = 1
        mode[_CC][termios.VTIME] = 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSANOW, self._before)


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        # ENOTTY or EIO: it has hung up.
        return False


def _reset() -> str:
    # Attributes that the program may have set would make the question hard to read.
    return "" if os.environ.get("TERM", "dumb") in ("", "dumb") else "\x1b[0m"
