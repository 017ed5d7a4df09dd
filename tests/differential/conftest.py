"""Every test here is checked for processes that it leaves behind, as those of ``tests/kernel``."""

from tests.kernel.conftest import _nothing_left, someone, unprivileged

__all__ = ["_nothing_left", "someone", "unprivileged"]
