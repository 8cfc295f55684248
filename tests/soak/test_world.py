from __future__ import annotations

import pytest

from tests.soak.steps import Document, Kind, Step
from tests.soak.world import FOREIGN, LEASE_SECONDS, Held, Impossible, World, difference

VIP = "11.0.0.1:80"
OTHER = "11.0.0.2:80"


def world(*documents: Document) -> World:
    made = World(len(documents))
    made.apply(Step(0, Kind.JOIN, tuple(range(len(documents)))), 0)
    for node, document in enumerate(documents):
        made.apply(Step(0, Kind.SAY, (node,), document), 0)
    return made


def one(**rows: int) -> frozenset[Held | None]:
    return frozenset({Held("wlc", frozenset((f"{node}:8000", weight) for node, weight in rows.items()))})


def test_a_vip_is_what_all_say_of_it() -> None:
    assert world({VIP: {8000: 1}}, {VIP: {8000: 3}}).expected(0, 0) == {VIP: one(n0=1, n1=3)}


@pytest.mark.parametrize("kind", [Kind.PANIC, Kind.LEAVE])
def test_who_goes_is_without_backends(kind: Kind) -> None:
    made = world({VIP: {8000: 1}}, {VIP: {8000: 3}})
    made.apply(Step(0, kind, (1,)), 10)
    assert made.expected(10, 0) == {VIP: one(n0=1)}
    assert made.connected == [0]
    assert made.is_open(10)
    assert not made.is_open(10 + LEASE_SECONDS + 30)
    made.apply(Step(0, Kind.REVIVE if kind is Kind.PANIC else Kind.JOIN, (1,)), 20)
    assert made.expected(20, 0) == {VIP: one(n0=1, n1=3)}
    assert not made.is_open(20)


def test_a_vip_of_nodes_that_are_gone_may_fail_open_for_a_lease() -> None:
    made = world({VIP: {8000: 1}}, {OTHER: {8000: 3}})
    made.apply(Step(0, Kind.PANIC, (1,)), 10)
    assert made.expected(10, 0)[OTHER] == one(n1=3) | {None}
    assert OTHER not in made.expected(10 + LEASE_SECONDS + 30, 0)


def test_who_takes_nobody_is_no_reason_to_do_without_those_who_are_gone() -> None:
    made = world({VIP: {8000: 1}}, {VIP: {8000: 3}})
    made.apply(Step(0, Kind.DRAIN_NODE, (0,)), 0)
    made.apply(Step(0, Kind.PANIC, (1,)), 10)
    assert made.expected(10, 0)[VIP] == one(n0=0, n1=3) | one(n0=0)


def test_marks_stand_in_place_of_weights_and_drains_of_both() -> None:
    made = world({VIP: {8000: 1}, OTHER: {8000: 2}})
    made.apply(Step(0, Kind.WEIGHT, (0,), vip=VIP, port=8000, weight=17), 0)
    assert made.expected(0, 0) == {VIP: one(n0=17), OTHER: one(n0=2)}
    made.apply(Step(0, Kind.DRAIN_BACKEND, (0,), vip=VIP, port=8000), 0)
    assert made.expected(0, 0) == {VIP: one(n0=0), OTHER: one(n0=2)}
    made.apply(Step(0, Kind.DRAIN_NODE, (0,)), 0)
    assert made.expected(0, 0) == {VIP: one(n0=0), OTHER: one(n0=0)}
    for kind in (Kind.UNDRAIN_BACKEND, Kind.UNDRAIN_NODE, Kind.CLEAR_WEIGHT):
        made.apply(Step(0, kind, (0,), vip=VIP, port=8000), 0)
    assert made.expected(0, 0) == {VIP: one(n0=1), OTHER: one(n0=2)}


def test_somebody_elses_service_stands_in_the_way_on_its_node_alone() -> None:
    made = world({VIP: {8000: 1}}, {VIP: {8000: 3}})
    made.apply(Step(0, Kind.ADD_FOREIGN, (1,), vip=VIP), 0)
    assert made.expected(0, 1) == {VIP: frozenset({FOREIGN})}
    assert made.expected(0, 0) == {VIP: one(n0=1, n1=3)}
    made.apply(Step(0, Kind.REMOVE_FOREIGN, (1,), vip=VIP), 0)
    assert made.expected(0, 1) == made.expected(0, 0)


def test_a_lost_state_takes_the_kernel_with_it() -> None:
    made = world({VIP: {8000: 1}}, {VIP: {8000: 3}})
    made.apply(Step(0, Kind.ADD_FOREIGN, (1,), vip=OTHER), 0)
    made.apply(Step(0, Kind.PANIC, (1,)), 0)
    made.apply(Step(0, Kind.LOSE_STATE, (1,)), 1)
    made.apply(Step(0, Kind.REVIVE, (1,)), 2)
    assert made.expected(2, 1) == {VIP: one(n0=1, n1=3)}


@pytest.mark.parametrize(("kind", "back"), [(Kind.CUT, Kind.MEND), (Kind.FREEZE, Kind.THAW), (Kind.FILL_DISK, Kind.FREE_DISK)])
def test_a_disturbed_node_says_on_but_its_own_kernel_is_not_looked_at(kind: Kind, back: Kind) -> None:
    made = world({VIP: {8000: 1}}, {VIP: {8000: 3}})
    made.apply(Step(0, kind, (1,)), 0)
    assert made.connected == [0]
    assert made.up == [0, 1]
    with pytest.raises(Impossible, match=f"{kind} n1"):
        made.apply(Step(0, kind, (1,)), 0)
    made.apply(Step(0, back, (1,)), 0)
    assert made.connected == [0, 1]


def test_many_who_are_gone_are_weighed_all_or_none() -> None:
    made = world({VIP: {8000: 1}}, *[{OTHER: {8000: 1}}] * 7)
    made.apply(Step(0, Kind.LEAVE, tuple(range(1, 8))), 0)
    assert made.expected(0, 0)[OTHER] == one(**{f"n{node}": 1 for node in range(1, 8)}) | {None}


def test_a_difference_says_what_is_and_what_should_be() -> None:
    expected = world({VIP: {8000: 1}}).expected(0, 0)
    assert difference(expected, {VIP: Held("wlc", frozenset({("n0:8000", 1)}))}) == ""
    assert difference(expected, {}) == f"{VIP} is not there, and should be wlc n0:8000=1"
    wrong = {VIP: Held("wlc", frozenset({("n0:8000", 2)})), OTHER: Held("rr", frozenset())}
    assert difference(expected, wrong) == (
        f"{VIP} is wlc n0:8000=2, and should be wlc n0:8000=1; {OTHER} is rr without backends, and should be nothing"
    )
