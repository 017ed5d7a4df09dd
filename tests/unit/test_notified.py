"""What a notification tells of a call, as registers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinfold.arch.x86_64 import ARGUMENTS, NO_SYSCALL, ORIG_RAX, REGISTERS, RIP
from pinfold.tracee.notified import Known, Notified
from pinfold.uapi import seccomp as abi

U64 = st.integers(0, NO_SYSCALL)


@given(
    st.integers(-(1 << 31), (1 << 31) - 1),
    U64,
    st.lists(U64, min_size=len(ARGUMENTS), max_size=len(ARGUMENTS)),
)
def test_every_field_is_in_its_register(number: int, pointer: int, args: list[int]) -> None:
    task = Notified(7, Known(programs=False))
    # What the call before had left.
    task.registers[:] = [0x5A] * REGISTERS
    given = abi.SECCOMP_NOTIF.unpack(abi.SECCOMP_NOTIF.pack(99, 7, 0, number, 0, pointer, *args))
    registers = task.called(given)
    assert registers is task.load()
    assert task.cookie == 99
    assert [registers[one] for one in ARGUMENTS] == args
    assert registers[ORIG_RAX] == number & NO_SYSCALL
    assert registers[RIP] == pointer
