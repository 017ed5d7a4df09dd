"""The recipes about sockets, with real servers."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.kernel.recipes import SEARCH, Place, place
from tests.kernel.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = "One Unix socket of two"
TCP = "All TCP connections to one port"
UDP = "Datagrams to one port"
LOOPBACK = "One port on this machine, and no other network"
SERVICE = "A web service decides about connections"
INJECT = "Hand out a connected socket"


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as one:
        yield one


class Server:
    """Answers each connection or datagram with its name, until the block ends."""

    def __init__(self, family: int, kind: int, address: object, name: bytes) -> None:
        self._socket = socket.socket(family, kind)
        self._name = name
        self._heard: list[bytes] = []
        self._more = threading.Condition()
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            self._socket.listen(64)
        self._thread = threading.Thread(
            target=self._accept if kind == socket.SOCK_STREAM else self._receive, daemon=True
        )
        self._wake = socket.socket(family, kind)

    def heard(self, number: int) -> list[bytes]:
        """Waits for so many connections or datagrams; returns what came, by each."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._heard) >= number, PATIENCE)
            return sorted(self._heard)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR) if self._listens() else self._stop()
        self._thread.join(PATIENCE)
        self._socket.close()
        self._wake.close()

    def _listens(self) -> bool:
        return self._socket.type == socket.SOCK_STREAM

    def _stop(self) -> None:
        self._wake.sendto(b"stop", self._socket.getsockname())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # EINVAL: it was shut down
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self._hears(self._conversation(connection))

    def _conversation(self, connection: socket.socket) -> bytes:
        connection.settimeout(PATIENCE)
        heard = b""
        with contextlib.suppress(ConnectionError):  # the other side may go at any time
            connection.sendall(self._name)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(4096):
                heard += data
        return heard

    def _hears(self, data: bytes) -> None:
        with self._more:
            self._heard.append(data)
            self._more.notify_all()

    def _receive(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if data == b"stop":
                return
            self._hears(data)
            if sender:
                self._socket.sendto(self._name, sender)


UNIX_CLIENT = """
import errno, os, socket, sys
def address(text):
    return '\\0' + text[1:] if text.startswith('@') else text
def tried(what, text):
    try:
        print(what, text, use[what](address(text)))
    except OSError as error:
        print(what, text, errno.errorcode[error.errno])
def connect(to):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(to)
        one.send(b'x')
        return one.recv(9).decode()
def datagram(send):
    def sent(to):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            return send(one, to)
    return sent
use = {
    'connect': connect,
    'sendto': datagram(lambda one, to: one.sendto(b'x', to)),
    'sendmsg': datagram(lambda one, to: one.sendmsg([b'x'], [], 0, to)),
    'dconnect': datagram(lambda one, to: one.connect(to) or one.send(b'x')),
}
if sys.argv[1] == 'cd':
    os.chdir(sys.argv[2])
    del sys.argv[1:3]
for one in sys.argv[1:]:
    tried(*one.split(':'))
"""


@pytest.fixture
def sockets(here: Place) -> Iterator[tuple[Place, dict[str, Server]]]:
    """Two stream and two datagram servers in a directory, and four with abstract names."""
    run = here.work / "run"
    run.mkdir()
    names = {"named": "named", "dnamed": "worker-1", "other": "other", "dother": "worker-x"}
    kinds = {"": socket.SOCK_STREAM, "d": socket.SOCK_DGRAM}
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in ("named", "other"):
            for directory, kind in kinds.items():
                base = run / directory
                base.mkdir(exist_ok=True)
                at = str(base / f"{name}.sock")
                servers[directory + name] = Server(socket.AF_UNIX, kind, at, name.encode())
                abstract = f"\0app-{os.getpid()}-{names[directory + name]}"
                servers[f"@{directory}{name}"] = Server(
                    socket.AF_UNIX, kind, abstract, name.encode()
                )
        for one in servers.values():
            stack.enter_context(one)
        yield here, servers


def client(here: Place, title: str, *what: object, **variables: object) -> list[str]:
    """The last word of each line that the client prints under a recipe."""
    done = here.run(title, *here.python(UNIX_CLIENT), *map(str, what), variables=variables)
    assert done.returncode == 0, done.stderr
    return [line.split()[-1] for line in done.stdout.splitlines()]


def test_one_socket_of_two(sockets: tuple[Place, dict[str, Server]]) -> None:
    """The name decides, however it is spelt."""
    here, servers = sockets
    run = here.work / "run"
    (here.work / "link").symlink_to(run / "other.sock")
    (here.work / "good").symlink_to(run / "named.sock")
    (here.work / "dir").symlink_to(run)
    found = client(
        here,
        ONE,
        "cd",
        run,
        *(f"connect:{run}/named.sock", "connect:named.sock", "connect:./d/../named.sock"),
        *(f"connect:{run}/other.sock", "connect:other.sock", "connect:./d/../other.sock"),
        *(
            "connect:../run//other.sock",
            f"connect:{here.work}/link",
            f"connect:{here.work}/dir/other.sock",
        ),
        *(
            "connect:/proc/self/cwd/other.sock",
            "connect:/proc/self/root" + "/proc/self/cwd/other.sock",
        ),
        RUN=run,
    )
    assert found == ["named"] * 3 + ["EACCES"] * 8
    assert servers["other"].heard(0) == []
    assert len(here.records(verdict="deny", syscall="connect")) == 8
    # A link to the allowed one is another name of it, and not on the list.
    assert client(here, ONE, f"connect:{here.work}/good", RUN=run) == ["EACCES"]


def test_a_link_at_the_allowed_name(sockets: tuple[Place, dict[str, Server]]) -> None:
    """Whoever made it, it leads where it leads."""
    here, servers = sockets
    run = here.work / "run"
    (run / "named.sock").rename(run / "moved.sock")
    (run / "named.sock").symlink_to("other.sock")
    assert client(here, ONE, f"connect:{run}/named.sock", RUN=run) == ["EACCES"]
    assert servers["other"].heard(0) == []


def test_one_socket_by_datagrams(sockets: tuple[Place, dict[str, Server]]) -> None:
    """A send with an address is judged like a connect."""
    here, servers = sockets
    run = here.work / "run" / "d"
    found = client(
        here,
        ONE,
        "cd",
        run,
        *("sendto:named.sock", "sendmsg:named.sock", "dconnect:named.sock"),
        *("sendto:other.sock", "sendmsg:other.sock", "dconnect:other.sock"),
        RUN=run,
    )
    assert found == ["1"] * 3 + ["EACCES"] * 3
    assert servers["dother"].heard(0) == []


def test_one_abstract_socket_of_two(sockets: tuple[Place, dict[str, Server]]) -> None:
    """Abstract names have patterns."""
    here, servers = sockets
    app = f"app-{os.getpid()}"
    words = [f"connect:@{app}-named", f"sendto:@{app}-worker-1"]
    words += [f"connect:@{app}-other", f"sendto:@{app}-worker-x", f"sendmsg:@{app}-worker-x"]
    done = here.run(ONE, *here.python(UNIX_CLIENT), *words, variables={"APP": app})
    found = [line.split()[-1] for line in done.stdout.splitlines()]
    assert found == ["named", "1", "EACCES", "EACCES", "EACCES"], done.stderr
    assert servers["@other"].heard(0) == servers["@dother"].heard(0) == []


def test_no_other_socket_at_the_name(sockets: tuple[Place, dict[str, Server]]) -> None:
    """The allowed name stays what it is."""
    here, servers = sockets
    run = here.work / "run"
    script = (
        "mv named.sock away; mv other.sock named.sock; ln -f other.sock named.sock;"
        "ln -sf other.sock named.sock; rm -f named.sock; mv run gone; cd ..; mv run gone"
    )
    here.run(ONE, "sh", "-c", script, cwd=run, variables={"RUN": run})
    assert client(here, ONE, f"connect:{run}/named.sock", RUN=run) == ["named"]
    assert servers["other"].heard(0) == []


@pytest.mark.parametrize("tool", ["curl", "socat", "nc"])
def test_other_clients(sockets: tuple[Place, dict[str, Server]], tool: str) -> None:
    """Programs that others have written, where they are installed."""
    if shutil.which(tool, path=SEARCH) is None:
        pytest.skip(f"there is no {tool}")
    here, servers = sockets
    run = here.work / "run"
    for name in ("named", "other"):
        at = run / f"{name}.sock"
        commands = {
            "curl": ("curl", "-s", "--http0.9", "--unix-socket", at, "http://localhost/"),
            "socat": ("socat", "-u", f"UNIX-CONNECT:{at}", "-"),
            "nc": ("nc", "-U", at),
        }
        done = here.run(ONE, *commands[tool], variables={"RUN": run})
        assert done.stdout == ("named" if name == "named" else ""), done.stderr
    assert servers["other"].heard(0) == []


TCP_CLIENT = """
import errno, socket, sys, threading
def tried(text):
    family, host, port = text.split(',')
    family = {'4': socket.AF_INET, '6': socket.AF_INET6}[family]
    with socket.socket(family) as one:
        one.settimeout(20)
        try:
            one.connect((host, int(port)))
            return one.recv(9).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
def work():
    for text in sys.argv[2:]:
        answers.append((text, tried(text)))
answers = []
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
for one in threads: one.start()
for one in threads: one.join()
for text in sys.argv[2:]:
    print(text, *sorted({answer for asked, answer in answers if asked == text}))
"""


@pytest.mark.parametrize("threads", [1, 8])
def test_tcp_to_one_port(here: Place, threads: int) -> None:
    """Addresses of documentation, of this machine and in all notations end at one server."""
    wanted = ["4,192.0.2.1,80", "4,127.0.0.1,1", "6,2001:db8::1,443", "6,::ffff:192.0.2.1,80"]
    wanted += ["6,::1,1", "4,0.0.0.0,1", "6,::,1"]
    with Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"proxy") as proxy:
        to = {"PROXY": proxy.port}
        done = here.run(TCP, *here.python(TCP_CLIENT), str(threads), *wanted, variables=to)
        assert done.stdout.splitlines() == [f"{one} proxy" for one in wanted], done.stderr
        assert len(proxy.heard(threads * len(wanted))) == threads * len(wanted)
        assert len(here.records(verdict="redirect")) == threads * len(wanted)
        udp = "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 9))"
        assert "PermissionError" in here.run(TCP, *here.python(udp), variables=to).stderr
        fast = "import socket; socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', 1))"
        assert "PermissionError" in here.run(TCP, *here.python(fast), variables=to).stderr
        only = (
            "import socket; s = socket.socket(10); s.setsockopt(41, 26, 1); s.connect(('::1', 1))"
        )
        assert "OSError" in here.run(TCP, *here.python(only), variables=to).stderr
        assert len(proxy.heard(threads * len(wanted))) == threads * len(wanted)


@pytest.mark.skipif(shutil.which("curl", path=SEARCH) is None, reason="there is no curl")
def test_curl_to_one_port(here: Place) -> None:
    """A real client, which never gets where it wanted to."""
    with Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"proxy") as proxy:
        to = {"PROXY": proxy.port}
        url = "http://192.0.2.9/"
        done = here.run(TCP, "curl", "-sS", "--http0.9", "--max-time", "20", url, variables=to)
        assert done.stdout == "proxy", done.stderr
        (record,) = here.records(verdict="redirect")
        assert record["substituted"] == {
            "address": {"from": "inet:192.0.2.9:80", "to": f"inet:127.0.0.1:{proxy.port}"}
        }


def test_datagrams_to_one_port(here: Place) -> None:
    """By address and by connection; another port is left alone."""
    script = (
        "import socket, sys\n"
        "one = socket.socket(2, 2); one.settimeout(20)\n"
        "one.sendto(b'a', ('192.0.2.1', 53)); print(one.recvfrom(9))\n"
        "one.sendmsg([b'b'], [], 0, ('192.0.2.1', 53)); print(one.recv(9))\n"
        "two = socket.socket(2, 2); two.settimeout(20)\n"
        "two.connect(('192.0.2.2', 53)); two.send(b'c'); print(two.recv(9))\n"
        "one.sendto(b'd', ('127.0.0.1', int(sys.argv[1]))); print(one.recv(9))\n"
    )
    with (
        Server(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), b"resolver") as resolver,
        Server(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), b"other") as other,
    ):
        to = {"RESOLVER": resolver.port}
        done = here.run(UDP, *here.python(script), str(other.port), variables=to)
        # The sender is told as it is: that is the recipe's limit.
        first, *rest = done.stdout.splitlines()
        assert first == f"(b'resolver', ('127.0.0.1', {resolver.port}))", done.stderr
        assert rest == ["b'resolver'", "b'resolver'", "b'other'"]
        assert resolver.heard(3) == [b"a", b"b", b"c"]


def test_one_port_on_this_machine(here: Place) -> None:
    """The service, on both loopback addresses; nothing else, in any notation."""
    with (
        Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"service") as service,
        Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"other") as other,
    ):
        variables = {"PORT": service.port}
        good = [f"4,127.0.0.1,{service.port}"]
        bad = [f"4,127.0.0.1,{other.port}", f"6,::ffff:127.0.0.1,{other.port}"]
        bad += [f"4,0.0.0.0,{other.port}", f"4,127.0.0.2,{service.port}", "4,192.0.2.1,80"]
        done = here.run(LOOPBACK, *here.python(TCP_CLIENT), "2", *good, *bad, variables=variables)
        expected = [f"{one} service" for one in good] + [f"{one} EACCES" for one in bad]
        assert done.stdout.splitlines() == expected, done.stderr
        assert other.heard(0) == []
        rest = (
            "import socket\n"
            "def tried(what):\n"
            "    try: what()\n"
            "    except PermissionError: print('denied')\n"
            "tried(lambda: socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9)))\n"
            "tried(lambda: socket.socket().bind(('127.0.0.1', 0)))\n"
            "tried(lambda: socket.socket().listen())\n"
            "tried(lambda: socket.socket(socket.AF_UNIX).connect('/run/x.sock'))\n"
            "tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))\n"
            "a, b = socket.socketpair(); a.send(b'pair'); print(b.recv(9))\n"
        )
        done = here.run(LOOPBACK, *here.python(rest), variables=variables)
        assert done.stdout == "denied\n" * 5 + "b'pair'\n", done.stderr


class Decider(http.server.ThreadingHTTPServer):
    """Answers 200 for what may be connected to, and keeps what it was asked."""

    def __init__(self, *allowed: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.allowed = allowed
        self.asked: list[str] = []


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Decider

    def do_GET(self) -> None:
        where = self.path[1:]
        self.server.asked.append(where)
        self.send_response(200 if where in self.server.allowed else 403)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_a_web_service_decides(here: Place) -> None:
    """It is asked about each address, also by several threads at a time; no service is a no."""
    script = here.script(SERVICE)
    with (
        Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"good") as good,
        Server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), b"bad") as bad,
    ):
        words = (f"4,127.0.0.1,{good.port}", f"4,127.0.0.1,{bad.port}")
        command = (sys.executable, str(script), *here.python(TCP_CLIENT), "4", *words)
        with Decider(f"127.0.0.1:{good.port}") as decider:
            thread = threading.Thread(target=decider.serve_forever)
            thread.start()
            at = f"127.0.0.1:{decider.server_port}"
            try:
                done = here.bare(*command, env={"DECIDER": at})
            finally:
                decider.shutdown()
                thread.join(PATIENCE)
            assert done.stdout.splitlines() == [f"{words[0]} good", f"{words[1]} ECONNREFUSED"], (
                done
            )
            asked = [f"127.0.0.1:{port}" for port in (good.port, bad.port) for _ in range(4)]
            assert sorted(decider.asked) == sorted(asked)
        done = here.bare(*command, env={"DECIDER": at})
        assert done.stdout.splitlines() == [f"{words[0]} EPERM", f"{words[1]} EPERM"]
        assert "ConnectionRefusedError" in done.stderr
        assert bad.heard(0) == []


def test_connected_sockets_are_handed_out(sockets: tuple[Place, dict[str, Server]]) -> None:
    """A client talks to a service that it can neither name nor reach."""
    here, servers = sockets
    run = here.work / "run"
    script = here.script(INJECT)
    words = ["connect:/run/service.sock", "connect:/run/service.sock"]
    words += [f"connect:{run}/other.sock", f"sendto:{run}/d/other.sock"]
    command = (sys.executable, str(script), *here.python(UNIX_CLIENT), *words)
    done = here.bare(*command, env={"SERVICE": str(run / "named.sock")})
    found = [line.split()[-1] for line in done.stdout.splitlines()]
    assert found == ["named", "named", "EACCES", "EACCES"], done
    # The others are what the sockets got of which the program made something else.
    assert servers["named"].heard(4) == [b"", b"", b"x", b"x"]
    assert servers["other"].heard(0) == servers["dother"].heard(0) == []
