"""Letting calls through in the kernel changes how often a program stops, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

import pinfold
from pinfold import Policy
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from tests.kernel.judged import PYTHON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pinfold import Call, Verdict
    from pinfold.life import Outcome

READ_ONLY: Final = """
version = 1
[[rule]]
name = "here"
path = "{here}/mine"
action = "allow"

[[rule]]
name = "nowhere else"
path = "/"
access = ["write", "create"]
action = "deny"
errno = "EROFS"
"""


class Ran(NamedTuple):
    out: str
    status: int
    outcome: Outcome


def run(
    policy: Policy | None,
    argv: Sequence[str],
    cwd: Path,
    *,
    judge_all: bool = False,
    rules: PathRules | None = None,
) -> Ran:
    """Runs a command, and returns how that went."""
    judge = None if policy is None else policy.judge(report=lambda _: None)
    with tempfile.TemporaryFile() as out, open(os.devnull, "rb") as nothing:
        session = Session(
            Command(
                tuple(map(os.fsencode, argv)),
                {b"PATH": b"/usr/bin:/bin", b"HOME": b"/nonexistent", b"LC_ALL": b"C"},
                os.fsencode(cwd),
                (nothing.fileno(), out.fileno(), out.fileno()),
                close_others=True,
            ),
            rules or PathRules([], []),
            # Whatever a policy allows, random calls change nothing outside of here.
            Limits(ro=(b"/",), rw=(os.fsencode(cwd), b"/dev/null")),
            judge=judge,
            judge_all=judge_all,
        )
        session.start()
        outcome = session.result()
        out.seek(0)
        text = out.read().decode()
    return Ran(text, os.waitstatus_to_exitcode(outcome.status), outcome)


def fresh(directory: Path) -> Path:
    """A directory with what the programs below go about."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("mine", "other"):
        (directory / name / "deep").mkdir(parents=True)
        (directory / name / "file").write_text("text")
        (directory / name / "link").symlink_to("file")
    return directory


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): os.readlink(path)
        if path.is_symlink()
        else path.read_text(errors="replace")
        if path.is_file()
        else "directory"
        for path in directory.rglob("*")
    }


def both_ways(
    policy: Policy | None, argv: Sequence[str], directory: Path, rules: PathRules | None = None
) -> tuple[Ran, Ran]:
    """Runs a command with letting through and without, and compares."""
    found = []
    left = []
    for judge_all in (False, True):
        fresh(directory)
        found.append(run(policy, argv, directory, judge_all=judge_all, rules=rules))
        left.append(files(directory))
    through, judged = found
    assert through.out == judged.out
    assert through.status == judged.status
    assert left[0] == left[1]
    assert through.outcome.denied == judged.outcome.denied
    assert through.outcome.redirected == judged.outcome.redirected
    return through, judged


# One call after the other, each as its errno or what came of it; drawn by a seed, the same each
# time. Descriptors are closed at once, so that numbers are the same, too.
CALLER: Final = textwrap.dedent(
    """
    import ctypes, errno, os, random, socket, sys
    libc = ctypes.CDLL(None, use_errno=True)
    chosen = random.Random(int(sys.argv[1]))
    NAMES = [b"mine/file", b"other/file", b"mine/new", b"other/new", b"mine/link", b"other/link",
             b"mine/deep", b"other/deep", b"mine/deep/../file", b"none/x", b".", b"",
             os.path.realpath(b"other/file"), os.path.realpath(b"mine/file")]
    FLAGS = [0, 1, 2, 3, 0o100, 0o101, 0o1000, 0o1001, 0o102, 0o10000000, 0o10000001, 0o200000,
             0o20200002, 0o20200000, 0o400000, 0o4000, 1 << 40, 0o10000101]
    held = os.open(".", os.O_RDONLY)
    file = os.open("mine/file", os.O_RDONLY)
    def call(number, *args):
        made = [ctypes.c_long(one) if isinstance(one, int) else one for one in args]
        result = libc.syscall(ctypes.c_long(number), *made)
        return result if result >= 0 else errno.errorcode.get(ctypes.get_errno())
    buffer = ctypes.create_string_buffer(4096)
    for turn in range(200):
        name, other = chosen.choice(NAMES), chosen.choice(NAMES)
        flags = chosen.choice(FLAGS) | chosen.choice([0, 0, 0o100000, 0o2000000])
        at = chosen.choice([-100, held, file, 999])
        what = chosen.randrange(17)
        opens = what < 5
        if what < 2: found = call(257, at, name, flags, 0o644)
        elif what < 4: found = call(2, name, flags, 0o644)
        elif what == 4: found = call(85, name, 0o644)
        elif what == 5: found = call(262, at, name, buffer, chosen.choice([0, 0x100, 0x1000]))
        elif what == 6: found = call(262, at, 0, buffer, chosen.choice([0x1000, 0x1100, 0]))
        elif what == 7: found = call(280, at, chosen.choice([name, 0]), 0, 0)
        elif what == 8: found = call(267, at, name, buffer, 4096)
        elif what == 9: found = call(269, at, name, 4)
        elif what == 10: found = call(264, at, name, -100, other)
        elif what == 11: found = call(263, at, name, chosen.choice([0, 0x200]))
        elif what == 12: found = call(258, at, name, 0o755)
        elif what == 13: found = call(191, name, b"user.x", buffer, 100)
        elif what == 14: found = call(188, name, b"user.x", b"v", 1, 0)
        elif what == 15:
            opens = True
            found = call(41, chosen.choice([1, 2, 10, 16, 17, 40]), chosen.choice([1, 2, 3, 10]), 0)
        else: found = call(332, at, 0, 0x1000, 0xfff, buffer)
        print(turn, what, found, flush=True)
        if opens and isinstance(found, int): os.close(found)
    """
)
WORDS: Final = ("read", "write", "create", "exec")
GROUPS: Final = ("open", "stat", "unlink", "rename", "mkdir", "xattr", "chmod", "socket")


def drawn_policy(chosen: random.Random, directory: Path) -> str:
    """A policy under which Python can still start."""
    lines = ["version = 1", "[[rule]]", 'path = ["/usr", "/lib", "/lib64", "/etc", "/proc"]']
    lines += ['access = ["read", "exec"]', 'action = "allow"']
    for _ in range(chosen.randint(1, 4)):
        lines.append("[[rule]]")
        if chosen.randrange(3) == 0:
            lines.append(f'path = "{directory}/{chosen.choice(["mine", "other", "mine/file"])}"')
        elif chosen.randrange(4) == 0:
            lines.append('on = "socket"')
            families = chosen.sample(["inet", "inet6", "packet", "unix", "netlink"], 2)
            lines.append(f"family = {families}")
        else:
            lines.append(f'path = "{chosen.choice([directory, directory / "mine", "/"])}"')
        if "on" not in lines[-2][:2] and chosen.randrange(3):
            lines.append(f"access = {chosen.sample(WORDS, chosen.randint(1, 3))}")
        verbs = ["allow", "allow", "deny", "deny"]
        if "family" not in lines[-1] and "family" not in lines[-2]:
            verbs.append("redirect")
        verb = chosen.choice(verbs)
        lines.append(f'action = "{verb}"')
        if verb == "redirect":
            lines.append(f'to = {{ path = "{directory}/mine/deep" }}')
    lines.append("[defaults]")
    for group in chosen.sample(GROUPS, chosen.randint(0, 3)):
        if group not in ("open", "stat"):
            lines.append(f'{group} = "{chosen.choice(["EPERM", "allow"])}"')
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_else_is_different(seed: int, tmp_path: Path) -> None:
    directory = tmp_path / "here"
    policy = Policy.parse(drawn_policy(random.Random(seed), directory))
    both_ways(policy, (*PYTHON, CALLER, str(seed)), directory)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_different_under_path_rules(seed: int, tmp_path: Path) -> None:
    directory = tmp_path / "here"
    names = [os.fsencode(directory / "other/file"), os.fsencode(directory / "mine/deep")]
    rules = PathRules([(names[1], names[0])], [names[0]] if seed % 2 else [])
    for policy in (None, Policy.parse(drawn_policy(random.Random(seed), directory))):
        both_ways(policy, (*PYTHON, CALLER, str(seed)), directory, rules)


def test_a_policy_about_changes_leaves_reading_alone(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    policy = Policy.parse(READ_ONLY.format(here=directory))
    through, judged = both_ways(policy, (*PYTHON, CALLER, "7"), directory)
    assert through.outcome.denied
    # Python's own start is hundreds of calls that only read.
    assert through.outcome.trapped * 3 < judged.outcome.trapped


def test_real_programs_stop_less_often(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    policy = Policy.parse(READ_ONLY.format(here=directory))
    quiet, judged = both_ways(policy, (*PYTHON, "import json, email.message; print(1)"), directory)
    assert quiet.out == "1\n"
    assert judged.outcome.trapped > 100
    assert not quiet.outcome.trapped
    shell = "cat mine/file other/file; ls -l >/dev/null; echo x > other/file; rm mine/file"
    both_ways(policy, ("/bin/sh", "-c", shell), directory)


def test_a_handler_about_writing_sees_writing(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    policy = Policy()
    seen: list[str] = []

    @policy.on("open", access="write")
    def writes(call: Call) -> Verdict | None:
        seen.append(str(call.path))
        return pinfold.deny("EROFS") if "/other/" in str(call.path) else None

    shell = "cat other/file; echo x > other/file; echo y > mine/file; : < other/file"
    through, judged = both_ways(policy, ("/bin/sh", "-c", shell), directory)
    assert "Read-only" in through.out
    assert through.outcome.trapped < judged.outcome.trapped
    names = [str(directory / name / "file") for name in ("other", "mine")]
    assert [name for name in seen if name in names] == names * 2


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


@needs_root
@pytest.mark.parametrize("judge_all", [False, True])
def test_another_root_directory_is_no_way_around(tmp_path: Path, judge_all: bool) -> None:
    directory = fresh(tmp_path / "here")
    # No rule is about chroot itself.
    policy = Policy.parse(READ_ONLY.format(here=directory))
    script = """
import os, sys
os.chroot(sys.argv[1] + "/other")
os.chdir("/")
for name in ("/file", "file", "/deep/../file"):
    try: os.open(name, os.O_WRONLY | os.O_TRUNC)
    except OSError as error: print(error.errno)
    else: print("open")
print(os.read(os.open("/file", os.O_RDONLY), 9))
"""
    done = run(policy, (*PYTHON, script, str(directory)), directory, judge_all=judge_all)
    assert done.out == "30\n30\n30\nb'text'\n"
    assert (directory / "other/file").read_text() == "text"
