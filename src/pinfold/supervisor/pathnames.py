"""Path arguments: read into the slot, resolved, judged by ``--map`` and ``--deny``.

A verdict on a *relative* path also depends on a directory that a path string does not name. When
another task may exchange that directory meanwhile (``Task.shares``), the absolute path that was
judged takes the place of the relative one in the slot.

An exec by descriptor (``execveat`` with an empty path) names what the descriptor is open on, and so
does a link by descriptor (``linkat``). Where another task may exchange the descriptor, they fail.

A link in ``/proc`` that jumps to a descriptor is one more thing that another task may exchange.
Where real names are judged, the file's name is pinned in its place; a file without a name (a pipe)
can then only be asked about, or opened by the supervisor (``supervisor.reopen``).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pinfold.arch.x86_64 import ARGUMENTS
from pinfold.codec.base import UNREADABLE
from pinfold.codec.image import FAULT, TOO_LONG
from pinfold.paths import wants_directory
from pinfold.policy.rules import NOT_JUDGED, REDIRECT
from pinfold.supervisor.decision import Judged
from pinfold.supervisor.shapes import NULL_IS_EMPTY
from pinfold.syscalls.kinds import Kind, as_int
from pinfold.tracee.names import NoDirectoryError
from pinfold.tracee.real import same_file
from pinfold.uapi.fs import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    PATH_MAX,
    RENAME_EXCHANGE,
    RESOLVE_IN_ROOT,
    RESOLVE_WAYS,
)

if TYPE_CHECKING:
    from pinfold.codec.image import Image
    from pinfold.codec.openhow import OpenHow
    from pinfold.policy.rules import PathRules, PathVerdict
    from pinfold.supervisor.shapes import PathArgument, Shape
    from pinfold.tracee.caller import Caller, Registers
    from pinfold.tracee.names import Meaning, Names


class Pathnames:
    """Reads and judges the path arguments of trapped calls.

    Args:
        rules: What is mapped and denied.
        names: Resolves paths of stopped tasks.
        naming: Whether paths are to be resolved at all.
        strict: Whether a path that cannot be resolved fails the call.
        policy: Whether a policy judges calls as well.
        real: Whether the names that symbolic links lead to are judged as well, and pinned.
        literals: Files to be recognised under other names (hard links), where ``real``.
        dry: Whether verdicts are only noted.

    Preconditions: the task is stopped, and its registers are loaded.
    """

    __slots__ = ("_dry", "_judge", "_literals", "_names", "_naming", "_policy", "_real", "_strict")

    def __init__(
        self,
        rules: PathRules,
        names: Names,
        *,
        naming: bool,
        strict: bool,
        policy: bool,
        real: bool,
        literals: tuple[bytes, ...],
        dry: bool,
    ) -> None:
        self._judge = rules.judge
        self._names = names
        self._naming = naming
        self._strict = strict
        self._policy = policy
        self._real = real
        self._literals = literals
        self._dry = dry

    def judge(self, names: tuple[bytes, ...], directory: bool = False) -> PathVerdict:
        """Returns the verdict of ``--map`` and ``--deny`` on names.

        Args:
            names: The names.
            directory: Whether the path's spelling insists on a directory.
        """
        return self._judge(names, directory)

    def read(
        self, task: Caller, call: Shape, image: Image, path: PathArgument, how: OpenHow | None
    ) -> Judged | int | None:
        """Returns what one path argument is and what was decided about it.

        None when the argument is NULL and stays so; an errno when the call must fail.

        Raises:
            SlotFull: The slot is too small.
            TraceeGone: The task died.
        """
        registers = task.registers
        dirfd = AT_FDCWD if path.dirfd < 0 else as_int(registers[path.dirfd])
        found = _copied(registers, call, image, path, dirfd)
        if found is None or isinstance(found, Judged):
            return found
        asked, pointer = found
        if path.kind is Kind.TEXT or not self._naming:
            return Judged(path.argument, asked, (), asked, pointer)
        if not asked:
            wanted = self._policy if call.gives else self._strict and call.executes
            if wanted and registers[call.at_flags] & AT_EMPTY_PATH:
                return self._by_descriptor(task, image, path, dirfd, pointer)
            return Judged(path.argument, asked, (), asked, pointer)
        resolve = 0 if how is None else how.resolve
        follow = _follows(call, path, registers, how) if self._real else None
        meaning = self._meaning(task, dirfd, asked, resolve, follow)
        if isinstance(meaning, int):
            return meaning
        if meaning is None:
            return Judged(path.argument, asked, (), asked, pointer)
        one = Judged(path.argument, asked, meaning.names, asked, pointer, None, meaning.real)
        return self._judged(task, call, image, one, meaning, resolve)

    def _judged(
        self,
        task: Caller,
        call: Shape,
        image: Image,
        one: Judged,
        meaning: Meaning,
        resolve: int,
    ) -> Judged | int:
        # With its verdict, and what is pinned for it.
        asked, names, real = one.asked, one.names, one.real
        pointer = one.pointer
        jump = b""
        exposed = meaning.exposed(task.tgid, shares=task.shares)
        if exposed and real is None and not self._dry:
            if call.opens:
                jump = meaning.link
            elif call.row.group != "stat":
                return errno.EACCES
        if self._literals and real is not None:
            names = (*names, *same_file(real, self._literals, names))
        moves = _moves(call, one.argument, task.registers)
        verdict = self._judge(names, wants_directory(asked), moves)
        direct = real is not None and (not meaning.jumps or call.executes or exposed)
        pinned = _to_pin(
            asked,
            meaning,
            NOT_JUDGED if self._dry else verdict,
            resolve,
            shares=task.shares,
            direct=direct,
        )
        if pinned is None:
            return errno.EACCES
        if pinned is not asked:
            if len(pinned) >= PATH_MAX:
                return errno.ENAMETOOLONG
            pointer = image.address_of(image.put(pinned + b"\0"))
        leads = b""
        if call.executes and self._policy:
            leads = self.leads(task, pinned) if real is None or verdict.path else real
        return Judged(
            one.argument, asked, names, pinned, pointer, verdict, real, direct, jump, leads
        )

    def leads(self, task: Caller, path: bytes) -> bytes:
        """Returns where the path of an exec leads now; empty when it leads nowhere."""
        try:
            meaning = self._names.resolve(task.tid, task.tgid, AT_FDCWD, path, follow=True)
        except OSError:
            # Nowhere: then nothing is executed, or something that was not there when it was judged.
            return b""
        return meaning.real or b""

    def _by_descriptor(
        self, task: Caller, image: Image, path: PathArgument, descriptor: int, pointer: int
    ) -> Judged | int:
        if task.shares:
            return errno.EACCES
        try:
            name = self._names.of_descriptor(task.tid, descriptor)
        except OSError:
            # Nothing that can be executed or linked: the kernel says what it is.
            return Judged(path.argument, b"", (), b"", pointer)
        verdict = self._judge((name,), False)
        if verdict.action != REDIRECT or verdict.path is None or self._dry:
            return Judged(path.argument, b"", (name,), b"", pointer, verdict, name, leads=name)
        pointer = image.address_of(image.put(verdict.path + b"\0"))
        leads = self.leads(task, verdict.path)
        return Judged(
            path.argument, b"", (name,), verdict.path, pointer, verdict, name, leads=leads
        )

    def _meaning(
        self, task: Caller, dirfd: int, asked: bytes, resolve: int, follow: bool | None
    ) -> Meaning | int | None:
        # An errno when the call must fail; None when the path means nothing, and may be tried.
        try:
            return self._names.resolve(
                task.tid,
                task.tgid,
                dirfd,
                asked,
                in_root=bool(resolve & RESOLVE_IN_ROOT),
                follow=follow,
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


def with_path(image: Image, one: Judged, new: bytes) -> Judged:
    """Returns a path argument with another path, written into the slot.

    Raises:
        ValueError: It is no path: a NUL byte, too long.
        SlotFull: The slot is too small.
    """
    if one.pinned is None:
        # It could not be read, and the call fails for that, or for something that comes before.
        return one
    if len(new) >= PATH_MAX or b"\0" in new:
        raise ValueError(f"no path: {new!r}")
    pointer = image.address_of(image.put(new + b"\0"))
    return one._replace(pinned=new, pointer=pointer, direct=False)


_MAKES: Final = os.O_CREAT | os.O_EXCL


def _copied(
    registers: Registers,
    call: Shape,
    image: Image,
    path: PathArgument,
    dirfd: int,
) -> tuple[bytes, int] | Judged | None:
    # The path and its pointer; None for a NULL that stays so.
    address = registers[path.register]
    if address == 0 and path.kind is Kind.PATH_OR_NULL:
        # The descriptor before it is meant, if it is one.
        if path.dirfd < 0 or dirfd != AT_FDCWD:
            return None
        return _without_name(path, image, FAULT)
    if address == 0 and call.row.name in NULL_IS_EMPTY and registers[call.at_flags] & AT_EMPTY_PATH:
        # Since Linux 6.11 NULL means the same as an empty path here, and is not followed.
        return b"", image.address_of(image.put(b"\0"))
    found = image.copy_string(address, PATH_MAX)
    if isinstance(found, int):
        return _without_name(path, image, found)
    return image.bytes_at(*found), image.address_of(found.offset)


def _without_name(path: PathArgument, image: Image, why: int) -> Judged:
    # The kernel is given a path that is as bad, since it may have other checks to make first.
    # One that is too long is still where it was copied to: so many bytes without a NUL.
    pointer = image.address_of(image.reserve(PATH_MAX)) if why == TOO_LONG else UNREADABLE
    return Judged(path.argument, b"", (), None, pointer)


def _to_pin(
    asked: bytes,
    meaning: Meaning,
    verdict: PathVerdict,
    resolve: int,
    *,
    shares: bool,
    direct: bool,
) -> bytes | None:
    # The path that the kernel is to get; None where there is none that means what was judged.
    in_root = resolve & RESOLVE_IN_ROOT
    if verdict.action == REDIRECT:
        # With RESOLVE_IN_ROOT there is no string that leads out of the directory.
        return None if in_root or verdict.path is None else meaning.seen_by_task(verdict.path)
    if direct and meaning.real is not None:
        # RESOLVE_* flags look at the way, and this is another one.
        path = None if resolve & RESOLVE_WAYS else meaning.seen_by_task(meaning.real)
        return path + b"/" if path is not None and wants_directory(asked) else path
    if shares and (asked[:1] != b"/" or in_root):
        # RESOLVE_* flags look at where the walk starts, so no other start will do.
        return None if resolve else meaning.absolute
    return asked


def _moves(call: Shape, argument: int, registers: Registers) -> bool:
    # Whether what this path names gets another name, and with it all that lies below.
    if call.row.group != "rename":
        return False
    if argument == call.paths[0].argument:
        return True
    return call.row.name == "renameat2" and bool(registers[ARGUMENTS[4]] & RENAME_EXCHANGE)


_NEVER_FOLLOW: Final = frozenset(
    {
        *("lstat", "readlink", "readlinkat", "unlink", "unlinkat", "rmdir", "rename", "renameat"),
        *("renameat2", "link", "symlink", "symlinkat", "mkdir", "mkdirat", "mknod", "mknodat"),
        *("lchown", "lsetxattr", "lgetxattr", "llistxattr", "lremovexattr"),
    }
)


def _follows(call: Shape, path: PathArgument, registers: Registers, how: OpenHow | None) -> bool:
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
