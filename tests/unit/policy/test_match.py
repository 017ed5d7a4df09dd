from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.codec import vector
from pinfold.codec.sockaddr import (
    Abstract,
    Address,
    Inet,
    Inet6,
    Netlink,
    Other,
    Short,
    Unix,
    Unnamed,
    Unspec,
    Vsock,
    pack,
)
from pinfold.policy.calls import ASK, KILL, RETURN
from pinfold.policy.judging.match import Arguments, Conditions, Vectors
from pinfold.policy.judging.meaning import Meaning, Reading, Subject, domains, meanings
from pinfold.policy.model import REST, Action, Match, Rule
from pinfold.policy.rules import ALLOW, DENY
from tests.unit.codec.memory import AT, BytesMemory, in_growing_slots

from .reference import spells
from .trapped import trapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

YES, NO = True, False
UNIX, INET, INET6, VSOCK, PACKET = 1, 2, 10, 40, 17


def inet(host: str, port: int = 80) -> Inet:
    return Inet(IPv4Address(host), port)


def inet6(host: str, port: int = 80) -> Inet6:
    return Inet6(IPv6Address(host), port)


def conditions(match: Match, verb: str = DENY) -> Conditions:
    return Conditions(Rule(match, Action(verb), "rule"))


def addressed(address: Address, match: Match, verb: str = DENY) -> list[bool]:
    """Whether the conditions hold for each meaning of an address."""
    found = meanings(address, (b"/run/s",), "connect")
    subject = Subject("address", found, address=True)
    call = trapped("connect", address=address)
    return [conditions(match, verb).hold(call, subject, one, Vectors(call)) for one in found]


def holds(
    match: Match,
    verb: str = DENY,
    *,
    name: bytes | None = b"/bin/x",
    argv: Sequence[bytes] = (),
    env: Sequence[bytes] = (),
    does: str = "",
    real: bytes | None = None,
    loader: Callable[[], bool] = lambda: False,
) -> bool:
    call = trapped("execve", name, argv=argv, env=env, loader=loader)
    meaning = Meaning(name)
    subject = Subject("path", (meaning,), frozenset(does.split()), real)
    return conditions(match, verb).hold(call, subject, meaning, Vectors(call))


def networks(*texts: str) -> Match:
    return Match(networks=tuple(map(ip_network, texts)))


@pytest.mark.parametrize(
    ("address", "group", "expected"),
    [
        (inet("1.2.3.4"), "connect", [["1.2.3.4"]]),
        (inet("0.0.0.0"), "connect", [["0.0.0.0"], ["127.0.0.1"]]),
        (inet("0.0.0.0"), "send", [["0.0.0.0"], ["127.0.0.1"]]),
        (inet("0.0.0.0"), "bind", [["0.0.0.0"]]),
        (inet6("::"), "connect", [["::"], ["::1"], ["127.0.0.1"]]),
        (inet6("::"), "bind", [["::"]]),
        (inet6("::1"), "connect", [["::1"]]),
        (inet6("::ffff:1.2.3.4"), "connect", [["1.2.3.4", "::ffff:1.2.3.4"]]),
        (
            inet6("::ffff:0.0.0.0"),
            "send",
            [["0.0.0.0", "::ffff:0:0"], ["127.0.0.1", "::ffff:0:0"]],
        ),
        (Unspec(b"\0\x50" + IPv4Address("9.8.7.6").packed + bytes(8)), "connect", [[]]),
        (
            Unspec(b"\0\x50" + IPv4Address("9.8.7.6").packed + bytes(8)),
            "bind",
            [[], ["9.8.7.6"]],
        ),
        (Unspec(b"\0\x50" + IPv4Address("9.8.7.6").packed), "send", [[]]),
        (
            Unspec(pack(inet6("2001:db8::1"))[2:]),
            "send",
            [[], ["0.0.0.0"], ["127.0.0.1"], ["2001:db8::1"]],
        ),
    ],
)
def test_hosts(address: Address, group: str, expected: list[list[str]]) -> None:
    found = [
        [str(one.host) for one in meaning.readings if one.host is not None]
        for meaning in meanings(address, (), group)
    ]
    readable = [[str(IPv6Address(one)) if ":" in one else one for one in row] for row in expected]
    assert found == readable


def test_a_raw_socket_takes_no_family_for_its_own() -> None:
    address = Unspec(pack(inet6("2001:db8::1", 7))[2:])
    assert Reading(INET6, IPv6Address("2001:db8::1"), 7) in [
        one for meaning in meanings(address, (), "send") for one in meaning.readings
    ]
    assert meanings(address, (), "connect") == (Meaning(None, (Reading(0),)),)


def test_the_other_kinds_of_addresses() -> None:
    unix = (Reading(UNIX),)
    assert meanings(Unix(b"s"), (b"/a", b"/b"), "connect") == (
        Meaning(b"/a", unix),
        Meaning(b"/b", unix),
    )
    assert meanings(Unix(b"s"), (), "connect") == (Meaning(None, unix),)
    assert meanings(Abstract(b"\0x"), (), "bind") == (Meaning(None, unix, b"\0x"),)
    assert meanings(Unnamed(), (), "bind") == (Meaning(None, unix),)
    assert meanings(Netlink(3, 1), (), "bind") == (Meaning(None, (Reading(16),)),)
    assert meanings(Vsock(2, 99), (), "connect") == (Meaning(None, (Reading(VSOCK, None, 99),)),)
    assert meanings(Other(31, b"x"), (), "connect") == (Meaning(None, (Reading(31),)),)
    assert meanings(Short(b"\2\0x"), (), "connect") == (Meaning(unknown=True),)


def test_sockets_that_are_made() -> None:
    assert domains(INET, 1) == (Meaning(None, (Reading(INET),)),)
    assert domains(INET | 7 << 32, 1) == (Meaning(None, (Reading(INET),)),)
    assert [one.readings[0].family for one in domains(INET, 10 | 0o2000000)] == [INET, PACKET]
    assert [one.readings[0].family for one in domains(INET6, 10)] == [INET6]


@pytest.mark.parametrize(
    ("match", "address", "expected"),
    [
        (Match(family=frozenset({"inet"})), inet("1.2.3.4"), [YES]),
        (Match(family=frozenset({"inet6"})), inet("1.2.3.4"), [NO]),
        (Match(family=frozenset({2})), inet("1.2.3.4"), [YES]),
        (Match(family=frozenset({"unix", "vsock"})), Vsock(2, 1), [YES]),
        (Match(family=frozenset({"packet"})), Other(PACKET, b""), [YES]),
        (Match(family=frozenset({"unspec"})), Unspec(b""), [YES]),
        (Match(family=frozenset({31})), Other(31, b"abc"), [YES]),
        (networks("1.2.0.0/16"), inet("1.2.3.4"), [YES]),
        (networks("1.3.0.0/16", "1.2.3.4/32"), inet("1.2.3.4"), [YES]),
        (networks("1.3.0.0/16"), inet("1.2.3.4"), [NO]),
        (networks("0.0.0.0/0"), inet("1.2.3.4"), [YES]),
        (networks("0.0.0.0/0"), inet6("2001:db8::1"), [NO]),
        (networks("2001:db8::/32"), inet6("2001:db8::1"), [YES]),
        (networks("::/0"), Unix(b"s"), [NO]),
        (networks("127.0.0.0/8"), inet("0.0.0.0"), [NO, YES]),
        (networks("::1/128"), inet6("::"), [NO, YES, NO]),
        (Match(ports=((80, 80),)), inet("1.2.3.4", 80), [YES]),
        (Match(ports=((1, 79), (81, 90))), inet("1.2.3.4", 80), [NO]),
        (Match(ports=((79, 81),)), inet6("::1", 81), [YES]),
        (Match(ports=((0, 65535),)), Unix(b"s"), [NO]),
        (Match(ports=((0, 65535),)), Vsock(2, 80), [NO]),
        (Match(ports=((0, 65535),), family=frozenset({"vsock"})), Vsock(2, 80), [YES]),
        (Match(ports=((0, 65535),), family=frozenset({"vsock"})), Vsock(2, 1 << 20), [NO]),
        (Match(abstract=(b"app-*",)), Abstract(b"app-/1"), [YES]),
        (Match(abstract=(b"app-*",)), Abstract(b"other"), [NO]),
        (Match(abstract=(b"*",)), Unix(b"s"), [NO]),
        (Match(abstract=(b"*",)), Unnamed(), [NO]),
        (Match(path=(b"/run",), unix=(b"/run/*",)), Unix(b"s"), [YES]),
        (Match(path=(b"/run",), unix=(b"/srv/*",)), Unix(b"s"), [NO]),
        (Match(path=(b"/run",), family=frozenset({"unix"})), Unix(b"s"), [YES]),
        (Match(path=(b"/run",), family=frozenset({"inet"})), Unix(b"s"), [NO]),
    ],
)
@pytest.mark.parametrize("verb", [DENY, ALLOW, KILL])
def test_addresses(match: Match, address: Address, expected: list[bool], verb: str) -> None:
    assert addressed(address, match, verb) == expected


@pytest.mark.parametrize(
    ("match", "allows", "others"),
    [
        (networks("10.0.0.0/8"), YES, YES),
        (networks("::ffff:10.0.0.0/104"), YES, YES),
        (networks("::ffff:10.0.0.1/128"), YES, YES),
        (networks("::ffff:11.0.0.0/104"), NO, NO),
        (networks("::/0"), NO, YES),
        (networks("2001:db8::/32"), NO, NO),
        (Match(family=frozenset({"inet"})), YES, YES),
        (Match(family=frozenset({"inet6"})), NO, YES),
        (replace(networks("10.0.0.0/8"), family=frozenset({"inet6"})), NO, NO),
        (replace(networks("::/0"), family=frozenset({"inet6"}), ports=((80, 80),)), NO, YES),
    ],
)
def test_mapped_addresses(match: Match, allows: bool, others: bool) -> None:
    address = inet6("::ffff:10.0.0.1")
    assert addressed(address, match, ALLOW) == [allows]
    for verb in (DENY, ASK, KILL, RETURN):
        assert addressed(address, match, verb) == [others]


def test_a_mapped_network_is_one_for_plain_addresses_too() -> None:
    assert addressed(inet("10.1.1.1"), networks("::ffff:10.0.0.0/104"), ALLOW) == [YES]
    assert addressed(inet("11.1.1.1"), networks("::ffff:10.0.0.0/104")) == [NO]


@pytest.mark.parametrize(
    "match", [Match(family=frozenset({"inet"})), Match(ports=((1, 2),)), networks("::1")]
)
def test_what_is_too_short_counts_against_the_program(match: Match) -> None:
    for verb in (DENY, ASK, KILL):
        assert addressed(Short(b"\2\0"), match, verb) == [YES]
    for verb in (ALLOW, RETURN):
        assert addressed(Short(b"\2\0"), match, verb) == [NO]
    named = replace(match, path=(b"/x",), unix=(b"/x",))
    assert addressed(Short(b"\2\0"), named) == [NO]


def test_names_beyond_the_one_that_is_indexed() -> None:
    match = Match(exact=(b"/bin/x",), path=(b"/bin",), real=(b"/usr/bin/*",))
    assert conditions(match).indexed == "exact"
    assert holds(match, real=b"/usr/bin/x")
    assert not holds(match, real=b"/usr/lib/x")
    assert not holds(match, real=None)
    assert not holds(match, real=b"/usr/bin/x", name=b"/sbin/x")
    assert not holds(match, real=b"/usr/bin/x", name=None)
    assert not holds(Match(path=(b"/bin",), unix=(b"/bin/*",)))


@pytest.mark.parametrize(
    ("words", "does", "allows", "others"),
    [
        ("read", "read", YES, YES),
        ("read", "read write", NO, YES),
        ("read write", "read write", YES, YES),
        ("write", "create write", NO, YES),
        ("read write create", "create write", YES, YES),
        ("write", "read", NO, NO),
        ("exec", "exec read", YES, YES),
        ("read", "exec read", NO, YES),
        ("exec", "read", NO, NO),
        ("read write create exec", "", NO, NO),
    ],
)
def test_access(words: str, does: str, allows: bool, others: bool) -> None:
    access = frozenset(words.split())
    assert holds(Match(access=access), ALLOW, does=does) is allows
    for verb in (DENY, ASK, KILL, RETURN):
        assert holds(Match(access=access), verb, does=does) is others


@pytest.mark.parametrize(
    ("env", "wanted", "allows", "others"),
    [
        ([b"A=1"], (b"A", True), YES, YES),
        ([b"A="], (b"A", True), YES, YES),
        ([b"A"], (b"A", True), NO, NO),
        ([b"A"], (b"A", False), YES, YES),
        ([b"B=A=1"], (b"A", True), NO, NO),
        ([b"A=1"], (b"A", False), NO, NO),
        ([], (b"A", False), YES, YES),
        ([b"A=1x"], (b"A", b"1*"), YES, YES),
        ([b"A=2"], (b"A", b"1*"), NO, NO),
        ([], (b"A", b"*"), NO, NO),
        ([b"A=1", b"A=2"], (b"A", b"1"), NO, YES),
        ([b"A=2", b"A=1"], (b"A", b"1"), NO, YES),
        ([b"A=1", b"A=1"], (b"A", b"1"), YES, YES),
        ([b"A=a/b\n"], (b"A", b"a*"), YES, YES),
    ],
)
def test_environment(
    env: list[bytes], wanted: tuple[bytes, bytes | bool], allows: bool, others: bool
) -> None:
    assert holds(Match(env=(wanted,)), ALLOW, env=env) is allows
    for verb in (DENY, ASK, KILL, RETURN):
        assert holds(Match(env=(wanted,)), verb, env=env) is others


def test_every_variable_has_to_be_met() -> None:
    match = Match(env=((b"A", True), (b"B", False)))
    assert holds(match, env=[b"A=1"])
    assert not holds(match, env=[b"A=1", b"B=1"])
    assert not holds(match)
    assert Vectors(trapped("execve", b"/bin/x", env=None)).env == ()


PUSH = (b"git", b"push", REST)


@pytest.mark.parametrize(
    ("pattern", "name", "argv", "allows", "others"),
    [
        (PUSH, b"/usr/bin/git", [b"git", b"push"], YES, YES),
        (PUSH, b"/usr/bin/git", [b"git", b"push", b"-f", b"o"], YES, YES),
        (PUSH, b"/usr/bin/git", [b"/opt/git", b"push"], YES, YES),
        (PUSH, b"/usr/bin/git", [b"x", b"push"], NO, YES),
        (PUSH, b"/usr/bin/evil", [b"git", b"push"], NO, YES),
        (PUSH, None, [b"git", b"push"], NO, YES),
        (PUSH, None, [b"x", b"push"], NO, NO),
        (PUSH, b"/usr/bin/evil", [b"evil", b"push"], NO, NO),
        (PUSH, b"/usr/bin/git", [b"git", b"-c", b"push"], NO, NO),
        (PUSH, b"/usr/bin/git", [b"git"], NO, NO),
        (PUSH, b"/usr/bin/git", [], NO, NO),
        ((b"git",), b"/usr/bin/git", [], NO, YES),
        ((b"git", REST), b"/usr/bin/git", [], NO, YES),
        ((b"git", REST), b"/usr/bin/x", [], NO, NO),
        ((REST,), b"/usr/bin/git", [], YES, YES),
        ((b"", REST), b"/usr/bin/git", [], NO, YES),
        ((), b"/usr/bin/git", [], NO, NO),
        ((b"*",), b"/usr/bin/git", [b"git", b"x"], NO, NO),
        ((b"/usr/bin/git",), b"/usr/bin/git", [b"/usr/bin/git"], YES, YES),
        ((b"/usr/bin/git",), b"/usr/bin/git", [b"git"], NO, YES),
        ((b"/usr/*/git",), b"/usr/lib/x/git", [b"/usr/bin/git"], YES, YES),
        ((REST, b"-f"), b"/bin/x", [b"-f"], YES, YES),
        ((REST, b"-f", REST), b"/bin/x", [b"x", b"a", b"-f", b"b"], YES, YES),
        ((REST, b"-f", REST), b"/bin/x", [b"x", b"a", b"-g"], NO, NO),
        ((b"x", REST, b"a", b"b", REST, b"c"), b"/bin/x", [b"x", *b"a a b c".split()], YES, YES),
        ((b"x", REST, b"a", REST, b"a"), b"/bin/x", [b"x", b"a"], NO, NO),
        ((b"x", REST, b"a", REST, b"a"), b"/bin/x", [b"x", b"a", b"a"], YES, YES),
        ((b"x", REST, REST, b"a"), b"/bin/x", [b"x", b"q", b"a"], YES, YES),
        ((b"x", b"?*"), b"/bin/x", [b"x", b""], NO, NO),
    ],
)
def test_arguments(
    pattern: tuple[bytes, ...], name: bytes | None, argv: list[bytes], allows: bool, others: bool
) -> None:
    assert holds(Match(argv=(pattern,)), ALLOW, name=name, argv=argv) is allows
    for verb in (DENY, ASK, KILL, RETURN):
        assert holds(Match(argv=(pattern,)), verb, name=name, argv=argv) is others


def test_one_of_several_patterns_is_enough() -> None:
    match = Match(argv=(PUSH, (b"git", b"fetch", REST)))
    assert holds(match, name=b"/bin/git", argv=[b"git", b"fetch"])
    assert not holds(match, name=b"/bin/git", argv=[b"git", b"pull"])
    vectors = Vectors(trapped("execve", b"/bin/git", argv=[b"git", b"fetch", b"o"]))
    assert list(conditions(match).captured(b"/bin/git", vectors)) == [b"o"]


@pytest.mark.parametrize(
    ("pattern", "argv", "expected"),
    [
        (None, b"x a b", b"a b"),
        ((b"x",), b"x", b""),
        ((b"x", REST), b"x a b", b"a b"),
        ((b"x", b"a", REST), b"x a b", b"b"),
        ((b"x", REST, b"b"), b"x a b", b"a"),
        ((b"x", REST, b"a", REST), b"x q a b a", b"q"),
        ((REST, b"b"), b"x a b", b"x a"),
        ((b"x", REST, REST, b"c"), b"x a b c", b"a b"),
    ],
)
def test_what_the_first_rest_stands_for(
    pattern: tuple[bytes, ...] | None, argv: bytes, expected: bytes
) -> None:
    compiled = conditions(Match(argv=(pattern,) if pattern else ()))
    vectors = Vectors(trapped("execve", b"/bin/x", argv=argv.split()))
    assert b" ".join(compiled.captured(b"/bin/x", vectors)) == expected


def fits(pattern: tuple[bytes, ...], argv: tuple[bytes, ...], first: bool) -> bool:
    """The meaning of a pattern for argv, every alternative tried; argv[0] fits if `first`."""
    if not pattern:
        return not argv
    if pattern[0] == REST:
        return any(fits(pattern[1:], argv[at:], NO) for at in range(len(argv) + 1))
    return bool(argv) and (first or spells(pattern[0], argv[0])) and fits(pattern[1:], argv[1:], NO)


words = st.sampled_from([b"a", b"b", b"ab", b""])
elements = st.sampled_from([b"a", b"b", b"*", b"a*", REST, REST])


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(elements, max_size=7).map(tuple), st.lists(words, min_size=1, max_size=7).map(tuple)
)
@example((b"a", REST, b"b", REST, b"b"), (b"a", b"b"))
@example((REST, b"a", b"b", REST), (b"a", b"a", b"b"))
def test_patterns_of_argv_equal_the_reference(
    pattern: tuple[bytes, ...], argv: tuple[bytes, ...]
) -> None:
    plain = fits(pattern, argv, NO)
    assert (Arguments(pattern).match(b"/bin/zz", argv, False) is not None) is plain
    by_name = bool(pattern) and pattern[0] != REST and spells(pattern[0], b"zz")
    expected = plain and (by_name or not pattern or pattern[0] == REST)
    assert (Arguments(pattern).match(b"/bin/zz", argv, True) is not None) is expected
    if pattern and pattern[0] != REST:
        same = Arguments(pattern).match(b"/bin/" + (argv[0] or b"-"), (b"zz", *argv[1:]), False)
        either = spells(pattern[0], argv[0] or b"-") or spells(pattern[0], b"zz")
        assert (same is not None) is (either and fits(pattern, (b"", *argv[1:]), YES))


def test_long_vectors_are_compared_a_bounded_number_of_times() -> None:
    pattern = Arguments((b"x", *(REST, b"a", b"b") * 20, REST, b"c"))
    asked = 0

    class Counted:
        def __init__(self, wanted: bytes) -> None:
            self.wanted = wanted

        def match(self, text: bytes) -> bool:
            nonlocal asked
            asked += 1
            return text == self.wanted

    letters = iter([b"x", *[b"a", b"b"] * 20, b"c"])
    pattern._groups = [[Counted(next(letters)) for _ in group] for group in pattern._groups]  # type: ignore[misc]
    argv = [b"x", *[b"a"] * 20_000, b"c"]
    assert pattern.match(b"/bin/x", argv, False) is None
    assert asked <= 2 * len(argv) + 5


def test_vectors_of_the_codec() -> None:
    strings = b"git\0push\0"
    page = struct.pack("=3Q", AT + 64, AT + 68, 0).ljust(64, b"\0") + strings
    memory = BytesMemory({AT: page.ljust(4096, b"\0")})
    argv = in_growing_slots(memory, lambda image: vector.decode(image, AT))
    call = trapped("execve", b"/bin/git", values={"argv": argv, "envp": argv})
    assert list(Vectors(call).argv) == [b"git", b"push"]
    assert list(Vectors(call).env) == [b"git", b"push"]
    assert list(Vectors(call, [b"x"], [b"A=1"]).argv) == [b"x"]
    assert Vectors(call, [b"x"], [b"A=1"]).values(b"A") == [b"1"]
    for empty in (Vectors(call, [], []), Vectors(trapped("execve", b"/bin/git", argv=[]))):
        assert list(empty.argv) == [b""]


def test_the_loader() -> None:
    def gone() -> bool:
        raise ProcessLookupError

    for answer, wanted in itertools.product([YES, NO], repeat=2):
        found = holds(Match(loader=wanted), loader=lambda answer=answer: answer)  # type: ignore[misc]
        assert found is (answer is wanted)
    for verb, expected in [(DENY, YES), (KILL, YES), (ASK, YES), (ALLOW, NO), (RETURN, NO)]:
        assert holds(Match(loader=YES), verb, loader=gone) is expected
