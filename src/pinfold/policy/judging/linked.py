"""Where the names of rules lead: asks the file system, and is no pure code.

A rule says ``/home/ann/.ssh``, and ``/home`` is a symbolic link to ``/data/home``. A program that
asks for ``/data/home/ann/.ssh`` never spells the name in the rule. So where real names are judged a
rule that denies, asks or kills holds for what its names lead to as well, as the links are when a
run begins: of each glob the leading directories without wildcards are followed.

A rule that *allows* is not widened. An earlier run may have planted the link: one called ``out`` in
a directory that may be written below would open whatever it points to. Who means to allow both
names writes both.

Links below ``/proc`` lead somewhere else for each process, and are left as they are. The program
that makes a call is known by its real name only, so a condition on it is followed in any case.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pinfold.paths import under
from pinfold.policy.globs import escape, fixed
from pinfold.policy.judging.match import STRICT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.policy.model import Match, PolicyModel

_MOST_LINKS: Final = 40
"""As many as the kernel follows."""


def linked(globs: Iterable[bytes]) -> tuple[bytes, ...]:
    """Returns globs, and after them those that they become where links are followed.

    Args:
        globs: Globs as in ``policy.globs``.
    """
    globs = tuple(globs)
    return tuple(dict.fromkeys((*globs, *where_links_lead(globs).values())))


def where_links_lead(globs: Iterable[bytes]) -> dict[bytes, bytes]:
    """Returns, for those globs that are not the same where links are followed, what they become."""
    return {glob: led for glob in globs if (led := leads_to(glob)) is not None}


def leads_to(glob: bytes) -> bytes | None:
    """Returns what a glob becomes where links are followed, None if it stays the same."""
    name, rest = fixed(glob)
    if not name:
        return None
    real = real_name(name)
    if real == name:
        return None
    return escape(b"" if real == b"/" and rest else real) + rest


def real_name(name: bytes) -> bytes:
    """Returns where a name leads when links are followed; what is not there is no link.

    Args:
        name: A normal name.
    """
    done = b""
    ahead = name.split(b"/")[::-1]
    left = _MOST_LINKS
    while ahead:
        component = ahead.pop()
        if component in (b"", b"."):
            continue
        if component == b"..":
            done = done.rpartition(b"/")[0]
            continue
        at = done + b"/" + component
        try:
            text = b"" if under(at, b"/proc") else os.readlink(at)
        except OSError:
            # No link, nothing there, or nothing that we may look at.
            text = b""
        if not text:
            done = at
            continue
        left -= 1
        if left < 0:
            return name
        if text.startswith(b"/"):
            done = b""
        ahead += text.split(b"/")[::-1]
    return done or b"/"


def further(model: PolicyModel, *, links: bool) -> dict[int, Match]:
    """Returns under which further conditions rules hold, by their numbers.

    Args:
        model: The policy.
        links: Whether real names are judged.
    """
    found = {}
    for number, rule in enumerate(model.rules):
        if rule.action.verb in STRICT:
            match = _followed(rule.match, links)
            if match is not None:
                found[number] = match
    return found


def _followed(match: Match, links: bool) -> Match | None:
    new = replace(match, program=linked(match.program))
    if links:
        new = replace(
            new,
            path=linked(match.path),
            exact=tuple(dict.fromkeys((*match.exact, *map(real_name, match.exact)))),
            real=linked(match.real),
            unix=linked(match.unix),
        )
    return None if new == match else new
