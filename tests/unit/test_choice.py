"""Which back end a run takes, for what was asked for and what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pinfold.errors import UnsupportedError
from pinfold.launch import choice
from pinfold.launch.choice import AUTO, NATIVE, TRACE, Need

if TYPE_CHECKING:
    from collections.abc import Iterator

WEAKER = Need("something is weaker", True)
IMPOSSIBLE = Need("something is impossible", False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> choice._Machine:
    made = choice._Machine()
    monkeypatch.setattr(choice, "_machine", made)
    return made


@pytest.mark.parametrize(
    ("wanted", "needs", "expected"),
    [
        (AUTO, (), (NATIVE, ())),
        (AUTO, (WEAKER,), (TRACE, ())),
        (AUTO, (WEAKER, IMPOSSIBLE), (TRACE, ())),
        (NATIVE, (), (NATIVE, ())),
        (NATIVE, (WEAKER,), (NATIVE, ("something is weaker",))),
        (TRACE, (), (TRACE, ())),
        (TRACE, (IMPOSSIBLE,), (TRACE, ())),
    ],
)
def test_where_the_kernel_has_it(
    machine: choice._Machine,
    wanted: str,
    needs: tuple[Need, ...],
    expected: tuple[str, tuple[str, ...]],
) -> None:
    machine._asked = True
    assert choice.choose(wanted, needs) == expected


def test_what_is_impossible_is_refused(machine: choice._Machine) -> None:
    machine._asked = True
    with pytest.raises(UnsupportedError, match="something is impossible"):
        choice.choose(NATIVE, (WEAKER, IMPOSSIBLE))


def test_where_the_kernel_lacks_it(machine: choice._Machine) -> None:
    machine.disown("it has not")

    asked = []

    def needs() -> Iterator[Need]:
        asked.append(IMPOSSIBLE)
        yield IMPOSSIBLE

    assert choice.choose(AUTO, needs()) == (TRACE, ())
    assert not asked
    with pytest.raises(UnsupportedError, match="cannot be used: it has not"):
        choice.choose(NATIVE, ())
    assert choice.lack() == "it has not"
