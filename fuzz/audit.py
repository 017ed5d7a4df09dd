"""The reader of audit logs: any bytes are a log that is in order, or one of which is said why not.

An input is a log: any bytes; records with fields of any sort, sealed into a chain as somebody would
who wants to be believed; or a log that is in order, changed. Of each:

- there is a verdict and a report, whatever it is;
- what was changed is never called complete, unless it is the very log again;
- what a terminal or a browser is given has no character that either of them would obey, and the
  page has the tags of the page and no others.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from typing import Any, Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main

with instrumented(__name__):
    from pinfold.audit import chain
    from pinfold.audit.collect import collect, sections
    from pinfold.audit.lines import Style, call, quoted, result
    from pinfold.audit.page import page
    from pinfold.audit.record import describe
    from pinfold.audit.schema import LINES, SCHEMA, VERDICTS, check
    from pinfold.audit.summary import Summary
    from pinfold.audit.verify import Unusable, parse, verify

from tests.unit.audit.logs import START, STATUS, entry

TEXTS: Final = (
    *("", "/a", "openat", "execve", "/bin/cat", "<script>alert(1)</script>", "</script>", "<!--"),
    *(
        "\x1b[2J\x1b]0;x\x07",
        "\u202e",
        "\ud800",
        "\udcff",
        "\u2028",
        "\r\n",
        "&lt;",
        '"',
        "'",
        "\0",
    ),
    *("/a/b/c/../d", "//", "x" * 500, "/".join("abcdefgh" * 8), "\U0001f600", "\x9b31m", "\u200b"),
)
NUMBERS: Final = (
    *(
        0,
        1,
        -1,
        2,
        10,
        1.5,
        -0.0,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        -(1 << 63),
        1e308,
        -1e308,
        5e-324,
    ),
    *(1_700_000_000.5, 253402300800, True, None),
)
PRINTED: Final = frozenset("\n")
"""What is printed and is no printable character."""


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    how = given.number(1) % 4
    if how == 0:
        _read(given.rest())
    elif how == 1:
        _read(_sealed(given))
    elif how == 2:
        _changed(given)
    else:
        _calls(given)


def _read(log: bytes) -> bool:
    found = verify(io.BytesIO(log))
    for problem in found.problems:
        # `pinfold audit verify` prints it as it is.
        assert problem.what.isprintable(), problem
        assert problem.line >= 0
    collection = collect(io.BytesIO(log))
    assert collection.verification == found
    for section in sections(collection):
        for row in section.rows:
            assert all(cell.isprintable() for cell in row), row
    printed = collection.summary.text(1_700_000_100.0, 3)
    assert all(char.isprintable() or char in PRINTED for char in printed), printed
    _page("".join(page(collection, "log")))
    return found.ok


class _Tags(HTMLParser):
    # What the page is made of, as a browser takes it apart.
    TAGS: Final = frozenset(
        {
            *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "main"),
            *("form", "label", "br", "input", "span", "p", "dl", "dt", "dd", "div", "noscript"),
            *("table", "thead", "tbody", "tr", "th", "td", "code", "script"),
            *("svg", "line", "rect", "circle", "text"),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.TAGS, tag
        self.scripts += tag == "script"
        assert not any(name.startswith("on") or name in {"href", "src"} for name, _ in attrs), attrs

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def _page(text: str) -> None:
    text.encode()
    assert all(char.isprintable() or char in PRINTED for char in text)
    tags = _Tags()
    tags.feed(text)
    tags.close()
    assert tags.scripts == 2
    tree = re.search(r'id="tree-data">(.*)</script>', text)
    assert tree is not None
    assert not set("<>&") & set(tree[1])
    json.loads(tree[1])


def _value(given: Given, depth: int = 2) -> Any:
    how = given.number(1)
    if how < 0x60:
        return given.pick(TEXTS)
    if how < 0xA0:
        return given.pick(NUMBERS)
    if how < 0xB0:
        return given.text(40).decode("utf-8", "surrogateescape")
    if depth and how < 0xD0:
        return [_value(given, depth - 1) for _ in range(how & 3)]
    if depth and how < 0xF0:
        return {given.pick(TEXTS): _value(given, depth - 1) for _ in range(how & 3)}
    return given.number(8)


def _fitting(given: Given, kind: str) -> Any:
    # A value that a field may have, mostly.
    if given.number(1) > 0xF0:
        return _value(given)
    match kind:
        case "text":
            return given.pick(TEXTS)
        case "count" | "integer":
            return given.below(4) if given.number(1) & 3 else given.number(8)
        case "number":
            return given.pick(NUMBERS[:-2])
        case "true":
            return True
        case "object":
            return {given.pick(("path", "address", "message", *TEXTS[:4])): _value(given)}
        case "array":
            return [_value(given, 1) for _ in range(given.below(3))]
    return [given.pick(TEXTS) for _ in range(given.below(4))]


def _sealed(given: Given) -> bytes:
    # Lines of any sort in a chain that holds.
    head = chain.FIRST
    lines: list[bytes] = []
    seq = 0
    while given and len(lines) < 12:
        how = given.number(1)
        kind = "start" if not lines and how < 0xF0 else given.pick(("call", "call", "gap", "end"))
        record: dict[str, Any] = {}
        for name, of, always, _ in LINES[kind]:
            if name != "chain" and (always or given.number(1) & 1):
                record[name] = _fitting(given, of)
        record["type"] = kind
        if kind == "call" and how & 3:
            seq += 1
            record["seq"] = seq
            record["verdict"] = given.pick(list(VERDICTS))
            record["syscall"] = given.pick(("openat", "execve", "connect", *TEXTS[:6]))
        if how == 0xFF:
            record[given.pick(TEXTS) or "x"] = _value(given)
        line, head = chain.seal(head, record)
        lines.append(line)
        if how == 0xFE:
            # A line that is no record, in the chain all the same.
            body = given.text(40).replace(b"\n", b" ")
            head = chain.digest(head, body)
            lines.append(b'%b,"chain":"%b"}\n' % (body, head.encode("ascii")))
    return b"".join(lines)


def _log(calls: int) -> bytes:
    # As ``AuditWriter`` writes it.
    head = chain.FIRST
    lines: list[bytes] = []
    verdicts: dict[str, int] = {}
    first = {"type": "start", "schema": SCHEMA, "pinfold": "0", "time": 1.5, "on_loss": "stop"}
    records: list[dict[str, Any]] = [{**first, **START}]
    for seq in range(1, calls + 1):
        verdict = ("allow", "deny", "allow", "error")[seq % 4]
        made = describe(entry(b"/a/%d" % seq, verdict))
        records.append({"type": "call", "seq": seq, **made})
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    records.append(
        {
            "type": "end",
            "time": 1_700_000_000.5,
            **STATUS,
            "calls": calls,
            "lost": 0,
            "verdicts": verdicts,
        }
    )
    for record in records:
        line, head = chain.seal(head, record)
        lines.append(line)
    return b"".join(lines)


VALID: Final = _log(5)
assert verify(io.BytesIO(VALID)).ok
_LINES: Final = VALID.splitlines(keepends=True)


def _changed(given: Given) -> None:
    log = bytearray(VALID)
    lines = list(_LINES)
    for _ in range(1 + given.below(3)):
        how = given.number(1) % 8
        at = given.number(2) % max(1, len(log))
        if how == 0:
            log[at : at + 1] = given.take(1)
        elif how == 1:
            del log[at : at + 1 + given.below(64)]
        elif how == 2:
            log[at:at] = given.text(16)
        elif how == 3:
            del log[at:]
        elif lines:
            first, second = given.below(len(lines)), given.below(len(lines))
            if how == 4:
                del lines[first]
            elif how == 5:
                lines[first], lines[second] = lines[second], lines[first]
            elif how == 6:
                lines.insert(first, lines[second])
            else:
                lines[first] = lines[first].replace(given.take(1), given.take(1), 1)
            log = bytearray(b"".join(lines))
    changed = bytes(log)
    assert _read(changed) == (changed == VALID), changed


def _calls(given: Given) -> None:
    # What `pinfold trace` prints of calls, and the counts of a run that goes on.
    summary = Summary(0.0)
    path = given.text(300)
    made = entry(path, given.pick(list(VERDICTS)), program=given.text(60), rule=given.pick(TEXTS))
    summary.add(made)
    shown = call(made, Style())
    assert shown.isprintable(), shown
    assert quoted(path).isprintable()
    value = given.number(8) - (1 << 63)
    assert result(value, Style()).isprintable()
    printed = summary.text(1.0)
    assert all(char.isprintable() or char in PRINTED for char in printed), printed
    line, _ = chain.seal(chain.FIRST, {"type": "call", "seq": 1, **describe(made)})
    assert check(parse(line)) is None
    try:
        parse(given.rest())
    except Unusable as problem:
        assert str(problem).isprintable()


if __name__ == "__main__":
    main("audit", one)
