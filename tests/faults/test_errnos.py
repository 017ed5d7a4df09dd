"""System calls of the supervisor fail, one in each run.

What fails is one call of the supervising thread, chosen by its number in the run, in the supervisor
or in the process that it forks; the others are real. Whatever fails: the run ends, as usual or with
an error of pinfold's; the program has not read what is denied; nothing is left.
"""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.errors import PinfoldError
from pinfold.life import Outcome
from tests.faults import support
from tests.faults.hooks import Calls
from tests.faults.support import Run, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ERRNOS: Final = (errno.EMFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EIO)
SAMPLED: Final = 100
"""Calls of a run that fail, of 200 and more; each costs a run."""
CHILD_CALLS: Final = 90
"""The new process makes fewer before it executes COMMAND."""


@pytest.fixture
def failing() -> Iterator[Callable[..., Calls]]:
    """Arranges for a call of the next run to fail."""
    patch = pytest.MonkeyPatch()

    def arranged(at: int, number: int, *, here: bool) -> Calls:
        patch.undo()
        return Calls(patch, at, lambda: number, here=here)

    yield arranged
    patch.undo()


def _run(scene: Scene, *, whole: bool) -> Outcome | PinfoldError:
    outcome = Run(scene, scene.program("fault_steps"), whole=whole).end()
    support.nobody_is_left()
    said = scene.said()
    scene.output.write_text("")
    assert f"denied={support.DENIED}" not in said
    return outcome


@pytest.mark.timeout(300)
@pytest.mark.parametrize("whole", [False, True], ids=["paths", "everything"])
def test_a_failure_at_any_call(
    scene: Scene, failing: Callable[..., Calls], whole: bool, request: pytest.FixtureRequest
) -> None:
    seed = support.seed()
    request.node.user_properties.append(("seed", seed))
    choice = random.Random(seed)
    counted = failing(0, 0, here=True)
    undisturbed = _run(scene, whole=whole)
    assert isinstance(undisturbed, Outcome)
    assert undisturbed.status == 0
    assert counted.count > 200
    ended: dict[bool, int] = {True: 0, False: 0}
    for at in sorted(choice.sample(range(1, counted.count + 1), SAMPLED)):
        number = choice.choice(ERRNOS)
        one = failing(at, number, here=True)
        try:
            outcome = _run(scene, whole=whole)
        except Exception as error:
            raise AssertionError(f"{seed}: call {at}, {one.name}: {os.strerror(number)}") from error
        ended[isinstance(outcome, Outcome)] += 1
    assert all(ended.values()), ended


@pytest.mark.timeout(120)
def test_a_failure_at_any_call_of_the_new_process(
    scene: Scene, failing: Callable[..., Calls]
) -> None:
    """Of what it does before COMMAND is executed: then it is not."""
    started = errors = 0
    for at in range(1, CHILD_CALLS + 1, 2):
        failing(at, ERRNOS[at % len(ERRNOS)], here=False)
        outcome = _run(scene, whole=False)
        if isinstance(outcome, PinfoldError):
            errors += 1
        else:
            started += 1
            assert outcome.status == 0
    assert errors > 2
    assert started > 2
