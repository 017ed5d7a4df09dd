"""Decoders of pointer arguments, over task memory that holds anything.

An input is a task's memory (pages, some of them missing, words that often are pointers into it), a
slot's size, and calls of every kind with pointers and sizes. Of each decoder:

- it raises nothing but ``Refused`` and ``SlotFull``, and takes a slot that is large enough;
- it writes nothing outside its slot, and every pointer that the kernel is going to follow leads
  into the slot or to where nothing can be read;
- a second reader (``tests/unit/codec/kernel.py``, written from what the kernel does) finds in the
  image what it finds in the task, or the same errno; and where other threads rewrite the memory all
  the while, it finds in the image what the decoder said is there;
- what is written back (``arguments.write``, ``encode``) is what is read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main

with instrumented(__name__):
    from pinfold.codec import message, openhow, sockaddr, text, vector, xattr
    from pinfold.codec.base import UNREADABLE, Refused, SlotFull
    from pinfold.codec.image import FAULT
    from pinfold.errors import PolicyError
    from pinfold.supervisor import arguments
    from pinfold.supervisor.shapes import EVERYTHING
    from pinfold.syscalls.kinds import FIXED, Kind

from tests.unit.codec.kernel import Errno, Kernel, Sent
from tests.unit.codec.memory import (
    AT,
    BASE,
    BEFORE,
    BytesMemory,
    RestlessMemory,
    in_growing_slots,
    slot,
    untouched_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.codec.image import Image
    from pinfold.codec.message import Message
    from pinfold.codec.sockaddr import Sockaddr
    from pinfold.codec.vector import StringVector

PAGE: Final = 64
PAGES: Final = 8
LARGE: Final = 1 << 20
ODD: Final = (
    *(0, 1, 8, AT - 4, AT + PAGE * PAGES, 0x666000, BASE, BASE + 64, (1 << 47) - 4096, 1 << 47),
    *((1 << 63) - 1, 1 << 63, UNREADABLE - 1, UNREADABLE, UNREADABLE + 1, (1 << 64) - 1),
)
"""Addresses that are nothing in particular."""
SIZES: Final = (
    *(0, 1, 2, 3, 4, 8, 12, 16, 24, 28, 32, 40, 56, 64, 110, 128, 129, 255, 256, 4096, 4097, 65536),
    *(65537, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1),
)
CALLS: Final = tuple(
    (shape.row.name, at, kind)
    for shape in EVERYTHING.values()
    for at, (_, kind) in enumerate(shape.row.arguments)
    if kind in arguments.READABLE
)
"""Every argument of every call that is read by kind."""


def address(given: Given) -> int:
    """Returns an address, mostly one where there is something."""
    how = given.number(1)
    if how < 0xC0:
        return AT + how % PAGES * PAGE + given.below(PAGE)
    if how < 0xE0:
        # Near the end of a page.
        return AT + (1 + how % PAGES) * PAGE - given.below(9)
    return given.pick(ODD) if how < 0xF8 else given.number()


def size(given: Given) -> int:
    """Returns a length, mostly one that means something."""
    how = given.number(1)
    return SIZES[how % len(SIZES)] if how < 0xA0 else how if how < 0xF0 else given.number()


def pages(given: Given) -> dict[int, bytes]:
    """Returns a task's memory."""
    missing = given.number(1)
    found = {}
    for number in range(PAGES):
        if missing >> number & 1:
            continue
        words = b""
        while len(words) < PAGE:
            how = given.number(1)
            if how < 0x60:
                words += address(given).to_bytes(8, "little")
            elif how < 0x80:
                words += size(given).to_bytes(8, "little")
            elif how < 0xC0:
                words += given.take(8)
            else:
                words += given.take(how & 15)
        found[AT + number * PAGE] = words[:PAGE]
    return found


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    how = given.number(1)
    seed = given.number(2)
    # Short ones grow several times on their way.
    first = given.pick((64, 200, 1024, LARGE))
    layout = pages(given)
    for _ in range(4):
        memory = RestlessMemory(layout, PAGE, seed) if how & 1 else BytesMemory(layout, PAGE)
        given.pick(CHECKS)(given, memory, first)
        if not given:
            break


def grown(memory: BytesMemory, build: Callable[[Image], Any], first: int) -> Any:
    """Returns what a decoder makes in a slot that is large enough; None if it refuses the call."""
    try:
        if isinstance(memory, RestlessMemory):
            # What was asked for may be too little for what is there next time.
            found = build(slot(memory, LARGE))
        else:
            found = in_growing_slots(memory, build, first)
    except Refused as refused:
        assert refused.errno == errno.E2BIG
        found = None
    except SlotFull:
        assert isinstance(memory, RestlessMemory)
        found = None
    assert untouched_around(memory)
    return found


def outcome(call: Callable[..., Any], *given: int) -> Any:
    """Returns what the second reader says."""
    try:
        return call(*given)
    except Errno as error:
        return error


def both(memory: BytesMemory) -> tuple[Kernel, Kernel | None]:
    """Returns the reader of the image; and that of the task, where it would see the same."""
    still = not isinstance(memory, RestlessMemory)
    return Kernel(memory, pinned=True), Kernel(memory, pinned=False) if still else None


def slot_size(memory: BytesMemory) -> int:
    """Returns how large the slot is."""
    return len(memory.view) - 2 * BEFORE


def in_slot(memory: BytesMemory, pointer: int, length: int = 0) -> None:
    """Holds that a pointer is one that the kernel may follow."""
    end = BASE + slot_size(memory)
    assert pointer == UNREADABLE or BASE <= pointer <= pointer + length <= end, hex(pointer)


def _string(given: Given, memory: BytesMemory, first: int) -> None:
    at, limit = address(given), given.pick((1, 2, 64, 250, 4096))

    def read(image: Image) -> tuple[bytes | int, int]:
        span = image.copy_string(at, limit)
        assert image.used <= slot_size(memory)
        if isinstance(span, int):
            assert image.used == 0
            return span, UNREADABLE
        return image.bytes_at(*span), image.address_of(span.offset)

    found = grown(memory, read, first)
    if found is None:
        return
    said, pointer = found
    pinned, task = both(memory)
    if isinstance(said, bytes):
        assert pinned.string(pointer, limit) == said
    if task is not None:
        expected = outcome(task.string, at, limit)
        if isinstance(expected, bytes):
            assert said == expected
        else:
            assert said == (-errno.ENAMETOOLONG if expected is None else FAULT)


def _vectors(given: Given, memory: BytesMemory, first: int) -> None:
    argv, envp = address(given), address(given)

    def read(image: Image) -> tuple[StringVector, StringVector]:
        one = vector.decode(image, argv)
        return one, vector.decode(image, envp, vector.LIMIT - one.cost)

    found = grown(memory, read, first)
    if found is None:
        return
    for each in found:
        assert each.cost <= vector.LIMIT
        assert len(each.values) == each.length
        if not each.absent:
            in_slot(memory, each.pointer)
    pinned, task = both(memory)
    pointers = found[0].pointer, found[1].pointer
    seen = outcome(pinned.execve, *pointers)
    assert isinstance(seen, Errno) == (found[0].faulted or found[1].faulted)
    if not isinstance(seen, Errno):
        assert seen == (found[0].values, found[1].values)
    if task is not None:
        assert seen == outcome(task.execve, argv, envp)


def _address(given: Given, memory: BytesMemory, first: int) -> None:
    at, length = address(given), size(given)
    found: Sockaddr | None = grown(memory, lambda image: sockaddr.decode(image, at, length), first)
    assert found is not None
    pinned, task = both(memory)
    seen = outcome(pinned.move_addr, found.pointer, length)
    if isinstance(seen, Errno):
        assert found.raw == b""
    else:
        assert seen == found.raw
    if task is not None:
        assert seen == outcome(task.move_addr, at, length)
    if found.address is not None and found.raw:
        _spelt(found.raw)


def _spelt(raw: bytes) -> None:
    # An address as text is that address again, if it is of a kind that has a text.
    meant = sockaddr.parse(raw)
    shown = sockaddr.show(meant)
    assert shown.isprintable()
    if shown.startswith(("family-", "short:")):
        return
    assert sockaddr.parse(sockaddr.pack(meant)) == meant
    assert sockaddr.parse_text(shown.encode("utf-8", "surrogateescape")) == meant


def _message(given: Given, memory: BytesMemory, first: int) -> None:
    at = address(given)
    found: Message | None = grown(memory, lambda image: message.decode(image, at), first)
    if found is None:
        return
    in_slot(memory, found.pointer, 56)
    pinned, task = both(memory)
    seen = outcome(pinned.sendmsg, found.pointer)
    if isinstance(seen, Sent):
        said = found.raw_name or None, list(found.iovecs), found.control, found.flags
        assert seen == said
    if task is not None:
        assert seen == outcome(task.sendmsg, at)
    for number in message.descriptors(found.control):
        assert -(1 << 31) <= number < 1 << 31
    message.routes(found.control)
    assert sum(16 + len(each.data) for each in message.control_messages(found.control)) <= len(
        found.control
    )


def _how(given: Given, memory: BytesMemory, first: int) -> None:
    at, length = address(given), size(given)
    found = grown(memory, lambda image: openhow.decode(image, at, length), first)
    pinned, task = both(memory)
    if found is None:
        assert task is None or outcome(task.openat2, at, length) == Errno(errno.E2BIG)
        return
    seen = outcome(pinned.openat2, found.pointer, length)
    if not isinstance(seen, Errno):
        assert seen == found[2:]
    if task is not None:
        assert seen == outcome(task.openat2, at, length)


def _xattr(given: Given, memory: BytesMemory, first: int) -> None:
    at, length = address(given), size(given)
    named = grown(memory, lambda image: xattr.decode_name(image, at), first)
    if named is not None:
        pinned, task = both(memory)
        seen = outcome(pinned.xattr_name, named.pointer)
        assert isinstance(seen, Errno) or seen == named.data
        assert task is None or seen == outcome(task.xattr_name, at)
    found = grown(memory, lambda image: xattr.decode_args(image, at, length, sets=True), first)
    pinned, task = both(memory)
    if found is None:
        assert task is None or outcome(task.setxattrat, at, length) == Errno(errno.E2BIG)
        return
    seen = outcome(pinned.setxattrat, found.pointer, length)
    assert isinstance(seen, Errno) or seen == (found.value, found.flags)
    assert task is None or seen == outcome(task.setxattrat, at, length)


def _any(given: Given, memory: BytesMemory, first: int) -> None:
    call, number, kind = given.pick(CALLS)
    at, length = address(given), size(given)
    # What a kind makes of the arguments before it: their number, and what vectors cost.
    before: list[Any] = [None] * number
    images: list[Image] = []

    def read(image: Image) -> Any:
        images[:] = [image]
        return arguments.read(image, call, kind, at, length, before)

    found = grown(memory, read, first)
    if found is None:
        return
    image = images[0]
    assert image.used <= slot_size(memory)
    if found.pointer:
        in_slot(memory, found.pointer)
    if isinstance(found.value, bytes) and found.pointer not in (0, UNREADABLE):
        assert BASE + image.used >= found.pointer + len(found.value)
        assert image.bytes_at(found.pointer - BASE, len(found.value)) == found.value
    _rewritten(given, memory, image, kind, found)


def _rewritten(
    given: Given, memory: BytesMemory, image: Image, kind: Kind, found: arguments.Found
) -> None:
    new = _new(given, kind, found.value)
    try:
        value, pointer, length = arguments.write(image, kind, found.value, new)
    except (SlotFull, ValueError):
        assert untouched_around(memory)
        return
    assert untouched_around(memory)
    in_slot(memory, pointer)
    if pointer == UNREADABLE:
        return
    pinned = Kernel(memory, pinned=True)
    if kind is Kind.STRINGS:
        assert pinned.execve(pointer, 0)[0] == value
    elif kind in (Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL):
        assert length is not None
        assert pinned.move_addr(pointer, length) == value.raw == new
    elif kind in (Kind.MSGHDR, Kind.MMSGHDR):
        seen = outcome(pinned.sendmsg, pointer)
        assert isinstance(seen, Errno) or (seen.name or b"") == new
    elif kind is Kind.BUFFER_IN or kind in FIXED:
        assert pinned.copy_from_user(pointer, len(new)) == new
    elif kind in (Kind.TEXT, Kind.WORD, Kind.WORD_OR_NULL, Kind.NAME):
        assert pinned.string(pointer, len(new) + 1) == new


def _new(given: Given, kind: Kind, value: Any) -> Any:
    if kind is Kind.STRINGS:
        return [given.text() for _ in range(given.below(4))]
    if kind is Kind.OPEN_HOW:
        return value._replace(flags=given.number(), mode=given.number())
    return given.take(FIXED[kind]) if kind in FIXED and given.number(1) & 1 else given.text(140)


def _texts(given: Given, memory: BytesMemory, first: int) -> None:
    del memory, first
    raw = given.text(128)
    shown = text.escaped(raw)
    assert shown.isprintable()
    assert text.unescaped(shown.encode()) == raw
    with contextlib.suppress(ValueError):
        text.unescaped(raw)
    try:
        meant = sockaddr.parse_text(raw)
    except PolicyError as error:
        assert str(error).isprintable()
        return
    assert sockaddr.parse_text(sockaddr.show(meant).encode()) == meant
    assert struct.unpack("=H", sockaddr.pack(meant)[:2])[0] < 1 << 16


CHECKS: Final = (_string, _vectors, _address, _message, _how, _xattr, _any, _any, _texts)

if __name__ == "__main__":
    main("codec", one)
