"""Lines that are put together from kept pieces, against those that are made in the plain way."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.audit import encode
from pinfold.audit.encode import Encoder
from pinfold.audit.record import Entry, Repeated, describe
from pinfold.audit.record import Path as LoggedPath
from pinfold.audit.writer import AuditWriter
from pinfold.codec.openhow import OpenHow
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.syscalls.table import TABLE
from tests.unit.audit.logs import START, entry

if TYPE_CHECKING:
    from pathlib import Path

ROWS = sorted(TABLE.values())
REGISTERS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 3, 0x100, 0x80000, 0xFFFFFF9C, (1 << 64) - 100, (1 << 63)]),
)
NAMES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"", b"/a", b"a%s%%", b'q"\\\n\x7f', "/é\u2028\U0001f600".encode(), b"\xff/x"]
    ),
)
TIMES = st.one_of(
    st.floats(0, 1e10),
    st.builds(
        float.__add__,
        st.sampled_from([1.7e9, 2.0**30 - 1, 2.0**31 - 1, 2.0**32 - 2, 2.0**32]),
        st.one_of(st.floats(0, 2), st.integers(0, 2 * 10**7).map(lambda number: number / 1e7)),
    ),
)
WORDS = st.one_of(st.none(), st.text(max_size=8), st.just("deny /a\udcff"))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Draws what a trapped call may have, and some that none has."""
    row = draw(st.sampled_from(ROWS))
    places = [index for index, (_, kind) in enumerate(row.arguments) if kind in PATHS]
    if draw(st.integers(0, 9)) == 0:
        places = draw(st.lists(st.integers(0, max(0, len(row.arguments) - 1)), max_size=3))
    elif draw(st.booleans()):
        places = list(draw(st.permutations(places)))[: draw(st.integers(0, len(places)))]
    paths = []
    for place in places if row.arguments else []:
        asked = draw(NAMES)
        name = draw(st.one_of(st.just(asked), NAMES))
        pinned = draw(st.one_of(st.just(asked), st.just(name), NAMES, st.none()))
        paths.append(LoggedPath(place, asked, name, pinned))
    others: dict[int, Any] = {}
    replaced: tuple[tuple[int, Any, Any], ...] = ()
    if draw(st.integers(0, 5)) == 0:
        for index, (_, kind) in enumerate(row.arguments):
            if kind is Kind.STRINGS:
                others[index] = draw(st.lists(NAMES, max_size=3))
            elif kind is Kind.OPEN_HOW:
                others[index] = OpenHow(0x7000, 0, draw(st.integers(0, 1 << 22)), 0o644, 8)
            elif kind is Kind.OPEN_FLAGS:
                replaced = ((index, 0, draw(st.integers(0, 1 << 22))),)
    verdict = draw(st.sampled_from(["allow", "deny", "redirect", "return", "serve", "error"]))
    return Entry(
        draw(TIMES),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 1 << 22)),
        draw(st.sampled_from([b"/bin/x", b"", b"/\xff%d"])),
        row,
        draw(st.tuples(*[REGISTERS] * 6)),
        tuple(paths),
        others,
        replaced,
        verdict,
        draw(WORDS),
        draw(st.sampled_from([None, "EACCES"])),
        draw(st.sampled_from([None, None, None, 5, b"content"])),
        draw(st.booleans()),
    )


def plain(fields: dict[str, Any]) -> str:
    """Returns fields as JSON, as logs have always had them."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True)


def chained(bodies: list[dict[str, Any]], head: str) -> bytes:
    """Returns lines as docs/audit.md describes them."""
    lines = b""
    for body in bodies:
        data = plain(body)[:-1].encode("ascii")
        head = sha256(head.encode() + data).hexdigest()
        lines += data + b',"chain":"' + head.encode() + b'"}\n'
    return lines


@given(st.lists(entries(), min_size=1, max_size=12))
def test_the_same_bytes(found: list[Entry]) -> None:
    encoder = Encoder()
    # Several times, since what is kept is made the first time.
    again = [one._replace(paths=Repeated(one.paths)) for one in found]
    other = [
        one._replace(verdict="deny", registers=(9, *one.registers[1:]), dry=not one.dry)
        for one in again
    ]
    for one in (*found, *found, *again, *again, *other, *again):
        assert "{" + encoder.fields(one) + "}" == plain(describe(one))


@given(TIMES)
def test_times(time: float) -> None:
    encoder = Encoder()
    for moment in (time, time + 0.25, time + 1, time):
        assert encoder.fields(entry(time=moment)).startswith(f'"time":{round(moment, 6)!r},')


def test_every_row_by_every_number_of_paths() -> None:
    for row in ROWS:
        places = [index for index, (_, kind) in enumerate(row.arguments) if kind in PATHS]
        for count in range(len(places) + 1):
            paths = tuple(LoggedPath(place, b"/p", b"/p", b"/p") for place in places[:count])
            for registers in ((0,) * 6, (7,) * 6):
                one = entry()._replace(row=row, paths=paths, registers=registers)
                assert "{" + Encoder().fields(one) + "}" == plain(describe(one))


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "KEPT", 4)
    encoder = Encoder()
    for number in range(40):
        one = entry(
            b"/p%d" % number,
            registers=(number, 0, number, number, 0, 0),
            tid=number + 1,
            rule=f"rule {number}",
        )
        assert "{" + encoder.fields(one) + "}" == plain(describe(one))
        assert len(encoder._whose) <= 4
        assert len(encoder._words) <= 4
        encoder.fields(one._replace(verdict="error"))
        assert sum(len(plan.filled) for plan in encoder._plans.values() if plan is not None) <= 4
    encoder.fields(entry(rule="x" * 5000, program=b"/" * 5000))
    assert not any(len(word) > 5000 for word in (*encoder._words, *encoder._whose.values()))


@pytest.mark.parametrize("late", [False, True])
@settings(max_examples=25)
@given(found=st.lists(entries(), max_size=12))
def test_a_log_is_what_the_plain_way_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, late: bool, found: list[Entry]
) -> None:
    path: Path = tmp_path_factory.mktemp("log") / "log"
    writer = AuditWriter.open(str(path), start=START)
    head = writer.head
    begun = path.stat().st_size
    if late:
        writer.late(lambda: None)
    for one in found:
        writer.write(one)
    writer.flush()
    said = path.read_bytes()[begun:]
    bodies = [
        {"type": "call", "seq": number, **describe(one)} for number, one in enumerate(found, 1)
    ]
    assert said == chained(bodies, head)
    writer.finish({"reason": "ended"})
    writer.close()
