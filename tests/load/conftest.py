"""Every test here ends without a process of its own, however deep: orphans become ours."""

from tests.kernel.conftest import _nothing_left, unprivileged

__all__ = ["_nothing_left", "unprivileged"]
