# SPDX-License-Identifier: GPL-2.0-only
"""Builds one variant of the kernel, or finds it built already.

A finished kernel is filed under a hash of all that it was made from: the archive, our part, the
configuration and the compiler. Beside that, a working directory for each variant is kept, so that
a change of one file takes no longer than that file. What changes in the repository while a build
runs is not in that kernel, nor in the name that it gets; it is built next. A kernel is never filed
under what it was not made from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from kernel import source
from kernel.source import BUILD, HERE, KernelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIANTS: Final = {
    "base": ("base",),
    "lockdep": ("base", "lockdep"),
    "kasan": ("base", "kasan"),
}
"""Fragments of configuration that make up each variant; the later ones win."""
OURS: Final = {"CONFIG_SECCOMP_REDIRECT": "y"}
"""What is switched on besides in a kernel that has our part in it."""
SELFTEST: Final = "seccomp_bpf"
"""The kernel's own test of seccomp, in its sources."""
TAIL: Final = 40
"""Lines of a log to be shown when something failed."""

_UNSET: Final = re.compile(r"# (CONFIG_\w+) is not set")


class Image(NamedTuple):
    """A kernel that is ready to be booted."""

    variant: str
    plain: bool
    key: str
    """What it was made from, as hexadecimal digits."""
    kernel: Path
    """The file to boot."""

    @property
    def directory(self) -> Path:
        """Where it lies, with its configuration and its symbols."""
        return self.kernel.parent


def options(text: str) -> dict[str, str]:
    """Returns the options that a configuration, or a piece of one, sets; "n" is what is off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        off = _UNSET.fullmatch(line)
        if off:
            found[off[1]] = "n"
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals or not name.startswith("CONFIG_"):
                raise KernelError(f"not a line of a configuration: {line!r}")
            found[name] = value
    return found


def wanted(variant: str, plain: bool) -> dict[str, str]:
    """Returns all options that a variant asks for."""
    found: dict[str, str] = {}
    for name in VARIANTS[variant]:
        found |= options((HERE / "config" / f"{name}.config").read_text())
    return found if plain else found | OURS


def unmet(asked: dict[str, str], made: dict[str, str]) -> list[str]:
    """Returns a line for each option that did not come out as it was asked for."""
    return [
        f"{name} is {made.get(name, 'n')}, not {value}"
        for name, value in asked.items()
        if made.get(name, "n") != value
    ]


def key(variant: str, plain: bool, tarball: str) -> str:
    """Returns a hash over everything that a kernel is made from, as 16 hexadecimal digits."""
    asked = repr(sorted(wanted(variant, plain).items())).encode()
    return source.digest([_content(plain, tarball).encode(), asked])


def _content(plain: bool, tarball: str) -> str:
    parts = [tarball.encode()]
    for program in ("gcc", "ld"):
        done = subprocess.run([program, "--version"], check=True, capture_output=True)
        parts.append(done.stdout)
    if not plain:
        parts.append((HERE / "apply.py").read_bytes())
        for file in sorted((HERE / "files").rglob("*")):
            if file.is_file():
                parts += [str(file.relative_to(HERE)).encode(), file.read_bytes()]
    return source.digest(parts)


def build(variant: str, plain: bool = False, jobs: int | None = None) -> Image:
    """Returns a kernel of exactly what is there now, built if it was not yet.

    Args:
        variant: One of ``VARIANTS``.
        plain: Whether to leave our part out.
        jobs: Compilers at once; as many as there are processors if it is not said.

    Raises:
        MissingError: This machine lacks what it takes.
        KernelError: The configuration or the build failed; the message holds the end of its log.
    """
    source.check(booting=False)
    with source.locked():
        tarball = source.tarball_digest()
        while True:
            now = key(variant, plain, tarball)
            directory = BUILD / "images" / f"{variant}-{now}"
            image = Image(variant, plain, now, directory / "bzImage")
            if directory.is_dir():
                return image
            tree = source.unpacked(plain)
            if not plain:
                source.applied(tree)
            if key(variant, plain, tarball) != now:
                continue
            content = source.digest_of_ours(tree)
            work = _make(variant, plain, tree, jobs or os.cpu_count() or 1)
            if source.digest_of_ours(tree) != content:
                raise KernelError(f"{tree}: somebody changed the sources while they were built")
            _file(work, image)


def given(variant: str, plain: bool, kernel: Path) -> Image:
    """Returns a kernel that somebody has built, and answers for.

    Raises:
        KernelError: It is not there.
    """
    if not kernel.is_file():
        raise KernelError(f"{kernel}: no such file")
    return Image(variant, plain, "given", kernel.resolve())


def self_test(plain: bool = False) -> Path:
    """Returns the kernel's own test of seccomp, built for this machine from the kernel's sources.

    It is filed as a kernel is, so that nobody waits for a build who needs none.

    Raises:
        MissingError: This machine lacks what it takes.
        KernelError: It cannot be built; the message holds the end of what was said.
    """
    source.check(booting=False)
    target = BUILD / "images" / f"selftests-{_content(plain, source.tarball_digest())}" / SELFTEST
    if target.is_file():
        return target
    with source.locked():
        tree = source.unpacked(plain)
        if not plain:
            source.applied(tree)
        work = BUILD / ("work-headers-plain" if plain else "work-headers")
        work.mkdir(parents=True, exist_ok=True)
        _run("headers", work, ["make", "-C", str(tree), f"O={work}", "-j2", "headers"])
        include, tests = work / "usr" / "include", tree / "tools" / "testing" / "selftests"
        command = ["gcc", "-O2", "-w", "-D_GNU_SOURCE=", "-isystem", str(include), "-I", str(tests)]
        command += ["-o", str(work / SELFTEST), str(tests / "seccomp" / f"{SELFTEST}.c")]
        _run("the kernel's self-test", work, [*command, "-lpthread", "-lcap"])
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".new")
        shutil.copy(work / SELFTEST, draft)
        draft.rename(target)
        return target


def _make(variant: str, plain: bool, tree: Path, jobs: int) -> Path:
    work = BUILD / f"work-{variant}{'-plain' if plain else ''}"
    work.mkdir(parents=True, exist_ok=True)
    make = ["make", "-C", str(tree), f"O={work}", f"-j{jobs}"]
    _configure(variant, plain, work, make)
    _run(f"{variant}, compiling (a new one takes minutes)", work, [*make, "bzImage"])
    return work


def _configure(variant: str, plain: bool, work: Path, make: Sequence[str]) -> None:
    asked = wanted(variant, plain)
    config = work / ".config"
    before = config.read_bytes() if config.exists() else b""
    # What tinyconfig would do, without forgetting what the last build knew: from nothing, with
    # everything off that may be off, and ours on top.
    seed = work / "asked.config"
    seed.write_text("".join(f"{name}={value}\n" for name, value in asked.items()))
    _run("configuring", work, [*make, f"KCONFIG_ALLCONFIG={seed}", "allnoconfig"])
    missed = unmet(asked, options(config.read_text()))
    if missed:
        raise KernelError(
            f"{variant}: the kernel's configuration did not come out as asked:\n"
            + "\n".join(missed)
        )
    if config.read_bytes() == before:
        return
    print(f"{variant}: the configuration is new", flush=True)


def _run(what: str, work: Path, command: Sequence[str]) -> None:
    log = work / "log"
    print(what, end=" ", flush=True)
    began = time.monotonic()
    with log.open("ab") as stream:
        stream.write(b"$ " + " ".join(command).encode() + b"\n")
        stream.flush()
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    if done.returncode:
        raise KernelError(f"{what}: it failed; the end of {log}:\n{tail(log)}")


def _file(work: Path, image: Image) -> None:
    draft = image.directory.with_suffix(".new")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    shutil.copy(work / "arch" / "x86" / "boot" / "bzImage", draft / "bzImage")
    for name in (".config", "System.map"):
        shutil.copy(work / name, draft / name.lstrip("."))
    draft.rename(image.directory)


def tail(log: Path, lines: int = TAIL) -> str:
    """Returns the last lines of a file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
