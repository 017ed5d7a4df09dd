"""``linux/socket.h``, ``linux/in.h``, ``linux/un.h`` and others: socket addresses and messages."""

import struct
from typing import Final

AF_UNSPEC: Final = 0
AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
AF_NETLINK: Final = 16
AF_PACKET: Final = 17
AF_VSOCK: Final = 40

SOCKADDR_STORAGE_SIZE: Final = 128
"""``sizeof(struct sockaddr_storage)``: the longest address that the kernel takes."""

SA_FAMILY: Final = struct.Struct("=H")
"""``sa_family_t``: what every address begins with."""

UNIX_PATH_MAX: Final = 108
"""``sizeof(sun_path)``; a name of that many bytes needs no NUL."""

SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")
"""``struct sockaddr_in``: family, port and address in network byte order."""

SOCKADDR_IN6: Final = struct.Struct("=H2s4s16sI")
"""``struct sockaddr_in6``: family, port, flow information (both in network byte order), address,
scope id."""

SIN6_LEN_RFC2133: Final = 24
"""``struct sockaddr_in6`` without the scope id: still taken by the kernel."""

SOCKADDR_NL: Final = struct.Struct("=H2xII")
"""``struct sockaddr_nl``: family, port id, mask of multicast groups."""

SOCKADDR_VM: Final = struct.Struct("=H2xIIB3x")
"""``struct sockaddr_vm``: family, port, context id, flags."""

UIO_MAXIOV: Final = 1024
"""Most ``struct iovec`` of one call."""

IOVEC: Final = struct.Struct("=QQ")
"""``struct iovec``: address, length."""

MSGHDR: Final = struct.Struct("=Qi4xQQQQI4x")
"""``struct user_msghdr``: name, namelen, iov, iovlen, control, controllen, flags."""

MMSGHDR: Final = struct.Struct("=Qi4xQQQQI4xI4x")
"""``struct mmsghdr``: ``MSGHDR``, then msg_len, which the kernel writes."""

MSG_NAME: Final = 0
MSG_NAMELEN: Final = 8
MSG_IOV: Final = 16
MSG_CONTROL: Final = 32
MSG_CONTROLLEN: Final = 40
MSG_LEN: Final = 56
"""Offsets in ``MMSGHDR``."""

CMSGHDR: Final = struct.Struct("=Qii")
"""``struct cmsghdr``: length with this header, level, type."""

CMSG_ALIGNMENT: Final = 8
"""Control messages start at multiples of ``sizeof(size_t)``."""

SOL_SOCKET: Final = 1
SCM_RIGHTS: Final = 1
SCM_CREDENTIALS: Final = 2

IPPROTO_IP: Final = 0
IPPROTO_IPV6: Final = 41
SOL_SCTP: Final = 132
IP_OPTIONS: Final = 4
IP_RETOPTS: Final = 7
IPV6_2292RTHDR: Final = 5
IPV6_2292PKTOPTIONS: Final = 6
IPV6_FLOWLABEL_MGR: Final = 32
IPV6_RTHDR: Final = 57
SCTP_SOCKOPT_BINDX_ADD: Final = 100
SCTP_SOCKOPT_CONNECTX_OLD: Final = 107
SCTP_SOCKOPT_CONNECTX: Final = 110

ROUTING_MESSAGES: Final = frozenset(
    {
        (IPPROTO_IP, IP_RETOPTS),
        (IPPROTO_IPV6, IPV6_2292RTHDR),
        (IPPROTO_IPV6, IPV6_RTHDR),
    }
)
"""Control messages (level, type) that say by which hosts a packet goes."""

ROUTING_OPTIONS: Final = (
    (IPPROTO_IP, IP_OPTIONS),
    (IPPROTO_IPV6, IPV6_2292PKTOPTIONS),
    (IPPROTO_IPV6, IPV6_FLOWLABEL_MGR),
    (IPPROTO_IPV6, IPV6_RTHDR),
    (SOL_SCTP, SCTP_SOCKOPT_BINDX_ADD),
    (SOL_SCTP, SCTP_SOCKOPT_CONNECTX_OLD),
    (SOL_SCTP, SCTP_SOCKOPT_CONNECTX),
)
"""Socket options (level, name) that do the same for all packets of a socket, or that connect and
bind it to addresses of their own."""
