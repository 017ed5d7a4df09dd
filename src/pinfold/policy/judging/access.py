"""What a call may do with each name that it is given: read, write, create, execute (pure).

The words are ``model.ACCESS``, and they say what the *call* asks for, not what comes of it: an open
with ``O_CREAT`` creates, even where the file turns out to exist. Where the kernel leaves something
open, or would refuse the call, more is said rather than less.

- ``write`` is every change of a file, of what is known about it, or of its name: the old name of a
  rename is written, the new one is created and written.
- A link gives a file a further name, by which a rule over names may not know it. So its old name is
  read and written, as whoever has the new one can do both.
- ``O_TRUNC`` cuts a file that is opened for reading, too. The access mode 3 is neither reading nor
  writing, but the kernel asks for the right to both.
- With ``O_PATH`` the kernel ignores ``O_CREAT`` and ``O_TRUNC`` in ``open`` and ``openat``, and
  refuses them in ``openat2``.
- Executing a file reads it. A rule that allows execution need not allow reading for that, see
  :func:`needed`.
- ``access(2)`` asks a question, whatever it asks for.
- The path of a Unix socket is created by ``bind`` and written by ``connect`` and by a send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr, Unix
from pinfold.syscalls.kinds import O_NAMES
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pinfold.policy.calls import Trapped

_Words = frozenset[str]

_READ: Final = frozenset({"read"})
_WRITE: Final = frozenset({"write"})
_CREATE: Final = frozenset({"create"})
_BOTH: Final = _READ | _WRITE
_MAKE: Final = _WRITE | _CREATE
_EXEC: Final = frozenset({"exec", "read"})
_ANY_OPEN: Final = _BOTH | _CREATE

_O: Final = {name: bits for bits, name in O_NAMES}
_O_CREAT: Final = _O["O_CREAT"]
_O_TRUNC: Final = _O["O_TRUNC"]
O_PATH: Final = _O["O_PATH"]
_O_TMPFILE: Final = _O["O_TMPFILE"] & ~_O["O_DIRECTORY"]
"""``__O_TMPFILE``; without ``O_DIRECTORY`` the kernel refuses it."""
_O_ACCMODE: Final = 3
OPEN_TELLING: Final = _O_CREAT | _O_TRUNC | O_PATH | _O_TMPFILE | _O_ACCMODE
"""The bits of an open's flags by which :func:`open_access` goes."""
_EXCHANGE_OR_WHITEOUT: Final = 0x2 | 0x4
"""``RENAME_EXCHANGE`` and ``RENAME_WHITEOUT``: something is put at the old name."""

_BY_DESCRIPTOR: Final = ("fd",)
_BY_PATH: Final = ("path",)
_OLD_AND_NEW: Final = ("old_path", "new_path")

_OPENS: Final = frozenset({"open", "openat", "openat2", "creat"})


def _each(arguments: tuple[str, ...], words: _Words, *calls: str) -> dict[str, dict[str, _Words]]:
    return {call: dict.fromkeys(arguments, words) for call in calls}


_FIXED: Final[dict[str, dict[str, _Words]]] = {
    **_each(
        _BY_PATH,
        _READ,
        *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
        *("readlink", "readlinkat", "statfs", "file_getattr", "chdir", "chroot"),
        *("getxattr", "lgetxattr", "listxattr", "llistxattr", "getxattrat", "listxattrat"),
        *("inotify_add_watch", "fanotify_mark", "name_to_handle_at", "open_tree"),
    ),
    **_each(
        _BY_PATH,
        _WRITE,
        *("truncate", "unlink", "unlinkat", "rmdir"),
        *("chmod", "fchmodat", "fchmodat2", "file_setattr", "chown", "lchown", "fchownat"),
        *("utime", "utimes", "futimesat", "utimensat"),
        *("setxattr", "lsetxattr", "setxattrat", "removexattr", "lremovexattr", "removexattrat"),
        *("mount", "umount2", "open_tree_attr", "mount_setattr"),
    ),
    **_each(
        _BY_PATH,
        _CREATE,
        *("mkdir", "mkdirat", "mknod", "mknodat"),
    ),
    **_each(_BY_PATH, _BOTH, "acct", "swapon", "swapoff", "fspick", "quotactl"),
    **_each(_BY_PATH, _EXEC, "execve", "execveat", "uselib"),
    **_each(_BY_PATH, _MAKE, "creat"),
    **_each(_BY_PATH, _ANY_OPEN, "open", "openat", "openat2"),
    **_each(("new_path",), _CREATE, "symlink", "symlinkat"),
    **_each(_OLD_AND_NEW, _MAKE, "rename", "renameat", "renameat2", "move_mount"),
    **{name: {"old_path": _BOTH, "new_path": _CREATE} for name in ("link", "linkat")},
    **_each(("new_root", "put_old"), _WRITE, "pivot_root"),
    **_each(_BY_DESCRIPTOR, _READ, "fchdir", "fgetxattr", "flistxattr"),
    **_each(
        _BY_DESCRIPTOR,
        _WRITE,
        *("ftruncate", "fchmod", "fchown", "fsetxattr", "fremovexattr"),
    ),
    **_each(("address",), _WRITE, "connect", "sendto"),
    **_each(("address",), _CREATE, "bind"),
    **_each(("message",), _WRITE, "sendmsg"),
    **_each(("messages",), _WRITE, "sendmmsg"),
}
"""By call and argument, everything that it may do with what is named there."""

_SOURCES: Final[dict[str, dict[str, _Words]]] = {
    name: {"old_path": _WRITE, "new_path": _MAKE}
    for name in ("rename", "renameat", "renameat2", "move_mount")
}
"""What a rename does without flags that put something at the old name."""

_OPENED: Final[dict[_Words, dict[str, _Words]]] = {
    words: {"path": words}
    for words in (_READ, _WRITE, _CREATE, _BOTH, _MAKE, _ANY_OPEN, _READ | _CREATE)
}
_FLAGS_AT: Final = {
    name: index
    for name in (*_OPENS, "renameat2")
    for index, (argument, _) in enumerate(TABLE[name].arguments)
    if argument == "flags"
}
_ADDRESSED: Final = {
    name: next(iter(_FIXED[name])) for name in ("connect", "bind", "sendto", "sendmsg", "sendmmsg")
}
_NOTHING: Final[Mapping[str, _Words]] = {}


def possible(call: str) -> Mapping[str, frozenset[str]]:
    """Returns all that a call may do, whatever its flags are, by the name of the argument.

    Arguments that name nothing are left out, and so the result is empty for most calls.

    Args:
        call: The system call's name.
    """
    return _FIXED.get(call, _NOTHING)


def access_of(call: Trapped) -> Mapping[str, frozenset[str]]:
    """Returns what a call may do with what each argument names, by the argument's name.

    A socket address is in it only if it is that of a Unix socket with a path.

    Args:
        call: The call; its flags are those of its registers, or of its ``open_how``.
    """
    name = call.row.name
    if name in _OPENS:
        return _OPENED[_opened(call)]
    if name in _ADDRESSED:
        argument = _ADDRESSED[name]
        return _FIXED[name] if _has_path(_value(call, argument)) else _NOTHING
    if name in _SOURCES:
        at = _FLAGS_AT.get(name)
        if at is None or not call.registers[at] & _EXCHANGE_OR_WHITEOUT:
            return _SOURCES[name]
    return _FIXED.get(name, _NOTHING)


def moved(call: Trapped) -> frozenset[str]:
    """Returns the arguments whose file gets another name, and with it all that lies below.

    Args:
        call: The call.
    """
    found = _MOVED.get(call.row.name, _NONE)
    if (
        found
        and call.row.name in _FLAGS_AT
        and call.registers[_FLAGS_AT[call.row.name]] & _EXCHANGE
    ):
        return _BOTH_MOVED
    return found


_EXCHANGE: Final = 0x2
_NONE: Final[frozenset[str]] = frozenset()
_BOTH_MOVED: Final = frozenset(_OLD_AND_NEW)
_MOVED: Final = dict.fromkeys(("rename", "renameat", "renameat2"), frozenset({"old_path"}))


def needed(does: frozenset[str]) -> frozenset[str]:
    """Returns the words that a rule has to name to allow a call that does all of ``does``."""
    return does - _READ if "exec" in does else does


def open_access(flags: int) -> frozenset[str]:
    """Returns what an open with these ``O_*`` bits may do with the file."""
    if flags & O_PATH:
        return _READ
    found = (_READ, _WRITE, _BOTH, _BOTH)[flags & _O_ACCMODE]
    if flags & _O_TRUNC:
        found = found | _WRITE
    if flags & _O_TMPFILE:
        return found | _MAKE
    return found | _CREATE if flags & _O_CREAT else found


def _opened(call: Trapped) -> _Words:
    name = call.row.name
    if name == "creat":
        return _MAKE
    at = _FLAGS_AT.get(name)
    if at is not None:
        return open_access(call.registers[at])
    how = _value(call, "how")
    if not isinstance(how, OpenHow) or how.offset < 0:
        return _ANY_OPEN
    if how.flags & O_PATH and how.flags & (_O_CREAT | _O_TRUNC | _O_TMPFILE | _O_ACCMODE):
        return _ANY_OPEN
    return open_access(how.flags)


def _value(call: Trapped, name: str) -> Any:
    for argument in call.arguments:
        if argument.name == name:
            return argument.value
    return None


def _has_path(value: Any) -> bool:
    if isinstance(value, Sockaddr):
        return isinstance(value.address, Unix)
    return isinstance(value, Message) and isinstance(value.name, Unix)
