"""The one rule of all attacks, over whole calls; every supervisor here applies the same.

No call may name ``secret-D`` (``stage.py``). Besides, each case of the deep races (``attacks/``)
has an allowed and a denied form that differ in one byte somewhere behind a pointer. What is denied
here is what those programs count as an escape.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from pinfold.attack.stage import DENIED as SECRET
from pinfold.codec.message import descriptors
from pinfold.codec.sockaddr import Inet, Unix
from pinfold.policy.calls import ALLOWED, denied
from pinfold.syscalls.kinds import PATHS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pinfold.codec.message import Message
    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Later, Trapped, Verdict
    from pinfold.syscalls.forms import Forms
    from pinfold.syscalls.kinds import Kind

_SECRET: Final = os.fsencode(SECRET)
_PASSED: Final = 101
"""Number of the descriptor that must not be passed on."""
_SO_PRIORITY: Final = 12
_PRIORITY: Final = struct.pack("=i", 2)
_RESOLVE_NO_SYMLINKS: Final = 0x04


def _execve(call: Trapped) -> bool:
    return call.value("argv").values[1:2] == [b"--mode=D"] or any(
        one.startswith(b"LD_PRELOAD=") for one in call.value("envp").values
    )


def _connect(call: Trapped) -> bool:
    return _is_denied(call.value("address").address)


def _is_denied(address: Address | None) -> bool:
    if isinstance(address, Inet):
        return address.port % 2 == 1
    return isinstance(address, Unix) and address.path.endswith(b"/peer-D")


def _bind(call: Trapped) -> bool:
    address = call.value("address").address
    return isinstance(address, Unix) and address.path.endswith(b"/bound-D")


def _send(message: Message) -> bool:
    return _is_denied(message.name) or _PASSED in descriptors(message.control)


def _setsockopt(call: Trapped) -> bool:
    return call.registers[2] == _SO_PRIORITY and call.value("value") == _PRIORITY


def _rename(call: Trapped) -> bool:
    old, new = call.value("old_path"), call.value("new_path")
    if b"/from-" in old and b"/to-" in new:
        return bool(old[-1] != new[-1])
    return bool(old.endswith(b"/old-D") or new.endswith(b"/new-D"))


def _openat2(call: Trapped) -> bool:
    how = call.value("how")
    return bool(how.flags & os.O_ACCMODE or not how.resolve & _RESOLVE_NO_SYMLINKS)


def _setxattr(call: Trapped) -> bool:
    return bool(call.value("name") == b"user.D" or call.value("value") == b"D")


DENIED: Final[dict[str, Callable[[Trapped], bool]]] = {
    "execve": _execve,
    "connect": _connect,
    "bind": _bind,
    "sendto": _connect,
    "sendmsg": lambda call: _send(call.value("message")),
    "sendmmsg": lambda call: _send(call.value("messages")),
    "setsockopt": _setsockopt,
    "rename": _rename,
    "openat2": _openat2,
    "setxattr": _setxattr,
    "symlink": lambda call: bool(call.value("target").endswith(b"-D")),
    "utimensat": lambda call: int.from_bytes(call.value("times")[:8], "little") == 2,
}
"""By the name of a call, whether it is denied."""


def _names_the_secret(call: Trapped) -> bool:
    said = [one.value for one in call.arguments if one.kind in PATHS]
    meant = [name for names in call.names.values() for name in names]
    return any(path.rpartition(b"/")[2] == _SECRET for path in (*said, *meant))


def judge(call: Trapped) -> Verdict:
    """Returns what a supervisor is to do about a call."""
    if _names_the_secret(call):
        return denied("the secret")
    is_denied = DENIED.get(call.row.name)
    try:
        return denied("attack") if is_denied is not None and is_denied(call) else ALLOWED
    except KeyError:
        # An argument is NULL, or a path cannot be read: both forms of each case have all of them.
        return ALLOWED


class AttackJudge:
    """The rule, as a policy.

    Args:
        real: Whether names that links lead to are judged as well.
    """

    literals: tuple[bytes, ...] = ()
    whole: frozenset[str] = frozenset()
    passing: Mapping[str, Forms] = {}
    addresses = False
    programs = False

    def __init__(self, *, real: bool = False) -> None:
        self.real = real
        self.calls: Mapping[str, frozenset[Kind]] = {}

    def steady(self, name: str) -> bool:
        """Returns True: the rule looks at what a call passes, and nothing else."""
        del name
        return True

    def judge(self, call: Trapped) -> Verdict | Later:
        """Returns what is to be done about a call."""
        return judge(call)

    def executed(self, program: bytes, by: bytes) -> Verdict | None:
        """Has nothing against any program."""

    def close(self) -> None:
        """Has nothing to close."""
