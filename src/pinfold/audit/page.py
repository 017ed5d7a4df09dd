"""A report as one HTML page that needs nothing else (pure but for its two data files).

Every text of a log was chosen by a hostile program, perhaps in order to be read in a browser. Three
things stand against it, each enough by itself: texts are escaped for people (``summary.shown``) and
then for HTML; the tree's data is JSON in a block that is not run, with no ``<`` in it, and its
script makes text nodes of it; and the page's own policy lets only that one script and style sheet
run, by their hashes, and lets nothing be loaded.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, Final

from pinfold.audit.collect import Section, said, sections
from pinfold.audit.summary import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pinfold.audit.collect import Collection, Node, Process

ROWS_MAX: Final = 500
LANES_MAX: Final = 200
TREE_CHARACTERS_MAX: Final = 2_000_000
_WIDTH: Final = 1000
_LABEL: Final = 330
_LANE: Final = 20


def page(collection: Collection, name: str) -> Iterator[str]:
    """Yields the page, piece by piece.

    Args:
        collection: What to show.
        name: Of the log, for the title.
    """
    style = files("pinfold.audit").joinpath("page.css").read_text("utf-8")
    script = files("pinfold.audit").joinpath("page.js").read_text("utf-8")
    title = escape(shown(name))
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="'
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src"
        f" 'sha256-{_hash(script)}'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: audit report</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n"
    )
    yield from _header(collection)
    yield (
        '</header>\n<main>\n<form id="search-form" class="search" role="search" hidden>\n'
        '<label for="search">Search in tables and names</label><br>\n'
        '<input id="search" type="search" autocomplete="off">\n'
        '<span id="found" role="status"></span>\n</form>\n'
    )
    groups, programs, _, sent = sections(collection, ROWS_MAX)
    yield from _section(groups)
    yield from _denials(collection)
    yield from _section(sent)
    yield "<h2>Names</h2>\n<noscript><p>The tree of names needs JavaScript.</p></noscript>\n"
    yield '<div id="tree" class="tree"></div>\n'
    yield from _processes(collection)
    yield from _section(programs)
    yield f'</main>\n<script type="application/json" id="tree-data">{_tree(collection)}</script>\n'
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode("ascii")


def _header(collection: Collection) -> Iterator[str]:
    verification = collection.verification
    assert verification is not None
    if verification.ok:
        yield (
            '<p class="good">Complete: every line follows from the one before.</p>\n'
            f"<p>Head: <code>{verification.head}</code></p>\n"
        )
    for problem in verification.problems:
        where = f"line {problem.line}" if problem.line else "the log"
        yield f'<p class="bad">Not verified: {where}: {escape(shown(problem.what, 400))}</p>\n'
    yield "<dl>\n"
    for term, text in _facts(collection):
        yield f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n"
    yield "</dl>\n"


def _facts(collection: Collection) -> Iterator[tuple[str, str]]:
    start, end, first, last = (
        collection.start,
        collection.end,
        collection.first,
        collection.last,
    )
    if start is not None:
        words = [one for one in start["argv"] if type(one) is str]
        yield "command", shown(" ".join(words), 1000)
        yield "directory", shown(start["cwd"])
        yield "user", str(start["uid"])
        yield "started", moment(start["time"])
        yield "mode", shown(start["mode"])
        for rule in start["rules"][:_LISTED]:
            yield "rule", shown(rule)
        for one in start["policy"][:_LISTED]:
            if type(one) is dict:
                yield "policy", shown(f"{one.get('file')} (SHA-256 {one.get('sha256')})", 400)
        yield "by", shown(f"pinfold {start['pinfold']}, kernel {start['kernel']}")
    if end is not None:
        yield "ended", moment(end["time"])
        status = f", exit status {end['exit']}" if "exit" in end else ""
        yield "end", shown(end["reason"]) + status
    yield "calls", str(collection.summary.calls)
    if first is not None and last is not None:
        yield "first to last", f"{max(0.0, last - first):.3f} s"


_LISTED: Final = 50


def moment(time: float) -> str:
    """Returns a time as text, in UTC; as a number where it is no time that a calendar has."""
    try:
        return strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(time))
    except (OverflowError, ValueError, OSError):
        return f"{time:g}"


def _section(section: Section) -> Iterator[str]:
    numbers = {at for at, name in enumerate(section.columns) if name in ("calls", "times")}
    if section.columns[0] == "group":
        numbers = set(range(1, len(section.columns)))
    yield from _table(section.title, section.columns, section.rows, section.more, numbers)


def _table(
    title: str,
    columns: Iterable[str],
    rows: Sequence[tuple[str, ...]],
    more: str,
    numbers: Iterable[int] = (),
) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2>\n"
    if not rows:
        yield '<p class="none">None.</p>\n'
        return
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in columns)
    yield f'<div class="scroll"><table class="searched"><thead><tr>{head}</tr></thead><tbody>\n'
    for row in rows:
        cells = (
            f'<td class="n">{escape(cell)}</td>' if at in numbers else f"<td>{escape(cell)}</td>"
            for at, cell in enumerate(row)
        )
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table></div>\n"
    if more:
        yield f'<p class="more">… {escape(more)}</p>\n'


def _denials(collection: Collection) -> Iterator[str]:
    denials = collection.denials
    rows = [
        (
            str(count),
            said(one),
            one.syscall,
            one.subject,
            collection.details[one],
            one.rule,
            one.program,
        )
        for one, count in denials.most(ROWS_MAX)
    ]
    left = sum(denials.counts.values()) + denials.others - sum(int(row[0]) for row in rows)
    yield from _table(
        "Denials",
        (
            "times",
            "verdict",
            "call",
            "what",
            "arguments as pinned (of the first)",
            "rule",
            "program",
        ),
        rows,
        f"and {left} more denied calls" if left else "",
        {0},
    )


def _processes(collection: Collection) -> Iterator[str]:
    # Those with denials first, if there are too many to show; shown in the order of their starts.
    every = sorted(collection.processes.values(), key=lambda one: (not one.denied, one.first))
    chosen = sorted(every[:LANES_MAX], key=lambda one: one.first)
    yield "<h2>Processes over time</h2>\n"
    if not chosen or collection.first is None or collection.last is None:
        yield '<p class="none">None.</p>\n'
        return
    height = _LANE * len(chosen) + 4
    yield (
        f'<div class="scroll"><svg viewBox="0 0 {_WIDTH} {height}" role="img"'
        ' aria-label="A lane for each process, from its first judged call to its last. The table'
        ' below says the same.">\n'
    )
    span = collection.last - collection.first
    for at, process in enumerate(chosen):
        yield from _lane(process, at, collection.first, span)
    yield "</svg></div>\n"
    left = len(every) - len(chosen)
    words = [f"and {left} more processes"] if left else []
    if collection.homeless:
        words.append(f"and {collection.homeless} calls of processes that are not told apart")
    yield from _table(
        "Processes",
        ("process", "calls", "denied", "first", "last", "programs"),
        [
            (
                str(one.pid),
                str(one.calls),
                str(one.denied),
                f"{one.first - collection.first:.3f} s",
                f"{one.last - collection.first:.3f} s",
                ", ".join(shown(program) for program in one.programs),
            )
            for one in chosen
        ],
        ", ".join(words),
        {0, 1, 2, 3, 4},
    )


def _lane(process: Process, at: int, first: float, span: float) -> Iterator[str]:
    def x(time: float) -> float:
        part = (time - first) / span if span > 0 else 0.0
        return _LABEL + max(0.0, min(1.0, part)) * (_WIDTH - _LABEL - 10)

    y = at * _LANE
    label = process.programs[-1].rpartition("/")[2] if process.programs else ""
    left, right = x(process.first), x(process.last)
    yield (
        f'<line class="rule" x1="0" x2="{_WIDTH}" y1="{y + _LANE}" y2="{y + _LANE}"/>'
        f'<text x="0" y="{y + 14}">{process.pid} {escape(shown(label, 30))}</text>'
        f'<rect class="lane" x="{left:.1f}" y="{y + 5}" width="{max(2.0, right - left):.1f}"'
        f' height="10" rx="2"/>'
    )
    for time, what in process.marks:
        yield (
            f'<circle class="mark" cx="{x(time):.1f}" cy="{y + 10}" r="4">'
            f"<title>denied: {escape(shown(what, 120))}</title></circle>"
        )
    yield "\n"


def _tree(collection: Collection) -> str:
    # As arrays, see page.js. Names with most calls come first, until there is no more room.
    room = TREE_CHARACTERS_MAX

    def pack(node: Node, name: str) -> list[Any]:
        nonlocal room
        children = []
        more = node.more
        for part, child in sorted(node.children.items(), key=lambda pair: -pair[1].counts[0]):
            text = shown(part)
            room -= len(text) + _NODE_SIZE
            if room < 0:
                more += child.counts[0]
            else:
                children.append(pack(child, text))
        children.sort(key=lambda packed: packed[0])
        return [name, *node.counts, more, children]

    text = json.dumps(pack(collection.root, "/"), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_NODE_SIZE: Final = 40
"""Characters of a node without its name, about."""
