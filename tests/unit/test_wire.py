"""The interrupt back end's messages: what is packed is what is unpacked, and marks are exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinfold.backends.interrupt import wire
from pinfold.backends.interrupt.wire import Reply, Request, Shared

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
SIX = st.tuples(U64, U64, U64, U64, U64, U64)


@given(st.builds(Request, U32, U32, U64, U64, U64, U64, U32, U32, SIX, SIX))
def test_requests_survive(request: Request) -> None:
    assert Request.unpack(request.pack()) == request


@given(st.builds(Reply, U64, U32, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1)))
def test_replies_survive(reply: Reply) -> None:
    assert Reply.unpack(reply.pack()) == reply


def test_a_reply_is_told_from_the_text_of_a_failure() -> None:
    assert wire.LAST == 0
    assert Reply.unpack(Reply(wire.FAILED, 0, parked=False).pack()).number == wire.FAILED


@given(st.lists(st.integers(1, 20_000), max_size=50))
def test_a_mark_is_never_seen_for_another_number(numbers: list[int]) -> None:
    shared = Shared()
    try:
        for number in numbers:
            shared.mark(number)
            assert shared.has_mark(number)
        marked = set(numbers)
        assert not any(
            shared.has_mark(number) for number in range(1, 20_001) if number not in marked
        )
    finally:
        shared.close()


@given(U32, U32, SIX)
def test_an_announcement_leaves_marks_alone(tid: int, nr: int, args: tuple[int, ...]) -> None:
    shared = Shared()
    try:
        shared.mark(4095)
        shared.announce(tid, nr, args)
        assert shared.announced() == (tid, nr, args)
        assert shared.has_mark(4095)
        assert not shared.has_mark(4094)
        assert not shared.holds(4095)
        shared.hold(4095)
        assert shared.holds(4095)
        assert shared.announced() == (tid, nr, args)
    finally:
        shared.close()
