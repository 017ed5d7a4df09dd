"""The table of calls whose path arguments are judged and pinned. Adding a call is adding a row.

A row names the call, its group (what a policy calls it), and each argument: a name for the log and
a :class:`~pinfold.syscalls.kinds.Kind`. Everything else follows: the number and with it the filter
(``filter.py``), which registers are read, what is pinned, how the log shows it. Arguments after the
last interesting one are left out.

Sources: the man page of each call, ``include/linux/syscalls.h`` for the order of arguments.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.numbers import X86_64

_DIRFD: Final = ("dirfd", Kind.DIRFD)
_PATH: Final = ("path", Kind.PATH)
_FLAGS: Final = ("flags", Kind.AT_FLAGS)
_MODE: Final = ("mode", Kind.MODE)
_OUT: Final = ("out", Kind.LEFT)
_OLD: Final = ("old_path", Kind.PATH)
_OLD_DIRFD: Final = ("old_dirfd", Kind.DIRFD)
_NEW: Final = ("new_path", Kind.PATH)
_NEW_DIRFD: Final = ("new_dirfd", Kind.DIRFD)
_LINK_TEXT: Final = ("target", Kind.TEXT)
_OPEN_FLAGS: Final = ("flags", Kind.OPEN_FLAGS)
_VALUE: Final = ("value", Kind.LEFT)
_XATTR: Final = ("name", Kind.LEFT)
_UID: Final = ("uid", Kind.NUMBER)
_GID: Final = ("gid", Kind.NUMBER)
_ARGV: Final = ("argv", Kind.LEFT)
_ENVP: Final = ("envp", Kind.LEFT)

Argument = tuple[str, Kind]


class Row(NamedTuple):
    """One system call."""

    name: str
    group: str
    arguments: tuple[Argument, ...]

    @property
    def number(self) -> int:
        """Its number on x86-64."""
        return X86_64[self.name]


def _row(name: str, group: str, *arguments: Argument) -> Row:
    return Row(name, group, arguments)


ROWS: Final[tuple[Row, ...]] = (
    _row("open", "open", _PATH, _OPEN_FLAGS, _MODE),
    _row("openat", "open", _DIRFD, _PATH, _OPEN_FLAGS, _MODE),
    _row("openat2", "open", _DIRFD, _PATH, ("how", Kind.OPEN_HOW), ("size", Kind.NUMBER)),
    _row("creat", "open", _PATH, _MODE),
    _row("stat", "stat", _PATH, _OUT),
    _row("lstat", "stat", _PATH, _OUT),
    _row("newfstatat", "stat", _DIRFD, _PATH, _OUT, _FLAGS),
    _row("statx", "stat", _DIRFD, _PATH, _FLAGS, ("mask", Kind.NUMBER), _OUT),
    _row("access", "stat", _PATH, _MODE),
    _row("faccessat", "stat", _DIRFD, _PATH, _MODE),
    _row("faccessat2", "stat", _DIRFD, _PATH, _MODE, _FLAGS),
    _row("readlink", "stat", _PATH, _OUT),
    _row("readlinkat", "stat", _DIRFD, _PATH, _OUT),
    _row("statfs", "stat", _PATH, _OUT),
    _row("file_getattr", "stat", _DIRFD, _PATH, _OUT, ("size", Kind.NUMBER), _FLAGS),
    _row("chdir", "chdir", _PATH),
    _row("chroot", "chdir", _PATH),
    _row("execve", "exec", _PATH, _ARGV, _ENVP),
    _row("execveat", "exec", _DIRFD, _PATH, _ARGV, _ENVP, _FLAGS),
    _row("truncate", "truncate", _PATH, ("length", Kind.NUMBER)),
    _row("unlink", "unlink", _PATH),
    _row("unlinkat", "unlink", _DIRFD, _PATH, _FLAGS),
    _row("rmdir", "unlink", _PATH),
    _row("rename", "rename", _OLD, _NEW),
    _row("renameat", "rename", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW),
    _row("renameat2", "rename", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW, ("flags", Kind.NUMBER)),
    _row("link", "link", _OLD, _NEW),
    _row("linkat", "link", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW, _FLAGS),
    _row("symlink", "link", _LINK_TEXT, _NEW),
    _row("symlinkat", "link", _LINK_TEXT, _NEW_DIRFD, _NEW),
    _row("mkdir", "mkdir", _PATH, _MODE),
    _row("mkdirat", "mkdir", _DIRFD, _PATH, _MODE),
    _row("mknod", "mkdir", _PATH, _MODE, ("dev", Kind.NUMBER)),
    _row("mknodat", "mkdir", _DIRFD, _PATH, _MODE, ("dev", Kind.NUMBER)),
    _row("chmod", "chmod", _PATH, _MODE),
    _row("fchmodat", "chmod", _DIRFD, _PATH, _MODE),
    _row("fchmodat2", "chmod", _DIRFD, _PATH, _MODE, _FLAGS),
    _row("file_setattr", "chmod", _DIRFD, _PATH, _OUT, ("size", Kind.NUMBER), _FLAGS),
    _row("chown", "chown", _PATH, _UID, _GID),
    _row("lchown", "chown", _PATH, _UID, _GID),
    _row("fchownat", "chown", _DIRFD, _PATH, _UID, _GID, _FLAGS),
    _row("utime", "chmod", _PATH, _VALUE),
    _row("utimes", "chmod", _PATH, _VALUE),
    _row("futimesat", "chmod", _DIRFD, ("path", Kind.PATH_OR_NULL), _VALUE),
    _row("utimensat", "chmod", _DIRFD, ("path", Kind.PATH_OR_NULL), _VALUE, _FLAGS),
    _row("setxattr", "xattr", _PATH, _XATTR, _VALUE, ("size", Kind.NUMBER)),
    _row("lsetxattr", "xattr", _PATH, _XATTR, _VALUE, ("size", Kind.NUMBER)),
    _row("getxattr", "xattr", _PATH, _XATTR, _OUT),
    _row("lgetxattr", "xattr", _PATH, _XATTR, _OUT),
    _row("listxattr", "xattr", _PATH, _OUT),
    _row("llistxattr", "xattr", _PATH, _OUT),
    _row("removexattr", "xattr", _PATH, _XATTR),
    _row("lremovexattr", "xattr", _PATH, _XATTR),
    _row("setxattrat", "xattr", _DIRFD, _PATH, _FLAGS, _XATTR, _VALUE),
    _row("getxattrat", "xattr", _DIRFD, _PATH, _FLAGS, _XATTR, _OUT),
    _row("listxattrat", "xattr", _DIRFD, _PATH, _FLAGS, _OUT),
    _row("removexattrat", "xattr", _DIRFD, _PATH, _FLAGS, _XATTR),
    _row("inotify_add_watch", "watch", ("fd", Kind.NUMBER), _PATH, ("mask", Kind.NUMBER)),
    _row("acct", "admin", ("path", Kind.PATH_OR_NULL)),
    _row("swapon", "admin", _PATH, ("flags", Kind.NUMBER)),
    _row("swapoff", "admin", _PATH),
)
"""Every call that takes a path, but for those that ``refused.py`` refuses outright."""
