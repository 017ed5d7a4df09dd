"""Every system call is in one place: the table, or exempt with a reason."""

import re
from collections import Counter
from pathlib import Path

import pytest
from system_calls import syscalls

from pinfold.syscalls.exempt import LEFT_ALONE, NO_POINTERS
from pinfold.syscalls.numbers import AARCH64, X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import PATH_ROWS, TABLE

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
PLACES = Counter([*TABLE, *NO_POINTERS, *(name for names in LEFT_ALONE.values() for name in names)])


def header() -> dict[str, int]:
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not there: install the C library's headers")
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", HEADER.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


def test_no_call_is_in_two_places() -> None:
    assert [name for name, count in PLACES.items() if count > 1] == []


def test_every_number_has_a_place() -> None:
    assert PLACES.keys() == X86_64.keys()


def test_every_call_of_the_package_has_a_place() -> None:
    assert syscalls().load_arch_table("x86_64").keys() <= PLACES.keys()


def test_every_call_of_the_header_has_a_place_and_its_number() -> None:
    numbers = header()
    assert len(numbers) > 300
    assert numbers.keys() <= PLACES.keys()
    assert {name: X86_64[name] for name in numbers} == numbers


def test_every_call_of_aarch64_has_a_place() -> None:
    assert AARCH64.keys() <= PLACES.keys()


@pytest.mark.parametrize("numbers", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
def test_no_number_has_two_names(numbers: dict[str, int]) -> None:
    assert len(set(numbers.values())) == len(numbers)


@pytest.mark.parametrize(
    "names", [NO_POINTERS, *LEFT_ALONE.values()], ids=["no pointers", *LEFT_ALONE]
)
def test_exempt_calls_are_sorted(names: tuple[str, ...]) -> None:
    assert list(names) == sorted(names)


def test_reasons_are_short() -> None:
    for reason, names in LEFT_ALONE.items():
        assert names
        assert len(reason) < 100, reason
        assert not reason.endswith(".")


def test_every_refused_call_exists() -> None:
    assert {row.name for row in REFUSED} <= PLACES.keys()


def test_the_rows_judged_by_path_are_those_of_the_table() -> None:
    assert all(TABLE[row.name] is row for row in PATH_ROWS)
