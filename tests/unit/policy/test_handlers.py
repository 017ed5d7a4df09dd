"""Handlers: who is asked when, what their answers come to, and coroutines among them."""

from __future__ import annotations

import asyncio
import copy
import errno
import gc
import os
import pickle
import random
import threading
import time
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinfold
from pinfold.codec.base import UNREADABLE
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Inet, Inet6, Sockaddr, Unix, Unspec
from pinfold.codec.vector import StringVector
from pinfold.errors import PolicyError
from pinfold.policy.calls import Verdict
from pinfold.policy.handlers import tasks
from pinfold.policy.handlers.policy import Policy
from pinfold.policy.model import Action, Match, PolicyModel, Rule
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls.kinds import Kind
from tests.unit.policy.trapped import POINTER, trapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pinfold.policy.calls import Judge, Later, Trapped
    from pinfold.policy.handlers.view import Call

PATIENCE = 30.0
SOON = 0.05
"""A time limit for handlers that never answer."""


class Outcome:
    """The verdict of a judge, now or later; it must come once."""

    def __init__(self, judge: Judge, call: Trapped) -> None:
        self.verdicts: list[Verdict] = []
        self.threads: list[threading.Thread] = []
        self._come = threading.Event()
        self.later: Later | None = None
        found = judge.judge(call)
        if isinstance(found, Verdict):
            self._take(found)
        else:
            self.later = found
            found.start(self._take)

    def _take(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self.threads.append(threading.current_thread())
        self._come.set()

    def get(self) -> Verdict:
        assert self._come.wait(PATIENCE), "no verdict came"
        (verdict,) = self.verdicts
        return verdict


class Judging:
    """A policy's judge, what it reports, and the end of it."""

    def __init__(self, policy: Policy, **options: Any) -> None:
        self.reports: list[str] = []
        self.judge = policy.judge(report=self.reports.append, **options)

    def __call__(self, call: Trapped) -> Verdict:
        return Outcome(self.judge, call).get()

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, *_: object) -> None:
        self.judge.close()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, end - time.monotonic()))
    assert set(threading.enumerate()) <= before


OPEN = trapped("openat", b"/etc/hosts")
SHADOW = trapped("openat", b"/etc/shadow")


def rules(*given: Rule, seconds: float = 60.0, **defaults: Action) -> PolicyModel:
    return PolicyModel(rules=given, defaults=defaults, handler_seconds=seconds)


def rule(verb: str, name: str = "a rule", **match: Any) -> Rule:
    return Rule(Match(**match), Action(verb), name)


# Who is asked.


def test_in_order_before_the_rules() -> None:
    policy = Policy(rules(rule("deny", on=("openat",))))
    asked: list[str] = []

    @policy.on("open")
    def first(call: Call) -> None:
        asked.append(f"first {call.path}")

    @policy.on("open")
    def second(call: Call) -> Verdict | None:
        asked.append(f"second {call.path}")
        return call.allow() if call.path == "/etc/hosts" else None

    @policy.on("open", "unlink")
    def third(call: Call) -> None:
        asked.append(f"third {call.path}")

    with Judging(policy) as judge:
        assert judge(OPEN) == Verdict("allow", "handler second", left=frozenset())
        assert judge(SHADOW) == Verdict("deny", "a rule", errno.EACCES)
        assert judge(trapped("unlink", b"/x")) == Verdict()
        assert judge(trapped("rmdir", b"/x")).rule is None
    assert asked == [
        *("first /etc/hosts", "second /etc/hosts"),
        *("first /etc/shadow", "second /etc/shadow", "third /etc/shadow"),
        *("third /x", "third /x"),
    ]
    assert judge.reports == []


def test_defaults_come_last() -> None:
    policy = Policy(rules(open=Action("deny", errno.EPERM)))
    policy.on("open", path="/etc/hosts")(lambda call: call.allow())
    with Judging(policy) as judge:
        assert judge(OPEN).action == "allow"
        assert (judge(SHADOW).action, judge(SHADOW).errno) == ("deny", errno.EPERM)


@pytest.mark.parametrize(
    ("conditions", "call", "asked"),
    [
        ({}, OPEN, True),
        ({"path": "/etc"}, OPEN, True),
        ({"path": ["/usr/**", b"/etc/host*"]}, OPEN, True),
        ({"path": "/etc/*.conf"}, OPEN, False),
        ({"access": "read"}, OPEN, True),
        ({"access": "write"}, OPEN, False),
        ({"access": ["write", "create"]}, trapped("openat", b"/f", flags=os.O_RDWR), True),
        ({"program": "/bin/*"}, OPEN, True),
        ({"program": "/usr/bin/*"}, OPEN, False),
        ({"path": "/run"}, trapped("connect", b"/run/x", address=Unix(b"x")), True),
        ({"path": "/run"}, trapped("connect", b"/tmp/x", address=Unix(b"x")), False),
        ({"path": "/run"}, trapped("connect", address=Inet(IPv4Address(1), 1)), False),
        # The word must be about the name that matches.
        ({"path": "/new", "access": "create"}, trapped("rename", b"/old", b"/new"), True),
        ({"path": "/old", "access": "create"}, trapped("rename", b"/old", b"/new"), False),
        ({"path": "/old", "access": "write"}, trapped("rename", b"/old", b"/new"), True),
        ({"path": "/f"}, trapped("fchmod", b"/f"), True),
        # What --map has settled is nobody's business any more.
        ({}, trapped("openat", b"/f", settled=frozenset({"path"})), False),
        ({"path": "/f"}, trapped("execve", b"/f", settled=frozenset({"path"})), False),
        ({}, trapped("execve", b"/f", settled=frozenset({"path"})), True),
    ],
)
def test_conditions(conditions: dict[str, Any], call: Trapped, asked: bool) -> None:
    policy = Policy()
    seen: list[Call] = []
    policy.on("open", "connect", "rename", "exec", "chmod", **conditions)(seen.append)
    with Judging(policy) as judge:
        assert judge(call).action == "allow"
    assert bool(seen) == asked


@pytest.mark.parametrize(
    ("words", "conditions", "match"),
    [
        ((), {}, "name groups or calls"),
        (("nothing",), {}, "no system call or group 'nothing'"),
        (("conect",), {}, "did you mean"),
        ((len,), {}, r"as in @policy.on\(\"open\"\)"),
        (("ptrace",), {}, "refused in every sandbox"),
        (("ring",), {}, "refused in every sandbox"),
        (("socket",), {"path": "/x"}, "has a path"),
        (("unlink",), {"access": "exec"}, "does exec"),
        (("open",), {"access": "reed"}, "did you mean read"),
        (("open",), {"path": "relative"}, "a pattern begins with"),
        (("open",), {"program": "[x"}, "a pattern begins with"),
    ],
)
def test_wrong_registrations(words: tuple[Any, ...], conditions: Any, match: str) -> None:
    policy = Policy()
    with pytest.raises(PolicyError, match=match):
        policy.on(*words, **conditions)


@pytest.mark.parametrize("name", sorted(UNJUDGED))
def test_calls_that_cannot_be_judged(name: str) -> None:
    with pytest.raises(PolicyError, match=f"no handler can be asked about {name}"):
        Policy().on(name)


def test_wrong_functions() -> None:
    policy = Policy()
    with pytest.raises(PolicyError, match="is a function, not str"):
        policy.on("open")("text")  # type: ignore[type-var]

    def generator(call: Call) -> Any:
        yield call.allow()

    async def asynchronous(call: Call) -> Any:
        yield call.allow()

    for function in (generator, asynchronous):
        with pytest.raises(PolicyError, match="is a generator"):
            policy.on("open")(function)


def test_a_function_comes_back_unchanged() -> None:
    def function(call: Call) -> Verdict:
        return call.deny()

    assert Policy().on("open")(function) is function


def test_what_the_judge_wants_to_see() -> None:
    policy = Policy(rules(rule("deny", on=("connect",), path=(b"/x",))))
    policy.on("exec", "kill", "trace")(lambda _: None)
    calls = policy.judge(report=print).calls
    assert calls["execve"] >= {Kind.STRINGS}
    assert calls["kill"] == frozenset()
    assert "connect" in calls
    # Refused in every sandbox.
    assert "uselib" not in calls
    assert "ptrace" not in calls
    policy = Policy(PolicyModel(real=True))
    policy.on("open")(lambda _: None)
    assert policy.judge(report=print).real
    assert Policy().judge(report=print).calls == {}


# Answers.


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (pinfold.allow(), Verdict("allow", "handler f")),
        (pinfold.deny(), Verdict("deny", "handler f", errno.EACCES)),
        (pinfold.deny("ENOENT"), Verdict("deny", "handler f", errno.ENOENT)),
        (pinfold.deny(5), Verdict("deny", "handler f", 5)),
        (pinfold.kill(), Verdict("kill", "handler f")),
        (pinfold.returns(-1), Verdict("return", "handler f", value=-1)),
        (pinfold.serve("ä"), Verdict("serve", "handler f", value=b"\xc3\xa4")),
        (pinfold.inject(7), Verdict("inject", "handler f", value=7)),
        (
            pinfold.redirect(path="/other"),
            Verdict("redirect", "handler f", replace={"path": b"/other"}),
        ),
        (Verdict("deny", "of my own\n\x1b", 1), Verdict("deny", "of my own\\n\\x1b", 1)),
        # Who has not looked is not to say what was looked at.
        (pinfold.deny()._replace(left=frozenset({"path"})), Verdict("deny", "handler f", 13)),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_answers(answer: Verdict, verdict: Verdict, later: bool) -> None:
    policy = Policy()

    def f(_: Call) -> Verdict:
        return answer

    async def g(_: Call) -> Verdict:
        return answer

    g.__name__ = "f"
    policy.on("open")(g if later else f)
    with Judging(policy) as judge:
        found = judge(OPEN)
        assert found._replace(left=frozenset()) == verdict
        assert judge.reports == []


WRONG: list[tuple[str, Any, str]] = [
    ("openat", True, "bool is neither a verdict nor None"),
    ("openat", "deny", "str is neither"),
    ("openat", ("deny", None, 13), "tuple is neither"),
    ("openat", pinfold.deny, "function is neither a verdict nor None; call it"),
    ("openat", Verdict("ask"), "no verdict 'ask'"),
    ("openat", Verdict("deny"), "0 is no errno"),
    ("openat", Verdict("deny", None, 4096), "4096 is no errno"),
    ("openat", Verdict("deny", None, "EPERM"), "an errno is a number, not str"),  # type: ignore[arg-type]
    ("openat", Verdict("return"), "a result is a number, not NoneType"),
    ("openat", Verdict("serve", value="text"), "what is served is bytes"),
    ("openat", Verdict("inject", value=True), "a descriptor is a number, not bool"),
    ("openat", Verdict("inject", value=-1), "-1 is no descriptor"),
    ("openat", Verdict("redirect"), "a redirect to nowhere"),
    ("openat", pinfold.redirect(argv=["x"]), "openat has no"),
    ("openat", pinfold.redirect(address="127.0.0.1:80"), "openat has no"),
    ("openat", pinfold.redirect(path="/x", argument="new_path"), "openat has no"),
    ("openat", pinfold.redirect(path="/" + "x" * 5000), "at most"),
    ("connect", pinfold.serve(b""), "connect opens no file"),
    ("execve", pinfold.returns(0), "execve cannot return"),
    ("sendto", pinfold.redirect(address="127.0.0.1:80"), "without a socket address"),
]


@pytest.mark.parametrize(("name", "answer", "match"), WRONG)
@pytest.mark.parametrize("later", [False, True])
def test_wrong_answers_deny(name: str, answer: Any, match: str, later: bool) -> None:
    policy = Policy()
    if later:

        async def f(_: Call) -> Any:
            return answer

        policy.on(name)(f)
    else:

        def g(_: Call) -> Any:
            return answer

        policy.on(name)(g)
    with Judging(policy) as judge:
        address = None if name == "sendto" else Unix(b"/x")
        verdict = judge(trapped(name, b"/x", address=address))
    assert (verdict.action, verdict.errno) == ("deny", errno.EPERM)
    assert verdict.rule is not None
    assert verdict.rule.startswith(f"handler {'f' if later else 'g'} answered wrongly: ")
    assert match in verdict.rule
    (report,) = judge.reports
    assert report.startswith(verdict.rule)


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED: list[tuple[BaseException, str]] = [
    (ValueError("text"), "raised ValueError: text"),
    (ValueError(), "raised ValueError"),
    (KeyError("x"), "raised KeyError: 'x'"),
    (ValueError("a\nb\x1b[2J\udcff\ud800"), r"raised ValueError: a\nb\x1b[2J\udcff\ud800"),
    (SystemExit(3), "raised SystemExit: 3"),
    (KeyboardInterrupt(), "raised KeyboardInterrupt"),
    (StopIteration(1), ""),
    (GeneratorExit(), ""),
    (asyncio.CancelledError(), "raised CancelledError"),
    (TextlessError(), "raised TextlessError: ?"),
    (ValueError("x" * 5000), "raised ValueError: " + "x" * 299 + "…"),
]


@pytest.mark.parametrize(("error", "rule_text"), RAISED)
@pytest.mark.parametrize("later", [False, True])
def test_exceptions_deny_and_the_judge_goes_on(
    error: BaseException, rule_text: str, later: bool
) -> None:
    policy = Policy()

    def f(_: Call) -> None:
        raise error

    async def g(_: Call) -> None:
        raise error

    g.__name__ = "f"
    policy.on("open", path="/etc/shadow")(g if later else f)
    with Judging(policy) as judge:
        for _ in range(3):
            verdict = judge(SHADOW)
            assert (verdict.action, verdict.errno) == ("deny", errno.EPERM)
            assert verdict.rule is not None
            assert verdict.rule.startswith("handler f ")
            if rule_text:
                assert verdict.rule == f"handler f {rule_text}"
            assert judge(OPEN).action == "allow"
    # Each time a line, the way there only once.
    assert [report.count("\n") > 0 for report in judge.reports] == [True, False, False]
    assert "raise error" in judge.reports[0]
    assert all(line.isprintable() for report in judge.reports for line in report.split("\n"))


def test_reports_are_bounded() -> None:
    policy = Policy()

    @policy.on("open")
    def f(call: Call) -> None:
        raise ValueError(call.path)

    with Judging(policy) as judge:
        for number in range(1000):
            assert judge(trapped("openat", b"/%d" % number)).action == "deny"
    assert len(judge.reports) == 101
    assert "only the log" in judge.reports[-1]


def test_what_cannot_be_read_fails_as_it_would_have() -> None:
    policy = Policy()

    @policy.on("connect")
    def f(call: Call) -> Verdict:
        return call.deny() if call.port == 1 else call.allow()

    with Judging(policy) as judge:
        call = trapped("connect", values={"address": Sockaddr(UNREADABLE, b"", None)})
        assert judge(call)[:3] == (
            "deny",
            "handler f: connect: the program's address cannot be read",
            errno.EFAULT,
        )
        # The handler's own fault is another thing.
        policy.on("connect")(lambda call: call.deny(call.argv[0]))
    assert judge.reports == []


def test_asking_for_what_is_not_there_denies() -> None:
    policy = Policy()
    policy.on("connect")(lambda call: call.deny() if call.argv else None)
    with Judging(policy) as judge:
        verdict = judge(trapped("connect", address=Unix(b"/x")))
    assert verdict[:3] == (
        "deny",
        "handler <lambda> raised MissingError: connect has no argv",
        errno.EPERM,
    )
    assert len(judge.reports) == 1


def test_redirects_by_the_call() -> None:
    policy = Policy()

    @policy.on("rename")
    def f(call: Call) -> Verdict:
        return call.redirect(path="/third", argument="new_path")

    @policy.on("exec")
    def g(call: Call) -> Verdict:
        return call.redirect(argv=[*call.argv, "\udcff"], env=call.env | {"A": "b"}, path=b"/bin/x")

    @policy.on("sendmsg")
    def h(call: Call) -> Verdict:
        return call.redirect(address="[::1]:80")

    with Judging(policy) as judge:
        assert judge(trapped("rename", b"/a", b"/b")).replace == {"new_path": b"/third"}
        assert judge(trapped("execve", b"/a", argv=[b"x"], env=[b"B=c", b"B=d"])).replace == {
            "path": b"/bin/x",
            "argv": [b"x", b"\xff"],
            "envp": [b"B=c", b"A=b"],
        }
        sent = judge(trapped("sendmsg", address=Inet(IPv4Address(1), 2)))
        assert sent.replace == {"message": Inet6(IPv6Address("::1"), 80)}
        # A message that goes to the peer has no address to replace.
        assert judge(trapped("sendmsg")).action == "deny"


anything: Any = pinfold


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: pinfold.deny(0), "0 is no errno"),
        (lambda: pinfold.deny(-13), "-13 is no errno"),
        (lambda: pinfold.deny("ENOTHING"), "no error 'ENOTHING'"),
        (lambda: pinfold.deny(True), "not bool"),
        (lambda: anything.deny(1.5), "not float"),
        (pinfold.redirect, "give path, argv, env or address"),
        (lambda: pinfold.redirect(argument="path"), "give path, argv, env or address"),
        (lambda: pinfold.redirect(path="x"), "'x' is not absolute"),
        (lambda: pinfold.redirect(path="/a\0"), "NUL"),
        (lambda: anything.redirect(path=3), "not int"),
        (lambda: pinfold.redirect(argv="ls -l"), "not one text"),
        (lambda: pinfold.redirect(argv=["a\0"]), "NUL"),
        (lambda: pinfold.redirect(env={"A=": ""}), "no name of an environment variable"),
        (lambda: pinfold.redirect(env={"": ""}), "no name of an environment variable"),
        (lambda: pinfold.redirect(env={"A": "\0"}), "NUL"),
        (lambda: pinfold.redirect(address="localhost"), "not a socket address"),
        (lambda: pinfold.redirect(address=Inet(IPv4Address(1), 70000)), "does not fit"),
        (lambda: anything.returns("0"), "not str"),
        (lambda: pinfold.returns(1 << 64), "does not fit a register"),
        (lambda: anything.serve(7), "not int"),
        (lambda: pinfold.inject(-1), "-1 is no descriptor"),
        (lambda: pinfold.inject(True), "not bool"),
    ],
)
def test_wrong_verdicts_are_errors_where_they_are_made(
    make: Callable[[], Verdict], match: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        make()


def test_an_injected_file_stays_open_with_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    def inject() -> Verdict:
        return pinfold.inject((tmp_path / "f").open("rb"))

    kept = [inject()]
    gc.collect()
    number = int(kept[0].value)
    assert os.readlink(f"/proc/self/fd/{number}") == str(tmp_path / "f")
    with pytest.warns(ResourceWarning):
        kept.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


# What was looked at.


@pytest.mark.parametrize("wanted", [[], ["path"], ["argv"], ["env"], ["path", "env"]])
@pytest.mark.parametrize("later", [False, True])
def test_what_was_not_looked_at_is_left(wanted: list[str], later: bool) -> None:
    policy = Policy()

    def f(call: Call) -> Verdict:
        for name in wanted:
            getattr(call, name)
        return call.allow()

    async def g(call: Call) -> Verdict:
        return f(call)

    policy.on("exec")(g if later else f)
    with Judging(policy) as judge:
        verdict = judge(trapped("execve", b"/f"))
    assert verdict.left == {"path", "argv", "envp"} - {
        "envp" if name == "env" else name for name in wanted
    }


def test_what_earlier_handlers_and_conditions_looked_at_counts() -> None:
    policy = Policy()
    policy.on("exec")(lambda call: call.argv and None)
    policy.on("exec", path="/other/**")(lambda call: call.deny())
    policy.on("exec", program="/bin/*")(lambda call: call.allow())
    with Judging(policy) as judge:
        assert judge(trapped("execve", b"/f")).left == {"envp"}


def test_a_path_needs_the_way_that_it_is_walked() -> None:
    policy = Policy()
    policy.on("openat2")(lambda call: call.allow() if call.path else None)
    with Judging(policy) as judge:
        assert judge(trapped("openat2", b"/f")).left == frozenset()


def test_what_the_rules_need_is_not_left() -> None:
    policy = Policy(rules(rule("deny", on=("execve",), argv=((b"rm", b"..."),))))
    policy.on("exec")(lambda call: call.allow())
    with Judging(policy) as judge:
        assert judge(trapped("execve", b"/f")).left == frozenset()


def test_a_verdict_of_the_rules_leaves_nothing() -> None:
    policy = Policy(rules(open=Action("allow")))
    policy.on("exec", "open")(lambda _: None)
    with Judging(policy) as judge:
        assert judge(OPEN).left == frozenset()
        assert judge(trapped("execve", b"/f")).left == frozenset()


# Several meanings.

TWO = trapped("openat", (b"/job/link", b"/etc/shadow"))


@pytest.mark.parametrize("later", [False, True])
def test_a_denial_of_any_name_holds(later: bool) -> None:
    policy = Policy()
    asked: list[str] = []

    def f(call: Call) -> Verdict | None:
        asked.append(call.path)
        return call.deny() if call.path == "/etc/shadow" else call.allow()

    async def g(call: Call) -> Verdict | None:
        await asyncio.sleep(0)
        return f(call)

    policy.on("open")(g if later else f)
    with Judging(policy) as judge:
        assert judge(TWO).action == "deny"
        assert judge(trapped("openat", (b"/a", b"/b"))).action == "allow"
    assert asked == ["/job/link", "/etc/shadow", "/a", "/b"]


def test_a_condition_goes_by_each_name() -> None:
    policy = Policy()
    policy.on("open", path="/etc/**")(lambda call: call.deny("ENOENT"))
    with Judging(policy) as judge:
        assert judge(TWO).errno == errno.ENOENT


def test_an_allow_of_one_name_leaves_the_other_to_the_rules() -> None:
    policy = Policy(rules(rule("deny", on=("openat",), path=(b"/etc",))))
    policy.on("open", path="/job/**")(lambda call: call.allow())
    with Judging(policy) as judge:
        assert judge(TWO)[:2] == ("deny", "a rule")
        assert judge(trapped("openat", b"/job/x")).rule == "handler <lambda>"


def test_who_does_not_look_is_asked_once() -> None:
    policy = Policy()
    asked = []

    @policy.on("open")
    def f(call: Call) -> Verdict:
        asked.append(call.name)
        return call.allow()

    with Judging(policy) as judge:
        assert judge(TWO).left == {"path"}
    assert asked == ["openat"]


def test_all_pairs_of_names() -> None:
    policy = Policy()
    asked: list[tuple[str, ...]] = []

    @policy.on("rename")
    def f(call: Call) -> None:
        asked.append(tuple(path.name for path in call.paths))

    with Judging(policy) as judge:
        judge(trapped("rename", (b"/a", b"/b"), (b"/c", b"/d")))
        assert sorted(asked) == [("/a", "/c"), ("/a", "/d"), ("/b", "/c"), ("/b", "/d")]
        many = tuple(b"/%d" % number for number in range(9))
        assert judge(trapped("rename", many, many)).action == "deny"


@pytest.mark.parametrize(
    ("name", "spelt", "asked"),
    [
        ("connect", Inet(IPv4Address("10.0.0.1"), 1), ["10.0.0.1"]),
        ("connect", Inet6(IPv6Address("::ffff:10.0.0.1"), 1), ["10.0.0.1"]),
        ("sendmsg", Inet6(IPv6Address("::ffff:10.0.0.1"), 1), ["10.0.0.1"]),
        ("connect", Inet(IPv4Address(0), 1), ["0.0.0.0", "127.0.0.1"]),
        ("connect", Inet6(IPv6Address(0), 1), ["::", "::1", "127.0.0.1"]),
        ("bind", Inet(IPv4Address(0), 1), ["0.0.0.0"]),
        ("sendto", Unspec(b"\0\1\x0a\0\0\1" + bytes(8)), [None, "10.0.0.1"]),
        ("connect", Unspec(b"\0\1\x0a\0\0\1" + bytes(8)), [None]),
    ],
)
def test_every_meaning_of_an_address(name: str, spelt: Any, asked: list[str | None]) -> None:
    policy = Policy()
    seen: list[str | None] = []

    @policy.on(name)
    def f(call: Call) -> Verdict | None:
        seen.append(call.host)
        return call.deny() if call.host == asked[-1] else call.allow()

    with Judging(policy) as judge:
        assert judge(trapped(name, address=spelt)).action == "deny"
    assert seen == asked


STRICTNESS = ["allow", "redirect", "deny", "kill"]


@given(st.lists(st.sampled_from([*STRICTNESS, None]), min_size=2, max_size=3))
def test_the_strictest_of_several_holds(words: list[str | None]) -> None:
    policy = Policy(rules(open=Action("deny", errno.EXDEV)))
    names = tuple(b"/%d" % number for number in range(len(words)))
    made = {
        "allow": pinfold.allow(),
        "redirect": pinfold.redirect(path="/x"),
        "deny": pinfold.deny("EPERM"),
        "kill": pinfold.kill(),
        None: None,
    }
    policy.on("open")(lambda call: made[words[int(call.path[1:])]])
    verdict = policy.judge(report=print).judge(trapped("openat", names))
    assert isinstance(verdict, Verdict)
    given_words = [word for word in words if word is not None]
    strictest = max(given_words, key=STRICTNESS.index, default=None)
    if None in words and strictest not in ("deny", "kill"):
        assert (verdict.action, verdict.errno) == ("deny", errno.EXDEV)
    else:
        assert verdict.action == strictest


# Coroutines.


def test_sync_async_and_rules_make_one_chain() -> None:
    policy = Policy(rules(rule("deny", on=("openat",), path=(b"/c",))))
    asked: list[tuple[str, str]] = []

    def note(call: Call, who: str) -> None:
        asked.append((call.path, who))

    @policy.on("open")
    def first(call: Call) -> None:
        note(call, "first")

    @policy.on("open")
    async def second(call: Call) -> Verdict | None:
        await asyncio.sleep(0)
        note(call, "second")
        return call.deny("EBUSY") if call.path == "/a" else None

    @policy.on("open")
    def third(call: Call) -> Verdict | None:
        note(call, "third")
        return call.deny("EAGAIN") if call.path == "/b" else None

    @policy.on("open")
    async def fourth(call: Call) -> None:
        note(call, "fourth")

    with Judging(policy) as judge:
        found = [judge(trapped("openat", name)) for name in (b"/a", b"/b", b"/c", b"/d")]
    assert [(one.rule, one.errno) for one in found] == [
        ("handler second", errno.EBUSY),
        ("handler third", errno.EAGAIN),
        ("a rule", errno.EACCES),
        (None, 0),
    ]
    assert [who for _, who in asked] == [
        *("first", "second"),
        *("first", "second", "third"),
        *("first", "second", "third", "fourth"),
        *("first", "second", "third", "fourth"),
    ]


def test_rules_are_asked_in_the_thread_of_the_supervisor() -> None:
    policy = Policy(rules(rule("ask", on=("openat",))))
    asked: list[threading.Thread] = []

    class Yes:
        def __init__(self) -> None:
            self.cancelled = False

        def start(self, done: Callable[[Verdict], None]) -> None:
            done(Verdict("allow", "a person"))

        def cancel(self) -> None:
            self.cancelled = True

    def ask(_call: Trapped, _rule: str) -> Yes:
        asked.append(threading.current_thread())
        return Yes()

    @policy.on("open")
    async def f(_: Call) -> None:
        await asyncio.sleep(0)

    with Judging(policy, ask=ask) as judge:
        assert judge(OPEN)[:2] == ("allow", "a person")
    assert asked == [threading.current_thread()]


def test_many_at_a_time_in_one_thread() -> None:
    policy = Policy()
    meeting: list[asyncio.Event] = []
    threads: set[threading.Thread] = set()

    @policy.on("open")
    async def f(call: Call) -> Verdict:
        threads.add(threading.current_thread())
        if not meeting:
            meeting.append(asyncio.Event())
        if call.path == "/49":
            meeting[0].set()
        await meeting[0].wait()
        return call.deny(int(call.path[1:]) + 1)

    with Judging(policy) as judge:
        outcomes = [
            Outcome(judge.judge, trapped("openat", b"/%d" % number)) for number in range(50)
        ]
        assert [one.get().errno for one in outcomes] == list(range(1, 51))
    (thread,) = threads
    assert thread.name == "pinfold-handlers"


def test_no_coroutine_no_thread() -> None:
    policy = Policy()
    policy.on("open")(lambda call: call.allow())
    before = threading.active_count()
    with Judging(policy) as judge:
        judge(OPEN)
        assert threading.active_count() == before


def test_in_a_running_loop_and_two_judges_at_a_time() -> None:
    policy = Policy()

    @policy.on("open")
    async def f(call: Call) -> Verdict:
        await asyncio.sleep(0)
        return call.deny()

    async def main() -> list[str]:
        with Judging(policy) as one, Judging(policy) as other:
            return [one(OPEN).action, other(OPEN).action, one(SHADOW).action]

    assert asyncio.run(main()) == ["deny"] * 3


async def _sleeps(_call: Call) -> None:
    await asyncio.sleep(1000)


async def _swallows(_call: Call) -> Verdict:
    for _ in range(3):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue
    return pinfold.allow()


async def _answers_when_cancelled(_call: Call) -> Verdict:
    try:
        await asyncio.sleep(1000)
    finally:
        return pinfold.allow()  # noqa: B012 (what a careless handler does)


async def _raises_when_cancelled(_call: Call) -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        raise ValueError("no")


class _Never:
    def __await__(self) -> Iterator[Any]:
        return iter(asyncio.sleep(1000).__await__())


STUBBORN = [
    _sleeps,
    _swallows,
    _answers_when_cancelled,
    _raises_when_cancelled,
    lambda _: _Never(),
]


@pytest.mark.parametrize("handler", STUBBORN)
def test_the_time_limit_holds(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "GRACE", 0.2)
    policy = Policy(rules(seconds=SOON))
    policy.on("open")(handler)
    with Judging(policy) as judge:
        outcome = Outcome(judge.judge, OPEN)
        verdict = outcome.get()
        assert (verdict.action, verdict.errno) == ("deny", errno.EPERM)
        assert verdict.rule is not None
        assert verdict.rule.endswith("gave no verdict within 0.05 seconds")
    assert len(outcome.verdicts) == 1


def test_the_limit_holds_when_a_handler_blocks_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "GRACE", 0.2)
    policy = Policy(rules(seconds=SOON))
    go_on = threading.Event()

    @policy.on("open")
    async def f(_: Call) -> None:
        go_on.wait(PATIENCE)

    judge = Judging(policy)
    one, other = Outcome(judge.judge, OPEN), Outcome(judge.judge, SHADOW)
    assert one.get().errno == other.get().errno == errno.EPERM
    judge.judge.close()
    assert ["blocks its thread" in report for report in judge.reports] == [True]
    go_on.set()
    assert len(one.verdicts) == len(other.verdicts) == 1


def test_each_handler_has_its_own_time() -> None:
    policy = Policy(rules(seconds=5.0))
    for _ in range(5):
        policy.on("open")(_briefly)

    with Judging(policy) as judge:
        started = time.monotonic()
        assert judge(OPEN).action == "allow"
        assert time.monotonic() - started < 5.0


async def _briefly(_call: Call) -> None:
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("handler", STUBBORN)
def test_close_comes_first(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "GRACE", 0.2)
    policy = Policy()
    policy.on("open")(handler)
    judge = Judging(policy)
    outcomes = [Outcome(judge.judge, OPEN) for _ in range(3)]
    judge.judge.close()
    for outcome in outcomes:
        assert outcome.get()[:3] == ("deny", "the sandbox has ended", errno.EPERM)
    late = judge.judge.judge(OPEN)
    assert not isinstance(late, Verdict)
    found: list[Verdict] = []
    late.start(found.append)
    assert [one.rule for one in found] == ["the sandbox has ended"]
    assert all(len(outcome.verdicts) == 1 for outcome in outcomes)


@pytest.mark.parametrize("handler", STUBBORN)
@pytest.mark.parametrize("started", [True, False])
def test_cancelled_verdicts_do_not_come(
    handler: Any, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "GRACE", 0.2)
    policy = Policy()
    policy.on("open")(handler)
    with Judging(policy) as judge:
        later = judge.judge.judge(OPEN)
        assert not isinstance(later, Verdict)
        found: list[Verdict] = []
        if started:
            later.start(found.append)
        later.cancel()
        later.cancel()
    assert found == []


def test_every_verdict_comes_once_whatever_comes_first() -> None:
    policy = Policy(rules(seconds=0.01))
    chance = random.Random(1)

    @policy.on("open")
    async def f(call: Call) -> Verdict:
        try:
            await asyncio.sleep(int(call.path[1:]) / 1000)
        except asyncio.CancelledError:
            return call.deny()
        return call.allow()

    judge = Judging(policy)
    kept, dropped = [], []
    for _ in range(300):
        outcome = Outcome(judge.judge, trapped("openat", b"/%d" % chance.randrange(25)))
        assert outcome.later is not None
        if chance.randrange(3):
            kept.append(outcome)
        else:
            outcome.later.cancel()
            dropped.append(outcome)
    judge.judge.close()
    for one in kept:
        assert one.get().action in ("allow", "deny")
    assert all(len(one.verdicts) <= 1 for one in dropped)
    assert {one.get().rule for one in kept} >= {"handler f gave no verdict within 0.01 seconds"}
    assert judge.reports == []


def test_cancelling_ends_the_coroutine() -> None:
    policy = Policy()
    running, ended = threading.Event(), threading.Event()

    @policy.on("open")
    async def f(_: Call) -> None:
        try:
            running.set()
            await asyncio.sleep(1000)
        finally:
            ended.set()

    with Judging(policy) as judge:
        later = judge.judge.judge(OPEN)
        assert not isinstance(later, Verdict)
        later.start(lambda _: None)
        assert running.wait(PATIENCE)
        later.cancel()
        assert ended.wait(PATIENCE)


def test_cancelling_reaches_the_person_who_is_asked() -> None:
    policy = Policy(rules(rule("ask", on=("openat",))))
    asked, cancelled = threading.Event(), threading.Event()

    class Person:
        def start(self, _done: Callable[[Verdict], None]) -> None:
            asked.set()

        def cancel(self) -> None:
            cancelled.set()

    policy.on("open")(_briefly)
    with Judging(policy, ask=lambda _call, _rule: Person()) as judge:
        later = judge.judge.judge(OPEN)
        assert not isinstance(later, Verdict)
        later.start(lambda _: None)
        assert asked.wait(PATIENCE)
        later.cancel()
        assert cancelled.wait(PATIENCE)


def test_a_person_and_a_handler_about_two_names() -> None:
    # The handler redirects one meaning, a person is asked about the other one.
    policy = Policy(rules(rule("ask", on=("openat",), path=(b"/etc",))))
    policy.on("open", path="/job/**")(lambda call: call.redirect(path="/x"))
    answers = [Verdict("allow", "yes"), Verdict("deny", "no", 13)]

    class Person:
        def start(self, done: Callable[[Verdict], None]) -> None:
            done(answers.pop(0))

        def cancel(self) -> None:
            raise AssertionError

    with Judging(policy, ask=lambda _call, _rule: Person()) as judge:
        assert judge(TWO).action == "redirect"
        assert judge(TWO)[:2] == ("deny", "no")


@pytest.mark.parametrize("action", ["stop", "exit", "task", "close"])
def test_a_handler_that_meddles_with_the_loop(action: str) -> None:
    policy = Policy(rules(seconds=5.0))

    @policy.on("open")
    async def f(call: Call) -> Verdict:
        loop = asyncio.get_running_loop()
        if call.path == "/etc/shadow":
            if action == "stop":
                loop.stop()
            elif action == "exit":
                loop.call_soon(exit, 3)
            elif action == "task":
                loop.create_task(_exits())  # noqa: RUF006 (nobody awaits it)
            else:
                loop.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return call.deny("EXDEV")

    with Judging(policy) as judge:
        for call in (OPEN, SHADOW, OPEN):
            found = judge(call)
            assert found.action == "deny"
            if action != "close" or call is OPEN:
                assert found.errno == errno.EXDEV


async def _exits() -> None:
    raise SystemExit(3)


def test_afterwards_the_call_is_only_a_memory() -> None:
    policy = Policy()
    kept: list[Call] = []
    asked: list[threading.Thread] = []

    def loader() -> bool:
        asked.append(threading.current_thread())
        return True

    class Image:
        def bytes_at(self, _offset: int, _length: int) -> bytes:
            assert threading.current_thread() is threading.main_thread()
            return b"a\0b"

    image: Any = Image()
    vector = StringVector(image, POINTER, 2, 0, 4, (), 0)

    @policy.on("exec")
    async def f(call: Call) -> Verdict:
        kept.append(call)
        await asyncio.sleep(0)
        assert call.argv == ["a", "b"]
        assert call.from_loader
        return call.deny()

    with Judging(policy) as judge:
        call = trapped("execve", b"/f", values={"argv": vector, "envp": vector}, loader=loader)
        assert judge(call).action == "deny"
    (call_seen,) = kept
    assert call_seen.argv == ["a", "b"]
    assert call_seen.path == "/f"
    with pytest.raises(LookupError, match="while execve waited"):
        _ = call_seen.env
    assert asked == [threading.main_thread()]


def test_the_same_afterwards_for_plain_functions() -> None:
    policy = Policy()
    kept: list[Call] = []
    policy.on("exec")(kept.append)
    with Judging(policy) as judge:
        judge(trapped("execve", b"/f", argv=[b"x"]))
    with pytest.raises(LookupError, match="while execve waited"):
        _ = kept[0].argv


def test_futures_and_other_awaitables() -> None:
    policy = Policy()

    class Later:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return pinfold.deny("EXDEV")

    policy.on("open")(lambda _: Later())
    foreign = asyncio.new_event_loop()
    policy.on("unlink")(lambda _: foreign.create_future())
    with Judging(policy) as judge:
        assert judge(OPEN).errno == errno.EXDEV
        # A future of another loop is an error of the handler.
        assert judge(trapped("unlink", b"/x")).errno == errno.EPERM
        assert "raised RuntimeError" in judge.reports[0]
    foreign.close()


# The policy as a value.


def of_a_module(call: Call) -> Verdict:
    return call.deny("EXDEV")


async def of_a_module_async(call: Call) -> Verdict:
    return call.deny("EXDEV")


@pytest.mark.parametrize("function", [of_a_module, of_a_module_async])
def test_pickling(function: Any) -> None:
    policy = Policy(rules(rule("deny", on=("unlink",))))
    policy.on("open", path="/etc/**", access="read", program="/bin/*")(function)
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy
    with Judging(again) as judge:
        assert judge(OPEN).errno == errno.EXDEV
        assert judge(trapped("unlink", b"/x")).errno == errno.EACCES
    policy.on("open")(lambda _: None)
    assert again != policy
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(policy)


def test_copies_are_their_own() -> None:
    policy = Policy()
    policy.on("open")(of_a_module)
    for other in (copy.copy(policy), copy.deepcopy(policy)):
        assert other == policy
        other.on("unlink")(of_a_module)
        assert other != policy
    assert set(policy.judge(report=print).calls) == {"open", "openat", "openat2", "creat"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(policy)
    assert policy != 3


def test_a_judge_keeps_the_handlers_that_were_there() -> None:
    policy = Policy()
    policy.on("open", path="/nothing")(of_a_module)
    with Judging(policy) as judge:
        policy.on("open")(of_a_module)
        assert judge(OPEN).action == "allow"


def test_files_and_texts(tmp_path: Path) -> None:
    text = 'version = 1\n[[rule]]\non = "open"\npath = "${NAME}"\naction = "deny"\n'
    file = tmp_path / "policy.toml"
    file.write_text(text)
    policy = Policy.load(file, variables={"NAME": "/etc"})
    assert policy == Policy.load(str(file), variables={"NAME": "/etc"})
    policy.on("open", path="/etc/hosts")(lambda call: call.allow())
    with Judging(policy) as judge:
        assert (judge(OPEN).action, judge(SHADOW).action) == ("allow", "deny")
    assert Policy.parse(text.replace("${NAME}", "/etc")).model.rules
    with pytest.raises(PolicyError):
        Policy.load(tmp_path / "missing.toml")


def test_openat2_without_a_readable_how() -> None:
    policy = Policy()
    policy.on("open", access="write")(lambda call: call.deny())
    with Judging(policy) as judge:
        how = OpenHow(UNREADABLE, -1, 0, 0, 0)
        # What cannot be known counts as everything.
        assert judge(trapped("openat2", b"/f", values={"how": how})).action == "deny"
