"""Pins belong to an address space; redirects do what they say; and nothing gets around either."""

from __future__ import annotations

import errno
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from pinfold.uapi.mman import F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE
from tests.conformance import support
from tests.conformance.support import (
    BASE,
    DEVICES,
    NULL,
    PAGE,
    SIZE,
    ZERO,
    Memory,
    Target,
    refused,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold import Notification
    from pinfold.listener import Backend


def by_name(target: Target, count: int) -> dict[str, Notification]:
    """Receives ``count`` calls, which all wait at the same time, by the label of their path."""
    calls = [target.receive() for _ in range(count)]
    found = {os.fsdecode(target.path(call).rpartition(b"/")[2]): call for call in calls}
    assert len(found) == count
    return found


@pytest.mark.parametrize("one_memfd", [True, False], ids=["one_memfd", "two_memfds"])
def test_one_address_in_two_processes(backend: Backend, pin: Memory, one_memfd: bool) -> None:
    words = support.script("spawn", "open:child", "go", "end", "open:parent", "go", "join")
    with Memory() as second, support.target(backend, words) as target:
        calls = by_name(target, 2)
        own = {"child": pin, "parent": pin if one_memfd else second}
        for name, call in calls.items():
            target.install(call, own[name])
        target.redirect(calls["parent"], own["parent"], b"/dev/null")
        assert f"parent result=3 rdev={NULL}" in target.line()
        target.redirect(calls["child"], own["child"], b"/dev/zero")
        assert f"child result=3 rdev={ZERO}" in target.line()
        target.go()
        target.go()
        seen = target.finish()
    assert seen["child.registers"] == seen["parent.registers"] == "ok"


def test_a_forked_child_inherits_the_pin(backend: Backend, pin: Memory) -> None:
    words = support.script("open:first", "fork", "fork", "open:grandchild", "end", "open:child")
    with support.target(backend, (*words, "end", "open:parent")) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        for path in (b"/dev/zero", b"/dev/full", b"/dev/null"):
            call = target.receive()
            with refused(errno.EEXIST):
                target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
            target.redirect(call, pin, path)
        seen = target.finish()
    assert seen["first.rdev"] == NULL
    assert seen["grandchild.rdev"] == ZERO
    assert seen["child.rdev"] == DEVICES["full"]
    assert seen["parent.rdev"] == NULL


def test_a_vfork_child_shares_the_pin(backend: Backend, pin: Memory) -> None:
    """Made by its parent or by itself; after an exec it has another memory."""
    words = support.script(
        *("vfork", "open:made_by_child", "exec", "open:executed", "end"),
        *("vfork", "open:made_by_parent", "end", "open:parent"),
    )
    with support.target(backend, words) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        assert target.path(call) == b"/no/such/executed"
        with refused(errno.EFAULT):
            target.redirect(call, pin, b"/dev/null")
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/zero")
        for path in (b"/dev/full", b"/dev/null"):
            call = target.receive()
            with refused(errno.EEXIST):
                target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
            target.redirect(call, pin, path)
        seen = target.finish()
    assert seen["made_by_child.rdev"] == NULL
    assert seen["executed.rdev"] == ZERO
    assert seen["made_by_parent.rdev"] == DEVICES["full"]
    assert seen["parent.rdev"] == NULL


def test_another_thread_uses_the_pin(backend: Backend, pin: Memory) -> None:
    words = support.script("open:first", "thread", "open:other", "end", "join", "open:last")
    with support.target(backend, words) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        assert call.pid != target.pid
        target.redirect(call, pin, b"/dev/zero")
        target.redirect(target.receive(), pin, b"/dev/full")
        seen = target.finish()
    assert seen["first.rdev"] == NULL
    assert seen["other.rdev"] == ZERO
    assert seen["last.rdev"] == DEVICES["full"]


@pytest.mark.parametrize("seed", range(8))
def test_threads_parked_together_and_answered_in_another_order(
    backend: Backend, pin: Memory, seed: int
) -> None:
    """Some are touched by refused requests before any is answered; one gets a plain error."""
    names = [*DEVICES, "error"]
    blocks = [word for name in names for word in ("thread", f"open:{name}", "end")]
    chance = random.Random(seed)
    with support.target(backend, support.script(*blocks, "join")) as target:
        calls = by_name(target, len(names))
        target.install(calls[chance.choice(names)], pin)
        for name in chance.sample(names, 3):
            with refused(errno.EFAULT):
                target.listener.send_redirect(calls[name].id, {1: BASE + SIZE}, {1: 1})
            with refused(errno.EEXIST):
                target.listener.pin_install(calls[name].id, pin.fd, BASE, SIZE)
        chance.shuffle(names)
        for index, name in enumerate(names):
            assert target.listener.id_valid(calls[name].id)
            if name == "error":
                target.listener.send(calls[name].id, error=errno.EXDEV)
            else:
                target.redirect(calls[name], pin, b"/dev/" + name.encode(), 64 * index)
        seen = target.finish()
    assert seen["error.result"] == str(-errno.EXDEV)
    for name, device in DEVICES.items():
        assert seen[f"{name}.rdev"] == device
        assert seen[f"{name}.registers"] == "ok"


@pytest.mark.parametrize("state", ["received", "parked", "blocked"])
def test_an_exec_from_a_thread_that_is_not_the_first(
    backend: Backend, pin: Memory, state: str, tmp_path: Path
) -> None:
    """It ends its siblings, whatever they are doing, and takes over the process's id."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = support.script(
        *("thread", "open:sibling", "end"),
        *("thread", "open:thread", "exec", "say:who", "open:new", "end", "join"),
    )
    with support.target(backend, words) as target:
        calls = by_name(target, 2)
        sibling = calls["sibling"]
        if state != "received":
            target.install(sibling, pin)
        if state == "blocked":
            target.redirect(sibling, pin, os.fsencode(fifo))
            support.until(lambda: support.waits_in(sibling.pid, "openat"))
        if state == "received":
            target.install(calls["thread"], pin)
        target.redirect(calls["thread"], pin, b"/dev/null", 2 * PAGE)
        call = target.receive()
        assert target.path(call) == b"/no/such/new"
        assert call.pid == target.pid
        with refused(errno.ENOENT):
            target.listener.send(sibling.id, error=errno.EXDEV)
        with refused(errno.EFAULT):
            target.redirect(call, pin, b"/dev/zero")
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/zero")
        seen = target.finish()
    assert seen["thread.rdev"] == NULL
    assert seen["who.pid"] == seen["who.tid"] == str(target.pid)
    assert seen["new.rdev"] == ZERO
    assert "sibling.result" not in seen


def test_a_pin_at_the_same_address_in_a_chain_of_programs(backend: Backend, pin: Memory) -> None:
    paths = [b"/dev/null", b"/dev/zero"] * 5
    words = [word for i in range(len(paths)) for word in (f"open:at{i}", "exec")][:-1]
    with support.target(backend, support.script(*words)) as target:
        for path in paths:
            call = target.receive()
            with refused(errno.EFAULT):
                target.redirect(call, pin, path)
            target.install(call, pin)
            target.redirect(call, pin, path)
        seen = target.finish()
    assert [seen[f"at{i}.rdev"] for i in range(len(paths))] == [NULL, ZERO] * 5


def test_a_killed_call_leaves_the_pin(backend: Backend, pin: Memory) -> None:
    """The one for whose call it was installed is killed, still waiting; its memory lives on."""
    words = support.script("vfork", "open:doomed", "end", "open:parent")
    with support.target(backend, words) as target:
        call = target.receive()
        target.install(call, pin)
        os.kill(call.pid, signal.SIGKILL)
        call = target.receive()
        assert target.path(call) == b"/no/such/parent"
        target.redirect(call, pin, b"/dev/null")
        seen = target.finish()
    assert seen["killed"] == str(signal.SIGKILL)
    assert seen["parent.rdev"] == NULL


# Memfds


def test_an_address_of_the_kernel_s_choice(backend: Backend, pin: Memory) -> None:
    with support.target(backend, support.script("open:one", "open:two")) as target:
        call = target.receive()
        length = pin.put(b"/dev/null")
        try:
            address = target.listener.pin_install(call.id, pin.fd, 0, SIZE)
        except OSError as error:
            if (backend, error.errno) != ("native", errno.EINVAL):
                raise
            # The first revision of the native interface has no such thing.
            target.listener.resume(call.id)
            target.listener.resume(target.receive().id)
            target.finish()
            return
        assert address
        assert address % PAGE == 0
        assert f"{address:08x}-{address + SIZE:08x} r--s 00000000" in support.maps(target.pid)
        other = target.listener.pin_install(call.id, pin.fd, 0, SIZE)
        assert other not in (0, address)
        target.listener.send_redirect(call.id, {1: address}, {1: length})
        target.listener.send_redirect(target.receive().id, {1: other}, {1: length})
        seen = target.finish()
    assert seen["one.rdev"] == seen["two.rdev"] == NULL


def test_many_pins_in_one_memory(backend: Backend) -> None:
    count = 50
    words = support.script(*(f"open:at{i}" for i in range(count)))
    paths = [b"/dev/null", b"/dev/zero"]
    pins = [Memory() for _ in range(count)]
    try:
        with support.target(backend, words) as target:
            call = target.receive()
            for i, one in enumerate(pins):
                target.install(call, one, BASE + i * 3 * SIZE)
            for i, one in enumerate(pins):
                length = one.put(paths[i % 2])
                target.listener.send_redirect(call.id, {1: BASE + i * 3 * SIZE}, {1: length})
                if i + 1 < count:
                    call = target.receive()
            seen = target.finish()
    finally:
        for one in pins:
            one.close()
    assert [seen[f"at{i}.rdev"] for i in range(count)] == [NULL, ZERO] * (count // 2)


def test_a_large_pin(backend: Backend) -> None:
    """A sparse one: only what is written takes memory."""
    size = 1 << 30
    with Memory(size) as large, support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        target.install(call, large)
        target.redirect(call, large, b"/dev/null", size - 10)
        seen = target.finish()
    assert seen["call.rdev"] == NULL


def test_a_part_of_a_memfd(backend: Backend) -> None:
    """What is not mapped is no part of the pin, although the memfd goes on."""
    with (
        Memory(4 * SIZE) as large,
        support.target(backend, support.script("open:call")) as target,
    ):
        call = target.receive()
        assert target.listener.pin_install(call.id, large.fd, BASE, SIZE) == BASE
        with refused(errno.EFAULT):
            target.redirect(call, large, b"/dev/zero", SIZE - 1)
        with refused(errno.EFAULT):
            target.redirect(call, large, b"/dev/zero", SIZE)
        target.redirect(call, large, b"/dev/null", SIZE - 10)
        seen = target.finish()
    assert seen["call.rdev"] == NULL


def test_a_memfd_that_nobody_can_write_any_more(backend: Backend) -> None:
    """F_SEAL_WRITE is as good as F_SEAL_FUTURE_WRITE; the bytes were written before."""
    seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
    fd = support.memory_file(seals, b"/dev/null\0")
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        assert target.listener.pin_install(call.id, fd, BASE, SIZE) == BASE
        target.listener.send_redirect(call.id, {1: BASE}, {1: 10})
        seen = target.finish()
    os.close(fd)
    assert seen["call.rdev"] == NULL


def test_a_descriptor_for_reading(backend: Backend, pin: Memory) -> None:
    readonly = os.open(f"/proc/self/fd/{pin.fd}", os.O_RDONLY | os.O_CLOEXEC)
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        assert target.listener.pin_install(call.id, readonly, BASE, SIZE) == BASE
        os.close(readonly)
        target.redirect(call, pin, b"/dev/null")
        seen = target.finish()
    assert seen["call.rdev"] == NULL


def test_a_pin_outlives_the_supervisor_s_descriptor(backend: Backend) -> None:
    """It is the mapping that counts. Another memfd does not become a pin by taking its number."""
    words = support.script("open:one", "open:two")
    with Memory() as other, support.target(backend, words) as target:
        call = target.receive()
        with Memory() as pin:
            target.install(call, pin)
            length = pin.put(b"/dev/null")
        other.put(b"/dev/zero")
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        target.listener.send_redirect(target.receive().id, {1: BASE}, {1: length})
        seen = target.finish()
    assert seen["one.rdev"] == seen["two.rdev"] == NULL
