"""Gossip: news shares datagrams, goes to everybody but who brought it, and our own keeps a pace."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.gossip import Gossip
from pyminuteman.membership.messages import Records
from pyminuteman.membership.records import EncodedRecord
from pyminuteman.membership.steps import FlushDue, Step
from tests.membership.support import CONFIG, EPOCH, START, make_endpoint, make_peer, sends, timers
from tests.support.messages import node_id

BATCH, URGENT = CONFIG.gossip_batch_seconds, CONFIG.gossip_urgent_seconds
PEERS = [make_peer(number) for number in (1, 2, 3)]


def word(number: int, version: int = 1) -> EncodedRecord:
    return EncodedRecord(node_id(number), EPOCH, version, b"")


def due(steps: Sequence[Step]) -> float | None:
    return timers(steps).get(FlushDue())


def flushed(gossip: Gossip, now: float = START + 1) -> dict[int, list[tuple[int, int]]]:
    """What each of the three neighbours is sent, as (whose, version)."""
    names = {make_endpoint(number): number for number in (1, 2, 3)}
    numbers = {node_id(number): number for number in range(100)}
    got: dict[int, list[tuple[int, int]]] = {}
    for send in sends(gossip.flush(now, PEERS, lambda _: False)):
        (message,) = send.messages
        assert isinstance(message, Records)
        assert names[send.to] not in got, "one message a neighbour"
        got[names[send.to]] = [(numbers[record.id], record.version) for record in message.records]
    return got


def test_news_waits_a_moment_for_others_and_urgent_news_a_shorter_one() -> None:
    gossip = Gossip(CONFIG)
    assert due(gossip.add(word(10), node_id(1), START, urgent=False)) == START + BATCH
    assert due(gossip.add(word(11), node_id(1), START + 0.001, urgent=False)) == START + BATCH
    assert due(gossip.add(word(12), node_id(1), START + 0.002, urgent=True)) == START + 0.002 + URGENT


def test_news_goes_to_every_neighbour_but_who_brought_it_and_whom_it_is_of() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(10), node_id(1), START, urgent=False)
    gossip.add(word(2), node_id(3), START, urgent=False)
    assert flushed(gossip) == {1: [(2, 1)], 2: [(10, 1)], 3: [(10, 1)]}


def test_who_has_nothing_new_to_hear_hears_nothing() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(1), node_id(2), START, urgent=False)
    assert flushed(gossip) == {3: [(1, 1)]}


def test_of_each_node_only_the_newest_goes_and_it_goes_once() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(10, 1), node_id(1), START, urgent=False)
    gossip.add(word(10, 2), node_id(2), START, urgent=False)
    assert flushed(gossip) == {1: [(10, 2)], 3: [(10, 2)]}
    assert flushed(gossip) == {}


def test_who_sends_what_waits_for_it_needs_not_be_told() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(10, 2), node_id(1), START, urgent=False)
    gossip.has_it(word(10, 2), node_id(2))
    gossip.has_it(word(10, 1), node_id(3))
    gossip.has_it(word(11, 2), node_id(3))
    assert flushed(gossip) == {3: [(10, 2)]}, "an older word of it, or one of another, is not the same"


def test_who_had_the_word_before_is_told_the_next() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(10, 1), node_id(1), START, urgent=False)
    gossip.has_it(word(10, 1), node_id(2))
    gossip.add(word(10, 2), node_id(3), START, urgent=False)
    gossip.has_it(EncodedRecord(node_id(10), EPOCH - 1, 9, b""), node_id(1))
    assert flushed(gossip) == {1: [(10, 2)], 2: [(10, 2)]}


def test_nothing_is_due_where_nothing_waits() -> None:
    gossip = Gossip(CONFIG)
    assert gossip.flush(START, PEERS, lambda _: False) == []
    gossip.add(word(10), node_id(1), START, urgent=False)
    assert due(gossip.flush(START, PEERS, lambda _: False)) is None
    assert due(gossip.add(word(10), node_id(1), START + 5, urgent=False)) == START + 5 + BATCH


def test_neighbours_that_may_not_know_us_are_told_who_we_are() -> None:
    gossip = Gossip(CONFIG)
    gossip.add(word(10), node_id(9), START, urgent=False)
    steps = sends(gossip.flush(START, PEERS, lambda node: node == node_id(2)))
    assert {send.to: send.identify for send in steps} == {
        make_endpoint(1): False,
        make_endpoint(2): True,
        make_endpoint(3): False,
    }


# -- our own record ----------------------------------------------------------------------------------------------------


def own(gossip: Gossip, version: int, now: float, *, urgent: bool = False, members: int = 0) -> float | None:
    return due(gossip.add_own(word(0, version), now, urgent=urgent, members=members))


def test_our_own_record_goes_to_all_neighbours_in_its_newest_form() -> None:
    gossip = Gossip(CONFIG)
    assert own(gossip, 1, START) == START + BATCH
    assert own(gossip, 2, START + 0.001) == START + BATCH
    assert flushed(gossip, START + BATCH) == {number: [(0, 2)] for number in (1, 2, 3)}
    assert flushed(gossip) == {}


@pytest.mark.parametrize(("members", "pause"), [(0, 0.1), (100, 0.3), (10_000, 5.0)])
def test_our_own_record_keeps_a_pace_that_slows_with_the_size_of_the_cluster(members: int, pause: float) -> None:
    gossip = Gossip(CONFIG)
    own(gossip, 1, START)
    flushed(gossip, START + BATCH)
    assert own(gossip, 2, START + BATCH, members=members) == pytest.approx(START + BATCH + max(pause, BATCH))


def test_our_own_record_waits_for_its_time_while_news_of_others_goes() -> None:
    gossip = Gossip(CONFIG)
    own(gossip, 1, START)
    flushed(gossip, START + BATCH)
    own(gossip, 2, START + BATCH)
    gossip.add(word(10), node_id(1), START + BATCH, urgent=False)
    steps = gossip.flush(START + 2 * BATCH, PEERS, lambda _: False)
    assert len(sends(steps)) == 2, "the news, to those that did not bring it"
    assert due(steps) == pytest.approx(START + BATCH + 0.1)
    assert flushed(gossip, START + BATCH + 0.1) == {number: [(0, 2)] for number in (1, 2, 3)}


def test_our_own_record_with_news_of_a_failure_goes_at_once() -> None:
    gossip = Gossip(CONFIG)
    own(gossip, 1, START)
    flushed(gossip, START + BATCH)
    own(gossip, 2, START + BATCH)
    assert own(gossip, 3, START + 0.03, urgent=True) == pytest.approx(START + 0.03 + URGENT)
    assert own(gossip, 4, START + 0.031) == pytest.approx(START + 0.03 + URGENT), "and what comes after it is no later"


def test_what_is_nearly_due_goes_with_what_is() -> None:
    gossip = Gossip(CONFIG)
    own(gossip, 1, START)
    gossip.add(word(10), node_id(1), START - 0.002, urgent=False)
    assert flushed(gossip, START - 0.002 + BATCH) == {1: [(0, 1)], 2: [(10, 1), (0, 1)], 3: [(10, 1), (0, 1)]}


_words = st.lists(st.tuples(st.integers(10, 13), st.integers(1, 3), st.booleans(), st.integers(0, 3)), max_size=8)


@given(_words)
def test_every_neighbour_hears_the_last_word_of_each_unless_it_brought_it(
    words: Sequence[tuple[int, int, bool, int]],
) -> None:
    gossip, last, now, wanted = Gossip(CONFIG), {}, START, None
    for number, source, urgent, pause in words:
        now += pause / 1000
        last[number] = (len(last), source)
        wanted = due(gossip.add(word(number, len(last)), node_id(source), now, urgent=urgent))
        assert wanted is not None
        assert wanted <= now + (URGENT if urgent else BATCH)
    got = flushed(gossip)
    for number, (_, source) in last.items():
        assert {peer for peer, news in got.items() if number in [who for who, _ in news]} == {1, 2, 3} - {source}
