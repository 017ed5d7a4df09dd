"""What fuzzing has found, each as a test of its own."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, cast

import pytest

from pinfold.attack.trial import NOBODY
from pinfold.backends.interrupt.tracer import _sleeps
from pinfold.errors import PolicyError
from pinfold.policy.file.load import load, parse
from pinfold.supervisor import arguments
from pinfold.syscalls.kinds import Kind
from tests.kernel.forked import forked
from tests.unit.codec.memory import AT, BASE, BytesMemory, slot

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from pinfold.backends.interrupt.held import Held

VERSION = "version = 1\n"


class Growing(BytesMemory):
    """A structure that begins with its size, and says another one whenever it was read."""

    def read(self, address: int, offset: int, length: int) -> int:
        got = super().read(address, offset, length)
        self.pages[AT][:4] = struct.pack("=I", 4096)
        return got


def test_a_size_that_changes_while_it_is_read() -> None:
    memory = Growing({AT: struct.pack("=I", 24) + b"x" * 60}, 64)
    image = slot(memory)
    found = arguments.read(image, "listmount", Kind.MNT_ID_REQ, AT, 0, ())
    assert found is not None
    # What is judged is what the kernel is going to read.
    assert found.value == struct.pack("=I", 24) + b"x" * 20
    assert image.bytes_at(found.pointer - BASE, 24) == found.value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (VERSION + "# \udc80", "policy:2:3: not UTF-8"),
        (VERSION + "description = 'a\ud800'", "policy:2:17: not UTF-8"),
        (VERSION + "x = " + "9" * 5000, "policy:2:5: too many digits"),
        (VERSION + "x = 1\ny = " + "[" * 5000 + "]" * 5000, "policy:3:5: nested too deeply"),
        (
            VERSION + "[variables]\nA = '" + "${env:A:-" * 3000 + "}" * 3000 + "'",
            "policy:3:150: variables.A: more than 16 defaults within one another",
        ),
        (
            VERSION
            + "[variables]\nA0 = 'xxxxxxxxxx'\n"
            + "".join(f"A{at} = '{f'${{A{at - 1}}}' * 10}'\n" for at in range(1, 20)),
            "policy:9:12: variables.A6: with its variables this text has more than 1048576 bytes",
        ),
    ],
)
def test_texts_that_are_no_policy(text: str, place: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse(text, environ={})
    assert str(error.value).startswith(place)


def test_defaults_within_defaults() -> None:
    nested = "${env:A:-" * 16 + "x" + "}" * 16
    text = VERSION + f"[[rule]]\naction = 'deny'\non = 'exec'\nargv = ['{nested}']\n"
    assert parse(text, environ={}).rules[0].match.argv == ((b"x",),)


def test_a_backslash_before_a_variable() -> None:
    def patterns(text: str) -> tuple[bytes, ...]:
        rule = f"[variables]\nA = 'a*'\n[[rule]]\naction = 'deny'\npath = '{text}'\n"
        return parse(VERSION + rule, environ={}).rules[0].match.path

    assert patterns(r"/\\${A}") == (rb"/\\a\*",)
    assert patterns(r"/[x\\${A}-]") == (rb"/[x\\a\*-]",)
    for odd in (r"/\${A}", r"/\\\${A}"):
        with pytest.raises(PolicyError, match="cannot escape a variable"):
            patterns(odd)


@pytest.mark.parametrize(
    ("rest", "most"),
    [
        ("include = '/dev/zero'", 4 << 20),
        (
            "[[rule]]\naction = 'serve'\non = 'open'\npath = '/a'\ncontent_file = '/dev/zero'",
            64 << 20,
        ),
    ],
)
def test_files_without_an_end(rest: str, most: int, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(VERSION + rest)
    with pytest.raises(PolicyError, match=f"it has more than {most} bytes"):
        load([str(policy)])


class Flying:
    """As much of a task whose call is under way as is looked at."""

    flown = b"0 0x0"

    def __init__(self, tid: int) -> None:
        self.tid = tid


def test_a_task_that_ends_while_its_call_is_looked_for() -> None:
    # For whoever is not root: then all of /proc/TID that is not for everybody is root's.
    def body(channel: socket.socket) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        with pytest.raises(PermissionError), open(f"/proc/{child}/syscall", "rb"):
            pass
        assert not _sleeps(cast("Held", Flying(child)))
        os.waitpid(child, 0)
        assert not _sleeps(cast("Held", Flying(child)))
        channel.send(b"done")

    with forked(body) as child:
        assert child.channel.recv(4) == b"done"
        assert child.exit_code() == 0
