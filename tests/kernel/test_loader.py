"""Whether a call came from the loader's text: what the hint says, and how it is fooled."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, Final

import pytest

import pinfold
from pinfold.bpf import Arg
from pinfold.linux import libc, process
from pinfold.linux.maps import MapsQuery, find_in_text, open_maps
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi.auxvec import AT_BASE, AT_NULL, AUXV_ENTRY
from pinfold.uapi.procmap import PROCMAP_QUERY
from tests.kernel.forked import forked
from tests.kernel.support import NOBODY, PATIENCE
from tests.programs import build

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

PAGE: Final = mmap.PAGESIZE
RX: Final = mman.PROT_READ | mman.PROT_EXEC


def wait(channel: socket.socket) -> None:
    channel.send(b"here")
    channel.recv(1)


@pytest.fixture(scope="module")
def sleeper() -> Iterator[int]:
    """A copy of this process that does nothing, so that its mappings stay."""
    with forked(wait) as child:
        child.channel.recv(4)
        yield child.pid


def vector() -> dict[int, int]:
    with open("/proc/self/auxv", "rb") as file:
        return dict(AUXV_ENTRY.iter_unpack(file.read()))


def regions(pid: int | str = "self") -> list[tuple[int, int, str, str]]:
    """Returns start, end, rights and path of all mappings."""
    with open(f"/proc/{pid}/maps") as file:
        found = []
        for line in file:
            span, rights, _, _, _, *path = line.split(maxsplit=5)
            start, end = (int(limit, 16) for limit in span.split("-"))
            found.append((start, end, rights, path[0].rstrip("\n") if path else ""))
    return found


def loader_path() -> str:
    base = vector()[AT_BASE]
    return next(path for start, _, _, path in regions() if start == base)


def map_loader(rights: int, flags: int) -> int:
    fd = os.open(loader_path(), os.O_RDONLY)
    try:
        return libc.syscall("mmap", NR["mmap"], 0, PAGE, rights, flags, fd, 0)
    finally:
        os.close(fd)


def opens(command: list[str]) -> dict[bytes, bool]:
    """Returns which files a command opens, and whether it is its loader that does."""
    found = {}
    with pinfold.supervise(
        command, trap=["openat"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        for call in child.listener:
            path = child.listener.read_string(call, call.data.args[1])
            found[path] = pinfold.from_loader(call.pid, call.data.instruction_pointer)
            child.listener.resume(call.id)
        child.wait(PATIENCE)
    return found


def test_loader_and_program_are_told_apart() -> None:
    found = opens(["cat", "/no/such/file"])
    assert found[b"/no/such/file"] is False
    libraries = [path for path in found if b"libc.so" in path]
    assert libraries
    assert all(found[path] for path in libraries)


def test_a_static_program_has_no_loader() -> None:
    found = opens([str(build("conf_script", "-static")), "open:first", "open:second"])
    assert found
    assert not any(found.values())


def test_a_loader_that_is_run_as_a_program_is_not_seen() -> None:
    found = opens([loader_path(), "/bin/cat", "/no/such/file"])
    assert b"/no/such/file" in found
    assert any(b"libc.so" in path for path in found)
    assert not any(found.values())


def test_every_mapping_of_a_process(sleeper: int) -> None:
    loader = loader_path()
    seen = set()
    for start, end, rights, path in regions(sleeper):
        want = path == loader and rights == "r-xp"
        seen.add(want)
        for address in (start, end - 1):
            assert pinfold.from_loader(sleeper, address) is want, (hex(address), path)
    assert seen == {True, False}


def test_addresses_that_cannot_be(sleeper: int) -> None:
    for address in (0, 1, -1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 64) + vector()[AT_BASE]):
        assert pinfold.from_loader(sleeper, address) is False


def test_what_is_unmapped_is_false_from_then_on() -> None:
    address = map_loader(RX, mman.MAP_PRIVATE)
    assert pinfold.from_loader(os.getpid(), address) is True
    libc.syscall("munmap", NR["munmap"], address, PAGE)
    assert pinfold.from_loader(os.getpid(), address) is False


@pytest.mark.parametrize(
    ("rights", "flags", "want"),
    [
        # The first is a hole that the documentation tells of.
        (RX, mman.MAP_PRIVATE, True),
        (RX, mman.MAP_SHARED, False),
        (mman.PROT_READ, mman.MAP_PRIVATE, False),
        (mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE, False),
        (mman.PROT_NONE, mman.MAP_PRIVATE, False),
    ],
)
def test_other_mappings_of_the_loader(rights: int, flags: int, want: bool) -> None:
    address = map_loader(rights, flags)
    try:
        assert pinfold.from_loader(os.getpid(), address) is want
    finally:
        libc.syscall("munmap", NR["munmap"], address, PAGE)


def test_anonymous_memory_is_no_loader() -> None:
    flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
    address = libc.syscall("mmap", NR["mmap"], 0, PAGE, RX, flags, -1, 0)
    try:
        assert pinfold.from_loader(os.getpid(), address) is False
    finally:
        libc.syscall("munmap", NR["munmap"], address, PAGE)


def test_a_thread_will_do() -> None:
    address = next(
        start for start, _, rights, path in regions() if path == loader_path() and "x" in rights
    )
    found: list[bool] = []

    def work() -> None:
        tid = threading.get_native_id()
        assert tid != os.getpid()
        found.append(pinfold.from_loader(tid, address))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] is True


def test_a_task_that_is_gone() -> None:
    with forked(lambda _: None) as child:
        assert child.exit_code() == 0
        # Not reaped yet, but without memory.
        with pytest.raises(ProcessLookupError, match=str(child.pid)):
            pinfold.from_loader(child.pid, 0)
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        pinfold.from_loader(child.pid, 0)


def test_a_task_that_we_may_not_look_at() -> None:
    def hide(channel: socket.socket) -> None:
        process.set_dumpable(False)
        wait(channel)

    with forked(hide) as hidden:
        hidden.channel.recv(4)

        def look(channel: socket.socket) -> None:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            with pytest.raises(PermissionError):
                pinfold.from_loader(hidden.pid, 0)
            channel.send(b"refused")

        with forked(look) as reader:
            assert reader.channel.recv(7) == b"refused"


# Without the request: a filter says what an older kernel would


def without_query(body: Callable[[], None]) -> None:
    """Runs something where the kernel does not know PROCMAP_QUERY."""

    def work(channel: socket.socket) -> None:
        query = ("ioctl", Arg(1, 0xFFFFFFFF, PROCMAP_QUERY))
        pinfold.install_filter(pinfold.notify_filter([], {query: errno.ENOTTY}))
        maps = open_maps(os.getpid())
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            MapsQuery().at(maps, 0)
        body()
        channel.send(b"done")

    with forked(work) as child:
        assert child.channel.recv(4) == b"done"


def test_every_mapping_without_the_query(sleeper: int) -> None:
    without_query(lambda: test_every_mapping_of_a_process(sleeper))
    without_query(lambda: test_addresses_that_cannot_be(sleeper))


def test_other_mappings_without_the_query() -> None:
    without_query(lambda: test_other_mappings_of_the_loader(RX, mman.MAP_PRIVATE, True))
    without_query(lambda: test_other_mappings_of_the_loader(RX, mman.MAP_SHARED, False))
    without_query(test_what_is_unmapped_is_false_from_then_on)


def test_a_task_that_is_gone_without_the_query() -> None:
    without_query(test_a_task_that_is_gone)


def test_text_and_query_say_the_same(sleeper: int) -> None:
    query = MapsQuery()
    maps = open_maps(sleeper)
    try:
        found = regions(sleeper)
        # The vsyscall page is shown, and is no mapping that could be asked about.
        edges = [
            edge for start, end, _, path in found if path != "[vsyscall]" for edge in (start, end)
        ]
        for edge in edges:
            for address in (edge - 1, edge, edge + 1):
                assert find_in_text(maps, address) == query.at(maps, address), hex(address)
    finally:
        os.close(maps)


def test_text_of_a_task_without_memory() -> None:
    with forked(wait) as child:
        child.channel.recv(4)
        maps = open_maps(child.pid)
        child.channel.send(b"x")
        assert child.exit_code() == 0
        try:
            with pytest.raises(ProcessLookupError):
                find_in_text(maps, 0)
        finally:
            os.close(maps)


# A hint, not a boundary

_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_PR_SET_MM_AUXV: Final = 12
_MM_MAP: Final = struct.Struct("=11QQIi")
"""``struct prctl_mm_map``: eleven addresses, auxv, auxv_size, exe_fd."""


def lie(base: int) -> bool:
    """Makes the calling process say that its loader is at ``base``; false if there is no such call.

    Kernel: ``PR_SET_MM_MAP`` in ``prctl(2)``, CONFIG_CHECKPOINT_RESTORE.
    """
    entries = vector() | {AT_BASE: base}
    entries[AT_NULL] = 0
    packed = b"".join(AUXV_ENTRY.pack(*entry) for entry in sorted(entries.items(), reverse=True))
    auxv = ctypes.create_string_buffer(packed, len(packed))
    heap, brk = next((start, end) for start, end, _, path in regions() if path == "[heap]")
    low = min(regions())[0]
    layout = _MM_MAP.pack(
        *(low, low + 1, low, low + 1, heap, brk, brk, brk, brk, brk, brk),
        *(ctypes.addressof(auxv), len(packed), -1),
    )
    buffer = ctypes.create_string_buffer(layout, len(layout))
    try:
        libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.addressof(buffer), len(layout))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def test_a_program_can_name_any_mapping_as_its_loader() -> None:
    if all(path != "[heap]" for *_, path in regions()):
        pytest.skip("this process has no heap to describe")

    def work(channel: socket.socket) -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            process.set_dumpable(True)
        exe = os.readlink("/proc/self/exe")
        own = next(start for start, _, rights, path in regions() if path == exe and "x" in rights)
        assert pinfold.from_loader(os.getpid(), own) is False
        with pytest.raises(PermissionError):
            libc.prctl(_PR_SET_MM, _PR_SET_MM_AUXV, 0, 0)
        if not lie(own):
            channel.send(b"unknown")
            return
        assert vector()[AT_BASE] == own
        assert pinfold.from_loader(os.getpid(), own) is True
        # But not what is of no file: all such mappings look the same.
        how = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
        assert lie(libc.syscall("mmap", NR["mmap"], 0, PAGE, RX, how, -1, 0))
        assert pinfold.from_loader(os.getpid(), vector()[AT_BASE]) is False
        channel.send(b"fooled")

    with forked(work) as child:
        said = child.channel.recv(7)
    if said == b"unknown":
        pytest.skip("PR_SET_MM_MAP: the kernel has no CONFIG_CHECKPOINT_RESTORE")
    assert said == b"fooled"


def test_a_program_can_write_into_its_loader() -> None:
    # The loader's text is private memory like any other.
    address = map_loader(RX, mman.MAP_PRIVATE)
    try:
        everything = RX | mman.PROT_WRITE
        libc.syscall("mprotect", NR["mprotect"], address, PAGE, everything)
        ctypes.memset(address, 0x90, PAGE)
        assert pinfold.from_loader(os.getpid(), address) is True
    finally:
        libc.syscall("munmap", NR["munmap"], address, PAGE)
