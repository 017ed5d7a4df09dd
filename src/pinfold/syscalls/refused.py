"""Calls that are refused inside every sandbox, and why: each is a way around the rules.

The answer is what a program is most likely prepared for: ENOSYS where libraries fall back, EPERM
where the call exists but is not for everyone.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from pinfold.syscalls import neighbours
from pinfold.uapi import prctl

_ALL = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_MADV_DONTFORK = 10
_USERFAULTFD_IOC_NEW = 0xAA00
_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C
_KEYCTL_SESSION_TO_PARENT = 18
_BTRFS_VOLUME = 0x5000_9400
_BTRFS = (
    ("BTRFS_IOC_SNAP_CREATE", 1),
    ("BTRFS_IOC_SUBVOL_CREATE", 14),
    ("BTRFS_IOC_SNAP_DESTROY", 15),
    ("BTRFS_IOC_SNAP_CREATE_V2", 23),
    ("BTRFS_IOC_SUBVOL_CREATE_V2", 24),
    ("BTRFS_IOC_SNAP_DESTROY_V2", 63),
)
"""Requests of btrfs that take a name: ``_IOW(0x94, number, 4096 bytes)``."""


class Refused(NamedTuple):
    """A call, or a form of it, that the filter answers by itself."""

    name: str
    errno: int
    """What the caller gets; 0 means that the call claims success and does nothing."""
    reason: str
    argument: int = -1
    """Index of the argument that tells the refused form; -1 refuses the call whole."""
    mask: int = _ALL
    value: int = 0
    """The form is refused when ``argument & mask == value``."""
    traced: bool = False
    """Whether it is a way around the rules only where the supervisor traces."""


_MOUNT = (
    "can put a file system that the program itself serves under a path, and stall any reader of it"
)
_HANDLE = "opens a file without naming it"
_RING = "opens, connects and renames without system calls"

REFUSED: Final[tuple[Refused, ...]] = (
    Refused(
        "ptrace",
        errno.EPERM,
        "a tracer could answer its child's trace stops by itself",
        traced=True,
    ),
    Refused("io_uring_setup", errno.ENOSYS, _RING),
    Refused("io_uring_enter", errno.ENOSYS, _RING),
    Refused("io_uring_register", errno.ENOSYS, _RING),
    Refused("userfaultfd", errno.EPERM, "blocks whoever reads the program's memory"),
    Refused(
        "ioctl",
        errno.EPERM,
        "USERFAULTFD_IOC_NEW: /dev/userfaultfd under any name is userfaultfd again",
        argument=1,
        mask=_LOW,
        value=_USERFAULTFD_IOC_NEW,
    ),
    Refused(
        "ioctl",
        errno.EPERM,
        "TIOCSTI: types into the terminal what the shell outside would then execute",
        argument=1,
        mask=_LOW,
        value=_TIOCSTI,
    ),
    Refused(
        "ioctl",
        errno.EPERM,
        "TIOCLINUX: pastes into a console what the shell outside would then execute",
        argument=1,
        mask=_LOW,
        value=_TIOCLINUX,
    ),
    *(
        Refused(
            "ioctl",
            errno.EPERM,
            f"{name}: makes or removes a name that no rule judges",
            argument=1,
            mask=_LOW,
            value=_BTRFS_VOLUME | number,
        )
        for name, number in _BTRFS
    ),
    Refused("bpf", errno.EPERM, "opens and pins objects by paths that no rule judges"),
    Refused("uselib", errno.ENOSYS, "loads a library by a path; newer kernels do not have it"),
    Refused("open_by_handle_at", errno.EPERM, _HANDLE),
    Refused("name_to_handle_at", errno.EOPNOTSUPP, _HANDLE),
    Refused(
        "clone3", errno.ENOSYS, "its flags are in memory, out of a filter's sight; libc falls back"
    ),
    Refused(
        "clone",
        errno.EPERM,
        "CLONE_UNTRACED: nobody would answer the child's calls",
        argument=0,
        mask=prctl.CLONE_UNTRACED,
        value=prctl.CLONE_UNTRACED,
        traced=True,
    ),
    Refused(
        "madvise",
        errno.EINVAL,
        "MADV_DONTFORK: a child without the pin could put memory of its own there",
        argument=2,
        mask=_LOW,
        value=_MADV_DONTFORK,
    ),
    Refused(
        "process_madvise",
        errno.EINVAL,
        "MADV_DONTFORK: the same; a program may advise itself so, from Linux 6.13 on",
        argument=3,
        mask=_LOW,
        value=_MADV_DONTFORK,
    ),
    Refused(
        "prctl",
        0,
        "PR_SET_DUMPABLE: would blind an unprivileged supervisor",
        argument=0,
        mask=_LOW,
        value=prctl.PR_SET_DUMPABLE,
    ),
    Refused(
        "prctl",
        errno.EPERM,
        "PR_SET_MM: changes what the kernel shows as the program that a task runs",
        argument=0,
        mask=_LOW,
        value=prctl.PR_SET_MM,
    ),
    Refused(
        "setpriority",
        errno.EPERM,
        "PRIO_PGRP: the supervisor may be in that group",
        argument=0,
        mask=_LOW,
        value=neighbours.PRIO_PGRP,
    ),
    Refused(
        "setpriority",
        errno.EPERM,
        "PRIO_USER: the supervisor may be that user's",
        argument=0,
        mask=_LOW,
        value=neighbours.PRIO_USER,
    ),
    Refused(
        "ioprio_set",
        errno.EPERM,
        "IOPRIO_WHO_PGRP: the supervisor may be in that group",
        argument=0,
        mask=_LOW,
        value=neighbours.IOPRIO_WHO_PGRP,
    ),
    Refused(
        "ioprio_set",
        errno.EPERM,
        "IOPRIO_WHO_USER: the supervisor may be that user's",
        argument=0,
        mask=_LOW,
        value=neighbours.IOPRIO_WHO_USER,
    ),
    Refused(
        "keyctl",
        errno.EPERM,
        "KEYCTL_SESSION_TO_PARENT: exchanges the supervisor's keyring",
        argument=0,
        mask=_LOW,
        value=_KEYCTL_SESSION_TO_PARENT,
    ),
    Refused("mount", errno.EPERM, _MOUNT),
    Refused("umount2", errno.EPERM, _MOUNT),
    Refused("pivot_root", errno.EPERM, "changes what every path means"),
    Refused("setns", errno.EPERM, "changes what every path means"),
    Refused("open_tree", errno.EPERM, _MOUNT),
    Refused("open_tree_attr", errno.EPERM, _MOUNT),
    Refused("move_mount", errno.EPERM, _MOUNT),
    Refused("fsopen", errno.EPERM, _MOUNT),
    Refused("fsconfig", errno.EPERM, _MOUNT),
    Refused("fsmount", errno.EPERM, _MOUNT),
    Refused("fspick", errno.EPERM, _MOUNT),
    Refused("mount_setattr", errno.EPERM, _MOUNT),
    Refused("quotactl", errno.EPERM, "takes a device path that no rule judges"),
    Refused("fanotify_init", errno.EPERM, "lets the program answer other processes' opens"),
    Refused("fanotify_mark", errno.EPERM, "lets the program answer other processes' opens"),
)

UNTRACED: Final[tuple[Refused, ...]] = (
    Refused(
        "clone",
        errno.EPERM,
        "CLONE_PARENT: the child would be the supervisor's, and nobody would wait for it",
        argument=0,
        mask=prctl.CLONE_PARENT,
        value=prctl.CLONE_PARENT,
    ),
)
"""What is refused besides where nobody traces. (``clone3`` stays refused: it has the same flag.)"""
