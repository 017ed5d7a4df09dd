"""A policy in words, and what is doubtful about it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.policy.calls import Trapped
from pinfold.policy.file import shadows
from pinfold.policy.file.doubts import doubts
from pinfold.policy.file.explain import Explanation, calls_in_words, explain, sentence
from pinfold.policy.file.load import parse
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.model import PolicyModel
from pinfold.syscalls.groups import GROUPS, names
from pinfold.syscalls.table import TABLE


def model(text: str) -> PolicyModel:
    return parse("version = 1\n" + text, "p.toml", environ={"HOME": "/h"}, cwd=b"/w")


def told(text: str, *calls: str) -> Explanation:
    return explain(model(text), calls)


def section(explanation: Explanation, title: str) -> tuple[str, ...]:
    (only,) = [one.lines for one in explanation.sections if title in one.title.split(", ")]
    return only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'on = ["connect", "send"]\nunix = "/run/app/named.sock"\naction = "allow"',
            (
                "A connect or send that names the Unix socket /run/app/named.sock (or what is"
                " below) is allowed."
            ),
        ),
        ('on = "open"\naction = "kill"', "An open ends the sandbox."),
        (
            'path = ["/a", "/b/*", "/c"]\naccess = ["write", "create"]\naction = "deny"',
            (
                "Any call that names /a or /c (or what is below) or /b/* and writes or creates it"
                " fails with EACCES."
            ),
        ),
        (
            'path = "/"\naccess = ["exec", "read"]\naction = "allow"',
            "Any call that names anything and does nothing but read and exec it is allowed.",
        ),
        (
            'on = "open"\naccess = "read"\naction = "ask"',
            "An open that reads a file is put to whoever sits at the terminal.",
        ),
        (
            'on = "openat"\nexact = "/a*"\nreal = "/r/**"\nerrno = "ENOENT"\naction = "deny"',
            "An openat that names /a* itself and leads to /r/** fails with ENOENT.",
        ),
        (
            (
                'on = "exec"\nargv = ["git", "", "..."]\nenv = { A = true, B = false, C = "1*" }\n'
                'program = "/bin/sh"\nloader = false\naction = "deny"'
            ),
            (
                'An exec that has the arguments `git "" ...`, sets A, does not set B, sets C to 1*,'
                " comes from /bin/sh (or what is below) and does not come from the dynamic loader"
                " fails with EACCES."
            ),
        ),
        (
            (
                'on = "connect"\nfamily = ["inet", 44]\naddress = ["10.0.0.0/8", "::1"]\nport ='
                ' [80, "90-99"]\naction = "redirect"\nto.address = "[::1]:80"'
            ),
            (
                "A connect that is of the family 44 or inet, has the address 10.0.0.0/8 or ::1 and"
                " has the port 80 or 90-99 is made with the address inet6:[::1]:80 instead."
            ),
        ),
        (
            (
                'on = "exec"\naction = "redirect"\n[rule.to]\npath = "/x"\nargv = ["a", "..."]\n'
                'set_env.A = "b"\nunset_env = ["C"]'
            ),
            (
                "An exec is made with the path /x, the arguments `a ...`, A set to b and C not set"
                " instead."
            ),
        ),
        (
            'on = "chown"\naction = "return"\nvalue = 3',
            "A chown is not made and returns 3.",
        ),
        (
            'on = "open"\naction = "serve"\ncontent = "abc"',
            "An open opens a file of 3 bytes that the policy has instead.",
        ),
        (
            'on = ["bind"]\nabstract = "a\\u001b"\naction = "deny"',
            "A bind that names the abstract Unix socket a\\x1b fails with EACCES.",
        ),
    ],
)
def test_a_rule_as_a_sentence(text: str, expected: str) -> None:
    assert sentence(model("[[rule]]\n" + text).rules[0]) == expected


def test_a_policy_that_says_nothing() -> None:
    found = told("")
    assert [one.title for one in found.sections] == [
        "Every group of calls",
        "What can be reached (Landlock)",
        "Limits",
        "Besides",
        "Trapped calls",
    ]
    assert section(found, "Trapped calls") == ("None.",)
    assert found.warnings == ()


def test_groups_to_which_the_same_happens_are_told_of_together() -> None:
    found = told(
        '[defaults]\n"*" = "EPERM"\nopen = "allow"\n'
        '[[rule]]\nname = "n"\non = ["stat", "open"]\npath = "/a"\naction = "deny"\n'
        '[[rule]]\non = "kill"\naction = "kill"'
    )
    assert section(found, "open") == (
        "1. n: A stat or open that names /a (or what is below) fails with EACCES.",
        "Anything else is allowed.",
    )
    assert section(found, "stat") == ("1. n: as above.", "Anything else fails with EPERM.")
    assert section(found, "kill") == (
        "2. A kill ends the sandbox. (p.toml:10)",
        "Anything else is allowed.",
    )
    assert section(found, "exec") == section(found, "bind") == ("Every call fails with EPERM.",)


def test_limits_and_reach() -> None:
    found = told(
        '[limits]\ntasks = 1\nseconds = 2.5\ncpu = 3\nmemory = "2G"\nfiles = 5\nfile_size = 1000\n'
        'core = 0\n[landlock]\nro = ["/usr"]\nrw = "${CWD}"'
    )
    assert section(found, "Limits") == (
        "At most 1 task at one time.",
        "Killed after 2.5 seconds.",
        "No core dumps.",
        (
            "Each process: at most 3 seconds of processor time, 2 GiB of address space, 5"
            " descriptors and files of 1000 bytes."
        ),
    )
    assert section(found, "What can be reached (Landlock)") == (
        "Read and execute: /usr",
        "Anything: /w",
        "Every other path is out of reach, whatever a rule allows.",
    )
    assert section(told("[limits]\ncore = 0"), "Limits") == ("No core dumps.",)
    assert section(told("[limits]\ncore = 1024"), "Limits") == (
        "Each process: at most core dumps of 1 KiB.",
    )


def test_the_rest() -> None:
    asking = (
        'real = true\nhandler_seconds = 5\n[audit]\non_loss = "continue"\n[defaults]\nexec="ask"'
    )
    assert section(told(asking), "Besides") == (
        "Names that symbolic links lead to are judged as well.",
        "Who is asked has 5 seconds, and nobody to ask is a denial.",
        "The sandbox goes on when its log cannot be written.",
    )


def test_trapped_calls() -> None:
    found = told("", "open", "connect", "openat", "kill")
    assert section(found, "Trapped calls") == (
        "open: open openat",
        "connect: connect",
        "in no group: kill",
    )


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_called_by_their_word(group: str) -> None:
    assert calls_in_words(names(group)) == [group]


@given(st.lists(st.sampled_from([*TABLE, "kill", "read"]), unique=True))
def test_calls_in_words_are_the_same_calls(calls: list[str]) -> None:
    words = calls_in_words(calls)
    single = [word.removesuffix("(2)") for word in words if word.endswith("(2)")]
    whole = [call for word in words if not word.endswith("(2)") for call in names(word)]
    assert sorted(single + whole) == sorted(calls)


# Warnings.

DENY = 'action = "deny"\n'
ALLOW = 'action = "allow"\n'


def warnings(*rules: str, top: str = "") -> list[str]:
    # Of what is about single rules; test_doubts.py has the rest.
    found = doubts(model(top + "".join(f"\n[[rule]]\n{rule}\n" for rule in rules)))
    return [one for one in found if "packet sockets" not in one]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ('on = "open"\n' + DENY, 'on = "open"\n' + DENY),
        ('on = "open"\n' + ALLOW, 'on = "openat"\npath = "/a"\n' + DENY),
        ('path = "/"\n' + DENY, 'on = "open"\npath = "/a/*"\n' + DENY),
        ('path = "**"\n' + ALLOW, 'path = "/a"\n' + ALLOW),
        ('path = "/a"\n' + ALLOW, 'path = "/a/b"\nprogram = "/p"\n' + DENY),
        ('exact = ["/a", "/b"]\n' + DENY, 'exact = "/a"\n' + ALLOW),
        ('argv = [["a"], ["b"]]\n' + DENY, 'exact = "/a"\nargv = ["a"]\n' + ALLOW),
        ("env = { A = true }\n" + DENY, "env = { B = true, A = true }\n" + DENY),
        ('address = "10.0.0.0/8"\n' + DENY, 'address = "10.1.0.0/16"\nport = 80\n' + ALLOW),
        ('port = "80-90"\n' + DENY, "port = [80, 85]\n" + ALLOW),
        ('family = ["inet", "inet6"]\n' + DENY, 'family = "inet"\n' + DENY),
        ('unix = "/a"\n' + DENY, 'unix = "/a"\non = "connect"\n' + ALLOW),
        ('abstract = ["a", "b"]\n' + DENY, 'abstract = "b"\n' + ALLOW),
        (
            'path = "/"\naccess = ["read", "write"]\n' + DENY,
            'path = "/"\naccess = "read"\n' + ALLOW,
        ),
        ('program = "/a"\n' + DENY, 'program = "/a/b"\non = "open"\n' + DENY),
        ("loader = false\n" + DENY, 'loader = false\non = "open"\n' + DENY),
    ],
)
def test_rules_that_are_never_reached(wide: str, narrow: str) -> None:
    found = warnings(wide, narrow, 'on = "chown"\nname = "last"\n' + DENY)
    assert len(found) == 1
    assert "is never reached, rule p.toml:3" in found[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('on = "openat"\n' + DENY, 'on = "open"\n' + DENY),
        ('path = "/a/b"\n' + DENY, 'path = "/a"\n' + DENY),
        ('path = "/a"\n' + DENY, 'path = "/ab"\n' + DENY),
        ('path = "/a/*"\n' + DENY, 'path = "/a/b"\n' + DENY),
        ('exact = "/a"\n' + DENY, 'path = "/a"\n' + DENY),
        ('path = "/a"\n' + DENY, 'real = "/a"\n' + DENY),
        # What allows is stricter about these than what denies.
        (
            'argv = ["a", "..."]\nexact = "/a"\n' + ALLOW,
            'argv = ["a", "..."]\nexact = "/a"\n' + DENY,
        ),
        ('path = "/a"\naccess = "write"\n' + ALLOW, 'path = "/a"\naccess = "write"\n' + DENY),
        ("port = 80\n" + ALLOW, "port = 80\n" + DENY),
        ('program = "/a"\n' + ALLOW, 'program = "/a"\n' + DENY),
        ("env = { A = true, B = true }\n" + DENY, "env = { A = true }\n" + DENY),
        ("port = [80, 81]\n" + DENY, "port = [81, 82]\n" + DENY),
        ('address = "10.1.0.0/16"\n' + DENY, 'address = "10.0.0.0/8"\n' + DENY),
        ('address = "10.0.0.0/8"\n' + DENY, "port = 80\n" + DENY),
        (
            'on = "send"\naction = "redirect"\nto.address = "127.0.0.1:1"\n',
            'on = "send"\n' + ALLOW,
        ),
        # A rule without `on` is not about a send that has no address.
        ('program = "/a"\n' + DENY, 'program = "/a"\non = "send"\n' + DENY),
    ],
)
def test_rules_that_are_reached(first: str, second: str) -> None:
    assert warnings(first, second) == []


def test_where_a_redirect_leads_denials_behind_an_allow_count() -> None:
    redirect = 'on = "open"\npath = "/x"\naction = "redirect"\nto.path = "/a/b"\n'
    allow, deny = 'path = "/a"\n' + ALLOW, 'path = "/a/b"\n' + DENY
    assert len(warnings(allow, deny)) == 1
    assert warnings(redirect, allow, deny) == []


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ('loader = true\non = "open"\n' + ALLOW, "a program can pass for the loader"),
        ('argv = ["git", "..."]\n' + ALLOW, "say which file with path or exact"),
        ('exact = "/etc/*"\n' + DENY, "`*` is just a character"),
        ('on = "open"\naction = "return"\nvalue = 3\n', "takes 3 for a new descriptor"),
    ],
)
def test_odd_rules(rule: str, part: str) -> None:
    (only,) = warnings('name = "odd"\n' + rule)
    assert only.startswith("rule odd (p.toml:3): ")
    assert part in only


@pytest.mark.parametrize(
    "rule",
    [
        'loader = true\non = "open"\n' + DENY,
        'argv = ["git", "..."]\nexact = "/usr/bin/git"\n' + ALLOW,
        'argv = ["git", "..."]\n' + DENY,
        'exact = "/etc/hosts"\n' + ALLOW,
        'on = "chown"\naction = "return"\n',
    ],
)
def test_rules_without_a_warning(rule: str) -> None:
    assert warnings(rule) == []


LIBRARIES = "no rule lets libraries be opened"


@pytest.mark.parametrize(
    ("top", "rule", "lost"),
    [
        ('[defaults]\nopen = "deny"', 'on = "open"\npath = "/w"\n' + ALLOW, True),
        ('[defaults]\n"*" = "deny"', 'on = "stat"\npath = "/usr"\n' + ALLOW, True),
        ('[defaults]\nopen = "deny"', 'path = "/usr"\naccess = "write"\n' + ALLOW, True),
        ('[defaults]\nopen = "deny"', 'path = "/usr"\nerrno = "EPERM"\n' + DENY, True),
        ('[defaults]\nopen = "deny"', 'path = "/usr/lib/**"\naccess = "read"\n' + ALLOW, False),
        ('[defaults]\nopen = "deny"', 'on = "open"\n' + ALLOW, False),
        ('[defaults]\nopen = "deny"', 'exact = "/lib64/libc.so.6"\n' + ALLOW, False),
        ('[defaults]\n"*" = "deny"\nopen = "allow"', 'on = "stat"\n' + ALLOW, False),
    ],
)
def test_libraries_out_of_reach(top: str, rule: str, lost: bool) -> None:
    assert any(LIBRARIES in one for one in warnings(rule, top=top)) is lost


# What is called unreachable is so: removing it changes no verdict.

_conditions = st.fixed_dictionaries(
    {},
    optional={
        "on": st.sampled_from(["open", "openat2", "openat"]),
        "path": st.sampled_from(["/", "/a", "/a/b", "/a/*", "**"]),
        "exact": st.sampled_from(["/a", "/a/b"]),
        "program": st.sampled_from(["/p", "/p/q"]),
        "loader": st.booleans(),
        "access": st.sampled_from(["read", "write"]),
    },
).filter(bool)
_actions = st.sampled_from(["allow", "deny", "kill"])
_names = st.sampled_from([b"/a", b"/a/b", b"/a/b/c", b"/x", b"/"])


def _trapped(flags: int, name: bytes, program: bytes, loader: bool) -> Trapped:
    row = TABLE["openat"]
    return Trapped(
        row, (0, 0, flags, 0, 0, 0), program, (), {"path": (name,)}, loader=lambda: loader
    )


@settings(max_examples=300)
@given(
    st.lists(st.tuples(_conditions, _actions), min_size=2, max_size=4),
    _names,
    st.sampled_from([b"/p", b"/p/q", b"?"]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
def test_what_is_never_reached_never_decides(
    rules: list[tuple[dict[str, object], str]],
    name: bytes,
    program: bytes,
    flags: int,
    loader: bool,
) -> None:
    text = "version = 1\n"
    for index, (conditions, action) in enumerate(rules):
        text += f'[[rule]]\nname = "r{index}"\naction = "{action}"\n'
        for key, value in conditions.items():
            text += f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
    found = parse(text, "p.toml")
    never = {one.split(" ")[1] for one in doubts(found) if "never reached" in one}
    verdict = RuleJudge(found, None).judge(_trapped(flags, name, program, loader))
    assert getattr(verdict, "rule", None) not in never


_more = st.fixed_dictionaries(
    {},
    optional={
        "on": st.sampled_from(["send", "connect", "bind"]),
        "unix": st.sampled_from(["/", "/a", "/a/b", "/a/*", "**"]),
        "address": st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0", "::1"]),
        "abstract": st.sampled_from(["a", "b"]),
        "port": st.sampled_from([80, 81]),
        "program": st.sampled_from(["/p", "/p/q", "/"]),
    },
).filter(lambda keys: bool(keys) and len(keys.keys() & {"unix", "address", "abstract"}) <= 1)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.one_of(_conditions, _more), _actions), min_size=2, max_size=6))
def test_the_short_list_leaves_out_no_rule(rules: list[tuple[dict[str, object], str]]) -> None:
    text = "version = 1\n"
    for conditions, action in rules:
        if "port" in conditions and conditions.keys() & {"unix", "abstract"}:
            continue
        text += f'[[rule]]\naction = "{action}"\n'
        for key, value in conditions.items():
            text += f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
    found = parse(text, "p.toml").rules
    ready = [shadows._ready(rule) for rule in found]
    expected = [
        (rule.rule, next(one.rule for one in ready[:at] if shadows._covers(one, rule)))
        for at, rule in enumerate(ready)
        if any(shadows._covers(one, rule) for one in ready[:at])
    ]
    model_of = PolicyModel(rules=found)
    assert [(one.rule, one.by) for one in shadows.shadowed(model_of)] == expected
