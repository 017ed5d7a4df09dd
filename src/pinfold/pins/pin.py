"""A pin: memory that we alone can write, and that others can map without being able to.

It is a memfd, which we map writable *before* it is sealed. Afterwards nobody gets another writable
mapping of it, by whatever descriptor, and the seals themselves cannot be changed.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Final

from pinfold.linux import memfd
from pinfold.uapi.mman import PAGE_SIZE

if TYPE_CHECKING:
    from types import TracebackType


class Pin:
    """A sealed memfd with our own writable mapping; a context manager.

    What is written here is at once in every task that has it mapped (``Listener.pin_install``). A
    call that was redirected reads it when the kernel gets to that: leave those bytes alone until
    the thread that made the call traps again, or give each its own.

    Args:
        size: Bytes; rounded up to whole pages.
        tail: What the memfd holds after them: whole pages, which nobody can write any more.

    Attributes:
        fd: The memfd, close-on-exec.
        size: Bytes, a multiple of the page size, without the tail.
        view: The mapping, zeros at first.

    Raises:
        ValueError: ``size`` is not positive.
        OSError: EMFILE, ENOMEM; EFBIG when RLIMIT_FSIZE leaves no room.
    """

    __slots__ = ("fd", "size", "view")

    def __init__(self, size: int, tail: bytes = b"") -> None:
        if size <= 0:
            raise ValueError(f"a pin must have a size, not {size}")
        self.size: Final = -(-size // PAGE_SIZE) * PAGE_SIZE
        self.fd = memfd.create("pinfold", self.size + len(tail))
        try:
            self.view: Final = mmap.mmap(self.fd, self.size)
        except BaseException:
            os.close(self.fd)
            raise
        try:
            # A child that the host process forks for its own purposes must not inherit a way to
            # write what targets are judged by.
            self.view.madvise(mmap.MADV_DONTFORK)
            if tail:
                # Through a mapping: a limit to the size of files (RLIMIT_FSIZE) has no say here.
                with mmap.mmap(self.fd, len(tail), offset=self.size) as once:
                    once[:] = tail
            memfd.seal(self.fd, memfd.PIN_SEALS)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Pin {self.fd}: {self.size} bytes>"

    def __enter__(self) -> Pin:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes bytes at an offset.

        Raises:
            ValueError: They do not fit, or the pin is closed.
        """
        length = memoryview(data).nbytes
        end = offset + length
        if offset < 0 or end > self.size:
            raise ValueError(
                f"{length} bytes at offset {offset} do not fit into a pin of {self.size} bytes"
            )
        self.view[offset:end] = data

    def close(self) -> None:
        """Gives it up; mappings in tasks stay until they end. May be called twice."""
        self.view.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
