"""A Linux sandbox supervisor whose decisions hold.

``run`` starts a program whose path arguments are judged, rewritten and *pinned*: what was judged is
byte for byte what the kernel acts on. The names below are imported when they are first used, so
that starting the command line stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinfold.errors import (
        AuditError,
        InternalError,
        LaunchError,
        PinfoldError,
        PolicyError,
        UnsupportedError,
    )
    from pinfold.sandbox import CompletedRun, run

__version__ = "0.1.0"

_HOME = {
    "AuditError": "errors",
    "CompletedRun": "sandbox",
    "InternalError": "errors",
    "LaunchError": "errors",
    "PinfoldError": "errors",
    "PolicyError": "errors",
    "UnsupportedError": "errors",
    "run": "sandbox",
}

__all__ = [
    "AuditError",
    "CompletedRun",
    "InternalError",
    "LaunchError",
    "PinfoldError",
    "PolicyError",
    "UnsupportedError",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pinfold' has no attribute {name!r}")
    return getattr(import_module(f"pinfold.{_HOME[name]}"), name)
