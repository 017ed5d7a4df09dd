"""A target that does all it can to get around a pin, or to stall who answers it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

from pinfold import Notification
from pinfold.attack import programs, stage
from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import support
from tests.conformance.support import (
    BASE,
    NULL,
    PAGE,
    PLACEHOLDER,
    SIZE,
    ZERO,
    Memory,
    Target,
    refused,
)
from tests.programs import build

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.listener import Backend

CPUS: Final = len(os.sched_getaffinity(0))
WHERE: Final = f"{BASE:#x}:{SIZE:#x}"
DONTFORK: Final = 10


HARMLESS: Final = frozenset(
    {
        *("madvise_dontneed", "madvise_cold", "madvise_pageout", "madvise_mergeable"),
        *("madvise_guard_install", "madvise_guard_remove"),
        *("mbind", "msync", "mseal", "vmsplice", "mlock"),
    }
)
"""What may succeed: none of it changes what the kernel reads at an address of the pin."""


def test_a_store_into_the_pin_kills(backend: Backend, pin: Memory) -> None:
    words = support.script("open:first", "fork", f"store:{BASE:#x}", "end", "open:last")
    with support.target(backend, words) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        target.redirect(target.receive(), pin, b"/dev/zero")
        seen = target.finish()
    assert seen["killed"] == str(signal.SIGSEGV)
    assert seen["last.rdev"] == ZERO


def test_the_target_cannot_alter_the_pin(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """Every way to write, unmap, move, replace or re-protect it; opens in between still work."""
    file = tmp_path / "file"
    file.write_text("A")
    wanted = os.fsencode(file)
    done: list[Notification] = []

    def answer(call: Notification) -> None:
        path = target.path(call)
        if path != wanted:
            target.listener.resume(call.id)
            return
        pin.view[: 2 * PAGE] = b"/" * (2 * PAGE)
        length = pin.put(path)
        try:
            target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            assert not done, "there was a pin before"
            target.install(call, pin)
            target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        done.append(call)

    program = [str(build("alter_pin")), str(file)]
    with support.target(backend, program) as target:
        found = target.finish(0, answer)
    assert found["pins"] == "1"
    assert found["permissions"] == "r--s"
    assert found["still_pinned"] == "1"
    results = {name for name, result in found.items() if name.endswith(".result")}
    assert len(results) > 30
    worked = {name.removesuffix(".result") for name in results if found[name] == "0"}
    assert worked <= HARMLESS
    assert {value for name, value in found.items() if name.endswith(".changed")} == {"0"}
    opens = {name: value for name, value in found.items() if name.endswith(".byte")}
    assert opens.pop("open_under_guard.byte") in {f"-{errno.EFAULT}", "A"}
    assert set(opens.values()) == {"A"}
    assert found["guard.killed"] == "0"


def without_the_pin(*words: str) -> tuple[str, ...]:
    """Returns a program whose child does something at the pin's address, which it did not inherit.

    It calls ``child`` then, and its parent ``parent``.
    """
    return support.script(
        *("open:first", f"advise:kept_back:{WHERE}:{DONTFORK}"),
        *("fork", *words, "open:child", "end", "open:parent"),
    )


def test_a_child_that_maps_its_own_memory_there(backend: Backend, pin: Memory) -> None:
    with support.target(backend, without_the_pin(f"map:own:{WHERE}:{PLACEHOLDER}")) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        with refused(errno.EFAULT):
            target.redirect(call, pin, b"/dev/null")
        with refused(errno.EEXIST):
            target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        target.listener.send(call.id, error=errno.EXDEV)
        target.redirect(target.receive(), pin, b"/dev/zero")
        seen = target.finish()
    assert seen["kept_back.result"] == "0", "the attack is not one any more"
    assert seen["own.result"] == "0"
    assert seen["child.result"] == str(-errno.EXDEV)
    assert seen["parent.rdev"] == ZERO


COPY: Final = 50
"""Number that the target's copy of the memfd has."""
OWN: Final = 51

FAKES: Final = {
    "other_bytes": [f"share:a:{BASE:#x}:{SIZE - PAGE:#x}:{PAGE:#x}:{COPY}"],
    "one_page_lower": [f"share:a:{BASE - PAGE:#x}:{SIZE:#x}:0:{COPY}"],
    "one_page_off": [f"share:a:{BASE + PAGE:#x}:{SIZE - 2 * PAGE:#x}:{2 * PAGE:#x}:{COPY}"],
    "only_the_start": [f"share:a:{BASE:#x}:{PAGE:#x}:0:{COPY}"],
    "only_the_rest": [f"share:a:{BASE + PAGE:#x}:{PAGE:#x}:{PAGE:#x}:{COPY}"],
    "own_memory_behind_the_start": [
        f"share:a:{BASE:#x}:{PAGE:#x}:0:{COPY}",
        f"map:b:{BASE + PAGE:#x}:{PAGE:#x}:{PLACEHOLDER}",
    ],
    "own_memory_before_the_rest": [
        f"map:a:{BASE:#x}:{PAGE:#x}:{PLACEHOLDER}",
        f"share:b:{BASE + PAGE:#x}:{PAGE:#x}:{PAGE:#x}:{COPY}",
    ],
    "a_file_of_its_own": [
        f"file:a:{OWN}:{SIZE:#x}:{PLACEHOLDER}",
        f"share:b:{BASE:#x}:{SIZE:#x}:0:{OWN}",
    ],
    "a_file_of_its_own_behind_the_start": [
        f"file:a:{OWN}:{SIZE:#x}:{PLACEHOLDER}",
        f"share:b:{BASE:#x}:{PAGE:#x}:0:{COPY}",
        f"share:c:{BASE + PAGE:#x}:{PAGE:#x}:{PAGE:#x}:{OWN}",
    ],
}
"""What a child maps where its parent has a pin."""


@pytest.mark.parametrize("fake", FAKES)
def test_a_child_that_maps_something_else_there(backend: Backend, pin: Memory, fake: str) -> None:
    """It has a copy of the memfd's descriptor. No access across a page border lies in a pin."""
    with support.target(backend, without_the_pin(*FAKES[fake])) as target:
        call = target.receive()
        target.install(call, pin)
        target.listener.add_fd(call.id, pin.fd, newfd=COPY)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        pin.view[PAGE - 5 : PAGE + 5] = b"/dev/null\0"
        with refused(errno.EFAULT):
            target.listener.send_redirect(call.id, {1: BASE + PAGE - 5}, {1: 10})
        target.listener.send(call.id, error=errno.EXDEV)
        target.redirect(target.receive(), pin, b"/dev/zero")
        seen = target.finish()
    made = [
        seen[f"{name}.result"] for name in ("kept_back", "a", "b", "c") if f"{name}.result" in seen
    ]
    assert len(made) == 1 + len(FAKES[fake])
    assert set(made) <= {"0", str(OWN)}, "the attack is not one any more"
    assert seen["child.result"] == str(-errno.EXDEV)
    assert seen["parent.rdev"] == ZERO


def test_a_child_that_maps_more_of_the_memfd(backend: Backend) -> None:
    """The supervisor pinned a part of it, and has promised nothing about the bytes behind that."""
    words = without_the_pin(f"share:more:{BASE:#x}:{2 * SIZE:#x}:0:{COPY}")
    with Memory(2 * SIZE) as large, support.target(backend, words) as target:
        call = target.receive()
        target.listener.pin_install(call.id, large.fd, BASE, SIZE)
        target.listener.add_fd(call.id, large.fd, newfd=COPY)
        target.redirect(call, large, b"/dev/null")
        call = target.receive()
        for at in (SIZE, SIZE - 5, SIZE - 9):
            with refused(errno.EFAULT):
                target.redirect(call, large, b"/dev/null", at)
        target.listener.send(call.id, error=errno.EXDEV)
        target.redirect(target.receive(), large, b"/dev/zero")
        seen = target.finish()
    assert seen["more.result"] == "0"
    assert seen["child.result"] == str(-errno.EXDEV)
    assert seen["parent.rdev"] == ZERO


def test_a_child_that_maps_the_memfd_there_in_the_same_way(backend: Backend, pin: Memory) -> None:
    """The same bytes, shared and read-only, but not sealed: it could still replace them.

    So either the redirect is refused, or the mapping is sealed by the time the call is made.
    """
    words = without_the_pin(f"share:own:{WHERE}:0:{COPY}", "open:early")
    words = (*words[:-3], f"unmap:gone:{WHERE}", *words[-3:])
    with support.target(backend, words) as target:
        call = target.receive()
        target.install(call, pin)
        target.listener.add_fd(call.id, pin.fd, newfd=COPY)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        assert target.path(call) == b"/no/such/early"
        taken = True
        try:
            target.redirect(call, pin, b"/dev/null")
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            taken = False
            target.listener.send(call.id, error=errno.EXDEV)
        target.listener.send(target.receive().id, error=errno.EXDEV)
        target.redirect(target.receive(), pin, b"/dev/zero")
        seen = target.finish()
    assert seen["own.result"] == "0"
    if taken:
        assert seen["early.rdev"] == NULL
        assert seen["gone.result"] == str(-errno.EPERM), "it was not sealed"
    assert seen["parent.rdev"] == ZERO


ATTEMPTS: Final = 400
ROUNDS: Final = 10
HITS: Final = 10
"""The attack has to spoil so many installs, else it did not meet them."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["descriptors", "replace", "unmap"])
def test_a_thread_that_attacks_the_installation(
    backend: Backend, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed, denied = tmp_path / "allowed", tmp_path / "denied"
    allowed.write_text("A")
    denied.write_text("DD")
    spoilt = attempts = 0
    for _ in range(ROUNDS):
        counts, failures = attack_installs(backend, way, allowed, denied)
        assert counts["escapes"] == 0
        assert counts["other"] == 0
        assert counts["attempts"] == ATTEMPTS
        assert set(failures) <= {
            *(errno.EPERM, errno.EACCES, errno.EBADF, errno.EEXIST),
            *(errno.EFAULT, errno.ENODEV, errno.EINVAL, errno.ENOMEM),
        }
        attempts += ATTEMPTS
        spoilt += counts["refused"]
        if spoilt >= HITS:
            break
    with capsys.disabled():
        print(f"\n{way}: {spoilt} of {attempts} installs spoilt", end=" ", flush=True)
    if backend == "interrupt":
        # The native one opens no descriptor in the target and has no moment without the seal.
        assert spoilt >= HITS, "this test is not testing"


def attack_installs(
    backend: Backend, way: str, allowed: Path, denied: Path
) -> tuple[dict[str, int], list[int]]:
    """Returns what the program counted, and the errnos of refused installs."""
    failures: list[int] = []
    address = BASE

    def answer(call: Notification) -> None:
        nonlocal address
        here, address = address, address + SIZE
        length = pin.put(os.fsencode(allowed))
        try:
            target.install(call, pin, here)
        except OSError as error:
            failures.append(error.errno or 0)
            target.listener.send(call.id, error=errno.EACCES)
        else:
            # What was installed is there, sealed, whoever attacks it.
            target.listener.send_redirect(call.id, {1: here}, {1: length})

    program = [
        *(str(build("conf_install_race", "-static")), way, f"{BASE:#x}", f"{SIZE:#x}"),
        *(str(allowed), str(denied), str(ATTEMPTS)),
    ]
    with Memory() as pin, support.target(backend, program, trap=["newfstatat"]) as target:
        found = target.finish(0, answer)
    return {name: int(value) for name, value in found.items()}, failures


@pytest.mark.parametrize("answer", [0, errno.EPERM, errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("call", ["mseal", "mmap", "close", "munmap"])
def test_a_filter_of_the_target_that_answers_what_is_injected(
    backend: Backend, pin: Memory, call: str, answer: int
) -> None:
    """A filter can refuse a call, and it can claim success of one that is never made.

    An install that went well has sealed its mapping, whatever the target's filter says.
    """
    words = support.script(f"forbid:filter:{NR[call]}:{answer}", "open:call", "go", "open:next")
    with support.target(backend, words) as target:
        call_ = target.receive()
        refusal = in_time(target, lambda: target.install(call_, pin))
        if refusal is None:
            target.redirect(call_, pin, b"/dev/null")
            while not target.line().startswith("call"):
                continue
            assert "sl" in support.vm_flags(target.pid, BASE), "it was not sealed"
        else:
            target.listener.send(call_.id, error=errno.EXDEV)
        target.go()
        target.listener.send(target.receive().id, value=77)
        seen = target.finish()
    assert seen["filter.result"] == "0"
    assert seen["next.result"] == "77"
    if refusal is None:
        assert seen["call.rdev"] == NULL
    else:
        assert seen["call.result"] == str(-errno.EXDEV)
        assert backend == "interrupt", "the native back end injects nothing"
        if answer == errno.ENOSYS and call == "mseal":
            # As on a kernel that cannot seal.
            assert refusal.errno == errno.EOPNOTSUPP


SEAL_ATTEMPTS: Final = 6000


@pytest.mark.timeout(600)
def test_a_thread_that_exchanges_a_pin_whose_seal_was_faked(
    backend: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed, denied = tmp_path / "allowed", tmp_path / "denied"
    allowed.write_text("A")
    denied.write_text("DD")

    def answer(call: Notification) -> None:
        length = pin.put(os.fsencode(allowed))
        for _ in range(2):
            try:
                target.listener.send_redirect(call.id, {1: BASE}, {1: length})
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
            else:
                return
            try:
                target.install(call, pin)
            except OSError as error:
                target.listener.send(call.id, error=error.errno or errno.EPERM)
                return
        target.listener.send(call.id, error=errno.EFAULT)

    program = [
        *(str(build("conf_fake_seal", "-static")), f"{BASE:#x}", f"{SIZE:#x}"),
        *(str(allowed), str(denied), str(SEAL_ATTEMPTS)),
    ]
    with Memory() as pin, support.target(backend, program, trap=["newfstatat"]) as target:
        found = target.finish(0, answer)
    with capsys.disabled():
        print(f"\nfaked seal: {found}", end=" ", flush=True)
    assert found["escapes"] == "0"
    assert found["other"] == "0"
    assert int(found["attempts"]) == SEAL_ATTEMPTS


# Against the race


RACES: Final = 4000
ESCAPES: Final = 50 if CPUS > 1 else 2
"""What the control has to lose at least, or the test is not testing."""
BOTH_AT_LEAST: Final = RACES // 50
"""Fewer allowed or refused calls would mean that the path hardly changed."""
ROUNDS_AT_MOST: Final = 30


@pytest.mark.timeout(600)
def test_a_thread_that_rewrites_the_path(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever answers "continue" loses; whoever redirects to what was judged does not."""
    wanted = {"allowed": BOTH_AT_LEAST, "refused": BOTH_AT_LEAST}
    with stage.prepared() as place:
        control = races(backend, place, continue_unless, {"escapes": ESCAPES})
        pinned = races(backend, place, redirect_unless, wanted)
    with capsys.disabled():
        print(f"\ncontrol: {control}, pinned: {pinned}", end=" ", flush=True)
    assert control["escapes"] >= ESCAPES, "the control lost too seldom: this test is not testing"
    assert pinned["escapes"] == 0
    assert pinned["other"] == 0
    assert pinned["attempts"] >= RACES
    assert min(pinned["allowed"], pinned["refused"]) >= BOTH_AT_LEAST, "the path hardly changed"


def races(
    backend: Backend,
    place: Path,
    answer: Callable[[Target, Notification, Memory, bytes], None],
    wanted: dict[str, int],
) -> dict[str, int]:
    """Returns the counts of as many rounds as it takes for these outcomes, within bounds."""
    total = dict.fromkeys(("attempts", "escapes", "allowed", "refused", "other"), 0)
    for _ in range(ROUNDS_AT_MOST):
        counts = race(backend, place, answer)
        total = {name: number + counts[name] for name, number in total.items()}
        if all(total[name] >= number for name, number in wanted.items()):
            break
    return total


def continue_unless(target: Target, call: Notification, pin: Memory, denied: bytes) -> None:
    """Judges what the memory held at some time."""
    if target.path(call) == denied:
        target.listener.send(call.id, error=errno.EACCES)
    else:
        target.listener.resume(call.id)


def redirect_unless(target: Target, call: Notification, pin: Memory, denied: bytes) -> None:
    """Judges what the kernel is going to read."""
    path = target.path(call)
    if path == denied:
        target.listener.send(call.id, error=errno.EACCES)
        return
    try:
        target.redirect(call, pin, path)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        target.install(call, pin)
        target.redirect(call, pin, path)


def race(
    backend: Backend,
    place: Path,
    answer: Callable[[Target, Notification, Memory, bytes], None],
) -> dict[str, int]:
    words = (str(place), str(RACES), "thread", "store", "openat")
    program = [str(programs.build("race_paths")), *words]
    secret = os.fsencode(place / "files" / stage.DENIED)
    with Memory() as pin, support.target(backend, program) as target:
        found = target.finish(0, lambda call: answer(target, call, pin, secret))
    return {name: int(value) for name, value in found.items()}


# A filter that traps what an install needs


@pytest.mark.parametrize("trapped", ["mmap", "mseal", "close", "close_range", "munmap"])
def test_a_filter_that_traps_what_the_back_end_may_use(
    backend: Backend, pin: Memory, trapped: str
) -> None:
    """The supervisor sees the target's calls and no others, and nothing waits for itself."""
    words = support.script("open:call", f"call:own:{NR[trapped]}:1:2:3:4:5:6")
    with support.target(backend, words, trap=["openat", trapped], watch=15) as target:
        call = target.receive()
        while call.data.nr != NR["openat"]:
            target.listener.resume(call.id)
            call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        call = target.receive()
        if trapped == "close":
            # The program closes what it has opened.
            assert call.data.args[0] == 3
            target.listener.resume(call.id)
            call = target.receive()
        assert call.data.args == (1, 2, 3, 4, 5, 6)
        target.listener.send(call.id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["call.rdev"] == NULL
    assert seen["call.registers"] == "ok"
    assert seen["own.result"] == str(-errno.EXDEV)


# Against who answers


LONG: Final = 10.0
"""Seconds after which a request counts as stalled. None waits for anything but the task's stops."""

Request = Callable[[Target, Notification, Memory], object]

REQUESTS: Final[dict[str, Request]] = {
    "install": lambda target, call, pin: target.install(call, pin, BASE + 2 * SIZE),
    "redirect": lambda target, call, pin: target.redirect(call, pin, b"/dev/null"),
    "send": lambda target, call, _: target.listener.send(call.id, value=77),
    "resume": lambda target, call, _: target.listener.resume(call.id),
    "add_fd": lambda target, call, pin: target.listener.add_fd(call.id, pin.fd),
    "id_valid": lambda target, call, _: target.listener.id_valid(call.id),
}


def in_time(target: Target, request: Callable[[], object]) -> OSError | None:
    """Makes a request; returns how it was refused, None when it was not.

    Raises:
        AssertionError: The target has stalled it.
    """
    found: list[OSError] = []

    def make() -> None:
        try:
            request()
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(LONG)
    if thread.is_alive():
        target.kill()
        thread.join(support.PATIENCE)
        raise AssertionError("the target stalls its supervisor")
    return found[0] if found else None


def end_of(target: Target) -> dict[str, str]:
    """Has the attack end and fails what is still to be answered; returns the output.

    How the program ends is its own affair.
    """

    def answer(call: Notification) -> None:
        with contextlib.suppress(FileNotFoundError):
            target.listener.send(call.id, error=errno.EXDEV)

    with contextlib.suppress(BrokenPipeError):
        target.go()
    target.serve(answer)
    return target.finish(target.wait())


INSTRUCTIONS: Final = {"jump_to_itself": 0xFEEB, "undefined": 0x0B0F, "nothing": 0x9090}


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("trap", ["plain", "ignored", "blocked"])
@pytest.mark.parametrize("what", REQUESTS)
def test_a_thread_that_overwrites_the_call_instruction(
    backend: Backend, pin: Memory, what: str, trap: str, instruction: str
) -> None:
    """While its sibling waits. That may cost the sibling its call, and nobody else anything."""
    program = [
        *(str(build("conf_overwrite_call", "-static")), trap),
        f"{INSTRUCTIONS[instruction]:#x}",
    ]
    with support.target(backend, program) as target:
        call = target.receive()
        target.install(call, pin)
        target.go()
        assert target.line() == "overwritten=yes"
        refusal = in_time(target, lambda: REQUESTS[what](target, call, pin))
        in_time(target, lambda: target.listener.send(call.id, error=errno.EXDEV))
        seen = end_of(target)
    if backend == "native":
        assert refusal is None
    if what == "redirect" and refusal is None:
        assert seen.get("result", "3") == "3"


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("parked", [False, True])
def test_a_target_that_catches_its_own_calls(
    backend: Backend, pin: Memory, what: str, parked: bool
) -> None:
    """Syscall user dispatch, switched on while a call waits: what is injected raises SIGSYS."""
    with support.target(backend, [build("conf_dispatch", "-static")]) as target:
        call = target.receive()
        if parked:
            target.install(call, pin)
        target.go()
        assert target.line() == "switched=on"
        refusal = in_time(target, lambda: REQUESTS[what](target, call, pin))
        in_time(target, lambda: target.listener.send(call.id, error=errno.EXDEV))
        seen = end_of(target)
    if what == "redirect" and parked and refusal is None:
        assert seen.get("result", "3") == "3"


def test_a_target_without_a_free_descriptor(backend: Backend, pin: Memory) -> None:
    """The interrupt back end says EMFILE; the native one opens nothing there."""
    words = support.script("nofile:few:3", "open:call", "open:next")
    with support.target(backend, words) as target:
        call = target.receive()
        if backend == "interrupt":
            with refused(errno.EMFILE):
                target.install(call, pin)
            assert target.listener.id_valid(call.id)
            with refused(errno.EMFILE):
                target.listener.add_fd(call.id, pin.fd)
        else:
            target.install(call, pin)
        target.listener.send(call.id, value=77)
        target.listener.send(target.receive().id, error=errno.EXDEV)
        seen = target.finish()
    assert seen["few.result"] == "0"
    assert seen["call.result"] == "77"
    assert seen["next.result"] == str(-errno.EXDEV)


def test_one_target_does_not_stall_another(backend: Backend, pin: Memory, tmp_path: Path) -> None:
    """Two sandboxes of one supervisor: a call of the first is blocked, another one parked."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = support.script("thread", "open:one", "end", "thread", "open:other", "end", "join")
    with (
        support.target(backend, words) as stuck,
        support.target(backend, support.script("open:a", "open:b")) as free,
    ):
        first, second = stuck.receive(), stuck.receive()
        stuck.install(first, pin)
        stuck.redirect(first, pin, os.fsencode(fifo))
        with refused(errno.EEXIST):
            stuck.install(second, pin)
        call = free.receive()
        assert in_time(free, lambda: free.install(call, pin)) is None
        assert in_time(free, lambda: free.redirect(call, pin, b"/dev/null", PAGE)) is None
        free.listener.resume(free.receive().id)
        assert free.finish()["a.rdev"] == NULL
        stuck.listener.send(second.id, error=errno.EXDEV)
