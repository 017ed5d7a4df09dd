"""Programs that check what pinned calls look like from inside, and programs that try to get around.

Every way around is also tried bare, where it must work: a way that is closed anyway tests nothing.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.syscalls.numbers import X86_64
from tests.kernel.support import PATIENCE, TRAP_ALL
from tests.programs import values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.kernel.support import Done, User

pytestmark = pytest.mark.usefixtures("form")

KILLED_BY_FILTER: Final = 128 + signal.SIGSYS
RACE_SECONDS: Final = 300
ROUNDS: Final = 20
HITS: Final = 5


def ok(done: Done) -> dict[str, str]:
    assert done.returncode == 0, done
    assert done.stderr == ""
    return values(done.stdout)


class Files:
    """A file that holds 'A' and may be opened, one that holds 'D' and may not, and the rule."""

    def __init__(self, user: User) -> None:
        self.allowed = user.file("allowed", "A")
        self.denied = user.file("denied", "D")
        self.deny = ("--deny", str(self.denied))


def bare_and_pinned(
    user: User, name: str, *arguments: str | Path, flags: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns what a program prints without a sandbox, and with every path call pinned."""
    program = user.program(name, *flags)
    bare = user.bare(program, *arguments)
    assert bare.returncode == 0, bare
    return values(bare.stdout), ok(user.pinfold(*TRAP_ALL, "--", program, *arguments))


# What a pinned call looks like.


def test_results_and_registers_are_those_of_a_bare_run(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "regs_after")
    assert pinned["changed"] == "0"
    assert {name for name, value in pinned.items() if value != bare[name]} == set()
    assert bare.keys() == pinned.keys()
    assert len(pinned) > 150


def test_bad_pointers_fail_as_they_do_bare(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "faults")
    assert pinned == bare
    assert pinned["openat_null"] == "-14"
    assert pinned["openat_longest"] == "ok"


def test_signals_in_blocked_calls(someone: User) -> None:
    program = someone.program("signals_restart")
    found = ok(someone.pinfold(*TRAP_ALL, "--", program, timeout=45))
    assert found["eintr.result"] == "EINTR"
    assert found["restart.result"] == found["ignored.result"] == found["stopped.result"] == "opened"
    assert int(found["restart.hits"]) > 0
    assert found["jump.result"] == "landed"
    assert found["after_jump.result"] == "opened"
    assert int(found["pins"]) > 0
    assert int(found["frames"]) > 0
    assert int(found["nested"]) > 0
    for name in (
        "nested_failures",
        "bad_pointer",
        "bad_instruction",
        "bad_frames",
        "bad_registers",
    ):
        assert found[name] == "0", name


def test_a_storm_of_signals(someone: User) -> None:
    program = someone.program("storm")
    found = ok(someone.pinfold(*TRAP_ALL, "--", program, "5000", "4000"))
    assert int(found["pins"]) > 0
    assert int(found["signals"]) > 100
    assert found["nested"] == found["signals"]
    for name in ("nested_failures", "bad_results", "bad_registers", "bad_frames"):
        assert found[name] == "0", name


def test_sixty_four_threads_get_what_they_ask_for(someone: User) -> None:
    program = someone.program("threads64")
    found = ok(someone.pinfold(*TRAP_ALL, "--", program, someone.directory, "50"))
    assert found == {"threads": "64", "opens": "3200", "wrong": "0", "errors": "0"}


def test_vfork_and_exec(someone: User) -> None:
    _, pinned = bare_and_pinned(someone, "vfork_exec", "100")
    assert pinned == {"rounds": "100", "good": "100", "opens": "100"}


def test_exec_from_a_thread(someone: User) -> None:
    file = someone.file("file", "A")
    bare, pinned = bare_and_pinned(someone, "exec_from_thread", file)
    assert pinned == bare
    assert pinned["same_pid"] == pinned["leader"] == "1"
    assert pinned["was_leader"] == "0"
    assert pinned["byte"] == "A"


# Other system call tables.


@pytest.mark.parametrize("name", ["int80", "x32"])
def test_other_tables_are_death(someone: User, name: str) -> None:
    program = someone.program(name)
    assert someone.bare(program).returncode == 0
    done = someone.pinfold(*TRAP_ALL, "--", program)
    assert done.returncode == KILLED_BY_FILTER
    assert done.stdout == "before=1\n"


def test_a_32_bit_program_runs_bare(someone: User) -> None:
    program = someone.program("i386", "-m32", "-nostdlib", "-static")
    assert someone.bare(program).returncode == 0
    done = someone.pinfold(*TRAP_ALL, "--", program)
    assert done.returncode == 126
    assert "32-bit" in done.stderr


# Ways to get a call done that nobody judged.


def test_an_untraced_child(someone: User) -> None:
    files = Files(someone)
    program = someone.program("untraced")
    assert values(someone.bare(program, files.denied).stdout) == {"clone": "ok", "child": "D"}
    done = someone.pinfold(*files.deny, "--", program, files.denied)
    assert ok(done) == {"clone": "-1", "child": "none"}


def test_clone3_is_missing_and_libraries_fall_back(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "clone3")
    assert bare["clone3"] == "0"
    assert pinned == bare | {"clone3": "-38"}


def test_a_filter_that_notifies_the_program_itself(someone: User) -> None:
    files = Files(someone)
    program = someone.program("nested_notify")
    assert values(someone.bare(program, files.denied).stdout) == {"listener": "ok", "byte": "D"}
    done = someone.pinfold(*files.deny, "--", program, files.denied)
    assert ok(done) == {"listener": "EBUSY", "byte": "-13"}


def test_a_filter_that_asks_the_tracer(someone: User) -> None:
    files = Files(someone)
    program = someone.program("nested_trace")
    done = someone.pinfold(*files.deny, "--", program, files.denied)
    missing = {"getppid": "-38", "getuid": "-38", "getgid": "-38"}
    assert ok(done) == missing | {"filter": "0", "byte": "-13"}
    allowed = someone.pinfold(*files.deny, "--", program, files.allowed)
    assert ok(allowed) == missing | {"filter": "0", "byte": "A"}


def test_a_program_cannot_hide_its_memory(someone: User) -> None:
    files = Files(someone)
    program = someone.program("dumpable")
    assert values(someone.bare(program, files.denied).stdout)["get"] == "0"
    assert ok(someone.pinfold(*files.deny, "--", program, files.denied))["byte"] == "-13"
    found = ok(someone.pinfold(*files.deny, "--", program, files.allowed))
    assert found == {"set": "0", "get": "1", "byte": "A"}


def test_an_unreadable_program_fails_closed(unprivileged: User) -> None:
    files = Files(unprivileged)
    program = unprivileged.program("dumpable")
    # The kernel makes a process that may not read its own program non-dumpable.
    program.chmod(0o111)
    assert values(unprivileged.bare(program, files.denied).stdout)["byte"] == "D"
    done = unprivileged.pinfold(*files.deny, "--", program, files.denied)
    assert "byte=D" not in done.stdout
    assert done.returncode != 0


def test_io_uring_is_missing(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "io_uring")
    assert bare == {"io_uring_setup": "0"}
    assert pinned == {"io_uring_setup": "-38"}


def test_userfaultfd_is_refused(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "userfaultfd")
    assert pinned["userfaultfd"] == "-1"
    assert pinned["dev_userfaultfd"] == bare["dev_userfaultfd"]
    # Where the device may be opened at all, nothing can be made of it.
    assert pinned["made"] == (bare["made"] if bare["made"] != "0" else "-1")


def test_handles_are_refused(someone: User) -> None:
    files = Files(someone)
    program = someone.program("handles")
    bare = values(someone.bare(program, files.denied).stdout)
    assert bare["name_to_handle_at"] == "0"
    done = someone.pinfold(*files.deny, "--", program, files.denied)
    assert ok(done) == {"name_to_handle_at": "-95", "open_by_handle_at": "-1"}


def test_a_program_cannot_trace(someone: User) -> None:
    bare, pinned = bare_and_pinned(someone, "ptrace_child")
    assert set(bare.values()) == {"0"}
    assert set(pinned.values()) == {"-1"}


def test_a_program_cannot_signal_the_supervisor(someone: User) -> None:
    program = someone.program("signal_parent")
    # Below a shell: the suite itself may belong to somebody else.
    bare = values(someone.bare("sh", "-c", '"$1"; exit $?', "sh", program).stdout)
    pinned = ok(someone.pinfold(*TRAP_ALL, "--", program))
    assert set(bare.values()) - {bare["parent"]} == {"0"}
    assert set(pinned.values()) - {pinned["parent"]} == {"-1"}


# Attacks on the pin.


def test_a_child_without_the_pin(someone: User) -> None:
    files = Files(someone)
    program = someone.program("dontfork")
    done = someone.pinfold(*files.deny, "--", program, files.allowed, files.denied, "200")
    found = ok(done)
    assert int(found["pins"]) > 0
    assert found["advice"] == "-22"
    assert found["mapped"] == found["killed"] == found["escapes"] == found["other"] == "0"
    assert found["failure"] == "-17"
    assert found["allowed"] == "200"
    assert found["parent"] == "A"


@pytest.mark.parametrize("way", ["exec", "vfork", "clonevm"])
def test_a_fake_pin_in_a_new_image(someone: User, way: str) -> None:
    files = Files(someone)
    program = someone.program("fake_pin", "-static")
    found = ok(someone.pinfold(*files.deny, "--", program, way, files.allowed, files.denied))
    assert int(found["pins"]) > 0
    assert found["mapped"] == "0"
    assert found["byte"] == found["again"] == "A"
    if way != "exec":
        assert found["killed"] == "0"
        assert found["parent"] == "A"


HARMLESS: Final = {
    "madvise_dontneed",
    "madvise_cold",
    "madvise_pageout",
    "madvise_mergeable",
    "madvise_guard_install",
    "madvise_guard_remove",
    "mbind",
    "msync",
    "mseal",
    "mlock",
    "vmsplice",
}
"""Calls that may succeed: they change neither the bytes nor what is mapped."""


def test_every_way_to_alter_the_pin(someone: User) -> None:
    files = Files(someone)
    program = someone.program("alter_pin")
    found = ok(someone.pinfold(*files.deny, "--", program, files.allowed))
    assert int(found["pins"]) > 0
    assert found["permissions"] == "r--s"
    assert found["still_pinned"] == "1"
    results = {
        name.removesuffix(".result"): value
        for name, value in found.items()
        if name.endswith(".result")
    }
    assert len(results) > 30
    assert {name for name, result in results.items() if result == "0"} <= HARMLESS
    assert {value for name, value in found.items() if name.endswith(".changed")} == {"0"}
    opens = {name: value for name, value in found.items() if name.endswith(".byte")}
    assert opens.pop("open_under_guard.byte") in {"-14", "A"}
    assert set(opens.values()) == {"A"}


@pytest.mark.timeout(RACE_SECONDS)
@pytest.mark.parametrize("way", ["descriptor", "replace", "unmap"])
def test_racing_the_installation(someone: User, way: str) -> None:
    files = Files(someone)
    program = someone.program("install_race", "-static")
    refused = 0
    # The attack has to hit the moment now and then, and the call is refused; how often that is
    # depends on how busy the processors are.
    for _ in range(ROUNDS):
        found = ok(
            someone.pinfold(
                *files.deny,
                "--",
                program,
                way,
                files.allowed,
                files.denied,
                "150",
                timeout=PATIENCE,
            )
        )
        assert int(found["pins"]) > 0
        assert found["escapes"] == "0"
        assert found["killed"] == "0"
        refused += int(found["refused"])
        if refused >= HITS:
            return
    pytest.fail(f"the attack hit {refused} of {ROUNDS} times 150")


@pytest.mark.parametrize("call", ["mmap", "mseal"])
def test_a_program_that_forbids_itself_what_the_pin_needs(someone: User, call: str) -> None:
    files = Files(someone)
    forbid = someone.program("forbid_call")
    program = someone.program("limits", "-static")
    number = str(X86_64[call])
    command = (forbid, number, program, "none", files.allowed)
    assert someone.bare(*command).stdout == "stat=0 size=1\n"
    found = ok(someone.pinfold(*files.deny, "--", *command))
    assert found["size"] == "-1"
    assert found["stat"] in {"-1", "-12"}


def test_a_program_that_forbids_itself_what_the_supervisor_does(someone: User) -> None:
    files = Files(someone)
    forbid = someone.program("forbid_call")
    program = someone.program("limits", "-static")
    number = str(X86_64["process_vm_readv"])
    done = someone.pinfold(*files.deny, "--", forbid, number, program, "none", files.allowed)
    assert ok(done) == {"stat": "0", "size": "1"}


@pytest.mark.parametrize(
    ("resource", "answer"), [("descriptors", "-24"), ("memory", "-12"), ("mappings", "-12")]
)
def test_a_resource_used_up(someone: User, resource: str, answer: str) -> None:
    files = Files(someone)
    program = someone.program("limits", "-static")
    assert someone.bare(program, resource, files.allowed).stdout == "stat=0 size=1\n"
    found = ok(someone.pinfold(*files.deny, "--", program, resource, files.allowed))
    assert found == {"stat": answer, "size": "-1"}
