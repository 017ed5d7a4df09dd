"""Bounded reads of a stopped task's memory, with the kernel's own error semantics.

The bytes go straight into the buffer that the kernel will later be pointed at, and are judged
there: what was judged cannot differ from what is used, because there is no second copy.

Other tasks may rewrite the source while we read it; that only decides *which* bytes we get.
"""

from __future__ import annotations

import errno

from pinfold.errors import TraceeGone
from pinfold.linux.uio import RemoteReader


class Memory:
    """Reads the memory of one task at a time into a mapping of our own; see ``codec.base.Memory``.

    Args:
        address: Where the mapping that is written lies in our address space.

    Attributes:
        tid: The task.
    """

    __slots__ = ("_address", "_reader", "tid")

    def __init__(self, address: int) -> None:
        self._address = address
        self._reader = RemoteReader()
        self.tid = 0

    def read(self, address: int, offset: int, length: int) -> int:
        """Returns how many bytes from ``address`` could be copied to ``offset`` of the mapping.

        Anything but ``length`` means that the rest cannot be read: 0 where not even the first byte
        can. Not being allowed to look counts as unreadable.

        Raises:
            TraceeGone: The task died.
        """
        try:
            return self._reader.read(self.tid, address, self._address + offset, length)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise TraceeGone(self.tid) from error
            if error.errno not in (errno.EFAULT, errno.EPERM, errno.EINVAL, errno.ENOMEM):
                raise
            return 0
