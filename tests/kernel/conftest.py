"""Every test here is checked for processes that it leaves behind."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel import support

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRACE = 10.0


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = support.descendants(os.getpid())
    yield
    left = _left_after_grace(before)
    names = {pid: _name(pid) for pid in left}
    support.kill_all(left)
    support.reap()
    if left:
        pytest.fail(f"left running: {names}")


def _left_after_grace(before: set[int]) -> set[int]:
    # A killed process may take a moment to go; one that nobody killed does not go at all.
    end = time.monotonic() + _GRACE
    while True:
        left = support.descendants(os.getpid()) - before
        if not left or time.monotonic() > end:
            return left
        _await_end(next(iter(left)), end)


def _await_end(pid: int, end: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], max(0.0, end - time.monotonic()))
    finally:
        os.close(pidfd)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as text:
            return os.fsdecode(text.read().replace(b"\0", b" "))
    except OSError:
        return "?"


@pytest.fixture
def unprivileged() -> Iterator[support.User]:
    """Runs commands for a user without any rights."""
    with support.user("nobody") as someone:
        yield someone


@pytest.fixture(params=["caller", "nobody"] if os.geteuid() == 0 else ["caller"])
def someone(request: pytest.FixtureRequest) -> Iterator[support.User]:
    """Runs commands as whoever runs the suite, and, where that is root, as somebody else too."""
    with support.user(request.param) as one:
        yield one
