"""The short way from a trapped call to its verdict, for the calls that programs make most.

They have one path, and what becomes of them depends on that path, on the directory that it is
relative to, and on numbers in registers. A program makes them again and again. So what was decided
about such a call is kept, by everything that the decision depends on, and found again with nothing
made on the way but the key. And where a path has but one name, and that one is allowed, nothing
more has to be found out in the first place.

The bytes are copied to the task's slot, and looked up there: what is found is a verdict on exactly
what the kernel will be pointed at. What a verdict depends on is never assumed to be as it was:

* the path is what was just copied, and the numbers are those in the registers;
* the directory is asked for each time, since a directory can be renamed by anybody;
* the program is part of the key.

Whatever does not fit, or goes wrong, goes the long way (``supervisor.engine``): links are followed
there, ``..`` behind a name, which a link may stand for, is looked into, and a path that cannot be
read gets the answer that the kernel would give.
"""

from __future__ import annotations

import os
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS, ORIG_RAX
from pinfold.backends.base import Deny, Redirect
from pinfold.backends.kept import FIRST
from pinfold.paths import climbs, join
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.supervisor.decision import Judged
from pinfold.supervisor.placement import tells
from pinfold.syscalls.kinds import PATHS as PATH_KINDS
from pinfold.syscalls.kinds import POINTERS, as_int
from pinfold.uapi.fs import AT_FDCWD, PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.backends.kept import Kept
    from pinfold.supervisor.decision import Decision
    from pinfold.supervisor.engine import Engine
    from pinfold.supervisor.shapes import Shape
    from pinfold.tracee.caller import Caller, Registers

_MOST: Final = 4096
"""Decisions that are kept, of all calls: of a hostile program, some 10 MiB, with paths and
directories as long as they can be here."""

_SLASH: Final = 0x2F
_KERNEL: Final = 63
_DELETED: Final = b" (deleted)"


class Known(NamedTuple):
    """What is done about a call that was decided before."""

    shape: Shape
    decision: Decision
    """The first decision; the addresses in it are of that time."""
    register: int
    """Of the path."""
    errno: int
    """With which the call fails; 0 when it is made."""
    pinned: bytes | None
    """What takes the path's place, with its NUL; None when the path itself is pinned."""
    notable: bool
    """Whether a rule had it come out otherwise than the program asked."""


class _Row:
    # A call that can be found, with what was decided about it so far.
    __slots__ = ("argument", "dirfd", "known", "register", "scalars", "shape")

    def __init__(self, shape: Shape) -> None:
        path = shape.paths[0]
        scalars = [
            ARGUMENTS[index]
            for index, (_, kind) in enumerate(shape.row.arguments)
            if kind not in POINTERS
        ]
        self.shape = shape
        self.argument = path.argument
        self.register = path.register
        self.dirfd = path.dirfd
        self.known: dict[tuple[Any, ...], Known] = {}
        # Of an array of registers: C code, as little Python as can be.
        self.scalars: Callable[[Any], Any] = itemgetter(*scalars) if scalars else _none


def _none(_: object) -> None:
    return None


class Quick:
    """Finds calls that were decided before, and decides what needs no more than a name.

    Args:
        shapes: What is trapped, by number.
        engine: Decides.
    """

    __slots__ = ("_count", "_engine", "_missed", "_names", "_rows", "_shapes")

    def __init__(self, shapes: Mapping[int, Shape], engine: Engine) -> None:
        self._engine = engine
        self._names = engine.names
        self._count = 0
        self._shapes = shapes
        # By number, once it was made; None for a call that cannot be found.
        self._rows: dict[int, _Row | None] = {}
        # What was looked for last and not found: row, task id, path, directory, key.
        self._missed: tuple[_Row, int, bytes, bytes, tuple[Any, ...]] | None = None

    def find(self, task: Caller, registers: Registers) -> Known | None:
        """Returns what is done about the call that a task is about to make; None for the long way.

        Its path is in the task's kept slot then, with its NUL.

        Preconditions: the task is in a seccomp stop, its registers are loaded.
        """
        self._missed = None
        number = registers[ORIG_RAX]
        row = self._rows[number] if number in self._rows else self._row(number)
        kept: Kept | None = task.kept
        if row is None or kept is None or kept.space is not task.space or not self._names.rooted:
            # Below a root directory of one's own, no name is what it was.
            return None
        address = registers[row.register]
        if address >> _KERNEL:
            return None
        start = kept.start
        length = kept.read(address)
        if length <= 0:
            return None
        end = kept.find(b"\0", start, start + length)
        if end < 0:
            return None
        path = kept.view[start:end]
        base = b""
        if not path:
            # With the right flag, it is about a descriptor, and about no name.
            if row.shape.describes >= 0:
                return None
        elif path[0] != _SLASH:
            found = _directory(task, kept, row, registers)
            if found is None:
                return None
            base = found
        # Who can be fooled about a directory matters where the path starts from one.
        shares = path[:1] != b"/" and task.shares
        key = (path, base, row.scalars(registers), shares, task.program)
        known = row.known.get(key)
        if known is None:
            known = self._decided(task, kept, row, path, base)
            if known is None:
                self._missed = row, task.tid, path, base, key
            else:
                self._remember(row, base, key, known)
        return known

    def _row(self, number: int) -> _Row | None:
        # Most programs make few of the calls that there are.
        shape = self._shapes.get(number)
        fits = shape is not None and self._engine.naming and _fits(shape)
        self._rows[number] = row = (
            _Row(shape) if shape is not None and fits and self._engine.steady(shape) else None
        )
        return row

    def _decided(
        self, task: Caller, kept: Kept, row: _Row, path: bytes, base: bytes
    ) -> Known | None:
        # A plain yes to the one name that a path has.
        if climbs(path):
            return None
        names = (join(base, path),) if path else ()
        pinned = path
        if base and task.shares:
            # Another thread may exchange the directory.
            pinned = base.rstrip(b"/") + b"/" + path
            if len(pinned) >= PATH_MAX:
                return None
        one = Judged(row.argument, path, names, pinned, kept.address)
        decision = self._engine.plain(task, row.shape, one)
        return None if decision is None else _known(row, path, base, decision)

    def learn(self, task: Caller, decision: Decision) -> None:
        """Keeps what was decided about the call that was looked for last, if that can be.

        Preconditions: in the same stop as :meth:`find`, before the decision is carried out.
        """
        missed, self._missed = self._missed, None
        if missed is None or missed[1] != task.tid:
            return
        row, _, path, base, key = missed
        known = _known(row, path, base, decision)
        if known is not None and self._names.rooted:
            self._remember(row, base, key, known)

    def _remember(self, row: _Row, base: bytes, key: tuple[Any, ...], known: Known) -> None:
        if len(base) > FIRST:
            return
        if self._count >= _MOST:
            for one in self._rows.values():
                if one is not None:
                    one.known.clear()
            self._count = 0
        row.known[key] = known
        self._count += 1


def _fits(shape: Shape) -> bool:
    return (
        shape.judged
        and len(shape.paths) == 1
        and shape.paths[0].kind in PATH_KINDS
        and not (shape.others or shape.executes or shape.moves_root or shape.batch)
        and shape.names < 0
    )


def _directory(task: Caller, kept: Kept, row: _Row, registers: Registers) -> bytes | None:
    # The name of the directory that a relative path starts from; None where that takes a closer
    # look.
    link = kept.directory
    if row.dirfd >= 0:
        dirfd = as_int(registers[row.dirfd])
        if dirfd != AT_FDCWD:
            if dirfd < 0:
                return None
            link = b"/proc/%d/fd/%d" % (task.tid, dirfd)
    try:
        base = os.readlink(link)
        if base[0] != _SLASH or base.endswith(_DELETED):
            return None
        if task.shares and not os.path.samestat(os.stat(link), os.stat(base)):
            return None
    except OSError:
        # The long way finds the same, and says what it means.
        return None
    return base


def _known(row: _Row, path: bytes, base: bytes, decision: Decision) -> Known | None:
    if len(decision.judged) != 1 or decision.others or decision.replaced:
        return None
    (one,) = decision.judged
    # It was read once more, and may have been another path by then, or another directory.
    if one.asked != path or one.argument != row.argument:
        return None
    if climbs(path):
        # What is no link now can be one the next time.
        return None
    if one.names != ((join(base, path),) if path else ()):
        return None
    if row.shape.opens and tells((path, one.pinned)):
        # The loop is to hear of it each time (``supervisor.placement``).
        return None
    plan = decision.plan
    if isinstance(plan, Deny):
        if decision.action != DENY:
            return None
        return Known(row.shape, decision, row.register, plan.errno, None, True)
    index = ARGUMENTS.index(row.register)
    if (
        not isinstance(plan, Redirect)
        or plan.number is not None
        or plan.registers != ((index, one.pointer),)
        or one.pinned is None
        or decision.action not in (ALLOW, REDIRECT)
    ):
        return None
    pinned = None if one.pinned == path else one.pinned + b"\0"
    return Known(row.shape, decision, row.register, 0, pinned, decision.action != ALLOW)
