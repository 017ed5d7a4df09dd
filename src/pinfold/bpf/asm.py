"""Instructions, and the assembler that lays a decision graph out as a program.

Classic BPF jumps forward only (so that a filter is known to end), which makes a program a decision
graph in which nothing can loop. The graph here has two kinds of node: a return, and a test of one
word of ``seccomp_data`` with two ways out. Equal nodes are one node. A node can only name nodes
that exist already, so counting backwards through them is an order in which every jump goes forward,
and no scheduling is needed.

The program is built from its end. The tests that a jump can lead to are placed before it, so each
distance is final when it is needed, with one exception: a conditional jump carries 8-bit distances,
and where a way out is more than 255 instructions off, a *landing* goes directly behind the jump: a
``ja`` with its 32-bit distance. That may push the other way out from 255 to 256, so both are looked
at again until both fit. Jumps that still reach a landing use it again.

Returns are landings and nothing else: one is placed behind the first jump that needs it, and once
more where it has come to be out of reach. That costs what a ``ja`` would, saves running it, and
leaves no return that nothing jumps to.

Loads are not nodes. A test begins with the load (and the mask) of its word, and each jump into it
enters behind what the accumulator already holds, the nearest thing to "load once, compare often"
that needs no liveness analysis. What every jump skips is not emitted.

Accepted: the order of nodes is the order in which they were made, not the one with the fewest far
jumps, and a landing that serves two jumps costs the second one an instruction more to run.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pinfold.bpf.facts import FULL
from pinfold.uapi import bpf as abi

if TYPE_CHECKING:
    from collections.abc import Iterable

_FURTHEST: Final = 255


class Insn(NamedTuple):
    """``struct sock_filter``.

    Args:
        code: ``u16``; class, size, mode or operation, and operand source.
        jt: ``u8``; instructions to skip when a conditional jump's test holds.
        jf: ``u8``; instructions to skip when it fails.
        k: ``u32``; the constant operand.
    """

    code: int
    jt: int
    jf: int
    k: int


def assemble(program: Iterable[Insn]) -> bytes:
    """Returns the program as an array of ``struct sock_filter``, in this machine's byte order.

    Raises:
        ValueError: A field does not fit.
    """
    packed = []
    for pc, insn in enumerate(program):
        try:
            packed.append(abi.SOCK_FILTER.pack(*insn))
        except struct.error as exc:
            raise ValueError(f"instruction {pc}: {insn} has a field that does not fit") from exc
    return b"".join(packed)


def disassemble(code: bytes) -> list[Insn]:
    """Returns the instructions of an array of ``struct sock_filter``.

    Raises:
        ValueError: The length is no multiple of the size of one instruction.
    """
    if len(code) % abi.SOCK_FILTER.size:
        raise ValueError(
            f"{len(code)} bytes are not a whole number of {abi.SOCK_FILTER.size}-byte instructions"
        )
    return [Insn(*fields) for fields in abi.SOCK_FILTER.iter_unpack(code)]


class _Return(NamedTuple):
    value: int


class _Test(NamedTuple):
    offset: int
    mask: int
    jump: int
    k: int
    yes: int
    no: int

    @property
    def prefix(self) -> int:
        # How many instructions come before the jump: the load, and the mask if there is one.
        return 1 if self.mask == FULL else 2


_Node: TypeAlias = _Return | _Test
_Entry: TypeAlias = tuple[int, int]  # a node, and how many of its first instructions to skip


class Graph:
    """A decision graph in which equal nodes exist once; nodes are named by their numbers."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._numbers: dict[_Node, int] = {}

    def ret(self, value: int) -> int:
        """Returns the node that ends the filter with ``value`` (``u32``)."""
        return self._intern(_Return(value))

    def equal(self, offset: int, mask: int, value: int, yes: int, no: int) -> int:
        """Returns a node that goes to ``yes`` if ``(word & mask) == value``, else to ``no``.

        Args:
            offset: Where the word is in ``struct seccomp_data``, in bytes.
            mask: ``u32``, not zero.
            value: ``u32``, no bit outside ``mask``.
            yes: Node to go to if the test holds.
            no: Node to go to if it fails.
        """
        if mask == FULL:
            return self._test(offset, FULL, abi.BPF_JEQ, value, yes, no)
        if value == 0:
            return self._test(offset, FULL, abi.BPF_JSET, mask, no, yes)
        if value == mask and not mask & (mask - 1):
            return self._test(offset, FULL, abi.BPF_JSET, mask, yes, no)
        return self._test(offset, mask, abi.BPF_JEQ, value, yes, no)

    def at_least(self, offset: int, bound: int, yes: int, no: int) -> int:
        """Returns a node that goes to ``yes`` if the word at ``offset`` is ``bound`` or more.

        The comparison is unsigned; the arguments are as in ``equal``.
        """
        return self._test(offset, FULL, abi.BPF_JGE, bound, yes, no)

    def program(self, root: int) -> list[Insn]:
        """Returns a program that starts at ``root`` and holds nothing that it does not reach.

        Raises:
            ValueError: It takes more instructions than the kernel accepts in one filter.
        """
        start = self._nodes[root]
        if isinstance(start, _Return):
            return [_ret(start)]
        program = _Layout(self._nodes, _entries(self._nodes, root)).program()
        if len(program) > abi.BPF_MAXINSNS:
            raise ValueError(
                f"the filter takes {len(program)} instructions;"
                f" the kernel accepts at most {abi.BPF_MAXINSNS}"
            )
        return program

    def _test(self, offset: int, mask: int, jump: int, k: int, yes: int, no: int) -> int:
        if yes == no:
            return yes
        return self._intern(_Test(offset, mask, jump, k, yes, no))

    def _intern(self, node: _Node) -> int:
        number = self._numbers.setdefault(node, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(node)
        return number


def _skip(node: _Test, target: _Node) -> int:
    # How many instructions of target are done already when it is entered from node.
    if isinstance(target, _Return) or node.offset != target.offset:
        return 0
    if node.mask == target.mask:
        return target.prefix
    return 1 if node.mask == FULL else 0


def _entries(nodes: list[_Node], root: int) -> dict[int, int]:
    # The nodes that root reaches, each with the smallest skip of any jump into it.
    entries = {root: 0}
    for number in range(root, -1, -1):
        node = nodes[number]
        if number not in entries or isinstance(node, _Return):
            continue
        for way in (node.yes, node.no):
            skip = _skip(node, nodes[way])
            entries[way] = min(skip, entries.get(way, skip))
    return entries


class _Layout:
    """A program that grows from its end: places count from the last instruction."""

    def __init__(self, nodes: list[_Node], entries: dict[int, int]) -> None:
        self._nodes = nodes
        self._out: list[Insn] = []
        self._places: dict[int, int] = {}
        self._landings: dict[_Entry, int] = {}
        for number in sorted(entries):
            node = nodes[number]
            if isinstance(node, _Test):
                self._place(number, node, entries[number])

    def program(self) -> list[Insn]:
        return self._out[::-1]

    def _put(self, insn: Insn) -> int:
        self._out.append(insn)
        return len(self._out) - 1

    def _place(self, number: int, node: _Test, skipped: int) -> None:
        yes = (node.yes, _skip(node, self._nodes[node.yes]))
        no = (node.no, _skip(node, self._nodes[node.no]))
        while (jt := self._near(yes)) is None or (jf := self._near(no)) is None:
            self._land(yes if jt is None else no)
        place = self._put(Insn(abi.BPF_JMP | node.jump | abi.BPF_K, jt, jf, node.k))
        # Where the whole prefix would begin; an entry further in is that many places lower.
        self._places[number] = place + node.prefix
        if node.mask != FULL and skipped < 2:
            self._put(Insn(abi.BPF_ALU | abi.BPF_AND | abi.BPF_K, 0, 0, node.mask))
        if skipped < 1:
            self._put(Insn(abi.BPF_LD | abi.BPF_W | abi.BPF_ABS, 0, 0, node.offset))

    def _near(self, entry: _Entry) -> int | None:
        # How far a conditional jump placed next would go to entry, or to a landing for it.
        here = len(self._out) - 1
        place = self._places.get(entry[0])
        if place is not None and (distance := here - place + entry[1]) <= _FURTHEST:
            return distance
        place = self._landings.get(entry)
        if place is not None and (distance := here - place) <= _FURTHEST:
            return distance
        return None

    def _land(self, entry: _Entry) -> None:
        number, skip = entry
        node = self._nodes[number]
        if isinstance(node, _Return):
            insn = _ret(node)
        else:
            distance = len(self._out) - (self._places[number] - skip) - 1
            insn = Insn(abi.BPF_JMP | abi.BPF_JA, 0, 0, distance)
        self._landings[entry] = self._put(insn)


def _ret(node: _Return) -> Insn:
    return Insn(abi.BPF_RET | abi.BPF_K, 0, 0, node.value)
