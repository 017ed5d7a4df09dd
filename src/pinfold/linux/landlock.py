"""Landlock: rulesets and domains (``landlock(7)``)."""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from pinfold.linux import libc
from pinfold.uapi.landlock import (
    LANDLOCK_CREATE_RULESET_VERSION,
    LANDLOCK_PATH_BENEATH_ATTR,
    LANDLOCK_RULE_PATH_BENEATH,
    LANDLOCK_RULESET_ATTR,
)

# The same on every architecture, as of all calls since 5.1.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

_ABSENT: Final = {
    errno.ENOSYS,  # not built in, or a filter around us that does not know the call
    errno.EOPNOTSUPP,  # built in, but not among the modules enabled at boot
    errno.EPERM,  # a filter around us that refuses the call
}


def abi() -> int:
    """Returns the Landlock ABI version of the running kernel, 0 where there is no Landlock to use.

    Raises:
        OSError: The kernel answered with an errno that does not mean absence.

    Kernel: ``landlock_create_ruleset(2)``.
    """
    try:
        return libc.syscall(
            "landlock_create_ruleset", _CREATE_RULESET, 0, 0, LANDLOCK_CREATE_RULESET_VERSION
        )
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise


def create_ruleset(handled_fs: int, scoped: int) -> int:
    """Returns a new descriptor (``int``, close-on-exec) of a ruleset.

    The struct ends with the last field that is not zero: a kernel that does not know a field
    accepts a call that does not need it.

    Args:
        handled_fs: ``u64``, ``LANDLOCK_ACCESS_FS_*``: what is refused where no rule allows it.
        scoped: ``u64``, ``LANDLOCK_SCOPE_*``: what is refused towards the outside of the domain.

    Raises:
        OSError: E2BIG or EINVAL for a field or bit that the kernel does not know, ENOMSG when both
            arguments are zero.

    Kernel: ``landlock_create_ruleset(2)``.
    """
    attr = LANDLOCK_RULESET_ATTR.pack(handled_fs, 0, scoped)
    size = len(attr) if scoped else 8
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return libc.syscall(
        "landlock_create_ruleset", _CREATE_RULESET, ctypes.addressof(buffer), size, 0
    )


def allow_beneath(ruleset_fd: int, parent_fd: int, access: int) -> None:
    """Allows ``access`` to a file, or to a directory and everything below it.

    Args:
        ruleset_fd: Descriptor (``int``) of the ruleset.
        parent_fd: Descriptor (``int``) of the file or directory; ``O_PATH`` is enough.
        access: ``u64``, ``LANDLOCK_ACCESS_FS_*`` bits that the ruleset handles.

    Raises:
        OSError: EINVAL for bits that the ruleset does not handle, or that only a directory can
            have; ENOMSG for none; EBADFD for a file that has no place in a file hierarchy.

    Kernel: ``landlock_add_rule(2)``.
    """
    attr = LANDLOCK_PATH_BENEATH_ATTR.pack(access, parent_fd)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    libc.syscall(
        "landlock_add_rule",
        _ADD_RULE,
        ruleset_fd,
        LANDLOCK_RULE_PATH_BENEATH,
        ctypes.addressof(buffer),
        0,
    )


def restrict_self(ruleset_fd: int) -> None:
    """Puts the calling thread, and whatever it starts from now on, into a domain of the ruleset.

    Needs ``PR_SET_NO_NEW_PRIVS`` or CAP_SYS_ADMIN. Allocates nothing, so it may run after fork.

    Args:
        ruleset_fd: Descriptor (``int``) of the ruleset.

    Raises:
        OSError: EPERM without the need above, E2BIG beyond 16 domains around each other.

    Kernel: ``landlock_restrict_self(2)``.
    """
    libc.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset_fd, 0)
