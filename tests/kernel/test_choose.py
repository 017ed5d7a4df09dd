"""Which back end a descriptor gets on this machine, and who owns the descriptor if it gets none."""

from __future__ import annotations

import errno
import os
import resource
import socket
import tempfile
from typing import TYPE_CHECKING

import pytest

from pinfold.backends import choose
from pinfold.errors import UnsupportedError
from pinfold.linux import seccomp
from tests.kernel.listening import CALL, child, getppid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.listening import Child

BACKENDS = ("auto", "native", "interrupt")


def work(_: socket.socket) -> None:
    assert getppid() == 77


@pytest.fixture
def task() -> Iterator[Child]:
    with child(work) as made:
        yield made


def descriptors() -> set[int]:
    # Without the one that lists them.
    seen = os.listdir("/proc/self/fd")
    return {int(fd) for fd in seen if os.path.lexists(f"/proc/self/fd/{fd}")}


def still_works(task: Child) -> bool:
    """Answers the call that the child waits for, through the descriptor that the caller has."""
    got = seccomp.receive(task.listener)
    assert (got.pid, got.nr) == (task.pid, CALL)
    seccomp.send(task.listener, got.id, value=77)
    return task.exit_code() == 0


@pytest.mark.parametrize("backend", ["auto", "interrupt"])
def test_interrupt_is_chosen_here(task: Child, backend: str) -> None:
    chosen = choose.for_listener(task.listener, backend)
    task.owned.discard(task.listener)
    try:
        assert chosen.name == "interrupt"
        got = chosen.receive(60)
        assert got is not None
        assert (got.pid, got.nr) == (task.pid, CALL)
        chosen.send(got.id, 77, 0, 0)
        assert task.exit_code() == 0
    finally:
        chosen.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(task.listener)


def test_available_here(task: Child) -> None:
    before = descriptors()
    assert choose.available(task.listener) == ["interrupt"]
    assert descriptors() == before
    assert still_works(task)


def test_native_is_refused_with_what_to_do(task: Child) -> None:
    before = descriptors()
    with pytest.raises(UnsupportedError) as caught:
        choose.for_listener(task.listener, "native")
    text = str(caught.value)
    for part in (
        "SECCOMP_IOCTL_NOTIF_PIN_INSTALL",
        "SECCOMP_IOCTL_NOTIF_SEND_REDIRECT",
        "neither",
        "`interrupt`",
        "`auto`",
    ):
        assert part in text
    assert descriptors() == before
    assert still_works(task)


@pytest.mark.parametrize("name", ["", "trace", "Native", "fast"])
def test_no_such_back_end(task: Child, name: str) -> None:
    with pytest.raises(ValueError, match=f"no back end '{name}'") as caught:
        choose.for_listener(task.listener, name)
    assert "native" in str(caught.value)
    with pytest.raises(ValueError, match="no back end"):
        choose.for_listener(-1, name)
    assert still_works(task)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["pipe", "file", "directory", "socket", "null", "terminal"])
def test_no_listener(kind: str, backend: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        opened = {
            "pipe": os.pipe,
            "file": lambda: (os.open(f"{directory}/file", os.O_CREAT | os.O_RDWR),),
            "directory": lambda: (os.open(directory, os.O_RDONLY),),
            "socket": lambda: tuple(end.detach() for end in socket.socketpair()),
            "null": lambda: (os.open(os.devnull, os.O_RDWR),),
            "terminal": os.openpty,
        }[kind]()
        try:
            before = descriptors()
            for fd in opened:
                with pytest.raises(OSError, match="no seccomp listener") as caught:
                    choose.for_listener(fd, backend)
                assert caught.value.errno == errno.ENOTTY
                with pytest.raises(OSError, match="no seccomp listener"):
                    choose.available(fd)
            assert descriptors() == before
        finally:
            for fd in opened:
                os.close(fd)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_descriptor(backend: str) -> None:
    closed = os.dup(0)
    os.close(closed)
    path = os.open("/", os.O_PATH)
    try:
        for fd in (closed, path, -1, -100, 1 << 31, 1 << 64):
            with pytest.raises(OSError, match="descriptor") as caught:
                choose.for_listener(fd, backend)
            assert caught.value.errno == errno.EBADF
    finally:
        os.close(path)


@pytest.mark.parametrize("backend", ["auto", "interrupt"])
def test_a_construction_that_fails_leaves_the_descriptor_to_the_caller(
    task: Child, backend: str
) -> None:
    before = descriptors()
    filled = fill_up_to(task.listener)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    chosen = None
    try:
        # One descriptor more each time, so that each step that needs one fails once.
        while chosen is None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (task.listener + 1 + refused, limits[1]))
            try:
                chosen = choose.for_listener(task.listener, backend)
            except OSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017 (a loop that ends by success)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                assert descriptors() == before | set(filled)
                refused += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filled:
            os.close(fd)
    task.owned.discard(task.listener)
    chosen.close()
    assert refused >= 1
    assert descriptors() == before - {task.listener}


def fill_up_to(highest: int) -> list[int]:
    """Opens descriptors until every number up to ``highest`` is taken."""
    filled = []
    while (fd := os.dup(highest)) < highest:
        filled.append(fd)
    os.close(fd)
    return filled
