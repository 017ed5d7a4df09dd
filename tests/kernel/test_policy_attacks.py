"""Ways around a policy that a hostile program would try, each with what it would gain.

Every attack is a program under ``pinfold run --policy``. It prints what it got, so that a way that
is closed because the attack itself is broken shows: each has a control, an honest form that works
or the same form without the policy.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import pinfold
from pinfold import Policy, Verdict
from pinfold.policy.calls import ALLOWED, denied
from pinfold.uapi.net import UNIX_PATH_MAX
from tests.kernel.judged import PYTHON, Run
from tests.kernel.support import PATIENCE, execute
from tests.kernel.support import pinfold as run_pinfold

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from pinfold.policy.calls import Later, Trapped

PRELUDE: Final = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    args = [ctypes.c_long(one) if isinstance(one, int) else one for one in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(function, *args):
    try: return function(*args)
    except OSError as error: return errno.errorcode[error.errno]
"""
MEMFD_CREATE, EXECVEAT, LINKAT, SENDTO = 319, 322, 265, 44
AT_EMPTY_PATH, AT_FDCWD = 0x1000, -100
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_RAW to see the packets")


class Attack:
    """Runs attacks under a policy, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory.parent / f"{directory.name}.toml"

    def __call__(
        self, policy: str, script: str, *args: str | Path, dry: bool = False, **options: Any
    ) -> list[str]:
        """Returns the lines that a Python script printed under a policy."""
        text = textwrap.dedent(policy).replace("@", str(self.directory))
        self._file.write_text("version = 1\n" + text)
        how = ("--dry-run",) if dry else ()
        words = (*how, "--policy", self._file, "--", sys.executable, "-I", "-c")
        return _lines(run_pinfold(*words, _script(script), *args, cwd=self.directory, **options))

    def bare(self, script: str, *args: str | Path) -> list[str]:
        """Returns what it printed without any sandbox."""
        command = [sys.executable, "-I", "-c", _script(script), *args]
        return _lines(execute(command, cwd=self.directory))


def _script(script: str) -> str:
    return PRELUDE + textwrap.dedent(script)


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def attack(tmp_path: Path) -> Attack:
    directory = tmp_path / "d"
    directory.mkdir()
    return Attack(directory)


# Programs.

_RUN_MEMFD: Final = f"""
file = call({MEMFD_CREATE}, sys.argv[1].encode(), 0)
os.write(file, open("/bin/echo", "rb").read())
argv = (ctypes.c_char_p * 3)(b"echo", b"ESCAPED", None)
sys.stdout.flush()
print(call({EXECVEAT}, file, b"", argv, None, {AT_EMPTY_PATH}))
"""


@pytest.mark.parametrize("real", ["false", "true"])
@pytest.mark.parametrize("name", ["x", "x/../../usr/bin/true", "/../usr/bin/true", "../usr/bin/"])
def test_a_memory_file_does_not_pass_for_a_program(attack: Attack, name: str, real: str) -> None:
    """Its name is the program's own choice, slashes and ``..`` in it, too."""
    policy = f"""
    real = {real}
    [defaults]
    exec = "deny"
    [[rule]]
    on = "exec"
    path = ["/usr/bin/**", "{os.path.realpath(sys.executable)}", "{sys.executable}"]
    action = "allow"
    """
    assert attack(policy, _RUN_MEMFD, name) == ["EACCES"]
    assert attack.bare(_RUN_MEMFD, name) == ["ESCAPED"]


def test_a_script_does_not_run_a_program_that_is_denied(attack: Attack) -> None:
    """What stands behind ``#!`` is run like a program that is named."""
    (attack.directory / "script").write_text("#!/usr/bin/env echo\n")
    (attack.directory / "script").chmod(0o755)
    policy = """
    [[rule]]
    on = "exec"
    path = "/usr/bin/env"
    action = "deny"
    """
    script = """
    if os.fork() == 0:
        print(attempt(os.execv, "script", ["script", "ESCAPED"]), flush=True)
        os._exit(0)
    os.wait()
    """
    assert attack.bare(script) == ["script ESCAPED"]
    assert "script ESCAPED" not in attack(policy, script)


# Names.


def test_who_renames_a_directory_renames_what_is_denied_in_it(attack: Attack) -> None:
    """A denial of a name is of no use if a directory above it can get another one."""
    script = """
    print(attempt(lambda: open("deep/er/secret").read()))
    print(attempt(os.rename, "deep", "moved"))
    print(attempt(lambda: open("moved/er/secret").read()))
    """
    (attack.directory / "deep/er").mkdir(parents=True)
    (attack.directory / "deep/er/secret").write_text("SECRET")
    policy = """
    real = true
    [[rule]]
    path = "@/deep/er/secret"
    action = "deny"
    """
    found = attack(policy, script)
    assert found[0] == "EACCES"
    assert found[2] != "SECRET"


def test_the_secrets_of_a_home_that_is_the_work_directory(attack: Attack) -> None:
    (attack.directory / ".config/gh").mkdir(parents=True)
    (attack.directory / ".config/gh/hosts.yml").write_text("TOKEN")
    script = """
    print(attempt(lambda: open(".config/gh/hosts.yml").read()))
    attempt(os.rename, ".config", "moved")
    print(attempt(lambda: open("moved/gh/hosts.yml").read()))
    """
    environment = dict(os.environ) | {"HOME": str(attack.directory)}
    found = attack('include = "builtin:agent"', script, env=environment)
    assert found[0] == "EACCES"
    assert found[1] != "TOKEN"


@pytest.mark.parametrize("real", ["false", "true"])
def test_an_open_file_is_not_linked_under_a_free_name(attack: Attack, real: str) -> None:
    """A file that may be read gets a second name by its descriptor, and is written by that."""
    (attack.directory / "ro").write_text("old")
    script = f"""
    file = os.open("ro", os.O_RDONLY)
    print(attempt(os.link, "ro", "one"))
    print(call({LINKAT}, file, b"", {AT_FDCWD}, b"two", {AT_EMPTY_PATH}))
    print(attempt(lambda: open("two", "w").write("ESCAPED")))
    """
    policy = f"""
    real = {real}
    [[rule]]
    path = "@/ro"
    access = ["write", "create"]
    action = "deny"
    """
    assert attack(policy, script)[:2] == ["EACCES", "EACCES"]
    assert (attack.directory / "ro").read_text() == "old"


_ABOUT_OPEN: Final = """
file = os.open("ro", os.O_RDONLY)
print(call(91, file, 0o777))
print(call(452, file, b"", 0o777, 0x1000))
print(call(93, file, 1, 1))
print(call(260, file, b"", 1, 1, 0x1000))
print(call(280, file, 0, 0, 0))
print(call(190, file, b"user.x", b"v", 1, 0))
"""


def test_changes_of_an_open_file_are_changes_of_the_file(attack: Attack) -> None:
    (attack.directory / "ro").write_text("old")
    policy = """
    [[rule]]
    path = "@/ro"
    access = ["write", "create"]
    action = "deny"
    """
    assert set(attack(policy, _ABOUT_OPEN)) == {"EACCES"}


@pytest.mark.parametrize(
    "name",
    [
        "/proc/self/root@/secret",
        "/proc/thread-self/root@/secret",
        "/proc/self/cwd/secret",
        "/proc/self/task/../cwd/secret",
        "/dev/fd/../cwd/secret",
        "link/secret",
        "link/../d/secret",
        "./link/.././d//secret",
        "hard",
    ],
)
def test_other_names_of_a_denied_file(attack: Attack, name: str) -> None:
    (attack.directory / "secret").write_text("SECRET")
    (attack.directory / "link").symlink_to(attack.directory)
    (attack.directory / "hard").hardlink_to(attack.directory / "secret")
    policy = """
    real = true
    [[rule]]
    exact = "@/secret"
    action = "deny"
    """
    script = "print(attempt(lambda: open(sys.argv[1]).read()))"
    asked = name.replace("@", str(attack.directory))
    assert attack.bare(script, asked) == ["SECRET"]
    assert attack(policy, script, asked) == ["EACCES"]


def test_a_denial_that_goes_through_a_link_holds_for_what_it_leads_to(attack: Attack) -> None:
    """The author writes /bin/x or a home that is a link; the program asks by the real name."""
    (attack.directory / "real/.ssh").mkdir(parents=True)
    (attack.directory / "real/.ssh/id").write_text("KEY")
    (attack.directory / "home").symlink_to("real")
    script = """
    for name in ("home/.ssh/id", "real/.ssh/id"):
        print(attempt(lambda: open(name).read()))
    """
    environment = dict(os.environ) | {"HOME": str(attack.directory / "home")}
    assert attack.bare(script) == ["KEY", "KEY"]
    assert attack('include = "builtin:secrets"', script, env=environment) == ["EACCES"] * 2


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"x" * 255, b" (deleted)", b"a (deleted)"])
def test_strange_names_are_names(attack: Attack, name: bytes) -> None:
    """Of a file, of a working directory, of a directory that is gone and that came back."""
    path = os.fsencode(attack.directory) + b"/" + name
    os.mkdir(path)
    with open(path + b"/f", "w") as file:
        file.write("SECRET")
    script = """
    name = os.fsencode(sys.argv[1])
    os.chdir(name)
    print(attempt(lambda: open("f").read()))
    print(attempt(lambda: open("../" + os.fsdecode(name) + "/f").read()))
    """
    policy = """
    [[rule]]
    on = "open"
    path = "@/*/f"
    action = "deny"
    """
    assert attack.bare(script, os.fsdecode(name)) == ["SECRET", "SECRET"]
    assert attack(policy, script, os.fsdecode(name)) == ["EACCES", "EACCES"]


# Sockets.

ONE_HOST: Final = """
[defaults]
connect = "deny"
send = "deny"
[[rule]]
on = ["connect", "send"]
address = "127.0.0.2"
action = "allow"
"""


def test_no_send_means_no_send(attack: Attack) -> None:
    """A rule without conditions on the address holds for a send that has none."""
    script = f"""
    a, b = socket.socketpair()
    print(attempt(a.sendmsg, [b"x"]))
    print(call({SENDTO}, a.fileno(), b"ESCAPED", 7, 0, 0, 0))
    """
    policy = """
    [[rule]]
    on = "send"
    action = "deny"
    """
    assert attack.bare(script) == ["1", "7"]
    assert attack(policy, script) == ["EACCES", "EACCES"]


def test_addresses_in_disguise(attack: Attack) -> None:
    """Families, lengths and flags that mean another host than they seem to."""
    script = """
    v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    v6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    host = b"\\x27\\x0f\\x7f\\0\\0\\x03" + bytes(8)
    for kind in (b"\\2\\0", b"\\0\\0"):
        print(call(44, v4.fileno(), b"x", 1, 0, kind + host, 16))
        print(call(44, v6.fileno(), b"x", 1, 0, kind + host, 16))
    print(attempt(v6.sendto, b"x", ("::ffff:127.0.0.3", 9)))
    print(attempt(v6.connect, ("::ffff:127.0.0.3", 9)))
    print(attempt(v4.sendmsg, [b"x"], [], 0, ("127.0.0.3", 9)))
    print(attempt(tcp.sendto, b"x", socket.MSG_FASTOPEN, ("127.0.0.3", 9)))
    tcp.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    print(attempt(tcp.connect, ("127.0.0.3", 9)))
    print(attempt(v4.connect, ("0.0.0.0", 9)))
    print(attempt(v4.sendto, b"x", ("127.0.0.2", 9)))
    """
    assert attack(ONE_HOST, script) == ["EACCES"] * 10 + ["1"]


def test_the_second_message_of_a_batch(attack: Attack) -> None:
    script = """
    class Message(ctypes.Structure):
        _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32),
                    ("iov", ctypes.c_void_p), ("count", ctypes.c_size_t),
                    ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                    ("flags", ctypes.c_uint64), ("length", ctypes.c_uint64)]
    got = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one, host in zip(got, ("127.0.0.2", "127.0.0.3")):
        one.bind((host, 0))
    names = [ctypes.create_string_buffer(b"\\2\\0" + one.getsockname()[1].to_bytes(2, "big")
             + socket.inet_aton(one.getsockname()[0]) + bytes(8)) for one in got]
    vector = (Message * 2)(*[Message(ctypes.addressof(one), 16) for one in names])
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    print(call(307, out.fileno(), vector, 2, 0))
    for one in got:
        one.setblocking(False)
        print(attempt(one.recv, 9))
    """
    assert attack.bare(script) == ["2", "b''", "b''"]
    assert attack(ONE_HOST, script) == ["1", "b''", "EAGAIN"]


_ROUTED: Final = """
option = bytes([131, 7, 4]) + socket.inet_aton("127.0.0.3") + bytes(1)
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def tcp(): return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
one, two, three = udp(), udp(), tcp()
at = ("127.0.0.2", int(sys.argv[1]))
attempt(one.setsockopt, 0, 4, option)
print(attempt(one.sendto, b"one", at))
print(attempt(two.sendmsg, [b"two"], [(0, 7, option)], 0, at))
attempt(three.setsockopt, 0, 4, option)
print(attempt(three.connect, at))
"""


@needs_root
def test_no_packet_takes_another_way(attack: Attack) -> None:
    """Source routing: what is addressed to one host goes to another one first."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as seen:
        seen.bind(("lo", 0x0800))
        attack.bare(_ROUTED, "40001")
        assert _reached(seen, "127.0.0.3", 40001)
        attack(ONE_HOST, _ROUTED, "40002")
        assert _reached(seen, "127.0.0.3", 40002) == 0


_ROUTED6: Final = """
out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
header = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + bytes(16) + socket.inet_pton(socket.AF_INET6, "::1")
attempt(out.setsockopt, 41, 57, header)
print(attempt(out.sendto, sys.argv[1].encode(), ("2001:db8::2", 9)))
"""


@needs_root
def test_no_packet_takes_another_way_in_ipv6(attack: Attack) -> None:
    policy = ONE_HOST.replace("127.0.0.2", "2001:db8::2")
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD)) as seen:
        seen.bind(("lo", 0x86DD))
        attack.bare(_ROUTED6, "first-marker")
        if not any(b"first-marker" in one for one in _packets(seen)):
            pytest.skip("this kernel has no segment routing")
        attack(policy, _ROUTED6, "second-marker")
        assert not any(b"second-marker" in one for one in _packets(seen))


def _packets(seen: socket.socket) -> list[bytes]:
    # What has gone over the loopback interface is there when the sender has ended.
    seen.setblocking(False)
    found = []
    while True:
        try:
            found.append(seen.recv(65535))
        except BlockingIOError:
            return found


def _reached(seen: socket.socket, host: str, port: int) -> int:
    count = 0
    for packet in _packets(seen):
        after = packet[(packet[0] & 15) * 4 :]
        if packet[16:20] == socket.inet_aton(host) and after[2:4] == port.to_bytes(2, "big"):
            count += 1
    return count


def test_no_address_means_any_of_this_machine(attack: Attack) -> None:
    """0.0.0.0 is the address that the socket is bound to."""
    script = """
    listening = socket.create_server(("127.0.0.3", 0))
    port = listening.getsockname()[1]
    print(attempt(socket.socket().connect, ("127.0.0.3", port)))
    bound = socket.socket()
    bound.bind(("127.0.0.3", 0))
    print(attempt(bound.connect, ("0.0.0.0", port)))
    """
    policy = """
    [[rule]]
    on = ["connect", "send"]
    address = "127.0.0.3"
    action = "deny"
    """
    assert attack.bare(script) == ["None", "None"]
    found = attack(policy, script)
    assert found[0] == "EACCES"
    assert found[1] != "None"


@pytest.mark.parametrize(
    "spelt",
    [
        b"/secret\0",
        b"/secret",
        b"/secret\0garbage",
        b"/./x/..//secret\0",
        b"/secret" + bytes(8),
    ],
)
def test_spellings_of_a_unix_socket(
    attack: Attack, spelt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    path = os.fsencode(sys.argv[1]) + bytes.fromhex(sys.argv[2])
    s = socket.socket(socket.AF_UNIX)
    address = b"\\1\\0" + path
    print(call(42, s.fileno(), address, len(address)))
    """
    policy = """
    [[rule]]
    on = "connect"
    unix = "@/secret"
    action = "deny"
    """
    (attack.directory / "x").mkdir()
    monkeypatch.chdir(attack.directory)  # a short name to bind
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("secret")
        listening.listen()
        top = str(attack.directory)
        if len(os.fsencode(top) + spelt) > UNIX_PATH_MAX:
            pytest.skip("the directory's name is too long")
        assert attack.bare(script, top, spelt.hex()) == ["0"]
        assert attack(policy, script, top, spelt.hex()) == ["EACCES"]
        assert attack(policy, script, ".", spelt.hex()) == ["EACCES"]


# Handlers.

_NO_REPLACEMENTS: Final[tuple[Any, ...]] = ("x", ["x"], [b"x"], 5, {3: b"x"}, object())
_NO_HOWS: Final[tuple[Any, ...]] = (None, 5, "x", b"x", {})
_NO_ACTIONS: Final[tuple[Any, ...]] = ("ask", "", None, 5, [])
NONSENSE: Final[tuple[Any, ...]] = (
    *(Verdict("redirect", replace=one) for one in _NO_REPLACEMENTS),
    *(Verdict("redirect", replace={"how": one}) for one in _NO_HOWS),
    *(Verdict("redirect", replace={"path": one}) for one in (None, 1, "x", b"x", [b"x"], b"/\0")),
    *(Verdict("redirect", replace={"flags": one}) for one in (None, "x", 1.5, b"x")),
    *(Verdict("inject", value=one) for one in (None, "x", -1, 10**6, 1 << 31, 1 << 40, 1 << 70)),
    *(Verdict("return", value=one) for one in (None, "x", 1.5, object())),
    *(Verdict("serve", value=one) for one in (None, "x", 1, [b"x"])),
    *(Verdict("deny", None, one) for one in (0, -1, 1 << 70, "x", None)),  # type: ignore[arg-type]
    *(Verdict(one) for one in _NO_ACTIONS),
    *(True, False, 0, "deny", b"", {}, [], Verdict, pinfold.deny),
)


@pytest.mark.parametrize("late", [False, True])
def test_nonsense_is_a_denial_and_the_run_goes_on(late: bool) -> None:
    """One run of which each open gets another nonsensical answer."""
    policy = Policy()
    answers = iter(NONSENSE)

    def answer(call: pinfold.Call) -> Any:
        return next(answers) if call.path.startswith("/nonexistent/") else None

    async def answer_late(call: pinfold.Call) -> Any:
        return answer(call)

    policy.on("open")(answer_late if late else answer)
    script = f"""
    how = (ctypes.c_uint64 * 3)()
    for n in range({len(NONSENSE)}):
        print(n, call(437, {AT_FDCWD}, b"/nonexistent/%d" % n, how, 24))
    """
    done = pinfold.run(
        [*PYTHON, _script(script)],
        policy=policy,
        capture_output=True,
        text=True,
        timeout=PATIENCE / 2,
    )
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) == len(NONSENSE), done.stderr
    # EPERM, or EBADF for a descriptor that could be one.
    wrong = {
        repr(NONSENSE[int(n)]): one for n, one in found.items() if one not in {"EPERM", "EBADF"}
    }
    assert not wrong


# Late verdicts.


class _Held(list[tuple["Callable[[Verdict], None]", Verdict]]):
    # Questions that wait until there are enough.

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.full = threading.Event()
        self._wanted = wanted

    def later(self, verdict: Verdict) -> Later:
        return _Question(self, verdict)

    def add(self, done: Callable[[Verdict], None], verdict: Verdict) -> None:
        self.append((done, verdict))
        if len(self) >= self._wanted:
            self.full.set()


class _Question:
    def __init__(self, held: _Held, verdict: Verdict) -> None:
        self._held = held
        self._verdict = verdict

    def start(self, done: Callable[[Verdict], None]) -> None:
        self._held.add(done, self._verdict)

    def cancel(self) -> None:
        pass


def _numbered(call: Trapped) -> int:
    name = call.names.get("path", (b"",))[0]
    return int(name.rpartition(b"/")[2]) if name.startswith(b"/nonexistent/") else 0


def test_two_hundred_wait_and_are_answered_backwards_and_twice() -> None:
    """Each gets its own verdict, and the first one; what comes after the end is for nobody."""
    held = _Held(200)

    def judge(call: Trapped) -> Verdict | Later:
        number = _numbered(call)
        return held.later(denied("late", number)) if number else ALLOWED

    def give() -> None:
        assert held.full.wait(PATIENCE)
        for done, verdict in reversed(held):
            done(verdict)
            done(ALLOWED)

    script = """
    import os, threading
    def ask(n):
        try: os.stat("/nonexistent/%d" % n)
        except OSError as error: got[n] = error.errno
    for _ in range(2):
        if os.fork() == 0:
            got = {}
            threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 101)]
            [one.start() for one in threads]; [one.join() for one in threads]
            os._exit(0 if got == {n: n for n in range(1, 101)} else 1)
    print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)])
    """
    giver = threading.Thread(target=give)
    giver.start()
    done = Run((*PYTHON, textwrap.dedent(script)), judge)
    giver.join()
    assert done.out == "[0, 0]\n"
    for answer, _ in held:
        answer(ALLOWED)


def test_a_child_of_vfork_waits_and_its_parent_with_it() -> None:
    held = _Held(1)

    def judge(call: Trapped) -> Verdict | Later:
        return held.later(ALLOWED) if b"/bin/true" in call.names.get("path", ()) else ALLOWED

    def give() -> None:
        assert held.full.wait(PATIENCE)
        for done, verdict in held:
            done(verdict)

    giver = threading.Thread(target=give)
    giver.start()
    script = "import subprocess; print(subprocess.call(['/bin/true']))"
    assert Run((*PYTHON, script), judge).out == "0\n"
    giver.join()


def test_what_waits_is_killed_executed_and_stopped() -> None:
    """A storm of ends while calls wait; the loop lets everybody go on."""
    held = _Held(1)
    over = threading.Event()

    def judge(call: Trapped) -> Verdict | Later:
        return held.later(ALLOWED) if _numbered(call) else ALLOWED

    def give() -> None:
        at = 0
        while not over.is_set():
            for done, verdict in held[at:]:
                done(verdict)
                at += 1
            time.sleep(0)

    script = """
    import os, signal, threading
    count = 0
    for i in range(150):
        child = os.fork()
        if child == 0:
            if i % 3 == 0:
                threading.Thread(target=os.execv, args=("/bin/true", ["true"])).start()
            try: os.stat("/nonexistent/1")
            except OSError: pass
            os._exit(0)
        if i % 5 == 0:
            os.kill(child, signal.SIGSTOP); os.kill(child, signal.SIGCONT)
        if i % 2: os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        count += 1
    print(count)
    """
    giver = threading.Thread(target=give)
    giver.start()
    try:
        done = Run((*PYTHON, textwrap.dedent(script)), judge)
    finally:
        over.set()
        giver.join()
    assert done.out == "150\n"


# What runs in the end.

NO_ENV: Final = """
real = true
[[rule]]
on = "exec"
path = "/usr/bin/env"
action = "deny"
"""
_RUN: Final = """
def run(path, *argv):
    sys.stdout.flush()
    if os.fork() == 0:
        print(attempt(os.execv, path, [path, *argv]), flush=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])
"""


def _make_script(path: Path, first: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{first}\n")
    path.chmod(0o755)


def test_a_name_that_folds_to_a_link_does_not_excuse_the_interpreter(attack: Attack) -> None:
    """``a/link/../script`` runs b/script, and a/script leads to the interpreter of that."""
    _make_script(attack.directory / "b/script", "/usr/bin/env echo")
    (attack.directory / "b/c").mkdir()
    (attack.directory / "a").mkdir()
    (attack.directory / "a/link").symlink_to("../b/c")
    (attack.directory / "a/script").symlink_to("/usr/bin/env")
    script = _RUN + "print(run('a/link/../script', 'ESCAPED'))"
    assert any("ESCAPED" in line for line in attack.bare(script))
    assert not any("ESCAPED" in line for line in attack(NO_ENV, script))


def test_an_interpreter_is_recognised_by_its_other_names(attack: Attack) -> None:
    (attack.directory / "env").write_bytes(Path("/usr/bin/env").read_bytes())
    (attack.directory / "env").chmod(0o755)
    (attack.directory / "hard").hardlink_to(attack.directory / "env")
    _make_script(attack.directory / "script", f"{attack.directory}/hard echo")
    script = _RUN + "print(run('./hard', 'ESCAPED'), run('./script', 'ESCAPED'))"
    policy = NO_ENV.replace("/usr/bin", "@")
    assert any("ESCAPED" in line for line in attack.bare(script))
    assert not any("ESCAPED" in line for line in attack(policy, script))


def test_who_has_to_ask_for_a_program_has_to_ask_for_a_script_of_it(attack: Attack) -> None:
    """Nobody is there to ask, which is a no."""
    _make_script(attack.directory / "script", "/usr/bin/env echo")
    script = _RUN + "print(run('/usr/bin/env', 'echo', 'ESCAPED'), run('./script', 'ESCAPED'))"
    found = attack(NO_ENV.replace('"deny"', '"ask"'), script)
    assert not any("ESCAPED" in line for line in found)


def _program(code: bytes, base: int, interpreter: bytes = b"") -> bytes:
    # A static program of one segment; with an interpreter the kernel starts that instead.
    offset = 64 + (112 if interpreter else 56)
    name = interpreter + b"\0" if interpreter else b""
    size = offset + len(name) + len(code)
    heads = struct.pack("<2I6Q", 1, 5, 0, base, base, size, size, 0x1000)
    if interpreter:
        at = base + offset
        heads = struct.pack("<2I6Q", 3, 4, offset, at, at, len(name), len(name), 1) + heads
    entry = base + offset + len(name)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack("<2HI3QI6H", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(heads) // 56, 0, 0, 0)
    return ident + header + heads + name + code


_SAY_ESCAPED: Final = (
    bytes.fromhex("b801000000 bf01000000 488d3510000000 ba08000000 0f05 b83c000000 31ff 0f05")
    + b"ESCAPED\n"
)
"""write(1, "ESCAPED\\n", 8); exit(0)"""


def test_a_denied_program_is_not_run_as_the_loader_of_another(attack: Attack) -> None:
    """The kernel opens what PT_INTERP names, and runs it."""
    denied_program, front = attack.directory / "denied", attack.directory / "front"
    denied_program.write_bytes(_program(_SAY_ESCAPED, 0x10000000))
    front.write_bytes(_program(b"\xf4", 0x20000000, os.fsencode(denied_program)))
    for one in (denied_program, front):
        one.chmod(0o755)
    script = _RUN + "run('./denied'); run('./front')"
    policy = """
    real = true
    [[rule]]
    path = "@/denied"
    action = "deny"
    """
    assert attack.bare(script) == ["ESCAPED", "ESCAPED"]
    assert "ESCAPED" not in attack(policy, script)


def test_a_long_chain_of_links_does_not_end_the_supervisor(attack: Attack) -> None:
    """The lexical name of what is executed leads through more links than the kernel follows."""
    _make_script(attack.directory / "b/script", "/bin/true")
    (attack.directory / "b/c").mkdir()
    (attack.directory / "a").mkdir()
    (attack.directory / "a/link").symlink_to("../b/c")
    (attack.directory / "a/script").symlink_to("1")
    for number in range(1, 2000):
        (attack.directory / f"a/{number}").symlink_to(str(number + 1))
    script = _RUN + "print(run('a/link/../script')); print('alive')"
    assert attack(NO_ENV, script)[-1:] == ["alive"]


@pytest.mark.parametrize("verb", ["deny", "allow"])
def test_who_executes_a_script_is_known(attack: Attack, verb: str) -> None:
    """An honest program: the rule against the interpreter is about other callers."""
    _make_script(attack.directory / "script", "/usr/bin/env echo")
    policy = """
    [[rule]]
    on = "exec"
    path = "/usr/bin/env"
    program = "/usr/bin/make"
    action = "deny"
    """
    if verb == "allow":
        policy = policy.replace('"/usr/bin/make"', '"/**/python*"').replace("deny", "allow")
        policy += """
    [[rule]]
    on = "exec"
    path = "/usr/bin/env"
    action = "deny"
    """
    script = _RUN + "print(run('/usr/bin/env', 'true'), run('./script', 'fine'))"
    assert attack(policy, script) == ["./script fine", "0 0"]


def test_what_was_denied_before_does_not_excuse_an_interpreter(attack: Attack) -> None:
    """The names of an exec that failed are none of the next one's, which no rule is about."""
    _make_script(attack.directory / "script", "/usr/bin/env echo")
    script = (
        _RUN
        + f"""
argv = (ctypes.c_char_p * 3)(b"script", b"ESCAPED", None)
for first in ("/nonexistent", "/usr/bin/env"):
    if os.fork() == 0:
        attempt(os.execv, first, [first])
        print(call({EXECVEAT}, {AT_FDCWD}, b"./script", argv, None, 0), flush=True)
        os._exit(0)
    os.wait()
"""
    )
    policy = NO_ENV.replace('"exec"', '"execve"')
    assert any("ESCAPED" in line for line in attack.bare(script))
    assert not any("ESCAPED" in line for line in attack(policy, script))


# Descriptors that another task exchanges.

_SWAP: Final = """
import threading, time
over = False
sys.setswitchinterval(1e-5)
def swap(*descriptors):
    while not over:
        for one in descriptors: os.dup2(one, 100)
def tries():
    end = time.monotonic() + 4
    while time.monotonic() < end and not over: yield
def into(name):
    file = attempt(os.open, name, os.O_WRONLY)
    if isinstance(file, int): return os.readlink(f"/proc/self/fd/{file}"), os.close(file)
"""


def test_another_process_does_not_exchange_what_is_opened(attack: Attack) -> None:
    """It has a file open that may be read only, and gives it to who opens /proc/PID/fd."""
    for name in ("ro", "rw"):
        (attack.directory / name).write_text("old")
    script = _SWAP + textwrap.dedent("""
    a, b = os.open("ro", os.O_RDONLY), os.open("rw", os.O_RDWR)
    os.dup2(b, 100)
    child = os.fork()
    if child == 0: swap(a, b)
    got = {into(f"/proc/{child}/fd/100") for _ in tries()}
    os.kill(child, 9)
    print(sorted(os.path.basename(one[0]) for one in got if one))
    """)
    policy = """
    real = true
    [[rule]]
    path = "@/ro"
    access = ["write", "create"]
    action = "deny"
    """
    assert attack.bare(script) == ["['ro', 'rw']"]
    assert attack(policy, script) == ["['rw']"]


def test_no_pipe_with_a_name_is_opened_in_place_of_one_without(attack: Attack) -> None:
    os.mkfifo(attack.directory / "fifo")
    script = _SWAP + textwrap.dedent("""
    a = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    b = os.pipe()[1]
    os.dup2(b, 100)
    threading.Thread(target=swap, args=(a, b)).start()
    got = {into("/proc/self/fd/100") for _ in tries()}
    over = True
    print(sorted({os.path.basename(one[0])[:4] for one in got if one}))
    """)
    policy = """
    real = true
    [[rule]]
    path = "@/fifo"
    access = ["write", "create"]
    action = "deny"
    """
    assert attack.bare(script) == ["['fifo', 'pipe']"]
    assert attack(policy, script) == ["['pipe']"]


def test_no_socket_is_reached_by_an_exchanged_descriptor(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(attack.directory)  # a short name to bind
    script = _SWAP + textwrap.dedent("""
    a, b = (os.open(name, os.O_PATH) for name in ("secret", "free"))
    os.dup2(b, 100)
    threading.Thread(target=swap, args=(a, b)).start()
    got = set()
    for _ in tries():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            if attempt(one.connect, "/proc/self/fd/100") is None: got.add(one.getpeername())
    over = True
    print(sorted(got))
    """)
    policy = """
    real = true
    [[rule]]
    on = "connect"
    unix = "@/secret"
    action = "deny"
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as secret,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as free,
    ):
        secret.bind("secret")
        free.bind("free")
        assert attack.bare(script) == ["['free', 'secret']"]
        assert "secret" not in attack(policy, script)[0]


# Limits.


def test_dead_children_count_until_somebody_waits_for_them(attack: Attack) -> None:
    """Else a program fills the machine's process table, as dead ones have an id, too."""
    script = """
    import signal
    made = 0
    for _ in range(40):
        child = attempt(os.fork)
        if child == 0: os._exit(0)
        if isinstance(child, int):
            made += 1
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    print(made)
    """
    assert attack.bare(script) == ["40"]
    assert int(attack("[limits]\ntasks = 5\n", script)[0]) < 5


def test_a_denied_fork_is_no_task() -> None:
    policy = Policy.parse("version = 1\n[limits]\ntasks = 7\n")
    first: list[int] = []

    @policy.on("clone", "fork", "vfork")
    def judge(call: pinfold.Call) -> Verdict | None:
        first.append(call.pid)
        return None if call.pid == first[0] else pinfold.deny()

    script = """
    told, tell = os.pipe()
    held, let = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            os.write(tell, attempt(os.fork)[:1].encode())
            os.read(held, 1)
            os._exit(0)
    denied = b"".join(os.read(told, 1) for _ in range(3))
    child = attempt(os.fork)
    if child == 0: os._exit(0)
    os.write(let, b"xxx")
    print(denied.decode(), type(child).__name__)
    """
    done = pinfold.run(
        [*PYTHON, _script(script)],
        policy=policy,
        capture_output=True,
        text=True,
        timeout=PATIENCE / 2,
    )
    assert done.stdout == "EEE int\n"


# Dry runs.


def test_a_dry_run_makes_calls_as_they_are(attack: Attack) -> None:
    """With what real names and addresses need, too: nothing is refused and nothing rewritten."""
    script = """
    import threading, time
    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
    file = os.memfd_create("x")
    print(type(attempt(os.open, f"/proc/self/fd/{file}", os.O_RDONLY)).__name__)
    print(attempt(os.chmod, f"/proc/self/fd/{file}", 0o600))
    listening = socket.create_server(("127.0.0.3", 0))
    bound = socket.socket()
    bound.bind(("127.0.0.3", 0))
    print(attempt(bound.connect, ("0.0.0.0", listening.getsockname()[1])))
    print(attempt(bound.setsockopt, socket.IPPROTO_IP, 4, bytes(4)))
    """
    policy = """
    real = true
    [[rule]]
    path = "@/x"
    action = "deny"
    [[rule]]
    on = "connect"
    address = "10.0.0.1"
    action = "deny"
    """
    wanted = ["int", "None", "None", "None"]
    assert attack.bare(script) == wanted
    assert attack(policy, script, dry=True) == wanted
