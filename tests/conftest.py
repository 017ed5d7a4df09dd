"""For the whole suite: property tests are bounded in examples, not in time; no process can hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from pinfold.linux import libc

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
