"""What a run has done so far, in a few lines of text (pure).

Counting costs a few dictionary increments a call, so that it can be done whether anybody will ask
or not. All that a program chooses (its path, names of files) is cut and escaped when it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pinfold.audit.record import describe
from pinfold.audit.schema import DENIALS, VERDICTS
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from pinfold.audit.record import Entry

K = TypeVar("K", bound="Hashable")

PROGRAMS_MAX: Final = 4096
_SHOWN: Final = 200
_KEPT: Final = 4096


class Tally(Generic[K]):
    """Counts by key, of so many keys at most; what comes later is counted in one.

    Args:
        limit: Number of keys.

    Attributes:
        counts: By key, in the order of their first appearance.
        others: What has no key of its own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counts: dict[K, int] = {}
        self.others = 0

    def add(self, key: K) -> bool:
        """Counts one; returns whether the key has a count of its own."""
        if key in self.counts:
            self.counts[key] += 1
        elif len(self.counts) < self._limit:
            self.counts[key] = 1
        else:
            self.others += 1
            return False
        return True

    def most(self, number: int) -> list[tuple[K, int]]:
        """Returns the keys with the highest counts, and these, the highest first."""
        return sorted(self.counts.items(), key=lambda pair: -pair[1])[:number]


class Summary:
    """Counts the calls of a run.

    Args:
        started: When it began, in seconds since 1970.

    Attributes:
        calls: How many calls there were.
        verdicts: How many by (group, verdict).
        programs: How many by program, as text.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.calls = 0
        self.verdicts: Tally[tuple[str, str]] = Tally(1024)
        self.programs: Tally[str | bytes] = Tally(PROGRAMS_MAX)
        self._last: Entry | Mapping[str, Any] | None = None

    def add(self, entry: Entry) -> None:
        """Counts a call."""
        self._count(entry.row.group, entry.verdict, entry.program)
        if entry.verdict in DENIALS:
            self._last = entry

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Counts a call by its line in the log, which has been checked."""
        # Cut, since a hostile log may have thousands of names a million characters long.
        verdict = record["verdict"]
        self._count(group_of(record["syscall"]), verdict[:_SHOWN], record["program"][:_KEPT])
        if verdict in DENIALS:
            self._last = record

    def _count(self, group: str, verdict: str, program: str | bytes) -> None:
        self.calls += 1
        self.verdicts.add((group, verdict))
        self.programs.add(program)

    def table(self) -> list[tuple[str, dict[str, int]]]:
        """Returns counts by verdict for each group, the group with most calls first."""
        groups: dict[str, dict[str, int]] = {}
        for (group, verdict), count in self.verdicts.counts.items():
            groups.setdefault(group, {})[verdict] = count
        return sorted(groups.items(), key=lambda pair: -sum(pair[1].values()))

    def last_denial(self, now: float) -> str | None:
        """Returns one line about the last call that did not get what it asked for, if any."""
        if self._last is None:
            return None
        record = self._last if not isinstance(self._last, tuple) else describe(self._last)
        why = ", ".join(
            str(record[name]) for name in ("errno", "rule") if record.get(name) is not None
        )
        return (
            f"{shown(record['syscall'])} {shown(subject(record))}".rstrip()
            + f": {shown(record['verdict'])}"
            + (f" ({shown(why)})" if why else "")
            + f", by {shown(record['program'])}, pid {record['pid']},"
            + f" {max(0.0, now - record['time']):.1f} s ago"
        )

    def text(self, now: float, tasks: int | None = None) -> str:
        """Returns the counts as lines of text for a terminal, without a last newline.

        Args:
            now: Seconds since 1970.
            tasks: Tasks alive in the sandbox, None where that is of no interest.
        """
        first = f"{max(0.0, now - self.started):.1f} s, {self.calls} calls judged"
        if tasks is not None:
            first += f", {tasks} task{'' if tasks == 1 else 's'} now"
        rows = self.table()
        width = max((len(shown(group)) for group, _ in rows), default=0)
        found = [first]
        for group, counts in rows:
            said = ", ".join(f"{counts[one]} {shown(one)}" for one in in_order(counts))
            found.append(f"  {shown(group):{width}}  {said}")
        last = self.last_denial(now)
        found.append(f"  last denial: {last}" if last is not None else "  nothing was denied")
        return "\n".join(found)


def group_of(call: str) -> str:
    """Returns the group of a call, ``other`` for one that is in none."""
    row = TABLE.get(call)
    return row.group if row is not None else "other"


def in_order(verdicts: Mapping[str, int]) -> list[str]:
    """Returns verdicts in the order of the schema, unknown ones at the end."""
    known = [one for one in VERDICTS if one in verdicts]
    return known + sorted(set(verdicts) - set(known))


def subject(record: Mapping[str, Any]) -> str:
    """Returns what a call is about, in short: names, or else an address, or nothing."""
    names = record.get("names")
    if names:
        return " → ".join(names[:2])
    args = record["args"]
    address = args.get("address")
    if type(address) is str:
        return address
    message = args.get("message")
    if type(message) is dict and type(message.get("to")) is str:
        return str(message["to"])
    path = args.get("path")
    return path if type(path) is str else ""


def shown(text: str, most: int = _SHOWN) -> str:
    """Returns text from a log for people: escaped, and cut after so many characters.

    What is not printable (control characters, changes of writing direction, bytes that were no
    text) is escaped as in ``paths.printable``.
    """
    cut = text[:most]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else _escaped(char) for char in cut)
    return cut if len(text) <= most else f"{cut}… ({len(text)} characters)"


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
