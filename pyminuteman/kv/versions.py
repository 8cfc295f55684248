"""What has been seen: dots and contexts of shared values, ranges of an owner's versions.

Pure, and immutable but for :class:`Ranges`.

1. A **dot** names one change: the node that made it, the life (epoch) in which it did, and a number that this life never gives twice
   for one value, counted up from 1 without gaps.
2. A **context** is a set of dots: those that somebody has seen. Those of one life nearly always are 1 to n, so n is held, and what
   came out of order besides. (Dotted version vectors: Preguica and others, arXiv 1011.5808; causal contexts of delta-state CRDTs:
   Almeida, Shoker, Baquero, arXiv 1603.01529.)
3. Joining contexts is union: commutative, associative, idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pyminuteman.addresses import NodeId

__all__ = ["EMPTY", "Actor", "Context", "Dot", "Ranges", "Seen"]


class Actor(NamedTuple):
    """One life of a node."""

    node: NodeId
    epoch: int


class Dot(NamedTuple):
    """One change: whose, and its number (1 or more)."""

    actor: Actor
    number: int


class Seen(NamedTuple):
    """Numbers seen: 1 to ``upto``, and some from ``upto + 2`` on."""

    upto: int
    above: frozenset[int] = frozenset()

    @classmethod
    def of(cls, upto: int, above: Iterable[int]) -> Seen:
        """1 to ``upto`` and these, in the one form that stands for that set."""
        left = {number for number in above if number > upto}
        while upto + 1 in left:
            upto += 1
            left.remove(upto)
        return cls(upto, frozenset(left))

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and (0 < number <= self.upto or number in self.above)

    def join(self, other: Seen) -> Seen:
        """What either has seen."""
        if not self.above and not other.above:
            return self if self.upto >= other.upto else other
        return Seen.of(max(self.upto, other.upto), self.above | other.above)


class Context(Mapping[Actor, Seen]):
    """A set of dots, by actor."""

    __slots__ = ("_seen",)

    def __init__(self, seen: Mapping[Actor, Seen] | None = None) -> None:
        """Take it as it is: every Seen in its one form, none of them empty."""
        self._seen: Final[dict[Actor, Seen]] = dict(seen or {})

    @classmethod
    def of(cls, dots: Iterable[Dot]) -> Context:
        """Exactly these dots."""
        numbers: dict[Actor, list[int]] = {}
        for dot in dots:
            numbers.setdefault(dot.actor, []).append(dot.number)
        return cls({actor: Seen.of(0, some) for actor, some in numbers.items()})

    def __getitem__(self, actor: Actor) -> Seen:
        return self._seen[actor]

    def __iter__(self) -> Iterator[Actor]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def has(self, dot: Dot) -> bool:
        """Whether a dot is in it."""
        seen = self._seen.get(dot.actor)
        return seen is not None and dot.number in seen

    def join(self, other: Context) -> Context:
        """What either has seen."""
        joined = dict(self._seen)
        for actor, seen in other._seen.items():
            mine = joined.get(actor)
            joined[actor] = seen if mine is None else mine.join(seen)
        return Context(joined)

    def __hash__(self) -> int:
        return hash(frozenset(self._seen.items()))

    def __repr__(self) -> str:
        return f"Context({self._seen!r})"


EMPTY: Final = Context()
"""Nothing seen."""


class Ranges:
    """Versions of one owner that have come: all up to a point, and some ranges beyond it that do not touch. Bounded by who adds."""

    __slots__ = ("_above", "upto")

    def __init__(self, upto: int = 0) -> None:
        """1 to ``upto`` have come."""
        self.upto = upto
        self._above: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """How many ranges there are beyond."""
        return len(self._above)

    def add(self, low: int, high: int) -> None:
        """Versions above ``low``, up to ``high``, have come."""
        if low > self.upto:
            merged = []
            for one in self._above:
                if one[0] <= high and low <= one[1]:
                    low, high = min(low, one[0]), max(high, one[1])
                else:
                    merged.append(one)
            self._above = sorted([*merged, (low, high)])
            return
        self.upto = max(self.upto, high)
        while self._above and self._above[0][0] <= self.upto:
            self.upto = max(self.upto, self._above.pop(0)[1])
