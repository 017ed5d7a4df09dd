"""Something happens at a chosen system call of the thread that supervises.

What the supervisor calls is replaced by stand-ins that count, and else do the real thing. Only the
thread of a session is counted, and the process that it forks; everybody else's calls are untouched.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from pinfold.linux import caps, libc, maps, ptrace, uio

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_PYTHON: Final = {
    os: (
        *("open", "read", "write", "readlink", "stat", "lstat", "fstat", "pipe", "pidfd_open"),
        *("memfd_create", "ftruncate", "fork", "kill", "dup", "dup2", "chdir", "set_inheritable"),
    ),
    fcntl: ("ioctl", "fcntl"),
    mmap: ("mmap",),
}
_C: Final = (
    (libc, "_syscall"),
    (libc, "_prctl"),
    (ptrace, "_ptrace"),
    (uio, "_readv"),
    (caps, "_lean_prctl"),
    (ptrace, "_lean"),
    (uio, "_lean_readv"),
)


class Calls:
    """The calls of one session's thread, or of the process that it forks, from now on.

    Args:
        patch: Takes the stand-ins back.
        at: Number of the call at which something happens, from 1; 0 for none.
        act: What happens; returns the errno that the call fails with, or 0 to have it made.
        here: Whether the supervisor's calls are counted, and not those of the new process.

    Attributes:
        count: How many there were so far.
        name: Of the one at which something has happened.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        at: int = 0,
        act: Callable[[], int] = lambda: 0,
        *,
        here: bool = True,
    ) -> None:
        self._at = at
        self._act = act
        self._host = os.getpid()
        self._here = here
        self.count = 0
        self.name = ""
        for module, names in _PYTHON.items():
            for name in names:
                patch.setattr(module, name, self._python(name, getattr(module, name)))
        patch.setattr(maps, "_ioctl", self._python("ioctl", maps._ioctl))
        for module, name in _C:
            patch.setattr(module, name, self._c(name, getattr(module, name)))

    def _failure(self, name: str) -> int:
        if threading.current_thread().name != "pinfold":
            return 0
        if (os.getpid() == self._host) != self._here:
            return 0
        self.count += 1
        if self.count != self._at:
            return 0
        self.name = name
        return self._act()

    def _python(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if number := self._failure(name):
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    def _c(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(*args: Any) -> int:
            if number := self._failure(name):
                ctypes.set_errno(number)
                return -1
            return real(*args)

        return call
