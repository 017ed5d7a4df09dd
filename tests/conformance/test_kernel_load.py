"""Many redirects, many signals, many deaths: nothing is mixed up, and nothing is left.

These tests are about the kernel, so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING, Final

import pytest

from tests.conformance import raw, support
from tests.conformance.blocking import OWN, PIN, TRAP, program, unless_gone
from tests.conformance.support import BASE, PAGE, Memory

if TYPE_CHECKING:
    from pinfold import Notification

TARGETS: Final = 4
CALLS: Final = 5_000
"""Of each of them."""
SIGNALS: Final = 500
ROUNDS: Final = 60
PIN_PAGES: Final = 64


def shared_memory() -> int:
    """Returns how many bytes of memory files the kernel holds, memfds among them."""
    with open("/proc/meminfo") as text:
        fields = dict(line.split(":") for line in text)
    return int(fields["Shmem"].split()[0]) * 1024


def storm(revision: int, pin: Memory) -> tuple[int, dict[str, str]]:
    """Returns how many redirects were taken, and what the target says of its calls."""
    named = raw.named(revision, pin.fd)
    places = {b"good": (0, pin.put(b"/dev/null")), b"bad": (PAGE, pin.put(b"/dev/null/x", PAGE))}
    command = program("sig_storm", PIN, str(CALLS), str(SIGNALS), "usr", "1")
    installed = False
    made = 0
    with support.target("native", command, TRAP) as target:

        def answer(call: Notification) -> None:
            nonlocal installed, made
            with unless_gone():
                if not installed:
                    target.install(call, pin)
                    installed = True
                at, length = places[target.path(call, 0).rpartition(b"/")[2]]
                number = raw.send(target.listener, call.id, {0: BASE + at}, {0: length}, named)
                assert number in (0, errno.ENOENT)
                made += number == 0

        seen = target.finish(answer=answer)
    return made, seen


@pytest.mark.timeout(1200)
def test_twenty_thousand_redirects_under_a_storm_of_signals(revision: int, pin: Memory) -> None:
    """Each handler makes a redirected call of its own; frames and registers are looked at."""
    frames = 0
    for _ in range(TARGETS):
        made, seen = storm(revision, pin)
        assert made >= CALLS
        assert int(seen["calls"]) >= CALLS
        assert seen["same_mask"] == "1"
        frames += int(seen["frames"])
        for what in ("registers", "frames", "results", "origins"):
            assert seen[f"bad_{what}"] == "0", what
        assert seen["nested_failures"] == "0"
    # Without calls that were met in the middle, this tests nothing.
    assert frames > 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_is_left_of_those_that_are_killed(revision: int, threads: int) -> None:
    """Killed while a redirected call of theirs is on its way, wherever it may be just then."""
    before = shared_memory()
    for index in range(ROUNDS):
        command = program("kill_loop", "0", str(threads), "0", OWN)
        with (
            Memory(PIN_PAGES * PAGE) as pin,
            support.target("native", command, TRAP) as target,
        ):
            pin.write(0, b"x" * pin.size)
            call = target.receive()
            target.install(call, pin)
            named = raw.named(revision, pin.fd)
            length = pin.put(b"/dev/null")
            for _ in range(index % 7):
                assert raw.send(target.listener, call.id, {0: BASE}, {0: length}, named) == 0
                call = target.receive()
            assert raw.send(target.listener, call.id, {0: BASE}, {0: length}, named) == 0
            target.kill()
            assert target.wait() == -signal.SIGKILL
    # The kernel frees some of it a moment later.
    support.until(lambda: shared_memory() < before + ROUNDS * PIN_PAGES * PAGE // 2)
