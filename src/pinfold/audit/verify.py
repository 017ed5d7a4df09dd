"""Checking a log, line by line, in constant memory (pure).

A log is hostile text: whoever wanted to hide something may have edited it. Lines that are too long,
are no JSON, nest too deeply, name a field twice or have fields of the wrong type are findings like
a hash that does not fit, and the check goes on behind them.

Behind a line that does not follow, the chain is taken up at the value that this line claims. So one
line that was changed, removed or inserted is one finding, or two, and not thousands.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from pinfold.audit import chain
from pinfold.audit.schema import OLD, SCHEMA, check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

LINE_MAX: Final = 1 << 22
"""Bytes of the longest line that is looked at, newline included. The longest that a writer makes,
an exec with long vectors all of whose bytes are no text, has less than three quarters of it."""


class Problem(NamedTuple):
    """One thing that is wrong."""

    line: int
    """Where, counted from 1; 0 for the file as a whole."""
    what: str


class Verification(NamedTuple):
    """What is to be said of a log."""

    calls: int
    """Lines of calls."""
    lost: int
    """Calls that the log itself says it has no lines for."""
    head: str
    """The chain's value after the last line."""
    problems: tuple[Problem, ...]
    """The first wrong line, and what is wrong with the file as a whole."""

    @property
    def ok(self) -> bool:
        """Whether the log is complete and nothing is wrong."""
        return not self.problems


class Unusable(ValueError):  # noqa: N818 (a finding, not an error)
    """A line is no record; the text says why."""


def lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yields the lines of a file with their newlines, None for each that is too long."""
    while line := stream.readline(LINE_MAX):
        if len(line) < LINE_MAX or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LINE_MAX)
        yield None


def parse(line: bytes) -> dict[str, Any]:
    """Returns the JSON object that a line is.

    Raises:
        Unusable: It is none.
    """
    try:
        value = json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
    except Unusable:
        raise
    except RecursionError:
        raise Unusable("it nests too deeply") from None
    except ValueError:
        # No JSON, no UTF-8, or a number with thousands of digits.
        raise Unusable("it is no JSON") from None
    if type(value) is not dict:
        raise Unusable("it is no JSON object")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # Of two fields of one name, two readers may believe two different ones.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unusable("a field is there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise Unusable(f"{name} is no JSON")


class Verifier:
    """Takes the lines of one log in order.

    Args:
        expect: The head that the log must have, None for any.

    Attributes:
        old: Whether the log is from before there was a chain.
        start: The first line's record, if it is one.
        end: The last line's record, if it is one.
    """

    def __init__(self, expect: str | None = None) -> None:
        self.old = False
        self.start: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        self._expect = expect
        self._expected_at = 0
        self._line = 0
        self._head = chain.FIRST
        self._calls = 0
        self._lost = 0
        self._seq = 0
        self._verdicts: dict[str, int] = {}
        self._first: Problem | None = None
        self._wrong = 0

    def feed(self, line: bytes | None) -> dict[str, Any] | None:
        """Takes the next line, None for one that is too long; returns its record if it has one.

        What is returned has the fields of its type, of the right types, even where the chain says
        that it is not what was written.
        """
        self._line += 1
        record: dict[str, Any] | None = None
        try:
            record = self._record(line)
        except Unusable as problem:
            self._note(str(problem))
        return record

    def finish(self) -> Verification:
        """Returns what is to be said now that no line follows."""
        problems = []
        if self._line == 0:
            problems.append(Problem(0, "it is empty"))
        elif self.old:
            calls = f"{self._calls} call{'' if self._calls == 1 else 's'}"
            problems.append(
                Problem(0, f"{calls} without a chain (schema 0): nothing can be verified")
            )
        elif self.end is None:
            problems.append(
                Problem(0, "it has no end: the run goes on, was killed, or lines were cut off")
            )
        if self._first is not None:
            problems.insert(0, Problem(self._first.line, self._first.what + self._others()))
        if self._expect is not None and self._expect != self._head:
            problems.append(Problem(0, self._unexpected()))
        return Verification(self._calls, self._lost, self._head, tuple(problems))

    def _others(self) -> str:
        assert self._first is not None
        after = self._line - self._first.line
        wrong = self._wrong - 1
        if not after:
            return ""
        if not wrong:
            return f"; the lines after it ({after}) are in order"
        return f"; of the {after} after it {wrong} not in order either"

    def _unexpected(self) -> str:
        if self._expected_at:
            after = self._line - self._expected_at
            return f"the head that was expected is line {self._expected_at}'s; {after} more follow"
        return f"its head is {self._head}, and that is not the one that was expected"

    def _note(self, what: str) -> None:
        self._wrong += 1
        if self._first is None:
            self._first = Problem(self._line, what)

    def _record(self, line: bytes | None) -> dict[str, Any]:
        if line is None:
            raise Unusable(f"it is longer than {LINE_MAX} bytes")
        if not line.endswith(b"\n"):
            raise Unusable("it is cut off: there is no newline")
        found = chain.opened(line)
        if found is None:
            return self._unchained(line)
        body, claimed = found
        follows = chain.digest(self._head, body) == claimed
        self._head = claimed
        if claimed == self._expect:
            self._expected_at = self._line
        record = parse(line)
        wrong = check(record)
        if wrong is not None:
            raise Unusable(wrong)
        # What is out of place is a record all the same: whoever reads the log wants to see it.
        wrong = self._place(record)
        if not follows:
            wrong = "it does not follow from the line before: changed, inserted, or lines removed"
        if wrong is not None:
            self._note(wrong)
        return record

    def _unchained(self, line: bytes) -> dict[str, Any]:
        record = parse(line)
        if (self.old or self._line == 1) and "type" not in record and check(record, OLD) is None:
            self.old = True
            self._calls += 1
            return record
        raise Unusable("it has no chain value")

    def _place(self, record: dict[str, Any]) -> str | None:
        # What is wrong with where a line stands and what it counts; None for nothing.
        kind = record["type"]
        wrong = "it comes after the end" if self.end is not None else None
        if self._line == 1 and kind != "start":
            wrong = "the log does not begin with its start: lines were cut off"
        if kind == "call":
            if record["seq"] != self._seq + 1:
                wrong = wrong or f"its number is {record['seq']}, and {self._seq + 1} is due"
            self._seq = record["seq"]
            self._calls += 1
            verdict = record["verdict"][:_VERDICTS_MAX]
            if verdict in self._verdicts or len(self._verdicts) < _VERDICTS_MAX:
                self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
        elif kind == "gap":
            self._lost += record["lost"]
            self._seq += record["lost"]
            wrong = (
                wrong or f"{record['lost']} calls before it have no line (it could not be written)"
            )
        elif kind == "start":
            if self._line != 1:
                wrong = wrong or "it is a second start"
            elif record["schema"] != SCHEMA:
                wrong = f"schema {record['schema']} is not known"
            self.start = self.start or record
        else:
            wrong = wrong or self._counted(record)
            self.end = record
        return wrong

    def _counted(self, record: dict[str, Any]) -> str | None:
        if record["calls"] != self._seq or record["lost"] != self._lost:
            return (
                f"it speaks of {record['calls']} calls, {record['lost']} of them lost, and the"
                f" lines before of {self._seq} and {self._lost}"
            )
        if self._first is None and record["verdicts"] != self._verdicts:
            return "its verdicts are not those of the lines before"
        return None


_VERDICTS_MAX: Final = 64
"""Verdicts that are counted, and characters of each: a hostile log may have a new one a line."""


def verify(stream: BinaryIO, expect: str | None = None) -> Verification:
    """Returns what is to be said of the log in a file.

    Args:
        stream: The file.
        expect: The head that it must have, None for any.

    Raises:
        OSError: It cannot be read.
    """
    verifier = Verifier(expect)
    for line in lines(stream):
        verifier.feed(line)
    return verifier.finish()
