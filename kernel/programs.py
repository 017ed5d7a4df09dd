# SPDX-License-Identifier: GPL-2.0-only
"""Builds the tests' C programs on the host, where it takes a tenth of the time.

They are filed under a hash of their sources and flags, so a test in the guest finds the very
program that it would build, or builds one that was forgotten here: nothing is wrong then, but slow.
"""

from __future__ import annotations

import contextlib
from typing import Final

from tests.programs import SOURCES, build

from pinfold.attack.catalogue import ATTACKS
from pinfold.attack.programs import build as build_attack
from pinfold.errors import UnsupportedError

_FLAGS: Final[tuple[tuple[str, ...], ...]] = ((), ("-static",))
_OTHER: Final = {
    "i386": (("-m32", "-nostdlib", "-static"),),
    "orphans": ((), ("-pthread",)),
}
"""Programs that are built in another way than the rest."""


def prepare() -> None:
    """Builds every program with every set of flags that a test uses.

    One that this machine cannot build is left to its test, which fails or is skipped by name.
    """
    for source in sorted(SOURCES.glob("*.c")):
        for flags in _OTHER.get(source.stem, _FLAGS):
            with contextlib.suppress(RuntimeError):
                build(source.stem, *flags)
    for attack in ATTACKS:
        for name, options in ((attack.program, attack.flags), *attack.helpers):
            with contextlib.suppress(UnsupportedError):
                build_attack(name, *options)
