"""For the whole suite: property tests are bounded in examples, not in time; no process can hide.

Nor does it matter who started it, and how: in the background, with ``nohup`` or ``trap``.
"""

from __future__ import annotations

import signal
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


def _hung_up(_number: int, _frame: object) -> None:
    # The suite goes on, as whoever ignored it wanted.
    pass


# What is ignored here would be ignored by every program that a test starts; a handler is not passed
# on by an exec.
for _number, _usual in (
    (signal.SIGHUP, _hung_up),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


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
