"""One attack under one supervisor: run, and counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.attack import programs, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pinfold.attack.catalogue.model import Attack

_UNSUPPORTED: Final = 77
NOBODY: Final = 65534
"""User and group that unprivileged attacks run as, where we are root."""


class Outcome(NamedTuple):
    """What one run came to."""

    attempts: int = 0
    escapes: int = 0
    counts: Mapping[str, int] = MappingProxyType({})
    """What the program told besides: ``allowed``, ``refused``, ``other``."""
    unsupported: str = ""
    """What this machine lacks for it."""
    failed: str = ""
    """Why there are no counts: the program or the supervisor ended otherwise."""
    said: str = ""
    """What was on standard error."""


def run(attack: Attack, supervisor: tuple[str, ...], attempts: int, seconds: float) -> Outcome:
    """Runs one attack on a stage of its own, under one supervisor.

    Args:
        attack: Which.
        supervisor: The start of the command line that runs a program under it; see ``command``.
        attempts: How often the attack is to be tried.
        seconds: How long it may take; then it is killed, and has failed.

    Raises:
        UnsupportedError: A program could not be built.
    """
    program = programs.build(attack.program, *attack.flags)
    with stage.prepared() as directory:
        for name, flags in attack.helpers:
            helper = directory / "programs" / name
            _install(programs.build(name, *flags), helper)
            if not attack.readable:
                helper.chmod(0o111)
        # Where everybody may execute it, as the source tree may be nobody else's.
        here = directory / "programs" / attack.program
        _install(program, here)
        argv = [*supervisor, os.fspath(here), os.fspath(directory), str(attempts), *attack.words]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
            start_new_session=True,
        ) as process:
            try:
                out, said = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                # Its session is all ours: whatever a sandbox has left running is in it.
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return Outcome(failed=f"not over after {seconds:g} s")
    return _outcome(process.returncode, out, said)


def command(name: str, attack: Attack) -> tuple[str, ...]:
    """Returns the command line of one of our supervisors, for ``run``."""
    words = [sys.executable, "-m", "pinfold.attack.supervisors", name]
    if attack.real:
        words.append("--real")
    if attack.unprivileged and os.geteuid() == 0:
        words += ["--user", str(NOBODY)]
    return (*words, "--")


def _install(program: Path, place: Path) -> None:
    place.write_bytes(program.read_bytes())
    place.chmod(0o755)


def _outcome(status: int, out: str, said: str) -> Outcome:
    try:
        (line,) = out.splitlines()
        told = dict(word.split("=", 1) for word in line.split())
        if status == _UNSUPPORTED:
            return Outcome(unsupported=told["unsupported"], said=said)
        counts = {name: int(value) for name, value in told.items()}
        attempts, escapes = counts.pop("attempts"), counts.pop("escapes")
    except (ValueError, KeyError):
        last = said.strip().rpartition("\n")[2]
        return Outcome(failed=f"status {status}, printed {out[-200:]!r}: {last}", said=said)
    failed = "" if status == 0 else f"status {status} after its counts"
    return Outcome(attempts, escapes, counts, failed=failed, said=said)
