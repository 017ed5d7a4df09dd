"""Strategies for policies and calls over few words, so that rules often hold."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

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
)
from pinfold.policy.calls import ASK, KILL, RETURN, SERVE
from pinfold.policy.model import ACCESS, FAMILIES, REST, Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls.groups import DESCRIPTIONS, GROUPS
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.table import TABLE

from .trapped import trapped

if TYPE_CHECKING:
    from pinfold.policy.calls import Trapped

NAMES = [b"/", b"/a", b"/a/b", b"/a/b/c", b"/b", b"/run/s", b"/bin/git", b"/usr/bin/git"]
GLOBS = [*NAMES[:6], b"/a/*", b"/a/**", b"**/b", b"**", b"/[ab]", b"/bin/*", b"/run/*"]
WORDS = [b"git", b"push", b"-f", b"x", b""]
PROGRAMS = [b"/bin/git", b"/bin/sh", b"", b"/usr/bin/python3"]
EXEMPT = ["getrandom", "kill", "socketpair"]
COMMON = ["open", "rename", "linkat", "execve", "connect", "sendto", "sendmsg", "bind", "socket"]

names = st.sampled_from(NAMES)
globs = st.lists(st.sampled_from(GLOBS), max_size=2).map(tuple)
calls = st.one_of(st.sampled_from(COMMON), st.sampled_from(sorted({*TABLE, *EXEMPT})))


def often_empty(some: st.SearchStrategy[Any], empty: Any = ()) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(empty), st.just(empty), st.just(empty), some)


on = st.one_of(
    st.just(()),
    st.sampled_from(sorted(GROUPS)).map(lambda group: GROUPS[group]),
    st.lists(calls, min_size=1, max_size=3, unique=True).map(tuple),
)
networks = st.lists(
    st.sampled_from(
        ["127.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0", "::1", "::/0", "::ffff:10.0.0.0/104", "10.0.0.1"]
    ).map(ip_network),
    min_size=1,
    max_size=2,
).map(tuple)
patterns = st.lists(
    st.sampled_from([b"git", b"*", b"push", b"-f", b"/bin/git", REST, REST]), min_size=1, max_size=4
).map(tuple)
matches: st.SearchStrategy[Match] = st.builds(
    Match,
    on=on,
    path=often_empty(globs),
    exact=often_empty(st.lists(names, max_size=2).map(tuple)),
    real=often_empty(globs),
    access=often_empty(st.frozensets(st.sampled_from(ACCESS)), frozenset()),
    argv=often_empty(st.lists(patterns, max_size=2).map(tuple)),
    env=often_empty(
        st.lists(
            st.tuples(
                st.sampled_from([b"A", b"B"]),
                st.one_of(st.booleans(), st.sampled_from([b"1", b"*", b"1*"])),
            ),
            max_size=2,
        ).map(tuple)
    ),
    family=often_empty(
        st.frozensets(st.one_of(st.sampled_from(FAMILIES), st.just(31)), max_size=2), frozenset()
    ),
    networks=often_empty(networks),
    ports=often_empty(st.just(((80, 80), (1000, 2000)))),
    unix=often_empty(globs),
    abstract=often_empty(st.just((b"app*",))),
    program=often_empty(st.just((b"/bin/**",))),
    loader=st.sampled_from([None, None, None, True, False]),
)
targets = st.sampled_from([b"/b", b"/a/b", b"/new", b"/", b"/" + b"x" * 120])
hosts = st.sampled_from(["127.0.0.1", "0.0.0.0", "10.0.0.1", "9.9.9.9"]).map(IPv4Address)
hosts6 = st.sampled_from(["::", "::1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "2001:db8::1"]).map(
    IPv6Address
)
ports = st.sampled_from([0, 80, 1500])
addresses: st.SearchStrategy[Address] = st.one_of(
    st.builds(Inet, hosts, ports),
    st.builds(Inet6, hosts6, ports),
    st.sampled_from([b"/a", b"/run/s"]).map(Unix),
    st.sampled_from([b"app", b"x", b"\0\xff"]).map(Abstract),
    st.just(Unnamed()),
    st.builds(Netlink, st.just(0), st.just(1)),
    st.builds(Vsock, st.just(2), st.sampled_from([80, 1 << 31])),
    st.binary(max_size=30).map(Unspec),
    st.builds(Unspec, st.just(b"\0\x50" + IPv4Address("10.0.0.1").packed + bytes(24))),
    st.builds(Other, st.sampled_from([17, 31]), st.binary(max_size=8)),
    st.sampled_from([b"", b"\1", b"\2\0", b"\2\0" + bytes(8)]).map(Short),
)
targets_of_addresses: st.SearchStrategy[Address] = st.one_of(
    st.builds(Inet, hosts, ports), st.sampled_from([b"/a", b"/run/s"]).map(Unix)
)
redirects = st.builds(
    Action,
    verb=st.just(REDIRECT),
    path=st.one_of(st.none(), targets, targets),
    argv=st.one_of(st.none(), st.lists(st.sampled_from([*WORDS, REST]), max_size=3).map(tuple)),
    set_env=often_empty(st.just(((b"A", b"2"),))),
    unset_env=often_empty(st.just((b"B",))),
    address=st.one_of(st.none(), targets_of_addresses),
)
actions = st.one_of(
    st.just(Action(ALLOW)),
    st.sampled_from([1, 13]).map(lambda number: Action(DENY, number)),
    st.just(Action(KILL)),
    st.just(Action(ASK)),
    st.builds(Action, st.just(RETURN), value=st.sampled_from([0, 5])),
    st.builds(Action, st.just(SERVE), data=st.just(b"text")),
    redirects,
    redirects,
)
defaults = st.dictionaries(
    st.sampled_from(["*", *DESCRIPTIONS]),
    st.sampled_from([Action(ALLOW), Action(DENY, 1), Action(ASK), Action(KILL)]),
    max_size=3,
)


def model_of(pairs: list[tuple[Match, Action]], words: dict[str, Action]) -> PolicyModel:
    rules = []
    for number, (match, action) in enumerate(pairs):
        calls_of = tuple(name for name in match.on if name not in UNJUDGED)
        rules.append(Rule(replace(match, on=calls_of), action, f"rule {number}"))
    return PolicyModel(tuple(rules), words)


models = st.builds(
    model_of, st.lists(st.tuples(matches, actions), max_size=6), often_empty(defaults, {})
)
flags = st.sampled_from([0, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_PATH, 2, 3, 0xFFFF_FFFF])
meant = st.one_of(
    st.lists(names, min_size=1, max_size=2, unique=True).map(tuple),
    names,
    st.just(()),
    st.none(),
)


@st.composite
def trapped_calls(draw: st.DrawFn, name: str | None = None) -> Trapped:
    call = draw(calls) if name is None else name
    row = TABLE.get(call)
    arguments = [argument for argument, _ in row.arguments] if row else []
    loader = draw(st.booleans())
    return trapped(
        call,
        *draw(st.lists(meant, max_size=2)),
        address=draw(st.one_of(st.none(), addresses)),
        argv=draw(st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=4))),
        env=draw(
            st.one_of(
                st.none(),
                st.lists(st.sampled_from([b"A=1", b"A=2", b"B=", b"A", b"C=1"]), max_size=3),
            )
        ),
        spelt=draw(st.lists(st.sampled_from([b"a", b"a/", b"..", b"/x/."]), max_size=2)),
        program=draw(st.sampled_from(PROGRAMS)),
        real=draw(st.dictionaries(st.sampled_from(["path", "old_path", "address"]), names)),
        settled=draw(st.frozensets(st.sampled_from(["path", "old_path", "address"]), max_size=1))
        if draw(st.integers(0, 4)) == 0
        else frozenset(),
        loader=lambda: loader,
        registers={
            argument: draw(st.one_of(st.sampled_from([0, 1, 2, 10, 17]), st.integers(0, 2**64 - 1)))
            for argument in arguments
            if argument in ("domain", "type")
        },
        flags=draw(flags),
    )


assert all(name in X86_64 for name in EXEMPT)
