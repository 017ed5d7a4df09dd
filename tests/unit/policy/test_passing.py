"""What goes through the filter is what a policy could only have allowed."""

from __future__ import annotations

import os
import random
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold import Policy, bpf
from pinfold.launch.filters import sandbox_filter
from pinfold.policy.calls import ALLOWED, ASK, KILL, Verdict
from pinfold.policy.judging.access import OPEN_TELLING, access_of, open_access, possible
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.judging.meaning import domains
from pinfold.policy.judging.passing import saying
from pinfold.policy.model import ACCESS, Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY
from pinfold.supervisor import shapes
from pinfold.syscalls.forms import WHOLE, Form, Forms, both
from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.neighbours import BY_NUMBER, NEIGHBOURS
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.table import TABLE
from pinfold.uapi import seccomp as abi
from pinfold.uapi.net import AF_INET, AF_INET6, AF_PACKET, AF_UNIX

from .random_models import drawn_call, drawn_model, some
from .trapped import trapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.policy.calls import Judge, Trapped

SECRET = (0x1122334455667788, 0x99AABBCCDDEEFF00)
CHANGES = frozenset({"write", "create"})


def goes_through(forms: Forms, registers: Sequence[int]) -> bool:
    for tests, passes in forms:
        if all(registers[at] & mask == value for at, mask, value in tests):
            return passes
    return False


def through_filter(judge: Judge, calls: Sequence[Trapped]) -> list[bool]:
    """Which of some calls a real filter lets through, as a session would make it."""
    found = shapes.without(shapes.with_calls({}, judge.calls), judge.passing)
    found = shapes.counted(found, NEIGHBOURS)
    program = bpf.disassemble(
        sandbox_filter(
            found,
            SECRET,
            whole=judge.whole,
            neighbours={number for number in BY_NUMBER if not found[number].judged},
            fixed_addresses=judge.addresses,
            forms=shapes.forms_of(found, judge.passing, policy=True),
        )
    )
    bpf.check(program)
    answers = []
    for call in calls:
        registers = list(call.registers)
        for one in call.arguments:
            registers[one.at] = one.pointer
        data = bpf.SeccompData(call.row.number, abi.AUDIT_ARCH_X86_64, 0, tuple(registers))
        answers.append(bpf.run(program, data).value == abi.SECCOMP_RET_ALLOW)
    return answers


def rule(verb: str = DENY, name: str = "rule", **conditions: object) -> Rule:
    return Rule(Match(**conditions), Action(verb), name)  # type: ignore[arg-type]


def passing(*rules: Rule, **defaults: Action) -> dict[str, Forms]:
    words = {word.replace("every", "*"): action for word, action in defaults.items()}
    return dict(RuleJudge(PolicyModel(rules, words)).passing)


# Nothing goes through that could be decided differently


def plainer(chosen: random.Random) -> PolicyModel:
    """A policy of rules most of which are about little but what registers tell."""
    model = drawn_model(chosen)
    rules = []
    for one in model.rules:
        match = one.match
        if chosen.randrange(3):
            match = Match(
                on=match.on,
                path=match.path if chosen.randrange(4) == 0 else (),
                access=frozenset(some(chosen, ACCESS, 3)) if chosen.randrange(4) else frozenset(),
                family=match.family,
            )
        action = one.action if chosen.randrange(2) else Action(ALLOW)
        rules.append(replace(one, match=match, action=action))
    return replace(model, rules=tuple(rules))


def drawn_for(chosen: random.Random, judge: Judge) -> Trapped:
    """A call that is let through at times."""
    names = sorted(judge.passing)
    name = chosen.choice(names) if names and chosen.randrange(2) else None
    call = drawn_call(chosen, name)
    # What ``--map`` has settled is not let through, and the judge does not know of that.
    return call._replace(settled=frozenset())


def is_plain(verdict: object) -> bool:
    return isinstance(verdict, Verdict) and verdict.action == ALLOW and not verdict.replace


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 64))
def test_what_goes_through_would_have_been_allowed(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(5):
        judge = RuleJudge(plainer(chosen), None)
        for _ in range(20):
            call = drawn_for(chosen, judge)
            if goes_through(judge.passing.get(call.row.name, ()), call.registers):
                assert is_plain(judge.judge(call)), call


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 64))
def test_so_does_what_goes_through_the_filter(seed: int) -> None:
    chosen = random.Random(seed)
    judge = RuleJudge(plainer(chosen), None)
    calls = [drawn_for(chosen, judge) for _ in range(40)]
    for call, passes in zip(calls, through_filter(judge, calls), strict=True):
        # About NULL where that is no path nobody is asked, whatever names were drawn for it.
        if passes and not names_nothing(call):
            assert is_plain(judge.judge(call)), call


def names_nothing(call: Trapped) -> bool:
    return any(
        kind is Kind.PATH_OR_NULL and not call.registers[index]
        for index, (_, kind) in enumerate(call.row.arguments)
    )


def test_the_properties_are_not_about_nothing() -> None:
    chosen = random.Random(1)
    let, kept, parts = 0, 0, 0
    for _ in range(300):
        judge = RuleJudge(plainer(chosen), None)
        for _ in range(10):
            call = drawn_for(chosen, judge)
            forms = judge.passing.get(call.row.name, ())
            passes = goes_through(forms, call.registers)
            let += passes
            kept += call.row.name in judge.calls and not passes
            parts += passes and forms != WHOLE
    assert let > 500
    assert kept > 200
    assert parts > 20


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 64))
def test_handlers_and_rules_have_to_agree(seed: int) -> None:
    chosen = random.Random(seed)
    policy = Policy(plainer(chosen))
    asked: list[str] = []
    for _ in range(chosen.randint(1, 3)):
        words = chosen.sample(["read", "write", "create"], chosen.randint(0, 2))

        @policy.on("open", "rename", "stat", "unlink", access=words)
        def handler(call: object) -> None:
            asked.append(str(call))

    judge = policy.judge(report=lambda _: None)
    for _ in range(40):
        name = chosen.choice(["open", "openat", "openat2", "rename", "stat", "unlink"])
        call = drawn_call(chosen, name)._replace(settled=frozenset())
        if goes_through(judge.passing.get(name, ()), call.registers):
            assert is_plain(judge.judge(call)), call
            assert not asked, call
        asked.clear()


def test_a_condition_that_is_not_known_yet_makes_nothing_go_through() -> None:
    # Of an allow before a denial: one with any further condition need not hold.
    some = {
        "path": (b"/",), "exact": (b"/a",), "real": (b"/",), "argv": ((b"x",),),
        "env": ((b"A", True),), "networks": ("any",), "ports": ((1, 2),), "unix": (b"/",),
        "abstract": (b"x",), "program": (b"/bin/x",), "loader": True,
    }  # fmt: skip
    known = {"on", "access", "family"}
    assert {one.name for one in fields(Match)} == some.keys() | known
    assert saying(Rule(Match(), Action(ALLOW), "")).bare
    for name, value in some.items():
        match = replace(Match(on=("open",)), **{name: value})  # type: ignore[arg-type]
        assert not saying(Rule(match, Action(ALLOW), "")).bare, name


# What does go through


def test_opens_by_what_they_do() -> None:
    found = passing(rule(access=CHANGES, path=(b"/etc",)))
    for name, at in (("open", 1), ("openat", 2)):
        for flags in {
            *(os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3, os.O_CREAT, os.O_TRUNC, os.O_PATH),
            *(os.O_PATH | os.O_CREAT, os.O_TMPFILE, os.O_DIRECTORY, os.O_DIRECTORY | os.O_CLOEXEC),
            *(os.O_NOFOLLOW | os.O_NONBLOCK, os.O_RDONLY | (1 << 40), os.O_APPEND),
        }:
            registers = [0] * 6
            registers[at] = flags
            assert goes_through(found[name], registers) == (open_access(flags) == {"read"}), flags
    assert "openat2" not in found  # its flags are in memory
    assert "creat" not in found
    assert "unlink" not in found
    # Not even asked about.
    assert "stat" not in RuleJudge(PolicyModel((rule(access=CHANGES),))).calls


def test_the_other_way_round() -> None:
    found = passing(rule(access=frozenset({"read"}), path=(b"/etc",)))
    assert goes_through(found["openat"], (0, 0, os.O_WRONLY | os.O_CREAT, 0, 0, 0))
    assert not goes_through(found["openat"], (0, 0, os.O_RDWR, 0, 0, 0))
    assert not goes_through(found["openat"], (0, 0, os.O_PATH, 0, 0, 0))


def test_an_allow_of_everything_ends_the_search() -> None:
    denied = Action(DENY)
    reads = rule(ALLOW, access=frozenset({"read"}))
    found = passing(reads, every=denied)
    assert found["stat"] == found["readlink"] == WHOLE
    assert goes_through(found["open"], (0, 0, 0, 0, 0, 0))
    assert not goes_through(found["open"], (0, 1, 0, 0, 0, 0))
    assert "unlink" not in found
    assert "getsockopt" not in found
    # After a denial it comes too late, and with a condition on the name it need not hold.
    assert "stat" not in passing(rule(path=(b"/a",)), reads, every=denied)
    assert "stat" not in passing(
        replace(reads, match=replace(reads.match, path=(b"/a",))), every=denied
    )
    assert passing(reads, rule(path=(b"/a",)), every=denied)["stat"] == WHOLE


def test_rules_that_only_allow_are_about_nothing() -> None:
    found = passing(rule(ALLOW, path=(b"/a",)), rule(ALLOW, program=(b"/bin/x",)))
    assert found["open"] == found["execve"] == found["execveat"] == found["connect"] == WHOLE


@pytest.mark.parametrize("verb", [ASK, KILL, "redirect", "return", "serve", "new"])
def test_no_other_action_is_an_allow(verb: str) -> None:
    assert not saying(rule(verb)).allows


def test_executions_depend_on_each_other() -> None:
    # What runs in the end is judged by the rules on either call.
    anyway = rule(ALLOW, on=("execve",))
    assert passing(anyway)["execve"] == WHOLE
    assert "execve" not in passing(anyway, rule(on=("execveat",), path=(b"/a",)))


def test_sockets_by_their_family() -> None:
    found = passing(rule(on=("socket",), family=frozenset({"packet", "inet6"})))["socket"]
    for family, kind, passes in (
        (AF_UNIX, 1, True),
        (AF_INET, 1, True),
        (AF_INET, 10, False),  # SOCK_PACKET
        (AF_INET, 10 | os.O_CLOEXEC, False),
        (AF_INET6, 1, False),
        (AF_PACKET, 3, False),
        (AF_PACKET | 1 << 32, 3, False),
        (1 << 31, 1, True),
    ):
        assert goes_through(found, (family, kind, 0, 0, 0, 0)) == passes, (family, kind)
    only = passing(rule(ALLOW, on=("socket",), family=frozenset({"unix"})), socket=Action(DENY))
    assert goes_through(only["socket"], (AF_UNIX, 1, 0, 0, 0, 0))
    assert not goes_through(only["socket"], (AF_INET, 1, 0, 0, 0, 0))
    # No number of a family that there cannot be is taken for "any other one".
    odd = passing(rule(ALLOW, on=("socket",), family=frozenset({-1})), socket=Action(DENY))
    assert "socket" not in odd


def test_only_the_low_bits_of_a_socket_type_tell_its_family() -> None:
    chosen = random.Random(0)
    for _ in range(2000):
        domain, kind = chosen.choice([AF_INET, AF_UNIX, 17, 5]), chosen.randrange(1 << 64)
        assert domains(domain, kind) == domains(domain, kind & 15)
        if domain != AF_INET:
            assert domains(domain, kind) == domains(domain, 0)


@given(st.integers(0, (1 << 64) - 1))
def test_the_bits_that_tell_are_all(flags: int) -> None:
    assert open_access(flags) == open_access(flags & OPEN_TELLING)


@given(st.integers(0, 1 << 64))
def test_no_call_does_more_than_is_possible(seed: int) -> None:
    call = drawn_call(random.Random(seed))
    for argument, words in access_of(call).items():
        assert words <= possible(call.row.name)[argument]


def test_a_handler_sees_all_that_it_is_about() -> None:
    policy = Policy()

    @policy.on("open", access="write")
    def writes(call: object) -> None: ...

    @policy.on("stat")
    def stats(call: object) -> None: ...

    found = policy.judge(report=lambda _: None).passing
    assert goes_through(found["openat"], (0, 0, os.O_RDONLY, 0, 0, 0))
    assert not goes_through(found["openat"], (0, 0, os.O_WRONLY, 0, 0, 0))
    assert "stat" not in found


# Forms


forms = st.lists(
    st.builds(
        Form,
        st.lists(
            st.tuples(st.integers(0, 1), st.integers(1, 7), st.integers(0, 7)).map(
                lambda test: (test[0], test[1], test[1] & test[2])
            ),
            max_size=2,
        ).map(tuple),
        st.booleans(),
    ),
    max_size=4,
).map(tuple)


@given(forms, forms)
def test_both_is_what_either_lets_through(one: Forms, other: Forms) -> None:
    agreed = both(one, other)
    for first in range(8):
        for second in range(8):
            registers = (first, second)
            wanted = goes_through(one, registers) and goes_through(other, registers)
            assert goes_through(agreed, registers) == wanted


def test_long_lists_are_trapped() -> None:
    many = tuple(Form(((0, 255, number),), True) for number in range(9))
    assert both(many, many) == ()


# Calls that name nothing


def test_a_descriptor_in_place_of_a_path() -> None:
    fd, here, empty = 3, 0xFFFF_FF9C, 0x1000
    cases = {
        ("utimensat", (fd, 0, 5, 0)): True,
        ("utimensat", (fd, 1, 5, 0)): False,
        ("utimensat", (here, 0, 5, 0)): False,
        ("utimensat", (here | 7 << 32, 0, 5, 0)): False,
        ("futimesat", (fd, 0, 5)): True,
        ("futimesat", (here, 0, 5)): False,
        ("newfstatat", (fd, 0, 5, empty)): True,
        ("newfstatat", (fd, 0, 5, empty | 1 << 33)): True,
        ("newfstatat", (fd, 0, 5, empty | 0x800)): False,
        ("newfstatat", (fd, 0, 5, 0)): False,
        ("newfstatat", (fd, 1, 5, empty)): False,
        ("newfstatat", (here, 0, 5, empty)): False,
        ("statx", (fd, 0, empty, 5, 5)): True,
        ("statx", (fd, 1 << 32, empty, 5, 5)): False,
        ("acct", (0,)): True,
        ("acct", (1,)): False,
        ("getxattrat", (fd, 0, empty, 5, 5)): True,
        ("openat", (fd, 0, 0, 0)): False,
        ("execveat", (fd, 0, 0, 0, empty)): False,
        ("linkat", (fd, 0, fd, 5, empty)): False,
    }
    by_descriptor = {"utimensat", "futimesat", "getxattrat"}
    for policy in (False, True):
        found = shapes.forms_of(shapes.PATHS, {}, policy=policy)
        program = bpf.disassemble(sandbox_filter(shapes.PATHS, SECRET, forms=found))
        for (name, registers), passes in cases.items():
            wanted = passes and not (policy and name in by_descriptor)
            data = bpf.SeccompData(X86_64[name], abi.AUDIT_ARCH_X86_64, 0, registers)
            answer = bpf.run(program, data).value
            assert (answer == abi.SECCOMP_RET_ALLOW) == wanted, (name, registers, policy)


def test_a_root_directory_never_changes_unseen() -> None:
    judge = RuleJudge(PolicyModel((rule(access=CHANGES, path=(b"/etc",)),)))
    assert "chroot" not in judge.calls
    found = shapes.with_calls({}, judge.calls)
    assert found[X86_64["chroot"]].moves_root
    # And not because a policy could only allow it.
    judge = RuleJudge(PolicyModel((rule(ALLOW, path=(b"/a",)), rule(on=("unlink",)))))
    assert judge.passing["chroot"] == WHOLE
    left = shapes.without(shapes.with_calls({}, judge.calls), judge.passing)
    assert X86_64["chroot"] in left
    assert X86_64["stat"] not in left
    assert X86_64["chroot"] not in shapes.forms_of(left, judge.passing, policy=True)
    assert judge.judge(trapped("chroot", b"/x")) in (ALLOWED, Verdict(ALLOW, "rule"))


def test_limits_still_count_what_a_policy_allows() -> None:
    judge = RuleJudge(PolicyModel((rule(ALLOW, on=("clone", "prlimit64")), rule(on=("unlink",)))))
    assert judge.passing["clone"] == WHOLE
    left = shapes.without(shapes.with_calls({}, judge.calls), judge.passing)
    left = shapes.counted(shapes.counted(left, ("clone",)), NEIGHBOURS)
    assert not left[X86_64["clone"]].judged
    assert left[X86_64["prlimit64"]].names >= 0
    assert not shapes.forms_of(left, judge.passing, policy=True).keys() & {
        X86_64["clone"],
        X86_64["prlimit64"],
    }
    assert all(one.row.name in TABLE or not one.judged for one in left.values())
