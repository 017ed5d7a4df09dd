"""What the tests of runs on the native back end share.

A machine without it skips them, with the reason. So that a skip cannot hide, PINFOLD_MUST=native
has them fail instead.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from pinfold.launch import choice
from tests.kernel.support import Done, execute

NATIVE = (sys.executable, "-m", "pinfold", "run", "--backend", "native")


def require() -> None:
    """Skips the module, or fails it, where the native back end cannot be had."""
    reason = choice.lack()
    if reason is None:
        return
    if "native" in os.environ.get("PINFOLD_MUST", "").split(","):
        pytest.fail(f"PINFOLD_MUST asks for the native back end: {reason}", pytrace=False)
    pytest.skip(f"no native back end: {reason}", allow_module_level=True)


def native(*args: Any, **options: Any) -> Done:
    """Returns how ``pinfold run --backend native ARGS`` went."""
    return execute([*NATIVE, *args], **options)
