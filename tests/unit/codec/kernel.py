"""What the kernel does with pointer arguments, written from its behaviour and not from the codecs.

It reads either the task's own memory or, for addresses in it, the slot. The codecs are right if it
comes to the same result both ways.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from tests.unit.codec.memory import BASE, BEFORE

if TYPE_CHECKING:
    from tests.unit.codec.memory import BytesMemory

TASK_SIZE = (1 << 47) - 4096


class Errno(Exception):  # noqa: N818
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Errno) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Sent(NamedTuple):
    name: bytes | None
    iovecs: list[tuple[int, int]]
    control: bytes
    flags: int


class Kernel:
    """One kernel looking at one task.

    Args:
        memory: The task's pages.
        pinned: Whether the slot is mapped; and then nothing but the slot may be read.

    Attributes:
        optmem_max: The limit on control data, which an administrator can raise.
    """

    def __init__(self, memory: BytesMemory, *, pinned: bool) -> None:
        self.memory = memory
        self.pinned = pinned
        self.optmem_max = 128 << 10

    # Reads

    def _bytes(self, address: int, length: int) -> bytes:
        # From the first byte to the last readable one.
        if address + length > TASK_SIZE:
            return b""
        if not self.pinned:
            return self.memory.readable(address, length)
        view = self.memory.view
        offset = address - BASE
        size = len(view) - 2 * BEFORE
        assert offset >= 0, f"{address:#x} is not pinned"
        assert offset + length <= size, f"{address:#x} and {length} bytes are not pinned"
        return bytes(view[BEFORE + offset : BEFORE + offset + length])

    def copy_from_user(self, address: int, length: int) -> bytes:
        if length == 0:
            return b""
        data = self._bytes(address, length)
        if len(data) < length:
            raise Errno(errno.EFAULT)
        return data

    def string(self, address: int, limit: int) -> bytes | None:
        """Returns a string, None when it has no NUL in ``limit`` bytes."""
        found = b""
        while len(found) < limit:
            byte = self.copy_from_user(address + len(found), 1)
            if byte == b"\0":
                return found
            found += byte
        return None

    # Vectors

    def _count(self, address: int) -> list[int]:
        found: list[int] = []
        while address:
            (pointer,) = struct.unpack("<Q", self.copy_from_user(address + 8 * len(found), 8))
            if pointer == 0:
                break
            if pointer > (1 << 64) - 4096:
                raise Errno(errno.EFAULT)
            found.append(pointer)
        return found

    def execve(self, argv: int, envp: int, limit: int = 6 << 20) -> tuple[list[bytes], list[bytes]]:
        arguments = self._count(argv)
        environment = self._count(envp)
        left = limit - 8 * (max(len(arguments), 1) + len(environment))
        if left <= 0:
            raise Errno(errno.E2BIG)
        found = []
        for pointers in (environment, arguments):
            strings: list[bytes] = []
            for pointer in reversed(pointers):
                string = self.string(pointer, 32 * 4096)
                if string is None or len(string) + 1 > left:
                    raise Errno(errno.E2BIG)
                left -= len(string) + 1
                strings.insert(0, string)
            found.append(strings)
        return found[1], found[0]

    # Addresses and messages

    def move_addr(self, address: int, register: int) -> bytes:
        (length,) = struct.unpack("<i", struct.pack("<I", register & 0xFFFFFFFF))
        if length < 0 or length > 128:
            raise Errno(errno.EINVAL)
        return self.copy_from_user(address, length)

    def sendmsg(self, address: int) -> Sent:
        header = self.copy_from_user(address, 56)
        name, namelen, iov, iovlen, control, controllen, flags = struct.unpack(
            "<Qi4xQQQQI4x", header
        )
        if not name:
            namelen = 0
        if namelen < 0:
            raise Errno(errno.EINVAL)
        to = self.move_addr(name, min(namelen, 128)) if namelen else None
        if iovlen > 1024:
            raise Errno(errno.EMSGSIZE)
        pieces = []
        for at in range(iov, iov + 16 * iovlen, 16):
            base, length = struct.unpack("<QQ", self.copy_from_user(at, 16))
            if length >= 1 << 63:
                raise Errno(errno.EINVAL)
            pieces.append((base, length))
        if controllen > 0x7FFFFFFF or controllen > self.optmem_max:
            raise Errno(errno.ENOBUFS)
        return Sent(to, pieces, self.copy_from_user(control, controllen), flags)

    # Structures that grow

    def _struct(self, address: int, size: int, known: int) -> bytes:
        if size < known:
            raise Errno(errno.EINVAL)
        if size > 4096:
            raise Errno(errno.E2BIG)
        for at in range(address + known, address + size):
            if self.copy_from_user(at, 1) != b"\0":
                raise Errno(errno.E2BIG)
        return self.copy_from_user(address, known)

    def openat2(self, address: int, size: int) -> tuple[int, int, int]:
        flags, mode, resolve = struct.unpack("<QQQ", self._struct(address, size, 24))
        return flags, mode, resolve

    def xattr_name(self, address: int) -> bytes:
        name = self.string(address, 256)
        if name is None or not name:
            raise Errno(errno.ERANGE)
        return name

    def xattr_value(self, address: int, size: int) -> bytes:
        if size > 65536:
            raise Errno(errno.E2BIG)
        return self.copy_from_user(address, size)

    def setxattrat(self, address: int, size: int) -> tuple[bytes, int]:
        value, length, flags = struct.unpack("<QII", self._struct(address, size, 16))
        return self.xattr_value(value, length), flags

    def getxattrat(self, address: int, size: int) -> tuple[int, int, int]:
        value, length, flags = struct.unpack("<QII", self._struct(address, size, 16))
        return value, length, flags
