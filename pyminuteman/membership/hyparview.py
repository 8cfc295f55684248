"""Which nodes are linked: HyParView (Leitao, Pereira, Rodrigues, DSN 2007), with links that both ends agree on.

Pure. Invariants, in this order:

1. A node is never in its own views, and no node is in both of them. Neither view outgrows its size.
2. A link is in our active view only when the peer has said yes, or has asked and we have said yes. A peer that sends heartbeats
   and is no neighbour is told so; so links that one end only believes in do not last.
3. Who has no neighbour is taken in by whoever it asks, at the cost of a random link there.
4. As long as the active view has room, a search for another link is planned; it may come sooner, but nothing puts it off.

What differs from the paper:

- Requests and replies are datagrams with a number and a deadline, since there is no TCP connection whose break is the failure
  detector; the request is retried elsewhere.
- A node that evicts a neighbour for a newcomer tells it of the newcomer, which has room for more: one link becomes two, nobody
  loses a degree, and the newcomer fills its view in two round trips (the paper leaves the evicted to search its passive view).
- The end of a join's walk *offers* a link instead of making one, so it is symmetric (Lashup's is not), and taken only where
  the joiner has room.
- Joins are throttled; who is turned away is told whom to ask instead (from Lashup).
- The table of members, which HyParView does not have, refills an empty passive view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import (
    Disconnect,
    DisconnectReason,
    ForwardJoin,
    Join,
    JoinDenied,
    Message,
    Neighbor,
    NeighborReply,
    Peer,
    Priority,
    Shuffle,
    ShuffleReply,
)
from pyminuteman.membership.steps import JoinDue, LinkLost, LinkMade, RequestDue, SearchDue, SetTimer, ShuffleDue, Step
from pyminuteman.membership.views import ActiveView, Link, PassiveView

__all__ = ["HyParView", "Request"]

_REPLY_PEERS: Final = 8
"""Members named in a reply: enough to go on with, small enough for the datagram."""
_REQUESTS_AT_ONCE: Final = 3
_REQUESTS_MAX: Final = 64
_HURRY_SECONDS: Final = 0.02
"""Pause before asking the next one after a refusal: short, but no loop without end where all refuse."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question under way: a join (``priority`` None) or a wish to be neighbours."""

    endpoint: Endpoint
    node: NodeId | None
    priority: Priority | None


class HyParView:
    """The views of one node, and the protocol between them.

    Args:
        me: This node.
        config: Its constants.
        random: Where every choice comes from.
        candidates: Members in reach besides the neighbours, at most so many, at random: for a passive view run dry.
        doubtful: Whether a neighbour is under confirmation by the failure detector: such a one gives way first.
    """

    def __init__(
        self,
        me: Peer,
        *,
        config: MembershipConfig,
        random: Random,
        candidates: Callable[[int], Sequence[Peer]],
        doubtful: Callable[[NodeId], bool],
    ) -> None:
        self.me = me
        self._config = config
        self._random = random
        self._candidates = candidates
        self._doubtful = doubtful
        self.active = ActiveView(config.active_view_size)
        self.passive = PassiveView(config.passive_view_size, random)
        self.contacts: tuple[Endpoint, ...] = ()
        self._requests: dict[int, Request] = {}
        self._number = 0
        self._search_at = inf
        self._search_pause = config.neighbor_retry_seconds
        self._rounds_in_vain = 0
        self._joins_allowed = config.join_rate_per_second
        self._joins_at = 0.0
        self._shuffle_number = 0
        self._shuffle_sent: tuple[NodeId, ...] | None = None
        self._preferred: dict[NodeId, Peer] = {}
        self.joins_denied = 0

    # -- starting ------------------------------------------------------------------------------------------------------

    def start(self, now: float, contacts: Sequence[Endpoint], known: Sequence[Peer]) -> list[Step]:
        """Begin: remember whom to ask, and ask."""
        self.contacts = tuple(contact for contact in dict.fromkeys(contacts) if contact != self.me.endpoint)
        for peer in known:
            self._remember(peer)
        shuffle = self._config.shuffle_interval_seconds * (0.5 + self._random.random())
        first_search = self._config.join_timeout_seconds if self.contacts else 0.0
        return [*self.join_due(now), SetTimer(ShuffleDue(), now + shuffle), *self._plan_search(now, first_search)]

    def join_due(self, now: float) -> list[Step]:
        """Without neighbours: ask a contact, and again until there are some. Who is known from earlier is asked by the search."""
        if len(self.active) or not (self.contacts or len(self.passive)):
            return []
        steps: list[Step] = []
        if self.contacts:
            steps += self._ask(self._random.choice(self.contacts), None, None, now)
        pause = self._config.join_timeout_seconds * (1 + self._random.random())
        return [*steps, SetTimer(JoinDue(), now + pause)]

    # -- joining -------------------------------------------------------------------------------------------------------

    def on_join(self, message: Join, sender: Peer, boot: bytes, now: float) -> list[Step]:
        """Somebody wants in."""
        if self.active.is_full and sender.id not in self.active and not self._join_allowed(now):
            self.joins_denied += 1
            return [Send(sender.endpoint, (JoinDenied(message.number, self._some_peers(sender.id)),))]
        steps = self._link(Link(sender, boot, self._config.heartbeat_interval_seconds), joined=True)
        forward = ForwardJoin(sender, self._config.active_random_walk_length)
        return [
            self._accept(message.number, sender),
            *steps,
            *(Send(peer.endpoint, (forward,)) for peer in self.active.peers(sender.id)),
        ]

    def on_join_denied(self, message: JoinDenied, now: float) -> list[Step]:
        """Too many at that door: try another of the house."""
        request = self._requests.get(message.number)
        if request is None or request.priority is not None:
            return []
        del self._requests[message.number]
        for peer in message.peers:
            self._remember(peer)
        if len(self.active):
            return []
        others = [peer for peer in message.peers if peer.id != self.me.id and peer.endpoint not in self.contacts]
        return self._ask(self._random.choice(others).endpoint, None, None, now) if others else []

    def on_forward_join(self, message: ForwardJoin, sender: Peer, now: float) -> list[Step]:
        """A newcomer's walk comes by."""
        joiner = message.joiner
        if joiner.id == self.me.id or joiner.id in self.active:
            return []
        onward = self.active.peers(sender.id, joiner.id)
        if message.time_to_live <= 0 or not onward:
            return self._ask(joiner.endpoint, joiner.id, Priority.WALK, now)
        if message.time_to_live == self._config.passive_random_walk_length:
            self._remember(joiner)
        following = ForwardJoin(joiner, min(message.time_to_live, self._config.active_random_walk_length) - 1)
        return [Send(self._random.choice(onward).endpoint, (following,))]

    # -- neighbours ----------------------------------------------------------------------------------------------------

    def on_neighbor(self, message: Neighbor, sender: Peer, boot: bytes) -> list[Step]:
        """Somebody wants to be a neighbour. If it is one, it has lost the link, and we have missed it: that link is over."""
        room = not self.active.is_full or sender.id in self.active
        if not room and message.priority is not Priority.HIGH:
            reply = NeighborReply(
                message.number, accepted=False, interval_ms=self._interval_ms, peers=self._some_peers(sender.id)
            )
            return [Send(sender.endpoint, (reply,))]
        return [
            self._accept(message.number, sender),
            *self._link(Link(sender, boot, message.interval_ms / 1000)),
        ]

    def on_neighbor_reply(self, message: NeighborReply, sender: Peer, boot: bytes, now: float) -> list[Step]:
        """The answer to a join or to a wish to be neighbours."""
        request = self._requests.get(message.number)
        if request is None or request.node not in (None, sender.id):
            # Too late, or never asked: whoever has said yes believes in a link, and is told at once rather than by and by.
            believes = message.accepted and sender.id not in self.active
            return [Send(sender.endpoint, (Disconnect(DisconnectReason.NOT_LINKED),))] if believes else []
        del self._requests[message.number]
        for peer in message.peers:
            self._remember(peer)
        if not message.accepted:
            self.passive.remove(sender.id)  # it is full; others may not be
            hurry = self._rounds_in_vain == 0 or not len(self.active)
            return self._plan_search(now, _HURRY_SECONDS) if hurry else []
        if self.active.is_full and sender.id not in self.active and request.priority is Priority.LOW:
            return [Send(sender.endpoint, (Disconnect(DisconnectReason.FULL),))]
        self._rounds_in_vain = 0
        self._search_pause = self._config.neighbor_retry_seconds
        link = Link(sender, boot, message.interval_ms / 1000)
        if self.active.get(sender.id) == link:
            return []  # both have asked
        steps = self._link(link)
        return steps if self.active.is_full else [*steps, *self._plan_search(now)]  # where one says yes, another may

    def on_heartbeat_of_stranger(self, sender: Peer, boot: bytes) -> list[Step]:
        """A heartbeat from a peer that is no neighbour: it has said yes and the reply was lost, or it has missed the end."""
        if sender.id in self.active:
            return []  # late, of its last process: the present one is our neighbour, and must not be told otherwise
        for number, request in self._requests.items():
            if request.node == sender.id and request.priority is not None and not self.active.is_full:
                del self._requests[number]
                return self._link(Link(sender, boot, self._config.heartbeat_interval_seconds))
        return [Send(sender.endpoint, (Disconnect(DisconnectReason.NOT_LINKED),))]

    def on_disconnect(self, message: Disconnect, sender: Peer, boot: bytes, now: float) -> list[Step]:
        """A neighbour ends the link; where it gave our place away, there is one at the newcomer's."""
        link = self.active.get(sender.id)
        if link is None or link.boot != boot:
            return []
        self.active.remove(sender.id)
        steps: list[Step] = [LinkLost(link.peer, message.reason), *self._search_afresh(now)]
        if message.reason is DisconnectReason.LEAVING:
            self.passive.remove(sender.id)
            return steps
        self._remember(link.peer)
        if message.reason in (DisconnectReason.FAILED, DisconnectReason.NOT_LINKED):
            # It speaks, so it lives, and it has just lost a link too: the best one to ask.
            self._preferred[sender.id] = link.peer
        instead = message.instead
        if instead is not None:
            steps += self._ask(instead.endpoint, instead.id, Priority.LOW if len(self.active) else Priority.HIGH, now)
        return steps

    def drop(self, node: NodeId, reason: DisconnectReason, now: float) -> list[Step]:
        """End a link, and look for another."""
        link = self.active.remove(node)
        if link is None:
            return []
        if reason is not DisconnectReason.FAILED:
            self._remember(link.peer)
        return [
            Send(link.peer.endpoint, (Disconnect(reason),)),
            LinkLost(link.peer, reason, accuse=reason is DisconnectReason.FAILED),
            *self._search_afresh(now),
        ]

    def supersede(self, node: NodeId, now: float) -> list[Step]:
        """The neighbour has begun another life: the link was to the former one."""
        link = self.active.remove(node)
        return [] if link is None else [LinkLost(link.peer, DisconnectReason.REPLACED), *self._search_afresh(now)]

    def heal(self, peer: Peer, now: float) -> list[Step]:
        """Try one that is out of reach: if it answers, two parts of a cluster are one again."""
        return self._ask(peer.endpoint, peer.id, Priority.HIGH, now)

    def knock(self, contact: Endpoint, now: float) -> list[Step]:
        """Ask a contact that is no member: the clusters may never have met."""
        return self._ask(contact, None, None, now)

    # -- timers --------------------------------------------------------------------------------------------------------

    def request_due(self, timer: RequestDue, now: float) -> list[Step]:
        """No answer: whoever it was is not tried again before others."""
        request = self._requests.pop(timer.number, None)
        if request is None:
            return []
        if request.node is not None:
            self.passive.remove(request.node)
            self._preferred.pop(request.node, None)
        if request.priority is None:
            return []
        return self._plan_search(now, 0.0) if not len(self.active) else []

    def search_due(self, now: float) -> list[Step]:
        """Ask for links while there is room. Each search in vain doubles the pause."""
        self._search_at = inf
        waiting = {request.node for request in self._requests.values() if request.node is not None}
        sound = sum(1 for link in self.active if not self._doubtful(link.peer.id))
        room = self.active.capacity - sound - len(waiting)
        if room <= 0:
            return self._plan_search(now) if sound < self.active.capacity else []
        asked = self._choose(min(room, _REQUESTS_AT_ONCE), waiting)
        # With less than half of its links a node takes one from somebody; the others have to be free.
        priority = Priority.HIGH if 2 * sound < self.active.capacity else Priority.LOW
        steps: list[Step] = []
        for peer in asked:
            steps += self._ask(peer.endpoint, peer.id, priority, now)
            priority = Priority.LOW
        self._rounds_in_vain += 1
        return [*steps, *self._plan_search(now)]

    def shuffle_due(self, now: float) -> list[Step]:
        """Send some contacts on a walk, to come back with others."""
        pause = self._config.shuffle_interval_seconds * (0.5 + self._random.random())
        again = SetTimer(ShuffleDue(), now + pause)
        neighbours = self.active.peers()
        if not neighbours:
            return [again]
        config = self._config
        chosen = self._random.sample(neighbours, min(config.shuffle_active_size, len(neighbours)))
        spare = self.passive.sample(config.shuffle_passive_size)
        self._shuffle_number += 1
        self._shuffle_sent = tuple(peer.id for peer in spare)
        shuffle = Shuffle(self.me, self._shuffle_number, config.shuffle_time_to_live, (*chosen, *spare))
        return [Send(self._random.choice(neighbours).endpoint, (shuffle,)), again]

    def on_shuffle(self, message: Shuffle, sender: Peer) -> list[Step]:
        """A shuffle comes by: pass it on, or be its end."""
        if message.origin.id == self.me.id:
            return []
        onward = self.active.peers(sender.id, message.origin.id)
        time_to_live = min(message.time_to_live, self._config.shuffle_time_to_live) - 1
        if time_to_live > 0 and onward:
            following = Shuffle(message.origin, message.number, time_to_live, message.peers)
            return [Send(self._random.choice(onward).endpoint, (following,))]
        mine = self.passive.sample(len(message.peers), [message.origin.id])
        for peer in (*message.peers, message.origin):
            self._remember(peer)
        return [Send(message.origin.endpoint, (ShuffleReply(message.number, tuple(mine)),))]

    def on_shuffle_reply(self, message: ShuffleReply) -> None:
        """Contacts in exchange; what was sent gives way first."""
        if message.number != self._shuffle_number or self._shuffle_sent is None:
            return
        gone = iter(self._shuffle_sent)
        self._shuffle_sent = None
        for peer in message.peers:
            if len(self.passive) >= self.passive.capacity:
                self.passive.remove(next(gone, peer.id))
            self._remember(peer)

    def forget(self, node: NodeId) -> None:
        """The node has left: no contact any more."""
        self.passive.remove(node)
        self._preferred.pop(node, None)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _interval_ms(self) -> int:
        return max(1, round(self._config.heartbeat_interval_seconds * 1000))

    def _accept(self, number: int, sender: Peer) -> Send:
        reply = NeighborReply(number, accepted=True, interval_ms=self._interval_ms, peers=self._some_peers(sender.id))
        return Send(sender.endpoint, (reply,))

    def _link(self, link: Link, *, joined: bool = False) -> list[Step]:
        node = link.peer.id
        if node == self.me.id:
            return []
        steps: list[Step] = []
        known = self.active.get(node)
        if known is None and self.active.is_full:
            steps += self._evict(link.peer)
        elif known is not None:
            steps.append(LinkLost(known.peer, DisconnectReason.REPLACED))
        self.passive.remove(node)
        self._preferred.pop(node, None)
        self.active.add(link)
        return [*steps, LinkMade(link.peer, link.boot, link.interval, joined)]

    def _evict(self, newcomer: Peer) -> list[Step]:
        neighbours = self.active.peers()
        doubtful = [peer for peer in neighbours if self._doubtful(peer.id)]
        evicted = self._random.choice(doubtful or neighbours)
        self.active.remove(evicted.id)
        self._remember(evicted)
        # One that is silent goes as failed, for nobody else may be left to say so; if it lives it will hear of it.
        reason = DisconnectReason.FAILED if doubtful else DisconnectReason.REPLACED
        return [
            Send(evicted.endpoint, (Disconnect(reason, instead=newcomer),)),
            LinkLost(evicted, reason, accuse=bool(doubtful)),
        ]

    def _remember(self, peer: Peer) -> None:
        if peer.id != self.me.id and peer.id not in self.active:
            self.passive.add(peer)

    def _some_peers(self, *exclude: NodeId) -> tuple[Peer, ...]:
        peers = self.active.peers(*exclude)
        chosen = self._random.sample(peers, min(_REPLY_PEERS // 2, len(peers)))
        return (*chosen, *self.passive.sample(_REPLY_PEERS - len(chosen), exclude))

    def _choose(self, most: int, waiting: set[NodeId]) -> list[Peer]:
        chosen = [peer for node, peer in self._preferred.items() if node not in waiting and node not in self.active][:most]
        self._preferred = {}
        exclude = {*waiting, *(peer.id for peer in chosen)}
        chosen += self.passive.sample(most - len(chosen), exclude)
        if len(chosen) < most:
            exclude.update(peer.id for peer in chosen)
            others = [peer for peer in self._candidates(most + len(exclude)) if peer.id not in exclude]
            chosen += others[: most - len(chosen)]
        return chosen

    def _ask(self, endpoint: Endpoint, node: NodeId | None, priority: Priority | None, now: float) -> list[Step]:
        if node == self.me.id or (node is not None and node in self.active) or len(self._requests) >= _REQUESTS_MAX:
            return []
        if node is not None and any(request.node == node for request in self._requests.values()):
            return []
        self._number += 1
        self._requests[self._number] = Request(endpoint, node, priority)
        config = self._config
        message: Message
        if priority is None:
            message, timeout = Join(self._number), config.join_timeout_seconds
        else:
            message, timeout = Neighbor(self._number, priority, self._interval_ms), config.neighbor_timeout_seconds
        return [Send(endpoint, (message,)), SetTimer(RequestDue(self._number), now + timeout)]

    def _search_afresh(self, now: float) -> list[Step]:
        """A link is lost: look for another without the patience of earlier searches.

        At once when less than half are left; else after a moment, for when nodes die there is other news to be spread first.
        """
        self._search_pause = self._config.neighbor_retry_seconds
        self._rounds_in_vain = 0
        few = 2 * len(self.active) < self.active.capacity
        steps = self._plan_search(now, 0.0 if few else self._search_pause * (0.5 + self._random.random()))
        return steps if len(self.active) else [*steps, SetTimer(JoinDue(), now + self._config.join_timeout_seconds)]

    def _plan_search(self, now: float, pause: float | None = None) -> list[Step]:
        if pause is None:
            pause = self._search_pause * (0.75 + self._random.random() / 2)
            self._search_pause = min(self._config.neighbor_retry_max_seconds, self._search_pause * 2)
        if now + pause >= self._search_at:
            return []
        self._search_at = now + pause
        return [SetTimer(SearchDue(), self._search_at)]

    def _join_allowed(self, now: float) -> bool:
        rate = self._config.join_rate_per_second
        self._joins_allowed = min(rate, self._joins_allowed + (now - self._joins_at) * rate)
        self._joins_at = now
        if self._joins_allowed < 1:
            return False
        self._joins_allowed -= 1
        return True
