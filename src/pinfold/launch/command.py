"""Which file a command name means, and in which order to try (pure)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PATH: Final = b"/bin:/usr/bin"


def candidates(command: bytes, env: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Returns the paths to try for a command, in order.

    A name with a slash is a path; any other is looked for in the directories of ``PATH``, where an
    empty entry means the working directory (``execvp(3)``).
    """
    if b"/" in command:
        return (command,)
    entries = env.get(b"PATH", _DEFAULT_PATH).split(b":")
    return tuple(os.path.join(entry or b".", command) for entry in entries)
