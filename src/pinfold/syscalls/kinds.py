"""The vocabulary of the table: what an argument of a system call is.

A kind says how the argument is read from a register or from memory, what the kernel does with the
memory, and how the log shows it. Where a pointer's bytes end is in the argument itself (a NUL, a
length inside the structure), in a fixed size, or in the *next* argument, which then is a ``SIZE``.

A kind tells pointers that the kernel only reads, whose bytes a verdict can cover and a pin can
hold, from pointers that it writes through: a pin is read-only, so such a call would fail.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Kind(Enum):
    """What one argument register holds."""

    # There is one object of each. What ``Enum`` has instead is Python, and asked on the hot path.
    __hash__ = object.__hash__

    # Scalars: the register is the argument.

    FD = "fd"
    """A descriptor: a C ``int``."""
    DIRFD = "dirfd"
    """Descriptor of the directory that the *next* argument's path is relative to, or AT_FDCWD."""
    OPEN_FLAGS = "open-flags"
    """``O_*`` bits."""
    AT_FLAGS = "at-flags"
    """``AT_*`` bits; with AT_EMPTY_PATH an empty path means the descriptor itself."""
    FLAGS = "flags"
    """Bits with a meaning of the call's own."""
    MODE = "mode"
    """Permission bits, shown in octal."""
    SIZE = "size"
    """Length in bytes, or count of entries, of what the argument right before it points to."""
    INTEGER = "integer"
    """A C ``int`` that may be negative: a process, a key, a CPU."""
    NUMBER = "number"
    """A scalar, shown as it is."""

    # Strings that the kernel reads.

    PATH = "path"
    """Pointer to a NUL-terminated path; judged, rewritten and pinned."""
    PATH_OR_NULL = "path-or-null"
    """The same, where NULL means the descriptor before it, or nothing, and is never followed."""
    SOURCE = "source"
    """What is mounted: a path or a word, as the flags and the file system type have it, or NULL;
    pinned. EINVAL when longer than a path."""
    TEXT = "text"
    """Pointer to a NUL-terminated string that names no file (a symbolic link's content): pinned,
    logged, not judged. As long as a path at most, else ENAMETOOLONG."""
    WORD = "word"
    """The same, where a string that is too long is EINVAL. How long that is differs by call: a page
    at most, but for the parameters of ``init_module`` and ``finit_module``."""
    WORD_OR_NULL = "word-or-null"
    """The same, where NULL means none."""
    NAME = "name"
    """Pointer to the NUL-terminated name of an extended attribute: pinned. ERANGE when empty or
    longer than 255 bytes."""
    STRINGS = "strings"
    """Pointer to a NULL-terminated vector of strings (argv, envp), NULL for an empty one; vector
    and strings are pinned. E2BIG when too much."""

    # Bytes and structures that the kernel reads.

    SOCKADDR = "sockaddr"
    """Pointer to a socket address, its length in the *next* argument; pinned. EINVAL when longer
    than ``struct sockaddr_storage``."""
    SOCKADDR_OR_NULL = "sockaddr-or-null"
    """The same, where NULL means the peer that the socket is connected to, whatever the length."""
    MSGHDR = "msghdr"
    """Pointer to ``struct msghdr`` to be sent: pinned with the address, the vector of buffers and
    the control data that it points to."""
    MMSGHDR = "mmsghdr"
    """Pointer to a vector of ``struct mmsghdr`` to be sent, their count in the *next* argument.

    The kernel writes ``msg_len`` into each entry, *after* sending it. With the vector in read-only
    memory, the first message goes out and the call fails with EFAULT: a pin cannot simply take
    the vector's place."""
    OPEN_HOW = "open-how"
    """Pointer to ``struct open_how``, its size in the *next* argument; pinned."""
    XATTR_ARGS = "xattr-args"
    """Pointer to ``struct xattr_args``, its size in the *next* argument; pinned with the value that
    it points to."""
    BUFFER_IN = "buffer"
    """Pointer to bytes, their size in the *next* argument; pinned. Pointers among them, which some
    forms of a call have (SO_ATTACH_FILTER), are not followed."""
    PAGE = "page"
    """Pointer to options of a mount, NULL for none: a page, or as much of it as can be read;
    pinned."""
    HANDLE = "handle"
    """Pointer to ``struct file_handle``, its length within; pinned."""
    MNT_ID_REQ = "mnt-id-req"
    """Pointer to ``struct mnt_id_req``, which begins with its size; pinned."""
    UTIMBUF = "utimbuf"
    """Pointer to ``struct utimbuf``, NULL for now; pinned."""
    TIMEVALS = "timevals"
    """Pointer to two ``struct timeval``, NULL for now; pinned."""
    TIMESPECS = "timespecs"
    """Pointer to two ``struct timespec``, NULL for now; pinned."""
    MQ_ATTR = "mq-attr"
    """Pointer to ``struct mq_attr``, NULL for none; pinned."""

    # Pointers that stay what they are.

    PAYLOAD = "payload"
    """Pointer to bytes that the kernel takes as data and reads no meaning from, their size in the
    *next* argument: left alone, not logged."""
    OUT = "out"
    """Pointer to memory that the kernel writes and does not read: never pinned, not logged."""
    INOUT = "inout"
    """Pointer to memory that the kernel reads, then writes (a length): never pinned, not logged."""
    XATTR_ARGS_OUT = "xattr-args-out"
    """Pointer to ``struct xattr_args``, its size in the *next* argument, whose value the kernel
    writes: it names nothing, so it is left alone, not logged."""
    BPF_ATTR = "bpf-attr"
    """Pointer to ``union bpf_attr``, its size in the *next* argument. Read, for some commands
    written, and it holds pointers of every sort, of a path among them (BPF_OBJ_PIN, BPF_OBJ_GET):
    never pinned, not logged."""
    VARIES = "varies"
    """A number or a pointer, as another argument has it: left alone, not logged."""
    LEFT = "left"
    """A pointer that no verdict looks at: left alone and not logged."""


FIXED: Final[dict[Kind, int]] = {
    Kind.UTIMBUF: 16,
    Kind.TIMEVALS: 32,
    Kind.TIMESPECS: 32,
    Kind.MQ_ATTR: 64,
}
"""Size in bytes of the structures that have only one; the same on every 64-bit architecture."""

SIZED: Final = frozenset(
    {
        Kind.SOCKADDR,
        Kind.SOCKADDR_OR_NULL,
        Kind.MMSGHDR,
        Kind.OPEN_HOW,
        Kind.XATTR_ARGS,
        Kind.BUFFER_IN,
        Kind.PAYLOAD,
        Kind.XATTR_ARGS_OUT,
        Kind.BPF_ATTR,
    }
)
"""Kinds whose size or count is the *next* argument, a ``SIZE``."""

PATHS: Final = frozenset({Kind.PATH, Kind.PATH_OR_NULL})
"""Strings that path rules judge."""

PINNED: Final = frozenset(
    {
        *PATHS,
        Kind.SOURCE,
        Kind.TEXT,
        Kind.WORD,
        Kind.WORD_OR_NULL,
        Kind.NAME,
        Kind.STRINGS,
        Kind.SOCKADDR,
        Kind.SOCKADDR_OR_NULL,
        Kind.MSGHDR,
        Kind.MMSGHDR,
        Kind.OPEN_HOW,
        Kind.XATTR_ARGS,
        Kind.BUFFER_IN,
        Kind.PAGE,
        Kind.HANDLE,
        Kind.MNT_ID_REQ,
        *FIXED,
    }
)
"""Pointers to what a verdict can depend on. Judging one means pinning it."""

WRITTEN: Final = frozenset({Kind.OUT, Kind.INOUT})
"""Pointers that the kernel writes through. MMSGHDR, too, and the value of XATTR_ARGS_OUT."""

POINTERS: Final = PINNED | WRITTEN | {Kind.PAYLOAD, Kind.XATTR_ARGS_OUT, Kind.BPF_ATTR, Kind.LEFT}
"""Kinds that are always pointers; VARIES is one at times."""

NULLABLE: Final = frozenset(
    {
        Kind.PATH_OR_NULL,
        Kind.SOURCE,
        Kind.WORD_OR_NULL,
        Kind.STRINGS,
        Kind.SOCKADDR_OR_NULL,
        Kind.PAGE,
        *FIXED,
    }
)
"""Pinned kinds whose NULL the kernel tests for, and never follows. Any other NULL is an address
like all others, where a program with the right to may have mapped something."""


O_NAMES: Final = (
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o4010000, "O_SYNC"),
    (0o10000, "O_DSYNC"),
    (0o20000, "O_ASYNC"),
    (0o40000, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"),
    (0o20200000, "O_TMPFILE"),
    (0o200000, "O_DIRECTORY"),
    (0o400000, "O_NOFOLLOW"),
    (0o1000000, "O_NOATIME"),
    (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"),
)
"""``asm-generic/fcntl.h``; a name of several bits stands before the names of its parts."""

_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")

AT_NAMES: Final = (
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
    (0x8000, "AT_RECURSIVE"),
)


def _bits(value: int, names: tuple[tuple[int, str], ...]) -> list[str]:
    found = []
    for bits, name in names:
        if value & bits == bits:
            found.append(name)
            value &= ~bits
    if value:
        found.append(hex(value))
    return found


def as_int(value: int) -> int:
    """Returns what a C ``int`` argument is: the register's low 32 bits, signed."""
    value &= 0xFFFFFFFF
    return value - ((value >> 31) << 32)


def show_open_flags(value: int) -> str:
    """Returns ``O_*`` bits in words, as ``strace`` would; unknown bits in hexadecimal."""
    return "|".join([_ACCESS[value & 3], *_bits(value & ~3, O_NAMES)])


def show_at_flags(value: int) -> str:
    """Returns ``AT_*`` bits in words, ``0`` for none."""
    return "|".join(_bits(value, AT_NAMES)) or "0"
