"""Redirects of a task that has a tracer, and a filter that asks for it.

The tracer sees the call as it will be made. If it leaves it so, the call is made: all filters have
judged exactly this. If it changes anything, all judge once more. These tests are about the kernel,
so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.conformance import raw
from tests.conformance.support import BASE, Memory, refused

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold import Notification
    from tests.conformance.support import Target

READS: Final = os.O_RDONLY | os.O_CLOEXEC
WRITES: Final = os.O_WRONLY | os.O_CLOEXEC
APPENDS: Final = WRITES | os.O_APPEND
ENTRY: Final = "1"
EXIT: Final = "2"
SECCOMP: Final = "3"

orders = pytest.mark.parametrize("order", ["outer", "inner"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns a file that may be written to."""
    path = tmp_path / "file"
    path.write_text("A")
    return path


def to_write(
    target: Target, call: Notification, revision: int, pin: Memory, path: Path, flags: int = WRITES
) -> int:
    """Redirects an open() to one that writes to the path, which the pin gets to hold."""
    length = pin.put(os.fsencode(path))
    named = raw.named(revision, pin.fd)
    return raw.send(target.listener, call.id, {0: BASE, 1: flags}, {0: length}, named)


def stop(seen: dict[str, str], number: int) -> dict[str, str]:
    """Returns what the tracer saw at a stop; nothing if there was none."""
    prefix = f"stop{number}."
    return {key[len(prefix) :]: value for key, value in seen.items() if key.startswith(prefix)}


def new_arguments(flags: int = WRITES) -> dict[str, str]:
    """Returns what a seccomp stop of the redirected call looks like."""
    shown = {"own": "0", "flags": str(flags), "info_own": "0", "info_flags": str(flags)}
    return {"op": SECCOMP} | shown


@orders
def test_a_tracer_that_changes_nothing(revision: int, pin: Memory, file: Path, order: str) -> None:
    """It sees the new arguments, and the listener is not asked a second time."""
    with raw.started("kern_traced", order, "nothing", str(file)) as (target, _):
        call = target.receive()
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file) == 0
        seen = target.finish()
    assert stop(seen, 1) == new_arguments()
    assert stop(seen, 2) == {}
    assert seen["call.result"] == "0"
    assert seen["call.mode"] == str(os.O_WRONLY)
    assert seen["call.registers"] == "ok"


@orders
def test_a_tracer_that_makes_no_call_of_it(
    revision: int, pin: Memory, file: Path, order: str
) -> None:
    """The answer is the tracer's, and the registers come back."""
    with raw.started("kern_traced", order, "skip", str(file)) as (target, _):
        call = target.receive()
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file) == 0
        seen = target.finish()
    assert stop(seen, 1) == new_arguments()
    assert seen["call.result"] == str(-errno.EXDEV)
    assert seen["call.registers"] == "ok"


@orders
@pytest.mark.parametrize("answer", ["continue", "error", "value", "harmless"])
def test_a_tracer_that_changes_the_call(
    revision: int, pin: Memory, file: Path, order: str, answer: str
) -> None:
    """All filters judge the changed call, the notifying one among them; any answer will do."""
    with raw.started("kern_traced", order, "flags", str(file)) as (target, _):
        call = target.receive()
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file) == 0
        again = target.receive()
        assert again.id != call.id
        assert again.data.args[:2] == (BASE, APPENDS)
        with refused(errno.ENOENT):
            target.listener.send(call.id, value=1)
        if answer == "continue":
            target.listener.resume(again.id)
            wanted = ("0", str(os.O_WRONLY | os.O_APPEND))
        elif answer == "error":
            target.listener.send(again.id, error=errno.EXDEV)
            wanted = (str(-errno.EXDEV), "0")
        elif answer == "value":
            target.listener.send(again.id, value=1)
            wanted = ("1", "0")
        else:
            # What the tracing filter does not want to see: no stop, and the call is made.
            assert to_write(target, again, revision, pin, file, READS) == 0
            wanted = ("0", str(os.O_RDONLY))
        seen = target.finish()
    assert stop(seen, 1) == new_arguments()
    assert stop(seen, 2) == {}
    assert (seen["call.result"], seen["call.mode"]) == wanted
    assert seen["call.registers"] == "ok"


def test_a_second_redirect_does_not_get_past_the_tracer_outside(
    revision: int, pin: Memory, file: Path
) -> None:
    """A tracer is asked once a call. What it has not seen is not made: ENOSYS, as without one."""
    with raw.started("kern_traced", "outer", "flags", str(file)) as (target, _):
        call = target.receive()
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file) == 0
        again = target.receive()
        other = file.with_name("other")
        other.write_text("B")
        assert to_write(target, again, revision, pin, other) == 0
        seen = target.finish()
    assert stop(seen, 1) == new_arguments()
    assert stop(seen, 2) == {}
    assert seen["call.result"] == str(-errno.ENOSYS)
    assert seen["call.registers"] == "ok"


@orders
def test_a_tracer_that_stops_at_every_entry_and_exit(
    revision: int, pin: Memory, file: Path, order: str
) -> None:
    """Entry and exit are of the program's own call; what is between is the redirected one."""
    with raw.started("kern_traced", order, "watch", str(file)) as (target, _):
        call = target.receive()
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file) == 0
        seen = target.finish()
    own = {"own": "1", "flags": str(READS)}
    entry = {"op": ENTRY, "info_own": "1", "info_flags": str(READS)}
    assert stop(seen, 1) == own | entry
    assert stop(seen, 2) == new_arguments()
    assert stop(seen, 3) == own | {"op": EXIT, "info_own": "0", "info_flags": "-1"}
    assert stop(seen, 4) == {}
    assert seen["call.result"] == "0"
    assert seen["call.registers"] == "ok"


@orders
def test_a_refused_redirect_shows_the_tracer_nothing(
    revision: int, pin: Memory, file: Path, order: str
) -> None:
    with raw.started("kern_traced", order, "nothing", str(file)) as (target, _):
        call = target.receive()
        assert to_write(target, call, revision, pin, file) == errno.EFAULT
        target.install(call, pin)
        assert to_write(target, call, revision, pin, file, READS) == 0
        seen = target.finish()
    assert stop(seen, 1) == {}
    assert (seen["call.result"], seen["call.mode"]) == ("0", "0")
    assert seen["call.registers"] == "ok"
