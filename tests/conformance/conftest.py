"""One suite, every back end: a test that takes ``backend`` runs once for each of them.

A back end that this machine lacks is skipped, with its name and the reason. So that a skip cannot
hide, PINFOLD_MUST names back ends that have to be here (``PINFOLD_MUST=native,interrupt``): with
it, their absence fails.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Final, get_args

import pytest

from pinfold.errors import UnsupportedError
from pinfold.listener import Backend
from tests.conformance import support
from tests.kernel import support as processes

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS: Final[tuple[Backend, ...]] = ("interrupt", "native")
MUST: Final = frozenset(filter(None, os.environ.get("PINFOLD_MUST", "").split(",")))

assert set(BACKENDS) | {"auto"} == set(get_args(Backend))
assert set(BACKENDS) >= MUST, f"PINFOLD_MUST knows {BACKENDS}, not {sorted(MUST)}"


@functools.cache
def lack(backend: Backend) -> str | None:
    """Returns why this machine lacks a back end, None when it has it."""
    try:
        with support.target(backend, support.script("say:here")) as target:
            assert target.listener.backend == backend
            target.finish()
    except UnsupportedError as error:
        return str(error)
    return None


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Returns the name of a back end that this machine has."""
    name: Backend = request.param
    reason = lack(name)
    if reason is not None:
        if name in MUST:
            pytest.fail(f"PINFOLD_MUST asks for the back end {name}: {reason}")
        pytest.skip(f"back end {name}: {reason}")
    return name


@pytest.fixture
def pin() -> Iterator[support.Memory]:
    """Returns memory of ``support.SIZE`` bytes to be pinned."""
    with support.Memory() as memory:
        yield memory


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = processes.descendants(os.getpid())
    descriptors = set(os.listdir("/proc/self/fd"))
    yield
    left = processes.descendants(os.getpid()) - before
    for pid in list(left):
        # A killed process may take a moment to go; one that nobody killed does not go at all.
        if support.ends(pid, 10):
            left.discard(pid)
    processes.kill_all(left)
    processes.reap()
    assert not left, f"left running: {left}"
    more = set(os.listdir("/proc/self/fd")) - descriptors
    names = {fd: _link(fd) for fd in more}
    assert not any(names.values()), f"left open: {names}"


def _link(fd: str) -> str:
    # The listing's own descriptor is in the listing, and gone by now.
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""
