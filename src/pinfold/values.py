"""Classes of values that are cheap to define (pure).

Whoever types a command waits until all classes that it needs are there. ``dataclasses`` writes and
compiles the methods of each, and needs ``inspect`` for it. Values of different classes are never
equal here, as they can be where both are tuples.
"""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(frozen_default=True)
class _Made(type):
    # Annotations become slots, values given to them become defaults.

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
    ) -> type:  # what `super()` says, too
        fields = tuple(
            field
            for field, kind in namespace.get("__annotations__", {}).items()
            if not kind.startswith("ClassVar")
        )
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        return super().__new__(
            cls,
            name,
            bases,
            {**namespace, "__slots__": fields, "__match_args__": fields, "_defaults": defaults},
        )


class Value(metaclass=_Made):
    """Base of a class whose annotations, which must be strings, are its fields, in order.

    Its objects are compared by class and content, can be hashed and pickled, and do not change.
    """

    __match_args__: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, Any]]

    def __init__(self, *given: Any, **named: Any) -> None:
        fields = self.__match_args__
        if len(given) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields, not {len(given)}")
        content = {**self._defaults, **dict(zip(fields, given, strict=False))}
        for field, value in named.items():
            if field not in fields or field in fields[: len(given)]:
                raise TypeError(f"{type(self).__name__}: no place for {field!r}")
            content[field] = value
        for field in fields:
            if field not in content:
                raise TypeError(f"{type(self).__name__}: {field!r} is missing")
            object.__setattr__(self, field, content[field])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def _content(self) -> tuple[Any, ...]:
        return tuple([getattr(self, field) for field in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash((type(self), self._content()))

    def __repr__(self) -> str:
        return _shown(self, self.__match_args__, self._content())

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self._content()


def _shown(one: object, fields: tuple[str, ...], content: tuple[Any, ...]) -> str:
    pairs = zip(fields, content, strict=True)
    return f"{type(one).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"
