"""Verification: nothing that happens to a log goes unseen, and no log makes it fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import tracemalloc
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.audit import chain
from pinfold.audit.verify import LINE_MAX, Unusable, Verification, Verifier, parse, verify
from tests.unit.audit.logs import START, STATUS, entry, lines_of, write

ROOT = Path(__file__).parents[3]


def verdict(lines: list[bytes], expect: str | None = None) -> Verification:
    return verify(io.BytesIO(b"".join(lines)), expect)


def first(lines: list[bytes]) -> tuple[int, str]:
    """Returns the first problem of a log that must have one."""
    problem = verdict(lines).problems[0]
    return problem.line, problem.what


@cache
def good() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as directory:
        return tuple(lines_of(Path(directory) / "log"))


def sealed(*records: dict[str, object], head: str = chain.FIRST) -> list[bytes]:
    """Returns lines that follow from each other, whatever they say."""
    lines = []
    for record in records:
        line, head = chain.seal(head, record)
        lines.append(line)
    return lines


def records() -> list[dict[str, object]]:
    """Returns what the lines of a good log say, without their chain."""
    found = [json.loads(line) for line in good()]
    for record in found:
        del record["chain"]
    return found


def test_a_log_in_order() -> None:
    found = verdict(list(good()))
    assert found.ok
    assert found.calls == 4
    assert found.lost == 0
    assert found.head == json.loads(good()[-1])["chain"]
    assert verdict(list(good()), found.head).ok


def test_resealing_gives_the_same_lines() -> None:
    assert tuple(sealed(*records())) == good()


@given(st.data())
def test_any_byte_that_changes_is_seen(data: st.DataObject) -> None:
    text = bytearray(b"".join(good()))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at]))
    assert not verdict([bytes(text)]).ok


@given(st.data())
def test_any_piece_that_is_cut_out_put_in_or_doubled_is_seen(data: st.DataObject) -> None:
    text = b"".join(good())
    begin = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(begin + 1, len(text)))
    assert not verdict([text[:begin], text[end:]]).ok
    assert not verdict([text[:end], text[begin:]]).ok
    piece = data.draw(st.binary(min_size=1, max_size=9))
    assert not verdict([text[:begin], piece, text[begin:]]).ok


@given(st.permutations(range(6)).filter(lambda order: order != list(range(6))))
def test_any_other_order_is_seen(order: list[int]) -> None:
    assert not verdict([good()[at] for at in order]).ok


@given(st.integers(0, 5))
def test_what_is_missing_is_named(at: int) -> None:
    lines = list(good())
    del lines[at]
    line, what = first(lines)
    if at == 0:
        assert line == 1
        assert "does not follow" in what
    elif at == 5:
        assert line == 0
        assert "no end" in what
    else:
        assert line == at + 1
        assert "does not follow" in what


def test_behind_a_changed_line_the_rest_follows() -> None:
    lines = list(good())
    lines[2] = lines[2].replace(b"/file-1", b"/file-9")
    line, what = first(lines)
    assert line == 3
    assert "does not follow" in what
    assert what.endswith("; the lines after it (3) are in order")


def test_how_many_more_are_wrong_is_told() -> None:
    lines = list(good())
    lines[1] = lines[1].replace(b"/file-0", b"/file-9")
    lines[3] = b"rubbish\n"
    line, what = first(lines)
    assert line == 2
    # The rubbish, and the line that no longer follows from what stands before it.
    assert what.endswith("; of the 4 after it 2 not in order either")


def test_a_line_that_is_cut_off(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "log", end=False)
    lines[-1] = lines[-1][:-30]
    found = verdict(lines)
    assert [problem.line for problem in found.problems] == [5, 0]
    assert "cut off" in found.problems[0].what
    assert "no end" in found.problems[1].what


def test_a_forged_end_needs_the_head() -> None:
    said = records()
    forged = sealed(*said[:3], said[5] | {"calls": 2, "verdicts": {"allow": 2}})
    assert verdict(forged).ok
    head = verdict(list(good())).head
    found = verdict(forged, head)
    assert not found.ok
    assert "not the one that was expected" in found.problems[0].what


def test_lines_after_the_expected_head_are_counted() -> None:
    head = json.loads(good()[2])["chain"]
    assert verdict(list(good()), head).problems[0].what == (
        "the head that was expected is line 3's; 3 more follow"
    )


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        ({"seq": 3}, 3, "its number is 3, and 2 is due"),
        ({"seq": True}, 3, "'seq' is no count"),
        ({"pid": -1}, 3, "'pid' is no count"),
        ({"pid": 1 << 70}, 3, "'pid' is no count"),
        ({"time": "x"}, 3, "'time' is no number"),
        ({"args": []}, 3, "'args' is no object"),
        ({"names": [1]}, 3, "'names' is no texts"),
        ({"dry_run": False}, 3, "'dry_run' is no true"),
        ({"type": "other"}, 3, "no type that is known"),
        ({"type": []}, 3, "no type that is known"),
        ({"type": "start"}, 3, "no field 'schema'"),
    ],
)
def test_lines_that_say_what_they_may_not(change: dict[str, object], line: int, what: str) -> None:
    said = records()
    said[2] |= change
    found = first(sealed(*said))
    assert found[0] == line
    assert what in found[1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"calls": 5}, "speaks of 5 calls"),
        ({"lost": 1}, "1 of them lost"),
        ({"verdicts": {"allow": 3, "deny": 1}}, "its verdicts are not"),
    ],
)
def test_an_end_that_counts_differently(change: dict[str, object], what: str) -> None:
    said = records()
    said[5] |= change
    found = first(sealed(*said))
    assert found[0] == 6
    assert what in found[1]


def test_what_stands_where_it_must_not() -> None:
    said = records()
    assert first(sealed(*said, said[5]))[1].startswith("it comes after the end")
    assert first(sealed(said[0], *said)) == (
        2,
        "it is a second start; the lines after it (5) are in order",
    )
    assert "is not known" in first(sealed(said[0] | {"schema": 2}, *said[1:]))[1]


def test_a_gap_is_no_complete_log() -> None:
    said = records()
    gap = {"type": "gap", "time": 1, "lost": 2}
    end = said[5] | {"calls": 4, "lost": 2}
    found = verdict(sealed(said[0], said[1], gap, said[4], end))
    assert found.lost == 2
    assert found.calls == 2
    assert [problem.line for problem in found.problems] == [3]
    assert "2 calls before it have no line" in found.problems[0].what


def test_a_log_from_before_there_was_a_chain() -> None:
    old = []
    for record in records()[1:5]:
        del record["type"], record["seq"]
        old.append(json.dumps(record).encode() + b"\n")
    found = verdict(old)
    assert [problem.what for problem in found.problems] == [
        "4 calls without a chain (schema 0): nothing can be verified"
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nests too deeply"),
        (b'{"a":' * 100_000, "nests too deeply"),
        (b'{"a":1,"a":2}', "there twice"),
        (b'{"args":{"b":{"a":1,"a":1}}}', "there twice"),
        (b'{"a":NaN}', "NaN is no JSON"),
        (b'{"a":-Infinity}', "-Infinity is no JSON"),
        (b'{"a":' + b"1" * 10_000 + b"}", "no JSON"),
        (b"\0" * 100, "no JSON"),
        (b"\xff\xfe{\0}\0", "no JSON"),
        (b"", "no JSON"),
        (b'"text"', "no JSON object"),
        (b"[]", "no JSON object"),
        (b"3", "no JSON object"),
    ],
)
def test_what_is_no_record(line: bytes, what: str) -> None:
    number, said = first([line + b"\n"])
    assert number == 1
    assert what in said
    # The same with a chain value that is right.
    tail = b',"chain":"%s"}\n' % chain.digest(chain.FIRST, line).encode()
    assert not verdict([line + tail]).ok


def test_a_long_line_is_dropped_and_what_follows_is_read() -> None:
    lines = list(good())
    lines.insert(3, b"x" * (3 * LINE_MAX) + b"\n")
    line, what = first(lines)
    assert line == 4
    assert what.startswith("it is longer than")
    assert what.endswith("; the lines after it (3) are in order")
    assert "longer" in first([b"x" * (2 * LINE_MAX)])[1]


def test_the_longest_line_that_is_written_is_read(tmp_path: Path) -> None:
    nothing = [b"\xff" * 8192] * 9
    longest = entry(
        b"\xff" * 4095,
        call="execve",
        others={1: nothing, 2: nothing},
        replaced=((1, nothing, nothing), (2, nothing, nothing)),
    )
    path = tmp_path / "log"
    write(path, [longest])
    assert verify(io.BytesIO(path.read_bytes())).ok
    assert LINE_MAX / 3 < max(map(len, path.read_bytes().splitlines())) < LINE_MAX * 3 / 4


def test_an_empty_log() -> None:
    assert first([]) == (0, "it is empty")


def test_memory_does_not_grow() -> None:
    def peak(calls: int) -> int:
        verifier = Verifier()
        head = chain.FIRST
        said = records()
        tracemalloc.start()
        try:
            for number in range(calls):
                record = said[1] | {"seq": number + 1, "verdict": f"new-{number}"}
                line, head = chain.seal(head, said[0] if number == 0 else record)
                verifier.feed(line)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(200)
    assert peak(8000) < 2 * peak(200)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = st.sampled_from(
    [*{name for record in [json.loads(line) for line in good()] for name in record}, "other"]
)
HOSTILE = st.one_of(
    st.binary(max_size=300),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(FIELDS, JSON | st.sampled_from(["start", "call", "gap", "end"])).map(
        lambda value: json.dumps(value).encode()
    ),
    st.sampled_from(good()),
)


@given(st.lists(st.tuples(HOSTILE, st.booleans(), st.booleans()), max_size=12))
def test_no_log_makes_it_fail(pieces: list[tuple[bytes, bool, bool]]) -> None:
    head = chain.FIRST
    text = b""
    for piece, chained, whole in pieces:
        line = piece
        if chained:
            body = piece[:-1]
            head = chain.digest(head, body)
            line = body + b',"chain":"%s"}' % head.encode()
        text += line + (b"\n" if whole else b"")
    found = verify(io.BytesIO(text))
    assert found.ok == (not found.problems)
    assert not found.ok or text == b"".join(good())


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_parsing_raises_nothing_else(line: bytes) -> None:
    try:
        found = parse(line)
    except Unusable:
        return
    assert type(found) is dict


def documented() -> str:
    text = (ROOT / "docs/audit.md").read_text()
    return text.partition("```python\n")[2].partition("```")[0]


def by_hand(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", documented(), str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_documented_verifier(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head = write(path, [entry(b'/\xff\n"\\'), entry(verdict="deny")])
    assert len(documented().splitlines()) <= 13
    assert by_hand(path).stdout == head + "\n"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"deny"', b'"allow"'))
    assert by_hand(path).stderr == "line 3 does not follow\n"
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert by_hand(path).stderr == "the end is missing\n"


def test_start_and_end_say_what_they_were_told() -> None:
    said = records()
    assert {name: said[0][name] for name in START} == START
    assert said[0]["argv"] == ["cat", "\udcff"]
    assert {name: said[5][name] for name in STATUS} == STATUS
    assert said[5]["verdicts"] == {"allow": 4}
