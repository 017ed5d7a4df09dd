"""A policy as data: rules in order, what holds where none applies, limits (pure).

Everything here is frozen, compares by value and can be pickled. ``policy.file.load`` makes it from
a file, ``policy.judging.judge`` makes verdicts from it, ``policy.file.explain`` says it in words.

How a call is judged: each *subject* of it by itself, and each name that a subject has. A subject is
a path argument, or a socket address; a call without any is its own subject. For each, the first
rule all of whose conditions hold decides, else the default of the call's group, else the default
``*``. Of several verdicts the strictest holds: kill, deny, ask, then whatever is no plain allow.

- A condition about something that a subject is not (a path rule and an IPv4 address, say) does not
  hold. The path of a Unix socket is a path, too.
- A rule that denies, asks or kills also holds for what is renamed, if that lies above what the rule
  names: for the parts before each slash of its ``path``, ``exact`` and ``real``, up to the first
  ``**``. Where real names are judged it holds for what its names lead to, too
  (``policy.judging.linked``). Neither makes a verdict milder: the rules behind it are asked all the
  same, and the stricter verdict holds.
- What a redirect leads to is judged again by the rules that deny or kill, not by the defaults and
  not by another redirect.
- A send without an address goes where ``connect`` was allowed to go: it is no subject, and allowed
  unless a rule about ``send`` without conditions on the address says otherwise.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from pinfold.policy.rules import ALLOW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

    from pinfold.codec.sockaddr import Address

ACCESS: Final = ("read", "write", "create", "exec")
"""What a call may do with a path; see ``policy.judging.access``."""
FAMILIES: Final = ("unix", "inet", "inet6", "netlink", "vsock", "packet", "unspec")
"""Address families that a rule can name; any other one as its number."""
REST: Final = b"..."
"""In a pattern for argv: any number of arguments, none included."""


@dataclass(frozen=True, slots=True)
class Match:
    """The conditions of a rule: all that are given must hold; of a tuple, one element must."""

    on: tuple[str, ...] = ()
    """System calls by name (groups are spelt out); empty for every call that has a subject that the
    other conditions can be about."""
    path: tuple[bytes, ...] = ()
    """Globs as in ``policy.globs``: one without wildcards covers what lies below it as well."""
    exact: tuple[bytes, ...] = ()
    """Names, without what lies below them."""
    real: tuple[bytes, ...] = ()
    """Globs for the name that symbolic links lead to."""
    access: frozenset[str] = frozenset()
    """Of ``ACCESS``. A rule that allows has to name all that the call does with the path (reading
    goes without saying where it executes); any other rule, one of it."""
    argv: tuple[tuple[bytes, ...], ...] = ()
    """Patterns, an element each: ``*``, ``?`` and ``[]`` match any bytes, slashes too. ``REST`` may
    stand anywhere, several times. The first element is compared with the last component of the
    executed file's name *and* of argv[0] (with the whole of both where the pattern has a slash): a
    rule that allows needs both to match, any other one of them."""
    env: tuple[tuple[bytes, bytes | bool], ...] = ()
    """(name, glob of its value); True for set at all, False for not set. All must hold."""
    family: frozenset[str | int] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where the address is; see ``policy.judging.match`` about mapped and unspecified ones."""
    ports: tuple[tuple[int, int], ...] = ()
    """(first, last)."""
    unix: tuple[bytes, ...] = ()
    """Globs for the name of a Unix socket's path."""
    abstract: tuple[bytes, ...] = ()
    """Patterns as for argv, for the name of an abstract Unix socket."""
    program: tuple[bytes, ...] = ()
    """Globs for the program that makes the call."""
    loader: bool | None = None
    """Whether the dynamic loader makes it. A hint that a program can forge."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule, or a default, says."""

    verb: str = ALLOW
    """A word of ``policy.calls``, ``ASK`` included."""
    errno: int = errno.EACCES
    """For a denial."""
    path: bytes | None = None
    """For a redirect: the new path. Where the rule matched by a path without wildcards and the name
    lies below that, what comes after it is appended."""
    argv: tuple[bytes, ...] | None = None
    """For a redirect: the new arguments. ``REST`` stands for what the first ``REST`` of the
    matching pattern stood for, for the whole old argv[1:] where the rule has no pattern."""
    set_env: tuple[tuple[bytes, bytes], ...] = ()
    unset_env: tuple[bytes, ...] = ()
    """For a redirect: variables to set and, before that, to remove."""
    address: Address | None = None
    """For a redirect."""
    value: int = 0
    """For ``return``."""
    data: bytes = b""
    """For ``serve``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    match: Match
    action: Action
    name: str
    """As the log shows it: its name, or ``FILE:LINE``."""
    source: str = ""
    """``FILE:LINE``."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the whole sandbox, or of each process; None for what it inherits."""

    tasks: int | None = None
    """Tasks (processes and threads) at one time in the sandbox; beyond it they get EAGAIN."""
    seconds: float | None = None
    """Wall clock for the whole run; then it is killed."""
    cpu: int | None = None
    """RLIMIT_CPU, seconds, of each process."""
    memory: int | None = None
    """RLIMIT_AS, bytes, of each process."""
    files: int | None = None
    """RLIMIT_NOFILE."""
    file_size: int | None = None
    """RLIMIT_FSIZE, bytes."""
    core: int | None = None
    """RLIMIT_CORE, bytes."""


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class PolicyModel:
    """A whole policy."""

    rules: tuple[Rule, ...] = ()
    defaults: Mapping[str, Action] = field(default_factory=dict)
    """By group, or ``*``. Where nothing is said: allow."""
    ro: tuple[bytes, ...] = ()
    rw: tuple[bytes, ...] = ()
    """Paths that Landlock lets the program use; see ``launch.confine``."""
    limits: Limits = NO_LIMITS
    real: bool = False
    """Whether names that links lead to are judged as well."""
    on_audit_loss: Literal["stop", "continue"] = "stop"
    """What happens when the log cannot be written."""
    handler_seconds: float = 60.0
    """How long a verdict of a person or of an ``async`` handler may take; then it is a denial."""
    description: str = ""
    files: tuple[str, ...] = ()
    """The files that it was read from, in order."""
    digests: tuple[str, ...] = ()
    """The SHA-256 of each of them, in hexadecimal, as it was read."""
