from __future__ import annotations

import os

import pytest

from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Abstract, Address, Unix, parse
from pinfold.policy.judging.access import access_of, needed, open_access, possible
from pinfold.policy.model import ACCESS
from pinfold.syscalls.kinds import PATHS
from pinfold.syscalls.table import DESCRIPTOR_ROWS, TABLE, Row

from .trapped import TO, trapped

ROWS = list(TABLE.values())
TMPFILE = 0o20000000


def does(call: str, argument: str = "path", flags: int = 0) -> str:
    return " ".join(sorted(access_of(trapped(call, b"/a", b"/b", flags=flags))[argument]))


def named(row: Row) -> set[str]:
    found = {name for name, kind in row.arguments if kind in PATHS or kind in TO}
    return found | ({row.arguments[0][0]} if row in DESCRIPTOR_ROWS else set())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_call_that_names_something_has_words_for_it(row: Row) -> None:
    assert possible(row.name).keys() == named(row)
    for words in possible(row.name).values():
        assert words
        assert words <= set(ACCESS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("register", [0, 1, 2, 3, 0o101, 7, 0xFFFF_FFFF_FFFF_FFFF])
def test_no_call_does_more_than_is_possible(row: Row, register: int) -> None:
    scalars = {name: register for name, _ in row.arguments}
    found = access_of(trapped(row.name, b"/a", b"/b", address=Unix(b"/s"), registers=scalars))
    assert found.keys() == named(row)
    for argument, words in found.items():
        assert words
        assert words <= possible(row.name)[argument]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (os.O_RDONLY, "read"),
        (os.O_WRONLY, "write"),
        (os.O_RDWR, "read write"),
        (3, "read write"),
        (os.O_WRONLY | os.O_APPEND, "write"),
        (os.O_RDONLY | os.O_CREAT, "create read"),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, "create write"),
        (os.O_RDWR | os.O_CREAT, "create read write"),
        (os.O_RDONLY | os.O_TRUNC, "read write"),
        (os.O_RDONLY | TMPFILE, "create read write"),
        (os.O_TMPFILE | os.O_WRONLY, "create write"),
        (os.O_DIRECTORY, "read"),
        (os.O_PATH, "read"),
        (os.O_PATH | os.O_CREAT | os.O_RDWR | os.O_TRUNC, "read"),
        (1 << 40 | os.O_WRONLY, "write"),
    ],
)
def test_opens(flags: int, expected: str) -> None:
    assert " ".join(sorted(open_access(flags))) == expected
    for call in ("open", "openat"):
        assert does(call, flags=flags) == expected


def test_openat2_goes_by_its_structure() -> None:
    def opened(how: OpenHow | None) -> str:
        call = trapped("openat2", b"/a", values={"how": how})
        return " ".join(sorted(access_of(call)["path"]))

    assert opened(OpenHow(1, 0, os.O_RDONLY, 0, 0)) == "read"
    assert opened(OpenHow(1, 0, os.O_WRONLY | os.O_CREAT, 0, 0)) == "create write"
    assert opened(OpenHow(1, 0, os.O_PATH | os.O_CLOEXEC, 0, 0)) == "read"
    # What the kernel refuses could be anything.
    assert opened(OpenHow(1, 0, os.O_PATH | os.O_CREAT, 0, 0)) == "create read write"
    assert opened(OpenHow(1, -1, 0, 0, 0)) == "create read write"
    assert opened(None) == "create read write"


@pytest.mark.parametrize(
    ("call", "argument", "expected"),
    [
        ("creat", "path", "create write"),
        ("truncate", "path", "write"),
        ("chmod", "path", "write"),
        ("utimensat", "path", "write"),
        ("setxattr", "path", "write"),
        ("lremovexattr", "path", "write"),
        ("unlinkat", "path", "write"),
        ("rmdir", "path", "write"),
        ("mkdirat", "path", "create"),
        ("mknod", "path", "create"),
        ("symlink", "new_path", "create"),
        ("linkat", "old_path", "read write"),
        ("linkat", "new_path", "create"),
        ("rename", "old_path", "write"),
        ("rename", "new_path", "create write"),
        ("stat", "path", "read"),
        ("readlink", "path", "read"),
        ("access", "path", "read"),
        ("getxattr", "path", "read"),
        ("chroot", "path", "read"),
        ("inotify_add_watch", "path", "read"),
        ("execve", "path", "exec read"),
        ("execveat", "path", "exec read"),
        ("fchmod", "fd", "write"),
        ("fchdir", "fd", "read"),
    ],
)
def test_words(call: str, argument: str, expected: str) -> None:
    assert does(call, argument) == expected


@pytest.mark.parametrize(
    ("flags", "old"),
    [(0, "write"), (1, "write"), (2, "create write"), (4, "create write"), (5, "create write")],
)
def test_a_rename_that_puts_something_at_the_old_name(flags: int, old: str) -> None:
    assert does("renameat2", "old_path", flags=flags) == old
    assert does("renameat2", "new_path", flags=flags) == "create write"


@pytest.mark.parametrize(
    ("call", "argument", "expected"),
    [
        ("connect", "address", "write"),
        ("bind", "address", "create"),
        ("sendto", "address", "write"),
        ("sendmsg", "message", "write"),
        ("sendmmsg", "messages", "write"),
    ],
)
def test_sockets_with_a_path_only(call: str, argument: str, expected: str) -> None:
    assert access_of(trapped(call, address=Unix(b"/s"))) == {argument: {expected}}
    others: list[Address | None] = [Abstract(b"s"), parse(b"\2\0" + bytes(14)), None]
    for other in others:
        assert access_of(trapped(call, address=other)) == {}


def test_to_allow_execution_is_enough_to_execute() -> None:
    assert needed(frozenset({"exec", "read"})) == {"exec"}
    assert needed(frozenset({"read", "write"})) == {"read", "write"}
