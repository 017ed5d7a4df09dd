"""The table and the refusals: sound rows, real numbers, nothing twice, documented."""

import errno
from collections import Counter
from pathlib import Path

import pytest
from system_calls import syscalls

from pinfold import bpf
from pinfold.launch.filters import sandbox_filter
from pinfold.pins.arena import SLOT_SIZE
from pinfold.pins.install import DELIVERY_CALL
from pinfold.supervisor.shapes import EVERYTHING, Shape
from pinfold.supervisor.shapes import PATHS as SHAPES
from pinfold.syscalls.exempt import LEFT_ALONE, NOT_THERE
from pinfold.syscalls.kinds import Kind, show_at_flags, show_open_flags
from pinfold.syscalls.numbers import AARCH64, X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import PATH_ROWS as ROWS
from pinfold.syscalls.table import TABLE, Row
from pinfold.uapi import seccomp as abi
from pinfold.uapi.fs import PATH_MAX

ROOT = Path(__file__).parents[2]
SECRET = (0x1122334455667788, 0x99AABBCCDDEEFF00)
PATHS = (Kind.PATH, Kind.PATH_OR_NULL, Kind.TEXT)

# Calls of the issue that introduced the table; dropping one would open a way past every rule.
FIRST = [
    "open",
    "openat",
    "openat2",
    "creat",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "chdir",
    "execve",
    "execveat",
]


def test_numbers_are_those_of_the_package() -> None:
    source = syscalls()
    for package, numbers in (
        (source.load_arch_table("x86_64"), X86_64),
        (source.load_arch_table("arm64"), AARCH64),
    ):
        assert {name: numbers[name] for name in package} == package
        # What newer kernels dropped has numbers that nothing else got.
        dropped = numbers.keys() - package.keys()
        assert dropped <= {*LEFT_ALONE[NOT_THERE], "uselib"}
        assert not {numbers[name] for name in dropped} & set(package.values())


def test_no_call_has_two_rows() -> None:
    assert not [name for name, count in Counter(row.name for row in ROWS).items() if count > 1]


def test_the_first_calls_are_all_there() -> None:
    assert set(FIRST) <= {row.name for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_sound(row: Row) -> None:
    kinds = [kind for _, kind in row.arguments]
    assert 1 <= len(kinds) <= 6
    assert any(kind in PATHS for kind in kinds)
    names = [name for name, _ in row.arguments]
    assert len(names) == len(set(names)), "two arguments would share a key in the log"
    for index, kind in enumerate(kinds):
        if kind is Kind.DIRFD:
            assert kinds[index + 1] in PATHS, "a directory descriptor stands right before its path"
    shape = SHAPES[row.number]
    assert shape.row is row
    assert len(shape.paths) == sum(kind in PATHS for kind in kinds)
    assert len(shape.paths) * PATH_MAX <= SLOT_SIZE
    assert [other.kind for other in shape.others] == [
        kind for kind in kinds if kind is Kind.OPEN_HOW
    ]
    assert row.number in EVERYTHING


@pytest.mark.parametrize("shape", EVERYTHING.values(), ids=lambda shape: shape.row.name)
def test_whatever_can_be_pinned_is(shape: Shape) -> None:
    looked_at = {one.argument for one in shape.paths} | {one.argument for one in shape.others}
    assert looked_at == set(shape.row.pinned)


def test_every_call_with_something_to_pin_is_trapped_or_refused() -> None:
    refused = {row.name for row in REFUSED if row.argument < 0}
    wanted = {row.number for row in TABLE.values() if row.pinned and row.name not in refused}
    assert wanted == EVERYTHING.keys()


def test_refused_and_trapped_calls_do_not_overlap() -> None:
    whole = {row.name for row in REFUSED if row.argument < 0}
    assert not whole & {row.name for row in ROWS}
    assert X86_64["getpid"] == DELIVERY_CALL


def _answer(name: str, *args: int) -> int:
    program = bpf.disassemble(sandbox_filter(SHAPES.keys(), SECRET))
    bpf.check(program)
    six = (*args, *(0,) * (6 - len(args)))
    data = bpf.SeccompData(X86_64[name], abi.AUDIT_ARCH_X86_64, 0, six)
    return bpf.run(program, data).value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_filter_traps_every_row(row: Row) -> None:
    assert _answer(row.name) == abi.SECCOMP_RET_TRACE


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.name}-{row.value:#x}")
def test_the_filter_refuses_every_refusal(row) -> None:  # type: ignore[no-untyped-def]
    args = [0] * 6
    if row.argument >= 0:
        assert _answer(row.name, *args) == abi.SECCOMP_RET_ALLOW
        # Bits that the kernel does not look at are no way around.
        args[row.argument] = row.value | (0xABCD << 40 if row.mask >> 32 == 0 else 0)
    assert _answer(row.name, *args) == abi.SECCOMP_RET_ERRNO | row.errno


@pytest.mark.parametrize("shape", EVERYTHING.values(), ids=lambda shape: shape.row.name)
def test_the_filter_traps_everything_when_asked_to(shape: Shape) -> None:
    program = bpf.disassemble(sandbox_filter(EVERYTHING.keys(), SECRET))
    bpf.check(program)
    data = bpf.SeccompData(shape.row.number, abi.AUDIT_ARCH_X86_64, 0, (1, 1, 1, 1, 1, 1))
    assert bpf.run(program, data).value == abi.SECCOMP_RET_TRACE


def test_sending_to_nobody_in_particular_is_not_trapped() -> None:
    program = bpf.disassemble(sandbox_filter(EVERYTHING.keys(), SECRET))
    for pointer, wanted in (
        (0, abi.SECCOMP_RET_ALLOW),
        (1, abi.SECCOMP_RET_TRACE),
        (1 << 32, abi.SECCOMP_RET_TRACE),
    ):
        data = bpf.SeccompData(
            X86_64["sendto"], abi.AUDIT_ARCH_X86_64, 0, (3, 4, 5, 0, pointer, 16)
        )
        assert bpf.run(program, data).value == wanted


def test_only_the_secret_gets_a_notification() -> None:
    assert _answer("getpid", *SECRET) == abi.SECCOMP_RET_USER_NOTIF
    for args in ((0, 0), (SECRET[0], 0), (0, SECRET[1]), (SECRET[1], SECRET[0])):
        assert _answer("getpid", *args) == abi.SECCOMP_RET_ALLOW


@pytest.mark.parametrize("secret", [(0, 0), (1, 1), (1 << 63, 5), (2**64 - 1, 2**64 - 2), SECRET])
def test_each_sandbox_has_its_own_secret(secret: tuple[int, int]) -> None:
    for options in ({}, {"fixed_addresses": True}, {"whole": ("sendto",)}):
        program = bpf.disassemble(sandbox_filter({*EVERYTHING, DELIVERY_CALL}, secret, **options))
        for args, wanted in (
            (secret, abi.SECCOMP_RET_USER_NOTIF),
            *(((secret[0] ^ bit, secret[1]), abi.SECCOMP_RET_TRACE) for bit in (1, 1 << 40)),
            *(((secret[0], secret[1] ^ bit), abi.SECCOMP_RET_TRACE) for bit in (1, 1 << 40)),
        ):
            data = bpf.SeccompData(DELIVERY_CALL, abi.AUDIT_ARCH_X86_64, 0, args)
            assert bpf.run(program, data).value == wanted


@pytest.mark.parametrize("name", ["read", "write", "close", "mmap", "mseal", "futex", "clone"])
def test_other_calls_pass(name: str) -> None:
    assert _answer(name) == abi.SECCOMP_RET_ALLOW


def test_other_architectures_die() -> None:
    program = bpf.disassemble(sandbox_filter(SHAPES.keys(), SECRET))
    for number, arch, wanted in (
        (5, abi.AUDIT_ARCH_I386, abi.SECCOMP_RET_KILL_PROCESS),
        (2 | abi.X32_SYSCALL_BIT, abi.AUDIT_ARCH_X86_64, abi.SECCOMP_RET_KILL_PROCESS),
        (-1, abi.AUDIT_ARCH_X86_64, abi.SECCOMP_RET_ERRNO | errno.ENOSYS),
    ):
        data = bpf.SeccompData(number & 0xFFFFFFFF, arch, 0, (0, 0, 0, 0, 0, 0))
        assert bpf.run(program, data).value == wanted


def test_every_refusal_is_documented() -> None:
    text = (ROOT / "docs/security.md").read_text()
    for row in REFUSED:
        assert f"`{row.name}`" in text
        assert row.reason in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "O_RDONLY"),
        (0o2, "O_RDWR"),
        (0o101, "O_WRONLY|O_CREAT"),
        (0o20200000, "O_RDONLY|O_TMPFILE"),
        (0o200000, "O_RDONLY|O_DIRECTORY"),
        (0o4010000, "O_RDONLY|O_SYNC"),
        (1 << 30, "O_RDONLY|0x40000000"),
    ],
)
def test_open_flags_in_words(value: int, words: str) -> None:
    assert show_open_flags(value) == words


def test_at_flags_in_words() -> None:
    assert show_at_flags(0) == "0"
    assert show_at_flags(0x1100) == "AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH"
