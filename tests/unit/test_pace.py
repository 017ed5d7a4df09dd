"""When a processor is shared: the decisions, without any processor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinfold.supervisor.pace import JOIN, NEVER, OFTEN_NS, PART, ROUND, ROUNDS, STAY, Pace


def joined(tid: int = 7) -> Pace:
    """Returns a pace that shares with a task."""
    pace = Pace()
    assert pace.other() == STAY
    assert pace.round(tid, 1000) == JOIN
    pace.partner = tid
    return pace


def test_a_round_of_one_task_is_enough() -> None:
    """How long the first one took is not known, and does not matter."""
    joined()
    assert 1 < ROUND < NEVER


def test_another_task_parts() -> None:
    """At once; and then it is counted from the beginning."""
    pace = joined()
    assert pace.other() == PART
    pace.partner = 0
    assert pace.other() == STAY
    assert pace.round(8, 10 * OFTEN_NS) == JOIN


def test_a_slow_round_parts() -> None:
    """Whoever stops seldom is not worth it; whoever stops often again is."""
    pace = joined()
    now = 1000 + OFTEN_NS
    assert pace.round(7, now) == STAY
    now += OFTEN_NS + 1
    assert pace.round(7, now) == PART
    pace.partner = 0
    now += OFTEN_NS + 1
    assert pace.round(7, now) == STAY
    now += OFTEN_NS
    assert pace.round(7, now) == JOIN


def test_from_time_to_time() -> None:
    """Two that never stop trapping are parted, and meet again one round later."""
    pace = joined()
    now = 1000
    answers = []
    for _ in range(ROUNDS):
        now += 1
        answers.append(pace.round(7, now))
    assert answers == [STAY] * (ROUNDS - 1) + [PART]
    pace.partner = 0
    assert pace.round(7, now + 1) == JOIN


def test_who_parted_meanwhile() -> None:
    """The partner can be gone, by another thread's doing: then the next round counts."""
    pace = joined()
    pace.partner = 0
    assert pace.round(7, 2000) == JOIN


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 3 * OFTEN_NS)), max_size=60))
def test_never_with_two(stops: list[tuple[int, int]]) -> None:
    """Whatever comes: a partner is the task of the last round, and there is never another."""
    pace = Pace()
    last = now = 0
    for tid, later in stops:
        now += later
        if tid != last:
            last = tid
            answer = pace.other()
            assert answer == (PART if pace.partner else STAY)
        else:
            answer = pace.round(tid, now)
            assert answer != JOIN or not pace.partner
            assert answer != PART or pace.partner == tid
        if answer == PART:
            pace.partner = 0
        elif answer == JOIN:
            pace.partner = tid
        assert pace.partner in (0, last)
