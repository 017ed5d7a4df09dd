"""Which resource limits are set for which wishes."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfold.errors import PolicyError
from pinfold.launch.limits import prepare
from pinfold.policy.model import NO_LIMITS, Limits

UNLIMITED = resource.RLIM_INFINITY
RESOURCES = {
    "cpu": resource.RLIMIT_CPU,
    "memory": resource.RLIMIT_AS,
    "files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
}


def test_nothing_for_no_wish() -> None:
    assert prepare(NO_LIMITS) == ()
    assert prepare(Limits(tasks=1, seconds=1.0)) == ()


def test_each() -> None:
    wish = Limits(cpu=1, memory=2, files=3, file_size=4, core=0)
    assert prepare(wish, lambda _: (UNLIMITED, UNLIMITED)) == (
        (resource.RLIMIT_CPU, 1, 2),
        (resource.RLIMIT_AS, 2, 2),
        (resource.RLIMIT_NOFILE, 3, 3),
        (resource.RLIMIT_FSIZE, 4, 4),
        (resource.RLIMIT_CORE, 0, 0),
    )


@given(
    st.sampled_from(sorted(RESOURCES)),
    st.integers(-5, 2**64),
    st.integers(0, 2**63 - 1) | st.just(UNLIMITED),
)
def test_never_above_what_is_inherited(name: str, asked: int, hard: int) -> None:
    def inherited(number: int) -> tuple[int, int]:
        assert number == RESOURCES[name]
        return 0, hard

    fits = 0 <= asked < 2**63 and (hard == UNLIMITED or asked <= hard)
    if not fits:
        with pytest.raises(PolicyError, match=f"limit {name} = {asked}"):
            prepare(Limits(**{name: asked}), inherited)
        return
    ((_, soft, most),) = prepare(Limits(**{name: asked}), inherited)
    assert soft == asked
    assert soft <= most <= soft + (name == "cpu")
    assert hard == UNLIMITED or most <= hard
