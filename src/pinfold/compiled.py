"""C programs that come with pinfold as sources, and are built where they run.

A program is built once per content: the file name holds a hash over its source, the headers, the
flags and the compiler. The compiler writes to a name of its own and the result is renamed into
place, so that several processes may build at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from pinfold.errors import UnsupportedError

_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


_PACKAGE: Final = Path(__file__).resolve().parent


class Sources(NamedTuple):
    """The C sources of one part of pinfold."""

    what: str
    """What the programs are, for messages: ``attack programs``."""
    packaged: str
    """Their directory in an installation, below the package."""
    tree: str
    """Their directory in a source tree, below its root."""
    cache: str
    """Name of the directory that they are built in."""

    def place(self) -> Path:
        """Returns the directory of the sources: in the package, or beside it in a source tree.

        Raises:
            UnsupportedError: It was left out of this installation.
        """
        for place in (_PACKAGE / self.packaged, _PACKAGE.parents[1] / self.tree):
            if any(place.glob("*.h")):
                return place
        raise UnsupportedError(f"the sources of the {self.what} are not installed")

    def build(self, name: str, *flags: str) -> Path:
        """Returns the executable made from ``NAME.c``.

        Args:
            name: The program.
            flags: Further options for the compiler.

        Raises:
            UnsupportedError: There is no compiler, or it refused; the message holds what it said.
        """
        place = self.place()
        source = place / f"{name}.c"
        parts = [self._compiler(), source.read_bytes(), *(flag.encode() for flag in flags)]
        parts += [header.read_bytes() for header in sorted(place.glob("*.h"))]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)
        cache = self._cached(place)
        target = cache / f"{name}-{digest.hexdigest()[:16]}"
        if target.exists():
            return target
        handle, draft = tempfile.mkstemp(prefix=f"{name}.", dir=cache)
        os.close(handle)
        try:
            done = subprocess.run(
                [_command(), *_FLAGS, "-o", draft, str(source), *flags],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                raise UnsupportedError(f"{source.name} cannot be built: {done.stderr.strip()}")
            os.chmod(draft, 0o755)  # noqa: S103 (a program, for whoever runs it)
            os.replace(draft, target)
        finally:
            Path(draft).unlink(missing_ok=True)
        return target

    def _compiler(self) -> bytes:
        try:
            return _version()
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnsupportedError(
                f"{self.what} are built here, and there is no C compiler ({_command()}): install"
                " gcc, or name another one in CC"
            ) from error

    def _cached(self, place: Path) -> Path:
        # In a source tree of our own beside what the tests build; else where caches go.
        root = _PACKAGE.parents[1]
        if place == root / self.tree and os.access(root, os.W_OK):
            cache = root / ".build" / self.cache
        else:
            home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            cache = Path(home) / "pinfold" / self.cache
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnsupportedError(
                f"{cache}: {self.what} are built there: {error.strerror}; set XDG_CACHE_HOME"
            ) from error
        return cache


def _command() -> str:
    return os.environ.get("CC") or "cc"


@functools.cache
def _version() -> bytes:
    return subprocess.run([_command(), "--version"], check=True, capture_output=True).stdout
