"""Runs a command under the rule of the attacks, whose verdicts come late.

    python tests/races/late.py COMMAND...

Each call is parked. Its verdict was found when it was read, and is given by another thread some
switches later: by then the peer has rewritten everything that the call's pointers lead to.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final

from pinfold.attack.rule import DENIED, AttackJudge, judge
from pinfold.errors import PinfoldError
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session, require_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.policy.calls import Later, Trapped, Verdict

_SWITCHES: Final = 20

_Due = tuple["Callable[[Verdict], None]", "Verdict"]


class _Late:
    def __init__(self, verdict: Verdict, due: queue.SimpleQueue[_Due | None]) -> None:
        self._verdict = verdict
        self._due = due

    def start(self, done: Callable[[Verdict], None]) -> None:
        self._due.put((done, self._verdict))

    def cancel(self) -> None:
        pass


class _LateJudge(AttackJudge):
    def __init__(self, due: queue.SimpleQueue[_Due | None]) -> None:
        super().__init__()
        self._due = due

    def judge(self, call: Trapped) -> Verdict | Later:
        verdict = judge(call)
        return _Late(verdict, self._due) if call.row.name in DENIED else verdict


def _give(due: queue.SimpleQueue[_Due | None]) -> None:
    while (one := due.get()) is not None:
        for _ in range(_SWITCHES):
            os.sched_yield()
        done, verdict = one
        done(verdict)


def main() -> int:
    """Runs the command and returns its exit status, 128 + N where signal N ended it."""
    require_machine()
    due: queue.SimpleQueue[_Due | None] = queue.SimpleQueue()
    giver = threading.Thread(target=_give, args=(due,))
    giver.start()
    session = Session(
        Command(tuple(os.fsencode(word) for word in sys.argv[1:]), dict(os.environb)),
        PathRules([], []),
        Limits(),
        inspect_all=True,
        judge=_LateJudge(due),
    )
    session.start()
    try:
        outcome = session.result()
    except PinfoldError as error:
        print(f"late: {error}", file=sys.stderr)
        return 125
    finally:
        due.put(None)
        giver.join()
    print(f"late: denied={outcome.denied} trapped={outcome.trapped}", file=sys.stderr)
    status = os.waitstatus_to_exitcode(outcome.status)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
