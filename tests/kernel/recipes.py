"""The recipes of docs/recipes.md, as they stand there, and a place to try them in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.kernel.support import PINFOLD, Done, execute
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECIPES: Final = ROOT / "docs" / "recipes.md"
SEARCH: Final = "/usr/bin:/bin"
_SECTION: Final = re.compile(r"^## ", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def recipes() -> dict[str, list[tuple[str, str]]]:
    """Returns all recipes: by title, the blocks as (language, text)."""
    _, *sections = _SECTION.split(RECIPES.read_text())
    return {
        title: _BLOCK.findall(text)
        for title, text in ((one.partition("\n")[0], one) for one in sections)
    }


def recipe(title: str) -> str:
    """Returns the one policy or script of a recipe."""
    ((_, text),) = recipes()[title]
    return text


class Place:
    """A directory to work in, a home directory, one for temporary files, and a recipe.

    Attributes:
        work: Where programs start.
        home: ``$HOME``.
        tmp: ``$TMPDIR``, in which neither of the two is.
        around: Where all of them are, and what the programs should not touch can be.
    """

    def __init__(self, around: Path) -> None:
        self.around = around
        self.work, self.home, self.tmp = (around / name for name in ("work", "home", "tmp"))
        for one in (self.work, self.home, self.tmp):
            one.mkdir()
        self.log = around / "log.jsonl"
        self.env = {
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PATH": SEARCH,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(around),
        }

    def policy(self, title: str) -> Path:
        """Returns a file with the recipe."""
        directory = self.around / "policies"
        directory.mkdir(exist_ok=True)
        policy = directory / "policy.toml"
        policy.write_text(recipe(title))
        return policy

    def script(self, title: str) -> Path:
        """Returns a file with the recipe, which is a Python script."""
        script = self.around / "recipe.py"
        script.write_text(recipe(title))
        return script

    def run(
        self,
        title: str,
        *command: str | Path,
        variables: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Done:
        """Returns how a command went under a recipe; the log is in ``log``."""
        given = [
            word for name, one in (variables or {}).items() for word in ("--set", f"{name}={one}")
        ]
        return self.bare(
            *PINFOLD,
            *given,
            "--policy",
            self.policy(title),
            "--audit",
            self.log,
            "--",
            *command,
            **options,
        )

    def under(self, policy: Path | str, *command: str | Path, **options: Any) -> Done:
        """Returns how a command went under a policy; the log is in ``log``."""
        return self.bare(
            *PINFOLD, "--policy", policy, "--audit", self.log, "--", *command, **options
        )

    def bare(
        self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> Done:
        """Returns how a command went in this place, without a sandbox."""
        options.setdefault("cwd", self.work)
        return execute(command, env=self.env | dict(env or {}), **options)

    def python(self, text: str) -> tuple[str, ...]:
        """Returns the command that runs a Python text."""
        return (sys.executable, "-S", "-c", text)

    def records(self, **wanted: object) -> list[dict[str, Any]]:
        """Returns those calls of the log whose fields have these values."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [
            one
            for one in lines
            if one["type"] == "call" and all(one.get(key) == value for key, value in wanted.items())
        ]


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Makes a place, with a short name since names of sockets are short; removes it in the end."""
    with tempfile.TemporaryDirectory(prefix="pf-") as directory:
        yield Place(Path(os.path.realpath(directory)))
