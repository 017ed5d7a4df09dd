"""A policy: what a file says, and Python functions that are asked before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pinfold.errors import PolicyError
from pinfold.policy.globs import GlobSet
from pinfold.policy.handlers.handler import Handler
from pinfold.policy.judging.access import possible
from pinfold.policy.model import ACCESS, PolicyModel
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls.groups import names, near
from pinfold.syscalls.refused import REFUSED

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from pinfold.policy.calls import Judge, Later, Trapped
    from pinfold.policy.handlers.verdicts import Text

    Glob = Text | Iterable[Text]

F = TypeVar("F", bound="Callable[..., object]")

_REFUSED: Final = {one.name: one.reason for one in REFUSED if one.argument < 0}
_GENERATORS: Final = 0x20 | 0x200
"""``CO_GENERATOR`` and ``CO_ASYNC_GENERATOR`` of a function's code."""


class Policy:
    """Rules about what a program may ask of the kernel, and Python handlers that come before them.

    Handlers are asked in the order in which they were registered; the first verdict is final. When
    all return None, the rules of the model decide, and then its defaults. One policy may serve any
    number of sandboxes at a time: each takes the handlers that are there when it starts. It can be
    pickled when its handlers are functions of a module.

    Args:
        model: The rules; left out, there are none and everything is allowed.

    Attributes:
        model: The rules.
    """

    __hash__ = None  # type: ignore[assignment]  # compares by value, and can change

    def __init__(self, model: PolicyModel | None = None) -> None:
        self.model: Final = PolicyModel() if model is None else model
        self._handlers: list[Handler] = []

    @classmethod
    def load(
        cls,
        *paths: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        variables: Mapping[str, str] | None = None,
    ) -> Policy:
        """Returns the policy of TOML files, which count in the order given.

        Args:
            paths: The files; ``builtin:NAME`` is a ready policy of the package.
            variables: Values for ``${NAME}``, which win over those that a file sets.

        Raises:
            PolicyError: A file cannot be read, or something in it cannot be meant.
        """
        from pinfold.policy.file.load import load  # noqa: PLC0415 (not every policy has a file)
        from pinfold.policy.handlers.verdicts import text_bytes  # noqa: PLC0415 (likewise)

        return cls(
            load(
                [text_bytes(path).decode("utf-8", "surrogateescape") for path in paths],
                variables=dict(variables or {}),
            )
        )

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Returns the policy of a TOML text.

        Raises:
            PolicyError: Something in it cannot be meant.
        """
        from pinfold.policy.file.load import parse  # noqa: PLC0415 (not every policy has a text)

        return cls(parse(text))

    def __repr__(self) -> str:
        return f"<Policy of {len(self.model.rules)} rules and {len(self._handlers)} handlers>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return self.model == other.model and self._handlers == other._handlers

    def __copy__(self) -> Policy:
        copy = Policy(self.model)
        copy._handlers = list(self._handlers)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.model, tuple(self._handlers))

    def on(
        self,
        *words: str,
        path: Glob = (),
        access: str | Iterable[str] = (),
        program: Glob = (),
    ) -> Callable[[F], F]:
        """Registers the decorated function, which may be ``async``, as a handler.

        It is called with a :class:`~pinfold.Call` and returns a verdict, or None when it has no
        opinion. An exception, or anything else that it returns, denies the call (EPERM).

        Args:
            words: Groups or calls, such as ``open`` or ``sendmsg``.
            path: Globs; asked only when a name of the call matches one.
            access: ``read``, ``write``, ``create``, ``exec``; asked only when the call does one of
                these with such a name.
            program: Globs; asked only when the program that makes the call matches one.

        Raises:
            PolicyError: There is no such group or call, or it can never be asked about.
        """
        calls = _calls(words)
        paths, does, programs = _globs(path), _words(access), _globs(program)
        if paths or does:
            calls = _named(calls, does)

        def register(function: F) -> F:
            _check_function(function)
            self._handlers.append(Handler(function, calls, paths, does, programs))
            return function

        return register

    def judge(
        self,
        *,
        ask: Callable[[Trapped, str], Later] | None = None,
        report: Callable[[str], None],
        real: bool = False,
    ) -> Judge:
        """Returns the judge of one sandbox, about to start: where links lead is looked up now.

        Args:
            ask: Called for a rule that asks, with the call and the rule's name; None where there is
                nobody to ask, and such a rule denies.
            report: Called with a text about a handler that failed, safe for a terminal; in any
                thread.
            real: Whether names that links lead to are judged, whatever the policy says of that.
        """
        from pinfold.policy.judging.judge import RuleJudge  # noqa: PLC0415 (made once for each run)
        from pinfold.policy.judging.linked import further  # noqa: PLC0415 (likewise)

        links = real or self.model.real or any(rule.match.real for rule in self.model.rules)
        rules = RuleJudge(self.model, ask, further(self.model, links=links))
        if not self._handlers:
            return rules
        from pinfold.policy.handlers.chain import HandlerJudge  # noqa: PLC0415 (not every policy has any)

        return HandlerJudge(rules, tuple(self._handlers), self.model.handler_seconds, report)


def _restored(model: PolicyModel, handlers: tuple[Handler, ...]) -> Policy:
    policy = Policy(model)
    policy._handlers.extend(handlers)  # noqa: SLF001 (one of our own)
    return policy


def _calls(words: tuple[object, ...]) -> tuple[str, ...]:
    if not words:
        raise PolicyError(
            'on() says which calls: name groups or calls, as in on("open", "connect")'
        )
    found: dict[str, None] = {}
    for word in words:
        if not isinstance(word, str):
            raise PolicyError(
                f'{word!r} is no group or call; write their names, as in @policy.on("open")'
            )
        calls = names(word)
        for call in calls:
            if call in UNJUDGED:
                raise PolicyError(f"no handler can be asked about {call}: {UNJUDGED[call]}")
        if all(call in _REFUSED for call in calls):
            raise PolicyError(
                f"no handler is asked about {word}: it is refused in every sandbox"
                f" ({_REFUSED[calls[0]]})"
            )
        found.update(dict.fromkeys(calls))
    return tuple(found)


def _named(calls: tuple[str, ...], does: frozenset[str]) -> tuple[str, ...]:
    # Those that can do one of these things with what they name.
    found = tuple(
        call for call in calls if any(not does or does & words for words in possible(call).values())
    )
    if not found:
        what = f"does {' or '.join(sorted(does))} with what it names" if does else "has a path"
        raise PolicyError(f"none of {', '.join(calls)} {what}, so this is never asked")
    return found


def _globs(given: Glob) -> tuple[bytes, ...]:
    from pinfold.policy.handlers.verdicts import text_bytes  # noqa: PLC0415 (see its use in load)

    if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
        given = (cast("Text", given),)
    found = tuple(map(text_bytes, given))
    GlobSet(found)
    return found


def _words(given: str | Iterable[str]) -> frozenset[str]:
    words = frozenset([given] if isinstance(given, str) else given)
    for word in words:
        if word not in ACCESS:
            raise PolicyError(
                f"access: there is no {word!r}; write {', '.join(ACCESS)}{near(str(word), ACCESS)}"
            )
    return words


def _check_function(function: object) -> None:
    if not callable(function):
        raise PolicyError(f"a handler is a function, not {type(function).__name__}")
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _GENERATORS:
        raise PolicyError(
            f"handler {getattr(function, '__name__', '?')} is a generator; return the verdict, do"
            " not yield it"
        )
