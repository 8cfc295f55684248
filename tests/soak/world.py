"""What each node's kernel should hold, by what was done to the cluster: written from the documentation, not from the daemon's code. Pure.

1. A VIP is what all nodes together say of it: each its own backends. A node that has left, or is out of reach, is without its backends.
2. An operator's drain is weight 0; an operator's weight stands in place of the source's.
3. A service that would lose all its backends keeps those that are out of reach, as long as what is said of them counts: a lease.
4. A broken text changes nothing, an empty one takes everything back.
5. A service that somebody else has made stands as it was made, also where it is in the way of ours.

While a lease runs more than one table is right: so what is expected are alternatives. A node that has lost its state is another one at
the same address, and what it said before counts for a lease: it may not say anything else before that is over (the schedule sees to it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain, combinations
from typing import Final, NamedTuple

from tests.soak.steps import Document, Kind, Step

__all__ = ["FOREIGN", "LEASE_SECONDS", "Held", "Presence", "World", "difference"]

LEASE_SECONDS: Final = 5.0
_LEASE_LATEST_SECONDS: Final = LEASE_SECONDS + 25.0
"""From when on nothing counts any more of what a node said that went: detection and a busy machine included."""
_MOST_GONE: Final = 6
"""Of claims that may or may not count yet, as many are weighed one by one."""


class Held(NamedTuple):
    """A service as a kernel has it: its scheduler, and each backend (``n3:8000``) with its weight."""

    scheduler: str
    rows: frozenset[tuple[str, int]]

    def __str__(self) -> str:
        return f"{self.scheduler} " + (
            " ".join(f"{backend}={weight}" for backend, weight in sorted(self.rows)) or "without backends"
        )


FOREIGN: Final = Held("rr", frozenset({("10.99.0.1:9", 7)}))
"""What the soak makes where it plays somebody else."""
Expected = Mapping[str, frozenset[Held | None]]
"""By service, what is right; None is for its not being there."""


class Presence(Enum):
    """Whether a node takes part."""

    UP = auto()
    PANICKED = auto()
    LEFT = auto()


@dataclass(slots=True)
class Node:
    """What is so of one node."""

    presence: Presence = Presence.LEFT
    document: Document = field(default_factory=dict)
    cut: bool = False
    frozen: bool = False
    full: bool = False
    foreign: dict[str, Held] = field(default_factory=dict)

    @property
    def is_undisturbed(self) -> bool:
        """Whether it takes part, and nothing is wrong with it for now."""
        return self.presence is Presence.UP and not (self.cut or self.frozen or self.full)


@dataclass(frozen=True, slots=True)
class _Claim:
    node: int
    rows: Mapping[int, int]
    reached: bool


@dataclass(frozen=True, slots=True)
class _Gone:
    """What a node said that has gone."""

    node: int
    document: Document
    until: float


class Impossible(Exception):
    """A step that makes no sense as things are."""


class World:
    """As many nodes, none of which has joined yet."""

    def __init__(self, size: int) -> None:
        self.nodes = [Node() for _ in range(size)]
        self.drained_nodes: set[int] = set()
        self.drained_backends: set[tuple[str, int, int]] = set()
        self.weights: dict[tuple[str, int, int], int] = {}
        self._gone: list[_Gone] = []

    @property
    def up(self) -> list[int]:
        """The nodes that take part, disturbed or not."""
        return [number for number, node in enumerate(self.nodes) if node.presence is Presence.UP]

    @property
    def connected(self) -> list[int]:
        """The nodes whose kernels should be as expected, once things have settled."""
        return [number for number, node in enumerate(self.nodes) if node.is_undisturbed]

    def is_open(self, now: float) -> bool:
        """Whether something is still to change by itself: a lease that has not run out."""
        return any(gone.until > now for gone in self._gone)

    # What is done

    def apply(self, step: Step, now: float) -> None:
        """This is being done.

        Raises:
            Impossible: It cannot be, as things are.
        """
        for number in step.nodes:
            self._apply(step, number, self.nodes[number], now)

    def _apply(self, step: Step, number: int, node: Node, now: float) -> None:  # noqa: C901, PLR0912 - a table
        backend = step.vip, number, step.port
        match step.kind:
            case Kind.LEAVE | Kind.PANIC:
                _require(step, node.is_undisturbed)
                node.presence = Presence.LEFT if step.kind is Kind.LEAVE else Presence.PANICKED
                self._gone.append(_Gone(number, node.document, now + _LEASE_LATEST_SECONDS))
            case Kind.JOIN | Kind.REVIVE:
                _require(step, node.presence is (Presence.LEFT if step.kind is Kind.JOIN else Presence.PANICKED))
                node.presence = Presence.UP
                self._gone = [gone for gone in self._gone if gone.node != number]
            case Kind.LOSE_STATE:
                _require(step, node.presence is Presence.PANICKED and number not in self.drained_nodes)
                node.foreign.clear()
            case Kind.KILL | Kind.RELOAD | Kind.BREAK_CONFIG | Kind.BREAK_SOURCE:
                _require(step, node.is_undisturbed)
            case Kind.CUT | Kind.MEND:
                _require(step, node.cut is (step.kind is Kind.MEND) and node.presence is Presence.UP)
                node.cut = not node.cut
            case Kind.FREEZE | Kind.THAW:
                _require(step, node.frozen is (step.kind is Kind.THAW) and node.presence is Presence.UP)
                node.frozen = not node.frozen
            case Kind.FILL_DISK | Kind.FREE_DISK:
                _require(step, node.full is (step.kind is Kind.FREE_DISK) and node.presence is Presence.UP)
                node.full = not node.full
            case Kind.DRAIN_NODE:
                self.drained_nodes.add(number)
            case Kind.UNDRAIN_NODE:
                self.drained_nodes.remove(number)
            case Kind.DRAIN_BACKEND:
                self.drained_backends.add(backend)
            case Kind.UNDRAIN_BACKEND:
                self.drained_backends.remove(backend)
            case Kind.WEIGHT:
                self.weights[backend] = step.weight
            case Kind.CLEAR_WEIGHT:
                del self.weights[backend]
            case Kind.SAY:
                _require(step, node.presence is Presence.UP)
                node.document = step.document
            case Kind.ADD_FOREIGN:
                _require(step, step.vip not in node.foreign)
                node.foreign[step.vip] = FOREIGN
            case Kind.REMOVE_FOREIGN:
                _require(step, step.vip in node.foreign)
                del node.foreign[step.vip]
            case Kind.DELETE_DESTINATION | Kind.CHANGE_WEIGHT | Kind.DELETE_SERVICE:
                _require(step, node.is_undisturbed and step.vip in node.document)

    # What should come of it

    def expected(self, now: float, viewer: int) -> Expected:
        """What that node's kernel should hold."""
        self._gone = [gone for gone in self._gone if gone.until > now]
        claims: dict[str, list[_Claim]] = {}
        gone: dict[str, list[_Claim]] = {}
        for number in self.up:
            for vip, rows in self.nodes[number].document.items():
                claims.setdefault(vip, []).append(_Claim(number, rows, reached=True))
        for one in self._gone:
            for vip, rows in one.document.items():
                gone.setdefault(vip, []).append(_Claim(one.node, rows, reached=False))
        found: dict[str, frozenset[Held | None]] = {}
        for vip in sorted(claims.keys() | gone.keys()):
            stated, maybe = claims.get(vip, []), gone.get(vip, [])
            found[vip] = frozenset(self._resolve(vip, [*stated, *some]) for some in _subsets(maybe))
        found.update((vip, frozenset({held})) for vip, held in self.nodes[viewer].foreign.items())
        return found

    def _resolve(self, vip: str, claims: list[_Claim]) -> Held | None:
        if not claims:
            return None
        rows = {
            (f"n{claim.node}:{port}", self._weight(vip, claim.node, port, weight), claim.reached)
            for claim in claims
            for port, weight in claim.rows.items()
        }
        takers = [reached for _, weight, reached in rows if weight]
        best = max(takers, default=True)
        return Held("wlc", frozenset((backend, weight) for backend, weight, reached in rows if reached >= best))

    def _weight(self, vip: str, node: int, port: int, weight: int) -> int:
        if node in self.drained_nodes or (vip, node, port) in self.drained_backends:
            return 0
        return self.weights.get((vip, node, port), weight)


def difference(expected: Expected, seen: Mapping[str, Held]) -> str:
    """In what way a table is not as expected; empty when it is."""
    lines = []
    for vip in sorted(expected.keys() | seen.keys()):
        right, there = expected.get(vip, frozenset({None})), seen.get(vip)
        if there not in right:
            wanted = " or ".join(sorted("nothing" if one is None else str(one) for one in right))
            lines.append(f"{vip} is {'not there' if there is None else there}, and should be {wanted}")
    return "; ".join(lines)


def _subsets(claims: list[_Claim]) -> Iterator[Iterable[_Claim]]:
    if len(claims) > _MOST_GONE:
        return iter([(), claims])
    return chain.from_iterable(combinations(claims, size) for size in range(len(claims) + 1))


def _require(step: Step, holds: object) -> None:
    if not holds:
        raise Impossible(str(step))
