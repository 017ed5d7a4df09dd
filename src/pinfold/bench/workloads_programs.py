"""Real programs to be measured: what each is given, how it is run, and what it has to show for it.

Each runs for about a second by itself, and has to prove that it did its work: what was printed and
made is compared with what is known beforehand, or with what the same program did without a sandbox.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.bench import workloads_trees as trees
from pinfold.bench.measure import WrongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TARGETS: Final = Path(__file__).resolve().parent / "targets"
_PIP: Final = "python -m pip"
_LOOP: Final = 'n=$1; shift; while [ "$n" -gt 0 ]; do "$@" || exit 1; n=$((n - 1)); done'
"""Shell: runs a command so many times."""


class Program(NamedTuple):
    """A program, ready to be run any number of times."""

    name: str
    what: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    proof: Callable[[bytes], str]
    """Takes what a run printed and returns what was done in it, in few words or as a digest; or
    raises WrongError."""
    fresh: Callable[[], None]
    """Removes what an earlier run has made; to be called before each."""


class Family(NamedTuple):
    """Programs that are prepared together."""

    names: tuple[str, ...]
    needs: tuple[str, ...]
    """What must be installed."""
    prepare: Callable[[Path, bool], Iterator[Program]]
    """Takes an empty directory, and whether little work will do."""

    def missing(self) -> tuple[str, ...]:
        """Returns a line for each of the programs, if this machine lacks something for them."""
        lacking = [name for name in self.needs if not _installed(name)]
        line = f"not installed: {', '.join(lacking)}"
        return tuple(f"{name}: {line}" for name in self.names) if lacking else ()


def _python(place: Path, quick: bool) -> Iterator[Program]:
    times = 1 if quick else 12
    code = str(_TARGETS / "imports.py")
    env = trees.environment(place)
    # With its modules compiled, as any program that was started before.
    del env["PYTHONDONTWRITEBYTECODE"]
    yield Program(
        "python",
        f"Python starts {times} times and imports half of its library",
        _repeat(times, sys.executable, code),
        place,
        env,
        _same_lines(times),
        _nothing,
    )


def _git(place: Path, quick: bool) -> Iterator[Program]:
    files, times = (300, 2) if quick else (30_000, 8)
    env = trees.environment(place)
    tree = place / "repository"
    lines = trees.repository(tree, files, env)
    for name, options, how in (
        ("git-status", (), ""),
        ("git-status-one-thread", ("-c", "core.preloadIndex=false"), ", in one thread"),
    ):
        yield Program(
            name,
            f"git status of {files:,} files, {times} times{how}",
            _repeat(times, "git", *options, "status", "--porcelain"),
            tree,
            env,
            _lines(times * lines),
            _nothing,
        )


def _grep(place: Path, quick: bool) -> Iterator[Program]:
    files = 100 if quick else 30_000
    tree = place / "tree"
    found = trees.source_tree(tree, files)
    yield Program(
        "find-grep",
        f"find and grep through {files:,} files",
        ("sh", "-c", f"find . -type f -print0 | xargs -0 grep -l {trees.NEEDLE}"),
        tree,
        trees.environment(place),
        _lines(found),
        _nothing,
    )


def _copy(place: Path, quick: bool) -> Iterator[Program]:
    files = 100 if quick else 2_000
    trees.source_tree(place / "tree", files)
    made = place / "made"
    expected = trees.digest(place / "tree", "*")

    def proof(_output: bytes) -> str:
        return _expect(trees.digest(made, "*"), expected)

    def fresh() -> None:
        shutil.rmtree(made, ignore_errors=True)

    env = trees.environment(place)
    yield Program(
        "copy",
        f"cp -r of {files:,} files",
        ("cp", "-r", "tree", "made"),
        place,
        env,
        proof,
        fresh,
    )
    yield Program(
        "tar",
        f"tar packs {files:,} files, and another one unpacks them",
        ("sh", "-c", "mkdir made && tar -C tree -cf - . | tar -C made -xf -"),
        place,
        env,
        proof,
        fresh,
    )


def _build(place: Path, quick: bool) -> Iterator[Program]:
    files, functions = (1, 2) if quick else (50, 15)
    real, tiny = place / "real", place / "tiny"
    real_prints = trees.c_project(real, files, functions)
    tiny_prints = trees.c_project(tiny, files, 0)
    yield _made(real, real_prints, "c-build", 2, f"{files} C files of some 200 lines")
    yield _made(real, real_prints, "c-build-one-job", 1, f"{files} C files of some 200 lines")
    yield _made(tiny, tiny_prints, "c-build-tiny", 2, f"{files} C files of one line")


def _made(project: Path, prints: int, name: str, jobs: int, what: str) -> Program:
    def fresh() -> None:
        for made in (*project.glob("*.o"), *project.glob("program")):
            made.unlink()

    return Program(
        name,
        f"make -j{jobs} of {what}",
        ("make", f"-j{jobs}"),
        project,
        trees.environment(project.parent),
        lambda _output: _expect(trees.run_program(project / "program"), str(prints)),
        fresh,
    )


def _pip(place: Path, quick: bool) -> Iterator[Program]:
    packages, modules = (1, 2) if quick else (20, 30)
    wheels = place / "wheels"
    names = trees.wheels(wheels, packages, modules)
    made = place / "made"

    def proof(_output: bytes) -> str:
        found = len(list(made.glob("benchpart*/module*.py")))
        _expect(str(found), str(packages * modules))
        return trees.digest(made, "*.py")

    def fresh() -> None:
        shutil.rmtree(made, ignore_errors=True)

    words = ("-m", "pip", "install", "--quiet", "--no-index", "--no-compile")
    yield Program(
        "pip",
        f"pip install of {packages} wheels with {modules} modules each",
        (sys.executable, *words, "--find-links", str(wheels), "--target", str(made), *names),
        place,
        trees.environment(place),
        proof,
        fresh,
    )


def _forks(place: Path, quick: bool) -> Iterator[Program]:
    times = 20 if quick else 500
    yield Program(
        "shell",
        f"a shell script that starts a program {times} times",
        (
            *("sh", "-c", 'i=0; while [ "$i" -lt "$1" ]; do i=$(expr "$i" + 1); done; echo "$i"'),
            *("sh", str(times)),
        ),
        place,
        trees.environment(place),
        _printed(str(times)),
        _nothing,
    )


def _traffic(place: Path, quick: bool) -> Iterator[Program]:
    count = 1_000 if quick else 200_000
    yield Program(
        "loopback",
        f"{count:,} small messages and as many answers over TCP",
        (sys.executable, str(_TARGETS / "traffic.py"), str(count)),
        place,
        trees.environment(place),
        _same_lines(1),
        _nothing,
    )


def _database(place: Path, quick: bool) -> Iterator[Program]:
    count = 20 if quick else 5_000
    path = place / "database"
    last = max(f"line {number}" for number in range(count))
    yield Program(
        "sqlite",
        f"{count:,} transactions, each with a journal that is made and removed",
        (sys.executable, str(_TARGETS / "database.py"), str(path), str(count)),
        place,
        trees.environment(place),
        _printed(f"{count} {last}"),
        lambda: path.unlink(missing_ok=True),
    )


FAMILIES: Final = (
    Family(("git-status", "git-status-one-thread"), ("git", "sh"), _git),
    Family(("python",), ("sh",), _python),
    Family(("c-build", "c-build-one-job", "c-build-tiny"), ("make", "cc"), _build),
    Family(("find-grep",), ("sh", "find", "xargs", "grep"), _grep),
    Family(("copy", "tar"), ("sh", "cp", "tar", "mkdir"), _copy),
    Family(("pip",), (_PIP,), _pip),
    Family(("sqlite",), (), _database),
    Family(("shell",), ("sh", "expr"), _forks),
    Family(("loopback",), (), _traffic),
)


def _installed(name: str) -> bool:
    if name == _PIP:
        return importlib.util.find_spec("pip") is not None
    return shutil.which(name) is not None


def _repeat(times: int, *command: str) -> tuple[str, ...]:
    return ("sh", "-c", _LOOP, "sh", str(times), *command)


def _nothing() -> None:
    pass


def _expect(found: str, expected: str) -> str:
    if found != expected:
        raise WrongError(f"{expected[:100]} was to come out, and it was {found[:100]}")
    return found


def _printed(expected: str) -> Callable[[bytes], str]:
    return lambda output: _expect(output.decode("utf-8", "replace").strip(), expected)


def _lines(count: int) -> Callable[[bytes], str]:
    # So many, whatever they say.
    def proof(output: bytes) -> str:
        _expect(str(output.count(b"\n")), str(count))
        return trees.digest_of(sorted(output.splitlines()))

    return proof


def _same_lines(count: int) -> Callable[[bytes], str]:
    # So many that say the same.
    def proof(output: bytes) -> str:
        lines = output.splitlines()
        _expect(str(len(lines)), str(count))
        return _expect(str(len(set(lines))), "1") + lines[0].decode("utf-8", "replace")

    return proof
