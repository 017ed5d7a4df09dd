"""New arguments for a call: what ``Verdict.replace`` says, by the names of the table (pure).

Rules and handlers speak of a path, of argv, the environment and an address; a call has an
``old_path`` and a ``new_path``, a ``message`` with an address in it, or nothing of the kind. What
does not fit the call is an error, and whoever asked for it denies the call: a redirect that quietly
does nothing would let the call do what it was not to do.

An argument that is NULL cannot be replaced.

A socket that was opened for IPv6 takes no IPv4 address in ``connect``. So an IPv4 address that
takes the place of an IPv6 one is written as an IPv4-mapped one, which means the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Final

from pinfold.codec import sockaddr
from pinfold.codec.message import Message
from pinfold.codec.sockaddr import Inet, Inet6, Sockaddr, Unix
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.uapi.fs import PATH_MAX

if TYPE_CHECKING:
    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Trapped

ADDRESSES: Final = frozenset({Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL, Kind.MSGHDR, Kind.MMSGHDR})
"""Kinds of arguments that have a socket address."""


def replacement(
    call: Trapped,
    *,
    path: bytes | None = None,
    argv: Sequence[bytes] | None = None,
    env: Mapping[bytes, bytes] | Sequence[bytes] | None = None,
    address: Address | None = None,
    argument: str | None = None,
) -> dict[str, Any]:
    """Returns new values of a call's arguments, by their names in the table.

    Args:
        call: The call.
        path: A new path, absolute in the supervisor's view; for an argument that is a socket
            address, the path of a Unix socket.
        argv: A new argument vector.
        env: A new environment: values by name, or elements as they are.
        address: A new socket address.
        argument: Which argument the path or the address is for; the first one that can be, if None.

    Raises:
        ValueError: The call has no such argument, or the value cannot be one.
    """
    found: dict[str, Any] = {}
    if path is not None:
        name, kind, value = _argument(call, PATHS, argument, "path", ADDRESSES)
        found[name] = (
            _path(path) if kind in PATHS else _address(call, Unix(_absolute(path)), value, name)
        )
    if address is not None:
        name, _, value = _argument(call, ADDRESSES, argument, "socket address")
        found[name] = _address(call, address, value, name)
    if argv is not None:
        name, _, _ = _argument(call, _VECTORS, "argv", "argument vector")
        found[name] = _strings(argv, name)
    if env is not None:
        name, _, _ = _argument(call, _VECTORS, "envp", "environment")
        found[name] = _variables(env) if isinstance(env, Mapping) else _strings(env, "environment")
    return found


_VECTORS: Final = frozenset({Kind.STRINGS})


def _argument(
    call: Trapped,
    kinds: frozenset[Kind],
    wanted: str | None,
    what: str,
    further: frozenset[Kind] = frozenset(),
) -> tuple[str, Kind, Any]:
    # The argument's name, kind and value. Without a name, `further` kinds come after the others.
    for taken in (kinds | further,) if wanted is not None else (kinds, further):
        for name, kind in call.row.arguments:
            if kind not in taken or (wanted is not None and name != wanted):
                continue
            for argument in call.arguments:
                if argument.name == name:
                    return name, kind, argument.value
            raise ValueError(f"{call.row.name} was called without {_article(what)} to replace")
    named = f" {wanted!r}" if wanted not in (None, "argv", "envp") else ""
    raise ValueError(f"{call.row.name} has no {what}{named}")


def _article(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


# Handlers are Python, and their values may be of any type.
def _absolute(path: Any) -> bytes:
    if not isinstance(path, bytes) or not path.startswith(b"/"):
        raise ValueError(f"a path to use instead is bytes and begins with `/`: {path!r}")
    if b"\0" in path:
        raise ValueError(f"a path cannot have a NUL byte: {path!r}")
    return path


def _path(path: bytes) -> bytes:
    if len(_absolute(path)) >= PATH_MAX:
        raise ValueError(f"a path has at most {PATH_MAX - 1} bytes, not {len(path)}")
    return path


def _strings(values: Any, what: str) -> list[bytes]:
    if (
        isinstance(values, bytes)
        or not isinstance(values, Sequence)
        or not all(isinstance(one, bytes) for one in values)
    ):
        raise ValueError(f"a new {what} is a sequence of bytes: {values!r:.80}")
    for one in values:
        if b"\0" in one:
            raise ValueError(f"an element of a new {what} cannot have a NUL byte: {one!r:.80}")
    return list(values)


def _variables(values: Mapping[Any, Any]) -> list[bytes]:
    for name, value in values.items():
        if not isinstance(name, bytes) or not name or b"=" in name or b"\0" in name:
            raise ValueError(f"no variable can have this name: {name!r:.80}")
        if not isinstance(value, bytes) or b"\0" in value:
            raise ValueError(f"no variable can have this value: {value!r:.80}")
    return [name + b"=" + value for name, value in values.items()]


def _address(call: Trapped, new: Any, value: Any, name: str) -> Address:
    if not isinstance(new, sockaddr.Address):
        raise ValueError(f"no socket address: {new!r:.80}")  # noqa: TRY004 (one for all misfits)
    address: Address = new
    was = value.address if isinstance(value, Sockaddr) else None
    if isinstance(value, Message):
        if value.name is None:
            raise ValueError(f"the {name} of {call.row.name} has no address to replace")
        was = value.name
    if isinstance(was, Inet6) and isinstance(address, Inet):
        address = Inet6(IPv6Address(_MAPPED | int(address.host)), address.port)
    sockaddr.pack(address)
    return address


_MAPPED: Final = 0xFFFF << 32
