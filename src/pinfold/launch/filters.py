"""Filters of x86-64 programs: what all of ours have in common, and the one of a sandbox.

To compile a sandbox's filter takes a few milliseconds, in which no other thread of Python gets
far, and sandboxes that are started together mostly want the same. So it is compiled once for each
set of calls, and each sandbox's secret is put into a copy.
"""

from __future__ import annotations

import errno
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold import bpf
from pinfold.pins.install import DELIVERY_CALL
from pinfold.syscalls.filter import NO_FORMS, Delivery, answers
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import bpf as bpf_abi
from pinfold.uapi import seccomp as abi

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pinfold.syscalls.forms import Forms

_BLANK: Final = (0xD1CE0001_D1CE0002, 0xD1CE0003_D1CE0004)
"""Stands for the secret while a filter is compiled: four words that nothing else is compared to."""
_KEPT: Final = 16
"""How many compiled filters are kept: a host has few kinds of sandbox."""

_EQUAL: Final = bpf_abi.BPF_JMP | bpf_abi.BPF_JEQ | bpf_abi.BPF_K
_LOW: Final = 0xFFFFFFFF
_WORD: Final = struct.Struct("=I")


class _Template(NamedTuple):
    code: bytes
    places: tuple[int, ...]
    """Where the four words of the secret are, in their order."""


def assembled(cases: Mapping[int, Sequence[bpf.Case]]) -> bytes:
    """Returns a filter as ``struct sock_filter`` bytes.

    Calls that are not listed go through. Calls of another architecture, and x32 calls, kill the
    process: their numbers mean something else.

    Args:
        cases: By system call number, the decision list of that call.

    Raises:
        ValueError: As from ``bpf.compile_filter``.
    """
    return bpf.assemble(_compiled(cases))


def sandbox_filter(
    trapped: Iterable[int],
    secret: tuple[int, int] | None,
    *,
    whole: Iterable[str] = (),
    neighbours: Iterable[int] = (),
    fixed_addresses: bool = False,
    forms: Mapping[int, Forms] = NO_FORMS,
) -> bytes:
    """Returns the filter of a sandbox as ``struct sock_filter`` bytes.

    Args:
        trapped: Numbers of the calls to be judged.
        secret: Marks the call by which the memfd is delivered; None where nobody traces: calls are
            brought to the listener then, and not to a tracer.
        whole: Names of calls that are judged even without the address that they are about.
        neighbours: Numbers of calls that are trapped only for the task that they name.
        fixed_addresses: Whether socket options that reroute are refused; see ``syscalls.filter``.
        forms: By number, the forms of those calls that go through.
    """
    template = _template(
        frozenset(trapped),
        frozenset(whole),
        frozenset(neighbours),
        fixed_addresses,
        frozenset(forms.items()),
        secret is not None,
    )
    if secret is None:
        return template.code
    code = bytearray(template.code)
    for place, word in zip(template.places, _words(secret), strict=True):
        _WORD.pack_into(code, place, word)
    return bytes(code)


@lru_cache(maxsize=_KEPT)
def _template(
    trapped: frozenset[int],
    whole: frozenset[str],
    neighbours: frozenset[int],
    fixed_addresses: bool,
    forms: frozenset[tuple[int, Forms]],
    traced: bool,
) -> _Template:
    delivery = Delivery(DELIVERY_CALL, _BLANK, abi.SECCOMP_RET_USER_NOTIF)
    cases = answers(
        trapped,
        trap=abi.SECCOMP_RET_TRACE if traced else abi.SECCOMP_RET_USER_NOTIF,
        allow=abi.SECCOMP_RET_ALLOW,
        refuse=abi.SECCOMP_RET_ERRNO,
        delivery=delivery if traced else None,
        whole={X86_64[name] for name in whole},
        neighbours=neighbours,
        fixed_addresses=fixed_addresses,
        forms=dict(forms),
    )
    # Most rows are the same one: a trap without a test.
    rows: dict[tuple[Any, ...], list[bpf.Case]] = {tuple(row): [] for row in cases.values()}
    for row, made in rows.items():
        made += [bpf.Case(tuple(bpf.Arg(*test) for test in tests), action) for tests, action in row]
    program = _compiled({number: rows[tuple(row)] for number, row in cases.items()})
    places = []
    for word in _words(_BLANK) if traced else ():
        # One each: no other test of that call looks at its arguments, so that the ways through the
        # program are the same whatever the secret is.
        (place,) = (at for at, insn in enumerate(program) if insn.code == _EQUAL and insn.k == word)
        # The operand is the last field of an instruction.
        places.append((place + 1) * bpf_abi.SOCK_FILTER.size - _WORD.size)
    return _Template(bpf.assemble(program), tuple(places))


def _words(secret: tuple[int, int]) -> tuple[int, ...]:
    return tuple(half for number in secret for half in (number & _LOW, number >> 32))


def _compiled(cases: Mapping[int, Sequence[bpf.Case]]) -> list[bpf.Insn]:
    return bpf.compile_filter(
        cases,
        default=abi.SECCOMP_RET_ALLOW,
        arch=abi.AUDIT_ARCH_X86_64,
        wrong_arch=abi.SECCOMP_RET_KILL_PROCESS,
        x32=abi.SECCOMP_RET_KILL_PROCESS,
        minus_one=abi.SECCOMP_RET_ERRNO | errno.ENOSYS,
    )
