from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.errors import InternalError, PolicyError
from pinfold.paths import join, under
from pinfold.policy import rules
from pinfold.policy.rules import (
    ALLOW,
    DENY,
    REDIRECT,
    PathRules,
    PathVerdict,
    parse_deny,
    parse_map,
)

from .reference import matches, names, patterns

MAPS = [(b"/a", b"/b"), (b"/a/c", b"/"), (b"/x=y", b"/\\z"), (b"/keep", b"/keep")]
DENIES = [b"/b/secret", b"/etc/shadow", b"**/*.pem"]


@pytest.mark.parametrize(
    ("spelled", "action", "rule", "path"),
    [
        ([b"/tmp/f"], ALLOW, None, None),
        ([b"/"], ALLOW, None, None),
        ([b"/ab"], ALLOW, None, None),
        ([b"/a"], REDIRECT, "map /a=/b", b"/b"),
        ([b"/a/f/g"], REDIRECT, "map /a=/b", b"/b/f/g"),
        ([b"/a/c"], REDIRECT, "map /a/c=/", b"/"),
        ([b"/a/c/f"], REDIRECT, "map /a/c=/", b"/f"),
        ([b"/a/cc"], REDIRECT, "map /a=/b", b"/b/cc"),
        ([b"/x=y/f"], REDIRECT, r"map /x\=y=/\\z", b"/\\z/f"),
        ([b"/keep/f"], REDIRECT, "map /keep=/keep", b"/keep/f"),
        ([b"/etc/shadow"], DENY, "deny /etc/shadow", None),
        ([b"/etc/shadow/f"], DENY, "deny /etc/shadow", None),
        ([b"/b/secret/f"], DENY, "deny /b/secret", None),
        ([b"/q/k.pem"], DENY, "deny **/*.pem", None),
        # a map cannot reach what is denied, nor hide it
        ([b"/a/secret/f"], DENY, "deny /b/secret", None),
        ([b"/a/c/etc/shadow"], DENY, "deny /etc/shadow", None),
        ([b"/a/k.pem"], DENY, "deny **/*.pem", None),
        # what a map gives is not mapped again
        ([b"/a/c/a"], REDIRECT, "map /a/c=/", b"/a"),
        # several names: any deny, first map
        ([b"/f", b"/etc/shadow"], DENY, "deny /etc/shadow", None),
        ([b"/etc/shadow", b"/f"], DENY, "deny /etc/shadow", None),
        ([b"/f", b"/a/g"], REDIRECT, "map /a=/b", b"/b/g"),
        ([b"/keep/f", b"/a/g"], REDIRECT, "map /keep=/keep", b"/keep/f"),
        ([b"/a", b"/b/secret"], DENY, "deny /b/secret", None),
    ],
)
def test_judge(spelled: list[bytes], action: str, rule: str | None, path: bytes | None) -> None:
    verdict = PathRules(MAPS, DENIES).judge(tuple(spelled))
    assert verdict == PathVerdict(action, rule, path, 13 if action == DENY else 0)


def test_a_map_of_the_root() -> None:
    judge = PathRules([(b"/", b"/jail"), (b"/usr", b"/usr")], [b"/jail/etc"]).judge
    assert judge((b"/",)).path == b"/jail"
    assert judge((b"/f",)).path == b"/jail/f"
    assert judge((b"/usr/bin",)).path == b"/usr/bin"
    assert judge((b"/etc/passwd",)).action == DENY
    assert PathRules([(b"/", b"/")], []).judge((b"/f",)).path == b"/f"


def test_a_redirect_keeps_the_slash_of_a_directory() -> None:
    judge = PathRules(MAPS, DENIES).judge
    assert judge((b"/a/f",), True).path == b"/b/f/"
    assert judge((b"/a/f",), False).path == b"/b/f"
    assert judge((b"/a",), True).path == b"/b/"
    assert judge((b"/a/c",), True).path == b"/"
    assert judge((b"/f",), True).action == ALLOW
    assert judge((b"/b/secret",), True).action == DENY


def test_sides_are_normalised() -> None:
    rule = PathRules([(b"/a/./x/..//", b"/b/")], [])
    assert rule.judge((b"/a/f",)).path == b"/b/f"


def test_empty() -> None:
    assert PathRules([], []).empty
    assert PathRules([], []).judge((b"/f",)).action == ALLOW
    assert not PathRules(MAPS, []).empty
    assert not PathRules([], DENIES).empty


@pytest.mark.parametrize(
    ("maps", "problem"),
    [
        ([(b"/a", b"/b"), (b"/a", b"/c")], "map /a=/c: map /a=/b already maps"),
        ([(b"/a", b"/b"), (b"/x/../a/", b"/c")], "already maps"),
        ([(b"a", b"/b")], "not absolute"),
        ([(b"/a", b"")], "not absolute"),
        ([(b"/a", b"/b\0")], "NUL"),
        ([(b"/a\0", b"/b")], "NUL"),
    ],
)
def test_bad_maps(maps: list[tuple[bytes, bytes]], problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        PathRules(maps, [])


@pytest.mark.parametrize(
    "spelled", [(), (b"",), (b"a",), (b"/a/",), (b"/a//b",), (b"/f", b"/a/../etc/shadow")]
)
def test_names_that_would_slip_past_the_rules_are_a_bug(spelled: tuple[bytes, ...]) -> None:
    with pytest.raises(InternalError):
        PathRules(MAPS, DENIES).judge(spelled)


def test_verdicts_are_reused_and_the_cache_is_bounded() -> None:
    judged = PathRules(MAPS, DENIES)
    assert judged.judge((b"/a/f",)) is judged.judge((b"/a/f",))
    assert judged.judge((b"/1",)) is judged.judge((b"/2",))
    assert judged.judge((b"/etc/shadow",)) is judged.judge((b"/etc/shadow/f",))
    for number in range(3 * rules._CACHED):
        judged.judge((b"/a/%d" % number,))
        assert len(judged._cache) <= rules._CACHED
    assert judged.judge((b"/a/0",)).path == b"/b/0"


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(names, names, max_size=5),
    st.lists(patterns, max_size=4),
    st.lists(st.lists(names, min_size=1, max_size=2), min_size=1, max_size=5),
    st.booleans(),
)
def test_equals_brute_force(
    maps: dict[bytes, bytes], denies: list[bytes], asked: list[list[bytes]], directory: bool
) -> None:
    def denied(name: bytes) -> PathVerdict | None:
        for glob in denies:
            if matches(glob, name):
                return PathVerdict(DENY, "deny " + shown[glob], None, 13)
        return None

    def expected(spelled: list[bytes]) -> PathVerdict:
        for name in spelled:
            if verdict := denied(name):
                return verdict
        for name in spelled:
            above = [source for source in maps if under(name, source)]
            if above:
                source = max(above, key=len)
                to = join(maps[source], name[len(source) :].strip(b"/"))
                rule = f"map {source.decode(**odd)}={maps[source].decode(**odd)}"
                slash = b"/" if directory and to != b"/" else b""
                return denied(to) or PathVerdict(REDIRECT, rule, to + slash, 0)
        return PathVerdict(ALLOW, None, None, 0)

    odd = {"errors": "backslashreplace"}
    shown = {glob: glob.decode(**odd) for glob in denies}
    judged = PathRules(list(maps.items()), denies)
    for spelled in asked * 2:
        assert judged.judge(tuple(spelled), directory) == expected(spelled)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        (b"/a=/b", (b"/a", b"/b")),
        (b"a=b", (b"/w/a", b"/w/b")),
        (b"/a/=/b/../c", (b"/a", b"/c")),
        (b".=..", (b"/w", b"/")),
        (b"/a=/b=c", (b"/a", b"/b=c")),
        (rb"/a\=x=/b\=c", (b"/a=x", b"/b=c")),
        (rb"/a\\=/b\\", (b"/a\\", b"/b\\")),
        (rb"/a\\\==/b", (b"/a\\=", b"/b")),
        (b"/=/jail", (b"/", b"/jail")),
        (b"/\xff=/ ", (b"/\xff", b"/ ")),
    ],
)
def test_parse_map(text: bytes, pair: tuple[bytes, bytes]) -> None:
    assert parse_map(text, b"/w") == pair


@pytest.mark.parametrize(
    ("text", "byte", "problem"),
    [
        (b"", 1, "FROM=TO"),
        (b"/a", 3, "FROM=TO"),
        (rb"/a\=/b", 7, "FROM=TO"),
        (b"=/b", 1, "nothing before"),
        (b"/a=", 4, "nothing after"),
        (b"=", 1, "nothing before"),
        (rb"/a\b=/c", 3, "escapes only"),
        (b"/a=/c\\", 6, "escapes only"),
        (b"/a=/c\0", 6, "NUL"),
    ],
)
def test_parse_map_malformed(text: bytes, byte: int, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_map(text, b"/w")
    head, _, caret = str(caught.value).split("\n")
    assert head.startswith(f"byte {byte}: ")
    assert problem in head
    assert caret == " " * (byte + 1) + "^"


@given(names, names)
def test_the_rule_that_is_named_can_be_written_again(source: bytes, target: bytes) -> None:
    source, target = source + b"=\\", target + b"\\="
    rule = PathRules([(source, target)], []).judge((source,)).rule
    assert rule is not None
    if b"\xc3" not in source + target:
        assert parse_map(rule.removeprefix("map ").encode(), b"/") == (source, target)


def test_parse_deny() -> None:
    assert parse_deny(b"/a/**") == b"/a/**"
    with pytest.raises(PolicyError, match="begins with"):
        parse_deny(b"a")
