"""What a handler sees of a trapped call, and how it answers.

Everything is decoded when it is asked for; ``policy.handlers.look`` is what stands behind it. Text
is decoded as ``os.fsdecode`` does it: ``os.fsencode`` gives the exact bytes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pinfold.codec.sockaddr import Abstract, Inet, Inet6, Other, Short, Unnamed, Vsock
from pinfold.paths import printable
from pinfold.policy.file.values import family as family_word
from pinfold.policy.handlers import verdicts
from pinfold.policy.handlers.look import MissingError
from pinfold.policy.judging.replace import replacement
from pinfold.syscalls.kinds import Kind
from pinfold.uapi import net

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Verdict
    from pinfold.policy.handlers.look import Look

_LOW: Final = 0xFFFFFFFF
_CREAT: Final = 0o1101
"""O_CREAT, O_TRUNC and O_WRONLY: what ``creat`` is an ``open`` with."""
_SOCK_TYPE: Final = 0xF
_SOCK_PACKET: Final = 10
_FLAGS: Final = (Kind.OPEN_FLAGS, Kind.AT_FLAGS, Kind.FLAGS)


class Path:
    """One path argument of a call, or the path of a Unix socket in its address."""

    __slots__ = ("_argument", "_look")

    def __init__(self, look: Look, argument: str) -> None:
        self._look = look
        self._argument = argument

    def __repr__(self) -> str:
        return f"<Path {self._argument}>"

    @property
    def argument(self) -> str:
        """The argument's name in the table, such as ``path``, ``old_path`` or ``address``."""
        return self._argument

    @property
    def settled(self) -> bool:
        """Whether ``--map`` has sent it elsewhere already."""
        return self._argument in self._look.trapped.settled

    @property
    def name(self) -> str:
        """The absolute name that it means; empty where it names nothing, see ``Call.path``.

        Raises:
            LookupError: It cannot be read.
        """
        return _text(self._look.name(self._argument))

    @property
    def names(self) -> tuple[str, ...]:
        """All absolute names that it can mean, the one that is spelt first.

        Raises:
            LookupError: It cannot be read.
        """
        return tuple(map(_text, self._look.names(self._argument)))

    @property
    def real(self) -> str | None:
        """The name that symbolic links lead to, where the policy asks for those; else None.

        Raises:
            LookupError: It cannot be read.
        """
        found = self._look.real(self._argument)
        return None if found is None else _text(found)

    @property
    def access(self) -> frozenset[str]:
        """What the call does with it: of ``read``, ``write``, ``create`` and ``exec``.

        Raises:
            LookupError: It cannot be read.
        """
        return self._look.access(self._argument)

    @property
    def raw(self) -> bytes:
        """The path as it is pinned: relative, with ``..``, whatever the program wrote.

        Raises:
            LookupError: It cannot be read.
        """
        return self._look.raw(self._argument)


class Call:
    """A trapped call, as a handler sees it.

    What was looked at is pinned when the call is allowed. Asking for what such a call does not have
    raises ``LookupError``, which ends in a denial.

    Args:
        look: The look that is taken at it.
    """

    __slots__ = ("_look",)

    def __init__(self, look: Look) -> None:
        self._look = look

    def __repr__(self) -> str:
        program = printable(self._look.trapped.program)
        return f"<Call {self.name} by {program} [{self.pid}]>"

    # Who calls what.

    @property
    def name(self) -> str:
        """The call's name, such as ``openat``."""
        return self._look.trapped.row.name

    @property
    def group(self) -> str:
        """The call's group, such as ``open``; empty for a call that is in none."""
        return self._look.trapped.row.group

    @property
    def pid(self) -> int:
        """The process, as seen from outside."""
        return self._look.trapped.pid

    @property
    def tid(self) -> int:
        """The thread, as seen from outside."""
        return self._look.trapped.tid

    @property
    def program(self) -> str:
        """Path of the program that makes the call."""
        return _text(self._look.trapped.program)

    @property
    def from_loader(self) -> bool:
        """Whether the dynamic loader makes the call. A hint: a program can forge it.

        Raises:
            LookupError: It was not asked while the call waited for its verdict.
            OSError: The program is gone, or may not be looked at.
        """
        return self._look.once("from_loader", self._look.trapped.loader)

    @property
    def registers(self) -> tuple[int, ...]:
        """The six argument registers as they were (``u64``)."""
        return self._look.trapped.registers

    # Paths.

    @property
    def path(self) -> str:
        """The absolute name of the first path argument, or of a Unix socket in the address.

        Of a call on an open file (``fchmod``), that file's name. Empty where this call names
        nothing: NULL or an empty path with a descriptor, a path from a directory that is not there,
        an address that is no path, a pipe.

        Raises:
            LookupError: Such calls never have a path, or it cannot be read.
        """
        return _text(self._look.name(self._first()))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path argument; calls such as ``rename`` have two."""
        return tuple(Path(self._look, one) for one in self._look.paths())

    @property
    def raw(self) -> bytes:
        """The first path as it is pinned: relative, with ``..``, whatever the program wrote.

        Raises:
            LookupError: Such calls never have a path, or it cannot be read.
        """
        return self._look.raw(self._first())

    @property
    def access(self) -> frozenset[str]:
        """What the call does with its paths together: of ``read``, ``write``, ``create``, ``exec``.

        Empty for calls without a path.

        Raises:
            LookupError: A path cannot be read.
        """
        found: frozenset[str] = frozenset()
        for one in self._look.paths():
            found |= self._look.access(one)
        return found

    def _first(self) -> str:
        found = self._look.paths()
        if not found:
            raise MissingError(f"{self.name} has no path")
        return found[0]

    # Programs.

    @property
    def argv(self) -> list[str]:
        """The arguments that a program is executed with.

        Raises:
            LookupError: The call executes nothing, or they cannot be read.
        """
        return list(map(_text, self._look.strings("argv")))

    @property
    def env(self) -> dict[str, str]:
        """The environment that a program is executed with.

        Of a variable that is there several times the first one counts, as for ``getenv``; entries
        without a name are left out. ``value("envp")`` is all of it.

        Raises:
            LookupError: The call executes nothing, or it cannot be read.
        """
        found: dict[str, str] = {}
        for entry in self._look.strings("envp"):
            name, equals, value = entry.partition(b"=")
            if name and equals:
                found.setdefault(_text(name), _text(value))
        return found

    # Sockets.

    @property
    def address(self) -> Address | None:
        """The socket address, a value of ``pinfold.codec.sockaddr``; None for a send without one.

        Raises:
            LookupError: Such calls have none, or it cannot be read.
        """
        return self._look.address()

    @property
    def host(self) -> str | None:
        """The host of an IPv4 or IPv6 address; None for another address, or none.

        Raises:
            LookupError: As for ``address``.
        """
        address = self.address
        return str(address.host) if isinstance(address, Inet | Inet6) else None

    @property
    def port(self) -> int | None:
        """The port of an IPv4, IPv6 or virtual machine address; None for another, or none.

        Raises:
            LookupError: As for ``address``.
        """
        address = self.address
        return address.port if isinstance(address, Inet | Inet6 | Vsock) else None

    @property
    def family(self) -> str | int | None:
        """The family of the address, or of the socket that is made.

        A word (``unix``, ``inet``, ``inet6``, ``netlink``, ``vsock``, ``packet``, ``unspec``) or
        the number of another family; None for a send without an address, and for an address that
        is too short for its family.

        Raises:
            LookupError: As for ``address``.
        """
        if self._look.kind("domain") is not None:
            number = self._look.register("domain") & _LOW
            kind = self._look.register("type")
            # An old way to ask for a packet socket.
            packet = number == net.AF_INET and kind & _SOCK_TYPE == _SOCK_PACKET
            return "packet" if packet else _family(number)
        address = self.address
        if address is None or isinstance(address, Short):
            return None
        if isinstance(address, Other):
            return _family(address.family)
        if isinstance(address, Abstract | Unnamed):
            return "unix"
        return type(address).__name__.lower()

    # Numbers, and the rest.

    @property
    def flags(self) -> int:
        """The call's flags: ``O_*`` or ``AT_*`` bits, or others of its own.

        Raises:
            LookupError: It has none, or they cannot be read.
        """
        how = self._look.how()
        if how is not None:
            return how.flags
        if self.name == "creat":
            return _CREAT
        for wanted in _FLAGS:
            for name, kind in self._look.trapped.row.arguments:
                if kind is wanted:
                    return self._look.register(name) & _LOW
        raise MissingError(f"{self.name} has no flags")

    @property
    def mode(self) -> int:
        """The permission bits of the call.

        Raises:
            LookupError: It has none, or they cannot be read.
        """
        how = self._look.how()
        if how is not None:
            return how.mode
        for name, kind in self._look.trapped.row.arguments:
            if kind is Kind.MODE:
                return self._look.register(name) & _LOW
        raise MissingError(f"{self.name} has no mode")

    def value(self, name: str) -> Any:
        """Returns any argument by its name in the table (``docs/syscalls.md``).

        A number for a scalar, ``bytes`` for a string or a buffer, a list of ``bytes`` for a vector,
        the value of its codec for anything else, None for NULL.

        Raises:
            LookupError: The call has none of that name, or pinfold does not read it, or cannot.
        """
        return self._look.value(name)

    # Verdicts.

    def allow(self) -> Verdict:
        """Returns the verdict that lets the call be made, with what was looked at pinned."""
        return verdicts.allow()

    def deny(self, errno: int | str = "EACCES") -> Verdict:
        """Returns the verdict that fails the call; see :func:`pinfold.deny`."""
        return verdicts.deny(errno)

    def redirect(
        self,
        *,
        path: verdicts.Text | None = None,
        argument: str | None = None,
        argv: Iterable[verdicts.Text] | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        address: Address | str | None = None,
    ) -> Verdict:
        """Returns the verdict that has the call made with other arguments.

        Args:
            path: An absolute path; ``argument`` says which one a call with two paths takes it for.
            argument: Name of that argument in the table; left out, the first path.
            argv: All arguments of the program that is executed.
            env: Its whole environment.
            address: A socket address; see :func:`pinfold.redirect`.

        Raises:
            ValueError: The call has no such argument, or cannot take that value for it.
        """
        wanted = verdicts.redirect(
            path=path, argument=argument, argv=argv, env=env, address=address
        )
        return verdicts.resolved(wanted, replacement(self._look.trapped, **wanted.replace))

    def returns(self, value: int) -> Verdict:
        """Returns the verdict that makes no call, and has it return a number."""
        return verdicts.returns(value)

    def serve(self, data: bytes | str) -> Verdict:
        """Returns the verdict that opens a file in memory instead, with this content."""
        return verdicts.serve(data)

    def inject(self, fd: verdicts.Descriptor) -> Verdict:
        """Returns the verdict that makes no call, and gives the program a copy of a descriptor."""
        return verdicts.inject(fd)

    def kill(self) -> Verdict:
        """Returns the verdict that kills the process."""
        return verdicts.kill()


def _family(number: int) -> str | int:
    return family_word(number) if number <= 0xFFFF else number


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
