"""The directory that attacks work on, the same for every sandbox.

    files/secret-A     "A", may be opened           files/secret-D     "DD", must not be
    links/secret-A     symbolic link to A           links/secret-D     symbolic link to D
    dirs/secret-A/     a directory                  dirs/secret-D/     a directory
    programs/secret-A  exits with 0                 programs/secret-D  exits with 1
    scratch/           for whatever the program makes

The rule is that no call may name ``secret-D``. Names, contents and sizes differ in as little as a
race can rewrite: one byte of the name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DENIED: Final = "secret-D"
"""The name that no call may mention."""

_FILES: Final = {"secret-A": "A", DENIED: "DD"}
_EXITS: Final = {"secret-A": "true", DENIED: "false"}


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """Yields a fresh stage, which anyone may enter; removes it afterwards.

    Its name is short: addresses of Unix sockets have to fit.
    """
    # Not TemporaryDirectory: what attacks leave behind may be in the way of its removal.
    stage = Path(tempfile.mkdtemp(prefix="pinfold-"))
    try:
        _fill(stage)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(stage: Path) -> None:
    stage.chmod(0o755)
    for name in ("files", "links", "dirs", "programs"):
        directory = stage / name
        directory.mkdir()
        directory.chmod(0o755)
    for name, content in _FILES.items():
        file = stage / "files" / name
        file.write_text(content)
        file.chmod(0o644)
        (stage / "links" / name).symlink_to(name[-1])
        (stage / "dirs" / name).mkdir()
        (stage / "dirs" / name).chmod(0o755)
        program = stage / "programs" / name
        program.write_text(f"#!/bin/{_EXITS[name]}\n")
        program.chmod(0o755)
    scratch = stage / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)


def denied_paths(stage: Path) -> list[str]:
    """Returns every path of the stage that must not be reached, for sandboxes that want a list."""
    return [os.fspath(path) for path in sorted(stage.glob(f"*/{DENIED}"))]
