"""Names of files as bytes: what a path says, before anything asks the file system.

Everything here is lexical. The kernel's walk agrees with it except in one case: ``..`` after a
symbolic link leads to the parent of what the link points to, not back to where the link is.
:func:`climbs` tells the paths for which that can matter, and a caller then judges both names.

A *normal* name is absolute, has no ``.``, ``..`` or empty component, and ends in ``/`` only if it
is the root. A target chooses its paths, so nothing here takes more than linear time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pinfold.errors import InternalError

T = TypeVar("T")


def normalise(path: bytes) -> bytes:
    """Returns the normal name that an absolute path spells.

    ``//`` at the beginning is an ordinary slash, as on Linux (POSIX would allow a meaning of its
    own), and ``/..`` is the root.

    Raises:
        InternalError: ``path`` is not absolute, so there is no telling what it names.
    """
    if not path.startswith(b"/"):
        raise InternalError(f"not an absolute path: {path!r}")
    if b"/." not in path and b"//" not in path and (path[-1] != 0x2F or len(path) == 1):
        return path
    kept: list[bytes] = []
    for component in path.split(b"/"):
        if component == b"..":
            if kept:
                kept.pop()
        elif component not in {b"", b"."}:
            kept.append(component)
    return b"/" + b"/".join(kept)


def join(base: bytes, path: bytes) -> bytes:
    """Returns the normal name of ``path`` for a task that is in the directory ``base``.

    An absolute ``path`` does not depend on ``base``; an empty one names ``base`` itself, which is
    what the ``AT_EMPTY_PATH`` calls mean by it.

    Raises:
        InternalError: ``base`` is needed and is not absolute.
    """
    return normalise(path if path.startswith(b"/") else base + b"/" + path)


def climbs(path: bytes) -> bool:
    """Returns whether a ``..`` follows a real component, which may be a symbolic link.

    Leading ``..`` do not count: a working directory or root is a directory, never a link.
    """
    if b".." not in path:
        return False
    named = False
    for component in path.split(b"/"):
        if component == b"..":
            if named:
                return True
        elif component not in {b"", b"."}:
            named = True
    return False


def wants_directory(path: bytes) -> bool:
    """Returns whether the spelling of ``path`` insists on a directory.

    That is so for a last component that is empty (after ``/``), ``.`` or ``..``. The kernel then
    follows a symbolic link there even for calls that otherwise would not, so the slash is part of
    the meaning.
    """
    return path.endswith((b"/", b"/.", b"/..")) or path in {b".", b".."}


def under(path: bytes, directory: bytes) -> bool:
    """Returns whether ``path`` is ``directory`` or lies below it; both are normal names."""
    return path == directory or path.startswith(
        directory if directory == b"/" else directory + b"/"
    )


def printable(path: bytes) -> str:
    """Returns ``path`` as text for a terminal: what is not printable UTF-8 is escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in path.decode("utf-8", "backslashreplace")
    )


class _Node(Generic[T]):
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[T]] = {}
        self.value: T | None = None


class Tree(Generic[T]):
    """Values at normal names, looked up by a path at or below them.

    A dictionary per directory, not one of whole names: looking up each ancestor of a path as a
    string hashes it again at every depth, which is quadratic in a path of a hostile target.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def insert(self, name: bytes, value: T) -> None:
        """Puts ``value`` at ``name``, a normal name; what was there is replaced."""
        node = self._root
        if name != b"/":
            for component in name.split(b"/")[1:]:
                node = node.children.setdefault(component, _Node())
        node.value = value

    def deepest(self, path: bytes) -> T | None:
        """Returns the value at the longest name that is ``path`` or a directory above it."""
        node = self._root
        found = node.value
        for component in path.split(b"/")[1:]:  # of the root: one empty name, which no node has
            child = node.children.get(component)
            if child is None:
                break
            node = child
            if node.value is not None:
                found = node.value
        return found


def as_name(text: bytes) -> bytes:
    """Returns a normal name for what the kernel shows of a file that has none.

    The name of a memory file is its maker's to choose: ``/memfd:x/../../usr/bin/true (deleted)``
    must not be folded into the name of another file. What is not normal loses its slashes.
    """
    if text[:1] == b"/" and normalise(text) == text:
        return text
    return b"/" + text.lstrip(b"/").replace(b"/", b"|")
