"""What paths mean, against a kernel's walk over a real tree.

An input is a directory and a path over the names of a small tree, with links in it. The name that
``paths.join`` gives has to be the file that the kernel finds, for every path that ``paths.climbs``
says is safe to take at its word; and the other functions on names have to agree with what the
kernel does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from typing import Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main

with instrumented(__name__):
    from pinfold import paths
    from pinfold.errors import InternalError

DIRECTORIES: Final = (b"a", b"a/b", b"a/b/a", b"c", b".x", b"...", b"..y")
FILES: Final = (b"f", b"a/f", b"a/b/f", b"c/f")
LINKS: Final = {b"l": b"a/b", b"a/up": b"..", b"c/l": b"../f", b"dangling": b"nothing"}
PARTS: Final = (
    *(b"a", b"b", b"c", b"f", b"l", b"up", b"dangling", b".x", b"...", b"..y", b"none"),
    *(b".", b"..", b"", b"/", b".", b"..", b"a", b"a/b"),
)


def _tree() -> bytes:
    root = os.fsencode(os.path.realpath(tempfile.mkdtemp(prefix="pinfold-fuzz-")))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name in DIRECTORIES:
        os.mkdir(root + b"/" + name)
    for name in FILES:
        with open(root + b"/" + name, "wb"):
            pass
    for name, target in LINKS.items():
        os.symlink(target, root + b"/" + name)
    return root


ROOT: Final = _tree()


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    if given.number(1) % 4 == 0:
        _any(given)
        return
    base = ROOT + given.pick((b"", *(b"/" + name for name in DIRECTORIES)))
    path = b"/".join(given.pick(PARTS) for _ in range(1 + given.below(7)))
    if not path:
        return
    if given.number(1) & 1:
        path = ROOT + b"/" + path
    name = paths.join(base, path)
    _normal(name)
    _same(base, path, name)


def _normal(name: bytes) -> None:
    assert name.startswith(b"/")
    assert name == b"/" or not {b"", b".", b".."} & set(name[1:].split(b"/"))
    assert paths.normalise(name) == name


def _found(path: bytes, base: int | None, *, follow: bool) -> tuple[int, int] | None:
    try:
        found = os.stat(path, dir_fd=base, follow_symlinks=follow)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _same(base: bytes, path: bytes, name: bytes) -> None:
    directory = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        for follow in (False, True):
            walked = _found(path, directory, follow=follow or paths.wants_directory(path))
            if walked is None:
                # A name may exist where its spelling does not: f/.. for a file f.
                continue
            if not paths.climbs(path):
                end = paths.wants_directory(path)
                assert walked == _found(name, None, follow=follow or end), (base, path, name)
    finally:
        os.close(directory)
    joined = os.path.join(base, path)
    # The library's own reading, but for // at the beginning, which POSIX leaves open.
    assert name == b"/" + os.path.normpath(joined).lstrip(b"/"), (base, path)


def _any(given: Given) -> None:
    raw = given.text(200).replace(b"\0", b"")
    name = paths.join(b"/work", raw)
    _normal(name)
    assert paths.printable(raw).isprintable()
    tree: paths.Tree[bytes] = paths.Tree()
    above = [b"/" + b"/".join(name[1:].split(b"/")[:depth]) for depth in range(4)]
    chosen = [each.rstrip(b"/") or b"/" for each in above if given.number(1) & 1]
    for each in chosen:
        tree.insert(each, each)
    wanted = [each for each in chosen if paths.under(name, each)]
    assert tree.deepest(name) == (max(wanted, key=len) if wanted else None)
    with contextlib.suppress(InternalError):
        paths.normalise(raw)


if __name__ == "__main__":
    main("names", one)
