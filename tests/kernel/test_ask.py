"""A person at a terminal is asked, and nothing else passes for an answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import termios
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.cli.question import question
from pinfold.codec.sockaddr import Abstract, Inet, Unix
from tests.kernel.support import PATIENCE, PINFOLD, Terminal, pinfold
from tests.programs import ROOT
from tests.unit.policy.trapped import trapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROMPT = r"never \[v\]( \(\d+ s, then deny\))?\? "
QUESTION = r"pinfold: a rule asks: may {} \(process 1000\) make this call\?$"
EDITOR = QUESTION.format("/usr/bin/editor")


class Asking(Terminal):
    """A process of ``asking`` at a terminal."""

    def __init__(self, scenario: str, directory: Path) -> None:
        self.answers = directory / "answers"
        self.answers.touch()
        self._go = directory / "go"
        os.mkfifo(self._go)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        module = [sys.executable, "-m", "tests.kernel.asking"]
        super().__init__([*module, scenario, self.answers, self._go], environment)

    def __enter__(self) -> Asking:
        return self

    def go(self) -> None:
        """Lets the process go on."""
        with open(self._go, "w"):
            pass

    def answer(self, *lines: str) -> None:
        """Waits for a question each, and types the answer."""
        for line in lines:
            self.expect(PROMPT)
            self.send(line)

    def hang_up(self) -> None:
        """Closes the terminal."""
        with open(os.devnull, "rb") as other:
            os.dup2(other.fileno(), self._master, inheritable=False)

    def told(self) -> list[str]:
        """Waits for the end; returns what was written down."""
        assert self.status() == 0, self.seen
        return self.answers.read_text().splitlines()


YES = "allow 0 a rule (allowed once)"
NO = "deny 13 a rule (denied once)"


def test_the_four_answers(tmp_path: Path) -> None:
    with Asking("plain", tmp_path) as terminal:
        terminal.expect(EDITOR)
        terminal.expect(r"^pinfold:   openat O_RDONLY, mode 0o0$")
        terminal.expect(r"^pinfold:   path: /etc/hosts \(read\)$")
        terminal.answer("y\n")
        terminal.expect(r"path: /etc/passwd")
        terminal.answer("n\n", "a\n")
        # The fourth one is known; the other one is asked about again.
        terminal.expect(r"path: /etc/passwd")
        terminal.answer("v\n")
        assert terminal.told() == [
            YES,
            NO,
            *["allow 0 a rule (always)"] * 2,
            "deny 13 a rule (never)",
        ]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("\n", NO),
        ("N\r", NO),
        ("yes\n", YES),
        ("x\x7fy\n", YES),
        ("nonsense\x15y\n", YES),
        ("\x7f\x7fy\n", YES),
        ("\x04", "deny 13 a rule (end of input)"),
        # What comes after an answer answers nothing.
        ("\ny\ny\n", NO),
        ("y\n\x03", YES),
    ],
)
@pytest.mark.parametrize("scenario", ["one", "raw"])
def test_typing(typed: str, told: str, scenario: str, tmp_path: Path) -> None:
    with Asking(scenario, tmp_path) as terminal:
        terminal.answer(typed)
        assert terminal.told() == [told, "same mode"]


@pytest.mark.parametrize("line", ["what\n", "yy\n", "\x1b[A\n", "\u00fc\n", "y" * 500 + "\n"])
def test_three_tries(line: str, tmp_path: Path) -> None:
    with Asking("one", tmp_path) as terminal:
        terminal.answer(line, line, line)
        terminal.expect(r"^pinfold: denied: no answer in three tries$")
        assert terminal.told() == ["deny 13 a rule (no answer in three tries)", "same mode"]
    with_second_thoughts = tmp_path / "again"
    with_second_thoughts.mkdir()
    with Asking("one", with_second_thoughts) as terminal:
        terminal.answer(line, line, "y\n")
        assert terminal.told() == [YES, "same mode"]


def test_interrupts_deny_and_are_passed_on(tmp_path: Path) -> None:
    with Asking("interrupted", tmp_path) as terminal:
        terminal.answer("y\x03")
        terminal.expect(r"^pinfold: denied: interrupted$")
        assert terminal.told() == ["deny 13 a rule (interrupted)", "interrupt True"]


def test_what_was_typed_before_is_no_answer(tmp_path: Path) -> None:
    with Asking("early", tmp_path) as terminal:
        terminal.expect(r"^ready\n")
        terminal.send("a\ny\n")
        # Its echo says that the terminal has it.
        terminal.expect(r"^a\ny$")
        terminal.go()
        terminal.answer("n\n")
        assert terminal.told() == [NO]


def test_time_is_limited(tmp_path: Path) -> None:
    with Asking("slow", tmp_path) as terminal:
        terminal.expect(PROMPT)
        terminal.expect(r"^pinfold: denied: no answer in time$")
        assert terminal.told() == ["deny 13 a rule (no answer in time)"]


def test_time_is_limited_where_nothing_can_be_shown(tmp_path: Path) -> None:
    with Asking("stopped", tmp_path) as terminal:
        assert terminal.told() == ["deny 13 a rule (the terminal failed: it takes no output)"]


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    with Asking("hostile", tmp_path) as terminal:
        terminal.answer("n\n")
        assert terminal.told() == [NO]
    assert re.sub(r"[\n\x20-\x7e…]", "", terminal.seen) == ""
    lines = terminal.seen.splitlines()
    assert sum("never [v]" in line for line in lines) == 1
    assert all(line.startswith("pinfold: ") for line in lines if line)
    assert r"/\x1b[2J\r\npinfold: allow once [y]\x07\x9b1m\u202e\xff" in terminal.seen
    # The end of what is too long is shown, and what comes after it.
    assert "more characters" in terminal.seen
    assert '"end"]' in terminal.seen


def test_nobody_is_asked_from_the_background(tmp_path: Path) -> None:
    with Asking("background", tmp_path) as terminal:
        assert terminal.told() == [
            "opened False",
            "deny 13 a rule (pinfold is not in the foreground of the terminal)",
        ]
    assert "allow once" not in terminal.seen


def test_nobody_is_asked_without_a_terminal(tmp_path: Path) -> None:
    told = tmp_path / "told"
    module = [sys.executable, "-m", "tests.kernel.asking"]
    command = ["setsid", "--wait", *module, "nowhere", str(told)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert told.read_text() == "opened False\n"


def test_nobody_waits_for_the_answer(tmp_path: Path) -> None:
    with Asking("cancelled", tmp_path) as terminal:
        terminal.expect(EDITOR)
        terminal.expect(PROMPT)
        terminal.go()
        terminal.expect(r"^pinfold: denied: nobody waits for the answer any more$")
        terminal.expect(QUESTION.format("/bin/rm"))
        terminal.answer("y\n")
        assert terminal.told() == [YES]
    assert "/etc/passwd" not in terminal.seen


def test_the_run_ends_while_a_question_is_shown(tmp_path: Path) -> None:
    with Asking("closed", tmp_path) as terminal:
        terminal.expect(PROMPT)
        terminal.go()
        assert sorted(terminal.told()) == [
            *["deny 13 a rule (the run is over)"] * 3,
            "same mode",
            "threads 1",
        ]


def test_the_process_ends_while_a_question_is_shown(tmp_path: Path) -> None:
    with Asking("exits", tmp_path) as terminal:
        terminal.expect(PROMPT)
        assert not termios.tcgetattr(terminal._master)[3] & termios.ECHO
        terminal.go()
        assert terminal.process.wait(PATIENCE) == 7
        assert termios.tcgetattr(terminal._master)[3] & termios.ECHO


def test_one_question_at_a_time(tmp_path: Path) -> None:
    with Asking("together", tmp_path) as terminal:
        for number in (1, 2, 3, 4):
            terminal.expect(rf"path: /{number} \(write\)$")
            terminal.answer("a\n")
        assert terminal.told() == ["allow 0 a rule (always)"] * 5
    assert terminal.seen.count("asks: may") == 4


def test_the_terminal_hangs_up(tmp_path: Path) -> None:
    terminal = Asking("gone", tmp_path)
    with terminal:
        terminal.expect(PROMPT)
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE) == 0
    told = terminal.answers.read_text().splitlines()
    assert [line.split()[:2] for line in told] == [["deny", "13"], ["deny", "13"], ["over"]]


POLICY = """
version = 1
[[rule]]
name = "other programs"
on = "exec"
path = "/usr/bin/[ei]*"
action = "ask"
[[rule]]
name = "files"
on = "open"
path = "{}"
action = "ask"
"""


def test_a_whole_run(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(tmp_path))
    (tmp_path / "file").write_text("content")
    script = f"/usr/bin/env true; echo $?; cat {tmp_path}/file; echo; cat {tmp_path}/file; echo end"
    with Terminal([*PINFOLD, "--policy", policy, "--", "sh", "-c", script]) as terminal:
        terminal.expect(r"^pinfold: other programs asks: may /usr/bin/\w+ \(process \d+\) make")
        terminal.expect(r"^pinfold:   path: /usr/bin/env \(exec, read\)$")
        terminal.expect(r'^pinfold:   argv: \["/usr/bin/env", "true"\]$')
        terminal.expect(PROMPT)
        terminal.send("n\n")
        terminal.expect(r"^126$")
        terminal.expect(r"^pinfold: files asks: may /usr/bin/cat \(process \d+\) make")
        terminal.expect(PROMPT)
        terminal.send("a\n")
        terminal.expect(r"^content$")
        terminal.expect(r"^contentend$")
        assert terminal.status() == 0


def test_a_whole_run_that_is_interrupted(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(tmp_path))
    script = f"trap 'echo caught' INT; cat {tmp_path}/file; echo $?; exit 5"
    with Terminal([*PINFOLD, "--policy", policy, "--", "sh", "-c", script]) as terminal:
        terminal.expect(PROMPT)
        terminal.send("\x03")
        terminal.expect(r"^pinfold: denied: interrupted$")
        terminal.expect(r"^caught$")
        assert terminal.status() == 5


def test_a_whole_run_without_anybody(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(tmp_path))
    (tmp_path / "file").touch()
    done = pinfold("--policy", policy, "--", "cat", tmp_path / "file", start_new_session=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_questions_that_are_the_same() -> None:
    def key(*args: Any, rule: str = "rule", **options: Any) -> object:
        return question(trapped(*args, **options), rule).key

    assert key("openat", b"/a", spelt=[b"a"]) == key("openat", b"/a", spelt=[b"/a"])
    assert key("openat", b"/a", registers={"dirfd": 3}) == key("openat", b"/a")
    assert key("connect", address=Unix(b"/a"), registers={"fd": 3}) == key(
        "connect", address=Unix(b"/a"), registers={"fd": 4}
    )
    different: Sequence[object] = [
        key("openat", b"/a"),
        key("openat", b"/b"),
        key("openat", (b"/a", b"/b")),
        key("openat", b"/a", rule="other"),
        key("openat", b"/a", program=b"/bin/other"),
        key("openat", b"/a", flags=os.O_WRONLY),
        key("openat2", b"/a"),
        key("openat2", b"/a", flags=os.O_WRONLY),
        key("execve", b"/a"),
        key("execve", b"/a", argv=[b"x", b"y"]),
        key("execve", b"/a", env=[b"LD_PRELOAD=/x"]),
        key("connect", address=Unix(b"/a")),
        key("connect", address=Abstract(b"/a")),
        key("sendmsg", address=Unix(b"/a")),
        key("sendmsg"),
        key("socket", registers={"domain": 1}),
        key("socket", registers={"domain": 2}),
        key("setxattr", b"/a", values={"name": b"user.x", "value": b"1"}),
        key("setxattr", b"/a", values={"name": b"user.x", "value": b"2"}),
        key("rename", b"/a", b"/b"),
        key("rename", b"/b", b"/a"),
        key("kill"),
    ]
    assert len(set(different)) == len(different)
    assert key("execve", b"/a", env=[b"A=1"]) == key("execve", b"/a", env=[b"A=2"])


def test_what_is_shown() -> None:
    def shown(*args: Any, **options: Any) -> tuple[str, ...]:
        return question(trapped(*args, **options), "rule").lines[1:]

    assert shown("connect", address=Inet(IPv4Address("10.0.0.1"), 80)) == (
        "  connect",
        "  address: inet:10.0.0.1:80",
    )
    assert shown("sendmsg") == ("  sendmsg flags 0", "  message: to the peer")
    assert shown("rename", b"/a", b"/b") == (
        "  rename",
        "  old_path: /a (write)",
        "  new_path: /b (create, write)",
    )
    assert shown("execve", b"/a", argv=[b'"', b""], env=[b"A=1", b"LD_AUDIT=/x"]) == (
        "  execve",
        "  path: /a (exec, read)",
        r'  argv: ["\"", ""]',
        '  envp: ["LD_AUDIT=/x"]',
    )
    assert shown("openat2", b"/a", flags=os.O_CREAT)[2] == (
        "  how: O_RDONLY|O_CREAT, mode 0o0, resolve 0x0"
    )
    assert shown("kill")[0] == "  kill 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"
    assert shown("execve", b"/a", argv=[b"x" * 600] * 2000)[2].endswith('x"] and 1999 more')
