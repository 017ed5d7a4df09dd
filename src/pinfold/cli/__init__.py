"""The command line: one module a command, imported when that command is run.

Exit codes follow ``env(1)`` and ``docker run``: COMMAND's own status passes through, 128 + N when
signal N ended it, 127 when it was not found, 126 when it cannot be executed, 125 for whatever goes
wrong in pinfold itself, wrong usage included.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from typing import TYPE_CHECKING

from pinfold.cli.streams import claim, complain
from pinfold.errors import PinfoldError

if TYPE_CHECKING:
    from typing import NoReturn

FAILED = 125

COMMANDS = {
    "attack": "Attack pinfold, and count what gets through.",
    "check": "Check policy files, and say in words what they do.",
    "audit": "Verify an audit log, or report on it.",
    "bench": "Measure what pinfold costs on this machine.",
    "doctor": "Tell what this machine can do, and what is lost where it cannot.",
    "learn": "Run a program and write a policy that allows what it did.",
    "run": "Run a program under pinned arguments.",
    "trace": "Run a program and show its calls, with the arguments that the kernel used.",
}


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Ends the process with one line on standard error."""
    complain(message)
    sys.exit(code)


def main() -> NoReturn:
    """Runs the command line and exits."""
    claim()
    # What is imported stays: to look for garbage in it meanwhile, and again later, is in vain.
    gc.disable()
    try:
        status: object = _plainly(sys.argv[1:])
        if status is None:
            from pinfold.cli import commands  # noqa: PLC0415 (slow: see `plain`)

            gc.enable()
            status = commands.run()
    except PinfoldError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        fail(f"{error.strerror or error} ({error.filename})" if error.filename else str(error))
    except Exception as error:  # noqa: BLE001 (whatever it is, the sandbox was killed before)
        fail(f"a bug in pinfold, please report it: {type(error).__name__}: {error}")
    sys.exit(status if isinstance(status, int) else 0)


def _plainly(words: list[str]) -> int | None:
    # Returns None where ``click`` has to look at the command line; see ``plain``.
    if words[:1] != ["run"] or any(name.endswith("_COMPLETE") for name in os.environ):
        return None
    from pinfold.cli import plain, run  # noqa: PLC0415 (one module a command)

    gc.freeze()
    gc.enable()
    given = plain.parse(run.OPTIONS, words[1:])
    if given is None:
        return None
    try:
        status = run.run(**given)
    # These ends are as ``click`` has them.
    except (EOFError, KeyboardInterrupt):
        os.write(2, b"\n")
        fail("interrupted")
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        sys.exit(1)
    _leave(status)


def _leave(status: int) -> NoReturn:
    # To take the interpreter apart is a tenth of what a short run costs, and changes nothing: no
    # more is left of the sandbox, the log is closed, and nothing was written to buffered streams.
    # Unless somebody measures this process, and has yet to write down what they found.
    if atexit._ncallbacks() or sys.gettrace() or sys.getprofile():  # noqa: SLF001
        sys.exit(status)
    os._exit(status)
