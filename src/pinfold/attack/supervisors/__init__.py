"""What attacks are run against: pinfold's back ends, controls that must lose, other sandboxes.

    python -m pinfold.attack.supervisors NAME [--real] [--user UID] -- COMMAND...

runs a command under one of them. The command's exit status passes through, as from ``pinfold run``.
With ``--user`` supervisor and command give up root first.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Final

SUPERVISORS: Final = {
    "trace": "pinned",
    "trace-two-stops": "pinned",
    "interrupt": "listening",
    "native": "listening",
    "run-native": "pinned",
    "naive": "naive",
    "resolving": "resolving",
    "tracer": "tracer",
    "follower": "tracer",
    "unverified": "unverified",
    "writable": "unverified",
    "unrestored": "unrestored",
    "bubblewrap": "bubblewrap",
    "sandlock": "sandlocked",
}
"""By name, the module of this package that has it, and in it ``supervise``."""

OTHERS: Final = {"bubblewrap": ("files",), "sandlock": ("files", "argv")}
"""Other people's sandboxes, and what each can deny; see ``Attack.portable``."""


def installed() -> list[str]:
    """Returns which of the other sandboxes this machine has."""
    here = {
        "bubblewrap": shutil.which("bwrap") is not None,
        "sandlock": find_spec("sandlock") is not None,
    }
    return [name for name in OTHERS if here[name]]
