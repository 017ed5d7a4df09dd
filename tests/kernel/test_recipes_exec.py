"""The recipes about running programs: git without push, rewritten arguments and environments."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.kernel.recipes import Place, place
from tests.kernel.support import PINFOLD, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PYTHON = "/usr/bin/python3"
NO_PUSH = "No git push"
STATUS = "git status, and nothing else"
AT_ONCE = {
    "plain",
    "path",
    "directory",
    "symlink",
    "link",
    "core",
    "script",
    "send-pack",
    "receive-pack",
}
"""Ways that do not even begin; of the others git starts, and is stopped in the middle."""
THREADS = """
import subprocess, sys, threading
def work(number):
    command = ['git', *(one.replace('@', str(number)) for one in sys.argv[1:])]
    try: codes.append(subprocess.run(command, capture_output=True).returncode)
    except PermissionError: codes.append(-1)
codes = []
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for one in threads: one.start()
for one in threads: one.join()
print(sorted(set(codes)))
"""


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as one:
        yield one


@pytest.fixture
def repository(here: Place) -> Place:
    """A place with a repository to work in, and a bare one that it pushes to."""
    for command in (
        ("git", "init", "-q", "--bare", here.around / "remote.git"),
        ("git", "init", "-q", "-b", "main", "."),
        ("git", "config", "user.email", "someone@localhost"),
        ("git", "config", "user.name", "someone"),
        ("git", "remote", "add", "origin", here.around / "remote.git"),
        ("git", "commit", "-q", "--allow-empty", "-m", "first"),
    ):
        done = here.bare(*command)
        assert done.returncode == 0, done.stderr
    (here.work / "new").write_text("")
    return here


def refs(here: Place) -> str:
    """What has arrived at the remote."""
    return here.bare("git", "-C", here.around / "remote.git", "for-each-ref").stdout


def pushes(here: Place) -> dict[str, tuple[str | Path, ...]]:
    """Ways to push, each to a branch of its own."""
    to = "main:pushed"
    makefile = here.work / "Makefile"
    makefile.write_text("all: a b c d\na b c d:\n\tgit push -q origin main:$@\n")
    tool = here.work / "tool"
    tool.symlink_to("/usr/bin/git")
    script = here.work / "script"
    script.write_text(f"#!/bin/sh\nexec git push -q origin {to}\n")
    script.chmod(0o755)
    return {
        "plain": ("git", "push", "origin", to),
        "path": ("/usr/bin/git", "push", "origin", to),
        "directory": ("git", "-C", here.work, "push", "origin", to),
        "alias": ("git", "-c", "alias.p=push", "p", "origin", to),
        "shell alias": ("git", "-c", f"alias.p=!git push origin {to}", "p"),
        "symlink": (tool, "push", "origin", to),
        "link": ("/usr/lib/git-core/git-push", "origin", to),
        "core": ("/usr/lib/git-core/git", "push", "origin", to),
        "sh": ("sh", "-c", f"cd . && git push origin {to}; true"),
        "argv0": ("/usr/bin/env", "bash", "-c", f"exec -a other git push origin {to}"),
        "script": (script,),
        "send-pack": ("git", "send-pack", str(here.around / "remote.git"), to),
        "receive-pack": ("git", "push", "--receive-pack=git receive-pack", "origin", to),
        "threads": (PYTHON, "-c", THREADS, "push", "origin", "main:t@"),
        "make": ("make", "-j", "4", "-k"),
    }


def test_the_remote_can_be_pushed_to(repository: Place) -> None:
    """Without a sandbox each of them gets through: it is the policy that stops them."""
    for name, command in pushes(repository).items():
        before = refs(repository)
        repository.bare(*command)
        assert refs(repository) != before, name
        for ref in ("pushed", *"abcd", *(f"t{number}" for number in range(8))):
            repository.bare("git", "-C", repository.around / "remote.git", "branch", "-D", ref)


@pytest.mark.parametrize("title", [NO_PUSH, STATUS])
def test_no_push(repository: Place, title: str) -> None:
    """Nothing arrives, however it is asked for."""
    for name, command in pushes(repository).items():
        done = repository.run(title, *command)
        assert refs(repository) == "", name
        assert repository.records(verdict="deny", errno="EPERM", syscall="execve"), (name, done)
        if name in AT_ONCE:
            assert done.returncode == 126, name


@pytest.mark.parametrize("title", [NO_PUSH, STATUS])
def test_status(repository: Place, title: str) -> None:
    """What only looks goes on, from a shell, threads and make as well."""
    makefile = repository.work / "Makefile"
    makefile.write_text("all: a b c d\na b c d:\n\t@git status --short\n")
    for command in (
        ("git", "status", "--short"),
        ("/usr/bin/git", "status", "--short"),
        ("sh", "-c", "git status --short; git log --oneline >/dev/null"),
        ("make", "-s", "-j", "4"),
    ):
        done = repository.run(title, *command)
        assert done.returncode == 0, (command, done.stderr)
        assert "?? new" in done.stdout
    done = repository.run(title, PYTHON, "-c", THREADS, "status")
    assert done.stdout == "[0]\n", done.stderr


def test_other_things_than_push(repository: Place) -> None:
    """A commit about pushing is none; with an option before it, it counts as one."""
    done = repository.run(NO_PUSH, "git", "commit", "-q", "--allow-empty", "-m", "push")
    assert done.returncode == 0, done.stderr
    done = repository.run(NO_PUSH, "git", "fetch", "-q")
    assert done.returncode == 0, done.stderr
    again = ("git", "-C", ".", "commit", "-q", "--allow-empty", "-m", "push")
    assert repository.run(NO_PUSH, *again).returncode == 126


def test_a_copy_of_git_pushes(repository: Place) -> None:
    """The denials' limit, as the recipe says; the list of what may run does not have it."""
    copy = repository.work / "other"
    shutil.copy("/usr/bin/git", copy)
    command = ("sh", "-c", "./other push --receive-pack=$PWD/rp origin main:pushed; true")
    rp = repository.work / "rp"
    rp.write_text('#!/bin/sh\nexec "$(dirname "$0")/other" receive-pack "$@"\n')
    rp.chmod(0o755)
    assert repository.run(STATUS, *command).returncode == 0
    assert refs(repository) == ""
    repository.run(NO_PUSH, *command)
    assert "pushed" in refs(repository)


@pytest.mark.parametrize(
    "command",
    [
        ("git", "config", "a.b", "c"),
        ("git", "-c", "core.pager=cat", "status"),
        ("sh", "-c", "exec /usr/bin/id"),
        (PYTHON, "-c", "import os; os.execv('/usr/bin/git', ['status', 'status'])"),
        (PYTHON, "-c", "import os; os.execv('/usr/bin/id', ['git', 'status'])"),
        ("env", "LD_PRELOAD=x.so", "git", "status"),
    ],
)
def test_not_on_the_list(repository: Place, command: tuple[str, ...]) -> None:
    """Another subcommand, another program under git's name, git under another name."""
    done = repository.run(STATUS, *command)
    assert done.returncode != 0
    assert repository.records(verdict="deny", errno="EPERM", syscall="execve"), done


def test_pager(repository: Place) -> None:
    """On a terminal git does not page, and its other arguments are as they were."""
    policy = repository.policy("Another argument for a program")
    git = ("/usr/bin/git", "-C", repository.work, "log", "--format=%s", "-1")
    env = repository.env | {"GIT_PAGER": "sed s/^/paged:/"}
    with Terminal(git, env=env) as terminal:
        terminal.expect("paged:first")
        assert terminal.status() == 0
    log = repository.log
    with Terminal([*PINFOLD, "--policy", policy, "--audit", log, "--", *git], env=env) as terminal:
        assert terminal.status() == 0
    assert terminal.seen == "first\n"
    (record,) = repository.records(verdict="redirect")
    assert record["args"]["argv"] == ["git", "--no-pager", *map(str, git[1:])]


def test_environment(here: Place) -> None:
    """COMMAND and what it runs get the new environment, however often a variable is in the old."""
    twice = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "vector = lambda *of: (ctypes.c_char_p * (len(of) + 1))(*of, None)\n"
        "libc.execve(b'/usr/bin/env', vector(b'env'),\n"
        "            vector(b'LD_PRELOAD=a', b'B=c', b'LD_PRELOAD=b', b'HTTP_PROXY=x', b'HTTP'))\n"
    )
    title = "Another environment"
    proxy = "http://127.0.0.1:3128"
    for command in (
        ("env",),
        ("sh", "-c", "LD_PRELOAD=/nonexistent.so HTTP_PROXY=other env; true"),
        (PYTHON, "-c", twice),
    ):
        done = here.run(title, *command, env={"LD_AUDIT": "", "HTTP_PROXY": "mine"})
        lines = done.stdout.splitlines()
        assert [one for one in lines if one.startswith("HTTP_PROXY=")] == [f"HTTP_PROXY={proxy}"]
        assert f"http_proxy={proxy}" in lines
        assert not [one for one in lines if one.startswith("LD_")], done
        assert "LD_PRELOAD" not in done.stderr
