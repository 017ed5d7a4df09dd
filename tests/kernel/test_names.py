"""What paths mean to a task, asked of the kernel about a child that sits where we put it."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pinfold.errors import TraceeGone
from pinfold.tracee.names import Names
from pinfold.uapi.fs import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Place = Callable[..., tuple[int, int]]


@pytest.fixture
def place() -> Iterator[Place]:
    """Makes a child in a directory, with a descriptor; gives (pid, descriptor)."""
    children: list[tuple[int, int]] = []

    def make(
        cwd: Path, opened: Path | None = None, *, root: Path | None = None, gone: bool = False
    ) -> tuple[int, int]:
        ready, told = os.pipe()
        wait, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(go)
                os.chdir(cwd)
                descriptor = os.open(opened, os.O_RDONLY) if opened is not None else -1
                if root is not None:
                    os.chroot(root)
                if gone:
                    os.rmdir(cwd)
                os.write(told, descriptor.to_bytes(4, "little", signed=True))
                os.read(wait, 1)
                status = 0
            finally:
                os._exit(status)
        for fd in (told, wait):
            os.close(fd)
        children.append((pid, go))
        descriptor = int.from_bytes(os.read(ready, 4), "little", signed=True)
        os.close(ready)
        return pid, descriptor

    yield make
    for pid, go in children:
        os.kill(pid, signal.SIGKILL)
        os.close(go)
        os.waitpid(pid, 0)


def _names(pid: int, dirfd: int, path: bytes, **more: bool) -> tuple[str, ...]:
    return tuple(os.fsdecode(n) for n in Names().resolve(pid, pid, dirfd, path, **more).names)


def test_relative_and_absolute(place: Place, tmp_path: Path) -> None:
    pid, _ = place(tmp_path)
    assert _names(pid, AT_FDCWD, b"a/./b//c") == (f"{tmp_path}/a/b/c",)
    assert _names(pid, AT_FDCWD, b"../x") == (f"{tmp_path.parent}/x",)
    assert _names(pid, AT_FDCWD, b"//etc/./passwd") == ("/etc/passwd",)
    assert _names(pid, AT_FDCWD, b".") == (str(tmp_path),)


def test_relative_to_a_descriptor(place: Place, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    pid, descriptor = place(tmp_path, below)
    assert _names(pid, descriptor, b"x") == (f"{below}/x",)
    assert _names(pid, descriptor, b"/x") == ("/x",)
    assert Names().resolve(pid, pid, descriptor, b"../y").absolute == os.fsencode(f"{below}/../y")


def test_a_dotdot_behind_a_link_gives_both_names(place: Place, tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    pid, _ = place(tmp_path)
    assert _names(pid, AT_FDCWD, b"link/../x") == (f"{tmp_path}/x", f"{tmp_path}/far/x")
    assert _names(pid, AT_FDCWD, b"far/../x") == (f"{tmp_path}/x",)


def test_proc_self_is_the_task_not_us(place: Place, tmp_path: Path) -> None:
    pid, _ = place(tmp_path)
    assert _names(pid, AT_FDCWD, b"/proc/self/cwd/../x")[1] == f"{tmp_path.parent}/x"


def test_a_directory_as_root_of_the_walk(place: Place, tmp_path: Path) -> None:
    pid, descriptor = place(tmp_path, tmp_path)
    assert _names(pid, descriptor, b"/etc/../../x", in_root=True) == (f"{tmp_path}/x",)


def test_what_is_no_directory(place: Place, tmp_path: Path) -> None:
    pid, _ = place(tmp_path)
    for dirfd, number in ((999, errno.EBADF), (-5, errno.EBADF)):
        with pytest.raises(OSError, match="descriptor") as raised:
            Names().resolve(pid, pid, dirfd, b"x")
        assert raised.value.errno == number
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="pipe") as raised:
            Names().resolve(os.getpid(), os.getpid(), reader, b"x")
        assert raised.value.errno == errno.ENOTDIR
    finally:
        os.close(reader)
        os.close(writer)


def test_a_removed_directory_keeps_its_name(place: Place, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    pid, _ = place(gone, gone=True)
    assert _names(pid, AT_FDCWD, b"x") == (f"{gone}/x",)


def test_a_directory_may_be_called_deleted(place: Place, tmp_path: Path) -> None:
    odd = tmp_path / "odd (deleted)"
    odd.mkdir()
    pid, _ = place(odd)
    assert _names(pid, AT_FDCWD, b"x") == (f"{odd}/x",)


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_another_root(place: Place, tmp_path: Path) -> None:
    (tmp_path / "jail" / "in").mkdir(parents=True)
    pid, _ = place(tmp_path / "jail" / "in", root=tmp_path / "jail")
    names = Names()
    names.rooted = False
    found = names.resolve(pid, pid, AT_FDCWD, b"/etc/../../x")
    assert found.names == (os.fsencode(tmp_path / "jail" / "x"),)
    assert found.seen_by_task(os.fsencode(tmp_path / "jail" / "y")) == b"/y"
    assert found.seen_by_task(os.fsencode(tmp_path / "jail")) == b"/"
    assert found.seen_by_task(b"/etc/passwd") is None
    assert names.resolve(pid, pid, AT_FDCWD, b"z").absolute == b"/in/z"
    # The way up ends there, from below it as well.
    for path in (b"../x", b"../../x", b"./../../../x", b"../in/../../x"):
        assert names.resolve(pid, pid, AT_FDCWD, path).names[0] == os.fsencode(
            tmp_path / "jail" / "x"
        )
    assert names.resolve(pid, pid, AT_FDCWD, b"../..").names == (os.fsencode(tmp_path / "jail"),)


def test_a_task_that_is_gone(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(TraceeGone):
        Names().resolve(pid, pid, AT_FDCWD, b"x")
