"""Rules over whole calls: what they see is pinned, what they replace is what the kernel gets."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.codec.sockaddr import Abstract, Inet, Unix
from pinfold.policy.calls import ALLOWED, Trapped, Verdict, denied, redirected
from tests.kernel.judged import PYTHON, Run, only
from tests.programs import build

if TYPE_CHECKING:
    from pathlib import Path

SHOW = "import os, sys, json; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.mark.parametrize(
    "new", [["x", "y", "z"], [], ["\u00fc" * 100], ["many"] * 3000, ["long" * 30000]]
)
def test_other_arguments(new: list[str]) -> None:
    """More, fewer, other ones; in a slot that has to grow."""

    @only("execve")
    def rule(call: Trapped) -> Verdict:
        argv = call.value("argv").values
        if b"old" not in argv:
            return ALLOWED
        return redirected("test", argv=[*argv[:4], *map(os.fsencode, new)])

    done = Run((*PYTHON, SHOW, "old", "arguments"), rule)
    assert json.loads(done.out)[0] == new
    assert (done.status, done.redirected) == (0, 1)
    (record,) = [one for one in done.records if one["verdict"] == "redirect"]
    assert record["substituted"]["argv"]["from"][-2:] == ["old", "arguments"]


def test_other_environment() -> None:
    @only("execve")
    def rule(call: Trapped) -> Verdict:
        assert b"KEEP=kept" in call.value("envp").values
        return redirected("test", envp=[b"ONLY=this", b"EMPTY="])

    done = Run((*PYTHON, SHOW), rule)
    environment = json.loads(done.out)[1]
    environment.pop("LC_CTYPE", None)
    assert environment == {"ONLY": "this", "EMPTY": ""}
    (record,) = [one for one in done.records if one["syscall"] == "execve"]
    assert record["args"]["envp"] == ["ONLY", "EMPTY"]


def test_no_environment_at_all() -> None:
    @only("execve")
    def rule(call: Trapped) -> Verdict:
        return redirected("test", envp=[], argv=call.value("argv").values)

    done = Run((*PYTHON, SHOW, "a"), rule)
    arguments, environment = json.loads(done.out)
    assert arguments == ["a"]
    assert set(environment) <= {"LC_CTYPE"}


def test_another_program() -> None:
    @only("execve")
    def rule(call: Trapped) -> Verdict:
        if call.names["path"] == (b"/usr/bin/false",):
            return redirected("test", path=b"/bin/echo", argv=[b"echo", b"instead"])
        return ALLOWED

    assert Run(("/usr/bin/env", "/usr/bin/false"), rule).out == "instead\n"


def test_arguments_decide(tmp_path: Path) -> None:
    """The rule that users ask for most: an unmodified program, gated by its argv."""

    @only("execve")
    def rule(call: Trapped) -> Verdict:
        words = call.value("argv").values
        if words[:2] == [b"git", b"push"]:
            return denied("no push", errno.EPERM)
        return ALLOWED

    done = Run(("/bin/sh", "-c", f"cd {tmp_path}; git --version; git push; echo $?"), rule)
    first, *_, last = done.out.splitlines()
    assert first.startswith("git version")
    assert last == "126"
    assert done.denied >= 1


@contextlib.contextmanager
def listening(address: Any, family: int = socket.AF_UNIX) -> Any:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        server.settimeout(20)
        yield server


CONNECT = """
import socket, sys
s = socket.socket({family}, socket.SOCK_STREAM)
try:
    s.connect({address!r})
    s.sendall(b"hello")
    print("connected", s.getpeername())
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("kind", ["unix", "abstract", "inet"])
def test_another_address(tmp_path: Path, kind: str) -> None:
    """Of another length, and of another kind of name; the family is the socket's."""
    asked = "/no/such" if kind != "inet" else ("192.0.2.1", 9)
    family = socket.AF_INET if kind == "inet" else socket.AF_UNIX
    name = {
        "unix": str(tmp_path / "a-much-longer-name.sock"),
        "abstract": f"\0pinfold-test-{os.getpid()}",
        "inet": ("127.0.0.1", 0),
    }[kind]

    def asked_for(call: Trapped) -> bool:
        # The C library has a connection of its own to make (nscd).
        return call.value("address").address in (
            Unix(b"/no/such"),
            Inet(IPv4Address("192.0.2.1"), 9),
        )

    with listening(name, family) as server:
        target: Any = Unix(os.fsencode(str(name)))
        if kind == "abstract":
            target = Abstract(os.fsencode(str(name))[1:])
        elif kind == "inet":
            target = Inet(IPv4Address("127.0.0.1"), server.getsockname()[1])
        done = Run(
            (*PYTHON, CONNECT.format(family=int(family), address=asked)),
            only("connect")(
                lambda call: redirected("test", address=target) if asked_for(call) else ALLOWED
            ),
        )
        assert done.out.startswith("connected")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(10) == b"hello"


def test_named_sockets_only(tmp_path: Path) -> None:
    allowed, other = str(tmp_path / "yes"), str(tmp_path / "no")

    @only("connect")
    def rule(call: Trapped) -> Verdict:
        if call.value("address").address == Unix(os.fsencode(allowed)):
            return ALLOWED
        return denied("not this one")

    with listening(allowed) as good, listening(other):
        for address in (allowed, other, "\0abstract"):
            done = Run((*PYTHON, CONNECT.format(family=1, address=address)), rule)
            assert done.out.startswith("connected") == (address == allowed)
            if address != allowed:
                assert done.out == f"{errno.EACCES}\n"
        accepted, _ = good.accept()
        with accepted:
            assert accepted.recv(10) == b"hello"


def test_messages_are_sent_elsewhere(tmp_path: Path) -> None:
    """sendto, sendmsg and each message of a sendmmsg: the name is replaced, the data is not."""
    asked, got = str(tmp_path / "asked"), str(tmp_path / "somewhere-else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(got)
        receiver.settimeout(20)

        def rule(call: Trapped) -> Verdict:
            if call.row.name == "sendto":
                return redirected("test", address=Unix(os.fsencode(got)))
            return redirected("test", message=Unix(os.fsencode(got)))

        script = (
            "import socket; s = socket.socket(1, 2);"
            f" s.sendto(b'one', {asked!r}); s.sendmsg([b't', b'wo'], [], 0, {asked!r})"
        )
        done = Run((*PYTHON, script), only("sendto", "sendmsg")(rule))
        assert done.status == 0
        assert [receiver.recv(10), receiver.recv(10)] == [b"one", b"two"]


def test_flags_and_modes(tmp_path: Path) -> None:
    """Scalars: everything is opened for reading only, and made for its owner alone."""
    (tmp_path / "file").write_text("untouched")

    @only("openat", "mkdir")
    def rule(call: Trapped) -> Verdict:
        if str(tmp_path).encode() not in call.names.get("path", (b"",))[0]:
            return ALLOWED
        if call.row.name == "mkdir":
            return redirected("test", mode=0o700)
        return redirected("test", flags=call.registers[2] & ~os.O_ACCMODE & ~os.O_TRUNC)

    script = (
        f"import os; os.mkdir('{tmp_path}/made', 0o777)\n"
        f"fd = os.open('{tmp_path}/file', os.O_RDWR | os.O_TRUNC)\n"
        "try: os.write(fd, b'x')\n"
        "except OSError as error: print(error.errno, os.read(fd, 20).decode())"
    )
    done = Run((*PYTHON, script), rule)
    assert done.out == f"{errno.EBADF} untouched\n"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700


def test_another_structure(tmp_path: Path) -> None:
    """open_how, through a program that makes openat2."""
    program = build("openat2_show")
    (tmp_path / "file").write_text("text")

    @only("openat2")
    def rule(call: Trapped) -> Verdict:
        how = call.value("how")
        return redirected("test", how=how._replace(flags=os.O_RDONLY))

    done = Run((str(program), str(tmp_path / "file"), str(os.O_RDWR)), rule)
    assert done.out == "0\n"
    bare = subprocess.run(
        [program, tmp_path / "file", str(os.O_RDWR)], capture_output=True, text=True, check=True
    )
    assert bare.stdout == "2\n"


def test_another_attribute(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    @only("setxattr")
    def rule(call: Trapped) -> Verdict:
        assert call.value("value") == b"long value"
        return redirected("test", name=b"user.pinned", value=b"short")

    script = f"import os; os.setxattr('{tmp_path}/file', 'user.asked', b'long value')"
    assert Run((*PYTHON, script), rule).status == 0
    assert os.listxattr(tmp_path / "file") == ["user.pinned"]
    assert os.getxattr(tmp_path / "file", "user.pinned") == b"short"


def test_times_are_replaced_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    new = b"".join(number.to_bytes(8, "little") for number in (1000, 0, 2000, 0))

    @only("utimensat")
    def rule(call: Trapped) -> Verdict:
        assert len(call.value("times")) == len(new)
        return redirected("test", times=new)

    script = f"import os; os.utime('{tmp_path}/file', (5, 6))"
    assert Run((*PYTHON, script), rule).status == 0
    found = (tmp_path / "file").stat()
    assert (found.st_atime, found.st_mtime) == (1000, 2000)


@pytest.mark.parametrize(
    ("call", "replace"),
    [
        ("execve", {"argv": [b"a\0b"]}),
        ("execve", {"path": b"/" + b"x" * 5000}),
        ("utimensat", {"times": b"short"}),
        ("connect", {"address": bytes(200)}),
    ],
)
def test_what_cannot_be_written_is_denied(
    tmp_path: Path, call: str, replace: dict[str, Any]
) -> None:
    """A rule's mistake is not let through."""
    script = (
        "import os, socket, sys\n"
        "for call in (lambda: os.utime(sys.argv[1], (5, 6)),\n"
        "             lambda: socket.socket(1).connect(sys.argv[1]),\n"
        "             lambda: os.execv('/bin/true', ['true'])):\n"
        "    try: call()\n"
        "    except OSError as error: print(error.errno, flush=True)\n"
    )
    first = [True]

    @only(call)
    def rule(trapped: Trapped) -> Verdict:
        if trapped.row.name == "execve" and first:
            first.clear()
            return ALLOWED
        return redirected("test", **replace)

    done = Run((*PYTHON, script, str(tmp_path)), rule)
    assert str(errno.EPERM) in done.out.split()
    denials = [record for record in done.records if record["verdict"] == "deny"]
    assert len(denials) == done.denied >= 1
    for denial in denials:
        assert denial["rule"].startswith("test: cannot redirect: ")
        assert (denial["syscall"], denial["errno"]) == (call, "EPERM")


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    """The kernel says EFAULT, whatever the rule wants."""
    script = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "for args in ((46, 3, 8, 0), (42, 3, 8, 16), (437, -100, b'/', 8, 24)):\n"
        "    values = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in args]\n"
        "    print(c.syscall(*values), ctypes.get_errno())"
    )

    @only("sendmsg", "connect", "openat2")
    def rule(call: Trapped) -> Verdict:
        if call.row.name == "sendmsg":
            return redirected("test", message=Unix(b"/x"))
        if call.row.name == "connect":
            return redirected("test", address=Unix(b"/x"))
        return redirected("test", how=call.value("how"))

    done = Run((*PYTHON, "import socket; s = socket.socket(1, 2)\n" + script), rule)
    assert done.out == f"-1 {errno.EFAULT}\n" * 3


def test_the_suite_uses_the_interpreter_that_it_names() -> None:
    assert os.access(PYTHON[0], os.X_OK)
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize("threads", [0, 1])
def test_relative_socket_names(tmp_path: Path, threads: int) -> None:
    """They are judged by the name that they mean; with threads that name is what is pinned."""
    (tmp_path / "sub").mkdir()
    seen: list[tuple[bytes, Any]] = []

    @only("connect")
    def rule(call: Trapped) -> Verdict:
        seen.append((call.names.get("address", (b"",))[0], call.value("address").address))
        return ALLOWED

    script = (
        f"import os, threading; os.chdir('{tmp_path}/sub')\n"
        "done = threading.Event()\n"
        f"for _ in range({threads}): threading.Thread(target=done.wait).start()\n"
        + CONNECT.format(family=1, address="../sock")
        + "\ndone.set()"
    )
    with listening(str(tmp_path / "sock")) as server:
        done = Run((*PYTHON, script), rule)
        assert done.out.startswith("connected")
        server.accept()[0].close()
    named = dict(seen)[os.fsencode(f"{tmp_path}/sock")]
    assert named == Unix(os.fsencode(f"{tmp_path}/sub/../sock") if threads else b"../sock")
