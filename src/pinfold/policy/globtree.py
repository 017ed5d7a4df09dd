"""Patterns with wildcards in one tree: what a name costs does not grow with their number.

Patterns that begin alike share their beginning. There are two kinds of places in the tree:

- A :class:`_Place` lies between two components. From there lead the components that patterns have
  next: a name (a dictionary), ``*`` alone, ``*`` and then bytes, such as ``*.pem`` (a dictionary
  for each byte, from the last one on), and all others, which are read from within. ``**`` as a
  component is a place of its own, entered together with the one before it, and never left.
- An :class:`_Inner` lies within a component: bytes, sets of bytes and stars lead on from there.

A name is read a component at a time. What is held is the places where it can be: mostly none after
a component or two, otherwise two or three, whatever the number of patterns.

``**`` beside other bytes is taken apart first: ``/**x`` is ``/**/*x`` and ``x**/`` is ``x*/**/``,
since names have no empty components, and ``x**`` at the end is ``x*`` with all that lies below.
What is left is ``x**y``: its star leads on within the component, and also to a place between
components from which the next one is read from that same star (``across``).

A target chooses its names, and so:

- Where a name can be in many places at once, :meth:`GlobTree.find` gives up, at a number at which
  a table of bits (``policy.globs``) is about as fast. So the cost stays linear in the name's
  length.
- Only directories that were read byte by byte are kept, by their last component and where it was
  read from, and all are dropped when they take too much. Whoever makes that happen again and again
  gains nothing: a name costs then what every new name costs.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


class Star(Enum):
    """What takes a run of bytes."""

    NAME = auto()
    DEEP = auto()


Token = bytes | Star
"""A set of bytes of which one is taken, or a star."""

_FEW: Final = 8
"""In how many places a name can always be."""
_STATES: Final = 2048
"""States of the automaton that make a step of it longer by about one place more."""
_KEPT: Final = 1 << 20
"""Bytes, about, of what is kept of components that were read byte by byte."""
_ONE: Final = 500
"""Bytes, about, of one of those."""
_PLACE: Final = 100
"""Bytes, about, of each place that it begins or ends at."""
_LONGEST: Final = 255
"""Bytes in a component of a name that exists."""
_SETS: Final = 16
"""Different sets that may be next at one place in a component."""


# Nothing is ever put into these: most places lead nowhere by a name, or by a byte.
_NO_NAMES: Final[dict[bytes, _Place]] = {}
_NO_BYTES: Final[dict[int, _Inner]] = {}


class _Place:
    # Between two components: what can come next, and which patterns end here.
    __slots__ = ("any", "below", "deep", "ending", "hits", "inner", "lasts", "more", "names")

    def __init__(self, *, lasts: bool = False) -> None:
        self.names = _NO_NAMES
        self.any: _Place | None = None
        self.ending: _Ending | None = None
        self.inner: _Inner | None = None
        self.deep: _Place | None = None
        self.lasts = lasts
        self.more = lasts
        """Whether there is anything but names and hits."""
        self.hits: list[int] | None = None
        """Patterns that match the name which ends here."""
        self.below: list[int] | None = None
        """Patterns that match every longer name."""


class _Ending:
    # The end of a component, read backwards.
    __slots__ = ("before", "place")

    def __init__(self) -> None:
        self.before: dict[int, _Ending] = {}
        self.place: _Place | None = None


class _Inner:
    # Within a component.
    __slots__ = ("across", "broad", "bytes", "end", "lasts", "rest", "sets", "stars")

    def __init__(self, *, lasts: bool = False) -> None:
        self.bytes = _NO_BYTES
        self.sets: tuple[tuple[bytes, _Inner], ...] = ()
        self.stars: dict[Star, _Inner] | None = None
        self.lasts = lasts
        self.broad = lasts
        """Whether more leads on than single bytes."""
        self.end: _Place | None = None
        """Where it leads if the component ends here."""
        self.rest: _Place | None = None
        """Where it leads however the component goes on."""
        self.across: _Place | None = None
        """After a ``**``: the place from which the next component continues here."""


class GlobTree:
    """Patterns with wildcards, but for ``**`` alone.

    Args:
        patterns: Of each its number, in ascending order, and its tokens; see
            ``policy.globs.parse``.
    """

    def __init__(self, patterns: Iterable[tuple[int, Sequence[Token]]]) -> None:
        self._root: Final = _Place()
        self._many = _FEW
        self._simple = True
        states = 0
        for number, tokens in patterns:
            states += len(tokens) + 1
            self._insert(number, tokens)
        self._many += states // _STATES
        self._spelt: Final[dict[tuple[bytes, tuple[_Inner, ...]], set[_Place]]] = {}
        self._kept = 0

    def find(self, path: bytes) -> Sequence[list[int]] | None:
        """Returns the numbers of the patterns that match a normal name, in parts and unordered.

        A number can be there more than once. None if the name can be in too many places at once.
        """
        if not self._simple:
            return None
        if path == b"/":
            return ()
        components = path.split(b"/")
        components.reverse()
        components.pop()
        place = self._root
        while not place.more:  # most names leave here
            if not components:
                return (place.hits,) if place.hits else ()
            named = place.names.get(components.pop())
            if named is None:
                return ()
            place = named
        return self._find(place, components)

    def _find(self, start: _Place, components: list[bytes]) -> Sequence[list[int]] | None:
        # Of components the last is the next one.
        covering: set[_Place] = set()
        places: Collection[_Place] = (start,) if start.deep is None else (start, start.deep)
        while components and places:
            component = components.pop()
            after: set[_Place] = set()
            inner: list[_Inner] = []
            for place in places:
                named = place.names.get(component)
                if named is not None:
                    _enter(named, after)
                if place.more:
                    _leave(place, component, after, inner)
                    if place.below:
                        covering.add(place)
            if inner:
                spelt = self._spell(inner, component, keep=bool(components))
                if spelt is None:
                    return None
                after |= spelt
            if len(after) > self._many:
                return None
            places = after
        found = [place.hits for place in places if place.hits]
        if covering:
            found += [place.below for place in covering if place.below]
        return found

    def _spell(
        self, starts: Sequence[_Inner], component: bytes, *, keep: bool
    ) -> set[_Place] | None:
        # Where a component leads from within; None if it was in too many places on the way.
        key = component, tuple(starts)
        after = self._spelt.get(key)
        if after is None:
            after = self._spell_out(starts, component)
            if after is not None and keep and len(component) <= _LONGEST:
                if self._kept > _KEPT:
                    self._spelt.clear()
                    self._kept = 0
                self._kept += _ONE + len(component) + _PLACE * (len(starts) + len(after))
                self._spelt[key] = after
        return after

    def _spell_out(self, starts: Sequence[_Inner], component: bytes) -> set[_Place] | None:
        after: set[_Place] = set()
        stars = {one for one in starts if one.lasts}
        _settle(starts, stars, after)
        alive = list(stars.union(starts))
        came: list[_Inner] = []
        waiting = False  # whether there are stars only
        for byte in component:
            for one in alive:
                then = one.bytes.get(byte)
                if then is not None:
                    came.append(then)
                if one.sets:
                    came += [then for taken, then in one.sets if byte in taken]
            if came:
                _settle(came, stars, after)
                alive = [*stars, *came]
                if len(alive) > self._many:
                    return None
                came = []
                waiting = False
            elif not waiting:
                alive = [*stars]
                if not alive:
                    break
                waiting = True
        for one in alive:
            if one.end is not None:
                _enter(one.end, after)
            if one.across is not None:
                after.add(one.across)
        return after

    def _insert(self, number: int, tokens: Sequence[Token]) -> None:
        parts: list[list[Token]] = [[]]
        for token in tokens[1:] if tokens[0] == b"/" else tokens:
            if token == b"/":
                parts.append([])
            else:
                parts[-1].append(token)
        last = parts.pop()
        place = self._root
        for part in parts:
            place = self._after(place, part)
        below = last[-1] is Star.DEEP
        if last != [Star.DEEP]:
            place = self._after(place, [*last[:-1], Star.NAME] if below else last)
            place.hits = _with(place.hits, number)
        if below:
            place.below = _with(place.below, number)
            place.more = True

    def _after(self, place: _Place, part: Sequence[Token]) -> _Place:
        # What lies between two slashes: `**`, a component, or one with `**` on either side.
        if part[0] is Star.DEEP:
            if not place.lasts:
                place.more = True
                place.deep = place = place.deep or _Place(lasts=True)
            if len(part) == 1:
                return place
            part = [Star.NAME, *part[1:]]
        if part[-1] is Star.DEEP:
            place = self._component(place, [*part[:-1], Star.NAME])
            return self._after(place, [Star.DEEP])
        return self._component(place, part)

    def _component(self, place: _Place, component: Sequence[Token]) -> _Place:
        name = _plain(component)
        if name is not None:
            if place.names is _NO_NAMES:
                place.names = {}
            return place.names.setdefault(name, _Place())
        place.more = True
        if component == [Star.NAME]:
            place.any = place.any or _Place()
            return place.any
        end = _plain(component[1:])
        if component[0] is Star.NAME and end is not None:
            place.ending = ending = place.ending or _Ending()
            for byte in reversed(end):
                ending = ending.before.setdefault(byte, _Ending())
            ending.place = ending.place or _Place()
            return ending.place
        place.inner = inner = place.inner or _Inner()
        for token in component[:-1]:
            inner = self._within(inner, token)
        if component[-1] is Star.NAME:
            inner.rest = inner.rest or _Place()
            return inner.rest
        inner = self._within(inner, component[-1])
        inner.end = inner.end or _Place()
        return inner.end

    def _within(self, inner: _Inner, token: Token) -> _Inner:
        if isinstance(token, Star):
            inner.broad = True
            inner.stars = stars = {} if inner.stars is None else inner.stars
            if token not in stars:
                star = stars[token] = _Inner(lasts=True)
                if token is Star.DEEP:
                    star.across = _Place()
                    star.across.inner = star
                    star.across.more = True
            return stars[token]
        if len(token) == 1:
            if inner.bytes is _NO_BYTES:
                inner.bytes = {}
            return inner.bytes.setdefault(token[0], _Inner())
        for taken, next_ in inner.sets:
            if taken == token:
                return next_
        inner.broad = True
        inner.sets = (*inner.sets, (token, next_ := _Inner()))
        if len(inner.sets) > _SETS:
            self._simple = False
        return next_


def _enter(place: _Place, places: set[_Place]) -> None:
    places.add(place)
    if place.deep is not None:
        places.add(place.deep)


def _leave(place: _Place, component: bytes, after: set[_Place], inner: list[_Inner]) -> None:
    # Adds where a component leads that is taken by no name; within it, where it is to be read from.
    if place.lasts:
        after.add(place)
    if place.any is not None:
        _enter(place.any, after)
    within = place.inner
    if within is not None and (within.broad or (component and component[0] in within.bytes)):
        inner.append(within)
    ending = place.ending
    if ending is not None:
        for byte in reversed(component):
            ending = ending.before.get(byte)
            if ending is None:
                break
            if ending.place is not None:
                _enter(ending.place, after)


def _settle(came: Iterable[_Inner], stars: set[_Inner], after: set[_Place]) -> None:
    # Adds what is reached without another byte. Stars are not left before the component ends; to
    # everything else leads one way, so that it is never there twice.
    for one in came:
        if one.stars is not None:
            stars.update(one.stars.values())
        if one.rest is not None:
            _enter(one.rest, after)


def _plain(tokens: Sequence[Token]) -> bytes | None:
    # The bytes that they spell, if each takes one only.
    spelt = b""
    for token in tokens:
        if isinstance(token, Star) or len(token) != 1:
            return None
        spelt += token
    return spelt


def _with(numbers: list[int] | None, number: int) -> list[int]:
    if numbers is None:
        return [number]
    numbers.append(number)
    return numbers
