"""``--real``: rules see where symbolic links lead, and opens get what was judged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel.support import execute, pinfold

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel import support


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a secret, another file, and links to both in all manners."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "fine").write_text("fine\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "secret").write_text("deep\n")
    for name, text in {
        "link": "secret",
        "absolute": str(tmp_path / "secret"),
        "twice": "link",
        "dir": str(tmp_path),
        "up": "deep/../secret",
        "okl": "fine",
        "dangling": "made",
        "loop": "loop",
        "procself": "/proc/self/cwd/secret",
    }.items():
        (tmp_path / name).symlink_to(text)
    return tmp_path


def deny(tree: Path, *command: str, option: str = "--real") -> support.Done:
    return pinfold(option, "--deny", str(tree / "secret"), "--", *command, cwd=tree)


@pytest.mark.parametrize(
    "path",
    [
        "secret",
        "link",
        "absolute",
        "twice",
        "dir/secret",
        "dir/dir/link",
        "up",
        "deep/../link",
        "procself",
        "/proc/self/cwd/secret",
        "/proc/thread-self/cwd/link",
        "/dev/fd/../cwd/secret",
    ],
)
def test_every_way_to_a_denied_file_is_denied(tree: Path, path: str) -> None:
    assert execute(["cat", path], cwd=tree).stdout == "secret\n"
    done = deny(tree, "cat", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


def test_names_alone_do_not_see_links(tree: Path) -> None:
    """The control: without --real a link is another name."""
    assert deny(tree, "cat", "link", option="-v").stdout == "secret\n"


@pytest.mark.parametrize("path", ["fine", "okl", "dir/okl", "dir/dir/fine", "deep/secret"])
def test_other_files_are_opened_through_links(tree: Path, path: str) -> None:
    bare = execute(["cat", path], cwd=tree).stdout
    assert bare in {"fine\n", "deep\n"}
    assert deny(tree, "cat", path).stdout == bare


@pytest.mark.parametrize("path", ["loop", "missing", "missing/x", "fine/x", "dir/loop/x"])
def test_errors_are_those_of_the_kernel(tree: Path, path: str) -> None:
    bare = execute(["cat", path], cwd=tree)
    done = deny(tree, "cat", path)
    assert (done.returncode, done.stderr) == (bare.returncode, bare.stderr)


OPENS = """
import errno, os, stat, sys
os.umask(0o027)
def show(name, call):
    try:
        result = call()
    except OSError as error:
        print(name, errno.errorcode[error.errno])
        return
    if type(result) is int:
        mode = os.fstat(result)
        link = os.readlink(f"/proc/self/fd/{result}")
        link = os.path.basename(link).split()[0].strip("#0123456789")
        print(name, stat.filemode(mode.st_mode), "pipe" if link.startswith("pipe") else link)
        os.close(result)
    else:
        print(name, result)
O = os.open
show("create", lambda: O("new", os.O_CREAT | os.O_WRONLY, 0o666))
show("exclusive", lambda: O("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
show("exclusive link", lambda: O("dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
show("through dangling", lambda: O("dangling", os.O_CREAT | os.O_WRONLY, 0o6777))
show("made", lambda: O("made", os.O_RDONLY))
show("nofollow", lambda: O("okl", os.O_RDONLY | os.O_NOFOLLOW))
show("nofollow path", lambda: O("okl", os.O_PATH | os.O_NOFOLLOW))
show("path", lambda: O("okl", os.O_PATH | os.O_RDWR | os.O_CREAT, 0o777))
show("directory", lambda: O("dir", os.O_RDONLY | os.O_DIRECTORY))
show("no directory", lambda: O("okl", os.O_RDONLY | os.O_DIRECTORY))
show("slash", lambda: O("okl/", os.O_RDONLY))
show("dir slash", lambda: O("dir/", os.O_RDONLY))
show("temporary", lambda: O("dir", os.O_TMPFILE | os.O_RDWR, 0o666))
show("truncate", lambda: O("fine", os.O_WRONLY | os.O_TRUNC))
show("emptied", lambda: str(os.stat("fine").st_size))
show("mode without creating", lambda: O("fine", os.O_RDONLY, 0o777))
show("write a directory", lambda: O("dir", os.O_WRONLY))
show("null", lambda: O("/dev/null", os.O_RDWR | os.O_SYNC))
show("bad mode", lambda: O("fine", 3))
show("own stdin", lambda: O("/dev/stdin", os.O_RDONLY))
r, w = os.pipe()
show("own pipe", lambda: O(f"/proc/self/fd/{r}", os.O_RDONLY | os.O_NONBLOCK))
show("deleted", lambda: (os.unlink("new"), "gone")[1])
here = O(".", os.O_RDONLY)
show("relative", lambda: O("okl", os.O_RDONLY, dir_fd=here))
show("lstat", lambda: os.path.islink("okl"))
show("readlink", lambda: os.readlink("okl"))
show("unlink", lambda: (os.unlink("okl"), os.path.exists("fine"))[1])
show("rename", lambda: (os.rename("link", "moved"), os.readlink("moved"))[1])
show("mkdir", lambda: (os.mkdir("dir/sub"), os.rmdir("sub"), "done")[2])
show("chmod", lambda: (os.chmod("twice2", 0o600), "done")[1])
show("self", lambda: open("/proc/self/comm").read().strip()[:6])
"""


def test_opens_are_what_they_are_without(tree: Path, someone: support.User) -> None:
    """Flags, modes, umask, errno: each kind of open, and calls that do not follow links."""
    outcomes = []
    for name in ("bare", "real"):
        directory = someone.directory / name / "work"
        directory.mkdir(parents=True)
        someone.own(directory)
        for entry in tree.iterdir():
            copy = directory / entry.name
            if entry.is_symlink():
                copy.symlink_to(str(entry.readlink()).replace(str(tree), str(directory)))
            elif entry.is_file():
                copy.write_text(entry.read_text())
                someone.own(copy)
        script = directory / "script.py"
        script.write_text(OPENS)
        command = ["/usr/bin/python3", "-I", "script.py"]
        if name == "bare":
            outcomes.append(someone.bare(*command, cwd=directory))
        else:
            rules = ("--real", "--deny", "/nonexistent-pinfold")
            outcomes.append(someone.pinfold(*rules, "--", *command, cwd=directory))
    bare, real = outcomes
    assert bare.stdout.count("\n") > 25, bare.stderr
    assert (real.stdout, real.returncode, real.stderr) == (bare.stdout, 0, bare.stderr)


def test_a_fifo_blocks_the_program_and_nobody_else(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "way").symlink_to("fifo")
    script = "(cat way; echo read) & echo written > way; wait"
    done = deny(tree, "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("written\nread\n", "")


def test_maps_go_by_either_name(tree: Path) -> None:
    rule = f"{tree}/fine={tree}/deep/secret"
    done = pinfold("--real", "--map", rule, "--", "cat", "okl", "fine", cwd=tree)
    assert done.stdout == "deep\ndeep\n"


def test_the_log_has_both_names(tree: Path) -> None:
    log = tree / "log"
    pinfold("--real", "--audit", str(log), "--", "cat", "okl", cwd=tree)
    calls = [line for line in log.read_text().splitlines() if '"type":"call"' in line]
    (line,) = [line for line in calls if '"okl"' in line]
    assert f'"to":"{tree}/fine"' in line
