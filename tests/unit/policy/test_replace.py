from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Short, Unix
from pinfold.policy.judging.replace import replacement
from pinfold.syscalls.kinds import PATHS
from pinfold.syscalls.table import TABLE

from .trapped import TO, trapped

FOUR = Inet(IPv4Address("127.0.0.1"), 80)
SIX = Inet6(IPv6Address("2001:db8::1"), 80)


def test_the_first_path_or_the_named_one() -> None:
    rename = trapped("rename", b"/a", b"/b")
    assert replacement(rename, path=b"/x") == {"old_path": b"/x"}
    assert replacement(rename, path=b"/x", argument="new_path") == {"new_path": b"/x"}
    assert replacement(trapped("openat", b"/a"), path=b"/x/") == {"path": b"/x/"}
    assert replacement(trapped("symlink", b"/a"), path=b"/x") == {"new_path": b"/x"}
    assert replacement(rename) == {}


def test_vectors() -> None:
    call = trapped("execve", b"/bin/x")
    assert replacement(call, argv=(b"a", b"")) == {"argv": [b"a", b""]}
    assert replacement(call, argv=[]) == {"argv": []}
    assert replacement(call, env={b"A": b"1=2", b"B": b""}) == {"envp": [b"A=1=2", b"B="]}
    assert replacement(call, env=[b"odd", b"A=1"]) == {"envp": [b"odd", b"A=1"]}
    assert replacement(call, path=b"/y", argv=[b"y"], env={}) == {
        "path": b"/y",
        "argv": [b"y"],
        "envp": [],
    }


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("connect", "address"),
        ("bind", "address"),
        ("sendto", "address"),
        ("sendmsg", "message"),
        ("sendmmsg", "messages"),
    ],
)
def test_addresses(name: str, argument: str) -> None:
    call = trapped(name, address=FOUR)
    assert replacement(call, address=SIX) == {argument: SIX}
    assert replacement(call, address=Abstract(b"x"), argument=argument) == {
        argument: Abstract(b"x")
    }
    assert replacement(call, path=b"/run/x") == {argument: Unix(b"/run/x")}
    # What was for IPv6 stays so.
    mapped = Inet6(IPv6Address("::ffff:127.0.0.1"), 80)
    assert replacement(trapped(name, address=SIX), address=FOUR) == {argument: mapped}


@pytest.mark.parametrize(
    ("call", "given", "problem"),
    [
        (trapped("prctl"), {"path": b"/x"}, "prctl has no path"),
        (trapped("rename", b"/a", b"/b"), {"path": b"/x", "argument": "path"}, "no path 'path'"),
        (trapped("fchmod", b"/a"), {"path": b"/x", "argument": "fd"}, "no path 'fd'"),
        (trapped("open", b"/a"), {"path": b"x"}, "begins with `/`"),
        (trapped("open", b"/a"), {"path": b""}, "begins with `/`"),
        (trapped("open", b"/a"), {"path": "/x"}, "is bytes"),
        (trapped("open", b"/a"), {"path": b"/x\0"}, "NUL"),
        (trapped("open", b"/a"), {"path": b"/" + b"x" * 4095}, "at most 4095 bytes, not 4096"),
        (trapped("utimensat", None), {"path": b"/x"}, "called without a path"),
        (trapped("open", b"/a"), {"argv": [b"x"]}, "open has no argument vector"),
        (trapped("open", b"/a"), {"env": {}}, "open has no environment"),
        (trapped("open", b"/a"), {"address": FOUR}, "open has no socket address"),
        (trapped("execve", b"/a", argv=None), {"argv": [b"x"]}, "without an argument vector"),
        (trapped("execve", b"/a", env=None), {"env": {}}, "without an environment"),
        (trapped("execve", b"/a"), {"argv": [b"a\0b"]}, "NUL"),
        (trapped("execve", b"/a"), {"argv": b"ab"}, "a sequence of bytes"),
        (trapped("execve", b"/a"), {"argv": ["ab"]}, "a sequence of bytes"),
        (trapped("execve", b"/a"), {"argv": "ab"}, "a sequence of bytes"),
        (trapped("execve", b"/a"), {"env": [b"A=\0"]}, "NUL"),
        (trapped("execve", b"/a"), {"env": {b"": b"x"}}, "no variable can have this name"),
        (trapped("execve", b"/a"), {"env": {b"A=": b"x"}}, "no variable can have this name"),
        (trapped("execve", b"/a"), {"env": {"A": b"x"}}, "no variable can have this name"),
        (trapped("execve", b"/a"), {"env": {b"A": b"\0"}}, "no variable can have this value"),
        (trapped("execve", b"/a"), {"env": {b"A": "x"}}, "no variable can have this value"),
        (trapped("sendto"), {"address": FOUR}, "sendto was called without a socket address"),
        (trapped("sendmsg"), {"address": FOUR}, "message of sendmsg has no address"),
        (trapped("connect", address=FOUR), {"address": b"\2\0"}, "no socket address"),
        (trapped("connect", address=FOUR), {"address": None, "path": b"/" + b"x" * 108}, "socket"),
        (trapped("connect", address=FOUR), {"address": Abstract(b"x" * 108)}, "socket address"),
        (trapped("connect", address=FOUR), {"address": Inet(FOUR.host, 1 << 16)}, "does not fit"),
        (trapped("connect", address=FOUR), {"address": FOUR, "argument": "fd"}, "address 'fd'"),
    ],
)
def test_what_does_not_fit(call: Any, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        replacement(call, **given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 9000


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_call(name: str) -> None:
    call = trapped(name, b"/a", b"/b", address=FOUR)
    arguments = TABLE[name].arguments
    for what, new, kinds in [
        ("path", b"/x", PATHS | TO),
        ("address", Short(b"a"), TO),
    ]:
        wanted = [argument for argument, kind in arguments if kind in kinds]
        if not wanted:
            with pytest.raises(ValueError, match=f"{name} has no "):
                replacement(call, **{what: new})  # type: ignore[arg-type]
            continue
        assert list(replacement(call, **{what: new})) == wanted[:1]  # type: ignore[arg-type]


anything = st.one_of(st.none(), st.binary(max_size=5), st.text(max_size=3), st.integers())


@given(anything, anything, st.one_of(anything, st.lists(anything, max_size=2)), anything)
def test_values_of_any_type_are_refused_in_the_same_way(
    path: Any, argv: Any, env: Any, address: Any
) -> None:
    for call in (trapped("execve", b"/a"), trapped("connect", address=FOUR)):
        try:
            found = replacement(call, path=path, argv=argv, env=env, address=address)
        except ValueError:
            continue
        assert all(isinstance(value, bytes | list | Unix) for value in found.values())
