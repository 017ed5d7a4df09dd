"""``examples/named_sockets.py`` run for real: servers here, clients under it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.support import PATIENCE, alive, execute, next_line, started
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.support import Done

EXAMPLE: Final = ROOT / "examples" / "named_sockets.py"

CLIENT: Final = """
import os, socket, sys, threading
ALLOWED, OTHER, ABSTRACT, PORT = sys.argv[1], sys.argv[2], "\\0" + sys.argv[3], int(sys.argv[4])
def attempt(name, make, *then):
    try:
        with make() as end:
            for step in then:
                found = step(end)
    except OSError as error:
        found = error.errno
    print(name, found, flush=True)
def unix(kind=socket.SOCK_STREAM):
    return lambda: socket.socket(socket.AF_UNIX, kind)
def to(address):
    return lambda end: end.connect(address)
def greeting(end):
    return end.recv(100).decode()
"""


class Servers:
    """Sockets of all kinds, each of which says its name to whoever reaches it.

    Attributes:
        reached: Names of those that somebody reached.
    """

    def __init__(self, directory: Path) -> None:
        self.allowed = str(directory / "allowed")
        self.other = str(directory / "other")
        self.abstract = f"pinfold-test-{os.getpid()}"
        self.reached: list[str] = []
        self._made: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listen("allowed", socket.AF_UNIX, self.allowed)
        self._listen("other", socket.AF_UNIX, self.other)
        self._listen("abstract", socket.AF_UNIX, "\0" + self.abstract)
        self.port = self._listen("tcp", socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        self.datagram = str(directory / "datagram")
        self.mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._made.append(self.mailbox)
        self.mailbox.bind(self.datagram)
        self.mailbox.setblocking(False)

    def _listen(self, name: str, family: int, address: str | tuple[str, int]) -> socket.socket:
        server = socket.socket(family)
        self._made.append(server)
        server.bind(address)
        server.listen()
        thread = threading.Thread(target=self._serve, args=(server, name))
        thread.start()
        self._threads.append(thread)
        return server

    def _serve(self, server: socket.socket, name: str) -> None:
        while True:
            try:
                end, _ = server.accept()
            except OSError:
                return
            with end:
                self.reached.append(name)
                end.sendall(name.encode())

    def close(self) -> None:
        for server in self._made:
            # Closing alone does not end an accept that is under way.
            if server.type == socket.SOCK_STREAM:
                server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for server in self._made:
            server.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    # A short name: there are 108 bytes for it.
    with tempfile.TemporaryDirectory(prefix="pinfold-") as directory:
        made = Servers(Path(directory))
        try:
            yield made
        finally:
            made.close()


def example(*args: str | Path, supervisor: Path = EXAMPLE) -> Done:
    return execute([sys.executable, supervisor, *args], timeout=PATIENCE)


def client(
    servers: Servers, body: str, *options: str, supervisor: Path = EXAMPLE
) -> dict[str, str]:
    """Runs a client under the example; returns what each of its attempts came to."""
    done = example(
        *("--socket", servers.allowed, *options, "--"),
        *(sys.executable, "-I", "-S", "-c", CLIENT + body),
        *(servers.allowed, servers.other, servers.abstract, str(servers.port)),
        servers.datagram,
        supervisor=supervisor,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) == len(done.stdout.splitlines())
    return found


def test_only_the_named_socket_is_reached(servers: Servers) -> None:
    denied = str(errno.EACCES)
    found = client(
        servers,
        "attempt('allowed', unix(), to(ALLOWED), greeting)\n"
        "attempt('other', unix(), to(OTHER), greeting)\n"
        "attempt('abstract', unix(), to(ABSTRACT), greeting)\n"
        "attempt('longer', unix(), to(ALLOWED + 'x'), greeting)\n"
        "attempt('shorter', unix(), to(ALLOWED[:-1]), greeting)\n"
        "attempt('spelled', unix(), to('/.' + ALLOWED), greeting)\n"
        "attempt('nothing', unix(), to(''), greeting)\n"
        "attempt('tcp', lambda: socket.socket(socket.AF_INET), to(('127.0.0.1', PORT)), greeting)\n"
        "attempt('again', unix(), to(ALLOWED), greeting)\n",
    )
    assert found == dict.fromkeys(
        ("other", "abstract", "longer", "shorter", "spelled", "nothing", "tcp"), denied
    ) | {"allowed": "allowed", "again": "allowed"}
    assert servers.reached == ["allowed", "allowed"]


def test_without_the_example_all_are_reached(servers: Servers) -> None:
    # The control: the servers and the client work.
    body = (
        "attempt('allowed', unix(), to(ALLOWED), greeting)\n"
        "attempt('other', unix(), to(OTHER), greeting)\n"
        "attempt('abstract', unix(), to(ABSTRACT), greeting)\n"
        "attempt('tcp', lambda: socket.socket(socket.AF_INET), to(('127.0.0.1', PORT)), greeting)\n"
        "pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "attempt('sent', lambda: pair[0], lambda end: end.sendto(b'x', sys.argv[5]))\n"
    )
    done = execute(
        [
            *(sys.executable, "-I", "-S", "-c", CLIENT + body),
            *(servers.allowed, servers.other, servers.abstract, str(servers.port)),
            servers.datagram,
        ]
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert servers.reached == ["allowed", "other", "abstract", "tcp"]
    assert servers.mailbox.recv(10) == b"x"


def test_several_names(servers: Servers) -> None:
    found = client(
        servers,
        "attempt('other', unix(), to(OTHER), greeting)\n"
        "attempt('allowed', unix(), to(ALLOWED), greeting)\n"
        "attempt('abstract', unix(), to(ABSTRACT), greeting)\n",
        *("--socket", servers.other),
    )
    assert found == {"other": "other", "allowed": "allowed", "abstract": str(errno.EACCES)}


def test_ways_without_connect(servers: Servers) -> None:
    denied = str(errno.EACCES)
    found = client(
        servers,
        "here = sys.argv[5]\n"
        "attempt('datagram', unix(socket.SOCK_DGRAM), lambda end: end.sendto(b'x', here))\n"
        "attempt('raw', unix(socket.SOCK_RAW), lambda end: end.sendto(b'x', here))\n"
        "attempt('seqpacket', unix(socket.SOCK_SEQPACKET), to(ALLOWED))\n"
        "attempt('flags', unix(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), lambda end: 0)\n"
        "attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))\n"
        "attempt('vsock', lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))\n"
        "attempt('inet6', lambda: socket.socket(socket.AF_INET6))\n"
        "def pair(kind): return lambda: socket.socketpair(socket.AF_UNIX, kind)[0]\n"
        "attempt('pair', pair(socket.SOCK_DGRAM), lambda end: end.sendto(b'x', here))\n"
        "attempt('sendto', unix(), lambda end: end.sendto(b'x', ALLOWED))\n"
        "attempt('sendmsg', unix(), lambda end: end.sendmsg([b'x'], [], 0, here))\n"
        "attempt('streams', pair(socket.SOCK_STREAM), lambda end: 'made')\n"
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for name, number in (('io_uring_setup', 425), ('ptrace', 101), ('pidfd_getfd', 438)):\n"
        "    libc.syscall(number, 0, 0, 0, 0)\n"
        "    print(name, ctypes.get_errno())\n",
    )
    assert found.pop("streams") == "made"
    for name in ("sendto", "sendmsg"):
        assert int(found.pop(name)) in {errno.EOPNOTSUPP, errno.ENOTCONN, errno.EPIPE}
    for name in ("io_uring_setup", "ptrace", "pidfd_getfd"):
        assert int(found.pop(name)) == errno.EPERM
    assert set(found.values()) == {denied}
    assert not servers.reached
    with pytest.raises(BlockingIOError):
        servers.mailbox.recv(10)


def test_threads_children_and_new_programs(servers: Servers) -> None:
    found = client(
        servers,
        "def many(tag):\n"
        "    attempt(f'{tag}-allowed', unix(), to(ALLOWED), greeting)\n"
        "    attempt(f'{tag}-other', unix(), to(OTHER), greeting)\n"
        "many('first')\n"
        "threads = [threading.Thread(target=many, args=(f't{n}',)) for n in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "if os.fork() == 0:\n"
        "    many('child'); os._exit(0)\n"
        "os.wait()\n",
    )
    assert len(found) == 12
    assert {name for name, value in found.items() if value == "allowed"} == {
        name for name in found if name.endswith("-allowed")
    }
    assert {value for name, value in found.items() if name.endswith("-other")} == {
        str(errno.EACCES)
    }
    assert set(servers.reached) == {"allowed"}


def test_a_program_that_executes_another(servers: Servers) -> None:
    one = CLIENT + "attempt('one', unix(), to(ALLOWED), greeting)\n"
    two = CLIENT + "attempt('two', unix(), to(ALLOWED), greeting)\n"
    first = one + f"os.execv(sys.executable, [sys.executable, '-c', {two!r}, *sys.argv[1:]])\n"
    done = example(
        *("--socket", servers.allowed, "--", sys.executable, "-c", first),
        *(servers.allowed, servers.other, servers.abstract, str(servers.port)),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one allowed\ntwo allowed\n", "")


RACE: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
names = [b"\\1\\0" + os.fsencode(name) + b"\\0" for name in (ALLOWED, OTHER)]
where = ctypes.create_string_buffer(128)
over = False
def write():
    while not over:
        for name in names:
            ctypes.memmove(where, name, len(name))
thread = threading.Thread(target=write)
thread.start()
seen = dict.fromkeys(["allowed", "other", "13"], 0)
for _ in range(2500):
    with socket.socket(socket.AF_UNIX) as end:
        failed = libc.connect(end.fileno(), where, 110)
        seen[str(ctypes.get_errno()) if failed else greeting(end)] += 1
over = True
thread.join()
for item in seen.items():
    print(*item)
"""
"""A thread writes the other name over the allowed one, and back, all the time."""


def test_a_name_that_changes_meanwhile(servers: Servers, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the race needs two CPUs")
    # The control: the same supervisor, but the call continues with its own argument.
    naive = tmp_path / "naive.py"
    text = EXAMPLE.read_text()
    pinned = "listener.send_redirect(call.id, {1: where, 2: size}, {1: size})"
    assert text.count(pinned) == 1
    naive.write_text(text.replace(pinned, "listener.resume(call.id)"))
    lost = client(servers, RACE, supervisor=naive)
    assert servers.reached.count("other") == int(lost["other"])
    assert int(lost["other"]) >= 5, f"a race that nobody loses: {lost}"
    servers.reached.clear()
    held = client(servers, RACE)
    # Both names were seen by the supervisor, and one by the kernel.
    assert int(held["allowed"]) > 0
    assert int(held["13"]) > 0
    assert held["other"] == "0"
    assert set(servers.reached) == {"allowed"}
    print(f"2,500 attempts: {lost['other']} escapes without the pin, none with it")


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_status(script: str, status: int) -> None:
    done = example("--socket", "/none", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_a_command_that_is_not_there() -> None:
    done = example("--socket", "/none", "--", "no-such-program-anywhere")
    assert done.returncode == 127
    assert done.stderr == "no-such-program-anywhere: command not found in PATH\n"


def test_it_ends_with_the_supervisor() -> None:
    command = [
        sys.executable,
        str(EXAMPLE),
        "--socket",
        "/none",
        "--",
        "sh",
        "-c",
        "echo $$; exec cat",
    ]
    with started(command, stderr=subprocess.DEVNULL) as supervisor:
        pid = int(next_line(supervisor.stdout))
        assert alive(pid)
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(PATIENCE)
        assert not alive(pid)


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
