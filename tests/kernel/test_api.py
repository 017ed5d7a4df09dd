"""``pinfold.run`` as a library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

import pinfold
from pinfold import sandbox
from tests.kernel.support import PATIENCE, alive, execute
from tests.programs import build

DENY: Final = ("/nonexistent-pinfold",)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two files, each holding its name."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


def test_capture_output() -> None:
    done = pinfold.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert isinstance(done, pinfold.CompletedRun)
    assert isinstance(done, subprocess.CompletedProcess)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert done.args == ["sh", "-c", "echo out; echo err >&2; exit 3"]


def test_nothing_is_captured_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    done = pinfold.run(["echo", "out"], deny=DENY)
    assert done.stdout is None
    assert done.stderr is None
    assert capfd.readouterr().out == "out\n"


def test_text() -> None:
    done = pinfold.run(["printf", r"\303\251\r\n"], capture_output=True, text=True, deny=DENY)
    assert done.stdout == "é\n"
    latin = pinfold.run(["printf", r"\351"], capture_output=True, encoding="latin-1", deny=DENY)
    assert latin.stdout == "é"
    lax = pinfold.run(["printf", r"\351"], capture_output=True, errors="replace", deny=DENY)
    assert lax.stdout == "\ufffd"


def test_input() -> None:
    assert pinfold.run(["cat"], input=b"x" * 500_000, capture_output=True).stdout == b"x" * 500_000
    done = pinfold.run(["cat"], input="text", text=True, capture_output=True, deny=DENY)
    assert done.stdout == "text"
    # A command that does not read it.
    assert pinfold.run(["true"], input=b"x" * 500_000, deny=DENY).returncode == 0
    assert pinfold.run(["cat"], input=b"", capture_output=True).stdout == b""


def test_timeout_leaves_nothing() -> None:
    script = "setsid sh -c 'echo $$; exec sleep 300' & echo $$; wait"
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        pinfold.run(["sh", "-c", script], deny=DENY, timeout=3, capture_output=True)
    assert caught.value.stdout is not None
    pids = [int(word) for word in caught.value.stdout.split()]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_timeout_that_is_not_reached() -> None:
    assert pinfold.run(["true"], timeout=PATIENCE, deny=DENY).returncode == 0


def test_timeout_with_closed_output() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        pinfold.run(["sh", "-c", "exec sleep 300 >&- 2>&-"], timeout=1, capture_output=True)


def test_check() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        pinfold.run(["sh", "-c", "echo x; exit 3"], check=True, capture_output=True)
    assert (caught.value.returncode, caught.value.stdout) == (3, b"x\n")
    assert pinfold.run(["true"], check=True).returncode == 0


def test_the_end_by_a_signal() -> None:
    assert pinfold.run(["sh", "-c", "kill -9 $$"], deny=DENY).returncode == -9


def test_cwd(tree: Path) -> None:
    for cwd in (tree, str(tree), os.fsencode(tree)):
        done = pinfold.run(["cat", "one"], cwd=cwd, capture_output=True, deny=DENY)
        assert done.stdout == b"one\n"


def test_env() -> None:
    done = pinfold.run(["/usr/bin/env"], env={"A": "b"}, capture_output=True, deny=DENY)
    assert done.stdout == b"A=b\n"
    done = pinfold.run(["/usr/bin/env"], env={b"A": b"\xff"}, capture_output=True, deny=DENY)
    assert done.stdout == b"A=\xff\n"
    assert pinfold.run(["/usr/bin/env"], env={}, capture_output=True, deny=DENY).stdout == b""


def test_streams(tree: Path) -> None:
    with open(tree / "one") as source, open(tree / "copy", "w") as target:
        pinfold.run(["cat"], stdin=source, stdout=target, deny=DENY)
    assert (tree / "copy").read_text() == "one\n"
    done = pinfold.run(
        ["sh", "-c", "cat; echo out; echo err >&2"],
        stdin=sandbox.DEVNULL,
        stdout=sandbox.PIPE,
        stderr=sandbox.STDOUT,
        deny=DENY,
    )
    assert (done.stdout, done.stderr) == (b"out\nerr\n", None)
    quiet = pinfold.run(
        ["sh", "-c", "echo x; echo y >&2"], stdout=sandbox.DEVNULL, stderr=sandbox.PIPE
    )
    assert (quiet.stdout, quiet.stderr) == (None, b"y\n")
    assert (sandbox.PIPE, sandbox.STDOUT, sandbox.DEVNULL) == (
        subprocess.PIPE,
        subprocess.STDOUT,
        subprocess.DEVNULL,
    )


def test_wrong_combinations() -> None:
    with pytest.raises(ValueError, match="input"):
        pinfold.run(["cat"], input=b"", stdin=sandbox.DEVNULL)
    with pytest.raises(ValueError, match="capture_output"):
        pinfold.run(["cat"], stdout=sandbox.DEVNULL, capture_output=True)


OPEN: Final = (
    "import os; print([fd for fd in range(3, 256) if os.path.exists(f'/proc/self/fd/{fd}')"
    " and not os.readlink(f'/proc/self/fd/{fd}').startswith('/proc/')])"
)


def test_descriptors_that_pass_and_others_that_do_not() -> None:
    readers = [os.pipe() for _ in range(3)]
    ends = [fd for pair in readers for fd in pair]
    try:
        for fd in ends:
            os.set_inheritable(fd, True)
        keep = readers[1][1]
        done = pinfold.run(
            [sys.executable, "-c", OPEN], pass_fds=[keep], capture_output=True, text=True, deny=DENY
        )
        assert done.stdout == f"[{keep}]\n"
        done = pinfold.run(
            ["bash", "-c", f"echo x >&{keep}"], pass_fds=[keep], capture_output=True, deny=DENY
        )
        assert done.returncode == 0
        assert os.read(readers[1][0], 9) == b"x\n"
    finally:
        for fd in ends:
            os.close(fd)


def test_a_descriptor_that_passes_need_not_be_inheritable() -> None:
    reader, writer = os.pipe()
    try:
        done = pinfold.run(
            ["bash", "-c", f"echo x >&{writer}"], pass_fds=[writer], capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert os.read(reader, 9) == b"x\n"
        assert not os.get_inheritable(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_no_descriptor_of_ours_is_used_up(tree: Path) -> None:
    pinfold.run(["true"], deny=DENY)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pinfold.run(["cat", tree / "one"], deny=DENY, audit=True, capture_output=True, input=b"")
        with pytest.raises(pinfold.LaunchError):
            pinfold.run([tree / "none"], deny=DENY, capture_output=True)
        with pytest.raises(subprocess.TimeoutExpired):
            pinfold.run(["sleep", "300"], deny=DENY, capture_output=True, timeout=0.2)
    assert set(os.listdir("/proc/self/fd")) == before


def test_counts_and_records(tree: Path) -> None:
    done = pinfold.run(
        ["cat", "one", "two", "three"],
        map={f"{tree}/three": f"{tree}/one"},
        deny=[f"{tree}/two"],
        audit=True,
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "one\none\n"
    assert (done.denied, done.redirected) == (1, 1)
    assert done.audit is not None
    verdicts = [record["verdict"] for record in done.audit]
    assert (verdicts.count("deny"), verdicts.count("redirect")) == (1, 1)
    redirect = next(record for record in done.audit if record["verdict"] == "redirect")
    assert redirect["substituted"] == {"path": {"from": "three", "to": f"{tree}/one"}}


def test_records_only_when_asked_for(tree: Path) -> None:
    assert pinfold.run(["true"], deny=DENY).audit is None
    log = tree / "log"
    assert pinfold.run(["true"], audit=log).audit is None
    assert log.read_text().count("\n") > 0


def test_maps_in_each_form(tree: Path) -> None:
    for form in (
        {f"{tree}/x=y": f"{tree}/one"},
        [(f"{tree}/x=y", f"{tree}/one")],
        [(os.fsencode(tree) + b"/x=y", tree / "one")],
    ):
        done = pinfold.run(["cat", tree / "x=y"], map=form, capture_output=True)
        assert done.stdout == b"one\n"


def test_landlock(tree: Path) -> None:
    system = [path for path in ("/usr", "/bin", "/lib", "/lib64") if Path(path).exists()]
    (tree / "other").mkdir()
    done = pinfold.run(
        ["sh", "-c", "echo x > other/made; cat one"],
        ro=system,
        rw=[tree / "other"],
        cwd=tree,
        capture_output=True,
    )
    assert done.returncode != 0
    assert b"ermission denied" in done.stderr
    assert (tree / "other/made").read_text() == "x\n"


def test_four_threads_at_once(tree: Path) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> list[str]:
        name = tree / f"own-{number}"
        name.write_text(f"{number}")
        barrier.wait(PATIENCE)
        found = []
        for _ in range(4):
            done = pinfold.run(
                ["cat", tree / "mine", tree / "denied"],
                map={str(tree / "mine"): str(name)},
                deny=[tree / "denied"],
                capture_output=True,
                text=True,
            )
            assert done.denied == 1
            assert done.redirected == 1
            found.append(done.stdout)
        return found

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(work, range(4))):
            assert found == [str(number)] * 4


def test_the_host_is_dumpable_again_in_the_end() -> None:
    pinfold.run(["true"], deny=DENY)
    code = (
        "import ctypes, pinfold; dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "before = dumpable(); pinfold.run(['true'], deny=['/x']); print(before, dumpable())"
    )
    assert execute([sys.executable, "-c", code]).stdout == "1 1\n"


def test_other_children_are_not_reaped() -> None:
    with subprocess.Popen(["sh", "-c", "exit 5"]) as early:
        os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT)
        with subprocess.Popen(["sh", "-c", "read x; exit 6"], stdin=subprocess.PIPE) as late:
            assert pinfold.run(["sh", "-c", "true & true & wait"], deny=DENY).returncode == 0
            assert late.poll() is None
            late.communicate(b"\n", PATIENCE)
            assert late.returncode == 6
        assert early.wait(PATIENCE) == 5


def test_threads_of_the_host_run_on() -> None:
    reader, writer = os.pipe()
    seen: list[bytes] = []
    thread = threading.Thread(target=lambda: seen.append(os.read(reader, 9)))
    thread.start()
    try:
        assert pinfold.run(["true"], deny=DENY).returncode == 0
        os.write(writer, b"x")
    finally:
        thread.join(PATIENCE)
        os.close(reader)
        os.close(writer)
    assert seen == [b"x"]


@pytest.mark.parametrize(
    "options",
    [
        {"deny": ["relative"]},
        {"deny": ["/a["]},
        {"map": {"": "/a"}},
        {"map": {"/a": ""}},
        {"map": [("/a", "/b"), ("/a", "/c")]},
        {"map": {"/a\0": "/b"}},
        {"ro": ["/nonexistent"]},
    ],
)
def test_malformed_policies(options: dict[str, object]) -> None:
    with pytest.raises(pinfold.PolicyError) as caught:
        pinfold.run(["true"], **options)  # type: ignore[arg-type]  # what a user may get wrong
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("args", [[], "true", b"true"])
def test_malformed_commands(args: object) -> None:
    with pytest.raises(pinfold.PolicyError):
        pinfold.run(args)  # type: ignore[arg-type]  # what a user may get wrong


def test_commands_that_cannot_be_started(tree: Path) -> None:
    for command, code in (
        ("no-such-command", 127),
        (tree / "none", 127),
        (tree, 126),
        (tree / "one", 126),
    ):
        with pytest.raises(pinfold.LaunchError) as caught:
            pinfold.run([command], deny=DENY)
        assert caught.value.exit_code == code


def test_a_denied_command_names_the_rule(tree: Path) -> None:
    with pytest.raises(pinfold.LaunchError, match=r"rule: deny /\*\*/true") as caught:
        pinfold.run(["true"], deny=["/**/true"])
    assert caught.value.exit_code == 126


def test_a_directory_that_is_not_there(tree: Path) -> None:
    with pytest.raises(pinfold.LaunchError, match="working directory") as caught:
        pinfold.run(["true"], cwd=tree / "none")
    assert caught.value.exit_code == 125


def test_a_32_bit_command() -> None:
    with pytest.raises(pinfold.LaunchError, match="32-bit") as caught:
        pinfold.run([build("i386", "-m32", "-nostdlib", "-static")], deny=DENY)
    assert caught.value.exit_code == 126


def test_a_log_that_cannot_be_written(tree: Path) -> None:
    with pytest.raises(pinfold.AuditError, match="No space left"):
        pinfold.run(["touch", tree / "made"], audit="/dev/full")
    assert not (tree / "made").exists()


def test_a_nul_byte_in_an_argument(tree: Path) -> None:
    for options in (
        {"args": ["echo", "a\0b"]},
        {"args": ["true"], "env": {"A": "b\0"}},
        {"args": ["true"], "cwd": "/a\0b"},
    ):
        with pytest.raises((ValueError, pinfold.PinfoldError)):
            pinfold.run(**options)


def test_a_process_that_ignores_its_children_is_told() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(pinfold.UnsupportedError, match="SIGCHLD"):
            pinfold.run(["true"])
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_command_line_copes_with_ignored_children() -> None:
    script = 'trap "" CHLD; exec "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "pinfold", "run"]
    done = subprocess.run(
        [*command, "--deny", "/x", "--", "sh", "-c", "exit 3"], timeout=60, check=False
    )
    assert done.returncode == 3
