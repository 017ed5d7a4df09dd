from __future__ import annotations

import pytest

from pinfold.bpf import Insn, action_name, dump_program


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0x80000000, "KILL_PROCESS"),
        (0x00000000, "KILL_THREAD"),
        (0x00030000, "TRAP(0)"),
        (0x00050001, "ERRNO(1)"),
        (0x00050000, "ERRNO(0)"),
        (0x7FC00000, "USER_NOTIF"),
        (0x7FC00003, "USER_NOTIF(3)"),
        (0x7FF0002A, "TRACE(42)"),
        (0x7FFC0000, "LOG"),
        (0x7FFF0000, "ALLOW"),
        (0x7FFF0009, "ALLOW(9)"),
        (0x12345678, "0x12345678"),
        (0x00010000, "0x00010000"),
    ],
)
def test_actions_have_names(value: int, name: str) -> None:
    assert action_name(value) == name


def test_nothing_is_dumped_as_nothing() -> None:
    assert dump_program([]) == ""


def test_jumps_name_where_they_lead() -> None:
    program = [Insn(0x06, 0, 0, 0), Insn(0x15, 2, 3, 0xC000003E), Insn(0x05, 0, 0, 300)]
    assert dump_program(program).splitlines()[1:] == [
        "   1  jeq  #0xc000003e then 4 else 5",
        "   2  ja   303",
    ]
