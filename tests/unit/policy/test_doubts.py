"""Warnings about ways around a policy."""

from __future__ import annotations

import random

import pytest

from pinfold.policy.calls import ASK, KILL
from pinfold.policy.file.doubts import doubts
from pinfold.policy.file.load import parse
from pinfold.policy.file.shadows import shadowed
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.model import Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW as ALLOWED
from pinfold.policy.rules import DENY as DENIED
from pinfold.syscalls.groups import GROUPS

from .random_models import GLOBS, NAMES
from .test_judge import Asked, in_short
from .trapped import trapped

DENY = 'action = "deny"\n'
ALLOW = 'action = "allow"\n'
NO_PACKETS = '[[rule]]\non = "socket"\nfamily = "packet"\n' + DENY


def warnings(text: str) -> list[str]:
    return list(doubts(parse("version = 1\n" + text, "p.toml")))


# Packet sockets.


@pytest.mark.parametrize(
    "text",
    [
        '[defaults]\nconnect = "deny"',
        '[defaults]\n"*" = "deny"\nsocket = "allow"\nopen = "allow"',
        '[[rule]]\non = "send"\naddress = "10.0.0.0/8"\n' + DENY,
        "[[rule]]\nport = 22\n" + DENY,
        '[[rule]]\non = "socket"\nfamily = "inet"\n' + DENY + "[[rule]]\nport = 22\n" + DENY,
        '[[rule]]\non = "socket"\n' + ALLOW + NO_PACKETS + "[[rule]]\nport = 22\n" + DENY,
        '[[rule]]\non = "socket"\nprogram = "/x"\n' + DENY + "[[rule]]\nport = 22\n" + DENY,
    ],
)
def test_packet_sockets_pass_addresses_by(text: str) -> None:
    found = [one for one in warnings(text) if "packet" in one]
    assert len(found) == 1
    assert "CAP_NET_RAW" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        '[defaults]\nconnect = "deny"\nsocket = "deny"',
        '[defaults]\n"*" = "deny"\nopen = "allow"',
        '[defaults]\nconnect = "deny"\n' + NO_PACKETS,
        NO_PACKETS + "[[rule]]\nport = 22\n" + DENY,
        '[[rule]]\non = "socket"\nfamily = [17, "inet"]\n' + DENY + "[[rule]]\nport = 22\n" + DENY,
        # No rule goes by hosts.
        '[[rule]]\nunix = "/x"\n' + DENY,
        '[[rule]]\non = "connect"\naddress = "10.0.0.0/8"\n' + ALLOW,
        '[[rule]]\non = "bind"\nport = 80\n' + DENY,
        "",
    ],
)
def test_packet_sockets_that_do_not_matter(text: str) -> None:
    assert warnings(text) == []


# Links in /proc.


@pytest.mark.parametrize("glob", ["/proc", "/proc/**", "/proc/self", "/proc/*/root" + "/**"])
def test_processes_lead_everywhere(glob: str) -> None:
    text = f'[[rule]]\non = "open"\npath = ["/usr", "{glob}"]\n{ALLOW}'
    (only,) = warnings(text)
    assert "p.toml:2" in only
    assert "real = true" in only
    assert warnings("real = true\n" + text) == []
    assert warnings(text + '[[rule]]\non = "open"\nreal = "/etc"\n' + DENY) == []
    assert warnings(text.replace('"allow"', '"deny"')) != [only]


@pytest.mark.parametrize("glob", ["/proc/*/comm", "/proc/cpuinfo", "/proc/self/status", "/usr"])
def test_processes_that_lead_nowhere(glob: str) -> None:
    assert warnings(f'[[rule]]\non = "open"\npath = "{glob}"\n{ALLOW}') == []


# Other names.


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ('on = "open"\npath = "/etc/key"\n' + DENY, "rename"),
        ('on = "open"\nexact = "/etc/key"\n' + DENY, "rename"),
        ('on = ["open", "rename"]\npath = "/etc/key"\n' + DENY, "link"),
        ('on = ["open", "link"]\npath = "/etc/key"\naction = "kill"\n', "rename"),
        ('path = "/etc/key"\naccess = "read"\n' + DENY, "rename"),
    ],
)
def test_what_cannot_be_opened_may_be_renamed_or_linked(text: str, group: str) -> None:
    found = [one for one in warnings("[[rule]]\n" + text) if f"not about {group}," in one]
    assert len(found) == 1
    assert "/etc/key" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        '[[rule]]\npath = "/etc/key"\n' + DENY,
        '[[rule]]\non = ["open", "rename", "link"]\npath = "/etc/key"\n' + DENY,
        '[[rule]]\non = "open"\npath = "/etc/key"\n' + ALLOW,
        '[[rule]]\non = "open"\npath = "/etc/*"\n' + DENY,
        '[[rule]]\non = "stat"\npath = "/etc/key"\n' + DENY,
        '[defaults]\nrename = "deny"\nlink = "deny"\n[[rule]]\non = "open"\npath = "/k"\n' + DENY,
        '[[rule]]\non = "open"\npath = "/k"\n' + DENY + '[[rule]]\npath = "/*"\n' + DENY,
        '[[rule]]\non = "open"\npath = "/k"\n' + DENY
        + '[[rule]]\non = ["rename", "link"]\n' + DENY,
        '[landlock]\nro = "/"\nrw = "/w"\n[[rule]]\non = "open"\npath = "/k"\n' + DENY,
    ],
)  # fmt: skip
def test_what_keeps_its_name(text: str) -> None:
    assert warnings(text) == []


def test_what_lies_where_the_program_may_write() -> None:
    text = '[landlock]\nro = "/"\nrw = "/w"\n[[rule]]\non = "open"\npath = "/w/k"\n' + DENY
    assert len(warnings(text)) == 1


# Rules that are mostly never reached.


def test_a_rule_that_holds_for_renames_alone() -> None:
    first, second = '[[rule]]\npath = "/a/b"\n' + ALLOW, '[[rule]]\npath = "/a/b"\n' + DENY
    (only,) = warnings(first + second)
    assert "directories that are renamed" in only
    assert "never reached" in warnings(second + first)[0]
    top = '[[rule]]\npath = "/a"\n' + ALLOW
    assert "never reached" in warnings(top + second)[0]
    assert "where links lead" in warnings("real = true\n" + top + second)[0]
    assert "renamed" in warnings('[[rule]]\npath = "/a/b"\naction = "ask"\n' + second)[0]


def test_without_a_rule_that_is_never_reached_no_rename_is_judged_otherwise() -> None:
    chosen = random.Random(3)
    seen = mostly = 0
    for _ in range(4000):
        rules = [_drawn_rule(chosen, f"rule {at}") for at in range(chosen.randint(2, 4))]
        found = list(shadowed(PolicyModel(tuple(rules))))
        lost = [one.rule for one in found if not one.mostly]
        mostly += len(found) - len(lost)
        rest = [one for one in rules if one not in lost]
        before, after = (RuleJudge(PolicyModel(tuple(some)), Asked) for some in (rules, rest))
        names = {one.name for one in rules}
        for call in ("rename", "open") if lost else ():
            for name in NAMES[:5]:
                drawn = trapped(call, name, b"/new")
                assert in_short(before.judge(drawn), names) == in_short(after.judge(drawn), names)
                seen += 1
    assert seen > 2000
    assert mostly > 50


def _drawn_rule(chosen: random.Random, name: str) -> Rule:
    exact = chosen.randrange(3) == 0
    match = Match(
        on=chosen.choice([(), (), (*GROUPS["rename"], "open")]),
        path=() if exact else tuple(chosen.choices(GLOBS[:5], k=chosen.randint(1, 2))),
        exact=tuple(chosen.choices(NAMES[:5], k=chosen.randint(1, 2))) if exact else (),
        program=chosen.choice([(), (), (), (b"/bin/**",)]),
    )
    return Rule(match, Action(chosen.choice([ALLOWED, DENIED, ASK, KILL])), name)
