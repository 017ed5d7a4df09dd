"""The table of system calls whose arguments mean something to a verdict. A call is a row.

A row names the call, its group (what a policy calls it), and *every* argument, in order: a name for
the log and a :class:`~pinfold.syscalls.kinds.Kind`. Everything else follows: the number and with it
the filter (``filter.py``), which registers are read, what is pinned, how the log shows it, which
calls a group holds (``groups.py``), what the documentation says (``docs/syscalls.md``).

A call is in the table when a pointer argument names something (a file, an address, a program, a
key), when it configures something by bytes that a verdict may want to see, or when its group would
be incomplete without it. Every other call is in ``exempt.py``, with the reason. What is refused in
every sandbox is described here like the rest; the refusal is in ``refused.py`` alone.

Sources: the man page of each call and ``include/linux/syscalls.h``; a test compares the rows with
what the running kernel says of its calls. The order of arguments is that of x86-64, and for these
calls of aarch64, too (``clone``, which differs, is exempt).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pinfold.syscalls.kinds import PINNED, Kind
from pinfold.syscalls.numbers import AARCH64, X86_64

_FD: Final = ("fd", Kind.FD)
_DIRFD: Final = ("dirfd", Kind.DIRFD)
_PATH: Final = ("path", Kind.PATH)
_PATH_OR_NULL: Final = ("path", Kind.PATH_OR_NULL)
_AT_FLAGS: Final = ("flags", Kind.AT_FLAGS)
_FLAGS: Final = ("flags", Kind.FLAGS)
_MASK: Final = ("mask", Kind.FLAGS)
_MODE: Final = ("mode", Kind.MODE)
_SIZE: Final = ("size", Kind.SIZE)
_OUT: Final = ("out", Kind.OUT)
_OLD: Final = ("old_path", Kind.PATH)
_OLD_DIRFD: Final = ("old_dirfd", Kind.DIRFD)
_NEW: Final = ("new_path", Kind.PATH)
_NEW_DIRFD: Final = ("new_dirfd", Kind.DIRFD)
_LINK_TEXT: Final = ("target", Kind.TEXT)
_OPEN_FLAGS: Final = ("flags", Kind.OPEN_FLAGS)
_NAME: Final = ("name", Kind.NAME)
_VALUE: Final = ("value", Kind.BUFFER_IN)
_ATTR: Final = ("attr", Kind.BUFFER_IN)
_UID: Final = ("uid", Kind.NUMBER)
_GID: Final = ("gid", Kind.NUMBER)
_DEV: Final = ("dev", Kind.NUMBER)
_ARGV: Final = ("argv", Kind.STRINGS)
_ENVP: Final = ("envp", Kind.STRINGS)
_ADDRESS: Final = ("address", Kind.SOCKADDR)
_LENGTH: Final = ("length", Kind.SIZE)
_LENGTH_INOUT: Final = ("length", Kind.INOUT)
_HOST: Final = (("name", Kind.BUFFER_IN), _SIZE)
_SOCKET: Final = (
    ("domain", Kind.NUMBER),
    ("type", Kind.FLAGS),
    ("protocol", Kind.NUMBER),
)
_OPTION: Final = (_FD, ("level", Kind.NUMBER), ("option", Kind.NUMBER))
_KEY: Final = (("type", Kind.WORD), ("description", Kind.WORD_OR_NULL))
_KEYRING: Final = ("keyring", Kind.INTEGER)
_ARG_2_TO_5: Final = tuple((f"arg{index}", Kind.VARIES) for index in range(2, 6))
_PEER_MEMORY: Final = (
    ("pid", Kind.INTEGER),
    ("local", Kind.LEFT),
    ("local_count", Kind.SIZE),
    ("remote", Kind.LEFT),
    ("remote_count", Kind.SIZE),
    _FLAGS,
)

Argument = tuple[str, Kind]


class Row(NamedTuple):
    """One system call."""

    name: str
    group: str
    arguments: tuple[Argument, ...]
    """Every argument, in the order of the registers."""

    @property
    def number(self) -> int:
        """Its number on x86-64."""
        return X86_64[self.name]

    @property
    def number_aarch64(self) -> int | None:
        """Its number on aarch64; None where that has a newer form of it only."""
        return AARCH64.get(self.name)

    @property
    def pinned(self) -> tuple[int, ...]:
        """Indexes of the arguments that a verdict may depend on and that are pinned then."""
        return tuple(index for index, (_, kind) in enumerate(self.arguments) if kind in PINNED)


def _row(name: str, group: str, *arguments: Argument) -> Row:
    return Row(name, group, arguments)


PATH_ROWS: Final[tuple[Row, ...]] = (
    _row("open", "open", _PATH, _OPEN_FLAGS, _MODE),
    _row("openat", "open", _DIRFD, _PATH, _OPEN_FLAGS, _MODE),
    _row("openat2", "open", _DIRFD, _PATH, ("how", Kind.OPEN_HOW), _SIZE),
    _row("creat", "open", _PATH, _MODE),
    _row("stat", "stat", _PATH, _OUT),
    _row("lstat", "stat", _PATH, _OUT),
    _row("newfstatat", "stat", _DIRFD, _PATH, _OUT, _AT_FLAGS),
    _row("statx", "stat", _DIRFD, _PATH, _AT_FLAGS, _MASK, _OUT),
    _row("access", "stat", _PATH, _MODE),
    _row("faccessat", "stat", _DIRFD, _PATH, _MODE),
    _row("faccessat2", "stat", _DIRFD, _PATH, _MODE, _AT_FLAGS),
    _row("readlink", "stat", _PATH, _OUT, _SIZE),
    _row("readlinkat", "stat", _DIRFD, _PATH, _OUT, _SIZE),
    _row("statfs", "stat", _PATH, _OUT),
    _row("file_getattr", "stat", _DIRFD, _PATH, _OUT, _SIZE, _AT_FLAGS),
    _row("chdir", "chdir", _PATH),
    _row("chroot", "chdir", _PATH),
    _row("execve", "exec", _PATH, _ARGV, _ENVP),
    _row("execveat", "exec", _DIRFD, _PATH, _ARGV, _ENVP, _AT_FLAGS),
    _row("truncate", "truncate", _PATH, ("length", Kind.NUMBER)),
    _row("unlink", "unlink", _PATH),
    _row("unlinkat", "unlink", _DIRFD, _PATH, _AT_FLAGS),
    _row("rmdir", "unlink", _PATH),
    _row("rename", "rename", _OLD, _NEW),
    _row("renameat", "rename", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW),
    _row("renameat2", "rename", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW, _FLAGS),
    _row("link", "link", _OLD, _NEW),
    _row("linkat", "link", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW, _AT_FLAGS),
    _row("symlink", "link", _LINK_TEXT, _NEW),
    _row("symlinkat", "link", _LINK_TEXT, _NEW_DIRFD, _NEW),
    _row("mkdir", "mkdir", _PATH, _MODE),
    _row("mkdirat", "mkdir", _DIRFD, _PATH, _MODE),
    _row("mknod", "mkdir", _PATH, _MODE, _DEV),
    _row("mknodat", "mkdir", _DIRFD, _PATH, _MODE, _DEV),
    _row("chmod", "chmod", _PATH, _MODE),
    _row("fchmodat", "chmod", _DIRFD, _PATH, _MODE),
    _row("fchmodat2", "chmod", _DIRFD, _PATH, _MODE, _AT_FLAGS),
    _row("file_setattr", "chmod", _DIRFD, _PATH, _ATTR, _SIZE, _AT_FLAGS),
    _row("chown", "chown", _PATH, _UID, _GID),
    _row("lchown", "chown", _PATH, _UID, _GID),
    _row("fchownat", "chown", _DIRFD, _PATH, _UID, _GID, _AT_FLAGS),
    _row("utime", "chmod", _PATH, ("times", Kind.UTIMBUF)),
    _row("utimes", "chmod", _PATH, ("times", Kind.TIMEVALS)),
    _row("futimesat", "chmod", _DIRFD, _PATH_OR_NULL, ("times", Kind.TIMEVALS)),
    _row("utimensat", "chmod", _DIRFD, _PATH_OR_NULL, ("times", Kind.TIMESPECS), _AT_FLAGS),
    _row("setxattr", "xattr", _PATH, _NAME, _VALUE, _SIZE, _FLAGS),
    _row("lsetxattr", "xattr", _PATH, _NAME, _VALUE, _SIZE, _FLAGS),
    _row("getxattr", "xattr", _PATH, _NAME, _OUT, _SIZE),
    _row("lgetxattr", "xattr", _PATH, _NAME, _OUT, _SIZE),
    _row("listxattr", "xattr", _PATH, _OUT, _SIZE),
    _row("llistxattr", "xattr", _PATH, _OUT, _SIZE),
    _row("removexattr", "xattr", _PATH, _NAME),
    _row("lremovexattr", "xattr", _PATH, _NAME),
    _row("setxattrat", "xattr", _DIRFD, _PATH, _AT_FLAGS, _NAME, ("args", Kind.XATTR_ARGS), _SIZE),
    _row(
        "getxattrat", "xattr", _DIRFD, _PATH, _AT_FLAGS, _NAME, ("args", Kind.XATTR_ARGS_OUT), _SIZE
    ),
    _row("listxattrat", "xattr", _DIRFD, _PATH, _AT_FLAGS, _OUT, _SIZE),
    _row("removexattrat", "xattr", _DIRFD, _PATH, _AT_FLAGS, _NAME),
    _row("inotify_add_watch", "watch", _FD, _PATH, _MASK),
    _row("acct", "admin", _PATH_OR_NULL),
    _row("swapon", "admin", _PATH, _FLAGS),
    _row("swapoff", "admin", _PATH),
)
"""Calls that take a path and are made in the sandbox under path rules."""

DESCRIPTOR_ROWS: Final[tuple[Row, ...]] = (
    _row("fchdir", "chdir", _FD),
    _row("ftruncate", "truncate", _FD, ("length", Kind.NUMBER)),
    _row("fchmod", "chmod", _FD, _MODE),
    _row("fchown", "chown", _FD, _UID, _GID),
    _row("fsetxattr", "xattr", _FD, _NAME, _VALUE, _SIZE, _FLAGS),
    _row("fgetxattr", "xattr", _FD, _NAME, _OUT, _SIZE),
    _row("flistxattr", "xattr", _FD, _OUT, _SIZE),
    _row("fremovexattr", "xattr", _FD, _NAME),
)
"""What some of the calls above do by path, done to a file that is open already."""

SOCKET_ROWS: Final[tuple[Row, ...]] = (
    _row("connect", "connect", _FD, _ADDRESS, _LENGTH),
    _row("bind", "bind", _FD, _ADDRESS, _LENGTH),
    _row(
        "sendto",
        "send",
        _FD,
        ("data", Kind.PAYLOAD),
        _SIZE,
        _FLAGS,
        ("address", Kind.SOCKADDR_OR_NULL),
        _LENGTH,
    ),
    _row("sendmsg", "send", _FD, ("message", Kind.MSGHDR), _FLAGS),
    _row("sendmmsg", "send", _FD, ("messages", Kind.MMSGHDR), ("count", Kind.SIZE), _FLAGS),
    _row(
        "recvfrom",
        "receive",
        _FD,
        _OUT,
        _SIZE,
        _FLAGS,
        ("address", Kind.OUT),
        _LENGTH_INOUT,
    ),
    _row("recvmsg", "receive", _FD, ("message", Kind.INOUT), _FLAGS),
    _row(
        "recvmmsg",
        "receive",
        _FD,
        ("messages", Kind.INOUT),
        ("count", Kind.SIZE),
        _FLAGS,
        ("timeout", Kind.INOUT),
    ),
    _row("accept", "accept", _FD, _OUT, _LENGTH_INOUT),
    _row("accept4", "accept", _FD, _OUT, _LENGTH_INOUT, _FLAGS),
    _row("socket", "socket", *_SOCKET),
    _row("socketpair", "socket", *_SOCKET, _OUT),
    _row("getsockname", "socket", _FD, _OUT, _LENGTH_INOUT),
    _row("getpeername", "socket", _FD, _OUT, _LENGTH_INOUT),
    _row("setsockopt", "socket", *_OPTION, _VALUE, _SIZE),
    # Some options are looked up by what the caller put into the buffer.
    _row("getsockopt", "socket", *_OPTION, ("value", Kind.INOUT), ("size", Kind.INOUT)),
)
"""Sockets: who is talked to, and as whom."""

MOUNT_ROWS: Final[tuple[Row, ...]] = (
    _row(
        "mount",
        "mount",
        ("source", Kind.SOURCE),
        _PATH,
        ("type", Kind.WORD_OR_NULL),
        _FLAGS,
        ("data", Kind.PAGE),
    ),
    _row("umount2", "mount", _PATH, _FLAGS),
    _row("pivot_root", "mount", ("new_root", Kind.PATH), ("put_old", Kind.PATH)),
    _row("open_tree", "mount", _DIRFD, _PATH, _AT_FLAGS),
    _row("open_tree_attr", "mount", _DIRFD, _PATH, _AT_FLAGS, _ATTR, _SIZE),
    _row("move_mount", "mount", _OLD_DIRFD, _OLD, _NEW_DIRFD, _NEW, _FLAGS),
    _row("fsopen", "mount", ("type", Kind.WORD), _FLAGS),
    _row(
        "fsconfig",
        "mount",
        _FD,
        ("command", Kind.NUMBER),
        ("key", Kind.WORD_OR_NULL),
        ("value", Kind.VARIES),
        ("aux", Kind.INTEGER),
    ),
    _row("fsmount", "mount", _FD, _FLAGS, ("attributes", Kind.FLAGS)),
    _row("fspick", "mount", _DIRFD, _PATH, _FLAGS),
    _row("mount_setattr", "mount", _DIRFD, _PATH, _AT_FLAGS, _ATTR, _SIZE),
    _row("statmount", "mount", ("request", Kind.MNT_ID_REQ), _OUT, _SIZE, _FLAGS),
    _row("listmount", "mount", ("request", Kind.MNT_ID_REQ), _OUT, ("count", Kind.SIZE), _FLAGS),
)
"""Mounts, by path and by descriptor."""

OTHER_ROWS: Final[tuple[Row, ...]] = (
    # Gone from the newest kernels; older ones have it only if built with it.
    _row("uselib", "exec", _PATH),
    _row("fanotify_mark", "watch", _FD, _FLAGS, _MASK, _DIRFD, _PATH_OR_NULL),
    _row(
        "name_to_handle_at",
        "handle",
        _DIRFD,
        _PATH,
        ("handle", Kind.INOUT),
        ("mount_id", Kind.OUT),
        _AT_FLAGS,
    ),
    _row("open_by_handle_at", "handle", _FD, ("handle", Kind.HANDLE), _OPEN_FLAGS),
    _row("memfd_create", "memfd", ("name", Kind.WORD), _FLAGS),
    _row("mq_open", "queue", ("name", Kind.TEXT), _OPEN_FLAGS, _MODE, ("attr", Kind.MQ_ATTR)),
    _row("mq_unlink", "queue", ("name", Kind.TEXT)),
    _row("add_key", "key", *_KEY, ("payload", Kind.BUFFER_IN), _SIZE, _KEYRING),
    _row(
        "request_key",
        "key",
        ("type", Kind.WORD),
        ("description", Kind.WORD),
        ("callout", Kind.WORD_OR_NULL),
        _KEYRING,
    ),
    _row("keyctl", "key", ("command", Kind.NUMBER), *_ARG_2_TO_5),
    _row("prctl", "self", ("option", Kind.NUMBER), *_ARG_2_TO_5),
    _row("seccomp", "self", ("command", Kind.NUMBER), _FLAGS, ("args", Kind.VARIES)),
    _row("landlock_create_ruleset", "self", _ATTR, _SIZE, _FLAGS),
    # The rule's type says how long it is.
    _row("landlock_add_rule", "self", _FD, ("type", Kind.NUMBER), ("rule", Kind.LEFT), _FLAGS),
    _row("landlock_restrict_self", "self", _FD, _FLAGS),
    _row(
        "lsm_set_self_attr",
        "self",
        ("attr", Kind.NUMBER),
        ("context", Kind.BUFFER_IN),
        _SIZE,
        _FLAGS,
    ),
    _row(
        "ptrace",
        "trace",
        ("request", Kind.NUMBER),
        ("pid", Kind.INTEGER),
        ("address", Kind.VARIES),
        ("data", Kind.VARIES),
    ),
    _row("process_vm_readv", "trace", *_PEER_MEMORY),
    _row("process_vm_writev", "trace", *_PEER_MEMORY),
    _row("bpf", "trace", ("command", Kind.NUMBER), ("attr", Kind.BPF_ATTR), _SIZE),
    # The structure holds its size, and for a probe of a program a pointer to that program's path.
    _row(
        "perf_event_open",
        "trace",
        ("attr", Kind.LEFT),
        ("pid", Kind.INTEGER),
        ("cpu", Kind.INTEGER),
        ("group_fd", Kind.FD),
        _FLAGS,
    ),
    _row("io_uring_setup", "ring", ("entries", Kind.NUMBER), ("params", Kind.INOUT)),
    _row(
        "io_uring_enter",
        "ring",
        _FD,
        ("to_submit", Kind.NUMBER),
        ("min_complete", Kind.NUMBER),
        _FLAGS,
        ("arg", Kind.VARIES),
        _SIZE,
    ),
    _row(
        "io_uring_register",
        "ring",
        _FD,
        ("command", Kind.NUMBER),
        ("arg", Kind.VARIES),
        ("count", Kind.SIZE),
    ),
    _row("init_module", "module", ("image", Kind.PAYLOAD), _SIZE, ("params", Kind.WORD)),
    _row("finit_module", "module", _FD, ("params", Kind.WORD), _FLAGS),
    _row("delete_module", "module", ("name", Kind.WORD), _FLAGS),
    _row(
        "kexec_load",
        "admin",
        ("entry", Kind.NUMBER),
        ("count", Kind.NUMBER),
        ("segments", Kind.LEFT),
        _FLAGS,
    ),
    _row(
        "kexec_file_load",
        "admin",
        ("kernel_fd", Kind.FD),
        ("initrd_fd", Kind.FD),
        ("size", Kind.NUMBER),
        ("command_line", Kind.LEFT),
        _FLAGS,
    ),
    _row(
        "reboot",
        "admin",
        ("magic", Kind.NUMBER),
        ("magic2", Kind.NUMBER),
        ("command", Kind.NUMBER),
        ("arg", Kind.VARIES),
    ),
    _row("sethostname", "admin", *_HOST),
    _row("setdomainname", "admin", *_HOST),
    # What is at the address depends on the command; for one of them it is a path.
    _row(
        "quotactl",
        "admin",
        ("command", Kind.NUMBER),
        _PATH_OR_NULL,
        ("id", Kind.NUMBER),
        ("address", Kind.VARIES),
    ),
    _row(
        "quotactl_fd",
        "admin",
        _FD,
        ("command", Kind.NUMBER),
        ("id", Kind.NUMBER),
        ("address", Kind.VARIES),
    ),
)
"""The rest: names and bytes that are neither a path under rules nor an address."""

TABLE: Final[dict[str, Row]] = {
    row.name: row for row in (*PATH_ROWS, *DESCRIPTOR_ROWS, *SOCKET_ROWS, *MOUNT_ROWS, *OTHER_ROWS)
}
"""Every row by the name of its call."""
