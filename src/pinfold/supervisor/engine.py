"""From a trapped call to a plan: read its arguments into its slot, judge them, say what to do.

The order is what makes decisions hold. Bytes are copied from the task into the slot first, and only
the slot's bytes are judged, logged and pointed at; the task's memory is never looked at again.

How deep it looks is settled beforehand (``supervisor.shapes``): what no rule and no log asks for is
neither copied nor pinned, and stays what the program passed.

Two judges are asked. ``--map`` and ``--deny`` go path by path (``supervisor.pathnames``); a policy
sees the whole call when they let it pass. A policy may take its time: then :meth:`Engine.decide`
returns a :class:`Waiting`, the slot stays the call's, and :meth:`Engine.finish` goes on from there.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pinfold.arch.x86_64 import ARGUMENTS, RIP
from pinfold.backends.base import Deny, Redirect
from pinfold.codec.base import Refused, SlotFull
from pinfold.codec.image import Image
from pinfold.errors import TraceeGone
from pinfold.paths import wants_directory
from pinfold.policy.calls import RETURN, SERVE, Argument, Trapped, Verdict
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.supervisor import arguments, plans, reopen, sockets
from pinfold.supervisor.decision import ERROR, Decision, Judged, Waiting
from pinfold.supervisor.executions import Executions
from pinfold.supervisor.pathnames import Pathnames, with_path
from pinfold.supervisor.reading import Read, how_of
from pinfold.syscalls.kinds import PATHS, Kind, as_int
from pinfold.tracee.loader import from_loader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Judge
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller
    from pinfold.tracee.names import Names


class Engine:
    """Decides about trapped calls.

    Args:
        rules: What is mapped and denied.
        names: Resolves paths of stopped tasks.
        logs: Whether there is a log: then paths are resolved even when no rule asks, and all that
            was read is pinned.
        judge: A policy, asked when the path rules let a call pass.
        real: Whether the names that symbolic links lead to are judged as well, and pinned.
        dry: Whether verdicts are only noted: every call is made as it was asked for.

    Preconditions: the task is stopped, and its registers are loaded.
    """

    __slots__ = (
        *("_dry", "_executions", "_judge", "_logs"),
        *("_names", "_naming", "_paths", "_real", "_ruled_paths"),
    )

    def __init__(
        self,
        rules: PathRules,
        names: Names,
        *,
        logs: bool,
        judge: Judge | None = None,
        real: bool = False,
        dry: bool = False,
    ) -> None:
        self._real = real = real or (judge is not None and judge.real)
        self._names = names
        self._logs = logs
        self._judge = judge
        self._dry = dry
        self._ruled_paths = not rules.empty
        strict = real or not rules.empty or judge is not None
        literals = rules.literals + (judge.literals if judge is not None else ())
        literals = tuple(dict.fromkeys(literals)) if real else ()
        self._naming = logs or strict
        self._paths = Pathnames(
            rules,
            names,
            naming=self._naming,
            strict=strict,
            policy=judge is not None,
            real=real,
            literals=literals,
            dry=dry,
        )
        self._executions = Executions(judge, self._paths, names, literals, real=real, dry=dry)

    @property
    def logs(self) -> bool:
        """Whether there is a log."""
        return self._logs

    @property
    def names(self) -> Names:
        """What resolves paths."""
        return self._names

    def steady(self, call: Shape) -> bool:
        """Returns whether decisions about a call may be kept (``supervisor.quick``).

        Where a link leads to is never kept: anybody may change that.
        """
        return not self._real and (self._judge is None or self._judge.steady(call.row.name))

    @property
    def naming(self) -> bool:
        """Whether the names of paths matter to anybody."""
        return self._naming

    def plain(self, task: Caller, call: Shape, one: Judged) -> Decision | None:
        """Returns the decision about a call that is made as it is; None for the long way.

        Args:
            task: Who made it.
            call: A call with one path and nothing else to be read, about which this is steady.
            one: That path; its names are all that it can mean.

        Preconditions: as for :meth:`decide`; the path is in the task's slot.
        """
        verdict = None
        rule = None
        if one.names:
            verdict = self._paths.judge(one.names, wants_directory(one.asked))
            if verdict.action != ALLOW:
                return None
            if self._judge is not None:
                name, kind = call.row.arguments[one.argument]
                assert one.pinned is not None
                asked = self._judge.judge(
                    _seen(
                        task,
                        call,
                        (Argument(one.argument, name, kind, one.pinned, one.pointer),),
                        {name: one.names},
                    )
                )
                if not isinstance(asked, Verdict) or asked.action != ALLOW or asked.left:
                    return None
                rule = asked.rule
        plan = Redirect(((one.argument, one.pointer),))
        return Decision(plan, ALLOW, rule, (one._replace(verdict=verdict),))

    def decide(self, task: Caller, call: Shape, slot: Slot, base: int) -> Decision | Waiting:
        """Returns what to do about a trapped call.

        Args:
            task: Who made it.
            call: What it is.
            slot: Where its arguments go.
            base: Where the task finds the slot.

        Raises:
            SlotFull: The slot is too small; nothing was decided.
            TraceeGone: The task died.
        """
        if call.moves_root:
            if task.shares:
                # Another thread could be in the middle of a call judged under the old root.
                return _failed(errno.EPERM)
            self._names.rooted = False
        memory = slot.arena.memory
        memory.tid = task.tid
        image = Image(slot.arena.view, slot.offset, slot.size, base, memory)
        try:
            others = _others(task, call, image) if call.others else ()
        except Refused as refused:
            return _failed(refused.errno)
        how = how_of(others)
        action = ALLOW
        rule: str | None = None
        judged: list[Judged] = []
        for path in call.paths:
            outcome = self._paths.read(task, call, image, path, how)
            if outcome is None:
                continue
            if isinstance(outcome, int):
                return _failed(outcome, tuple(judged), others)
            judged.append(outcome)
            verdict = outcome.verdict
            if verdict is not None and verdict.action != ALLOW and action != DENY:
                action, rule = verdict.action, verdict.rule
                if action == DENY and not self._dry:
                    return Decision(Deny(verdict.errno), action, rule, tuple(judged), others)
        read = Read(task, call, image, tuple(judged), others, {}, action, rule)
        if self._judge is None or action == DENY:
            return self._made(read)
        return self._asked(read, self._judge)

    @property
    def executions(self) -> Executions:
        """What judges programs that are executed in the end."""
        return self._executions

    def finish(self, waiting: Waiting, verdict: Verdict) -> Decision:
        """Returns what to do about a call that a policy has taken its time for.

        Raises:
            SlotFull: A larger slot is needed for what the policy replaces; it has to be read, and
                the policy to be asked, again.
        """
        return self._applied(waiting.read, verdict)

    def _made(self, read: Read) -> Decision:
        # The call is made, as the path rules left it.
        decision = Decision(_NOTHING, read.action, read.rule, read.judged, read.others)
        call = read.call
        if self._real and read.action == ALLOW and call.row.group == "open" and read.judged:
            if read.judged[0].jump:
                how = how_of(read.others)
                given = reopen.pipe(
                    read.judged[0].jump, read.open_flags, 0 if how is None else how.resolve
                )
                if isinstance(given, int):
                    return _failed(given, decision.judged, decision.others)
                return decision._replace(plan=given)
            plan = reopen.plan(
                call.row.name,
                read.task.registers,
                read.image,
                read.judged[0],
                how_of(read.others),
            )
            if isinstance(plan, int):
                return _failed(plan, decision.judged, decision.others)
            if plan is not None:
                return decision._replace(plan=plan)
        return decision._replace(plan=plans.make(call, read.judged, read.others, read.scalars))

    def _asked(self, read: Read, judge: Judge) -> Decision | Waiting:
        task, call = read.task, read.call
        arguments_of = call.row.arguments
        names = {
            arguments_of[one.argument][0]: one.names
            for one in read.judged
            if one.names and arguments_of[one.argument][1] is not Kind.TEXT
        }
        others = {one.at: one for one in read.others}
        for one in read.others:
            failed = sockets.name(self._names, read, one, names, others, real=self._real) or (
                0 if self._dry else sockets.settle(read, others[one.at], others)
            )
            if failed:
                return _failed(failed, read.judged, read.others)
        read = read._replace(others=tuple(others.values()))
        if not names and call.describes >= 0 and not _unreadable(read):
            failed = self._name_descriptor(task, call, names)
            if failed:
                return _failed(failed, read.judged, read.others)
        elif call.paths and not names:
            # It asks about an open file, which was judged, or names nothing that can be read.
            return self._made(read)
        seen = [
            Argument(one.argument, *arguments_of[one.argument], one.pinned, one.pointer)
            for one in read.judged
            if one.pinned is not None
        ]
        verdict = judge.judge(
            _seen(
                task,
                call,
                tuple(sorted((*seen, *read.others))),
                names,
                {
                    arguments_of[one.argument][0]: one.real
                    for one in read.judged
                    if one.real is not None
                },
                frozenset(
                    arguments_of[one.argument][0]
                    for one in read.judged
                    if one.verdict is not None and one.verdict.action == REDIRECT
                ),
            )
        )
        if isinstance(verdict, Verdict):
            return self._applied(read, verdict)
        return Waiting(read, verdict)

    def _applied(self, read: Read, verdict: Verdict) -> Decision:
        action = verdict.action
        decision = Decision(_NOTHING, action, verdict.rule, read.judged, read.others)
        if action in (RETURN, SERVE):
            decision = decision._replace(value=verdict.value)
        if self._dry and action != ALLOW:
            return decision._replace(
                plan=plans.make(read.call, read.judged, read.others, read.scalars)
            )
        if action == ALLOW:
            made = self._made(self._without(read, verdict.left))
            return made if verdict.rule is None else made._replace(rule=made.rule or verdict.rule)
        if action == REDIRECT:
            try:
                return self._redirected(read, verdict)
            except (SlotFull, TraceeGone):
                raise
            except Exception as error:  # noqa: BLE001 (whatever a handler came up with is a denial)
                rule = f"{verdict.rule}: cannot redirect: {error}"
                return decision._replace(plan=Deny(errno.EPERM), action=DENY, rule=rule)
        return decision._replace(plan=plans.answer(read, verdict))

    def _without(self, read: Read, left: frozenset[str]) -> Read:
        # What nobody has looked at stays what the program passed.
        if not left or self._logs:
            return read
        arguments_of = read.call.row.arguments
        judged = read.judged
        if not (self._ruled_paths or self._real):
            judged = tuple(one for one in judged if arguments_of[one.argument][0] not in left)
        return read._replace(
            judged=judged, others=tuple(one for one in read.others if one.name not in left)
        )

    def _redirected(self, read: Read, verdict: Verdict) -> Decision:
        image = read.image
        scalars = dict(read.scalars)
        judged = list(read.judged)
        others = {one.at: one for one in read.others}
        replaced: list[tuple[int, Any, Any]] = []
        found = set()
        for index, (name, kind) in enumerate(read.call.row.arguments):
            if name not in verdict.replace:
                continue
            new = verdict.replace[name]
            if index in others:
                was = others[index]
                others[index] = plans.written(image, was, new, scalars)
                replaced.append((index, was.value, others[index].value))
            elif kind in PATHS or kind is Kind.TEXT:
                at = [one.argument for one in judged].index(index)
                path = self._names.for_task(read.task.tid, new) if kind in PATHS else new
                judged[at] = with_path(image, judged[at], path)
            elif isinstance(new, int):
                scalars[index] = new & _ALL
                replaced.append((index, read.task.registers[ARGUMENTS[index]], new & _ALL))
            else:
                continue
            found.add(name)
        if len(found) < len(verdict.replace):
            missing = ", ".join(sorted(verdict.replace.keys() - found))
            raise ValueError(f"{read.call.row.name} has nothing to replace as {missing}")
        plan = plans.make(read.call, judged, others.values(), scalars)
        return Decision(
            plan,
            REDIRECT,
            verdict.rule,
            tuple(judged),
            tuple(others.values()),
            tuple(replaced),
        )

    def _name_descriptor(
        self, task: Caller, call: Shape, names: dict[str, tuple[bytes, ...]]
    ) -> int:
        # A call that changes an open file is judged by the file's name. Where another task may
        # exchange the descriptor meanwhile, that is another file which it had open already.
        try:
            name = self._names.of_descriptor(task.tid, as_int(task.registers[call.describes]))
        except OSError as error:
            # The kernel says what it is: closed, or a pipe, which has no name.
            return 0 if error.errno in (errno.EBADF, errno.ENOTDIR) else error.errno or errno.EACCES
        at = call.paths[0].argument if call.paths else 0
        names[call.row.arguments[at][0]] = (name,)
        return 0


_ALL: Final = (1 << 64) - 1
_NOTHING: Final = Redirect(())


_NO_REAL: Final[Mapping[str, bytes]] = {}
_NONE_SETTLED: Final[frozenset[str]] = frozenset()


def _seen(
    task: Caller,
    call: Shape,
    seen: tuple[Argument, ...],
    names: Mapping[str, tuple[bytes, ...]],
    real: Mapping[str, bytes] = _NO_REAL,
    settled: frozenset[str] = _NONE_SETTLED,
) -> Trapped:
    # A call as a policy sees it.
    registers = task.registers
    return Trapped(
        call.row,
        tuple([registers[register] for register in ARGUMENTS]),
        task.program,
        seen,
        names,
        real,
        settled,
        task.tgid,
        task.tid,
        partial(from_loader, task.tid, registers[RIP]),
    )


def _unreadable(read: Read) -> bool:
    return any(one.pinned is None for one in read.judged)


def _others(task: Caller, call: Shape, image: Image) -> tuple[Argument, ...]:
    registers = task.registers
    found: list[Argument] = []
    before: list[Any] = []
    for one in call.others:
        argument = arguments.read(
            image, call.row.name, one.kind, registers[one.register], registers[one.size], before
        )
        if argument is not None:
            before.append(argument.value)
            found.append(
                Argument(one.argument, one.name, one.kind, argument.value, argument.pointer)
            )
    return tuple(found)


def _failed(
    number: int, judged: tuple[Judged, ...] = (), others: tuple[Argument, ...] = ()
) -> Decision:
    return Decision(Deny(number), ERROR, None, judged, others)
