"""Groups of calls, the words in which a policy speaks of them. Derived from the table's rows.

Several groups are called as one of their calls is (``open``, ``rename``, ``mount``). Such a word
means the group: who denies ``open`` means ``openat``, too. So a group must hold the call of its own
name, if there is one; a test sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.errors import PolicyError
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DESCRIPTIONS: Final[dict[str, str]] = {
    "open": "Opens a file by path, or makes one.",
    "stat": "Asks about a file by path: attributes, access, what a symbolic link says.",
    "chdir": "Changes the directory that paths start from, by path and by descriptor.",
    "exec": "Runs a program, with its arguments and environment; loads an old-style library.",
    "truncate": "Changes the length of a file, by path and by descriptor.",
    "unlink": "Removes a name.",
    "rename": "Gives a file another name.",
    "link": "Gives a file a further name, or makes a symbolic link.",
    "mkdir": "Makes a directory, a device, a FIFO or a socket file.",
    "chmod": "Changes permissions, by path and by descriptor, and times and attributes by path.",
    "chown": "Changes a file's owner, by path and by descriptor.",
    "xattr": "Reads, lists, sets and removes extended attributes, by path and by descriptor.",
    "watch": "Watches a file or directory by path.",
    "handle": "Turns a path into a handle that outlives it, and a handle into an open file.",
    "mount": "Mounts, moves, changes, unmounts and lists file systems.",
    "connect": "Connects a socket to an address.",
    "bind": "Gives a socket an address of its own.",
    "send": "Sends a message, to an address of its own if it has one.",
    "receive": "Receives a message, with the sender's address.",
    "accept": "Accepts a connection, with the peer's address.",
    "socket": "Makes sockets, sets and gets their options and addresses.",
    "memfd": "Makes a file in memory, under a name that is for show.",
    "queue": "Opens and removes message queues by name.",
    "key": "Adds, requests and manages keys of the kernel's key rings.",
    "self": "What a task does to itself: its name and attributes, filters, Landlock, labels.",
    "trace": "Looks into other tasks or the kernel: tracing, foreign memory, probes, BPF.",
    "ring": "Sets up and drives io_uring, which makes calls without making them.",
    "module": "Loads and removes kernel modules.",
    "admin": "Swap, accounting, quotas, host name, another kernel, restart.",
}
"""What the calls of each group do, for the documentation."""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    group: tuple(row.name for row in TABLE.values() if row.group == group) for group in DESCRIPTIONS
}
"""The calls of each group, in the order of the table."""


def names(word: str) -> tuple[str, ...]:
    """Returns the calls that a group's or a call's name stands for; a group comes first.

    Raises:
        PolicyError: There is neither a group nor a call of that name.
    """
    if word in GROUPS:
        return GROUPS[word]
    if word in X86_64:
        return (word,)
    known = dict.fromkeys((*GROUPS, *X86_64))
    raise PolicyError(f"there is no system call or group {word!r}{near(word, known)}")


def near(word: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown word: which known ones it is like, if any."""
    from difflib import get_close_matches  # noqa: PLC0415 (slow to import, and seldom needed)

    close = get_close_matches(word, list(known), cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def numbers(word: str, table: Mapping[str, int] = X86_64) -> tuple[int, ...]:
    """Returns the numbers of the calls that a group's or a call's name stands for.

    Args:
        word: Name of a group or of a call.
        table: The architecture's numbers; what it lacks is left out, so the result may be empty.

    Raises:
        PolicyError: There is neither a group nor a call of that name.
    """
    return tuple(table[name] for name in names(word) if name in table)
