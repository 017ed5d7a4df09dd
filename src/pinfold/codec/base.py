"""What every codec stands on: task memory as it sees it, and the two ways in which it gives up."""

from __future__ import annotations

from typing import Final, Protocol

UNREADABLE: Final = (1 << 64) - 4096
"""An address at which every read of the kernel fails with EFAULT, however long the read.

It lies above all user space. It is the highest such address that is no error pointer for the kernel
(``IS_ERR``): those are looked at in some places before anything is read.
"""


class Memory(Protocol):
    """The memory of one stopped task, and the slot's view that its bytes go to."""

    def read(self, address: int, offset: int, length: int) -> int:
        """Copies bytes of the task into the view; returns how many could be copied.

        Anything from 0 to ``length``: fewer than ``length`` says that the byte after them cannot be
        read. Other tasks may change the source at any time.

        Args:
            address: Where in the task, below 2**63.
            offset: Where in the view.
            length: Bytes wanted, at least 1.
        """


class SlotFull(Exception):  # noqa: N818 (no error: how a codec asks for a larger slot)
    """The image does not fit. Take a larger slot and begin again, from the task's memory.

    Args:
        needed: Bytes that the slot needs at least; usually it needs more in the end.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(f"a slot of {needed} bytes or more")
        self.needed = needed


class Refused(Exception):  # noqa: N818 (no error of ours: the call is one that fails)
    """The call fails here and now, because what it passes is larger than any kernel would take.

    Args:
        errno: What the kernel would have said.
    """

    def __init__(self, errno: int) -> None:
        super().__init__(f"errno {errno}")
        self.errno = errno
