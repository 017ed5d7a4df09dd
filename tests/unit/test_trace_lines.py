"""Lines of text about calls: what they show, and that no byte of a program reaches a terminal."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.audit import lines
from pinfold.audit.lines import Style
from pinfold.audit.record import Entry
from pinfold.audit.record import Path as LoggedPath
from pinfold.codec.message import IoVec, Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Inet, Sockaddr, Unix
from pinfold.syscalls.table import TABLE

PLAIN = Style()
AT_FDCWD = 0xFFFFFF9C


def entry(
    call: str,
    *registers: int,
    paths: tuple[tuple[int, bytes | None], ...] = (),
    others: dict[int, Any] | None = None,
) -> Entry:
    return Entry(
        1.5,
        10,
        11,
        b"/bin/x",
        TABLE[call],
        (*registers, *(0,) * (6 - len(registers))),
        tuple(LoggedPath(index, b"asked", b"/named", pinned) for index, pinned in paths),
        others or {},
        (),
        "allow",
        None,
        None,
    )


def shown(made: Entry, style: Style = PLAIN) -> str:
    return lines.call(made, style)


def test_an_open() -> None:
    made = entry("openat", AT_FDCWD, 0x1234, 0o2000000, 0o777, paths=((1, b"/etc/hosts"),))
    assert shown(made) == '[11] openat(AT_FDCWD, "/etc/hosts", O_RDONLY|O_CLOEXEC)'


def test_an_open_that_makes_a_file_has_a_mode() -> None:
    made = entry("openat", 5, 0x1234, 0o101, 0o644, paths=((1, b"a"),))
    assert shown(made) == '[11] openat(5, "a", O_WRONLY|O_CREAT, 0644)'


def test_openat2() -> None:
    how = OpenHow(0x7000, 0, 0o101, 0o600, 8)
    made = entry("openat2", AT_FDCWD, 1, 2, 24, paths=((1, b"a"),), others={2: how})
    assert (
        shown(made)
        == '[11] openat2(AT_FDCWD, "a", {flags=O_WRONLY|O_CREAT, mode=0600, resolve=0x8})'
    )


def test_an_exec_shows_argv_and_counts_variables() -> None:
    others = {1: [b"git", b"st\natus"], 2: [b"A=b", b"SECRET=x"]}
    made = entry("execve", 1, 2, 3, paths=((0, b"/usr/bin/git"),), others=others)
    assert shown(made) == r'[11] execve("/usr/bin/git", ["git", "st\natus"], [2 vars])'


def test_what_the_kernel_writes_is_left_out() -> None:
    assert shown(entry("stat", 1, 2, paths=((0, b"/a"),))) == '[11] stat("/a")'
    assert shown(entry("readlink", 1, 2, 4096, paths=((0, b"/a"),))) == '[11] readlink("/a")'


def test_addresses() -> None:
    to = Sockaddr(0x7000, b"", Unix(b"/run/x.sock"))
    assert shown(entry("connect", 3, 1, 110, others={1: to})) == "[11] connect(3, unix:/run/x.sock)"
    made = entry("sendto", 3, 1, 12, 0, 2, 16, others={4: Sockaddr(1, b"", None)})
    assert shown(made) == "[11] sendto(3, [12 bytes], 0, ?)"
    assert shown(entry("sendto", 3, 1, 12, 0x4000, 0, 0)) == (
        "[11] sendto(3, [12 bytes], 0x4000, NULL)"
    )


def test_a_message() -> None:
    message = Message(
        0x7000, 0, Inet(IPv4Address("10.0.0.1"), 53), b"", (IoVec(1, 2), IoVec(3, 5)), b"", 0
    )
    made = entry("sendmsg", 3, 1, 0, others={1: message})
    assert shown(made) == "[11] sendmsg(3, {to=inet:10.0.0.1:53, [7 bytes]}, 0)"


def test_what_could_not_be_read() -> None:
    assert shown(entry("open", 1, 0, 0, paths=((0, None),))) == "[11] open(?, O_RDONLY)"
    assert shown(entry("open", 1, 0, 0)) == "[11] open(?, O_RDONLY)"


def test_access_in_words() -> None:
    assert shown(entry("access", 1, 5, paths=((0, b"/a"),))) == '[11] access("/a", R_OK|X_OK)'
    assert shown(entry("access", 1, 0, paths=((0, b"/a"),))) == '[11] access("/a", F_OK)'


@pytest.mark.parametrize("name", sorted(TABLE))
@pytest.mark.parametrize("register", [0, 1, (1 << 64) - 1])
def test_every_call_has_a_line(name: str, register: int) -> None:
    text = shown(entry(name, *(register,) * 6))
    assert text.startswith(f"[11] {name}(")
    assert text.endswith(")")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, " = 0"),
        (3, " = 3"),
        (-errno.ENOENT, " = -1 ENOENT (No such file or directory)"),
        (-4095, " = -1 errno 4095 (Unknown error 4095)"),
        (-512, " = ? ERESTARTSYS (to be made again)"),
        (-5000, " = -5000"),
        (None, " = ?"),
    ],
)
def test_results(value: int | None, text: str) -> None:
    assert lines.result(value, PLAIN) == text


@given(st.binary())
def test_nothing_that_a_terminal_obeys(data: bytes) -> None:
    text = lines.quoted(data)
    assert text.isprintable()
    # What is in the quotes can be read back, so two strings never look the same.
    inner = text[1:-1].encode()
    back = (
        inner.decode("utf-8").encode("latin-1", "backslashreplace").decode("unicode_escape")
        if inner.isascii()
        else None
    )
    assert back is None or back.encode("latin-1") == data


@given(st.binary(min_size=1, max_size=40), st.integers(0, 60))
def test_long_strings_are_cut(data: bytes, limit: int) -> None:
    text = lines.quoted(data, limit)
    assert text.endswith('"...') == (len(data) > limit)
    assert text.removesuffix("...") == lines.quoted(data[:limit])


def test_paths_are_never_cut() -> None:
    path = b"/" + b"x" * 4000
    assert path.decode() in shown(entry("chdir", 1, paths=((0, path),)), Style(limit=4))


def test_colour_is_all_that_colour_adds() -> None:
    made = entry("openat", AT_FDCWD, 1, 0, 0, paths=((1, b"/etc/\x1b[2J"),))
    coloured = shown(made, Style(colour=True)) + lines.result(-2, Style(colour=True))
    assert coloured.count("\x1b") == 6
    for code in ("\x1b[1m", "\x1b[36m", "\x1b[31m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == shown(made) + lines.result(-2, PLAIN)
