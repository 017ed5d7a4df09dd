"""Classes of values: what is promised of them, next to the classes of the standard library."""

from __future__ import annotations

import pickle
import typing

import pytest

from pinfold.values import NamedTuple, Value


class Point(NamedTuple):
    """A point."""

    x: int
    """Across."""
    y: int = 2
    name: str | None = None

    @property
    def sum(self) -> int:
        """Both."""
        return self.x + self.y


class Typed(typing.NamedTuple):
    """The same."""

    x: int
    y: int = 2
    name: str | None = None


class Pair(Value):
    """A pair."""

    left: int
    right: bytes = b"r"

    @property
    def both(self) -> tuple[int, bytes]:
        """Both."""
        return self.left, self.right


class Twin(Value):
    """Another pair."""

    left: int
    right: bytes = b"r"


class Nothing(Value):
    """Without fields."""


def test_a_tuple_is_like_any_other() -> None:
    point = Point(1)
    assert tuple(point) == tuple(Typed(1)) == (1, 2, None)
    assert (point.x, point.y, point.name, point.sum) == (1, 2, None, 3)
    assert Point(1, name="n") == Point(x=1, y=2, name="n")
    assert repr(point) == "Point(x=1, y=2, name=None)"
    assert hash(point) == hash((1, 2, None))
    assert point._replace(y=5) == (1, 5, None)
    assert point._asdict() == Typed(1)._asdict()
    assert Point._make([1, 2, "n"]) == (1, 2, "n")
    assert (Point._fields, Point._field_defaults) == (Typed._fields, Typed._field_defaults)
    assert (Point.__name__, Point.__module__, Point.__doc__) == ("Point", __name__, "A point.")
    assert type(pickle.loads(pickle.dumps(point))) is Point
    match point:
        case Point(one, name=name):
            assert (one, name) == (1, None)


@pytest.mark.parametrize("of", [Point, Typed])
def test_what_a_tuple_refuses(of: type[Point]) -> None:
    for arguments in ((), (1, 2, 3, 4)):
        with pytest.raises(TypeError):
            of(*arguments)
    with pytest.raises(TypeError):
        of(1, z=2)  # type: ignore[call-arg]  # that is what is tried
    with pytest.raises(ValueError, match="z"):
        of(1)._replace(z=2)  # type: ignore[call-arg]  # likewise
    with pytest.raises(AttributeError):
        of(1).x = 2  # type: ignore[misc]  # likewise


def test_a_value_is_equal_by_class_and_content() -> None:
    assert Pair(1) == Pair(1, b"r") == Pair(right=b"r", left=1)
    assert Pair(1) != Pair(2)
    assert Pair(1) != Twin(1)
    assert Pair(1) != (1, b"r")
    assert Nothing() == Nothing()
    assert len({Pair(1), Pair(1), Twin(1), Pair(2)}) == 3
    assert repr(Pair(1)) == "Pair(left=1, right=b'r')"
    assert pickle.loads(pickle.dumps(Pair(3))) == Pair(3)
    assert Pair(1).both == (1, b"r")
    assert not hasattr(Pair(1), "__dict__")
    match Pair(1):
        case Pair(left, right):
            assert (left, right) == (1, b"r")


def test_what_a_value_refuses() -> None:
    for arguments in ((), (1, b"", 2)):
        with pytest.raises(TypeError):
            Pair(*arguments)
    for named in ({"left": 2}, {"middle": 2}):
        with pytest.raises(TypeError, match="no place for"):
            Pair(1, **named)  # type: ignore[arg-type]  # that is what is tried
    pair = Pair(1)
    with pytest.raises(AttributeError, match="cannot be set"):
        pair.left = 2  # type: ignore[misc]  # likewise
    with pytest.raises(AttributeError, match="cannot be set"):
        pair.other = 2
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del pair.left
    assert pair == Pair(1)
