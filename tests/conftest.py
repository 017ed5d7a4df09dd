"""For the whole suite: property tests are bounded in examples, not in time; no process can hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from pinfold.backends.trace import TraceBackend
from pinfold.linux import libc
from tests.kernel import support

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36

# The machine may be busy, and no test asserts a time.
settings.register_profile("pinfold", deadline=None)
settings.load_profile("pinfold")


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> Iterator[None]:
    # Orphans become our children, however deep they were: who looks for what a test has left finds
    # all of it.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture(params=["one-stop", "two-stops"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has calls let go in the form of the trace back end that it names."""
    if request.param == "two-stops":
        monkeypatch.setattr(support, "PINFOLD", support.TWO_STOPS)
        monkeypatch.setattr(TraceBackend, "ONE_STOP", False)
    return str(request.param)
