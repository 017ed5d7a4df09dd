"""Handlers that fail in every way that Python knows, while a program runs.

Each denies its call with EPERM and is told of; the run goes on, and the next call is judged again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold import Call, Policy
from pinfold.codec.base import SlotFull
from pinfold.errors import InternalError, TraceeGone
from pinfold.policy.model import PolicyModel
from tests.faults import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TRY: Final = """
import errno, os, sys
for path in sys.argv[1:]:
    try: print(os.read(os.open(path, os.O_RDONLY), 100).decode())
    except OSError as error: print(errno.errorcode[error.errno])
"""


class _OwnError(BaseException):
    pass


class _TextlessError(Exception):
    def __str__(self) -> str:
        raise _OwnError


class _WronglyNamedError(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 (what is tried)


def _recurse(call: Call) -> Any:
    return _recurse(call)


def _exhaust(_call: Call) -> Any:
    return bytearray(sys.maxsize)


def _raises(error: BaseException) -> Callable[[Call], Any]:
    def handler(_call: Call) -> Any:
        raise error

    return handler


def _exits(_call: Call) -> Any:
    sys.exit(0)


class _Hostile:
    """Has nothing that works."""

    def __getattribute__(self, name: str) -> Any:
        raise _OwnError

    def __repr__(self) -> str:
        raise _OwnError


WAYS: Final[dict[str, Callable[[Call], Any]]] = {
    "interrupt": _raises(KeyboardInterrupt()),
    "exit": _exits,
    "generator exit": _raises(GeneratorExit()),
    "stop": _raises(StopIteration(1)),
    "stop async": _raises(StopAsyncIteration()),
    "cancelled": _raises(asyncio.CancelledError()),
    "own": _raises(_OwnError()),
    "textless": _raises(_TextlessError()),
    "no text": _raises(_WronglyNamedError()),
    "recursion": _recurse,
    "memory": _exhaust,
    "gone": _raises(TraceeGone(1)),
    "full": _raises(SlotFull(1 << 40)),
    "internal": _raises(InternalError("no")),
    "esrch": _raises(OSError(errno.ESRCH, "no")),
    "echild": _raises(ChildProcessError(errno.ECHILD, "no")),
    "group": _raises(BaseExceptionGroup("no", [KeyboardInterrupt()])),
    "number": lambda _: 0,
    "text": lambda _: "allow",
    "true": lambda _: True,
    "class": lambda _: pinfold.Verdict,
    "function": lambda call: call.allow,
    "hostile": lambda _: _Hostile(),
    "coroutine": lambda _: asyncio.sleep,
    "generator": lambda call: (one for one in call.path),
}


def _wrapped(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
    async def handler(call: Call) -> Any:
        await asyncio.sleep(0)
        return function(call)

    return handler


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_whatever_a_handler_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    policy = Policy()
    for name, way in WAYS.items():
        (tmp_path / name).write_text("not to be read")
        policy.on("open", path=tmp_path / name)(way if kind == "plain" else _wrapped(way))
    (tmp_path / "last").write_text("last")
    files = [str(tmp_path / one) for one in (*WAYS, "last")]
    with caplog.at_level(logging.ERROR, "pinfold"):
        done = pinfold.run(
            ["/usr/bin/python3", "-I", "-S", "-c", _TRY, *files],
            policy=policy,
            audit=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=support.BOUND,
        )
    lines = done.stdout.splitlines()
    assert dict(zip(WAYS, lines, strict=False)) == dict.fromkeys(WAYS, "EPERM")
    assert lines[-1] == "last"
    assert done.returncode == 0
    assert done.denied == len(WAYS)
    assert len(caplog.records) == len(WAYS)
    denied = [one for one in done.audit or () if one["verdict"] == "deny"]
    assert all(one["rule"].startswith("handler ") for one in denied)
    assert len(denied) == len(WAYS)


def _stubborn() -> Callable[[Call], Any]:
    # Its first cancellation does not end it.
    async def handler(_call: Call) -> Any:
        for _ in range(2):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

    return handler


def _cancels_itself() -> Callable[[Call], Any]:
    async def handler(_call: Call) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1000)

    return handler


def _cancels_all() -> Callable[[Call], Any]:
    async def handler(_call: Call) -> Any:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(1000)

    return handler


def _stops_the_loop() -> Callable[[Call], Any]:
    async def handler(_call: Call) -> Any:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(1000)

    return handler


@pytest.mark.parametrize("make", [_stubborn, _cancels_itself, _cancels_all, _stops_the_loop])
def test_a_coroutine_that_does_not_answer(tmp_path: Path, make: Callable[[], Any]) -> None:
    """It is denied in the end, and so are others that wait; what comes after is judged."""
    policy = Policy(PolicyModel(handler_seconds=0.3))
    for name in ("first", "second"):
        (tmp_path / name).write_text("not to be read")
        policy.on("open", path=tmp_path / name)(make())
    (tmp_path / "last").write_text("last")

    @policy.on("open", path=tmp_path / "last")
    async def allows(call: Call) -> Any:
        await asyncio.sleep(0)
        return call.allow()

    files = [str(tmp_path / name) for name in ("first", "second", "last")]
    done = pinfold.run(
        ["/usr/bin/python3", "-I", "-S", "-c", _TRY, *files],
        policy=policy,
        stdout=subprocess.PIPE,
        text=True,
        timeout=support.BOUND,
    )
    assert done.stdout.splitlines() == ["EPERM", "EPERM", "last"]
    assert done.returncode == 0
