"""The table against what the running kernel says of its own calls.

tracefs lists each call's arguments with their C types, from the very macro that defines the call.
Calls that the kernel was built without, or whose macro is another one, are not listed; for those,
``UNLISTED`` says by hand what ``include/linux/syscalls.h`` declares.
"""

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from system_calls import syscalls

from pinfold.syscalls.exempt import LEFT_ALONE, NO_POINTERS, NOT_THERE
from pinfold.syscalls.kinds import PATHS, POINTERS, WRITTEN, Kind
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.table import TABLE, Row

TRACING = Path("/sys/kernel/tracing")
FORMATS = f"{TRACING}/events/syscalls/sys_enter_*/format"
LISTED_AS = {
    "newfstat": "fstat",
    "newlstat": "lstat",
    "newstat": "stat",
    "newuname": "uname",
    "sendfile64": "sendfile",
    "umount": "umount2",
}
POINTER_TYPES = {"cap_user_header_t", "cap_user_data_t"}
ADDRESS_TYPES = {"unsigned long", "long", "aio_context_t"}
"""Types of scalars that can hold an address."""
UNLISTED = {
    "uselib": "p",
    "init_module": "pnp",
    "finit_module": "npn",
    "delete_module": "pn",
    "kexec_load": "nnpn",
    "kexec_file_load": "nnnpn",
    "get_thread_area": "p",
    "set_thread_area": "p",
    "map_shadow_stack": "ann",
    "listns": "ppnn",
    "rseq_slice_yield": "",
}
"""One letter an argument: pointer, number, address as a number."""

STRINGS = {Kind.TEXT, Kind.WORD, Kind.WORD_OR_NULL, Kind.NAME}
KINDS = {
    "const char *": PATHS | STRINGS,
    "const void *": {Kind.BUFFER_IN, Kind.VARIES},
    "const char *const *": {Kind.STRINGS},
    "struct sockaddr *": {Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL, Kind.OUT},
    "struct user_msghdr *": {Kind.MSGHDR, Kind.INOUT},
    "struct mmsghdr *": {Kind.MMSGHDR, Kind.INOUT},
    "struct open_how *": {Kind.OPEN_HOW},
    "const struct xattr_args *": {Kind.XATTR_ARGS},
    "struct xattr_args *": {Kind.XATTR_ARGS_OUT},
    "struct utimbuf *": {Kind.UTIMBUF},
    "struct __kernel_old_timeval *": {Kind.TIMEVALS},
    "struct __kernel_timespec *": {Kind.TIMESPECS, Kind.INOUT},
    "struct mq_attr *": {Kind.MQ_ATTR},
    "const struct mnt_id_req *": {Kind.MNT_ID_REQ},
    "struct file_handle *": {Kind.HANDLE, Kind.INOUT},
    "struct mount_attr *": {Kind.BUFFER_IN},
    "union bpf_attr *": {Kind.BPF_ATTR},
    "struct stat *": {Kind.OUT},
    "struct statx *": {Kind.OUT},
    "struct statfs *": {Kind.OUT},
    "umode_t": {Kind.MODE},
}
"""What an argument of that type can be."""

PATH_NAMES = {
    "filename",
    "from_pathname",
    "dir_name",
    "new_root",
    "newname",
    "oldname",
    "path",
    "pathname",
    "put_old",
    "special",
    "specialfile",
    "to_pathname",
}
"""What the kernel calls the parameters that it looks up as paths."""
DIRFD_NAMES = {"dfd", "from_dfd", "newdfd", "olddfd", "to_dfd"}
FD_NAMES = {"fanotify_fd", "fd", "fs_fd", "group_fd", "mountdirfd", "ruleset_fd"}
OUT_NAMES = {"buf", "buffer", "list", "statbuf", "ubuf", "upeer_addrlen", "usockaddr_len"}
NAMES = (
    (PATH_NAMES, PATHS),
    (DIRFD_NAMES, {Kind.DIRFD}),
    (FD_NAMES, {Kind.FD}),
    (OUT_NAMES, WRITTEN),
    ({"at_flags", "flag"}, {Kind.AT_FLAGS}),
    ({"argv", "envp"}, {Kind.STRINGS}),
    ({"mode"}, {Kind.MODE}),
)
EXCEPTIONS = {
    ("symlink", "oldname"): {Kind.TEXT},
    ("symlinkat", "oldname"): {Kind.TEXT},
    ("execveat", "fd"): {Kind.DIRFD},
    ("acct", "name"): {Kind.PATH_OR_NULL},
    ("umount2", "name"): {Kind.PATH},
    ("name_to_handle_at", "name"): {Kind.PATH},
    ("mount", "type"): {Kind.WORD_OR_NULL},
    ("mount", "dev_name"): {Kind.SOURCE},
    ("getsockopt", "optval"): {Kind.INOUT},
    ("getsockopt", "optlen"): {Kind.INOUT},
    ("setsockopt", "optval"): {Kind.BUFFER_IN},
    ("getxattr", "value"): {Kind.OUT},
    ("lgetxattr", "value"): {Kind.OUT},
    ("fgetxattr", "value"): {Kind.OUT},
    ("connect", "uservaddr"): {Kind.SOCKADDR},
    ("bind", "umyaddr"): {Kind.SOCKADDR},
    ("sendto", "addr"): {Kind.SOCKADDR_OR_NULL},
    ("sendto", "buff"): {Kind.PAYLOAD},
    ("sendmsg", "msg"): {Kind.MSGHDR},
    ("sendmmsg", "mmsg"): {Kind.MMSGHDR},
    ("recvfrom", "addr"): {Kind.OUT},
    ("recvmsg", "msg"): {Kind.INOUT},
    ("recvmmsg", "mmsg"): {Kind.INOUT},
    ("file_getattr", "ufattr"): {Kind.OUT},
    ("file_setattr", "ufattr"): {Kind.BUFFER_IN},
}
SCALARS_IN_NO_POINTERS = {"ioperm", "pkey_alloc", "unshare"}
"""Calls with an ``unsigned long`` that holds no address: ports, rights, flags."""
ODD = {"rt_sigreturn"}
"""Reads the stack, without an argument for it."""
DATA = {"write", "pwrite64", "mq_timedsend"}
"""Exempt calls with a ``const char *`` that is no string."""


class Parameter(NamedTuple):
    type: str
    name: str

    @property
    def pointer(self) -> bool:
        return "*" in self.type or self.type in POINTER_TYPES


def _parse(text: str) -> Iterator[tuple[str, tuple[Parameter, ...]]]:
    for block in re.split(r"^name: sys_enter_", text, flags=re.MULTILINE)[1:]:
        name = block.partition("\n")[0]
        parameters = []
        for declaration in re.findall(r"^\tfield:([^;]*);", block, re.MULTILINE):
            kind, _, parameter = declaration.rpartition(" ")
            if not parameter.startswith(("common_", "__")):
                parameters.append(Parameter(kind.replace("* *", "**"), parameter))
        yield LISTED_AS.get(name, name), tuple(parameters)


@pytest.fixture(scope="module")
def listed() -> dict[str, tuple[Parameter, ...]]:
    if (TRACING / "events/syscalls").exists():
        script = f"cat {FORMATS}"
        command = ["sh", "-c", script]
    elif shutil.which("unshare"):
        script = f"mount -t tracefs tracefs {TRACING} && cat {FORMATS}"
        command = ["unshare", "--mount", "sh", "-c", script]
    else:
        pytest.skip("tracefs is not mounted and there is no unshare(1)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"tracefs cannot be read: {done.stderr.strip()}")
    calls = dict(_parse(done.stdout))
    assert len(calls) > 300, "this kernel lists its calls in a way that is not understood"
    return calls


@pytest.fixture(
    scope="module", params=[name for name in X86_64 if name not in LEFT_ALONE[NOT_THERE]]
)
def call(
    request: pytest.FixtureRequest, listed: dict[str, tuple[Parameter, ...]]
) -> tuple[str, tuple[Parameter, ...]]:
    name: str = request.param
    if name in listed:
        return name, listed[name]
    if name not in UNLISTED:
        pytest.skip(f"this kernel does not list {name}: too old, or built without it")
    words = {"p": "void *", "n": "int", "a": "unsigned long"}
    return name, tuple(Parameter(words[letter], f"_{letter}") for letter in UNLISTED[name])


def test_every_listed_call_has_a_number(listed: dict[str, tuple[Parameter, ...]]) -> None:
    assert set(listed) - set(X86_64) == set()


def test_what_is_written_by_hand_agrees_with_the_kernel(
    listed: dict[str, tuple[Parameter, ...]],
) -> None:
    for name, shape in UNLISTED.items():
        if name in listed:
            assert [letter == "p" for letter in shape] == [one.pointer for one in listed[name]]


def test_the_place_is_right(call: tuple[str, tuple[Parameter, ...]]) -> None:
    name, parameters = call
    if name in TABLE:
        _compare(TABLE[name], parameters)
    elif name in NO_POINTERS:
        assert not any(one.pointer for one in parameters)
        if name not in SCALARS_IN_NO_POINTERS:
            assert not any(one.type in ADDRESS_TYPES for one in parameters)
    else:
        addresses = [one for one in parameters if one.pointer or one.type in ADDRESS_TYPES]
        assert addresses or name in ODD, "no pointer to leave alone"
        for one in addresses:
            assert one.type != "const char *" or name in DATA, f"{one.name} may be a name"
            assert one.name not in PATH_NAMES
        written = next(names for reason, names in LEFT_ALONE.items() if "only written" in reason)
        if name in written:
            assert not any(one.pointer and "const" in one.type for one in parameters)


def _compare(row: Row, parameters: tuple[Parameter, ...]) -> None:
    assert len(row.arguments) == len(parameters)
    for (argument, kind), one in zip(row.arguments, parameters, strict=True):
        where = f"{row.name}: {argument} is {kind}, the kernel's is {one.type} {one.name}"
        if one.pointer:
            assert kind in POINTERS | {Kind.VARIES}, where
            assert "const" not in one.type or kind not in WRITTEN, where
        else:
            assert kind not in POINTERS, where
            assert kind is not Kind.VARIES or one.type in ADDRESS_TYPES, where
        assert kind in KINDS.get(one.type, set(Kind)), where
        wanted = EXCEPTIONS.get((row.name, one.name))
        for names, kinds in NAMES if wanted is None else ():
            if one.name in names:
                assert kind in kinds, where
        assert wanted is None or kind in wanted, where
        # The other way round: nothing else is taken for a path or a descriptor of its directory.
        if kind in PATHS and not one.name.startswith("_"):
            assert one.name in PATH_NAMES or wanted, where
        if kind is Kind.DIRFD:
            assert one.name in DIRFD_NAMES or wanted, where


def test_the_checks_bite(listed: dict[str, tuple[Parameter, ...]]) -> None:
    row = TABLE["statx"]
    _compare(row, listed["statx"])
    wrong = {
        "a lost argument": row.arguments[:-1],
        "a path taken for text": (row.arguments[0], ("path", Kind.TEXT), *row.arguments[2:]),
        "a pointer taken for a number": (*row.arguments[:4], ("out", Kind.NUMBER)),
        "a buffer taken for input": (*row.arguments[:4], ("out", Kind.BUFFER_IN)),
        "two in the wrong order": (row.arguments[1], row.arguments[0], *row.arguments[2:]),
    }
    for arguments in wrong.values():
        with pytest.raises(AssertionError):
            _compare(row._replace(arguments=arguments), listed["statx"])


# The names of functions that a 64-bit kernel has for 32-bit programs and for other architectures.
ELSEWHERE = re.compile(r"(16|32|_time32)$|^(ia32|old|s390)_|^(mmap_pgoff|ni_syscall)$")


def test_every_function_of_the_running_kernel_has_a_place() -> None:
    symbols = Path("/proc/kallsyms").read_text()
    functions = set(re.findall(r" __x64_sys_(\w+)$", symbols, re.MULTILINE))
    if not functions:
        pytest.skip("/proc/kallsyms does not show the kernel's functions")
    assert {"openat", "newfstat", "mseal"} <= functions
    others = set(syscalls().names())
    unknown = {LISTED_AS.get(name, name) for name in functions} - X86_64.keys() - others
    assert {name for name in unknown if not ELSEWHERE.search(name)} == set()


PROBE = """
import errno, sys
from pinfold.linux.libc import syscall
for number in map(int, sys.argv[1:]):
    try:
        syscall("?", number, -1, -1, -1, -1, -1, -1)
        answer = 0
    except OSError as error:
        answer = error.errno
    print(number, answer)
"""


def _answers(numbers: list[int]) -> dict[int, int]:
    command = [sys.executable, "-c", PROBE, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {int(one): int(other) for one, other in map(str.split, done.stdout.splitlines())}


def test_the_running_kernel_has_no_call_beyond_the_table() -> None:
    known = set(X86_64.values())
    unknown = [number for number in range(max(known) + 100) if number not in known]
    assert len(unknown) > 100
    answers = _answers(unknown)
    assert [number for number in unknown if answers[number] != errno.ENOSYS] == []


def test_what_is_said_to_be_nowhere_is_not_here() -> None:
    numbers = {name: X86_64[name] for name in LEFT_ALONE[NOT_THERE]}
    answers = _answers(list(numbers.values()))
    assert [name for name, number in numbers.items() if answers[number] != errno.ENOSYS] == []


def test_the_probe_tells_a_call_that_is_there() -> None:
    number = X86_64["close"]
    assert _answers([number]) == {number: errno.EBADF}
