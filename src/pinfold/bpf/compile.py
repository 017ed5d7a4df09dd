"""From decision lists per system call to a seccomp filter.

A filter runs on every system call of the sandbox, so most of its work is to find out quickly that a
call is none of its business. After the guards (below) the call's number is searched for with ``>=``
in a balanced tree over *intervals* of numbers that share a decision: about log2 of their number in
jumps, whether or not a call is trapped. Up to the first argument only ``ld``, ``jeq``, ``jge``,
``ja`` and ``ret`` are used; the kernel can follow these by itself when the filter is installed, and
calls that it sees are always allowed, with no data, skip the filter from then on
(``seccomp_is_const_allow`` in kernel/seccomp.c, since 5.11).

The guards come first because everything else is meaningless without them. A call number means
something only within one architecture, and ``int 0x80`` makes a 32-bit call from 64-bit code; so
``arch`` is compared before the number is loaded. x32 calls carry the x86-64 ``arch`` and a number
with bit 30 set. ``syscall(-1)`` has that bit as well but is no x32 call (it is what a tracer that
cancels a call leaves behind), so it gets an answer of its own.

Arguments are 64 bits and BPF words are 32, so each test is one of its low half and one of its high
half; a half that the mask leaves out is not looked at. The low half comes first: it nearly always
tells more. Layout of the halves is little-endian, as on every architecture pinfold runs on.

A decision list is compiled along the ways through it: a state is a position in the list and what
the tests so far have settled (see ``facts``). A test whose outcome follows is left out, so no
emitted branch is dead, and after ``family == 2`` failed no other case that wants 2 is tried. States
that know the same about what is still to be tested are one state; equal nodes are one node in the
whole filter, and neighbouring numbers that lead to the same node are one interval.

Accepted: lists are tried in their order, not searched, so a list of n values costs n comparisons.
Lists can be written in which facts multiply (many masks over the same bits of several arguments);
past a bound that real rules stay far from, such a list is compiled test by test without facts,
which is as correct and no longer than the list, but may hold branches that nothing can take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pinfold.bpf.asm import Graph, Insn
from pinfold.bpf.facts import FULL, UNKNOWN, Word
from pinfold.uapi.seccomp import X32_SYSCALL_BIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pinfold.bpf.cases import Arg, Case

_NR: Final = 0
_ARCH: Final = 4
_ARGS: Final = 16
_HALVES: Final = 12
_MINUS_ONE: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFF_FFFFFFFF

_Facts: TypeAlias = tuple[Word, ...]
_State: TypeAlias = tuple[int, _Facts]

_NOTHING: Final[_Facts] = (UNKNOWN,) * _HALVES


def compile_filter(
    cases: Mapping[int, Sequence[Case]],
    *,
    default: int,
    arch: int,
    wrong_arch: int,
    minus_one: int,
    x32: int | None = None,
) -> list[Insn]:
    """Returns a filter that answers each call with the first case whose tests all hold.

    All actions are ``u32`` filter return values (``SECCOMP_RET_*`` and data).

    Args:
        cases: By system call number, the decision list of that call.
        default: Action for calls that are not listed, and where no case of a list holds.
        arch: ``AUDIT_ARCH_*`` that the numbers belong to.
        wrong_arch: Action for calls of any other architecture.
        minus_one: Action for ``syscall(-1)``.
        x32: Action for numbers from ``0x40000000`` up, all but -1, on x86-64; None where there is
            no such thing, and these are numbers like others.

    Raises:
        ValueError: A number, test or action is out of range or can never match, or the filter gets
            longer than the kernel accepts.

    Kernel: ``seccomp(2)``.
    """
    for name, value in (
        ("default", default),
        ("arch", arch),
        ("wrong_arch", wrong_arch),
        ("minus_one", minus_one),
        ("x32", x32 or 0),
    ):
        _require_u32(name, value)
    end = _MINUS_ONE if x32 is None else X32_SYSCALL_BIT
    graph = Graph()
    fallback = graph.ret(default)
    leaves: dict[tuple[Case, ...], int] = {}
    spans = _Spans(fallback)
    for number in sorted(cases):
        if not 0 <= number < end:
            raise ValueError(f"{number} is not a system call number; they run from 0 to {end - 1}")
        listed = tuple(cases[number])
        leaf = leaves.get(listed)
        if leaf is None:
            for position, case in enumerate(listed):
                _require_sound(f"system call {number}, case {position}", case)
            leaf = leaves[listed] = _decide(graph, listed, default)
        spans.set(number, leaf)
        if number + 1 < end:
            spans.set(number + 1, fallback)
    if x32 is None:
        spans.set(_MINUS_ONE, graph.ret(minus_one))
    root = _search(graph, spans.starts, 0, len(spans.starts))
    if x32 is not None:
        beyond = graph.equal(_NR, FULL, _MINUS_ONE, graph.ret(minus_one), graph.ret(x32))
        root = graph.at_least(_NR, X32_SYSCALL_BIT, beyond, root)
    return graph.program(graph.equal(_ARCH, FULL, arch, root, graph.ret(wrong_arch)))


def _require_u32(name: str, value: int) -> None:
    if not 0 <= value <= FULL:
        raise ValueError(f"{name} is {value:#x}, which does not fit 32 bits")


def _require_sound(where: str, case: Case) -> None:
    _require_u32(f"{where}: the action", case.action)
    for index, mask, value in case.when:
        if not 0 <= index < _HALVES // 2:
            raise ValueError(f"{where}: there is no argument {index}; they run from 0 to 5")
        if not (0 <= mask <= _U64 and 0 <= value <= _U64):
            raise ValueError(f"{where}: the test of argument {index} does not fit 64 bits")
        if value & ~mask:
            raise ValueError(
                f"{where}: argument {index} under mask {mask:#x} can never equal {value:#x}"
            )


class _Spans:
    """The number line cut into spans of one decision each, filled from the left."""

    def __init__(self, node: int) -> None:
        self.starts = [(0, node)]

    def set(self, start: int, node: int) -> None:
        # Gives node to everything from start up.
        if self.starts[-1][0] == start:
            self.starts.pop()
        if not self.starts or self.starts[-1][1] != node:
            self.starts.append((start, node))


def _search(graph: Graph, starts: Sequence[tuple[int, int]], low: int, high: int) -> int:
    # Finds the span of a number among starts[low:high]; halves them with each comparison.
    if high - low == 1:
        return starts[low][1]
    middle = (low + high) // 2
    below = _search(graph, starts, low, middle)
    return graph.at_least(_NR, starts[middle][0], _search(graph, starts, middle, high), below)


class _Half(NamedTuple):
    """A test of one 32-bit word of the arguments, and where the list goes on if it fails."""

    word: int
    mask: int
    value: int
    miss: int


def _flatten(cases: Iterable[Case], default: int) -> list[_Half | int]:
    # The list as straight-line steps: tests that fall through when they hold, and actions.
    steps: list[_Half | int] = []
    for case in cases:
        halves = [half for arg in case.when for half in _halves(arg)]
        miss = len(steps) + len(halves) + 1
        steps += [_Half(*half, miss) for half in halves]
        steps.append(case.action)
    steps.append(default)
    return steps


def _halves(arg: Arg) -> list[tuple[int, int, int]]:
    index, mask, value = arg
    low = (2 * index, mask & FULL, value & FULL)
    high = (2 * index + 1, mask >> 32, value >> 32)
    return [half for half in (low, high) if half[1]]


def _decide(graph: Graph, cases: Iterable[Case], default: int) -> int:
    # The node that carries out one decision list.
    steps = _flatten(cases, default)
    node = _with_facts(graph, steps)
    return _without_facts(graph, steps) if node is None else node


def _without_facts(graph: Graph, steps: Sequence[_Half | int]) -> int:
    nodes: list[int] = [0] * len(steps)
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        if isinstance(step, int):
            nodes[position] = graph.ret(step)
        else:
            nodes[position] = graph.equal(
                _ARGS + 4 * step.word,
                step.mask,
                step.value,
                nodes[position + 1],
                nodes[step.miss],
            )
    return nodes[0]


def _with_facts(graph: Graph, steps: Sequence[_Half | int]) -> int | None:
    # As _without_facts, with no dead branch; None if that takes unreasonably many states.
    bound = 64 + 8 * len(steps)
    wanted = _wanted(steps)
    start: _State = (0, _NOTHING)
    nodes: dict[_State, int] = {}
    opened: dict[_State, tuple[_Half, _State, _State]] = {}
    stack = [start]
    # A stack of its own instead of recursion: lists may be longer than Python's frames go deep.
    while stack:
        state = stack[-1]
        if state in nodes:
            stack.pop()
        elif state in opened:
            half, held, failed = opened[state]
            offset = _ARGS + 4 * half.word
            nodes[state] = graph.equal(offset, half.mask, half.value, nodes[held], nodes[failed])
            stack.pop()
        else:
            step = _advance(steps, wanted, *state)
            if isinstance(step, int):
                nodes[state] = graph.ret(step)
                stack.pop()
            elif len(opened) == bound:
                return None
            else:
                opened[state] = step
                # The failing side is built first and so placed last, as the list reads.
                stack += (step[1], step[2])
    return nodes[start]


def _wanted(steps: Sequence[_Half | int]) -> list[tuple[int, ...]]:
    # For each position, the bits of each word that tests from there on look at.
    wanted: list[tuple[int, ...]] = []
    bits: tuple[int, ...] = (0,) * _HALVES
    for step in reversed(steps):
        if not isinstance(step, int):
            word = step.word
            bits = (*bits[:word], bits[word] | step.mask, *bits[word + 1 :])
        wanted.append(bits)
    return wanted[::-1]


def _advance(
    steps: Sequence[_Half | int],
    wanted: Sequence[tuple[int, ...]],
    position: int,
    facts: _Facts,
) -> int | tuple[_Half, _State, _State]:
    # The next action or open question, the latter with the states that its answers lead to.
    while True:
        step = steps[position]
        if isinstance(step, int):
            return step
        word = facts[step.word]
        held = word.assume(step.mask, step.value, holds=True)
        failed = word.assume(step.mask, step.value, holds=False)
        if held is None:
            position = step.miss
        elif failed is None:
            position += 1
        else:
            return (
                step,
                _state(wanted, position + 1, facts, step.word, held),
                _state(wanted, step.miss, facts, step.word, failed),
            )


def _state(
    wanted: Sequence[tuple[int, ...]], position: int, facts: _Facts, word: int, known: Word
) -> _State:
    # Facts about one word have changed; only what later tests can tell apart is kept.
    updated = [*facts]
    updated[word] = known
    bits = wanted[position]
    for at, fact in enumerate(updated):
        if fact is not UNKNOWN:
            updated[at] = fact.about(bits[at])
    return position, tuple(updated)
