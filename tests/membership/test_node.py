"""The node: what each part's step means to the others, who may speak, and a few nodes together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

import pytest

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Conflict,
    Delivered,
    Effect,
    EpochTaken,
    LocalStall,
    MemberDown,
    MemberLeft,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    PartitionSuspected,
    Received,
    Send,
    ViewChanged,
)
from pyminuteman.membership.errors import LocalProtocolError
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
    Priority,
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
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.records import MemberState, Record
from tests.membership.support import (
    CONFIG,
    EPOCH,
    START,
    Cluster,
    ids,
    make_boot,
    make_endpoint,
    make_node,
    make_peer,
    make_record,
    reached,
    received,
    said,
    sends,
    told,
    told_of,
    versions,
)
from tests.support.messages import node_id


class Setting:
    """Node 0 with links to ``neighbours``, who claim them; time moves only by hand."""

    def __init__(self, *neighbours: int, config: MembershipConfig = CONFIG, contacts: Iterable[int] = ()) -> None:
        self.now = START
        self.node = make_node(0, config=config)
        self.node.start(START, contacts=[make_endpoint(contact) for contact in contacts])
        for number in neighbours:
            self.link(number)

    def link(self, number: int, epoch: int = EPOCH) -> list[Effect]:
        record = make_record(number, neighbours=[0], epoch=epoch)
        return self.hear(number, Records((record.encode(),)), Neighbor(1, Priority.HIGH, 200), epoch=epoch)

    def hear(
        self, number: int, *messages: Message, named: bool = True, epoch: int = EPOCH, boot: bytes | None = None
    ) -> list[Effect]:
        return self.node.handle(received(number, *messages, named=named, epoch=epoch, boot=boot), self.now)

    def run(self, seconds: float, *alive: int) -> list[Effect]:
        """Let time pass; heartbeats come from those that live."""
        effects: list[Effect] = []
        end, beat = self.now + seconds, self.now
        while (at := min(self.node.next_wake, beat if alive else inf)) <= end:
            self.now = max(self.now, at)
            if at == beat and alive:
                for number in alive:
                    effects += self.hear(number, Heartbeat(1, 0, 0, 0), named=False)
                beat += 0.1
            effects += self.node.wake(self.now)
        self.now = end
        return effects

    def metric(self, name: str) -> int | float:
        return self.node.metrics().get(name, 0)

    @property
    def links(self) -> set[int]:
        return {number for number in range(100) if make_peer(number).id in {peer.id for peer in self.node.active_view}}


# -- what a step means -------------------------------------------------------------------------------------------------


def test_a_link_made_is_watched_claimed_and_told() -> None:
    setting = Setting()
    effects = setting.link(1)
    assert told_of(effects, ViewChanged) == [ViewChanged((make_peer(1),))]
    assert [up.record.id for up in told_of(effects, MemberUp)] == [node_id(1)]
    assert setting.node.me.neighbours == ids(1)
    assert node_id(0) in {record.id for message in said(effects, Records, to=1) for record in message.records}
    assert reached(setting.run(0.01), Heartbeat) == {make_endpoint(1)}


def test_who_joins_is_told_everything() -> None:
    setting = Setting(1, 2)
    effects = setting.hear(9, Join(1))
    (everything,) = said(effects, Records, to=9)
    assert {record.id for record in everything.records} == {node_id(number) for number in (0, 1, 2)}


def test_a_new_neighbour_hears_what_multicast_still_keeps() -> None:
    setting = Setting(1)
    setting.node.multicast("topic", b"payload", setting.now)
    (announced,) = said(setting.link(2), MulticastAnnounce, to=2)
    assert announced.ids == (PacketId(node_id(0), EPOCH, 1),)


def test_a_link_lost_is_watched_no_more_and_claimed_no_more() -> None:
    setting = Setting(1, 2)
    effects = setting.hear(1, Disconnect(DisconnectReason.REPLACED))
    assert told_of(effects, ViewChanged) == [ViewChanged((make_peer(2),))]
    assert setting.node.me.neighbours == ids(2)
    assert setting.metric("links_lost_replaced_total") == 1
    assert make_endpoint(1) not in reached(setting.run(0.3, 2), Heartbeat)


def test_a_silent_neighbour_is_cut_off_and_accused_and_the_news_goes_at_once() -> None:
    setting = Setting(1, 2, 3)
    setting.run(1.0, 1, 2, 3)
    began = setting.now
    while 3 in setting.links:
        effects = setting.run(0.01, 1, 2)
    assert setting.now - began < 1.0
    assert said(effects, Disconnect, to=3) == [Disconnect(DisconnectReason.FAILED)]
    assert setting.node.me.accused == versions(3)
    effects += setting.run(2 * CONFIG.gossip_urgent_seconds, 1, 2)
    (news,) = said(effects, Records, to=1)
    assert Record.decode(news.records[-1]).accused == versions(3)
    effects = setting.run(0.1, 1, 2)
    assert setting.node.members()[node_id(3)].status is MemberStatus.SUSPECT
    assert setting.metric("links_lost_failed_total") == 1


def test_an_accused_neighbour_of_ours_is_confirmed_at_once() -> None:
    setting = Setting(1, 2)
    setting.run(1.0, 1, 2)
    setting.run(0.09)
    accusing = make_record(1, neighbours=[0], accused=versions(2), version=2)
    effects = setting.hear(1, Records((accusing.encode(),)))
    assert reached(effects, Probe) == {make_endpoint(2)}


def test_who_has_left_or_is_forgotten_is_no_contact_any_more() -> None:
    setting = Setting(1)
    setting.hear(1, NeighborReply(99, accepted=False, interval_ms=200))
    setting.hear(1, Shuffle(make_peer(5), 1, 1, (make_peer(6),)))
    assert set(setting.node.passive_view) == {make_peer(5), make_peer(6)}
    setting.hear(1, Records((make_record(5, state=MemberState.LEFT).encode(),)))
    assert set(setting.node.passive_view) == {make_peer(6)}


def torn(*, full: bool = False) -> tuple[Setting, list[Effect]]:
    """A part comes off, without an accusation: 5 was behind 1."""
    setting = Setting(1, 2, config=replace(CONFIG, active_view_size=2, shuffle_active_size=2) if full else CONFIG)
    behind = make_record(5, neighbours=[1]).encode()
    setting.hear(1, Records((behind, make_record(1, neighbours=[0, 5], version=2).encode())))
    assert node_id(5) in setting.node.reachable
    setting.hear(1, Records((make_record(1, neighbours=[0], version=3).encode(),)))
    return setting, setting.run(0.1, 1, 2)


@pytest.mark.parametrize("full", [False, True])
def test_a_few_knock_on_a_part_that_came_off(full: bool) -> None:
    setting, effects = torn(full=full)
    assert [message.priority for message in said(effects, Neighbor, to=5)] == [Priority.HIGH]
    assert node_id(5) in setting.node.reachable, "in its grace"


def test_not_everybody_in_a_large_cluster_knocks() -> None:
    setting = Setting(1, 2)
    crowd = [make_record(number, neighbours=[1]) for number in range(10, 100)]
    numbers = [0, 5, *range(10, 70)]
    hub = make_record(1, neighbours=numbers, version=2)
    for at in range(0, len(crowd), 30):
        setting.hear(1, Records(tuple(record.encode() for record in crowd[at : at + 30])))
    knocks = 0
    for turn in range(40):
        joined = replace(hub, version=2 + 2 * turn)
        gone = make_record(1, neighbours=[number for number in numbers if number != 5], version=3 + 2 * turn)
        setting.hear(1, Records((make_record(5, neighbours=[1], version=1 + turn).encode(), joined.encode())))
        setting.run(0.01, 1, 2)
        setting.hear(1, Records((gone.encode(),)))
        knocks += len(said(setting.run(0.6, 1, 2), Neighbor, to=5))
    assert 0 < knocks < 20


def test_we_go_under_another_epoch_everywhere_when_ours_is_taken() -> None:
    setting = Setting(1)
    forged = replace(setting.node.me, epoch=EPOCH + 5)
    effects = setting.hear(1, Records((forged.encode(),)))
    assert told_of(effects, EpochTaken) == [EpochTaken(EPOCH + 6)]
    assert told_of(effects, Conflict)
    setting.node.multicast("topic", b"", setting.now)
    (announced,) = said(setting.link(2), MulticastAnnounce, to=2)
    assert announced.ids[0].epoch == EPOCH + 6
    shuffle = Shuffle(make_peer(0), 1, 9, ())
    assert setting.hear(2, shuffle) == [], "and are still who we are"


# -- what the driver calls ---------------------------------------------------------------------------------------------


def test_it_wants_to_be_woken_when_something_is_due_and_not_for_nothing() -> None:
    node = make_node(0)
    assert node.next_wake == inf
    node.start(START)
    assert START <= node.next_wake < inf
    assert node.wake(node.next_wake - 1e-3) == []


def test_it_asks_its_contacts_or_members_of_an_earlier_life() -> None:
    effects = make_node(0).start(START, contacts=[make_endpoint(1)])
    assert reached(effects, Join) == {make_endpoint(1)}
    setting = Setting()
    setting.node = make_node(0)
    setting.node.start(START, known=[make_peer(7)])
    assert reached(setting.run(0.01), Neighbor) == {make_endpoint(7)}


def test_heartbeats_that_are_nearly_due_go_with_whatever_wakes_it() -> None:
    setting = Setting(1)
    setting.run(1.0, 1)
    assert setting.node.next_wake > setting.now
    setting.now = setting.node.next_wake - 0.005
    effects = setting.node.wake(setting.now)
    assert reached(effects, Heartbeat) in ({make_endpoint(1)}, set())
    assert setting.node.next_wake > setting.now


def test_a_wake_that_comes_late_is_our_own_stall_and_nobody_is_judged_for_it() -> None:
    setting = Setting(1, 2, 3)
    setting.run(1.0, 1, 2, 3)
    setting.now += 30
    effects = setting.node.wake(setting.now)
    (stall,) = told_of(effects, LocalStall)
    assert 29 < stall.seconds <= 30
    assert setting.links == {1, 2, 3}
    assert setting.metric("stalls_total") == 1
    assert setting.metric("health_score") == 1
    assert told_of(setting.run(0.1, 1, 2, 3), LocalStall) == []
    setting.run(1.0, 1, 2, 3)
    assert setting.links == {1, 2, 3}


def test_a_datagram_that_is_read_first_after_a_stall_shows_the_stall_too() -> None:
    setting = Setting(1, 2)
    setting.run(1.0, 1, 2)
    setting.now += 30
    assert told_of(setting.hear(1, Heartbeat(1, 0, 0, 0), named=False), LocalStall)
    assert told_of(setting.node.wake(setting.now), LocalStall) == [], "once"
    assert setting.links == {1, 2}


@pytest.mark.parametrize("topic", ["", "é" * 33])
def test_a_topic_that_is_empty_or_too_long_is_refused(topic: str) -> None:
    setting = Setting(1)
    with pytest.raises(LocalProtocolError, match="1 to 64 bytes"):
        setting.node.multicast(topic, b"", setting.now)
    effects = setting.node.multicast("é" * 32, b"", setting.now)
    assert [packet.id.number for packet in said(effects, Multicast)] == [1], "no number was spent"


def test_a_payload_that_is_too_large_is_refused() -> None:
    setting = Setting(1, config=replace(CONFIG, payload_max_bytes=10))
    with pytest.raises(LocalProtocolError, match="11 bytes is above the limit of 10"):
        setting.node.multicast("topic", bytes(11), setting.now)
    assert said(setting.node.multicast("topic", bytes(10), setting.now), Multicast)


def test_what_a_node_says_of_itself_can_be_changed_field_by_field() -> None:
    setting = Setting(1)
    before = setting.node.me
    setting.node.update(setting.now, tags={"b": "2", "a": "1"})
    setting.node.update(setting.now, addresses=["::1"])
    setting.node.update(setting.now, keys=[b"kkkk"])
    me = setting.node.me
    assert (me.tags, me.addresses, me.keys) == ((("a", "1"), ("b", "2")), ("::1",), (b"kkkk",))
    assert (me.version, me.neighbours, me.name) == (before.version + 3, before.neighbours, before.name)
    (news,) = said(setting.run(0.5, 1), Records, to=1)
    assert Record.decode(news.records[0]).tags == me.tags


def test_an_update_that_changes_nothing_is_no_new_version() -> None:
    setting = Setting(1)
    setting.node.update(setting.now, tags={"a": "1"})
    version = setting.node.me.version
    assert setting.node.update(setting.now, tags={"a": "1"}) == setting.node.update(setting.now) == []
    assert setting.node.me.version == version


def test_tags_that_are_too_large_are_refused_and_change_nothing() -> None:
    setting = Setting(1, config=replace(CONFIG, tags_max_bytes=10))
    before = setting.node.me
    with pytest.raises(LocalProtocolError, match="tags of 11 bytes are above the limit of 10"):
        setting.node.update(setting.now, tags={"name": "1234567"})
    assert setting.node.me == before
    setting.node.update(setting.now, tags={"name": "123456"})


def test_who_leaves_says_goodbye_to_all_neighbours_and_falls_silent() -> None:
    setting = Setting(1, 2)
    effects = setting.node.leave(setting.now)
    assert reached(effects, Disconnect) == {make_endpoint(1), make_endpoint(2)}
    assert set(said(effects, Disconnect)) == {Disconnect(DisconnectReason.LEAVING)}
    (last,) = said(effects, Records, to=1)
    assert Record.decode(last.records[0]).state is MemberState.LEFT
    assert setting.node.leave(setting.now + 0.1) == effects, "again, in case the first was lost"
    assert setting.node.next_wake == inf
    assert setting.node.wake(setting.now + 1) == setting.hear(1, Probe(1)) == []
    with pytest.raises(LocalProtocolError, match="has left"):
        setting.node.multicast("topic", b"", setting.now)
    with pytest.raises(LocalProtocolError, match="has left"):
        setting.node.update(setting.now, tags={"too": "late"})


def test_the_same_inputs_give_the_same_effects() -> None:
    runs = []
    for _ in range(2):
        cluster = Cluster(4)
        cluster.run(2.0)
        runs.append((cluster.sent, cluster.told))
    assert runs[0] == runs[1]


# -- who may speak -----------------------------------------------------------------------------------------------------


def test_a_datagram_under_our_own_id_is_not_heard() -> None:
    setting = Setting(1)
    assert setting.hear(0, Probe(1), boot=b"somebody else") == []
    assert setting.metric("datagrams_under_our_id_total") == 1


def test_a_datagram_with_an_epoch_far_ahead_of_our_clock_is_not_heard() -> None:
    setting = Setting(1)
    ahead = int(EPOCH + CONFIG.clock_skew_max_seconds)
    assert setting.hear(9, Probe(1), epoch=ahead + 2) == []
    assert setting.metric("datagrams_epoch_ahead_total") == 1
    assert said(setting.hear(9, Probe(1), epoch=ahead - 1), ProbeReply)


def test_a_datagram_of_a_former_life_is_not_heard_but_shown_what_goes_round_in_its_name() -> None:
    setting = Setting(1)
    setting.link(2, epoch=EPOCH + 1)
    effects = setting.hear(2, Probe(1), Disconnect(DisconnectReason.LEAVING), epoch=EPOCH)
    (shown,) = said(effects, Records, to=2)
    assert [(record.id, record.epoch) for record in shown.records] == [(node_id(2), EPOCH + 1)]
    assert said(effects, ProbeReply) == []
    assert make_peer(2, EPOCH + 1) in setting.node.active_view
    assert setting.metric("datagrams_old_epoch_total") == 1


def test_the_same_life_from_another_process_is_somebody_else() -> None:
    setting = Setting(1)
    assert setting.hear(1, Disconnect(DisconnectReason.LEAVING), boot=b"a copy") == []
    assert setting.metric("datagrams_impersonating_total") == 1
    assert setting.links == {1}


def test_a_later_life_ends_the_link_to_the_former_one_and_makes_its_own() -> None:
    setting = Setting(1, 2)
    effects = setting.link(1, epoch=EPOCH + 1)
    assert setting.metric("links_lost_replaced_total") == 1
    assert make_peer(1, EPOCH + 1) in setting.node.active_view
    assert told_of(effects, MemberDown) == told_of(effects, MemberSuspect) == []
    setting.hear(1, Heartbeat(1, 0, 0, 0), named=False)
    assert setting.metric("messages_unknown_sender_total") == 0
    assert setting.node.me.neighbours == ids(1, 2)


def test_whoever_speaks_for_itself_is_not_dead_whatever_we_said() -> None:
    setting = Setting(1, 2, 3)
    setting.run(1.0, 1, 2, 3)
    while 3 in setting.links:
        setting.run(0.05, 1, 2)
    assert setting.node.me.accused == versions(3)
    setting.hear(3, Probe(1))
    assert setting.node.me.accused == ()


def test_a_datagram_without_a_name_is_known_by_its_process() -> None:
    setting = Setting(1)
    assert said(setting.hear(1, Probe(7), named=False), ProbeReply, to=1) == [ProbeReply(7)]
    assert setting.hear(1, Probe(7), named=False, boot=b"unknown") == []
    assert setting.metric("messages_unknown_sender_total") == 1


def test_a_packet_goes_to_a_neighbour_without_a_name_once_that_neighbour_has_shown_that_it_knows_us() -> None:
    setting = Setting(1)
    for known in (False, True):
        (sent,) = [effect for effect in setting.node.multicast("topic", b"payload", setting.now) if isinstance(effect, Send)]
        assert (sent.to, sent.identify) == (make_endpoint(1), not known)
        setting.hear(1, Heartbeat(1, 0, 0, 0), named=False)


def test_a_packet_without_a_name_is_taken_from_a_neighbour_and_from_nobody_else() -> None:
    setting = Setting(1, 2)
    packet = Multicast(PacketId(node_id(1), EPOCH, 1), "topic", 32, b"payload")
    assert told_of(setting.hear(9, packet, named=False), Delivered) == []
    assert told_of(setting.hear(2, packet, named=False), Delivered) == [Delivered(packet.id, "topic", b"payload")]


def test_a_former_neighbour_that_goes_on_as_if_it_were_one_is_told() -> None:
    setting = Setting(1, 2)
    setting.hear(1, Disconnect(DisconnectReason.REPLACED), Probe(1), named=False)
    assert setting.metric("messages_unknown_sender_total") == 1, "what came behind its goodbye"
    effects = setting.hear(1, Heartbeat(1, 0, 0, 0), named=False)
    assert said(effects, Disconnect, to=1) == [Disconnect(DisconnectReason.NOT_LINKED)]


def test_processes_of_former_neighbours_are_remembered_within_bounds() -> None:
    setting = Setting(1)
    for number in range(2, 70):
        setting.link(number)
        setting.hear(number, Disconnect(DisconnectReason.REPLACED))
    oldest = setting.hear(2, Heartbeat(1, 0, 0, 0), named=False)
    latest = setting.hear(69, Heartbeat(1, 0, 0, 0), named=False)
    assert sends(oldest) == []
    assert said(latest, Disconnect, to=69) == [Disconnect(DisconnectReason.NOT_LINKED)]


# -- what is answered --------------------------------------------------------------------------------------------------


def test_a_named_heartbeat_of_a_neighbour_counts_and_that_of_a_stranger_is_answered() -> None:
    setting = Setting(1)
    for _ in range(30):
        setting.hear(1, Heartbeat(1, 0, 0, 0))
        setting.run(0.1)
    assert setting.links == {1}
    assert said(setting.hear(9, Heartbeat(1, 0, 0, 0)), Disconnect, to=9) == [Disconnect(DisconnectReason.NOT_LINKED)]


def test_heartbeats_measure_the_round_trip() -> None:
    setting = Setting(1)
    assert setting.metric("round_trip_seconds") == 0.0
    (beat,) = said(setting.run(0.01), Heartbeat, to=1)
    setting.hear(1, Heartbeat(1, beat.number, 0, 0), named=False)
    assert 0 < setting.metric("round_trip_seconds") <= 0.01


@pytest.mark.parametrize("named", [False, True])
def test_tables_that_stay_different_are_compared(named: bool) -> None:
    setting = Setting(1)
    assert said(setting.hear(1, Heartbeat(1, 0, 0, 1), named=named), TableSummary) == []
    setting.now += 0.9 * CONFIG.repair_after_seconds
    setting.node.wake(setting.now)
    assert said(setting.hear(1, Heartbeat(2, 0, 0, 1), named=named), TableSummary, to=1)


def test_a_repair_brings_what_is_newer_on_either_side() -> None:
    one, other = Setting(1, 2), Setting(1, 3)
    (summary,) = [one.node._census.table.summary()]
    (digest,) = said(other.hear(1, summary), TableDigest, to=1)
    effects = one.hear(1, digest)
    (request,) = said(effects, RecordRequest, to=1)
    (records,) = said(effects, Records, to=1)
    assert node_id(3) in request.ids
    assert node_id(2) in {record.id for record in records.records}
    (answer,) = said(other.hear(1, request), Records, to=1)
    assert {record.id for record in answer.records} == set(request.ids)


def test_a_probe_is_answered_at_once_under_its_number() -> None:
    assert said(Setting(1).hear(9, Probe(77)), ProbeReply, to=9) == [ProbeReply(77)]


def test_an_indirect_probe_of_ourselves_or_of_one_heard_a_moment_ago_is_answered_at_once() -> None:
    setting = Setting(1, 2)
    assert said(setting.hear(1, IndirectProbe(7, node_id(0))), IndirectReply, to=1) == [IndirectReply(7, node_id(0))]
    setting.hear(2, Heartbeat(1, 0, 0, 0), named=False)
    assert said(setting.hear(1, IndirectProbe(8, node_id(2))), IndirectReply, to=1) == [IndirectReply(8, node_id(2))]


def test_an_indirect_probe_is_done_where_the_record_says_and_its_answer_passed_on() -> None:
    setting = Setting(1, 2)
    setting.hear(1, Records((make_record(9).encode(),)))
    (probe,) = said(setting.hear(1, IndirectProbe(7, node_id(9))), Probe, to=9)
    assert said(setting.hear(9, ProbeReply(probe.number)), IndirectReply, to=1) == [IndirectReply(7, node_id(9))]


def test_who_is_asked_to_probe_a_neighbour_of_its_own_doubts_it_too() -> None:
    setting = Setting(1, 2)
    setting.run(1.0, 1, 2)
    setting.run(0.15)
    probes = said(setting.hear(1, IndirectProbe(7, node_id(2))), Probe, to=2)
    assert len(probes) == 2, "the relayed one and our own"


def test_threat_9_an_indirect_probe_of_an_unknown_target_is_refused() -> None:
    setting = Setting(1)
    assert setting.hear(1, IndirectProbe(7, node_id(9))) == []
    assert setting.metric("indirect_probes_refused_total") == 1


def test_what_a_helper_heard_clears_a_silent_neighbour() -> None:
    setting = Setting(1, 2)
    setting.run(1.0, 1, 2)
    effects: list[Effect] = []
    while not said(effects, IndirectProbe, to=1):
        effects = setting.run(0.01, 1)
    (asked,) = said(effects, IndirectProbe, to=1)
    assert setting.hear(1, IndirectReply(asked.number, node_id(2))) == []
    assert setting.metric("false_alarms_total") == 1
    assert setting.links == {1, 2}


def test_each_message_of_the_views_reaches_them() -> None:
    setting = Setting(1, 2, 3)
    assert reached(setting.hear(1, ForwardJoin(make_peer(9), 4)), ForwardJoin) <= {make_endpoint(2), make_endpoint(3)}
    assert said(setting.hear(1, Shuffle(make_peer(9), 1, 1, ())), ShuffleReply, to=9) == [ShuffleReply(1, ())]
    assert setting.hear(1, ShuffleReply(1, (make_peer(50),))) == setting.hear(1, JoinDenied(99, ())) == []
    assert setting.hear(1, NeighborReply(99, accepted=True, interval_ms=200)) == []


def test_each_message_of_the_multicast_reaches_it() -> None:
    setting = Setting(1, 2)
    packet = Multicast(PacketId(node_id(1), EPOCH, 1), "topic", 9, b"payload")
    assert told(setting.hear(1, packet)) == [Delivered(packet.id, "topic", b"payload")]
    assert said(setting.hear(2, MulticastRequest((packet.id,))), Multicast, to=2)
    missed = PacketId(node_id(1), EPOCH, 2)
    setting.hear(2, MulticastAnnounce((missed,)))
    assert said(setting.run(0.2, 1, 2), MulticastRequest, to=2)[0].ids == (missed,)
    assert setting.metric("multicast_delivered_total") == 1


def test_a_payload_for_one_is_delivered_as_its_senders_and_passed_on_to_nobody() -> None:
    setting = Setting(1, 2)
    effects = setting.hear(1, Unicast("topic", b"payload"))
    assert told(effects) == [Delivered(PacketId(node_id(1), EPOCH, 0), "topic", b"payload")]
    assert reached(effects, Unicast) == set()
    sent = setting.node.unicast(node_id(2), "topic", b"answer")
    assert sent == [Send(make_endpoint(2), (Unicast("topic", b"answer"),))]
    assert setting.node.unicast(node_id(77), "topic", b"to nobody") == []
    with pytest.raises(LocalProtocolError, match="a topic has 1 to 64 bytes"):
        setting.node.unicast(node_id(2), "", b"")
    with pytest.raises(LocalProtocolError, match="above the limit"):
        setting.node.unicast(node_id(2), "topic", bytes(2_000_000))


# -- healing and forgetting --------------------------------------------------------------------------------------------


def test_one_out_of_reach_is_tried_now_and_then() -> None:
    setting = Setting(1)
    setting.hear(1, Records((make_record(9).encode(),)))
    tried = [message.priority for message in said(setting.run(30, 1), Neighbor, to=9)]
    assert 3 <= len(tried) <= 60
    assert set(tried) == {Priority.HIGH}


def test_a_contact_that_is_no_member_is_asked_for_the_clusters_may_never_have_met() -> None:
    setting = Setting(1, contacts=[1, 8])
    effects = setting.run(30, 1)
    assert make_endpoint(8) in reached(effects, Join)
    assert make_endpoint(1) not in reached(effects, Join), "that one is a member"


def test_where_everybody_is_in_reach_nobody_is_tried() -> None:
    effects = Setting(1, contacts=[1]).run(30, 1)
    assert reached(effects, Join) == reached(effects, Neighbor) == set()


def test_members_that_stay_away_are_forgotten() -> None:
    setting = Setting(1, 2, config=replace(CONFIG, forget_after_seconds=10))
    setting.run(1, 1, 2)
    setting.run(8, 1)
    assert setting.node.members()[node_id(2)].status is MemberStatus.DOWN
    setting.run(5, 1)
    assert node_id(2) not in setting.node.members()
    assert setting.metric("table_size") == 2
    assert make_peer(2) not in setting.node.passive_view


def test_shuffles_go_out_now_and_then() -> None:
    shuffles = said(Setting(1, 2).run(100, 1, 2), Shuffle)
    assert 2 <= len(shuffles) <= 7


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_metrics_are_numbers_and_counters_never_fall() -> None:
    setting = Setting(1, 2)
    before = setting.node.metrics()
    setting.run(3, 1)
    after = setting.node.metrics()
    assert all(isinstance(value, int | float) for value in after.values())
    assert all(after[name] >= value for name, value in before.items() if name.endswith("_total"))
    assert (after["members_alive"], after["members_down"], after["downs_total"]) == (1, 1, 1)
    assert (after["active_view_size"], after["table_size"]) == (1, 3)


# -- together ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def five() -> Cluster:
    cluster = Cluster(5)
    cluster.run_until(lambda: cluster.is_whole, 3.0)
    cluster.run(1.0)
    return cluster


def test_nodes_find_each_other_and_agree(five: Cluster) -> None:
    everybody = frozenset(node_id(number) for number in range(5))
    assert {node.reachable for node in five.nodes.values()} == {everybody}
    assert all((other, one) in five.links for one, other in five.links)
    for number, node in five.nodes.items():
        assert len(five.notified(number, MemberUp)) == 4
        assert all(node.route_to(other) is not None for other in everybody)
        assert node.metrics()["members_alive"] == 4
    assert len({node._census.table.hash for node in five.nodes.values()}) == 1


def test_a_dead_node_is_suspect_and_then_down_for_everybody(five: Cluster) -> None:
    five.silent.add(4)
    five.run(2.5)
    for number in range(4):
        (suspect,), (down,) = five.notified(number, MemberSuspect), five.notified(number, MemberDown)
        assert suspect.record.id == down.record.id == node_id(4)
        assert node_id(4) not in five.nodes[number].reachable
        assert five.notified(number, PartitionSuspected) == []


def test_who_was_frozen_for_a_moment_is_alive_again_without_a_rejoin(five: Cluster) -> None:
    five.silent.add(4)
    while not five.notified(0, MemberSuspect):
        five.run(0.05)
    five.silent.discard(4)
    five.run(1.0)
    assert node_id(4) in five.nodes[0].reachable
    assert all(five.notified(number, MemberDown) == [] for number in range(5))
    assert five.notified(4, LocalStall)


def test_who_leaves_is_left_and_not_dead(five: Cluster) -> None:
    five.carry_out(4, five.nodes[4].leave(five.now))
    five.run(3.0)
    for number in range(4):
        assert [notice.record.id for notice in five.notified(number, MemberLeft)] == [node_id(4)]
        assert five.notified(number, MemberDown) == five.notified(number, MemberSuspect) == []
        assert five.nodes[number].members()[node_id(4)].status is MemberStatus.LEFT


def test_a_node_that_is_started_again_is_back_as_a_later_life_of_itself(five: Cluster) -> None:
    five.start(4, epoch=EPOCH + 10, tags=(("life", "second"),))
    five.run(3.0)
    for number in range(4):
        member = five.nodes[number].members()[node_id(4)]
        assert (member.status, member.record.epoch) == (MemberStatus.ALIVE, EPOCH + 10)
        assert [notice.record.tags for notice in five.notified(number, MemberUpdated)] == [(("life", "second"),)]
    assert len(five.nodes[4].reachable) == 5


def test_a_change_of_tags_is_told_to_everybody(five: Cluster) -> None:
    five.carry_out(2, five.nodes[2].update(five.now, tags={"role": "edge"}))
    five.run(1.0)
    for number in (0, 1, 3, 4):
        (update,) = five.notified(number, MemberUpdated)
        assert (update.record.tags, update.previous.tags) == ((("role", "edge"),), ())


def test_a_multicast_reaches_everybody_once(five: Cluster) -> None:
    five.carry_out(3, five.nodes[3].multicast("topic", b"payload", five.now, record_route=True))
    five.run(1.0)
    for number in (0, 1, 2, 4):
        (packet,) = five.notified(number, Delivered)
        assert (packet.id, packet.payload) == (PacketId(node_id(3), EPOCH, 1), b"payload")
        assert packet.route is not None
        assert packet.route[0] == node_id(3)
    assert five.notified(3, Delivered) == []


def test_two_halves_hold_each_other_for_lost_and_are_one_again_after_the_cut() -> None:
    cluster = Cluster(6)
    cluster.run_until(lambda: cluster.is_whole, 3.0)
    cluster.run(1.0)
    cluster.partition(range(3), range(3, 6))
    cluster.run(2.5)
    assert cluster.nodes[0].reachable == {node_id(number) for number in range(3)}
    assert cluster.notified(0, PartitionSuspected)
    cluster.cut = set()
    cluster.run_until(lambda: cluster.is_whole, 8.0)


def test_a_node_cut_off_from_everybody_holds_nobody_for_dead(five: Cluster) -> None:
    five.partition([4], range(4))
    five.run(4.0)
    assert five.notified(4, MemberDown) == []
    five.cut = set()
    five.run_until(lambda: five.is_whole, 8.0)


def test_two_clusters_with_one_contact_in_common_become_one() -> None:
    cluster = Cluster(3)
    cluster.start(10, contacts=[])
    cluster.start(11, contacts=[10, 0])
    cluster.run_until(lambda: cluster.is_whole, 20.0)


def test_a_victim_of_a_forged_epoch_is_back_with_a_later_one(five: Cluster) -> None:
    forged = replace(five.nodes[4].me, epoch=EPOCH + 50, version=1, neighbours=(), name="n4")
    for number in range(5):
        event = Received(make_boot(3), make_peer(3), (Records((forged.encode(),)),))
        five.carry_out(number, five.nodes[number].handle(event, five.now))
    five.run(2.0)
    assert five.nodes[4].me.epoch == EPOCH + 51
    assert five.notified(4, EpochTaken) == [EpochTaken(EPOCH + 51)]
    for number in range(4):
        member = five.nodes[number].members()[node_id(4)]
        assert (member.status, member.record.epoch) == (MemberStatus.ALIVE, EPOCH + 51)


@pytest.mark.parametrize("lost", [False, True], ids=["as it is told by itself", "as it is told by others"])
def test_links_of_one_that_took_another_epoch_are_claimed_as_before(five: Cluster, lost: bool) -> None:
    five.cut = {(4, 0)} if lost else set()
    forged = replace(five.nodes[4].me, epoch=EPOCH + 50)
    five.carry_out(4, five.nodes[4].handle(received(3, Records((forged.encode(),))), five.now))
    five.run(0.1)
    five.cut = set()
    five.run(1.0)
    for number in range(4):
        five.carry_out(number, five.nodes[number].update(five.now, tags={"any": "change"}))
    five.run(3.0)
    for node in five.nodes.values():
        assert set(node.me.neighbours) == {peer.id for peer in node.active_view}


def node_with(**changes: float) -> MembershipNode:
    return make_node(0, config=replace(CONFIG, **changes))


def test_a_table_that_is_full_takes_nobody_else_and_counts_them() -> None:
    node = node_with(members_max=2)
    node.start(START)
    for number in (1, 2, 3):
        node.handle(received(number, Records((make_record(number).encode(),))), START)
    assert node.metrics()["table_size"] == 2
    assert node.metrics()["records_dropped_total"] == node.metrics()["records_refused_total"] == 2
