"""Rows of the table, prepared for the loop: which registers of a call are read, and as what.

Two sets of calls are trapped, as is asked for: those with paths, and those with anything that a
verdict could depend on.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.syscalls.forms import WHOLE, Form
from pinfold.syscalls.kinds import Kind
from pinfold.syscalls.neighbours import NEIGHBOURS
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import DESCRIPTOR_ROWS, PATH_ROWS, TABLE, Row
from pinfold.uapi.fs import AT_EMPTY_PATH, AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pinfold.syscalls.forms import Forms

_PATHS: Final = (Kind.PATH, Kind.PATH_OR_NULL, Kind.TEXT)


class PathArgument(NamedTuple):
    """One path argument, with everything about its row worked out beforehand."""

    argument: int
    register: int
    dirfd: int
    """Register of the directory descriptor, -1 for the working directory."""
    kind: Kind


class OtherArgument(NamedTuple):
    """One pointer argument of any other kind."""

    argument: int
    name: str
    kind: Kind
    register: int
    size: int
    """Register of the next argument, or some register if there is none."""


class Shape(NamedTuple):
    """A row of the table, prepared for the loop."""

    row: Row
    paths: tuple[PathArgument, ...]
    others: tuple[OtherArgument, ...]
    at_flags: int
    """Register of ``AT_*`` flags, -1 without."""
    flags: int
    """Register of ``O_*`` flags, -1 without."""
    moves_root: bool
    """Whether the call gives the task another root directory."""
    batch: bool
    """Whether it is made message by message (``sendmmsg``)."""
    executes: bool
    """Whether it executes a program."""
    gives: bool
    """Whether, with AT_EMPTY_PATH, it gives an open file another name."""
    opens: bool
    """Whether it opens a file by path and returns a descriptor of it."""
    describes: int
    """Register of the descriptor that a call is about if it has no path, or an empty one; -1 for
    calls that only ask about an open file, or have none."""
    names: int
    """Register of the id of the task that it changes, -1 without."""
    judged: bool = True
    """Whether it is judged, and not only counted, or looked at for the task that it names."""
    places: bool = False
    """Whether it tells or changes where tasks run; see ``supervisor.placement``."""


def shape(row: Row, kinds: frozenset[Kind]) -> Shape:
    """Returns a row with its registers worked out.

    Args:
        row: The row.
        kinds: Which of its arguments are read, apart from paths.
    """
    paths: list[PathArgument] = []
    others: list[OtherArgument] = []
    at_flags = flags = -1
    previous = None
    for index, (name, kind) in enumerate(row.arguments):
        if kind in _PATHS and (kind is not Kind.TEXT or row in PATH_ROWS):
            dirfd = ARGUMENTS[index - 1] if previous is Kind.DIRFD else -1
            paths.append(PathArgument(index, ARGUMENTS[index], dirfd, kind))
        elif kind is Kind.AT_FLAGS:
            at_flags = ARGUMENTS[index]
        elif kind is Kind.OPEN_FLAGS:
            flags = ARGUMENTS[index]
        elif kind in kinds:
            size = ARGUMENTS[min(index + 1, len(ARGUMENTS) - 1)]
            others.append(OtherArgument(index, name, kind, ARGUMENTS[index], size))
        previous = kind
    return Shape(
        row,
        tuple(paths),
        tuple(others),
        at_flags,
        flags,
        row.name == "chroot",
        row.name == "sendmmsg",
        row.name in ("execve", "execveat"),
        row.name == "linkat",
        row.group == "open" and row.name in _OPENS,
        ARGUMENTS[0] if _describes(row) else -1,
        ARGUMENTS[NEIGHBOURS[row.name].argument] if row.name in NEIGHBOURS else -1,
    )


def _describes(row: Row) -> bool:
    if row in DESCRIPTOR_ROWS:
        return True
    return row.group in _CHANGING and bool(row.arguments) and row.arguments[0][1] is Kind.DIRFD


_CHANGING: Final = frozenset({row.group for row in DESCRIPTOR_ROWS})
_OPENS: Final = frozenset({"open", "openat", "openat2", "creat"})


def with_calls(
    shapes: Mapping[int, Shape], calls: Mapping[str, frozenset[Kind]]
) -> dict[int, Shape]:
    """Returns what is trapped when a policy wants to see further calls, or more of them.

    Args:
        shapes: What is trapped without it.
        calls: By name of a call, kinds of arguments that are read apart from paths. A call that is
            not in the table has no arguments but its registers; one that every sandbox refuses is
            left out. ``chroot`` is trapped with any other.
    """
    from pinfold.supervisor.arguments import READABLE  # noqa: PLC0415 (few runs need all readers)

    found = dict(shapes)
    if calls:
        # A program that gets another root directory unseen spells every name as another one.
        calls = {"chroot": _NONE, **calls}
    for name, kinds in calls.items():
        if name in _REFUSED:
            continue
        row = TABLE.get(name) or Row(name, "", ())
        before = shapes.get(row.number)
        wanted = kinds & READABLE | {Kind.OPEN_HOW}
        if before is not None:
            wanted |= {one.kind for one in before.others}
        found[row.number] = shape(row, frozenset(wanted))
    return found


def without(shapes: Mapping[int, Shape], passing: Mapping[str, Forms]) -> dict[int, Shape]:
    """Returns what is trapped without those calls that only go through.

    Args:
        shapes: What is trapped else.
        passing: By name of a call, its forms that go through.
    """
    return {
        number: one
        for number, one in shapes.items()
        if one.moves_root or passing.get(one.row.name) != WHOLE
    }


def forms_of(
    shapes: Mapping[int, Shape], passing: Mapping[str, Forms], *, policy: bool
) -> dict[int, Forms]:
    """Returns, by number, which forms of trapped calls go through.

    Those are also the ones that name nothing at all, and so are made whatever the rules are.

    Args:
        shapes: What is trapped.
        passing: By name of a call, its forms that go through anyway.
        policy: Whether a policy judges calls by what their descriptor is open on.
    """
    found = {}
    for number, one in shapes.items():
        # Of other calls more is asked than what a policy says.
        if one.judged and one.names < 0 and not (one.moves_root or one.places):
            forms = (*_nameless(one, policy=policy), *passing.get(one.row.name, ()))
            if forms:
                found[number] = forms
    return found


def _nameless(one: Shape, *, policy: bool) -> Forms:
    # The forms with NULL for the only path, where that means a descriptor or nothing.
    if len(one.paths) != 1 or (policy and one.describes >= 0):
        return ()
    (path,) = one.paths
    null = path.argument, _ALL, 0
    if path.kind is Kind.PATH_OR_NULL:
        if path.dirfd < 0:
            return (Form((null,), passes=True),)
        # Of the working directory, it is a path like any other.
        here = path.argument - 1, _LOW, AT_FDCWD & _LOW
        return (Form((null, here), passes=False), Form((null,), passes=True))
    if one.row.name in NULL_IS_EMPTY:
        # Without any other flag, and of a descriptor that can be: else Linux 6.12 would follow it.
        kinds = [kind for _, kind in one.row.arguments]
        flags = kinds.index(Kind.AT_FLAGS), _LOW, AT_EMPTY_PATH
        return (Form((null, flags, (path.argument - 1, _SIGN, 0)), passes=True),)
    return ()


NULL_IS_EMPTY: Final = frozenset(
    {
        *("newfstatat", "statx", "file_getattr", "file_setattr"),
        *("setxattrat", "getxattrat", "listxattrat", "removexattrat"),
    }
)
"""Calls for which NULL is an empty path, with AT_EMPTY_PATH (``getname_maybe_null``)."""

_ALL: Final = (1 << 64) - 1
_LOW: Final = (1 << 32) - 1
_SIGN: Final = 1 << 31
_NONE: Final[frozenset[Kind]] = frozenset()


def counted(shapes: Mapping[int, Shape], calls: Iterable[str]) -> dict[int, Shape]:
    """Returns what is trapped when some calls are to be counted, or looked at, as well."""
    return {**{one.row.number: one for one in map(_only, calls)}, **shapes}


@cache
def _only(name: str) -> Shape:
    return shape(Row(name, "", ()), frozenset())._replace(judged=False)


def placing(shapes: Mapping[int, Shape], calls: Iterable[str]) -> dict[int, Shape]:
    """Returns what is trapped where calls are that tell or change where tasks run."""
    found = counted(shapes, calls)
    for name in calls:
        number = X86_64[name]
        found[number] = found[number]._replace(places=True)
    return found


_REFUSED: Final = frozenset(one.name for one in REFUSED if one.argument < 0)
"""Calls that are refused whole."""


def _shapes(rows: Iterable[Row], kinds: frozenset[Kind]) -> dict[int, Shape]:
    shapes = (shape(row, kinds) for row in rows if row.name not in _REFUSED)
    return {one.row.number: one for one in shapes if one.paths or one.others}


PATHS: Mapping[int, Shape]
"""What is trapped, by number, where only paths are judged; ``open_how`` says how one is walked."""
EVERYTHING: Mapping[int, Shape]
"""What is trapped where every pointer argument is looked at."""


def _everything() -> dict[int, Shape]:
    from pinfold.supervisor.arguments import READABLE  # noqa: PLC0415 (as above)

    return _shapes(TABLE.values(), READABLE)


_MADE: Final = {
    "PATHS": lambda: _shapes(PATH_ROWS, frozenset({Kind.OPEN_HOW})),
    "EVERYTHING": _everything,
}


def __getattr__(name: str) -> Mapping[int, Shape]:
    # Made when they are asked for: few runs need both, and it takes milliseconds.
    if name not in _MADE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = _MADE[name]()
    return found
