"""What is known about one 32-bit word half way down a decision list.

On the way to some test, earlier tests of the same word have held or failed. A test that held fixes
bits. A test that failed says that a group of bits differs from a pattern, without saying which bit.
Together they may settle a later test, and the compiler must know exactly when they do: a branch
that no input can take is dead code, and dead code in a filter is code that no test can vouch for.

Deciding whether such facts contradict each other is satisfiability, hard in general, but here it is
about 32 bits. Three steps, cheapest first: bits that follow are fixed until nothing changes; if the
patterns left over rule out less than all of the remaining words when counted as though they never
overlapped, some word is left (this ends almost every question); else one bit is tried both ways.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FULL: Final = 0xFFFFFFFF
"""A mask of all bits of a word."""


class Word(NamedTuple):
    """A set of 32-bit words, never empty: those that agree with every test so far.

    Args:
        mask: Bits whose value is known.
        value: Their values; zero outside ``mask``.
        barred: Pairs of a mask (bits not known, two or more) and a pattern they do not have.
    """

    mask: int = 0
    value: int = 0
    barred: frozenset[tuple[int, int]] = frozenset()

    def assume(self, mask: int, value: int, *, holds: bool) -> Word | None:
        """Returns what is known once ``(word & mask) == value`` has held or failed.

        Returns None if the test cannot go that way.
        """
        if not holds:
            return self._bar(mask, value)
        if (self.value ^ value) & self.mask & mask:
            return None
        return _settle(self.mask | mask, self.value | value, self.barred)

    def about(self, bits: int) -> Word:
        """Returns what is known as far as it can matter to tests of ``bits``.

        A barred pattern that reaches outside ``bits`` matters through the bits it shares with
        others, so patterns are kept together with all that overlap them. The rest can be dropped
        for good: they share no bit with what is kept, and can be met by themselves.
        """
        if bits == FULL:
            return self
        kept: set[tuple[int, int]] = set()
        rest = set(self.barred)
        reach = bits
        while near := {pair for pair in rest if pair[0] & reach}:
            kept |= near
            rest -= near
            for mask, _ in near:
                reach |= mask
        return Word(self.mask & bits, self.value & bits, frozenset(kept))

    def _bar(self, mask: int, value: int) -> Word | None:
        # Lists of many values end up here a lot, hence the short cuts.
        if (self.value ^ value) & self.mask & mask:
            return self
        free = mask & ~self.mask
        barred = self.barred | {(free, value & free)}
        if free & (free - 1) and _sparse(barred):
            return Word(self.mask, self.value, barred)
        return _settle(self.mask, self.value, barred)


UNKNOWN: Final = Word()
"""Any word at all."""


def _settle(mask: int, value: int, barred: frozenset[tuple[int, int]]) -> Word | None:
    # Normal form of these facts; None if no word agrees with them.
    changed = True
    while changed:
        changed = False
        pending: set[tuple[int, int]] = set()
        for bits, pattern in barred:
            if (value ^ pattern) & bits & mask:
                continue
            free = bits & ~mask
            if not free:
                return None
            if free & (free - 1):
                pending.add((free, pattern & free))
            else:
                mask |= free
                value |= free & ~pattern
                changed = True
        barred = frozenset(pending)
    if not _sparse(barred) and not _possible(mask, value, barred):
        return None
    return Word(mask, value, barred)


def _sparse(barred: frozenset[tuple[int, int]]) -> bool:
    # Whether these patterns are too few and too long to rule out every word between them.
    return len(barred) < 4 or sum(1 << (32 - bits.bit_count()) for bits, _ in barred) < 1 << 32


def _possible(mask: int, value: int, barred: frozenset[tuple[int, int]]) -> bool:
    # Tries both values of one bit of the most telling pattern.
    bits, _ = min(barred, key=lambda pair: (pair[0].bit_count(), pair))
    bit = bits & -bits
    return (
        _settle(mask | bit, value, barred) is not None
        or _settle(mask | bit, value | bit, barred) is not None
    )
