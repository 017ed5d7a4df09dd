"""Policies as text: what is written is read back as the same policy, whatever the names are."""

from __future__ import annotations

import errno
import tomllib
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Unix
from pinfold.policy.calls import ASK, KILL, RETURN, SERVE
from pinfold.policy.file.load import parse
from pinfold.policy.globs import escape
from pinfold.policy.learning.write import words, write
from pinfold.policy.model import ACCESS, FAMILIES, REST, Action, Limits, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS

# Whatever a program can call a file, but for what no TOML file can hold.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
COMPONENT = TEXT.map(lambda text: text.replace("/", "_").encode()).filter(
    lambda text: text not in {b"", b".", b".."}
)
NAME = st.lists(COMPONENT, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
GLOB = st.tuples(NAME.map(escape), st.sampled_from((b"", b"/*", b"/**", b"*", b"?"))).map(b"".join)
PATTERN = st.one_of(TEXT.map(lambda text: escape(text.encode())), st.just(REST), st.just(b"a*"))
PLAIN = TEXT.map(str.encode)


def tuples(strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(strategy, max_size=3, unique=True).map(tuple)


ARGV = st.lists(st.lists(PATTERN, min_size=1, max_size=4).map(tuple), max_size=3).map(tuple)


def about(on: tuple[str, ...], words: tuple[str, ...]) -> st.SearchStrategy[Match]:
    """Conditions on paths for some calls, which do such things with them."""
    return st.builds(
        Match,
        on=st.just(on),
        path=tuples(GLOB),
        exact=tuples(NAME),
        real=tuples(GLOB),
        access=st.frozensets(st.sampled_from(words)),
        program=tuples(GLOB),
        loader=st.sampled_from((None, True, False)),
    ).filter(lambda match: bool(match.on or match.path or match.exact))


OPENS = about(GROUPS["open"], ACCESS[:3])
PATHS = st.one_of(
    about((), ACCESS[:3]), OPENS, about((*GROUPS["rename"], "unlinkat"), ("write", "create"))
)
EXECS = st.builds(
    Match,
    on=st.just(GROUPS["exec"]),
    path=tuples(GLOB),
    argv=ARGV,
    env=st.dictionaries(
        st.sampled_from((b"A", b"LD_PRELOAD", b"a.b", b"x y")),
        st.one_of(st.booleans(), PLAIN.map(escape)),
        max_size=3,
    ).map(lambda pairs: tuple(pairs.items())),
)
PORT = st.integers(0, 65535)
ADDRESSES = st.builds(
    Match,
    on=st.sampled_from((GROUPS["connect"], (*GROUPS["connect"], *GROUPS["send"]))),
    networks=st.lists(
        st.sampled_from(("10.0.0.0/8", "127.0.0.1/32", "::1/128", "fe80::/10", "0.0.0.0/0")).map(
            ip_network
        ),
        max_size=2,
        unique=True,
    ).map(tuple),
    ports=st.lists(st.tuples(PORT, PORT).map(lambda pair: (min(pair), max(pair))), max_size=2).map(
        tuple
    ),
    family=st.frozensets(st.sampled_from(("inet", "inet6")), max_size=2),
)
SOCKETS = st.one_of(
    st.builds(Match, on=st.just(GROUPS["connect"]), unix=tuples(GLOB)),
    st.builds(Match, on=st.just(GROUPS["bind"]), abstract=tuples(PLAIN.map(escape))),
    st.builds(
        Match,
        on=st.just(GROUPS["socket"]),
        family=st.frozensets(st.sampled_from((*FAMILIES, 44, 9)), max_size=3),
    ),
)
SIMPLE = st.one_of(
    st.just(Action(ALLOW)),
    st.just(Action(KILL)),
    st.just(Action(ASK)),
    st.sampled_from((errno.EPERM, errno.ENOENT, errno.EACCES)).map(lambda n: Action(DENY, n)),
)
RULES = st.one_of(
    st.tuples(st.one_of(PATHS, EXECS, ADDRESSES, SOCKETS), SIMPLE),
    st.tuples(
        OPENS,
        st.builds(Action, st.just(SERVE), data=PLAIN),
    ),
    st.tuples(
        OPENS,
        st.builds(Action, st.just(REDIRECT), path=NAME),
    ),
    st.tuples(
        OPENS,
        st.builds(Action, st.just(RETURN), value=PORT),
    ),
    st.tuples(
        EXECS,
        st.builds(
            Action,
            st.just(REDIRECT),
            argv=st.lists(PLAIN.filter(bool), min_size=1, max_size=3).map(tuple),
            set_env=st.just(
                ((b"A", b"$x"), (b"b.c", b"")),
            ),
            unset_env=st.just((b"C",)),
        ),
    ),
    st.tuples(
        ADDRESSES,
        st.builds(
            Action,
            st.just(REDIRECT),
            address=st.sampled_from(
                (
                    Inet(ip_address("127.0.0.1"), 80),  # type: ignore[arg-type]
                    Inet6(ip_address("::1"), 80),  # type: ignore[arg-type]
                    Unix(b"/run/a b"),
                    Abstract(b"x\x00y$"),
                )
            ),
        ),
    ),
).map(lambda pair: Rule(pair[0], pair[1], "a name"))
MODELS = st.builds(
    PolicyModel,
    rules=st.lists(RULES, max_size=4).map(tuple),
    defaults=st.dictionaries(st.sampled_from(("*", "exec", "open")), SIMPLE, max_size=3),
    ro=tuples(NAME).map(lambda paths: tuple(dict.fromkeys(paths))),
    rw=tuples(NAME).map(lambda paths: tuple(dict.fromkeys(paths))),
    limits=st.builds(
        Limits,
        tasks=st.none() | st.integers(1, 99),
        seconds=st.none() | st.floats(0.5, 99),
        memory=st.none() | st.integers(1 << 24, 1 << 40),
    ),
    real=st.booleans(),
    on_audit_loss=st.sampled_from(("stop", "continue")),
    handler_seconds=st.sampled_from((60.0, 1.5)),
    description=TEXT,
)


def plain(model: PolicyModel) -> PolicyModel:
    """Without what says where it was read."""
    rules = tuple(replace(rule, source="") for rule in model.rules)
    return replace(model, rules=rules, files=(), digests=())


@settings(max_examples=120)
@given(MODELS)
def test_what_is_written_is_read_back(model: PolicyModel) -> None:
    assert plain(parse(write(model))) == model


@settings(max_examples=60)
@given(st.lists(RULES, min_size=1, max_size=3).map(tuple), NAME, NAME)
def test_variables_are_put_in_and_out_again(
    rules: tuple[Rule, ...], home: bytes, cwd: bytes
) -> None:
    below = Match(path=(escape(cwd) + b"/*", escape(home)), exact=(home + b"/a$b",))
    rules = (Rule(below, Action(DENY), "below"), *rules)
    text = write(PolicyModel(rules), variables={"HOME": home, "CWD": cwd})
    read = parse(text, environ={"HOME": home.decode()}, cwd=cwd)
    assert plain(read) == PolicyModel(rules)
    assert "${CWD}/*" in text or "${HOME}" in text


def test_a_policy_holds_in_another_directory() -> None:
    match = Match(path=(b"/w/[[]*",), exact=(b"/w", b"/wide"))
    text = write(PolicyModel((Rule(match, Action(DENY), "x"),)), variables={"CWD": b"/w"})
    read = parse(text, cwd=b"/v*", environ={})
    assert read.rules[0].match == Match(path=(rb"/v\*/[[]*",), exact=(b"/v*", b"/wide"))


@given(TEXT, TEXT)
def test_no_comment_ends_early(first: str, second: str) -> None:
    rule = Rule(Match(path=(b"/a",)), Action(DENY), "x")
    text = write(
        PolicyModel((rule,)),
        comments={0: (first + '\n[[rule]]\naction = "allow"',)},
        head=(second,),
    )
    assert len(tomllib.loads(text)["rule"]) == 1
    assert all(line.isprintable() for line in text.split("\n"))


def test_bytes_that_no_file_can_hold() -> None:
    rule = Rule(Match(exact=(b"/\xff",)), Action(DENY), "x")
    with pytest.raises(ValueError, match="not UTF-8"):
        write(PolicyModel((rule,)))


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_a_group_is_one_word(group: str) -> None:
    assert words(GROUPS[group]) == [group]
    assert words((*GROUPS[group], "renameat")) == [group, "renameat"]


def test_calls_that_are_no_whole_group_are_named() -> None:
    assert words(("renameat", "unlinkat")) == ["renameat", "unlinkat"]


@pytest.mark.parametrize("calls", [("rename", "renameat"), ("socket",)])
def test_no_word_means_a_call_and_not_its_group(calls: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="not its group"):
        words(calls)
