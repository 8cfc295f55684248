"""Messages to every member: along the origin's tree, each delivered once, with a lazy path for what the tree lost.

Pure. The rules:

1. A packet is named by (origin, epoch, number). A node delivers it the first time it comes, and never again.
2. It is passed on at once to the node's children in the tree of shortest paths rooted at the origin, which every node grows
   from its own table. Where tables differ for a moment, the tree has holes; so
3. its id is announced to all other neighbours a little later, and once more after that. Who hears of an id and does not get the
   packet in time asks for it, one announcer after the other. (Plumtree, Leitao, Pereira, Rodrigues, SRDS 2007, has the same lazy
   push; its tree is repaired by it, ours follows the membership.)
4. A new neighbour is told the ids of what is still kept, so that who was away for a moment misses nothing.
5. Everything is bounded: packets kept (bytes and seconds), ids remembered, ids awaited.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Delivered, Notify, Send
from pyminuteman.membership.messages import Multicast, MulticastAnnounce, MulticastRequest, PacketId, Peer
from pyminuteman.membership.replay import ReplayWindow
from pyminuteman.membership.steps import AnnounceDue, MissingDue, SetTimer, Step

__all__ = ["Delivery", "MulticastOverlay"]

_HEARD_MAX: Final = 65_536
_HEARD_KEEPS: Final = 20
"""A life of an origin that was silent for so many times as long as packets are kept is forgotten: nobody has any of its packets, but
somebody who was frozen for all that time, and who drops them first."""
_AWAITED_MAX: Final = 4096
_ASKED_AT_ONCE: Final = 64
_ROUTE_MAX: Final = 64
_REQUEST_ROUNDS_MAX: Final = 8
_PACKET_BYTES: Final = 256
"""What a kept packet takes besides its payload, about: so that empty ones are bounded too."""


class _Heard(ReplayWindow):
    """Which numbers of one life of an origin have come, and when the last one did. What is too old counts as seen."""

    __slots__ = ("at",)
    span = 4096  # within the time that packets are kept these are 136 a second

    def __init__(self, now: float) -> None:
        super().__init__()
        self.at = now


@dataclass(slots=True)
class Delivery:
    """A packet that is kept for those who missed it, and to whom it need not be announced."""

    packet: Multicast
    at: float
    known_by: dict[NodeId, None]


@dataclass(slots=True)
class _Awaited:
    announcers: list[NodeId]
    since: float
    rounds: int = 0


class MulticastOverlay:
    """The multicast of one node.

    Args:
        me: This node.
        config: Its constants.
        random: Where choices come from.
        neighbours: The present active view, by id.
        children: To whom this node passes on what comes from an origin.
        is_unsure: Whether a neighbour may not know us by our boot: only then what is passed on to it says who we are.
    """

    def __init__(
        self,
        me: Peer,
        *,
        config: MembershipConfig,
        random: Random,
        neighbours: Callable[[], dict[NodeId, Peer]],
        children: Callable[[NodeId], Sequence[NodeId]],
        is_unsure: Callable[[NodeId], bool],
    ) -> None:
        self.me = me
        self._config = config
        self._random = random
        self._neighbours = neighbours
        self._children = children
        self._is_unsure = is_unsure
        self._number = 0
        self._heard: OrderedDict[tuple[NodeId, int], _Heard] = OrderedDict()
        self._kept: OrderedDict[PacketId, Delivery] = OrderedDict()
        self._kept_bytes = 0
        self._fresh: list[PacketId] = []
        self._again: list[PacketId] = []
        self._announcing = False
        self._awaited: OrderedDict[PacketId, _Awaited] = OrderedDict()
        self.duplicates = 0
        self.repaired = 0
        self.expired = 0
        self.unawaited = 0
        self.delivered = 0

    def send(self, topic: str, payload: bytes, now: float, *, record_route: bool) -> list[Step]:
        """A packet of our own, to everybody but ourselves."""
        self._number += 1
        identity = PacketId(self.me.id, self.me.epoch, self._number)
        route = (self.me.id,) if record_route else None
        packet = Multicast(identity, topic, self._config.multicast_time_to_live, payload, route)
        self._see(identity, now)
        return self._pass_on(packet, packet, None, now)

    def on_packet(self, packet: Multicast, sender: Peer, now: float) -> list[Step]:
        """A packet has come, by the tree or because it was asked for."""
        if packet.id.origin == self.me.id or self._has_seen(packet.id):
            self.duplicates += 1
            kept = self._kept.get(packet.id)
            if kept is not None:
                kept.known_by[sender.id] = None
            return []
        self._see(packet.id, now)
        if self._awaited.pop(packet.id, None) is not None:
            self.repaired += 1
        self.delivered += 1
        delivered = Notify(Delivered(packet.id, packet.topic, packet.payload, packet.route))
        time_to_live = max(0, min(packet.time_to_live, self._config.multicast_time_to_live) - 1)
        route = packet.route
        if route is not None and len(route) < _ROUTE_MAX:
            route = (*route, self.me.id)
        onward = replace(packet, time_to_live=time_to_live, route=route)
        return [delivered, *self._pass_on(packet, onward, sender.id, now)]

    def on_announce(self, message: MulticastAnnounce, sender: Peer, now: float) -> list[Step]:
        """A neighbour has these packets."""
        steps: list[Step] = []
        for identity in message.ids:
            if self._has_seen(identity):
                kept = self._kept.get(identity)
                if kept is not None:
                    kept.known_by[sender.id] = None
                continue
            awaited = self._awaited.get(identity)
            if awaited is not None:
                if sender.id not in awaited.announcers:
                    awaited.announcers.append(sender.id)
                continue
            if len(self._awaited) >= _AWAITED_MAX:
                self.unawaited += 1
                continue
            self._awaited[identity] = _Awaited([sender.id], now)
            if len(self._awaited) == 1:
                steps.append(SetTimer(MissingDue(), now + self._config.multicast_request_seconds))
        return steps

    def on_request(self, message: MulticastRequest, sender: Peer) -> list[Step]:
        """A neighbour has missed these packets."""
        found = [self._kept[identity] for identity in message.ids if identity in self._kept]
        for delivery in found:
            delivery.known_by[sender.id] = None
        if not found:
            return []
        return [Send(sender.endpoint, tuple(delivery.packet for delivery in found))]

    def neighbour_made(self, peer: Peer, now: float) -> list[Step]:
        """Tell a new neighbour what there is."""
        self._expire(now)
        ids = tuple(identity for identity, delivery in self._kept.items() if peer.id not in delivery.known_by)
        return [Send(peer.endpoint, (MulticastAnnounce(ids),))] if ids else []

    def announce_due(self, timer: AnnounceDue, now: float) -> list[Step]:
        """Tell the neighbours that are not known to have the newest packets."""
        ids = self._again if timer.again else self._fresh
        steps: list[Step] = []
        for node, peer in self._neighbours().items():
            news = tuple(identity for identity in ids if identity in self._kept and node not in self._kept[identity].known_by)
            if news:
                # Most of what a small packet costs all nodes together. The second time a name is said to whoever dropped the first.
                named = timer.again or self._is_unsure(node)
                steps.append(Send(peer.endpoint, (MulticastAnnounce(news),), identify=named))
        if timer.again:
            self._again = []
        else:
            self._announcing = False
            if not self._again:
                steps.append(SetTimer(AnnounceDue(again=True), now + 4 * self._config.multicast_request_seconds))
            self._again += self._fresh
            self._fresh = []
        self._expire(now)
        return steps

    def missing_due(self, now: float) -> list[Step]:
        """Ask for what was announced and has not come; each time another of those who have it."""
        neighbours = self._neighbours()
        asked: dict[NodeId, list[PacketId]] = {}
        patience = self._config.multicast_request_seconds
        for identity, awaited in list(self._awaited.items()):
            if now - awaited.since < patience / 2:
                continue
            announcers = [node for node in awaited.announcers if node in neighbours]
            if not announcers or awaited.rounds >= _REQUEST_ROUNDS_MAX:
                del self._awaited[identity]
                continue
            of_this_one = asked.setdefault(announcers[(awaited.rounds + 1) % len(announcers)], [])
            if len(of_this_one) < _ASKED_AT_ONCE:  # the others have their turn in the next round
                awaited.rounds += 1
                of_this_one.append(identity)
        steps: list[Step] = [Send(neighbours[node].endpoint, (MulticastRequest(tuple(ids)),)) for node, ids in asked.items()]
        if self._awaited:
            steps.append(SetTimer(MissingDue(), now + patience * (0.75 + self._random.random() / 2)))
        return steps

    # -- inside --------------------------------------------------------------------------------------------------------

    def _pass_on(self, kept: Multicast, onward: Multicast, sender: NodeId | None, now: float) -> list[Step]:
        steps: list[Step] = []
        neighbours = self._neighbours()
        if onward.time_to_live > 0:
            for child in self._children(kept.id.origin):
                peer = neighbours.get(child)
                if peer is not None and child != sender:
                    # A name is a fifth of a small packet. Whoever drops it for want of one hears of it from others, and asks.
                    steps.append(Send(peer.endpoint, (onward,), identify=self._is_unsure(child)))
        # Only who is known to have it is spared the announcement: what went to the children can be lost.
        has_it = {node: None for node in (sender, kept.id.origin) if node is not None}
        self._kept[kept.id] = Delivery(onward, now, has_it)
        self._kept_bytes += _PACKET_BYTES + len(kept.payload)
        self._expire(now)
        self._fresh.append(kept.id)
        if not self._announcing:
            self._announcing = True
            steps.append(SetTimer(AnnounceDue(again=False), now + self._config.multicast_announce_seconds))
        return steps

    def _expire(self, now: float) -> None:
        silent_since = now - _HEARD_KEEPS * self._config.multicast_keep_seconds
        while self._heard and next(iter(self._heard.values())).at < silent_since:
            self._heard.popitem(last=False)
        while self._kept:
            identity, delivery = next(iter(self._kept.items()))
            if (
                delivery.at > now - self._config.multicast_keep_seconds
                and self._kept_bytes <= self._config.multicast_keep_bytes
            ):
                return
            del self._kept[identity]
            self._kept_bytes -= _PACKET_BYTES + len(delivery.packet.payload)
            self.expired += 1

    def _has_seen(self, identity: PacketId) -> bool:
        heard = self._heard.get((identity.origin, identity.epoch))
        return heard is not None and heard.refusal(identity.number) is not None

    def _see(self, identity: PacketId, now: float) -> None:
        """Note one that was not seen."""
        life = identity.origin, identity.epoch
        heard = self._heard.get(life)
        if heard is None:
            heard = self._heard[life] = _Heard(now)
            if len(self._heard) > _HEARD_MAX:
                self._heard.popitem(last=False)
        heard.at = now
        self._heard.move_to_end(life)
        heard.add(identity.number)
