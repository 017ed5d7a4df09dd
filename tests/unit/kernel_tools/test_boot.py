"""The command line of the machine: what it may touch, and what it may not."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from kernel import boot
from kernel.source import KernelError


def test_the_root_is_shared_read_only() -> None:
    words = boot.command(Path("/k"), Path("/out,put"), 2, "stdio")
    shares = [words[at + 1] for at, word in enumerate(words) if word == "-fsdev"]
    root, out = shares
    assert "id=root" in root
    assert "path=/," in root
    assert "readonly=on" in root
    assert "path=/out,,put," in out
    assert sum(word == "-device" for word in words) == len(shares)


def test_there_is_no_network_and_no_disk() -> None:
    words = boot.command(Path("/k"), Path("/out"), 2, "stdio")
    assert "-nodefaults" in words
    for option in ("-netdev", "-nic", "-net", "-drive", "-hda", "-blockdev"):
        assert option not in words


def test_processors() -> None:
    words = boot.command(Path("/k"), Path("/out"), 3, "stdio")
    assert words[words.index("-smp") + 1] == "3"
    assert "tcg,thread=multi" in words


def test_a_directory_is_for_one_machine(tmp_path: Path) -> None:
    place = tmp_path / "results" / "base"
    with boot.kept(place):
        assert place.is_dir()
        with pytest.raises(KernelError, match="another machine"), boot.kept(place):
            pass
        with boot.kept(place.with_name("lockdep")):
            pass
    with boot.kept(place):
        pass


def test_it_ends_with_whoever_started_it() -> None:
    # The same words before another program: one that would never end, of a parent that is killed.
    words = boot.command(Path("/k"), Path("/out"), 1, "stdio")
    words = [*words[: words.index("qemu-system-x86_64")], "sh", "-c", "echo $$; exec cat"]
    starter = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", starter, *words], stdin=reader, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        machine = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        # A pidfd is readable from the end of its process on.
        assert select.select([machine], [], [], 60)[0]
    finally:
        for fd in (machine, reader, writer):
            os.close(fd)
