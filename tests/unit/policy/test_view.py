"""What a handler sees, what it is told that is not there, and what counts as looked at."""

from __future__ import annotations

import contextlib
import os
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.codec.base import UNREADABLE
from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import (
    Abstract,
    Inet,
    Inet6,
    Other,
    Short,
    Sockaddr,
    Unix,
    Unnamed,
    Unspec,
    Vsock,
)
from pinfold.codec.vector import StringVector
from pinfold.policy.calls import Trapped
from pinfold.policy.handlers.look import Look, detached
from pinfold.policy.handlers.view import Call
from pinfold.syscalls.kinds import PINNED
from pinfold.syscalls.table import TABLE
from tests.unit.policy.trapped import POINTER, trapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.codec.sockaddr import Address

READERS: dict[str, Callable[[Call], Any]] = {
    "path": lambda call: call.path,
    "paths": lambda call: [
        (one.argument, one.name, one.names, one.real, one.access, one.raw, one.settled)
        for one in call.paths
    ],
    "raw": lambda call: call.raw,
    "access": lambda call: call.access,
    "argv": lambda call: call.argv,
    "env": lambda call: call.env,
    "address": lambda call: call.address,
    "host": lambda call: call.host,
    "port": lambda call: call.port,
    "family": lambda call: call.family,
    "flags": lambda call: call.flags,
    "mode": lambda call: call.mode,
    "program": lambda call: call.program,
    "from_loader": lambda call: call.from_loader,
    "registers": lambda call: call.registers,
    "repr": repr,
}
"""Everything that a handler can ask, by name."""


def look(*args: Any, **options: Any) -> Look:
    return Look(trapped(*args, **options))


def view(*args: Any, **options: Any) -> Call:
    return Call(look(*args, **options))


def test_an_open() -> None:
    call = view(
        "openat",
        b"/etc/hosts",
        spelt=[b"../etc/hosts"],
        program=b"/usr/bin/caf\xe9",
        registers={"mode": 0o644},
        flags=os.O_RDWR | os.O_CREAT,
    )
    assert (call.name, call.group) == ("openat", "open")
    assert (call.path, call.raw) == ("/etc/hosts", b"../etc/hosts")
    assert call.access == {"read", "write", "create"}
    assert (call.flags, call.mode) == (os.O_RDWR | os.O_CREAT, 0o644)
    assert os.fsencode(call.program) == b"/usr/bin/caf\xe9"
    assert (call.pid, call.tid) == (1000, 1000)
    assert not call.from_loader
    assert call.value("dirfd") == 0
    assert call.value("path") == b"../etc/hosts"
    (path,) = call.paths
    assert (path.argument, path.name, path.names) == ("path", "/etc/hosts", ("/etc/hosts",))
    assert (path.real, path.settled) == (None, False)


def test_two_paths() -> None:
    call = view("renameat", b"/a", (b"/b/x", b"/c"), real={"new_path": b"/c"})
    assert call.path == "/a"
    old, new = call.paths
    assert old.name == "/a"
    assert old.access == {"write"}
    assert (new.name, new.names, new.real) == ("/b/x", ("/b/x", "/c"), "/c")
    assert new.access == {"write", "create"}
    assert call.access == {"write", "create"}


def test_openat2_has_its_flags_in_memory() -> None:
    how = OpenHow(POINTER, 0, os.O_WRONLY, 0o600, 0)
    call = view("openat2", b"/f", values={"how": how})
    assert (call.flags, call.mode) == (os.O_WRONLY, 0o600)
    assert call.access == {"write"}
    unreadable = OpenHow(UNREADABLE, -1, 0, 0, 0)
    call = view("openat2", b"/f", values={"how": unreadable})
    for ask in (lambda: call.flags, lambda: call.mode, lambda: call.value("how")):
        with pytest.raises(LookupError, match="how cannot be read"):
            ask()


def test_creat_is_an_open() -> None:
    assert view("creat", b"/f").flags == os.O_CREAT | os.O_WRONLY | os.O_TRUNC


def test_an_exec() -> None:
    call = view(
        "execve",
        b"/bin/sh",
        argv=[b"sh", b"-c", b"\xff"],
        env=[b"A=1", b"NO", b"=x", b"A=2", b"B=", b"C=d=e"],
    )
    assert call.argv == ["sh", "-c", "\udcff"]
    assert call.env == {"A": "1", "B": "", "C": "d=e"}
    assert call.value("envp")[3] == b"A=2"
    assert call.access == {"read", "exec"}
    assert view("execve", b"/bin/sh", argv=None, env=None).argv == []
    assert view("execve", b"/bin/sh", argv=None, env=None).env == {}


@pytest.mark.parametrize(
    ("address", "family", "host", "port"),
    [
        (Inet(IPv4Address("10.0.0.1"), 80), "inet", "10.0.0.1", 80),
        (Inet6(IPv6Address("::1"), 443), "inet6", "::1", 443),
        (Unix(b"/run/x"), "unix", None, None),
        (Abstract(b"x"), "unix", None, None),
        (Unnamed(), "unix", None, None),
        (Vsock(2, 1024), "vsock", None, 1024),
        (Unspec(), "unspec", None, None),
        (Other(17, b"x" * 16), "packet", None, None),
        (Other(999, b""), 999, None, None),
        (Short(b"\x02"), None, None, None),
    ],
)
@pytest.mark.parametrize("name", ["connect", "bind", "sendto", "sendmsg", "sendmmsg"])
def test_addresses(
    name: str, address: Address, family: str | int | None, host: str | None, port: int | None
) -> None:
    call = view(name, address=address)
    assert call.address == address
    assert (call.family, call.host, call.port) == (family, host, port)
    assert call.path == ("/run/x" if isinstance(address, Unix) else "")
    assert call.raw == (b"/run/x" if isinstance(address, Unix) else b"")
    assert bool(call.access) == isinstance(address, Unix)


@pytest.mark.parametrize("name", ["sendto", "sendmsg"])
def test_a_send_without_an_address(name: str) -> None:
    call = view(name)
    assert [call.address, call.host, call.port, call.family] == [None] * 4
    assert call.path == ""


def test_sockets() -> None:
    assert view("socket", registers={"domain": 1}).family == "unix"
    assert view("socket", registers={"domain": 0xFFFF_FFFF_0000_000A}).family == "inet6"
    assert view("socket", registers={"domain": 0xFFFF_FFFF}).family == 0xFFFF_FFFF
    assert view("socket", registers={"domain": 2, "type": 10 | os.O_CLOEXEC}).family == "packet"


def test_what_names_nothing_is_empty() -> None:
    assert view("newfstatat", (), spelt=[b""]).path == ""
    assert view("utimensat", None).path == ""
    assert view("fchmod").path == ""
    assert view("fchmod", b"/f").path == "/f"
    assert view("fchmod", b"/f").access == {"write"}


@pytest.mark.parametrize(
    ("call", "asked", "match"),
    [
        (view("socket"), "path", "socket has no path"),
        (view("socket"), "raw", "socket has no path"),
        (view("connect", address=Unnamed()), "argv", "connect has no argv"),
        (view("open", b"/f"), "env", "open has no envp"),
        (view("open", b"/f"), "address", "open has no socket address"),
        (view("open", b"/f"), "host", "open has no socket address"),
        (view("open", b"/f"), "family", "open has no socket address"),
        (view("unlink", b"/f"), "flags", "unlink has no flags"),
        (view("unlink", b"/f"), "mode", "unlink has no mode"),
        (view("kill"), "path", "kill has no path"),
        (view("kill"), "flags", "kill has no flags"),
    ],
)
def test_what_is_not_there(call: Call, asked: str, match: str) -> None:
    with pytest.raises(LookupError, match=match) as caught:
        READERS[asked](call)
    assert not getattr(caught.value, "faulted", True)


def test_values_that_are_not_there() -> None:
    call = view("stat", b"/f")
    with pytest.raises(LookupError, match="has no argument 'nothing'"):
        call.value("nothing")
    with pytest.raises(LookupError, match="does not read out"):
        call.value("out")
    assert view("utimensat", b"/f").value("times") is None


def vector(*, unreadable: bool = False, pointer: int = POINTER) -> StringVector:
    class Image:
        def bytes_at(self, _offset: int, _length: int) -> bytes:
            return b"a\0b"

    image: Any = Image()
    return StringVector(image, pointer, 2, 0, 4, (1,) if unreadable else (), 0)


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (Call(Look(trapped("open", None, registers={"path": 1}))), "path"),
        (Call(Look(trapped("open", None))), "access"),
        (view("execve", b"/f", values={"argv": vector(unreadable=True)}), "argv"),
        (view("execve", b"/f", values={"argv": vector(pointer=UNREADABLE)}), "argv"),
        (view("connect", values={"address": Sockaddr(UNREADABLE, b"", None)}), "address"),
        (view("connect", values={"address": Sockaddr(UNREADABLE, b"", None)}), "path"),
        (
            view("sendmsg", values={"message": Message(UNREADABLE, -1, None, b"", (), b"", 0)}),
            "address",
        ),
    ],
)
def test_what_cannot_be_read_is_the_programs_doing(call: Call, asked: str) -> None:
    with pytest.raises(LookupError, match="cannot be read") as caught:
        READERS[asked](call)
    assert getattr(caught.value, "faulted", False)


LOOKED = [
    ("openat", {}, ["path", "raw", "access"], {"path"}),
    ("openat", {}, ["flags", "mode", "program", "registers", "from_loader", "repr"], set()),
    ("openat2", {}, ["path"], {"path", "how"}),
    ("openat2", {}, ["flags"], {"how"}),
    ("rename", {}, ["path"], {"old_path"}),
    ("rename", {}, ["paths"], {"old_path", "new_path"}),
    ("rename", {}, ["access"], {"old_path", "new_path"}),
    ("execve", {}, ["argv"], {"argv"}),
    ("execve", {}, ["env"], {"envp"}),
    ("execve", {}, ["argv", "path"], {"argv", "path"}),
    ("connect", {"address": Unix(b"/x")}, ["path"], {"address"}),
    ("connect", {"address": Unnamed()}, ["port"], {"address"}),
    ("sendmsg", {}, ["host"], {"message"}),
]


@pytest.mark.parametrize(("name", "options", "asked", "looked"), LOOKED)
def test_what_was_looked_at(
    name: str, options: dict[str, Any], asked: list[str], looked: set[str]
) -> None:
    names = [b"/a", b"/b"][: len([one for one in TABLE[name].arguments if "path" in one[0]])]
    seen = look(name, *names, **options)
    for one in asked:
        READERS[one](Call(seen))
    assert seen.looked == looked


def test_a_path_alone_counts_when_it_is_asked() -> None:
    seen = look("rename", b"/a", b"/b")
    old, new = Call(seen).paths
    assert (old.argument, new.argument, repr(new)) == ("old_path", "new_path", "<Path new_path>")
    assert seen.looked == set()
    assert new.name == "/b"
    assert seen.looked == {"new_path"}


def test_even_a_failed_look_counts() -> None:
    seen = look("execve", b"/f", values={"argv": vector(unreadable=True)})
    with pytest.raises(LookupError):
        _ = Call(seen).argv
    assert "argv" in seen.looked


def test_afterwards_only_what_was_read_is_there() -> None:
    asked = []

    def loader() -> bool:
        asked.append(True)
        return True

    seen = look("execve", b"/f", values={"argv": vector(), "envp": vector()}, loader=loader)
    call = Call(seen)
    assert call.argv == ["a", "b"]
    seen.over = True
    assert call.argv == ["a", "b"]
    assert call.path == "/f"
    for ask in (lambda: call.env, lambda: call.from_loader):
        with pytest.raises(LookupError, match="while execve waited"):
            ask()
    assert not asked


def test_detached_calls_need_no_slot() -> None:
    asked = []

    def loader() -> bool:
        asked.append(True)
        raise PermissionError("not yours")

    call = trapped(
        "execve",
        b"/f",
        values={"argv": vector(), "envp": vector(unreadable=True)},
        loader=loader,
    )
    copy = detached(call)
    assert asked == [True]
    assert [one.value for one in copy.arguments][:2] == [b"/f", [b"a", b"b"]]
    with pytest.raises(PermissionError, match="not yours"):
        _ = Call(Look(copy)).from_loader
    assert asked == [True]
    with pytest.raises(LookupError, match="cannot be read"):
        _ = Call(Look(copy)).env


def test_the_chosen_meaning() -> None:
    call = trapped("rename", (b"/a", b"/b"), b"/c")
    chosen = Call(Look(call, {"old_path": b"/b"}))
    assert chosen.path == chosen.paths[0].name == "/b"
    assert chosen.paths[0].names == ("/a", "/b")
    inet = Inet(IPv4Address(1), 2)
    sent = trapped("sendto", address=Inet6(IPv6Address("::ffff:0.0.0.1"), 2))
    chosen = Call(Look(sent, None, {"address": inet}))
    assert chosen.address == inet
    assert chosen.value("address") == Inet6(IPv6Address("::ffff:0.0.0.1"), 2)


def test_hostile_text_is_harmless_in_a_repr() -> None:
    assert repr(view("open", b"/f", program=b"/x\n\x1b[2J")) == (
        "<Call open by /x\\n\\x1b[2J [1000]>"
    )


@given(
    st.sampled_from(sorted(TABLE)),
    st.sets(st.sampled_from(["drop", "unnamed", "null"])),
    st.sampled_from(sorted(READERS)),
)
def test_nothing_but_lookup_errors(name: str, how: set[str], asked: str) -> None:
    call = trapped(
        name, b"/a", (b"/b", b"/c"), b"/d", address=Inet(IPv4Address(1), 1), env=[b"A=b"]
    )
    if "drop" in how:
        call = call._replace(arguments=(), registers=(1,) * 6)
    if "null" in how:
        call = call._replace(arguments=(), registers=(0,) * 6)
    if "unnamed" in how:
        call = call._replace(names={})
    for reader in (READERS[asked], *(lambda c, n=n: c.value(n) for n, _ in call.row.arguments)):
        with contextlib.suppress(LookupError):
            reader(Call(Look(call)))


@given(st.sampled_from(sorted(TABLE)))
def test_looking_at_a_value_is_noted(name: str) -> None:
    call = trapped(name, b"/a", b"/b", address=Unnamed())
    assert isinstance(call, Trapped)
    for argument, kind in call.row.arguments:
        seen = Look(call)
        try:
            Call(seen).value(argument)
        except LookupError:
            continue
        assert (argument in seen.looked) == (kind in PINNED)
