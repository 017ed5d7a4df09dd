"""The code page of a pin, from inside a program; and how a pin gets there."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.linux import libc
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.pins import sealed, trampoline
from pinfold.syscalls.numbers import X86_64 as NR
from tests.kernel.support import TRAP_ALL, execute
from tests.programs import build, values

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.support import User

UNALTERED: Final = (-errno.EPERM, -errno.EACCES)
_COUNTING: Final = """
import sys
from pinfold.cli import main
from pinfold.pins.install import Installer
from pinfold.tracee.task import Task

stops = []
install, resume = Installer.install, Task.resume

def counted_install(self, task, arena):
    stops.append(0)
    made = install(self, task, arena)
    print(f"stops={stops[-1]} made={made}", file=sys.stderr)
    return made

def counted_resume(self, *arguments):
    if stops:
        stops[-1] += 1
    resume(self, *arguments)

Installer.install, Task.resume = counted_install, counted_resume
main()
"""


def looked_at(user: User, *command: str | Path) -> dict[str, str]:
    """Returns what ``code_page`` says, after what is so in any case was checked."""
    done = user.pinfold(*TRAP_ALL, "--", *command, user.file("file", "A"))
    assert done.returncode == 0, done
    found = values(done.stdout)
    assert {found.pop(name) for name in ("open0", "open1", "open2", "last")} == {"A"}
    assert found["pins"] == "1"
    assert found["data"] == "r--s"
    # Paths that a program passes must not become code.
    assert found["data.jump"] == "death"
    assert found["left_open"] == "0"
    for page in ("data", "code"):
        for way in ("unmap", "write", "execute", "replace", "move"):
            assert int(found.get(f"{page}.{way}", "-1")) in UNALTERED, (page, way)
    if found["executable"] == "1":
        assert found["code"] == "r-xs"
        assert found["code.size"] == str(trampoline.SIZE)
        # The jump itself is one that works.
        assert found["code.jump"] == "back"
    return found


def test_rights_and_seals(someone: User) -> None:
    assert looked_at(someone, someone.program("code_page"))["executable"] == "1"


def test_beside_another_thread(someone: User) -> None:
    program = someone.program("code_page", "-static")
    done = someone.pinfold(*TRAP_ALL, "--", program, someone.file("file", "A"), "beside")
    assert done.returncode == 0, done
    found = values(done.stdout)
    assert found["executable"] == found["pins"] == "1"
    assert found["open0"] == found["last"] == "A"
    assert found["data.jump"] == "death"
    assert found["code.jump"] == "back"
    assert {int(value) for name, value in found.items() if name.startswith("code.un")} == {-1}


@pytest.mark.parametrize("way", ["refuse", "trap", "tracer", "lie"])
def test_where_no_code_may_be_mapped(someone: User, way: str) -> None:
    forbid = someone.program("forbid_code")
    found = looked_at(someone, forbid, way, someone.program("code_page"))
    assert found["executable"] == "0"


@pytest.mark.parametrize("way", ["gain", "signal", "block"])
def test_what_is_no_obstacle(someone: User, way: str) -> None:
    forbid = someone.program("forbid_code")
    found = looked_at(someone, forbid, way, someone.program("code_page"))
    assert found["executable"] == "1"
    assert found["ignored"] == str(int(way == "signal"))
    assert found["blocked"] == str(int(way == "block"))


def test_a_program_that_steps_itself(someone: User) -> None:
    command: list[str | bytes | Path] = [
        someone.program("sig_own_step"),
        someone.file("file", "A"),
        "20",
    ]
    bare = execute(command)
    done = someone.pinfold(*TRAP_ALL, "--", *command)
    assert bare.returncode == done.returncode == 0, (bare, done)
    found = values(done.stdout)
    assert found["pins"] == "2"
    assert found["steps"] == values(bare.stdout)["steps"]
    assert found["registers"] == found["addresses"] == "0"


def test_where_descriptors_can_only_be_closed_by_the_range(someone: User) -> None:
    forbid = someone.program("forbid_code")
    program = someone.program("code_page", "-static")
    done = someone.pinfold(*TRAP_ALL, "--", forbid, "close", program, someone.file("file", "A"))
    assert done.returncode == 0, done
    found = values(done.stdout)
    assert found["executable"] == "1"
    # The four that the program itself could not close: three of the file, one of its maps.
    assert found["left_open"] == "4"


def test_few_stops() -> None:
    program = build("code_page")
    done = execute([sys.executable, "-c", _COUNTING, "run", *TRAP_ALL, "--", program, "/dev/null"])
    assert done.returncode == 0, done
    installs = [line for line in done.stderr.splitlines() if line.startswith("stops=")]
    # COMMAND's exec, and its first call after that. Delivery; entry and exit of the mapping of the
    # page; the set-up, which ends in the stop of the call itself.
    assert installs == ["stops=4 made=-1"] * 2


def test_a_seal_is_found_by_where_a_line_begins(tmp_path: Path) -> None:
    """A file's name can be what the line of another mapping begins with."""
    libc_mmap = ctypes.CDLL(None, use_errno=True).mmap
    libc_mmap.restype = ctypes.c_void_p
    libc_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    at, fake = 0x7000_0000_0000, 0x6000_0000_0000
    size = mmap.PAGESIZE
    name = tmp_path / f"{at:08x}-{at + size:08x} "
    name.write_bytes(bytes(size))
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            file = os.open(name, os.O_RDONLY)
            fixed = mmap.MAP_SHARED | 0x10
            assert libc_mmap(at, size, mmap.PROT_READ, fixed, file, 0) == at
            assert libc_mmap(fake, size, mmap.PROT_READ, fixed, file, 0) == fake
            libc.syscall("mseal", NR["mseal"], fake, size, 0)
            os.write(tell, b"!")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(told, 1) == b"!"
        maps = open_maps(pid)
        try:
            unsealed, decoy = (MapsQuery().at(maps, one) for one in (at, fake))
        finally:
            os.close(maps)
        assert unsealed is not None
        assert decoy is not None
        assert sealed.is_sealed(pid, decoy)
        assert not sealed.is_sealed(pid, unsealed)
        assert not sealed.is_sealed(pid, decoy, unsealed)
    finally:
        os.close(told)
        os.close(tell)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
