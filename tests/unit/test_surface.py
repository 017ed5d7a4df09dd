"""The public names: exactly these, sorted, and each there."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import pinfold

NAMES = [
    "AsyncPopen",
    "AuditError",
    "Call",
    "CompletedRun",
    "InternalError",
    "LaunchError",
    "Limits",
    "Listener",
    "Notification",
    "Pin",
    "PinfoldError",
    "Policy",
    "PolicyError",
    "Popen",
    "Sandbox",
    "Supervised",
    "UnsupportedError",
    "Verdict",
    "allow",
    "deny",
    "from_loader",
    "inject",
    "install_filter",
    "kill",
    "notify_filter",
    "receive_listener",
    "redirect",
    "returns",
    "run",
    "send_listener",
    "serve",
    "supervise",
    "take_listener",
]


def test_public_names_are_exactly_these_and_sorted() -> None:
    assert pinfold.__all__ == NAMES == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_there_and_documented(name: str) -> None:
    found = getattr(pinfold, name)
    assert found.__name__ == name
    assert found.__doc__
    assert getattr(import_module(found.__module__), name) is found


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pinfold.Nothing


def test_the_import_is_lazy() -> None:
    # Importing the package must not cost the command line what it does not use.
    script = "import sys, pinfold; print([n for n in sys.modules if n.startswith('pinfold.')])"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
