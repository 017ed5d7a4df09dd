"""Calls that escape the verdict."""

from __future__ import annotations

from typing import Final

from pinfold.attack.catalogue.model import (
    FOLLOWER,
    NAIVE,
    RESOLVING,
    TRACE,
    TRACER,
    UNVERIFIED,
    Attack,
)

_I386: Final = (("bypass_i386", ("-m32", "-nostdlib", "-static")),)
_OPENER: Final = (("bypass_opener", ("-static",)),)
_NO_WAY: Final = "the kernel itself has no way to do this, whoever supervises"


def _bypass(name: str, program: str, word: str, about: str, control: str = NAIVE) -> Attack:
    return Attack(f"bypass-{name}", "bypass", program, about, control, (word,))


_TABLES: Final = (
    _bypass("int80", "bypass_table", "int80", "opens through the 32-bit entry of the kernel"),
    _bypass("x32", "bypass_table", "x32", "opens by the number of another table"),
    _bypass("i386", "bypass_table", "i386", "executes a 32-bit program, which opens")._replace(
        helpers=_I386
    ),
)

_FILTERS: Final = (
    _bypass(
        "own-listener",
        "bypass_filter",
        "notify",
        "has a listener of its own continue the call",
        TRACER,
    ),
    _bypass(
        "own-listener-synced",
        "bypass_filter",
        "synced",
        "the same, by a filter put on all threads at once",
        TRACER,
    ),
    _bypass(
        "trace-data",
        "bypass_filter",
        "data",
        "has a filter of its own ask the tracer about another call",
        FOLLOWER,
    ),
    _bypass(
        "strict", "bypass_filter", "strict", "exchanges its filters for the strict mode", ""
    )._replace(alone=_NO_WAY),
    _bypass("errno", "bypass_filter", "errno", "makes its opens succeed unmade", "")._replace(
        alone=_NO_WAY
    ),
    _bypass(
        "domain", "bypass_filter", "domain", "enters a Landlock domain of its own", ""
    )._replace(alone=_NO_WAY),
)

_TRACERS: Final = (
    _bypass(
        "seize", "bypass_tracer", "seize", "traces its own child and answers its stops", TRACER
    ),
    _bypass(
        "traceme", "bypass_tracer", "traceme", "is traced by its own parent, which pokes", TRACER
    ),
    _bypass(
        "untraced",
        "bypass_tracer",
        "untraced",
        "traces a child that its tracer is not told of",
        FOLLOWER,
    ),
    _bypass(
        "clone3-untraced",
        "bypass_tracer",
        "clone3",
        "the same, asked for in memory",
        FOLLOWER,
    ),
)

_MEMORY: Final = (
    _bypass(
        "memory-secret", "bypass_memory", "secret", "a path in memory that only the caller maps"
    ),
    _bypass("memory-write-only", "bypass_memory", "write", "a path on a page that may not be read"),
    _bypass(
        "memory-execute-only",
        "bypass_memory",
        "execute",
        "a path on a page that may only be executed",
    ),
    _bypass("memory-half", "bypass_memory", "half", "a path whose end is on an unreadable page"),
    _bypass("memory-device", "bypass_memory", "device", "a path in a counter's ring buffer"),
    _bypass(
        "memory-flicker",
        "bypass_memory",
        "flicker",
        "a path that is readable only after the verdict",
    )._replace(attempts=10_000, control_attempts=4_000, lost=10, chance=True),
    _bypass(
        "memory-hidden", "bypass_memory", "hidden", "hides its memory from its own user"
    )._replace(unprivileged=True),
    _bypass("memory-program", "bypass_memory", "program", "executes what may not be read")._replace(
        unprivileged=True, readable=False, helpers=_OPENER
    ),
)

_FORKS: Final = tuple(
    _bypass(f"{call}-dontfork", "bypass_dontfork", word, about, UNVERIFIED)._replace(
        attempts=1_000, control_attempts=200, lost=100, chance=True, flags=("-static",)
    )
    for call, word, about in (
        ("madvise", "madvise", "keeps the pin from a child, which maps another there"),
        ("process-madvise", "process", "the same, by the advice that one gives other processes"),
    )
)

_STALLS: Final = (
    _bypass("userfaultfd", "bypass_stall", "call", "withholds a page that the supervisor reads"),
    _bypass("dev-userfaultfd", "bypass_stall", "device", "the same, by the device"),
)

_RING: Final = tuple(
    _bypass(f"ring-{word}", "bypass_ring", word, about)
    for word, about in (
        ("open", "opens through io_uring"),
        ("open2", "opens through io_uring, by openat2"),
        ("connect", "connects through io_uring"),
        ("rename", "renames through io_uring, and opens"),
        ("link", "links through io_uring, and opens"),
        ("mkdir", "makes a directory through io_uring"),
        ("unlink", "removes a file through io_uring"),
    )
)

_PRIVILEGES: Final = (
    _bypass("setuid", "bypass_privilege", "setuid", "becomes root again by a program of root's"),
    _bypass(
        "file-capabilities", "bypass_privilege", "capabilities", "gets capabilities from a file"
    ),
)

_MOUNTS: Final = tuple(
    _bypass(f"mount-{word}{'-nobody' * unprivileged}", "bypass_mount", word, about)._replace(
        unprivileged=unprivileged
    )
    for unprivileged in (False, True)
    for word, about in (
        ("bind", "mounts the file upon another"),
        ("tree", "opens a detached mount of the file"),
        ("move", "attaches a detached mount of the file"),
        ("overlay", "shows the file in a file system of another type"),
        ("setns", "enters a namespace where the file is mounted"),
        ("pivot", "makes another root, with the file in it"),
    )
    # What belongs to root cannot be renamed in a file system of nobody's.
    if not (unprivileged and word == "overlay")
)

_HANDLES: Final = (
    _bypass("handle", "bypass_alias", "handle", "opens by a handle that it was given"),
    _bypass("made-up-handle", "bypass_alias", "number", "opens by a handle that it made up"),
)

_ALIASES: Final = tuple(
    _bypass(f"alias-{word}", "bypass_alias", word, about)._replace(real=True, backends=(TRACE,))
    for word, about in (
        ("link", "opens through a symbolic link"),
        ("dots", "through a link with dots and slashes"),
        ("chain", "through a chain of links"),
        ("relative", "through a link below its working directory"),
        ("dirfd", "through a link below a descriptor"),
        ("root", "through a link below /proc/self/root"),
        ("cwd", "through a link below /proc/self/cwd"),
        ("fd", "through a link below a descriptor's name in /proc"),
        ("child", "through a link below its child's working directory"),
        ("chroot", "through a link that begins at another root"),
        ("exec", "executes through a link"),
        ("hard", "makes a hard link through a symbolic one"),
    )
)

_ABOUT: Final = {
    "linkat-new": "makes a hard link of that name",
    "exchange": "exchanges it for another file by renameat2()",
}
_FORGOTTEN: Final = tuple(
    _bypass(
        f"forgotten-{call.replace('_', '-')}",
        "bypass_forgotten",
        call,
        _ABOUT.get(call, f"names it to {call}()"),
    )
    for call in (
        *("execveat", "linkat", "linkat-new", "renameat2", "exchange", "truncate"),
        *("mknod", "mknodat", "mkdir", "mkdirat", "rmdir", "symlinkat"),
        *("chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat"),
        *("utime", "utimes", "futimesat"),
        *("lsetxattr", "setxattrat", "getxattr", "lgetxattr", "getxattrat"),
        *("listxattr", "llistxattr", "listxattrat"),
        *("removexattr", "lremovexattr", "removexattrat"),
        *("faccessat", "faccessat2", "statfs", "file_getattr", "inotify_add_watch"),
        *("name_to_handle_at", "open_tree", "chroot"),
        *("acct", "swapon", "swapoff", "umount2", "quotactl"),
    )
)

_SWAPS: Final = tuple(
    _bypass(f"swap-{word}", "bypass_swap", word, about, RESOLVING)._replace(
        attempts=4_000, control_attempts=2_000, lost=10, chance=True, real=True, backends=(TRACE,)
    )
    for word, about in (
        ("cwd", "a thread exchanges the working directory"),
        ("dirfd", "a thread exchanges a directory's descriptor"),
        ("proc", "a thread exchanges a descriptor that is named in /proc"),
        ("fs", "a process that shares the working directory exchanges it"),
        ("files", "a process that shares descriptors exchanges one"),
    )
)

BYPASSES: Final[tuple[Attack, ...]] = (
    *_TABLES,
    *_FILTERS,
    *_TRACERS,
    *_MEMORY,
    *_FORKS,
    *_STALLS,
    *_RING,
    *_PRIVILEGES,
    *_MOUNTS,
    *_HANDLES,
    *_ALIASES,
    *_FORGOTTEN,
    *_SWAPS,
)
