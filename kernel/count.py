# SPDX-License-Identifier: GPL-2.0-only
"""What a redirect costs, in instructions: the native back end beside the emulated ones.

An emulated machine has no meaningful clock. But its clock can be made to count instructions, and
then whatever takes the time tells how many there were: of the program, the kernel, and the
supervisor, since there is one processor and somebody always has work for it. The first table of
``pinfold bench call`` is made on such a machine, and its microseconds are thousands of them.

That is no measure of time on a real processor. Instructions are not equally fast, least of all
those that change between kernel and program, and a switch from task to task costs caches, too.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

from kernel import boot
from kernel.source import BUILD, ROOT, KernelError
from kernel.suites import PREPARE

if TYPE_CHECKING:
    from kernel.build import Image

LIMIT: Final = 1800
"""Seconds for all of it."""
_RESULT: Final = "count.json"
_BARE: Final = "bare"
_INSIDE: Final = """
import msgspec
from pinfold.bench import call
from pinfold.bench.measure import Settings

call.CALLS = 100
# The first table: the ways to have a call made.
print(msgspec.json.encode(next(call.tables(Settings(rounds=5)))).decode())
"""


def measure(image: Image) -> dict[str, float]:
    """Returns thousands of instructions for an open and a close, by way to have them made.

    Raises:
        KernelError: The measurement failed; the message holds what it said.
    """
    shared = BUILD / "count"
    inside = shlex.join([".venv/bin/python", "-c", _INSIDE])
    job = f"{PREPARE.format(root=shlex.quote(str(ROOT)))}\n{inside} > /run/pinfold/{_RESULT}\n"
    with boot.kept(shared):
        ended = boot.run(image.kernel, shared, job, LIMIT, count=True)
        if ended.status != 0:
            how = "took too long" if ended.timed_out else f"ended with {ended.status}"
            raise KernelError(f"counting {how}: {(shared / 'output.log').read_text()[-2000:]}")
        return medians(json.loads((shared / _RESULT).read_text()))


def medians(table_: dict[str, Any]) -> dict[str, float]:
    """Returns the medians of a table of ``pinfold bench``, by row."""
    return {row["name"]: row["value"]["median"] for row in table_["rows"]}


def table(counted: dict[str, float]) -> str:
    """Returns the counts as text, with what each way adds to the calls themselves."""
    bare = counted[_BARE]
    width = max(map(len, counted))
    lines = [f"{'':{width}}  {'all':>8}  {'added':>8}"]
    lines += [
        f"{name:{width}}  {value:8.1f}  {value - bare:8.1f}" for name, value in counted.items()
    ]
    return "\n".join(lines)
