"""Lines of calls as JSON, without the detour over dictionaries (pure).

``record.describe`` says what a line has, and this module says the same in a fifth of the time: the
fields of a call with these numbers are put together once, so that only its paths are left to be
filled in. That is for calls of the usual sort: with path arguments and numbers, nothing replaced,
nothing returned or served. All others go through ``describe``. A test holds one against the other.

A program chooses its numbers and names, so whatever is kept here has a limit, and begins anew when
that is reached.
"""

from __future__ import annotations

from json import JSONEncoder
from json.encoder import encode_basestring_ascii
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.audit.record import Repeated, describe, is_number, number, text
from pinfold.syscalls.kinds import NULLABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pinfold.audit.record import Entry, Path
    from pinfold.syscalls.table import Row

_dumps: Final = JSONEncoder(separators=(",", ":")).encode
_quoted: Final = encode_basestring_ascii

KEPT: Final = 1024
"""Texts of each sort that are kept."""
_WORD_MOST: Final = 1024
"""Characters of a word that is kept."""
_EXACT: Final = range(1 << 30, 1 << 32)
"""Seconds of which ``_time`` may count the microseconds; see there."""
_MILLION: Final = 1_000_000


class _Plan(NamedTuple):
    """How calls of one name whose path arguments are at certain places are written."""

    numbers: Callable[[Sequence[int]], Any]
    """Gives those registers that are shown."""
    filled: dict[Any, tuple[str, ...]]
    """By these, everything from the call's name to the verdict, cut where a path belongs."""
    order: tuple[int, ...]
    """Which of the paths belongs there."""


class Encoder:
    """Makes the text of lines; one a log, used by one thread at a time."""

    __slots__ = ("_filled", "_plans", "_prefix", "_second", "_whose", "_words")

    def __init__(self) -> None:
        # None for calls that ``describe`` has to deal with.
        self._plans: dict[tuple[str, tuple[int, ...], str], _Plan | None] = {}
        self._filled = 0
        self._whose: dict[tuple[int, int, bytes], str] = {}
        self._words: dict[str, str] = {}
        # Of the last time, none so far.
        self._second: float = inf
        self._prefix = ""

    def fields(self, entry: Entry) -> str:
        """Returns the fields of a call's record as JSON, without the braces around them."""
        (
            time,
            pid,
            tid,
            program,
            row,
            registers,
            paths,
            others,
            replaced,
            verdict,
            rule,
            errno,
            value,
            dry,
        ) = entry
        if others or replaced or value is not None:
            return _dumps(describe(entry))[1:-1]
        whose = self._whose.get((pid, tid, program)) or self._who(pid, tid, program)
        again = paths if isinstance(paths, Repeated) else None
        if again is not None and again.kept is not None:
            numbers, shown, same, end = again.kept
            if same == (row, verdict, rule, errno, dry) and shown == numbers(registers):
                return f"{self._time(time)}{whose}{end}"
        at = (paths[0][0],) if len(paths) == 1 else tuple([path[0] for path in paths])
        try:
            plan = self._plans[row.name, at, verdict]
        except KeyError:
            plan = self._plans[row.name, at, verdict] = _plan(row, at)
        if plan is None:
            return _dumps(describe(entry))[1:-1]
        shown = plan.numbers(registers)
        pieces = plan.filled.get(shown)
        if pieces is None:
            pieces = self._fill(plan, shown, _pieces(row, at, registers, verdict))
        end, changed = _middle(plan, pieces, row, paths)
        if rule is not None or changed or dry or errno is not None:
            end += self._tail(rule, errno, changed, dry=dry)
        if again is not None and len(end) <= _WORD_MOST:
            again.kept = plan.numbers, shown, (row, verdict, rule, errno, dry), end
        return f"{self._time(time)}{whose}{end}"

    def _tail(self, rule: str | None, errno: str | None, changed: str, *, dry: bool) -> str:
        tail = ""
        if rule is not None:
            tail += f',"rule":{self._words.get(rule) or self._word(rule)}'
        if errno is not None:
            tail += f',"errno":{self._words.get(errno) or self._word(errno)}'
        if changed:
            tail += f',"substituted":{{{changed[1:]}}}'
        if dry:
            tail += ',"dry_run":true'
        return tail

    def _time(self, time: float) -> str:
        # ``repr(round(time, 6))``, in a quarter of the time. From 2004 to 2106 a double has 21 or
        # 22 bits after the point; a million times that is exact, so it is rounded as ``round``
        # does. And doubles lie closer together than microseconds: no other and no fewer digits
        # than those of the microseconds mean the one that is next to them.
        fraction = time - self._second
        if not 0.0 <= fraction < 1.0:
            second = int(time)
            if second not in _EXACT:
                return f'"time":{round(time, 6)!r}'
            self._second = second
            self._prefix = f'"time":{second}.'
            fraction = time - second
        micros = round(fraction * 1e6)
        if micros % 10:
            return self._prefix + repr(_MILLION + micros)[1:]
        return f'"time":{round(time, 6)!r}'

    def _fill(self, plan: _Plan, shown: Any, pieces: tuple[str, ...]) -> tuple[str, ...]:
        # All plans together have so many, since a program may call whatever it likes.
        if self._filled >= KEPT:
            self._filled = 0
            for one in self._plans.values():
                if one is not None:
                    one.filled.clear()
        self._filled += 1
        plan.filled[shown] = pieces
        return pieces

    def _who(self, pid: int, tid: int, program: bytes) -> str:
        made = f',"pid":{pid},"tid":{tid},"program":{_quoted(text(program))}'
        if len(made) <= _WORD_MOST:
            if len(self._whose) >= KEPT:
                self._whose.clear()
            self._whose[pid, tid, program] = made
        return made

    def _word(self, word: str) -> str:
        made = _quoted(word)
        if len(made) <= _WORD_MOST:
            if len(self._words) >= KEPT:
                self._words.clear()
            self._words[word] = made
        return made


def _plan(row: Row, at: tuple[int, ...]) -> _Plan | None:
    names = [name for name, _ in row.arguments]
    if len({*names}) < len(names) or len({*at}) < len(at):
        return None
    numbers = []
    for index, (_, kind) in enumerate(row.arguments):
        if index in at:
            continue
        if kind in NULLABLE:
            # There or not, as its register has it.
            return None
        if is_number(kind):
            numbers.append(index)
    order = tuple(at.index(index) for index in sorted(at))
    return _Plan(itemgetter(*numbers) if numbers else _none, {}, order)


def _none(_registers: Sequence[int]) -> None:
    return None


def _middle(
    plan: _Plan, pieces: tuple[str, ...], row: Row, paths: Sequence[Path]
) -> tuple[str, str]:
    # Returns everything from the call's name to the names, and what was substituted.
    if len(paths) == 1 and (path := paths[0])[3] == path[1]:
        # The usual case: made as it was asked for.
        _, asked, name, _ = path
        string = _quoted(asked.decode("utf-8", "surrogateescape"))
        if not name:
            return f"{pieces[0]}{string}{pieces[1]}", ""
        # An absolute path is most often its own name.
        named = string if name == asked else _quoted(name.decode("utf-8", "surrogateescape"))
        return f'{pieces[0]}{string}{pieces[1]},"names":[{named}]', ""
    strings = []
    names = changed = ""
    for argument, asked, name, pinned in paths:
        string = "null" if pinned is None else _quoted(text(pinned))
        strings.append(string)
        if name:
            names += f",{_quoted(text(name))}"
        if pinned is not None and pinned != asked:
            argument_name = _quoted(row.arguments[argument][0])
            changed += f',{argument_name}:{{"from":{_quoted(text(asked))},"to":{string}}}'
    line = pieces[0]
    for place, piece in zip(plan.order, pieces[1:], strict=True):
        line += strings[place] + piece
    return f'{line},"names":[{names[1:]}]' if names else line, changed


def _pieces(
    row: Row, at: tuple[int, ...], registers: Sequence[int], verdict: str
) -> tuple[str, ...]:
    pieces = [f',"syscall":{_quoted(row.name)},"args":{{']
    before = ""
    for index, (name, kind) in enumerate(row.arguments):
        if index in at:
            pieces[-1] += f"{before}{_quoted(name)}:"
            pieces.append("")
        elif is_number(kind):
            pieces[-1] += f"{before}{_quoted(name)}:{_dumps(number(kind, registers[index]))}"
        else:
            continue
        before = ","
    pieces[-1] += f'}},"verdict":{_quoted(verdict)}'
    return tuple(pieces)
