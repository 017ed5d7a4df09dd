"""Bounded reads of a stopped task's memory, with the kernel's own error semantics.

The bytes go straight into the buffer that the kernel will later be pointed at, and are judged
there: what was judged cannot differ from what is used, because there is no second copy.

Other tasks may rewrite the source while we read it; that only decides *which* bytes we get.
"""

from __future__ import annotations

import errno

from pinfold.errors import TraceeGone
from pinfold.linux.uio import RemoteReader
from pinfold.uapi.fs import PATH_MAX


class Memory:
    """Reads task memory into a mapping of our own.

    Args:
        address: Where the mapping that is written lies in our address space.
    """

    __slots__ = ("_address", "_reader")

    def __init__(self, address: int) -> None:
        self._address = address
        self._reader = RemoteReader()

    def read(self, tid: int, address: int, offset: int, length: int) -> int:
        """Returns how many bytes from ``address`` could be copied to ``offset`` of the mapping.

        Anything but ``length`` means that the rest cannot be read: 0 where not even the first byte
        can. Not being allowed to look counts as unreadable.

        Raises:
            TraceeGone: The task died.
        """
        try:
            return self._reader.read(tid, address, self._address + offset, length)
        except OSError as error:
            _only_unreadable(error, tid)
            return 0

    def read_path(self, tid: int, address: int, offset: int) -> int:
        """Copies a path to ``offset`` of the mapping; returns its length without the NUL.

        Returns a negative errno where the kernel would fail: ``-EFAULT`` for a page that cannot be
        read before the NUL, ``-ENAMETOOLONG`` when there is none in PATH_MAX bytes.

        Raises:
            TraceeGone: The task died.

        Kernel: ``getname_flags`` in ``fs/namei.c``, ``strncpy_from_user``.
        """
        try:
            return self._reader.read_string(tid, address, self._address + offset, PATH_MAX)
        except OSError as error:
            _only_unreadable(error, tid)
            return -errno.EFAULT


def _only_unreadable(error: OSError, tid: int) -> None:
    # Returns if the error says no more than that.
    if error.errno == errno.ESRCH:
        raise TraceeGone(tid) from error
    if error.errno not in (errno.EFAULT, errno.EPERM, errno.EINVAL, errno.ENOMEM):
        raise error
