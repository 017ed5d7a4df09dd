# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's sources: Debian's package ``linux-source-6.12``, and what is needed to build them.

No line of the kernel is kept in this repository. The sources are unpacked below ``.build/kernel``,
once as they are, for comparison, and once with our part put in by ``apply.py``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
BUILD: Final = Path(os.environ.get("PINFOLD_KERNEL_BUILD") or ROOT / ".build" / "kernel")
"""Where everything is built; another place may be named in PINFOLD_KERNEL_BUILD."""
TARBALL: Final = Path(
    os.environ.get("PINFOLD_KERNEL_SOURCE") or "/usr/src/linux-source-6.12.tar.xz"
)
TOP: Final = "linux-source-6.12"
"""The one directory in the archive."""

# Package of Debian, and how to see that it is there: a program, or a file.
_BUILDING: Final = {
    "linux-source-6.12": str(TARBALL),
    "gcc": "gcc",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "xz-utils": "xz",
    "libelf-dev": "/usr/include/libelf.h",
    "libcap-dev": "/usr/include/sys/capability.h",
}
_BOOTING: Final = {"qemu-system-x86": "qemu-system-x86_64"}
_TRIED: Final = {"strace": "strace", "gdb": "gdb"}
"""What is tried inside a sandbox in the guest; a test of what is not there is skipped."""


class KernelError(Exception):
    """Something that whoever runs this has to see to; the text says what."""


class MissingError(KernelError):
    """This machine lacks programs or sources."""

    def __init__(self, packages: list[str]) -> None:
        super().__init__(
            f"not installed: {' '.join(packages)}; `make kernel-deps` installs them as root with"
            " apt-get (Debian 12 with its security updates, or 13)"
        )


def lacking(booting: bool) -> list[str]:
    """Returns the packages that are not there, for building and, if asked, for booting too."""
    wanted = _BUILDING | (_BOOTING if booting else {})
    return [package for package, sign in wanted.items() if not _there(sign)]


def check(booting: bool) -> None:
    """Makes sure that a kernel can be built here, and booted if asked.

    Raises:
        MissingError: It cannot; the message says what to install.
    """
    packages = lacking(booting)
    if packages:
        raise MissingError(packages)


def install() -> int:
    """Installs what is not there with apt-get; returns an exit status.

    Raises:
        MissingError: This is not root, or there is no apt-get.
    """
    needed = lacking(booting=True)
    tried = [package for package, sign in _TRIED.items() if not _there(sign)]
    if not needed and not tried:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        if needed:
            raise MissingError(needed)
        return 0
    for packages in (needed, tried):
        if packages:
            _apt(packages)
    left = lacking(booting=True)
    if left:
        raise MissingError(left)
    return 0


def _apt(packages: list[str]) -> None:
    print("installing", *packages, flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages]
    # A list of packages that was never fetched, or is old, names versions that are gone.
    for before in ([], ["apt-get", "update", "--quiet=2"]):
        if before and subprocess.run(before, check=False, env=environment).returncode:
            continue
        if not subprocess.run(command, check=False, env=environment).returncode:
            break


def _there(sign: str) -> bool:
    return Path(sign).is_file() if sign.startswith("/") else shutil.which(sign) is not None


def tarball_digest() -> str:
    """Returns the SHA-256 of the archive, as hexadecimal digits."""
    with TARBALL.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked() -> Iterator[None]:
    """Keeps every other build in the same place waiting."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running here; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unpacked(plain: bool) -> Path:
    """Returns the tree of the sources, unpacked first if it is not there.

    Args:
        plain: Whether to return the tree that stays as it is in the archive.

    Raises:
        KernelError: The archive cannot be unpacked.
    """
    place = BUILD / ("source-plain" if plain else "source")
    stamp = place / ".unpacked"
    digest = tarball_digest()
    if stamp.is_file() and stamp.read_text() == digest:
        return place
    print(f"unpacking {TARBALL.name}", flush=True)
    draft = BUILD / f"{place.name}.new"
    for old in (place, draft):
        if old.exists():
            shutil.rmtree(old)
    draft.mkdir(parents=True)
    # The headers of one family of graphic cards are a third of the sources.
    command = ["tar", "--extract", "--file", str(TARBALL), "--directory", str(draft)]
    command += [f"--exclude={TOP}/drivers/gpu/drm/amd/include", "--strip-components=1", TOP]
    if subprocess.run(command, check=False).returncode:
        raise KernelError(f"{TARBALL}: tar could not unpack it")
    (draft / ".unpacked").write_text(digest)
    draft.rename(place)
    return place


def applied(tree: Path) -> None:
    """Puts our part into the tree.

    Raises:
        KernelError: It does not fit; ``apply.py`` has said why.
    """
    if subprocess.run([sys.executable, HERE / "apply.py", tree], check=False).returncode:
        raise KernelError("the sources of the kernel are not the ones that ours go with")


def digest(parts: Iterable[bytes]) -> str:
    """Returns 16 hexadecimal digits of a hash that also tells where each part ends."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:16]


def digest_of_ours(tree: Path) -> str:
    """Returns a hash over all files of a tree that we made or inserted into, as they are now."""
    kept = tree / ".pinfold" / "made"
    files = sorted(file.relative_to(kept) for file in kept.rglob("*") if file.is_file())
    return digest(part for file in files for part in (bytes(file), (tree / file).read_bytes()))
