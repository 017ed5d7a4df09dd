"""The verdicts as functions: what a handler answers (pure).

What is wrong with an argument is an error here and now, so that the traceback ends in the handler's
own line. Whether a verdict fits the call that it is given for is known when there is a call.
"""

from __future__ import annotations

from errno import EACCES
from typing import TYPE_CHECKING, Any, Final, Protocol

from pinfold.codec.sockaddr import pack
from pinfold.policy.calls import ALLOWED, INJECT, KILL, RETURN, SERVE, Verdict
from pinfold.policy.file.values import address as parse_address
from pinfold.policy.file.values import error_number, plain
from pinfold.policy.rules import DENY, REDIRECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from pinfold.codec.sockaddr import Address

    Text = str | bytes | PathLike[str] | PathLike[bytes]

MAX_ERRNO: Final = 4095
"""``MAX_ERRNO``: what is larger would be no error for the program."""
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1


class HasFileno(Protocol):
    """An open file or a socket."""

    def fileno(self) -> int:
        """Returns its descriptor."""


class Redirection(Verdict):
    """A redirect that no call has been found for yet: ``replace`` holds the keywords."""

    __slots__ = ()


class Held(int):
    """A descriptor's number that keeps its file open."""

    owner: object


Descriptor = int | HasFileno


def allow() -> Verdict:
    """Returns the verdict that lets the call be made, with what was looked at pinned."""
    return ALLOWED


def deny(errno: int | str = EACCES) -> Verdict:
    """Returns the verdict that fails the call.

    Args:
        errno: The error that the program gets, a number or a name such as ``ENOENT``.

    Raises:
        ValueError: There is no such error.
    """
    if isinstance(errno, str):
        errno = error_number(errno)
    elif type(errno) is bool or not isinstance(errno, int):
        raise TypeError(f"an errno is a number or a name, not {type(errno).__name__}")
    if not 0 < errno <= MAX_ERRNO:
        raise ValueError(f"{errno} is no errno; they are 1 to {MAX_ERRNO}")
    return Verdict(DENY, errno=int(errno))


def redirect(
    *,
    path: Text | None = None,
    argument: str | None = None,
    argv: Iterable[Text] | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    address: Address | str | None = None,
) -> Verdict:
    """Returns the verdict that has the call made with other arguments.

    Args:
        path: An absolute path; ``argument`` says which one a call with two paths takes it for.
        argument: Name of that argument in the table; left out, the first path.
        argv: All arguments of the program that is executed.
        env: Its whole environment.
        address: A value of ``pinfold.codec.sockaddr``, or a text such as ``127.0.0.1:80``,
            ``[::1]:80`` or ``unix:/run/x.sock``.

    Raises:
        ValueError: A value cannot be, or there is none.
    """
    wanted: dict[str, Any] = {}
    if path is not None:
        wanted["path"] = plain(text_bytes(path))
        if not wanted["path"].startswith(b"/"):
            raise ValueError(f"{path!r} is not absolute; whose directory would it start from?")
    if argv is not None:
        if isinstance(argv, str | bytes):
            raise TypeError("argv is a sequence of arguments, not one text")
        wanted["argv"] = tuple(plain(text_bytes(one)) for one in argv)
    if env is not None:
        wanted["env"] = tuple(
            _variable(text_bytes(name), plain(text_bytes(value))) for name, value in env.items()
        )
    if address is not None:
        wanted["address"] = (
            parse_address(text_bytes(address)) if isinstance(address, str) else address
        )
        pack(wanted["address"])
    if not wanted:
        raise ValueError("a redirect says where to; give path, argv, env or address")
    if argument is not None:
        wanted["argument"] = argument
    return Redirection(REDIRECT, replace=wanted)


def returns(value: int) -> Verdict:
    """Returns the verdict that makes no call, and has it return a number.

    Args:
        value: The result register; -4095 to -1 are errors, as from the kernel.

    Raises:
        ValueError: It does not fit a register.
    """
    if not isinstance(value, int):
        raise TypeError(f"a call returns a number, not {type(value).__name__}")
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{value} does not fit a register")
    return Verdict(RETURN, value=int(value))


def serve(data: bytes | str) -> Verdict:
    """Returns the verdict that opens a file in memory instead, with this content."""
    if not isinstance(data, str | bytes | bytearray | memoryview):
        raise TypeError(f"a file holds bytes or a text, not {type(data).__name__}")
    return Verdict(SERVE, value=data.encode() if isinstance(data, str) else bytes(data))


def inject(fd: Descriptor) -> Verdict:
    """Returns the verdict that makes no call, and gives the program a copy of a descriptor.

    Args:
        fd: The descriptor or file. It has to be open until the program has its copy: a file that is
            given as such is, a number is the handler's to care for.

    Raises:
        ValueError: It is closed, or no descriptor.
    """
    if type(fd) is bool:
        raise TypeError("a descriptor is a number or a file, not bool")
    number = fd if isinstance(fd, int) else fd.fileno()
    if not isinstance(number, int):
        raise TypeError(f"a descriptor is a number, not {type(number).__name__}")
    if number < 0:
        raise ValueError(f"{number} is no descriptor")
    held = Held(number)
    held.owner = fd
    return Verdict(INJECT, value=held)


def kill() -> Verdict:
    """Returns the verdict that kills the process."""
    return Verdict(KILL)


def resolved(wanted: Verdict, replace: Mapping[str, Any]) -> Verdict:
    """Returns a redirect as a verdict on one call.

    Args:
        wanted: The redirect.
        replace: New values by the names of the call's arguments.
    """
    return Verdict(REDIRECT, wanted.rule, replace=replace)


def text_bytes(value: Text) -> bytes:
    """Returns a text, a path or bytes as bytes, as ``os.fsencode`` does."""
    if hasattr(value, "__fspath__"):
        value = value.__fspath__()
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"expected a text, bytes or a path, not {type(value).__name__}")
    return value.encode("utf-8", "surrogateescape")


def _variable(name: bytes, value: bytes) -> bytes:
    if not name or b"=" in name or b"\0" in name:
        raise ValueError(f"{name!r} is no name of an environment variable")
    return name + b"=" + value
