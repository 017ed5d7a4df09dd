"""What the table calls pinned, the kernel only reads: calls do the same from read-only memory.

``sendmmsg`` is the exception that its kind tells of, and proves that the others would be noticed.
"""

import array
import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pinfold.linux.libc import syscall
from pinfold.syscalls.kinds import PINNED, Kind
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.table import TABLE
from pinfold.uapi.fs import AT_FDCWD, OPEN_HOW

Put = Callable[[bytes], int]
"""Places bytes somewhere and returns their address."""
Case = Callable[[Put, Path], object]


class Memory:
    """A page that is filled, then used; writable or not."""

    def __init__(self, *, writable: bool) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        # An exported pointer keeps the mapping; the page goes when both do.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._writable = writable
        self._used = 0

    def put(self, data: bytes) -> int:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)
        start = self._used
        self._page[start : start + len(data)] = data
        self._used += -(-len(data) // 8) * 8
        if not self._writable:
            self._protect(mmap.PROT_READ)
        return self.address + start

    def _protect(self, rights: int) -> None:
        syscall("mprotect", X86_64["mprotect"], self.address, mmap.PAGESIZE, rights)


def make(name: str, *args: int) -> int:
    return syscall(name, X86_64[name], *args)


def text(path: Path | str) -> bytes:
    return os.fsencode(path) + b"\0"


def made(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


@contextlib.contextmanager
def udp() -> Iterator[tuple[socket.socket, bytes]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        yield one, struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, b"\x7f\0\0\1")


def msghdr(put: Put, address: bytes, control: bytes) -> bytes:
    vector = put(struct.pack("=QQ", put(b"data"), 4))
    return struct.pack(
        "=QI4xQQQQI4x", put(address), len(address), vector, 1, put(control), len(control), 0
    )


def openat2(put: Put, folder: Path) -> object:
    how = put(OPEN_HOW.pack(os.O_PATH, 0, 0))
    os.close(make("openat2", AT_FDCWD, put(text(folder)), how, OPEN_HOW.size))
    return True


def symlink(put: Put, folder: Path) -> object:
    make("symlink", put(b"anywhere\0"), put(text(folder / "link")))
    return (folder / "link").readlink()


def renameat(put: Put, folder: Path) -> object:
    old = made(folder / "old")
    make("renameat", AT_FDCWD, put(text(old)), AT_FDCWD, put(text(folder / "new")))
    return (folder / "new").exists()


def utimensat(put: Put, folder: Path) -> object:
    times = put(struct.pack("=qqqq", 1, 2, 3, 4))
    make("utimensat", AT_FDCWD, put(text(folder)), times, 0)
    return folder.stat().st_mtime_ns


def utimes(put: Put, folder: Path) -> object:
    make("utimes", put(text(folder)), put(struct.pack("=qqqq", 1, 2, 3, 4)))
    return folder.stat().st_mtime_ns


def utime(put: Put, folder: Path) -> object:
    make("utime", put(text(folder)), put(struct.pack("=qq", 1, 2)))
    return folder.stat().st_mtime_ns


def setxattr(put: Put, folder: Path) -> object:
    file = made(folder / "x")
    make("setxattr", put(text(file)), put(b"user.a\0"), put(b"value"), 5, 0)
    return os.getxattr(file, "user.a")


def setxattrat(put: Put, folder: Path) -> object:
    file = made(folder / "x")
    args = put(struct.pack("=QII", put(b"value"), 5, 0))
    make("setxattrat", AT_FDCWD, put(text(file)), 0, put(b"user.a\0"), args, 16)
    return os.getxattr(file, "user.a")


def getxattrat(put: Put, folder: Path) -> object:
    # The structure is read; only the value is written, and needs memory that can be.
    file = made(folder / "x")
    os.setxattr(file, "user.a", b"value")
    room = ctypes.create_string_buffer(8)
    args = put(struct.pack("=QII", ctypes.addressof(room), 8, 0))
    make("getxattrat", AT_FDCWD, put(text(file)), 0, put(b"user.a\0"), args, 16)
    return room.value


def file_setattr(put: Put, folder: Path) -> object:
    file = made(folder / "x")
    return make("file_setattr", AT_FDCWD, put(text(file)), put(bytes(24)), 24, 0)


def execve(put: Put, _: Path) -> object:
    argv = put(struct.pack("=QQQQ", put(b"sh\0"), put(b"-c\0"), put(b"exit $A\0"), 0))
    envp = put(struct.pack("=QQ", put(b"A=7\0"), 0))
    path = put(b"/bin/sh\0")
    child = os.fork()
    if child == 0:
        try:
            make("execve", path, argv, envp)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def connect(put: Put, _: Path) -> object:
    with udp() as (one, address):
        make("connect", one.fileno(), put(address), len(address))
        return one.getpeername()[0]


def bind(put: Put, folder: Path) -> object:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        address = struct.pack("=H", socket.AF_UNIX) + os.fsencode(folder / "s")
        make("bind", one.fileno(), put(address), len(address))
        return (folder / "s").is_socket()


def sendto(put: Put, _: Path) -> object:
    with udp() as (one, address):
        return make("sendto", one.fileno(), put(b"data"), 4, 0, put(address), len(address))


def sendmsg(put: Put, _: Path) -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        control = struct.pack("=QII", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS)
        control += struct.pack("=I4x", one.fileno())
        make("sendmsg", one.fileno(), put(msghdr(put, b"", control)), 0)
        data, descriptors, *_rest = socket.recv_fds(other, 16, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        return data, len(descriptors)


def sendmsg_to(put: Put, _: Path) -> object:
    with udp() as (one, address):
        return make("sendmsg", one.fileno(), put(msghdr(put, address, b"")), 0)


def setsockopt(put: Put, _: Path) -> object:
    with udp() as (one, _address):
        value = put(array.array("i", [1]).tobytes())
        return make(
            "setsockopt", one.fileno(), socket.SOL_SOCKET, socket.SO_REUSEADDR, value, 4
        ), one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def memfd_create(put: Put, _: Path) -> object:
    descriptor = make("memfd_create", put(b"name\0"), 0)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def mq_open(put: Put, folder: Path) -> object:
    name = put(text(f"pinfold-{os.getpid()}-{folder.name}"))
    attributes = put(struct.pack("=8q", 0, 2, 16, 0, 0, 0, 0, 0))
    descriptor = make("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, attributes)
    os.close(descriptor)
    return make("mq_unlink", name)


def add_key(put: Put, _: Path) -> object:
    process = -2  # KEY_SPEC_PROCESS_KEYRING
    return make("add_key", put(b"user\0"), put(b"pinfold\0"), put(b"value"), 5, process) > 0


def request_key(put: Put, folder: Path) -> object:
    # A name of its own each time: the kernel remembers for a while which keys there are not.
    name = put(text(f"pinfold-{os.getpid()}-{folder.name}"))
    return make("request_key", put(b"user\0"), name, put(b"c\0"), 0)


def landlock_create_ruleset(put: Put, _: Path) -> object:
    os.close(make("landlock_create_ruleset", put(struct.pack("=Q", 1)), 8, 0))
    return True


def statmount(put: Put, folder: Path) -> object:
    room = ctypes.create_string_buffer(4096)
    buffer = ctypes.create_string_buffer(256)
    stx_mnt_id_unique = 0x4000
    make("statx", AT_FDCWD, put(text(folder)), 0, stx_mnt_id_unique, ctypes.addressof(buffer))
    (mount_id,) = struct.unpack_from("=Q", buffer, 0x90)
    request = put(struct.pack("=IIQQ", 24, 0, mount_id, 1))
    return make("statmount", request, ctypes.addressof(room), 4096, 0)


def inotify_add_watch(put: Put, folder: Path) -> object:
    descriptor = make("inotify_init1", 0)
    try:
        return make("inotify_add_watch", descriptor, put(text(folder)), 1)
    finally:
        os.close(descriptor)


def handle(put: Put, folder: Path) -> object:
    room = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    mount_id = ctypes.c_int()
    make(
        "name_to_handle_at",
        AT_FDCWD,
        put(text(folder)),
        ctypes.addressof(room),
        ctypes.addressof(mount_id),
        0,
    )
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.close(make("open_by_handle_at", directory, put(room.raw), os.O_PATH))
    finally:
        os.close(directory)
    return True


CASES: dict[str, Case] = {
    "add_key": add_key,
    "bind": bind,
    "connect": connect,
    "execve": execve,
    "file_setattr": file_setattr,
    "getxattrat": getxattrat,
    "inotify_add_watch": inotify_add_watch,
    "landlock_create_ruleset": landlock_create_ruleset,
    "memfd_create": memfd_create,
    "mq_open": mq_open,
    "open_by_handle_at": handle,
    "openat2": openat2,
    "renameat": renameat,
    "request_key": request_key,
    "sendmsg": sendmsg,
    "sendmsg, with an address": sendmsg_to,
    "sendto": sendto,
    "setsockopt": setsockopt,
    "setxattr": setxattr,
    "setxattrat": setxattrat,
    "statmount": statmount,
    "symlink": symlink,
    "utime": utime,
    "utimensat": utimensat,
    "utimes": utimes,
}


def _outcome(case: Case, folder: Path, *, writable: bool) -> object:
    folder.mkdir()
    try:
        return case(Memory(writable=writable).put, folder)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.mark.parametrize("name", CASES)
def test_read_only_memory_will_do(name: str, tmp_path: Path) -> None:
    usual = _outcome(CASES[name], tmp_path / "same-length-1", writable=True)
    assert usual != "EFAULT", "the test made a mistake"
    assert usual == _outcome(CASES[name], tmp_path / "same-length-2", writable=False)


def test_every_pinned_kind_is_tried_but_those_of_mounts() -> None:
    rows = [TABLE[name.partition(",")[0]] for name in CASES]
    tried = {kind for row in rows for _, kind in row.arguments}
    assert PINNED - tried == {Kind.SOURCE, Kind.PAGE, Kind.MMSGHDR}


def test_sendmmsg_needs_to_write(tmp_path: Path) -> None:
    def send(put: Put, _: Path) -> object:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            header = msghdr(put, b"", b"") + bytes(8)
            try:
                result: object = make("sendmmsg", one.fileno(), put(header * 2), 2, 0)
            except OSError as error:
                result = error.errno
            other.setblocking(False)
            arrived = 0
            with contextlib.suppress(BlockingIOError):
                while other.recv(16):
                    arrived += 1
            return result, arrived

    assert _outcome(send, tmp_path / "1", writable=True) == (2, 2)
    assert _outcome(send, tmp_path / "2", writable=False) == (errno.EFAULT, 1)
