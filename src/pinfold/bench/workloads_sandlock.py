"""Runs a command under Sandlock: ``python -m pinfold.bench.workloads_sandlock DENIED COMMAND``."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any


def main() -> int:
    """Runs the command, and returns its exit status, negative for a signal."""
    sandlock: Any = import_module("sandlock")
    denied, *command = sys.argv[1:]
    sandbox = sandlock.Sandbox(
        fs_readable=["/"],
        fs_writable=[os.environ.get("TMPDIR", "/tmp"), "/dev", "/proc"],  # noqa: S108 (as named)
        fs_denied=[denied],
        cwd=os.getcwd(),
    )
    result = sandbox.popen(command).wait()
    return -result.signal if result.signal > 0 else int(result.exit_code)


if __name__ == "__main__":
    sys.exit(main())
