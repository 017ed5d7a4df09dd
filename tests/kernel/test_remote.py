"""Reading a task's memory as the kernel would: whole or not at all, strings up to their NUL.

The task is a child that lays out pages as it is told. Pictures of a layout have one letter a page:

    r   readable and writable
    -   mapped without any right
    w   writable only, which counts as unreadable
    e   readable, but behind the end of its file
    .   not mapped
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinfold
from pinfold.linux import libc, process
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee import remote
from pinfold.uapi import mman
from pinfold.uapi.fs import PATH_MAX
from tests.kernel.forked import Forked, forked
from tests.kernel.support import NOBODY, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = mmap.PAGESIZE
PAGES: Final = 6
SPAN: Final = PAGES * PAGE
AT: Final = 0x6000_0000
"""Where the child's pages are; nothing else is there."""
END: Final = 1 << 64

_RIGHTS: Final = {"r": 3, "-": 0, "w": mman.PROT_WRITE, "e": mman.PROT_READ}


def lay_out(picture: str, content: bytes) -> None:
    """Makes the calling process have pages like the picture, with this content where they can."""
    fixed = mman.MAP_FIXED | mman.MAP_PRIVATE
    with tempfile.TemporaryFile() as empty:
        for index, letter in enumerate(picture):
            page = AT + index * PAGE
            if letter == ".":
                libc.syscall("munmap", NR["munmap"], page, PAGE)
                continue
            flags = fixed if letter == "e" else fixed | mman.MAP_ANONYMOUS
            fd = empty.fileno() if letter == "e" else -1
            rights = _RIGHTS[letter] if letter == "e" else 3
            libc.syscall("mmap", NR["mmap"], page, PAGE, rights, flags, fd, 0)
            if letter != "e":
                put(page, content[index * PAGE : (index + 1) * PAGE])
                libc.syscall("mprotect", NR["mprotect"], page, PAGE, _RIGHTS[letter])


def put(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


def obey(channel: socket.socket) -> None:
    """Lays out what comes, and says so, until the other end is closed."""
    while order := channel.recv(PAGES + SPAN):
        lay_out(order[:PAGES].decode(), order[PAGES:])
        channel.send(b"done")


class Target:
    """The child, told what to lay out."""

    def __init__(self, child: Forked) -> None:
        self.pid: Final = child.pid
        self._channel = child.channel

    def has(self, picture: str, content: bytes = b"x" * SPAN) -> None:
        """Returns when the child has these pages."""
        assert len(picture) == PAGES
        self._channel.send(picture.encode() + content.ljust(SPAN, b"x"))
        assert self._channel.recv(4) == b"done"


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with forked(obey) as child:
        child.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SPAN)
        yield Target(child)


def refusal(call: remote.Reader, *args: int) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the caller looks at the errno)
        call(*args)
    return caught.value


# Bytes


def test_bytes_across_pages(target: Target) -> None:
    content = os.urandom(SPAN)
    target.has("rrr...", content)
    assert remote.read_bytes(target.pid, AT, 3 * PAGE) == content[: 3 * PAGE]
    assert remote.read_bytes(target.pid, AT + 17, PAGE) == content[17 : 17 + PAGE]
    assert remote.read_bytes(target.pid, AT + PAGE - 1, 2) == content[PAGE - 1 : PAGE + 1]
    assert remote.read_bytes(target.pid, AT + 3 * PAGE - 1, 1) == content[3 * PAGE - 1 : 3 * PAGE]


@pytest.mark.parametrize("letter", ["-", ".", "w", "e"])
def test_all_or_nothing(target: Target, letter: str) -> None:
    target.has(f"r{letter}r...")
    for start, length in ((PAGE - 1, 2), (PAGE, 1), (2 * PAGE - 1, 2), (0, 3 * PAGE)):
        assert refusal(remote.read_bytes, target.pid, AT + start, length).errno == errno.EFAULT
    assert remote.read_bytes(target.pid, AT, PAGE) == b"x" * PAGE
    assert remote.read_bytes(target.pid, AT + 2 * PAGE, PAGE) == b"x" * PAGE


def test_no_bytes_are_always_there(target: Target) -> None:
    target.has("......")
    for address in (0, AT, END - 1, END, -1):
        assert remote.read_bytes(target.pid, address, 0) == b""


def test_more_than_one_chunk() -> None:
    size = 3 * (1 << 20) + 12345
    content = os.urandom(size)
    whole = -(-size // PAGE) * PAGE

    def work(channel: socket.socket) -> None:
        how = mman.MAP_FIXED | mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
        libc.syscall("mmap", NR["mmap"], AT, whole, 3, how, -1, 0)
        put(AT, content)
        channel.send(b"done")
        channel.recv(1)

    with forked(work) as child:
        child.channel.recv(4)
        assert remote.read_bytes(child.pid, AT, size) == content
        error = refusal(remote.read_bytes, child.pid, AT, whole + 1)
        assert error.errno == errno.EFAULT
        assert f"{AT + whole:#x}" in str(error)


def test_a_length_costs_nothing_before_it_is_there(target: Target) -> None:
    target.has("rr....")
    for length in (1 << 40, 1 << 62, END - AT):
        assert refusal(remote.read_bytes, target.pid, AT, length).errno == errno.EFAULT


# Strings


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 257, PAGE - 1])
@pytest.mark.parametrize("letter", ["-", ".", "w", "e"])
def test_a_string_that_ends_with_its_page(target: Target, letter: str, length: int) -> None:
    text = b"s" * length + b"\0"
    target.has(f"r{letter}....", text.rjust(PAGE, b"\0"))
    assert remote.read_string(target.pid, AT + PAGE - len(text)) == text[:-1]


@pytest.mark.parametrize("length", [1, 255, 256, 257, PAGE])
@pytest.mark.parametrize("letter", ["-", ".", "w", "e"])
def test_a_string_whose_memory_ends(target: Target, letter: str, length: int) -> None:
    target.has(f"r{letter}....")
    start = AT + PAGE - length
    assert refusal(remote.read_string, target.pid, start, length + 1).errno == errno.EFAULT
    # Unless the limit comes first.
    assert refusal(remote.read_string, target.pid, start, length).errno == errno.ENAMETOOLONG


def test_a_string_across_pages(target: Target) -> None:
    text = b"y" * (PAGE + 100)
    target.has("rrr...", b"x" * (PAGE - 50) + text + b"\0")
    start = AT + PAGE - 50
    assert remote.read_string(target.pid, start, len(text) + 1) == text
    assert refusal(remote.read_string, target.pid, start, len(text)).errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("limit", [1, 2, 255, 256, 257, 258, PATH_MAX, PATH_MAX + 1])
def test_the_limit_counts_the_nul(target: Target, limit: int) -> None:
    text = b"z" * (limit - 1)
    target.has("rr....", text + b"\0")
    assert remote.read_string(target.pid, AT, limit) == text
    target.has("rr....", text + b"z\0")
    assert refusal(remote.read_string, target.pid, AT, limit).errno == errno.ENAMETOOLONG


def test_the_usual_limit_is_that_of_a_path(target: Target) -> None:
    target.has("rr....", b"p" * (PATH_MAX - 1) + b"\0")
    assert len(remote.read_string(target.pid, AT)) == PATH_MAX - 1
    target.has("rr....", b"p" * PATH_MAX + b"\0")
    assert refusal(remote.read_string, target.pid, AT).errno == errno.ENAMETOOLONG


# Either


@pytest.mark.parametrize("address", [-1, -END, END, END + AT, END - 1, 1 << 63, 1 << 47, 0])
@pytest.mark.parametrize("call", [remote.read_bytes, remote.read_string])
def test_addresses_that_cannot_be(target: Target, call: remote.Reader, address: int) -> None:
    # The low bits of some are those of a readable page.
    target.has("rrrrrr")
    for length in (1, 300):
        error = refusal(call, target.pid, address, length)
        assert error.errno == errno.EFAULT
        assert f"process_vm_readv of task {target.pid} at {address:#x}" in str(error)


def test_lengths_that_cannot_be() -> None:
    for wrong in (-1, -END):
        with pytest.raises(ValueError, match="cannot read"):
            remote.read_bytes(os.getpid(), AT, wrong)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="limit"):
            remote.read_string(os.getpid(), AT, wrong)


@pytest.mark.parametrize("call", [remote.read_bytes, remote.read_string])
def test_a_task_that_is_gone(call: remote.Reader) -> None:
    with forked(lambda _: None) as child:
        assert child.exit_code() == 0
        # Not reaped yet, but without memory.
        assert isinstance(refusal(call, child.pid, AT, 1), ProcessLookupError)
    error = refusal(call, child.pid, AT, 1)
    assert isinstance(error, ProcessLookupError)
    assert str(child.pid) in str(error)


def test_a_task_that_we_may_not_look_at() -> None:
    def hide(channel: socket.socket) -> None:
        lay_out("r.....", b"secret" + bytes(PAGE))
        process.set_dumpable(False)
        channel.send(b"done")
        channel.recv(1)

    with forked(hide) as hidden:
        hidden.channel.recv(4)

        def look(channel: socket.socket) -> None:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            for call in (remote.read_bytes, remote.read_string):
                error = refusal(call, hidden.pid, AT, 6)
                assert error.errno == errno.EPERM
                assert f"task {hidden.pid} at {AT:#x}" in str(error)
            channel.send(b"refused")

        with forked(look) as reader:
            assert reader.channel.recv(7) == b"refused"


def test_a_thread_will_do(target: Target) -> None:
    tids: list[int] = []
    started, stop = threading.Event(), threading.Event()

    def work() -> None:
        tids.append(threading.get_native_id())
        started.set()
        stop.wait(PATIENCE)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(PATIENCE)
        assert tids[0] != os.getpid()
        text = ctypes.create_string_buffer(b"of a thread")
        assert remote.read_string(tids[0], ctypes.addressof(text)) == b"of a thread"
    finally:
        stop.set()
        thread.join()


# Any layout

layouts = st.text("r-we.", min_size=PAGES, max_size=PAGES)
# Few NULs, so that strings get long; and few bytes to tell one place from another.
holes = st.lists(st.integers(0, SPAN - 1), max_size=6)
edges = st.sampled_from([page * PAGE + near for page in range(PAGES + 1) for near in (-257, -2, 0)])
starts = (edges | st.integers(0, SPAN - 1)).map(lambda start: min(max(start, 0), SPAN - 1))
lengths = st.sampled_from([1, 2, 255, 256, 257, PAGE, PAGE + 1, PATH_MAX, 2 * PAGE]) | st.integers(
    1, SPAN
)


def expected(picture: str, content: bytes, start: int, length: int) -> bytes:
    """Returns what can be read of ``length`` bytes: those before the first unreadable page."""
    readable = start
    while readable < SPAN and picture[readable // PAGE] == "r":
        readable = (readable // PAGE + 1) * PAGE
    return content[start : min(start + length, readable)]


@settings(max_examples=150)
@given(layouts, holes, st.lists(st.tuples(starts, lengths), min_size=1, max_size=8))
def test_any_layout(
    target: Target, picture: str, nuls: list[int], reads: list[tuple[int, int]]
) -> None:
    content = bytearray(SPAN)
    content[:] = (bytes(range(1, 252)) * (SPAN // 251 + 1))[:SPAN]
    for at in nuls:
        content[at] = 0
    target.has(picture, bytes(content))
    for start, length in reads:
        there = expected(picture, bytes(content), start, length)
        if len(there) == length:
            assert remote.read_bytes(target.pid, AT + start, length) == there
        else:
            error = refusal(remote.read_bytes, target.pid, AT + start, length)
            assert error.errno == errno.EFAULT
        text, nul, _ = there.partition(b"\0")
        if nul:
            assert remote.read_string(target.pid, AT + start, length) == text
        else:
            error = refusal(remote.read_string, target.pid, AT + start, length)
            cut = errno.ENAMETOOLONG if len(there) == length else errno.EFAULT
            assert error.errno == cut


# Through a listener


def test_what_a_call_points_to() -> None:
    with pinfold.supervise(
        ["cat", "/no/such/file"], trap=["openat"], stderr=subprocess.DEVNULL
    ) as cat:
        seen = []
        for call in cat.listener:
            path = cat.listener.read_string(call, call.data.args[1])
            seen.append(path)
            assert cat.listener.read(call, call.data.args[1], len(path) + 1) == path + b"\0"
            for wrong in (0, END - 1, END, -1):
                with pytest.raises(OSError, match="Bad address"):
                    cat.listener.read_string(call, wrong)
                with pytest.raises(OSError, match="Bad address"):
                    cat.listener.read(call, wrong, 1)
            with pytest.raises(OSError, match="File name too long"):
                cat.listener.read_string(call, call.data.args[1], len(path))
            cat.listener.resume(call.id)
        assert b"/no/such/file" in seen
        assert cat.wait(PATIENCE) == 1


@pytest.mark.parametrize("end", ["answered", "killed", "reaped"])
def test_a_call_that_is_gone(end: str) -> None:
    with pinfold.supervise(
        ["cat", "/no/such/file"], trap=["openat"], stderr=subprocess.DEVNULL
    ) as cat:
        call = cat.listener.receive(PATIENCE)
        address = call.data.args[1]
        assert cat.listener.read_string(call, address)
        if end == "answered":
            cat.listener.resume(call.id)
        else:
            cat.kill()
            if end == "reaped":
                cat.wait(PATIENCE)
        bound = time.monotonic() + PATIENCE
        while cat.listener.id_valid(call.id):
            assert time.monotonic() < bound
        for wrong in (address, 0):
            with pytest.raises(FileNotFoundError, match="the call is gone"):
                cat.listener.read_string(call, wrong)
            with pytest.raises(FileNotFoundError, match="the call is gone"):
                cat.listener.read(call, wrong, 1)
