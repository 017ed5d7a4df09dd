"""Resource limits of real processes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from pinfold.policy.model import Limits
from pinfold.sandbox import Sandbox
from tests.kernel.support import PATIENCE, PINFOLD, TRAP_ALL, execute
from tests.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pinfold
    from tests.kernel.support import User

MIB: Final = 1 << 20
TRAP: Final = ("/nonexistent-pinfold",)


def run(limits: Limits, command: list[str], **options: Any) -> pinfold.CompletedRun:
    box = Sandbox(deny=TRAP, limits=limits)
    return box.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def shown(limits: Limits) -> list[str]:
    """Returns the lines of /proc/self/limits in a program under ``limits``, and in its child."""
    done = run(limits, ["sh", "-c", "cat /proc/self/limits; sh -c 'cat /proc/self/limits'"])
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    half = len(lines) // 2
    assert lines[:half] == lines[half:]
    return lines[:half]


def test_what_the_program_sees() -> None:
    lines = shown(Limits(cpu=7, memory=512 * MIB, files=99, file_size=12345, core=4096))
    assert "Max cpu time 7 8 seconds" in lines
    assert f"Max address space {512 * MIB} {512 * MIB} bytes" in lines
    assert "Max open files 99 99 files" in lines
    assert "Max file size 12345 12345 bytes" in lines
    assert "Max core file size 4096 4096 bytes" in lines


def test_what_is_not_limited_is_inherited() -> None:
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = shown(Limits(core=0))
    assert f"Max open files {ours[0]} {ours[1]} files" in lines


def test_our_own_limits_stay() -> None:
    numbers = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NOFILE)
    before = [resource.getrlimit(number) for number in numbers]
    run(Limits(cpu=7, memory=512 * MIB, files=99), ["true"])
    assert [resource.getrlimit(number) for number in numbers] == before


def test_little_memory_is_enough_for_a_small_program() -> None:
    # Less than the supervisor has itself, of which the program's process is a copy at first.
    done = run(Limits(memory=64 * MIB), ["/bin/true"])
    assert (done.returncode, done.stderr) == (0, "")
    done = run(Limits(memory=64 * MIB), ["sh", "-c", "cat /proc/self/cmdline"])
    assert (done.returncode, done.stderr) == (0, "")


def test_memory() -> None:
    code = "x = bytearray(300 << 20); print('had')"
    assert run(Limits(memory=1024 * MIB), python(code)).stdout == "had\n"
    done = run(Limits(memory=200 * MIB), python(code))
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_the_pin_is_part_of_the_memory() -> None:
    # What is just enough for a program alone is not enough with the pin, which takes 2 MiB.
    def outcome(deny: tuple[str, ...], memory: int) -> tuple[int, bytes]:
        box = Sandbox(deny=deny, limits=Limits(memory=memory))
        done = box.run(["/bin/sh", "-c", "echo x"], capture_output=True, timeout=PATIENCE)
        return done.returncode, done.stdout

    least = next(
        size for size in range(MIB, 64 * MIB, MIB // 4) if outcome((), size) == (0, b"x\n")
    )
    assert outcome(TRAP, least) == (127, b"")
    assert outcome(TRAP, least + 2 * MIB + MIB // 4) == (0, b"x\n")


def test_memory_that_the_program_has_used_up() -> None:
    # It has a pin for short arguments. A long one needs another pin, and there is no room for it.
    code = (
        "import os, resource, sys\n"
        "with open('/proc/self/statm') as file: pages = int(file.read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (1 << 20),) * 2)\n"
        "for argument in ('x', 'x' * 100000):\n"
        "    try: os.execv('/bin/true', ['true', argument]) if argument[1:] else os.stat('/')\n"
        "    except OSError as error: print(error.errno)"
    )
    box = Sandbox(deny=TRAP, inspect="all", limits=Limits(memory=1024 * MIB))
    done = box.run(python(code), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == (f"{errno.ENOMEM}\n", 0), done.stderr


def test_processor_time() -> None:
    spin = "\nwhile True: pass"
    assert run(Limits(cpu=1), python(spin)).returncode == -signal.SIGXCPU
    # A program that does something about it has one second more.
    code = "import signal; signal.signal(signal.SIGXCPU, lambda *_: print('told', flush=True))"
    done = run(Limits(cpu=1), python(code + spin))
    assert (done.stdout, done.returncode) == ("told\n", -signal.SIGKILL)


def test_files() -> None:
    code = (
        "import os, errno\n"
        "try:\n  while True: last = os.open('/dev/null', 0)\n"
        "except OSError as error: print(last, errno.errorcode[error.errno])"
    )
    assert run(Limits(files=20), python(code)).stdout == "19 EMFILE\n"


def test_no_descriptor_left_for_a_pin() -> None:
    # 0 to 2 are there, and no more may be: the memory for a pin cannot be handed over.
    done = run(Limits(files=3), ["/bin/true"])
    assert done.returncode != 0


def test_file_size(tmp_path: Path) -> None:
    command = ["sh", "-c", f"head -c 5000 /dev/zero > {tmp_path}/f; echo $?"]
    assert run(Limits(file_size=4096), command).stdout == f"{128 + signal.SIGXFSZ}\n"
    assert (tmp_path / "f").stat().st_size == 4096


def test_no_signal_may_be_pending() -> None:
    # As when another process of the same user has used up what there is: the end is heard of.
    done = execute(["prlimit", "--sigpending=0", *PINFOLD, *TRAP_ALL, "--", "true"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_limit_cannot_be_raised() -> None:
    # Not by root either: the capability for that is not among those that a command keeps.
    code = (
        "import resource\n"
        "for number, now in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 50)):\n"
        "    assert resource.getrlimit(number) == (now, now)\n"
        "    try: resource.setrlimit(number, (now + 1, now + 1))\n"
        "    except (OSError, ValueError): print('no')"
    )
    done = run(Limits(core=0, files=50), [sys.executable, "-c", code])
    assert (done.stdout, done.stderr) == ("no\nno\n", "")


def test_limits_without_any_rule() -> None:
    done = Sandbox(limits=Limits(files=33)).run(["sh", "-c", "ulimit -n"], capture_output=True)
    assert done.stdout == b"33\n"


def test_a_limit_above_ours_is_refused_before_anything_starts(tmp_path: Path) -> None:
    code = (
        "import resource, pinfold\nfrom pinfold.sandbox import Sandbox\n"
        "from pinfold.policy.model import Limits\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        f"ok = Sandbox(limits=Limits(files=200)).run(['touch', '{tmp_path}/a'])\n"
        f"box = Sandbox(limits=Limits(files=150))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "def make(): Sandbox(limits=Limits(files=101))\n"
        f"def run(): box.run(['touch', '{tmp_path}/b'])\n"
        "for attempt in (make, run):\n"
        "    try: attempt()\n"
        "    except pinfold.PolicyError as error: print(error)\n"
    )
    done = execute([sys.executable, "-c", code], cwd=ROOT)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "limit files = 101",
        "limit files = 150",
    ], done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_as_somebody_else(someone: User) -> None:
    code = (
        "from pinfold.sandbox import Sandbox\nfrom pinfold.policy.model import Limits\n"
        "box = Sandbox(deny=['/x'], limits=Limits(memory=64 << 20, files=44, cpu=3))\n"
        "print(box.run(['sh', '-c', 'ulimit -n; ulimit -v'], capture_output=True).stdout)"
    )
    assert someone.python("-c", code).stdout == "b'44\\n65536\\n'\n"
