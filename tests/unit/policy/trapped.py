"""Trapped calls, made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr, Unix, pack
from pinfold.policy.calls import Argument, Trapped
from pinfold.syscalls.kinds import PATHS, PINNED, Kind
from pinfold.syscalls.table import DESCRIPTOR_ROWS, TABLE, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pinfold.codec.sockaddr import Address

POINTER = 0x7000_0000
TO = {Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL, Kind.MSGHDR, Kind.MMSGHDR}


def address_value(kind: Kind, address: Address | None) -> Any:
    raw = b"" if address is None else pack(address)
    if kind in (Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL):
        return Sockaddr(POINTER, raw, address)
    return Message(POINTER, 0, address, raw, (), b"", 0)


def _names(given: bytes | tuple[bytes, ...] | None) -> tuple[bytes, ...] | None:
    return (given,) if isinstance(given, bytes) else given


def trapped(
    call: str,
    *names: bytes | tuple[bytes, ...] | None,
    address: Address | None = None,
    argv: Sequence[bytes] | None = (b"x",),
    env: Sequence[bytes] | None = (),
    values: Mapping[str, Any] | None = None,
    spelt: Sequence[bytes] = (),
    program: bytes = b"/bin/program",
    real: Mapping[str, bytes] | None = None,
    settled: frozenset[str] = frozenset(),
    loader: Callable[[], bool] = lambda: False,
    registers: Mapping[str, int] | None = None,
    flags: int = 0,
) -> Trapped:
    """Makes a call up.

    Args:
        call: Its name.
        names: What its path arguments mean, in order, then its Unix socket; None for a NULL path.
        address: Its socket address. A send without one has no argument or no name in its message.
        argv: None for NULL, like ``env``.
        values: Other values of pinned arguments, by name.
        spelt: The path arguments as the program gave them.
        program: The program.
        real: Names that links lead to.
        settled: What ``--map`` has settled.
        loader: Whether the loader makes the call.
        registers: Registers by the names of the arguments.
        flags: That register, or what ``open_how`` says.
    """
    row = TABLE.get(call) or Row(call, "", ())
    vectors = {"argv": argv, "envp": env}
    given = {
        **{name: list(vector) for name, vector in vectors.items() if vector is not None},
        "how": OpenHow(POINTER, 0, flags, 0, 0),
        **(values or {}),
    }
    meant: dict[str, tuple[bytes, ...]] = {}
    left, spellings = list(names), list(spelt)
    arguments = []
    for at, (name, kind) in enumerate(row.arguments):
        if kind in PATHS:
            means = _names(left.pop(0) if left else ())
            if means:
                meant[name] = means
            if means is not None:
                path = spellings.pop(0) if spellings else b"".join(means[:1])
                given.setdefault(name, path)
        elif kind in TO and (address is not None or kind is not Kind.SOCKADDR_OR_NULL):
            given.setdefault(name, address_value(kind, address))
            if isinstance(address, Unix):
                meant[name] = _names(left.pop(0) if left else address.path) or ()
        if name in given and kind in PINNED:
            arguments.append(Argument(at, name, kind, given[name], POINTER))
    if row in DESCRIPTOR_ROWS and left and left[0]:
        meant["fd"] = _names(left[0]) or ()
    held = [
        (registers or {}).get(name, flags if name == "flags" else 0) for name, _ in row.arguments
    ]
    return Trapped(
        row,
        tuple(held + [0] * (6 - len(held))),
        program,
        tuple(arguments),
        meant,
        real or {},
        settled,
        1000,
        1000,
        loader,
    )
