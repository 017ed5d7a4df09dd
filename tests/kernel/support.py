"""What the tests over real processes share: pinfold runs, other users, terminals, waiting.

Nothing here sleeps to let something happen: whoever waits, waits for an event with a deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from tests.programs import ROOT, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Done = subprocess.CompletedProcess[str]

BACKEND: Final = os.environ.get("PINFOLD_BACKEND", "")
"""The back end of all runs for which a test does not say which; empty for the usual one."""
PINFOLD = (
    *(sys.executable, "-m", "pinfold", "run"),
    *(("--backend", BACKEND) if BACKEND else ()),
)


def changed(line: str) -> tuple[str, ...]:
    """Returns ``pinfold run`` with one line of Python executed first, ``TraceBackend`` at hand."""
    code = f"""
from pinfold.backends.trace import TraceBackend
from pinfold.cli import main
{line}
main()
"""
    return (sys.executable, "-c", code, "run")


TWO_STOPS: Final = changed("TraceBackend.ONE_STOP = False")
"""The same, with every call followed to its end."""
PATIENCE: Final = 60.0
"""Seconds after which anything that should have happened counts as not happening."""

NOBODY: Final = 65534
TRAP_ALL: Final = ("--deny", "/nonexistent-pinfold")
"""A rule that denies nothing that exists: every path call is trapped, pinned and let go."""

EVERYTHING_READABLE: Final = 0o755


def execute(command: Sequence[str | bytes | Path], **options: Any) -> Done:
    """Returns how a command went; bytes in its output that are no text are kept as surrogates."""
    options.setdefault("timeout", PATIENCE)
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run(command, check=False, text=True, errors="surrogateescape", **options)


def pinfold(*args: str | bytes | Path, **options: Any) -> Done:
    """Returns how ``pinfold run ARGS`` went."""
    return execute([*PINFOLD, *args], **options)


@contextlib.contextmanager
def started(
    command: Sequence[str | bytes | Path], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Starts a command that the block talks to; kills it in the end if it is still there."""
    options.setdefault("stdin", subprocess.PIPE)
    options.setdefault("stdout", subprocess.PIPE)
    process = subprocess.Popen(command, text=True, errors="surrogateescape", **options)
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        process.wait(PATIENCE)


def next_line(stream: IO[str] | None) -> str:
    """Returns the next line of an unbuffered conversation, without its newline."""
    assert stream is not None
    found = bytearray()
    end = time.monotonic() + PATIENCE
    while not found.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no whole line came, only {bytes(found)!r}")
        # A byte at a time: what follows must stay in the pipe.
        byte = os.read(stream.fileno(), 1)
        if not byte:
            raise EOFError(f"the stream ended after {bytes(found)!r}")
        found += byte
    return os.fsdecode(bytes(found[:-1]))


def state_of(pid: int) -> str:
    """Returns the state letter of a process, the empty string when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Returns whether a process is there and not just waiting to be reaped."""
    return state_of(pid) not in {"", "Z", "X"}


def comm(pid: int) -> str:
    """Returns the name that a process goes by, the empty string when there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="surrogateescape").rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int | str = "self") -> set[int]:
    """Returns the ids of a process's own children, zombies too; those of a dead one are none."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            # A thread may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                found.update(map(int, text.split()))
    return found


def ends(pidfd: int, seconds: float = PATIENCE) -> bool:
    """Waits for the end of the process behind a pidfd; returns whether it came."""
    return bool(select.select([pidfd], [], [], seconds)[0])


def descendants(pid: int) -> set[int]:
    """Returns the ids of all living processes that come from a process."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="surrogateescape")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in {"Z", "X"}:
            parents[int(entry)] = int(parent)
    found: set[int] = set()
    wave = {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave} - found
        found |= wave
    return found


def reap() -> None:
    """Reaps orphans that were handed to this process; running children are left alone."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            continue


class User:
    """Runs commands as some user, in a directory of that user's own.

    Attributes:
        directory: A fresh directory that the user owns and everybody can enter.
    """

    name = "caller"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def pinfold(self, *args: str | bytes | Path, **options: Any) -> Done:
        """Returns how ``pinfold run ARGS`` went for this user."""
        options.setdefault("cwd", self.directory)
        return execute([*self._prefix(PINFOLD[1:]), *args], **options)

    def python(self, *args: str | bytes | Path, **options: Any) -> Done:
        """Returns how the suite's interpreter went with these arguments, outside any sandbox."""
        options.setdefault("cwd", self.directory)
        return execute([*self._prefix(()), *args], **options)

    def bare(self, *command: str | bytes | Path, **options: Any) -> Done:
        """Returns how the command went for this user without a sandbox."""
        options.setdefault("cwd", self.directory)
        return execute([*self._as(), *command], **options)

    def program(self, name: str, *flags: str) -> Path:
        """Returns a copy, where this user can execute it, of a program of ``tests/programs``."""
        built = build(name, *flags)
        copy = self.directory / built.name
        if not copy.exists():
            shutil.copy(built, copy)
        return copy

    def file(self, name: str, content: str = "A") -> Path:
        """Returns a new file of this user's."""
        path = self.directory / name
        path.write_text(content)
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Makes the user the owner of what the suite has made."""

    def _as(self) -> Sequence[str]:
        return ()

    def _prefix(self, arguments: Sequence[str]) -> Sequence[str]:
        return (sys.executable, *arguments)


_SHELTER: Final = """
set -e
shelter=$1 base=$2 packages=$3 sources=$4 uid=$5
shift 5
mount --bind "$base" "$shelter/base"
mount --bind "$packages" "$shelter/packages"
mount --bind "$sources" "$shelter/sources"
export PYTHONHOME="$shelter/base" PYTHONPATH="$shelter/sources:$shelter/packages"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all -- "$@"
"""


class Nobody(User):
    """The same commands for a user without any rights, while the suite itself runs as root.

    The interpreter and the checkout may lie below directories that this user cannot enter. So each
    command gets a mount namespace in which they appear somewhere else.
    """

    name = "nobody"

    def __init__(self, directory: Path, shelter: Path) -> None:
        super().__init__(directory)
        self._shelter = shelter
        for name in ("base", "packages", "sources"):
            (shelter / name).mkdir(exist_ok=True)

    def own(self, path: Path) -> None:
        """Makes the user the owner of what the suite has made."""
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def _as(self) -> Sequence[str]:
        ids = f"{NOBODY}"
        return (
            "setpriv",
            "--reuid",
            ids,
            "--regid",
            ids,
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        )

    def _prefix(self, arguments: Sequence[str]) -> Sequence[str]:
        interpreter = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
        return (
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("sh", "-c", _SHELTER, "sh", str(self._shelter), sys.base_prefix),
            *(sysconfig.get_path("purelib"), str(ROOT / "src"), str(NOBODY)),
            *(str(self._shelter / "base" / interpreter), *arguments),
        )


@contextlib.contextmanager
def user(name: str) -> Iterator[User]:
    """Returns ``caller`` or ``nobody``, with a directory that is removed in the end.

    A suite that has no rights itself is ``nobody`` enough.
    """
    # Not pytest's own temporary directories: only their owner can enter those.
    with (
        tempfile.TemporaryDirectory(prefix="pinfold-user-") as directory,
        tempfile.TemporaryDirectory(prefix="pinfold-shelter-") as shelter,
    ):
        for path in (directory, shelter):
            os.chmod(path, EVERYTHING_READABLE)
        if name == "nobody" and os.geteuid() == 0:
            someone: User = Nobody(Path(directory), Path(shelter))
            someone.own(Path(directory))
        else:
            someone = User(Path(directory))
        yield someone


class Terminal:
    """A command that leads a session of its own on a new terminal.

    Args:
        command: What to run.
        env: Its environment.
    """

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        try:
            size = struct.pack("HHHH", 24, 200, 0, 0)
            fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
            self.process = subprocess.Popen(
                ["setsid", "--ctty", *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=dict(os.environ if env is None else env) | {"TERM": "dumb"},
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        self.seen = ""
        """Everything that came so far."""
        self._looked = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def send(self, text: str) -> None:
        """Types something."""
        os.write(self._master, os.fsencode(text))

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits for output that matches, after what was matched last; returns the match.

        Raises:
            AssertionError: It did not come in time, or the terminal was closed.
        """
        end = time.monotonic() + PATIENCE
        while True:
            found = re.compile(pattern, re.MULTILINE).search(self.seen, self._looked)
            if found is not None:
                self._looked = found.end()
                return found
            if not self._more(end):
                raise AssertionError(f"no {pattern!r} in {self.seen[self._looked :]!r}")

    def status(self) -> int:
        """Reads to the end and returns the command's exit status."""
        end = time.monotonic() + PATIENCE
        while self._more(end):
            continue
        return self.process.wait(max(0.1, end - time.monotonic()))

    def _more(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.seen += os.fsdecode(data).replace("\r\n", "\n")
        return bool(data)


def in_fork(body: Callable[[], object], seconds: int) -> None:
    """Runs ``body`` in a forked child, which is killed after so long; its assertions are ours."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(seconds)
            body()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (nothing may get out of the child)
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def kill_all(pids: set[int]) -> None:
    """Kills processes that a test left behind."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
