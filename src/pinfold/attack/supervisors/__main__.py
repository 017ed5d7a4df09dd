"""Runs a command under one of the supervisors; see the head of the package."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from pinfold.attack.supervisors import SUPERVISORS
from pinfold.errors import PinfoldError
from pinfold.linux.process import set_dumpable


def main() -> int:
    """Reads the command line, supervises, and returns what to exit with."""
    parser = argparse.ArgumentParser(prog="python -m pinfold.attack.supervisors")
    parser.add_argument("name", choices=SUPERVISORS)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--user", type=int, metavar="UID")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    given = parser.parse_args()
    # Imported as whoever we are now: another user may not be able to read our sources.
    supervise = import_module(f"pinfold.attack.supervisors.{SUPERVISORS[given.name]}").supervise
    if given.user is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(given.user, given.user, given.user)
        os.setresuid(given.user, given.user, given.user)
        # As if that user had started us: the kernel hides a process that changes its user.
        set_dumpable(True)
    try:
        status: int = supervise(given.name, given.command, real=given.real)
    except PinfoldError as error:
        print(f"{given.name}: {error}", file=sys.stderr)
        return 125
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
