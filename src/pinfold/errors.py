"""What can go wrong, split by who has to act."""

from __future__ import annotations


class PinfoldError(Exception):
    """Base of every error that pinfold raises by itself; never raised directly."""

    exit_code = 125
    """What the command line exits with when this error ends a run."""


class PolicyError(PinfoldError):
    """The author of a rule must act: a map, glob or path is malformed."""


class UnsupportedError(PinfoldError):
    """The machine must change: the kernel or its settings lack something; the text says what."""


class LaunchError(PinfoldError):
    """COMMAND could not be started.

    ``exit_code`` follows ``env(1)``: 127 when it was not found, 126 when it cannot be executed.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AuditError(PinfoldError):
    """The audit log could not be written, so the sandbox was stopped."""


class InternalError(PinfoldError):
    """A bug in pinfold: an invariant does not hold. The sandbox is killed; please report it."""


class TraceeGone(Exception):  # noqa: N818 (not an error: tasks die at any time, and that is normal life)
    """The task died or was replaced by an exec while it was being worked on."""

    def __init__(self, tid: int) -> None:
        super().__init__(f"task {tid} is gone")
        self.tid = tid
