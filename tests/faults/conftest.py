"""Every test here ends without a child, however deep: orphans become ours, and are waited for."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults import support
from tests.kernel.forked import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = descriptors()
    threads = set(threading.enumerate())
    yield
    support.nobody_is_left()
    for thread in set(threading.enumerate()) - threads:
        thread.join(support.BOUND)
    assert set(threading.enumerate()) <= threads
    more = {fd: link for fd, link in descriptors().items() if fd not in before}
    # The listing's own descriptor is closed, its number may be in both.
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in more), f"left open: {more}"


@pytest.fixture
def scene(tmp_path: Path) -> support.Scene:
    """Returns files for a program to open, and where its output goes."""
    return support.Scene(tmp_path)
