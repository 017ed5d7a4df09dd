"""Log records: what they show, and that bytes survive."""

import json
import os
from ipaddress import IPv4Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pinfold.audit.chain import FIRST, seal
from pinfold.audit.record import Entry, describe
from pinfold.audit.record import Path as LoggedPath
from pinfold.codec.message import IoVec, Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Inet, Sockaddr, Unix, pack
from pinfold.syscalls.table import TABLE


def entry(
    call: str,
    paths: tuple[LoggedPath, ...],
    *registers: int,
    others: dict[int, Any] | None = None,
    replaced: tuple[tuple[int, Any, Any], ...] = (),
) -> Entry:
    row = TABLE[call]
    return Entry(
        1.5,
        10,
        11,
        b"/bin/x",
        row,
        (*registers, *(0,) * (6 - len(registers))),
        paths,
        others or {},
        replaced,
        "allow",
        None,
        None,
    )


def test_a_record_shows_what_was_pinned() -> None:
    path = LoggedPath(1, b"a", b"/w/a", b"/other/a")
    record = describe(entry("openat", (path,), 0xFFFFFF9C, 0x1234, 0o2000002, 0))
    assert record["args"] == {
        "dirfd": "AT_FDCWD",
        "path": "/other/a",
        "flags": "O_RDWR|O_CLOEXEC",
        "mode": "0o0",
    }
    assert record["names"] == ["/w/a"]
    assert record["substituted"] == {"path": {"from": "a", "to": "/other/a"}}
    assert "0x1234" not in json.dumps(record)


def test_openat2_shows_the_structure() -> None:
    how = OpenHow(0x7000, 0, 0o101, 0o644, 8)
    path = LoggedPath(1, b"/a", b"/a", b"/a")
    record = describe(entry("openat2", (path,), 3, 1, 2, 24, others={2: how}))
    assert record["args"]["flags"] == "O_WRONLY|O_CREAT"
    assert record["args"]["resolve"] == "0x8"
    assert "substituted" not in record


def test_two_paths_have_two_keys() -> None:
    paths = (LoggedPath(0, b"/a", b"/a", b"/a"), LoggedPath(1, b"/b", b"/b", b"/b"))
    assert describe(entry("rename", paths))["args"] == {"old_path": "/a", "new_path": "/b"}


@given(st.binary(min_size=1).filter(lambda data: b"\0" not in data))
def test_bytes_survive(data: bytes) -> None:
    text, _ = seal(FIRST, describe(entry("open", (LoggedPath(0, data, data, data),))))
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert text.isascii()
    assert os.fsencode(json.loads(text)["args"]["path"]) == data


def _address(value: Any) -> Sockaddr:
    return Sockaddr(0x7000, pack(value), value)


def test_addresses_are_shown_as_text() -> None:
    record = describe(
        entry("connect", (), 3, 0x1234, 16, others={1: _address(Inet(IPv4Address("10.0.0.1"), 80))})
    )
    assert record["args"] == {"fd": 3, "address": "inet:10.0.0.1:80", "length": 16}


def test_messages_show_where_they_go() -> None:
    message = Message(0x7000, 0, Unix(b"/run/x"), b"", (IoVec(1, 5), IoVec(2, 6)), b"", 0)
    record = describe(entry("sendmsg", (), 3, 0x1234, 0, others={1: message}))
    assert record["args"]["message"] == {"to": "unix:/run/x", "length": 11}


def test_an_environment_shows_names_only() -> None:
    others = {1: [b"sh", b"-c", b"\xff"], 2: [b"HOME=/root", b"TOKEN=secret"]}
    record = describe(entry("execve", (LoggedPath(0, b"/sh", b"/sh", b"/sh"),), others=others))
    assert record["args"] == {
        "path": "/sh",
        "argv": ["sh", "-c", "\udcff"],
        "envp": ["HOME", "TOKEN"],
    }


def test_long_vectors_say_what_they_leave_out() -> None:
    others = {1: [b"x"] * 5000, 2: None}
    record = describe(entry("execve", (LoggedPath(0, b"/sh", b"/sh", b"/sh"),), others=others))
    shown = record["args"]["argv"]
    assert shown[-1] == {"omitted": 5000 - len(shown) + 1}
    assert set(shown[:-1]) == {"x"}


def test_buffers_show_length_and_beginning() -> None:
    record = describe(entry("setsockopt", (), 3, 1, 2, 0x1234, 40, others={3: bytes(40)}))
    assert record["args"]["value"] == {"length": 40, "hex": "00" * 32}


def test_what_a_rule_replaced_is_told() -> None:
    replaced = ((2, 0o1, 0o2), (1, [b"a"], [b"b", b"c"]))
    record = describe(entry("openat", (), 3, 1, 0o1, 0, replaced=replaced[:1]))
    assert record["args"]["flags"] == "O_RDWR"
    assert record["substituted"] == {"flags": {"from": "O_WRONLY", "to": "O_RDWR"}}
    record = describe(entry("execve", (), others={1: [b"b", b"c"]}, replaced=replaced[1:]))
    assert record["substituted"] == {"argv": {"from": ["a"], "to": ["b", "c"]}}


def test_results_and_contents_are_shown() -> None:
    call = entry("openat", (), 3, 1, 0, 0)
    assert "value" not in describe(call._replace(value=5))
    assert describe(call._replace(verdict="return", value=-5))["value"] == -5
    assert describe(call._replace(verdict="return", value=0))["value"] == 0
    served = describe(call._replace(verdict="serve", value=b"abc"))
    assert served["content"] == {
        "length": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert "value" not in served
    assert "value" not in describe(call._replace(verdict="inject", value=7))


def test_a_dry_run_says_so() -> None:
    call = entry("openat", (), 3, 1, 0, 0)
    assert "dry_run" not in describe(call)
    assert describe(call._replace(dry=True))["dry_run"] is True


def test_text_that_is_endless_is_shown_by_length() -> None:
    record = describe(entry("symlink", (), 1, 2, others={0: b"x" * 70000}))
    assert record["args"]["target"] == {"length": 70000, "hex": "78" * 32}
