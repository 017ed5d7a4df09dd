"""Compiled filters under the interpreter against the plain reading of their cases."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from pinfold.bpf import Arg, Case, SeccompData, assemble, check, disassemble
from tests.unit.bpf.model import U64, Coverage, Filter

FULL = 0xFFFFFFFF
ACTIONS = (0x7FF00000, 0x00050001, 0x00050002, 0x7FFF0000)

actions = st.sampled_from(ACTIONS)


# Any masks and values, tried where a mistake would show


@st.composite
def any_arg(draw: st.DrawFn) -> Arg:
    shapes = st.sampled_from([0, 1, FULL, FULL << 32, U64, 0xF000F, 1 << 63, 3 << 31])
    mask = draw(shapes | st.integers(0, U64))
    values = st.integers(0, 3) | st.integers(0, U64) | st.just(U64)
    return Arg(draw(st.integers(0, 5)), mask, draw(values) & mask)


any_case = st.builds(Case, st.lists(any_arg(), max_size=3).map(tuple), actions)
any_number = st.integers(0, 12) | st.sampled_from([300, 334, 0x3FFFFFFE, 0x3FFFFFFF])
any_lists = st.dictionaries(any_number, st.lists(any_case, max_size=4), max_size=8)
any_filter = st.builds(Filter, any_lists, actions, x32=st.sampled_from([None, 0, 0x7FFF0000]))


@given(any_filter)
@settings(deadline=None, database=None, max_examples=60)
def test_compiled_and_plain_agree(wanted: Filter) -> None:
    program = wanted.compile()
    check(program)
    assert disassemble(assemble(program)) == program
    coverage = Coverage(program)
    for data in wanted.calls():
        assert coverage.run(data) == wanted.expect(data), data


# Few bits per word, so that every combination that a test can tell apart is tried: then what was
# not reached cannot be reached


@st.composite
def small_lists(draw: st.DrawFn) -> tuple[list[Case], list[list[int]]]:
    """Cases over two arguments, and for each word every value that the cases tell apart."""
    spots = [draw(st.permutations(range(32)))[:3] for _ in range(4)]

    def spread(word: int, pick: int) -> int:
        return sum(1 << spots[word][place] for place in range(3) if pick >> place & 1)

    def half(word: int) -> tuple[int, int]:
        # Masks of one or two of the word's first two bits, or the whole word.
        pick = draw(st.integers(1, 4))
        mask = FULL if pick == 4 else spread(word, pick)
        return mask, spread(word, draw(st.integers(0, 3))) & mask

    def arg() -> Arg:
        index, halves = draw(st.integers(0, 1)), draw(st.integers(1, 3))
        low = half(2 * index) if halves & 1 else (0, 0)
        high = half(2 * index + 1) if halves & 2 else (0, 0)
        return Arg(index, low[0] | high[0] << 32, low[1] | high[1] << 32)

    count = draw(st.integers(2, 7))
    cases = [
        Case(tuple(arg() for _ in range(draw(st.integers(1, 2)))), draw(actions))
        for _ in range(count)
    ]
    # The third bit is in no partial mask: it makes a word that equals no whole-word value.
    return cases, [[spread(word, pick) for pick in range(8)] for word in range(4)]


@given(small_lists())
@settings(deadline=None, database=None, max_examples=50)
def test_every_branch_can_be_reached(drawn: tuple[list[Case], list[list[int]]]) -> None:
    cases, words = drawn
    masks: list[set[int]] = [{0}, {0}, {0}, {0}]
    for case in cases:
        for arg in case.when:
            masks[2 * arg.index].add(arg.mask & FULL)
            masks[2 * arg.index + 1].add(arg.mask >> 32)
    # One value does for a word that nothing looks at; without the third bit where none is whole.
    tried = [
        values[: {0: 1, FULL: 8}.get(max(looked_at), 4)]
        for values, looked_at in zip(words, masks, strict=True)
    ]
    wanted = Filter({1: cases})
    coverage = Coverage(wanted.compile())
    for a, b, c, d in product(*tried):
        data = SeccompData(1, wanted.arch, 0, (a | b << 32, c | d << 32))
        assert coverage.run(data) == wanted.expect(data)
    for data in wanted.calls():
        coverage.run(data)
    assert not coverage.missing()


@given(
    st.dictionaries(
        st.integers(0, 40) | st.sampled_from([0x3FFFFFFE, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFE]),
        actions.map(lambda action: [Case((), action)]),
        max_size=30,
    ),
    st.booleans(),
    actions,
)
@settings(deadline=None, database=None, max_examples=200)
def test_every_branch_of_the_search_can_be_reached(
    lists: dict[int, list[Case]], with_x32: bool, minus_one: int
) -> None:
    if with_x32:
        lists = {nr: cases for nr, cases in lists.items() if nr < 0x40000000}
    wanted = Filter(lists, minus_one=minus_one, x32=0x80000000 if with_x32 else None)
    coverage = Coverage(wanted.compile())
    for data in wanted.calls():
        assert coverage.run(data) == wanted.expect(data)
    assert not coverage.missing()
