"""Messages of ``sendmsg``: ``struct msghdr`` with its address, its vector and its control data.

What is sent stays where it is: the vector is copied, and its elements go on pointing into the task.
No verdict looks at that data, so another thread may change it as it may without a sandbox.

``sendmmsg`` cannot be pointed at an image. The kernel writes ``msg_len`` of each ``struct mmsghdr``
as it goes, which a read-only pin does not take: the first message is sent, and the call fails with
EFAULT all the same. But an ``mmsghdr`` begins with a ``msghdr``, so that its messages can be pinned
one by one for ``sendmsg``; and since ``sendmmsg`` may always send fewer messages than it was asked
to, sending one, writing its length where ``MSG_LEN`` says and answering 1 is a complete answer.

Kernel: ``__copy_msghdr``, ``____sys_sendmsg`` and ``__sys_sendmmsg`` in ``net/socket.c``;
``import_iovec`` in ``lib/iov_iter.c``; ``net/core/scm.c`` for control messages.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec import sockaddr
from pinfold.codec.base import UNREADABLE
from pinfold.uapi import net

if TYPE_CHECKING:
    from pinfold.codec.image import Image
    from pinfold.codec.sockaddr import Address

CONTROL_MAX: Final = 256 << 10
"""Most control data that is copied. The kernel's own limit, ``net.core.optmem_max``, is 128 KiB
where nobody has changed it."""

_NO_BUFFER: Final = 1 << 31
"""A ``msg_controllen`` that the kernel answers with ENOBUFS on any machine (INT_MAX + 1)."""

_NULL: Final = 0


class IoVec(NamedTuple):
    """A piece of what is sent: its address in the task, and its length."""

    base: int
    length: int


class Message(NamedTuple):
    """A ``struct msghdr`` in an image."""

    pointer: int
    """What the argument register is to hold: an address in the slot, or ``UNREADABLE``."""
    offset: int
    """Of the ``msghdr`` in the slot; -1 when it could not be read."""
    name: Address | None
    """Where it goes; None for a message without an address, which goes to the peer, and for one
    whose address makes the call fail (EFAULT, or EINVAL for a negative length)."""
    raw_name: bytes
    iovecs: tuple[IoVec, ...]
    control: bytes
    flags: int
    """``msg_flags``; the kernel adds those of the call itself."""


_NOTHING: Final = Message(UNREADABLE, -1, None, b"", (), b"", 0)


class ControlMessage(NamedTuple):
    """A piece of control data."""

    level: int
    type: int
    data: bytes


def routes(control: bytes) -> bool:
    """Returns whether control data says by which hosts a packet goes: it ends up at another one."""
    return any((one.level, one.type) in net.ROUTING_MESSAGES for one in control_messages(control))


def decode(image: Image, address: int) -> Message:
    """Copies a message of the task, but for the data that its vector points to.

    Control data of more than :data:`CONTROL_MAX` bytes is not copied. Its length then becomes one
    that the kernel refuses itself, with ENOBUFS, as it does with any that is beyond its own limit.

    Args:
        image: Where to.
        address: Value of the argument register.

    Raises:
        SlotFull: It does not fit.
    """
    offset = image.copy(address, net.MSGHDR.size, 8)
    if offset is None:
        return _NOTHING
    name, name_length, vector, count, control, control_length, flags = net.MSGHDR.unpack(
        image.bytes_at(offset, net.MSGHDR.size)
    )
    to, raw_name = _name(image, offset, name, name_length)
    iovecs = _vector(image, offset, vector, count)
    sent = _control(image, offset, control, control_length)
    return Message(image.address_of(offset), offset, to, raw_name, iovecs, sent, flags)


def _name(image: Image, header: int, address: int, length: int) -> tuple[Address | None, bytes]:
    if address == _NULL:
        return None, b""
    # Longer ones are cut by the kernel, unlike those that are arguments themselves.
    found = sockaddr.decode(image, address, min(length, net.SOCKADDR_STORAGE_SIZE))
    image.word(header + net.MSG_NAME, found.pointer)
    return (found.address if found.raw else None), found.raw


def _vector(image: Image, header: int, address: int, count: int) -> tuple[IoVec, ...]:
    # Of an empty vector nothing is read, nor of one that is refused (EMSGSIZE).
    length = count * net.IOVEC.size
    offset = None
    if 0 < count <= net.UIO_MAXIOV:
        offset = image.copy(address, length, 8)
        if offset is None:
            offset, length = _refused_vector(image, address, length)
    image.word(header + net.MSG_IOV, _aimed(image, offset))
    if offset is None:
        return ()
    return tuple(map(IoVec._make, net.IOVEC.iter_unpack(image.bytes_at(offset, length))))


def _refused_vector(image: Image, address: int, length: int) -> tuple[int | None, int]:
    # A vector that cannot be read to its end. The kernel reads one element after the other, and
    # with a length of 2**63 or more it stops there (EINVAL), so that the rest need not exist.
    offset = image.reserve(0, 8)
    got, _ = image.peek(address, length)
    whole = got - got % net.IOVEC.size
    for at, (_, size) in enumerate(net.IOVEC.iter_unpack(image.bytes_at(offset, whole))):
        if size >> 63:
            length = (at + 1) * net.IOVEC.size
            return image.reserve(length), length
    return None, 0


def _control(image: Image, header: int, address: int, length: int) -> bytes:
    if length > CONTROL_MAX:
        image.word(header + net.MSG_CONTROLLEN, _NO_BUFFER)
        image.word(header + net.MSG_CONTROL, UNREADABLE)
        return b""
    offset = image.copy(address, length, net.CMSG_ALIGNMENT) if length else None
    image.word(header + net.MSG_CONTROL, _aimed(image, offset))
    return b"" if offset is None else image.bytes_at(offset, length)


def _aimed(image: Image, offset: int | None) -> int:
    # NULL is no exception: something could be mapped there by the time the kernel reads it.
    return UNREADABLE if offset is None else image.address_of(offset)


def encode_name(image: Image, message: Message, raw: bytes) -> Message:
    """Replaces the address of a message in its image; returns the message as it is now.

    Args:
        image: Where the message is.
        message: One that could be read.
        raw: Bytes of the new address; none to send to the peer.

    Raises:
        ValueError: ``raw`` is longer than an address can be.
        SlotFull: It does not fit.
    """
    if len(raw) > net.SOCKADDR_STORAGE_SIZE:
        raise ValueError(f"a socket address of {len(raw)} bytes")
    assert message.offset >= 0
    at = image.address_of(image.put(raw, 8)) if raw else _NULL
    image.word(message.offset + net.MSG_NAME, at)
    image.replace(message.offset + net.MSG_NAMELEN, struct.pack("=i", len(raw)))
    return message._replace(name=sockaddr.parse(raw) if raw else None, raw_name=raw)


def control_messages(raw: bytes) -> list[ControlMessage]:
    """Returns the messages that control data is made of, as far as the kernel gets.

    It stops at one whose length is impossible, and most protocols then refuse the whole call
    (EINVAL).

    Kernel: ``CMSG_OK`` and ``__cmsg_nxthdr`` in ``include/linux/socket.h``.
    """
    found = []
    at = 0
    while at + net.CMSGHDR.size <= len(raw):
        length, level, kind = net.CMSGHDR.unpack_from(raw, at)
        if not net.CMSGHDR.size <= length <= len(raw) - at:
            break
        found.append(ControlMessage(level, kind, raw[at + net.CMSGHDR.size : at + length]))
        at += length + (-length & (net.CMSG_ALIGNMENT - 1))
    return found


def descriptors(raw: bytes) -> list[int]:
    """Returns the file descriptors that control data passes on (SCM_RIGHTS)."""
    return [
        number
        for message in control_messages(raw)
        if message.level == net.SOL_SOCKET and message.type == net.SCM_RIGHTS
        for (number,) in struct.iter_unpack("=i", message.data[: len(message.data) & ~3])
    ]
