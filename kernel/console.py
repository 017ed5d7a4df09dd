# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel says when something is wrong with it.

Only the kernel writes to the console that is looked through here, but some of its messages carry
words of programs: the name of a program that crashed, a record of the audit system. So a complaint
is looked for where the kernel begins its messages with it, not anywhere in a line.
"""

from __future__ import annotations

import re
from typing import Final

_STAMP: Final = re.compile(r"^(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?")

COMPLAINTS: Final = tuple(
    re.compile(text)
    for text in (
        # Whatever comes with a trace of calls has that line, known to us or not.
        r"Call Trace:",
        r"WARNING:",
        r"BUG:",
        r"watchdog: BUG:",
        r"kernel BUG at ",
        r"Oops",
        r"Kernel panic",
        r"Fatal exception",
        r"KASAN:|KCSAN:|KMSAN:|KFENCE:",
        r"UBSAN:",
        r"kmemleak: \d+ new suspected memory leaks",
        r"DEBUG_LOCKS_WARN_ON",
        r"=+\[? ?BUG ",
        r"INFO: possible ",
        r"INFO: trying to register non-static key",
        r"INFO: lockdep is turned off",
        r"INFO: task .* blocked for more than ",
        r"INFO: suspicious ",
        r"BUG .*: Bad |BUG .*: (?:Object|Poison|Redzone|Padding)",
        r"(?:rcu: )?INFO: .*(?:stall|expedited)",
        r"rcu: .* stall",
        r"NMI watchdog: ",
        r"general protection fault",
        r"double fault|stack segment:|stack guard page was hit|invalid opcode:",
        r"unchecked MSR access error",
        r"refcount_t: ",
        r"list_(?:add|del) corruption",
        r"usercopy: Kernel memory ",
        r"unregister_netdevice: waiting for ",
        r"workqueue: .* hogged CPU",
        r"irq \d+: nobody cared",
        r"turning off the locking correctness validator",
        r"Memory state around the buggy address",
        r"Object .*: (?:Redzone|Poison)",
        r"page dumped because",
        r"VFS: Busy inodes after unmount",
    )
)
"""Beginnings of messages that no run may leave on the console."""

TOLERATED: Final[tuple[re.Pattern[str], ...]] = ()
"""Whole messages that fit a complaint and are none, each with its reason. There are none."""


def message(line: str) -> str:
    """Returns a line of the console without its time."""
    stamp = _STAMP.match(line)
    assert stamp is not None  # it may be empty
    return line[stamp.end() :].rstrip()


def complaints(console: str) -> list[str]:
    """Returns the lines in which the kernel complains about itself."""
    return [line.rstrip() for line in console.splitlines() if _complains(message(line))]


def _complains(text: str) -> bool:
    if any(pattern.fullmatch(text) for pattern in TOLERATED):
        return False
    return any(pattern.match(text) for pattern in COMPLAINTS)
