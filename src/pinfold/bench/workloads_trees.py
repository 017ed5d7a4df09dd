"""What the workloads work on: trees of files, a repository, a C project, wheels; all made here.

Everything follows from the numbers that are asked for, so that two machines, or two versions of
pinfold, are measured on the same files.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import subprocess
import zipfile
from typing import TYPE_CHECKING, Final

from pinfold.bench.measure import WrongError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_PER_DIRECTORY: Final = 50
_LONG_AGO: Final = 1_600_000_000
"""When the files of a repository were changed last. Git reads a file again that is as young as its
index, each time that it is asked."""
_WORDS: Final = (
    *("address", "buffer", "cache", "device", "error", "file", "group", "handle", "index", "job"),
    *("key", "list", "mode", "node", "owner", "page", "queue", "record", "state", "table", "user"),
    *("value", "window", "zone"),
)
NEEDLE: Final = "needle-in-the-tree"
"""A line of every tenth file of a tree."""

MODIFIED: Final = 20
UNTRACKED: Final = 10

_HEADERS: Final = (
    *("ctype.h", "errno.h", "fcntl.h", "stdint.h", "stdio.h", "stdlib.h", "string.h"),
    *("sys/stat.h", "unistd.h"),
)


def environment(home: Path) -> dict[str, str]:
    """Returns the environment of a workload: nothing of the user's own changes what it does."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C",
        "TMPDIR": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def source_tree(place: Path, files: int) -> int:
    """Makes a tree of small text files and returns how many of them hold ``NEEDLE``."""
    luck = random.Random(files)  # noqa: S311 (names and words)
    needles = 0
    for index in range(files):
        directory = place / _directory(index // _PER_DIRECTORY)
        if index % _PER_DIRECTORY == 0:
            directory.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(luck.choices(_WORDS, k=8)) for _ in range(luck.randint(5, 40))]
        if index % 10 == 0:
            lines.append(NEEDLE)
            needles += 1
        path = directory / f"{luck.choice(_WORDS)}_{index:05d}.c"
        path.write_text("\n".join(lines) + "\n", "ascii")
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    return needles


def repository(place: Path, files: int, env: Mapping[str, str]) -> int:
    """Makes a repository and returns how many lines its status has."""
    place.mkdir()
    source_tree(place, files)
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "gc.auto", "0"],
        ["config", "core.fsmonitor", "false"],
        ["config", "core.untrackedCache", "false"],
        ["add", "--all"],
        [
            *("-c", "user.name=Bench", "-c", "user.email=bench@localhost"),
            *("commit", "--quiet", "--no-verify", "--message=All"),
        ],
        ["update-index", "--refresh"],
    ):
        subprocess.run(["git", *words], cwd=place, env=dict(env), check=True)
    tracked = sorted(place.glob("*/*/*.c"))
    changed = tracked[:: max(1, len(tracked) // MODIFIED)][:MODIFIED]
    for path in changed:
        path.write_text(path.read_text("ascii") + "changed\n", "ascii")
    for index in range(UNTRACKED):
        (changed[index % len(changed)].parent / f"new_{index}.c").write_text("new\n", "ascii")
    return len(changed) + UNTRACKED


def c_project(place: Path, files: int, functions: int) -> int:
    """Makes a program of many C files, with a makefile, and returns what it prints.

    Args:
        place: Where.
        files: How many C files, besides the one with ``main``.
        functions: How many functions of ten lines or so each has; with 0 it has one of one line,
            and includes nothing.
    """
    place.mkdir()
    total = 0
    for index in range(files):
        text, value = _c_file(index, functions) if functions else _tiny_c_file(index)
        total += value
        (place / f"part{index}.c").write_text(text, "ascii")
    declared = "".join(f"int part{index}(int);\n" for index in range(files))
    calls = "".join(f"    sum += part{index}({index});\n" for index in range(files))
    (place / "parts.h").write_text(f"#ifndef PARTS_H\n#define PARTS_H\n{declared}#endif\n", "ascii")
    (place / "main.c").write_text(
        '#include "parts.h"\n#include <stdio.h>\n\nint main(void)\n{\n    long sum = 0;\n'
        f'{calls}    printf("%ld\\n", sum);\n    return 0;\n}}\n',
        "ascii",
    )
    objects = " ".join(["main.o", *(f"part{index}.o" for index in range(files))])
    (place / "Makefile").write_text(
        f"OBJECTS = {objects}\nCFLAGS = -g -O2\n\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n\n"
        "%.o: %.c parts.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n",
        "ascii",
    )
    return total


def wheels(place: Path, packages: int, modules: int) -> list[str]:
    """Makes wheels that need nothing and returns the names of their packages."""
    place.mkdir()
    return [_wheel(place, f"benchpart{index}", modules) for index in range(packages)]


def digest(place: Path, pattern: str) -> str:
    """Returns a digest of the names and contents of the files that match a pattern."""
    found = hashlib.sha256()
    for path in _sorted_files(place, pattern):
        content = path.read_bytes()
        name = os.fsencode(path.relative_to(place))
        found.update(b"%d %d " % (len(name), len(content)) + name + content)
    return found.hexdigest()


def digest_of(lines: Iterable[bytes]) -> str:
    """Returns a digest of some lines."""
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def run_program(program: Path) -> str:
    """Runs a program that was built, and returns what it prints.

    Raises:
        WrongError: It was not built, or does not work.
    """
    try:
        done = subprocess.run([program], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise WrongError(f"{program.name} was not built: {error}") from error
    return done.stdout.strip()


def _sorted_files(place: Path, pattern: str) -> Iterator[Path]:
    return (path for path in sorted(place.rglob(pattern)) if path.is_file())


def _directory(index: int) -> str:
    outer, inner = _WORDS[index % len(_WORDS)], _WORDS[(index // 3) % len(_WORDS)]
    return f"{outer}{index // 20:02d}/{inner}{index}"


def _tiny_c_file(index: int) -> tuple[str, int]:
    return f"int part{index}(int x) {{ return x + {index}; }}\n", 2 * index


def _c_file(index: int, functions: int) -> tuple[str, int]:
    # Sums that nobody can work out beforehand for the compiler to have something to do.
    headers = "".join(f"#include <{header}>\n" for header in _HEADERS)
    text = [headers, '#include "parts.h"\n']
    value = index
    for number in range(functions):
        add = (index * 31 + number * 17) % 1000
        value += add
        text.append(
            f"\nstatic int step{number}(const char *name, int x)\n{{\n"
            "    char line[64];\n    size_t length;\n"
            f'    snprintf(line, sizeof line, "%s %d %d", name, x, {add});\n'
            "    length = strlen(line);\n    if (length >= sizeof line)\n        return -1;\n"
            "    for (size_t at = 0; at < length; at++)\n"
            "        if (isupper((unsigned char)line[at]))\n"
            "            line[at] = (char)tolower((unsigned char)line[at]);\n"
            f"    return x + (int)strtol(strrchr(line, ' ') + 1, NULL, 10);\n}}\n"
        )
    steps = "".join(f'    x = step{number}("Part{index}", x);\n' for number in range(functions))
    text.append(f"\nint part{index}(int x)\n{{\n{steps}    return x;\n}}\n")
    return "".join(text), value


def _wheel(place: Path, name: str, modules: int) -> str:
    files = {f"{name}/__init__.py": f'"""Package {name}."""\n'}
    for index in range(modules):
        body = "".join(f"def f{number}(x):\n    return x + {number}\n\n\n" for number in range(20))
        files[f"{name}/module{index}.py"] = body
    info = f"{name}-1.0.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: pinfold\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{path},{_record_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(place / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return name


def _record_digest(text: str) -> str:
    made = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={made.decode().rstrip('=')}"
