from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.codec import sockaddr
from pinfold.codec.base import UNREADABLE
from pinfold.codec.sockaddr import (
    Abstract,
    Inet,
    Inet6,
    Netlink,
    Other,
    Short,
    Unix,
    Unnamed,
    Unspec,
    Vsock,
    pack,
    parse,
    parse_text,
    show,
)
from pinfold.errors import PolicyError

from .kernel import Errno, Kernel
from .memory import BASE, BytesMemory, RestlessMemory, drawn, slot, untouched_around

if TYPE_CHECKING:
    from pinfold.codec.sockaddr import Address

LOCAL = IPv4Address("127.0.0.1")
NAME = b"/run/a.sock"
UNIX = b"\1\0"

# Each with the bytes that a C program would pass, and its text.
SAMPLES: list[tuple[Address, bytes, str]] = [
    (Unix(NAME), UNIX + NAME + b"\0", "unix:/run/a.sock"),
    (Unix(b"a" * 108), UNIX + b"a" * 108, "unix:" + "a" * 108),
    (Unix(b"@a"), UNIX + b"@a\0", r"unix:\x40a"),
    (Unix(b"\xff:\\"), UNIX + b"\xff:\\\0", r"unix:\xff:\\"),
    (Abstract(b"bus"), UNIX + b"\0bus", "unix:@bus"),
    (Abstract(b""), UNIX + b"\0", "unix:@"),
    (Abstract(b"\0@\n"), UNIX + b"\0\0@\n", r"unix:@\x00@\x0a"),
    (Abstract(b"a" * 107), UNIX + b"\0" + b"a" * 107, "unix:@" + "a" * 107),
    (Unnamed(), UNIX, "unix"),
    (Inet(LOCAL, 80), b"\2\0\0\x50\x7f\0\0\1" + bytes(8), "inet:127.0.0.1:80"),
    (
        Inet6(IPv6Address("::1"), 80),
        b"\x0a\0\0\x50" + bytes(19) + b"\1" + bytes(4),
        "inet6:[::1]:80",
    ),
    (
        Inet6(IPv6Address("fe80::1"), 443, 5, 2),
        b"\x0a\0\1\xbb" + b"\0\0\0\5" + b"\xfe\x80" + bytes(13) + b"\1" + b"\2\0\0\0",
        "inet6:[fe80::1%2]:443,flow=0x5",
    ),
    (
        Inet6(IPv6Address("::ffff:127.0.0.1"), 1),
        b"\x0a\0\0\1" + bytes(4) + bytes(10) + b"\xff\xff\x7f\0\0\1" + bytes(4),
        "inet6:[::ffff:127.0.0.1]:1",
    ),
    (Netlink(7, 0x11), b"\x10\0\0\0\7\0\0\0\x11\0\0\0", "netlink:7:0x11"),
    (Vsock(2, 1024), b"\x28\0\0\0\0\4\0\0\2\0\0\0" + bytes(4), "vsock:2:1024"),
    (Vsock(2, 1024, 1), b"\x28\0\0\0\0\4\0\0\2\0\0\0\1\0\0\0", "vsock:2:1024,flags=0x1"),
    (Unspec(), b"\0\0", "unspec"),
    (Unspec(b"\0P"), b"\0\0\0P", "unspec:0050"),
    (Other(17, b"\x03\0"), b"\x11\0\x03\0", "family-17:0300"),
    (Other(0xFFFF, b""), b"\xff\xff", "family-65535:"),
    (Other(1, b"a" * 109), UNIX + b"a" * 109, "family-1:" + "61" * 109),
    (Short(b""), b"", "short:"),
    (Short(b"\2"), b"\2", "short:02"),
    (Short(b"\2\0" + bytes(13)), b"\2\0" + bytes(13), "short:0200" + "00" * 13),
    (Short(b"\x0a\0" + bytes(21)), b"\x0a\0" + bytes(21), "short:0a00" + "00" * 21),
    (Short(b"\x10\0" + bytes(9)), b"\x10\0" + bytes(9), "short:1000" + "00" * 9),
    (Short(b"\x28\0" + bytes(13)), b"\x28\0" + bytes(13), "short:2800" + "00" * 13),
]


@pytest.mark.parametrize(("address", "raw", "text"), SAMPLES, ids=[text for *_, text in SAMPLES])
def test_samples(address: Address, raw: bytes, text: str) -> None:
    assert parse(raw) == address
    assert pack(address) == raw
    assert show(address) == text
    if text.startswith(("short:", "family-")):
        with pytest.raises(PolicyError, match="not a socket address"):
            parse_text(text.encode())
    else:
        assert parse_text(text.encode()) == address


def test_samples_differ() -> None:
    assert len({address for address, *_ in SAMPLES}) == len(SAMPLES)
    assert len({text for *_, text in SAMPLES}) == len(SAMPLES)
    # As tuples, these would be equal.
    assert len({Unix(b"x"), Abstract(b"x"), Unspec(b"x"), Short(b"x")}) == 4


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (UNIX + b"a\0b", Unix(b"a")),
        (UNIX + b"a", Unix(b"a")),
        (UNIX + NAME + b"\0" * 97, Unix(NAME)),
        (UNIX + b"\0a\0\0", Abstract(b"a\0\0")),
        (b"\2\0\0\x50\x7f\0\0\1" + b"junkjunk" + b"more", Inet(LOCAL, 80)),
        (b"\x0a\0\0\x50" + bytes(20), Inet6(IPv6Address("::"), 80)),
        (b"\x0a\0\0\x50" + bytes(20) + b"\1\1\1", Inet6(IPv6Address("::"), 80)),
        (b"\x0a\0\0\x50" + bytes(20) + b"\1\0\0\0junk", Inet6(IPv6Address("::"), 80, 0, 1)),
        (b"\x10\0\xff\xff\1\0\0\0\2\0\0\0junk", Netlink(1, 2)),
        (b"\x28\0\xff\xff\1\0\0\0\2\0\0\0\3junkj", Vsock(2, 1, 3)),
    ],
)
def test_other_spellings(raw: bytes, address: Address) -> None:
    assert parse(raw) == address


@pytest.mark.parametrize(
    "address",
    [
        Unix(b""),
        Unix(b"a\0"),
        Unix(b"\0a"),
        Unix(b"a" * 109),
        Abstract(b"a" * 108),
        Inet(LOCAL, 65536),
        Inet(LOCAL, -1),
        Inet(IPv6Address("::1"), 1),  # type: ignore[arg-type]
        Inet6(LOCAL, 1),  # type: ignore[arg-type]
        Inet6(IPv6Address("fe80::1%2"), 1),
        Inet6(IPv6Address("::"), 1, -1),
        Inet6(IPv6Address("::"), 1, 1 << 32),
        Inet6(IPv6Address("::"), 1, 0, 1 << 32),
        Netlink(1 << 32, 0),
        Netlink(0, -1),
        Vsock(0, 0, 256),
        Unspec(bytes(127)),
        Other(2, bytes(14)),
        Other(1, b""),
        Other(0x10000, b""),
        Other(99, bytes(127)),
        Short(bytes(2)),
        Short(b"\2\0" + bytes(14)),
    ],
)
def test_what_no_address_says(address: Address) -> None:
    with pytest.raises(ValueError, match="socket address"):
        pack(address)


def test_what_other_addresses_mean() -> None:
    assert Inet6(IPv6Address("::ffff:1.2.3.4"), 5).as_inet == Inet(IPv4Address("1.2.3.4"), 5)
    assert Inet6(IPv6Address("::1.2.3.4"), 5).as_inet is None
    raw = b"\0\0" + pack(Inet(LOCAL, 80))[2:]
    unspec = parse(raw)
    assert isinstance(unspec, Unspec)
    assert unspec.as_inet == Inet(LOCAL, 80)
    assert Unspec(raw[2:-1]).as_inet is None
    assert Unspec().as_inet is None


hosts4 = st.ip_addresses(v=4)
hosts6 = st.ip_addresses(v=6) | hosts4.map(lambda host: IPv6Address(f"::ffff:{host}"))
ports = st.integers(0, 65535)
u32 = st.integers(0, (1 << 32) - 1) | st.just(0)
paths = st.binary(min_size=1, max_size=108).map(lambda path: path.replace(b"\0", b"/"))
named: st.SearchStrategy[Address] = st.one_of(
    st.builds(Unix, paths),
    st.builds(Abstract, st.binary(max_size=107)),
    st.just(Unnamed()),
    st.builds(Inet, hosts4, ports),
    st.builds(Inet6, hosts6, ports, u32, u32),
    st.builds(Netlink, u32, u32),
    st.builds(Vsock, u32, u32, st.integers(0, 255)),
    st.builds(Unspec, st.binary(max_size=126)),
)
families = st.sampled_from([0, 1, 2, 10, 16, 17, 40]).map(
    lambda number: number.to_bytes(2, "little")
)
raws = st.builds(lambda family, rest: (family + rest)[:128], families, st.binary(max_size=126)) | (
    st.binary(max_size=128)
)


@settings(max_examples=500)
@given(named)
def test_any_address_comes_back(address: Address) -> None:
    assert parse(pack(address)) == address
    assert parse_text(show(address).encode()) == address


@settings(max_examples=1000)
@given(raws)
def test_any_bytes_are_an_address_that_comes_back(raw: bytes) -> None:
    address = parse(raw)
    assert parse(pack(address)) == address
    assert show(address).isprintable()
    if not isinstance(address, (Other, Short)):
        assert parse_text(show(address).encode()) == address
    elif isinstance(address, Short):
        assert address.data == raw
    else:
        assert pack(address) == raw


@settings(max_examples=300)
@given(raws, raws)
def test_two_addresses_look_the_same_only_if_they_are(one: bytes, other: bytes) -> None:
    assert (show(parse(one)) == show(parse(other))) == (parse(one) == parse(other))


@settings(max_examples=1000)
@given(st.binary(max_size=40) | st.sampled_from([b"unix:", b"inet:1:1", b"inet6:[::1%0]:1"]))
@example(b"inet:\xd9\xa1.0.0.1:1")
@example(b"inet6:[1.2.3.4]:1")
@example(b"netlink:4294967296:0")
def test_garbage_text_is_a_policy_error(text: bytes) -> None:
    try:
        address = parse_text(text)
    except PolicyError:
        return
    assert parse_text(show(address).encode()) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not a socket address; write unix:/PATH"),
        (b"/run/x.sock", "not a socket address"),
        (b"unix:", "not a socket address"),
        (b"unspec:", "not a socket address"),
        (b"tcp:1.2.3.4:80", "not a socket address"),
        (b"inet", "write inet:HOST:PORT"),
        (b"inet:1.2.3.4", "write inet:HOST:PORT"),
        (b"inet:example.org:80", "write inet:HOST:PORT"),
        (b"inet:1.2.3:80", "Expected 4 octets"),
        (b"inet:1.2.3.04:80", "Leading zeros"),
        (b"inet:1.2.3.4:65536", "does not fit"),
        (b"inet:1.2.3.4:+1", "write inet:HOST:PORT"),
        (b"inet6:::1:80", r"write inet6:\[HOST\]:PORT"),
        (b"inet6:[::1]", r"write inet6:\[HOST\]:PORT"),
        (b"inet6:[::1::]:80", "::1::"),
        (b"netlink:1", "write netlink:PID:GROUPS"),
        (b"netlink:4294967296:0", "does not fit"),
        (b"vsock:1", "write vsock:CID:PORT"),
        (b"unspec:0", "not hexadecimal"),
        (rb"unix:a\n", "must be followed"),
        (rb"unix:a\x00", "NUL"),
        (b"unix:" + b"a" * 109, "no socket address says"),
        (b"unix:@" + b"a" * 108, "no socket address says"),
    ],
)
def test_malformed_text(text: bytes, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        parse_text(text)


def test_text_in_other_spellings() -> None:
    assert parse_text(b"netlink:7:17") == Netlink(7, 17)
    assert parse_text(b"netlink:0x7:0x11") == Netlink(7, 17)
    assert parse_text(b"inet6:[0:0::1]:080") == Inet6(IPv6Address("::1"), 80)
    assert parse_text("unix:/é".encode()) == Unix("/é".encode())


# Against Python's own idea of addresses, and the machine's


@pytest.mark.parametrize(
    ("family", "bound", "address"),
    [
        (socket.AF_INET, ("127.0.0.1", 0), Inet),
        (socket.AF_INET6, ("::1", 0), Inet6),
        (socket.AF_UNIX, b"\0pinfold-codec-test", Abstract),
    ],
)
def test_what_the_kernel_says_a_socket_is_bound_to(
    family: int, bound: object, address: type[Address]
) -> None:
    import ctypes

    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(bound)  # type: ignore[arg-type]
        raw = ctypes.create_string_buffer(128)
        size = ctypes.c_uint(128)
        library = ctypes.CDLL(None, use_errno=True)
        assert library.getsockname(sock.fileno(), raw, ctypes.byref(size)) == 0
        found = parse(raw.raw[: size.value])
        assert type(found) is address
        name = sock.getsockname()
        if isinstance(found, Abstract):
            assert b"\0" + found.name == name
        else:
            assert isinstance(found, (Inet, Inet6))
            assert (str(found.host), found.port) == name[:2]


# In an image


def decode_outcome(memory: BytesMemory, address: int, length: int, *, pinned: bool) -> object:
    try:
        return Kernel(memory, pinned=pinned).move_addr(address, length)
    except Errno as error:
        return error


@pytest.mark.parametrize(
    ("picture", "length", "raw"),
    [
        ("|------>..Pinet12|#|", 9, b"\0\0Pinet12"),
        ("|----->..Pinet12-|#|", 10, b"\0\0Pinet12\xee"),
        ("|----->..Pinet12-|#|", 11, None),
        ("|--------------->|..--------------|", 2, b"\0\0"),
        ("|--------------->|#|", 1, None),
        ("|--------------->|#|", 0, b""),
        ("|--------------->|#|", 129, None),
        ("|--------------->|#|", 0xFFFFFFFF, None),
        ("|>..-------------|#|", 0x80000002, None),
        ("|>..-------------|#|", 0xFFFFFFFF00000002, b"\0\0"),
    ],
)
def test_addresses_at_page_ends(picture: str, length: int, raw: bytes | None) -> None:
    memory, address = drawn(picture)
    image = slot(memory)
    image.put(b"x")
    found = sockaddr.decode(image, address, length)
    assert found.raw == (raw or b"")
    assert found.address == (None if raw is None else parse(raw))
    assert (found.pointer == UNREADABLE) == (not raw)
    if raw:
        assert found.pointer == BASE + 8
    assert decode_outcome(memory, found.pointer, length, pinned=True) == decode_outcome(
        memory, address, length, pinned=False
    )


def test_lengths_that_the_kernel_refuses_are_refused_before_anything_is_read() -> None:
    memory = BytesMemory({})
    for length in (129, 1 << 31, 0xFFFFFFFF):
        found = sockaddr.decode(slot(memory), 0, length)
        assert decode_outcome(memory, found.pointer, length, pinned=True) == Errno(errno.EINVAL)
    assert memory.reads == 0


@settings(max_examples=500)
@given(raws, st.integers(0, 40), st.integers(0, 160) | st.integers(0, (1 << 64) - 1), st.integers())
def test_what_is_judged_is_what_the_kernel_gets(
    raw: bytes, shift: int, length: int, seed: int
) -> None:
    blob = (b"\xee" * shift + raw).ljust(192, b"\xaa")
    pages = {0x10000 + at: blob[at : at + 64] for at in range(0, 192, 64)}
    for memory in (BytesMemory(pages, 64), RestlessMemory(pages, 64, seed)):
        image = slot(memory)
        found = sockaddr.decode(image, 0x10000 + shift, length)
        assert untouched_around(memory)
        seen = decode_outcome(memory, found.pointer, length, pinned=True)
        if type(memory) is BytesMemory:
            assert seen == decode_outcome(memory, 0x10000 + shift, length, pinned=False)
        if isinstance(seen, Errno):
            assert found.address is None
        else:
            assert seen == found.raw
            assert found.address == parse(found.raw)


def test_ports_and_hosts_are_in_network_byte_order() -> None:
    assert pack(Inet(IPv4Address("1.2.3.4"), 0x1234))[2:8] == b"\x12\x34\1\2\3\4"
    assert struct.unpack("!HI", pack(Inet6(IPv6Address("::"), 7, 9))[2:8]) == (7, 9)
