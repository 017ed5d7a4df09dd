"""Races between verdict and use: a peer rewrites what a call's pointers lead to.

A row is a case (what is rewritten), a peer (who does it) and a writer (how). Every case is tried
with the plainest peer, a thread that stores; every other pair of peer and writer on a few cases.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from pinfold.attack.catalogue.model import (
    NAIVE,
    PINNED,
    RESOLVING,
    TRACE,
    UNVERIFIED,
    Attack,
)

_PEERS: Final = {
    "thread": "a thread",
    "process": "another process",
    "clonevm": "a process with the same memory",
    "vfork": "a thread of the parent that waits for a vfork",
}
_WRITERS: Final = {
    "store": "",
    "read": " with read()",
    "pread": " with pread()",
    "vm-writev": " with process_vm_writev()",
    "splice": " with splice()",
    "procmem": " through /proc/self/mem, in a read-only page",
    "remap": " by mapping other pages over it",
}


class _Program(NamedTuple):
    cases: dict[str, str]
    """By name, what is rewritten."""
    attempts: int
    control_attempts: int


_PROGRAMS: Final = {
    "race_paths": _Program(
        {
            "open": "the path of open()",
            "openat": "the path of openat()",
            "openat2": "the path of openat2()",
            "stat": "the path of stat()",
            "lstat": "the path of lstat()",
            "newfstatat": "the path of newfstatat()",
            "statx": "the path of statx()",
            "readlink": "the path of readlink()",
            "readlinkat": "the path of readlinkat()",
            "chdir": "the path of chdir()",
            "link": "the old path of link()",
            "linkat": "the old path of linkat()",
        },
        2_000,
        1_000,
    ),
    "race_exec": _Program(
        {
            "argv": "an argument of execve()",
            "argv-pointer": "the pointer to an argument of execve()",
            "argv-end": "the end of the arguments of execve()",
            "envp": "an environment variable of execve()",
            "envp-pointer": "the pointer to an environment variable of execve()",
        },
        500,
        200,
    ),
    "race_files": _Program(
        {
            "rename-old": "the old path of rename()",
            "rename-new": "the new path of rename()",
            "rename-both": "both paths of rename(), each by itself",
            "openat2-flags": "the flags of openat2()",
            "openat2-resolve": "the resolve flags of openat2()",
            "setxattr-name": "the name of an extended attribute",
            "setxattr-value": "the value of an extended attribute",
            "symlink": "the target of symlink()",
            "utimensat": "the times of utimensat()",
        },
        2_000,
        1_000,
    ),
    "race_sockets": _Program(
        {
            "connect-unix": "the path of connect()",
            "connect-inet": "the port of connect()",
            "bind": "the path of bind()",
            "sendto": "the address of sendto()",
            "sendmsg-name": "the address of sendmsg()",
            "sendmsg-pointer": "the pointer to the address of sendmsg()",
            "sendmsg-namelen": "the length of the address of sendmsg()",
            "sendmsg-rights": "the descriptor that sendmsg() passes on",
            "sendmsg-control": "the pointer to the control data of sendmsg()",
            "sendmsg-controllen": "the length of the control data of sendmsg()",
            "sendmmsg-name": "the addresses of sendmmsg(), each by itself",
            "sendmmsg-pointer": "the pointer to an address of sendmmsg()",
            "setsockopt": "the value of a socket option",
        },
        2_000,
        1_000,
    ),
}
_HELPERS: Final = {
    "race_exec": (("race_child", ("-static", "-nostdlib", "-fno-stack-protector")),),
}
_TRACE_ONLY: Final = frozenset({"sendmmsg-name", "sendmmsg-pointer"})
"""The kernel writes to what these pass, which a listener's back ends cannot pin."""

_PORTABLE: Final[dict[str, Literal["files", "argv"]]] = {
    "open": "files",
    "openat": "files",
    "argv": "argv",
    "argv-pointer": "argv",
}
"""What has to be denied for these, where other sandboxes can be asked to."""

_ALONE: Final = [("thread", "store")]
_OTHERS: Final = [
    ("process", "store"),
    ("clonevm", "store"),
    ("vfork", "store"),
    *(("thread", writer) for writer in _WRITERS if writer != "store"),
]
_FURTHER: Final = [
    *(("process", writer) for writer in ("read", "pread", "splice", "procmem")),
    *(("clonevm", writer) for writer in ("vm-writev", "procmem", "remap")),
    *(("vfork", writer) for writer in ("pread", "procmem", "remap")),
]
_INTO_SHARED: Final = [
    pair for pair in (*_OTHERS, *_FURTHER) if pair[1] in ("store", "read", "pread", "vm-writev")
]
"""Those that leave the pages writable, and in place: the kernel writes there too."""

_LOSES: Final = 40
_LOSES_SLOWLY: Final = 200
"""With two CPUs free, the control loses a quarter of its attempts; asked for is one in so many.
The writers that map pages or go through the file rewrite less often, and may wait for locks."""
_SLOW: Final = frozenset({"splice", "procmem", "remap", "vm-writev"})


def _row(case: str, peer: str, writer: str, attempts: int) -> Attack:
    program = next(name for name, one in _PROGRAMS.items() if case in one.cases)
    found = _PROGRAMS[program]
    loses = _LOSES_SLOWLY if writer in _SLOW else _LOSES
    suffix = "" if writer == "store" else f"-{writer}"
    return Attack(
        f"race-{case}-{peer}{suffix}",
        "race",
        program,
        f"{_PEERS[peer]} rewrites {found.cases[case]}{_WRITERS[writer]}",
        NAIVE,
        (peer, writer, case),
        attempts=attempts or found.attempts,
        control_attempts=found.control_attempts,
        lost=max(2, found.control_attempts // loses),
        chance=True,
        backends=(TRACE,) if case in _TRACE_ONLY else PINNED,
        portable=_PORTABLE.get(case, "") if writer == "store" else "",
        helpers=_HELPERS.get(program, ()),
    )


_EXECUTED: Final = Attack(
    "race-execve-thread",
    "race",
    "race_paths",
    "a thread rewrites the path of execve()",
    NAIVE,
    ("thread", "store", "execve"),
    attempts=500,
    control_attempts=500,
    lost=12,
    chance=True,
)
_UNPRIVILEGED: Final = _row("open", "thread", "store", 5_000)._replace(
    name="race-open-unprivileged",
    about="the same, where supervisor and program are not root",
    portable="",
    unprivileged=True,
)
_SYMLINK: Final = Attack(
    "race-symlink-exchanged",
    "race",
    "race_symlink",
    "a thread exchanges the link that is opened for one that leads elsewhere",
    RESOLVING,
    attempts=3_000,
    control_attempts=3_000,
    lost=15,
    chance=True,
    backends=(TRACE,),
    real=True,
)
_SLOT: Final = Attack(
    "race-slot-reused",
    "race",
    "race_slot",
    "passes a path in the pin, while the supervisor writes another thread's path there",
    UNVERIFIED,
    attempts=10_000,
    control_attempts=5_000,
    lost=10,
    chance=True,
)


def _rows(case: str, pairs: list[tuple[str, str]], attempts: int = 0) -> list[Attack]:
    return [_row(case, *pair, attempts) for pair in pairs]


RACES: Final[tuple[Attack, ...]] = (
    *_rows("open", _ALONE, 15_000),
    _UNPRIVILEGED,
    *(
        row
        for program in _PROGRAMS.values()
        for case in program.cases
        if case != "open"
        for row in _rows(case, _ALONE)
    ),
    _EXECUTED,
    *_rows("open", _OTHERS),
    *_rows("argv-pointer", _OTHERS, 300),
    *_rows("sendmsg-pointer", _OTHERS, 1_500),
    *_rows("sendmmsg-pointer", _INTO_SHARED, 1_500),
    *_rows("connect-unix", _FURTHER, 1_500),
    _SYMLINK,
    _SLOT,
)
