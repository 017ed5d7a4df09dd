"""Handlers are asked one after the other, then the file's rules (pure, but for what handlers do).

The first handler that gives a verdict decides, and the rules are not asked any more. Where none
does, the rules decide. Both see the same pinned call.

A call whose arguments have more than one meaning (see ``policy.handlers.look``) is asked about once
for each, and the strictest of the verdicts holds: kill, deny, then whatever is no plain allow. Is
there a meaning that no handler has a verdict on, the rules have a say as well.

What goes wrong is a denial: an exception, an answer that is no verdict, a verdict that does not fit
the call. One kind of exception is the program's doing and not the handler's: a handler that asks
for an argument that cannot be read. The call then fails with EFAULT, as it would have.

Chains are generators: they yield what has to be awaited. Usually nothing has, and a chain is over
in the thread of the supervisor. Else the rules are asked beforehand, which has to happen in that
thread, and the rest goes on in ``policy.handlers.tasks``.
"""

from __future__ import annotations

import traceback
from errno import EFAULT, EPERM
from functools import cached_property
from inspect import isawaitable
from ipaddress import IPv4Address
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pinfold.codec.message import Message
from pinfold.codec.sockaddr import Inet, Inet6, Sockaddr, Unspec
from pinfold.policy.calls import KILL, Verdict, denied
from pinfold.policy.handlers.answers import checked, escaped, one_line
from pinfold.policy.handlers.look import Look, MissingError, detached
from pinfold.policy.handlers.step import Step
from pinfold.policy.handlers.view import Call
from pinfold.policy.judging.meaning import meanings
from pinfold.policy.judging.passing import without
from pinfold.policy.judging.reach import features_of
from pinfold.policy.rules import ALLOW, DENY
from pinfold.syscalls.forms import NOTHING, WHOLE, both
from pinfold.syscalls.kinds import PATHS, PINNED, Kind
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Judge, Later, Trapped
    from pinfold.policy.handlers.handler import Handler
    from pinfold.policy.handlers.tasks import Tasks
    from pinfold.syscalls.forms import Forms

MEANINGS: Final = 64
"""So many combinations of meanings are asked about; a call with more is denied."""
REPORTS: Final = 100
"""Lines about failing handlers for one sandbox; later ones are in the log alone. A program that has
found out how to make a handler fail could else fill the terminal."""

_TRACEBACK: Final = 8000
_STRICT: Final = (KILL, DENY)
_REFUSED: Final = frozenset(one.name for one in REFUSED if one.argument < 0)


class HandlerJudge:
    """Handlers, and the rules behind them, as the judge of one sandbox.

    Args:
        rules: Who is asked where no handler has a verdict.
        handlers: In the order in which they are asked.
        seconds: How long each ``async`` handler may take.
        report: Called with a text about a handler that failed, safe for a terminal; in any thread.
    """

    foreign: Final = True
    """It calls functions of the host program, in the thread of the supervisor."""

    def __init__(
        self,
        rules: Judge,
        handlers: Sequence[Handler],
        seconds: float,
        report: Callable[[str], None],
    ) -> None:
        self._rules = rules
        self._seconds = seconds
        self._reports = _Reports(report)
        self._tasks: Tasks | None = None
        self._chains: dict[str, tuple[_Link, ...]] = {}
        for handler in handlers:
            link = _Link(handler)
            for name in handler.calls:
                if name not in _REFUSED:
                    self._chains[name] = (*self._chains.get(name, ()), link)
        self.calls: Final[Mapping[str, frozenset[Kind]]] = _wanted(rules.calls, self._chains)
        # Without an address there is no name for a condition to be about.
        free = (one for one in handlers if not one.path and not one.access)
        self.whole: Final = rules.whole.union(
            name for one in free for name in one.calls if name in TABLE and name not in _REFUSED
        )
        self.addresses: Final = rules.addresses or any(
            features_of(name).address for name in self._chains
        )
        self.real: Final = rules.real
        self.programs: Final = rules.programs
        self.literals: Final = rules.literals

    @cached_property
    def passing(self) -> Mapping[str, Forms]:
        """What no handler is asked about and the rules allow; see ``calls.Judge``."""
        found = {}
        for name in self.calls:
            passes = self._rules.passing.get(name, NOTHING) if name in self._rules.calls else WHOLE
            for link in self._chains.get(name, ()):
                passes = both(passes, link.passes(name))
            if passes:
                found[name] = passes
        return found

    def judge(self, call: Trapped) -> Verdict | Later:
        """Returns the verdict; see ``calls.Judge``."""
        chain = self._chains.get(call.row.name)
        if chain is None or _is_settled(call):
            return self._rules.judge(call)
        inquiry = _Inquiry(call, chain, self._rules, self._reports)
        steps = inquiry.steps()
        try:
            first = next(steps)
        except StopIteration as end:
            inquiry.end()
            outcome: Verdict | Later = end.value
            return outcome
        inquiry.detach()
        if self._tasks is None:
            from pinfold.policy.handlers.tasks import Tasks  # noqa: PLC0415 (asyncio is slow to import)

            self._tasks = Tasks(self._seconds, self._reports.line)
        return self._tasks.later(first, steps, inquiry.end)

    def steady(self, name: str) -> bool:
        """Returns whether verdicts on a call may be kept; not where a handler is asked."""
        return name not in self._chains and self._rules.steady(name)

    def executed(self, program: bytes, by: bytes) -> Verdict | None:
        """Returns what the rules say; see ``calls.Judge``. Handlers were asked about the call."""
        return self._rules.executed(program, by)

    def close(self) -> None:
        """Ends what was started for this sandbox; see ``calls.Judge``."""
        if self._tasks is not None:
            self._tasks.close()
        self._rules.close()


def _is_settled(call: Trapped) -> bool:
    # Whether `--map` has settled all that the call is about. Of an exec it has not settled argv.
    return bool(call.names) and call.names.keys() <= call.settled and call.row.group != "exec"


def _wanted(
    rules: Mapping[str, frozenset[Kind]], chains: Mapping[str, object]
) -> dict[str, frozenset[Kind]]:
    # A handler may look at anything.
    wanted = dict(rules)
    for name in chains:
        row = TABLE.get(name)
        kinds = {kind for _, kind in row.arguments} if row is not None else set()
        wanted[name] = wanted.get(name, frozenset()) | (kinds & (PINNED - PATHS))
    return wanted


class _Link:
    # A handler with its conditions made ready.

    def __init__(self, handler: Handler) -> None:
        self.function = handler.function
        self.who = f"handler {handler.name}"
        self._paths = handler.path_globs()
        self._programs = handler.program_globs()
        self._access = handler.access

    def passes(self, name: str) -> Forms:
        # The forms of a call about which it is not asked, whatever the call names.
        return without(name, self._access) if self._access else NOTHING

    def meets(self, look: Look) -> bool:
        if self._programs is not None and self._programs.match(look.trapped.program) < 0:
            return False
        if self._paths is None and not self._access:
            return True
        for argument, name in look.subjects():
            if self._paths is not None and self._paths.match(name) < 0:
                continue
            if not self._access or not self._access.isdisjoint(look.access(argument)):
                return True
        return False


class _Inquiry:
    # One call on its way through the handlers.

    def __init__(
        self, call: Trapped, chain: tuple[_Link, ...], rules: Judge, reports: _Reports
    ) -> None:
        self._call = call
        self._chain = chain
        self._rules = rules
        self._reports = reports
        self._ruled: Verdict | Later | None = None
        self._looked: set[str] = set()
        self._looks: list[Look] = []
        self._over = False

    def detach(self) -> None:
        # From here on another thread goes on.
        self._ruled = self._rules.judge(self._call)
        self._call = detached(self._call)
        for look in self._looks:
            look.trapped = self._call

    def end(self) -> None:
        self._over = True
        for look in self._looks:
            look.over = True

    def steps(self) -> Generator[Step, Any, Verdict | Later]:
        unclear = _meanings(self._call)
        if unclear and prod(map(len, unclear.values())) > MEANINGS:
            return denied("handlers: its arguments can mean too many things", EPERM)
        verdicts: list[Verdict] = []
        undecided = False
        for look in self._each(unclear):
            verdict = yield from self._ask(look)
            if verdict is None:
                undecided = True
            else:
                verdicts.append(verdict)
                if verdict.action == KILL:
                    break
        own = _strictest(verdicts) if verdicts else None
        if own is not None and (own.action in _STRICT or not undecided):
            return own._replace(left=self._left())
        if self._ruled is None:
            self._ruled = self._rules.judge(self._call)
        if own is None:
            return self._ruled
        if isinstance(self._ruled, Verdict):
            return _strictest([self._ruled, own._replace(left=frozenset())])
        return _Both(self._ruled, own._replace(left=frozenset()))

    def _each(self, unclear: Mapping[str, tuple[bytes | Address, ...]]) -> Iterator[Look]:
        # The ways to read the call. The first is enough when nobody has looked at what is unclear.
        if not unclear:
            yield self._look({})
            return
        ways = _ways(unclear)
        yield self._look(next(ways))
        if self._looked.isdisjoint(name for name, found in unclear.items() if len(found) > 1):
            return
        for way in ways:
            yield self._look(way)

    def _look(self, way: Mapping[str, bytes | Address]) -> Look:
        look = Look(
            self._call,
            {name: one for name, one in way.items() if isinstance(one, bytes)},
            {name: one for name, one in way.items() if not isinstance(one, bytes)},
            self._looked,
        )
        look.over = self._over
        self._looks.append(look)
        return look

    def _ask(self, look: Look) -> Generator[Step, Any, Verdict | None]:
        for link in self._chain:
            try:
                if not link.meets(look):
                    continue
                answer = link.function(Call(look))
                waits = answer if isawaitable(answer) else None
            except BaseException as error:  # noqa: BLE001 (a handler that exits is no reason to)
                return self._failed(link.who, error)
            if waits is not None:
                try:
                    answer = yield Step(link.who, waits)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 (likewise)
                    return self._failed(link.who, error)
            if answer is None:
                continue
            try:
                return checked(answer, look.trapped, link.who)
            except BaseException as error:  # noqa: BLE001 (a handler may answer anything)
                return self._failed(link.who, error, answered=True)
        return None

    def _failed(self, who: str, error: BaseException, *, answered: bool = False) -> Verdict:
        line = one_line(error)
        if isinstance(error, MissingError) and error.faulted:
            return denied(f"{who}: {line}", EFAULT)
        rule = f"{who} {'answered wrongly' if answered else f'raised {type(error).__name__}'}"
        rule = f"{rule}: {line}" if line else rule
        self._reports.failure(rule, error)
        return denied(rule, EPERM)

    def _left(self) -> frozenset[str]:
        # What nobody has looked at, and no rule would have to.
        needed = self._rules.calls.get(self._call.row.name)
        left = set()
        for one in self._call.arguments:
            if needed is not None and (one.kind in needed or one.kind in PATHS):
                continue
            left.add(one.name)
        return frozenset(left - self._looked)


class _Both:
    """A verdict to come, and one that is there: the stricter one."""

    def __init__(self, later: Later, own: Verdict) -> None:
        self._later = later
        self._own = own

    def start(self, done: Callable[[Verdict], None]) -> None:
        """Begins; see ``calls.Later``."""
        own = self._own
        self._later.start(lambda verdict: done(_strictest([verdict, own])))

    def cancel(self) -> None:
        """Says that nobody waits any more."""
        self._later.cancel()


def _strictest(verdicts: Sequence[Verdict]) -> Verdict:
    return min(verdicts, key=_looseness)


def _looseness(verdict: Verdict) -> int:
    if verdict.action in _STRICT:
        return _STRICT.index(verdict.action)
    return 3 if verdict.action == ALLOW else 2


def _meanings(call: Trapped) -> dict[str, tuple[bytes | Address, ...]]:
    # By argument, what it can mean; one that means what is spelt, and nothing else, is left out.
    found: dict[str, tuple[bytes | Address, ...]] = {
        name: names
        for name, names in call.names.items()
        if len(names) > 1 and name not in call.settled
    }
    for one in call.arguments:
        address = one.value.address if isinstance(one.value, Sockaddr) else None
        if isinstance(one.value, Message):
            address = one.value.name
        if isinstance(address, Inet | Inet6 | Unspec):
            meant = _addresses(address, call.row.group)
            if meant != (address,):
                found[one.name] = meant
    return found


def _addresses(address: Inet | Inet6 | Unspec, group: str) -> tuple[Address, ...]:
    found: list[Address] = []
    for meaning in meanings(address, (), group):
        host, port = meaning.readings[0].host, meaning.readings[0].port
        if host is None or port is None or host == getattr(address, "host", None):
            found.append(address)
        elif isinstance(host, IPv4Address):
            found.append(Inet(host, port))
        else:
            found.append(Inet6(host, port))
    return tuple(found)


def _ways(
    unclear: Mapping[str, tuple[bytes | Address, ...]],
) -> Iterator[dict[str, bytes | Address]]:
    for chosen in product(*unclear.values()):
        yield dict(zip(unclear, chosen, strict=True))


class _Reports:
    # What somebody should hear of, as long as there is not too much of it.

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._left = REPORTS
        self._seen: set[tuple[str, type, int]] = set()

    def line(self, text: str) -> None:
        self._say(escaped(text))

    def failure(self, rule: str, error: BaseException) -> None:
        # The way to a place in a handler is shown once.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = (
            "" if last is None else last.tb_frame.f_code.co_filename,
            type(error),
            0 if last is None else last.tb_lineno,
        )
        if place in self._seen:
            self._say(rule)
            return
        if self._left > 0:
            self._seen.add(place)
        self._say("\n".join([rule, *_way(error)]))

    def _say(self, text: str) -> None:
        self._left -= 1
        if self._left >= 0:
            self._report(text)
        elif self._left == -1:
            self._report("more handlers fail; from here on only the log says so")


def _way(error: BaseException) -> list[str]:
    # From the handler on: how it was called says nothing about what is wrong with it.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        trace = trace.tb_next
    if trace is None and error.__cause__ is None:
        return []
    text = "".join(traceback.format_exception(type(error), error, trace))[-_TRACEBACK:]
    return ["  " + escaped(line) for line in text.splitlines()]
