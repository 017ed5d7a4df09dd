"""Classes of values: what is promised of them."""

from __future__ import annotations

import pickle

import pytest

from pinfold.values import Value


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
