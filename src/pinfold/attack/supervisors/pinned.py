"""``pinfold run --inspect all`` under the rule of the attacks, traced or on the native back end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

# A session imports it when it needs it: by then we may be a user who cannot read the libraries.
import pinfold.nativerun  # noqa: F401 (for that)
from pinfold.attack.catalogue.model import RUN_NATIVE, TWO_STOPS
from pinfold.attack.rule import AttackJudge
from pinfold.backends.trace import TraceBackend
from pinfold.launch.choice import NATIVE, TRACE
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session, require_machine

if TYPE_CHECKING:
    from collections.abc import Sequence


_USUAL: Final = Limits()


class _TwoStops(TraceBackend):
    ONE_STOP = False

    __slots__ = ()


class _Following(Session):
    _tracing = _TwoStops


def supervise(
    name: str,
    command: Sequence[str],
    *,
    real: bool = False,
    kind: type[Session] = Session,
    limits: Limits = _USUAL,
) -> int:
    """Runs a command and returns its exit status, negative where a signal ended it.

    How many calls were denied is the last line on standard error.

    Args:
        name: Of the supervisor, for messages.
        command: What to run.
        real: Whether names that links lead to are judged as well.
        kind: The session; a control is one that is wrong somewhere.
        limits: What the command may reach.

    Raises:
        PinfoldError: It could not be run.
    """
    require_machine()
    if name == TWO_STOPS:
        kind = _Following
    session = kind(
        Command(tuple(os.fsencode(word) for word in command), dict(os.environb)),
        PathRules([], []),
        limits,
        inspect_all=True,
        real=real,
        judge=AttackJudge(real=real),
        backend=NATIVE if name == RUN_NATIVE else TRACE,
    )
    session.start()
    outcome = session.result()
    print(f"{name}: denied={outcome.denied} trapped={outcome.trapped}", file=sys.stderr)
    return os.waitstatus_to_exitcode(outcome.status)
