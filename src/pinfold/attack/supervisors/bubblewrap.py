"""Bubblewrap, for comparison: it judges no calls, it hides what is denied behind other mounts.

A denied file is an empty one inside, a denied directory an empty directory. There is no check that
could be raced, and nothing that could be decided by an argument.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pinfold.attack.stage import denied_paths

if TYPE_CHECKING:
    from collections.abc import Sequence


def supervise(_name: str, command: Sequence[str], *, real: bool = False) -> int:
    """Runs an attack program on its stage and returns its exit status, negative for a signal.

    Args:
        command: The program, and the stage as its first argument.
        real: Makes no difference here.
    """
    del real
    scratch = os.path.join(command[1], "scratch")
    words = [
        "bwrap",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    words += ["--bind", scratch, scratch]
    for path in map(Path, denied_paths(Path(command[1]))):
        if path.is_symlink():
            continue  # nothing can be mounted over a link, and it leads to nothing here
        words += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
    return subprocess.run([*words, "--", *command], check=False).returncode
