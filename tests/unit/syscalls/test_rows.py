"""Rows of the table: sound by themselves, and what is pinned of well-known calls."""

import ctypes
import struct

import pytest

from pinfold.syscalls.kinds import FIXED, NULLABLE, PATHS, PINNED, POINTERS, SIZED, WRITTEN, Kind
from pinfold.syscalls.numbers import AARCH64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import PATH_ROWS, TABLE, Row

every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


@every_row
def test_rows_are_sound(row: Row) -> None:
    names = [name for name, _ in row.arguments]
    assert 1 <= len(names) <= 6
    assert len(names) == len(set(names)), "two arguments would share a key in the log"
    assert all(name.isidentifier() for name in names)


@every_row
def test_a_descriptor_stands_before_its_path(row: Row) -> None:
    kinds = [kind for _, kind in row.arguments]
    for index, kind in enumerate(kinds):
        if kind is Kind.DIRFD:
            assert kinds[index + 1] in PATHS


@every_row
def test_a_size_stands_after_its_pointer(row: Row) -> None:
    kinds = [kind for _, kind in row.arguments]
    for index, kind in enumerate(kinds):
        if kind in SIZED:
            assert kinds[index + 1] is Kind.SIZE
        if kind is Kind.SIZE:
            assert kinds[index - 1] in POINTERS | {Kind.VARIES}
            assert index


@every_row
def test_no_more_than_one_of_what_the_engine_looks_for_once(row: Row) -> None:
    kinds = [kind for _, kind in row.arguments]
    for kind in (Kind.AT_FLAGS, Kind.OPEN_HOW, Kind.MSGHDR, Kind.MMSGHDR):
        assert kinds.count(kind) <= 1


def test_every_call_with_a_path_is_judged_or_refused() -> None:
    refused = {row.name for row in REFUSED if row.argument < 0}
    with_path = {
        row.name for row in TABLE.values() if any(kind in PATHS for _, kind in row.arguments)
    }
    judged = {row.name for row in PATH_ROWS}
    assert judged <= with_path
    assert not with_path - judged - refused, "a path that no rule would see"


def test_kinds_are_sorted_into_sets_without_overlap() -> None:
    assert not PINNED & WRITTEN
    assert PINNED | WRITTEN <= POINTERS
    assert SIZED | FIXED.keys() | NULLABLE <= POINTERS
    assert NULLABLE <= PINNED
    assert not SIZED & FIXED.keys()
    scalars = set(Kind) - POINTERS - {Kind.VARIES}
    assert scalars == {
        Kind.FD,
        Kind.DIRFD,
        Kind.OPEN_FLAGS,
        Kind.AT_FLAGS,
        Kind.FLAGS,
        Kind.MODE,
        Kind.SIZE,
        Kind.INTEGER,
        Kind.NUMBER,
    }


def test_every_kind_is_used() -> None:
    used = {kind for row in TABLE.values() for _, kind in row.arguments}
    assert set(Kind) - used == set()


def test_fixed_sizes_are_those_of_the_structures() -> None:
    long = ctypes.sizeof(ctypes.c_long)
    assert {
        Kind.UTIMBUF: struct.calcsize("ll"),
        Kind.TIMEVALS: struct.calcsize("llll"),
        Kind.TIMESPECS: struct.calcsize("llll"),
        Kind.MQ_ATTR: 8 * long,
    } == FIXED


@pytest.mark.parametrize(
    ("call", "pinned"),
    [
        ("openat2", ["path", "how"]),
        ("execveat", ["path", "argv", "envp"]),
        ("rename", ["old_path", "new_path"]),
        ("symlink", ["target", "new_path"]),
        ("setxattr", ["path", "name", "value"]),
        ("setxattrat", ["path", "name", "args"]),
        ("getxattrat", ["path", "name"]),
        ("fgetxattr", ["name"]),
        ("utimensat", ["path", "times"]),
        ("connect", ["address"]),
        ("sendto", ["address"]),
        ("sendmsg", ["message"]),
        ("sendmmsg", ["messages"]),
        ("recvmsg", []),
        ("accept4", []),
        ("setsockopt", ["value"]),
        ("mount", ["source", "path", "type", "data"]),
        ("move_mount", ["old_path", "new_path"]),
        ("name_to_handle_at", ["path"]),
        ("open_by_handle_at", ["handle"]),
        ("add_key", ["type", "description", "payload"]),
        ("init_module", ["params"]),
        ("socket", []),
    ],
)
def test_what_is_pinned(call: str, pinned: list[str]) -> None:
    row = TABLE[call]
    assert [row.arguments[index][0] for index in row.pinned] == pinned


def test_numbers_of_the_other_architecture() -> None:
    assert TABLE["openat"].number == 257
    assert TABLE["openat"].number_aarch64 == AARCH64["openat"] == 56
    assert TABLE["open"].number_aarch64 is None
