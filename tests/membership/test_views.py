"""The two partial views: bounded by construction, one entry a node."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.views import ActiveView, Link, PassiveView
from tests.membership.support import EPOCH, make_boot, make_peer, seeded
from tests.support.messages import node_id


def link(number: int, interval: float = 0.15) -> Link:
    return Link(make_peer(number), make_boot(number), interval)


def active(capacity: int, *numbers: int) -> ActiveView:
    view = ActiveView(capacity)
    for number in numbers:
        view.add(link(number))
    return view


def passive(capacity: int, *numbers: int) -> PassiveView:
    view = PassiveView(capacity, seeded(1))
    for number in numbers:
        view.add(make_peer(number))
    return view


# -- active ------------------------------------------------------------------------------------------------------------


def test_an_active_view_holds_links_in_the_order_they_were_made() -> None:
    view = active(3, 5, 1)
    assert [one.peer for one in view] == view.peers() == [make_peer(5), make_peer(1)]
    assert len(view) == 2
    assert node_id(1) in view
    assert node_id(2) not in view
    assert view.get(node_id(5)) == link(5)
    assert view.get(node_id(2)) is None
    assert not view.is_full


def test_a_full_active_view_takes_no_further_link_and_keeps_what_it_has() -> None:
    view = active(2, 1, 2)
    assert view.is_full
    with pytest.raises(OverflowError, match="an active view of 2 is full"):
        view.add(link(3))
    assert view.peers() == [make_peer(1), make_peer(2)]


def test_a_full_active_view_takes_the_newer_form_of_a_link() -> None:
    view = active(2, 1, 2)
    view.add(link(1, interval=0.5))
    assert view.get(node_id(1)) == link(1, interval=0.5)
    assert len(view) == 2


def test_a_link_that_is_removed_makes_room() -> None:
    view = active(2, 1, 2)
    assert view.remove(node_id(1)) == link(1)
    assert view.remove(node_id(1)) is None
    assert not view.is_full
    view.add(link(3))
    assert view.peers() == [make_peer(2), make_peer(3)]


def test_peers_leaves_out_whom_it_is_told_to() -> None:
    assert active(5, 1, 2, 3).peers(node_id(1), node_id(3), node_id(9)) == [make_peer(2)]


# -- passive -----------------------------------------------------------------------------------------------------------


def test_a_passive_view_remembers_the_later_life_of_a_node() -> None:
    view = passive(3, 1, 2)
    view.add(make_peer(1, EPOCH + 1))
    view.add(make_peer(2, EPOCH - 1))
    assert list(view) == [make_peer(1, EPOCH + 1), make_peer(2)]


def test_the_same_life_at_another_endpoint_is_the_newer_word() -> None:
    view = passive(3, 1)
    moved = make_peer(1)._replace(endpoint=make_peer(9).endpoint)
    view.add(moved)
    assert list(view) == [moved]


def test_in_a_full_passive_view_a_random_one_gives_way() -> None:
    gone = set()
    for seed in range(40):
        view = PassiveView(3, seeded(seed))
        for number in (1, 2, 3, 4):
            view.add(make_peer(number))
        assert len(view) == 3
        assert node_id(4) in view
        gone |= {number for number in (1, 2, 3) if node_id(number) not in view}
    assert gone == {1, 2, 3}


def test_what_is_forgotten_is_gone_and_forgetting_a_stranger_is_nothing() -> None:
    view = passive(3, 1, 2)
    view.remove(node_id(1))
    view.remove(node_id(7))
    assert list(view) == [make_peer(2)]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.integers(0, 12), st.integers(0, 99))
def test_a_sample_is_of_different_contacts_as_many_as_there_are_and_none_excluded(
    held: set[int], excluded: set[int], most: int, seed: int
) -> None:
    view = PassiveView(20, seeded(seed))
    for number in held:
        view.add(make_peer(number))
    sample = view.sample(most, (node_id(number) for number in excluded))
    assert len(sample) == len(set(sample)) == min(most, len(held - excluded))
    assert set(sample) <= {make_peer(number) for number in held - excluded}


def test_a_sample_is_random() -> None:
    view = passive(5, *range(5))
    assert len({tuple(view.sample(2)) for _ in range(60)}) > 10


_edits = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
    ),
    max_size=40,
)


@given(st.integers(1, 6), _edits)
def test_neither_view_outgrows_its_size_or_holds_a_node_twice(capacity: int, edits: Sequence[tuple[str, int, int]]) -> None:
    links, contacts = ActiveView(capacity), PassiveView(capacity, seeded(1))
    newest: dict[int, int] = {}
    for edit, number, epoch in edits:
        peer = make_peer(number, epoch)
        if edit == "remove":
            links.remove(peer.id)
            contacts.remove(peer.id)
            assert peer.id not in links
            assert peer.id not in contacts
            newest.pop(number, None)
        else:
            if not links.is_full or peer.id in links:
                links.add(Link(peer, b"", 0.1))
                assert links.get(peer.id) == Link(peer, b"", 0.1)
            newest[number] = max(epoch, newest.get(number, 0)) if peer.id in contacts else epoch
            contacts.add(peer)
            assert make_peer(number, newest[number]) in list(contacts)
        assert len(links) == len({one.peer.id for one in links}) <= capacity
        assert len(contacts) == len({one.id for one in contacts}) <= capacity
