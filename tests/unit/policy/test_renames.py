"""What is denied does not get another name with a directory above it; and other small doors."""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold import Call, Policy
from pinfold.codec.sockaddr import Inet
from pinfold.policy.calls import ASK, KILL, Verdict
from pinfold.policy.file.load import load
from pinfold.policy.globs import Above, GlobSet, leading, parse
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.model import Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT, PathRules
from pinfold.syscalls.groups import GROUPS

from .random_models import NAMES, drawn_call, drawn_model
from .reference import matches, names, patterns
from .test_judge import Asked, compare
from .trapped import trapped

EXCHANGE = 2
HERE = Inet(IPv4Address("127.0.0.1"), 1)


def rule(verb: str, name: str = "", **conditions: Any) -> Rule:
    return Rule(Match(**conditions), Action(verb), name or verb)


def said(model: PolicyModel | list[Rule], *call: Any, **options: Any) -> str:
    model = model if isinstance(model, PolicyModel) else PolicyModel(tuple(model))
    found = RuleJudge(model).judge(trapped(*call, **options))
    assert isinstance(found, Verdict)
    return found.rule or found.action


# Names above a pattern.


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        (b"/", ()),
        (b"/a", ()),
        (b"/a/b/c", (b"/a", b"/a/b")),
        (b"/home/*/.ssh", (b"/home", b"/home/*")),
        (b"/home/*/.ssh/**", (b"/home", b"/home/*", b"/home/*/.ssh")),
        (b"/a/b**/c", (b"/a",)),
        (b"/a/**/c/d", (b"/a",)),
        (b"**/c/d", ()),
        (rb"/a\*/b[x-z]/c", (rb"/a\*", rb"/a\*/b[x-z]")),
    ],
)
def test_parts_of_patterns(pattern: bytes, parts: tuple[bytes, ...]) -> None:
    assert leading(pattern) == parts


@settings(max_examples=500, deadline=None)
@given(patterns, names)
def test_a_name_above_is_one_that_the_pattern_begins_with(pattern: bytes, name: bytes) -> None:
    parts = pattern.split(b"/")
    begins = [b"/".join(parts[:count]) for count in range(2, len(parts))]
    ahead = pattern.find(b"**")
    begins = [one for one in begins if ahead < 0 or len(one) < ahead]
    exactly = [
        one
        for one in begins
        if name != b"/" and matches(one, name) and name.count(b"/") == one.count(b"/")
    ]
    assert bool(Above([(7, pattern)]).of(name)) is bool(exactly)


@settings(max_examples=300, deadline=None)
@given(patterns, names, names)
def test_what_leads_to_a_match_is_above(pattern: bytes, above: bytes, rest: bytes) -> None:
    """Whatever is renamed with something that a pattern matches is found, but for ``**``."""
    below = above.rstrip(b"/") + rest
    if b"**" in pattern or above == b"/" or rest == b"/":
        return
    if parse(pattern)[0] is None and GlobSet([pattern]).match(below) >= 0:
        assert Above([(1, pattern)]).of(above) == [1]


# Rules.


@pytest.mark.parametrize("verb", [DENY, KILL, ASK])
@pytest.mark.parametrize("key", ["path", "exact", "real"])
@pytest.mark.parametrize("call", GROUPS["rename"])
def test_a_rename_above(verb: str, key: str, call: str) -> None:
    conditions: dict[str, Any] = {key: (b"/a/b/c",)}
    one = rule(verb, **conditions)
    for name in (b"/a", b"/a/b", b"/a/b/c"):
        assert said([one], call, name, b"/new", real={"old_path": name}).startswith(verb)
        # Nothing is lost at the new name.
        if name != b"/a/b/c":
            assert said([one], call, b"/new", name, real={"new_path": name}) == ALLOW
    for name in (b"/a/x", b"/ab", b"/x"):
        assert said([one], call, name, b"/new", real={"old_path": name}) == ALLOW


def test_names_that_change_places() -> None:
    one = rule(DENY, path=(b"/a/b",))
    assert said([one], "renameat2", b"/new", b"/a") == ALLOW
    assert said([one], "renameat2", b"/new", b"/a", flags=EXCHANGE) == DENY
    judge = RuleJudge(PolicyModel((one,)))
    for flags, action in ((4, ALLOW), (EXCHANGE, DENY), (4, ALLOW), (1, ALLOW)):
        found = judge.judge(trapped("renameat2", b"/new", b"/a", flags=flags))
        assert isinstance(found, Verdict)
        assert found.action == action


def test_only_rules_about_renaming() -> None:
    for on, action in ((("open",), ALLOW), (("open", "rename"), DENY), ((), DENY)):
        assert said([rule(DENY, on=on, path=(b"/a/b",))], "rename", b"/a", b"/x") == action
    read = rule(DENY, path=(b"/a/b",), access=frozenset({"read"}))
    assert said([read], "rename", b"/a", b"/x") == ALLOW
    other = rule(DENY, path=(b"/a/b",), program=(b"/bin/other",))
    assert said([other], "rename", b"/a", b"/x") == ALLOW


def test_what_allows_or_redirects_is_about_what_it_says() -> None:
    for verb in (ALLOW, "return"):
        one = PolicyModel((rule(verb, path=(b"/a/b",)),), {"rename": Action(DENY)})
        assert said(one, "rename", b"/a", b"/x") == "default rename"


def test_all_conditions_on_names_have_to_be_possible_below() -> None:
    one = rule(DENY, path=(b"/a/**",), exact=(b"/a/b/c",), real=(b"/r/s/*",))
    for name, real, action in (
        (b"/a/b", b"/r/s", DENY),
        (b"/a", b"/r", DENY),
        (b"/a/b", b"/x", ALLOW),
        (b"/a/x", b"/r/s", ALLOW),
    ):
        assert said([one], "rename", name, b"/x", real={"old_path": real}) == action
    assert said([one], "rename", b"/a", b"/x") == ALLOW


def test_it_never_makes_a_verdict_milder() -> None:
    ask, deny = rule(ASK, path=(b"/a/b/c",)), rule(DENY, path=(b"/a/b",))
    kill = rule(KILL, path=(b"/a",))
    assert said([ask, deny], "rename", b"/a/b", b"/x") == DENY
    assert said([ask, deny, kill], "rename", b"/a", b"/x") == KILL
    assert said(PolicyModel((ask,), {"rename": Action(DENY)}), "rename", b"/a", b"/x") == (
        "default rename"
    )
    # What is allowed before stays allowed.
    allow = rule(ALLOW, path=(b"/a",))
    assert said([allow, deny], "rename", b"/a", b"/x") == ALLOW


def test_where_a_redirect_leads() -> None:
    away = Rule(Match(on=("rename",), path=(b"/x",)), Action(REDIRECT, path=b"/a"), "away")
    assert said([away, rule(DENY, path=(b"/a/b",))], "rename", b"/x", b"/new") == DENY
    assert said([away, rule(DENY, path=(b"/b/b",))], "rename", b"/x", b"/new") == "away"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 64))
def test_renames_equal_the_oracle(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(5):
        model = drawn_model(chosen)
        calls = [drawn_call(chosen, chosen.choice(GROUPS["rename"])) for _ in range(8)]
        calls = [
            one._replace(names={**one.names, "old_path": (chosen.choice(NAMES[:5]),)})
            for one in calls
        ]
        compare(model, calls)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(patterns, min_size=1, max_size=4),
    st.lists(names, min_size=1, max_size=3),
    st.dictionaries(names, names, max_size=2),
)
def test_denials_of_the_command_line(
    globs: list[bytes], asked: list[bytes], maps: dict[bytes, bytes]
) -> None:
    rules = PathRules(list(maps.items()), globs)
    moved = rules.judge(tuple(asked), moves=True)
    still = rules.judge(tuple(asked))
    above = [
        glob
        for glob in globs
        for name in asked
        if GlobSet([glob]).match(name) >= 0 or Above([(0, glob)]).of(name)
    ]
    if above:
        assert moved.action == DENY
    elif moved.action == DENY:
        # By where a map leads.
        assert moved.rule is not None
        assert maps
    else:
        assert moved == still
    if still.action == DENY:
        assert moved.action == DENY


def test_homes_that_are_the_work_directory() -> None:
    for name in ("agent", "pip", "secrets"):
        found = load([f"builtin:{name}"], environ={"HOME": "/home/u", "USER": "u"}, cwd=b"/home/u")
        for directory in (b"/home/u/.config", b"/home/u/.local", b"/home/u/.local/share"):
            verdict = RuleJudge(found).judge(trapped("rename", directory, b"/home/u/x"))
            assert isinstance(verdict, Verdict)
            assert (verdict.action, verdict.rule) == (DENY, "secrets")
        assert said(found, "rename", b"/home/u/.config/x", b"/home/u/x") in (ALLOW, "workspace")


# Calls without the address that they are about.


@pytest.mark.parametrize(
    ("one", "whole"),
    [
        (rule(DENY, on=GROUPS["send"]), True),
        (rule(ASK, on=("sendto",)), True),
        (rule(DENY, program=(b"/bin/x",)), True),
        (rule(ALLOW, on=GROUPS["send"]), False),
        (rule(DENY, on=GROUPS["send"], ports=((1, 2),)), False),
        (rule(DENY, on=GROUPS["send"], unix=(b"/x",)), False),
        (rule(DENY, on=("sendto",), family=frozenset({"inet"})), False),
        (rule(DENY, path=(b"/x",)), False),
        (Rule(Match(on=("sendto",)), Action(REDIRECT, address=HERE), "to"), False),
        (rule(DENY, on=("open",)), False),
    ],
)
def test_calls_that_are_wanted_whole(one: Rule, whole: bool) -> None:
    judge = RuleJudge(PolicyModel((one,), {"send": Action(DENY)}))
    assert ("sendto" in judge.whole) is whole
    assert judge.whole <= judge.calls.keys()
    found = judge.judge(trapped("sendto"))
    if one.action.verb != ASK and not one.match.program:
        assert isinstance(found, Verdict)
        assert (found.action != ALLOW) is whole


def test_what_is_not_wanted_whole_is_allowed_without_an_address() -> None:
    chosen = random.Random(7)
    seen = 0
    for _ in range(3000):
        model = drawn_model(chosen)
        judge = RuleJudge(model, Asked)
        if "sendto" in judge.calls and "sendto" not in judge.whole:
            found = judge.judge(drawn_call(chosen, "sendto")._replace(arguments=(), names={}))
            assert isinstance(found, Verdict)
            assert found.action == ALLOW
            seen += 1
    assert seen > 300


def test_handlers_want_calls_whole() -> None:
    policy = Policy(PolicyModel((rule(DENY, on=("sendmsg",)),)))

    @policy.on("sendto", "open")
    def asked(call: Call) -> None:
        pass

    judge = policy.judge(report=print)
    assert judge.whole >= {"sendto", "sendmsg"}
    named = Policy()
    named.on("send", path="/x")(asked)
    assert named.judge(report=print).whole == frozenset()


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (rule(DENY, networks=()), True),
        (rule(DENY, on=("connect",), ports=((1, 1),)), True),
        (rule(DENY, on=("open",), path=(b"/x",)), False),
        (rule(DENY, on=("socket",), family=frozenset({"inet"})), False),
    ],
)
def test_addresses(one: Rule, expected: bool) -> None:
    assert RuleJudge(PolicyModel((one,))).addresses is expected
    assert RuleJudge(PolicyModel((), {"connect": Action(DENY)})).addresses
    assert not RuleJudge(PolicyModel()).addresses


def test_addresses_of_handlers() -> None:
    for word, expected in (("connect", True), ("send", True), ("open", False), ("socket", False)):
        policy = Policy()
        policy.on(word)(lambda call: None)
        assert policy.judge(report=print).addresses is expected


# What runs in the end.


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule(DENY, on=("execve",), path=(b"/usr/bin",))], DENY),
        ([rule(KILL, exact=(b"/usr/bin/env",))], KILL),
        ([rule(DENY, real=(b"/usr/*/env",))], DENY),
        ([rule(DENY, on=("execveat",), path=(b"/usr/bin/env",))], DENY),
        ([rule(DENY, path=(b"/usr/bin",), access=frozenset({"exec"}))], DENY),
        ([rule(DENY, path=(b"/usr/bin",), access=frozenset({"write"}))], None),
        ([rule(DENY, path=(b"/usr/bin",), program=(b"/x",))], None),
        ([rule(DENY, path=(b"/usr/bin",), program=(b"/bin/sh",))], DENY),
        ([rule(DENY, path=(b"/usr/bin",), loader=True)], DENY),
        ([rule(ALLOW, path=(b"/usr",), program=(b"/x",)), rule(DENY, path=(b"/usr",))], DENY),
        ([rule(ALLOW, path=(b"/usr/bin/env",)), rule(DENY, path=(b"/usr",))], None),
        ([rule(ALLOW, on=("execve",), path=(b"/usr",)), rule(DENY, path=(b"/usr",))], DENY),
        # Nobody can be asked when it runs already.
        ([rule(ASK, path=(b"/usr",)), rule(DENY, path=(b"/usr",))], ASK),
        ([rule(ASK, path=(b"/usr",))], ASK),
        ([rule(DENY, path=(b"/usr/bin",)), rule(KILL, path=(b"/usr",))], DENY),
        ([rule(DENY, on=("open",), path=(b"/usr/bin",))], None),
        ([rule(DENY, path=(b"/usr/bin",), argv=((b"env",),))], None),
        ([rule(DENY, path=(b"/usr/bin",), env=((b"A", True),))], None),
        ([rule(DENY, on=("execve",))], None),
        ([], None),
    ],
)
def test_what_runs_in_the_end(rules: list[Rule], expected: str | None) -> None:
    judge = RuleJudge(PolicyModel(tuple(rules), {"exec": Action(DENY)}))
    found = judge.executed(b"/usr/bin/env", b"/bin/sh")
    assert (None if found is None else found.action) == expected
    if found is not None:
        assert found.rule == expected
    assert judge.executed(b"/other", b"/bin/sh") is None


def test_handlers_leave_what_runs_in_the_end_to_the_rules() -> None:
    policy = Policy(PolicyModel((rule(DENY, path=(b"/usr/bin/env",)),)))
    policy.on("exec")(lambda call: None)
    found = policy.judge(report=print).executed(b"/usr/bin/env", b"/bin/sh")
    assert found is not None
    assert (found.action, found.errno) == (DENY, 13)


# Names that are given twice.


def test_names_that_two_variables_stand_for_count_once() -> None:
    found = Policy.parse(
        'version = 1\n[[rule]]\npath = ["${CWD}/x", "/b", "${CWD}/x"]\naction = "deny"'
    )
    (one,) = found.model.rules
    assert len(one.match.path) == 2
    assert one.match.path[1] == b"/b"
