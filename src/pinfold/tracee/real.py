"""Real names: where a path of a task leads once every symbolic link has been followed.

The walk is made here, with ``O_PATH`` descriptors, in the task's root directory: nothing is opened
in the sense of reading it, so no FIFO blocks and no device is touched. The last component may be
missing (a file that is to be made), or a link that is not to be followed.

Two things in ``/proc`` mean something else to us than to the task. ``self`` and ``thread-self`` are
links whose text depends on who reads them: when the walk comes out in our own directory there, it
goes on in the task's. The links below ``fd``, and ``cwd``, ``root`` and ``exe``, are no text at
all; the kernel jumps to a file that it holds. In the middle of a path we jump as it does. At the
end, what they show is taken for the name if that is the file's name, and else there is none: a
pipe, a deleted file.

The answer is true for the moment. What makes a verdict on it hold is that the *answer* is what the
kernel is given to walk, and for opens with ``RESOLVE_NO_SYMLINKS``: then the file that is opened
has this very name at that time, or the open fails.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.linux.files import location
from pinfold.paths import as_name, join, normalise, under

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

_MOST_LINKS: Final = 40
_PROCESS: Final = re.compile(rb"/proc/\d+(?:/task/\d+)?(?:/(?:fd|ns|map_files))?")


class Real(NamedTuple):
    """A real name in the supervisor's view."""

    name: bytes | None
    """None for a file that has none."""
    jumps: bool
    """Whether the last component is one that the kernel jumps from, so that the name alone would
    not lead to the same open file."""
    text: bytes = b""
    """Where it jumps, what the kernel shows as its name: ``/memfd:x (deleted)``, ``pipe:[1]``."""
    link: bytes = b""
    """Where it jumps, the name of the link from which it does."""

    @property
    def shown(self) -> bytes | None:
        """The name, or what is shown in its place, if that looks like one."""
        if self.name is not None:
            return self.name
        return as_name(self.text) if self.text[:1] == b"/" else None


def real(root: bytes, way: bytes, tid: int, tgid: int, *, follow: bool) -> Real:
    """Returns where a path leads.

    Args:
        root: The task's root directory, in our view.
        way: The path from there, absolute.
        tid: The task.
        tgid: Its process.
        follow: Whether a link in the last component is followed.

    Raises:
        OSError: As from the walk of the kernel: ENOENT, ENOTDIR, EACCES, ELOOP, …
    """
    return _real(root, way, tid, tgid, follow, [_MOST_LINKS])


def directory(root: bytes, way: bytes, tid: int, tgid: int) -> bytes:
    """Returns the directory that a path leads to, every link followed; else like :func:`real`."""
    return _parent(root, way, tid, tgid, [_MOST_LINKS])


def _real(root: bytes, way: bytes, tid: int, tgid: int, follow: bool, left: list[int]) -> Real:
    # ``left`` has the number of links that may still be followed, in this walk and those within.
    while left[0]:
        left[0] -= 1
        way = for_task(way, tid, tgid)
        head, _, tail = way.rstrip(b"/").rpartition(b"/")
        slash = way.endswith(b"/")
        if tail in (b"", b".", b".."):
            return Real(_parent(root, way, tid, tgid, left), jumps=False)
        parent = _parent(root, head, tid, tgid, left)
        name = join(parent, tail)
        try:
            mode = os.lstat(name).st_mode
        except FileNotFoundError:
            return Real(name, jumps=False)
        if not stat.S_ISLNK(mode) or not (follow or slash):
            return Real(name, jumps=False)
        text = os.readlink(name)
        if _PROCESS.fullmatch(parent):
            return Real(text if _is_name(name, text) else None, True, text, name)
        if text.startswith(b"/"):
            way = text
        elif under(parent, root):
            way = parent[len(root.rstrip(b"/")) :] + b"/" + text
        else:
            root, way = b"/", parent + b"/" + text
        if slash:
            way += b"/"
    raise OSError(errno.ELOOP, f"{os.fsdecode(way)}: {os.strerror(errno.ELOOP)}")


def _parent(root: bytes, head: bytes, tid: int, tgid: int, left: list[int]) -> bytes:
    # The kernel's walk, unless it would jump: behind a link to /proc/self it would jump as we do.
    try:
        return _theirs(location(root, head, jumps=False), tid, tgid)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    found = root
    for component in head.split(b"/"):
        if component == b"..":
            found = found if found == root else os.path.dirname(found)
        elif component not in (b"", b"."):
            left[0] += 1  # this step is no link yet
            inside = under(found, root)
            way = found[len(root.rstrip(b"/")) :] if inside else found
            step = _real(root if inside else b"/", way + b"/" + component, tid, tgid, True, left)
            if step.name is None:
                raise OSError(errno.ENOTDIR, f"{os.fsdecode(head)}: {os.strerror(errno.ENOTDIR)}")
            found = step.name
    return found


def same_file(name: bytes, literals: Iterable[bytes], known: Container[bytes]) -> tuple[bytes, ...]:
    """Returns those of ``literals`` that are further names (hard links) of a file.

    Args:
        name: A real name of the file, in our view.
        literals: Names to compare with.
        known: Names that need not be found.
    """
    try:
        found = os.lstat(name)
    except OSError:
        # Nothing there, or nothing that we may look at: it has no other name then.
        return ()
    if found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
        return ()
    return tuple(one for one in literals if one not in known and _is_file(one, found))


def _is_file(name: bytes, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name), found)
    except OSError:
        return False


def for_task(path: bytes, tid: int, tgid: int) -> bytes:
    """Returns a path by which we reach what ``/proc/self`` in it is for a task."""
    path = b"/" + path.lstrip(b"/")
    for mine, theirs in (
        (b"/proc/self", b"/proc/%d" % tgid),
        (b"/proc/thread-self", b"/proc/%d/task/%d" % (tgid, tid)),
    ):
        if under(path, mine):
            return theirs + path[len(mine) :]
    return path


def _theirs(name: bytes, tid: int, tgid: int) -> bytes:
    # The walk came by a link to /proc/self, and read it as we do.
    ours = b"/proc/%d" % os.getpid()
    if not under(name, ours):
        return name
    rest = name[len(ours) :]
    if under(rest, b"/task/%d" % threading.get_native_id()):
        rest = rest.removeprefix(b"/task/%d" % threading.get_native_id())
        return b"/proc/%d/task/%d" % (tgid, tid) + rest
    return b"/proc/%d" % tgid + rest


def _is_name(link: bytes, text: bytes) -> bool:
    if not text.startswith(b"/") or normalise(text) != text:
        return False
    try:
        return os.path.samestat(os.stat(link), os.stat(text))
    except OSError:
        return False
