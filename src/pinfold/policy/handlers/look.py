"""A look at a trapped call: what is asked of it is decoded, and noted (pure).

Whatever a handler has looked at, its verdict may depend on, so that is pinned; what nobody has
looked at may stay where the program has it. A look therefore notes every pointer argument that
an answer came from, and with a path the structure that says how it is walked.

A program chooses how it spells things. A path with a ``..`` behind a symbolic link can mean two
names, ``::ffff:10.0.0.1`` is 10.0.0.1. A look takes *one* meaning of each argument; who judges
takes another look for every other one (``policy.handlers.chain``), so that a handler need not think
of them.

When the verdict is there, a look is over: what was read before stays, and so does what is no
part of a slot; what is left cannot be had any more. Nothing here ever reads the task itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec.message import Message
from pinfold.codec.openhow import OpenHow
from pinfold.codec.sockaddr import Sockaddr
from pinfold.codec.vector import StringVector
from pinfold.policy.judging.access import access_of
from pinfold.syscalls.kinds import NULLABLE, PATHS, PINNED, POINTERS, Kind, as_int

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Argument, Trapped
    from pinfold.syscalls.table import Row

    T = TypeVar("T")

ADDRESSES: Final = frozenset({Kind.SOCKADDR, Kind.SOCKADDR_OR_NULL, Kind.MSGHDR, Kind.MMSGHDR})
"""Kinds of arguments that have a socket address in them."""

_LOW: Final = 0xFFFFFFFF
_SIGNED: Final = frozenset({Kind.FD, Kind.DIRFD, Kind.INTEGER})
_WORDS: Final = frozenset({Kind.OPEN_FLAGS, Kind.AT_FLAGS, Kind.FLAGS, Kind.MODE})
_BY_DESCRIPTOR: Final = frozenset({"truncate", "chdir", "chmod", "chown", "xattr"})
"""Groups with calls that do to an open file what their others do to a named one."""


class MissingError(LookupError):
    """A call has not got what a handler asked it for.

    Attributes:
        faulted: Whether that is the program's doing: the argument is there, but its memory cannot
            be read. The kernel would answer EFAULT.
    """

    def __init__(self, message: str, *, faulted: bool = False) -> None:
        super().__init__(message)
        self.faulted = faulted


class Look:
    """One look at a trapped call.

    Args:
        trapped: What was pinned.
        names: By argument, which of several names is meant; the first one where nothing is said.
        addresses: By argument, which of several addresses is meant.
        looked: Where the names of pointer arguments go that were looked at.
    """

    __slots__ = ("_addresses", "_cache", "_names", "looked", "over", "trapped")

    def __init__(
        self,
        trapped: Trapped,
        names: Mapping[str, bytes] | None = None,
        addresses: Mapping[str, Address] | None = None,
        looked: set[str] | None = None,
    ) -> None:
        self.trapped = trapped
        self.looked = set() if looked is None else looked
        self.over = False
        """Whether there is no task, and no slot, any more."""
        self._names = {} if names is None else names
        self._addresses = {} if addresses is None else addresses
        self._cache: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Returns what ``make`` gives, and gave the first time.

        Raises:
            MissingError: The look is over, and nobody asked before.
        """
        if key not in self._cache:
            if self.over:
                raise MissingError(
                    f"{key} was not looked at while {self.trapped.row.name} waited for its verdict"
                )
            self._cache[key] = make()
        found: T = self._cache[key]
        return found

    # Paths.

    def paths(self) -> tuple[str, ...]:
        """Returns the arguments that can name something, in order.

        These are paths, addresses, which may be a Unix socket's, and the descriptor of a call that
        does to an open file what its group does to a named one.
        """
        return self._traits().names

    def subjects(self) -> Iterator[tuple[str, bytes]]:
        """Yields arguments and what they name, apart from those that ``--map`` has settled."""
        for argument in self.paths():
            self._note(argument)
            if argument in self.trapped.names and argument not in self.trapped.settled:
                yield argument, self._names.get(argument, self.trapped.names[argument][0])

    def name(self, argument: str) -> bytes:
        """Returns the absolute name that an argument means; an empty one where it names nothing.

        Raises:
            MissingError: It cannot be read.
        """
        self._check_path(argument)
        names = self.trapped.names.get(argument)
        return self._names.get(argument, names[0]) if names else b""

    def names(self, argument: str) -> tuple[bytes, ...]:
        """Returns all absolute names that an argument can mean.

        Raises:
            MissingError: It cannot be read.
        """
        self._check_path(argument)
        return self.trapped.names.get(argument, ())

    def real(self, argument: str) -> bytes | None:
        """Returns the name that links lead to, where that is judged.

        Raises:
            MissingError: It cannot be read.
        """
        self._check_path(argument)
        return self.trapped.real.get(argument)

    def access(self, argument: str) -> frozenset[str]:
        """Returns what the call does with what an argument names.

        Raises:
            MissingError: It cannot be read.
        """
        self._check_path(argument)
        found: Mapping[str, frozenset[str]] = self.once("access", lambda: access_of(self.trapped))
        return found.get(argument, frozenset())

    def raw(self, argument: str) -> bytes:
        """Returns a path as it is pinned; an empty one where there is none.

        Raises:
            MissingError: It cannot be read.
        """
        self._check_path(argument)
        found = self.argument(argument)
        if found is None:
            return b""
        if isinstance(found.value, bytes):
            return found.value
        path = getattr(self.address_of(argument), "path", b"")
        assert isinstance(path, bytes)
        return path

    # Vectors, addresses, structures.

    def strings(self, name: str) -> list[bytes]:
        """Returns a vector of strings; an empty one for NULL.

        Raises:
            MissingError: The call has none of that name, or it cannot be read.
        """
        if self.kind(name) is not Kind.STRINGS:
            raise MissingError(f"{self.trapped.row.name} has no {name}")
        self._note(name)
        return self.once(name, lambda: self._copied(name))

    def _copied(self, name: str) -> list[bytes]:
        argument = self.argument(name)
        if argument is None:
            return []
        if isinstance(argument.value, StringVector):
            if argument.value.faulted:
                raise self._unreadable(name)
            return argument.value.values
        return list(argument.value)

    def address(self) -> Address | None:
        """Returns the socket address; None for a send without one.

        Raises:
            MissingError: Such calls have none, or it cannot be read.
        """
        for known, kind in self.trapped.row.arguments:
            if kind in ADDRESSES:
                self._note(known)
                return self._addresses.get(known) or self.address_of(known)
        raise MissingError(f"{self.trapped.row.name} has no socket address")

    def address_of(self, name: str) -> Address | None:
        """Returns the address in an argument as it was passed; None for a send without one.

        Raises:
            MissingError: It cannot be read.
        """
        argument = self.argument(name)
        if argument is None:
            if self.kind(name) in (Kind.SOCKADDR_OR_NULL, Kind.MMSGHDR):
                return None
            raise self._unreadable(name)
        if isinstance(argument.value, Message):
            if argument.value.offset < 0:
                raise self._unreadable(name)
            return argument.value.name
        if argument.value.address is None:
            raise self._unreadable(name)
        found: Address = argument.value.address
        return found

    def how(self) -> OpenHow | None:
        """Returns the ``open_how`` of an ``openat2``; None for any other call.

        Raises:
            MissingError: It cannot be read.
        """
        for one in self.trapped.arguments:
            if isinstance(one.value, OpenHow):
                self._note(one.name)
                if one.value.offset < 0:
                    raise self._unreadable(one.name)
                return one.value
        return None

    # Any argument.

    def kind(self, name: str) -> Kind | None:
        """Returns the kind of an argument; None when the call has none of that name."""
        for known, kind in self.trapped.row.arguments:
            if known == name:
                return kind
        return None

    def argument(self, name: str) -> Argument | None:
        """Returns a pinned argument; None when it is NULL, or was not read, or could not be."""
        for one in self.trapped.arguments:
            if one.name == name:
                return one
        return None

    def register(self, name: str) -> int:
        """Returns the register of an argument that the call has, as it was."""
        for index, (known, _) in enumerate(self.trapped.row.arguments):
            if known == name:
                return self.trapped.registers[index]
        raise MissingError(f"{self.trapped.row.name} has no argument {name!r}")

    def value(self, name: str) -> Any:
        """Returns any argument; see ``view.Call.value``.

        Raises:
            MissingError: The call has none of that name, or pinfold does not read it, or cannot.
        """
        kind = self.kind(name)
        register = self.register(name)
        if kind is Kind.STRINGS:
            return list(self.strings(name))
        if kind not in POINTERS:
            return _number(kind, register)
        self._note(name)
        argument = self.argument(name)
        if argument is not None:
            if isinstance(argument.value, Sockaddr):
                return self.address_of(name)
            if getattr(argument.value, "offset", 0) < 0:
                raise self._unreadable(name)
            return argument.value
        if kind in NULLABLE and register == 0:
            return None
        if kind in PINNED:
            raise self._unreadable(name)
        raise MissingError(f"{self.trapped.row.name}: pinfold does not read {name}")

    # Notes.

    def _note(self, name: str) -> None:
        self.looked.add(name)
        how = self._traits().how
        if how is not None and self.kind(name) in PATHS:
            # How a path is walked decides what it names (RESOLVE_IN_ROOT).
            self.looked.add(how)

    def _traits(self) -> _Traits:
        row = self.trapped.row
        found = _TRAITS.get(row.name)
        if found is None:
            found = _TRAITS[row.name] = _traits(row)
        return found

    def _check_path(self, argument: str) -> None:
        self._note(argument)
        if argument in self.trapped.names:
            return
        kind = self.kind(argument)
        if kind in ADDRESSES:
            self.address_of(argument)
        elif self.argument(argument) is not None:
            return
        if kind in PATHS and not (kind in NULLABLE and self.register(argument) == 0):
            raise self._unreadable(argument)

    def _unreadable(self, name: str) -> MissingError:
        return MissingError(
            f"{self.trapped.row.name}: the program's {name} cannot be read", faulted=True
        )


class _Traits(NamedTuple):
    # What is the same for all calls of a name.
    names: tuple[str, ...]
    """Arguments that can name something."""
    how: str | None
    """The argument that says how a path is walked."""


_TRAITS: Final[dict[str, _Traits]] = {}


def _traits(row: Row) -> _Traits:
    names = tuple(known for known, kind in row.arguments if kind in PATHS or kind in ADDRESSES)
    if not names and row.group in _BY_DESCRIPTOR and row.arguments[0][1] is Kind.FD:
        names = (row.arguments[0][0],)
    hows = [known for known, kind in row.arguments if kind is Kind.OPEN_HOW]
    return _Traits(names, hows[0] if hows else None)


def _number(kind: Kind | None, register: int) -> int:
    if kind in _SIGNED:
        return as_int(register)
    return register & _LOW if kind in _WORDS else register


def detached(trapped: Trapped) -> Trapped:
    """Returns a call that can be read in another thread, while others use the slot.

    Preconditions: as for reading it in the first place; afterwards there are none.
    """
    loader = trapped.loader
    try:
        from_loader = trapped.loader()
    except Exception as error:  # noqa: BLE001 (raised again when somebody asks)
        loader = _raiser(error)
    else:

        def loader() -> bool:
            return from_loader

    return trapped._replace(
        arguments=tuple(
            one._replace(value=one.value.values)
            if isinstance(one.value, StringVector) and not one.value.faulted
            else one
            for one in trapped.arguments
        ),
        loader=loader,
    )


def _raiser(error: Exception) -> Callable[[], bool]:
    def loader() -> bool:
        raise error

    return loader
