"""What the fault tests share: a scene, sandboxes over it, and the end of everything.

The programs (``fault_steps``, ``fault_load``) try to read a denied file all the time, and write its
byte to their output if they can: so each run shows by itself whether a fault has let a call past.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pinfold.audit.verify import verify
from pinfold.errors import PinfoldError
from pinfold.launch.spawn import Command
from pinfold.policy.handlers.policy import Policy
from pinfold.policy.rules import PathRules, parse_deny, parse_map
from pinfold.session import Limits, Session
from tests.kernel.support import children
from tests.programs import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.audit.record import Entry
    from pinfold.life import Outcome

BOUND: Final = 30.0
"""Seconds within which whatever has begun to end must have ended."""

OPEN: Final = "A"
REDIRECTED: Final = "B"
DENIED: Final = "D"


def seed() -> int:
    """Returns what random choices start from: PINFOLD_SEED, or something else each time."""
    return int(os.environ.get("PINFOLD_SEED") or random.randrange(1 << 32))


class Scene:
    """Files for the programs: ``open`` (mapped to ``other``), ``denied``, and room for output.

    Attributes:
        directory: Where they are.
        output: What the programs write.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.output.touch()
        for name, content in (("open", OPEN), ("other", REDIRECTED), ("denied", DENIED)):
            (directory / name).write_text(content)

    def program(self, name: str) -> tuple[str, ...]:
        """Returns the command of a program over these files."""
        files = [str(self.directory / one) for one in ("open", "denied", "made")]
        words = files[:2] if name == "fault_load" else files
        return (str(build(name, "-static")), *words)

    def options(self) -> tuple[str, ...]:
        """Returns the rules as options of ``pinfold run``."""
        here = self.directory
        return ("--deny", f"{here}/denied", "--map", f"{here}/open={here}/other")

    def policy(self) -> str:
        """Returns the rules as a policy file's text."""
        here = self.directory
        return (
            f'version = 1\n[[rule]]\non = "open"\npath = "{here}/denied"\naction = "deny"\n'
            f'[[rule]]\non = "open"\npath = "{here}/open"\n'
            f'action = "redirect"\nto = {{ path = "{here}/other" }}\n'
        )

    def said(self) -> str:
        """Returns what the programs have written so far."""
        return self.output.read_text()

    def no_escape(self) -> None:
        """Checks that the denied file was never read, by what the programs have written."""
        said = self.said()
        assert f"denied={DENIED}" not in said
        assert said.strip(DENIED) == said, "fault_load has read the denied file"


class Run:
    """One session over a scene, and how it ended.

    Attributes:
        session: The session, started.
    """

    def __init__(
        self,
        scene: Scene,
        command: tuple[str, ...],
        *,
        whole: bool = False,
        sink: Callable[[Entry], None] | None = None,
        **options: Any,
    ) -> None:
        judge = None
        rules = PathRules([], [])
        if whole:
            judge = Policy.parse(scene.policy()).judge(
                ask=None, report=options.pop("report", _silent), real=False
            )
        else:
            here = os.fsencode(scene.directory)
            rules = PathRules(
                [parse_map(here + b"/open=" + here + b"/other", b"/")],
                [parse_deny(here + b"/denied")],
            )
        with (
            open(scene.output, "ab", buffering=0) as output,
            open(os.devnull, "rb") as nothing,
        ):
            # Kept open by copies until the session has ended: its thread makes the process.
            self._streams = (os.dup(nothing.fileno()), os.dup(output.fileno()))
        self.session = Session(
            Command(
                tuple(os.fsencode(word) for word in command),
                {b"PATH": b"/usr/bin:/bin"},
                streams=(self._streams[0], self._streams[1], 2),
                close_others=True,
                signal_mask=frozenset({signal.SIGUSR1}),
            ),
            rules,
            Limits(),
            inspect_all=whole,
            judge=judge,
            sink=sink,
            **options,
        )
        self.session.start()

    def end(self) -> Outcome | PinfoldError:
        """Waits for the end; returns how it was, an error of pinfold's among it.

        Raises:
            AssertionError: It did not come in time.
            Exception: Anything else that the session raised.
        """
        try:
            assert self.session.join(BOUND), "the run did not end"
            return self.session.result()
        except PinfoldError as error:
            return error
        finally:
            if not self.session.join(0):
                self.session.kill()
            for fd in self._streams:
                os.close(fd)


def _silent(_line: str) -> None:
    pass


def nobody_is_left(seconds: float = BOUND) -> None:
    """Waits until there is no child any more; as a subreaper, that means nobody at all.

    Raises:
        AssertionError: Somebody did not end in time; they are killed then.
    """
    end = time.monotonic() + seconds
    while left := children():
        for pid in left:
            if time.monotonic() > end:
                names = {one: _name(one) for one in children()}
                for one in names:
                    os.kill(one, signal.SIGKILL)
                    os.waitpid(one, 0)
                raise AssertionError(f"left running: {names}")
            _await(pid, end)


def _await(pid: int, end: float) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        select.select([pidfd], [], [], max(0.0, end - time.monotonic()))
    finally:
        os.close(pidfd)
    os.waitpid(pid, os.WNOHANG)


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return "?"


def until(true: Callable[[], bool]) -> None:
    """Waits for what nobody tells of.

    Raises:
        AssertionError: It did not become true in time.
    """
    end = time.monotonic() + BOUND
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.001)


def chain_problems(log: Path) -> list[str]:
    """Returns what is wrong with a log, apart from its missing end and a torn last line."""
    data = log.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    problems = [one.what for one in verify(io.BytesIO(whole)).problems]
    return [what for what in problems if not what.startswith(("it has no end", "it is empty"))]
