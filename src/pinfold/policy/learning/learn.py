"""From what a program did to the smallest policy that reads well and lets it do so again (pure).

What is denied by default are the groups by which a program reaches files, programs and sockets.
Asking about files (``stat``) is allowed: programs look for their files in many places, and one that
is told EACCES where it should have been told ENOENT behaves differently.

For the same reason a program that was looked for and is not there (``execve`` along ``$PATH``) is
not allowed, and not forbidden either: a rule says ENOENT. Nobody can put something there later and
have it run.

Rules come in this order: what is executed; what is written; what is read; sockets. Nothing here is
about who made a call, or when.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.policy.learning.folding import (
    MANY,
    SYSTEM,
    Names,
    Pattern,
    foldable,
    is_system,
    outermost,
    secret,
    trees,
    within,
)
from pinfold.policy.learning.peers import families, peers
from pinfold.policy.learning.variants import folded, variant
from pinfold.policy.model import Action, Match, PolicyModel, Rule
from pinfold.policy.rules import ALLOW, DENY
from pinfold.syscalls.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from pinfold.policy.learning.facts import Fact
    from pinfold.policy.learning.folding import Place

GUARDED: Final = (
    *("exec", "open", "truncate", "unlink", "rename", "link", "mkdir", "chmod", "chown"),
    *("xattr", "chdir", "connect", "bind", "send"),
)
"""Groups that are denied by default: what is learned are the exceptions."""

UNUSED: Final = ("handle", "mount", "queue", "key", "trace", "module", "admin")
"""Groups that are denied if the program did without them, and else allowed as a whole."""

_WRITING: Final = frozenset({"write", "create"})
_DENIED: Final = Action(DENY)


class Learned(NamedTuple):
    """A policy and what to say about it."""

    model: PolicyModel
    comments: Mapping[int, tuple[str, ...]]
    """Lines that stand before a rule, by its index."""
    notes: tuple[str, ...]
    """Lines about what the policy does not cover."""

    @property
    def empty(self) -> bool:
        """Whether there was nothing to learn."""
        return not self.model.rules


class _Draft:
    # Rules in the making.

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.comments: dict[int, tuple[str, ...]] = {}
        self.notes: list[str] = []

    def add(self, name: str, match: Match, *comments: str, action: Action | None = None) -> None:
        if comments:
            self.comments[len(self.rules)] = comments
        self.rules.append(Rule(match, action or Action(ALLOW), f"learned: {name}"))


def learn(
    runs: Sequence[Iterable[Fact]], place: Place, *, addition: bool = False, fold: bool = True
) -> Learned:
    """Returns a policy under which a run that does the same things passes.

    Args:
        runs: The facts of each run of the same command, one or several.
        place: Where it ran.
        addition: Whether the rules are for a policy that is there already, and has its defaults.
        fold: Whether many names in one directory become the directory.
    """
    lists = [list(run) for run in runs]
    names = Names(lists, place)
    facts = list(dict.fromkeys(fact for run in lists for fact in run))
    draft = _Draft()
    execs = [fact for fact in facts if fact.group == "exec" and fact.name]
    written = {fact.name for fact in facts if fact.name and fact.access & _WRITING}
    _execs(draft, execs, names, written)
    files = [
        fact
        for fact in facts
        if fact.name and fact.address is None and fact.group in GUARDED and fact.group != "exec"
    ]
    writes = [fact for fact in files if fact.access & _WRITING]
    reads = [fact for fact in files if not fact.access & _WRITING]
    _writes(draft, writes, names, place, fold=fold)
    _reads(draft, reads, names, place, fold=fold)
    found, uncovered = peers(facts, names)
    for name, match in found:
        draft.add(name, match)
    draft.notes.extend(uncovered)
    _families(draft, facts)
    _descriptors(draft, facts)
    defaults = {} if addition else _defaults(facts)
    return Learned(PolicyModel(tuple(draft.rules), defaults), draft.comments, tuple(draft.notes))


def _defaults(facts: Iterable[Fact]) -> dict[str, Action]:
    used = {fact.group for fact in facts}
    denied = [*GUARDED, *(group for group in UNUSED if group not in used)]
    return {
        "*": Action(ALLOW),
        **dict.fromkeys(denied, _DENIED),
        # Programs try families one after the other, and take this for an answer.
        "socket": Action(DENY, errno.EAFNOSUPPORT),
    }


def _match(
    groups: Iterable[str],
    *,
    patterns: Iterable[Pattern] = (),
    globs: Iterable[bytes] = (),
    access: frozenset[str] = frozenset(),
) -> Match:
    on = tuple(call for group in groups for call in GROUPS.get(group, (group,)))
    exact = tuple(sorted({one.name for one in patterns if one.name is not None}))
    return Match(on=on, path=tuple(sorted(set(globs))), exact=exact, access=access)


def _listed(
    draft: _Draft,
    name: str,
    groups: Sequence[str],
    patterns: Sequence[Pattern],
    globs: Iterable[bytes],
    *comments: str,
    access: frozenset[str] = frozenset(),
    action: Action | None = None,
) -> None:
    # Two rules where there are names and patterns: a rule with both wants both to hold.
    single = [one for one in patterns if one.name is not None]
    wild = [*globs, *(one.glob for one in patterns if one.name is None)]
    if wild:
        match = _match(groups, globs=wild, access=access)
        draft.add(name, match, *comments, action=action)
    if single:
        match = _match(groups, patterns=single, access=access)
        draft.add(f"{name}, by name" if wild else name, match, *comments, action=action)


# Programs.


def _execs(draft: _Draft, facts: Sequence[Fact], names: Names, written: Container[bytes]) -> None:
    done: dict[Pattern, dict[tuple[bytes, ...], None]] = {}
    failed: dict[int, dict[Pattern, None]] = {}
    own = {names.pattern(fact.name) for fact in facts if fact.name in written}
    for fact in facts:
        pattern = names.pattern(fact.name)
        if not fact.errno:
            shape = variant(fact, names)
            done.setdefault(pattern, {})[shape] = None
    for fact in facts:
        pattern = names.pattern(fact.name)
        if fact.errno and pattern not in done:
            failed.setdefault(fact.errno, {})[pattern] = None
    for pattern, shapes in done.items():
        variants = folded(list(shapes))
        match = _match(
            ["exec"],
            patterns=[pattern],
            globs=[pattern.glob] if pattern.name is None else [],
        )
        comments = []
        if pattern.name is None:
            comments.append("Whatever has such a name is executed.")
        if pattern in own:
            comments.append("The run wrote this program itself: it is whatever was written there.")
        draft.add(
            _label(pattern),
            Match(on=match.on, exact=match.exact, path=match.path, argv=tuple(variants)),
            *comments,
        )
    for number, patterns in failed.items():
        if number not in errno.errorcode:
            continue
        word = errno.errorcode[number]
        _listed(
            draft,
            f"not executed ({word})",
            ["exec"],
            list(patterns),
            [],
            f"Tried in vain: the answer stays {word}, whatever there is by then.",
            action=Action(DENY, number),
        )


def _label(pattern: Pattern) -> str:
    last = pattern.glob.rpartition(b"/")[2].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in last)


# Files.


def _writes(
    draft: _Draft, facts: Sequence[Fact], names: Names, place: Place, *, fold: bool
) -> None:
    groups: dict[Pattern, dict[str, None]] = {}
    made: dict[Pattern, None] = {}
    for fact in facts:
        pattern = names.pattern(fact.name)
        groups.setdefault(pattern, {})[fact.group] = None
        if fact.call in ("mkdir", "mkdirat") and fact.made:
            made[pattern] = None
    parents = {pattern.parent for pattern in groups}
    inside = dict.fromkeys(
        outermost(
            pattern.glob
            for pattern in made
            if fold and pattern.glob in parents and foldable(pattern.glob, place)
        )
    )
    children: dict[bytes, set[Pattern]] = {}
    for pattern in groups:
        if within(pattern.glob, inside) is None and not secret(pattern.glob):
            children.setdefault(pattern.parent, set()).add(pattern)
    many = {
        directory
        for directory, found in children.items()
        if fold and len(found) >= MANY and foldable(directory, place) and not is_system(directory)
    }
    folded: dict[bytes, dict[str, None]] = {}
    single: dict[Pattern, dict[str, None]] = {}
    for pattern, used in groups.items():
        target = _home_of(pattern, inside, many)
        if target is None:
            single.setdefault(pattern, {}).update(used)
            continue
        folded.setdefault(target, {}).update(used)
        if pattern.glob in inside:
            single.setdefault(pattern, {}).update(used)
    _by_groups(draft, folded, single)


def _home_of(pattern: Pattern, inside: Container[bytes], many: Container[bytes]) -> bytes | None:
    if secret(pattern.glob):
        return None
    tree = within(pattern.glob, inside)
    if tree is not None:
        return tree + b"/**"
    return pattern.parent + b"/*" if pattern.parent in many else None


def _by_groups(
    draft: _Draft,
    folded: Mapping[bytes, Mapping[str, None]],
    single: Mapping[Pattern, Mapping[str, None]],
) -> None:
    # One rule for all that the same is done with.
    rules: dict[tuple[str, ...], tuple[list[bytes], list[Pattern]]] = {}
    for glob, used in folded.items():
        rules.setdefault(_in_order(used), ([], []))[0].append(glob)
    for pattern, used in single.items():
        rules.setdefault(_in_order(used), ([], []))[1].append(pattern)
    for groups, (globs, patterns) in sorted(rules.items(), key=lambda item: len(item[0])):
        words = [_DOES.get(group, group) for group in groups]
        _listed(draft, ", ".join(words), groups, patterns, globs)


_DOES: Final = {"open": "written", "unlink": "removed", "rename": "renamed", "mkdir": "directories"}


def _in_order(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(groups, key=GUARDED.index))


def _reads(draft: _Draft, facts: Sequence[Fact], names: Names, place: Place, *, fold: bool) -> None:
    files: dict[Pattern, None] = {}
    absent: dict[Pattern, None] = {}
    groups: dict[str, None] = {}
    listed: dict[bytes, None] = {}
    systems: dict[bytes, None] = {}
    there = {fact.name for fact in facts if not fact.errno}
    for fact in facts:
        pattern = names.pattern(fact.name)
        system = is_system(fact.name)
        if secret(fact.name) and fact.name not in there and not system:
            absent[pattern] = None
            continue
        groups[fact.group] = None
        if system and fold:
            systems[system] = None
            continue
        files[pattern] = None
        if fact.listed and fact.group == "open":
            listed[pattern.glob] = None
    found = dict.fromkeys(trees(files, listed, place) if fold else ())
    left = [
        pattern
        for pattern in files
        if secret(pattern.glob) or within(pattern.parent, found) is None
    ]
    words = _in_order(groups)
    read = frozenset({"read"})
    if absent:
        _listed(
            draft,
            "secrets that are not there",
            _in_order({fact.group for fact in facts if names.pattern(fact.name) in absent}),
            list(absent),
            [],
            "Named like secrets, and looked for in vain: the answer stays ENOENT.",
            action=Action(DENY, errno.ENOENT),
        )
    secrets = [one for one in left if secret(one.glob)]
    if secrets:
        _listed(
            draft,
            "read, and named like secrets",
            words,
            secrets,
            [],
            "Named like secrets. Are they any of this program's business?",
            access=read,
        )
    roots = [base + b"/**" for base in SYSTEM if base in systems]
    _listed(
        draft,
        "read",
        words,
        [one for one in left if one not in secrets],
        [*roots, *(tree + b"/**" for tree in found)],
        access=read,
    )


def _families(draft: _Draft, facts: Iterable[Fact]) -> None:
    # The word for the call alone is the word for the group. What else there is in that has no
    # family, so the first of these rules is not about it.
    if not any(fact.group == "socket" for fact in facts):
        return
    calls = GROUPS["socket"]
    used = families(facts)
    if used:
        draft.add("families of sockets", Match(on=calls, family=used))
    others = tuple(call for call in calls if call not in ("socket", "socketpair"))
    draft.add("sockets that are there", Match(on=others))


_BY_DESCRIPTOR: Final = frozenset({"truncate", "chdir", "chmod", "chown", "xattr"})
"""Groups with calls that do to an open file what their others do to a named one."""


def _descriptors(draft: _Draft, facts: Iterable[Fact]) -> None:
    # Calls of the guarded groups that were about an open file, and not about a name.
    on = tuple(
        dict.fromkeys(
            fact.call
            for fact in facts
            if fact.group in _BY_DESCRIPTOR and not fact.name and not fact.errno
        )
    )
    if on:
        draft.add(
            "open files without a name",
            Match(on=on),
            "Pipes, sockets, files in memory; a rule cannot tell these from files with a name.",
        )
