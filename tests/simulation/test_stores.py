"""The store rides on simulated nodes through the same troubles as the membership: deaths, restarts, freezes, partitions, losses."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context

import pytest

from pyminuteman.kv.messages import Change, LogPart
from pyminuteman.kv.operations import AddElement, RemoveElement
from pyminuteman.testing.checkers.stores import NoEntryComesBack, ReplicasAgree
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.faults import CLEAN
from pyminuteman.testing.simulation.operations import Operation, Pause
from pyminuteman.testing.simulation.scenarios import FAMILIES, draw, family_of
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.stores import LIMITS, TOKENS, StoreCore, StoreCores, Write, writes
from pyminuteman.testing.simulation.world import Simulation, SimulationFailed

SEEDS = 100
POLL_SECONDS = 0.5
COMPARED_SECONDS = 60.0
"""How long replicas may take to agree once the membership has settled: a dozen comparisons, and a lease."""
WRITES_AN_ACT = 25
MEMBERSHIPS_OWN = {"upgrade", "keys"}
"""What these families try concerns the store no more than the others."""


@dataclass(frozen=True)
class Outcome:
    seed: int
    findings: tuple[str, ...]
    judged: dict[str, int]


def run_seed(seed: int) -> Outcome:
    scenario = draw(seed)
    rng = seeded("store writes", seed)
    cores = StoreCores(seed)
    world = Simulation(
        seed, nodes=scenario.nodes, start_within_seconds=None, faults=scenario.faults, config=scenario.config, core=cores
    )
    bounds = Bounds(scenario.config, scenario.faults, scenario.nodes)
    agree, returns = ReplicasAgree(world, bounds), NoEntryComesBack(world, bounds)
    cores.listeners.append(returns.core_changed)
    findings: list[str] = []
    try:
        for act in scenario.acts:
            done = writes(rng, scenario.nodes, 4.0, WRITES_AN_ACT)
            play(world, [*act, *done])
            deadline = world.now + bounds.settled + LIMITS.lease_seconds + COMPARED_SECONDS
            while any(agree.unsettled()) and world.now < deadline:
                world.run(seconds=POLL_SECONDS)
            findings += [f"{world.now:.4f} {what}" for what in agree.unsettled()]
            if findings:
                break
            remove_tokens(world, rng.randrange(scenario.nodes))
    except SimulationFailed as error:
        findings.append(f"{error}: {error.__cause__!r}")
    judged = {"ReplicasAgree": agree.judged, "NoEntryComesBack": returns.judged}
    return Outcome(seed, (*findings, *returns.concluded()), judged)


def play(world: Simulation, act: list[Operation | Write]) -> None:
    began = end = world.now
    for operation in act:
        world.call_at(began + operation.time, lambda one: one.apply(world), operation)
        end = max(end, began + operation.time + (operation.seconds if isinstance(operation, Pause) else 0.0))
    world.run_until(end + POLL_SECONDS)


def remove_tokens(world: Simulation, host: int) -> None:
    """Half of what a host sees of the set."""
    process = world.hosts[host].process
    if process is None or not isinstance(process.node, StoreCore):
        return
    value = process.node.replica.shared.read(TOKENS)
    for token in sorted(value)[::2] if isinstance(value, frozenset) else ():
        Write(0.0, host, (TOKENS, RemoveElement(token))).apply(world)


def run_all(seeds: list[int]) -> Iterator[Outcome]:
    with ProcessPoolExecutor(None, get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds)


def test_replicas_agree_and_nothing_comes_back_whatever_happens() -> None:
    seeds = [seed for seed in range(SEEDS * len(FAMILIES) // 6) if family_of(seed) not in MEMBERSHIPS_OWN][:SEEDS]
    began = time.perf_counter()
    outcomes = list(run_all(seeds))
    print(f"{len(seeds)} seeds in {time.perf_counter() - began:.1f} s", file=sys.stderr)  # noqa: T201 - progress
    failed = [outcome for outcome in outcomes if outcome.findings]
    told = "\n".join(
        f"seed {outcome.seed} ({family_of(outcome.seed)}): {finding}" for outcome in failed for finding in outcome.findings[:5]
    )
    assert not failed, f"{told}\n{len(failed)} of {len(seeds)} seeds failed: {[outcome.seed for outcome in failed]}"
    for checker in ("ReplicasAgree", "NoEntryComesBack"):
        assert sum(outcome.judged[checker] for outcome in outcomes) > len(seeds)


# -- the checkers ------------------------------------------------------------------------------------------------------


def a_world() -> tuple[Simulation, list[StoreCore], ReplicasAgree, NoEntryComesBack]:
    cores = StoreCores(1)
    world = Simulation(1, nodes=3, core=cores)
    bounds = Bounds(world.config, CLEAN, 3)
    returns = NoEntryComesBack(world, bounds)
    cores.listeners.append(returns.core_changed)
    world.run(seconds=10.0)
    nodes = [process.node for process in world.processes]
    return world, [node for node in nodes if isinstance(node, StoreCore)], ReplicasAgree(world, bounds), returns


def test_the_checkers_find_nothing_where_all_is_well() -> None:
    world, _, agree, returns = a_world()
    for host, change in ((0, {"k": b"1"}), (1, {"k": b"2"}), (0, {"k": None}), (0, {"k": b"3"})):
        Write(0.0, host, change).apply(world)
        world.run(seconds=1.0)
        assert list(agree.unsettled()) == []
    assert list(returns.concluded()) == []
    assert returns.judged == 2


def test_a_replica_that_differs_is_found() -> None:
    world, cores, agree, _ = a_world()
    cores[0].replica.change_own({"k": b"1"})
    cores[1].replica.shared.update(TOKENS, [], 0.0)
    found = list(agree.unsettled())
    assert len([one for one in found if "lacks k" in one]) == 2
    Write(0.0, 1, {"x": b"1"}).apply(world)
    world.run(seconds=1.0)
    cores[1].replica.owners.lapse(cores[1].me.id)
    assert any("still has x" in one or "lacks x" in one for one in agree.unsettled())


def test_an_entry_that_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world, cores, _, returns = a_world()
    Write(0.0, 0, {"k": b"1"}).apply(world)
    Write(0.0, 0, {"k": b"2"}).apply(world)
    Write(0.0, 0, {"gone": b"1"}).apply(world)
    world.run(seconds=1.0)
    Write(0.0, 0, {"gone": None}).apply(world)
    world.run(seconds=1.0)
    log = cores[1].replica.owners.log(cores[0].me.id)
    assert log is not None
    monkeypatch.setattr(type(log), "_take", _take_anything)
    low = log.version
    old = (Change(low - 3, "k", b"1"), Change(low - 1, "gone", b"1"))
    cores[1].replica.owners.receive(LogPart(log.owner, log.epoch, log.base, 0, low + 1, low + 1, old))
    returns.core_changed(cores[1])
    found = list(chain(returns.concluded()))
    assert any("back to" in one for one in found)
    assert any("again, which had gone" in one for one in found)


def _take_anything(log: object, change: Change) -> bool:
    log.entries[change.key] = (change.version, change.value)  # type: ignore[attr-defined]
    return True


def test_an_element_that_comes_back_is_found() -> None:
    world, _, _, returns = a_world()
    Write(0.0, 0, (TOKENS, AddElement(b"x"))).apply(world)
    world.run(seconds=1.0)
    remove_tokens(world, 1)
    world.run(seconds=1.0)
    assert list(returns.concluded()) == []
    Write(0.0, 2, (TOKENS, AddElement(b"x"))).apply(world)
    assert any("has b'x' again" in one for one in returns.concluded())
