"""One node of the cluster, without the world: composes views, failure detector, adjacency, routing and multicast.

Pure, and deterministic: the same inputs at the same times give the same effects. The parts do not know each other; each answers
with steps (:mod:`pyminuteman.membership.steps`), and what one part's step means to another is decided here:

=============  ===========================================================================================================
 step           what follows
=============  ===========================================================================================================
 LinkMade       watch the peer; say so in our record; tell a newcomer everything; announce what multicast still keeps
 LinkLost       watch it no longer; say so in our record
 LinkSilent     end the link; a failed peer is accused in our record, and the news goes at once
 a new record   links changed: who is in reach; accused: the other neighbours of the accused confirm at once (the cascade)
 out of reach   suspect when accused, else after a grace; then down (:mod:`pyminuteman.membership.members`)
=============  ===========================================================================================================
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Final, assert_never

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.adjacency import AdjacencyTable
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Conflict,
    Effect,
    EpochTaken,
    LocalStall,
    MemberStatus,
    MemberUpdated,
    Notify,
    Received,
    Send,
    ViewChanged,
)
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.failure_detector import FailureDetector
from pyminuteman.membership.gossip import Gossip
from pyminuteman.membership.hyparview import HyParView
from pyminuteman.membership.members import Member, Members
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
    Peer,
    Probe,
    ProbeReply,
    RecordRequest,
    Records,
    Shuffle,
    ShuffleReply,
    TableDigest,
    TableSummary,
)
from pyminuteman.membership.multicast import MulticastOverlay
from pyminuteman.membership.records import EncodedRecord, MemberState, Record
from pyminuteman.membership.relays import Relays
from pyminuteman.membership.routing import Reachability, Routes
from pyminuteman.membership.steps import (
    AnnounceDue,
    DeadlineDue,
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
    RefreshDue,
    RequestDue,
    SearchDue,
    SetTimer,
    ShuffleDue,
    Step,
    Timer,
)
from pyminuteman.membership.timers import TimerHeap

__all__ = ["TOPIC_MAX_BYTES", "MembershipNode"]

TOPIC_MAX_BYTES: Final = 64
"""Longest topic of a multicast, in UTF-8."""
_HEARTBEAT_SLACK_SECONDS: Final = 0.008
"""A heartbeat that is due so soon goes with what has woken the node anyway: every wake-up saved is processor time."""
_FORMER_MAX: Final = 64
_ACCUSED_MAX: Final = 16
_ACCUSED_SECONDS: Final = 10.0
_HEAL_LEAST_SECONDS: Final = 1.0
_HEAL_MOST_SECONDS: Final = 300.0
_HEAL_IDLE_SECONDS: Final = 5.0
_REFRESH_LEAST_SECONDS: Final = 0.002
_REFRESH_PER_MEMBER_SECONDS: Final = 20e-6
"""Pace of recomputing reach: some 1 us a member each time, so that it takes at most a twentieth of a core."""
_EPOCH_PAUSE_SECONDS: Final = 5.0
"""Two processes that share an id would outbid each other at once and for ever."""
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
        self._wall_offset = wall_offset
        peer = Peer(me.id, me.epoch, me.endpoint)
        self._table = AdjacencyTable(me, config)
        self._table.include(me.id)
        self._reach = Reachability(self._table)
        self._routes = Routes(self._table)
        self._members = Members(config)
        self._detector = FailureDetector(config, rng, self._helpers)
        self._views = HyParView(
            peer, config=config, random=rng, candidates=self._candidates, doubtful=self._detector.is_doubtful
        )
        self._overlay = MulticastOverlay(
            peer,
            config=config,
            random=rng,
            neighbours=self._neighbours,
            children=lambda origin: self._routes.children(origin, me.id),
        )
        self._relays = Relays()
        self._gossip = Gossip(config)
        self._timers = TimerHeap()
        self._now = 0.0
        self._accounted = -inf
        self._boots: dict[bytes, NodeId] = {}
        self._former: OrderedDict[bytes, Peer] = OrderedDict()
        self._accused: dict[NodeId, float] = {}
        self._repair_at: dict[NodeId, float] = {}
        self._refreshed_at = -inf
        self._epoch_taken_at = -inf
        self._names: dict[str, dict[NodeId, None]] = {me.name: {me.id: None}}
        self._left = False
        self._view_changed = False
        self._counters: Counter[str] = Counter()

    # -- what the driver calls -----------------------------------------------------------------------------------------

    @property
    def next_wake(self) -> float:
        """When :meth:`wake` wants to be called next; infinity when nothing is due."""
        return inf if self._left else self._timers.first(self._fresh)

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        """Begin: join through ``contacts``, or through members ``known`` from an earlier life."""
        self._now = self._accounted = now
        steps: list[Step] = [
            SetTimer(HealDue(), now + _HEAL_IDLE_SECONDS * (0.5 + self._random.random())),
            SetTimer(ForgetDue(), now + self._config.forget_after_seconds / 10),
            *self._views.start(now, contacts, known),
        ]
        return self._run(steps, now)

    def handle(self, event: Received, now: float) -> list[Effect]:
        """Something authentic has arrived."""
        if self._left:
            return []
        self._now = now
        sender = event.sender
        if sender is None:
            return self._from_neighbour(event, now)
        steps: list[Step] = []
        admitted = self._admit(event, sender, now, steps)
        effects = self._run(steps, now)
        if admitted:
            for message in event.messages:
                effects += self._run(self._dispatch(message, sender, event.boot, now), now)
        return effects

    def wake(self, now: float) -> list[Effect]:
        """Do what is due, and notice when this comes late."""
        if self._left:
            return []
        self._now = now
        effects: list[Effect] = []
        late = now - max(self._timers.first(self._fresh), self._accounted)
        if late > self._config.stall_seconds:
            effects += self._stalled(late, now)
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
        if self._left:
            raise LocalProtocolError("this node has left the cluster")
        if not 0 < len(topic.encode()) <= TOPIC_MAX_BYTES:
            raise LocalProtocolError(f"a topic has 1 to {TOPIC_MAX_BYTES} bytes of UTF-8")
        if len(payload) > self._config.payload_max_bytes:
            raise LocalProtocolError(
                f"a payload of {len(payload)} bytes is above the limit of {self._config.payload_max_bytes}"
            )
        return self._run(self._overlay.send(topic, payload, now, record_route=record_route), now)

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
            LocalProtocolError: The tags are too large. Nothing was changed.
        """
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
        return self._run(self._publish(me, now), now)

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye to all, and fall silent. A second call says it again, in case the first was lost."""
        self._now = now
        if not self._left:
            record = replace(self.me, version=self.me.version + 1, state=MemberState.LEFT, neighbours=(), accused=())
            self._table.put(record)
            self._left = True
        encoded = self._entry(self.me.id)
        bye = (Records((encoded,)), Disconnect(DisconnectReason.LEAVING))
        return [Send(peer.endpoint, bye) for peer in self._views.active.peers()]

    # -- what it knows -------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Record:
        """This node's present record."""
        record = self._table.record(self._table.me)
        assert record is not None  # noqa: S101 - put there by the constructor, and never removed
        return record

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
        alive = [node for node in self._table if self._is_alive(node)]
        return frozenset((self._table.me, *alive))

    def members(self) -> dict[NodeId, Member]:
        """Every member that was ever seen alive and is not forgotten, but this node."""
        found: dict[NodeId, Member] = {}
        for node in self._table:
            status = self._members.status(node)
            record = self._table.record(node)
            if status is not None and record is not None:
                found[node] = Member(record, *status)
        return found

    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """The shortest path from this node to that one, both included; None when there is none."""
        return self._routes.path(node)

    def metrics(self) -> dict[str, int | float]:
        """Counters and gauges, as plain numbers."""
        detector, views, overlay, members = self._detector, self._views, self._overlay, self._members
        trips = [trip for watch in detector.watches.values() if (trip := watch.round_trips.last) is not None]
        return {
            "active_view_size": len(views.active),
            "passive_view_size": len(views.passive),
            "table_size": len(self._table),
            "health_score": detector.health.score(self._now),
            "round_trip_seconds": sum(trips) / len(trips) if trips else 0.0,
            "confirmations_total": detector.confirmations,
            "false_alarms_total": detector.false_alarms,
            "suspicions_total": members.suspicions,
            "refuted_total": members.refuted,
            "downs_total": members.downs,
            "joins_denied_total": views.joins_denied,
            "reach_rebuilds_total": self._reach.rebuilds,
            "records_dropped_total": self._table.dropped,
            "multicast_delivered_total": overlay.delivered,
            "multicast_duplicates_total": overlay.duplicates,
            "multicast_repaired_total": overlay.repaired,
            "multicast_expired_total": overlay.expired,
            "multicast_unawaited_total": overlay.unawaited,
            **{f"members_{status}": count for status, count in members.count().items()},
            **{f"{name}_total": count for name, count in sorted(self._counters.items())},
        }

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _from_neighbour(self, event: Received, now: float) -> list[Effect]:
        """A datagram without a name: from a process that we know by its boot, or of no use."""
        effects: list[Effect] = []
        for message in event.messages:
            node = self._boots.get(event.boot)
            if node is None:
                effects += self._from_former(event.boot, message, now)
                continue
            watch = self._detector.watches[node]
            if type(message) is Heartbeat:
                self._detector.heartbeat(watch, message, now)
                if message.table_hash == self._table.hash:  # nearly always, and then there is nothing else to do
                    self._repair_at.pop(node, None)
                    continue
                effects += self._run(self._compare(watch.peer, message.table_hash, now), now)
            else:
                self._detector.heard(watch, now)
                effects += self._run(self._dispatch(message, watch.peer, event.boot, now), now)
        return effects

    def _from_former(self, boot: bytes, message: Message, now: float) -> list[Effect]:
        former = self._former.get(boot)
        if former is None or type(message) is not Heartbeat:
            self._counters["messages_unknown_sender"] += 1
            return []
        return self._run(self._views.on_heartbeat_of_stranger(former, boot, now), now)

    def _admit(self, event: Received, sender: Peer, now: float, steps: list[Step]) -> bool:
        """Whether the sender may speak under that name; what it is known by is brought up to date."""
        if sender.id == self._table.me:
            self._counters["datagrams_under_our_id"] += 1
            return False
        if sender.epoch > now + self._wall_offset + self._config.clock_skew_max_seconds:
            self._counters["datagrams_epoch_ahead"] += 1
            return False
        record = self._table.record(sender.id)
        if record is not None and sender.epoch < record.epoch:
            self._counters["datagrams_old_epoch"] += 1
            return False
        link = self._views.active.get(sender.id)
        if link is not None:
            if link.boot == event.boot:
                watch = self._detector.watches[sender.id]
                watch.peer = sender
                self._detector.heard(watch, now)
            elif sender.epoch == link.peer.epoch:
                # The same life in another process: a copy of the state directory, or somebody who lies.
                self._counters["datagrams_impersonating"] += 1
                return False
            else:
                steps += self._views.supersede(sender.id, now)
        if self._accused.pop(sender.id, None) is not None:
            steps += self._publish(self.me, now)
        return True

    def _dispatch(self, message: Message, sender: Peer, boot: bytes, now: float) -> list[Step]:  # noqa: C901, PLR0911, PLR0912
        match message:
            case Heartbeat():
                watch = self._detector.watches.get(sender.id)
                if watch is None:
                    return self._views.on_heartbeat_of_stranger(sender, boot, now)
                self._detector.heartbeat(watch, message, now)
                return self._compare(sender, message.table_hash, now)
            case Records():
                return self._on_records(message.records, sender, now)
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
                return self._views.on_neighbor(message, sender, boot, now)
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
                digest = self._table.digest_of_difference(message)
                return [Send(sender.endpoint, (digest,))] if digest.buckets else []
            case TableDigest():
                return self._on_digest(message, sender)
            case RecordRequest():
                found = [entry.encoded for node in message.ids if (entry := self._table.get(node)) is not None]
                return [Send(sender.endpoint, (Records(tuple(found)),))] if found else []
            case Multicast():
                return self._overlay.on_packet(message, sender, now)
            case MulticastAnnounce():
                return self._overlay.on_announce(message, sender, now)
            case MulticastRequest():
                return self._overlay.on_request(message, sender)
            case _:
                assert_never(message)

    def _on_records(self, records: Iterable[EncodedRecord], sender: Peer, now: float) -> list[Step]:
        steps: list[Step] = []
        wall = now + self._wall_offset
        for encoded in records:
            try:
                if encoded.id == self._table.me:
                    if self._table.outdone(encoded):
                        self._table.check(encoded, wall)
                        steps += self._outdone(encoded, now)
                    continue
                if not self._table.is_newer(encoded):
                    self._counters["records_known"] += 1
                    continue
                change = self._table.offer(encoded, wall)
            except RemoteProtocolError:
                self._counters["records_refused"] += 1
                continue
            self._counters["records_new"] += 1
            known = change.previous.accused if change.previous is not None else ()
            urgent = change.record.state is MemberState.LEFT or any(node not in known for node in change.record.accused)
            steps += self._gossip.add(encoded, sender.id, now, urgent=urgent)
            steps += self._took(change.previous, change.record, now, was_void=change.was_void)
            if encoded.id in self._views.active and encoded.id not in self.me.neighbours:
                steps += self._publish(self.me, now)  # the link can be claimed now that its other end is known
        return steps

    def _on_digest(self, message: TableDigest, sender: Peer) -> list[Step]:
        wanted, newer = self._table.compare(message)
        steps: list[Step] = []
        if wanted:
            steps.append(Send(sender.endpoint, (RecordRequest(tuple(wanted)),)))
        if newer:
            self._counters["records_repaired"] += len(newer)
            steps.append(Send(sender.endpoint, (Records(tuple(newer)),)))
        return steps

    def _on_indirect_probe(self, message: IndirectProbe, sender: Peer, now: float) -> list[Step]:
        """Relay to a member that we know, and to nobody else: a cluster is no port scanner."""
        if message.target == self._table.me:
            return [Send(sender.endpoint, (IndirectReply(message.number, message.target),))]
        record = self._table.record(message.target)
        if record is None:
            self._counters["indirect_probes_refused"] += 1
            return []
        watch = self._detector.watches.get(message.target)
        if watch is not None and now - watch.heard_directly_at < self._config.timeout_min_seconds:
            return [Send(sender.endpoint, (IndirectReply(message.number, message.target),))]
        return [*self._relays.relay(message, sender, record.endpoint), *self._detector.suspect(message.target, now)]

    def _compare(self, peer: Peer, their_hash: int, now: float) -> list[Step]:
        """Equal tables have equal hashes; ones that stay different are compared."""
        if their_hash == self._table.hash:
            self._repair_at.pop(peer.id, None)
            return []
        at = self._repair_at.setdefault(peer.id, now + self._config.repair_after_seconds)
        if now < at:
            return []
        self._repair_at[peer.id] = now + 4 * self._config.repair_after_seconds
        self._counters["repairs"] += 1
        return [Send(peer.endpoint, (self._table.summary(),))]

    # -- what records mean ---------------------------------------------------------------------------------------------

    def _took(self, previous: Record | None, record: Record, now: float, *, was_void: bool = False) -> list[Step]:
        """A record is in the table: see to what it changes."""
        steps: list[Step] = []
        node = record.id
        if previous is not None and previous.epoch < record.epoch:
            self._members.returned(node)
        before = previous.neighbours if previous is not None and not was_void else ()
        if before != record.neighbours:
            self._routes.invalidate()
            for gained in self._reach.changed(node, before, record.neighbours):
                steps += self._came(gained, now)
            if self._reach.is_stale:
                pace = self._refreshed_at + len(self._table) * _REFRESH_PER_MEMBER_SECONDS
                steps.append(SetTimer(RefreshDue(), max(now + _REFRESH_LEAST_SECONDS, pace)))
        if node != self._table.me:
            steps += self._took_of_other(previous, record, now)
        for accused in record.accused:
            if previous is None or accused not in previous.accused:
                steps += self._on_accusation(accused, record, now)
        return steps

    def _took_of_other(self, previous: Record | None, record: Record, now: float) -> list[Step]:
        node = record.id
        if record.state is MemberState.LEFT:
            self._table.exclude(node)
            self._views.forget(node)
            return self._members.left(record, now)
        steps: list[Step] = []
        if node in self._reach:
            steps += self._came(node, now)  # a newer life of one that had left
        else:
            self._members.learned(node, now)
        status = self._members.status(node)
        if previous is not None and status is not None and _description(previous) != _description(record):
            if previous.name != record.name:
                self._names.get(previous.name, {}).pop(node, None)
            steps += [Notify(MemberUpdated(record, previous)), *self._name(record)]
        return steps

    def _on_accusation(self, accused: NodeId, record: Record, now: float) -> list[Step]:
        if accused == self._table.me:
            # We are not dead: the next version says so to all, and a word to the accuser.
            self._counters["refutations"] += 1
            return [Send(record.endpoint, (Probe(0),)), *self._publish(self.me, now, urgent=True)]
        steps = self._detector.suspect(accused, now) if record.id != self._table.me else []
        if accused in self._reach:
            return steps
        of_accused = self._table.record(accused)
        if of_accused is not None and record.id in self._reach:
            self._table.void(accused)
            steps += self._members.accused(of_accused, now)
        return steps

    def _came(self, node: NodeId, now: float) -> list[Step]:
        record = self._table.record(node)
        if record is None or node == self._table.me or record.state is MemberState.LEFT:
            return []
        self._table.include(node)
        steps = self._members.came(record, now)
        if steps:
            steps += self._name(record)
        if self._accused.pop(node, None) is not None:
            steps += self._publish(self.me, now)
        return steps

    def _went(self, node: NodeId, now: float) -> list[Step]:
        record = self._table.record(node)
        self._table.exclude(node)
        if record is None:
            return []
        accused = self._is_accused(node)
        if accused:
            self._table.void(node)
        return self._members.went(record, now, accused=accused)

    def _is_accused(self, node: NodeId) -> bool:
        return any(accuser in self._reach for accuser in self._table.accusers(node))

    def _is_alive(self, node: NodeId) -> bool:
        status = self._members.status(node)
        return status is not None and status[0] is MemberStatus.ALIVE

    def _name(self, record: Record) -> list[Step]:
        """Note who has the name; two living members under one are a conflict."""
        holders = self._names.setdefault(record.name, {})
        if record.id in holders:
            return []
        steps: list[Step] = []
        for holder in holders:
            other = self._table.record(holder)
            if other is not None and (holder == self._table.me or self._is_alive(holder)):
                steps.append(Notify(Conflict(record, other, f"both are called {record.name!r}")))
        holders[record.id] = None
        return steps

    def _outdone(self, encoded: EncodedRecord, now: float) -> list[Step]:
        """Somebody says of us what we have not said: go above it."""
        me = self.me
        self._counters["outdone"] += 1
        if encoded.epoch == me.epoch:
            return self._publish(replace(me, version=encoded.version), now, urgent=True)
        if now < self._epoch_taken_at + _EPOCH_PAUSE_SECONDS:
            return []
        self._epoch_taken_at = now
        other = Record.decode(encoded)
        epoch = encoded.epoch + 1
        self._views.me = self._overlay.me = Peer(me.id, epoch, me.endpoint)
        return [
            Notify(Conflict(me, other, "another process uses our id, or our state was lost")),
            Notify(EpochTaken(epoch)),
            *self._publish(replace(me, epoch=epoch, version=0), now),
        ]

    def _publish(self, me: Record, now: float, *, urgent: bool = False) -> list[Step]:
        """Say the present truth about ourselves under the next version."""
        self._accused = {node: until for node, until in self._accused.items() if until > now}
        previous = self.me
        record = replace(
            me,
            version=me.version + 1,
            neighbours=tuple(sorted(link.peer.id for link in self._views.active if self._is_known(link.peer))),
            accused=tuple(sorted(self._accused)),
        )
        encoded = self._table.put(record)
        return [
            *self._gossip.add_own(encoded, now, urgent=urgent, members=len(self._table)),
            *self._took(previous, record, now),
        ]

    # -- what steps mean -----------------------------------------------------------------------------------------------

    def _run(self, steps: Iterable[Step], now: float) -> list[Effect]:
        effects: list[Effect] = []
        waiting = list(steps)
        waiting.reverse()
        while waiting:
            step = waiting.pop()
            match step:
                case Send() | Notify():
                    effects.append(step)
                case SetTimer():
                    self._timers.set(step.timer, step.due)
                case LinkMade():
                    waiting += reversed(self._link_made(step, now))
                case LinkLost():
                    waiting += reversed(self._link_lost(step, now))
                case LinkSilent():
                    waiting += reversed(self._views.drop(step.node, step.reason, now))
                case _:
                    assert_never(step)
        if self._view_changed:
            self._view_changed = False
            effects.append(Notify(ViewChanged(self.active_view)))
        return effects

    def _link_made(self, step: LinkMade, now: float) -> list[Step]:
        node = step.peer.id
        self._boots[step.boot] = node
        self._former.pop(step.boot, None)
        self._accused.pop(node, None)
        self._members.neighbours_changed(len(self._views.active), now)
        self._repair_at[node] = now + self._config.repair_after_seconds / 3
        self._view_changed = True
        steps = self._detector.watch(step.peer, step.interval, now)
        if step.joined:
            steps.append(Send(step.peer.endpoint, (Records(tuple(self._table.included_records())),)))
        return [*steps, *self._publish(self.me, now), *self._overlay.neighbour_made(step.peer)]

    def _link_lost(self, step: LinkLost, now: float) -> list[Step]:
        node = step.peer.id
        self._detector.unwatch(node)
        for boot in [boot for boot, linked in self._boots.items() if linked == node]:
            del self._boots[boot]
            self._former[boot] = step.peer
            if len(self._former) > _FORMER_MAX:
                self._former.popitem(last=False)
        self._repair_at.pop(node, None)
        self._members.neighbours_changed(len(self._views.active), now)
        self._view_changed = True
        self._counters[f"links_lost_{step.reason.name.lower()}"] += 1
        if step.accuse:
            self._accused[node] = now + _ACCUSED_SECONDS
            while len(self._accused) > _ACCUSED_MAX:
                del self._accused[next(iter(self._accused))]
        return self._publish(self.me, now, urgent=step.accuse)

    # -- timers --------------------------------------------------------------------------------------------------------

    def _fresh(self, timer: Timer, due: float) -> float | None:
        return self._detector.fresh_deadline(timer, due) if type(timer) is DeadlineDue else due

    def _fire(self, timer: Timer, due: float, now: float) -> list[Step]:  # noqa: C901, PLR0911, PLR0912 - a table
        match timer:
            case HeartbeatDue():
                return self._detector.heartbeat_due(timer, due, now, self._table.hash)
            case DeadlineDue():
                return self._detector.deadline_due(timer, now)
            case FlushDue():
                return self._gossip.flush(now, self._views.active.peers(), self._is_unsure)
            case RefreshDue():
                return self._refresh(now)
            case OrphanDue():
                record = self._table.record(timer.node)
                return [] if record is None else self._members.orphan_due(timer, record, now)
            case DownDue():
                record = self._table.record(timer.node)
                return [] if record is None else self._members.down_due(timer, record, now)
            case RequestDue():
                return self._views.request_due(timer, now)
            case SearchDue():
                return self._views.search_due(timer, now)
            case JoinDue():
                return self._views.join_due(now)
            case ShuffleDue():
                return self._views.shuffle_due(now)
            case HealDue():
                return self._heal(now)
            case ForgetDue():
                return self._forget(now)
            case AnnounceDue():
                return self._overlay.announce_due(timer, now)
            case MissingDue():
                return self._overlay.missing_due(now)
            case _:
                assert_never(timer)

    def _stalled(self, late: float, now: float) -> list[Effect]:
        """We did not run: nobody else is later for it."""
        self._accounted = now
        self._counters["stalls"] += 1
        self._timers.postpone(lambda timer: isinstance(timer, _JUDGING), late)
        self._detector.forgive(late, now)
        return [Notify(LocalStall(late))]

    def _refresh(self, now: float) -> list[Step]:
        self._refreshed_at = now
        gained, lost = self._reach.refresh()
        steps: list[Step] = []
        for node in gained:
            steps += self._came(node, now)
        for node in lost:
            steps += self._went(node, now)
        return steps

    def _heal(self, now: float) -> list[Step]:
        """Try one of those out of reach, at a rate that the cluster as a whole can bear."""
        unreachable = self._members.unreachable
        strangers = [contact for contact in self._views.contacts if not self._is_member(contact)]
        count = len(unreachable) + len(strangers)
        if not count:
            return [SetTimer(HealDue(), now + _HEAL_IDLE_SECONDS * (0.5 + self._random.random()))]
        scale = self._config.heal_interval_seconds * (self._members.reachable_count + 1) / (count + 1)
        pause = min(_HEAL_MOST_SECONDS, max(_HEAL_LEAST_SECONDS, scale)) * (0.5 + self._random.random())
        again = SetTimer(HealDue(), now + pause)
        chosen = self._random.randrange(count)
        if chosen >= len(unreachable):
            return [*self._views.knock(strangers[chosen - len(unreachable)], now), again]
        record = self._table.record(unreachable[chosen])
        if record is None:
            return [again]
        return [*self._views.heal(Peer(record.id, record.epoch, record.endpoint), now), again]

    def _forget(self, now: float) -> list[Step]:
        for node in self._members.to_forget(now):
            record = self._table.record(node)
            if record is not None:
                self._reach.forget(node, record.neighbours)
                self._names.get(record.name, {}).pop(node, None)
            self._table.remove(node)
            self._members.forget(node)
            self._views.forget(node)
        self._names = {name: holders for name, holders in self._names.items() if holders}
        return [SetTimer(ForgetDue(), now + self._config.forget_after_seconds / 10)]

    # -- what the parts ask --------------------------------------------------------------------------------------------

    def _entry(self, node: NodeId) -> EncodedRecord:
        entry = self._table.get(node)
        assert entry is not None  # noqa: S101 - asked of ourselves only
        return entry.encoded

    def _is_known(self, peer: Peer) -> bool:
        """Whether the table has the peer's present life: a claim on one it has not would bring back what the former life claimed."""
        record = self._table.record(peer.id)
        return record is not None and record.epoch == peer.epoch

    def _is_unsure(self, node: NodeId) -> bool:
        watch = self._detector.watches.get(node)
        return watch is None or watch.unsure

    def _is_member(self, endpoint: Endpoint) -> bool:
        for node in self._reach.nodes():
            record = self._table.record(node)
            if record is not None and record.endpoint == endpoint:
                return True
        return False

    def _neighbours(self) -> dict[NodeId, Peer]:
        return {link.peer.id: link.peer for link in self._views.active}

    def _candidates(self, most: int) -> list[Peer]:
        nodes = [node for node in self._reach.nodes() if node != self._table.me and node not in self._views.active]
        return self._peers(self._random.sample(nodes, min(most, len(nodes))))

    def _helpers(self, node: NodeId) -> list[Peer]:
        """Who can probe a neighbour for us: those that watch it too, then our other neighbours."""
        record = self._table.record(node)
        watchers = [other for other in record.neighbours if other != self._table.me and self._is_alive(other)] if record else []
        self._random.shuffle(watchers)
        others = [peer.id for peer in self._views.active.peers(node, *watchers)]
        self._random.shuffle(others)
        return self._peers([*watchers, *others])

    def _peers(self, nodes: Iterable[NodeId]) -> list[Peer]:
        records = [self._table.record(node) for node in nodes]
        return [Peer(record.id, record.epoch, record.endpoint) for record in records if record is not None]


def _description(record: Record) -> tuple[object, ...]:
    return record.name, record.endpoint, record.addresses, record.tags, record.keys, record.protocol
