"""What the tests of the membership core share: small builders, readers of steps, and a handful of nodes on a clock moved by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Any, Final, TypeVar

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Effect, Notification, Notify, Received, Send
from pyminuteman.membership.messages import Message, Peer
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.records import Record, Version
from pyminuteman.membership.steps import SetTimer, Step, Timer
from tests.support.messages import node_id

EPOCH: Final = 1_700_000_000
START: Final = 1000.0
"""What the clock says when a test begins; wall time is then just past EPOCH."""
WALL_OFFSET: Final = EPOCH - START
CONFIG: Final = MembershipConfig()

_T = TypeVar("_T")


def seeded(seed: int = 1) -> Random:
    """Choices that are the same each time."""
    return Random(seed)  # noqa: S311 - of a test


def ids(*numbers: int) -> tuple[NodeId, ...]:
    """Sorted, as a record has them."""
    return tuple(sorted(map(node_id, numbers)))


def versions(*numbers: int, version: int = 1) -> tuple[Version, ...]:
    """Those nodes in that version of their first life, as a record accuses them."""
    return tuple(Version(node, EPOCH, version) for node in ids(*numbers))


def make_endpoint(number: int) -> Endpoint:
    return Endpoint(f"10.0.{number >> 8}.{number & 255}", 61420)


def make_peer(number: int, epoch: int = EPOCH) -> Peer:
    return Peer(node_id(number), epoch, make_endpoint(number))


def make_boot(number: int, epoch: int = EPOCH) -> bytes:
    """Names the process of one life of that node."""
    return b"%d/%d" % (number, epoch)


def make_record(number: int, *, neighbours: Iterable[int] = (), accused: Iterable[Version] = (), **changes: Any) -> Record:
    settings: dict[str, Any] = {"epoch": EPOCH, "version": 1, "name": f"n{number}", "endpoint": make_endpoint(number)}
    return Record(id=node_id(number), neighbours=ids(*neighbours), accused=tuple(accused), **(settings | changes))


def make_node(number: int = 0, *, config: MembershipConfig = CONFIG, seed: int = 1, **changes: Any) -> MembershipNode:
    """A node that has not started."""
    me = make_record(number, **changes)
    return MembershipNode(me, config=config, rng=seeded(seed * 1000 + number), wall_offset=WALL_OFFSET)


def received(number: int, *messages: Message, epoch: int = EPOCH, boot: bytes | None = None, named: bool = True) -> Received:
    """A datagram of that node's."""
    sender = make_peer(number, epoch) if named else None
    return Received(make_boot(number, epoch) if boot is None else boot, sender, messages)


def sends(steps: Iterable[Step]) -> list[Send]:
    return [step for step in steps if isinstance(step, Send)]


def said(steps: Iterable[Step], kind: type[_T], to: int | None = None) -> list[_T]:
    """The messages of one type that are sent, to that node if one is given."""
    return [
        message
        for send in sends(steps)
        if to is None or send.to == make_endpoint(to)
        for message in send.messages
        if isinstance(message, kind)
    ]


def reached(steps: Iterable[Step], kind: type[Message]) -> set[Endpoint]:
    """To whom messages of one type are sent."""
    return {send.to for send in sends(steps) if any(isinstance(message, kind) for message in send.messages)}


def told(steps: Iterable[Step]) -> list[Notification]:
    return [step.notification for step in steps if isinstance(step, Notify)]


def told_of(steps: Iterable[Step], kind: type[_T]) -> list[_T]:
    return [notification for notification in told(steps) if isinstance(notification, kind)]


def timers(steps: Iterable[Step]) -> dict[Timer, float]:
    """When each timer is set to fire."""
    return {step.timer: step.due for step in steps if isinstance(step, SetTimer)}


def of_type(steps: Iterable[Step], kind: type[_T]) -> list[_T]:
    return [step for step in steps if isinstance(step, kind)]


class Cluster:
    """Nodes 0 to ``count`` - 1 on a network that loses nothing and takes a millisecond, until it is told otherwise.

    The first node is the contact of all others. Messages are handed over as they are: bytes are the codec's business.
    """

    def __init__(self, count: int, *, config: MembershipConfig = CONFIG, seed: int = 1, latency_seconds: float = 0.001) -> None:
        self.config = config
        self.seed = seed
        self.latency = latency_seconds
        self.now = START
        self.nodes: dict[int, MembershipNode] = {}
        self.told: dict[int, list[Notification]] = {}
        self.silent: set[int] = set()
        """Nodes that neither run nor are heard."""
        self.cut: set[tuple[int, int]] = set()
        """Pairs (from, to) between which nothing gets through."""
        self.sent: list[tuple[int, Send]] = []
        self._boots: dict[int, bytes] = {}
        self._inbox: list[tuple[float, int, int, int, Received]] = []
        self._counter = 0
        for number in range(count):
            self.start(number)

    def start(self, number: int, *, contacts: Sequence[int] = (0,), epoch: int = EPOCH, **changes: Any) -> MembershipNode:
        """Start a node, or another life of it."""
        node = make_node(number, config=self.config, seed=self.seed, epoch=epoch, **changes)
        self.nodes[number] = node
        self.told[number] = []
        self.silent.discard(number)
        self._boots[number] = make_boot(number, epoch)
        self.carry_out(number, node.start(self.now, contacts=[make_endpoint(contact) for contact in contacts]))
        return node

    def carry_out(self, number: int, effects: Iterable[Effect]) -> None:
        """Do what a node wants done."""
        by_endpoint = {make_endpoint(other): other for other in self.nodes}
        me = self.nodes[number].me
        for effect in effects:
            if isinstance(effect, Notify):
                self.told[number].append(effect.notification)
                continue
            self.sent.append((number, effect))
            target = by_endpoint.get(effect.to)
            if target is not None:
                self._counter += 1
                sender = Peer(me.id, me.epoch, me.endpoint) if effect.identify else None
                event = Received(self._boots[number], sender, effect.messages)
                heapq.heappush(self._inbox, (self.now + self.latency, self._counter, number, target, event))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while True:
            arrival = self._inbox[0][0] if self._inbox else inf
            wake, number = min((node.next_wake, number) for number, node in self.nodes.items() if number not in self.silent)
            if min(arrival, wake) > end:
                break
            self.now = max(self.now, min(arrival, wake))
            if wake < arrival:
                self.carry_out(number, self.nodes[number].wake(self.now))
                continue
            _, _, source, target, event = heapq.heappop(self._inbox)
            if not {source, target} & self.silent and (source, target) not in self.cut:
                self.carry_out(target, self.nodes[target].handle(event, self.now))
        self.now = end

    def run_until(self, condition: Callable[[], bool], most: float) -> None:
        """Let time pass until something holds; it has to within ``most`` seconds."""
        end = self.now + most
        while not condition():
            assert self.now < end, f"not within {most} seconds"
            self.run(0.25)

    @property
    def is_whole(self) -> bool:
        """Whether every node that runs holds all those for alive, and nobody else."""
        alive = frozenset(node.me.id for number, node in self.nodes.items() if number not in self.silent)
        return all(node.reachable == alive for number, node in self.nodes.items() if number not in self.silent)

    def partition(self, *groups: Iterable[int]) -> None:
        """Let nothing through between these groups."""
        where = {number: place for place, group in enumerate(groups) for number in group}
        self.cut = {(one, other) for one in where for other in where if where[one] != where[other]}

    def notified(self, number: int, kind: type[_T]) -> list[_T]:
        """What a node told its user, of one kind."""
        return [notification for notification in self.told[number] if isinstance(notification, kind)]

    @property
    def links(self) -> set[tuple[int, int]]:
        """Every link as each end that runs sees it: (whose view, who is in it)."""
        numbers = {node_id(number): number for number in self.nodes}
        return {
            (number, numbers[peer.id])
            for number, node in self.nodes.items()
            if number not in self.silent
            for peer in node.active_view
        }


def newer(record: Record, **changes: Any) -> Record:
    """The next version of a record."""
    return replace(record, **({"version": record.version + 1} | changes))
