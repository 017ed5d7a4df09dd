"""What the author of a policy has perhaps not meant (pure).

Nothing here is an error: each of these policies does what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.paths import printable, under
from pinfold.policy.calls import KILL, RETURN
from pinfold.policy.file.fit import calls_for
from pinfold.policy.file.shadows import shadowed
from pinfold.policy.globs import GlobSet, fixed, parse
from pinfold.policy.judging.match import STRICT
from pinfold.policy.model import Action
from pinfold.policy.rules import ALLOW, DENY
from pinfold.syscalls.groups import GROUPS
from pinfold.uapi.net import AF_PACKET

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
    lost = []
    for rule, by, mostly in shadowed(model):
        lost.append(rule)
        same = "says the same" if by.action == rule.action else "decides before it"
        if mostly:
            yield (
                f"{said(rule)}: of what it names {said(by)} {same}; it holds only where links lead"
                " and for directories that are renamed; put it first, or remove it"
            )
        else:
            yield f"{said(rule)}: it is never reached, {said(by)} {same}; remove one"
    for rule in model.rules:
        yield from _about(rule)
        if rule not in lost:
            yield from _other_ways(model, rule)
    yield from _processes(model)
    yield from _packets(model)
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


def _other_ways(model: PolicyModel, rule: Rule) -> Iterator[str]:
    # What cannot be opened can perhaps be renamed or linked, and be opened by its new name.
    match = rule.match
    calls = calls_for(match)
    if rule.action.verb not in STRICT or "openat" not in calls:
        return
    spelt = [name for glob in match.path if (name := parse(glob)[0]) is not None]
    names = [name for name in (*match.exact, *spelt) if name != b"/" and _in_reach(model, name)]
    for group, call in (("rename", "renameat2"), ("link", "linkat")):
        if call in calls or _default(model, group).verb in STRICT:
            continue
        for name in names:
            if not _is_held(model, call, name):
                yield (
                    f"{said(rule)}: it is not about {group}, so {printable(name)} may get another"
                    " name and be opened by that; leave out on and access, or make another rule"
                )
                return


def _in_reach(model: PolicyModel, name: bytes) -> bool:
    # Whether Landlock lets it be renamed.
    return not (model.ro or model.rw) or any(under(name, one) for one in model.rw)


def _is_held(model: PolicyModel, call: str, name: bytes) -> bool:
    for rule in model.rules:
        match = rule.match
        if rule.action.verb in STRICT and call in calls_for(match):
            if name in match.exact or GlobSet(match.path).match(name) >= 0:
                return True
            if not match.path and not match.exact and not match.real:
                return True
    return False


def _processes(model: PolicyModel) -> Iterator[str]:
    if model.real or any(rule.match.real for rule in model.rules):
        return
    for rule in model.rules:
        if rule.action.verb == ALLOW and "openat" in calls_for(rule.match):
            for glob in rule.match.path:
                if under(fixed(glob)[0] or b"/", b"/proc") and GlobSet([glob]).match(_ROOTS) >= 0:
                    yield (
                        f"{said(rule)}: below /proc are links to every file (as /proc/self/root),"
                        " and names are judged as they are spelt; write real = true at the top"
                    )
                    return


_ROOTS: Final = b"/proc/self/root" + b"/etc/passwd"


def _packets(model: PolicyModel) -> Iterator[str]:
    # A packet socket sends to hosts of which no rule hears.
    restricted = [
        *(word for word in ("connect", "send") if _default(model, word).verb in STRICT),
        *(
            said(rule)
            for rule in model.rules
            if rule.action.verb in STRICT
            and (rule.match.networks or rule.match.ports)
            and _TALKS.intersection(calls_for(rule.match))
        ),
    ]
    if restricted and not _denies_packets(model):
        yield (
            "connections or messages are denied by address, and packet sockets, for which a program"
            " needs CAP_NET_RAW, pass that by; add a rule on socket that denies the family packet"
        )


_TALKS: Final = frozenset({*GROUPS["connect"], *GROUPS["send"]})


def _denies_packets(model: PolicyModel) -> bool:
    for rule in model.rules:
        match, verb = rule.match, rule.action.verb
        if "socket" not in calls_for(match):
            continue
        if match.family and match.family.isdisjoint({"packet", AF_PACKET}):
            continue
        if verb in STRICT or verb == RETURN:
            if match.program or match.loader is not None:
                continue
            return True
        return False
    return _default(model, "socket").verb in STRICT


def _default(model: PolicyModel, group: str) -> Action:
    return model.defaults.get(group, model.defaults.get("*", _ALLOWED))


_ALLOWED: Final = Action()


def _lost_libraries(model: PolicyModel) -> Iterator[str]:
    if _default(model, "open").verb == ALLOW:
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
