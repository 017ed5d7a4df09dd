from __future__ import annotations

import os
import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Short, Unix
from pinfold.errors import PolicyError
from pinfold.policy.calls import ALLOWED, ASK, KILL, RETURN, SERVE, Trapped, Verdict
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.model import REST, Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

from .oracle import Answer, answer
from .random_models import drawn_action, drawn_call, drawn_match, drawn_model
from .trapped import TO, trapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.policy.calls import Later

OPEN = GROUPS["open"]
EXEC = GROUPS["exec"]
WHOLE = {one.name for one in REFUSED if one.argument < 0}


class Asked:
    """A question that was put; the answer comes when `start` is called."""

    def __init__(self, call: Trapped, rule: str, says: Verdict = ALLOWED) -> None:
        self.call = call
        self.rule = rule
        self.says = says
        self.cancelled = False

    def start(self, done: Callable[[Verdict], None]) -> None:
        done(self.says)

    def cancel(self) -> None:
        self.cancelled = True


def rule(action: str | Action, name: str = "rule", **match: Any) -> Rule:
    action = Action(action) if isinstance(action, str) else action
    return Rule(Match(**match), action, name)


def to(**action: Any) -> Action:
    return Action(REDIRECT, **action)


def model(*rules: Rule, **defaults: str) -> PolicyModel:
    words = {("*" if word == "any" else word): Action(verb) for word, verb in defaults.items()}
    return PolicyModel(rules, words)


def judged(policy: PolicyModel, call: Trapped) -> Verdict:
    verdict = RuleJudge(policy).judge(call)
    assert isinstance(verdict, Verdict)
    return verdict


def words(policy: PolicyModel, call: Trapped) -> str:
    verdict = judged(policy, call)
    return verdict.action if verdict.rule is None else f"{verdict.action} {verdict.rule}"


def in_short(verdict: Verdict | Later, rules: set[str]) -> Answer:
    """What a verdict says, in the oracle's form."""
    if not isinstance(verdict, Verdict):
        asked: Any = getattr(verdict, "_later", verdict)
        said: list[Verdict] = []
        verdict.start(said.append)
        return Answer(ASK, asked.rule, in_short(said[0], rules))
    if verdict.action == REDIRECT:
        return Answer(REDIRECT, verdict.rule, dict(verdict.replace))
    if verdict.action == DENY:
        known = verdict.rule in rules or str(verdict.rule).startswith("default ")
        if not known and not str(verdict.rule).endswith("(not a whole address)"):
            return Answer(DENY, str(verdict.rule).partition(":")[0], "error")
        return Answer(DENY, verdict.rule, verdict.errno)
    detail = verdict.value if verdict.action in (RETURN, SERVE) else None
    return Answer(verdict.action, verdict.rule, detail)


def normal(one: Answer) -> Answer:
    """An answer of the oracle; an ask of what is allowed anyway says no more than that."""
    if one.verb == ASK and one.detail.verb == ALLOW:
        return Answer(ASK, one.rule, Answer())
    return one


def compare(policy: PolicyModel, calls: list[Trapped]) -> None:
    judge = RuleJudge(policy, Asked)
    rules = {one.name for one in policy.rules}
    for call in [*calls, *calls]:  # the second time over what is kept
        found, expected = in_short(judge.judge(call), rules), normal(answer(policy, call))
        assert found == expected, f"{policy}\n{call}"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_equals_the_oracle(chosen: random.Random) -> None:
    compare(drawn_model(chosen), [drawn_call(chosen) for _ in range(3)])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 64))
def test_equals_the_oracle_by_the_thousand(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(10):
        policy = drawn_model(chosen)
        calls = [drawn_call(chosen) for _ in range(6)]
        compare(policy, calls)
        shuffled = list(policy.rules)
        chosen.shuffle(shuffled)
        compare(replace(policy, rules=tuple(shuffled)), calls)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_rule_about_something_else_changes_nothing(seed: int) -> None:
    chosen = random.Random(seed)
    policy = drawn_model(chosen)
    calls = [drawn_call(chosen) for _ in range(8)]
    match, action = drawn_match(chosen), drawn_action(chosen)
    nobody = {"program": (b"/no/such/program",)}
    nowhere = {"path": (b"/no/such/name",), "exact": ()}
    for apart in (nobody, nowhere):
        if apart is nobody and action.verb in (DENY, ASK, KILL):
            continue  # it is about programs that nobody knows, too
        other = Rule(replace(match, **apart), action, "new")
        rules = list(policy.rules)
        rules.insert(chosen.randint(0, len(rules)), other)
        known = {one.name for one in rules}
        before = RuleJudge(policy, Asked)
        after = RuleJudge(replace(policy, rules=tuple(rules)), Asked)
        for call in calls:
            assert in_short(after.judge(call), known) == in_short(before.judge(call), known)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_denied_name_is_denied_whatever_comes_after(seed: int) -> None:
    chosen = random.Random(seed)
    group, name = chosen.choice(list(GROUPS)), chosen.choice([b"/secret", b"/a/b"])
    policy = drawn_model(chosen)
    first = rule(Action(DENY, 77), "first", on=GROUPS[group], path=(name,))
    judge = RuleJudge(replace(policy, rules=(first, *policy.rules)), Asked)
    for call in GROUPS[group] * 4:
        drawn = drawn_call(chosen, call)._replace(settled=frozenset())
        drawn = drawn._replace(names=dict.fromkeys(drawn.names, (b"/x", name)))
        if drawn.names:
            verdict = judge.judge(drawn)
            assert isinstance(verdict, Verdict)
            assert verdict.action in (DENY, KILL)


@pytest.mark.parametrize("call", sorted(TABLE))
def test_every_call_with_a_name_is_denied_by_it(call: str) -> None:
    for policy in (
        model(rule(DENY, path=(b"/secret",))),
        model(rule(DENY, exact=(b"/secret/x",))),
        model(rule(DENY, on=(call,), path=(b"/secret/*",))),
    ):
        for name in (b"/secret/x", (b"/y", b"/secret/x")):
            drawn = trapped(call, name, b"/z", address=Unix(b"x"))
            verdict = judged(policy, drawn)
            named = any(b"/secret/x" in names for names in drawn.names.values())
            assert verdict.action == (DENY if named else ALLOW)
            assert named is (b"/secret/x" in str(drawn.names).encode())
            if named and call not in WHOLE:
                assert call in RuleJudge(policy).calls


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (os.O_RDONLY, "allow rule"),
        (os.O_RDWR, "deny default open"),
        (os.O_RDONLY | os.O_TRUNC, "deny default open"),
        (os.O_CREAT, "deny default open"),
    ],
)
def test_an_allow_for_reading_is_none_for_writing(flags: int, expected: str) -> None:
    policy = model(rule(ALLOW, access=frozenset({"read"}), path=(b"/data",)), open=DENY)
    assert words(policy, trapped("open", b"/data/x", flags=flags)) == expected
    assert words(policy, trapped("openat2", b"/data/x", flags=flags)) == expected


def test_of_several_names_the_strictest_holds() -> None:
    policy = model(
        rule(ALLOW, "a", path=(b"/a",)),
        rule(DENY, "b", path=(b"/b",)),
        rule(KILL, "c", path=(b"/c",)),
        rule(Action(RETURN, value=3), "d", path=(b"/d",)),
        rule(to(path=b"/new"), "e", path=(b"/e",)),
    )
    pairs: list[tuple[tuple[bytes, bytes], str]] = [
        ((b"/a", b"/x"), "allow a"),
        ((b"/x", b"/b"), "deny b"),
        ((b"/b", b"/c"), "kill c"),
        ((b"/e", b"/d"), "return d"),
        ((b"/x", b"/e"), "redirect e"),
    ]
    for names, expected in pairs:
        assert words(policy, trapped("open", names)) == expected
        assert words(policy, trapped("rename", *names)) == expected


def test_both_names_of_a_rename_are_redirected() -> None:
    policy = model(rule(to(path=b"/box"), path=(b"/etc",)))
    verdict = judged(policy, trapped("rename", b"/etc/a", b"/etc/b"))
    assert verdict.replace == {"old_path": b"/box/a", "new_path": b"/box/b"}
    verdict = judged(policy, trapped("rename", b"/tmp/a", b"/etc/b"))
    assert verdict.replace == {"new_path": b"/box/b"}


@pytest.mark.parametrize(
    ("match", "name", "spelt", "expected"),
    [
        ({"path": (b"/etc",)}, b"/etc", b"/etc", b"/box"),
        ({"path": (b"/etc",)}, b"/etc/a/b", b"a/b", b"/box/a/b"),
        ({"path": (b"/etc",)}, b"/etc/a", b"a/", b"/box/a/"),
        ({"path": (b"/etc",)}, b"/etc/a", b"a/.", b"/box/a/"),
        ({"path": (b"/",)}, b"/etc/a", b"/etc/a", b"/box/etc/a"),
        ({"path": (b"/etc/*",)}, b"/etc/a", b"/etc/a", b"/box"),
        ({"path": (b"/etc/**", b"/etc")}, b"/etc/a", b"/etc/a", b"/box"),
        ({"path": (b"/etc", b"/etc/**")}, b"/etc/a", b"/etc/a", b"/box/a"),
        ({"path": (rb"/e\*",)}, b"/e*/a", b"/e*/a", b"/box/a"),
        ({"exact": (b"/etc/a",)}, b"/etc/a", b"/etc/a", b"/box"),
        ({"exact": (b"/etc/a",), "path": (b"/etc",)}, b"/etc/a", b"/etc/a", b"/box"),
        ({}, b"/etc/a", b"/etc/a", b"/box"),
    ],
)
def test_where_a_path_is_redirected(
    match: dict[str, Any], name: bytes, spelt: bytes, expected: bytes
) -> None:
    policy = model(rule(to(path=b"/box"), on=OPEN, **match))
    verdict = judged(policy, trapped("openat", name, spelt=[spelt]))
    assert verdict == Verdict(REDIRECT, "rule", replace={"path": expected})


def test_a_redirect_by_the_real_name() -> None:
    policy = model(rule(to(path=b"/box"), real=(b"/srv",)))
    call = trapped("open", (b"/link", b"/srv/x"), real={"path": b"/srv/x"})
    assert judged(policy, call).replace == {"path": b"/box/x"}
    assert judged(policy, trapped("open", b"/srv/x")) is ALLOWED
    assert RuleJudge(policy).real
    assert not RuleJudge(model()).real
    assert RuleJudge(PolicyModel(real=True)).real


def test_what_a_redirect_leads_to_is_judged_again() -> None:
    move = rule(to(path=b"/box"), "move", path=(b"/etc",))
    for verb in (DENY, KILL):
        later = rule(verb, "later", path=(b"/box/secret",))
        assert words(model(move, later), trapped("open", b"/etc/secret")) == f"{verb} later"
        assert words(model(move, later), trapped("open", b"/etc/x")) == "redirect move"
    # Not by what merely comes first, nor by the defaults, another redirect or a question.
    others = (rule(ALLOW, path=(b"/box",)), rule(to(path=b"/c"), path=(b"/box",)))
    assert words(model(move, *others, open=DENY), trapped("open", b"/etc/x")) == "redirect move"
    asks = rule(ASK, path=(b"/box",))
    assert words(model(move, asks), trapped("open", b"/etc/x")) == "redirect move"
    early = (rule(ALLOW, path=(b"/box",)), move, rule(DENY, "late", path=(b"/box",)))
    assert words(model(*early), trapped("open", b"/etc/x")) == "deny late"
    # The other name of the call stays allowed, whatever a later rule says of it.
    apart = (rule(ALLOW, "ok", exact=(b"/a",)), move, rule(DENY, "a", exact=(b"/a",)))
    assert words(model(*apart), trapped("rename", b"/a", b"/etc/x")) == "redirect move"


def test_a_new_argv_and_environment() -> None:
    policy = model(
        rule(
            to(
                argv=(b"git", b"--no-pager", REST),
                set_env=((b"A", b"2"), (b"N", b"")),
                unset_env=(b"B",),
            ),
            argv=((b"git", b"log", REST),),
        ),
        rule(DENY, "no", argv=((REST, b"-x", REST),)),
    )
    call = trapped(
        "execve", b"/bin/git", argv=[b"git", b"log", b"-1"], env=[b"B=1", b"A=1", b"A=3", b"C=1"]
    )
    assert judged(policy, call).replace == {
        "argv": [b"git", b"--no-pager", b"-1"],
        "envp": [b"C=1", b"A=2", b"N="],
    }
    assert words(policy, trapped("execve", b"/bin/git", argv=[b"git", b"log", b"-x"])) == "deny no"
    verdict = judged(policy, trapped("execve", b"/bin/git", argv=[b"git", b"log"], env=None))
    assert verdict.action == DENY
    assert verdict.rule is not None
    assert "without an environment" in verdict.rule
    assert RuleJudge(policy).calls == {"execve": {Kind.STRINGS}, "execveat": {Kind.STRINGS}}


def test_argv_by_the_name_that_is_executed() -> None:
    policy = model(rule(DENY, argv=((b"git", b"push", REST),)))
    cases: list[tuple[bytes | tuple[bytes, ...], list[bytes], bool]] = [
        (b"/usr/bin/git", [b"git", b"push"], True),
        (b"/usr/bin/git", [b"innocent", b"push"], True),
        (b"/tmp/innocent", [b"git", b"push"], True),
        ((b"/tmp/innocent", b"/usr/bin/git"), [b"innocent", b"push"], True),
        (b"/usr/bin/git", [], False),
        (b"/usr/bin/git", [b"git", b"pull"], False),
    ]
    for name, argv, denied in cases:
        verdict = judged(policy, trapped("execve", name, argv=argv))
        assert verdict.action == (DENY if denied else ALLOW)


def test_addresses_are_redirected() -> None:
    proxy = Inet(IPv4Address("127.0.0.1"), 8080)
    policy = model(rule(to(address=proxy), on=("connect", "sendto", "sendmsg", "sendmmsg")))
    far = Inet(IPv4Address("9.9.9.9"), 80)
    assert judged(policy, trapped("connect", address=far)).replace == {"address": proxy}
    assert judged(policy, trapped("sendto", address=far)).replace == {"address": proxy}
    assert judged(policy, trapped("sendmsg", address=far)).replace == {"message": proxy}
    assert judged(policy, trapped("sendmmsg", address=far)).replace == {"messages": proxy}
    mapped = Inet6(IPv6Address("::ffff:127.0.0.1"), 8080)
    six = Inet6(IPv6Address("2001:db8::1"), 80)
    assert judged(policy, trapped("connect", address=six)).replace == {"address": mapped}
    for call in ("sendto", "sendmsg", "sendmmsg"):  # to the peer, which was redirected before
        assert judged(policy, trapped(call)) is ALLOWED
    denied = model(*policy.rules, rule(DENY, "no", networks=(ip_network("127.0.0.0/8"),)))
    assert words(denied, trapped("connect", address=six)) == "deny no"
    # What was no path may become one, and is written to then.
    local = rule(to(address=Unix(b"/run/s")), "local", family=frozenset({"inet"}))
    writes = rule(DENY, "writes", path=(b"/run",), access=frozenset({"write"}))
    assert words(model(local, writes), trapped("connect", address=far)) == "deny writes"
    assert words(model(local, writes), trapped("bind", address=far)) == "redirect local"


def test_unix_sockets_have_paths() -> None:
    policy = model(
        rule(ALLOW, "s", unix=(b"/run/*",)),
        rule(to(path=b"/box"), "box", path=(b"/srv",)),
        connect=DENY,
    )
    assert words(policy, trapped("connect", b"/run/s", address=Unix(b"s"))) == "allow s"
    assert words(policy, trapped("connect", b"/x/s", address=Unix(b"s"))) == "deny default connect"
    assert words(policy, trapped("open", b"/run/s")) == "allow"
    moved = judged(policy, trapped("connect", b"/srv/s", address=Unix(b"/srv/s")))
    assert moved.replace == {"address": Unix(b"/box/s")}
    for long in (b"/srv/" + b"s" * 200, b"/srv/" + b"s" * 4000):
        verdict = judged(policy, trapped("connect", long, address=Unix(b"s")))
        assert verdict.action == DENY
        assert str(verdict.rule).startswith("box: ")
    assert words(policy, trapped("connect", address=Abstract(b"s"))) == "deny default connect"


def test_a_send_without_an_address() -> None:
    policy = model(rule(ALLOW, networks=(ip_network("10.0.0.0/8"),)), send=DENY, any=DENY)
    peers = [trapped(call) for call in ("sendto", "sendmsg", "sendmmsg")]
    peers.append(trapped("sendto", address=Short(b"")))
    for call in peers:
        assert judged(policy, call) is ALLOWED
        assert words(model(rule(DENY, on=GROUPS["send"])), call) == "deny rule"
        assert words(model(rule(DENY, program=(b"/bin/**",))), call) == "deny rule"
        assert judged(model(rule(DENY, on=GROUPS["send"], ports=((1, 9),))), call) is ALLOWED
    far = Inet(IPv4Address("9.9.9.9"), 80)
    for name in ("sendto", "sendmsg", "sendmmsg", "connect"):
        assert judged(policy, trapped(name, address=far)).action == DENY


def test_an_address_that_is_cut_off() -> None:
    near = rule(KILL, "near", networks=(ip_network("10.0.0.0/8"),))
    call = trapped("connect", address=Short(b"\2\0\0"))
    verdict = judged(model(near), call)
    assert verdict == Verdict(DENY, "near (not a whole address)", 22)
    assert words(model(rule(ALLOW, family=frozenset({"inet"})), connect=DENY), call) == (
        "deny default connect"
    )
    assert judged(model(rule(ALLOW, on=("connect",)), near), call).action == ALLOW
    assert judged(model(rule(DENY, path=(b"/x",))), call) is ALLOWED
    unread = trapped("connect", address=None)
    assert judged(model(near), unread).errno == 22


def test_families_of_sockets() -> None:
    policy = model(rule(DENY, family=frozenset({"packet", "inet6"})))
    assert {"socket", "socketpair", "connect", "bind", "sendmsg"} <= RuleJudge(policy).calls.keys()
    for domain, kind, action in [
        (10, 1, DENY),
        (10 | 1 << 32, 1, DENY),
        (2, 1, ALLOW),
        (2, 10 | 0o2000000, DENY),
        (17, 3, DENY),
    ]:
        call = trapped("socket", registers={"domain": domain, "type": kind})
        assert judged(policy, call).action == action
    ports = model(rule(DENY, on=("socket",), ports=((1, 9),)), rule(DENY, on=("socket",), path=()))
    assert "socket" in RuleJudge(ports).calls
    assert judged(ports, trapped("socket")).action == DENY


def test_calls_by_name_that_name_nothing() -> None:
    policy = model(rule(DENY, on=("kill", "prctl")), rule(Action(RETURN, value=4), on=("getuid",)))
    assert RuleJudge(policy).calls == {"kill": set(), "prctl": set(), "getuid": set()}
    assert words(policy, trapped("kill")) == "deny rule"
    assert words(policy, trapped("prctl")) == "deny rule"
    assert judged(policy, trapped("getuid")) == Verdict(RETURN, "rule", value=4)
    assert judged(policy, trapped("getgid")) is ALLOWED
    # Defaults are about the table.
    assert judged(model(any=DENY), trapped("kill")) is ALLOWED
    assert words(model(any=DENY), trapped("prctl")) == "deny default *"
    assert words(model(any=DENY, self=ALLOW), trapped("prctl")) == "allow"
    assert (
        judged(model(rule(DENY, on=("kill",), loader=True), any=DENY), trapped("kill")) is ALLOWED
    )


@pytest.mark.parametrize(
    ("policy", "calls"),
    [
        (model(), {}),
        (model(rule(DENY, on=("open",))), {"open": set()}),
        (
            model(rule(DENY, on=OPEN)),
            {**{name: set() for name in OPEN}, "openat2": {Kind.OPEN_HOW}},
        ),
        (model(exec=DENY), {"execve": set(), "execveat": set()}),
        (
            model(rule(ALLOW, on=EXEC, env=((b"A", True),))),
            {name: {Kind.STRINGS} for name in ("execve", "execveat")},
        ),
        (
            model(rule(to(set_env=((b"A", b"1"),)), on=("execve",))),
            {"execve": {Kind.STRINGS}},
        ),
        (
            model(rule(DENY, ports=((1, 9),))),
            {
                "connect": {Kind.SOCKADDR},
                "bind": {Kind.SOCKADDR},
                "sendto": {Kind.SOCKADDR_OR_NULL},
                "sendmsg": {Kind.MSGHDR},
                "sendmmsg": {Kind.MMSGHDR},
            },
        ),
        (
            model(rule(DENY, abstract=(b"x",), on=("connect", "open", "execve"))),
            {"connect": {Kind.SOCKADDR}},
        ),
        (model(rule(DENY, argv=((b"x",),), on=("connect", "open"))), {}),
        (model(rule(DENY, access=frozenset({"exec"}))), {"execve": set(), "execveat": set()}),
        (
            model(rule(DENY, access=frozenset({"create"}), on=("open", "stat", "bind", "connect"))),
            {"open": set(), "bind": {Kind.SOCKADDR}},
        ),
    ],
)
def test_what_is_asked_for(policy: PolicyModel, calls: dict[str, set[Kind]]) -> None:
    assert RuleJudge(policy).calls == calls


def test_a_rule_on_a_path_is_about_every_call_with_one() -> None:
    wanted = RuleJudge(model(rule(DENY, path=(b"/x",)))).calls
    for name, row in TABLE.items():
        kinds = {kind for _, kind in row.arguments}
        if name not in WHOLE and (kinds & PATHS or kinds & TO):
            assert wanted[name] >= kinds & TO
    for name in ("fchmod", "fchdir", "fsetxattr", "ftruncate"):
        assert name in wanted
    for name in ("prctl", "socket", "getsockname", "kill", *WHOLE):
        assert name not in wanted


def test_what_map_has_settled_is_left_alone() -> None:
    settled = frozenset({"path"})
    policy = model(rule(DENY, "p", path=(b"/a",)), rule(DENY, "on", on=OPEN), any=DENY)
    assert judged(policy, trapped("open", b"/a", settled=settled)) is ALLOWED
    assert words(policy, trapped("open", b"/a")) == "deny p"
    both = model(rule(DENY, "p", path=(b"/a",)))
    old = frozenset({"old_path"})
    assert words(both, trapped("rename", b"/a", b"/a", settled=old)) == "deny p"
    assert judged(both, trapped("rename", b"/a", b"/b", settled=old)) is ALLOWED
    argv = model(rule(DENY, "argv", argv=((b"git", b"push"),)), exec=DENY)
    pushes = trapped("execve", b"/a", argv=[b"git", b"push"], settled=settled)
    assert words(argv, pushes) == "deny argv"
    assert judged(argv, trapped("execve", b"/a", argv=[b"git"], settled=settled)) is ALLOWED
    # A new argv is judged by the rules on argv alone, too.
    pull = rule(to(argv=(b"git", b"pull")), "pull", argv=((b"git", b"push"),))
    assert words(model(pull, rule(DENY, on=EXEC)), pushes) == "redirect pull"
    assert words(model(pull, rule(DENY, "no", argv=((b"git", b"pull"),))), pushes) == "deny no"


def test_programs() -> None:
    policy = model(rule(ALLOW, "git", program=(b"/usr/bin/git",), on=OPEN), open=DENY)
    assert words(policy, trapped("open", b"/a", program=b"/usr/bin/git")) == "allow git"
    assert judged(policy, trapped("open", b"/a", program=b"/usr/bin/git2")).action == DENY
    assert judged(policy, trapped("open", b"/a", program=b"")).action == DENY
    against = model(rule(DENY, program=(b"/usr/bin/git",)))
    assert judged(against, trapped("open", b"/a", program=b"")).action == DENY
    assert judged(against, trapped("open", b"/a", program=b"/bin/sh")).action == ALLOW


def test_nobody_to_ask() -> None:
    verdict = judged(model(rule(ASK, on=OPEN)), trapped("open", b"/a"))
    assert verdict == Verdict(DENY, "rule (nobody to ask)", 13)
    verdict = judged(model(open=ASK), trapped("open", b"/a"))
    assert verdict == Verdict(DENY, "default open (nobody to ask)", 13)


def test_a_person_is_asked_each_time() -> None:
    asked: list[Asked] = []

    def ask(call: Trapped, name: str) -> Asked:
        asked.append(Asked(call, name))
        return asked[-1]

    judge = RuleJudge(model(rule(ASK, path=(b"/a",)), rule(DENY, path=(b"/b",))), ask)
    call = trapped("open", b"/a")
    assert judge.judge(call) is asked[0]
    assert judge.judge(call) is asked[1]
    assert (asked[0].call, asked[0].rule) == (call, "rule")
    assert judge.judge(trapped("rename", b"/a", b"/b")) == Verdict(DENY, "rule", 13)
    assert len(asked) == 2
    judge.close()


def test_a_yes_is_a_yes_to_the_redirected_call() -> None:
    rules = (rule(ASK, "ask", path=(b"/a",)), rule(to(path=b"/box"), "move", path=(b"/etc",)))
    call = trapped("rename", b"/a", b"/etc/b")
    for says, expected in [
        (ALLOWED, Verdict(REDIRECT, "move", replace={"new_path": b"/box/b"})),
        (Verdict(DENY, "no", 1), Verdict(DENY, "no", 1)),
    ]:
        question = Asked(call, "ask", says)
        later = RuleJudge(model(*rules), lambda *_, question=question: question).judge(call)
        assert not isinstance(later, Verdict)
        said: list[Verdict] = []
        later.start(said.append)
        assert said == [expected]
        later.cancel()
        assert question.cancelled
    # Nobody is asked about what is denied in the end.

    def unasked(call: Trapped, name: str) -> Asked:
        raise AssertionError(call, name)

    denied = model(*rules, rule(DENY, "no", path=(b"/box",)))
    assert RuleJudge(denied, unasked).judge(call) == Verdict(DENY, "no", 13)


def test_an_asker_that_fails_denies() -> None:
    def ask(call: Trapped, name: str) -> Asked:
        raise RuntimeError(call, name)

    verdict = RuleJudge(model(open=ASK), ask).judge(trapped("open", b"/a"))
    assert verdict == Verdict(DENY, "default open (asking failed: RuntimeError)", 13)


def test_the_other_verdicts() -> None:
    policy = model(rule(Action(SERVE, data=b"x"), "s", on=OPEN), rule(Action(DENY, 2), on=EXEC))
    assert judged(policy, trapped("open", b"/a")) == Verdict(SERVE, "s", value=b"x")
    assert judged(policy, trapped("execve", b"/a")) == Verdict(DENY, "rule", 2)


def test_files_that_are_denied_one_by_one() -> None:
    policy = model(
        rule(DENY, path=(b"/a", b"/a/*", rb"/b\*")),
        rule(ALLOW, path=(b"/c",), exact=(b"/c",)),
        rule(KILL, exact=(b"/d", b"/a")),
        rule(ASK, path=(b"/e",)),
        rule(to(path=b"/x"), path=(b"/f",)),
    )
    assert RuleJudge(policy).literals == (b"/a", b"/b*", b"/d", b"/e")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (rule("inject", on=OPEN), "no action 'inject'"),
        (rule(DENY, on=("mmap",)), "no rule can be about mmap"),
        (rule(DENY, path=(b"relative",)), "begins with"),
        (rule(DENY, exact=(b"relative",)), "not absolute"),
        (rule(DENY, argv=((b"[",),)), "never closed"),
        (rule(to(address=Unix(b"relative"))), "begins with `/`"),
    ],
)
def test_rules_that_cannot_be(bad: Rule, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        RuleJudge(model(bad))


def test_redirects_that_do_not_fit_deny() -> None:
    away = to(path=b"/x", address=Inet(IPv4Address("1.1.1.1"), 1))
    for call in (
        trapped("fchmod", b"/a"),
        trapped("prctl"),
        trapped("utimensat", None),
        trapped("socket"),
    ):
        name = call.row.name
        family = frozenset({"unspec"}) if name == "socket" else frozenset()
        verdict = judged(model(rule(away, on=(name,), family=family)), call)
        # A call that names nothing is nothing to a redirect of names.
        assert verdict.action == (ALLOW if name == "prctl" else DENY)
    only_argv = model(rule(to(argv=(b"x",)), on=("open",)))
    assert (
        words(only_argv, trapped("open", b"/a")) == "deny rule: open has nothing to redirect there"
    )
    # One name of two that is redirected does not make up for the other.
    half = model(
        rule(to(path=b"/x"), "path", path=(b"/a",)), rule(to(argv=(b"x",)), "argv", path=(b"/b",))
    )
    expected = "deny argv: rename has nothing to redirect there"
    assert words(half, trapped("rename", b"/a", b"/b")) == expected
    null = model(rule(to(argv=(b"x",)), on=("execve",)))
    assert judged(null, trapped("execve", b"/a", argv=None)).action == DENY


def test_verdicts_are_kept_and_what_is_kept_is_bounded() -> None:
    judge = RuleJudge(model(rule(DENY, path=(b"/a/*",)), rule(to(path=b"/b"), path=(b"/c",))))
    first = judge.judge(trapped("open", b"/c/x"))
    assert judge.judge(trapped("open", b"/c/x")) is first
    for number in range(5000):
        judge.judge(trapped("open", b"/c/%d" % number))
    assert 0 < len(judge._cache) <= 2048
    slash = judge.judge(trapped("open", b"/c/x", spelt=[b"x/"]))
    assert slash == Verdict(REDIRECT, "rule", replace={"path": b"/b/x/"})


def test_what_is_kept_is_kept_by_all_that_it_depends_on() -> None:
    real = RuleJudge(model(rule(DENY, real=(b"/srv",))))
    for leads_to, action in [(b"/srv/x", DENY), (b"/x", ALLOW), (None, ALLOW), (b"/srv/x", DENY)]:
        call = trapped("open", b"/link", real={} if leads_to is None else {"path": leads_to})
        assert real.judge(call).action == action  # type: ignore[union-attr]
    loader = RuleJudge(model(rule(DENY, loader=True, on=OPEN)))
    for loads, action in [(True, DENY), (False, ALLOW), (True, DENY)]:
        call = trapped("open", b"/a", loader=lambda loads=loads: loads)  # type: ignore[misc]
        assert loader.judge(call).action == action  # type: ignore[union-attr]
    null = RuleJudge(model(rule(to(path=b"/x"), on=("utimensat",))))
    for path, action in [((), REDIRECT), (None, DENY), ((), REDIRECT)]:
        assert null.judge(trapped("utimensat", path)).action == action  # type: ignore[union-attr]


class Looked(list[Any]):
    """The rules, counting how often one is looked at."""

    looked = 0

    def __getitem__(self, at: Any) -> Any:
        self.looked += 1
        return super().__getitem__(at)


@pytest.mark.parametrize(
    ("kind", "pattern", "name"),
    [
        ("exact", "/data/%d", b"/data/7"),
        ("path", "/data/%d", b"/data/7/x"),
        ("path", "/data/%d/*", b"/data/7/x"),
        ("path", "/data/**/x%d", b"/data/y/x7"),
        ("path", "**/%d/**", b"/a/7/b"),
    ],
)
def test_of_ten_thousand_rules_those_are_looked_at_that_match(
    kind: str, pattern: str, name: bytes
) -> None:
    numbers = range(10_000)
    rules = [rule(DENY, f"rule {at}", **{kind: ((pattern % at).encode(),)}) for at in numbers]
    judge = RuleJudge(model(*rules))
    looked = Looked(judge._rules)
    judge._rules = looked  # type: ignore[misc]
    assert judge.judge(trapped("open", name)) == Verdict(DENY, "rule 7", 13)
    assert looked.looked == 1
    assert judge.judge(trapped("open", b"/other/name")) is ALLOWED
    assert looked.looked == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 64))
def test_nothing_that_a_program_does_raises(seed: int) -> None:
    chosen = random.Random(seed)
    judge = RuleJudge(drawn_model(chosen), Asked)
    for call in TABLE:
        drawn = drawn_call(chosen, call)
        hostile = drawn._replace(
            registers=tuple(chosen.randrange(1 << 64) for _ in range(6)),
            arguments=tuple(one for one in drawn.arguments if chosen.randrange(3)),
            names={
                name: tuple(b"/" + chosen.randbytes(chosen.randrange(5)) for _ in range(2))
                for name in drawn.names
            },
        )
        verdict = judge.judge(hostile)
        if isinstance(verdict, Verdict):
            assert verdict.action in (ALLOW, DENY, KILL, REDIRECT, RETURN, SERVE)
            assert verdict.left == frozenset()
            assert verdict.errno > 0 or verdict.action != DENY


def test_a_name_that_is_not_normal_is_denied() -> None:
    policy = model(rule(DENY, path=(b"/secret",)))
    for name in (b"/x/../secret", b"/secret/", b"//secret", b"secret", b""):
        assert judged(policy, trapped("open", (name,))).action == DENY


def test_openat2_without_a_structure() -> None:
    policy = model(rule(DENY, access=frozenset({"write"})))
    call = trapped("openat2", b"/a", values={"how": OpenHow(0, -1, 0, 0, 0)})
    assert judged(policy, call).action == DENY
    assert judged(policy, call._replace(arguments=())).action == DENY
    assert judged(policy, trapped("openat2", b"/a")).action == ALLOW
