"""Real programs under the ready policies."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kernel.support import execute, pinfold
from tests.programs import values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.support import Done, User

BASE: Final = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "USER": "u",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example",
}


class Place:
    """A home with a secret in it, a work directory in that, and one for temporary files."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.work = self.home / "work"
        self.tmp = top / "tmp"
        self.outside = top / "outside"
        self.key = self.home / ".ssh/id"
        for path in (self.work, self.tmp, self.outside, self.key.parent):
            path.mkdir(parents=True)
        self.key.write_text("KEY\n")
        (self.outside / "file").write_text("outside\n")

    def run(self, policy: str, *command: str | Path, **options: Any) -> Done:
        """Runs a command in the work directory under a policy."""
        environment = BASE | {"HOME": str(self.home), "TMPDIR": str(self.tmp)}
        environment |= options.pop("env", {})
        options.setdefault("cwd", self.work)
        return pinfold("--policy", policy, "--", *command, env=environment, **options)

    def shell(self, policy: str, script: str, **options: Any) -> Done:
        """Runs a shell script so."""
        return self.run(policy, "bash", "-c", textwrap.dedent(script), **options)

    def python(self, policy: str, script: str, **options: Any) -> Done:
        """Runs a Python script so."""
        return self.run(policy, sys.executable, "-c", textwrap.dedent(script), **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server of this machine that a program may want to talk to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


WRITERS: Final = ["builtin:agent", "builtin:build", "builtin:pip"]


@pytest.mark.parametrize("policy", WRITERS)
def test_the_work_directory_can_be_changed_and_nothing_else(policy: str, place: Place) -> None:
    done = place.shell(
        policy,
        f"""
        echo a > new && mkdir dir && mv new dir/b && ln dir/b c && chmod 600 c && rm -r dir && cat c
        t=$(mktemp) && echo t > $t && rm $t && echo tmp
        echo n > /dev/null && echo o > /dev/stdout && echo e > /dev/stderr
        ln -s {place.outside}/file link
        echo x > {place.outside}/new
        echo x > ../new
        echo x >> link
        chmod 600 {place.outside}/file
        mv {place.outside}/file .
        ln {place.outside}/file hard
        rm {place.outside}/file
        mkdir {place.outside}/dir
        cat {place.outside}/file
        """,
    )
    assert done.stdout == "a\ntmp\no\noutside\n"
    assert done.stderr.startswith("e\n")
    assert done.stderr.count("Read-only file system") == 8
    assert sorted(os.listdir(place.work)) == ["c", "link"]
    assert os.listdir(place.outside) == ["file"]
    assert (place.outside / "file").stat().st_mode & 0o777 != 0o600


@pytest.mark.parametrize("policy", ["builtin:agent", "builtin:pip"])
@pytest.mark.parametrize("below", ["work", "."])
def test_secrets_are_out_of_sight(policy: str, below: str, place: Place) -> None:
    # The home directory as the work directory makes no difference.
    (place.home / ".netrc").write_text("KEY\n")
    os.link(place.home / ".netrc", place.work / "hard")
    (place.work / "soft").symlink_to(place.key)
    (place.work / "soft-directory").symlink_to("../.ssh")
    script = """
        cat ~/.ssh/id; cd ~ && cat .ssh/id; cat work/../.ssh/id
        cat work/soft work/soft-directory/id work/hard ~/.netrc
        mv ~/.ssh work/ssh; cp -r ~/.ssh work/copy; ln ~/.ssh/id work/again; ls ~/.ssh
        true
    """
    done = place.shell(policy, script, cwd=place.home / below)
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.count("Permission denied") >= 11
    assert "KEY" not in done.stderr
    assert place.key.read_text() == "KEY\n"


def test_an_agent_commits_and_does_not_push(place: Place) -> None:
    done = place.shell(
        "builtin:agent",
        """
        git init -q repo && cd repo && echo a > a && git add a && git commit -q -m first
        git stash push -q; git log --format=%s
        git push; git -C . push origin; git --no-pager push; git -c a.b=c push
        """,
    )
    assert done.stdout == "first\n"
    assert done.stderr.count("Permission denied") == 4
    assert done.returncode == 126


SOCKETS: Final = """
    import os, socket, sys
    def attempt(what, call):
        try:
            call()
            print(what + "=ok")
        except OSError as error:
            print(what + "=" + __import__("errno").errorcode[error.errno])
    unix = lambda: socket.socket(socket.AF_UNIX)
    listening = unix()
    attempt("bind", lambda: listening.bind("named"))
    listening.listen()
    attempt("named", lambda: unix().connect("named"))
    attempt("other", lambda: unix().connect(sys.argv[1]))
    attempt("temporary", lambda: unix().connect(os.environ["TMPDIR"] + "/agent"))
    attempt("abstract", lambda: unix().connect("\\0x"))
    attempt("inet", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 5))
    attempt("inet6", lambda: socket.socket(socket.AF_INET6).close())
    attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close())
    a, b = socket.socketpair()
    attempt("pair", lambda: a.sendmsg([b"x"]))
    import multiprocessing
    print("pool=" + str(sum(multiprocessing.Pool(2).map(abs, [-1, 2]))))
"""


@pytest.mark.parametrize("policy", ["builtin:agent", "builtin:build"])
def test_sockets(policy: str, place: Place, server: socket.socket) -> None:
    for path in (place.outside / "other", place.tmp / "agent"):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
    done = place.run(
        policy,
        *(sys.executable, "-c", textwrap.dedent(SOCKETS)),
        *(place.outside / "other", str(server.getsockname()[1])),
    )
    assert done.stderr == ""
    assert values(done.stdout) == {
        "bind": "ok",
        "named": "ok" if policy == "builtin:build" else "EACCES",
        "other": "EACCES",
        "temporary": "EACCES",
        "abstract": "EACCES",
        "inet": "EACCES",
        "inet6": "EACCES",
        "packet": "EPERM",
        "pair": "ok",
        "pool": "3",
    }


def test_a_build(place: Place) -> None:
    (place.work / "Makefile").write_text(
        "all: a b\n\t./a && ./b\n%: %.c\n\tgcc -O2 -o $@ $<\n.PHONY: all\n"
    )
    for name in "ab":
        text = f'#include <stdio.h>\nint main(void) {{ return puts("{name}") < 0; }}\n'
        (place.work / f"{name}.c").write_text(text)
    done = place.run("builtin:build", "make", "-s", "-j2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")
    assert os.listdir(place.tmp) == []


def test_a_submission_is_judged(someone: User) -> None:
    program = someone.program("submission")
    (someone.directory / "beside").write_text("x")
    work = someone.directory / "work"
    work.mkdir()
    someone.own(work)
    program = program.rename(work / "solution")
    done = someone.pinfold("--policy", "builtin:judge", "--", program, input="40 2\n", cwd=work)
    assert done.stderr == ""
    found = values(done.stdout)
    assert (work / "result.txt").read_text() == "42\n"
    assert {key: value for key, value in found.items() if not value.isdigit()} == {
        "own": "ok",
        "passwd": "EACCES",
        "beside": "EACCES",
        "library": "EACCES",
        "maps": "EACCES",
        "inet": "EACCES",
        "unix": "EACCES",
        "chdir": "EACCES",
        "link": "EACCES",
        "symlink": "EACCES",
        "rename": "ok",
        "thread": "ok",
        "exec": "EACCES",
    }
    assert int(found["children"]) < 16
    assert {key: int(found[key]) for key in ("cpu", "memory", "files", "size", "core")} == {
        "cpu": 10,
        "memory": 1 << 30,
        "files": 64,
        "size": 64 << 20,
        "core": 0,
    }


def test_a_submission_that_never_ends(someone: User) -> None:
    program = someone.program("submission")
    text = 'version = 1\ninclude = "builtin:judge"\n[limits]\ncpu = 1\nseconds = 40\n'
    policy = someone.file("short.toml", text)
    done = someone.pinfold("--policy", policy, "--", program, "spin")
    assert done.returncode in {128 + signal.SIGKILL, 128 + signal.SIGXCPU}
    assert done.stderr == "", "the processor time of the process was over, not that of the run"


def test_a_judge_runs_nothing_else(place: Place) -> None:
    done = place.run("builtin:judge", "/bin/true")
    assert done.returncode == 126
    assert "default exec" in done.stderr


# pip.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least wheel that pip installs."""
    import zipfile

    info = "pinfold_example-1.dist-info"
    path = tmp_path_factory.mktemp("wheel") / "pinfold_example-1-py3-none-any.whl"
    files = {
        "pinfold_example.py": "WORD = 'installed'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: pinfold-example\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    return path


def test_pip_installs(place: Place, wheel: Path) -> None:
    venv = place.outside / "venv"
    made = execute([sys.executable, "-m", "venv", venv])
    assert made.returncode == 0
    python = venv / "bin/python"
    done = place.run(
        "builtin:pip",
        *(python, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", wheel),
        env={"VIRTUAL_ENV": str(venv)},
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = execute([python, "-c", "import pinfold_example; print(pinfold_example.WORD)"])
    assert said.stdout == "installed\n"
    # Without VIRTUAL_ENV the environment, which is not below the work directory, is left alone.
    again = place.run(
        "builtin:pip",
        *(python, "-m", "pip", "uninstall", "-y", "--disable-pip-version-check", "pinfold-example"),
        timeout=110,
    )
    assert again.returncode != 0
    assert "Read-only file system" in again.stderr


def test_pip_talks_to_package_servers(place: Place, server: socket.socket) -> None:
    done = place.python(
        "builtin:pip",
        f"""
        import errno, socket
        for host, port in (
            ("127.0.0.1", 443), ("127.0.0.1", 80), ("127.0.0.1", 53), ("::1", 443),
            ("127.0.0.1", {server.getsockname()[1]}), ("169.254.169.254", 80),
            ("::ffff:169.254.169.254", 80), ("fd00:ec2::254", 80), ("127.0.0.1", 22),
        ):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                got = one.connect_ex((host, port))
                print(host, port, got == errno.EACCES)
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
        for host, port in (("::", 0), ("::1", 8080)):
            with socket.socket(socket.AF_INET6) as one:
                try:
                    one.bind((host, port))
                    print(host, port, False)
                except PermissionError:
                    print(host, port, True)
        print(socket.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)[0][4][1])
        """,
    )
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines.pop() == ["443"]
    denied = [line[:2] for line in lines if line[2] == "True"]
    assert denied == [
        ["127.0.0.1", str(server.getsockname()[1])],
        ["169.254.169.254", "80"],
        ["::ffff:169.254.169.254", "80"],
        ["fd00:ec2::254", "80"],
        ["127.0.0.1", "22"],
        ["::", "0"],
        ["::1", "8080"],
    ]
