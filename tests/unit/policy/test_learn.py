"""Learned policies: they cover what was done, in few rules, and little else."""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.codec.sockaddr import (
    Abstract,
    Inet,
    Inet6,
    Netlink,
    Sockaddr,
    Unix,
    Unnamed,
    Unspec,
    pack,
)
from pinfold.paths import normalise
from pinfold.policy.calls import Argument, Trapped, Verdict
from pinfold.policy.file.load import parse
from pinfold.policy.judging.judge import RuleJudge
from pinfold.policy.learning import facts as noted
from pinfold.policy.learning.facts import Facts, facts_of, settled
from pinfold.policy.learning.folding import (
    Place,
)
from pinfold.policy.learning.learn import Learned, learn
from pinfold.policy.learning.write import write
from pinfold.policy.rules import ALLOW, DENY
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.codec.sockaddr import Address

HOME: Final = b"/home/ann"
CWD: Final = b"/home/ann/src/project"
TMP: Final = b"/tmp"
PLACE: Final = Place(HOME, CWD, TMP)
WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
EXCLUSIVE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL
ENOENT: Final = -errno.ENOENT


def call(
    name: str, *registers: int, values: dict[str, Any] | None = None, **names: bytes
) -> Trapped:
    """A call; each name is that of a path argument, or of the path in an address."""
    row = TABLE[name]
    given = dict(names) | (values or {})
    arguments = tuple(
        Argument(at, argument, kind, given[argument], 0x7000)
        for at, (argument, kind) in enumerate(row.arguments)
        if argument in given
    )
    spelt = {argument: (path,) for argument, path in names.items()}
    full = (*registers, *(0,) * (6 - len(registers)))
    return Trapped(row, full, b"/usr/bin/x", arguments, spelt)


def opened(path: bytes, flags: int = 0, mode: int = 0) -> Trapped:
    return call("openat", 0xFFFFFF9C, 0, flags, mode, path=path)


def executed(path: bytes, *argv: bytes) -> Trapped:
    return call("execve", values={"argv": list(argv), "envp": []}, path=path)


def connected(to: Address, name: str = "connect", **names: bytes) -> Trapped:
    made = call(name, 3, values={"address": Sockaddr(0x7000, pack(to), to)})
    return made._replace(names={argument: (path,) for argument, path in names.items()})


def run(*calls: Trapped | tuple[Trapped, int]) -> Facts:
    """The facts of a run; a call alone succeeded."""
    found = Facts()
    for one in calls:
        made, result = (one, 0) if isinstance(one, Trapped) else one
        found.add(settled(facts_of(made), result))
    return found


def learned(*calls: Trapped | tuple[Trapped, int], **options: Any) -> Learned:
    return learn([run(*calls)], PLACE, **options)


def ready(policy: Learned) -> RuleJudge:
    """The policy after it has been a file."""
    text = write(
        policy.model, comments=policy.comments, variables=PLACE.variables, head=policy.notes
    )
    return RuleJudge(parse(text, environ={"HOME": os.fsdecode(HOME)}, cwd=CWD))


def verdict(policy: Learned, made: Trapped) -> Verdict:
    found = ready(policy).judge(made)
    assert isinstance(found, Verdict)
    return found


def allows(policy: Learned, made: Trapped) -> bool:
    return verdict(policy, made).action == ALLOW


# Files.


def test_what_was_read_may_be_read_and_not_written() -> None:
    policy = learned(opened(b"/etc/hosts"))
    assert allows(policy, opened(b"/etc/hosts"))
    assert not allows(policy, opened(b"/etc/hosts", os.O_RDWR))
    assert not allows(policy, opened(b"/etc/hosts", os.O_RDONLY | os.O_TRUNC))
    assert not allows(policy, opened(b"/etc/passwd"))


def test_what_was_written_may_be_read_too() -> None:
    policy = learned(opened(CWD + b"/out", WRITE))
    assert allows(policy, opened(CWD + b"/out"))
    assert allows(policy, opened(CWD + b"/out", os.O_RDWR))
    assert not allows(policy, call("unlink", path=CWD + b"/out"))
    assert not allows(policy, opened(CWD + b"/other", WRITE))


def test_asking_about_files_is_allowed() -> None:
    policy = learned(opened(b"/etc/hosts"))
    assert allows(policy, call("newfstatat", 0xFFFFFF9C, path=b"/anything"))


def test_system_directories_are_whole() -> None:
    policy = learned(opened(b"/usr/lib/libx.so.1"), opened(b"/lib/y"))
    assert policy.model.rules[0].match.path == (b"/lib/**", b"/usr/**")
    assert allows(policy, opened(b"/usr/share/anything"))
    assert not allows(policy, opened(b"/usr/share/anything", WRITE))
    assert not allows(policy, opened(b"/bin/sh"))


def test_many_names_in_one_directory_are_the_directory() -> None:
    policy = learned(*(opened(b"/opt/app/data/%d.txt" % number) for number in range(4)))
    assert allows(policy, opened(b"/opt/app/data/9.txt"))
    assert allows(policy, opened(b"/opt/app/data/below/9.txt"))
    assert not allows(policy, opened(b"/opt/app/other"))


def test_few_names_stay_names() -> None:
    policy = learned(*(opened(b"/opt/app/data/%d.txt" % number) for number in range(3)))
    assert not allows(policy, opened(b"/opt/app/data/9.txt"))


def test_a_directory_that_was_listed_is_whole() -> None:
    policy = learned(opened(b"/opt/app/data", os.O_DIRECTORY))
    assert allows(policy, opened(b"/opt/app/data", os.O_DIRECTORY))
    assert allows(policy, opened(b"/opt/app/data/new"))


@pytest.mark.parametrize(
    "directory",
    [
        *(
            b"/",
            b"/home",
            HOME,
            HOME + b"/src",
            HOME + b"/.config",
            HOME + b"/.ssh",
            b"/etc",
            b"/tmp",
        ),
        *(b"/var", b"/var/lib", b"/proc", b"/proc/self", b"/dev", b"/root" + b"/.ssh", b"/opt"),
    ],
)
def test_no_policy_is_about_all_below(directory: bytes) -> None:
    children = [opened(directory.rstrip(b"/") + b"/%c" % letter) for letter in b"abcdefgh"]
    policy = learned(opened(directory, os.O_DIRECTORY), *children)
    assert allows(policy, children[0])
    assert not allows(policy, opened(directory.rstrip(b"/") + b"/other"))


def test_a_project_is_one_tree() -> None:
    names = [b"/README", b"/src/a.c", b"/tests/t.c", b"/docs/d.md"]
    policy = learned(*(opened(CWD + name) for name in names))
    assert allows(policy, opened(CWD + b"/src/deep/er.c"))
    assert not allows(policy, opened(HOME + b"/src/other/file"))


@pytest.mark.parametrize(
    "name",
    [b"/.ssh/id_rsa", b"/.netrc", b"/.aws/config", b"/.bash_history", b"/server.pem", b"/a-key"],
)
def test_what_is_named_like_a_secret_stays_a_name(name: bytes) -> None:
    policy = learned(opened(HOME + name))
    assert allows(policy, opened(HOME + name))
    (rule,) = policy.model.rules
    assert rule.match.exact == (HOME + name,)
    assert "secret" in " ".join(policy.comments[0])


def test_a_secret_that_is_not_there_stays_so() -> None:
    policy = learned((opened(HOME + b"/.netrc"), ENOENT))
    found = verdict(policy, opened(HOME + b"/.netrc"))
    assert (found.action, found.errno) == (DENY, errno.ENOENT)


def test_looked_for_and_not_there_is_covered() -> None:
    policy = learned((opened(CWD + b"/.config.local"), ENOENT))
    assert allows(policy, opened(CWD + b"/.config.local"))


def test_writes_fold_to_names_of_one_directory() -> None:
    policy = learned(*(opened(CWD + b"/%c.o" % letter, WRITE) for letter in b"abcd"))
    assert allows(policy, opened(CWD + b"/z.o", WRITE))
    assert not allows(policy, opened(CWD + b"/below/z.o", WRITE))


def test_a_directory_that_the_program_makes_is_its_own() -> None:
    policy = learned(
        call("mkdir", 0, 0o755, path=CWD + b"/build"), opened(CWD + b"/build/a", WRITE)
    )
    assert allows(policy, opened(CWD + b"/build/b/c", WRITE))
    assert allows(policy, call("mkdir", 0, 0o755, path=CWD + b"/build"))
    assert not allows(policy, opened(CWD + b"/built", WRITE))


def test_system_directories_are_never_written_whole() -> None:
    policy = learned(*(opened(b"/usr/local/lib/x/%c" % letter, WRITE) for letter in b"abcdef"))
    assert not allows(policy, opened(b"/usr/local/lib/x/z", WRITE))


def test_both_names_of_a_rename_and_a_link() -> None:
    renamed = call("rename", old_path=CWD + b"/a", new_path=CWD + b"/b")
    linked = call("link", old_path=b"/srv/data/a", new_path=CWD + b"/c")
    policy = learned(renamed, linked)
    assert allows(policy, renamed)
    assert allows(policy, linked)
    assert not allows(policy, call("rename", old_path=CWD + b"/a", new_path=CWD + b"/d"))
    assert not allows(policy, call("link", old_path=b"/etc/shadow", new_path=CWD + b"/c"))


def test_open_files_are_judged_by_name() -> None:
    cut = call("ftruncate", 3, 0)._replace(names={"fd": (CWD + b"/a",)})
    policy = learned(cut)
    assert allows(policy, cut)
    assert not allows(policy, cut._replace(names={"fd": (CWD + b"/b",)}))


def test_open_files_without_a_name() -> None:
    owned = call("fchown", 3, 0, 0)
    assert not allows(learned(opened(b"/etc/hosts")), owned)
    assert allows(learned(owned), owned)


# Names that differ between runs.


def test_a_temporary_file_has_another_name_next_time() -> None:
    first, second = TMP + b"/tmp.Xb3dFg7HjK", TMP + b"/tmp.aaBBccDDee"
    policy = learned(opened(first, EXCLUSIVE, 0o600), opened(first), call("unlink", path=first))
    for made in (opened(second, EXCLUSIVE, 0o600), opened(second), call("unlink", path=second)):
        assert allows(policy, made)
    assert not allows(policy, opened(TMP + b"/other", WRITE))


def test_a_temporary_name_is_in_arguments_too() -> None:
    first = TMP + b"/ccAb12Cd.s"
    policy = learned(
        opened(first, EXCLUSIVE, 0o600), executed(b"/usr/bin/as", b"as", b"-o=x:" + first)
    )
    assert allows(policy, executed(b"/usr/bin/as", b"as", b"-o=x:/tmp/ccZZZZZZ.s"))
    assert not allows(policy, executed(b"/usr/bin/as", b"as", b"-o=x:/tmp/other"))


def test_processes_have_other_numbers() -> None:
    policy = learned(opened(b"/proc/123/stat"))
    assert allows(policy, opened(b"/proc/77777/stat"))
    assert not allows(policy, opened(b"/proc/123/mem"))
    assert not allows(policy, opened(b"/proc/self/stat"))


def test_what_differs_between_two_runs_is_made_up() -> None:
    one = run(opened(CWD + b"/out/run-monday.log", WRITE), opened(CWD + b"/out/fixed", WRITE))
    two = run(opened(CWD + b"/out/run-friday.log", WRITE), opened(CWD + b"/out/fixed", WRITE))
    policy = learn([one, two], PLACE)
    assert allows(policy, opened(CWD + b"/out/run-sunday.log", WRITE))
    assert not allows(policy, opened(CWD + b"/out/run-sunday.txt", WRITE))
    assert not allows(learn([one], PLACE), opened(CWD + b"/out/run-friday.log", WRITE))


# Programs.


def test_programs_with_their_arguments() -> None:
    policy = learned(executed(b"/usr/bin/git", b"git", b"status"))
    assert allows(policy, executed(b"/usr/bin/git", b"git", b"status"))
    assert not allows(policy, executed(b"/usr/bin/git", b"git", b"push"))
    assert not allows(policy, executed(b"/usr/bin/git", b"git", b"status", b"--more"))
    assert not allows(policy, executed(b"/usr/local/bin/git", b"git", b"status"))


def test_another_name_for_itself() -> None:
    policy = learned(executed(b"/usr/bin/bash", b"-bash", b"-l"))
    assert allows(policy, executed(b"/usr/bin/bash", b"-bash", b"-l"))


def test_no_arguments_at_all() -> None:
    policy = learned(executed(b"/usr/bin/true"))
    assert allows(policy, executed(b"/usr/bin/true"))
    assert not allows(policy, executed(b"/usr/bin/true", b"true", b"x"))


def test_paths_and_numbers_in_arguments_vary() -> None:
    policy = learned(
        executed(b"/usr/bin/cc", b"cc", b"-I/a/b", b"--sysroot=/x", b"-j", b"4", b"/a/x.c")
    )
    assert allows(
        policy, executed(b"/usr/bin/cc", b"cc", b"-I/c", b"--sysroot=/y", b"-j", b"8", b"/b/y.c")
    )
    assert not allows(
        policy, executed(b"/usr/bin/cc", b"cc", b"-L/c", b"--sysroot=/y", b"-j", b"8", b"/b/y.c")
    )


def test_many_variants_become_what_they_begin_with() -> None:
    many = [executed(b"/usr/bin/git", b"git", b"log", b"-%c" % letter) for letter in b"abcdef"]
    policy = learned(*many, executed(b"/usr/bin/git", b"git", b"status"))
    assert policy.model.rules[0].match.argv == ((b"git", b"log", b"..."), (b"git", b"status"))


def test_an_argument_that_looks_like_the_rest_is_not() -> None:
    policy = learned(executed(b"/usr/bin/go", b"go", b"..."))
    assert allows(policy, executed(b"/usr/bin/go", b"go", b"..."))
    assert not allows(policy, executed(b"/usr/bin/go", b"go", b"x"))
    assert not allows(policy, executed(b"/usr/bin/go", b"go"))


def test_a_program_that_the_run_wrote_is_pointed_out() -> None:
    policy = learned(opened(CWD + b"/prog", WRITE), executed(CWD + b"/prog", b"./prog"))
    assert "wrote this program itself" in policy.comments[0][0]
    assert not learned(executed(CWD + b"/prog", b"./prog")).comments


def test_what_was_not_found_is_not_found_again() -> None:
    policy = learned(
        (executed(b"/usr/local/bin/git", b"git"), ENOENT), executed(b"/usr/bin/git", b"git")
    )
    found = verdict(policy, executed(b"/usr/local/bin/git", b"git"))
    assert (found.action, found.errno) == (DENY, errno.ENOENT)
    assert allows(policy, executed(b"/usr/bin/git", b"git"))


# Sockets.


@pytest.mark.parametrize(
    "address",
    [
        Inet(IPv4Address("10.0.0.1"), 53),
        Inet(IPv4Address("0.0.0.0"), 53),
        Inet6(IPv6Address("::1"), 80),
        Inet6(IPv6Address("::"), 80),
        Inet6(IPv6Address("::ffff:10.0.0.1"), 80),
        Abstract(b"app-\xff"),
        Abstract(b"padded" + bytes(20)),
        Netlink(0, 1),
        Unspec(),
        Unspec(bytes(14)),
        Unspec(bytes(30)),
    ],
)
@pytest.mark.parametrize("group", ["connect", "bind", "sendto"])
def test_addresses(address: Address, group: str) -> None:
    policy = learned(connected(address, group))
    assert allows(policy, connected(address, group))
    for other in (Inet(IPv4Address("10.0.0.2"), 53), Abstract(b"other"), Unix(b"/run/x")):
        names = {"address": b"/run/x"} if isinstance(other, Unix) else {}
        assert not allows(policy, connected(other, group, **names))


def test_a_unix_socket_by_its_path() -> None:
    made = connected(Unix(b"x.sock"), address=b"/run/app/x.sock")
    policy = learned(made)
    assert allows(policy, made)
    assert not allows(policy, connected(Unix(b"x.sock"), address=b"/run/other/x.sock"))
    assert not allows(policy, connected(Unix(b"x.sock"), "bind", address=b"/run/app/x.sock"))


def test_an_address_that_cannot_be_named_is_said() -> None:
    policy = learned(connected(Unnamed(), "bind"))
    assert not policy.model.rules
    assert "not covered" in policy.notes[0]


def test_a_port_that_the_kernel_chose_is_another_next_time() -> None:
    host = IPv4Address("127.0.0.1")
    policy = learned(connected(Inet(host, 0), "bind"), connected(Inet(host, 41234)))
    assert allows(policy, connected(Inet(host, 50000)))
    assert not allows(policy, connected(Inet(host, 22)))


def test_other_families_of_sockets() -> None:
    policy = learned(call("socket", 2, 1, 0))
    assert allows(policy, call("socket", 2, 2, 0))
    assert allows(policy, call("setsockopt", 3, 1, 2))
    found = verdict(policy, call("socket", 17, 3, 0))
    assert (found.action, found.errno) == (DENY, errno.EAFNOSUPPORT)


# A policy that is there.


def test_an_addition_takes_nothing_away() -> None:
    calls = [opened(b"/etc/hosts"), call("socket", 2, 1, 0), call("mkdir", path=CWD + b"/a")]
    policy = learned(*calls, addition=True)
    assert not policy.model.defaults
    assert all(rule.action.verb == ALLOW for rule in policy.model.rules)


def test_without_folding_names_stay_names() -> None:
    calls = [opened(b"/usr/lib/%d" % number) for number in range(9)]
    made = call("mkdir", 0, 0o755, path=CWD + b"/build")
    policy = learned(*calls, made, opened(CWD + b"/build/a", WRITE), fold=False)
    assert all(allows(policy, one) for one in calls)
    assert not any(rule.match.path for rule in policy.model.rules)


# All at once.

BYTES: Final = st.binary(min_size=1, max_size=6).filter(
    lambda data: not {0, 0x2F} & set(data) and data not in {b".", b".."}
)
WORD: Final = st.sampled_from(
    (
        b"a",
        b"b",
        b"c.txt",
        b"tmpab12cd_3",
        b"x-Ab12Cd",
        b".ssh",
        b"key.pem",
        b"12345",
        b"*",
        b"[",
        b"$x",
    )
)
NAMES: Final = st.tuples(
    st.sampled_from(
        (b"", b"/usr", b"/usr/lib", HOME, CWD, TMP, b"/etc", b"/proc", b"/opt/x/y", b"/var/lib/z")
    ),
    st.lists(st.one_of(WORD, BYTES), min_size=1, max_size=3),
).map(lambda pair: normalise(pair[0] + b"/" + b"/".join(pair[1])))
OPENS: Final = st.builds(
    opened,
    NAMES,
    st.sampled_from((0, os.O_DIRECTORY, os.O_RDWR, WRITE, EXCLUSIVE, os.O_TRUNC, os.O_PATH)),
    st.sampled_from((0, 0o600, 0o644)),
)
PATHS: Final = st.builds(
    lambda name, path: call(name, 0, 0o700, path=path),
    st.sampled_from(
        ("mkdir", "unlink", "rmdir", "chmod", "truncate", "chown", "chdir", "getxattr")
    ),
    NAMES,
)
PAIRS: Final = st.builds(
    lambda name, old, new: call(name, old_path=old, new_path=new),
    st.sampled_from(("rename", "link")),
    NAMES,
    NAMES,
)
ARGUMENTS: Final = st.lists(st.one_of(WORD, BYTES, NAMES, st.just(b"...")), max_size=4)
EXECS: Final = st.builds(lambda path, argv: executed(path, *argv), NAMES, ARGUMENTS)
PEERS: Final = st.builds(
    connected,
    st.one_of(
        st.builds(Inet, st.integers(0, (1 << 32) - 1).map(IPv4Address), st.integers(0, 65535)),
        st.builds(Inet6, st.integers(0, (1 << 128) - 1).map(IPv6Address), st.integers(0, 65535)),
        st.builds(Abstract, st.binary(max_size=8)),
        st.builds(Netlink, st.just(0), st.integers(0, 9)),
    ),
    st.sampled_from(("connect", "bind", "sendto")),
)
SOCKETS: Final = st.builds(
    lambda path, name: connected(Unix(b"x"), name, address=path),
    NAMES,
    st.sampled_from(("connect", "bind", "sendto")),
)
CALLS: Final = st.lists(st.one_of(OPENS, PATHS, PAIRS, EXECS, PEERS, SOCKETS), max_size=12)


@settings(max_examples=200, deadline=None)
@given(CALLS, st.booleans(), st.booleans())
def test_a_policy_covers_its_run(calls: Sequence[Trapped], twice: bool, fold: bool) -> None:
    runs = [run(*calls), run(*reversed(calls))] if twice else [run(*calls)]
    judge = ready(learn(runs, PLACE, fold=fold))
    for made in calls:
        assert judge.judge(made).action == ALLOW, made  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None)
@given(CALLS)
def test_a_policy_guards_what_was_not_there(calls: Sequence[Trapped]) -> None:
    judge = ready(learned(*calls))
    for made in (
        opened(b"/etc/shadow", os.O_RDWR),
        opened(HOME + b"/.ssh/id_ed25519"),
        executed(b"/usr/bin/never", b"never"),
        call("unlink", path=HOME + b"/precious"),
        call("rename", old_path=b"/usr/bin/env", new_path=b"/usr/bin/vne"),
        connected(Unix(b"x"), address=b"/run/docker.sock"),
    ):
        assert judge.judge(made).action == DENY, made  # type: ignore[union-attr]


def test_a_run_in_a_home_that_is_the_root() -> None:
    place = Place(b"/", b"/", b"/tmp")
    policy = learn([run(opened(b"/data/x"))], place)
    assert RuleJudge(policy.model).judge(opened(b"/data/x")) == Verdict(ALLOW, "learned: read")


# Facts.


def test_the_same_thing_is_one_fact() -> None:
    found = run(*(opened(b"/etc/hosts") for _ in range(100)))
    assert len(found) == 1


def test_facts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "MOST", 10)
    found = run(*(opened(b"/w/%d" % number) for number in range(20)))
    assert len(found) == 10
    assert found.full


def test_long_arguments_are_cut() -> None:
    found = run(executed(b"/bin/x", b"x", *(b"a" * 1000 for _ in range(100))))
    (fact,) = found
    assert fact.rest
    policy = learn([found], PLACE)
    assert allows(policy, executed(b"/bin/x", b"x", *(b"a" * 1000 for _ in range(50))))


@pytest.mark.parametrize("flags", [0, EXCLUSIVE])
@pytest.mark.parametrize("result", [0, ENOENT, -errno.EEXIST])
def test_what_was_made_was_made(flags: int, result: int) -> None:
    (fact,) = run((opened(b"/tmp/x", flags, 0o600), result))
    assert fact.private == (flags != 0 and result == 0)
    assert fact.errno == (errno.ENOENT if result == ENOENT else 0)


def test_both_meanings_of_a_path_are_noted() -> None:
    made = opened(b"/w/a")._replace(names={"path": (b"/w/a", b"/v/a")})
    assert [fact.name for fact in run(made)] == [b"/w/a", b"/v/a"]
