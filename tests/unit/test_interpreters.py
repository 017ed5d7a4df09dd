"""Interpreters of scripts and loaders of programs, as the kernel would find them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pinfold.supervisor.interpreters import of_file
from pinfold.tracee.loader import own_loader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"#!/bin/sh\n", b"/bin/sh"),
        (b"#! \t /usr/bin/env  python3\nrest", b"/usr/bin/env"),
        (b"#!/bin/sh\t-e\n", b"/bin/sh"),
        (b"#!/bin/sh", b"/bin/sh"),
        (b"#!relative\n", b"relative"),
        (b"#!/a\0b c\n", b"/a"),
        (b"#!\n", None),
        (b"#!   \n/bin/sh", None),
        (b"#! " + b"/" + b"a" * 300, b"/" + b"a" * 252),
        (b" #!/bin/sh\n", None),
        (b"", None),
        (b"\x7fELF\x02\x01", None),
        (b"\x7fELF\x02\x01" + bytes(58), None),
        (b"\x7fELF\x02\x01" + b"\xff" * 58, None),
    ],
)
def test_files(tmp_path: Path, content: bytes, expected: bytes | None) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert of_file(os.fsencode(file)) == expected


def test_a_program_names_its_loader() -> None:
    found = of_file(os.fsencode(os.path.realpath(sys.executable)))
    assert found is not None
    assert os.fsencode(os.path.realpath(found)) == own_loader()


def test_nothing_but_files_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert of_file(os.fsencode(tmp_path / "fifo")) is None
    assert of_file(b"/dev/tty") is None
    assert of_file(os.fsencode(tmp_path)) is None
    with pytest.raises(FileNotFoundError):
        of_file(os.fsencode(tmp_path / "missing"))
