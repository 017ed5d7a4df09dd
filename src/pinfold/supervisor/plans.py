"""What becomes of a call: it is made with what is in its slot, or something else is done."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from pinfold.backends.base import Deny, Inject, Kill, Redirect, Return, SendFirst, Serve
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE
from pinfold.supervisor import arguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pinfold.backends.base import Plan
    from pinfold.codec.image import Image
    from pinfold.policy.calls import Argument, Verdict
    from pinfold.supervisor.decision import Judged
    from pinfold.supervisor.reading import Read
    from pinfold.supervisor.shapes import Shape

_INT_MAX: Final = (1 << 31) - 1


def make(
    call: Shape,
    judged: Iterable[Judged],
    others: Iterable[Argument],
    scalars: dict[int, int],
) -> Plan:
    """Returns the plan by which a call is made with what is in its slot.

    Args:
        call: The call.
        judged: Its paths.
        others: Its further pointers.
        scalars: New values of numbers, by argument.
    """
    if call.batch:
        for one in others:
            return SendFirst(one.pointer)
    pointers = [(one.argument, one.pointer) for one in judged]
    pointers += [(one.at, one.pointer) for one in others]
    return Redirect((*pointers, *scalars.items()))


def answer(read: Read, verdict: Verdict) -> Plan:
    """Returns the plan of a verdict by which the call is not made; what makes no sense, denies."""
    action = verdict.action
    if action == KILL:
        return Kill()
    value = verdict.value
    if action == RETURN and isinstance(value, int):
        return Return(value)
    if action == INJECT and isinstance(value, int):
        if not 0 <= value <= _INT_MAX:
            return Deny(errno.EBADF)
        return Inject(value, read.closes_on_exec)
    if action == SERVE:
        flags = read.open_flags
        if not read.call.opens or not isinstance(value, bytes):
            return Deny(errno.EPERM)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            return Deny(errno.EACCES)
        if flags & os.O_DIRECTORY:
            return Deny(errno.ENOTDIR)
        return Serve(value, read.closes_on_exec)
    return Deny(verdict.errno or errno.EACCES)


def written(image: Image, was: Argument, new: Any, scalars: dict[int, int]) -> Argument:
    """Returns an argument with another value, which is in the slot then.

    Args:
        image: The slot.
        was: The argument.
        new: Its new value; see ``policy.calls.Verdict``.
        scalars: Gets the new length, where that is an argument, too.

    Raises:
        ValueError: It cannot be written that way.
        SlotFull: A larger slot is needed.
    """
    value, pointer, size = arguments.write(image, was.kind, was.value, new)
    if size is not None:
        scalars[was.at + 1] = size
    return was._replace(value=value, pointer=pointer)
