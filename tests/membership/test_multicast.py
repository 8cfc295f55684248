"""Multicast: each packet delivered once, along the tree, and what the tree lost is asked for. Sections are the module's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.membership import multicast
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Delivered
from pyminuteman.membership.messages import Multicast, MulticastAnnounce, MulticastRequest, PacketId
from pyminuteman.membership.multicast import MulticastOverlay
from pyminuteman.membership.steps import AnnounceDue, MissingDue, Step
from tests.membership.support import CONFIG, EPOCH, START, make_endpoint, make_peer, reached, said, seeded, sends, timers, told
from tests.support.messages import node_id

ANNOUNCE, PATIENCE = CONFIG.multicast_announce_seconds, CONFIG.multicast_request_seconds
FRESH, AGAIN = AnnounceDue(again=False), AnnounceDue(again=True)
ORIGIN = 9


def packet(number: int = 1, payload: bytes = b"payload", *, origin: int = ORIGIN, **changes: object) -> Multicast:
    made = Multicast(PacketId(node_id(origin), EPOCH, number), "topic", 32, payload)
    return replace(made, **changes)  # type: ignore[arg-type]


def numbers(steps: Iterable[Step], kind: type[MulticastAnnounce | MulticastRequest], to: int) -> list[int]:
    """Of the packets named in what is sent to that node."""
    return [identity.number for message in said(steps, kind, to) for identity in message.ids]


class Setting:
    """The overlay of node 0, with neighbours 1 to 4, of which ``children`` hang below it whatever the origin."""

    def __init__(self, children: Sequence[int] = (), neighbours: Iterable[int] = (1, 2, 3, 4), **limits: float) -> None:
        self.neighbours = {node_id(number): make_peer(number) for number in neighbours}
        self.children: list[NodeId] = [node_id(number) for number in children]
        self.unsure: set[NodeId] = set()
        self.overlay = MulticastOverlay(
            make_peer(0),
            config=replace(CONFIG, **limits),
            random=seeded(),
            neighbours=lambda: self.neighbours,
            children=lambda _: self.children,
            is_unsure=lambda node: node in self.unsure,
        )

    def send(self, payload: bytes = b"payload", now: float = START, *, record_route: bool = False) -> list[Step]:
        return self.overlay.send("topic", payload, now, record_route=record_route)

    def got(self, made: Multicast, sender: int = 1, now: float = START) -> list[Step]:
        return self.overlay.on_packet(made, make_peer(sender), now)

    def hear(self, *announced: int, sender: int = 1, now: float = START) -> list[Step]:
        ids = tuple(packet(number).id for number in announced)
        return self.overlay.on_announce(MulticastAnnounce(ids), make_peer(sender), now)

    def missing(self, now: float = START + PATIENCE) -> list[Step]:
        return self.overlay.missing_due(now)


# -- 1: delivered once -------------------------------------------------------------------------------------------------


def test_a_packet_is_delivered_the_first_time_it_comes_and_never_again() -> None:
    setting = Setting()
    assert told(setting.got(packet())) == [Delivered(packet().id, "topic", b"payload")]
    assert setting.got(packet(), sender=2) == []
    assert setting.got(packet(payload=b"another"), sender=1) == []
    assert (setting.overlay.delivered, setting.overlay.duplicates) == (1, 2)


def test_our_own_packet_is_not_delivered_to_us_even_when_it_comes_back() -> None:
    setting = Setting(children=[1])
    (sent,) = said(setting.send(), Multicast)
    assert told(setting.send()) == []
    assert setting.got(sent) == []
    assert setting.overlay.delivered == 0


def test_our_packets_are_numbered_without_gaps_under_our_present_life() -> None:
    setting = Setting(children=[1])
    first, second = (said(setting.send(), Multicast)[0].id for _ in range(2))
    setting.overlay.me = make_peer(0, EPOCH + 1)
    assert (first, second) == (PacketId(node_id(0), EPOCH, 1), PacketId(node_id(0), EPOCH, 2))
    assert said(setting.send(), Multicast)[0].id.epoch == EPOCH + 1


def test_the_same_number_of_another_origin_or_of_another_life_is_another_packet() -> None:
    setting = Setting()
    other_life = PacketId(node_id(ORIGIN), EPOCH + 1, 1)
    for one in (packet(), packet(origin=8), packet(id=other_life)):
        assert len(told(setting.got(one))) == 1


def test_a_packet_that_is_kept_no_longer_is_still_not_delivered_again() -> None:
    setting = Setting()
    setting.got(packet())
    setting.got(packet(2), now=START + CONFIG.multicast_keep_seconds)
    assert setting.overlay.expired == 1
    assert setting.got(packet(), sender=2, now=START + 2 * CONFIG.multicast_keep_seconds) == []


def test_of_the_numbers_of_one_origin_the_newest_are_told_apart_and_older_ones_count_as_seen() -> None:
    setting = Setting()
    newest = 10_000
    for number in (newest, newest - 4095):
        assert len(told(setting.got(packet(number)))) == 1
        assert setting.got(packet(number)) == []
    assert setting.got(packet(newest - 4096)) == []


def test_a_life_of_an_origin_that_is_silent_for_long_is_forgotten_and_one_that_speaks_is_not() -> None:
    setting, now = Setting(), START
    setting.got(packet(origin=8))
    for number in range(1, 25):
        setting.got(packet(number), now=now)
        now += CONFIG.multicast_keep_seconds
    assert [origin for origin, _ in setting.overlay._heard] == [node_id(ORIGIN)]
    assert setting.got(packet(1), now=now) == []


def test_whoever_was_frozen_for_long_announces_nothing_that_others_have_forgotten() -> None:
    setting = Setting()
    setting.got(packet())
    assert setting.overlay.neighbour_made(make_peer(7), START + 20 * CONFIG.multicast_keep_seconds) == []


# -- 2: along the tree -------------------------------------------------------------------------------------------------


def test_our_own_packet_goes_to_our_children_at_once() -> None:
    steps = Setting(children=[2, 3]).send()
    assert reached(steps, Multicast) == {make_endpoint(2), make_endpoint(3)}


def test_a_packet_is_passed_on_to_the_children_but_not_back() -> None:
    steps = Setting(children=[1, 2]).got(packet(), sender=1)
    assert reached(steps, Multicast) == {make_endpoint(2)}


def test_a_child_that_is_no_neighbour_any_more_is_left_to_the_lazy_path() -> None:
    steps = Setting(children=[2, 7]).got(packet())
    assert reached(steps, Multicast) == {make_endpoint(2)}


def test_who_we_are_goes_along_only_to_those_who_may_not_know_us() -> None:
    setting = Setting(children=[2, 3])
    setting.unsure.add(node_id(3))
    for steps in (setting.send(), setting.got(packet())):
        assert {send.to: send.identify for send in sends(steps)} == {make_endpoint(2): False, make_endpoint(3): True}


def test_who_we_are_goes_along_with_the_second_announcement_always_and_with_the_first_where_needed() -> None:
    setting = Setting()
    setting.unsure.add(node_id(3))
    setting.got(packet())
    for timer, named in ((FRESH, {3}), (AGAIN, {2, 3, 4})):
        announced = sends(setting.overlay.announce_due(timer, START + ANNOUNCE))
        assert {send.to for send in announced} == {make_endpoint(number) for number in (2, 3, 4)}
        assert {send.to for send in announced if send.identify} == {make_endpoint(number) for number in named}


def test_what_was_asked_for_comes_with_a_name() -> None:
    setting = Setting()
    setting.got(packet())
    (answer,) = sends(setting.overlay.on_request(MulticastRequest((packet().id,)), make_peer(2)))
    assert answer.identify


def test_each_hop_takes_one_of_the_time_to_live_and_the_last_is_not_passed_on() -> None:
    assert said(Setting(children=[2]).got(packet(time_to_live=5)), Multicast)[0].time_to_live == 4
    for last in (1, 0):
        setting = Setting(children=[2])
        steps = setting.got(packet(time_to_live=last))
        assert len(told(steps)) == 1, "delivered"
        assert said(steps, Multicast) == []
        (kept,) = said(setting.overlay.on_request(MulticastRequest((packet().id,)), make_peer(3)), Multicast)
        assert kept.time_to_live == 0, "and whoever asks for it delivers it, too"


def test_nobody_makes_a_packet_live_longer_than_we_let_it() -> None:
    assert said(Setting(children=[2], multicast_time_to_live=6).got(packet(time_to_live=255)), Multicast)[0].time_to_live == 5


def test_the_route_is_recorded_when_the_origin_asks_for_it() -> None:
    (sent,) = said(Setting(children=[1]).send(record_route=True), Multicast)
    assert sent.route == (node_id(0),)
    assert said(Setting(children=[1]).send(), Multicast)[0].route is None
    steps = Setting(children=[2]).got(packet(route=(node_id(9), node_id(1))))
    assert told(steps) == [Delivered(packet().id, "topic", b"payload", (node_id(9), node_id(1)))]
    assert said(steps, Multicast)[0].route == (node_id(9), node_id(1), node_id(0))


def test_a_route_does_not_grow_without_end() -> None:
    route = tuple(node_id(number) for number in range(64))
    assert said(Setting(children=[2]).got(packet(route=route)), Multicast)[0].route == route


# -- 3: announced, and asked for ---------------------------------------------------------------------------------------


def test_a_packet_is_announced_to_all_neighbours_that_are_not_known_to_have_it_twice() -> None:
    setting = Setting(children=[2])
    steps = setting.got(packet(), sender=1)
    assert timers(steps) == {FRESH: START + ANNOUNCE}
    first = setting.overlay.announce_due(FRESH, START + ANNOUNCE)
    assert reached(first, MulticastAnnounce) == {make_endpoint(number) for number in (2, 3, 4)}
    assert timers(first) == {AGAIN: pytest.approx(START + ANNOUNCE + 4 * PATIENCE)}
    setting.got(packet(), sender=4)
    second = setting.overlay.announce_due(AGAIN, START + 1)
    assert reached(second, MulticastAnnounce) == {make_endpoint(number) for number in (2, 3)}
    assert timers(second) == {}
    assert sends(setting.overlay.announce_due(AGAIN, START + 2)) == []


def test_announcements_share_a_datagram_a_neighbour() -> None:
    setting = Setting()
    assert timers(setting.got(packet(1))) != {}
    assert timers(setting.got(packet(2), sender=2)) == {}, "the timer is set"
    steps = setting.overlay.announce_due(FRESH, START + ANNOUNCE)
    assert numbers(steps, MulticastAnnounce, 1) == [2]
    assert numbers(steps, MulticastAnnounce, 2) == [1]
    assert numbers(steps, MulticastAnnounce, 3) == [1, 2]
    assert len(sends(steps)) == 4


def test_packets_announced_while_others_wait_for_their_second_time_wait_with_them() -> None:
    setting = Setting()
    setting.got(packet(1))
    assert AGAIN in timers(setting.overlay.announce_due(FRESH, START + ANNOUNCE))
    assert timers(setting.got(packet(2), now=START + 0.1)) == {FRESH: START + 0.1 + ANNOUNCE}
    assert timers(setting.overlay.announce_due(FRESH, START + 0.1 + ANNOUNCE)) == {}
    assert numbers(setting.overlay.announce_due(AGAIN, START + 0.3), MulticastAnnounce, 3) == [1, 2]


def test_the_origin_and_who_announced_it_are_not_told_of_it() -> None:
    setting = Setting(neighbours=(1, 2, ORIGIN))
    setting.got(packet(), sender=1)
    setting.hear(1, sender=2)
    assert sends(setting.overlay.announce_due(FRESH, START + ANNOUNCE)) == []


def test_what_was_announced_and_does_not_come_is_asked_for() -> None:
    setting = Setting()
    assert timers(setting.hear(1, 2)) == {MissingDue(): START + PATIENCE}
    assert timers(setting.hear(3)) == {}, "the timer is set"
    steps = setting.missing()
    assert numbers(steps, MulticastRequest, 1) == [1, 2, 3]
    ((_, again),) = timers(steps).items()
    assert 0.75 * PATIENCE <= again - START - PATIENCE <= 1.25 * PATIENCE


def test_what_comes_in_time_is_not_asked_for() -> None:
    setting = Setting()
    setting.hear(1)
    setting.got(packet(), sender=3)
    assert setting.missing() == []
    assert setting.overlay.repaired == 1


def test_what_was_announced_only_just_has_its_time() -> None:
    setting = Setting()
    setting.hear(1)
    setting.hear(2, now=START + 0.9 * PATIENCE)
    assert numbers(setting.missing(), MulticastRequest, 1) == [1]
    assert numbers(setting.missing(START + 2 * PATIENCE), MulticastRequest, 1) == [1, 2]


def test_one_announcer_after_the_other_is_asked() -> None:
    setting = Setting()
    for sender in (1, 2, 3, 2):
        setting.hear(1, sender=sender)
    asked = [next(iter(reached(setting.missing(START + PATIENCE * (1 + turn)), MulticastRequest))) for turn in range(6)]
    assert set(asked[:3]) == {make_endpoint(number) for number in (1, 2, 3)}
    assert asked[3:] == asked[:3]


def test_only_who_is_still_a_neighbour_is_asked() -> None:
    setting = Setting()
    setting.hear(1, 2, sender=1)
    setting.hear(2, sender=2)
    del setting.neighbours[node_id(1)]
    steps = setting.missing()
    assert numbers(steps, MulticastRequest, 2) == [2]
    assert len(sends(steps)) == 1
    setting.neighbours = {node_id(1): make_peer(1)}
    assert numbers(setting.missing(START + 1), MulticastRequest, 1) == [2], "1 is awaited no longer: nobody had it"


def test_nobody_is_asked_for_ever() -> None:
    setting = Setting()
    steps, asked, now = setting.hear(1), 0, START
    while due := timers(steps):
        ((_, now),) = due.items()
        steps = setting.missing(now)
        asked += len(sends(steps))
    assert asked == 8
    assert timers(setting.hear(1, now=now)) == {MissingDue(): now + PATIENCE}, "unless it is announced again"


def test_who_asks_gets_what_is_kept() -> None:
    setting = Setting()
    setting.got(packet(1), sender=1)
    setting.got(packet(2), sender=1)
    request = MulticastRequest((packet(2).id, packet(7).id, packet(1).id))
    (send,) = sends(setting.overlay.on_request(request, make_peer(3)))
    assert send.to == make_endpoint(3)
    assert [message.id.number for message in send.messages if isinstance(message, Multicast)] == [2, 1]
    assert make_endpoint(3) not in reached(setting.overlay.announce_due(FRESH, START + ANNOUNCE), MulticastAnnounce)


def test_who_asks_for_what_is_not_kept_gets_nothing() -> None:
    assert Setting().overlay.on_request(MulticastRequest((packet().id,)), make_peer(3)) == []


def test_a_packet_asked_for_is_passed_on_as_if_the_tree_had_brought_it() -> None:
    setting = Setting(children=[2])
    setting.hear(1, sender=1)
    setting.missing()
    steps = setting.got(packet(), sender=1, now=START + 0.1)
    assert len(told(steps)) == 1
    assert reached(steps, Multicast) == {make_endpoint(2)}
    assert setting.overlay.repaired == 1


# -- 4: a new neighbour ------------------------------------------------------------------------------------------------


def test_a_new_neighbour_is_told_of_all_that_is_kept_and_that_it_may_not_have() -> None:
    setting = Setting()
    setting.got(packet(1))
    setting.got(packet(2), sender=7)
    assert numbers(setting.overlay.neighbour_made(make_peer(7), START), MulticastAnnounce, 7) == [1]
    assert numbers(setting.overlay.neighbour_made(make_peer(8), START), MulticastAnnounce, 8) == [1, 2]


def test_where_nothing_is_kept_a_new_neighbour_is_told_nothing() -> None:
    assert Setting().overlay.neighbour_made(make_peer(7), START) == []


# -- 5: everything is bounded ------------------------------------------------------------------------------------------


def test_packets_are_kept_for_their_time() -> None:
    setting = Setting()
    setting.got(packet(1))
    setting.got(packet(2), now=START + 1)
    setting.overlay.announce_due(FRESH, START + CONFIG.multicast_keep_seconds)
    assert setting.overlay.expired == 1
    request = MulticastRequest((packet(1).id, packet(2).id))
    answered = said(setting.overlay.on_request(request, make_peer(3)), Multicast)
    assert [one.id.number for one in answered] == [2]


def test_of_more_bytes_than_are_kept_the_oldest_go_and_are_counted() -> None:
    setting = Setting(multicast_keep_bytes=800)
    for number in (1, 2, 3):
        setting.got(packet(number, bytes(100)))
    assert setting.overlay.expired == 1
    assert setting.hear(1) == [], "it is remembered as seen"
    assert numbers(setting.overlay.announce_due(FRESH, START + ANNOUNCE), MulticastAnnounce, 3) == [2, 3]


def test_a_packet_larger_than_all_that_is_kept_is_delivered_and_passed_on_all_the_same() -> None:
    setting = Setting(children=[2], multicast_keep_bytes=10)
    steps = setting.got(packet(payload=bytes(11)))
    assert len(told(steps)) == 1
    assert reached(steps, Multicast) == {make_endpoint(2)}
    assert setting.overlay.expired == 1
    assert sends(setting.overlay.announce_due(FRESH, START + ANNOUNCE)) == []


@given(st.lists(st.tuples(st.integers(0, 900), st.sampled_from([0.0, 1.0, 20.0])), max_size=8))
def test_what_is_kept_never_outgrows_its_bytes_and_its_time(sizes: Sequence[tuple[int, float]]) -> None:
    setting, now, came = Setting(multicast_keep_bytes=800), START, {}
    for number, (size, pause) in enumerate(sizes, 1):
        now += pause
        setting.got(packet(number, bytes(size)), now=now)
        came[number] = now
        request = MulticastRequest(tuple(packet(one).id for one in came))
        kept = said(setting.overlay.on_request(request, make_peer(3)), Multicast)
        assert sum(len(one.payload) for one in kept) <= 800
        assert all(now - came[one.id.number] < CONFIG.multicast_keep_seconds for one in kept)
        assert len(kept) + setting.overlay.expired == number


def test_packets_without_a_payload_are_bounded_too() -> None:
    setting = Setting(multicast_keep_bytes=800)
    for number in range(1, 11):
        setting.got(packet(number, b""))
    assert setting.overlay.expired >= 5


def test_ids_awaited_are_bounded_and_those_beyond_counted() -> None:
    setting = Setting()
    setting.hear(*range(1, 4097))
    assert setting.hear(4097, 4098, 1) == []
    assert setting.overlay.unawaited == 2


def test_no_more_than_64_packets_are_asked_of_one_neighbour_at_once() -> None:
    setting = Setting()
    setting.hear(*range(1, 101))
    assert len(numbers(setting.missing(), MulticastRequest, 1)) == 64


def test_origins_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast, "_HEARD_MAX", 2)
    setting = Setting()
    for origin in (7, 8, 9):
        setting.got(packet(origin=origin))
    assert setting.got(packet(origin=9)) == setting.got(packet(origin=8)) == []
    assert len(setting.overlay._heard) == 2


def test_whoever_was_away_gets_all_that_a_neighbour_kept() -> None:
    setting, now = Setting(), START
    steps = setting.hear(*range(1, 601))
    while due := timers(steps).get(MissingDue()):
        now = due
        steps = setting.missing(now)
        for number in numbers(steps, MulticastRequest, 1):
            setting.got(packet(number), now=now + 0.001)
    assert setting.overlay.delivered == 600


def test_the_defaults_let_a_packet_be_asked_for_before_it_is_gone() -> None:
    for config in (MembershipConfig.lan(), MembershipConfig.wan(), MembershipConfig.local()):
        rounds = 8 * 1.25 * config.multicast_request_seconds
        assert config.multicast_announce_seconds + rounds < config.multicast_keep_seconds
