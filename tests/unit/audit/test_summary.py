"""The summary: counts, the last denial, and nothing that a terminal would obey."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinfold.audit.record import describe
from pinfold.audit.summary import Summary, Tally, group_of, shown
from tests.unit.audit.logs import entry


def test_what_it_says() -> None:
    summary = Summary(1_700_000_000.0)
    assert summary.text(1_700_000_000.0).splitlines() == [
        "0.0 s, 0 calls judged",
        "  nothing was denied",
    ]
    for _ in range(3):
        summary.add(entry())
    summary.add(entry(b"/secret\x1b[2J", verdict="deny", program=b"/bin/\x9b\n"))
    summary.add(entry(b"/bin/sh", call="execve"))
    *counts, last = summary.text(1_700_000_002.5, tasks=2).splitlines()
    assert counts == [
        "2.5 s, 5 calls judged, 2 tasks now",
        "  open  3 allow, 1 deny",
        "  exec  1 allow",
    ]
    assert last == (
        "  last denial: openat /secret\\x1b[2J: deny (EACCES, deny /secret), by /bin/\\x9b\\n,"
        " pid 10, 2.0 s ago"
    )


@given(st.lists(st.tuples(st.binary(min_size=1), st.sampled_from(["allow", "deny", "kill"]))))
def test_entries_and_lines_are_counted_alike(calls: list[tuple[bytes, str]]) -> None:
    live, read = Summary(0.0), Summary(0.0)
    for path, verdict in calls:
        one = entry(path.replace(b"\0", b"0"), verdict=verdict)
        live.add(one)
        read.add_record(describe(one))
    assert live.text(2e9) == read.text(2e9)
    assert all(line.isprintable() for line in live.text(2e9).splitlines())


@given(st.text(), st.integers(0, 50))
def test_what_is_shown_is_printable_and_bounded(text: str, most: int) -> None:
    found = shown(text, most)
    assert found.isprintable()
    assert found.isascii() or found.encode()
    assert len(found) <= 10 * most + 40
    if text.isprintable() and len(text) <= most:
        assert found == text


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert shown("a\udcff\ud800\u202e\n") == "a\\xff\\ud800\\u202e\\n"


def test_a_tally_has_a_limit() -> None:
    tally: Tally[int] = Tally(2)
    assert [tally.add(key) for key in (1, 2, 3, 2)] == [True, True, False, True]
    assert tally.most(5) == [(2, 2), (1, 1)]
    assert tally.others == 1


def test_calls_without_a_group() -> None:
    assert group_of("openat") == "open"
    assert group_of("read") == group_of("no such call") == "other"


def test_long_names_of_a_hostile_log_are_not_kept() -> None:
    summary = Summary(0.0)
    record = describe(entry())
    for number in range(3):
        long = f"{number}" * 100_000
        summary.add_record(record | {"program": long, "verdict": long})
    assert sum(map(len, summary.programs.counts)) < 20_000
    assert sum(len(verdict) for _, verdict in summary.verdicts.counts) < 20_000
