"""The plain reading of decision lists that compiled filters are held against, and what to try."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from pinfold.bpf import Arg, Case, Insn, SeccompData, compile_filter, run
from pinfold.uapi import bpf as abi
from pinfold.uapi.seccomp import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

U64 = (1 << 64) - 1


class Filter(NamedTuple):
    """The arguments of ``compile_filter``, with actions that can be told apart."""

    cases: Mapping[int, Sequence[Case]]
    default: int = SECCOMP_RET_ALLOW
    arch: int = AUDIT_ARCH_X86_64
    wrong_arch: int = SECCOMP_RET_KILL_PROCESS
    minus_one: int = SECCOMP_RET_ERRNO | 38
    x32: int | None = SECCOMP_RET_KILL_THREAD

    def compile(self) -> list[Insn]:
        return compile_filter(
            self.cases,
            default=self.default,
            arch=self.arch,
            wrong_arch=self.wrong_arch,
            minus_one=self.minus_one,
            x32=self.x32,
        )

    def expect(self, data: SeccompData) -> int:
        if data.arch != self.arch:
            return self.wrong_arch
        nr = data.nr % (1 << 32)
        if nr == 0xFFFFFFFF:
            return self.minus_one
        if self.x32 is not None and nr >= 0x40000000:
            return self.x32
        args = (*data.args, 0, 0, 0, 0, 0, 0)
        for case in self.cases.get(nr, ()):
            if all(args[index] & mask == value for index, mask, value in case.when):
                return case.action
        return self.default

    def numbers(self) -> list[int]:
        """Every number and its neighbours, and the edges of x32, of -1 and of the number line."""
        fixed = {0, 1, 511, 0x3FFFFFFF, 0x40000000, 0x40000001, 0x7FFFFFFF, 0x80000000}
        near = {number + step for number in self.cases for step in (-1, 0, 1, 0x40000000)}
        return [*sorted(number for number in fixed | near if number >= 0), -2, -1]

    def calls(self) -> Iterator[SeccompData]:
        """Calls that are likely to tell a wrong filter from a right one."""
        for nr in self.numbers():
            for arch in (self.arch, self.arch ^ 1, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, 0):
                yield SeccompData(nr, arch)
        for number, cases in self.cases.items():
            for args in argument_lists(cases):
                yield SeccompData(number, self.arch, 0x7FFF12345678, args)


def neighbours(arg: Arg) -> set[int]:
    """A test's value, its ±1, single bits flipped, its halves swapped, all bits around it set."""
    _, mask, value = arg
    bits = {0, 31, 32, 63}
    for group in (mask, U64 & ~mask):
        if group:
            bits |= {group.bit_length() - 1, (group & -group).bit_length() - 1}
    swapped = (value >> 32) | (value << 32) & U64
    wide = value | (U64 & ~mask)
    return {
        value,
        (value + 1) & U64,
        (value - 1) & U64,
        swapped,
        wide,
        0,
        U64,
        *(start ^ (1 << bit) for bit in bits for start in (value, wide)),
    }


def argument_lists(cases: Sequence[Case]) -> Iterator[tuple[int, ...]]:
    """Arguments that satisfy each case, and all of these with one argument gone wrong."""
    yield (0,) * 6
    yield (U64,) * 6
    wanted = [arg for case in cases for arg in case.when]
    for case in cases:
        args = [0] * 6
        for index, mask, value in case.when:
            args[index] = args[index] & ~mask | value
        yield tuple(args)
        for arg in wanted:
            for other in neighbours(arg):
                yield (*args[: arg.index], other, *args[arg.index + 1 :])


class Coverage:
    """Which instructions ran, and which way each conditional jump went."""

    def __init__(self, program: Sequence[Insn]) -> None:
        self._program = program
        self._seen: set[tuple[int, int]] = set()
        self._ends: set[int] = set()

    def run(self, data: SeccompData) -> int:
        path: list[int] = []
        value = run(self._program, data, path).value
        self._seen.update(pairwise(path))
        self._ends.add(path[-1])
        return value

    def missing(self) -> list[str]:
        """Instructions that never ran and ways that were never taken; empty if all were."""
        ran = {pc for edge in self._seen for pc in edge} | self._ends
        missing = [f"{pc} not reached" for pc in range(len(self._program)) if pc not in ran]
        for pc, (code, jt, jf, _) in enumerate(self._program):
            if code & 7 == abi.BPF_JMP and code != abi.BPF_JMP | abi.BPF_JA:
                ways = {pc + 1 + jt, pc + 1 + jf}
                missing += [f"{pc} to {way}" for way in ways if (pc, way) not in self._seen]
                if len(ways) == 1:
                    missing.append(f"{pc} decides nothing")
        return missing


def jumps(program: Iterable[Insn]) -> int:
    """The number of unconditional jumps."""
    return sum(insn.code == abi.BPF_JMP | abi.BPF_JA for insn in program)
