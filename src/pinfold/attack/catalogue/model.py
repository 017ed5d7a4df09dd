"""One row of the catalogue: an attack, and what must lose against it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

TRACE: Final = "trace"
INTERRUPT: Final = "interrupt"
NATIVE: Final = "native"
TWO_STOPS: Final = "trace-two-stops"
"""The trace back end, with every call followed to its end; see ``backends.trace``."""
RUN_NATIVE: Final = "run-native"
"""``pinfold run`` on the native back end; ``native`` is ``pinfold.Listener`` on it."""
PINNED: Final = (TRACE, INTERRUPT, NATIVE, RUN_NATIVE)
"""The back ends of pinfold."""

NAIVE: Final = "naive"
"""Reads through a seccomp listener, judges, continues; refuses nothing else."""
RESOLVING: Final = "resolving"
"""The same, and judges where links lead."""
TRACER: Final = "tracer"
"""The same by ptrace alone: no listener, and children are not followed."""
FOLLOWER: Final = "follower"
"""The same, and follows the children that the kernel tells it of."""
UNVERIFIED: Final = "unverified"
"""Pins, and then believes its own bookkeeping: no seals, no live check, fails open."""
WRITABLE: Final = "writable"
"""The same, with pins that the program may write."""
UNRESTORED: Final = "unrestored"
"""Pins, and leaves the pin's addresses in the registers after the call."""

Family = Literal["race", "pin", "bypass", "signal", "reach", "exhaust"]


class Attack(NamedTuple):
    """One way around, and how it is tried."""

    name: str
    """Words and dashes; starts with the family: ``race-open-thread``."""
    family: Family
    program: str
    """Its source, ``attacks/PROGRAM.c``."""
    about: str
    """What it tries, in one line."""
    control: str
    """The supervisor that must lose; empty where none can, and ``alone`` says why."""
    words: tuple[str, ...] = ()
    """What the program is given after DIRECTORY and ATTEMPTS."""
    attempts: int = 1
    """How many it makes by default."""
    control_attempts: int = 0
    """How many against the control; 0 for as many as ``attempts``."""
    lost: int = 1
    """Escapes that the control must suffer at least: else the attack is not testing."""
    chance: bool = False
    """Whether an escape is a matter of timing: the control is then tried again until it has lost
    often enough, and with one CPU nothing can be said of it."""
    alone: str = ""
    """Why there is no control."""
    backends: tuple[str, ...] = PINNED
    """The back ends that it is tried on."""
    portable: Literal["", "files", "argv"] = ""
    """What has to be denied for it, where other sandboxes can be asked to: the stage's files, or an
    argument of an exec."""
    real: bool = False
    """Whether names that links lead to are judged as well."""
    unprivileged: bool = False
    """Whether supervisor and program give up root first, where they have it."""
    flags: tuple[str, ...] = ()
    """Further options for the compiler."""
    helpers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Further programs to be built, with options: each is put into the stage's ``programs``."""
    readable: bool = True
    """Whether those may be read, and not just executed."""
