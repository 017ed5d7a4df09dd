"""Confinement as COMMAND meets it. It cannot be taken off again, so each test confines a child."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.errors import PolicyError, UnsupportedError
from pinfold.launch import confine
from pinfold.linux import caps, landlock, libc
from pinfold.uapi import landlock as abi
from pinfold.uapi.prctl import (
    CAP_NET_RAW,
    CAP_SETPCAP,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    PR_CAP_AMBIENT,
    PR_SET_NO_NEW_PRIVS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ABI = landlock.abi()
SECONDS = 30
PR_CAP_AMBIENT_RAISE = 2
NOBODY = 65534
SYSTEM = [
    name
    for name in (b"/usr", b"/bin", b"/lib", b"/lib64", b"/etc/ld.so.cache")
    if os.path.exists(name)
]

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not caps.effective() >> CAP_SETPCAP & 1,
    reason="needs root with CAP_SETPCAP: capabilities to give up, identities to change to",
)
needs_landlock = pytest.mark.skipif(ABI < 2, reason="needs a kernel with Landlock, ABI 2")
needs_scope = pytest.mark.skipif(ABI < 6, reason="needs Landlock ABI 6: signal scope")


def in_child(body: Callable[[], Any]) -> Any:
    """Returns what ``body`` returned in a forked child; fails on an exception there or no answer.

    The child leads a process group, which is killed afterwards: nothing stays behind.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.close(reader)
            try:
                answer = {"value": body()}
            except BaseException:  # noqa: BLE001 (reported to the parent, which fails)
                answer = {"raised": traceback.format_exc()}
            data = json.dumps(answer).encode()
            while data:
                data = data[os.write(writer, data) :]
        finally:
            os._exit(0)
    os.close(writer)
    received = b""
    end = time.monotonic() + SECONDS
    try:
        while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            piece = os.read(reader, 65536)
            if not piece:
                break
            received += piece
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # the group may be empty or not there yet
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert received, "the child gave no answer"
    answer = json.loads(received)
    assert "raised" not in answer, answer["raised"]
    return answer["value"]


def confined(
    body: Callable[[], Any],
    ro: Sequence[bytes] = (),
    rw: Sequence[bytes] = (),
    keep_caps: bool = False,
) -> Any:
    """Returns what ``body`` returned in a confined child."""
    with confine.prepare(ro, rw, keep_caps) as confinement:

        def run() -> Any:
            confinement.apply()
            return body()

        return in_child(run)


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def outcome(call: Callable[[], object]) -> str:
    """Returns "ok" or the name of the errno."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def status(*names: str) -> dict[str, int]:
    """Returns fields of ``/proc/self/status`` as a program sees them after an exec."""
    done = subprocess.run(["/bin/cat", "/proc/self/status"], check=True, capture_output=True)
    fields = dict(line.split(":", 1) for line in done.stdout.decode().splitlines())
    return {name: int(fields[name], 16) for name in names}


def signal_family() -> dict[str, str]:
    """Returns what happens to harmless signals sent to the parent and to an own child."""
    parent = os.getppid()
    own = subprocess.Popen(["/bin/sleep", "60"])
    answers = {
        "parent, nothing": outcome(lambda: os.kill(parent, 0)),
        "parent": outcome(lambda: os.kill(parent, signal.SIGWINCH)),
        "own": outcome(lambda: os.kill(own.pid, signal.SIGKILL)),
        "self": outcome(lambda: os.kill(os.getpid(), signal.SIGWINCH)),
    }
    assert own.wait(SECONDS) == -signal.SIGKILL
    return answers


REFUSED = {"parent, nothing": "EPERM", "parent": "EPERM", "own": "ok", "self": "ok"}


@needs_scope
def test_the_parent_cannot_be_signalled() -> None:
    assert confined(signal_family) == REFUSED
    assert confined(signal_family, keep_caps=True) == REFUSED


def test_without_confinement_it_can() -> None:
    assert in_child(signal_family) == dict.fromkeys(REFUSED, "ok")


def read_memory_of_parent() -> str:
    return outcome(lambda: os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)))


@needs_landlock
def test_the_memory_of_the_parent_is_out_of_reach_with_all_capabilities() -> None:
    assert in_child(read_memory_of_parent) == "ok"
    assert confined(read_memory_of_parent, keep_caps=True) == "EACCES"


@needs_root
@needs_scope
def test_unprivileged() -> None:
    def supervisor() -> Any:
        become_nobody()
        names = "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs"
        return (
            in_child(signal_family),
            confined(signal_family),
            confined(read_memory_of_parent),
            confined(lambda: status(*names)),
            confine.prepare([], [], True).warnings,
        )

    free, bound, memory, fields, warnings = in_child(supervisor)
    assert free == dict.fromkeys(REFUSED, "ok")
    assert bound == REFUSED
    assert memory == "EACCES"
    assert fields == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0, "NoNewPrivs": 1}
    assert warnings == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A world where ``in`` is to be allowed and ``out`` is not."""
    for name in ("in", "in/sub", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    script = tmp_path / "in" / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    return tmp_path


def attempts(tree: Path) -> dict[str, str]:
    inside, outside = str(tree / "in"), str(tree / "out")

    def opened(path: str, flags: int) -> None:
        os.close(os.open(path, flags, 0o600))

    def executed() -> None:
        done = subprocess.run([inside + "/script"], check=True, capture_output=True)
        assert done.stdout == b"ran\n"

    calls: dict[str, Callable[[], object]] = {
        "execute": executed,
        "read": lambda: opened(inside + "/file", os.O_RDONLY),
        "list": lambda: os.listdir(inside + "/sub"),
        "write": lambda: opened(inside + "/file", os.O_WRONLY),
        "truncate": lambda: os.truncate(inside + "/file", 0),
        "create": lambda: opened(inside + "/new", os.O_WRONLY | os.O_CREAT),
        "make directory": lambda: os.mkdir(inside + "/newdir"),
        "symlink": lambda: os.symlink("x", inside + "/newlink"),
        "move": lambda: os.rename(inside + "/sub/file", inside + "/moved"),
        "remove": lambda: os.unlink(inside + "/file"),
        "read outside": lambda: opened(outside + "/file", os.O_RDONLY),
        "list outside": lambda: os.listdir(outside),
        "write outside": lambda: opened(outside + "/file", os.O_WRONLY),
        "create outside": lambda: opened(outside + "/new", os.O_WRONLY | os.O_CREAT),
        "move outside": lambda: os.rename(inside + "/script", outside + "/script"),
    }
    return {name: outcome(call) for name, call in calls.items()}


def split(answers: dict[str, str]) -> tuple[set[str], set[str]]:
    """Returns the names of what worked and the errnos of the rest."""
    refused = {answer for answer in answers.values() if answer != "ok"}
    return {name for name, answer in answers.items() if answer == "ok"}, refused


@needs_landlock
def test_read_only(tree: Path) -> None:
    ro = [os.fsencode(tree / "in"), *SYSTEM]
    worked, errors = split(confined(lambda: attempts(tree), ro=ro))
    assert worked == {"execute", "read", "list"}
    assert errors == {"EACCES"}


@needs_landlock
def test_read_write(tree: Path) -> None:
    answers = confined(lambda: attempts(tree), ro=SYSTEM, rw=[os.fsencode(tree / "in")])
    worked, errors = split(answers)
    assert worked == {name for name in answers if "outside" not in name}
    assert errors == {"EACCES"}


@needs_landlock
def test_no_paths_restrict_no_files(tree: Path) -> None:
    answers = confined(lambda: attempts(tree))
    assert answers == dict.fromkeys(answers, "ok")


@needs_landlock
def test_single_files(tree: Path) -> None:
    readable, writable, link = tree / "in/file", tree / "out/file", tree / "link"
    link.symlink_to(writable)

    def body() -> dict[str, str]:
        return {
            "read": outcome(readable.read_text),
            "write": outcome(lambda: readable.write_text("x")),
            "sibling": outcome((tree / "in/script").read_text),
            "write the other": outcome(lambda: writable.write_text("x")),
            "remove the other": outcome(writable.unlink),
        }

    assert confined(body, ro=[os.fsencode(readable)], rw=[os.fsencode(link)]) == {
        "read": "ok",
        "write": "EACCES",
        "sibling": "EACCES",
        "write the other": "ok",
        "remove the other": "EACCES",
    }


@needs_root
def test_capabilities_of_root_after_exec() -> None:
    expected = caps.mask(caps.CONTAINER_DEFAULT) & caps.bounding()
    assert expected != caps.bounding(), "nothing to give up, so this test would test nothing"
    names = "CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs"
    assert confined(lambda: status(*names)) == {
        "CapBnd": expected,
        "CapPrm": expected,
        "CapEff": expected,
        "CapInh": 0,
        "CapAmb": 0,
        "NoNewPrivs": 1,
    }


@needs_root
def test_inheritable_and_ambient_capabilities_do_not_survive() -> None:
    def body() -> Any:
        caps._set(caps.effective(), caps.permitted(), 1 << CAP_NET_RAW)
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW)
        return status("CapInh", "CapAmb"), confined(lambda: status("CapInh", "CapAmb"))

    before, after = in_child(body)
    assert before == {"CapInh": 1 << CAP_NET_RAW, "CapAmb": 1 << CAP_NET_RAW}
    assert after == {"CapInh": 0, "CapAmb": 0}


@needs_root
def test_capabilities_can_be_kept_and_the_user_is_told() -> None:
    before = status("CapBnd", "CapPrm", "CapEff")
    assert before["CapEff"] >> CAP_SYS_ADMIN & 1
    assert confined(lambda: status("CapBnd", "CapPrm", "CapEff"), keep_caps=True) == before
    with confine.prepare([], [], keep_caps=True) as confinement:
        assert "every capability" in confinement.warnings[-1]


@needs_root
def test_without_setpcap_the_held_capabilities_still_shrink() -> None:
    def body() -> Any:
        everything = frozenset(range(64))
        caps.limit_held(everything - {CAP_SETPCAP})
        refused = outcome(lambda: caps.limit_to(caps.CONTAINER_DEFAULT))
        return refused, confined(lambda: status("CapPrm", "CapEff"))

    refused, held = in_child(body)
    expected = caps.mask(caps.CONTAINER_DEFAULT - {CAP_SETPCAP}) & caps.effective()
    assert refused == "EPERM"
    assert held == {"CapPrm": expected, "CapEff": expected}


@needs_root
def test_limit_to_keeps_what_is_asked_and_held() -> None:
    both = frozenset({CAP_NET_RAW, CAP_SYS_PTRACE})

    def body() -> Any:
        caps.limit_to(both)
        # without CAP_SETPCAP the bounding set cannot shrink further, and needs not to grow
        return (
            outcome(lambda: caps.limit_to(frozenset({CAP_NET_RAW}))),
            outcome(lambda: caps.limit_to(caps.CONTAINER_DEFAULT | both)),
            [caps.effective(), caps.permitted(), caps.bounding()],
        )

    assert in_child(body) == ["EPERM", "ok", [caps.mask(both)] * 3]


def test_capability_sets_as_the_kernel_shows_them() -> None:
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    shown = [int(fields[name], 16) for name in ("CapBnd", "CapPrm", "CapEff")]
    assert [caps.bounding(), caps.permitted(), caps.effective()] == shown


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@needs_landlock
@pytest.mark.parametrize("kind", ["ro", "rw"])
def test_a_path_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    paths = [b"/", os.fsencode(tmp_path / "missing")]
    before = descriptors()
    with pytest.raises(PolicyError, match=r"/missing' cannot be allowed: No such file"):
        confine.prepare(paths if kind == "ro" else [], paths if kind == "rw" else [], False)
    with pytest.raises(PolicyError, match="embedded null"):
        confine.prepare([b"/\0"], [], False)
    assert descriptors() == before


@needs_landlock
def test_closing_leaves_no_descriptor_and_may_be_repeated() -> None:
    before = descriptors()
    confinement = confine.prepare([b"/"], [], False)
    assert len(descriptors() - before) == 1
    assert not os.get_inheritable(confinement.descriptor)
    confinement.close()
    confinement.close()
    assert descriptors() == before
    assert confinement.descriptor == -1


@needs_landlock
def test_a_read_only_path_within_a_writable_one_is_pointed_out(tree: Path) -> None:
    (tree / "link").symlink_to(tree / "in")
    ro = [os.fsencode(tree / "link/sub"), os.fsencode(tree / "out")]
    with confine.prepare(ro, [os.fsencode(tree / "in")], False) as confinement:
        (warning,) = confinement.warnings
    assert "link/sub' is not read-only" in warning


def test_kernel_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (0, 1):
        monkeypatch.setattr(landlock, "abi", lambda version=version: version)
        for ro, rw in (([b"/"], []), ([], [b"/"])):
            with pytest.raises(UnsupportedError, match=r"need Landlock.*`lsm=`"):
                confine.prepare(ro, rw, False)
        with confine.prepare([], [], False) as confinement:
            (warning,) = confinement.warnings
            assert confinement.descriptor == -1
        assert "can signal the supervisor" in warning
        assert "lsm=" in warning
        # the warning is true
        assert confined(signal_family) == dict.fromkeys(REFUSED, "ok")
        assert confined(lambda: status("NoNewPrivs")) == {"NoNewPrivs": 1}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EFAULT])
def test_errors_that_mean_no_landlock(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(libc, "syscall", refuse)
    if number == errno.EFAULT:
        with pytest.raises(OSError, match="refused"):
            landlock.abi()
    else:
        assert landlock.abi() == 0


@pytest.mark.parametrize(("scoped", "size"), [(0, 8), (abi.LANDLOCK_SCOPE_SIGNAL, 24)])
def test_a_kernel_is_not_shown_fields_that_it_need_not_know(
    scoped: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def record(_name: str, _number: int, _attr: int, size: int, _flags: int) -> int:
        sizes.append(size)
        return -1

    monkeypatch.setattr(libc, "syscall", record)
    landlock.create_ruleset(1, scoped)
    assert sizes == [size]


@needs_landlock
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_kernel_whose_landlock_has_no_scopes(
    version: int, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version > ABI:
        pytest.skip(f"needs Landlock ABI {version}")
    monkeypatch.setattr(landlock, "abi", lambda: version)
    with confine.prepare([], [], False) as confinement:
        (warning,) = confinement.warnings
    assert f"ABI {version} does not cover signals" in warning
    assert confined(signal_family)["parent"] == "ok"
    # the domain is there, and takes nothing away: not even moves between directories
    assert confined(read_memory_of_parent, keep_caps=True) == "EACCES"
    answers = confined(lambda: attempts(tree))
    assert answers == dict.fromkeys(answers, "ok")
    # the kernel accepts each version's rights, for directories and for files
    with confine.prepare([b"/usr"], [b"/tmp", b"/dev/null"], False):
        pass


@needs_landlock
def test_an_empty_ruleset_is_why_something_must_be_handled() -> None:
    with pytest.raises(OSError, match="landlock_create_ruleset") as caught:
        landlock.create_ruleset(0, 0)
    assert caught.value.errno == errno.ENOMSG
    with pytest.raises(OSError, match="landlock_create_ruleset"):
        landlock.create_ruleset(1 << 63, 0)


@needs_landlock
def test_errors_of_rules() -> None:
    ruleset = landlock.create_ruleset(abi.LANDLOCK_ACCESS_FS_READ_FILE, 0)
    reader, writer = os.pipe()
    root = os.open("/", os.O_PATH)

    def adding(fd: int, access: int) -> str:
        return outcome(lambda: landlock.allow_beneath(ruleset, fd, access))

    try:
        assert adding(root, abi.LANDLOCK_ACCESS_FS_READ_FILE) == "ok"
        assert adding(root, abi.LANDLOCK_ACCESS_FS_READ_DIR) == "EINVAL"
        assert adding(root, 0) == "ENOMSG"
        assert adding(reader, abi.LANDLOCK_ACCESS_FS_READ_FILE) == "EBADFD"
    finally:
        for fd in (ruleset, reader, writer, root):
            os.close(fd)

    def without_ruleset() -> str:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        return outcome(lambda: landlock.restrict_self(-1))

    assert in_child(without_ruleset) == "EBADF"
