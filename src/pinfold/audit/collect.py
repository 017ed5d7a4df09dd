"""What a report shows, gathered line by line (pure).

A log may have a million calls, and a hostile one a million names: everything here has a limit, and
what is beyond it is counted, so that a report can say how much it leaves out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.audit.schema import DENIALS
from pinfold.audit.summary import Summary, Tally, group_of, shown, subject
from pinfold.audit.verify import Verifier, lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from pinfold.audit.verify import Verification

DENIALS_MAX: Final = 2000
SENT_MAX: Final = 2000
PROCESSES_MAX: Final = 20_000
NODES_MAX: Final = 20_000
DEPTH_MAX: Final = 40
COMPONENT_MAX: Final = 120
"""Characters of one component that are kept apart; longer ones with the same beginning are one."""
MARKS_MAX: Final = 40
"""Denials of one process that are marked in time."""
ALL_MARKS_MAX: Final = 10_000
"""Denials of all processes that are."""
PROGRAMS_MAX: Final = 5
"""Programs that one process is said to have run."""
_TEXT_MAX: Final = 400
_LAUNCHER: Final = "(before COMMAND)"
"""What is shown as the program that executes COMMAND."""

_WRITING: Final = frozenset(
    {"truncate", "unlink", "rename", "link", "mkdir", "chmod", "chown", "mount", "bind"}
)
_WRITE_FLAGS: Final = frozenset({"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"})


class Denial(NamedTuple):
    """Calls that were denied alike."""

    syscall: str
    subject: str
    verdict: str
    rule: str
    errno: str
    program: str
    dry: bool


class Sent(NamedTuple):
    """Calls that were sent elsewhere, or answered, alike."""

    syscall: str
    verdict: str
    asked: str
    got: str
    rule: str


class Node:
    """A directory or file that calls named."""

    __slots__ = ("children", "counts", "more")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.counts = [0, 0, 0, 0]
        """Calls on it or below it: all, those that read, those that write, those denied."""
        self.more = 0
        """Calls on names below it that have no node of their own."""


class Process:
    """The calls of one process."""

    __slots__ = ("calls", "denied", "first", "last", "marks", "pid", "programs")

    def __init__(self, pid: int, first: float) -> None:
        self.pid = pid
        self.first = first
        self.last = first
        self.calls = 0
        self.denied = 0
        self.programs: list[str] = []
        self.marks: list[tuple[float, str]] = []

    def add(self, record: Mapping[str, Any], mark: bool) -> bool:
        """Takes one of its calls; returns whether a mark was made, as it may be with ``mark``."""
        time = record["time"]
        self.first = min(self.first, time)
        self.last = max(self.last, time)
        self.calls += 1
        program = shown(record["program"], _TEXT_MAX)
        if len(self.programs) < PROGRAMS_MAX and program not in self.programs:
            self.programs.append(program)
        if record["verdict"] in DENIALS:
            self.denied += 1
            if mark and len(self.marks) < MARKS_MAX:
                self.marks.append((time, f"{shown(record['syscall'])} {shown(subject(record))}"))
                return True
        return False


class Collection:
    """What there is to be shown of one log.

    Attributes:
        summary: Counts by group, verdict and program.
        denials: Calls that were denied, alike ones as one.
        details: For each of ``denials`` the arguments of its first call, as JSON text.
        sent: Calls that were redirected or answered, alike ones as one.
        root: The tree of names.
        nodes: How many nodes it has.
        processes: By process id.
        homeless: Calls of processes that are not in ``processes``.
        first: Time of the first call, None without any.
        last: Time of the last.
        start: The log's first line, if it is one.
        end: Its last, if it is one.
        old: Whether it has no chain.
        verification: What is to be said of the chain.
    """

    def __init__(self) -> None:
        self.summary = Summary(0.0)
        self.denials: Tally[Denial] = Tally(DENIALS_MAX)
        self.details: dict[Denial, str] = {}
        self.sent: Tally[Sent] = Tally(SENT_MAX)
        self.root = Node()
        self.nodes = 1
        self.processes: dict[int, Process] = {}
        self.homeless = 0
        self._marks = 0
        self.first: float | None = None
        self.last: float | None = None
        self.start: Mapping[str, Any] | None = None
        self.end: Mapping[str, Any] | None = None
        self.old = False
        self.verification: Verification | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes the record of a call, which has been checked."""
        self.summary.add_record(record)
        time = record["time"]
        self.first = time if self.first is None else min(self.first, time)
        self.last = time if self.last is None else max(self.last, time)
        verdict = record["verdict"]
        denied = verdict in DENIALS
        if denied:
            self._denial(record)
        elif verdict in ("redirect", "return", "serve", "inject"):
            self._sent(record)
        reads, writes = touches(record)
        for name in record.get("names", ()):
            self._name(name, (1, reads, writes, denied))
        pid = record["pid"]
        process = self.processes.get(pid)
        if process is None and len(self.processes) < PROCESSES_MAX:
            process = self.processes[pid] = Process(pid, time)
        if process is None:
            self.homeless += 1
        else:
            self._marks += process.add(record, self._marks < ALL_MARKS_MAX)

    def _denial(self, record: Mapping[str, Any]) -> None:
        key = Denial(
            shown(record["syscall"]),
            shown(subject(record), _TEXT_MAX),
            shown(record["verdict"]),
            shown(record.get("rule", "")),
            shown(record.get("errno", "")),
            shown(record["program"]),
            "dry_run" in record,
        )
        if self.denials.add(key) and key not in self.details:
            self.details[key] = _json(record["args"])

    def _sent(self, record: Mapping[str, Any]) -> None:
        verdict = record["verdict"]
        changes = record.get("substituted", {})
        pairs = [
            (_json(change.get("from")), _json(change.get("to")))
            for change in changes.values()
            if type(change) is dict
        ]
        if verdict == "return":
            pairs = [(shown(subject(record)), _json(record.get("value")))]
        elif verdict == "serve":
            pairs = [(shown(subject(record)), _json(record.get("content")))]
        for asked, got in pairs[:8] or [(shown(subject(record)), "")]:
            self.sent.add(
                Sent(
                    shown(record["syscall"]),
                    shown(verdict),
                    asked,
                    got,
                    shown(record.get("rule", "")),
                )
            )

    def _name(self, name: str, counts: tuple[int, int, int, int]) -> None:
        node = self.root
        _count(node, counts)
        depth = 0
        for whole in name.split("/"):
            component = whole[:COMPONENT_MAX]
            if not component:
                continue
            depth += 1
            child = node.children.get(component)
            if child is None:
                if depth > DEPTH_MAX or self.nodes >= NODES_MAX:
                    node.more += 1
                    return
                child = node.children[component] = Node()
                self.nodes += 1
            node = child
            _count(node, counts)


def collect(stream: BinaryIO) -> Collection:
    """Returns what there is to be shown of the log in a file.

    Raises:
        OSError: It cannot be read.
    """
    collection = Collection()
    verifier = Verifier()
    for line in lines(stream):
        record = verifier.feed(line)
        if record is not None and ("type" not in record or record["type"] == "call"):
            collection.add(record)
    collection.old = verifier.old
    collection.start = verifier.start
    collection.end = verifier.end
    collection.verification = verifier.finish()
    return collection


def touches(record: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns whether a call reads what it names, and whether it writes (makes, changes) it."""
    call = record["syscall"]
    group = group_of(call)
    if group in _WRITING or call == "creat":
        return False, True
    if group == "xattr":
        writes = "set" in call or "remove" in call
        return not writes, writes
    if group == "open":
        flags = record["args"].get("flags")
        words = set(flags.split("|")) if type(flags) is str else set()
        return "O_WRONLY" not in words, not words.isdisjoint(_WRITE_FLAGS)
    return True, False


def sections(collection: Collection, most: int = 15) -> Iterator[Section]:
    """Yields the tables of a report in words, ``most`` rows of each.

    Every cell is escaped for a terminal.
    """
    summary = collection.summary
    rows = summary.table()
    verdicts = list(dict.fromkeys(one for _, counts in rows for one in counts))
    yield Section(
        "Calls by group and verdict",
        ("group", *(shown(one, 40) for one in verdicts[:12])),
        [
            (shown(group), *(str(counts.get(one, "")) for one in verdicts[:12]))
            for group, counts in rows
        ],
        "",
    )
    programs = summary.programs
    yield Section(
        "Programs",
        ("calls", "program"),
        [(str(count), shown(_str(name)) or _LAUNCHER) for name, count in programs.most(most)],
        _more(len(programs.counts) - most, "programs", programs.others),
    )
    denials = collection.denials
    yield Section(
        "Denials",
        ("times", "verdict", "call", "what", "rule", "program"),
        [
            (
                str(count),
                said(one),
                one.syscall,
                shown(one.subject),
                one.rule,
                one.program,
            )
            for one, count in denials.most(most)
        ],
        _more(len(denials.counts) - most, "kinds of denials", denials.others),
    )
    sent = collection.sent
    yield Section(
        "Sent elsewhere",
        ("times", "verdict", "call", "asked", "got", "rule"),
        [
            (str(count), one.verdict, one.syscall, shown(one.asked), shown(one.got), one.rule)
            for one, count in sent.most(most)
        ],
        _more(len(sent.counts) - most, "kinds", sent.others),
    )


class Section(NamedTuple):
    """A table of a report."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    more: str
    """What it leaves out, empty for nothing."""


def said(denial: Denial) -> str:
    """Returns a denial's verdict in short, as ``deny EACCES``."""
    words = [denial.verdict, denial.errno, "(dry run)" if denial.dry else ""]
    return " ".join(word for word in words if word)


def _more(left: int, what: str, others: int) -> str:
    words = []
    if left > 0:
        words.append(f"and {left} more {what}")
    if others:
        words.append(f"and {others} more calls that are not told apart")
    return ", ".join(words)


def _str(program: str | bytes) -> str:
    return program if isinstance(program, str) else program.decode("utf-8", "surrogateescape")


def _json(value: Any) -> str:
    # A text is shown as it is, anything else as JSON.
    if type(value) is str:
        return shown(value, _TEXT_MAX)
    try:
        return shown(json.dumps(value, ensure_ascii=False), _TEXT_MAX)
    except RecursionError:
        return "(nests too deeply)"


def _count(node: Node, counts: tuple[int, int, int, int]) -> None:
    for index, count in enumerate(counts):
        node.counts[index] += count
