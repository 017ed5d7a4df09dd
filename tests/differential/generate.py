"""Random programs of system calls, for ``tests/programs/diff_random.c`` to carry out.

The rows of the table say which calls there are and what their arguments are, so a new row is tried
without a change here. Most arguments are good ones: a call whose first argument is refused shows
nothing about its second.

Left out is what could do harm, or depends on what other programs do; each with the reason.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING, Final

from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.kinds import FIXED, Kind
from pinfold.syscalls.numbers import X86_64

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.syscalls.table import Row

LEFT_OUT: Final = {
    "mq_open": "queues are the machine's, not the directory's",
    "mq_unlink": "queues are the machine's, not the directory's",
    "add_key": "keys count against a quota for a while after they are gone",
    "request_key": "with some arguments it starts a program outside",
    "statmount": "mounts are not the same in both runs for a user without rights",
    "listmount": "mounts are not the same in both runs for a user without rights",
}

ROWS: Final = [shape.row for shape in EVERYTHING.values() if shape.row.name not in LEFT_OUT]
_USUAL: Final = [row for row in ROWS if row.group not in {"admin", "module", "self"}]
"""Those that a program without many rights can do something with."""

_HASHED: Final = frozenset(
    {"readlink", "readlinkat", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr"}
)
"""Calls that return how much they wrote, the same in each run."""

_UNTRAPPED: Final = ("umask", "dup", "close", "fchdir", "fchmod", "ftruncate")
"""Calls between which the others are made; what they change matters to those."""

NAMES: Final = (
    *(b"f", b"d", b"l", b"k", b"x", b"new", b"d/g", b"d/new", b"k/g", b"run", b".", b"..", b""),
    *(b"./f", b"d/..", b"d/../f", b"k/../f", b"f/", b"l/", b"d/", b"f/x", b"new/", b"d//g"),
    *(b"/proc/self/cwd/f", b"/proc/self/fd/3", b"/proc/thread-self/fd/4/g", b"/proc/self/fd/999"),
    b"\xff\n\\",
)
_LONG_NAMES: Final = (b"n" * 255, b"n" * 256, b"./" * 2047 + b"f", b"./" * 2048)
_ATTRIBUTES: Final = (b"user.a", b"user.a", b"user.b", b"user.", b"a", b"", b"user." + b"n" * 251)
_OPEN_BITS: Final = (0o1, 0o2, 0o100, 0o200, 0o1000, 0o2000, 0o200000, 0o400000, 0o2000000)
_OPEN_BITS_ODD: Final = (0o10000000, 0o20200000, 0o100000000, 0o40000, 1 << 31)
_AT_BITS: Final = (0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x10000, 1)
_NONBLOCK: Final = 0o4000
_MSG_DONTWAIT: Final = 0x40
_PAGE: Final = 4096
_CALLS: Final = 25


class Program:
    """One program: its lines, as far as they are written.

    Args:
        number: What it is called.
        chance: Where its choices come from.
    """

    def __init__(self, number: int, chance: random.Random) -> None:
        self.lines = [f"program {number}"]
        self._calls: list[str] = []
        self._blobs = 0
        self._chance = chance

    def text(self) -> str:
        """Returns the program; blobs come before the first call."""
        return "\n".join([*self.lines, *self._calls]) + "\n"

    def blob(self, data: bytes, place: str | None = None) -> str:
        """Puts some bytes somewhere; returns the value that is their address."""
        if place is None:
            place = self._chance.choice("ppppeeer")
        if self._blobs >= 120 or len(data) > 4 * _PAGE:
            return self.nowhere()
        self.lines.append(f"blob {place} {data.hex()}")
        self._blobs += 1
        return f"b{self._blobs - 1}+0"

    def linked(self, data: bytes, links: dict[int, str]) -> str:
        """Puts bytes somewhere, with values in place of some of them, by offset."""
        address = self.blob(data)
        if address.startswith("b"):
            number = address[1:].partition("+")[0]
            self.lines += [f"link {number} {at} {value}" for at, value in links.items()]
        return address

    def call(self, name: str, number: int, values: list[str], shows: str = "-") -> None:
        """Writes a call down."""
        padded = [*values, *["n0"] * (6 - len(values))]
        self._calls.append(f"call {name} {shows} {number} {' '.join(padded)}")

    def nowhere(self) -> str:
        """Returns an address at which nothing can be read."""
        return f"w{self._chance.randrange(12)}"

    def descriptor(self) -> str:
        """Returns a descriptor, mostly one that is open."""
        return f"f{self._chance.randrange(20)}"

    def often(self, share: float = 0.85) -> bool:
        """Returns whether to do the usual thing."""
        return self._chance.random() < share

    # What an argument may be, by kind; each returns values for the argument and those after it.

    def argument(self, row: Row, index: int) -> list[str]:
        """Returns values for an argument, and for the next one if that is its size."""
        kind = row.arguments[index][1]
        if kind is Kind.SOCKADDR or kind is Kind.SOCKADDR_OR_NULL:
            return self._address(null=kind is Kind.SOCKADDR_OR_NULL)
        if kind is Kind.MMSGHDR:
            return self._messages()
        if kind in (Kind.OPEN_HOW, Kind.XATTR_ARGS, Kind.XATTR_ARGS_OUT, Kind.BUFFER_IN):
            return self._sized(row, kind)
        if kind is Kind.PAYLOAD:
            data = self._chance.randbytes(self._chance.choice([0, 1, 30, 300]))
            return [self.blob(data) if self.often() else self.nowhere(), f"n{len(data):x}"]
        return [self._one(row, kind)]

    def _one(self, row: Row, kind: Kind) -> str:
        chance = self._chance
        fixed = FIXED.get(kind)
        if fixed is not None:
            return self._fixed(kind, fixed)
        maker = self._MAKERS.get(kind)
        if maker is not None:
            return maker(self)
        if kind is Kind.FLAGS:
            return f"n{self._flags(row):x}"
        if kind is Kind.OUT:
            return "o" if self.often(0.95) else self.nowhere()
        if kind is Kind.SIZE:
            return f"n{chance.choice([0, 1, 5, 64, 4096, 4096, 4096, 65536, (1 << 64) - 1]):x}"
        if kind is Kind.INTEGER:
            return f"n{chance.choice([0, 1, (1 << 32) - 1]):x}"
        assert kind is Kind.NUMBER, (row.name, kind)
        return f"n{self._number(row):x}"

    def _number(self, row: Row) -> int:
        chance = self._chance
        if row.name == "setsockopt":
            return chance.choice([0, 1, 1, 1, 2, 6, 6, 7, 9, 13, 25, 41, 41, 999])
        return chance.choice([0, 1, 3, 100, 5000, 65534, 1 << 31, (1 << 32) - 1, (1 << 64) - 1])

    def _flags(self, row: Row) -> int:
        chance = self._chance
        if row.group == "send":
            return _MSG_DONTWAIT | (
                chance.choice([0x4000, 0x80, 1, 1 << 31]) if not self.often() else 0
            )
        if row.name == "inotify_add_watch":
            return chance.choice([0, 2, 0xFFF, 0x2000002, 0x31000002, 1 << 31])
        if row.name == "statx":
            return chance.choice([0, 0x7FF, 0xFFF, 1 << 31])
        return 0 if self.often(0.7) else chance.choice([1, 2, 3, 4, 8, 1 << 31])

    def _path(self) -> str:
        if not self.often(0.95):
            return self.nowhere()
        name = self._chance.choice(NAMES if self.often(0.97) else _LONG_NAMES)
        if not self.often(0.97):
            # Without its NUL: it ends where memory does, or goes on with what comes next.
            return self.blob(name, self._chance.choice("ep"))
        return self.blob(name + b"\0")

    def _name(self) -> str:
        if not self.often():
            return self.nowhere()
        name = self._chance.choice(_ATTRIBUTES)
        return self.blob(name + b"\0" * self.often(0.9), self._chance.choice("pe"))

    def _word(self) -> str:
        if not self.often():
            return self.nowhere()
        return self.blob(b"w" * self._chance.choice([0, 1, 249, 250, 300]) + b"\0" * self.often())

    def _directory(self) -> str:
        return "nffffff9c" if self.often(0.6) else self.descriptor()

    def _mode(self) -> str:
        # Sockets, but no FIFOs, since creat has no way not to wait for a reader; nor devices.
        return (
            f"n{self._chance.choice([0, 0o600, 0o755, 0o7777, 0o100644, 0o140644, 4, 1 << 31]):x}"
        )

    def _open_flags(self) -> str:
        flags = _NONBLOCK
        for bits in self._chance.sample(_OPEN_BITS, self._chance.choice([0, 1, 1, 2, 3])):
            flags |= bits
        if not self.often():
            flags |= self._chance.choice(_OPEN_BITS_ODD)
        return f"n{flags:x}"

    def _at_flags(self) -> str:
        return "n0" if self.often(0.6) else f"n{self._chance.choice(_AT_BITS):x}"

    def _strings(self) -> str:
        if not self.often():
            return self.nowhere()
        count = self._chance.choice([0, 1, 2, 5, 40])
        links = {}
        for at in range(count):
            if self.often(0.97):
                length = self._chance.choice([0, 1, 10, 300] if self.often(0.98) else [5000])
                links[8 * at] = self.blob(b"s" * length + b"\0")
            else:
                links[8 * at] = self.nowhere()
        return self.linked(bytes(8 * (count + self.often(0.95))), links)

    def _fixed(self, kind: Kind, size: int) -> str:
        chance = self._chance
        if not self.often(0.7):
            return self.nowhere()
        words = [chance.choice([0, 1, 999, 999999, (1 << 30) - 1, (1 << 30) - 2, 1 << 30])]
        while 8 * len(words) < size:
            words.append(chance.choice([0, 5, 1000, 1000000, (1 << 30) - 1, (1 << 30) - 2]))
        if kind is Kind.UTIMBUF:
            words = [chance.randrange(1 << 31) for _ in words]
        short = 0 if self.often() else chance.choice([1, 8])
        return self.blob(struct.pack(f"={len(words)}Q", *words)[: size - short])

    def _raw_address(self) -> bytes:
        chance = self._chance
        name = chance.choice([b"socket", b"f", b"none", b"d/socket", b"s" * 107, b"s" * 108])
        return chance.choice(
            [
                struct.pack("=H", socket.AF_UNIX) + name + b"\0" * self.often(),
                struct.pack("=H", socket.AF_UNIX),
                struct.pack("=H", socket.AF_INET) + b"\0\1\x7f\0\0\1" + bytes(8),
                struct.pack("=H", socket.AF_INET6) + b"\0\1" + bytes(19) + b"\1" + bytes(4),
                struct.pack("=HHII", socket.AF_NETLINK, 0, 0, chance.choice([0, 1])),
                bytes(chance.choice([0, 1, 2, 16, 128])),
            ]
        )

    def _address(self, *, null: bool) -> list[str]:
        raw = self._raw_address()
        length = len(raw)
        if not self.often():
            length = self._chance.choice([0, 1, 2, 16, 110, 128, 129, (1 << 32) - 1, 1 << 32])
        if (null and not self.often(0.6)) or not self.often():
            return [self.nowhere(), f"n{length:x}"]
        return [self.blob(raw), f"n{length:x}"]

    def _header(self) -> tuple[bytes, dict[int, str]]:
        chance = self._chance
        links: dict[int, str] = {}
        name_length = control_length = 0
        if not self.often(0.7):
            raw = self._raw_address()
            name_length = len(raw) if self.often() else chance.choice([0, 129, 1 << 31])
            links[0] = self.blob(raw) if self.often() else self.nowhere()
        count = chance.choice([0, 1, 1, 2, 3, 1025])
        pieces: dict[int, str] = {}
        raw = b""
        for at in range(min(count, 3)):
            length = chance.choice([0, 1, 30, 3000])
            pieces[16 * at] = (
                self.blob(chance.randbytes(length)) if self.often() else self.nowhere()
            )
            raw += struct.pack("=QQ", 0, length if self.often(0.95) else 1 << 63)
        links[16] = self.linked(raw, pieces) if raw and self.often() else self.nowhere()
        if not self.often(0.7):
            rights = struct.pack("=Qiii", 20, 1, 1, chance.choice([0, 3, 999])) + bytes(4)
            control_length = chance.choice(
                [len(rights), 20, 15, 16, 1 << 17, 1 << 31, (1 << 64) - 1]
            )
            links[32] = self.blob(rights) if self.often() else self.nowhere()
        head = struct.pack(
            "=QiiQQQQii", 0, name_length & 0x7FFFFFFF, 0, 0, count, 0, control_length, 0, 0
        )
        return head, links

    def _message(self) -> str:
        if not self.often(0.95):
            return self.nowhere()
        head, links = self._header()
        return self.linked(head[: 56 if self.often(0.95) else 50], links)

    def _messages(self) -> list[str]:
        count = self._chance.choice([1, 2, 3, 5])
        asked = count if self.often() else self._chance.choice([0, 1, 6, 1024, (1 << 32) - 1])
        if not self.often(0.95):
            return [self.nowhere(), f"n{asked:x}"]
        whole, links = b"", {}
        for _ in range(count):
            head, inner = self._header()
            links.update({len(whole) + at: value for at, value in inner.items()})
            whole += head + struct.pack("=II", 0xABCD, 0)
        return [self.linked(whole, links), f"n{asked:x}"]

    def _sized(self, row: Row, kind: Kind) -> list[str]:
        chance = self._chance
        links: dict[int, str] = {}
        if kind is Kind.OPEN_HOW:
            flags = chance.choice([0, 0o100, 0o10000000, 1 << 40]) | _NONBLOCK
            data = struct.pack(
                "=QQQ", flags, chance.choice([0, 0o600]), chance.choice([0, 0, 4, 8, 16])
            )
        elif kind is Kind.BUFFER_IN:
            data = chance.randbytes(chance.choice([1, 4, 4, 8, 16, 24, 300]))
            if row.name == "setsockopt":
                data = struct.pack("=I", chance.choice([0, 1, 1, 100])) + data
        else:
            data = struct.pack(
                "=QII", 0, chance.choice([0, 5, 5, 300, 65537]), chance.choice([0, 0, 1, 2, 4])
            )
            links[0] = "o" if kind is Kind.XATTR_ARGS_OUT else self.blob(b"value" * 60)
        size = len(data)
        if not self.often():
            data += chance.choice([bytes(8), b"\0\0\1" + bytes(5), bytes(3000)])
            size = chance.choice(
                [0, 1, size, size, len(data), 4096, 4097, (1 << 32) - 1, -1 % (1 << 64)]
            )
        address = self.linked(data, links) if self.often(0.95) else self.nowhere()
        return [address, f"n{size:x}"]

    _MAKERS: Final[dict[Kind, Callable[[Program], str]]] = {
        Kind.PATH: _path,
        Kind.PATH_OR_NULL: _path,
        Kind.TEXT: _path,
        Kind.NAME: _name,
        Kind.WORD: _word,
        Kind.WORD_OR_NULL: _word,
        Kind.STRINGS: _strings,
        Kind.MSGHDR: _message,
        Kind.DIRFD: _directory,
        Kind.FD: descriptor,
        Kind.MODE: _mode,
        Kind.OPEN_FLAGS: _open_flags,
        Kind.AT_FLAGS: _at_flags,
    }


def program(number: int, seed: int) -> str:
    """Returns a random program; the same for the same number and seed."""
    chance = random.Random(f"{seed} {number}")
    made = Program(number, chance)
    for _ in range(_CALLS):
        if not made.often(0.9):
            name = chance.choice(_UNTRAPPED)
            value = f"n{chance.choice([0, 0o22, 0o77, 0o700]):x}"
            first = value if name == "umask" else made.descriptor()
            made.call(name, X86_64[name], [first, value])
            continue
        row = chance.choice(_USUAL if made.often() else ROWS)
        values: list[str] = []
        while len(values) < len(row.arguments):
            values += made.argument(row, len(values))
        shows = "h" if row.name in _HASHED else "x" if row.group == "exec" else "-"
        made.call(row.name, X86_64[row.name], values, shows)
    return made.text()
