"""Policy files: what they become, and what is said of those that cannot be meant."""

from __future__ import annotations

import os
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Unix
from pinfold.errors import PolicyError
from pinfold.paths import normalise
from pinfold.policy.file.load import BUILT_IN, load, merge, parse
from pinfold.policy.file.variables import Form, SubstitutionError, substitute
from pinfold.policy.globs import GlobSet, Pattern
from pinfold.policy.model import Action, Limits, Match, PolicyModel, Rule
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls.groups import GROUPS, names
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

ENVIRON = {"HOME": "/home/u", "USER": "u", "TMPDIR": "/var/tmp", "EMPTY": "", "LIB": "/opt/lib/"}


def model(text: str, **options: Any) -> PolicyModel:
    options.setdefault("environ", ENVIRON)
    options.setdefault("cwd", b"/work dir")
    return parse("version = 1\n" + text, "p.toml", **options)


def rule(text: str, **options: Any) -> Rule:
    (only,) = model("[[rule]]\n" + text, **options).rules
    return only


def match(text: str, **options: Any) -> Match:
    return rule(text + '\naction = "deny"', **options).match


def action(text: str, **options: Any) -> Action:
    return rule(text, **options).action


def wrong(text: str, **options: Any) -> tuple[str, str]:
    """Returns the error's first line, and what its caret points at."""
    with pytest.raises(PolicyError) as caught:
        model(text, **options)
    head, line, caret = str(caught.value).split("\n")
    assert head.startswith("p.toml:")
    place, _, problem = head.removeprefix("p.toml:").partition(": ")
    number, _, column = place.partition(":")
    whole = ("version = 1\n" + text).split("\n")[int(number) - 1]
    if len(whole) <= 120:
        assert line == "  " + whole
        assert caret.index("^") == int(column) + 1
    assert caret.strip() == "^"
    return problem, line[caret.index("^") :]


# What a file becomes.


def test_the_least() -> None:
    digest = sha256(b"version = 1\n").hexdigest()
    assert model("") == PolicyModel(files=("p.toml",), digests=(digest,))


def test_the_head() -> None:
    found = model(
        'description = "d"\nreal = true\nhandler_seconds = 5\n[audit]\non_loss = "continue"'
    )
    assert (found.description, found.real) == ("d", True)
    assert (found.handler_seconds, found.on_audit_loss) == (5.0, "continue")


def test_defaults() -> None:
    found = model(
        '[defaults]\n"*" = "allow"\nexec = "deny"\nopen = "ENOENT"\nsend = "kill"\nbind = "ask"'
    )
    assert found.defaults == {
        "*": Action("allow"),
        "exec": Action("deny", 13),
        "open": Action("deny", 2),
        "send": Action("kill"),
        "bind": Action("ask"),
    }


def test_limits() -> None:
    text = 'tasks = 4\nseconds = 1\ncpu = 2\nmemory = "512M"\nfiles = 9\nfile_size = 7\ncore = 0'
    assert model("[limits]\n" + text).limits == Limits(4, 1.0, 2, 512 << 20, 9, 7, 0)
    assert model('[limits]\nmemory = "3K"\ncore = "2G"').limits == Limits(memory=3072, core=2 << 30)


def test_landlock() -> None:
    found = model('[landlock]\nro = ["/usr", "/lib"]\nrw = "${CWD}"')
    assert (found.ro, found.rw) == ((b"/usr", b"/lib"), (b"/work dir",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('on = "send"', Match(on=names("send"))),
        ('on = ["connect", "openat", "connect"]', Match(on=("connect", "openat"))),
        ('path = "/a/*"', Match(path=(b"/a/*",))),
        ('path = ["/a", "**/b"]', Match(path=(b"/a", b"**/b"))),
        ('exact = "/etc/*"', Match(exact=(b"/etc/*",))),
        ('real = "${HOME}/x"', Match(real=(b"/home/u/x",))),
        ('path = "/"\naccess = "read"', Match(path=(b"/",), access=frozenset({"read"}))),
        ('access = ["read", "exec"]', Match(access=frozenset({"read", "exec"}))),
        ('argv = ["git", "..."]', Match(argv=((b"git", b"..."),))),
        ('argv = [["a"], ["b", "*"]]', Match(argv=((b"a",), (b"b", b"*")))),
        (
            'env = { A = true, B = false, C = "1*" }',
            Match(env=((b"A", True), (b"B", False), (b"C", b"1*"))),
        ),
        ('family = "inet"', Match(family=frozenset({"inet"}))),
        ('family = [2, 16, "1", 44]', Match(family=frozenset({"inet", "netlink", "unix", 44}))),
        ('address = "10.0.0.0/8"', Match(networks=(ip_network("10.0.0.0/8"),))),
        ('address = ["::1"]', Match(networks=(ip_network("::1/128"),))),
        ('port = [80, "8000-8080", "22"]', Match(ports=((80, 80), (8000, 8080), (22, 22)))),
        ('unix = "/run/*.sock"', Match(unix=(b"/run/*.sock",))),
        ('abstract = "app-*"', Match(abstract=(b"app-*",))),
        ('program = "/usr/bin/*"', Match(program=(b"/usr/bin/*",))),
        ("loader = false", Match(loader=False)),
    ],
)
def test_conditions(text: str, expected: Match) -> None:
    assert match(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('on = "open"\naction = "allow"', Action("allow")),
        ('on = "open"\naction = "ask"', Action("ask")),
        ('on = "open"\naction = "kill"', Action("kill")),
        ('on = "open"\naction = "deny"', Action("deny", 13)),
        ('on = "open"\naction = "deny"\nerrno = "ENOENT"', Action("deny", 2)),
        ('on = "chown"\naction = "return"', Action("return")),
        ('on = "chown"\naction = "return"\nvalue = 7', Action("return", value=7)),
        ('on = "open"\naction = "serve"\ncontent = "é$$"', Action("serve", data="é$".encode())),
        ('path = "/a"\naction = "redirect"\nto.path = "/x"', Action("redirect", path=b"/x")),
        (
            """on = "exec"
action = "redirect"
to = { argv = ["a", "..."], set_env = { A = "b" }, unset_env = ["C"] }""",
            Action(
                "redirect", argv=(b"a", b"..."), set_env=((b"A", b"b"),), unset_env=(b"C",)
            ),
        ),
        *(
            (f'on = "connect"\naction = "redirect"\nto.address = "{text}"', Action(
                "redirect", address=address
            ))
            for text, address in (
                ("127.0.0.1:80", Inet(ip_network("127.0.0.1").network_address, 80)),  # type: ignore[arg-type]
                ("[::1]:80", Inet6(ip_network("::1").network_address, 80)),  # type: ignore[arg-type]
                ("inet:127.0.0.1:80", Inet(ip_network("127.0.0.1").network_address, 80)),  # type: ignore[arg-type]
                ("unix:/run/x", Unix(b"/run/x")),
                ("unix:@x", Abstract(b"x")),
            )
        ),
    ],
)  # fmt: skip
def test_actions(text: str, expected: Action) -> None:
    assert action(text) == expected


def test_names_and_places_of_rules() -> None:
    one, two = model(
        '\n[[rule]]\nname = "x"\non = "open"\naction = "deny"\n'
        '[[rule]]\non = "open"\naction = "kill"'
    ).rules
    assert (one.name, one.source) == ("x", "p.toml:3")
    assert (two.name, two.source) == ("p.toml:7", "p.toml:7")


# Variables.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOME}/x", b"/home/u/x"),
        ("${CWD}", b"/work dir"),
        ("${USER}", b"u"),
        ("${UID}", str(os.getuid()).encode()),
        ("${TMPDIR}/a", b"/var/tmp/a"),
        ("${POLICY_DIR}/a", b"/policies/a"),
        ("${env:LIB}x", b"/opt/lib/x"),
        ("${env:NONE:-d}", b"d"),
        ("${env:EMPTY:-d}", b"d"),
        ("${env:NONE:-}", b""),
        ("${env:NONE:-${HOME}/.cache}/x", b"/home/u/.cache/x"),
        ("${env:NONE:-a$$b}", b"a$b"),
        ("$$${USER}$$", b"$u$"),
        ("${A}-${B}", b"1-1/2"),
        ("é${USER}", "éu".encode()),
    ],
)
def test_variables(text: str, expected: bytes) -> None:
    served = 'on = "open"\naction = "serve"\ncontent = '
    found = model(
        f'[variables]\nA = "1"\nB = "${{A}}/2"\n[[rule]]\n{served}"{text}"', directory=b"/policies"
    )
    assert found.rules[0].action.data == expected


def test_built_in_variables_without_an_environment() -> None:
    found = match('path = "${TMPDIR}/x"', environ={})
    assert found.path == (b"/tmp/x",)
    assert match('path = "/${USER}"', environ={"LOGNAME": "l"}).path == (b"/l",)


@pytest.mark.parametrize("cwd", [b"/", b"/a", b"//a//b/", b"/\xff"])
def test_directories_have_no_slash_too_many(cwd: bytes) -> None:
    normal = normalise(cwd)
    below = normal.rstrip(b"/") + b"/x"
    found = match('path = ["${CWD}/x", "${CWD}", "${W}/y"]', cwd=cwd, variables={"W": "//w//"})
    assert found.path == (below, normal, b"/w/y")
    assert match('exact = ["${CWD}/x", "${CWD}"]', cwd=cwd).exact == (below, normal)
    text = '[variables]\nW = "${CWD}/out"\n[[rule]]\npath = "${W}/*"\naction = "deny"'
    assert model(text, cwd=cwd).rules[0].match.path == (normal.rstrip(b"/") + b"/out/*",)
    argv = match('argv = ["a", "${CWD}/x"]', cwd=normal).argv
    assert argv == ((b"a", below),)


components = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
odd = st.lists(st.sampled_from(list(b"[]*?\\a-!^$\xff.{}")), min_size=1, max_size=8).map(bytes)
directories = st.lists(
    st.one_of(components, odd.filter(lambda name: name not in {b".", b".."})), max_size=3
).map(lambda parts: b"/" + b"/".join(parts))


@settings(max_examples=500)
@given(directories, directories)
@example(b"/[a]*", b"/a")
@example(b"/\\", b"/")
@example(b"/a-b[!c]?", b"/")
def test_any_directory_stands_for_itself_alone(cwd: bytes, other: bytes) -> None:
    found = match('path = ["${CWD}", "${CWD}/*.txt", "${CWD}/out"]\nexact = "${CWD}"', cwd=cwd)
    root = cwd.rstrip(b"/")
    assert found.exact == (cwd,)
    itself, texts, out = (GlobSet([pattern]) for pattern in found.path)
    assert itself.match(cwd) == 0
    assert itself.match(root + b"/below") == 0
    assert texts.match(root + b"/x.txt") == 0
    assert texts.match(root + b"/x.tx") < 0
    assert out.match(root + b"/out") == out.match(root + b"/out/y") == 0
    assert out.match(root + b"/outer") < 0
    # Nothing else: as a name without wildcards covers exactly what lies below it.
    below = other == cwd or other.startswith(root + b"/")
    assert (itself.match(other) == 0) is below
    if other != b"/":
        assert (out.match(other + b"/out") == 0) is (
            (other + b"/out") == root + b"/out" or (other + b"/out").startswith(root + b"/out/")
        )


@settings(max_examples=300)
@given(st.binary(max_size=8).filter(lambda value: b"\0" not in value), st.binary(max_size=8))
@example(b"*", b"x")
@example(b"...", b"x")
@example(b"a]", b"a")
def test_any_value_stands_for_itself_in_patterns(value: bytes, other: bytes) -> None:
    variables = {"V": os.fsdecode(value)}
    found = match('argv = ["${V}", "a${V}b"]', variables=variables).argv[0]
    assert found[0] != b"..."
    assert Pattern(found[0]).match(value)
    assert Pattern(found[0]).match(other) is (value == other)
    assert Pattern(found[1]).match(b"a" + value + b"b")
    assert Pattern(found[1]).match(b"a" + other + b"b") is (value == other)
    found = match('env = { A = "${V}" }', variables=variables).env[0][1]  # type: ignore[assignment]
    assert Pattern(found).match(value)  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=1))
@example(b"a-z", b"m")
@example(b"^", b"x")
@example(b"]", b"]")
def test_a_value_in_a_set_is_its_bytes(value: bytes, one: bytes) -> None:
    if b"\0" in value or b"/" in value:
        return
    text = substitute("[x${V}]", lambda _: value, Form.PATTERN)
    assert Pattern(text).match(one) is (one in value + b"x")
    assert GlobSet([b"/" + text]).match(b"/" + one) == (0 if one in value + b"x" else -1)


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path))
@example(b"@a\\x00")
def test_any_value_stands_for_itself_in_an_address(path: bytes) -> None:
    text = 'on = "connect"\naction = "redirect"\nto.address = "unix:/${V}"'
    found = action(text, variables={"V": os.fsdecode(path)})
    assert found.address == Unix(b"/" + path)


@given(st.text(max_size=30))
def test_texts_without_dollars_are_what_they_are(text: str) -> None:
    text = text.replace("$", "")
    assert substitute(text, lambda name: name.encode()) == text.encode()
    assert substitute(text + "$$", lambda name: name.encode()) == text.encode() + b"$"


@settings(max_examples=300)
@given(st.text(st.sampled_from("${}:-AaenvHOME_\\*["), max_size=20), st.sampled_from(list(Form)))
def test_any_text_is_substituted_or_refused_at_a_place_in_it(text: str, form: Form) -> None:
    try:
        substitute(text, lambda name: name.encode(), form)
    except SubstitutionError as error:
        found = text[error.at]
    else:
        found = "$"
    assert found == "$"


# Errors: what is said, and where the caret is.

ERRORS = [
    ("incldue = 3", "incldue: there is no such key; did you mean include", "incldue"),
    ("description = 3", "description: expected a text, not a whole number", "3"),
    ('description = ""\nreal = "yes"', "real: expected true or false, not a text", '"yes"'),
    ("handler_seconds = 0", "must be more than 0", "0"),
    ("handler_seconds = inf", "at most 1000000000", "inf"),
    ("handler_seconds = nan", "must be", "nan"),
    ("handler_seconds = 07:32:00", "expected a number, not a time", "07:32"),
    ('[audit]\non_loss = "contnue"', "there is no on_loss 'contnue'; did you mean continue", '"'),
    ("rule = 3", "rules are an array of tables: write `[[rule]]`", "3"),
    ('[rule]\non = "open"', "rules are an array of tables: write `[[rule]]`", "[rule]"),
    ('[[rule]]\non = "open"', "there is no `action`; write action =", "[[rule]]"),
    ('[[rule]]\naction = "dney"', "there is no action 'dney'; did you mean deny", '"dney"'),
    ('[[rule]]\naction = "deny"', "is about nothing", "[[rule]]"),
    ('[[rule]]\nname = " "\non = "open"\naction = "deny"', "this name is empty", '" "'),
    ('[[rule]]\n"on\\u001b" = 1\naction = "deny"', "there is no such key", '"on'),
    # on
    ("on = []", "on: this is empty", "[]"),
    ('on = ["open", "conect"]', "'conect'; did you mean connect", '"conect"'),
    ('on = "ptrace"\naction = "allow"', "ptrace is refused in every sandbox", '"ptrace"'),
    ('on = "ring"\naction = "ask"', "ring is refused in every sandbox", '"ring"'),
    # names
    ("path = []", "path: this is empty; give a list", "[]"),
    ("path = 3", "expected a text or a list, not a whole number", "3"),
    ('path = "a/b"', "begins with `/`, `**/` or `${CWD}/`", "a/b"),
    ('path = ["/a", "/b/[c"]', "rule[0].path[1]: `[` is never closed", "[c"),
    ("path = '/é/a\\'", "escapes nothing", "\\'"),
    ('path = "/a//b"', "empty component", '//b"'),
    ('path = "/a/../b"', "`.` or `..`", "../b"),
    ('path = "/a\\u0000"', "NUL", '"/a'),
    ('path = "/a\\u005b"', "`[` is never closed", '"/a'),
    ('path = "${CWD}/[c"', "(at byte 11 of `/work dir/[c`)", "${CWD}"),
    ('real = "/a/"', "empty component", '/"'),
    ('exact = "etc"', "relative to what", "etc"),
    ('exact = "/a/../b"', "write it without detours: `/b`", "/a/../b"),
    ('exact = "/a\\u0000"', "NUL", '"/a'),
    (f'exact = "/{"a" * 4095}"', "no path has more than 4095 bytes", "/aaa"),
    ('access = "wirte"', "there is no access 'wirte'; did you mean write", '"wirte"'),
    # exec
    ('argv = "git push"', 'write a list, an argument each: ["git"', '"git push"'),
    ("argv = []", "this is empty", "[]"),
    ('argv = ["a", ["b"]]', "rule[0].argv[0]: a text among lists", '"a"'),
    ('argv = [["a"], []]', "rule[0].argv[1]: an empty pattern", "[]]"),
    ('argv = ["a", "[b"]', "`[` is never closed", '[b"'),
    ('argv = ["a\\u0000"]', "NUL", '"a'),
    ("env = {}", "this is empty", "{}"),
    ('env = "A"', "write a table", '"A"'),
    ("env = { A = true, B = 1 }", "rule[0].env.B: expected", "1 }"),
    ('env = { "A=B" = true }', "without `=`", "true"),
    ('env = { A = "[" }', "never closed", '[" }'),
    # addresses
    ('family = "inte"', "'inte'; did you mean", '"inte"'),
    ("family = 65536", "they are 0 to 65535", "65536"),
    ("family = -1", "they are 0 to 65535", "-1"),
    ('address = "10.0.0.1/8"', "write 10.0.0.0/8 for the network, or 10.0.0.1", '"10.'),
    ('address = ["::1", "localhost"]', "names are not looked up", '"localhost"'),
    ('address = "fe80::1%2/64"', "an interface, here %2, is", '"fe80'),
    ("port = 65536", "at most 65535", "65536"),
    ("port = [true]", "rule[0].port[0]: expected a whole number or a text", "true"),
    ('port = "http"', "'http' is no port; write a number", '"http"'),
    ('port = "9-8"', 'this range is empty; write "8-9"', '"9-8"'),
    ('port = "1-70000"', "70000 is no port", '"1-'),
    ('unix = "@x"', "begins with `/`", "@x"),
    ('abstract = "["', "never closed", "["),
    # conditions that nothing can meet
    ('on = "connect"\nargv = ["a"]', "rule[0].argv: connect runs no program", "argv"),
    ('on = "rename"\nport = 80', "rule[0].port: none of rename, renameat, renameat2 has a", "port"),
    ('on = ["kill"]\npath = "/a"', "rule[0].path: kill has no path", "path"),
    ('on = "stat"\nfamily = "inet"', "rule[0].family: none of", "family"),
    ('on = "stat"\naccess = "write"', "no such call can write anything", "access"),
    ('on = "unlinkat"\npath = "/a"\naccess = ["read", "exec"]', "does not read or exec", "access"),
    ('path = "/a"\naddress = "::1"', "address and path are never about the same thing", "address"),
    ('unix = "/a"\nabstract = "b"', "abstract and unix are never", "abstract"),
    ('unix = "/a"\nport = 1', "unix and port are never", "unix"),
    ('family = "inet"\nabstract = "b"', "family and abstract are never", "family"),
    # actions
    ('on = "open"\naction = "allow"\nerrno = "EPERM"', "only `deny` fails a call", "errno"),
    ('on = "open"\naction = "deny"\nto.path = "/x"', "only `redirect` has somewhere", "to.path"),
    ('on = "open"\naction = "deny"\nvalue = 0', "only `return` has a result", "value"),
    ('on = "open"\naction = "deny"\ncontent = ""', "only `serve` has a content", "content"),
    ('on = "open"\naction = "deny"\ncontent_file = ""', "only `serve` has", "content_file"),
    ('on = "open"\nerrno = "EPREM"', "'EPREM'; did you mean EPERM", '"EPREM"'),
    ('on = "open"\nerrno = 1', "expected a text", "1"),
    ('on = "open"\naction = "return"\nvalue = -1', "must be at least 0", "-1"),
    ('on = "exec"\naction = "return"', "execve never returns a result", '"return"'),
    ('path = "/a"\naction = "return"', "execve never returns a result", '"return"'),
    ('on = "open"\naction = "serve"', "needs one of `content` and `content_file`", '"serve"'),
    (
        'on = "open"\naction = "serve"\ncontent = ""\ncontent_file = "x"',
        "needs one of `content` and `content_file`",
        '"serve"',
    ),
    ('on = "stat"\naction = "serve"\ncontent = ""', "stat opens no file", '"stat"'),
    ('path = "/a"\naction = "serve"\ncontent = ""', 'write on = "open"', '"serve"'),
    ('on = "open"\naction = "serve"\ncontent_file = "no"', "relative to what", '"no"'),
    (
        'on = "open"\naction = "serve"\ncontent_file = "/nonexistent-pinfold"',
        "cannot be read: No such file",
        '"/non',
    ),
    ('on = "open"\naction = "redirect"', "where to?", '"redirect"'),
    ('on = "open"\naction = "redirect"\nto = {}', "nothing is replaced", "{}"),
    ('on = "open"\naction = "redirect"\nto = 3', "write a table: { path", "3"),
    ('on = "open"\naction = "redirect"\nto.path = "x"', "relative to what", 'x"'),
    ('on = "open"\naction = "redirect"\nto.pth = "x"', "did you mean path", "pth"),
    ('on = "open"\naction = "redirect"\nto.argv = ["x"]', "openat2, creat runs a program", "to"),
    ('on = "exec"\naction = "redirect"\nto.argv = []', "write arguments", "[]"),
    ('on = "exec"\naction = "redirect"\nto.argv = ["...", "..."]', "can stand here once", '["'),
    ('on = "exec"\naction = "redirect"\nto.set_env = { A = 1 }', "set_env.A: expected a text", "1"),
    ('on = "exec"\naction = "redirect"\nto.unset_env = ["A=B"]', "without `=`", '"A=B"'),
    ('on = "exec"\naction = "redirect"\nto.address = "1.2.3.4:5"', "has a socket address", "to."),
    ('on = ["open", "exec"]\naction = "redirect"\nto.argv = ["x"]', "open has nothing that", "to."),
    ('on = "connect"\naction = "redirect"\nto.address = "nowhere"', "not a socket address", '"now'),
    ('on = "connect"\naction = "redirect"\nto.address = "unix:x"', "begins with `/`", '"unix'),
    ('on = "connect"\naction = "redirect"\nto.address = "1.2.3.4:0"', "port 0", '"1.2'),
    ('on = "connect"\naction = "redirect"\nto.address = "1.2.3.4"', "not a socket address", '"1.2'),
    # other tables
    ("[limits]\ncpu = 0", "limits.cpu: this must be at least 1", "0"),
    ("[limits]\nmemory = 0", "no memory", "0"),
    ("[limits]\nseconds = -1.5", "more than 0", "-1.5"),
    ('[limits]\nmemory = "5MB"', "write bytes as a number", '"5MB"'),
    ('[limits]\nmemory = "9999999999G"', "more than there can be", '"999'),
    (f"[limits]\ntasks = {1 << 70}", f"at most {(1 << 63) - 1}", "118"),
    ('[defaults]\nopenat = "deny"', "defaults are for groups: write open", "openat"),
    ('[defaults]\nread = "deny"', "make it a rule", "read"),
    ('[defaults]\nopn = "deny"', "there is no group `opn`; did you mean open", "opn"),
    ('[defaults]\nopen = "EPREM"', "did you mean EPERM", '"EPREM"'),
    ('[defaults]\nopen = "redirect"', "a default cannot be `redirect`", '"redirect"'),
    ("[defaults]\nopen = 1", "defaults.open: expected a text", "1"),
    ('[defaults]\nring = "allow"', "ring is refused in every sandbox", '"allow"'),
    ('[landlock]\nro = ["."]', "landlock.ro[0]: relative to what", '."'),
    # variables
    ('[variables]\nHOME = "x"', "built in", "HOME"),
    ('[variables]\n"a b" = "x"', "letters, digits", '"a b"'),
    ('[variables]\nA = "${B}"\nB = ""', "further down; move it up", "${B}"),
    ("[variables]\nA = 1", "variables.A: expected a text", "1"),
    ('path = "${HMOE}/x"', "there is no variable HMOE; did you mean HOME", "${HMOE}"),
    ('path = "/a/$b"', "write `$$` for the sign", "$b"),
    ('path = "/a/${b"', "this variable is not closed", "${b"),
    ('path = "/a/${HOME:-x}"', "only `${env:NAME:-text}` has a default", "${HOME"),
    ('path = "${env:NONE}/x"', "NONE is not set in the environment", "${env"),
    ('path = "${env:EMPTY}/x"', "EMPTY is empty in the environment", "${env"),
    ("path = '/\\${HOME}/x'", "cannot escape a variable", "${HOME}"),
    ('path = "${POLICY_DIR}/x"', "not in a file", "${POLICY"),
    # include
    ('include = "builtin:agnt"', "no ready policy 'agnt'; did you mean agent", '"builtin'),
    ('include = ["x.toml"]', "relative to what", '"x.toml"'),
    ('include = "/nonexistent-pinfold"', "include: cannot be read: No such file", '"/non'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem", "pointed"), ERRORS)
def test_errors(text: str, problem: str, pointed: str) -> None:
    begins = text.partition(" ")[0]
    if begins in Match.__dataclass_fields__ or begins in {"address", "port"}:
        text = f"[[rule]]\n{text}" + ("" if "action" in text else '\naction = "deny"')
    said, at = wrong(text)
    assert problem in said
    assert at.startswith(pointed)


@pytest.mark.parametrize("call", UNJUDGED)
def test_calls_that_cannot_be_judged(call: str) -> None:
    said, at = wrong(f'[[rule]]\non = "{call}"\naction = "deny"')
    assert f"{call} cannot be judged: {UNJUDGED[call]}" in said
    assert at == f'"{call}"'


@pytest.mark.parametrize("call", sorted({row.name for row in REFUSED if row.argument < 0}))
def test_refused_calls_can_be_denied_and_nothing_else(call: str) -> None:
    said, _ = wrong(f'[[rule]]\non = "{call}"\naction = "allow"')
    assert "refused in every sandbox" in said
    assert match(f'on = "{call}"').on[0] == call


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_can_be_a_default_and_a_rule(group: str) -> None:
    assert model(f'[defaults]\n{group} = "deny"').defaults == {group: Action("deny")}
    assert match(f'on = "{group}"').on == GROUPS[group]


@pytest.mark.parametrize("call", TABLE)
def test_every_call_of_the_table_can_have_a_rule(call: str) -> None:
    assert call in match(f'on = "{call}"').on


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_variables_stay(name: str) -> None:
    with pytest.raises(PolicyError, match="built in"):
        model("", variables={name: "x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "p.toml:1:1: there is no `version`; write version = 1"),
        ("version = 2", "p.toml:1:11: version: there is no version 2; write 1"),
        ("x", "p.toml:1:2: not TOML: Expected '='"),
        ('version = 1\nx = "', "p.toml:2:6: not TOML: Unterminated string"),
        ("version = 1\nversion = 1", "p.toml:2:12: not TOML: Cannot overwrite a value"),
        ("version = 1\nx = " + "[" * 20_000, "p.toml:2:5: nested too deeply"),
        ("version = 1\nx = " + "9" * 5000, "p.toml:2:5: too many digits"),
        ("version = 1\r\nx = \r\n", "p.toml:2:5: not TOML: Invalid value"),
    ],
)
def test_texts_that_are_no_policy(text: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text, "p.toml")
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).split("\n")) <= 3


@settings(max_examples=300)
@given(st.sampled_from(ERRORS), st.integers(0, 200), st.text(max_size=3))
def test_whatever_is_written_is_a_policy_or_an_error(
    case: tuple[str, str, str], cut: int, put: str
) -> None:
    text = "version = 1\n[[rule]]\n" + case[0]
    text = text[:cut] + put + text[cut:]
    try:
        parse(text, "p.toml", environ=ENVIRON, cwd=b"/w", directory=b"/nonexistent-pinfold")
    except PolicyError as error:
        lines = str(error).split("\n")
        assert 1 <= len(lines) <= 3
        assert lines[0].startswith("p.toml")
        assert all(line.isprintable() for line in lines)


# Several files.


def put(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("version = 1\n" + text)
    return str(path)


def denial(name: str) -> str:
    return f'\n[[rule]]\nname = "{name}"\non = "open"\naction = "deny"\n'


def order(found: PolicyModel) -> list[str]:
    return [rule.name for rule in found.rules]


def test_own_rules_come_before_included_ones(tmp_path: Path) -> None:
    put(tmp_path, "sub/deep.toml", denial("deep"))
    put(tmp_path, "sub/one.toml", 'include = "deep.toml"' + denial("one"))
    put(tmp_path, "two.toml", 'include = ["sub/deep.toml"]' + denial("two"))
    top = put(tmp_path, "top.toml", 'include = ["sub/one.toml", "two.toml"]' + denial("top"))
    other = put(tmp_path, "other.toml", denial("other"))
    found = load([top, other])
    assert order(found) == ["top", "one", "deep", "two", "other"]
    assert [os.path.basename(name) for name in found.files] == [
        "top.toml", "one.toml", "deep.toml", "two.toml", "other.toml",
    ]  # fmt: skip


def test_the_first_file_that_says_something_wins(tmp_path: Path) -> None:
    put(
        tmp_path,
        "low.toml",
        'real = true\nhandler_seconds = 9\ndescription = "low"\n[defaults]\n"*" = "deny"\nopen ='
        ' "kill"\n[limits]\ncpu = 1\nfiles = 2\n[landlock]\nro = ["/a", "/b"]\nrw = "/c"\n[audit]\n'
        'on_loss = "continue"',
    )
    top = put(
        tmp_path,
        "top.toml",
        'real = false\ninclude = "low.toml"\n[defaults]\nopen = "allow"\n[limits]\ncpu = 7\n'
        '[landlock]\nro = ["/b", "/d"]\n[audit]\non_loss = "stop"',
    )
    found = load([top])
    assert found.real is False
    assert (found.handler_seconds, found.description) == (9.0, "low")
    assert found.on_audit_loss == "stop"
    assert found.defaults == {"*": Action("deny"), "open": Action("allow")}
    assert found.limits == Limits(cpu=7, files=2)
    assert (found.ro, found.rw) == ((b"/b", b"/d", b"/a"), (b"/c",))


def test_variables_hold_in_what_is_included_and_win_there(tmp_path: Path) -> None:
    low = (
        '[variables]\nA = "/low"\nB = "${A}/b"\n[[rule]]\npath = ["${A}", "${B}"]\naction = "deny"'
    )
    put(tmp_path, "low.toml", low)
    top = put(tmp_path, "top.toml", 'include = "low.toml"\n[variables]\nA = "/top"')
    assert load([top]).rules[0].match.path == (b"/top", b"/top/b")
    assert load([top], variables={"A": "/call"}).rules[0].match.path == (b"/call", b"/call/b")
    up = put(tmp_path, "up.toml", 'include = "own.toml"\n[[rule]]\npath = "${C}"\naction = "deny"')
    put(tmp_path, "own.toml", '[variables]\nC = "/c"')
    with pytest.raises(PolicyError, match="there is no variable C"):
        load([up])


def test_the_directory_of_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "sub/low.toml", '[[rule]]\npath = "${POLICY_DIR}/x"\naction = "deny"')
    put(tmp_path, "top.toml", 'include = "sub/low.toml"')
    monkeypatch.chdir(tmp_path)
    found = load(["top.toml"])
    assert found.rules[0].match.path == (os.fsencode(tmp_path / "sub/x"),)


def test_contents_are_read_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/data").write_bytes(b"\xff\0${HOME}")
    text = '[[rule]]\non = "open"\naction = "serve"\ncontent_file = "data"'
    put(tmp_path, "sub/low.toml", text)
    top = put(tmp_path, "top.toml", 'include = "sub/low.toml"')
    assert load([top]).rules[0].action.data == b"\xff\0${HOME}"


def test_a_file_counts_once_under_all_its_names(tmp_path: Path) -> None:
    one = put(tmp_path, "one.toml", denial("one"))
    (tmp_path / "link.toml").symlink_to("one.toml")
    found = load([one, one, str(tmp_path / "link.toml"), "builtin:agent", "builtin:agent"])
    assert order(found).count("one") == 1
    assert found.files[:2] == (one, "builtin:agent")
    assert len(set(found.files)) == len(found.files)


def test_circles_are_errors(tmp_path: Path) -> None:
    put(tmp_path, "b.toml", 'include = "a.toml"')
    top = put(tmp_path, "a.toml", 'include = "./b.toml"')
    with pytest.raises(
        PolicyError, match=r"b\.toml:2:11: include: this file includes itself: .* -> "
    ):
        load([top])


def test_errors_of_included_files_name_them(tmp_path: Path) -> None:
    low = put(tmp_path, "low.toml", "x = 1")
    top = put(tmp_path, "top.toml", 'include = "low.toml"')
    with pytest.raises(PolicyError) as caught:
        load([top])
    assert str(caught.value).startswith(f"{low}:2:1: x: there is no such key")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "no\x1b.toml")
    with pytest.raises(PolicyError, match=r"no\\x1b\.toml: cannot be read: No such file"):
        load([missing])
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        load([str(tmp_path)])
    (tmp_path / "latin.toml").write_bytes(b"version = 1\n# caf\xe9\n")
    with pytest.raises(PolicyError, match=r"latin\.toml:2:6: not UTF-8"):
        load([str(tmp_path / "latin.toml")])
    with pytest.raises(PolicyError, match=r"no ready policy 'x/\.\./y'; there are agent"):
        load(["builtin:x/../y"])


def test_no_files_are_a_policy_that_says_nothing() -> None:
    assert load([]) == PolicyModel()


# Policies put together.


def test_merging() -> None:
    one = model('real = true\n[limits]\ncpu = 1\n[defaults]\nopen = "deny"' + denial("one"))
    two = model(
        'description = "two"\nhandler_seconds = 3\n[limits]\ncpu = 2\nfiles = 3\n[defaults]\nopen ='
        ' "kill"\nexec = "ask"\n[landlock]\nro = "/a"' + denial("two")
    )
    found = merge([one, two])
    assert order(found) == ["one", "two"]
    assert found.limits == Limits(cpu=1, files=3)
    assert found.defaults == {"open": Action("deny"), "exec": Action("ask")}
    assert (found.real, found.handler_seconds, found.ro) == (True, 3.0, (b"/a",))
    assert found.description == "two"
    assert found.files == ("p.toml", "p.toml"), "different texts"
    assert found.digests == one.digests + two.digests


def test_merging_one_changes_nothing() -> None:
    one = model('real = true\n[limits]\ncpu = 1\n[defaults]\nopen = "deny"' + denial("one"))
    assert merge([one]) == one
    assert merge([PolicyModel(), one]) == one
    assert merge([one, one]).files == one.files
    assert merge([]) == PolicyModel()


def test_the_digests_are_those_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "low.toml", denial("é"))
    top = put(tmp_path, "top.toml", 'include = "low.toml"')
    found = load([top])
    expected = [sha256(Path(name).read_bytes()).hexdigest() for name in found.files]
    assert list(found.digests) == expected
