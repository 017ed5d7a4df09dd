"""What COMMAND may not do whatever a path rule says: Landlock, capabilities, no new privileges.

:func:`prepare` runs in the supervisor and does all that can fail for a reason worth explaining.
:meth:`Confinement.apply` runs in the child between fork and exec. Code there must not

- import, log, print, or touch anything that may hold a lock which another thread of the supervisor
  held at the time of the fork;
- run the supervisor's cleanup: no ``sys.exit``, no return into the caller's frames after a failure
  (the launcher reports the ``OSError`` over its pipe and calls ``os._exit``);
- open descriptors that outlive the exec, or look at paths: that was done before.

The Landlock domain is there even when no path is given. A task in a domain cannot trace, or open
``/proc/PID/mem`` of, anything outside it, root or not; and from ABI 6 on it cannot signal outside
either, so COMMAND cannot kill the supervisor. The kernel refuses a ruleset that handles nothing
(ENOMSG). With ABI 6 the signal scope is something. Before, pinfold handles ``REFER`` and allows it
beneath ``/``: that right is about renames and links between directories, which every domain with a
file right forbids unless it handles and allows just this one. Any other file right, allowed
everywhere, would therefore break ``mv`` between directories (EXDEV), and network rights can only be
allowed port by port. The cost left is that a domain with a file right cannot mount, even in a user
namespace of its own. ABI 1 has no ``REFER``; no kernel with ``mseal`` is that old, so it counts as
none.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from pinfold.errors import PolicyError, UnsupportedError
from pinfold.linux import caps, landlock, libc
from pinfold.linux.descriptors import lifted
from pinfold.uapi.landlock import (
    LANDLOCK_ACCESS_FS_EXECUTE,
    LANDLOCK_ACCESS_FS_IOCTL_DEV,
    LANDLOCK_ACCESS_FS_MAKE_SYM,
    LANDLOCK_ACCESS_FS_READ_DIR,
    LANDLOCK_ACCESS_FS_READ_FILE,
    LANDLOCK_ACCESS_FS_REFER,
    LANDLOCK_ACCESS_FS_TRUNCATE,
    LANDLOCK_ACCESS_FS_WRITE_FILE,
    LANDLOCK_SCOPE_SIGNAL,
)
from pinfold.uapi.prctl import CAP_SETPCAP, PR_SET_NO_NEW_PRIVS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_ABI_REFER: Final = 2
_ABI_SCOPE: Final = 6

_LAST_RIGHT: Final = {
    1: LANDLOCK_ACCESS_FS_MAKE_SYM,
    2: LANDLOCK_ACCESS_FS_REFER,
    3: LANDLOCK_ACCESS_FS_TRUNCATE,
    5: LANDLOCK_ACCESS_FS_IOCTL_DEV,
}
"""The highest file right of each ABI that added one; it has all lower ones too."""

_READ: Final = (
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR
)

_OF_FILES: Final = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)
"""The rights that the kernel accepts for a file that is no directory."""

_REMEDY: Final = (
    "build the kernel with CONFIG_SECURITY_LANDLOCK and boot it with `landlock` in `lsm=`"
)


class Confinement:
    """What :func:`prepare` made ready; a context manager that owns the ruleset's descriptor."""

    def __init__(self, ruleset: int | None, keep_caps: bool, warnings: tuple[str, ...]) -> None:
        self._ruleset = ruleset
        self._keep_caps: Final = keep_caps
        # Whatever of it is there: the child does not ask first.
        self._dropped: Final = (
            caps.others(caps.CONTAINER_DEFAULT)
            if not keep_caps and caps.effective() >> CAP_SETPCAP & 1
            else ()
        )
        self.warnings: Final = warnings
        """What the user should know about the confinement being weaker than usual, a line each."""

    def apply(self) -> None:
        """Confines the calling process, for good. To be called once, in the child, before exec.

        The order matters. The bounding set shrinks first, while CAP_SETPCAP is surely there; where
        it is not, the set stays, as after the next step no exec adds a capability in any case. No
        new privileges comes before Landlock, which demands it of the unprivileged. The held
        capabilities go last, since nothing after may need one.

        Raises:
            OSError: The kernel refused a step. The child must not exec then.
        """
        caps.drop_bounding(self._dropped)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            landlock.restrict_self(self._ruleset)
        if not self._keep_caps:
            caps.limit_held(caps.CONTAINER_DEFAULT)

    @property
    def descriptor(self) -> int:
        """The descriptor that :meth:`apply` needs open in the child, -1 for none."""
        return -1 if self._ruleset is None else self._ruleset

    def close(self) -> None:
        """Closes the ruleset; children that applied it stay confined. May be called again."""
        ruleset, self._ruleset = self._ruleset, None
        if ruleset is not None:
            os.close(ruleset)

    def __enter__(self) -> Confinement:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def prepare(ro: Sequence[bytes], rw: Sequence[bytes], keep_caps: bool) -> Confinement:
    """Returns the confinement for one COMMAND.

    With any path given, everything that is beneath none of them is refused (EACCES). Rights add up:
    what lies beneath a path of each kind is writable.

    Args:
        ro: Files and directories that may be read, listed and executed.
        rw: Files and directories that may be used in every way.
        keep_caps: Whether COMMAND keeps all capabilities of the supervisor, not just the usual ones
            of a container.

    Raises:
        PolicyError: A path does not exist or cannot be used.
        UnsupportedError: Paths are given and the kernel has no Landlock.
        OSError: The kernel refused a ruleset.
    """
    version = landlock.abi()
    usable = version >= _ABI_REFER
    if not usable and (ro or rw):
        raise UnsupportedError(
            f"read-only and read-write paths need Landlock, which this kernel lacks; {_REMEDY}"
        )
    ruleset = _ruleset(version, ro, rw) if usable else None
    warnings = (*_landlock_warnings(version), *_overlaps(ro, rw), *_capability_warnings(keep_caps))
    return Confinement(ruleset, keep_caps, warnings)


def _ruleset(version: int, ro: Sequence[bytes], rw: Sequence[bytes]) -> int:
    scoped = LANDLOCK_SCOPE_SIGNAL if version >= _ABI_SCOPE else 0
    if ro or rw:
        every = 2 * max(right for abi, right in _LAST_RIGHT.items() if abi <= version) - 1
        rules = [(path, _READ) for path in ro] + [(path, every) for path in rw]
        handled = every
    else:
        handled = 0 if scoped else LANDLOCK_ACCESS_FS_REFER
        rules = [(b"/", handled)] if handled else []
    ruleset = landlock.create_ruleset(handled, scoped)
    try:
        # Where a stream of ours is closed it may have got that number, and the child loses it
        # when it sets up its own streams.
        ruleset = lifted(ruleset)
        for path, access in rules:
            _allow(ruleset, path, access)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _allow(ruleset: int, path: bytes, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(parent).st_mode):
                access &= _OF_FILES
            landlock.allow_beneath(ruleset, parent, access)
        finally:
            os.close(parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise PolicyError(f"{os.fsdecode(path)!r} cannot be allowed: {reason}") from error


def _landlock_warnings(version: int) -> Iterator[str]:
    reach = "COMMAND can signal the supervisor, and so stop or kill it"
    if version < _ABI_REFER:
        yield f"no Landlock: {reach}; {_REMEDY}"
    elif version < _ABI_SCOPE:
        yield f"Landlock ABI {version} does not cover signals (6 does, Linux 6.12): {reach}"


def _overlaps(ro: Sequence[bytes], rw: Sequence[bytes]) -> Iterator[str]:
    writable = [os.path.realpath(path) for path in rw]
    for path in ro:
        real = os.path.realpath(path)
        if any(os.path.commonpath([real, above]) == above for above in writable):
            yield f"{os.fsdecode(path)!r} is not read-only: it lies beneath a read-write path"


def _capability_warnings(keep_caps: bool) -> Iterator[str]:
    if keep_caps and caps.permitted():
        yield "COMMAND keeps every capability of the supervisor: it may be able to undo the sandbox"
