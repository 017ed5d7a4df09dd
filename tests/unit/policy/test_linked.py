"""Denials through links hold for what the links lead to, as they are when a run begins."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from pinfold import Policy
from pinfold.codec.sockaddr import Unix
from pinfold.policy.calls import ASK, KILL, Verdict
from pinfold.policy.globs import escape, fixed
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.judging.linked import further, linked, real_name
from pinfold.policy.model import Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY, PathRules

from .trapped import trapped

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.policy.calls import Later, Trapped


@pytest.fixture
def top(tmp_path: Path) -> bytes:
    """A directory in which ``home`` is a link to ``data``, with a file ``data/ann/key``."""
    place = tmp_path / "t[op]"
    (place / "data/ann").mkdir(parents=True)
    (place / "data/ann/key").write_text("")
    (place / "home").symlink_to("data")
    (place / "deep").symlink_to("home/ann")
    (place / "dangling").symlink_to("gone/x")
    (place / "loop").symlink_to("loop")
    (place / "root").symlink_to("/")
    return os.fsencode(os.path.realpath(place))


@pytest.mark.parametrize(
    ("name", "real"),
    [
        (b"data/ann/key", b"data/ann/key"),
        (b"home", b"data"),
        (b"home/ann/key", b"data/ann/key"),
        (b"deep/key", b"data/ann/key"),
        (b"home/none/at/all", b"data/none/at/all"),
        (b"dangling", b"gone/x"),
        (b"dangling/y", b"gone/x/y"),
        (b"loop/x", b"loop/x"),
        (b"data/ann/key/below", b"data/ann/key/below"),
    ],
)
def test_where_a_name_leads(top: bytes, name: bytes, real: bytes) -> None:
    assert real_name(top + b"/" + name) == top + b"/" + real


def test_links_of_processes_are_left(top: bytes) -> None:
    assert real_name(top + b"/root" + b"/proc/self/cwd/x") == b"/proc/self/cwd/x"
    assert real_name(b"/proc/self/root" + b"/etc") == b"/proc/self/root" + b"/etc"
    assert real_name(b"/") == b"/"


def test_where_names_lead_in_any_tree(tmp_path: Path) -> None:
    chosen = random.Random(1)
    top = os.fsencode(os.path.realpath(tmp_path))
    words = [b"a", b"b", b"c", b"d"]
    places = [b"/".join(chosen.choices(words, k=count)) for count in (1, 1, 2, 3, 3, 4)]
    for place in places:
        os.makedirs(top + b"/" + place, exist_ok=True)
    for _ in range(60):
        path = top + b"/" + chosen.choice(places) + b"/" + chosen.choice(words)
        if not os.path.lexists(path):
            target = chosen.choice([b"..", b"../a", b"b/c", b"a", b"../../b", top + b"/c"])
            os.symlink(target, path)
    links = 0
    for _ in range(2000):
        name = top + b"/" + b"/".join(chosen.choices(words, k=chosen.randint(1, 6)))
        try:
            os.stat(name)
        except OSError:
            continue
        links += real_name(name) != name
        assert real_name(name) == os.path.realpath(name)
    assert links > 50


def test_globs_are_followed_up_to_their_first_wildcard(top: bytes) -> None:
    at = escape(top)
    assert linked([at + b"/home/ann/*.pem", b"**/x", at + b"/data/*"]) == (
        at + b"/home/ann/*.pem",
        b"**/x",
        at + b"/data/*",
        at + b"/data/ann/*.pem",
    )
    assert linked([at + b"/deep"]) == (at + b"/deep", at + b"/data/ann")
    assert linked([at + b"/home/a*"]) == (at + b"/home/a*", at + b"/data/a*")
    assert linked([at + b"/root" + b"/*"]) == (at + b"/root" + b"/*", b"/*")
    assert linked([at + b"/root"]) == (at + b"/root", b"/")
    assert linked([b"/*/x", b"**"]) == (b"/*/x", b"**")
    assert fixed(rb"/a\*/b?/c") == (b"/a*", b"/b?/c")


def policy(*rules: tuple[str, Match], real: bool = False, **defaults: str) -> PolicyModel:
    return PolicyModel(
        tuple(Rule(match, Action(verb), f"{verb} {at}") for at, (verb, match) in enumerate(rules)),
        {word: Action(verb) for word, verb in defaults.items()},
        real=real,
    )


def said(model: PolicyModel, call: Trapped, *, real: bool = True) -> str:
    found = Policy(model).judge(report=print, real=real).judge(call)
    assert isinstance(found, Verdict)
    return found.rule or found.action


@pytest.mark.parametrize("verb", [DENY, KILL, ASK])
@pytest.mark.parametrize("key", ["path", "exact", "real", "unix"])
def test_what_holds_against_the_program_is_followed(top: bytes, verb: str, key: str) -> None:
    name = top + b"/data/ann/key"
    given = top + b"/home/ann/key"
    conditions: dict[str, Any] = {key: (given if key == "exact" else escape(given),)}
    match = Match(**conditions)
    call = trapped("open", name, real={"path": name})
    if key == "unix":
        call = trapped("connect", name, address=Unix(b"x"))
    model = policy((verb, match))
    assert said(model, call).startswith(f"{verb} 0")
    if key != "real":
        assert said(model, call, real=False) == ALLOW
    assert said(policy((verb, match), real=True), call, real=False).startswith(f"{verb} 0")


def test_one_condition_on_real_names_is_enough(top: bytes) -> None:
    first = (DENY, Match(path=(escape(top) + b"/home/ann",)))
    call = trapped("open", top + b"/data/ann/key")
    assert said(policy(first), call, real=False) == ALLOW
    assert said(policy(first, (DENY, Match(real=(b"/x",)))), call, real=False) == "deny 0"


def test_what_allows_is_not_followed(top: bytes) -> None:
    at = escape(top)
    model = policy((ALLOW, Match(on=("open",), path=(at + b"/home",))), open=DENY)
    assert further(model, links=True) == {}
    assert said(model, trapped("open", top + b"/data/ann/key")) == "default open"
    assert said(model, trapped("open", top + b"/home/ann/key")) == "allow 0"


def test_nothing_gets_milder(top: bytes) -> None:
    at = escape(top)
    through, itself = Match(path=(at + b"/home/ann",)), Match(path=(at + b"/data/ann",))
    call = trapped("open", top + b"/data/ann/key")
    for model, rule in (
        (policy((ASK, through), (DENY, itself)), "deny 1"),
        (policy((DENY, through), (KILL, itself)), "kill 1"),
        (policy((ASK, through), open=DENY), "default open"),
        (policy((KILL, through), (DENY, itself)), "kill 0"),
        (policy((DENY, through), (ALLOW, itself)), "deny 0"),
        (policy((ALLOW, itself), (DENY, through)), "allow 0"),
    ):
        assert said(model, call) == rule


def test_a_person_is_asked_about_what_is_allowed_behind(top: bytes) -> None:
    at = escape(top)
    asked: list[str] = []

    def ask(call: Trapped, rule: str) -> Later:
        asked.append(rule)
        raise ValueError

    model = policy(
        (ASK, Match(path=(at + b"/home/ann",))), (ALLOW, Match(path=(at + b"/data/ann",)))
    )
    judge = RuleJudge(model, ask, further(model, links=True))
    judge.judge(trapped("open", top + b"/data/ann/key"))
    assert asked == ["ask 0"]


def test_the_program_is_known_by_its_real_name(top: bytes) -> None:
    match = Match(on=("open",), program=(escape(top) + b"/home/ann/key",))
    call = trapped("open", b"/x", program=top + b"/data/ann/key")
    for real in (False, True):
        assert said(policy((DENY, match)), call, real=real) == "deny 0"
        assert said(policy((DENY, match)), call._replace(program=b"/y"), real=real) == ALLOW
        assert said(policy((ALLOW, match), open=DENY), call, real=real) == "default open"


def test_hard_links_are_recognised_by_where_the_name_leads(top: bytes) -> None:
    model = policy((DENY, Match(exact=(top + b"/home/ann/key",))))
    judge = Policy(model).judge(report=print, real=True)
    assert set(judge.literals) == {top + b"/home/ann/key", top + b"/data/ann/key"}


def test_denials_of_the_command_line() -> None:
    rules = PathRules([(b"/m", b"/real/x")], [b"/b", b"/link/*", b"/c"], {b"/link/*": b"/real/*"})
    for name in (b"/link/x", b"/real/x", b"/m"):
        assert rules.judge((name,)).rule == "deny /link/*"
    assert rules.judge((b"/c/x",)).rule == "deny /c"
    assert rules.judge((b"/real",)).action == ALLOW
    assert rules.judge((b"/real",), moves=True).rule == "deny /link/*"
    assert rules.shown == ("deny /b", "deny /link/*", "deny /c", "map /m=/real/x")
    assert PathRules([], [b"/l"], {b"/l": b"/r"}).literals == (b"/l", b"/r")
