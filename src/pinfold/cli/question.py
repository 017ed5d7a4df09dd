"""A question about one call: what is shown of it, and what makes two questions the same (pure).

Everything that comes from the program is escaped, and bounded: what is too long shows how it begins
*and* how it ends, and how much is left out, so that nothing can be hidden behind padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec import sockaddr
from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr
from pinfold.codec.vector import StringVector
from pinfold.codec.xattr import XattrArgs
from pinfold.paths import printable
from pinfold.policy.judging.access import access_of
from pinfold.syscalls.kinds import POINTERS, Kind, show_at_flags, show_open_flags

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pinfold.policy.calls import Argument, Trapped

_NAME_SHOWN: Final = 600
"""Characters of a name or an argument."""
_ARGV_SHOWN: Final = 1200
"""Characters of a whole argument vector."""
_BYTES_SHOWN: Final = 64
_LOADER: Final = b"LD_"
"""What variables begin with that have the loader run other code than that of the program."""
_LOW: Final = 0xFFFFFFFF
_WORDS: Final = frozenset({Kind.OPEN_FLAGS, Kind.AT_FLAGS, Kind.FLAGS, Kind.MODE})
_HANDLES: Final = frozenset({Kind.FD, Kind.DIRFD, Kind.SIZE})
"""Numbers that mean something only together with what they stand for."""


class Question(NamedTuple):
    """What a person is asked."""

    key: Hashable
    """The same for calls that one answer is good for."""
    lines: tuple[str, ...]
    """What is shown, safe for a terminal."""


def question(call: Trapped, rule: str) -> Question:
    """Returns the question about a call.

    Args:
        call: The call, with its arguments where they are pinned.
        rule: Name of the rule that asks.
    """
    program = _shown(call.program, _NAME_SHOWN)
    who = _shown(rule.encode("utf-8", "backslashreplace"), _NAME_SHOWN)
    what = f"may {program or 'a program without a name'} (process {call.pid}) make this call?"
    return Question(_key(call, rule), (f"{who} asks: {what}", *_call_lines(call)))


def _key(call: Trapped, rule: str) -> Hashable:
    # The same program, the same call, the same subjects, numbers and argv; not the same registers.
    pointers = {one.name for one in call.arguments} | set(call.names)
    kinds = call.row.arguments
    numbers: tuple[object, ...] = tuple(
        number & _LOW if kind in _WORDS else number
        for (name, kind), number in zip(kinds, call.registers, strict=False)
        if kind not in POINTERS and kind not in _HANDLES and name not in pointers
    )
    if not kinds:
        numbers = call.registers
    access = tuple((name, *sorted(words)) for name, words in sorted(access_of(call).items()))
    values = tuple((one.name, _value(one, call)) for one in call.arguments)
    names = tuple(sorted(call.names.items()))
    return rule, call.program, call.row.name, names, access, numbers, values


def _value(argument: Argument, call: Trapped) -> Hashable:
    value = argument.value
    if argument.name in call.names and isinstance(value, bytes):
        # It is spelt another way each time, and the names say what it means.
        return None
    if argument.kind is Kind.STRINGS:
        strings = _strings(value)
        if argument.name == "envp":
            strings = [one for one in strings if one.startswith(_LOADER)]
        return tuple(strings)
    if isinstance(value, Sockaddr):
        return value.address, value.raw
    if isinstance(value, Message):
        return value.name, value.control
    if isinstance(value, OpenHow):
        return value.flags, value.mode, value.resolve
    if isinstance(value, XattrArgs):
        return value.value, value.flags
    return bytes(value) if isinstance(value, bytes) else None


def _call_lines(call: Trapped) -> list[str]:
    found = [f"  {call.row.name} {_numbers(call)}".rstrip()]
    access = access_of(call)
    given = {one.name: one for one in call.arguments}
    for name, names in call.names.items():
        does = ", ".join(sorted(access.get(name, ())))
        shown = " or ".join(_shown(one, _NAME_SHOWN) for one in names)
        found.append(f"  {name}: {shown}" + f" ({does})" * bool(does))
    for name, one in given.items():
        if name in call.names and isinstance(one.value, bytes):
            continue
        text = _argument(name, one)
        if text is not None:
            found.append(f"  {name}: {text}")
    return found


def _numbers(call: Trapped) -> str:
    found = []
    for (name, kind), number in zip(call.row.arguments, call.registers, strict=False):
        if kind is Kind.OPEN_FLAGS:
            found.append(show_open_flags(number & _LOW))
        elif kind is Kind.AT_FLAGS:
            found.append(f"{name} {show_at_flags(number & _LOW)}")
        elif kind is Kind.MODE:
            found.append(f"{name} {number & _LOW:#o}")
        elif kind in (Kind.FLAGS, Kind.NUMBER, Kind.INTEGER):
            found.append(f"{name} {number:#x}" if number > 9 else f"{name} {number}")
    if not call.row.arguments:
        found = [f"{number:#x}" for number in call.registers]
    return ", ".join(found)


def _argument(name: str, argument: Argument) -> str | None:
    value = argument.value
    if argument.kind is Kind.STRINGS:
        strings = _strings(value)
        if name == "envp":
            strings = [one for one in strings if one.startswith(_LOADER)]
            return _vector(strings) if strings else None
        return _vector(strings)
    if isinstance(value, Sockaddr):
        return "cannot be read" if value.address is None else _address(value.address)
    if isinstance(value, Message):
        return "to the peer" if value.name is None else f"to {_address(value.name)}"
    if isinstance(value, OpenHow):
        return f"{show_open_flags(value.flags)}, mode {value.mode:#o}, resolve {value.resolve:#x}"
    if isinstance(value, bytes):
        return _shown(value, _NAME_SHOWN) if b"\0" not in value else _hex(value)
    return None


def _address(address: sockaddr.Address) -> str:
    return _cut(printable(sockaddr.show(address).encode("utf-8", "backslashreplace")), _NAME_SHOWN)


def _strings(value: Any) -> Sequence[bytes]:
    return value.values if isinstance(value, StringVector) else list(value)


def _vector(strings: Sequence[bytes]) -> str:
    room = _ARGV_SHOWN
    shown: list[str] = []
    for one in strings:
        text = '"' + _shown(one, _NAME_SHOWN).replace('"', '\\"') + '"'
        room -= len(text)
        if room < 0:
            break
        shown.append(text)
    left = len(strings) - len(shown)
    return "[" + ", ".join(shown) + "]" + f" and {left} more" * bool(left)


def _hex(value: bytes) -> str:
    return value[:_BYTES_SHOWN].hex() + f"… ({len(value)} bytes)" * (len(value) > _BYTES_SHOWN)


def _shown(data: bytes, most: int) -> str:
    return _cut(printable(data), most)


def _cut(text: str, most: int) -> str:
    left = len(text) - most
    if left <= 0:
        return text
    half = most // 2
    return f"{text[:half]} [… {left} more characters …] {text[-half:]}"
