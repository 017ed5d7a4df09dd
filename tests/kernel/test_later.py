"""Verdicts that take their time: one task waits, all others go on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pinfold.launch.spawn import Command
from pinfold.policy.calls import ALLOWED, Verdict, denied, redirected
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from tests.judges import FunctionJudge
from tests.kernel.judged import PYTHON, Run
from tests.kernel.support import PATIENCE, alive, children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pinfold.policy.calls import Later, Trapped

WANTED = b"/nonexistent/wanted"


class Question:
    """A verdict that a test gives when it wants to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.cancelled = threading.Event()
        self.done: Callable[[Verdict], None] | None = None

    def start(self, done: Callable[[Verdict], None]) -> None:
        self.done = done
        self.asked.set()

    def cancel(self) -> None:
        self.cancelled.set()

    def answer(self, verdict: Verdict) -> None:
        """Waits for the question, and answers."""
        assert self.asked.wait(PATIENCE)
        assert self.done is not None
        self.done(verdict)


class Soon:
    """A verdict by a thread of its own."""

    def __init__(self, verdict: Verdict, after: threading.Event | None = None) -> None:
        self._verdict = verdict
        self._after = after

    def start(self, done: Callable[[Verdict], None]) -> None:
        threading.Thread(target=self._answer, args=(done,), daemon=True).start()

    def _answer(self, done: Callable[[Verdict], None]) -> None:
        if self._after is not None:
            self._after.wait(PATIENCE)
        done(self._verdict)

    def cancel(self) -> None:
        pass


class Now:
    """A verdict that is there at once, in the thread that asks."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def start(self, done: Callable[[Verdict], None]) -> None:
        done(self._verdict)

    def cancel(self) -> None:
        pass


def about(later: Later) -> Callable[[Trapped], Verdict | Later]:
    """Asks for time about one path."""
    return lambda call: later if WANTED in call.names.get("path", ()) else ALLOWED


STAT = (
    "import os\n"
    "def ask():\n"
    f"    try: os.stat({WANTED!r}); return 0\n"
    "    except OSError as error: return error.errno\n"
)


@pytest.mark.parametrize("kind", [Soon, Now])
@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (ALLOWED, errno.ENOENT),
        (denied("later", errno.EXDEV), errno.EXDEV),
        (redirected("later", path=b"/"), 0),
        # More than the slot has room for: it is read and asked again.
        (redirected("later", path=b"/" + b"./" * 2000), 0),
    ],
)
def test_answers(kind: type[Soon] | type[Now], verdict: Verdict, expected: int) -> None:
    """Every verdict can be late."""
    done = Run((*PYTHON, STAT + "print(ask())"), about(kind(verdict)))
    assert done.out == f"{expected}\n"


def test_other_threads_and_processes_go_on(tmp_path: Path) -> None:
    """While one thread waits, others make hundreds of judged calls; the last one lets it go."""
    released = threading.Event()

    def judge(call: Trapped) -> Verdict | Later:
        names = call.names.get("path", ())
        if b"/nonexistent/last" in names:
            released.set()
        return Soon(denied("late", errno.EXDEV), released) if WANTED in names else ALLOWED

    script = STAT + (
        "import threading\n"
        "waiting = threading.Thread(target=lambda: print('asked', ask()))\n"
        "waiting.start()\n"
        "for _ in range(300): os.path.exists('/nonexistent/other')\n"
        "if os.fork() == 0:\n"
        "    for _ in range(300): os.path.exists('/nonexistent/other')\n"
        "    os._exit(0)\n"
        "os.wait(); print('others', flush=True)\n"
        "os.path.exists('/nonexistent/last')\n"
        "waiting.join()\n"
    )
    done = Run((*PYTHON, script), judge)
    assert done.out == f"others\nasked {errno.EXDEV}\n"


def test_many_at_a_time() -> None:
    """Twenty threads wait, each for its own verdict."""
    script = (
        "import os, threading\n"
        "def ask(n):\n"
        "    try: os.stat('/nonexistent/%d' % n)\n"
        "    except OSError as error: got[n] = error.errno\n"
        "got = {}\n"
        "threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 21)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(all(got[n] == n for n in range(1, 21)), len(got))\n"
    )

    def judge(call: Trapped) -> Verdict | Later:
        name = call.names.get("path", (b"",))[0]
        if name.startswith(b"/nonexistent/"):
            return Soon(denied("late", int(name.rpartition(b"/")[2])))
        return ALLOWED

    assert Run((*PYTHON, script), judge).out == "True 20\n"


def started(argv: tuple[str, ...], later: Later) -> Session:
    """Returns a command's session, under a policy that asks for time."""
    out = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    session = Session(
        Command(
            tuple(os.fsencode(word) for word in argv),
            {b"PATH": b"/usr/bin:/bin"},
            streams=(out, out, 2),
            close_others=True,
        ),
        PathRules([], []),
        Limits(),
        inspect_all=True,
        judge=FunctionJudge(about(later)),
    )
    session.start()
    session.launched.wait()
    os.close(out)
    return session


def test_killed_while_it_waits() -> None:
    """The run ends, nobody waits any more, and a verdict that comes then is for nobody."""
    question = Question()
    session = started((*PYTHON, STAT + "ask()"), question)
    assert question.asked.wait(PATIENCE)
    session.kill()
    assert os.WTERMSIG(session.result().status) == signal.SIGKILL
    assert question.cancelled.wait(PATIENCE)
    question.answer(ALLOWED)


def test_a_thread_that_waits_dies_in_an_exec() -> None:
    """Another thread's exec ends it; its late verdict is not taken for the new program's call."""
    question = Question()
    script = STAT + (
        "import threading, time\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "while b't' not in open('/proc/self/task/%d/stat' % max(map(int, os.listdir("
        "'/proc/self/task')))).read().encode().rpartition(b')')[2]: pass\n"
        "os.execv('/bin/sh', ['sh', '-c', 'test -e /; test -e /nonexistent/x; exit 7'])\n"
    )
    session = started((*PYTHON, script), question)
    assert question.cancelled.wait(PATIENCE)
    question.answer(denied("late", errno.EXDEV))
    assert os.waitstatus_to_exitcode(session.result().status) == 7


def test_the_main_thread_waits_and_another_executes() -> None:
    """The id that waited is the new program's now; the verdict finds nothing."""
    question = Question()
    script = STAT + (
        "import threading\n"
        "def execute():\n"
        "    while 't' not in open('/proc/self/stat').read().rpartition(')')[2][:3]: pass\n"
        "    os.execv('/bin/sh', ['sh', '-c', 'exit 7'])\n"
        "threading.Thread(target=execute).start()\n"
        "ask()\n"
    )
    session = started((*PYTHON, script), question)
    assert question.cancelled.wait(PATIENCE)
    question.answer(denied("late", errno.EXDEV))
    assert os.waitstatus_to_exitcode(session.result().status) == 7


def test_a_signal_comes_after_the_verdict() -> None:
    """A task that waits takes no signal; it is delivered when the call is over."""
    question = Question()
    script = STAT + (
        "import signal\n"
        "def caught(*_): os._exit(9)\n"
        "signal.signal(signal.SIGTERM, caught)\n"
        "ask()\n"
        "while True: pass\n"
    )
    session = started((*PYTHON, script), question)
    assert question.asked.wait(PATIENCE)
    session.signal(signal.SIGTERM)
    question.answer(ALLOWED)
    assert os.waitstatus_to_exitcode(session.result().status) == 9


def test_an_exec_of_command_itself_can_wait() -> None:
    """The very first call, too."""
    question = Question()

    def judge(call: Trapped) -> Verdict | Later:
        return question if call.row.name == "execve" else ALLOWED

    thread = threading.Thread(target=question.answer, args=(ALLOWED,))
    thread.start()
    done = Run(("/bin/echo", "late"), judge)
    thread.join()
    assert done.out == "late\n"


def test_the_bell_is_killed() -> None:
    """Whoever kills the process that wakes us up only delays a verdict."""
    question = Question()
    session = started((*PYTHON, STAT + "import sys; sys.exit(ask())"), question)
    assert question.asked.wait(PATIENCE)
    (bell,) = [
        pid
        for pid in children()
        if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath("/proc/self/exe")
    ]
    os.kill(bell, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while alive(bell):
        assert time.monotonic() < deadline
        os.sched_yield()
    question.answer(denied("late", errno.EXDEV))
    assert os.waitstatus_to_exitcode(session.result().status) == errno.EXDEV


def test_no_descriptor_for_the_bell() -> None:
    """Then there is no verdict, and the call fails."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def judge(call: Trapped) -> Verdict | Later:
        if WANTED not in call.names.get("path", ()):
            return ALLOWED
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        return Soon(ALLOWED)

    def over(_: object, _result: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    try:
        done = Run((*PYTHON, STAT + "print(ask())"), judge, results=over)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert done.out == f"{errno.EAGAIN}\n"
    (denial,) = [one for one in done.records if one["verdict"] == "deny"]
    assert "no process" in denial["rule"]


def test_nothing_is_left(tmp_path: Path) -> None:
    """No process, no thread, no descriptor."""
    threads = threading.active_count()
    before = set(os.listdir("/proc/self/fd"))
    Run((*PYTHON, STAT + "ask()"), about(Soon(ALLOWED)))
    with contextlib.suppress(ChildProcessError):
        pid, _ = os.waitpid(-1, os.WNOHANG)
        assert pid == 0
    assert threading.active_count() == threads
    assert set(os.listdir("/proc/self/fd")) == before
