"""From a trapped call to a plan: read its arguments into its slot, judge them, say what to do.

The order is what makes decisions hold. Bytes are copied from the task into the slot first, and only
the slot's bytes are judged, logged and pointed at; the task's memory is never looked at again.

How deep it looks is settled beforehand (``PATHS`` or ``EVERYTHING``): what no rule and no log asks
for is neither copied nor pinned, and stays what the program passed.

A verdict on a *relative* path also depends on a directory that a path string does not name. When
another task may exchange that directory meanwhile (``Task.shares``), the absolute path that was
judged takes the place of the relative one in the slot.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.backends.base import Deny, Redirect, SendFirst
from pinfold.codec.base import UNREADABLE, Refused
from pinfold.codec.image import FAULT, TOO_LONG, Image
from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr, Unix
from pinfold.paths import wants_directory
from pinfold.policy.calls import Argument, Call
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.supervisor import arguments, reopen
from pinfold.syscalls.kinds import PATHS, Kind, as_int
from pinfold.tracee.names import NoDirectoryError
from pinfold.uapi.fs import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    PATH_MAX,
    RESOLVE_IN_ROOT,
)
from pinfold.uapi.net import UNIX_PATH_MAX

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Iterable

    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Slot
    from pinfold.policy.calls import Ruling
    from pinfold.policy.rules import PathRules, Verdict
    from pinfold.supervisor.shapes import PathArgument, Shape
    from pinfold.tracee.names import Meaning, Names
    from pinfold.tracee.task import Task

ERROR: Final = "error"
"""The verdict of a call that fails as the kernel would have failed it (EFAULT, ENAMETOOLONG, …)."""
UNPINNED: Final = "unpinned"
"""The verdict of a call that fails because its arguments could not be pinned."""


class Judged(NamedTuple):
    """What was decided about one path argument; for the log."""

    argument: int
    asked: bytes
    """The path as the task gave it."""
    name: bytes
    """The absolute name that was judged; empty when there was none to judge."""
    pinned: bytes | None
    """What the slot holds in the end; None for a path that the kernel will not be able to use, as
    it could not have used the task's own."""
    pointer: int
    """Address of that in the task."""
    verdict: Verdict | None
    real: bool = False
    """Whether what is pinned has no symbolic link in it."""


class Decision(NamedTuple):
    """A plan and how it came about."""

    plan: Plan
    action: str
    """``allow``, ``deny``, ``redirect`` (a rule's word), or ``error``."""
    rule: str | None
    judged: tuple[Judged, ...]
    others: tuple[Argument, ...] = ()
    """Further pointer arguments, as pinned."""
    replaced: tuple[tuple[int, Any, Any], ...] = ()
    """(argument, what it was, what it is) of what a rule replaced, apart from paths."""


class Engine:
    """Decides about trapped calls.

    Args:
        rules: What is mapped and denied.
        names: Resolves paths of stopped tasks.
        naming: Whether paths are to be resolved even when no rule asks (for the log).
        ruling: A rule over whole calls, asked when the path rules let one pass.
        real: Whether the names that symbolic links lead to are judged as well, and pinned.

    Preconditions: the task is stopped, and its registers are loaded.
    """

    __slots__ = ("_judge", "_names", "_naming", "_real", "_ruling", "_strict")

    def __init__(
        self,
        rules: PathRules,
        names: Names,
        *,
        naming: bool,
        ruling: Callable[[Call], Ruling] | None = None,
        real: bool = False,
    ) -> None:
        self._real = real
        self._judge = rules.judge
        self._names = names
        self._strict = real or not rules.empty or ruling is not None
        self._naming = naming or self._strict
        self._ruling = ruling

    def decide(self, task: Task, call: Shape, slot: Slot, base: int) -> Decision:
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
            outcome = self._path(task, call, image, path, how)
            if outcome is None:
                continue
            if isinstance(outcome, int):
                return _failed(outcome, tuple(judged), others)
            judged.append(outcome)
            verdict = outcome.verdict
            if verdict is not None and verdict.action != ALLOW:
                action, rule = verdict.action, verdict.rule
                if action == DENY:
                    return Decision(Deny(verdict.errno), action, rule, tuple(judged), others)
        if self._ruling is not None:
            return self._ruled(task, call, image, action, rule, judged, others)
        return self._made(
            task, call, image, Decision(_NOTHING, action, rule, tuple(judged), others), {}
        )

    def _made(
        self,
        task: Task,
        call: Shape,
        image: Image,
        decision: Decision,
        scalars: dict[int, int],
    ) -> Decision:
        # Adds the plan by which a call that passed is made.
        if self._real and decision.action == ALLOW and call.row.group == "open" and decision.judged:
            plan = reopen.plan(
                call.row.name, task.registers, image, decision.judged[0], _how_of(decision.others)
            )
            if isinstance(plan, int):
                return _failed(plan, decision.judged, decision.others)
            if plan is not None:
                return decision._replace(plan=plan)
        return decision._replace(plan=_plan(call, decision.judged, decision.others, scalars))

    def _path(
        self, task: Task, call: Shape, image: Image, path: PathArgument, how: OpenHow | None
    ) -> Judged | int | None:
        # None when the argument is NULL and stays so; an errno when the call must fail.
        registers = task.registers
        address = registers[path.register]
        resolve = 0 if how is None else how.resolve
        dirfd = AT_FDCWD if path.dirfd < 0 else as_int(registers[path.dirfd])
        if address == 0 and path.kind is Kind.PATH_OR_NULL:
            # The descriptor before it is meant, if it is one.
            if path.dirfd < 0 or dirfd != AT_FDCWD:
                return None
            return _without_name(path, image, FAULT)
        if (
            address == 0
            and call.row.name in _NULL_IS_EMPTY
            and registers[call.at_flags] & AT_EMPTY_PATH
        ):
            # Since Linux 6.11 NULL means the same as an empty path here, and is not followed.
            asked = b""
            pointer = image.address_of(image.put(b"\0"))
        else:
            found = image.copy_string(address, PATH_MAX)
            if isinstance(found, int):
                return _without_name(path, image, found)
            asked = image.bytes_at(*found)
            pointer = image.address_of(found.offset)
        if not asked or path.kind is Kind.TEXT or not self._naming:
            return Judged(path.argument, asked, b"", asked, pointer, None)
        meaning = self._meaning(task, call, path, dirfd, asked, how)
        if isinstance(meaning, int):
            return meaning
        if meaning is None:
            return Judged(path.argument, asked, b"", asked, pointer, None)
        verdict = self._judge(meaning.names, wants_directory(asked))
        real = meaning.real is not None and not meaning.jumps
        pinned = _to_pin(asked, meaning, verdict, resolve, shares=task.shares)
        if pinned is None:
            return errno.EACCES
        if pinned is not asked:
            if len(pinned) >= PATH_MAX:
                return errno.ENAMETOOLONG
            pointer = image.address_of(image.put(pinned + b"\0"))
        return Judged(path.argument, asked, meaning.names[0], pinned, pointer, verdict, real)

    def _meaning(
        self,
        task: Task,
        call: Shape,
        path: PathArgument,
        dirfd: int,
        asked: bytes,
        how: OpenHow | None,
    ) -> Meaning | int | None:
        # An errno when the call must fail; None when the path means nothing, and may be tried.
        try:
            return self._names.resolve(
                task.tid,
                task.tgid,
                dirfd,
                asked,
                in_root=how is not None and bool(how.resolve & RESOLVE_IN_ROOT),
                follow=_follows(call, path, task.registers, how) if self._real else None,
                absolute=task.shares,
            )
        except NoDirectoryError as error:
            if task.shares:
                return error.errno or errno.EBADF
            # Nothing that another thread could put there meanwhile: the kernel will say what it is.
            return None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                return error.errno or errno.EACCES
            # It starts from a directory whose own name is longer than a path.
            return errno.EACCES if self._strict else None

    def _ruled(
        self,
        task: Task,
        call: Shape,
        image: Image,
        action: str,
        rule: str | None,
        judged: list[Judged],
        others: tuple[Argument, ...],
    ) -> Decision:
        assert self._ruling is not None
        row = call.row
        arguments_of = row.arguments
        names = {arguments_of[one.argument][0]: one.name for one in judged if one.name}
        changed = {one.at: one for one in others}
        scalars: dict[int, int] = {}
        for one in others:
            failed = self._name_socket(task, image, one, names, changed, scalars)
            if failed:
                return _failed(failed, tuple(judged), others)
        seen = [
            Argument(one.argument, *arguments_of[one.argument], one.pinned, one.pointer)
            for one in judged
            if one.pinned is not None
        ]
        ruling = self._ruling(
            Call(
                row,
                tuple(task.registers[register] for register in ARGUMENTS),
                task.program,
                tuple(sorted((*seen, *changed.values()))),
                names,
            )
        )
        others = tuple(changed.values())
        if ruling.action == DENY:
            return Decision(Deny(ruling.errno), DENY, ruling.rule, tuple(judged), others)
        if ruling.action != REDIRECT:
            passed = Decision(_NOTHING, action, rule, tuple(judged), others)
            return self._made(task, call, image, passed, scalars)
        replaced: list[tuple[int, Any, Any]] = []
        for index, (name, kind) in enumerate(arguments_of):
            if name not in ruling.replace:
                continue
            new = ruling.replace[name]
            if index in changed:
                was = changed[index]
                changed[index] = _written(image, was, new, scalars)
                replaced.append((index, was.value, changed[index].value))
            elif isinstance(new, int):
                scalars[index] = new & _ALL
                replaced.append((index, task.registers[ARGUMENTS[index]], new & _ALL))
            elif kind in PATHS or kind is Kind.TEXT:
                judged = [
                    _with_path(image, one, new) if one.argument == index else one for one in judged
                ]
        others = tuple(changed.values())
        plan = _plan(call, judged, others, scalars)
        return Decision(plan, REDIRECT, ruling.rule, tuple(judged), others, tuple(replaced))

    def _name_socket(
        self,
        task: Task,
        image: Image,
        one: Argument,
        names: dict[str, bytes],
        changed: dict[int, Argument],
        scalars: dict[int, int],
    ) -> int:
        # The name of a Unix socket is a path from the working directory; see the head of the module
        # about those. Returns an errno when the call must fail, else 0.
        path = _socket_path(one.value)
        if not path:
            return 0
        try:
            meaning = self._names.resolve(task.tid, task.tgid, AT_FDCWD, path, absolute=task.shares)
        except OSError as error:
            return error.errno or errno.EACCES
        names[one.name] = meaning.names[0]
        if task.shares and path[:1] != b"/":
            if meaning.absolute is None or len(meaning.absolute) > UNIX_PATH_MAX:
                return errno.EACCES
            changed[one.at] = _written(image, one, Unix(meaning.absolute), scalars)
        return 0


_ALL: Final = (1 << 64) - 1
_NOTHING: Final = Redirect(())
_MAKES: Final = os.O_CREAT | os.O_EXCL


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


def _with_path(image: Image, one: Judged, new: bytes) -> Judged:
    if one.pinned is None:
        # It could not be read, and the call fails for that, or for something that comes before.
        return one
    if len(new) >= PATH_MAX or b"\0" in new:
        raise ValueError(f"no path: {new!r}")
    return one._replace(pinned=new, pointer=image.address_of(image.put(new + b"\0")))


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


def _how_of(others: tuple[Argument, ...]) -> OpenHow | None:
    for one in others:
        if isinstance(one.value, OpenHow):
            return one.value
    return None


_NULL_IS_EMPTY: Final = frozenset(
    {
        *("newfstatat", "statx", "file_getattr", "file_setattr"),
        *("setxattrat", "getxattrat", "listxattrat", "removexattrat"),
    }
)
"""Calls for which NULL is an empty path, with AT_EMPTY_PATH (``getname_maybe_null``)."""


def _without_name(path: PathArgument, image: Image, why: int) -> Judged:
    # The kernel is given a path that is as bad, since it may have other checks to make first.
    # One that is too long is still where it was copied to: so many bytes without a NUL.
    pointer = image.address_of(image.reserve(PATH_MAX)) if why == TOO_LONG else UNREADABLE
    return Judged(path.argument, b"", b"", None, pointer, None)


def _to_pin(
    asked: bytes, meaning: Meaning, verdict: Verdict, resolve: int, *, shares: bool
) -> bytes | None:
    # The path that the kernel is to get; None where there is none that means what was judged.
    in_root = resolve & RESOLVE_IN_ROOT
    if verdict.action == REDIRECT:
        # With RESOLVE_IN_ROOT there is no string that leads out of the directory.
        return None if in_root or verdict.path is None else meaning.seen_by_task(verdict.path)
    if meaning.real is not None and not meaning.jumps:
        # RESOLVE_* flags look at the way, and this is another one.
        path = None if resolve & reopen.WAYS else meaning.seen_by_task(meaning.real)
        return path + b"/" if path is not None and wants_directory(asked) else path
    if shares and (asked[:1] != b"/" or in_root):
        # RESOLVE_* flags look at where the walk starts, so no other start will do.
        return None if resolve else meaning.absolute
    return asked


_NEVER_FOLLOW: Final = frozenset(
    {
        *("lstat", "readlink", "readlinkat", "unlink", "unlinkat", "rmdir", "rename", "renameat"),
        *("renameat2", "link", "symlink", "symlinkat", "mkdir", "mkdirat", "mknod", "mknodat"),
        *("lchown", "lsetxattr", "lgetxattr", "llistxattr", "lremovexattr"),
    }
)


def _follows(
    call: Shape, path: PathArgument, registers: ctypes.Array[ctypes.c_uint64], how: OpenHow | None
) -> bool:
    # Whether the call follows a link in the last component of this path.
    name = call.row.name
    if name in _NEVER_FOLLOW:
        return False
    if name == "linkat":
        return path is call.paths[0] and bool(registers[call.at_flags] & AT_SYMLINK_FOLLOW)
    if call.at_flags >= 0:
        return not registers[call.at_flags] & AT_SYMLINK_NOFOLLOW
    if how is not None or call.flags >= 0:
        flags = registers[call.flags] if how is None else how.flags
        return not (flags & os.O_NOFOLLOW or flags & _MAKES == _MAKES)
    return True


def _failed(
    number: int, judged: tuple[Judged, ...] = (), others: tuple[Argument, ...] = ()
) -> Decision:
    return Decision(Deny(number), ERROR, None, judged, others)
