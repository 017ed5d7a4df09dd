"""What the author of a policy has perhaps not meant (pure).

Nothing here is an error: each of these policies does what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.paths import printable, under
from pinfold.policy import globs
from pinfold.policy.calls import ASK, KILL, RETURN
from pinfold.policy.fit import Sort, calls_for, sorts_for, sorts_of
from pinfold.policy.globs import GlobSet
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.policy.model import Match, PolicyModel, Rule

_LIBRARIES: Final = (
    b"/usr/lib/x86_64-linux-gnu/libc.so.6",
    b"/lib/x86_64-linux-gnu/libc.so.6",
    b"/usr/lib64/libc.so.6",
    b"/lib64/libc.so.6",
    b"/usr/lib/libc.so.6",
    b"/lib/libc.so.6",
    b"/nix/store/x-glibc/lib/libc.so.6",
)
"""Where the usual systems have it."""
_MAKES_DESCRIPTORS: Final = frozenset(
    {*GROUPS["open"], *GROUPS["accept"], "socket", "memfd_create", "mq_open", "fanotify_init"}
)


def doubts(model: PolicyModel) -> Iterator[str]:
    """Yields what is doubtful about a policy, a sentence or two each."""
    yield from _unreachable(model)
    for rule in model.rules:
        yield from _about(rule)
    yield from _lost_libraries(model)


def said(rule: Rule) -> str:
    """Returns how a warning calls a rule."""
    name = printable(rule.name.encode(errors="surrogateescape"))
    return f"rule {name}" + (f" ({rule.source})" if rule.name != rule.source else "")


def _about(rule: Rule) -> Iterator[str]:
    match, verb = rule.match, rule.action.verb
    if match.loader and verb == ALLOW:
        yield (
            f"{said(rule)}: it allows what the dynamic loader does, and a program can pass for the"
            " loader; allow the files by name instead"
        )
    if match.argv and verb == ALLOW and not (match.path or match.exact or match.real):
        yield (
            f"{said(rule)}: it allows a program by its arguments, and any file can have that name;"
            " say which file with path or exact"
        )
    for name in match.exact:
        if b"*" in name:
            yield f"{said(rule)}: in exact, `*` is just a character; use path for a pattern"
            break
    if verb == RETURN and _MAKES_DESCRIPTORS.intersection(calls_for(match)):
        yield (
            f"{said(rule)}: the program takes {rule.action.value} for a new descriptor, whatever"
            " that is; use deny, or serve for a file"
        )


def _unreachable(model: PolicyModel) -> Iterator[str]:
    redirects = any(rule.action.verb == REDIRECT for rule in model.rules)
    for index, rule in enumerate(model.rules):
        if redirects and rule.action.verb in {DENY, KILL}:
            # Where a redirect leads is judged by these alone, so the order is another one there.
            continue
        for earlier in model.rules[:index]:
            if _covers(earlier, rule):
                same = "says the same" if earlier.action == rule.action else "decides before it"
                yield f"{said(rule)}: it is never reached, {said(earlier)} {same}; remove one"
                break


def _covers(wide: Rule, narrow: Rule) -> bool:
    # Whether whatever meets ``narrow`` meets ``wide``; False where that is hard to say.
    one, other = wide.match, narrow.match
    if not set(calls_for(other)) <= set(calls_for(one)):
        return False
    if not one.on and Sort.NOTHING in sorts_for(other) and _may_lack_subject(other):
        return False  # a rule without `on` is not about a send that has no address
    if _rank(wide) < _rank(narrow) and any(getattr(one, key) for key in _STRICTER):
        return False
    for key in ("path", "real", "unix", "program"):
        if not _globs_cover(getattr(one, key), getattr(other, key)):
            return False
    if one.exact and not (other.exact and set(other.exact) <= set(one.exact)):
        return False
    for key in ("access", "argv", "family", "abstract"):
        if not _set_covers(frozenset(getattr(one, key)), frozenset(getattr(other, key))):
            return False
    return (
        set(one.env) <= set(other.env)
        and (one.loader is None or one.loader == other.loader)
        and _addresses_cover(one, other)
    )


_STRICTER: Final = ("access", "argv", "env", "family", "networks", "ports", "program")
"""Conditions that hold more easily for a rule against the program; see ``policy.match``."""


def _rank(rule: Rule) -> int:
    if rule.action.verb in {DENY, ASK, KILL}:
        return 2
    return 0 if rule.action.verb == ALLOW else 1


def _may_lack_subject(match: Match) -> bool:
    return any(Sort.NOTHING in sorts_of(call) for call in match.on)


def _set_covers(wide: frozenset[object], narrow: frozenset[object]) -> bool:
    return not wide or (bool(narrow) and narrow <= wide)


def _globs_cover(wide: tuple[bytes, ...], narrow: tuple[bytes, ...]) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(any(_glob_covers(one, other) for one in wide) for other in narrow)


def _glob_covers(wide: bytes, narrow: bytes) -> bool:
    if wide in {narrow, b"**", b"/"}:
        return True
    name, below = globs.parse(wide)[0], globs.parse(narrow)[0]
    if below is None:
        return False
    # What a name without wildcards covers is covered by a name above it.
    return name is not None and under(below, name)


def _addresses_cover(wide: Match, narrow: Match) -> bool:
    if wide.networks and not (
        narrow.networks
        and all(
            any(
                one.version == other.version and other.subnet_of(one)  # type: ignore[arg-type]
                for one in wide.networks
            )
            for other in narrow.networks
        )
    ):
        return False
    return not wide.ports or (
        bool(narrow.ports)
        and all(
            any(low <= first and last <= high for low, high in wide.ports)
            for first, last in narrow.ports
        )
    )


def _lost_libraries(model: PolicyModel) -> Iterator[str]:
    default = model.defaults.get("open", model.defaults.get("*"))
    if default is None or default.verb == ALLOW:
        return
    for rule in model.rules:
        match = rule.match
        if rule.action.verb in {DENY, KILL} or "openat" not in calls_for(match):
            continue
        if match.access and "read" not in match.access:
            continue
        if not match.path and not match.exact:
            return
        if any(name in match.exact for name in _LIBRARIES):
            return
        patterns = GlobSet(match.path)
        if any(patterns.match(name) >= 0 for name in _LIBRARIES):
            return
    yield (
        "opens are denied by default and no rule lets libraries be opened, which programs need to"
        " start; allow reading below /usr/lib, /lib and /lib64, and /etc/ld.so.cache"
    )
