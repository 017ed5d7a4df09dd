"""The native back end: the two proposed requests, for kernels that have them.

The first revision records at install what was pinned where, and a redirect names addresses only.
The later one records nothing: a redirect names the memfd that all its pointers lie in, and the
kernel looks at what is mapped there now. ``Listener.send_redirect`` names no memfd. So this back
end remembers what was installed where, and keeps a descriptor of each memfd. A pointer is looked up
by its address alone, although the same address may show different memfds in different processes:
those that were ever pinned there are tried, and the kernel answers EFAULT for all but the right
one. A redirect that is refused leaves the notification as it was, so trying costs time and nothing
else. What is remembered is thus never an argument for a redirect; the live mapping is.

Pins that were forgotten, because more memfds are in use than may be kept, are refused (EFAULT).
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from pinfold.backends import rules
from pinfold.backends.descriptor import (
    ListenerDescriptor,
    SharedDescriptor,
    check_cookie,
    check_number,
    uninterrupted,
)
from pinfold.linux import memfd as memory
from pinfold.linux import redirect
from pinfold.uapi.mman import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMFDS: Final = 1024
_RANGES: Final = 64
"""Places remembered of one memfd; one that is in more places may be anywhere."""


class NativeBackend(ListenerDescriptor):
    """Redirects by the kernel's own requests.

    Args:
        fd: The listener, owned from now on, unless this raises.
        revision: The revision of the interface, as ``linux.redirect.revision`` found it.
        memfds: How many memfds are remembered; None takes a quarter of RLIMIT_NOFILE, up to 1024.

    Raises:
        OSError: EMFILE.
    """

    __slots__ = ("_installed", "_revision")

    name: Final = "native"

    def __init__(self, fd: int, revision: int, memfds: int | None = None) -> None:
        if memfds is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            # It may be infinite, which is a negative number.
            memfds = max(1, min(soft // 4, _MEMFDS)) if soft >= 0 else _MEMFDS
        self._installed = Installed(memfds)
        self._revision = revision
        super().__init__(fd)

    def close(self) -> None:
        """Closes the listener and what is kept of memfds; may be called again."""
        super().close()
        self._installed.close()

    def pin_install(self, cookie: int, memfd: int, address: int, size: int, flags: int) -> int:
        """Maps a memfd, sealed and read-only, into the task behind a notification.

        Args:
            cookie: The notification.
            memfd: A write-sealed memfd. The first revision does not ask for the seal; we do.
            address: Where; 0 lets the kernel choose, which the first revision cannot.
            size: Bytes.
            flags: 0.

        Returns:
            The address.

        Raises:
            OSError: As the interface says; EMFILE when no descriptor of the memfd can be kept;
                EBADF when the listener is closed.
        """
        with self.listener as fd:
            rules.check_install(flags, address, size)
            check_cookie(cookie)
            rules.check_seals(memory.seals(check_number(memfd)))
            if self._revision == redirect.FIRST:
                if not address:
                    raise OSError(errno.EINVAL, "pin install: this kernel chooses no address")
                uninterrupted(redirect.pin_install, fd, cookie, flags, memfd, address, size)
                return address
            copy = self._installed.copy(memfd)
            try:
                address = uninterrupted(
                    redirect.pin_install_at, fd, cookie, flags, copy, address, size, 0
                )
            except BaseException:
                os.close(copy)
                raise
            self._installed.add(copy, address, address + size)
            return address

    def send_redirect(
        self, cookie: int, args: Mapping[int, int], ptr_len: Mapping[int, int], flags: int
    ) -> None:
        """Resumes a call with some arguments replaced.

        Args:
            cookie: The notification.
            args: New values by argument index.
            ptr_len: Bytes that may be read at those that are pointers.
            flags: ``SECCOMP_REDIRECT_FLAG_CONTINUE``.

        Raises:
            OSError: As the interface says; EBADF when the listener is closed.
        """
        with self.listener as fd:
            wanted = rules.redirect_masks(args, ptr_len, flags)
            encode = partial(redirect.encode_redirect, check_cookie(cookie), flags, *wanted)
            if self._revision == redirect.FIRST:
                uninterrupted(redirect.send_redirect, fd, encode())
            elif not ptr_len:
                # What a kernel wants to see where no memfd matters is not written down anywhere.
                # This is the form that the probe of the interface was answered for.
                with self._installed.nowhere() as number:
                    uninterrupted(redirect.send_redirect, fd, encode(number))
            else:
                self._redirect_into_pin(fd, encode, wanted.args[min(ptr_len)])

    def _redirect_into_pin(self, fd: int, encode: partial[bytes], pointer: int) -> None:
        for kept in self._installed.at(pointer):
            try:
                with kept.descriptor as number:
                    uninterrupted(redirect.send_redirect, fd, encode(number))
            except OSError as error:
                # EBADF: an install in another thread has pushed it out meanwhile.
                if error.errno not in (errno.EFAULT, errno.EBADF):
                    raise
            else:
                self._installed.used(kept)
                return
        # What is wrong with the notification comes before what is wrong with the pointer.
        with self._installed.nowhere() as number:
            uninterrupted(redirect.send_redirect, fd, encode(number))


class Kept:
    """A memfd that was installed, and where.

    Attributes:
        key: Its device and inode.
        descriptor: Our descriptor of it.
    """

    __slots__ = ("_ranges", "descriptor", "key")

    def __init__(self, key: tuple[int, int], copy: int) -> None:
        self.key = key
        self.descriptor = SharedDescriptor(copy, "memfd of a pin")
        self._ranges: set[tuple[int, int]] | None = set()

    def add(self, start: int, end: int) -> None:
        """Remembers that it was pinned at ``[start, end)`` in some process."""
        if self._ranges is not None:
            self._ranges.add((start, end))
            if len(self._ranges) > _RANGES:
                self._ranges = None

    def may_be_at(self, address: int) -> bool:
        """Returns whether it may be mapped at an address."""
        ranges = self._ranges
        return ranges is None or any(start <= address < end for start, end in ranges)


class Installed:
    """The memfds that were installed, the most recently used ones of them.

    Args:
        limit: How many, at least 1.
    """

    __slots__ = ("_closed", "_kept", "_limit", "_lock", "_nowhere")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[int, int], Kept] = OrderedDict()
        self._nowhere: SharedDescriptor | None = None
        self._closed = False
        # Held over nothing that another process could make last.
        self._lock = threading.RLock()

    def copy(self, memfd: int) -> int:
        """Returns a new descriptor of a memfd, making room for it where there is none.

        Raises:
            OSError: EBADF; EMFILE.
        """
        while True:
            try:
                return os.dup(memfd)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                with self._lock:
                    if not self._kept:
                        raise
                    self._forget_oldest()

    def add(self, copy: int, start: int, end: int) -> None:
        """Remembers that a memfd was pinned at ``[start, end)``.

        Args:
            copy: Descriptor of the memfd, owned from now on.
            start: Address of the first byte.
            end: Address after the last one.
        """
        stat = os.fstat(copy)
        key = (stat.st_dev, stat.st_ino)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None or self._closed:
                os.close(copy)
            if self._closed:
                return
            if kept is None:
                while len(self._kept) >= self._limit:
                    self._forget_oldest()
                kept = self._kept[key] = Kept(key, copy)
            kept.add(start, end)
            self._kept.move_to_end(key)

    def at(self, address: int) -> list[Kept]:
        """Returns the memfds that may be mapped at an address, the most recently used first."""
        with self._lock:
            return [kept for kept in reversed(self._kept.values()) if kept.may_be_at(address)]

    def used(self, kept: Kept) -> None:
        """Makes a memfd the most recently used one."""
        with self._lock:
            if self._kept.get(kept.key) is kept:
                self._kept.move_to_end(kept.key)

    def nowhere(self) -> SharedDescriptor:
        """Returns a sealed memfd that is mapped nowhere.

        Raises:
            OSError: EMFILE; EBADF after :meth:`close`.
        """
        with self._lock:
            if self._nowhere is None:
                if self._closed:
                    raise OSError(errno.EBADF, "seccomp listener is closed")
                fd = memory.create("pinfold-nowhere", PAGE_SIZE)
                memory.seal(fd, memory.PIN_SEALS)
                self._nowhere = SharedDescriptor(fd, "memfd that is mapped nowhere")
            return self._nowhere

    def close(self) -> None:
        """Forgets everything, and closes what no other thread is using; may be called again."""
        with self._lock:
            self._closed = True
            while self._kept:
                self._forget_oldest()
            if self._nowhere is not None:
                self._nowhere.close()

    def _forget_oldest(self) -> None:
        self._kept.popitem(last=False)[1].descriptor.close()
