"""Images against the kernel: every call must end the same through an image as through the task.

The task is this process, its memory a few pages of which some cannot be read, and the slot a memfd
that is mapped twice, as a pin is. What no call can be made to end the same by chance is fuzzed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec import message, openhow, sockaddr, vector, xattr
from pinfold.codec.base import UNREADABLE, Refused, SlotFull
from pinfold.codec.image import Image
from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Short, Unix, Unnamed, Unspec
from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.tracee.memory import Memory
from pinfold.uapi import net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = 4096
PAGES = 4
SLOT = 8 << 20
PROT_NONE, PROT_READ, PROT_RW = 0, 1, 3
NOWHERE = 0x666000


class Task(NamedTuple):
    """Pages between two that are never readable, and a slot."""

    pages: mmap.mmap
    start: int
    view: mmap.mmap
    base: int
    memory: Memory

    def fill(self, blob: bytes, unreadable: frozenset[int] = frozenset()) -> None:
        self.protect(range(PAGES), PROT_RW)
        self.pages[PAGE : PAGE + len(blob)] = blob
        self.protect(unreadable, PROT_NONE)

    def protect(self, pages: range | frozenset[int], how: int) -> None:
        for page in pages:
            libc.syscall("mprotect", NR["mprotect"], self.start + PAGE * page, PAGE, how)

    def image(self, size: int = SLOT) -> Image:
        return Image(self.view, 0, size, self.base, self.memory)


def address_of(view: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@pytest.fixture(scope="module")
def task() -> Iterator[Task]:
    pages = mmap.mmap(-1, (PAGES + 2) * PAGE)
    start = address_of(pages) + PAGE
    for guard in (start - PAGE, start + PAGES * PAGE):
        libc.syscall("mprotect", NR["mprotect"], guard, PAGE, PROT_NONE)
    fd = os.memfd_create("slot")
    os.ftruncate(fd, SLOT)
    view = mmap.mmap(fd, SLOT)
    base = libc.syscall("mmap", NR["mmap"], 0, SLOT, PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    memory = Memory(address_of(view))
    memory.tid = os.getpid()
    yield Task(pages, start, view, base, memory)
    libc.syscall("munmap", NR["munmap"], base, SLOT)
    libc.syscall("mprotect", NR["mprotect"], start - PAGE, (PAGES + 2) * PAGE, PROT_RW)


def call(name: str, *arguments: int) -> int:
    """Returns the result of a call, or its errno, negative."""
    try:
        return libc.syscall(name, NR[name], *arguments)
    except OSError as error:
        return -(error.errno or 0)


# Places around the ends of pages, and what can be there

near = st.integers(-80, 80)
words = st.sampled_from([0, 1, NOWHERE, UNREADABLE, UNREADABLE + 1, (1 << 64) - 1, 1 << 63]) | (
    st.integers(0, (1 << 64) - 1)
)


class Layout(NamedTuple):
    """What lies around the ends of pages, which of them cannot be read, and places to point at."""

    pieces: list[bytes]
    unreadable: frozenset[int]
    places: list[int]

    def blob(self, more: dict[int, bytes] | None = None) -> bytes:
        """Returns the bytes of all pages; ``more`` is laid over them."""
        blob = bytearray(b"\x01" * (PAGES * PAGE))
        around = {max(0, end * PAGE - 80): piece for end, piece in enumerate(self.pieces)}
        for at, piece in [*around.items(), *(more or {}).items()]:
            blob[at : at + len(piece)] = piece
        return bytes(blob[: PAGES * PAGE])


@st.composite
def layouts(draw: st.DrawFn, start: int) -> Layout:
    """Layouts of pages that begin at ``start``."""
    places = [start + PAGE * draw(st.integers(0, PAGES)) + draw(near) for _ in range(4)]
    pointers = st.sampled_from(places) | words
    cells = st.one_of(
        pointers.map(lambda value: value.to_bytes(8, "little")),
        st.sampled_from([bytes(8), b"abcdefg\0", b"ab\0cd\0ef"]),
    )
    pieces = [b"".join(draw(st.lists(cells, max_size=20))) for _ in range(PAGES + 1)]
    return Layout(pieces, draw(st.frozensets(st.integers(0, PAGES - 1), max_size=2)), places)


# Vectors. A program in no known format has its arguments copied and is refused then (ENOEXEC).


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("codec") / "neither-elf-nor-script"
    path.write_text("neither ELF nor script\n")
    path.chmod(0o755)
    name = ctypes.create_string_buffer(os.fsencode(path))
    yield ctypes.addressof(name)
    del name


def execve(task: Task, program: int, argv: int, envp: int) -> tuple[int, int]:
    """Returns the errno without an image and with one, both negative."""
    plain = call("execve", program, argv, envp)
    image = task.image()
    try:
        first = vector.decode(image, argv)
        second = vector.decode(image, envp, vector.LIMIT - first.cost)
    except Refused as refused:
        return plain, -refused.errno
    pinned = call("execve", program, first.pointer, second.pointer)
    assert (pinned == -errno.EFAULT) <= (first.faulted or second.faulted)
    return plain, pinned


@settings(max_examples=150)
@given(st.data())
def test_execve(task: Task, program: int, data: st.DataObject) -> None:
    layout = data.draw(layouts(task.start))
    task.fill(layout.blob(), layout.unreadable)
    pointers = st.sampled_from(layout.places) | words
    argv, envp = data.draw(pointers), data.draw(pointers)
    plain, pinned = execve(task, program, argv, envp)
    assert plain in {-errno.ENOEXEC, -errno.EFAULT, -errno.E2BIG}
    assert pinned == plain


@pytest.mark.parametrize("length", [131071, 131072])
def test_the_longest_argument(task: Task, program: int, length: int) -> None:
    text = ctypes.create_string_buffer(b"a" * length)
    argv = struct.pack("=QQ", ctypes.addressof(text), 0)
    task.fill(argv)
    wanted = -errno.ENOEXEC if length < 131072 else -errno.E2BIG
    assert execve(task, program, task.start, 0) == (wanted, wanted)


def test_nothing_is_refused_that_any_kernel_takes(task: Task, program: int) -> None:
    length = 100_000
    name = len(ctypes.string_at(program)) + 1
    count, rest = divmod(vector.LIMIT - name - 9, length + 9)
    text = ctypes.create_string_buffer(b"a" * length)
    last = ctypes.create_string_buffer(b"a" * (rest - 1 - 8))
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (4 * vector.LIMIT + 4096, hard))
    try:
        for more, wanted in ((0, -errno.ENOEXEC), (9, -errno.ENOEXEC), (10, -errno.E2BIG)):
            last = ctypes.create_string_buffer(b"a" * (rest - 9 + more))
            pointers = [ctypes.addressof(text)] * count + [ctypes.addressof(last), 0]
            task.fill(struct.pack(f"={count + 2}Q", *pointers))
            assert execve(task, program, task.start, 0) == (wanted, wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def test_a_program_gets_what_was_decoded(task: Task) -> None:
    script = b"cat /proc/$$/cmdline /proc/$$/environ; :"
    arguments = [b"sh", b"-c", script, b"", b"one", b"two words", b"\xff"]
    environment = [b"PATH=/usr/bin:/bin", b"EMPTY="]
    image = task.image()
    argv = vector.encode(image, arguments)
    envp = vector.encode(image, environment)
    # The image is the task of a second one, behind it.
    again = Image(task.view, SLOT // 2, SLOT // 2, task.base + SLOT // 2, task.memory)
    first = vector.decode(again, argv)
    second = vector.decode(again, envp)
    assert (first.values, second.values) == (arguments, environment)
    path = ctypes.create_string_buffer(b"/bin/sh")
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writable, 1)
        call("execve", ctypes.addressof(path), first.pointer, second.pointer)
        os._exit(99)
    os.close(writable)
    with open(readable, "rb") as stream:
        out = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    assert out == b"".join(one + b"\0" for one in [*arguments, *environment])


# Messages


def header(*fields: int) -> bytes:
    return net.MSGHDR.pack(*fields)


class Pair(NamedTuple):
    left: socket.socket
    right: socket.socket

    def sent(self, pointer: int) -> tuple[int, list[tuple[bytes, int]]]:
        """Returns the result of ``sendmsg``, and what arrived, with how many descriptors."""
        result = call("sendmsg", self.left.fileno(), pointer, socket.MSG_DONTWAIT)
        arrived: list[tuple[bytes, int]] = []
        while True:
            try:
                data, control, _, _ = self.right.recvmsg(1 << 18, 4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return result, arrived
            passed = 0
            for level, kind, raw in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for (fd,) in struct.iter_unpack("=i", raw):
                        passed += 1
                        os.close(fd)
            arrived.append((data, passed))


@pytest.fixture(params=["connected", "named"], scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, bytes]]:
    """Two datagram sockets, and the address that reaches the second one from the first."""
    if request.param == "connected":
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    else:
        left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        right = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        right.bind("")
    name = right.getsockname()
    raw = sockaddr.pack(Abstract(name[1:])) if name else b"\1\0\0nobody"
    with left, right:
        yield Pair(left, right), raw


@settings(max_examples=150)
@given(st.data())
def test_sendmsg(task: Task, pair: tuple[Pair, bytes], data: st.DataObject) -> None:
    sockets, raw = pair
    layout = data.draw(layouts(task.start))
    rights = struct.pack("=Qiii", 20, 1, 1, sockets.left.fileno())
    vectors = struct.pack("=4Q", task.start + 700, 3, task.start + 2 * PAGE - 2, 4)
    pieces = {
        "name": (raw, data.draw(st.sampled_from([200, PAGE - len(raw), PAGE - 3]))),
        "iov": (vectors, data.draw(st.sampled_from([300, 2 * PAGE - 32, 2 * PAGE - 16]))),
        "control": (rights, data.draw(st.sampled_from([400, 3 * PAGE - 20, 3 * PAGE - 9]))),
    }

    def pointer(name: str) -> st.SearchStrategy[int]:
        own = task.start + pieces[name][1]
        return st.sampled_from([own, own, own, own, *layout.places, 0, NOWHERE, UNREADABLE])

    head = data.draw(
        st.builds(
            header,
            pointer("name"),
            st.sampled_from([len(raw), len(raw), 0, 2, 110, 111, 128, 129, 1 << 30, -1]),
            pointer("iov"),
            st.sampled_from([2, 2, 1, 0, 3, 1024, 1025, 1 << 32, 1 << 63]),
            pointer("control"),
            st.sampled_from([20, 20, 0, 15, 16, 19, 24, 4000, 1 << 17, 1 << 18, 1 << 31, 1 << 63]),
            st.sampled_from([0, 0, 0x40, 0xFFFFFFFF & ~0x80000001]),
        )
    )
    where = data.draw(st.sampled_from([500, 500, PAGE - 56, PAGE - 55, 4 * PAGE - 56]))
    more = {at: piece for piece, at in pieces.values()}
    task.fill(layout.blob({**more, where: head}), layout.unreadable)
    address = task.start + where
    plain = sockets.sent(address)
    image = task.image()
    found = message.decode(image, address)
    assert sockets.sent(found.pointer) == plain
    if plain[0] >= 0:
        assert sum(1 for one in plain[1] for _ in range(one[1])) == len(
            message.descriptors(found.control)
        )


def test_a_message_to_somewhere_else(task: Task) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given,
    ):
        for one in (asked, given):
            one.bind(("127.0.0.1", 0))
        given.settimeout(10)
        names = [sockaddr.parse(name_of(one)) for one in (asked, given)]
        raw = sockaddr.pack(names[0])
        iovec = struct.pack("=QQ", task.start, 4)
        task.fill(b"data" + bytes(60) + raw + iovec)
        head = header(task.start + 64, len(raw), task.start + 64 + len(raw), 1, 0, 0, 0)
        task.pages[PAGE + 512 : PAGE + 512 + len(head)] = head
        image = task.image()
        found = message.decode(image, task.start + 512)
        assert found.name == names[0]
        found = message.encode_name(image, found, sockaddr.pack(names[1]))
        assert call("sendmsg", left.fileno(), found.pointer, 0) == 4
        assert given.recv(10) == b"data"
        with pytest.raises(BlockingIOError):
            asked.recv(10, socket.MSG_DONTWAIT)


def test_sendmmsg_cannot_be_pinned(task: Task) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        task.fill(b"data")
        image = task.image()
        iovec = image.put(struct.pack("=QQ", task.start, 4), 8)
        head = header(0, 0, image.address_of(iovec), 1, 0, 0, 0)
        at = image.address_of(image.put(head + bytes(8), 8))
        assert call("sendmmsg", left.fileno(), at, 1, 0) == -errno.EFAULT
        assert right.recv(10, socket.MSG_DONTWAIT) == b"data"


# Addresses


def name_of(sock: socket.socket) -> bytes:
    raw = ctypes.create_string_buffer(128)
    size = ctypes.c_uint(128)
    call("getsockname", sock.fileno(), ctypes.addressof(raw), ctypes.addressof(size))
    return raw.raw[: size.value]


@settings(max_examples=150)
@given(st.data())
def test_connect(task: Task, data: st.DataObject) -> None:
    layout = data.draw(layouts(task.start))
    samples = [
        sockaddr.pack(sockaddr.parse_text(text))
        for text in (
            b"unix:/nowhere",
            b"unix:@nobody",
            b"inet:127.0.0.1:9",
            b"inet6:[::1]:9",
            b"inet6:[::ffff:127.0.0.1]:9",
            b"unspec",
        )
    ]
    raw = data.draw(st.sampled_from(samples))
    where = data.draw(st.sampled_from([200, PAGE - len(raw), PAGE - len(raw) + 1]))
    task.fill(layout.blob({where: raw}), layout.unreadable)
    own = task.start + where
    address = data.draw(st.sampled_from([own, own, own, *layout.places]))
    length = data.draw(
        st.sampled_from([len(raw), len(raw), 0, 1, 2, 24, 110, 111, 128, 129, -1])
        | st.integers(0, (1 << 64) - 1)
    )
    family = data.draw(st.sampled_from([socket.AF_UNIX, socket.AF_INET, socket.AF_INET6]))
    results = []
    found = sockaddr.decode(task.image(), address, length & (1 << 64) - 1)
    for pointer in (address, found.pointer):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            results.append((call("connect", sock.fileno(), pointer, length), peer_of(sock)))
    assert results[0] == results[1]
    (result, peer) = results[0]
    if result == 0 and not isinstance(found.address, Unspec):
        # The kernel understood what we did.
        heard: object = sockaddr.parse(peer)
        if isinstance(heard, Inet6) and isinstance(found.address, Inet):
            heard = heard.as_inet
        assert heard == found.address


def peer_of(sock: socket.socket) -> bytes:
    raw = ctypes.create_string_buffer(128)
    size = ctypes.c_uint(128)
    if call("getpeername", sock.fileno(), ctypes.addressof(raw), ctypes.addressof(size)) < 0:
        return b""
    return raw.raw[: size.value]


def bound(raw: bytes, family: int = socket.AF_UNIX) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(raw, len(raw))
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        return call("bind", sock.fileno(), ctypes.addressof(buffer), len(raw)), name_of(sock)


def test_unix_names_as_the_kernel_reads_them(tmp_path: Path) -> None:
    start = os.fsencode(tmp_path) + b"/"
    full = start + b"s" * (108 - len(start))
    for name, raw in (
        (start + b"a", b"\1\0" + start + b"a\0"),
        (start + b"b", b"\1\0" + start + b"b"),
        (start + b"c", b"\1\0" + start + b"c\0ignored"),
        (full, b"\1\0" + full),
    ):
        assert sockaddr.parse(raw) == Unix(name)
        result, heard = bound(raw)
        assert result == 0
        # For a full one the kernel adds a NUL that it would not take.
        assert sockaddr.parse(heard[:110]) == Unix(name)
        assert os.path.exists(name)
    for raw in (b"\1\0\0codec-test", b"\1\0\0codec\0test\0"):
        result, heard = bound(raw)
        assert result == 0
        assert heard == raw
    assert isinstance(sockaddr.parse(b"\1\0"), Unnamed)
    result, heard = bound(b"\1\0")
    assert result == 0
    assert isinstance(sockaddr.parse(heard), Abstract)
    # One byte too many
    assert bound(b"\1\0" + full + b"\0") == (-errno.EINVAL, b"\1\0")


def test_lengths_as_the_kernel_wants_them() -> None:
    v4 = sockaddr.pack(sockaddr.parse_text(b"inet:127.0.0.1:0"))
    v6 = sockaddr.pack(sockaddr.parse_text(b"inet6:[::1]:0"))
    for raw, family, least in ((v4, socket.AF_INET, 16), (v6, socket.AF_INET6, 24)):
        for length in range(len(raw) + 1):
            result, _ = bound(raw[:length], family)
            assert (result == 0) == (length >= least)
            assert isinstance(sockaddr.parse(raw[:length]), Short) == (length < least)


def test_what_an_unspecified_family_does() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        right.settimeout(10)
        raw = b"\0\0" + name_of(right)[2:]
        found = sockaddr.parse(raw)
        assert isinstance(found, Unspec)
        assert found.as_inet == sockaddr.parse(name_of(right))
        buffer = ctypes.create_string_buffer(raw, len(raw))
        at = ctypes.addressof(buffer)
        assert call("sendto", left.fileno(), at, 3, 0, at, len(raw)) == 3
        assert right.recv(10) == raw[:3]
    result, heard = bound(b"\0\0" + bytes(14), socket.AF_INET)
    assert result == 0
    assert isinstance(sockaddr.parse(heard), Inet)


def test_an_ipv4_host_through_an_ipv6_socket() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as left,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        right.settimeout(10)
        found = sockaddr.parse_text(b"inet6:[::ffff:127.0.0.1]:%d" % right.getsockname()[1])
        assert isinstance(found, Inet6)
        assert found.as_inet == sockaddr.parse(name_of(right))
        raw = sockaddr.pack(found)
        buffer = ctypes.create_string_buffer(raw, len(raw))
        at = ctypes.addressof(buffer)
        assert call("sendto", left.fileno(), at, 3, 0, at, len(raw)) == 3
        assert right.recv(10) == raw[:3]


# Structures that grow


def either(build: Callable[[], int], make: Callable[[int], int]) -> int:
    try:
        pointer = build()
    except Refused as refused:
        return -refused.errno
    return make(pointer)


sizes = st.sampled_from([24, 24, 16, 16, 15, 23, 25, 32, 40, 88, PAGE, PAGE + 1, 0, (1 << 64) - 1])


@settings(max_examples=150)
@given(st.data())
def test_openat2(task: Task, data: st.DataObject) -> None:
    layout = data.draw(layouts(task.start))
    how = struct.pack(
        "=QQQ", data.draw(st.sampled_from([0, 0, 2, 1 << 40])), 0, data.draw(st.integers(0, 1))
    )
    where = data.draw(st.sampled_from([200, PAGE - 24, PAGE - 23, PAGE - 8, 4 * PAGE - 24]))
    tail = data.draw(st.sampled_from([bytes(200), bytes(8) + b"\1"]))
    task.fill(layout.blob({where: how + tail}), layout.unreadable)
    own = task.start + where
    address = data.draw(st.sampled_from([own, own, own, *layout.places, 0, UNREADABLE]))
    size = data.draw(sizes)
    path = ctypes.create_string_buffer(b"/dev/null")

    def opened(pointer: int) -> int:
        fd = call("openat2", -100, ctypes.addressof(path), pointer, size)
        if fd >= 0:
            os.close(fd)
            return 0
        return fd

    assert opened(address) == either(
        lambda: openhow.decode(task.image(), address, size).pointer, opened
    )


@settings(max_examples=150)
@given(st.data())
def test_setxattrat(
    task: Task, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = os.fsencode(tmp_path_factory.getbasetemp() / "attributes")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    file = ctypes.create_string_buffer(path)
    layout = data.draw(layouts(task.start))
    length = data.draw(st.sampled_from([3, 5, 5, 255, 256]))
    name = b"user." + b"n" * (length - 5) + b"\0" if length > 3 else b"abc\0"
    named = data.draw(st.sampled_from([300, 300, 2 * PAGE - len(name), 2 * PAGE - 3]))
    value = data.draw(st.sampled_from([700, 700, 3 * PAGE - 5, 3 * PAGE - 4]))
    arguments = struct.pack(
        "=QII",
        data.draw(st.sampled_from([task.start + value] * 3 + [*layout.places, 0, NOWHERE])),
        data.draw(st.sampled_from([5, 5, 5, 0, 65536, 65537])),
        data.draw(st.sampled_from([0, 0, 4])),
    )
    where = data.draw(st.sampled_from([200, PAGE - 16, PAGE - 15]))
    tail = data.draw(st.sampled_from([bytes(80), bytes(8) + b"\1"]))
    task.fill(layout.blob({named: name, where: arguments + tail}), layout.unreadable)
    own = task.start + where
    address = data.draw(st.sampled_from([own, own, own, *layout.places]))
    size = data.draw(sizes)
    text = task.start + named
    text = data.draw(st.sampled_from([text, text, text, *layout.places]))

    def outcome(call_name: str, *registers: int) -> tuple[int, dict[str, bytes]]:
        result = call(call_name, *registers)
        held = {key: os.getxattr(path, key) for key in os.listxattr(path)}
        for key in held:
            os.removexattr(path, key)
        return result, held

    at = ctypes.addressof(file)
    plain = outcome("setxattrat", -100, at, 0, text, address, size)
    image = task.image()
    pinned_name = xattr.decode_name(image, text)
    try:
        args = xattr.decode_args(image, address, size, sets=True)
        pinned = outcome("setxattrat", -100, at, 0, pinned_name.pointer, args.pointer, size)
        wanted = {os.fsdecode(pinned_name.data): args.value}
    except Refused as refused:
        pinned, wanted = (-refused.errno, {}), {}
    assert pinned == plain
    if plain[1]:
        assert plain[1] == wanted

    count = data.draw(st.sampled_from([5, 0, 65537, (1 << 64) - 1]))
    plain = outcome("setxattr", at, text, task.start + value, count, 0)
    found = xattr.decode_value(image, task.start + value, count)
    assert outcome("setxattr", at, pinned_name.pointer, found.pointer, count, 0) == plain


def test_a_slot_that_is_too_small_is_asked_to_grow(task: Task, program: int) -> None:
    text = ctypes.create_string_buffer(b"a" * 20_000)
    task.fill(struct.pack("=QQ", ctypes.addressof(text), 0))
    with pytest.raises(SlotFull):
        vector.decode(task.image(8192), task.start)
    found = vector.decode(task.image(32768), task.start)
    assert found.values == [b"a" * 20_000]
    assert call("execve", program, found.pointer, 0) == -errno.ENOEXEC
