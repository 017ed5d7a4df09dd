"""Every row of the two errno tables, one test id a row.

A refusal must leave the notification as it was. So the target of each row makes five calls; each is
refused in the row's way, and then answered in one of five ways, with a look at what the target saw.

Rows that cannot be brought about from outside:

* ESRCH, "the task has no mm any more": a task that waits in a notification has one. It loses it in
  ``exit_mm``, long after its notification was taken off the list; a kernel thread has no filter.
* EOPNOTSUPP, "the kernel cannot seal": that would be another kernel. A target that hides ``mseal``
  from the interrupt back end is in ``test_hostile``.
* EINTR: the window in which the back end waits for a lock of the target's memory.
* EINVAL for ``_pad``, and for lengths of what is no pointer: the Python interface cannot say it, as
  it has no padding and what has a length is a pointer.
"""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi.mman import F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK
from tests.conformance import support
from tests.conformance.support import BASE, NULL, PAGE, PLACEHOLDER, SIZE, ZERO, Memory, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pinfold.listener import Backend, Listener, Notification

ELSEWHERE: Final = 0x7100_0000
"""Where the pin of a good redirect goes."""
TOP: Final = 1 << 64
USER_TOP: Final = 0x7FFF_FFFF_F000

ANSWERS: Final = ("value", "error", "continue", "descriptor", "redirect")
OPENS: Final = tuple(f"open:{how}" for how in ANSWERS)
"""What a target does whose five calls are answered in the five ways."""


class Case(NamedTuple):
    """What a row is tried on."""

    listener: Listener
    id: int
    """Of the call that is to be refused something."""
    pin: Memory
    """Pinned at ``BASE`` in the tests of redirects."""
    call: Notification


class Row(NamedTuple):
    """One way to be refused."""

    name: str
    errno: int
    attempt: Callable[[Case], object]


def each(rows: Sequence[Row]) -> pytest.MarkDecorator:
    names = [f"{errno.errorcode[row.errno]}-{row.name}" for row in rows]
    assert len(set(names)) == len(names)
    return pytest.mark.parametrize("row", rows, ids=names)


def answer(how: str, target: support.Target, call: Notification) -> None:
    """Answers a call in one of the five ways."""
    listener = target.listener
    if how == "value":
        listener.send(call.id, value=77)
    elif how == "error":
        listener.send(call.id, error=errno.EXDEV)
    elif how == "continue":
        listener.resume(call.id)
    elif how == "descriptor":
        with open("/dev/zero", "rb") as zero:
            listener.add_fd(call.id, zero.fileno(), send=True)
    else:
        with Memory() as good:
            length = good.put(b"/dev/null")
            assert listener.pin_install(call.id, good.fd, ELSEWHERE, SIZE) == ELSEWHERE
            listener.send_redirect(call.id, {1: ELSEWHERE}, {1: length})


def check_answers(seen: dict[str, str], answers: Sequence[str] = ANSWERS) -> None:
    """Checks what a target saw whose calls were answered in these ways."""
    for how in answers:
        assert seen[f"{how}.registers"] == "ok"
        assert seen[f"{how}.string"] == "kept"
    wanted = {"value": 77, "error": -errno.EXDEV, "continue": -errno.ENOENT}
    for how, result in wanted.items():
        if how in answers:
            assert int(seen[f"{how}.result"]) == result, how
    for how, device in {"descriptor": ZERO, "redirect": NULL}.items():
        if how in answers:
            assert seen[f"{how}.rdev"] == device, how


def refuse_and_answer(
    target: support.Target,
    pin: Memory,
    attempt: Callable[[Case], object],
    number: int,
    answers: Sequence[str] = ANSWERS,
) -> None:
    """Has each call refused something, and answers it."""
    for how in answers:
        call = target.receive()
        assert target.path(call) == b"/no/such/" + how.encode()
        with refused(number):
            attempt(Case(target.listener, call.id, pin, call))
        assert target.listener.id_valid(call.id)
        answer(how, target, call)


# PIN_INSTALL


def install(
    address: int = BASE, size: int = SIZE, flags: int = 0, memfd: int | None = None
) -> Callable[[Case], object]:
    def attempt(case: Case) -> object:
        fd = case.pin.fd if memfd is None else memfd
        return case.listener.pin_install(case.id, fd, address, size, flags=flags)

    return attempt


def install_of(opened: Callable[[], int]) -> Callable[[Case], object]:
    """Tries to install a descriptor that is made for it and closed again."""

    def attempt(case: Case) -> object:
        fd = opened()
        try:
            return case.listener.pin_install(case.id, fd, BASE, SIZE)
        finally:
            os.close(fd)

    return attempt


def install_closed(case: Case) -> object:
    """Tries the number of a descriptor that was open until now."""
    fd = os.dup(case.pin.fd)
    os.close(fd)
    return install(memfd=fd)(case)


def memfd_with(seals: int) -> Callable[[], int]:
    return lambda: support.memory_file(seals)


def file_on_disk() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        return os.dup(file.fileno())


def path_only() -> int:
    with Memory() as memory:
        return os.open(f"/proc/self/fd/{memory.fd}", os.O_PATH | os.O_CLOEXEC)


INSTALLS: Final = (
    Row("flags_1", errno.EINVAL, install(flags=1)),
    Row("flags_highest", errno.EINVAL, install(flags=1 << 31)),
    Row("flags_all", errno.EINVAL, install(flags=2**32 - 1)),
    Row("size_0", errno.EINVAL, install(size=0)),
    Row("size_1", errno.EINVAL, install(size=1)),
    Row("size_page_and_1", errno.EINVAL, install(size=PAGE + 1)),
    Row("size_negative", errno.EINVAL, install(size=-PAGE)),
    Row("size_beyond_64_bits", errno.EINVAL, install(size=TOP + PAGE)),
    Row("address_odd", errno.EINVAL, install(BASE + 1)),
    Row("address_half_a_page", errno.EINVAL, install(BASE + PAGE // 2)),
    Row("address_negative", errno.EINVAL, install(-PAGE)),
    Row("address_beyond_64_bits", errno.EINVAL, install(TOP + BASE)),
    Row("overflow_to_0", errno.EINVAL, install(TOP - SIZE)),
    Row("overflow_beyond_0", errno.EINVAL, install(TOP - PAGE)),
    Row("overflow_by_size", errno.EINVAL, install(BASE, TOP - PAGE)),
    Row("memfd_without_seals", errno.EINVAL, install_of(memfd_with(0))),
    Row(
        "memfd_sealed_in_size_only",
        errno.EINVAL,
        install_of(memfd_with(F_SEAL_SHRINK | F_SEAL_GROW)),
    ),
    Row("file_on_disk", errno.EINVAL, install_of(file_on_disk)),
    Row("memfd_minus_1", errno.EBADF, install(memfd=-1)),
    Row("memfd_all_bits", errno.EBADF, install(memfd=2**32 - 1)),
    Row("memfd_not_open", errno.EBADF, install(memfd=1_000_000)),
    Row("memfd_closed", errno.EBADF, install_closed),
    Row("memfd_by_path_only", errno.EBADF, install_of(path_only)),
    Row("above_user_memory", errno.ENOMEM, install(USER_TOP)),
    Row("into_above_user_memory", errno.ENOMEM, install(USER_TOP - PAGE, SIZE)),
    Row("kernel_half", errno.ENOMEM, install(0xFFFF_8000_0000_0000)),
)


@each(INSTALLS)
def test_install(backend: Backend, pin: Memory, row: Row) -> None:
    with support.target(backend, support.script(*OPENS)) as target:
        refuse_and_answer(target, pin, row.attempt, row.errno)
        seen = target.finish()
    check_answers(seen)


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (BASE, SIZE),
        (BASE, PAGE),
        (BASE + PAGE, PAGE),
        (BASE + SIZE - PAGE, SIZE),
        (BASE - PAGE, 2 * PAGE),
        (BASE - PAGE, SIZE + 2 * PAGE),
    ],
    ids=["all", "start", "within", "over_the_end", "over_the_start", "around"],
)
def test_install_eexist(backend: Backend, pin: Memory, address: int, size: int) -> None:
    """What is mapped there stays, byte for byte."""
    pin.view[:] = b"P" * pin.size
    where = f"{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}"
    words = support.script(f"map:own:{where}", *OPENS, f"kept:still:{where}", "go")
    with support.target(backend, words) as target:
        refuse_and_answer(target, pin, install(address, size), errno.EEXIST)
        while not target.line().startswith("still"):
            continue
        assert f"{BASE:08x}-{BASE + SIZE:08x} rw-p" in support.maps(target.pid)
        target.go()
        seen = target.finish()
    assert seen["own.result"] == "0"
    assert seen["still.kept"] == "1"
    check_answers(seen)


def test_install_eexist_beside_is_free(backend: Backend, pin: Memory) -> None:
    """Pages right before and behind a mapping are no part of it."""
    where = f"{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}"
    words = support.script(f"map:own:{where}", "open:call", f"kept:still:{where}")
    with support.target(backend, words) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE - SIZE, SIZE)
        target.listener.pin_install(call.id, pin.fd, BASE + SIZE, SIZE)
        length = pin.put(b"/dev/null")
        target.listener.send_redirect(call.id, {1: BASE + SIZE}, {1: length})
        seen = target.finish()
    assert seen["still.kept"] == "1"
    assert seen["call.rdev"] == NULL


def test_install_eexist_over_a_pin(backend: Backend, pin: Memory) -> None:
    """A second install at one address is refused, and the first one's bytes stay in place."""
    length = pin.put(b"/dev/null")
    with Memory() as second, support.target(backend, support.script(*OPENS)) as target:
        second.put(b"/dev/zero")
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        with refused(errno.EEXIST):
            target.listener.pin_install(call.id, second.fd, BASE, SIZE)
        with refused(errno.EEXIST):
            target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        answer("value", target, call)
        refuse_and_answer(target, second, install(), errno.EEXIST, ANSWERS[1:-1])
        call = target.receive()
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        seen = target.finish()
    check_answers(seen)


def test_install_enomem(backend: Backend, pin: Memory) -> None:
    """The target has as many mappings as a process may have."""
    with support.target(backend, support.script("exhaust:all", *OPENS[:-1])) as target:
        refuse_and_answer(target, pin, install(), errno.ENOMEM, ANSWERS[:-1])
        seen = target.finish()
    assert seen["all.errno"] == str(errno.ENOMEM)
    check_answers(seen, ANSWERS[:-1])


def test_install_without_a_seal_on_its_size(backend: Backend) -> None:
    """A file that may shrink is refused by the interrupt back end; the native one does not ask."""
    fd = support.memory_file(F_SEAL_FUTURE_WRITE, b"/dev/null\0")
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        if backend == "interrupt":
            with refused(errno.EINVAL):
                target.listener.pin_install(call.id, fd, BASE, SIZE)
            target.listener.resume(call.id)
        else:
            target.listener.pin_install(call.id, fd, BASE, SIZE)
            target.listener.send_redirect(call.id, {1: BASE}, {1: 10})
        seen = target.finish()
    os.close(fd)
    assert seen["call.rdev"] == ("none" if backend == "interrupt" else NULL)


# SEND_REDIRECT


def redirect(
    args: dict[int, int], ptr_len: dict[int, int] | None = None, flags: int = 1
) -> Callable[[Case], None]:
    return lambda case: case.listener.send_redirect(case.id, args, ptr_len, flags=flags)


def own_string(case: Case) -> None:
    case.listener.send_redirect(case.id, {1: case.call.data.args[1]}, {1: 1})


REDIRECTS: Final = (
    Row("flags_0", errno.EINVAL, redirect({1: BASE}, {1: 10}, flags=0)),
    Row("flags_2", errno.EINVAL, redirect({1: BASE}, {1: 10}, flags=2)),
    Row("flags_3", errno.EINVAL, redirect({1: BASE}, {1: 10}, flags=3)),
    Row("flags_highest", errno.EINVAL, redirect({1: BASE}, {1: 10}, flags=1 | 1 << 31)),
    Row("flags_beyond_32_bits", errno.EINVAL, redirect({1: BASE}, {1: 10}, flags=1 | 1 << 32)),
    Row("no_argument", errno.EINVAL, redirect({})),
    Row("argument_6", errno.EINVAL, redirect({6: 0})),
    Row("argument_6_beside_1", errno.EINVAL, redirect({1: BASE, 6: 0}, {1: 10})),
    Row("argument_31", errno.EINVAL, redirect({31: 0})),
    Row("argument_32", errno.EINVAL, redirect({32: 0})),
    Row("argument_1000", errno.EINVAL, redirect({1000: 0})),
    Row("argument_minus_1", errno.EINVAL, redirect({-1: 0})),
    Row("pointer_that_is_no_argument", errno.EINVAL, redirect({1: BASE}, {2: 10})),
    Row("pointer_beside_one", errno.EINVAL, redirect({1: BASE}, {1: 10, 0: 1})),
    Row("pointer_6", errno.EINVAL, redirect({1: BASE}, {6: 10})),
    Row("length_0", errno.EINVAL, redirect({1: BASE}, {1: 0})),
    Row("length_0_beside_one", errno.EINVAL, redirect({1: BASE, 2: BASE}, {1: 10, 2: 0})),
    Row("length_negative", errno.EINVAL, redirect({1: BASE}, {1: -1})),
    Row("length_beyond_64_bits", errno.EINVAL, redirect({1: BASE}, {1: TOP})),
    Row("value_beyond_64_bits", errno.EINVAL, redirect({1: TOP}, {1: 1})),
    Row("one_byte_past", errno.EFAULT, redirect({1: BASE + SIZE}, {1: 1})),
    Row("extent_and_1", errno.EFAULT, redirect({1: BASE}, {1: SIZE + 1})),
    Row("last_byte_and_1", errno.EFAULT, redirect({1: BASE + SIZE - 1}, {1: 2})),
    Row("one_byte_before", errno.EFAULT, redirect({1: BASE - 1}, {1: 1})),
    Row("from_one_byte_before", errno.EFAULT, redirect({1: BASE - 1}, {1: 2})),
    Row("around", errno.EFAULT, redirect({1: BASE - 1}, {1: SIZE + 2})),
    Row("null", errno.EFAULT, redirect({1: 0}, {1: 1})),
    Row("null_to_the_pin", errno.EFAULT, redirect({1: 0}, {1: BASE + 1})),
    Row("overflow", errno.EFAULT, redirect({1: BASE}, {1: TOP - 1})),
    Row("overflow_to_0", errno.EFAULT, redirect({1: BASE}, {1: TOP - BASE})),
    Row("overflow_into_the_pin", errno.EFAULT, redirect({1: BASE + PAGE}, {1: TOP - PAGE + 1})),
    Row("last_address", errno.EFAULT, redirect({1: TOP - 1}, {1: 1})),
    Row("last_address_and_1", errno.EFAULT, redirect({1: TOP - 1}, {1: 2})),
    Row("negative_address", errno.EFAULT, redirect({1: -PAGE}, {1: 1})),
    Row("unmapped", errno.EFAULT, redirect({1: ELSEWHERE + 16 * SIZE}, {1: 1})),
    Row("its_own_string", errno.EFAULT, own_string),
    Row("second_pointer", errno.EFAULT, redirect({1: BASE, 2: BASE + SIZE}, {1: 10, 2: 1})),
    Row("first_pointer", errno.EFAULT, redirect({1: BASE - 1, 2: BASE}, {1: 1, 2: 1})),
)


@each(REDIRECTS)
def test_redirect(backend: Backend, pin: Memory, row: Row) -> None:
    """Tried with a pin at ``BASE``, before the install and after it."""
    pin.put(b"/dev/full")
    words = support.script("open:before", *OPENS)
    with support.target(backend, words) as target:
        call = target.receive()
        with refused(row.errno):
            row.attempt(Case(target.listener, call.id, pin, call))
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        with refused(row.errno):
            row.attempt(Case(target.listener, call.id, pin, call))
        target.listener.resume(call.id)
        refuse_and_answer(target, pin, row.attempt, row.errno)
        seen = target.finish()
    assert seen["before.result"] == str(-errno.ENOENT)
    assert seen["before.registers"] == "ok"
    check_answers(seen)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, SIZE), (SIZE - 10, SIZE), (PAGE - 5, PAGE + 5), (0, 10)],
    ids=["all_of_it", "to_the_end", "across_a_page", "at_the_start"],
)
def test_redirect_that_just_fits(backend: Backend, pin: Memory, start: int, end: int) -> None:
    """The other side of the EFAULT rows."""
    pin.put(b"/dev/null", start)
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        target.listener.send_redirect(call.id, {1: BASE + start}, {1: end - start})
        seen = target.finish()
    assert seen["call.rdev"] == NULL


def test_redirect_efault_without_any_pin(backend: Backend, pin: Memory) -> None:
    with support.target(backend, support.script(*OPENS)) as target:
        refuse_and_answer(target, pin, redirect({1: BASE}, {1: 1}), errno.EFAULT)
        seen = target.finish()
    check_answers(seen)


@pytest.mark.parametrize("own", [False, True], ids=["nothing_there", "own_memory_there"])
def test_redirect_efault_for_the_pin_of_a_dead_mm(backend: Backend, pin: Memory, own: bool) -> None:
    """After an exec the address means nothing, whatever the program maps there itself."""
    where = f"{BASE:#x}:{SIZE:#x}:{PLACEHOLDER}"
    mapping = [f"map:own:{where}"] if own else []
    length = pin.put(b"/dev/null")
    with support.target(backend, support.script("open:first", "exec", *mapping, *OPENS)) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        refuse_and_answer(target, pin, redirect({1: BASE}, {1: length}), errno.EFAULT)
        seen = target.finish()
    assert seen["first.rdev"] == NULL
    if own:
        assert seen["own.result"] == "0"
    check_answers(seen)


def test_redirect_efault_for_the_pin_of_another_process(backend: Backend, pin: Memory) -> None:
    """A pin of the child, made after the fork, is none of its parent's."""
    length = pin.put(b"/dev/null")
    words = support.script("spawn", "open:child", "go", "end", *OPENS, "join")
    with support.target(backend, words) as target:
        parent = target.pid
        calls = sorted((target.receive(), target.receive()), key=lambda call: call.pid == parent)
        target.listener.pin_install(calls[0].id, pin.fd, BASE, SIZE)
        target.listener.send_redirect(calls[0].id, {1: BASE}, {1: length})
        attempt = redirect({1: BASE}, {1: length})
        with refused(errno.EFAULT):
            attempt(Case(target.listener, calls[1].id, pin, calls[1]))
        answer(ANSWERS[0], target, calls[1])
        refuse_and_answer(target, pin, attempt, errno.EFAULT, ANSWERS[1:])
        target.go()
        seen = target.finish()
    assert seen["child.rdev"] == NULL
    check_answers(seen)


@pytest.mark.parametrize("one_memfd", [True, False], ids=["one_memfd", "two_memfds"])
def test_redirect_efault_across_adjacent_pins(
    backend: Backend, pin: Memory, one_memfd: bool
) -> None:
    """Each of the two pins would do; both together are no single one."""
    with Memory() as second, support.target(backend, support.script(*OPENS)) as target:
        neighbour = pin if one_memfd else second
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        target.listener.pin_install(call.id, neighbour.fd, BASE + SIZE, SIZE)
        attempt = redirect({1: BASE + SIZE - 5}, {1: 10})
        with refused(errno.EFAULT):
            attempt(Case(target.listener, call.id, pin, call))
        answer(ANSWERS[0], target, call)
        refuse_and_answer(target, pin, attempt, errno.EFAULT, ANSWERS[1:-1])
        call = target.receive()
        with refused(errno.EFAULT):
            attempt(Case(target.listener, call.id, pin, call))
        length = neighbour.put(b"/dev/null")
        target.listener.send_redirect(call.id, {1: BASE + SIZE}, {1: length})
        seen = target.finish()
    check_answers(seen)


@pytest.mark.parametrize("trap", ["clone", "fork", "vfork", "clone3"])
def test_redirect_of_a_call_that_makes_a_process(backend: Backend, trap: str) -> None:
    """EOPNOTSUPP on the interrupt back end, where the child would not be what its parent made."""
    words = [f"call:{how}:{NR[trap]}:0" for how in ("value", "error")]
    with support.target(backend, support.script(*words), trap=[trap]) as target:
        for how in ("value", "error"):
            call = target.receive()
            if backend == "interrupt":
                with refused(errno.EOPNOTSUPP):
                    target.listener.send_redirect(call.id, {0: 0})
            answer(how, target, call)
        seen = target.finish()
    assert seen["value.result"] == "77"
    assert seen["error.result"] == str(-errno.EXDEV)


# Both: the notification itself


class Request(NamedTuple):
    """Something that is addressed to a notification."""

    name: str
    make: Callable[[Listener, int, Memory], object]


REQUESTS: Final = (
    Request("install", lambda one, number, pin: one.pin_install(number, pin.fd, BASE, SIZE)),
    Request("redirect", lambda one, number, _: one.send_redirect(number, {3: 0})),
    Request("redirect_to_pin", lambda one, number, _: one.send_redirect(number, {1: BASE}, {1: 1})),
    Request("send", lambda one, number, _: one.send(number, value=1)),
    Request("resume", lambda one, number, _: one.resume(number)),
    Request("add_fd", lambda one, number, pin: one.add_fd(number, pin.fd)),
)

each_request = pytest.mark.parametrize("asked", REQUESTS, ids=[one.name for one in REQUESTS])


@each_request
def test_enoent_for_an_id_that_never_existed(backend: Backend, pin: Memory, asked: Request) -> None:
    with support.target(backend, support.script(*OPENS)) as target:
        for how in ANSWERS:
            call = target.receive()
            for number in (0, call.id + 1, call.id - 1000, call.id ^ 1 << 63, -1, TOP):
                with refused(errno.ENOENT):
                    asked.make(target.listener, number, pin)
                assert not target.listener.id_valid(number)
            assert target.listener.id_valid(call.id)
            answer(how, target, call)
        seen = target.finish()
    check_answers(seen)


@each_request
@pytest.mark.parametrize("how", ANSWERS)
def test_enoent_for_an_answered_call(
    backend: Backend, pin: Memory, asked: Request, how: str
) -> None:
    """Right after the answer the task may not have woken: then it is EINPROGRESS."""
    with support.target(backend, support.script(f"open:{how}", "open:next")) as target:
        call = target.receive()
        answer(how, target, call)
        with refused(errno.ENOENT, errno.EINPROGRESS):
            asked.make(target.listener, call.id, pin)
        last = target.receive()
        with refused(errno.ENOENT):
            asked.make(target.listener, call.id, pin)
        assert not target.listener.id_valid(call.id)
        assert last.id != call.id
        target.listener.send(last.id, value=88)
        seen = target.finish()
    check_answers(seen, [how])
    assert seen["next.result"] == "88"


@each_request
def test_enoent_for_a_redirected_call_that_is_still_running(
    backend: Backend, pin: Memory, asked: Request, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    length = pin.put(os.fsencode(fifo))
    with Memory() as spare, support.target(backend, support.script("open:call", "go")) as target:
        call = target.receive()
        target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
        target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        support.until(lambda: support.waits_in(target.pid, "openat"))
        for _ in range(3):
            with refused(errno.ENOENT, errno.EINPROGRESS):
                asked.make(target.listener, call.id, spare)
        assert not target.listener.id_valid(call.id)
        os.close(os.open(fifo, os.O_WRONLY))
        assert "call result=3" in target.line()
        with refused(errno.ENOENT):
            asked.make(target.listener, call.id, spare)
        target.go()
        seen = target.finish()
    assert seen["call.registers"] == "ok"


@each_request
@pytest.mark.parametrize("after", ["receive", "install", "refusal"])
def test_enoent_for_a_killed_task(
    backend: Backend, pin: Memory, asked: Request, after: str
) -> None:
    """Killed in every state that a call can wait in; the other process is none the wiser."""
    words = support.script("spawn", "open:doomed", "end", *OPENS, "join")
    with support.target(backend, words) as target:
        calls = sorted((target.receive(), target.receive()), key=target.path)
        doomed, call = calls
        assert target.path(doomed) == b"/no/such/doomed"
        if after == "install":
            target.listener.pin_install(doomed.id, pin.fd, ELSEWHERE, SIZE)
        elif after == "refusal":
            with refused(errno.EFAULT):
                target.listener.send_redirect(doomed.id, {1: BASE}, {1: 1})
        os.kill(doomed.pid, signal.SIGKILL)
        assert support.ends(doomed.pid)
        for how in ANSWERS:
            with refused(errno.ENOENT):
                asked.make(target.listener, doomed.id, pin)
            assert not target.listener.id_valid(doomed.id)
            answer(how, target, call)
            if how != ANSWERS[-1]:
                call = target.receive()
        seen = target.finish()
    assert seen.pop("killed") == str(signal.SIGKILL)
    check_answers(seen)


@each_request
def test_enoent_when_nobody_is_left(backend: Backend, pin: Memory, asked: Request) -> None:
    with support.target(backend, support.script("open:call")) as target:
        call = target.receive()
        target.kill()
        assert target.wait() == -signal.SIGKILL
        with refused(errno.ENOENT):
            asked.make(target.listener, call.id, pin)
        with refused(errno.ENOENT):
            target.receive()


@each_request
def test_einprogress_for_a_call_not_received_yet(
    backend: Backend, pin: Memory, asked: Request
) -> None:
    """Ids of one filter are consecutive, so that the second one is known beforehand."""
    words = support.script("spawn", "open:one", "end", "spawn", "open:other", "end", "join")
    with support.target(backend, words) as target:
        first = target.receive()
        assert support.readable(target.listener.fileno())
        for _ in range(2):
            with refused(errno.EINPROGRESS):
                asked.make(target.listener, first.id + 1, pin)
            assert not target.listener.id_valid(first.id + 1)
        second = target.receive()
        assert second.id == first.id + 1, "the test asked about another id"
        # Both can still be answered in every way.
        for call in (second, first):
            target.listener.pin_install(call.id, pin.fd, BASE, SIZE)
            length = pin.put(b"/dev/null")
            target.listener.send_redirect(call.id, {1: BASE}, {1: length})
        seen = target.finish()
    assert seen["one.rdev"] == seen["other.rdev"] == NULL


@each_request
def test_einprogress_for_a_call_that_waits_behind_a_redirect(
    backend: Backend, pin: Memory, asked: Request
) -> None:
    """It came before the redirected one could, and nobody has asked for it yet."""
    words = support.script("thread", "open:one", "end", "thread", "open:other", "end", "join")
    with Memory() as spare, support.target(backend, words) as target:
        first = target.receive()
        assert support.readable(target.listener.fileno())
        target.install(first, pin)
        target.redirect(first, pin, b"/dev/null")
        with refused(errno.EINPROGRESS):
            asked.make(target.listener, first.id + 1, spare)
        assert not target.listener.id_valid(first.id + 1)
        second = target.listener.receive(0)
        assert second.id == first.id + 1, "the test asked about another id"
        target.redirect(second, pin, b"/dev/null")
        seen = target.finish()
    assert seen["one.rdev"] == seen["other.rdev"] == NULL
