"""What a path means to a stopped task: an absolute name in the supervisor's own view.

A relative path is relative to the task's working directory or to one of its descriptors, and an
absolute one to its root directory. The kernel shows all three as links under ``/proc/TID``. What
they show is true at the moment of looking; a task that shares its descriptor table or its working
directory with another may find them changed before the kernel walks the path. ``Task.shares`` tells
who can be fooled that way; for them the engine pins the absolute name that was judged instead of
the relative one.

Names are about strings, and symbolic links are not followed, with one exception: in ``a/link/../b``
the kernel goes up from where ``link`` points to, so folding the string would judge another file
than the one that is opened. There the part before ``..`` is resolved through the file system, and
*both* names are judged.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final, NamedTuple

from pinfold.errors import TraceeGone
from pinfold.paths import as_name, climbs, join, normalise, under
from pinfold.tracee.real import directory, for_task, real
from pinfold.uapi.fs import AT_FDCWD

_DELETED: Final = b" (deleted)"
_NOT_A_FILE: Final = re.compile(rb"[a-z_]+:")


class Meaning(NamedTuple):
    """What a path means."""

    names: tuple[bytes, ...]
    """Normal absolute names in the supervisor's view, the lexical one first."""
    absolute: bytes | None
    """The path, unfolded, with what it is relative to in front: a string by which the task itself
    reaches the same file. None where its root directory does not contain it."""
    root: bytes
    """The task's root directory in the supervisor's view."""
    real: bytes | None = None
    """The name that symbolic links lead to, where it was asked for; None for a file without one."""
    jumps: bool = False
    """Whether its real name alone does not lead to the same open file; see ``tracee.real``."""
    link: bytes = b""
    """Where it jumps, the name of the link from which it does."""

    def exposed(self, tgid: int, *, shares: bool) -> bool:
        """Returns whether it jumps from a descriptor that another task may exchange.

        Args:
            tgid: The task's process.
            shares: Whether another task may share its descriptors. Somebody else's are for others
                to exchange in any case.
        """
        return self.jumps and (shares or not self.link.startswith(b"/proc/%d/" % tgid))

    def seen_by_task(self, name: bytes) -> bytes | None:
        """Returns the string by which the task reaches ``name``; None outside its root."""
        if self.root == b"/":
            return name
        return name[len(self.root) :] or b"/" if under(name, self.root) else None


class NoDirectoryError(OSError):
    """A relative path starts from a descriptor that leads nowhere, for the kernel either.

    It is not open, or what it names is in no file system: a pipe, a socket.
    """


class Names:
    """Resolves paths of stopped tasks.

    Attributes:
        rooted: Whether every task is known to have our own root directory, so that it need not be
            looked up. The engine clears it when a task of the sandbox calls ``chroot``; nothing
            else that changes it is allowed inside a sandbox.

    Preconditions: the task is stopped, and we may look at it (``ptrace(2)``, access mode checks).
    """

    __slots__ = ("rooted",)

    def __init__(self) -> None:
        self.rooted = True

    def resolve(
        self,
        tid: int,
        tgid: int,
        dirfd: int,
        path: bytes,
        *,
        in_root: bool = False,
        follow: bool | None = None,
        absolute: bool = False,
    ) -> Meaning:
        """Returns what a path means to a task now.

        Args:
            tid: The task.
            tgid: Its process, for ``/proc/self``.
            dirfd: Its descriptor of the directory that a relative path starts from, or AT_FDCWD.
            path: The path as the task gave it, not empty.
            in_root: Whether the directory is also the root of the walk (``RESOLVE_IN_ROOT``).
            follow: Where the real name is asked for, whether a link in the last component is
                followed; else None.
            absolute: Whether the absolute name will take the path's place, so that it has to lead
                to the directory that the path starts from, and not to another one that has come to
                its name since that was removed.

        Raises:
            TraceeGone: The task died.
            NoDirectoryError: EBADF for a descriptor that is not open, ENOTDIR for one that names
                nothing in the file system.
            OSError: ENOENT or ENOTDIR for a directory that is out of reach; with ``follow``,
                whatever the walk ends in.
        """
        root = b"/" if self.rooted else self._link(tid, "root", errno.ENOENT)
        start = None
        base = root
        if path[:1] != b"/" or in_root:
            start, base = self._start(tid, dirfd)
        name = _folded(root, base, path, in_root=in_root)
        inside = _inside(root, base, path)
        if absolute and start is not None and not _same(start, base):
            inside = None
        names: tuple[bytes, ...] = (name,)
        if follow is not None or climbs(path):
            # What cannot be left in this walk, and the way from there.
            if in_root:
                top, way = base, path
            elif path[:1] == b"/":
                top, way = root, path
            elif root == b"/" and start is not None and not absolute:
                # Not by its name: the task need not be able to search what lies above.
                top, way = root, os.fsencode(start) + b"/" + path
            elif under(base, root):
                top, way = root, base[len(root.rstrip(b"/")) :] + b"/" + path
            else:
                top, way = b"/", base + b"/" + path
            if follow is not None:
                found = real(top, way, tid, tgid, follow=follow)
                if found.shown not in (None, name):
                    names = (name, found.shown)
                return Meaning(names, inside, root, found.name, found.jumps, found.link)
            climbed = _resolved(top, for_task(way, tid, tgid), tid, tgid)
            if climbed is not None and climbed != name:
                names = (name, climbed)
        return Meaning(names, inside, root)

    def for_task(self, tid: int, name: bytes) -> bytes:
        """Returns the string by which a task reaches an absolute name.

        Raises:
            TraceeGone: The task died.
            ValueError: It is not absolute, or the task's root directory does not contain it.
        """
        if name[:1] != b"/":
            raise ValueError(f"not absolute: {name!r}")
        if self.rooted:
            return name
        root = self._link(tid, "root", errno.ENOENT)
        if not under(normalise(name), root):
            raise ValueError(f"{name!r} is not below the program's root directory")
        return name if root == b"/" else normalise(name)[len(root) :] or b"/"

    def of_descriptor(self, tid: int, descriptor: int) -> bytes:
        """Returns what a descriptor of a task is open on, as the kernel shows it: a normal name.

        AT_FDCWD stands for its working directory.

        A file that has no name any more, or never had one, shows as one ending in `` (deleted)``.

        Raises:
            TraceeGone: The task died.
            OSError: It is not open, or open on something that is in no file system.
        """
        if descriptor == AT_FDCWD:
            return as_name(self._shown(tid, "cwd", errno.ENOENT))
        if descriptor < 0:
            raise NoDirectoryError(errno.EBADF, "no such descriptor")
        return as_name(self._shown(tid, f"fd/{descriptor}", errno.EBADF))

    def _start(self, tid: int, dirfd: int) -> tuple[str, bytes]:
        # Our way to the directory that a relative path starts from, and its name.
        if dirfd == AT_FDCWD:
            return f"/proc/{tid}/cwd", self._link(tid, "cwd", errno.ENOENT)
        if dirfd < 0:
            raise NoDirectoryError(errno.EBADF, "no such directory descriptor")
        return f"/proc/{tid}/fd/{dirfd}", self._link(tid, f"fd/{dirfd}", errno.EBADF)

    def _link(self, tid: int, what: str, missing: int) -> bytes:
        # Of a directory; one that was removed has the name that it had.
        link = f"/proc/{tid}/{what}"
        target = self._shown(tid, what, missing)
        if target.endswith(_DELETED) and not _same(link, target):
            target = target[: -len(_DELETED)]
        return target

    def _shown(self, tid: int, what: str, missing: int) -> bytes:
        link = f"/proc/{tid}/{what}"
        try:
            target = os.readlink(os.fsencode(link))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                if not os.path.exists(f"/proc/{tid}"):
                    raise TraceeGone(tid) from error
                kind = NoDirectoryError if missing == errno.EBADF else OSError
                raise kind(missing, f"{link}: {os.strerror(missing)}") from error
            raise
        if target[:1] != b"/":
            # "pipe:[1]" leads nowhere; "(unreachable)/x" does, though not to a name that we know.
            kind = NoDirectoryError if _NOT_A_FILE.match(target) else OSError
            raise kind(errno.ENOTDIR, f"{link} is {os.fsdecode(target)}, not a directory")
        return target


def _folded(root: bytes, base: bytes, path: bytes, *, in_root: bool) -> bytes:
    if in_root or path[:1] == b"/":
        # No way up from there: ".." stops at the top of the walk.
        return join(base, normalise(b"/" + path).lstrip(b"/"))
    if root != b"/" and under(base, root):
        # Nor out of a root directory that the way starts below.
        return join(root, normalise(base[len(root) :] + b"/" + path).lstrip(b"/"))
    return join(base, path)


def _inside(root: bytes, base: bytes, path: bytes) -> bytes | None:
    if path[:1] == b"/":
        return path
    whole = base.rstrip(b"/") + b"/" + path
    if root == b"/":
        return whole
    return whole[len(root) :] if under(base, root) else None


def _same(link: str, target: bytes) -> bool:
    # A directory may really be called "x (deleted)".
    try:
        return os.path.samestat(os.stat(link), os.stat(target))
    except OSError:
        return False


def _resolved(top: bytes, way: bytes, tid: int, tgid: int) -> bytes | None:
    # Resolves everything but the last component, as a call that does not follow it would. None when
    # that leads nowhere: then neither does the call.
    head, _, tail = way.rstrip(b"/").rpartition(b"/")
    if tail in (b".", b".."):
        head, tail = way, b""
    try:
        where = directory(top, head, tid, tgid)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise
    return join(where, tail) if tail else normalise(where)
