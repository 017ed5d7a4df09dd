"""What others see of a redirected call: the audit log, a core file, a filter that comes meanwhile.

These tests are about the kernel, so they run where it has the requests, on both revisions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.syscalls.numbers import X86_64 as NR
from tests.conformance import support
from tests.conformance.blocking import Fifo, await_sleep
from tests.conformance.support import BASE, NULL, PAGE, PATIENCE, Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("revision")

OPENAT: Final = NR["openat"]
TSYNC: Final = 1
TO_EXDEV: Final = 0x0005_0000 | errno.EXDEV
"""SECCOMP_RET_ERRNO"""


# The audit log


class Audit:
    """The kernel's audit log, of which every openat is told while this is open; a context manager.

    See linux/audit.h. Records also go to the kernel's own log when there is no audit daemon.
    """

    _HEADER: Final = struct.Struct("=IHHII")
    """``nlmsghdr``: length, type, flags, sequence, port."""
    _STATUS: Final = struct.Struct("=11I")
    """``audit_status``: mask, enabled, failure, pid, rate and backlog limits, lost, …"""
    _FAMILY: Final = 9
    _GET, _SET, _ADD_RULE, _DEL_RULE = 1000, 1001, 1011, 1012
    SYSCALL, PATH = 1300, 1302

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self._log: Final = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._FAMILY)
            )
            self._asks: Final = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._FAMILY)
            )
            self._log.bind((0, 1))
            self._asks.settimeout(PATIENCE)
            self._asks.bind((0, 0))
            before = self._status()
            self._enable(1)
            stack.callback(self._enable, before)
            self._ask(self._ADD_RULE, self._rule())
            stack.callback(self._ask, self._DEL_RULE, self._rule())
            self._open: Final = stack.pop_all()

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def records(self, pid: int, kind: int, wanted: int) -> list[str]:
        """Returns the first records of a kind about what ``conf_script`` does, in their order.

        Raises:
            AssertionError: They did not come in time.
        """
        end = time.monotonic() + PATIENCE
        serials: list[str] = []
        found: list[str] = []
        while len(found) < wanted:
            ready, _, _ = select.select([self._log], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no more records than {found}"
            message = self._log.recv(1 << 16)
            number = self._HEADER.unpack_from(message)[1]
            text = message[self._HEADER.size :].rstrip(b"\0").decode()
            # "audit(TIME:SERIAL): …": all records of one call have the same.
            serial = text.partition("): ")[0]
            # What has started the program is the same process.
            is_script = f" pid={pid} " in text and ' comm="conf_script' in text
            if number == self.SYSCALL and is_script:
                serials.append(serial)
            if number == kind and serial in serials:
                found.append(text)
        return found

    def _rule(self) -> bytes:
        exit_filter, always, words, fields = 4, 2, 64, 64
        mask = [0] * words
        mask[OPENAT // 32] = 1 << OPENAT % 32
        return struct.pack(f"=3I{words + 3 * fields + 1}I", exit_filter, always, 0, *mask,
                           *[0] * (3 * fields), 0)  # fmt: skip

    def _enable(self, enabled: int) -> None:
        self._ask(self._SET, self._STATUS.pack(1, enabled, *[0] * 9))

    def _status(self) -> int:
        enabled: int = self._STATUS.unpack_from(self._ask(self._GET, b""))[1]
        return enabled

    def _ask(self, number: int, body: bytes) -> bytes:
        # Every request is acknowledged by NLMSG_ERROR, 2; an answer comes before that or after it.
        request, acknowledge, error = 1, 4, 2
        header = self._HEADER.pack(
            self._HEADER.size + len(body), number, request | acknowledge, 1, 0
        )
        self._asks.send(header + body)
        answer = b""
        acknowledged = False
        while not acknowledged or (number == self._GET and not answer):
            message = self._asks.recv(1 << 16)
            what = self._HEADER.unpack_from(message)[1]
            if what == error:
                code = struct.unpack_from("=i", message, self._HEADER.size)[0]
                if code:
                    raise OSError(-code, f"audit request {number}: {os.strerror(-code)}")
                acknowledged = True
            elif what == number:
                answer = message[self._HEADER.size :]
        return answer


def test_the_audit_log_has_what_was_done(pin: Memory) -> None:
    """The pin's address among the arguments, and the path of the pin; of the next call, its own."""
    with (
        Audit() as audit,
        support.target("native", support.script("open:one", "open:two")) as target,
    ):
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        own = target.receive()
        own_address = own.data.args[1]
        target.listener.resume(own.id)
        calls = audit.records(target.pid, Audit.SYSCALL, 2)
        seen = target.finish()
    assert f" a1={BASE:x} " in calls[0]
    assert " success=yes " in calls[0]
    assert f" a1={own_address:x} " in calls[1]
    assert f" exit={-errno.ENOENT} " in calls[1]
    assert seen["one.rdev"] == NULL
    assert seen["one.registers"] == "ok"


def test_the_audit_log_has_the_path_of_the_pin(pin: Memory) -> None:
    with Audit() as audit, support.target("native", support.script("open:one")) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, b"/dev/null")
        paths = audit.records(target.pid, Audit.PATH, 1)
        target.finish()
    assert ' name="/dev/null" ' in paths[0]


# A core file


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns where a target's core file will be."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    with_pid = Path("/proc/sys/kernel/core_uses_pid").read_text().strip()
    if (pattern, with_pid) != ("core", "0"):
        pytest.skip(f"core files go elsewhere on this machine: {pattern}")
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield tmp_path / "core"
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def dumped(core: bytes) -> dict[int, int]:
    """Returns how many bytes a core file holds of each mapping, by its address (see elf(5))."""
    at, size, number = struct.unpack_from("<Q14xHH", core, 32)
    headers = (struct.unpack_from("<II6Q", core, at + index * size) for index in range(number))
    load = 1
    return {address: held for kind, _, _, address, _, held, _, _ in headers if kind == load}


def test_a_core_file_holds_nothing_of_the_supervisor_s(pin: Memory, core: Path) -> None:
    """Of the same sort of memory that the program has mapped itself, it does hold the content."""
    secret, own = b"of-the-supervisor-alone", 0x6000_0000
    words = (
        f"file:made:7:{PAGE}:/of/its/own",
        f"share:own:{own}:{PAGE}:0:7",
        "open:one",
        "store:0",
    )
    with support.target("native", support.script(*words)) as target:
        call = target.receive()
        target.install(call, pin)
        pin.write(PAGE, secret)
        target.redirect(call, pin, b"/dev/null")
        seen = target.finish(-signal.SIGSEGV)
    assert seen["one.rdev"] == NULL
    content = core.read_bytes()
    held = dumped(content)
    assert held[own] == PAGE
    assert held.get(BASE, 0) == 0
    assert secret not in content


# A filter that comes meanwhile, on all threads


def test_a_filter_that_comes_to_a_call_on_its_way(pin: Memory, tmp_path: Path) -> None:
    """The redirected call ends as it began; the next one is the new filter's."""
    fifo = Fifo.made(tmp_path / "fifo")
    words = support.script(
        *("thread", "open:one", "open:two", "end"),
        *("go", f"filter:late:{OPENAT}:{TO_EXDEV:#x}:{TSYNC}", "go", "join"),
    )
    with support.target("native", words) as target:
        call = target.receive()
        target.install(call, pin)
        target.redirect(call, pin, fifo.path)
        await_sleep(call.pid, OPENAT)
        target.go()
        assert target.line().startswith("late")
        fifo.release()
        target.go()
        seen = target.finish()
    assert seen["late.result"] == "0"
    assert int(seen["one.result"]) >= 0
    assert seen["two.result"] == str(-errno.EXDEV)
    assert seen["one.registers"] == seen["two.registers"] == "ok"


def test_a_filter_that_comes_to_a_call_that_waits(pin: Memory) -> None:
    """It judges what the listener makes of the call, as one that was there before."""
    words = support.script(
        *("thread", "open:one", "end", "go"),
        *(f"filter:late:{OPENAT}:{TO_EXDEV:#x}:{TSYNC}", "go", "join"),
    )
    with support.target("native", words) as target:
        call = target.receive()
        target.install(call, pin)
        target.go()
        assert target.line().startswith("late")
        target.redirect(call, pin, b"/dev/null")
        target.go()
        seen = target.finish()
    assert seen["late.result"] == "0"
    assert seen["one.result"] == str(-errno.EXDEV)
    assert seen["one.registers"] == "ok"
