"""The doctor against the running kernel, and against filters that take things away from it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pinfold import bpf, doctor
from pinfold.linux import landlock, libc, seccomp
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS
from tests.kernel.support import in_fork

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = {
    "machine",
    "user-notification",
    "notify-addfd",
    "mseal",
    "procmap-query",
    "ptrace",
    "memfd-seals",
    "trial-run",
}
OPTIONAL = {
    "kernel",
    "notify-continue",
    "sync-wake-up",
    "wait-killable",
    "native-ioctls",
    "native-run",
    "listener-redirect",
    "landlock",
    "memfd-exec",
}
NATIVE = (
    abi.SECCOMP_IOCTL_NOTIF_PIN_INSTALL,
    abi.SECCOMP_IOCTL_NOTIF_SEND_REDIRECT,
)
LOW = 0xFFFFFFFF
SECONDS = 60
NOBODY = 65534


def run(
    *options: str, before: Callable[[], object] | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs the doctor; ``before`` is called in its process before the exec."""
    return subprocess.run(
        [sys.executable, "-m", "pinfold", "doctor", *options],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **env},
        preexec_fn=before,
        close_fds=False,
    )


def run_json(before: Callable[[], object] | None = None) -> tuple[int, dict[str, Any]]:
    done = run("--json", before=before)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    report["by_name"] = {probe["name"]: probe for probe in report["probes"]}
    return done.returncode, report


def filtering(cases: dict[int, list[bpf.Case]], flags: int = 0) -> Callable[[], None]:
    """Returns what puts the calling process under a filter, and keeps its listener open."""
    code = bpf.compile_filter(
        cases,
        default=abi.SECCOMP_RET_ALLOW,
        arch=abi.AUDIT_ARCH_X86_64,
        wrong_arch=abi.SECCOMP_RET_KILL_PROCESS,
        x32=abi.SECCOMP_RET_KILL_PROCESS,
        minus_one=abi.SECCOMP_RET_ERRNO | errno.ENOSYS,
    )
    program = seccomp.FilterProgram(bpf.assemble(code))

    def install() -> None:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        listener = program.install(flags)
        if flags:
            os.set_inheritable(listener, True)

    return install


def refusing(name: str, number: int) -> Callable[[], None]:
    return filtering({X86_64[name]: [bpf.Case((), abi.SECCOMP_RET_ERRNO | number)]})


# A machine that can do it all


def test_table() -> None:
    done = run()
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    table, *_ = done.stdout.split("\n\n")
    rows = [line.split(None, 2) for line in table.splitlines()]
    assert {row[0] for row in rows} == REQUIRED | OPTIONAL
    assert all(len(row) == 3 for row in rows)
    columns = {
        line.index(f" {row[1]} ") for line, row in zip(table.splitlines(), rows, strict=True)
    }
    assert len(columns) == 1
    assert "native-ioctls: missing (not required)\n" in done.stdout
    assert "  costs:  " in done.stdout
    assert "  remedy: " in done.stdout
    assert done.stdout.endswith("`pinfold run` works here, on the trace back end.\n")


def test_json() -> None:
    code, report = run_json()
    by_name = report.pop("by_name")
    assert code == 0
    assert list(report) == ["ok", "backend", "kernel", "machine", "probes"]
    assert report["ok"] is True
    assert report["backend"] == "trace"
    assert (report["kernel"], report["machine"]) == (os.uname().release, os.uname().machine)
    assert len(by_name) == len(report["probes"])
    assert {name for name, probe in by_name.items() if probe["required"]} == REQUIRED
    assert {name for name, probe in by_name.items() if not probe["required"]} == OPTIONAL
    for probe in report["probes"]:
        assert list(probe) == ["name", "status", "detail", "cost", "remedy", "required"]
        assert probe["detail"]
        lacks = probe["status"] != "ok"
        assert bool(probe["cost"]) == lacks
        assert bool(probe["remedy"]) == lacks


def test_findings_are_true() -> None:
    _, report = run_json()
    by_name = report["by_name"]
    assert {by_name[name]["status"] for name in REQUIRED} == {"ok"}
    version = landlock.abi()
    assert by_name["landlock"]["detail"].startswith(f"ABI {version}")
    assert by_name["landlock"]["status"] == ("ok" if version >= 6 else "degraded")
    assert by_name["native-ioctls"]["status"] == "missing"
    assert " path calls judged and pinned" in by_name["trial-run"]["detail"]
    try:
        with open("/proc/sys/vm/memfd_noexec", encoding="ascii") as file:
            assert file.read().strip() in by_name["memfd-exec"]["detail"]
    except FileNotFoundError:
        pass


def test_no_escape_codes_in_a_pipe() -> None:
    assert "\x1b" not in run().stdout


@pytest.mark.parametrize(("no_colour", "coloured"), [("1", False), ("", True)])
def test_colour_on_a_terminal(no_colour: str, coloured: bool) -> None:
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "pinfold", "doctor"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": no_colour},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 (how a terminal says that nobody is left)
    finally:
        os.close(ours)
        assert child.wait(SECONDS) == 0
    assert (b"\x1b[" in shown) == coloured
    assert b"works here" in shown


# Things taken away


def test_no_ptrace() -> None:
    before = refusing("ptrace", errno.EPERM)
    code, report = run_json(before)
    assert code == 1
    assert report["ok"] is False
    assert report["backend"] is None
    lack = report["by_name"]["ptrace"]
    assert lack["status"] == "missing"
    assert lack["detail"].startswith("EPERM")
    assert "--cap-add=SYS_PTRACE" in lack["remedy"]
    trial = report["by_name"]["trial-run"]
    assert trial["status"] == "missing"
    assert "PTRACE_SEIZE" in trial["detail"]
    assert report["by_name"]["mseal"]["status"] == "ok"
    done = run(before=before)
    assert done.returncode == 1
    assert "\nptrace: missing (required)\n" in done.stdout
    assert done.stdout.endswith("`pinfold run` does not work here: ptrace, trial-run.\n")


def test_no_mseal() -> None:
    code, report = run_json(refusing("mseal", errno.ENOSYS))
    assert code == 1
    lack = report["by_name"]["mseal"]
    assert (lack["status"], lack["required"]) == ("missing", True)
    assert os.strerror(errno.ENOSYS) in lack["detail"]
    assert "6.10" in lack["remedy"]
    assert report["by_name"]["trial-run"]["status"] == "missing"
    assert report["by_name"]["ptrace"]["status"] == "ok"


def test_a_filter_that_kills() -> None:
    kill = [bpf.Case((), abi.SECCOMP_RET_KILL_PROCESS)]
    code, report = run_json(filtering({X86_64["mseal"]: kill}))
    assert code == 1
    assert "Bad system call" in report["by_name"]["mseal"]["detail"]


def test_inside_a_sandbox_with_a_listener() -> None:
    code, report = run_json(filtering({}, abi.SECCOMP_FILTER_FLAG_NEW_LISTENER))
    assert code == 1
    lack = report["by_name"]["user-notification"]
    assert lack["status"] == "missing"
    assert lack["detail"].startswith("EBUSY")
    assert "outside that sandbox" in lack["remedy"]
    assert "EBUSY" in report["by_name"]["trial-run"]["detail"]
    assert report["by_name"]["mseal"]["status"] == "ok"


def test_no_landlock_is_no_obstacle() -> None:
    code, report = run_json(refusing("landlock_create_ruleset", errno.EOPNOTSUPP))
    assert code == 0
    assert report["backend"] == "trace"
    lack = report["by_name"]["landlock"]
    assert (lack["status"], lack["required"]) == ("missing", False)
    assert "signal the supervisor" in lack["cost"]


# Answers that only another kernel would give, given by a filter instead


def answering(test: bpf.Arg, number: int, call: str = "ioctl") -> Callable[[], None]:
    return filtering({X86_64[call]: [bpf.Case((test,), abi.SECCOMP_RET_ERRNO | number)]})


def test_native_ioctls_are_recognised() -> None:
    answer = abi.SECCOMP_RET_ERRNO | errno.ENOENT
    present = [bpf.Case((bpf.Arg(1, LOW, number),), answer) for number in NATIVE]
    _, report = run_json(filtering({X86_64["ioctl"]: present}))
    assert report["by_name"]["native-ioctls"]["status"] == "ok"
    _, report = run_json(filtering({X86_64["ioctl"]: present[:1]}))
    assert report["by_name"]["native-ioctls"]["status"] == "degraded"
    assert report["by_name"]["native-ioctls"]["detail"] == "only PIN_INSTALL"


def test_no_sync_wake_up() -> None:
    flags = bpf.Arg(1, LOW, abi.SECCOMP_IOCTL_NOTIF_SET_FLAGS)
    code, report = run_json(answering(flags, errno.EINVAL))
    assert code == 0
    assert report["by_name"]["sync-wake-up"]["status"] == "missing"


def test_no_procmap_query() -> None:
    from pinfold.uapi.procmap import PROCMAP_QUERY

    code, report = run_json(answering(bpf.Arg(1, LOW, PROCMAP_QUERY), errno.ENOTTY))
    assert code == 1
    lack = report["by_name"]["procmap-query"]
    assert (lack["status"], lack["detail"]) == ("missing", "ENOTTY")
    assert "6.11" in lack["remedy"]


def test_no_executable_memfd() -> None:
    from pinfold.uapi.mman import MFD_EXEC

    test = bpf.Arg(1, MFD_EXEC, MFD_EXEC)
    code, report = run_json(answering(test, errno.EACCES, "memfd_create"))
    assert code == 0
    lack = report["by_name"]["memfd-exec"]
    assert (lack["status"], lack["required"]) == ("missing", False)


# What is left behind


def left_over() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_nothing_is_left_behind() -> None:
    def body() -> None:
        before = left_over()
        assert doctor.examine().ok
        assert left_over() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    in_fork(body, SECONDS)


def test_a_probe_that_hangs_is_ended_with_its_children() -> None:
    reader, writer = os.pipe()

    def hang() -> str:
        with doctor._partner(lambda: bool(signal.sigtimedwait([], SECONDS))):
            os.close(writer)
            time.sleep(SECONDS)
        return "unreachable"

    def body() -> None:
        before = left_over()
        found = doctor.probe(doctor.Trial("hang", "slept", hang, "c", "r", seconds=0.3))
        assert (found.status, found.detail) == (doctor.MISSING, "no answer within 0.3 seconds")
        assert left_over() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    in_fork(body, SECONDS)
    os.close(writer)
    assert os.read(reader, 1) == b""  # every process that held the other end is gone
    os.close(reader)


def test_a_probe_that_fails_is_a_finding() -> None:
    def fail() -> str:
        raise ZeroDivisionError("by zero")

    def leave() -> str:
        os._exit(3)

    found = doctor.probe(doctor.Trial("bug", "divided", fail, "cost", "remedy", required=True))
    assert found == (
        "bug",
        "divided",
        "missing",
        "ZeroDivisionError: by zero",
        "cost",
        "remedy",
        True,
    )
    found = doctor.probe(doctor.Trial("gone", "left", leave, "cost", "remedy"))
    assert found.status == doctor.MISSING
    assert "was ended" in found.detail


def test_ignored_children() -> None:
    done = run(before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert done.returncode == 0, done.stdout + done.stderr


def test_unprivileged() -> None:
    if os.geteuid() != 0:
        assert doctor.examine().ok
        return

    def body() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        report = doctor.examine()
        assert report.ok, report
        lacking = [one for one in report.probes if one.status == doctor.MISSING]
        assert [one.name for one in lacking] == ["native-ioctls", "native-run"], lacking

    in_fork(body, SECONDS)
