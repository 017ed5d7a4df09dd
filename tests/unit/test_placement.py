"""What could tell a program where it runs: names, users, and opens that a filter lets through."""

from __future__ import annotations

import os
from typing import Final

import pytest

from pinfold.launch.asked import traps_reading
from pinfold.launch.filters import sandbox_filter
from pinfold.supervisor.placement import CALLS, OPENS, SPREAD, Placement, tells
from pinfold.syscalls.forms import Form
from pinfold.syscalls.numbers import X86_64 as NR

SECRET: Final = (1, 2)
TRAPPED: Final = frozenset(NR[name] for name in (*OPENS, *CALLS))


@pytest.mark.parametrize(
    "name", [b"/proc/self/status", b"status", b"../../1/task/1/status", b"/host/proc/7//status"]
)
def test_names_that_tell(name: bytes) -> None:
    """However the directory is called."""
    assert tells([None, b"/etc/passwd", name])


@pytest.mark.parametrize(
    "name", [None, b"", b"/proc/self/stat", b"/proc/self/status/", b"mystatus", b"status.c"]
)
def test_names_that_do_not(name: bytes | None) -> None:
    """Nothing else has the processors in it."""
    assert not tells([name])


def test_users() -> None:
    """Whoever stays who he is changes nothing."""
    placement = Placement(SPREAD)
    us, nobody = os.geteuid(), (1 << 64) - 1
    assert not placement.ends(NR["setuid"], [us, 7, 7])
    assert not placement.ends(NR["setreuid"], [us, nobody, 7])
    assert not placement.ends(NR["setresuid"], [nobody, nobody, us | 1 << 32])
    assert placement.ends(NR["setuid"], [us + 1, us, us])
    assert placement.ends(NR["setreuid"], [us, us + 1, us])
    assert placement.ends(NR["setresuid"], [us, us, us + 1])
    assert placement.ends(NR["sched_setaffinity"], [0, 8, 0])


def test_a_filter_that_traps_all() -> None:
    """Then a program can be placed."""
    assert traps_reading(sandbox_filter(TRAPPED, SECRET), CALLS)


@pytest.mark.parametrize("left", [*OPENS, *CALLS])
def test_a_filter_that_lacks_one(left: str) -> None:
    """Any of them would tell."""
    assert not traps_reading(sandbox_filter(TRAPPED - {NR[left]}, SECRET), CALLS)


@pytest.mark.parametrize(("name", "flags"), [("open", 1), ("openat", 2)])
def test_opens_that_read_go_through(name: str, flags: int) -> None:
    """As where rules are only about writing."""
    forms = {NR[name]: (Form(((flags, os.O_ACCMODE, os.O_RDONLY),), True),)}
    assert not traps_reading(sandbox_filter(TRAPPED, SECRET, forms=forms), CALLS)
    forms = {NR[name]: (Form(((flags, os.O_ACCMODE, os.O_WRONLY),), True),)}
    assert traps_reading(sandbox_filter(TRAPPED, SECRET, forms=forms), CALLS)


def test_setting_the_callers_own_mask_is_trapped() -> None:
    """It is a neighbour's call in a form that would pass otherwise."""
    number = NR["sched_setaffinity"]
    assert not traps_reading(sandbox_filter(TRAPPED, SECRET, neighbours={number}), CALLS)
