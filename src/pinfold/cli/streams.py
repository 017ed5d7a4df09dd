"""The standard streams as they were when the process started.

A stream that is closed stays closed for COMMAND. In this process its number is taken by a stand-in,
before anything else is opened: otherwise a descriptor of ours could get it, be mistaken for the
stream by whoever writes an error message, or be handed to COMMAND.
"""

from __future__ import annotations

import os
from functools import cache


@cache
def claim() -> tuple[int, int, int]:
    """Returns 0, 1 and 2, with -1 in place of each that was closed. To be called first of all."""

    def stand_in(fd: int) -> int:
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            return -1
        return fd

    return stand_in(0), stand_in(1), stand_in(2)


def complain(line: str) -> None:
    """Writes one line to standard error; a stream that takes none is no reason to fail."""
    try:
        os.write(2, f"pinfold: {line}\n".encode(errors="surrogateescape"))
    except OSError:
        # Full, or its reader is gone: there is nobody left to tell.
        return
