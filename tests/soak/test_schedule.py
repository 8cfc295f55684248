from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from tests.soak.schedule import SCENARIOS, STEADY_VIP, Planner, first_document
from tests.soak.steps import Kind, Step
from tests.soak.world import World

ROUNDS = 60
SIZE = 10
GONE = {Kind.PANIC, Kind.LEAVE, Kind.CUT, Kind.FREEZE}


def rounds(seed: int, size: int = SIZE, count: int = ROUNDS) -> list[list[Step]]:
    planner = Planner(seed, size)
    return [*islice(planner.rounds(), count), planner.last()]


def begin(size: int) -> World:
    world = World(size)
    world.apply(Step(0, Kind.JOIN, tuple(range(size))), 0)
    for node in range(size):
        world.apply(Step(0, Kind.SAY, (node,), first_document(node)), 0)
    return world


def test_a_seed_gives_the_same_schedule_and_another_one_another() -> None:
    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)


@pytest.mark.parametrize("size", [5, 10, 15])
@pytest.mark.parametrize("seed", range(20))
def test_every_step_makes_sense_a_majority_is_always_there_and_in_the_end_all_is_well(seed: int, size: int) -> None:
    world = begin(size)
    for number, steps in enumerate(rounds(seed, size)):
        assert [step.at for step in steps] == sorted(step.at for step in steps)
        for step in steps:
            world.apply(step, number * 30 + step.at)
            assert 0 not in step.nodes
            away = [node for node in world.nodes if node.presence.name != "UP" or node.cut or node.frozen]
            assert 2 * len(away) < size
            assert sum(STEADY_VIP in world.nodes[node].document for node in world.connected) >= 2
        assert all(not (node.cut or node.frozen or node.full) for node in world.nodes)
    assert len(world.connected) == size
    assert not world.drained_nodes
    assert not world.drained_backends
    assert not world.weights
    assert not any(node.foreign for node in world.nodes)


def test_no_kind_is_left_out_and_every_scenario_comes_before_one_comes_again() -> None:
    first = [step for steps in rounds(3, count=len(SCENARIOS) // 3 + 3) for step in steps]
    assert {step.kind for step in first} == set(Kind)


@pytest.mark.parametrize("seed", range(10))
def test_no_kernel_is_repaired_so_often_that_its_daemon_would_look_less_often(seed: int) -> None:
    repairs = (Kind.DELETE_DESTINATION, Kind.CHANGE_WEIGHT, Kind.DELETE_SERVICE, Kind.ADD_FOREIGN, Kind.REMOVE_FOREIGN)
    planned = rounds(seed, count=180)
    for start in range(120):
        window = planned[start : start + 60]
        counts = Counter(node for steps in window for step in steps if step.kind in repairs[:3] for node in step.nodes)
        assert max(counts.values(), default=0) < 5


@pytest.mark.parametrize("seed", range(10))
def test_who_has_lost_its_state_says_nothing_new_for_some_rounds(seed: int) -> None:
    lost: dict[int, int] = {}
    for number, steps in enumerate(rounds(seed, count=200)[:-1]):
        for step in steps:
            if step.kind is Kind.LOSE_STATE:
                lost[step.nodes[0]] = number
            elif step.kind is Kind.SAY:
                assert number - lost.get(step.nodes[0], -9) >= 4


def test_a_step_reads_as_what_is_done() -> None:
    assert str(Step(0, Kind.PANIC, (1, 2))) == "panic n1,n2"
    assert str(Step(0, Kind.WEIGHT, (1,), vip=STEADY_VIP, port=8000, weight=3)) == "weight n1 11.0.0.1:80 :8000 = 3"
    assert str(Step(0, Kind.SAY, (1,), {STEADY_VIP: {8000: 1}})) == "say n1 1 VIPs"
