"""The recipes about files, limits, questions and the log."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.recipes import Place, place, recipe, recipes
from tests.kernel.support import PINFOLD, Terminal, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.support import User

FILE = "One file inside an allowed tree"
HOSTS = "Another /etc/hosts"
HOME = "A home directory that is read-only but for one tree"
JUDGE = "A judge for programs that nobody trusts"
ASK = "Ask a person"
OWNERS = "Pretend that it worked"
CANARY = "A canary"
AGENT = "An agent"
PROOF = "A log that proves it"


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as one:
        yield one


POLICIES = [
    title for title, blocks in recipes().items() if [language for language, _ in blocks] == ["toml"]
]


@pytest.mark.parametrize("title", POLICIES)
def test_check(here: Place, title: str) -> None:
    """Each policy can be used, and there is nothing in it to warn of."""
    done = here.bare(sys.executable, "-m", "pinfold", "check", here.policy(title))
    assert (done.returncode, done.stderr) == (0, "")


def test_every_recipe_is_tried() -> None:
    """A test names each recipe, so none stands there untried."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_recipes_*.py"))
    assert [title for title in recipes() if f'"{title}"' not in tests] == []


ALIASES = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
directory = os.open('.', os.O_RDONLY)
root = os.open('/', os.O_RDONLY)
here = os.getcwd()
def openat2(at, path, resolve):
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, resolve)
    fd = libc.syscall(437, at, path.encode(), ctypes.byref(how), 24)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'openat2')
    return fd
def called(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), 'call')
def by_path_descriptor(path):
    fd = os.open(path, os.O_PATH)
    return os.open('/proc/self/fd/%d' % fd, os.O_RDONLY)
def renamed():
    os.rename('secret.txt', 'plain2.txt')
    return os.open('plain2.txt', os.O_RDONLY)
def linked():
    os.link('secret.txt', 'plain3.txt')
    return os.open('plain3.txt', os.O_RDONLY)
def exchanged():
    if libc.syscall(316, -100, b'secret.txt', -100, b'plain.txt', 2):
        raise OSError(ctypes.get_errno(), 'renameat2')
    return os.open('plain.txt', os.O_RDONLY)
ways = {
    'relative': lambda: os.open('secret.txt', os.O_RDONLY),
    'absolute': lambda: os.open(here + '/secret.txt', os.O_RDONLY),
    'dots': lambda: os.open('./sub/..//secret.txt', os.O_RDONLY),
    'link': lambda: os.open('symlink', os.O_RDONLY),
    'link to a link': lambda: os.open('symlink2', os.O_RDONLY),
    'directory link': lambda: os.open('sub/up/secret.txt', os.O_RDONLY),
    'hard link': lambda: os.open('hardlink', os.O_RDONLY),
    'cwd': lambda: os.open('/proc/self/cwd/secret.txt', os.O_RDONLY),
    'root': lambda: os.open('/proc/self/root' + here + '/secret.txt', os.O_RDONLY),
    'fd': lambda: os.open('/proc/self/fd/%d/secret.txt' % directory, os.O_RDONLY),
    'dev fd': lambda: os.open('/dev/fd/%d/secret.txt' % directory, os.O_RDONLY),
    'task': lambda: os.open('/proc/thread-self/fd/%d/secret.txt' % directory, os.O_RDONLY),
    'pid': lambda: os.open('/proc/%d/cwd/secret.txt' % os.getpid(), os.O_RDONLY),
    'openat': lambda: os.open('secret.txt', os.O_RDONLY, dir_fd=directory),
    'openat from the root': lambda: os.open(here[1:] + '/secret.txt', os.O_RDONLY, dir_fd=root),
    'openat2': lambda: openat2(directory, 'secret.txt', 0),
    'openat2 beneath': lambda: openat2(directory, 'secret.txt', 8),
    'openat2 in root': lambda: openat2(directory, '/secret.txt', 16),
    'O_PATH': lambda: by_path_descriptor('secret.txt'),
    'O_PATH of the link': lambda: by_path_descriptor('hardlink'),
    'writing': lambda: os.open('secret.txt', os.O_WRONLY),
    'renamed': renamed,
    'linked': linked,
    'exchanged': exchanged,
    'truncate': lambda: os.truncate('secret.txt', 0),
    'unlink': lambda: os.unlink('secret.txt'),
    'unlink of the hard link': lambda: os.unlink('hardlink'),
    'chmod': lambda: os.chmod('secret.txt', 0o777),
    'stat': lambda: os.stat('secret.txt'),
    'other renamed onto it': lambda: os.rename('plain.txt', 'secret.txt'),
    'tree renamed': lambda: os.rename(here, here + '.away'),
    'executed': lambda: os.execv('./secret.txt', ['x']),
    'handle': lambda: called(303, -100, b'secret.txt', bytes(200), bytes(8), 0),
    'bind mount': lambda: called(428, directory, b'', 0x1001),
    'control': lambda: os.open('plain.txt', os.O_RDONLY),
}
for way, go in ways.items():
    try:
        fd = go()
        print(way, 'through', os.read(fd, 9) if isinstance(fd, int) else fd, sep=': ')
    except OSError as error:
        print(way, errno.errorcode[error.errno], sep=': ')
"""


def test_one_file_of_a_tree(here: Place) -> None:
    """All its names are denied, and what would give it another one."""
    tree = here.work
    (tree / "secret.txt").write_text("secret")
    (tree / "secret.txt").chmod(0o755)
    (tree / "plain.txt").write_text("plain")
    (tree / "sub").mkdir()
    (tree / "sub" / "up").symlink_to("..")
    (tree / "symlink").symlink_to("secret.txt")
    (tree / "symlink2").symlink_to(tree / "symlink")
    os.link(tree / "secret.txt", tree / "hardlink")
    done = here.run(FILE, *here.python(ALIASES))
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found.pop("control") == "through: b'plain'", done
    # These are refused in every sandbox.
    assert found.pop("handle") in ("ENOTSUP", "EOPNOTSUPP")
    assert found.pop("bind mount") == "EPERM"
    assert {way: how for way, how in found.items() if how != "EACCES"} == {}
    assert len(found) == 32
    assert (tree / "secret.txt").read_text() == "secret"
    # Each is there for whoever is not confined.
    bare = here.bare(*here.python(ALIASES)).stdout.splitlines()
    through = [line.split(":")[0] for line in bare if "through: b'secret'" in line]
    assert len(through) >= 18, bare


def test_one_file_of_a_tree_with_tools(here: Place) -> None:
    """Programs that others have written do not get at it."""
    (here.work / "secret.txt").write_text("secret")
    (here.work / "plain.txt").write_text("plain")
    for command in (
        ("cat", "secret.txt"),
        ("sh", "-c", "cat < secret.txt"),
        ("cp", "secret.txt", "copy"),
        ("cp", "-l", "secret.txt", "copy"),
        ("mv", "secret.txt", "copy"),
        ("tar", "cf", "copy", "secret.txt"),
        ("grep", "-r", "secret", "."),
        ("sh", "-c", "cd / && cat .$OLDPWD/secret.txt"),
    ):
        done = here.run(FILE, *command)
        assert "secret" not in done.stdout, command
        assert "Permission denied" in done.stderr, (command, done)
    assert here.run(FILE, "cat", "plain.txt").stdout == "plain"


def test_one_file_of_a_tree_by_anybody(someone: User) -> None:
    """It takes no rights, and those of root do not help."""
    someone.file("secret.txt", "secret")
    someone.file("plain.txt", "plain")
    (someone.directory / "link").symlink_to("secret.txt")
    os.link(someone.directory / "secret.txt", someone.directory / "hardlink")
    policy = someone.file("policy.toml", recipe(FILE))
    for name in ("secret.txt", "link", "hardlink"):
        assert someone.pinfold("--policy", policy, "--", "cat", name).stdout == ""
    assert someone.pinfold("--policy", policy, "--", "cat", "plain.txt").stdout == "plain"


def test_hosts(here: Place) -> None:
    """The C library reads the file that is served, and finds the other one redirected."""
    policies = here.policy(HOSTS).parent
    (policies / "nsswitch.conf").write_text("hosts: files\npasswd: files\n")
    done = here.run(HOSTS, "getent", "hosts", "build.example")
    assert done.stdout.split() == ["192.0.2.7", "build.example"], done.stderr
    assert "192.0.2.7" in here.run(HOSTS, "cat", "/etc/../etc/hosts").stdout
    assert here.run(HOSTS, "cat", "/etc/nsswitch.conf").stdout.startswith("hosts: files\n")
    size = os.stat("/etc/hosts").st_size
    assert here.run(HOSTS, "stat", "-c", "%s", "/etc/hosts").stdout == f"{size}\n"


def test_home_is_read_only(here: Place) -> None:
    """One tree of it can be written, by any name; everything can be read."""
    project = here.home / "project"
    project.mkdir()
    (here.home / "notes").write_text("notes")
    (project / "out").symlink_to(here.home)
    for script, line in (
        ("echo x > file; mkdir d; mv file d; ln d/file again; chmod 600 again; cat d/file", "x"),
        ("cat ../notes", "notes"),
        ("t=$(mktemp) && echo x > $t && cat $t", "x"),
    ):
        done = here.run(HOME, "sh", "-c", script, cwd=project)
        assert (done.stdout.strip(), done.stderr) == (line, "")
    for script in (
        "echo x > ../new",
        "echo x >> ../notes",
        "echo x > out/new",
        "echo x > ../project/../new",
        "rm ../notes",
        "mv again ../again",
        "mv ../notes .",
        "ln ../notes here",
        "ln -s again ../link",
        "mkdir ../dir",
        "chmod 600 ../notes",
        "touch ../notes",
        "mv ../project ../other",
    ):
        done = here.run(HOME, "sh", "-c", script, cwd=project)
        assert done.returncode != 0, script
        assert "ead-only file system" in done.stderr, (script, done.stderr)
    assert sorted(os.listdir(here.home)) == ["notes", "project"]
    # The floor: what the rules are not about can be read and not be written.
    outside = here.around / "outside"
    outside.write_text("outside")
    done = here.run(HOME, "sh", "-c", f"cat {outside}; echo x > {outside}", cwd=project)
    assert done.stdout == "outside"
    assert "Permission denied" in done.stderr


SOLUTION = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
static int said(long result) {
    puts(result < 0 ? strerrorname_np(errno) : "done");
    return 0;
}
int main(int argc, char **argv) {
    int a, b;
    struct rlimit cpu, size;
    if (argc < 2) return scanf("%d %d", &a, &b) == 2 ? !printf("%d\n", a + b) : 1;
    switch (argv[1][0]) {
    case 'o': return said(open(argv[2], O_RDONLY));
    case 'w': return said(open(argv[2], O_WRONLY | O_CREAT, 0600));
    case 's': return said(socket(AF_INET, SOCK_STREAM, 0));
    case 'e': return said(execl(argv[2], argv[2], (char *)0));
    case 'm': return said(*(void *volatile *)&(void *){malloc(1L << 29)} ? 0 : -1);
    case 'u':
        getrlimit(RLIMIT_CPU, &cpu);
        getrlimit(RLIMIT_FSIZE, &size);
        return !printf("%ld %ld\n", cpu.rlim_cur, size.rlim_cur);
    case 'l': for (;;) continue;
    case 'p': pause(); return 0;
    case 'f': for (a = 0; a < 100; a++) {
        pid_t child = fork();
        if (child < 0) { printf("%d ", a); return said(-1); }
        if (!child) { pause(); return 0; }
    }
    }
    return 1;
}
"""


@pytest.fixture
def solution(here: Place) -> Path:
    """A compiled program that does what its first argument says."""
    source = here.around / "solution.c"
    source.write_text(SOLUTION)
    built = here.work / "solution"
    done = execute(["gcc", "-D_GNU_SOURCE", "-O1", "-w", "-o", built, source])
    assert done.returncode == 0, done.stderr
    return built


def test_judge(here: Place, solution: Path) -> None:
    """It computes, and nothing else."""
    assert here.run(JUDGE, solution, input="2 40\n").stdout == "42\n"
    for words, answer in (
        (("w", "answer"), "done"),
        (("w", "../answer"), "EACCES"),
        (("o", "/etc/passwd"), "EACCES"),
        (("o", "/usr/bin/env"), "done"),
        (("s",), "EACCES"),
        (("e", "/bin/sh"), "EACCES"),
        (("e", "/usr/bin/env"), "EACCES"),
        (("m",), "ENOMEM"),
        (("u",), "2 1048576"),
        (("f",), "7 EAGAIN"),
    ):
        done = here.run(JUDGE, solution, *words)
        assert done.stdout == f"{answer}\n", (words, done)


def test_judge_of_time(here: Place, solution: Path) -> None:
    """Who computes too long, and who waits too long, is killed."""
    done = here.run(JUDGE, solution, "l")
    assert done.returncode == 128 + signal.SIGXCPU, done
    done = here.run(JUDGE, solution, "p")
    assert done.returncode == 128 + signal.SIGKILL, done


def test_ask(here: Place) -> None:
    """A yes and a no, each for one question; and nobody there is a no."""
    for name in ("one", "two"):
        (here.home / name).write_text("")
    policy = here.policy(ASK)
    script = f"rm -f {here.home}/one; rm -f {here.home}/two; echo over"
    done = here.under(policy, "sh", "-c", script)
    assert done.stderr.count("Permission denied") == 2
    command = [*PINFOLD, "--policy", str(policy), "--", "sh", "-c", script]
    with Terminal(command, env=here.env) as terminal:
        terminal.expect(rf"{here.home}/one")
        terminal.expect(r"\[n\]")
        terminal.send("y\n")
        terminal.expect(rf"{here.home}/two")
        terminal.expect(r"\[n\]")
        terminal.send("n\n")
        terminal.expect("over")
        assert terminal.status() == 0
    assert os.listdir(here.home) == ["two"]


def test_owners(here: Place) -> None:
    """Programs that would have to be root do what they do; the owner stays."""
    (here.work / "file").write_text("x")
    me = os.getuid()
    for command in (
        ("chown", "12345:12345", "file"),
        ("chown", "-h", "12345", "file"),
        ("install", "-o", "12345", "file", "installed"),
    ):
        done = here.run(OWNERS, *command)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert here.records(verdict="return", value=0)
    for name in ("file", "installed"):
        assert (here.work / name).stat().st_uid == me


def test_owners_by_nobody(unprivileged: User) -> None:
    """Who could not, seems to."""
    mine = unprivileged.file("mine")
    policy = unprivileged.file("policy.toml", recipe(OWNERS))
    assert unprivileged.bare("chown", "0", mine).returncode != 0
    done = unprivileged.pinfold("--policy", policy, "--", "chown", "0", mine)
    assert (done.returncode, done.stderr) == (0, "")
    assert mine.stat().st_uid != 0


def test_canary(here: Place) -> None:
    """Whoever asks for it is killed, the others go on; the log knows who it was."""
    (here.home / ".aws").mkdir()
    (here.home / ".aws" / "credentials").write_text("key")
    (here.home / "settings").symlink_to(here.home / ".aws" / "credentials")
    script = "cat $HOME/settings; echo $?; grep -r key $HOME/.aws; echo $?; echo still here"
    done = here.run(CANARY, "sh", "-c", script)
    assert [line for line in done.stdout.splitlines() if "key" not in line] == [
        "137",
        "137",
        "still here",
    ], done
    assert "key" not in done.stdout
    first, second = here.records(verdict="kill", rule="canary")
    assert first["program"].endswith("/cat")
    assert second["program"].endswith("/grep")
    assert here.run(CANARY, "cat", here.home / ".aws" / "credentials").returncode == 137


def test_agent(here: Place) -> None:
    """What an agent may do, and what not."""
    for directory in (here.home / ".ssh", here.home / ".cache"):
        directory.mkdir()
    (here.home / ".ssh" / "id").write_text("key")
    (here.home / "notes").write_text("notes")
    with socket.socket(socket.AF_UNIX) as server, socket.socket() as other:
        server.bind(str(here.home / ".cache" / "server.sock"))
        server.listen()
        other.bind(("127.0.0.1", 0))
        other.listen()
        tried = (
            "import os, socket, sys\n"
            "one = socket.socket(socket.AF_UNIX)\n"
            "one.connect(os.environ['HOME'] + '/.cache/server.sock'); print('connected')\n"
            "try: socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "except OSError as error: print(error.errno)\n"
        )
        done = here.run(AGENT, *here.python(tried), str(other.getsockname()[1]))
        assert done.stdout == "connected\n13\n", done.stderr
    script = (
        "git init -q . && echo x > file && git add file && git commit -qm first;"
        "git log --format=%s;"
        "cat $HOME/notes; echo; t=$(mktemp) && rm $t && echo tmp;"
        "echo x > $HOME/new; cat $HOME/.ssh/id; git push; echo end"
    )
    names = {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = here.run(AGENT, "sh", "-c", script, env=names)
    assert done.stdout.splitlines() == ["first", "notes", "tmp", "end"], done
    assert len(done.stderr.splitlines()) == 3, done.stderr
    assert not (here.home / "new").exists()
    assert here.run(AGENT, "mv", here.home / ".ssh", here.work / "ssh").returncode != 0


def test_proof(here: Place) -> None:
    """The log is verified, with its head; a change, and a log written anew, are found."""
    (here.home / ".ssh").mkdir()
    (here.home / ".ssh" / "id").write_text("key")
    policy = here.policy(PROOF)
    command = [*PINFOLD, "-v", "--policy", str(policy), "--audit", str(here.log), "--"]
    script = "cat $HOME/.ssh/id; cat /etc/hostname"
    done = here.bare(*command, "sh", "-c", script)
    head = re.search(r"head ([0-9a-f]{64})", done.stderr)
    assert head is not None, done.stderr
    assert here.records(verdict="deny", rule="no keys")
    assert here.records(verdict="allow", syscall="execve")
    audit = (sys.executable, "-m", "pinfold", "audit")
    verify = (*audit, "verify", "--expect", head[1], here.log)
    done = here.bare(*verify)
    assert done.returncode == 0, done.stderr
    assert head[1] in done.stdout
    page = here.around / "report.html"
    assert here.bare(*audit, "report", here.log, "-o", page).returncode == 0
    assert "no keys" in page.read_text()
    told = here.log.read_bytes()
    here.log.write_bytes(told.replace(b'"deny"', b'"allow"'))
    assert here.bare(*verify).returncode == 1
    # Anew: whole in itself, and not the one.
    here.bare(*command, "true")
    assert here.bare(*audit, "verify", here.log).returncode == 0
    assert here.bare(*verify).returncode == 1
