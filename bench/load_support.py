"""What the load programs share: a directory to work on, and what a process holds at a moment."""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import subprocess
import time
from typing import Final, NamedTuple

HERE: Final = os.path.dirname(os.path.abspath(__file__))
PATIENCE: Final = 120.0
"""Seconds on top of what anything should take, after which it counts as hanging."""
_ENTERED: Final = stat.S_IRWXU | stat.S_IXGRP | stat.S_IXOTH
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """What a process holds at one moment."""

    at: float
    """Seconds of the monotonic clock."""
    rss: int
    """Bytes of memory."""
    descriptors: int
    """Open ones; -1 where this user may not look."""
    threads: int
    children: int
    """Processes that it has started, and that have not been waited for."""


def sample(pid: int) -> Sample:
    """Returns what a process holds now.

    Raises:
        FileNotFoundError: It is gone.
    """
    with open(f"/proc/{pid}/statm") as file:
        rss = int(file.read().split()[1]) * _PAGE
    threads = os.listdir(f"/proc/{pid}/task")
    children = 0
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children += len(file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Sample(time.monotonic(), rss, _descriptors(pid), len(threads), children)


def _descriptors(pid: int) -> int:
    try:
        found = len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        # A supervisor is not dumpable: that is root's to see.
        return -1
    # The one that lists our own.
    return found - 1 if pid == os.getpid() else found


class Stage:
    """A directory with what the loads work on, and the rules that they expect.

    Args:
        directory: An empty one.

    Attributes:
        directory: Its real name.
        program: The built ``load_tasks.c``.
        bomb: The built ``load_bomb.c``.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        for name, text in (("allowed", "A"), ("mapped", "C"), ("other", "B"), ("denied", "D")):
            self._write(name, text)
        self.program = self._built("load_tasks")
        self.bomb = self._built("load_bomb")
        # For users without rights, too.
        os.chmod(self.directory, _ENTERED)

    def maps(self) -> dict[str, str]:
        """Returns the rule for ``mapped``."""
        return {self._path("mapped"): self._path("other")}

    def denied(self) -> list[str]:
        """Returns the rule for ``denied``."""
        return [self._path("denied")]

    def options(self) -> list[str]:
        """Returns the same rules as options of ``pinfold run``."""
        maps = [f"--map={source}={target}" for source, target in self.maps().items()]
        return [*maps, *(f"--deny={glob}" for glob in self.denied())]

    def environment(self) -> dict[str, str]:
        """Returns an environment in which nothing outside of the directory is written."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": self.directory,
            "TMPDIR": self.directory,
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }

    def furnish(self) -> None:
        """Adds a repository, a tree to search and a program to make."""
        for number in range(30):
            needle = "needle" if number % 3 == 0 else "hay"
            self._write(f"tree/{number % 5}/{number}", f"{needle}\n" * 50)
            self._write(f"repository/{number % 3}/{number}", f"{number}\n")
        names = [f"part{number}" for number in range(6)]
        for number, name in enumerate(names):
            self._write(f"sources/{name}.c", f"int {name}(void) {{ return {number}; }}\n")
        declared = "".join(f"int {name}(void);\n" for name in names)
        total = " + ".join(f"{name}()" for name in names)
        main = f'{declared}int main(void) {{ return printf("%d\\n", {total}) < 0; }}\n'
        self._write("sources/main.c", f"#include <stdio.h>\n{main}")
        objects = " ".join(f"{name}.o" for name in ("main", *names))
        self._write(
            "sources/Makefile",
            f"all: program\nprogram: {objects}\n\tcc -o $@ $^\n"
            f"%.o: %.c\n\tcc -c -o $@ $<\nclean:\n\trm -f *.o program\n",
        )
        git = ("git", "-C", self._path("repository"), "-c", "user.name=x", "-c", "user.email=x")
        for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "x")):
            subprocess.run([*git, *words], check=True, env=self.environment())

    def _built(self, name: str) -> str:
        program = self._path(name)
        compiler = shutil.which(os.environ.get("CC", "cc")) or "cc"
        source = os.path.join(HERE, f"{name}.c")
        command = [compiler, "-O2", "-Wall", "-pthread", "-o", program, source]
        subprocess.run(command, check=True)
        return program

    def _write(self, name: str, text: str) -> None:
        path = self._path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)


def outlast(seconds: float) -> float:
    """Returns when something that takes so long counts as hanging."""
    return seconds + PATIENCE


def positive(text: str) -> int:
    """Returns a number of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is less.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
