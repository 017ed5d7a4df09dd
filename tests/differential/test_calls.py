"""Nothing changes for a program whose arguments are pinned: every odd argument, bare and pinned.

The programs are ``tests/programs/diff_*.c``. Each is built once and run twice, and what it prints
must be the same to the byte. To see one difference by hand::

    cc -O2 -pthread -o diff_paths tests/programs/diff_paths.c
    mkdir work; cd work; setpriv --bounding-set=-all -- ../diff_paths one
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.differential.compare import (
    BOTH,
    INSPECT_ALL,
    PATHS,
    bare,
    differences,
    entries,
    pinned,
    went_well,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.kernel.support import User

pytestmark = pytest.mark.timeout(700)

RUNS: Final = {
    "paths-one": ("diff_paths", "one", 9000),
    "paths-dirfds": ("diff_paths", "dirfds", 6000),
    "paths-two": ("diff_paths", "two", 4000),
    "paths-closed": ("diff_paths", "closed", 250),
    "exec-vectors": ("diff_exec", "vectors", 450),
    "exec-limits": ("diff_exec", "limits", 10),
    "exec-scripts": ("diff_exec", "scripts", 1000),
    "exec-threads": ("diff_exec", "threads", 24),
    "sockets-addresses": ("diff_sockets", "addresses", 3000),
    "sockets-messages": ("diff_sockets", "messages", 1000),
    "sockets-batches": ("diff_sockets", "batches", 400),
    "structs-sized": ("diff_structs", "sized", 9000),
    "structs-options": ("diff_structs", "options", 6000),
    "structs-names": ("diff_structs", "names", 1500),
    "structs-values": ("diff_structs", "values", 5000),
    "context-alone": ("diff_context", "alone", 400),
    "context-threads": ("diff_context", "threads", 300),
    "context-lost": ("diff_context", "lost", 130),
    "context-deep": ("diff_context", "deep", 70),
}
"""By name: program, argument, and how many lines it prints at least."""

SAME: Final = [name for name in RUNS if name != "paths-closed"]
"""Those in which nothing may differ."""

KNOWN: Final = {
    # A socket option that is readable in part is pinned with zeros after that: nobody can tell how
    # much of it the kernel is going to read.
    "structs-options": r"\S+( \S+)? (short|edge) .*",
    # The kernel looks at the bytes that it does not know first, and finds them to be set.
    "structs-sized": r"(file_setattr|landlock_create_ruleset) .*begins before .*",
    # When argv alone is too much, envp is not read; the kernel would come by it first.
    "exec-vectors": r"order 0 huge (string_gone|too_long_then_gone)",
}
"""Calls that may differ, by what they are called: docs/rules.md has them."""

OF_PATHS: Final = [
    name
    for name in SAME
    if not name.startswith("sockets")
    and name not in {"structs-options", "exec-threads", "context-lost", "context-deep"}
]
"""Those with calls that are trapped even where only paths are, and nothing may differ either."""


def same(user: User, options: Sequence[str], name: str) -> None:
    source, argument, least = RUNS[name]
    program = user.program(source)
    plain = bare(user, program, argument)
    went_well(plain, least)
    judged = pinned(user, options, program, argument)
    found = differences(plain.lines, judged.lines, KNOWN.get(name))
    if found:
        pytest.fail(f"{source} {argument}: under pinfold\n{found}")
    went_well(judged, least)


@pytest.mark.parametrize("name", SAME)
def test_everything_pinned(someone: User, name: str) -> None:
    same(someone, INSPECT_ALL, name)


@pytest.mark.parametrize("name", OF_PATHS)
def test_paths_pinned_and_resolved(someone: User, name: str) -> None:
    same(someone, PATHS, name)


@pytest.mark.xfail(
    strict=True,
    reason="process_vm_readv goes by the permissions of a mapping, the kernel by what the processor"
    " does: it reads what is only writable, and not what a thread's protection key forbids",
)
def test_memory_that_is_readable_for_some(someone: User) -> None:
    same(someone, INSPECT_ALL, "paths-closed")


def test_everything_pinned_and_resolved(someone: User) -> None:
    for name in ("context-alone", "exec-scripts", "structs-values"):
        same(someone, BOTH, name)


def test_a_relative_program_beside_a_thread(someone: User) -> None:
    # Another thread could change what a relative path means, so the absolute one is run; the
    # program sees that in its own name. It is what it would have seen of the absolute path.
    program = someone.program("diff_exec")
    plain = bare(someone, program, "threads").lines
    judged = pinned(someone, PATHS, program, "threads").lines
    assert [line for line in plain if line[:1] != " "] == [
        line for line in judged if line[:1] != " "
    ]
    assert len(plain) == len(judged) >= 24
    for at in range(0, len(plain), 4):
        _, relative, _, absolute = plain[at : at + 4]
        assert judged[at + 1] == judged[at + 3] == absolute
        assert relative != absolute or "failed" in absolute


def test_a_lost_directory_beside_a_thread(someone: User) -> None:
    # There is no absolute path to it. No other directory must take its place, above all not one
    # that has its name now.
    program = someone.program("diff_context")
    plain = bare(someone, program, "lost")
    judged = pinned(someone, PATHS, program, "lost")
    went_well(judged, len(plain.lines))
    found = entries(judged.lines)
    for call, result in entries(plain.lines).items():
        assert found[call] in {result, "-1 ENOENT", "-1 EACCES"}, call


@pytest.mark.xfail(
    strict=True, reason="a directory whose path is longer than PATH_MAX cannot be named for a rule"
)
def test_a_deep_directory_under_rules(someone: User) -> None:
    same(someone, PATHS, "context-deep")


def test_a_difference_is_seen(someone: User) -> None:
    # The comparison itself: a rule that does match must show.
    program = someone.program("diff_context")
    plain = bare(someone, program, "alone")
    denied = pinned(someone, (*INSPECT_ALL, "--deny", "/dev/null"), program, "alone")
    found = differences(plain.lines, denied.lines)
    assert "open /dev/null" in found
    assert "EACCES" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="to list the machine's message queues takes a mount")
def test_no_message_queue_is_left(someone: User, tmp_path: Path) -> None:
    # They outlive the program, and the machine has room for 256.
    same(someone, INSPECT_ALL, "structs-names")
    script = 'mount -t mqueue none "$1" && ls "$1"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert [name for name in done.stdout.split() if name.startswith("diff-")] == []
