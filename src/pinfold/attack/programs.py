"""Finds the attack programs' sources and builds them with the system's compiler.

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
from typing import Final

from pinfold.errors import UnsupportedError

_HERE: Final = Path(__file__).resolve().parent
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def sources() -> Path:
    """Returns the directory of the C sources: in the package, or beside it in a source tree.

    Raises:
        UnsupportedError: It was left out of this installation.
    """
    for place in (_HERE / "programs", _HERE.parents[2] / "attacks"):
        if (place / "attack.h").is_file():
            return place
    raise UnsupportedError("the sources of the attack programs are not installed")


def build(name: str, *flags: str) -> Path:
    """Returns the executable made from ``NAME.c``.

    Args:
        name: The program.
        flags: Further options for the compiler.

    Raises:
        UnsupportedError: There is no compiler, or it refused; the message holds what it said.
    """
    place = sources()
    source = place / f"{name}.c"
    parts = [_compiler(), source.read_bytes(), *(flag.encode() for flag in flags)]
    parts += [header.read_bytes() for header in sorted(place.glob("*.h"))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    cache = _cache(place)
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
        os.chmod(draft, 0o755)  # noqa: S103 (a program, for whoever attacks)
        os.replace(draft, target)
    finally:
        Path(draft).unlink(missing_ok=True)
    return target


def _command() -> str:
    return os.environ.get("CC") or "cc"


@functools.cache
def _compiler() -> bytes:
    try:
        done = subprocess.run([_command(), "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnsupportedError(
            f"attack programs are built here, and there is no C compiler ({_command()}): install"
            " gcc, or name another one in CC"
        ) from error
    return done.stdout


def _cache(place: Path) -> Path:
    # In a source tree of our own beside what the tests build; else where caches go.
    if place.name == "attacks" and os.access(place.parent, os.W_OK):
        cache = place.parent / ".build" / "attacks"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = Path(home) / "pinfold" / "attacks"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnsupportedError(
            f"{cache}: attack programs are built there: {error.strerror}; set XDG_CACHE_HOME"
        ) from error
    return cache
