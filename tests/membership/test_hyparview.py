"""HyParView: views that stay within their bounds, links that both ends agree on, and nobody left outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Send
from pyminuteman.membership.hyparview import HyParView
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
from pyminuteman.membership.steps import JoinDue, LinkLost, LinkMade, RequestDue, SearchDue, ShuffleDue, Step
from tests.membership.support import (
    CONFIG,
    EPOCH,
    START,
    make_boot,
    make_endpoint,
    make_peer,
    of_type,
    reached,
    said,
    seeded,
    sends,
    timers,
)
from tests.support.messages import node_id

SMALL = replace(CONFIG, active_view_size=3, passive_view_size=5)
TIMEOUT = CONFIG.neighbor_timeout_seconds


class Setting:
    """The views of node 0, linked to ``active``, and aware of ``passive``; at most three links unless told otherwise."""

    def __init__(
        self,
        active: Iterable[int] = (),
        passive: Iterable[int] = (),
        *,
        config: MembershipConfig = SMALL,
        number: int = 0,
        seed: int = 1,
    ) -> None:
        self.members: list[Peer] = []
        self.doubtful: set[int] = set()
        self.views = HyParView(
            make_peer(number),
            config=config,
            random=seeded(seed),
            candidates=lambda most: self.members[:most],
            doubtful=lambda node: node in {node_id(one) for one in self.doubtful},
        )
        for peer in passive:
            self.views.passive.add(make_peer(peer))
        for peer in active:
            self.neighbor(peer, Priority.HIGH)

    # -- what arrives

    def join(self, sender: int, now: float = START) -> list[Step]:
        return self.views.on_join(Join(1), make_peer(sender), make_boot(sender), now)

    def neighbor(self, sender: int, priority: Priority = Priority.LOW) -> list[Step]:
        return self.views.on_neighbor(Neighbor(1, priority, 150), make_peer(sender), make_boot(sender))

    def reply(self, number: int, sender: int, *peers: int, accepted: bool = True, now: float = START) -> list[Step]:
        message = NeighborReply(number, accepted, 150, tuple(map(make_peer, peers)))
        return self.views.on_neighbor_reply(message, make_peer(sender), make_boot(sender), now)

    def disconnect(self, sender: int, reason: DisconnectReason, instead: int | None = None, now: float = START) -> list[Step]:
        message = Disconnect(reason, None if instead is None else make_peer(instead))
        return self.views.on_disconnect(message, make_peer(sender), make_boot(sender), now)

    def search(self) -> list[Step]:
        """Let the search begin that is planned."""
        return self.views.search_due(self.planned)

    @property
    def planned(self) -> float:
        """When the next search is."""
        assert self.views._search_at < inf, "none is planned"
        return self.views._search_at

    # -- what there is

    @property
    def active(self) -> set[int]:
        return {number for number in range(200) if node_id(number) in self.views.active}

    @property
    def passive(self) -> set[int]:
        return {number for number in range(200) if node_id(number) in self.views.passive}


def asked(steps: Iterable[Step]) -> dict[int, Neighbor]:
    """Who is asked to be a neighbour."""
    numbers = {make_endpoint(number): number for number in range(200)}
    return {numbers[send.to]: message for send in sends(steps) for message in send.messages if isinstance(message, Neighbor)}


def made(steps: Iterable[Step]) -> list[Peer]:
    return [step.peer for step in of_type(steps, LinkMade)]


def lost(steps: Iterable[Step]) -> list[tuple[Peer, DisconnectReason, bool]]:
    return [(step.peer, step.reason, step.accuse) for step in of_type(steps, LinkLost)]


def search_at(steps: Iterable[Step]) -> float | None:
    return next((due for timer, due in timers(steps).items() if isinstance(timer, SearchDue)), None)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_a_node_asks_a_contact_and_then_another_until_it_has_a_neighbour() -> None:
    setting = Setting()
    steps = setting.views.start(START, [make_endpoint(1), make_endpoint(2), make_endpoint(1)], ())
    assert setting.views.contacts == (make_endpoint(1), make_endpoint(2))
    assert len(said(steps, Join)) == 1
    tried = reached(steps, Join)
    for _ in range(12):
        (again,) = [due for timer, due in timers(steps).items() if isinstance(timer, JoinDue)]
        assert CONFIG.join_timeout_seconds <= again - START <= 2 * CONFIG.join_timeout_seconds
        steps = setting.views.join_due(START)
        tried |= reached(steps, Join)
    assert tried == {make_endpoint(1), make_endpoint(2)}
    setting.neighbor(3)
    assert setting.views.join_due(START) == []


def test_a_node_does_not_ask_itself() -> None:
    setting = Setting()
    steps = setting.views.start(START, [make_endpoint(0)], [make_peer(0)])
    assert setting.views.contacts == ()
    assert setting.passive == set()
    assert sends(steps) == []


def test_who_knows_nobody_waits_to_be_asked() -> None:
    setting = Setting()
    steps = setting.views.start(START, (), ())
    assert sends(steps) == []
    assert not any(isinstance(timer, JoinDue) for timer in timers(steps))
    assert sends(setting.search()) == []


def test_members_known_from_an_earlier_life_are_asked_at_once_where_there_is_no_contact() -> None:
    setting = Setting()
    steps = setting.views.start(START, (), [make_peer(1), make_peer(2)])
    assert any(isinstance(timer, JoinDue) for timer in timers(steps)), "and again"
    assert search_at(steps) == START
    steps = setting.search()
    assert set(asked(steps)) == {1, 2}
    assert sorted(message.priority for message in asked(steps).values()) == [Priority.LOW, Priority.HIGH]


def test_with_a_contact_members_known_from_an_earlier_life_are_asked_when_it_has_had_its_time() -> None:
    setting = Setting()
    steps = setting.views.start(START, [make_endpoint(1)], [make_peer(2)])
    assert search_at(steps) == START + CONFIG.join_timeout_seconds


# -- 3: who has no neighbour is taken in -------------------------------------------------------------------------------


def test_a_join_makes_a_link_and_sends_the_newcomer_on_a_walk_to_all_others() -> None:
    setting = Setting([1, 2])
    steps = setting.join(9)
    (reply,) = said(steps, NeighborReply, to=9)
    assert reply.accepted
    assert {peer.id for peer in reply.peers} == {node_id(1), node_id(2)}
    assert of_type(steps, LinkMade) == [LinkMade(make_peer(9), make_boot(9), CONFIG.heartbeat_interval_seconds, joined=True)]
    assert reached(steps, ForwardJoin) == {make_endpoint(1), make_endpoint(2)}
    assert set(said(steps, ForwardJoin)) == {ForwardJoin(make_peer(9), CONFIG.active_random_walk_length)}


def test_a_full_node_takes_a_newcomer_in_at_the_cost_of_a_random_link() -> None:
    gone = set()
    for seed in range(30):
        setting = Setting([1, 2, 3], seed=seed)
        steps = setting.join(9)
        ((peer, reason, accuse),) = lost(steps)
        assert (reason, accuse) == (DisconnectReason.REPLACED, False)
        gone |= {number for number in (1, 2, 3) if number not in setting.active}
        assert setting.active == {1, 2, 3, 9} - {number for number in (1, 2, 3) if make_peer(number) == peer}
        assert peer.id in setting.views.passive
    assert gone == {1, 2, 3}


def test_who_gives_way_is_told_of_the_newcomer_that_has_room() -> None:
    setting = Setting([1, 2, 3])
    steps = setting.neighbor(9, Priority.HIGH)
    ((peer, _, _),) = lost(steps)
    (message,) = said(steps, Disconnect)
    assert reached(steps, Disconnect) == {peer.endpoint}
    assert message == Disconnect(DisconnectReason.REPLACED, instead=make_peer(9))


def test_one_that_is_silent_gives_way_first_and_is_accused_for_nobody_else_may_be_left_to() -> None:
    for seed in range(10):
        setting = Setting([1, 2, 3], seed=seed)
        setting.doubtful = {2}
        steps = setting.neighbor(9, Priority.HIGH)
        assert lost(steps) == [(make_peer(2), DisconnectReason.FAILED, True)]
        assert said(steps, Disconnect, to=2) == [Disconnect(DisconnectReason.FAILED, instead=make_peer(9))]


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.WALK])
def test_who_has_neighbours_is_turned_away_by_a_full_node_and_told_whom_to_ask(priority: Priority) -> None:
    setting = Setting([1, 2, 3], [4])
    steps = setting.neighbor(9, priority)
    (reply,) = said(steps, NeighborReply, to=9)
    assert not reply.accepted
    assert {peer.id for peer in reply.peers} == {node_id(number) for number in (1, 2, 3, 4)}
    assert setting.active == {1, 2, 3}
    assert len(steps) == 1


@pytest.mark.parametrize("priority", list(Priority))
def test_whoever_asks_is_taken_where_there_is_room(priority: Priority) -> None:
    setting = Setting([1])
    steps = setting.neighbor(9, priority)
    assert said(steps, NeighborReply, to=9)[0].accepted
    assert of_type(steps, LinkMade) == [LinkMade(make_peer(9), make_boot(9), 0.15)]


def test_joins_beyond_the_rate_are_told_whom_to_ask_instead() -> None:
    setting = Setting([1, 2, 3], config=replace(SMALL, join_rate_per_second=2))
    answers = [setting.join(number, START) for number in (10, 11, 12)]
    assert [bool(said(steps, JoinDenied)) for steps in answers] == [False, False, True]
    (denied,) = said(answers[2], JoinDenied, to=12)
    assert denied.number == 1
    assert denied.peers
    assert node_id(12) not in {peer.id for peer in denied.peers}
    assert setting.views.joins_denied == 1
    assert said(setting.join(12, START + 0.5), JoinDenied) == [], "a moment later there is room again"


def test_a_node_with_room_and_a_neighbour_that_joins_again_know_no_rate() -> None:
    setting = Setting(config=replace(SMALL, join_rate_per_second=0.1))
    for number in (10, 11, 12, 12, 12):
        assert said(setting.join(number), JoinDenied) == []


def test_who_is_turned_away_asks_another_of_those_named() -> None:
    setting = Setting()
    (first,) = said(setting.views.start(START, [make_endpoint(1)], ()), Join)
    denied = JoinDenied(first.number, (make_peer(0), make_peer(7), make_peer(1)))
    steps = setting.views.on_join_denied(denied, START)
    assert reached(steps, Join) == {make_endpoint(7)}, "not the contact, and not itself"
    assert setting.passive == {1, 7}
    assert setting.views.on_join_denied(denied, START) == [], "the answer counts once"


def test_who_is_turned_away_without_a_name_or_has_a_neighbour_by_now_waits() -> None:
    setting = Setting()
    (first,) = said(setting.views.start(START, [make_endpoint(1)], ()), Join)
    assert setting.views.on_join_denied(JoinDenied(first.number, ()), START) == []
    (second,) = said(setting.views.join_due(START), Join)
    setting.neighbor(2)
    assert setting.views.on_join_denied(JoinDenied(second.number, (make_peer(7),)), START) == []


def test_a_refusal_of_a_join_is_no_answer_to_another_request() -> None:
    setting = Setting([1], [2])
    setting.disconnect(1, DisconnectReason.LEAVING)
    (request,) = asked(setting.search()).values()
    assert setting.views.on_join_denied(JoinDenied(request.number, (make_peer(7),)), START) == []
    assert setting.passive == {2}


# -- the walk of a newcomer --------------------------------------------------------------------------------------------


def forward(setting: Setting, time_to_live: int, joiner: int = 9, sender: int = 1) -> list[Step]:
    return setting.views.on_forward_join(ForwardJoin(make_peer(joiner), time_to_live), make_peer(sender), START)


def test_a_walk_goes_on_to_a_neighbour_that_it_does_not_come_from() -> None:
    steps = forward(Setting([1, 2]), 4)
    assert said(steps, ForwardJoin, to=2) == [ForwardJoin(make_peer(9), 3)]


def test_nobody_makes_a_walk_longer_than_we_let_it() -> None:
    assert said(forward(Setting([1, 2]), 255), ForwardJoin) == [ForwardJoin(make_peer(9), CONFIG.active_random_walk_length - 1)]


def test_where_a_walk_ends_the_newcomer_is_offered_a_link_and_given_none() -> None:
    for setting, time_to_live in ((Setting([1, 2]), 0), (Setting([1]), 5)):
        steps = forward(setting, time_to_live)
        assert {number: message.priority for number, message in asked(steps).items()} == {9: Priority.WALK}
        assert node_id(9) not in setting.views.active


def test_on_its_way_a_walk_leaves_the_newcomer_in_one_passive_view() -> None:
    for time_to_live in range(1, 9):
        setting = Setting([1, 2])
        forward(setting, time_to_live)
        assert (9 in setting.passive) == (time_to_live == CONFIG.passive_random_walk_length)


def test_a_walk_that_comes_back_to_the_newcomer_or_to_its_neighbour_ends_there() -> None:
    setting = Setting([1, 2])
    assert forward(setting, 0, joiner=0) == []
    assert forward(setting, 0, joiner=2) == []


def test_an_offer_at_the_end_of_a_walk_is_taken_even_where_the_view_has_filled_up_since() -> None:
    setting = Setting([1, 2])
    (offer,) = asked(forward(setting, 0)).values()
    setting.neighbor(3)
    assert made(setting.reply(offer.number, 9)) == [make_peer(9)]
    assert len(setting.active) == 3


# -- 2: a link needs two that agree ------------------------------------------------------------------------------------


def searching(*passive: int, active: Iterable[int] = ()) -> tuple[Setting, dict[int, Neighbor]]:
    """A node that has asked some of its passive view."""
    setting = Setting((*active, 100), passive)
    setting.disconnect(100, DisconnectReason.LEAVING)
    return setting, asked(setting.search())


def test_asking_makes_no_link_and_the_yes_does() -> None:
    setting, requests = searching(1)
    assert setting.active == set()
    assert made(setting.reply(requests[1].number, 1, 5, 6)) == [make_peer(1)]
    assert setting.active == {1}
    assert setting.passive == {5, 6}
    assert setting.reply(requests[1].number, 1) == [], "the yes counts once"


def test_a_yes_that_nobody_asked_for_makes_no_link_and_whoever_said_it_is_told() -> None:
    setting, requests = searching(1)
    told = {Disconnect(DisconnectReason.NOT_LINKED)}
    assert set(said(setting.reply(requests[1].number + 1, 1), Disconnect, to=1)) == told
    assert set(said(setting.reply(requests[1].number, 2), Disconnect, to=2)) == told, "nor that of somebody else"
    assert setting.reply(requests[1].number + 1, 1, accepted=False) == [], "a no needs no answer"
    assert setting.active == set()
    assert made(setting.reply(requests[1].number, 1)) == [make_peer(1)], "and the request stands"


def test_a_no_is_not_asked_again_and_another_is_asked_soon() -> None:
    setting, requests = searching(1)
    steps = setting.reply(requests[1].number, 1, 7, accepted=False)
    assert made(steps) == []
    assert setting.passive == {7}
    assert search_at(steps) == pytest.approx(START + 0.02)
    assert set(asked(setting.search())) == {7}


def test_where_everybody_says_no_a_node_with_a_neighbour_is_in_no_hurry() -> None:
    setting, requests = searching(1, 2, active=[5])
    assert len(requests) == 2
    assert setting.reply(requests[1].number, 1, accepted=False) == []


def test_a_yes_that_comes_when_there_is_no_room_any_more_is_declined() -> None:
    setting, requests = searching(1, active=[5, 6])
    setting.neighbor(7)
    steps = setting.reply(requests[1].number, 1)
    assert said(steps, Disconnect, to=1) == [Disconnect(DisconnectReason.FULL)]
    assert setting.active == {5, 6, 7}


def test_the_heartbeat_of_one_whose_yes_was_lost_makes_the_link() -> None:
    setting, requests = searching(1)
    assert set(requests) == {1}
    steps = setting.views.on_heartbeat_of_stranger(make_peer(1), make_boot(1))
    assert made(steps) == [make_peer(1)]
    assert setting.reply(requests[1].number, 1) == []


def test_whoever_only_believes_in_a_link_is_told_that_there_is_none() -> None:
    setting, _ = searching(1)
    for stranger in (2, 3):
        steps = setting.views.on_heartbeat_of_stranger(make_peer(stranger), make_boot(stranger))
        assert steps == [Send(make_endpoint(stranger), (Disconnect(DisconnectReason.NOT_LINKED),))]


def test_the_late_heartbeat_of_a_neighbours_last_process_changes_nothing() -> None:
    setting = Setting([1])
    setting.views.heal(make_peer(1), START)
    assert setting.views.on_heartbeat_of_stranger(make_peer(1), b"its last boot") == []
    assert [link.boot for link in setting.views.active] == [make_boot(1)]


def test_a_heartbeat_answers_no_join_and_fills_no_full_view() -> None:
    setting, _ = searching(1, active=[5])
    setting.views.knock(make_endpoint(4), START)
    setting.neighbor(6)
    setting.neighbor(7)
    steps = setting.views.on_heartbeat_of_stranger(make_peer(1), make_boot(1))
    assert said(steps, Disconnect, to=1) == [Disconnect(DisconnectReason.NOT_LINKED)]


@pytest.mark.parametrize(("interval_ms", "boot"), [(150, make_boot(1)), (300, b"another")])
def test_a_neighbour_that_asks_for_a_link_has_lost_the_one_we_believed_in(interval_ms: int, boot: bytes) -> None:
    """It may have accused us in a message that was lost: only a new link, and so a new version of our record, shows that we live."""
    setting = Setting([1])
    steps = setting.views.on_neighbor(Neighbor(1, Priority.LOW, interval_ms), make_peer(1), boot)
    assert said(steps, NeighborReply, to=1)[0].accepted
    assert lost(steps) == [(make_peer(1), DisconnectReason.REPLACED, False)]
    assert of_type(steps, LinkMade) == [LinkMade(make_peer(1), boot, interval_ms / 1000)]
    assert setting.active == {1}


def test_two_that_ask_each_other_have_one_link() -> None:
    setting, requests = searching(1)
    setting.neighbor(1)
    assert setting.reply(requests[1].number, 1) == []
    assert setting.active == {1}


def test_a_node_does_not_link_to_itself() -> None:
    setting = Setting()
    assert made(setting.join(0)) == []
    assert setting.active == set()
    assert setting.views.heal(make_peer(0), START) == []


# -- a link ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [reason for reason in DisconnectReason if reason is not DisconnectReason.LEAVING])
def test_a_link_that_the_other_end_ends_is_over_and_another_is_looked_for_at_once(reason: DisconnectReason) -> None:
    setting = Setting([1, 2])
    steps = setting.disconnect(1, reason)
    assert lost(steps) == [(make_peer(1), reason, False)]
    assert setting.active == {2}
    assert setting.passive == {1}
    assert search_at(steps) == START


@pytest.mark.parametrize(("left", "hurry"), [(1, True), (2, False), (3, False)])
def test_with_half_of_its_links_left_a_node_looks_for_another_after_a_moment(left: int, hurry: bool) -> None:
    setting = Setting((*range(20, 20 + left), 100), config=replace(SMALL, active_view_size=4))
    pause = (search_at(setting.disconnect(100, DisconnectReason.FAILED)) or 0) - START
    retry = CONFIG.neighbor_retry_seconds
    assert pause == 0 if hurry else 0.5 * retry <= pause <= 1.5 * retry


def test_who_leaves_is_no_contact_any_more() -> None:
    setting = Setting([1, 2])
    setting.disconnect(1, DisconnectReason.LEAVING)
    assert setting.active == {2}
    assert setting.passive == set()


def test_who_has_lost_all_links_asks_contacts_too() -> None:
    setting = Setting([1])
    steps = setting.disconnect(1, DisconnectReason.REPLACED)
    assert timers(steps)[JoinDue()] == START + CONFIG.join_timeout_seconds
    assert JoinDue() not in timers(Setting([1, 2]).disconnect(1, DisconnectReason.REPLACED))


def test_a_goodbye_of_a_stranger_or_of_a_former_process_ends_nothing() -> None:
    setting = Setting([1])
    assert setting.disconnect(2, DisconnectReason.FAILED) == []
    message = Disconnect(DisconnectReason.FAILED)
    assert setting.views.on_disconnect(message, make_peer(1), b"another", START) == []
    assert setting.active == {1}


@pytest.mark.parametrize(("active", "priority"), [([1], Priority.HIGH), ([1, 2], Priority.LOW)])
def test_who_gave_way_to_a_newcomer_asks_the_newcomer(active: list[int], priority: Priority) -> None:
    steps = Setting(active).disconnect(1, DisconnectReason.REPLACED, instead=9)
    assert {number: message.priority for number, message in asked(steps).items()} == {9: priority}


@pytest.mark.parametrize("reason", [DisconnectReason.FAILED, DisconnectReason.NOT_LINKED])
def test_one_that_took_us_for_dead_is_asked_first_for_it_has_lost_a_link_too(reason: DisconnectReason) -> None:
    setting = Setting([1, 2, 3], range(20, 25))
    setting.views.passive.remove(node_id(20))
    setting.disconnect(1, reason)
    requests = asked(setting.search())
    assert 1 in requests
    setting.disconnect(2, DisconnectReason.REPLACED)
    requests = asked(setting.search())
    assert 1 not in requests, "once"


def test_one_that_is_linked_again_needs_not_be_asked() -> None:
    setting = Setting([1, 2], [])
    setting.disconnect(1, DisconnectReason.FAILED)
    setting.neighbor(1)
    setting.disconnect(2, DisconnectReason.LEAVING)
    assert asked(setting.search()) == {}


@pytest.mark.parametrize(("reason", "accuse"), [(DisconnectReason.FAILED, True), (DisconnectReason.PATH, False)])
def test_a_silent_link_is_dropped_and_only_the_dead_are_accused(reason: DisconnectReason, accuse: bool) -> None:
    setting = Setting([1, 2])
    steps = setting.views.drop(node_id(1), reason, START)
    assert said(steps, Disconnect, to=1) == [Disconnect(reason)], "if it reads this, it is not dead"
    assert lost(steps) == [(make_peer(1), reason, accuse)]
    assert search_at(steps) == START
    assert (1 in setting.passive) == (not accuse)
    assert setting.views.drop(node_id(1), reason, START) == []


def test_the_link_to_a_former_life_is_over_when_another_begins() -> None:
    setting = Setting([1, 2])
    steps = setting.views.supersede(node_id(1), START)
    assert lost(steps) == [(make_peer(1), DisconnectReason.REPLACED, False)]
    assert search_at(steps) == START
    assert setting.views.supersede(node_id(1), START) == []


# -- searching ---------------------------------------------------------------------------------------------------------


def test_no_more_than_three_are_asked_at_once_and_nobody_twice() -> None:
    setting = Setting([100], range(1, 11), config=replace(CONFIG, active_view_size=8, passive_view_size=20))
    steps = setting.disconnect(100, DisconnectReason.LEAVING)
    everybody: list[int] = []
    for _ in range(5):
        steps = setting.search()
        assert len(asked(steps)) <= 3
        everybody += asked(steps)
    assert len(everybody) == len(set(everybody)) == 8, "as many as there is room for"


def test_only_one_is_asked_to_give_up_a_link_for_us() -> None:
    setting = Setting([100], [1, 2, 3])
    setting.disconnect(100, DisconnectReason.LEAVING)
    requests = asked(setting.search())
    assert sorted(message.priority for message in requests.values()) == [Priority.LOW, Priority.LOW, Priority.HIGH]


@pytest.mark.parametrize(("links", "priority"), [(1, Priority.HIGH), (2, Priority.LOW)])
def test_a_node_with_half_of_its_links_asks_only_for_what_is_free(links: int, priority: Priority) -> None:
    setting = Setting((*range(20, 20 + links), 100), [1], config=replace(SMALL, active_view_size=4))
    setting.disconnect(100, DisconnectReason.LEAVING)
    requests = asked(setting.search())
    assert requests[1].priority is priority


def test_links_under_confirmation_do_not_count() -> None:
    setting = Setting([1, 2, 3], [8])
    setting.doubtful = {1, 2, 3}
    setting.views._plan_search(START)
    assert {number: message.priority for number, message in asked(setting.search()).items()} == {8: Priority.HIGH}


def test_each_search_in_vain_doubles_the_pause_up_to_its_bound() -> None:
    setting = Setting([1])
    setting.disconnect(1, DisconnectReason.LEAVING)
    pauses = []
    for _ in range(8):
        began = setting.planned
        setting.search()
        pauses.append(setting.planned - began)
    bound, expected = CONFIG.neighbor_retry_max_seconds, CONFIG.neighbor_retry_seconds
    for pause in pauses:
        assert 0.75 * expected <= pause <= 1.25 * expected
        expected = min(bound, 2 * expected)
    assert pauses[-1] >= 0.75 * bound


def test_after_a_loss_and_after_a_success_searches_start_afresh() -> None:
    setting = Setting([1, 2])
    setting.disconnect(1, DisconnectReason.LEAVING)
    for _ in range(6):
        setting.search()
    setting.disconnect(2, DisconnectReason.LEAVING, now=setting.planned - 5)
    setting.search()
    again = setting.planned
    setting.search()
    assert setting.planned - again <= 1.25 * CONFIG.neighbor_retry_seconds * 2, "patience begins anew"
    for _ in range(6):
        setting.members = [make_peer(8)]
        if request := asked(setting.search()).get(8):
            number = request.number
    now = setting.planned - 5
    setting.reply(number, 8, now=now)
    assert 0 < setting.planned - now <= 1.25 * CONFIG.neighbor_retry_seconds


def test_a_full_view_searches_for_nobody() -> None:
    setting = Setting([1, 2, 3], [8])
    setting.disconnect(3, DisconnectReason.FULL)
    assert search_at(setting.neighbor(4)) is None
    assert setting.search() == []


def test_nothing_puts_a_planned_search_off() -> None:
    """A node that has thawed loses its links, is offered one and given another, and goes on looking at once."""
    setting, requests = searching(1, active=[5])
    setting.disconnect(5, DisconnectReason.FAILED)
    assert setting.planned == START
    assert search_at(setting.neighbor(4)) is None
    assert made(setting.reply(requests[1].number, 1)) == [make_peer(1)]
    assert setting.planned == START
    setting.disconnect(4, DisconnectReason.LEAVING)
    assert setting.planned == START


def test_where_enough_are_asked_already_the_search_waits_for_their_answers() -> None:
    setting, requests = searching(1, 2, 3)
    assert len(requests) == 3
    steps = setting.search()
    assert sends(steps) == []
    assert search_at(steps) is not None


def test_members_refill_a_passive_view_that_has_run_dry() -> None:
    setting = Setting([100], [1])
    setting.members = [make_peer(number) for number in (1, 7, 8, 9)]
    setting.disconnect(100, DisconnectReason.LEAVING)
    requests = asked(setting.search())
    assert set(requests) == {1, 7, 8}


def test_who_does_not_answer_is_not_tried_again_before_others() -> None:
    setting, requests = searching(1)
    setting.search()
    steps = setting.views.request_due(RequestDue(requests[1].number), START + TIMEOUT)
    assert setting.passive == set()
    assert search_at(steps) == START + TIMEOUT, "and without a link the next is asked at once"
    assert setting.views.request_due(RequestDue(requests[1].number), START + TIMEOUT) == []


def test_with_a_link_a_silence_is_no_hurry_and_a_contact_has_its_own_timer() -> None:
    setting, requests = searching(1, active=[5])
    assert setting.views.request_due(RequestDue(requests[1].number), START + TIMEOUT) == []
    alone = Setting()
    (join,) = said(alone.views.start(START, [make_endpoint(1)], ()), Join)
    assert alone.views.request_due(RequestDue(join.number), START + TIMEOUT) == []


def test_each_request_has_a_number_of_its_own_and_a_deadline() -> None:
    setting = Setting([100], [1, 2, 3])
    setting.disconnect(100, DisconnectReason.LEAVING)
    steps = setting.search()
    numbers = [message.number for message in asked(steps).values()]
    assert len(set(numbers)) == 3
    assert {timer: due for timer, due in timers(steps).items() if isinstance(timer, RequestDue)} == {
        RequestDue(number): START + TIMEOUT for number in numbers
    }


def test_requests_under_way_are_bounded() -> None:
    setting = Setting()
    steps = [step for number in range(1, 100) for step in setting.views.heal(make_peer(number), START)]
    assert len(asked(steps)) == 64


def test_one_out_of_reach_is_asked_to_take_us_in_and_a_stranger_too() -> None:
    setting = Setting([1])
    steps = setting.views.heal(make_peer(9), START)
    assert {number: message.priority for number, message in asked(steps).items()} == {9: Priority.HIGH}
    assert asked(setting.views.heal(make_peer(9), START)) == {}, "once at a time"
    assert asked(setting.views.heal(make_peer(1), START)) == {}, "and no neighbour"
    assert reached(setting.views.knock(make_endpoint(8), START), Join) == {make_endpoint(8)}


def test_the_yes_of_one_that_was_out_of_reach_is_worth_a_link() -> None:
    setting = Setting([1, 2, 3])
    (request,) = asked(setting.views.heal(make_peer(9), START)).values()
    steps = setting.reply(request.number, 9)
    assert made(steps) == [make_peer(9)]
    assert len(setting.active) == 3


# -- shuffles ----------------------------------------------------------------------------------------------------------


def shuffle_of(setting: Setting, now: float = START) -> Shuffle:
    (message,) = said(setting.views.shuffle_due(now), Shuffle)
    return message


def test_a_shuffle_takes_some_contacts_on_a_walk_now_and_then() -> None:
    setting = Setting([1, 2, 3], [11, 12, 13, 14, 15])
    steps = setting.views.shuffle_due(START)
    (message,) = said(steps, Shuffle)
    assert message.origin == make_peer(0)
    assert message.time_to_live == CONFIG.shuffle_time_to_live
    assert len([peer for peer in message.peers if peer.id in setting.views.active]) == CONFIG.shuffle_active_size
    assert len([peer for peer in message.peers if peer.id in setting.views.passive]) == CONFIG.shuffle_passive_size
    again = timers(steps)[ShuffleDue()] - START
    assert 0.5 * CONFIG.shuffle_interval_seconds <= again <= 1.5 * CONFIG.shuffle_interval_seconds


def test_who_has_no_neighbour_has_nobody_to_shuffle_with_yet() -> None:
    steps = Setting(passive=[1]).views.shuffle_due(START)
    assert sends(steps) == []
    assert ShuffleDue() in timers(steps)


def pass_by(setting: Setting, time_to_live: int, *peers: int, origin: int = 9, sender: int = 1) -> list[Step]:
    message = Shuffle(make_peer(origin), 7, time_to_live, tuple(map(make_peer, peers)))
    return setting.views.on_shuffle(message, make_peer(sender))


def test_a_shuffle_walks_on_and_no_longer_than_we_let_it() -> None:
    assert said(pass_by(Setting([1, 2]), 4, 8), Shuffle, to=2) == [Shuffle(make_peer(9), 7, 3, (make_peer(8),))]
    assert said(pass_by(Setting([1, 2]), 255), Shuffle, to=2)[0].time_to_live == CONFIG.shuffle_time_to_live - 1


@pytest.mark.parametrize(("active", "time_to_live"), [([1, 2], 1), ([1], 4)], ids=["end of the walk", "nowhere to go"])
def test_where_a_shuffle_ends_as_many_contacts_go_back_as_came(active: list[int], time_to_live: int) -> None:
    setting = Setting(active, [11, 12, 13])
    steps = pass_by(setting, time_to_live, 21, 22)
    (reply,) = said(steps, ShuffleReply, to=9)
    assert reply.number == 7
    assert len(reply.peers) == 2
    assert {peer.id for peer in reply.peers} <= {node_id(number) for number in (11, 12, 13)}
    assert {9, 21, 22} & setting.passive


def test_a_shuffle_that_comes_back_to_its_origin_is_over() -> None:
    assert pass_by(Setting([1, 2]), 4, origin=0) == []


def test_contacts_that_come_back_take_the_places_of_those_that_were_sent() -> None:
    for seed in range(10):
        setting = Setting([1], range(11, 16), seed=seed)
        message = shuffle_of(setting)
        stayed = {number for number in range(11, 16) if make_peer(number) not in message.peers}
        setting.views.on_shuffle_reply(ShuffleReply(message.number, tuple(map(make_peer, range(21, 25)))))
        assert setting.passive == {*stayed, 21, 22, 23, 24}


def test_an_answer_to_a_shuffle_counts_once() -> None:
    setting = Setting([1], [11])
    message = shuffle_of(setting)
    setting.views.on_shuffle_reply(ShuffleReply(message.number, (make_peer(21),)))
    setting.views.on_shuffle_reply(ShuffleReply(message.number, (make_peer(22),)))
    assert setting.passive == {11, 21}


def test_contacts_that_come_back_take_free_places_first() -> None:
    setting = Setting([1], [11, 12, 13])
    setting.views.on_shuffle_reply(ShuffleReply(shuffle_of(setting).number, (make_peer(21), make_peer(22))))
    assert setting.passive == {11, 12, 13, 21, 22}


def test_more_contacts_than_were_sent_still_fit() -> None:
    setting = Setting([1], range(11, 16))
    message = shuffle_of(setting)
    setting.views.on_shuffle_reply(ShuffleReply(message.number, tuple(map(make_peer, range(21, 40)))))
    assert len(setting.passive) == 5


def test_contacts_that_nobody_asked_for_are_not_taken() -> None:
    setting = Setting([1], [11])
    setting.views.on_shuffle_reply(ShuffleReply(0, (make_peer(21),)))
    message = shuffle_of(setting)
    setting.views.on_shuffle_reply(ShuffleReply(message.number + 1, (make_peer(21),)))
    assert setting.passive == {11}


def test_who_is_forgotten_is_not_asked() -> None:
    setting = Setting([1, 2])
    setting.disconnect(1, DisconnectReason.FAILED)
    setting.views.forget(node_id(1))
    setting.views.forget(node_id(50))
    assert asked(setting.search()) == {}


# -- 1: the views, whatever happens ------------------------------------------------------------------------------------

_numbers = st.integers(0, 9)
_peers = st.lists(st.builds(make_peer, _numbers, st.sampled_from([EPOCH, EPOCH + 1])), max_size=4).map(tuple)
_requests = st.integers(1, 6)
_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Join, _requests),
    st.builds(JoinDenied, _requests, _peers),
    st.builds(ForwardJoin, st.builds(make_peer, _numbers), st.integers(0, 9)),
    st.builds(Neighbor, _requests, st.sampled_from(Priority), st.just(150)),
    st.builds(NeighborReply, _requests, st.booleans(), st.just(150), _peers),
    st.builds(Disconnect, st.sampled_from(DisconnectReason), st.none() | st.builds(make_peer, _numbers)),
    st.builds(Shuffle, st.builds(make_peer, _numbers), _requests, st.integers(0, 9), _peers),
    st.builds(ShuffleReply, _requests, _peers),
)


def hear(views: HyParView, message: Message, sender: Peer, boot: bytes, now: float) -> list[Step]:
    """What the node does with a message of this family."""
    heard: dict[type[Message], Callable[[Any], list[Step] | None]] = {
        Join: lambda join: views.on_join(join, sender, boot, now),
        JoinDenied: lambda denied: views.on_join_denied(denied, now),
        ForwardJoin: lambda forwarded: views.on_forward_join(forwarded, sender, now),
        Neighbor: lambda request: views.on_neighbor(request, sender, boot),
        NeighborReply: lambda reply: views.on_neighbor_reply(reply, sender, boot, now),
        Disconnect: lambda goodbye: views.on_disconnect(goodbye, sender, boot, now),
        Shuffle: lambda shuffle: views.on_shuffle(shuffle, sender),
        ShuffleReply: views.on_shuffle_reply,
    }
    return heard[type(message)](message) or []


@given(st.lists(st.tuples(_messages, _numbers, st.booleans()), max_size=8), st.sets(_numbers, max_size=3))
def test_whatever_is_said_the_views_keep_their_bounds_and_steps_tell_of_every_link(
    heard: Sequence[tuple[Message, int, bool]], doubtful: set[int]
) -> None:
    setting = Setting(passive=[1, 2])
    setting.doubtful = doubtful
    setting.members = [make_peer(number) for number in (3, 4, 5)]
    views, linked = setting.views, {}
    views.start(START, (), ())
    for message, number, search in heard:
        steps = hear(views, message, make_peer(number), make_boot(number), START)
        assert views.active.is_full or views._search_at < inf, "with room, a search is planned"
        if search and views._search_at < inf:
            steps += setting.search()
        for step in steps:
            if isinstance(step, LinkLost):
                assert linked.pop(step.peer.id) == step.peer
            elif isinstance(step, LinkMade):
                assert step.peer.id not in linked
                linked[step.peer.id] = step.peer
        assert {link.peer.id: link.peer for link in views.active} == linked
        assert len(views.active) <= SMALL.active_view_size
        assert len(views.passive) <= SMALL.passive_view_size
        assert views.me.id not in views.active
        assert views.me.id not in views.passive
        assert not {link.peer.id for link in views.active} & {peer.id for peer in views.passive}


# -- all together ------------------------------------------------------------------------------------------------------


class Graph:
    """Nodes that speak this family only, in order and without loss, until nothing is under way."""

    def __init__(self, count: int, seed: int) -> None:
        config = replace(SMALL, join_rate_per_second=1000)
        self.settings = [Setting(config=config, number=number, seed=seed * 100 + number) for number in range(count)]
        self.random: Random = seeded(seed)
        self.mail: deque[tuple[int, int, Message]] = deque()
        for number, setting in enumerate(self.settings):
            contacts = [make_endpoint(0)] if number else []
            self.carry_out(number, setting.views.start(START, contacts, ()))
            self.settle()

    def carry_out(self, number: int, steps: Iterable[Step]) -> None:
        by_endpoint = {make_endpoint(other): other for other in range(len(self.settings))}
        for step in steps:
            if isinstance(step, Send):
                self.mail += ((number, by_endpoint[step.to], message) for message in step.messages)

    def settle(self) -> None:
        while self.mail:
            source, target, message = self.mail.popleft()
            views = self.settings[target].views
            self.carry_out(target, hear(views, message, make_peer(source), make_boot(source), START))

    def search(self) -> None:
        for number, setting in enumerate(self.settings):
            if setting.views._search_at < inf:
                self.carry_out(number, setting.search())
            self.settle()


@pytest.mark.parametrize("seed", range(4))
def test_a_cluster_that_has_settled_is_whole_and_each_link_has_two_ends(seed: int) -> None:
    graph = Graph(12, seed)
    for _ in range(4):
        graph.search()
    links = {number: setting.active for number, setting in enumerate(graph.settings)}
    assert all(number in links[other] for number, linked in links.items() for other in linked)
    assert all(linked for linked in links.values()), "nobody is alone"
    found, edge = {0}, [0]
    while edge:
        new = links[edge.pop()] - found
        found |= new
        edge += new
    assert found == set(range(12))
