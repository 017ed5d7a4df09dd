"""Bounded reads of a stopped task's memory, with the kernel's own error semantics.

The bytes go straight into the buffer that the kernel will later be pointed at, and are judged
there: what was judged cannot differ from what is used, because there is no second copy.

Other tasks may rewrite the source while we read it; that only decides *which* bytes we get.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pinfold.errors import TraceeGone
from pinfold.linux.uio import RemoteReader
from pinfold.uapi.fs import PATH_MAX

if TYPE_CHECKING:
    import mmap

_FIRST = 256
"""Most paths are shorter than this; the rest is read only when it is needed."""


class Memory:
    """Reads task memory into a mapping of our own.

    Args:
        view: The mapping that is written.
        address: Where it lies in our address space.
    """

    __slots__ = ("_address", "_reader", "_view")

    def __init__(self, view: mmap.mmap, address: int) -> None:
        self._view = view
        self._address = address
        self._reader = RemoteReader()

    def read(self, tid: int, address: int, offset: int, length: int) -> int:
        """Returns how many bytes from ``address`` could be copied to ``offset`` of the view.

        Anything but ``length`` means that the rest cannot be read: 0 where not even the first byte
        can. Not being allowed to look counts as unreadable.

        Raises:
            TraceeGone: The task died.
        """
        try:
            return self._reader.read(tid, address, self._address + offset, length)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise TraceeGone(tid) from error
            if error.errno in (errno.EFAULT, errno.EPERM, errno.EINVAL, errno.ENOMEM):
                return 0
            raise

    def read_path(self, tid: int, address: int, offset: int) -> int:
        """Copies a path to ``offset`` of the view; returns its length without the NUL.

        Returns a negative errno where the kernel would fail: ``-EFAULT`` for a page that cannot be
        read before the NUL, ``-ENAMETOOLONG`` when there is none in PATH_MAX bytes.

        Raises:
            TraceeGone: The task died.

        Kernel: ``getname_flags`` in ``fs/namei.c``, ``strncpy_from_user``.
        """
        got = self.read(tid, address, offset, _FIRST)
        end = self._view.find(b"\0", offset, offset + got)
        if end >= 0:
            return end - offset
        if got == _FIRST:
            got += self.read(tid, address + _FIRST, offset + _FIRST, PATH_MAX - _FIRST)
            end = self._view.find(b"\0", offset, offset + got)
            if end >= 0:
                return end - offset
        return -errno.ENAMETOOLONG if got == PATH_MAX else -errno.EFAULT
