"""Sandlock, for comparison: Landlock, and a supervisor of its own on a seccomp listener.

The denied files are given as ``fs_denied``, and the denied argument of the exec races to its
``policy_fn``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinfold.attack.stage import denied_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

_DENIED = "--mode=D"


def supervise(_name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs an attack program on its stage and returns its exit status, negative for a signal.

    Args:
        command: The program, and the stage as its first argument.
        real: Makes no difference here.
    """
    del real
    sandlock: Any = import_module("sandlock")
    stage = Path(command[1])
    sandbox = sandlock.Sandbox(
        fs_readable=["/"],
        fs_writable=[str(stage / "scratch"), "/dev", "/proc"],
        fs_denied=denied_paths(stage),
        policy_fn=_judged if "argv" in " ".join(command) else None,
    )
    result = sandbox.popen(list(command)).wait()
    return -result.signal if result.signal > 0 else int(result.exit_code)


def _judged(event: Any, _context: Any) -> bool:
    # True denies.
    return bool(event.syscall in ("execve", "execveat") and event.argv_contains(_DENIED))
