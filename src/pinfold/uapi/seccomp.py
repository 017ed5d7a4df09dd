"""``linux/seccomp.h`` and ``linux/audit.h``: filter returns, listener ioctls, struct layouts."""

import struct
from typing import Final

from pinfold.uapi.ioctl import iow, iowr

SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_GET_ACTION_AVAIL: Final = 2
SECCOMP_GET_NOTIF_SIZES: Final = 3

SECCOMP_FILTER_FLAG_TSYNC: Final = 1 << 0
SECCOMP_FILTER_FLAG_SPEC_ALLOW: Final = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH: Final = 1 << 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5
SECCOMP_FILTER_FLAG_REDIRECT: Final = 1 << 6
"""Proposed, not in any released kernel (docs: the native ABI)."""

SECCOMP_RET_KILL_PROCESS: Final = 0x80000000
SECCOMP_RET_KILL_THREAD: Final = 0x00000000
SECCOMP_RET_TRAP: Final = 0x00030000
SECCOMP_RET_ERRNO: Final = 0x00050000
SECCOMP_RET_USER_NOTIF: Final = 0x7FC00000
SECCOMP_RET_TRACE: Final = 0x7FF00000
SECCOMP_RET_LOG: Final = 0x7FFC0000
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
SECCOMP_RET_ACTION_FULL: Final = 0xFFFF0000
SECCOMP_RET_DATA: Final = 0x0000FFFF

SECCOMP_USER_NOTIF_FLAG_CONTINUE: Final = 1
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: Final = 1
SECCOMP_ADDFD_FLAG_SETFD: Final = 1
SECCOMP_ADDFD_FLAG_SEND: Final = 2

AUDIT_ARCH_X86_64: Final = 0xC000003E
AUDIT_ARCH_I386: Final = 0x40000003
AUDIT_ARCH_AARCH64: Final = 0xC00000B7
X32_SYSCALL_BIT: Final = 0x40000000

SECCOMP_DATA: Final = struct.Struct("=iIQ6Q")
"""``struct seccomp_data``: nr, arch, instruction_pointer, args[6]."""

SECCOMP_NOTIF: Final = struct.Struct("=QII" + "iIQ6Q")
"""``struct seccomp_notif``: id, pid (a thread id), flags, then ``seccomp_data``."""

SECCOMP_NOTIF_RESP: Final = struct.Struct("=QqiI")
"""``struct seccomp_notif_resp``: id, val, error (negative errno), flags."""

SECCOMP_NOTIF_ADDFD: Final = struct.Struct("=QIIII")
"""``struct seccomp_notif_addfd``: id, flags, srcfd, newfd, newfd_flags."""

SECCOMP_NOTIF_ID: Final = struct.Struct("=Q")
"""What ``SECCOMP_IOCTL_NOTIF_ID_VALID`` is asked about."""

SECCOMP_IOCTL_NOTIF_RECV: Final = iowr("!", 0, SECCOMP_NOTIF.size)
SECCOMP_IOCTL_NOTIF_SEND: Final = iowr("!", 1, SECCOMP_NOTIF_RESP.size)
SECCOMP_IOCTL_NOTIF_ID_VALID: Final = iow("!", 2, SECCOMP_NOTIF_ID.size)
SECCOMP_IOCTL_NOTIF_ADDFD: Final = iow("!", 3, SECCOMP_NOTIF_ADDFD.size)
SECCOMP_IOCTL_NOTIF_SET_FLAGS: Final = iow("!", 4, 8)

SECCOMP_NOTIF_PIN_INSTALL: Final = struct.Struct("=QIIQQ")
"""Proposed ``struct seccomp_notif_pin_install``: id, flags, memfd, target_addr, size."""

SECCOMP_NOTIF_PIN_INSTALL_V1: Final = struct.Struct("=QIIQQQ")
"""The later revision, with a trailing offset into the memfd."""

SECCOMP_NOTIF_SEND_REDIRECT: Final = struct.Struct("=QIIII6Q6Q")
"""Proposed ``struct seccomp_notif_send_redirect``: id, flags, args_mask, ptr_mask, _pad (later
revision: memfd), args, ptr_len."""

SECCOMP_IOCTL_NOTIF_PIN_INSTALL: Final = iow("!", 5, SECCOMP_NOTIF_PIN_INSTALL.size)
SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1: Final = iowr("!", 5, SECCOMP_NOTIF_PIN_INSTALL_V1.size)
SECCOMP_IOCTL_NOTIF_SEND_REDIRECT: Final = iow("!", 6, SECCOMP_NOTIF_SEND_REDIRECT.size)
SECCOMP_REDIRECT_FLAG_CONTINUE: Final = 1
