"""Runs a command under the rule of the deep races, with every pointer argument pinned.

    python -m tests.races.pinned_deep COMMAND...

What became of the calls is the last line on standard error.
"""

from __future__ import annotations

import os
import sys

from pinfold.errors import PinfoldError
from pinfold.launch.spawn import Command
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session, require_machine
from tests.judges import FunctionJudge
from tests.races.deep_rule import judge


def main() -> int:
    """Runs the command and returns its exit status, 128 + N where signal N ended it."""
    require_machine()
    session = Session(
        Command(tuple(os.fsencode(word) for word in sys.argv[1:]), dict(os.environb)),
        PathRules([], []),
        Limits(),
        inspect_all=True,
        judge=FunctionJudge(judge),
    )
    session.start()
    try:
        outcome = session.result()
    except PinfoldError as error:
        print(f"pinned_deep: {error}", file=sys.stderr)
        return 125
    print(f"denied={outcome.denied} trapped={outcome.trapped}", file=sys.stderr)
    status = os.waitstatus_to_exitcode(outcome.status)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
