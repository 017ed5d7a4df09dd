"""Builds the C programs of ``tests/programs`` and reads what they print.

A program is built once per content: the file name holds a hash over its source, the shared headers,
the flags and the compiler, so an edit never meets an old binary. The compiler writes to a name of
its own and the result is renamed into place, so several test processes may build at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = ROOT / "tests" / "programs"
CACHE: Final = ROOT / ".build" / "tests"
FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


@functools.cache
def _compiler() -> bytes:
    done = subprocess.run(["gcc", "--version"], check=True, capture_output=True)
    return done.stdout


def build(name: str, *flags: str) -> Path:
    """Returns the executable made from ``tests/programs/NAME.c``.

    Raises:
        RuntimeError: The compiler refused; the message holds what it said.
    """
    source = SOURCES / f"{name}.c"
    parts = [_compiler(), source.read_bytes(), *(flag.encode() for flag in flags)]
    for place in (SOURCES, SOURCES.parent.parent / "attacks"):
        parts += [header.read_bytes() for header in sorted(place.glob("*.h"))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    target = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f"{name}.", dir=CACHE)
    os.close(handle)
    try:
        done = subprocess.run(
            ["gcc", *FLAGS, "-o", draft, str(source), *flags],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"gcc {source.name}: {done.stderr}")
        os.chmod(draft, 0o755)
        os.replace(draft, target)
    finally:
        Path(draft).unlink(missing_ok=True)
    return target


def values(text: str) -> dict[str, str]:
    """Returns every ``key=value`` that a program printed; a key printed twice is an error.

    On a line whose first word has no ``=``, that word is the line's name and its keys come back as
    ``name.key``.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        prefix = ""
        if words and "=" not in words[0]:
            prefix = words.pop(0) + "."
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or prefix + key in found:
                raise ValueError(f"not a fresh key=value: {word!r} in {line!r}")
            found[prefix + key] = value
    return found
