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
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS, RIP
from pinfold.backends.base import Deny, Inject, Kill, Redirect, Return, SendFirst, Serve
from pinfold.codec.base import Refused
from pinfold.codec.image import Image
from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr, Unix
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE, Argument, Trapped, Verdict
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.supervisor import arguments, reopen
from pinfold.supervisor.pathnames import Judged, Pathnames, with_path
from pinfold.syscalls.kinds import PATHS, Kind, as_int
from pinfold.tracee.loader import from_loader
from pinfold.uapi.fs import AT_FDCWD
from pinfold.uapi.net import UNIX_PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Judge, Later
    from pinfold.policy.rules import PathRules
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.names import Names
    from pinfold.tracee.task import Task

ERROR: Final = "error"
"""The verdict of a call that fails as the kernel would have failed it (EFAULT, ENAMETOOLONG, …)."""
UNPINNED: Final = "unpinned"
"""The verdict of a call that fails because its arguments could not be pinned."""


class Decision(NamedTuple):
    """A plan and how it came about."""

    plan: Plan
    action: str
    """A word of ``policy.calls``, or ``error``."""
    rule: str | None
    judged: tuple[Judged, ...]
    others: tuple[Argument, ...] = ()
    """Further pointer arguments, as pinned."""
    replaced: tuple[tuple[int, Any, Any], ...] = ()
    """(argument, what it was, what it is) of what a rule replaced, apart from paths."""
    value: int | bytes | None = None
    """What is returned or served by verdict."""


class Read(NamedTuple):
    """A call whose arguments are in its slot."""

    task: Task
    call: Shape
    image: Image
    judged: tuple[Judged, ...]
    others: tuple[Argument, ...]
    scalars: dict[int, int]
    """By argument, what replaces numbers."""
    action: str
    rule: str | None
    """What ``--map`` and ``--deny`` say."""


class Waiting(NamedTuple):
    """A call that a policy has not decided yet."""

    read: Read
    later: Later


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

    __slots__ = ("_dry", "_judge", "_logs", "_names", "_paths", "_real", "_ruled_paths")

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
        self._paths = Pathnames(
            rules,
            names,
            naming=logs or strict,
            strict=strict,
            real=real,
            literals=tuple(dict.fromkeys(literals)) if real else (),
            dry=dry,
        )

    def decide(self, task: Task, call: Shape, slot: Slot, base: int) -> Decision | Waiting:
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
        how = _how_of(others)
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
            plan = reopen.plan(
                call.row.name,
                read.task.registers,
                read.image,
                read.judged[0],
                _how_of(read.others),
            )
            if isinstance(plan, int):
                return _failed(plan, decision.judged, decision.others)
            if plan is not None:
                return decision._replace(plan=plan)
        return decision._replace(plan=_plan(call, read.judged, read.others, read.scalars))

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
            failed = self._name_socket(read, one, names, others)
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
            Trapped(
                call.row,
                tuple(task.registers[register] for register in ARGUMENTS),
                task.program,
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
                task.tgid,
                task.tid,
                partial(from_loader, task.tid, task.registers[RIP]),
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
            return decision._replace(plan=_plan(read.call, read.judged, read.others, read.scalars))
        if action == ALLOW:
            made = self._made(self._without(read, verdict.left))
            return made if verdict.rule is None else made._replace(rule=made.rule or verdict.rule)
        if action == REDIRECT:
            try:
                return self._redirected(read, verdict)
            except (ValueError, TypeError) as error:
                rule = f"{verdict.rule}: cannot redirect: {error}"
                return decision._replace(plan=Deny(errno.EPERM), action=DENY, rule=rule)
        return decision._replace(plan=_answer(read, verdict))

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
                others[index] = _written(image, was, new, scalars)
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
        plan = _plan(read.call, judged, others.values(), scalars)
        return Decision(
            plan,
            REDIRECT,
            verdict.rule,
            tuple(judged),
            tuple(others.values()),
            tuple(replaced),
        )

    def _name_socket(
        self,
        read: Read,
        one: Argument,
        names: dict[str, tuple[bytes, ...]],
        others: dict[int, Argument],
    ) -> int:
        # The name of a Unix socket is a path from the working directory; see ``pathnames`` about
        # those. Returns an errno when the call must fail, else 0.
        path = _socket_path(one.value)
        if not path:
            return 0
        task = read.task
        try:
            meaning = self._names.resolve(
                task.tid,
                task.tgid,
                AT_FDCWD,
                path,
                absolute=task.shares,
                follow=read.call.row.group != "bind" if self._real else None,
            )
        except OSError as error:
            return error.errno or errno.EACCES
        names[one.name] = meaning.names
        pinned = path
        if self._real and meaning.real is not None and not meaning.jumps:
            pinned = meaning.seen_by_task(meaning.real) or b""
        elif task.shares and path[:1] != b"/":
            pinned = meaning.absolute or b""
        if pinned != path:
            if not 0 < len(pinned) <= UNIX_PATH_MAX:
                return errno.EACCES
            others[one.at] = _written(read.image, one, Unix(pinned), read.scalars)
        return 0

    def _name_descriptor(self, task: Task, call: Shape, names: dict[str, tuple[bytes, ...]]) -> int:
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


def _unreadable(read: Read) -> bool:
    return any(one.pinned is None for one in read.judged)


def _others(task: Task, call: Shape, image: Image) -> tuple[Argument, ...]:
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


def _socket_path(value: Any) -> bytes | None:
    address = value.address if isinstance(value, Sockaddr) else None
    if isinstance(value, Message):
        address = value.name
    return address.path if isinstance(address, Unix) else None


def _written(image: Image, was: Argument, new: Any, scalars: dict[int, int]) -> Argument:
    value, pointer, size = arguments.write(image, was.kind, was.value, new)
    if size is not None:
        scalars[was.at + 1] = size
    return was._replace(value=value, pointer=pointer)


def _plan(
    call: Shape,
    judged: Iterable[Judged],
    others: Iterable[Argument],
    scalars: dict[int, int],
) -> Plan:
    if call.batch:
        for one in others:
            return SendFirst(one.pointer)
    pointers = [(one.argument, one.pointer) for one in judged]
    pointers += [(one.at, one.pointer) for one in others]
    return Redirect((*pointers, *scalars.items()))


def _answer(read: Read, verdict: Verdict) -> Plan:
    # Of verdicts by which the call is not made. What makes no sense is a denial.
    action = verdict.action
    if action == KILL:
        return Kill()
    if action == RETURN:
        return Return(verdict.value)
    if action == INJECT:
        return Inject(verdict.value, _closes_on_exec(read))
    if action == SERVE:
        flags = _open_flags(read)
        if not read.call.opens:
            return Deny(errno.EPERM)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            return Deny(errno.EACCES)
        if flags & os.O_DIRECTORY:
            return Deny(errno.ENOTDIR)
        return Serve(verdict.value, _closes_on_exec(read))
    return Deny(verdict.errno or errno.EACCES)


def _open_flags(read: Read) -> int:
    how = _how_of(read.others)
    if how is not None:
        return how.flags
    if read.call.row.name == "creat":
        return os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return read.task.registers[read.call.flags] if read.call.flags >= 0 else 0


_CLOSES: Final = {
    "socket": (1, os.O_CLOEXEC),
    "accept4": (3, os.O_CLOEXEC),
    "memfd_create": (1, 1),
}
"""Calls that make a descriptor: the argument with their flags, and the one for close-on-exec."""


def _closes_on_exec(read: Read) -> bool:
    at = _CLOSES.get(read.call.row.name)
    if at is None:
        return bool(_open_flags(read) & os.O_CLOEXEC)
    return bool(read.task.registers[ARGUMENTS[at[0]]] & at[1])


def _how_of(others: tuple[Argument, ...]) -> OpenHow | None:
    for one in others:
        if isinstance(one.value, OpenHow):
            return one.value
    return None


def _failed(
    number: int, judged: tuple[Judged, ...] = (), others: tuple[Argument, ...] = ()
) -> Decision:
    return Decision(Deny(number), ERROR, None, judged, others)
