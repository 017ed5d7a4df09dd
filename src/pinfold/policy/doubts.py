"""What the author of a policy has perhaps not meant (pure).

Nothing here is an error: each of these policies does what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.paths import printable
from pinfold.policy.calls import KILL, RETURN
from pinfold.policy.fit import calls_for
from pinfold.policy.globs import GlobSet
from pinfold.policy.rules import ALLOW, DENY
from pinfold.policy.shadows import shadowed
from pinfold.syscalls.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.policy.model import PolicyModel, Rule

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
    for rule, by in shadowed(model):
        same = "says the same" if by.action == rule.action else "decides before it"
        yield f"{said(rule)}: it is never reached, {said(by)} {same}; remove one"
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
