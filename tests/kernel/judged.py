"""Commands under a policy that is a function: how they end, what they write, what is logged."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from pinfold.audit.record import describe
from pinfold.launch.choice import TRACE
from pinfold.launch.spawn import Command
from pinfold.policy.calls import ALLOWED
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from tests.judges import FunctionJudge
from tests.kernel.support import BACKEND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.policy.calls import Later, Trapped, Verdict
    from pinfold.syscalls.kinds import Kind

PYTHON = ("/usr/bin/python3", "-I", "-c")


class Run:
    """A command under a rule: how it ended, what it wrote, what was logged."""

    def __init__(
        self,
        argv: tuple[str, ...],
        judge: Callable[[Trapped], Verdict | Later],
        *,
        calls: Mapping[str, frozenset[Kind]] | None = None,
        logs: bool = True,
        **options: Any,
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self.judge = FunctionJudge(judge, calls, real=options.get("real", False))
        if not (options.get("real") or options.get("results")):
            options.setdefault("backend", BACKEND or TRACE)
        if logs:
            options["sink"] = lambda entry: self.records.append(describe(entry))
        with tempfile.TemporaryFile() as out, open(os.devnull, "rb") as nothing:
            session = Session(
                Command(
                    tuple(os.fsencode(arg) for arg in argv),
                    {b"PATH": b"/usr/bin:/bin", b"KEEP": b"kept"},
                    streams=(nothing.fileno(), out.fileno(), 2),
                    close_others=True,
                ),
                options.pop("rules", PathRules([], [])),
                Limits(),
                inspect_all=calls is None,
                judge=self.judge,
                **options,
            )
            session.start()
            self.outcome = session.result()
            out.seek(0)
            self.out = out.read().decode()
        assert self.judge.closed == 1
        self.status = os.waitstatus_to_exitcode(self.outcome.status)
        self.denied = self.outcome.denied
        self.redirected = self.outcome.redirected


def only(
    *calls: str,
) -> Callable[[Callable[[Trapped], Verdict | Later]], Callable[[Trapped], Verdict | Later]]:
    """Asks the rule about some calls, and allows all others."""

    def wrap(rule: Callable[[Trapped], Verdict | Later]) -> Callable[[Trapped], Verdict | Later]:
        return lambda call: rule(call) if call.row.name in calls else ALLOWED

    return wrap
