"""One suite, every back end: a test that takes ``backend`` runs once for each of them.

The native back end is there twice. As ``native`` it has listeners of the newest revision of the
interface that the kernel knows; as ``native-first`` the filters do without the flag of the later
revision, so that the first one is spoken.

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
from pinfold.linux import redirect
from pinfold.listener import Backend
from tests.conformance import support
from tests.kernel import support as processes

if TYPE_CHECKING:
    from collections.abc import Iterator

NATIVE_FIRST: Final = "native-first"
BACKENDS: Final = ("interrupt", "native", NATIVE_FIRST)
MUST: Final = frozenset(filter(None, os.environ.get("PINFOLD_MUST", "").split(",")))

assert set(BACKENDS) - {NATIVE_FIRST} | {"auto"} == set(get_args(Backend))
assert set(BACKENDS) >= MUST, f"PINFOLD_MUST knows {BACKENDS}, not {sorted(MUST)}"


def backend_of(name: str) -> Backend:
    """Returns the back end of one of ``BACKENDS``."""
    return "interrupt" if name == "interrupt" else "native"


@functools.cache
def probe(name: str) -> tuple[str, int | None]:
    """Returns why this machine lacks one of ``BACKENDS``, and the native revision that it has.

    The environment has to be that of its targets.

    Returns:
        An empty reason when it has it; the revision is None on the interrupt back end.
    """
    backend = backend_of(name)
    try:
        with support.target(backend, support.script("say:here")) as target:
            assert target.listener.backend == backend
            revision = redirect.revision(target.listener.fileno())
            target.finish()
    except UnsupportedError as error:
        return str(error), None
    if name == NATIVE_FIRST and revision != redirect.FIRST:
        return "a filter without the REDIRECT flag is not served by the first revision", None
    return "", revision if backend == "native" else None


def require(name: str) -> int | None:
    """Skips the test, or fails it, without one of ``BACKENDS``; returns its native revision."""
    reason, revision = probe(name)
    if reason:
        if name in MUST:
            pytest.fail(f"PINFOLD_MUST asks for the back end {name}: {reason}")
        pytest.skip(f"back end {name}: {reason}")
    return revision


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Returns the name of a back end that this machine has."""
    if request.param == NATIVE_FIRST:
        monkeypatch.setenv(support.FIRST_REVISION, "1")
    require(request.param)
    return backend_of(request.param)


@pytest.fixture(params=["native", NATIVE_FIRST])
def revision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Returns the revision that native listeners speak: for tests of what only a kernel can do."""
    if request.param == NATIVE_FIRST:
        monkeypatch.setenv(support.FIRST_REVISION, "1")
    found = require(request.param)
    assert found is not None
    return found


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
