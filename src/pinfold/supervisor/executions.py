"""What is executed in the end: not only the file that a call names, and who judges the rest.

The interpreter of a script is opened by the kernel itself, and so is the loader of a program. A
tracer is told of the exec, and what runs then is judged (:meth:`Executions.executed`). Where nobody
traces, the file is looked at before (:meth:`Executions.ahead`), which is weaker: see
``supervisor.interpreters``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import RIP
from pinfold.backends.base import Deny, Kill, Redirect
from pinfold.errors import TraceeGone
from pinfold.paths import as_name
from pinfold.policy.calls import KILL
from pinfold.policy.rules import DENY
from pinfold.supervisor.decision import Decision, Judged
from pinfold.supervisor.interpreters import of_file
from pinfold.tracee.loader import mapped_file, own_loader
from pinfold.tracee.real import same_file
from pinfold.uapi.fs import AT_FDCWD

if TYPE_CHECKING:
    from pinfold.policy.calls import Judge
    from pinfold.supervisor.pathnames import Pathnames
    from pinfold.tracee.caller import Caller
    from pinfold.tracee.names import Names

_NESTED: Final = 6
"""An interpreter may be a script, four times; then there is a program, and its loader."""
_NOTHING: Final = Redirect(())


class Executions:
    """Judges what runs in the end.

    Args:
        judge: A policy.
        paths: Judges by ``--map`` and ``--deny``.
        names: Resolves paths of stopped tasks.
        literals: Files to be recognised under other names, where ``real``.
        real: Whether real names are judged.
        dry: Whether verdicts are only noted.
    """

    __slots__ = ("_dry", "_judge", "_literals", "_loader", "_names", "_paths", "_real")

    def __init__(
        self,
        judge: Judge | None,
        paths: Pathnames,
        names: Names,
        literals: tuple[bytes, ...],
        *,
        real: bool,
        dry: bool,
    ) -> None:
        self._judge = judge
        self._paths = paths
        self._names = names
        self._literals = literals
        self._real = real
        self._dry = dry
        self._loader = own_loader() if judge is not None or real else None

    def executed(self, task: Caller, named: tuple[bytes, ...], by: bytes) -> Decision | None:
        """Returns a verdict that kills a program which has just been executed, or None.

        The interpreter of a script is opened by the kernel itself, and so is the loader of a
        program. So what runs in the end is judged once more, if it is not what the call named: by
        the policy, and where real names are judged, by ``--deny``.

        Args:
            task: Who executes; its program is the new one.
            named: What its call led to when it was judged.
            by: The program that made the call.

        Preconditions: in the stop of the exec, registers loaded.

        Raises:
            TraceeGone: The task died.
        """
        if self._judge is None and not self._real:
            return None
        try:
            loader = mapped_file(task.tid, task.registers[RIP])
        except ProcessLookupError as error:
            raise TraceeGone(task.tid) from error
        except PermissionError:
            # A program that may be executed and not read; whatever it asks for by path will fail.
            return self._killed(task.program, "a program that may not be looked at")
        for program in (task.program, None if loader is None else as_name(loader)):
            # Our own loader is every program's: a rule that covers it is not about that.
            if program is None or program in named or program == self._loader:
                continue
            for name in (program, *same_file(program, self._literals, (program,))):
                rule = self._refuses(name, by)
                if rule is not None:
                    return self._killed(program, rule)
        return None

    def ahead(self, task: Caller, decision: Decision) -> Decision | None:
        """Returns the denial of an exec for what it would run besides the file it names, or None.

        For a supervisor that is not told of the exec itself, and so cannot ask :meth:`executed`.

        Args:
            task: Who makes the call.
            decision: What was decided about it: it is made.

        Raises:
            TraceeGone: The task died.
        """
        if self._judge is None or not self._judge.programs:
            return None
        for one in decision.judged:
            if one.names:
                rule = self._started(task, one)
                if rule is not None:
                    plan = _NOTHING if self._dry else Deny(errno.EACCES)
                    return decision._replace(plan=plan, action=DENY, rule=rule)
        return None

    def _started(self, task: Caller, one: Judged) -> str | None:
        # The rule against something that an exec would run.
        path = one.pinned or b""
        if path[:1] != b"/":
            try:
                path = self._names.for_task(task.tid, one.names[0])
            except ValueError:
                return "a program outside its root directory"
        for _ in range(_NESTED):
            name = self._paths.leads(task, path)
            if not name:
                return None
            try:
                interpreter = of_file(name)
            except FileNotFoundError:
                return None
            except OSError:
                return "a program that may not be looked at"
            if interpreter is None:
                return None
            path = interpreter
            if path[:1] != b"/":
                path = self._names.of_descriptor(task.tid, AT_FDCWD) + b"/" + path
            name = self._paths.leads(task, path)
            if name and name != self._loader:
                rule = self._refuses(name, task.program)
                if rule is not None:
                    return rule
        return None

    def _killed(self, program: bytes, rule: str) -> Decision:
        judged = Judged(0, program, (program,), program, 0)
        return Decision(_NOTHING if self._dry else Kill(), KILL, rule, (judged,))

    def _refuses(self, program: bytes, by: bytes) -> str | None:
        # The rule by which a program is not to run, whatever the call said.
        if program[:1] != b"/":
            return None
        if self._real:
            one = self._paths.judge((program,))
            if one.action == DENY:
                return one.rule
        verdict = self._judge.executed(program, by) if self._judge is not None else None
        return None if verdict is None else verdict.rule
