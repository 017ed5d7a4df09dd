"""From a trapped call to a plan: read its arguments into its slot, judge them, say what to do.

The order is what makes decisions hold. Bytes are copied from the task into the slot first, and only
the slot's bytes are judged, logged and pointed at; the task's memory is never looked at again.

A verdict on a *relative* path also depends on a directory that a path string does not name. When
another task may exchange that directory meanwhile (``Task.shares``), the absolute path that was
judged takes the place of the relative one in the slot.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.backends.base import Deny, Redirect
from pinfold.paths import wants_directory
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.table import ROWS, Row
from pinfold.uapi.fs import AT_EMPTY_PATH, AT_FDCWD, OPEN_HOW, PATH_MAX, RESOLVE_IN_ROOT

if TYPE_CHECKING:
    from pinfold.backends.base import Plan
    from pinfold.pins.arena import Slot
    from pinfold.policy.rules import PathRules, Verdict
    from pinfold.tracee.names import Names
    from pinfold.tracee.task import Task

_PATHS: Final = (Kind.PATH, Kind.PATH_OR_NULL, Kind.TEXT)
ERROR: Final = "error"
"""The verdict of a call that fails as the kernel would have failed it (EFAULT, ENAMETOOLONG, …)."""
UNPINNED: Final = "unpinned"
"""The verdict of a call that fails because its arguments could not be pinned."""


class _Path(NamedTuple):
    # One pointer argument, with everything about its row worked out beforehand.
    argument: int
    register: int
    dirfd: int  # register of the directory descriptor, -1 for the working directory
    kind: Kind
    place: int  # offset in the slot


class Shape(NamedTuple):
    """A row of the table, prepared for the loop."""

    row: Row
    paths: tuple[_Path, ...]
    at_flags: int
    """Register of ``AT_*`` flags, -1 without."""
    how: int
    """Argument index of ``struct open_how``, -1 without."""
    moves_root: bool
    """Whether the call gives the task another root directory."""


def shape(row: Row) -> Shape:
    """Returns a row with its registers and slot offsets worked out."""
    paths: list[_Path] = []
    at_flags = how = -1
    previous = None
    for index, (_, kind) in enumerate(row.arguments):
        if kind in _PATHS:
            dirfd = ARGUMENTS[index - 1] if previous is Kind.DIRFD else -1
            paths.append(_Path(index, ARGUMENTS[index], dirfd, kind, len(paths) * PATH_MAX))
        elif kind is Kind.AT_FLAGS:
            at_flags = ARGUMENTS[index]
        elif kind is Kind.OPEN_HOW:
            how = index
        previous = kind
    return Shape(row, tuple(paths), at_flags, how, row.name == "chroot")


SHAPES: Final[dict[int, Shape]] = {row.number: shape(row) for row in ROWS}


class Judged(NamedTuple):
    """What was decided about one path argument; for the log."""

    argument: int
    asked: bytes
    """The path as the task gave it."""
    name: bytes
    """The absolute name that was judged; empty when there was none to judge."""
    pinned: bytes
    """What the slot holds in the end."""
    verdict: Verdict | None


class Decision(NamedTuple):
    """A plan and how it came about."""

    plan: Plan
    action: str
    """``allow``, ``deny``, ``redirect`` (a rule's word), or ``error``."""
    rule: str | None
    judged: tuple[Judged, ...]
    how: bytes = b""
    """``struct open_how`` as pinned, for the one call that has it."""


class Engine:
    """Decides about trapped calls.

    Args:
        rules: What is mapped and denied.
        names: Resolves paths of stopped tasks.
        naming: Whether paths are to be resolved even when no rule asks (for the log).

    Preconditions: the task is stopped, and its registers are loaded.
    """

    __slots__ = ("_judge", "_names", "_naming")

    def __init__(self, rules: PathRules, names: Names, *, naming: bool) -> None:
        self._judge = rules.judge
        self._names = names
        self._naming = naming or not rules.empty

    def decide(self, task: Task, call: Shape, slot: Slot) -> Decision:
        """Returns what to do about a trapped call.

        Raises:
            TraceeGone: The task died.
        """
        if call.moves_root:
            if task.shares:
                # Another thread could be in the middle of a call judged under the old root.
                return _failed(errno.EPERM)
            self._names.rooted = False
        pointers: list[tuple[int, int]] = []
        how = b""
        if call.how >= 0:
            pinned = self._pin_how(task, call, slot)
            if isinstance(pinned, int):
                return _failed(pinned)
            if pinned:
                how = pinned
                pointers.append((call.how, len(call.paths) * PATH_MAX))
        action = ALLOW
        rule: str | None = None
        judged: list[Judged] = []
        for path in call.paths:
            outcome = self._path(task, call, slot, path, _resolve_of(how))
            if outcome is None:
                continue
            if isinstance(outcome, int):
                return _failed(outcome, tuple(judged))
            judged.append(outcome)
            pointers.append((path.argument, path.place))
            verdict = outcome.verdict
            if verdict is not None and verdict.action != ALLOW:
                action, rule = verdict.action, verdict.rule
                if action == DENY:
                    return Decision(Deny(verdict.errno), action, rule, tuple(judged), how)
        return Decision(Redirect(tuple(pointers)), action, rule, tuple(judged), how)

    def _path(
        self, task: Task, call: Shape, slot: Slot, path: _Path, resolve: int
    ) -> Judged | int | None:
        # None when the argument is NULL and stays so; an errno when the call must fail.
        registers = task.registers
        address = registers[path.register]
        place = slot.offset + path.place
        view = slot.arena.view
        dirfd = AT_FDCWD if path.dirfd < 0 else _as_int(registers[path.dirfd])
        by_descriptor = call.at_flags >= 0 and registers[call.at_flags] & AT_EMPTY_PATH
        if address == 0 and path.kind is Kind.PATH_OR_NULL:
            return errno.EFAULT if path.dirfd >= 0 and dirfd == AT_FDCWD else None
        if address == 0 and by_descriptor:
            # Since Linux 6.11 NULL means the same as an empty path here, and is not followed.
            view[place] = 0
            length = 0
        else:
            length = slot.arena.memory.read_path(task.tid, address, place)
            if length < 0:
                return -length
        asked = view[place : place + length]
        if length == 0 or path.kind is Kind.TEXT or not self._naming:
            return Judged(path.argument, asked, b"", asked, None)
        try:
            meaning = self._names.resolve(
                task.tid, task.tgid, dirfd, asked, in_root=bool(resolve & RESOLVE_IN_ROOT)
            )
        except OSError as error:
            return error.errno or errno.EACCES
        verdict = self._judge(meaning.names, wants_directory(asked))
        pinned: bytes | None = asked
        in_root = resolve & RESOLVE_IN_ROOT
        if verdict.action == REDIRECT:
            # With RESOLVE_IN_ROOT there is no string that leads out of the directory.
            pinned = None if in_root or verdict.path is None else meaning.seen_by_task(verdict.path)
        elif task.shares and (asked[:1] != b"/" or in_root):
            # RESOLVE_* flags look at where the walk starts, so no other start will do.
            pinned = None if resolve else meaning.absolute
        if pinned is None:
            return errno.EACCES
        if pinned is not asked:
            if len(pinned) >= PATH_MAX:
                return errno.ENAMETOOLONG
            view[place : place + len(pinned) + 1] = pinned + b"\0"
        return Judged(path.argument, asked, meaning.names[0], pinned, verdict)

    def _pin_how(self, task: Task, call: Shape, slot: Slot) -> bytes | int:
        # Copies struct open_how into the slot; returns it, or an errno.
        address = task.registers[ARGUMENTS[call.how]]
        size = task.registers[ARGUMENTS[call.how + 1]]
        if not OPEN_HOW.size <= size <= PATH_MAX:
            # The kernel refuses the size before it looks at the structure (E2BIG, EINVAL).
            return b""
        start = slot.offset + len(call.paths) * PATH_MAX
        if slot.arena.memory.read(task.tid, address, start, size) != size:
            return errno.EFAULT
        return slot.arena.view[start : start + size]


def _resolve_of(how: bytes) -> int:
    return int(OPEN_HOW.unpack_from(how)[2]) if how else 0


def _failed(number: int, judged: tuple[Judged, ...] = ()) -> Decision:
    return Decision(Deny(number), ERROR, None, judged)


def _as_int(value: int) -> int:
    # A descriptor is a C int: the kernel looks at the low 32 bits.
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
