"""One node of the cluster, without the world: composes views, failure detector, census and multicast.

Pure, and deterministic: the same inputs at the same times give the same effects. The parts do not know each other; each answers
with steps (:mod:`pyminuteman.membership.steps`), and what one part's step means to another is decided here:

=============  ===========================================================================================================
 step           what follows
=============  ===========================================================================================================
 LinkMade       watch the peer; say so in our record; tell a newcomer everything; announce what multicast still keeps
 LinkLost       watch it no longer; say so in our record
 LinkSilent     end the link; a failed peer is accused in our record, and the news goes at once
 Accused        another has cut off a neighbour of ours: confirm it at once (the cascade)
 Torn           a part came off, and nobody accuses it: some knock on it
 Departed       it has left or is forgotten: no contact any more
 Reborn         we go under another epoch
=============  ===========================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Final, assert_never

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.admission import Admission
from pyminuteman.membership.census import Census
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Delivered, Effect, LocalStall, Notify, Received, Send, ViewChanged
from pyminuteman.membership.errors import LocalProtocolError
from pyminuteman.membership.failure_detector import FailureDetector
from pyminuteman.membership.healing import Healing
from pyminuteman.membership.hyparview import HyParView
from pyminuteman.membership.members import Member
from pyminuteman.membership.messages import (
    Disconnect,
    DisconnectReason,
    ForwardJoin,
    Heartbeat,
    IndirectProbe,
    IndirectReply,
    Join,
    JoinDenied,
    Message,
    Multicast,
    MulticastAnnounce,
    MulticastRequest,
    Neighbor,
    NeighborReply,
    PacketId,
    Peer,
    Probe,
    ProbeReply,
    RecordRequest,
    Records,
    Shuffle,
    ShuffleReply,
    TableDigest,
    TableSummary,
    Unicast,
)
from pyminuteman.membership.metrics import gather
from pyminuteman.membership.multicast import MulticastOverlay
from pyminuteman.membership.records import Record
from pyminuteman.membership.relays import Relays
from pyminuteman.membership.steps import (
    Accused,
    AnnounceDue,
    DeadlineDue,
    Departed,
    DownDue,
    FlushDue,
    ForgetDue,
    HealDue,
    HeartbeatDue,
    JoinDue,
    LinkLost,
    LinkMade,
    LinkSilent,
    MissingDue,
    OrphanDue,
    Reborn,
    RefreshDue,
    RequestDue,
    ReturnDue,
    SearchDue,
    SetTimer,
    ShuffleDue,
    Step,
    Timer,
    Torn,
)
from pyminuteman.membership.timers import TimerHeap

__all__ = ["TOPIC_MAX_BYTES", "MembershipNode"]

TOPIC_MAX_BYTES: Final = 64
"""Longest topic of a multicast, in UTF-8."""
_HEARTBEAT_SLACK_SECONDS: Final = 0.012
"""A heartbeat that is due so soon goes with what has woken the node anyway: every wake-up saved is processor time."""
_JUDGING: Final = (DeadlineDue, OrphanDue, DownDue)
"""Timers that hold silence against somebody: they wait for as long as we did not run."""


class MembershipNode:
    """The membership of one node, sans I/O.

    The driver calls :meth:`start` once, then :meth:`handle` with what arrives and :meth:`wake` at :attr:`next_wake`, and does the
    effects that each returns. Times are seconds of one clock that does not jump.

    Args:
        me: The first record of this node: id, epoch, name, endpoint, tags.
        config: Its constants.
        rng: Where every choice comes from.
        wall_offset: Wall time minus the clock's time, in seconds.
    """

    def __init__(self, me: Record, *, config: MembershipConfig, rng: Random, wall_offset: float) -> None:
        self._config = config
        self._random = rng
        peer = Peer(me.id, me.epoch, me.endpoint)
        self._counters: Counter[str] = Counter()
        self._detector = FailureDetector(config, rng, lambda node: self._census.watchers(node))  # noqa: PLW0108 - made below
        self._views = HyParView(
            peer,
            config=config,
            random=rng,
            candidates=lambda most: self._census.candidates(most),  # noqa: PLW0108 - made below
            doubtful=self._detector.is_doubtful,
        )
        self._census = Census(
            me, config=config, random=rng, active=self._views.active, counters=self._counters, wall_offset=wall_offset
        )
        self._overlay = MulticastOverlay(
            peer,
            config=config,
            random=rng,
            neighbours=lambda: {link.peer.id: link.peer for link in self._views.active},
            children=lambda origin: self._census.routes.children(origin, me.id),
            is_unsure=self._detector.is_unsure,
        )
        self._healing = Healing(self._views, self._census, config=config, random=rng)
        self._admission = Admission(
            self._views, self._census, self._detector, config=config, counters=self._counters, wall_offset=wall_offset
        )
        self._relays = Relays()
        self._timers = TimerHeap()
        self._now = 0.0
        self._accounted = -inf
        self._left = False
        self._view_changed = False

    # -- what the driver calls -----------------------------------------------------------------------------------------

    @property
    def next_wake(self) -> float:
        """When :meth:`wake` wants to be called next; infinity when nothing is due."""
        return inf if self._left else self._timers.first(self._fresh)

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        """Begin: join through ``contacts``, or through members ``known`` from an earlier life."""
        self._now = self._accounted = now
        steps: list[Step] = [
            *self._healing.idle(now),
            SetTimer(ForgetDue(), now + self._config.forget_after_seconds / 10),
            *self._views.start(now, contacts, known),
        ]
        return self._run(steps, now)

    def handle(self, event: Received, now: float) -> list[Effect]:
        """Something authentic has arrived."""
        if self._left:
            return []
        effects = self._notice(now)
        sender = event.sender
        if sender is None:
            return effects + self._from_neighbour(event, now)
        admitted, steps = self._admission.admit(sender, event.boot, now)
        effects += self._run(steps, now)
        if admitted:
            for message in event.messages:
                effects += self._run(self._dispatch(message, sender, event.boot, now), now)
        return effects

    def wake(self, now: float) -> list[Effect]:
        """Do what is due, and notice when this comes late."""
        if self._left:
            return []
        effects = self._notice(now)
        for timer, due in self._timers.pop(
            lambda timer: now + _HEARTBEAT_SLACK_SECONDS if type(timer) is HeartbeatDue else now
        ):
            effects += self._run(self._fire(timer, due, now), now)
        return effects

    def multicast(self, topic: str, payload: bytes, now: float, *, record_route: bool = False) -> list[Effect]:
        """Send ``payload`` to every member in reach, to be delivered there once.

        Raises:
            LocalProtocolError: The topic is empty or too long, the payload too large, or this node has left. Nothing was sent.
        """
        self._must_be_sendable(topic, payload)
        return self._run(self._overlay.send(topic, payload, now, record_route=record_route), now)

    def unicast(self, to: NodeId, topic: str, payload: bytes) -> list[Effect]:
        """Send ``payload`` to one member, once. Nothing is sent to somebody who is not known.

        Raises:
            LocalProtocolError: As with :meth:`multicast`.
        """
        self._must_be_sendable(topic, payload)
        record = self._census.table.record(to)
        return [] if record is None else [Send(record.endpoint, (Unicast(topic, payload),))]

    def _must_be_sendable(self, topic: str, payload: bytes) -> None:
        if self._left:
            raise LocalProtocolError("this node has left the cluster")
        if not 0 < len(topic.encode()) <= TOPIC_MAX_BYTES:
            raise LocalProtocolError(f"a topic has 1 to {TOPIC_MAX_BYTES} bytes of UTF-8")
        if len(payload) > self._config.payload_max_bytes:
            raise LocalProtocolError(
                f"a payload of {len(payload)} bytes is above the limit of {self._config.payload_max_bytes}"
            )

    def update(
        self,
        now: float,
        *,
        tags: Mapping[str, str] | None = None,
        addresses: Sequence[str] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> list[Effect]:
        """Change what this node says of itself; None leaves a field as it is.

        Raises:
            LocalProtocolError: The tags are too large, or this node has left. Nothing was changed.
        """
        if self._left:
            raise LocalProtocolError("this node has left the cluster")
        me = self.me
        if tags is not None:
            size = sum(len(name.encode()) + len(value.encode()) for name, value in tags.items())
            if size > self._config.tags_max_bytes:
                raise LocalProtocolError(f"tags of {size} bytes are above the limit of {self._config.tags_max_bytes}")
            me = replace(me, tags=tuple(sorted(tags.items())))
        if addresses is not None:
            me = replace(me, addresses=tuple(addresses))
        if keys is not None:
            me = replace(me, keys=tuple(keys))
        if me == self.me:
            return []
        return self._run(self._census.publish(now, me), now)

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye to all, and fall silent. A second call says it again, in case the first was lost."""
        self._now = now
        self._left = True
        encoded = self._census.goodbye()
        bye = (Records((encoded,)), Disconnect(DisconnectReason.LEAVING))
        return [Send(peer.endpoint, bye) for peer in self._views.active.peers()]

    # -- what it knows -------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Record:
        """This node's present record."""
        return self._census.me

    @property
    def active_view(self) -> tuple[Peer, ...]:
        """The neighbours."""
        return tuple(self._views.active.peers())

    @property
    def passive_view(self) -> tuple[Peer, ...]:
        """The spare contacts."""
        return tuple(self._views.passive)

    @property
    def reachable(self) -> frozenset[NodeId]:
        """Every member held to be alive, this node included."""
        return self._census.alive()

    def members(self) -> dict[NodeId, Member]:
        """Every member that was ever seen alive and is not forgotten, but this node."""
        return self._census.all()

    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """The shortest path from this node to that one, both included; None when there is none."""
        return self._census.routes.path(node)

    def metrics(self) -> dict[str, int | float]:
        """Counters and gauges, as plain numbers."""
        return gather(self._detector, self._views, self._overlay, self._census, counters=self._counters, now=self._now)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _from_neighbour(self, event: Received, now: float) -> list[Effect]:
        """A datagram without a name: from a process that we know by its boot, or of no use."""
        effects: list[Effect] = []
        for message in event.messages:
            node = self._admission.neighbour(event.boot)
            if node is None:
                effects += self._from_former(event.boot, message, now)
                continue
            watch = self._detector.watches[node]
            if type(message) is Heartbeat:
                self._detector.heartbeat(watch, message, now)
                steps = self._census.compare(watch.peer, message.table_hash, now)
                if steps:  # hardly ever
                    effects += self._run(steps, now)
            else:
                self._detector.heard(watch, now)
                effects += self._run(self._dispatch(message, watch.peer, event.boot, now), now)
        return effects

    def _from_former(self, boot: bytes, message: Message, now: float) -> list[Effect]:
        former = self._admission.former(boot)
        if former is None or type(message) is not Heartbeat:
            self._counters["messages_unknown_sender"] += 1
            return []
        return self._run(self._views.on_heartbeat_of_stranger(former, boot), now)

    def _dispatch(self, message: Message, sender: Peer, boot: bytes, now: float) -> list[Step]:  # noqa: C901, PLR0911, PLR0912
        match message:
            case Heartbeat():
                watch = self._detector.watches.get(sender.id)
                if watch is None:
                    return self._views.on_heartbeat_of_stranger(sender, boot)
                self._detector.heartbeat(watch, message, now)
                return self._census.compare(sender, message.table_hash, now)
            case Records():
                return self._census.on_records(message.records, sender, now)
            case Probe():
                return [Send(sender.endpoint, (ProbeReply(message.number),))]
            case ProbeReply():
                return self._relays.on_reply(message, sender)
            case IndirectProbe():
                return self._on_indirect_probe(message, sender, now)
            case IndirectReply():
                self._detector.heard_indirectly(message.target, message.number, now)
                return []
            case Join():
                return self._views.on_join(message, sender, boot, now)
            case JoinDenied():
                return self._views.on_join_denied(message, now)
            case ForwardJoin():
                return self._views.on_forward_join(message, sender, now)
            case Neighbor():
                return self._views.on_neighbor(message, sender, boot)
            case NeighborReply():
                return self._views.on_neighbor_reply(message, sender, boot, now)
            case Disconnect():
                return self._views.on_disconnect(message, sender, boot, now)
            case Shuffle():
                return self._views.on_shuffle(message, sender)
            case ShuffleReply():
                self._views.on_shuffle_reply(message)
                return []
            case TableSummary():
                return self._census.on_summary(message, sender)
            case TableDigest():
                return self._census.on_digest(message, sender, now)
            case RecordRequest():
                return self._census.on_request(message, sender)
            case Multicast():
                return self._overlay.on_packet(message, sender, now)
            case MulticastAnnounce():
                return self._overlay.on_announce(message, sender, now)
            case MulticastRequest():
                return self._overlay.on_request(message, sender)
            case Unicast():
                delivered = Delivered(PacketId(sender.id, sender.epoch, 0), message.topic, message.payload)
                return [Notify(delivered)]
            case _:
                assert_never(message)

    def _on_indirect_probe(self, message: IndirectProbe, sender: Peer, now: float) -> list[Step]:
        """Relay to a member that we know, and to nobody else: a cluster is no port scanner."""
        if message.target == self.me.id:
            return [Send(sender.endpoint, (IndirectReply(message.number, message.target),))]
        record = self._census.table.record(message.target)
        if record is None:
            self._counters["indirect_probes_refused"] += 1
            return []
        watch = self._detector.watches.get(message.target)
        if watch is not None and now - watch.heard_directly_at < self._config.timeout_min_seconds:
            return [Send(sender.endpoint, (IndirectReply(message.number, message.target),))]
        return [*self._relays.relay(message, sender, record.endpoint), *self._detector.suspect(message.target, now)]

    # -- what steps mean -----------------------------------------------------------------------------------------------

    def _run(self, steps: Iterable[Step], now: float) -> list[Effect]:  # noqa: C901, PLR0912 - a table
        effects: list[Effect] = []
        waiting = list(steps)
        waiting.reverse()
        while waiting:
            step = waiting.pop()
            match step:
                case Send():
                    last = effects[-1] if effects else None
                    if isinstance(last, Send) and (last.to, last.identify) == (step.to, step.identify):
                        effects[-1] = replace(last, messages=last.messages + step.messages)
                    else:
                        effects.append(step)
                case Notify():
                    effects.append(step)
                case SetTimer():
                    self._timers.set(step.timer, step.due)
                case LinkMade():
                    waiting += reversed(self._link_made(step, now))
                case LinkLost():
                    waiting += reversed(self._link_lost(step, now))
                case LinkSilent():
                    waiting += reversed(self._views.drop(step.node, step.reason, now))
                case Accused():
                    waiting += reversed(self._detector.suspect(step.node, now))
                case Torn():
                    waiting += reversed(self._healing.knock(step.node, now))
                case Departed():
                    self._views.forget(step.node)
                case Reborn():
                    self._views.me = self._overlay.me = step.me
                    self._detector.introduce()
                case _:
                    assert_never(step)
        if self._view_changed:
            self._view_changed = False
            effects.append(Notify(ViewChanged(self.active_view)))
        return effects

    def _link_made(self, step: LinkMade, now: float) -> list[Step]:
        self._admission.linked(step.peer, step.boot)
        self._view_changed = True
        return [
            *self._detector.watch(step.peer, step.interval, now),
            *self._census.link_made(step.peer, now, joined=step.joined),
            *self._overlay.neighbour_made(step.peer, now),
        ]

    def _link_lost(self, step: LinkLost, now: float) -> list[Step]:
        self._detector.unwatch(step.peer.id)
        self._admission.unlinked(step.peer)
        self._view_changed = True
        self._counters[f"links_lost_{step.reason.name.lower()}"] += 1
        return self._census.link_lost(step.peer, now, accuse=step.accuse)

    # -- timers --------------------------------------------------------------------------------------------------------

    def _fresh(self, timer: Timer, due: float) -> float | None:
        return self._detector.fresh_deadline(timer, due) if type(timer) is DeadlineDue else due

    def _fire(self, timer: Timer, due: float, now: float) -> list[Step]:  # noqa: C901, PLR0911, PLR0912 - a table
        match timer:
            case HeartbeatDue():
                return self._detector.heartbeat_due(timer, due, now, self._census.table.hash)
            case DeadlineDue():
                return self._detector.deadline_due(timer, now)
            case FlushDue():
                return self._census.flush(now, self._detector.is_unsure)
            case RefreshDue():
                return self._census.refresh(now)
            case OrphanDue() | DownDue() | ReturnDue():
                return self._census.judge(timer, now)
            case RequestDue():
                return self._views.request_due(timer, now)
            case SearchDue():
                return self._views.search_due(now)
            case JoinDue():
                return self._views.join_due(now)
            case ShuffleDue():
                return self._views.shuffle_due(now)
            case HealDue():
                return self._healing.due(now)
            case ForgetDue():
                return self._census.forget(now)
            case AnnounceDue():
                return self._overlay.announce_due(timer, now)
            case MissingDue():
                return self._overlay.missing_due(now)
            case _:
                assert_never(timer)

    def _notice(self, now: float) -> list[Effect]:
        """See whether we come late; if we did not run, nobody else is later for it."""
        self._now = now
        stall = self._config.stall_seconds
        if now - self._timers.earliest <= stall:
            return []
        late = now - max(self._timers.first(self._fresh), self._accounted)
        if late <= stall:
            return []
        self._accounted = now
        self._counters["stalls"] += 1
        self._timers.postpone(lambda timer: isinstance(timer, _JUDGING), late)
        self._detector.forgive(late, now)
        return [Notify(LocalStall(late))]
