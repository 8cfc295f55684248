"""A stand-in for the core: everybody is linked to everybody, and says everything every tenth of a second.

Right on a clean network and for few nodes, which is what tests of the simulation need; subclasses in the tests are wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Delivered,
    Effect,
    MemberDown,
    MemberLeft,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    Notify,
    Received,
    Send,
    ViewChanged,
)
from pyminuteman.membership.messages import Multicast, PacketId, Peer, Records
from pyminuteman.membership.records import MemberState, Record

INTERVAL = 0.05
SILENCE = 0.2


@dataclass
class ToyMember:
    record: Record
    status: MemberStatus
    since: float
    heard: float


class ToyCore:
    def __init__(self, me: Record, *, config: MembershipConfig, rng: Random, wall_offset: float) -> None:
        self.me = me
        self.config = config
        self.rng = rng
        self.wall_offset = wall_offset
        self.next_wake = inf
        self.contacts: tuple[Endpoint, ...] = ()
        self.table: dict[NodeId, ToyMember] = {}
        self.left = False
        self.number = 0
        self.seen: set[PacketId] = set()

    @property
    def active_view(self) -> tuple[Peer, ...]:
        return tuple(peer_of(member.record) for member in self.alive())

    @property
    def passive_view(self) -> tuple[Peer, ...]:
        return ()

    def alive(self) -> list[ToyMember]:
        return [member for member in self.table.values() if member.status is MemberStatus.ALIVE]

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        self.contacts = (*contacts, *(peer.endpoint for peer in known))
        return self.wake(now)

    def wake(self, now: float) -> list[Effect]:
        if self.left:
            return []
        self.next_wake = now + INTERVAL * self.rng.uniform(0.9, 1.1)
        targets = dict.fromkeys((*(member.record.endpoint for member in self.table.values()), *self.contacts))
        return [*self.judge(now), *(Send(target, self.news()) for target in targets)]

    def news(self) -> tuple[Records, ...]:
        return (Records((self.me.encode(),)), *(Records((member.record.encode(),)) for member in self.alive()))

    def judge(self, now: float) -> list[Effect]:
        told: list[Effect] = []
        for member in self.table.values():
            if member.status is MemberStatus.ALIVE and now - member.heard > SILENCE:
                member.status, member.since = MemberStatus.SUSPECT, now
                told.append(Notify(MemberSuspect(member.record)))
                told.append(Notify(ViewChanged(self.active_view)))
            elif member.status is MemberStatus.SUSPECT and now - member.since > self.config.down_after_seconds:
                member.status, member.since = MemberStatus.DOWN, now
                told.append(Notify(MemberDown(member.record)))
        return told

    def handle(self, event: Received, now: float) -> list[Effect]:
        told: list[Effect] = []
        for message in event.messages:
            if isinstance(message, Records):
                for encoded in message.records:
                    told += self.learn(Record.decode(encoded), event.sender, now)
            elif isinstance(message, Multicast) and message.id not in self.seen:
                self.seen.add(message.id)
                told.append(Notify(Delivered(message.id, message.topic, message.payload)))
        return told

    def learn(self, record: Record, sender: Peer | None, now: float) -> list[Effect]:  # noqa: PLR0911 - one a case
        if record.id == self.me.id:
            return []
        member = self.table.get(record.id)
        direct = sender is not None and sender.id == record.id
        newer = member is None or (record.epoch, record.version) > (member.record.epoch, member.record.version)
        if member is None:
            if not direct:
                self.contacts = tuple(dict.fromkeys((*self.contacts, record.endpoint)))
                return []
            member = self.table[record.id] = ToyMember(record, MemberStatus.DOWN, now, now)
        if newer:
            member.record = record
        if not direct:
            return []
        member.heard = now
        if member.record.state is MemberState.LEFT:
            if member.status is MemberStatus.LEFT:
                return []
            member.status = MemberStatus.LEFT
            return [Notify(MemberLeft(member.record)), Notify(ViewChanged(self.active_view))]
        if member.status is MemberStatus.ALIVE:
            return []
        member.status, member.since = MemberStatus.ALIVE, now
        return [Notify(MemberUp(member.record)), Notify(ViewChanged(self.active_view))]

    def multicast(self, topic: str, payload: bytes, _now: float, *, record_route: bool = False) -> list[Effect]:
        del record_route
        self.number += 1
        packet = Multicast(PacketId(self.me.id, self.me.epoch, self.number), topic, 1, payload)
        return [Send(peer.endpoint, (packet,)) for peer in self.active_view]

    def update(
        self,
        _now: float,
        *,
        tags: Mapping[str, str] | None = None,
        addresses: Sequence[str] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> list[Effect]:
        del addresses, keys
        self.me = replace(self.me, version=self.me.version + 1, tags=tuple(sorted((tags or {}).items())))
        return [Send(peer.endpoint, (Records((self.me.encode(),)),)) for peer in self.active_view]

    def leave(self, _now: float) -> list[Effect]:
        self.left = True
        self.next_wake = inf
        if self.me.state is not MemberState.LEFT:
            self.me = replace(self.me, version=self.me.version + 1, state=MemberState.LEFT)
        return [Send(peer.endpoint, (Records((self.me.encode(),)),)) for peer in self.active_view]

    def members(self) -> Mapping[NodeId, ToyMember]:
        return self.table

    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        member = self.table.get(node)
        return (self.me.id, node) if member is not None and member.status is MemberStatus.ALIVE else None


def peer_of(record: Record) -> Peer:
    return Peer(record.id, record.epoch, record.endpoint)
