"""A process that starts ``true`` when it is told how, and tells what that took in milliseconds."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from pinfold.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Obeys until its input ends."""
    does: dict[str, Callable[..., subprocess.CompletedProcess[Any]]] = {
        "warm-subprocess": subprocess.run,
        "warm": Sandbox().run,
        "warm-deny": Sandbox(deny=["/etc/shadow"]).run,
        "warm-policy": Sandbox(policy="builtin:build").run,
    }
    for line in sys.stdin:
        run = does[line.strip()]
        before = time.perf_counter_ns()
        # The streams are left alone: the usual case, and `true` says nothing.
        run(["true"], stdin=subprocess.DEVNULL).check_returncode()
        took = time.perf_counter_ns() - before
        sys.stdout.write(f"{took / 1e6}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
