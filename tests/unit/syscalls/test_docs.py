"""docs/syscalls.md is what its generator writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pinfold.syscalls.numbers import X86_64

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/syscalls.md").read_text()


def test_the_file_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools/gen_syscall_docs.py"), "--check"]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("name", X86_64)
def test_every_call_is_there(name: str) -> None:
    assert f"`{name}`" in TEXT
