"""Policies and calls over few words, so that rules often hold, drawn with a ``random.Random``.

Of hypothesis's own choices (``st.randoms``) they shrink; of a seed they are made quickly.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

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
from pinfold.syscalls.groups import GROUPS
from pinfold.syscalls.table import TABLE

from .trapped import trapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from pinfold.policy.calls import Trapped

T = TypeVar("T")

NAMES = [b"/", b"/a", b"/a/b", b"/a/b/c", b"/b", b"/run/s", b"/bin/git", b"/usr/bin/git"]
GLOBS = [*NAMES[:6], b"/a/*", b"/a/**", b"**/b", b"**", b"/[ab]", b"/bin/*", b"/run/*"]
WORDS = [b"git", b"push", b"-f", b"x", b""]
PROGRAMS = [b"/bin/git", b"/bin/sh", b"", b"/usr/bin/python3"]
COMMON = ["open", "rename", "linkat", "execve", "connect", "sendto", "sendmsg", "bind", "socket"]
CALLS = [*COMMON * 12, *TABLE, "getrandom", "kill", "socketpair", "openat2", "fchmod"]
NETWORKS = [
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.1"),
        *("::1", "::/0", "::ffff:10.0.0.0/104"),
    )
]
PATTERN = [b"git", b"*", b"push", b"-f", b"/bin/git", REST, REST]
VARIABLES = [b"A=1", b"A=2", b"B=", b"A", b"C=1"]
HOSTS = [IPv4Address(text) for text in ("127.0.0.1", "0.0.0.0", "10.0.0.1", "9.9.9.9")]
HOSTS6 = [
    IPv6Address(text) for text in ("::", "::1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "2001:db8::1")
]
PORTS = [0, 80, 1500]
FLAGS = [0, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_PATH, 2, 3, 0xFFFF_FFFF]


def some(chosen: Random, words: Sequence[T], most: int = 2) -> tuple[T, ...]:
    return tuple(chosen.choice(words) for _ in range(chosen.randint(0, most)))


def at_times(chosen: Random, make: Callable[[], Any], else_: Any) -> Any:
    return make() if chosen.randrange(4) == 0 else else_


def drawn_on(chosen: Random) -> tuple[str, ...]:
    how = chosen.randrange(3)
    if how == 0:
        return ()
    names = GROUPS[chosen.choice(list(GROUPS))] if how == 1 else some(chosen, CALLS, 3)
    return tuple(dict.fromkeys(name for name in names if name not in UNJUDGED))


def drawn_match(chosen: Random) -> Match:
    def maybe(make: Callable[[], Any], else_: Any = ()) -> Any:
        return at_times(chosen, make, else_)

    return Match(
        on=drawn_on(chosen),
        path=maybe(lambda: some(chosen, GLOBS)),
        exact=maybe(lambda: some(chosen, NAMES)),
        real=maybe(lambda: some(chosen, GLOBS)),
        access=maybe(lambda: frozenset(some(chosen, ACCESS)), frozenset()),
        argv=maybe(
            lambda: tuple(some(chosen, PATTERN, 4) or (b"*",) for _ in range(chosen.randint(0, 2)))
        ),
        env=maybe(
            lambda: some(
                chosen, [(b"A", True), (b"B", False), (b"A", b"1"), (b"A", b"*"), (b"B", b"1*")]
            )
        ),
        family=maybe(lambda: frozenset(some(chosen, [*FAMILIES, 31])), frozenset()),
        networks=maybe(lambda: some(chosen, NETWORKS)),
        ports=maybe(lambda: ((80, 80), (1000, 2000))),
        unix=maybe(lambda: some(chosen, GLOBS)),
        abstract=maybe(lambda: (b"app*",)),
        program=maybe(lambda: (b"/bin/**",)),
        loader=maybe(lambda: chosen.choice([True, False]), None),
    )


def drawn_action(chosen: Random) -> Action:
    verb = chosen.choice([ALLOW, DENY, KILL, ASK, RETURN, SERVE, REDIRECT, REDIRECT])
    if verb != REDIRECT:
        return Action(verb, errno=chosen.choice([1, 13]), value=chosen.randrange(2), data=b"text")
    return Action(
        verb,
        path=chosen.choice([None, b"/b", b"/a/b", b"/new", b"/", b"/" + b"x" * 120]),
        argv=at_times(chosen, lambda: some(chosen, [*WORDS, REST], 3), None),
        set_env=at_times(chosen, lambda: ((b"A", b"2"),), ()),
        unset_env=at_times(chosen, lambda: (b"B",), ()),
        address=chosen.choice(
            [None, drawn_inet(chosen), Unix(chosen.choice([b"/a", b"/run/s"])), drawn_inet(chosen)]
        ),
    )


def drawn_model(chosen: Random) -> PolicyModel:
    rules = tuple(
        Rule(drawn_match(chosen), drawn_action(chosen), f"rule {number}")
        for number in range(chosen.randint(0, 6))
    )
    verdicts = [Action(ALLOW), Action(DENY, 1), Action(ASK), Action(KILL)]
    words = at_times(chosen, lambda: some(chosen, ["*", *GROUPS], 3), ())
    return PolicyModel(rules, {word: chosen.choice(verdicts) for word in words})


def drawn_inet(chosen: Random) -> Address:
    return Inet(chosen.choice(HOSTS), chosen.choice(PORTS))


def drawn_address(chosen: Random) -> Address:
    makers: list[Callable[[], Address]] = [
        lambda: drawn_inet(chosen),
        lambda: drawn_inet(chosen),
        lambda: Inet6(chosen.choice(HOSTS6), chosen.choice(PORTS)),
        lambda: Inet6(chosen.choice(HOSTS6), chosen.choice(PORTS)),
        lambda: Unix(chosen.choice([b"/a", b"/run/s"])),
        lambda: Abstract(chosen.choice([b"app", b"x", b"\0\xff"])),
        Unnamed,
        lambda: Netlink(0, 1),
        lambda: Vsock(2, chosen.choice([80, 1 << 31])),
        lambda: Unspec(bytes(chosen.randrange(256) for _ in range(chosen.randrange(31)))),
        lambda: Unspec(b"\0\x50" + HOSTS[2].packed + bytes(chosen.choice([0, 8, 24]))),
        lambda: Other(chosen.choice([17, 31]), b"data"),
        lambda: Short(chosen.choice([b"", b"\1", b"\2\0", b"\2\0" + bytes(8)])),
    ]
    return chosen.choice(makers)()


def drawn_names(chosen: Random) -> bytes | tuple[bytes, ...] | None:
    how = chosen.randrange(8)
    if how < 2:
        return [(), None][how]
    if how < 5:
        return tuple(dict.fromkeys(chosen.choice(NAMES) for _ in range(2)))
    return chosen.choice(NAMES)


def drawn_call(chosen: Random, name: str | None = None) -> Trapped:
    call = chosen.choice(CALLS) if name is None else name
    loader = chosen.choice([True, False])
    arguments = ["path", "old_path", "address"]
    numbers = [0, 1, 2, 10, 17, chosen.randrange(1 << 64)]
    return trapped(
        call,
        *(drawn_names(chosen) for _ in range(chosen.randint(0, 2))),
        address=at_times(chosen, lambda: None, drawn_address(chosen)),
        argv=at_times(chosen, lambda: None, some(chosen, WORDS, 4)),
        env=at_times(chosen, lambda: None, some(chosen, VARIABLES, 3)),
        spelt=some(chosen, [b"a", b"a/", b"..", b"/x/."]),
        program=chosen.choice(PROGRAMS),
        real={argument: chosen.choice(NAMES) for argument in some(chosen, arguments)},
        settled=frozenset(at_times(chosen, lambda: some(chosen, arguments, 1), ())),
        loader=lambda: loader,
        registers={argument: chosen.choice(numbers) for argument in ("domain", "type")},
        flags=chosen.choice(FLAGS),
    )
