"""What the records mean: who is in the cluster, who is in reach, what each is held to be, and what we say of ourselves.

Pure. Composes the table, the graph over it, the statuses of members and the gossip; of links it knows only the active view's
present content. The rules:

1. A newer record is stored, passed on, and looked at: changed links may change reach, a new accusation sets off the cascade.
2. Reach is what decides: who comes into reach is up; who falls out of it is suspect, at once when accused.
3. Our own record always says which links we have, as far as the other end's present life is known; each change is a new version.
4. We refute at once what is said of us, and go above what is said in our name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.adjacency import AdjacencyTable, Change
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Conflict, EpochTaken, MemberStatus, MemberUpdated, Notify, Send
from pyminuteman.membership.errors import RemoteProtocolError
from pyminuteman.membership.gossip import Gossip
from pyminuteman.membership.members import Member, Members
from pyminuteman.membership.messages import Peer, Probe, RecordRequest, Records, TableDigest, TableSummary
from pyminuteman.membership.records import ACCUSED_MAX, EncodedRecord, MemberState, Record, Version
from pyminuteman.membership.routing import Reachability, Routes
from pyminuteman.membership.steps import (
    Accused,
    Departed,
    DownDue,
    ForgetDue,
    OrphanDue,
    Reborn,
    RefreshDue,
    ReturnDue,
    SetTimer,
    Step,
    Torn,
)
from pyminuteman.membership.views import ActiveView

__all__ = ["Census"]

_ACCUSED_SECONDS: Final = 10.0
"""How long an accusation is repeated in new versions of our record, when nothing is heard of the accused: long enough to reach
everybody."""
_REFRESH_LEAST_SECONDS: Final = 0.002
_REFRESH_PER_MEMBER_SECONDS: Final = 20e-6
"""Pace of recomputing reach: it costs some 1 us a member, so this bounds it to a twentieth of a core."""
_EPOCH_PAUSE_SECONDS: Final = 5.0
"""Two processes that share an id would outbid each other at once and for ever."""


class Census:
    """The members as one node knows them, itself among them.

    Args:
        me: Our first record.
        config: The constants.
        random: Where choices come from.
        active: The active view: who our neighbours are.
        counters: Where to count.
        wall_offset: Wall time minus the clock's, in seconds.
    """

    def __init__(
        self,
        me: Record,
        *,
        config: MembershipConfig,
        random: Random,
        active: ActiveView,
        counters: Counter[str],
        wall_offset: float,
    ) -> None:
        self._config = config
        self._random = random
        self._active = active
        self._counters = counters
        self._wall_offset = wall_offset
        self.table = AdjacencyTable(me, config)
        self.table.include(me.id)
        self.reach = Reachability(self.table)
        self.routes = Routes(self.table)
        self.members = Members(config, active)
        self._gossip = Gossip(config)
        self._accused: dict[NodeId, tuple[Version, float]] = {}
        self._repair_at: dict[NodeId, float] = {}
        self._refreshed_at = -inf
        self._refresh_planned = False
        self._epoch_taken_at = self._spoken_anew_at = -inf
        self._names: dict[str, dict[NodeId, None]] = {me.name: {me.id: None}}

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Record:
        """Our present record."""
        return self.table.own.record

    def is_alive(self, node: NodeId) -> bool:
        """Whether the member is held to be alive."""
        status = self.members.status(node)
        return status is not None and status[0] is MemberStatus.ALIVE

    def alive(self) -> frozenset[NodeId]:
        """All that are, and we."""
        return frozenset((self.table.me, *(node for node in self.table if self.is_alive(node))))

    def all(self) -> dict[NodeId, Member]:
        """Every other member that was seen alive and is not forgotten."""
        found: dict[NodeId, Member] = {}
        for node in self.table:
            status, record = self.members.status(node), self.table.record(node)
            if status is not None and record is not None:
                found[node] = Member(record, *status)
        return found

    def peers(self, nodes: Iterable[NodeId]) -> list[Peer]:
        """How to reach those nodes, as far as they are known."""
        records = [self.table.record(node) for node in nodes]
        return [Peer(record.id, record.epoch, record.endpoint) for record in records if record is not None]

    def candidates(self, most: int) -> list[Peer]:
        """Members in reach that are no neighbours, at random."""
        nodes = [node for node in self.reach.nodes() if node != self.table.me and node not in self._active]
        return self.peers(self._random.sample(nodes, min(most, len(nodes))))

    def watchers(self, node: NodeId) -> list[Peer]:
        """Who can probe a neighbour for us: those that watch it too, then our other neighbours."""
        record = self.table.record(node)
        watchers = [other for other in record.neighbours if other != self.table.me and self.is_alive(other)] if record else []
        self._random.shuffle(watchers)
        others = [peer.id for peer in self._active.peers(node, *watchers)]
        self._random.shuffle(others)
        return self.peers([*watchers, *others])

    def has_member_at(self, endpoint: Endpoint) -> bool:
        """Whether a member in reach is at that endpoint."""
        return any(peer.endpoint == endpoint for peer in self.peers(self.reach.nodes()))

    # -- news from others ----------------------------------------------------------------------------------------------

    def on_records(self, records: Iterable[EncodedRecord], sender: Peer, now: float) -> list[Step]:
        """Records have come."""
        steps: list[Step] = []
        for encoded in records:
            try:
                steps += self._on_record(encoded, sender, now)
            except RemoteProtocolError:
                self._counters["records_refused"] += 1
        return steps

    def _on_record(self, encoded: EncodedRecord, sender: Peer, now: float) -> list[Step]:
        wall = now + self._wall_offset
        if encoded.id == self.table.me:
            if not self.table.outdone(encoded):
                return []
            self.table.check(encoded, wall)
            return self._outdone(encoded, now)
        link = self._active.get(encoded.id)
        if link is not None and sender.id == encoded.id and encoded.epoch > link.peer.epoch:
            link = link._replace(peer=link.peer._replace(epoch=encoded.epoch))  # the same process, reborn
            self._active.add(link)
        if not self.table.is_newer(encoded):
            self._counters["records_known"] += 1
            self._gossip.has_it(encoded, sender.id)
            return []
        change = self.table.offer(encoded, wall)
        self._counters["records_new"] += 1
        urgent = change.record.state is MemberState.LEFT or bool(_new_accusations(change))
        steps = [*self._gossip.add(encoded, sender.id, now, urgent=urgent), *self._took(change, now)]
        if link is not None:
            if encoded.id not in self.me.neighbours:
                steps += self.publish(now)  # the link can be claimed now that its other end is known
            if sender.id != encoded.id and self._is_odd(change.record, link.peer):
                steps.append(Send(link.peer.endpoint, (Records((encoded,)),)))
        return steps

    def _is_odd(self, record: Record, neighbour: Peer) -> bool:
        """Whether a neighbour would hardly have said this of itself: it should see what goes round in its name."""
        return record.state is MemberState.LEFT or record.epoch != neighbour.epoch or self.table.me not in record.neighbours

    def on_summary(self, summary: TableSummary, sender: Peer) -> list[Step]:
        """A neighbour's table in hashes: answer with what we have where it differs."""
        digest = self.table.digest_of_difference(summary)
        return [Send(sender.endpoint, (digest,))] if digest.buckets else []

    def on_digest(self, digest: TableDigest, sender: Peer, now: float) -> list[Step]:
        """What a neighbour has where we differ: ask for what is newer there, send what is newer here."""
        steps: list[Step] = []
        wanted, newer = self.table.compare(digest)
        if (
            any(encoded.id == self.table.me for encoded in newer)
            and now >= self._spoken_anew_at + self._config.repair_after_seconds
        ):
            self._spoken_anew_at = now
            steps += self.publish(now, urgent=True)  # what we have said does not count there
            wanted, newer = self.table.compare(digest)
        for known in digest.versions:
            steps += self._ask_anew(known.id)  # it counts there
        if wanted:
            steps.append(Send(sender.endpoint, (RecordRequest(tuple(wanted)),)))
        if newer:
            self._counters["records_repaired"] += len(newer)
            steps.append(Send(sender.endpoint, (Records(tuple(newer)),)))
        return steps

    def on_request(self, request: RecordRequest, sender: Peer) -> list[Step]:
        """A neighbour wants these records."""
        found = [entry.encoded for node in request.ids if (entry := self.table.get(node)) is not None]
        return [Send(sender.endpoint, (Records(tuple(found)),))] if found else []

    def compare(self, peer: Peer, their_hash: int, now: float) -> list[Step]:
        """A neighbour's hash: tables that stay different for a while are compared."""
        if their_hash == self.table.hash:
            self._repair_at.pop(peer.id, None)
            return []
        at = self._repair_at.setdefault(peer.id, now + self._config.repair_after_seconds)
        if now < at:
            return []
        self._repair_at[peer.id] = now + 4 * self._config.repair_after_seconds
        self._counters["repairs"] += 1
        return [Send(peer.endpoint, (self.table.summary(),))]

    # -- links ---------------------------------------------------------------------------------------------------------

    def link_made(self, peer: Peer, now: float, *, joined: bool) -> list[Step]:
        """We have a new neighbour: it is told of us, and one that has just joined is told everything."""
        self._accused.pop(peer.id, None)
        self._repair_at[peer.id] = now + self._config.repair_after_seconds / 3
        self.members.neighbours_changed(now)
        # The other end cannot claim the link before it has our record, so that goes at once and not with the next gossip.
        news = self.table.included_records() if joined else [self.table.own.encoded]
        return [Send(peer.endpoint, (Records(tuple(news)),)), *self.publish(now), *self._ask_anew(peer.id)]

    def link_lost(self, peer: Peer, now: float, *, accuse: bool) -> list[Step]:
        """A neighbour is none any more; ``accuse`` says that we hold it for dead, in the life that the link was to."""
        node = peer.id
        self._repair_at.pop(node, None)
        self.members.neighbours_changed(now)
        record = self.table.record(node)
        if record is None or record.epoch > peer.epoch:
            accuse = False  # nobody can claim that link; or it died and is back already, so there is nobody to accuse
        elif accuse:
            self._accused[node] = Version(node, record.epoch, record.version), now + _ACCUSED_SECONDS
            while len(self._accused) > ACCUSED_MAX:
                del self._accused[next(iter(self._accused))]
        return self.publish(now, urgent=accuse)

    def heard_of(self, node: NodeId, now: float) -> list[Step]:
        """The node itself has spoken: whatever we said of it, it lives."""
        return self.publish(now) if self._accused.pop(node, None) is not None else []

    def _ask_anew(self, node: NodeId) -> list[Step]:
        """If what the node has said is void, show it that it does not count here; it may have been frozen and know nothing of it."""
        if not self.table.is_void(node):
            return []
        return [Send(self.table.known(node).endpoint, (self.table.digest_around(node),))]

    # -- ourselves -----------------------------------------------------------------------------------------------------

    def publish(self, now: float, me: Record | None = None, *, urgent: bool = False) -> list[Step]:
        """Say the present truth about ourselves, in the form of ``me`` if given, under the next version."""
        previous = self.me
        me = previous if me is None else me
        self._accused = {
            node: (version, until)
            for node, (version, until) in self._accused.items()
            if until > now and self.table.stands(version)
        }
        record = replace(
            me,
            version=me.version + 1,
            neighbours=tuple(sorted(link.peer.id for link in self._active if self._is_present_life(link.peer))),
            accused=tuple(sorted(version for version, _ in self._accused.values())),
        )
        encoded = self.table.put(record)
        steps = self._gossip.add_own(encoded, now, urgent=urgent, members=len(self.table))
        return [*steps, *self._took(Change(previous, record, was_void=False), now)]

    def goodbye(self) -> EncodedRecord:
        """Our last record; the same when asked again."""
        me = self.me
        if me.state is not MemberState.LEFT:
            self.table.put(replace(me, version=me.version + 1, state=MemberState.LEFT, neighbours=(), accused=()))
        return self.table.own.encoded

    def correct(self, sender: Peer) -> list[Step]:
        """The sender lives under an epoch that is over, as far as we know: show it what goes round in its name."""
        entry = self.table.get(sender.id)
        return [] if entry is None else [Send(sender.endpoint, (Records((entry.encoded,)),))]

    def flush(self, now: float, is_unsure: Callable[[NodeId], bool]) -> list[Step]:
        """Send the news that waits."""
        return self._gossip.flush(now, self._active.peers(), is_unsure)

    def _is_present_life(self, peer: Peer) -> bool:
        # A claim on a life that the table has not would, for others, be one on the former life and on all that it claimed.
        record = self.table.record(peer.id)
        return record is not None and record.epoch == peer.epoch

    def _outdone(self, encoded: EncodedRecord, now: float) -> list[Step]:
        """Somebody says in our name what we have not said: go above it."""
        me = self.me
        other = Record.decode(encoded)
        self._counters["outdone"] += 1
        if encoded.epoch == me.epoch and other.state is not MemberState.LEFT:
            return self.publish(now, replace(me, version=encoded.version), urgent=True)
        # A later life of ours, or one that has ended: only a life after that is believed.
        if now < self._epoch_taken_at + _EPOCH_PAUSE_SECONDS:
            return []
        self._epoch_taken_at = now
        epoch = encoded.epoch + 1
        return [
            Notify(Conflict(me, other, "another process uses our id, or our state was lost")),
            Notify(EpochTaken(epoch)),
            Reborn(Peer(me.id, epoch, me.endpoint)),
            *self.publish(now, replace(me, epoch=epoch, version=0)),
        ]

    # -- what a record changes -----------------------------------------------------------------------------------------

    def _took(self, change: Change, now: float) -> list[Step]:
        steps: list[Step] = []
        previous, record = change.previous, change.record
        node = record.id
        if previous is not None and previous.epoch < record.epoch:
            self.members.returned(node)
        before = previous.neighbours if previous is not None and not change.was_void else ()
        if before != record.neighbours:
            self.routes.invalidate()
            for gained in self.reach.changed(node, before, record.neighbours):
                steps += self._came(gained, now)
            if self.reach.is_stale and not self._refresh_planned:
                self._refresh_planned = True
                pace = self._refreshed_at + len(self.table) * _REFRESH_PER_MEMBER_SECONDS
                steps.append(SetTimer(RefreshDue(), max(now + _REFRESH_LEAST_SECONDS, pace)))
        if node != self.table.me:
            steps += self._took_of_other(previous, record, now)
        for accused in _new_accusations(change):
            steps += self._on_accusation(accused, record, now)
        return steps

    def _took_of_other(self, previous: Record | None, record: Record, now: float) -> list[Step]:
        node = record.id
        if record.state is MemberState.LEFT:
            self.table.exclude(node)
            return [Departed(node), *self.members.left(record, now)]
        steps: list[Step] = []
        if node in self.reach:
            steps += self._came(node, now)  # a newer word of one whose return was in doubt, or a newer life
        else:
            self.members.learned(node, now)
        news = previous is not None and (previous.epoch < record.epoch or _description(previous) != _description(record))
        if previous is not None and news and self.members.status(node) is not None:
            if previous.name != record.name:
                self._names.get(previous.name, {}).pop(node, None)
            steps += [Notify(MemberUpdated(record, previous)), *self._note_name(record)]
        return steps

    def _on_accusation(self, accusation: Version, record: Record, now: float) -> list[Step]:
        if not self.table.stands(accusation):
            return []
        accused = accusation.id
        if accused == self.table.me:
            self._counters["refutations"] += 1
            return [Send(record.endpoint, (Probe(0),)), *self.publish(now, urgent=True)]
        steps: list[Step] = [] if record.id == self.table.me else [Accused(accused)]
        of_accused = self.table.record(accused)
        if accused not in self.reach and of_accused is not None and record.id in self.reach:
            self.table.void(accused)
            steps += self.members.accused(of_accused, now)
        return steps

    def _came(self, node: NodeId, now: float) -> list[Step]:
        record = self.table.known(node)  # not of one that has left: that claims no link, so nothing leads to it
        self.table.include(node)
        steps = self.members.came(record, now)
        if self.is_alive(node):
            steps += self._note_name(record)
        return [*steps, *self.heard_of(node, now)]

    def _went(self, node: NodeId, now: float) -> list[Step]:
        record = self.table.known(node)
        self.table.exclude(node)
        accused = self._is_accused(node)
        if accused:
            self.table.void(node)
        return self.members.went(record, now, accused=accused)

    def _is_accused(self, node: NodeId) -> bool:
        return any(accuser in self.reach for accuser in self.table.accusers(node))

    def _note_name(self, record: Record) -> list[Step]:
        """Note who has the name; two living members under one are a conflict."""
        holders = self._names.setdefault(record.name, {})
        if record.id in holders:
            return []
        steps: list[Step] = []
        for holder in holders:
            other = self.table.record(holder)
            if other is not None and (holder == self.table.me or self.is_alive(holder)):
                steps.append(Notify(Conflict(record, other, f"both are called {record.name!r}")))
        holders[record.id] = None
        return steps

    # -- timers --------------------------------------------------------------------------------------------------------

    def refresh(self, now: float) -> list[Step]:
        """Recompute who is in reach."""
        self._refreshed_at = now
        self._refresh_planned = False
        gained, lost = self.reach.refresh()
        steps: list[Step] = []
        for node in gained:
            steps += self._came(node, now)
        for node in lost:
            steps += self._went(node, now)
        orphans = [node for node in self.members.unreachable if node in lost and not self._is_accused(node)]
        return [*steps, Torn(self._random.choice(orphans))] if orphans else steps

    def judge(self, timer: OrphanDue | DownDue | ReturnDue, now: float) -> list[Step]:
        """The time given to a member is over."""
        record = self.table.record(timer.node)
        return [] if record is None else self.members.judge(timer, record, now)

    def forget(self, now: float) -> list[Step]:
        """Drop who has been out of reach for too long."""
        steps: list[Step] = []
        for record in filter(None, map(self.table.record, self.members.to_forget(now))):
            self.reach.forget(record.id, record.neighbours)
            self._names.get(record.name, {}).pop(record.id, None)
            self.table.remove(record.id)
            self.members.forget(record.id)
            steps.append(Departed(record.id))
        self._names = {name: holders for name, holders in self._names.items() if holders}
        return [*steps, SetTimer(ForgetDue(), now + self._config.forget_after_seconds / 10)]


def _description(record: Record) -> tuple[object, ...]:
    return record.name, record.endpoint, record.addresses, record.tags, record.keys, record.protocol


def _new_accusations(change: Change) -> Sequence[Version]:
    known = change.previous.accused if change.previous is not None else ()
    return [version for version in change.record.accused if version not in known]
