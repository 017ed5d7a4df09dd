"""Calls that no policy can be asked about, and why (pure)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_INSTALL: Final = "pinfold makes it in the program itself, to put its pinned memory there"
_END: Final = "it does not return, so there is nothing to answer"

UNJUDGED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mmap": _INSTALL,
        "munmap": _INSTALL,
        "mseal": _INSTALL,
        "close": _INSTALL,
        "getpid": _INSTALL,
        "exit": _END,
        "exit_group": _END,
        "rt_sigreturn": "it ends a signal handler, and its registers are the interrupted code's",
        "restart_syscall": "it goes on with a call that was judged, and has no arguments",
    }
)
"""The reason by name of the call. A rule or handler about one is an error."""
