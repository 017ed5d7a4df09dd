"""Attacks on what a supervisor needs: resources that run out, and time."""

from __future__ import annotations

from typing import Final

from pinfold.attack.catalogue.model import NAIVE, PINNED, TRACE, UNVERIFIED, Attack

_BOUNDED: Final = "the wait is measured; no supervisor here takes longer on purpose"

_LOADS: Final = {
    "argv": "execve() with 700,000 empty arguments",
    "unreadable": "execve() with 780,000 arguments that cannot be read",
    "sparse": "execve() with 700,000 arguments, each on a page of its own",
    "messages": "sendmmsg() with 1,024 messages of 1,024 pieces",
    "option": "setsockopt() with a megabyte",
    "dots": "paths of 4,095 bytes that go down and up again 800 times",
    "slashes": "paths of 4,095 bytes, nearly all of them slashes",
    "components": "paths of 2,000 components behind a link in /proc",
    "links": "symbolic links to paths of 2,000 components",
    "fifo": "FIFOs that nobody writes to",
    "memory": "a process that maps and unmaps memory all the time",
    "signals": "a process that gets signals all the time",
    "forks": "processes that are born and die",
    "crowd": "34 processes that make one call after the other",
}
_REAL: Final = frozenset({"components", "links", "fifo"})
"""What takes time where names that links lead to are judged."""

_HEAVY: Final = frozenset({"argv", "unreadable", "sparse", "memory"})
"""Each call waits behind about a second of work."""


def _stall(load: str) -> Attack:
    return Attack(
        f"exhaust-time-{load}",
        "exhaust",
        "exhaust_stall",
        f"keeps the supervisor busy: {_LOADS[load]}",
        "",
        (load,),
        attempts=10 if load in _HEAVY else 100,
        alone=_BOUNDED,
        real=load in _REAL,
        backends=(TRACE,) if load in _REAL else PINNED,
    )


_NO_PIN: Final = {
    "maps": "a race with as many mappings as there may be",
    "space": "a race with RLIMIT_AS at 0",
    "descriptors": "a race with RLIMIT_NOFILE at 0",
}
"""Where the pin cannot be installed, a call has to fail."""


def _no_pin(resource: str) -> Attack:
    return Attack(
        f"exhaust-{resource}",
        "exhaust",
        "exhaust_pin",
        f"no room for the pin: {_NO_PIN[resource]}",
        UNVERIFIED,
        (resource,),
        attempts=2_000,
        control_attempts=1_000,
        lost=2,
        chance=True,
        flags=("-static", "-nostdlib", "-fno-stack-protector"),
    )


_AT_LIMIT: Final = {
    "processes": "a race with RLIMIT_NPROC at 0, and forks that fail",
    "stack": "a race with RLIMIT_STACK at 0",
    "file-size": "a race with RLIMIT_FSIZE at 0",
    "pending": "a race with RLIMIT_SIGPENDING at 0",
    "cpu": "a race while RLIMIT_CPU sends its signal",
}
"""Nothing that a pin needs of the program: it is held as ever."""


def _at_limit(resource: str) -> Attack:
    return Attack(
        f"exhaust-{resource}",
        "exhaust",
        "exhaust_pin",
        f"at a limit: {_AT_LIMIT[resource]}",
        NAIVE,
        (resource,),
        attempts=4_000,
        lost=2,
        chance=True,
        # What is counted by user does not hold root up.
        unprivileged=resource == "processes",
        flags=("-static", "-nostdlib", "-fno-stack-protector"),
    )


def _many_calls(who: str) -> Attack:
    return Attack(
        f"exhaust-calls-{who}",
        "exhaust",
        "exhaust_calls",
        f"a race while 300 {who} wait in calls: more than an arena has slots",
        NAIVE,
        (who,),
        attempts=4_000,
        lost=2,
        chance=True,
    )


EXHAUSTING: Final[tuple[Attack, ...]] = (
    *(_no_pin(resource) for resource in _NO_PIN),
    *(_at_limit(resource) for resource in _AT_LIMIT),
    *(_many_calls(who) for who in ("processes", "threads")),
    *(_stall(load) for load in _LOADS),
    Attack(
        "exhaust-time-fault",
        "exhaust",
        "exhaust_stall",
        "keeps the supervisor waiting for memory that a userfaultfd serves",
        NAIVE,
        ("fault",),
        attempts=200,
    ),
)
