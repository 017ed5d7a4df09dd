"""A Linux sandbox supervisor whose decisions hold.

``run`` starts a program whose path arguments are judged, rewritten and *pinned*: what was judged is
byte for byte what the kernel acts on. ``Listener`` and ``Pin`` are the parts for supervisors of
one's own, ``supervise`` starts a program for them. The names below are imported when they are first
used, so that starting the command line stays cheap.
"""

from __future__ import annotations

TYPE_CHECKING = False  # that of ``typing``, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from pinfold.aio import AsyncPopen
    from pinfold.errors import (
        AuditError,
        InternalError,
        LaunchError,
        PinfoldError,
        PolicyError,
        UnsupportedError,
    )
    from pinfold.handover import Supervised, notify_filter, supervise
    from pinfold.launch.handover import (
        install_filter,
        receive_listener,
        send_listener,
        take_listener,
    )
    from pinfold.listener import Listener, Notification
    from pinfold.pins.pin import Pin
    from pinfold.policy.calls import Verdict
    from pinfold.policy.handlers.policy import Policy
    from pinfold.policy.handlers.verdicts import allow, deny, inject, kill, redirect, returns, serve
    from pinfold.policy.handlers.view import Call
    from pinfold.policy.model import Limits
    from pinfold.popen import CompletedRun, Popen
    from pinfold.sandbox import Sandbox, run
    from pinfold.tracee.loader import from_loader

__version__ = "0.1.0"

_HOME = {
    "AsyncPopen": "aio",
    "AuditError": "errors",
    "Call": "policy.handlers.view",
    "CompletedRun": "popen",
    "InternalError": "errors",
    "LaunchError": "errors",
    "Limits": "policy.model",
    "Listener": "listener",
    "Notification": "listener",
    "Pin": "pins.pin",
    "PinfoldError": "errors",
    "Policy": "policy.handlers.policy",
    "PolicyError": "errors",
    "Popen": "popen",
    "Sandbox": "sandbox",
    "Supervised": "handover",
    "UnsupportedError": "errors",
    "Verdict": "policy.calls",
    "allow": "policy.handlers.verdicts",
    "deny": "policy.handlers.verdicts",
    "from_loader": "tracee.loader",
    "inject": "policy.handlers.verdicts",
    "install_filter": "launch.handover",
    "kill": "policy.handlers.verdicts",
    "notify_filter": "handover",
    "receive_listener": "launch.handover",
    "redirect": "policy.handlers.verdicts",
    "returns": "policy.handlers.verdicts",
    "run": "sandbox",
    "send_listener": "launch.handover",
    "serve": "policy.handlers.verdicts",
    "supervise": "handover",
    "take_listener": "launch.handover",
}

__all__ = [
    "AsyncPopen",
    "AuditError",
    "Call",
    "CompletedRun",
    "InternalError",
    "LaunchError",
    "Limits",
    "Listener",
    "Notification",
    "Pin",
    "PinfoldError",
    "Policy",
    "PolicyError",
    "Popen",
    "Sandbox",
    "Supervised",
    "UnsupportedError",
    "Verdict",
    "allow",
    "deny",
    "from_loader",
    "inject",
    "install_filter",
    "kill",
    "notify_filter",
    "receive_listener",
    "redirect",
    "returns",
    "run",
    "send_listener",
    "serve",
    "supervise",
    "take_listener",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pinfold' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 (not for who only asks for the version)

    return getattr(import_module(f"pinfold.{_HOME[name]}"), name)
