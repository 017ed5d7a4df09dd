"""What one trapped call costs: an open and a close, of which the open is trapped.

With everything on one CPU a trap costs what is done for it: a task is waiting whenever another one
runs. With two CPUs free it also costs waking the other one, which on a virtual machine can be more
than all the rest, unless supervisor and program are put together.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.backends.trace import TraceBackend
from pinfold.bench import answering
from pinfold.bench.loops import BAIT, FILE, Loop, alone, boxed, in_session, listened, words
from pinfold.bench.measure import Settings, Table, Way, table
from pinfold.errors import UnsupportedError
from pinfold.linux.seccomp import knows_flags
from pinfold.policy.rules import PathRules
from pinfold.sandbox import Sandbox
from pinfold.session import Limits, Session
from pinfold.uapi.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_REDIRECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pinfold.bench.loops import Started
    from pinfold.launch.spawn import Command

CALLS: Final = 400
"""In one turn of one way."""
FREE: Final = "{}, free"
"""How a row is called whose processes may use all CPUs."""
LENGTHS: Final = (10, 100, 1000, 4000)
"""Bytes of paths; the kernel takes 4,095."""
_COMPONENT: Final = 200
_EACCES: Final = "13"
_POLICY: Final = """\
version = 1

[[rule]]
name = "keys"
path = ["/etc/shadow", "/srv/.ssh", "/home/*/.ssh", "/**/.git/config", "/**/*.pem"]
action = "deny"

[[rule]]
name = "inspected, one and all"
path = "/**"
action = "allow"
"""


class _Case(NamedTuple):
    name: str
    what: str
    start: Callable[[], Started]
    free: bool = False
    """Whether it makes sense only with all CPUs free."""


class _TwoStopBackend(TraceBackend):
    __slots__ = ()
    ONE_STOP = False


class TwoStops(Session):
    """Follows each call to its end, and puts its registers back there."""

    _tracing = _TwoStopBackend


def tables(settings: Settings) -> Iterator[Table]:
    """Measures what a call costs; one table after the other.

    Raises:
        UnsupportedError: There is no compiler, or no tracing.
        WrongError: The work was not done.
    """
    with tempfile.TemporaryDirectory(prefix="pinfold-bench-") as directory:
        yield _raced(settings, "ways", "the ways to have a call made", _ways(), both=True)
        yield _raced(settings, "asks", "what is asked for", _asks(directory))
        for length in LENGTHS:
            yield _lengths(settings, directory, length)


def _raced(
    settings: Settings, name: str, what: str, cases: Sequence[_Case], *, both: bool = False
) -> Table:
    one = frozenset({settings.cpu})
    free = frozenset(os.sched_getaffinity(0))
    missing = []
    places = [("{}", one)]
    if both and len(free) > 1:
        places.append((FREE, free))
    elif both:
        missing.append(f"{FREE.format('…')}: this process may use one CPU only")
    calls = settings.times(CALLS)
    with contextlib.ExitStack() as cleanup:
        ways = []
        for case in cases:
            for shown, cpus in places:
                if case.free and cpus == one:
                    continue
                named = shown.format(case.name)
                try:
                    loop = Loop(named, cpus, case.start)
                except UnsupportedError as error:
                    # What is lacking; what it was asked about, and what helps, is for others.
                    missing.append(f"{named}: {str(error).partition(': ')[0]}")
                    continue
                cleanup.callback(loop.close)
                ways.append(Way(named, case.what, partial(loop.run, calls)))
        return table(
            "call", name, what, ways, settings, unit="µs", reference="bare", missing=missing
        )


def _ways() -> list[_Case]:
    bait = words("loop", BAIT)
    listening = words("loop", FILE, "0", "listen")
    baited = words("loop", BAIT, "0", "listen")
    interrupt = partial(answering.redirecting, "interrupt")
    native = partial(answering.redirecting, "native")
    return [
        _Case("bare", "no sandbox", lambda: alone(words("loop", FILE))),
        *(
            _Case(f"c-{way}", f"C: {what}; decides nothing", partial(_floor, way))
            for way, what in (
                ("notify", "RECV, SEND with CONTINUE"),
                ("notify-sync", "RECV, SEND with CONTINUE, waking on the same CPU"),
                ("notify-read", "RECV, the path is copied, SEND with CONTINUE, waking likewise"),
                ("stop", "one ptrace stop"),
                ("stops", "two ptrace stops"),
                ("stop-all", "one stop, and all requests that pinfold makes"),
            )
        ),
        _Case(
            "c-redirect",
            "C, on a kernel with pins: RECV, the path is copied into a pin, SEND_REDIRECT",
            _redirecting_floor,
        ),
        _Case(
            "python-notify",
            "Python: RECV, SEND with CONTINUE, waking on the same CPU; decides nothing",
            lambda: listened(listening, answering.barely),
        ),
        _Case(
            "redirect",
            "pinfold run --map on a tracer: judged, pinned, redirected",
            lambda: boxed(Sandbox(map={BAIT: FILE}, backend="trace"), bait, redirected=True),
        ),
        _Case(
            "redirect, native",
            "the same on a kernel with pins, and no tracer",
            lambda: boxed(Sandbox(map={BAIT: FILE}, backend="native"), bait, redirected=True),
        ),
        _Case(
            "redirect, spread",
            "the same with --cpu spread: wherever the kernel puts them",
            lambda: boxed(
                Sandbox(map={BAIT: FILE}, cpu="spread", backend="trace"), bait, redirected=True
            ),
            free=True,
        ),
        _Case(
            "redirect, two stops",
            "the same, followed to the end of the call",
            lambda: in_session(_two_stops, bait, redirected=True),
        ),
        _Case(
            "interrupt",
            "pinfold.Listener on this kernel: redirected",
            lambda: listened(baited, interrupt),
        ),
        _Case(
            "native",
            "pinfold.Listener on a kernel with the requests: redirected",
            lambda: listened(baited, native),
        ),
    ]


def _floor(way: str) -> Started:
    return alone(words("floor", way, FILE))


def _redirecting_floor() -> Started:
    if not knows_flags(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_REDIRECT):
        raise UnsupportedError("no kernel with pins")
    return _floor("redirect")


def _two_stops(command: Command) -> Session:
    rules = PathRules([(os.fsencode(BAIT), os.fsencode(FILE))], [])
    return TwoStops(command, rules, Limits())


def _asks(directory: str) -> list[_Case]:
    policy = os.path.join(directory, "policy.toml")
    with open(policy, "w") as file:
        file.write(_POLICY)
    log = os.path.join(directory, "log.jsonl")
    beside = os.path.dirname(FILE)
    relative = os.path.basename(FILE)
    other = Sandbox(deny=["/etc/shadow"])
    here = words("loop", FILE)
    return [
        _Case("bare", "no sandbox", lambda: alone(here)),
        _Case("deny-other", "--deny of another name", lambda: boxed(other, here)),
        _Case(
            "relative",
            "the same, of a relative path",
            lambda: boxed(other, words("loop", relative), beside),
        ),
        _Case("bare-relative", "no sandbox", lambda: alone(words("loop", relative), beside)),
        _Case(
            "redirect",
            "--map",
            lambda: boxed(Sandbox(map={BAIT: FILE}), words("loop", BAIT), redirected=True),
        ),
        _Case(
            "denied",
            "--deny: the call fails",
            lambda: boxed(Sandbox(deny=[FILE]), words("loop", FILE, _EACCES), denied=True),
        ),
        _Case("policy", "--policy of two rules", lambda: boxed(Sandbox(policy=policy), here)),
        _Case("log", "--audit", lambda: boxed(Sandbox(audit=log), here)),
        _Case(
            "log-all",
            "--audit, --inspect all",
            lambda: boxed(Sandbox(audit=log + "2", inspect="all"), here),
        ),
        _Case("real", "--deny, --real", lambda: boxed(Sandbox(deny=["/x"], real=True), here)),
    ]


def _lengths(settings: Settings, directory: str, length: int) -> Table:
    path = named(os.path.realpath(directory), length)
    box = Sandbox(deny=["/etc/shadow"])
    cases = [
        _Case("bare", "no sandbox", lambda: alone(words("loop", path))),
        _Case("deny-other", "--deny of another name", lambda: boxed(box, words("loop", path))),
        _Case(
            "redirect",
            "--map to it",
            lambda: boxed(Sandbox(map={BAIT: path}), words("loop", BAIT), redirected=True),
        ),
    ]
    return _raced(settings, f"path-{length}", f"a path of {length:,} bytes", cases)


def named(directory: str, length: int) -> str:
    """Returns the name of an existing file that is so long; it is made where it needs to be.

    Args:
        directory: Where; its real name.
        length: Bytes, 10 at least.
    """
    if length <= len(directory) + 2:
        # As many slashes as it takes, which is no other file.
        return "/" * (length - len(FILE)) + FILE
    path = directory
    left = length - len(path)
    while left > _COMPONENT + 1:
        # Leaves two bytes for a last name.
        step = min(_COMPONENT, left - 3)
        path += "/" + "d" * step
        left -= step + 1
        os.makedirs(path, exist_ok=True)
    path += "/" + "f" * (left - 1)
    with open(path, "w"):
        pass
    return path
