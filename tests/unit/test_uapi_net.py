"""Socket, attribute and exec numbers and layouts against the machine's own headers."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pinfold.uapi import binfmts, net, xattr

if TYPE_CHECKING:
    import struct
    from pathlib import Path

INCLUDES = """
#define _GNU_SOURCE
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <netinet/in.h>
#include <linux/limits.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#define PAGE_SIZE 4096
#include <linux/binfmts.h>
"""

CONSTANTS = {
    "AF_UNSPEC": net.AF_UNSPEC,
    "AF_UNIX": net.AF_UNIX,
    "AF_INET": net.AF_INET,
    "AF_INET6": net.AF_INET6,
    "AF_NETLINK": net.AF_NETLINK,
    "AF_VSOCK": net.AF_VSOCK,
    "SOL_SOCKET": net.SOL_SOCKET,
    "SCM_RIGHTS": net.SCM_RIGHTS,
    "SCM_CREDENTIALS": net.SCM_CREDENTIALS,
    "UIO_MAXIOV": net.UIO_MAXIOV,
    "CMSG_ALIGN(1)": net.CMSG_ALIGNMENT,
    "XATTR_NAME_MAX": xattr.XATTR_NAME_MAX,
    "XATTR_SIZE_MAX": xattr.XATTR_SIZE_MAX,
    "XATTR_CREATE": xattr.XATTR_CREATE,
    "XATTR_REPLACE": xattr.XATTR_REPLACE,
    "MAX_ARG_STRLEN": binfmts.MAX_ARG_STRLEN,
    "sizeof(struct sockaddr_storage)": net.SOCKADDR_STORAGE_SIZE,
    "sizeof(((struct sockaddr_un *)0)->sun_path)": net.UNIX_PATH_MAX,
    "offsetof(struct sockaddr_in6, sin6_scope_id)": net.SIN6_LEN_RFC2133,
    "offsetof(struct msghdr, msg_name)": net.MSG_NAME,
    "offsetof(struct msghdr, msg_namelen)": net.MSG_NAMELEN,
    "offsetof(struct msghdr, msg_iov)": net.MSG_IOV,
    "offsetof(struct msghdr, msg_control)": net.MSG_CONTROL,
    "offsetof(struct msghdr, msg_controllen)": net.MSG_CONTROLLEN,
    "offsetof(struct mmsghdr, msg_len)": net.MSG_LEN,
}

# Fields that are not padding, in the order of the layout.
STRUCTS = {
    "sa_family_t": (net.SA_FAMILY, ()),
    "struct sockaddr_in": (net.SOCKADDR_IN, ("sin_family", "sin_port", "sin_addr")),
    "struct sockaddr_in6": (
        net.SOCKADDR_IN6,
        ("sin6_family", "sin6_port", "sin6_flowinfo", "sin6_addr", "sin6_scope_id"),
    ),
    "struct sockaddr_nl": (net.SOCKADDR_NL, ("nl_family", "nl_pid", "nl_groups")),
    "struct sockaddr_vm": (
        net.SOCKADDR_VM,
        # The member of the flags is younger than some headers; what is there now stands for it.
        ("svm_family", "svm_port", "svm_cid", None),
    ),
    "struct iovec": (net.IOVEC, ("iov_base", "iov_len")),
    "struct msghdr": (
        net.MSGHDR,
        (
            "msg_name",
            "msg_namelen",
            "msg_iov",
            "msg_iovlen",
            "msg_control",
            "msg_controllen",
            "msg_flags",
        ),
    ),
    "struct mmsghdr": (
        net.MMSGHDR,
        (
            "msg_hdr.msg_name",
            "msg_hdr.msg_namelen",
            "msg_hdr.msg_iov",
            "msg_hdr.msg_iovlen",
            "msg_hdr.msg_control",
            "msg_hdr.msg_controllen",
            "msg_hdr.msg_flags",
            "msg_len",
        ),
    ),
    "struct cmsghdr": (net.CMSGHDR, ("cmsg_len", "cmsg_level", "cmsg_type")),
}


def printed(tmp_path: Path, expressions: list[str]) -> list[int]:
    body = "".join(f'printf("%llu\\n", (unsigned long long)({one}));\n' for one in expressions)
    source = tmp_path / "abi.c"
    source.write_text(f"{INCLUDES}\nint main(void) {{\n{body}\nreturn 0; }}\n")
    program = tmp_path / "abi"
    subprocess.run(["gcc", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [int(line) for line in out.split()]


def offsets(layout: struct.Struct) -> list[int]:
    """Returns where the fields of a layout begin: the first byte that tells their values apart."""
    numbers = [
        bytes(len(value)) if isinstance(value, bytes) else 0
        for value in layout.unpack(bytes(layout.size))
    ]
    found = []
    for index, zero in enumerate(numbers):
        one = b"\1" if isinstance(zero, bytes) else 1
        found.append(layout.pack(*numbers[:index], one, *numbers[index + 1 :]).index(1))
    return found


def test_constants(tmp_path: Path) -> None:
    found = printed(tmp_path, list(CONSTANTS))
    assert dict(zip(CONSTANTS, found, strict=True)) == CONSTANTS


@pytest.mark.parametrize("name", STRUCTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    layout, fields = STRUCTS[name]
    known = [field for field in fields if field is not None]
    size, *places = printed(
        tmp_path, [f"sizeof({name})", *(f"offsetof({name}, {field})" for field in known)]
    )
    assert layout.size == size
    assert [
        at for at, field in zip(offsets(layout), fields, strict=False) if field is not None
    ] == places


def test_what_is_younger_than_the_headers() -> None:
    # struct xattr_args (Linux 6.13): u64 value, u32 size, u32 flags.
    assert xattr.XATTR_ARGS.size == 16
    assert offsets(xattr.XATTR_ARGS) == [0, 8, 12]
    # svm_flags (Linux 5.11) took the place of the first byte of svm_zero.
    assert offsets(net.SOCKADDR_VM)[3] == 12
