# SPDX-License-Identifier: GPL-2.0-only
"""Boots a kernel in QEMU, with the host's files in it, and runs one job there.

The machine is emulated wholly in software, so that no right and no device of the host is needed. It
has the host's root directory as its own, read-only, over 9p, and one directory that it may write
to: there lies the job, a piece of shell (``guest/init`` reads it), and there come its results. It
has no network and no disk. It ends with whoever started it, however that ends.

The kernel writes to the first serial line, the job to the second one: what a job prints can never
be taken for a warning of the kernel, nor hide one.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from kernel.source import HERE, ROOT, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

MEGABYTES: Final = 3072
_END: Final = "status"
"""File in which the guest leaves the exit status of its job, as the last thing."""


_PERIOD: Final = 0.5
"""Seconds between two looks at what the job has printed: nothing tells of a file that has grown."""


class Ended(NamedTuple):
    """How a boot went."""

    status: int | None
    """Exit status of the job; None if it did not come to its end."""
    timed_out: bool
    seconds: float
    console: str
    """What the kernel wrote."""


def command(
    image: Path, shared: Path, cpus: int, job_output: str, root: str = "/", *, count: bool = False
) -> list[str]:
    """Returns the command line of QEMU.

    Args:
        image: The kernel.
        shared: The directory that the guest may write to.
        cpus: Processors of the guest.
        job_output: What QEMU should connect the job's serial line to.
        root: The directory that the guest is to have as its root.
        count: Whether the guest's clock is to count instructions, one for a nanosecond; there is
            one processor then, and time in which it has nothing to do takes none.

    Raises:
        KernelError: The checkout is in a place that the guest cannot be told of.
    """
    if len(str(ROOT).split()) != 1:
        raise KernelError(f"{ROOT}: a path with spaces in it cannot be told to a kernel")
    arguments = (
        "console=ttyS0 root=root rootfstype=9p ro"
        " rootflags=trans=virtio,version=9p2000.L,msize=1048576,cache=loose"
        f" init={HERE / 'guest' / 'init'} PINFOLD_ROOT={ROOT}"
        " panic=-1 oops=panic random.trust_cpu=on tsc=reliable quiet loglevel=7"
        # An emulated processor may have to wait for a real one for long; that is no stall.
        " rcupdate.rcu_cpu_stall_timeout=60 watchdog_thresh=30"
    )
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-monitor", "none"),
        *("-machine", "q35", "-cpu", "max", "-m", str(MEGABYTES)),
        *(
            ("-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off")
            if count
            else ("-accel", "tcg,thread=multi", "-smp", str(cpus))
        ),
        *("-kernel", str(image), "-append", arguments),
        *("-serial", f"file:{shared / 'console.log'}"),
        *("-chardev", f"{job_output},id=job", "-serial", "chardev:job"),
        *_share("root", root, "readonly=on"),
        *_share("out", str(shared), "writeout=immediate"),
    ]


def value(text: str) -> str:
    """Returns a text as QEMU wants it among options, with its commas doubled."""
    return text.replace(",", ",,")


def _share(tag: str, path: str, option: str) -> list[str]:
    return [
        "-fsdev",
        f"local,id={tag},path={value(path)},security_model=none,multidevs=remap,{option}",
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},disable-legacy=on"),
    ]


@contextmanager
def kept(shared: Path) -> Iterator[None]:
    """Keeps a directory for one machine; it is there, whatever was in it.

    Args:
        shared: The directory.

    Raises:
        KernelError: Another machine has it.
    """
    shared.mkdir(parents=True, exist_ok=True)
    with (shared.parent / f"{shared.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KernelError(f"{shared}: another machine that was started here uses it") from None
        yield


def run(
    image: Path,
    shared: Path,
    job: str,
    limit: float,
    cpus: int = 2,
    *,
    echo: bool = False,
    count: bool = False,
) -> Ended:
    """Boots, runs the job, and waits for the end; the machine is gone when this returns.

    Args:
        image: The kernel.
        shared: An empty directory for the job and its results; see :func:`kept`.
        job: Lines of shell.
        limit: Seconds after which the machine is turned off.
        cpus: Processors of the guest.
        echo: Whether to print meanwhile what the job prints.
        count: As for :func:`command`.

    Raises:
        KernelError: QEMU did not start, or ended by itself without having booted.
    """
    (shared / "job").write_text(job)
    output = shared / "output.log"
    output.touch()
    for old in (shared / _END, shared / "console.log"):
        old.unlink(missing_ok=True)
    began = time.monotonic()
    with (shared / "qemu.log").open("wb") as log:
        machine = subprocess.Popen(
            command(image, shared, cpus, f"file,path={value(str(output))}", count=count),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            with output.open("rb") as printed:
                timed_out = not _ends(machine, limit, printed if echo else None)
        finally:
            machine.kill()
            machine.wait()
    console = shared / "console.log"
    text = console.read_text(errors="replace") if console.exists() else ""
    if not text:
        raise KernelError(f"QEMU did not boot: {(shared / 'qemu.log').read_text().strip()}")
    status = shared / _END
    code = int(status.read_text()) if status.exists() else None
    return Ended(code, timed_out, time.monotonic() - began, text)


def _ends(machine: subprocess.Popen[bytes], limit: float, printed: BinaryIO | None) -> bool:
    end = time.monotonic() + limit
    pidfd = os.pidfd_open(machine.pid)
    try:
        over = False
        while not over and time.monotonic() < end:
            pause = max(0.0, min(_PERIOD if printed else limit, end - time.monotonic()))
            over = bool(select.select([pidfd], [], [], pause)[0])
            if printed:
                sys.stdout.write(printed.read().decode(errors="replace").replace("\r", ""))
                sys.stdout.flush()
        return over
    finally:
        os.close(pidfd)


def shell(image: Path, shared: Path, words: Sequence[str], cpus: int = 2) -> int:
    """Boots with the terminal as the guest's second serial line; returns QEMU's exit status.

    Args:
        image: The kernel.
        shared: A directory for the job and its results.
        words: A command to be run instead of a shell.
        cpus: Processors of the guest.

    Raises:
        KernelError: Another machine uses the directory.
    """
    with kept(shared):
        inner = shlex.join(words) if words else "bash -i || sh -i"
        (shared / "job").write_text(f"cd {shlex.quote(os.getcwd())}\n{inner}\n")
        messages = shared / "console.log"
        print(f"the kernel's messages: {messages}; in the guest: dmesg", file=sys.stderr)
        # What is typed is the guest's, the interrupt key too; the end of the shell is the way out.
        machine = command(image, shared, cpus, "stdio,signal=off")
        return subprocess.run(machine, check=False).returncode
