"""A notified call's arguments, copied deep into an image: for supervisors that have a listener."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec.base import Refused
from pinfold.policy.calls import Argument
from pinfold.supervisor import arguments
from pinfold.syscalls.kinds import PATHS
from pinfold.uapi.fs import PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinfold.codec.image import Image
    from pinfold.syscalls.kinds import Kind
    from pinfold.syscalls.table import Row


class Copied(NamedTuple):
    """What could be copied, and the first error of what could not."""

    arguments: tuple[Argument, ...]
    errno: int
    """0 when everything was read."""


def copied(image: Image, row: Row, registers: Sequence[int]) -> Copied:
    """Copies whatever the pointers of a call lead to.

    Raises:
        SlotFull: A larger slot is needed.
    """
    found: list[Argument] = []
    failed = 0
    for index, (name, kind) in enumerate(row.arguments):
        following = registers[index + 1] if index + 1 < len(registers) else 0
        try:
            one = _read(image, row.name, kind, registers[index], following, found)
        except Refused as refused:
            failed = failed or refused.errno
            continue
        if isinstance(one, int):
            failed = failed or one
        elif one is not None:
            found.append(Argument(index, name, kind, *one))
    return Copied(tuple(found), failed)


def _read(
    image: Image, call: str, kind: Kind, address: int, size: int, before: list[Argument]
) -> tuple[object, int] | int | None:
    # A value and its pointer; an errno; None for what is no pointer, or NULL.
    if kind in PATHS:
        if not address:
            return None if kind in _NULL_PATHS else errno.EFAULT
        span = image.copy_string(address, PATH_MAX)
        if isinstance(span, int):
            return -span
        return image.bytes_at(*span), image.address_of(span.offset)
    if kind not in arguments.READABLE:
        return None
    return arguments.read(image, call, kind, address, size, [one.value for one in before])


_NULL_PATHS: Final = PATHS - {kind for kind in PATHS if kind.value == "path"}
