"""Large clusters, measured: traffic at rest, deaths, a newcomer, a multicast; and the checkers held to all of it.

The cluster starts warm (:mod:`pyminuteman.testing.simulation.warm_start`), or cold, which for 1,000 nodes takes over half an hour.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Delivered, MemberDown, MemberSuspect, MemberUp, Notification
from pyminuteman.membership.records import EncodedRecord, Record
from pyminuteman.testing.checkers import (
    Checker,
    DetectionInTime,
    GraphConnected,
    LinksSymmetric,
    MembersAgree,
    MulticastOnce,
    NoFalseAlarms,
    NoResurrection,
    RoutesHold,
    ViewsBounded,
)
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Host, Process
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.story import Story
from pyminuteman.testing.simulation.warm_start import start_warm
from pyminuteman.testing.simulation.wire import ObjectWire
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["Figures", "Spread", "measure_large", "shared_records"]

_CHECKERS: tuple[type[Checker], ...] = (
    ViewsBounded,
    LinksSymmetric,
    GraphConnected,
    MembersAgree,
    RoutesHold,
    DetectionInTime,
    NoFalseAlarms,
    NoResurrection,
    MulticastOnce,
)
_REST_SECONDS = 2.0
_WARM_UP_SECONDS = 0.5
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took to reach everybody, in seconds: the first, the median and the last of all who had to learn of it."""

    first: float
    median: float
    last: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """The spread of these; infinite when there are none."""
        return cls(min(seconds), median(seconds), max(seconds)) if seconds else cls(*[float("inf")] * 3)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one cluster.

    Attributes:
        nodes: How many there were.
        datagrams_a_second: What a node sends at rest.
        bytes_a_second: And how much that is on the wire.
        suspected: From the deaths until survivors suspected each victim.
        down: And until they gave it up.
        joined: From the start of a newcomer until nodes held it for alive.
        multicast: From the sending of a packet until its delivery.
        findings: What was wrong.
        cold_seconds: From the start of the first until everybody knew everybody; None after a warm start.
        cold_bytes: What each node sent meanwhile, on average.
        memory_bytes: Resident memory of the process, a node.
        cpu_seconds: What the run cost.
    """

    nodes: int
    datagrams_a_second: float
    bytes_a_second: float
    suspected: Spread
    down: Spread
    joined: Spread
    multicast: Spread
    findings: tuple[str, ...]
    cold_seconds: float | None = None
    cold_bytes: float | None = None
    memory_bytes: float = 0.0
    cpu_seconds: float = 0.0


class _Clocked:
    """Notes when each node told its user of a kind of event, since the last reset."""

    def __init__(self) -> None:
        self.began = 0.0
        self.times: dict[type[object], list[float]] = {}

    def reset(self, now: float) -> None:
        """From now on."""
        self.began = now
        self.times = {}

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Note it."""
        del process
        self.times.setdefault(type(notification), []).append(time - self.began)

    def spread(self, kind: type[object]) -> Spread:
        """Of all events of that kind."""
        return Spread.of(self.times.get(kind, []))


@contextmanager
def shared_records() -> Iterator[None]:
    """Let the nodes of this process share what they opened: records never change, and a thousand nodes open each a thousand times."""
    opened: dict[EncodedRecord, Record] = {}
    decode = Record.decode

    def share(encoded: EncodedRecord) -> Record:
        record = opened.get(encoded)
        if record is None:
            record = opened[encoded] = decode(encoded)
        return record

    Record.decode = staticmethod(share)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Record.decode = decode  # type: ignore[method-assign]


def measure_large(
    nodes: int,
    *,
    seed: int = 1,
    config: MembershipConfig | None = None,
    deaths: int | None = None,
    cold: bool = False,
    through_codec: bool = True,
    shared_tables: bool = False,
) -> Figures:
    """Build a cluster of so many nodes, put it through its paces, and measure.

    Args:
        nodes: How many.
        seed: Of the world.
        config: The constants of every node.
        deaths: How many die together; an eighth when None, but at most 5.
        cold: Whether nodes start knowing only three contacts, and not warm.
        through_codec: Whether messages become bytes on their way; without, sizes are estimates.
        shared_tables: Whether the nodes hold once what all of them know alike.
    """
    began = time.process_time()
    gc.collect()
    gc.set_threshold(100_000, 50, 100)
    config = config or MembershipConfig.lan()
    memory_before = _resident_bytes()
    world = Simulation(
        seed, nodes=nodes, start_within_seconds=None, config=config, story=Story(lines=0),
        wire=None if through_codec else ObjectWire(config),
    )  # fmt: skip
    with shared_records():
        cold_seconds = cold_bytes = None
        if cold:
            cold_seconds, cold_bytes = _start_cold(world)
        else:
            start_warm(world, shared=shared_tables)
        measured = _measure(world, deaths)
    memory = (_resident_bytes() - memory_before) / nodes
    return replace(
        measured, cold_seconds=cold_seconds, cold_bytes=cold_bytes, memory_bytes=memory, cpu_seconds=time.process_time() - began
    )  # fmt: skip


def _measure(world: Simulation, deaths: int | None) -> Figures:
    nodes = len(world.hosts)
    bounds = Bounds(world.config, world.faults, nodes)
    world.run(seconds=_WARM_UP_SECONDS)
    clocked = _Clocked()
    checkers = [checker(world, bounds) for checker in _CHECKERS]
    world.observers += [clocked, *checkers]
    datagrams, size = _rest(world)

    clocked.reset(world.now)
    world.multicast(world.hosts[0], 1, 200)
    world.run(seconds=bounds.news + bounds.repair)
    multicast = clocked.spread(Delivered)

    victims = seeded("victims", world.seed).sample(world.hosts[1:], min(5, nodes // 8) if deaths is None else deaths)
    clocked.reset(world.now)
    for victim in victims:
        world.kill(victim)
    world.run(seconds=bounds.down(dead=len(victims)) + _POLL_SECONDS)
    suspected, down = clocked.spread(MemberSuspect), clocked.spread(MemberDown)
    findings = _settle(world, checkers, bounds.settled)

    newcomer = world.add_host()
    clocked.reset(world.now)
    world.start(newcomer)
    joined = _until_known(world, clocked, newcomer, bounds)
    findings += _settle(world, checkers, bounds.settled)
    findings += [finding for checker in checkers for finding in checker.concluded()]
    return Figures(nodes, datagrams, size, suspected, down, joined, multicast, tuple(findings))


def _start_cold(world: Simulation) -> tuple[float, float]:
    """Start all within a second for each hundred; returns when everybody knew everybody, and what each node had sent."""
    nodes = len(world.hosts)
    for number, host in enumerate(world.hosts):
        world.call_at(number / 100, world.start, host)
    world.run(seconds=nodes / 100)
    while any(len(process.node.members()) < nodes - 1 for process in world.processes):
        world.run(seconds=0.1)
    took, sent = world.now, sum(process.bytes_sent for process in world.processes) / nodes
    bounds = Bounds(world.config, world.faults, nodes)
    _settle(world, [checker(world, bounds) for checker in (LinksSymmetric, GraphConnected, MembersAgree)], bounds.settled)
    return took, sent


def _rest(world: Simulation) -> tuple[float, float]:
    processes = world.processes
    before = [(process.datagrams_sent, process.bytes_sent) for process in processes]
    world.run(seconds=_REST_SECONDS)
    datagrams = sum(process.datagrams_sent for process in processes) - sum(one for one, _ in before)
    size = sum(process.bytes_sent for process in processes) - sum(one for _, one in before)
    return datagrams / len(processes) / _REST_SECONDS, size / len(processes) / _REST_SECONDS


def _until_known(world: Simulation, clocked: _Clocked, newcomer: Host, bounds: Bounds) -> Spread:
    others = [process for process in world.processes if process.host is not newcomer]
    deadline = world.now + bounds.settled
    while world.now < deadline:
        world.run(seconds=0.1)
        # The newcomer tells of all the others, and they of it.
        if len(clocked.times.get(MemberUp, [])) >= 2 * len(others):
            break
    return clocked.spread(MemberUp)


def _settle(world: Simulation, checkers: list[Checker], seconds: float) -> list[str]:
    deadline = world.now + seconds
    while found := _unsettled(checkers):
        if world.now >= deadline:
            return found
        world.run(seconds=_POLL_SECONDS)
    world.truth.came_right()
    return []


def _unsettled(checkers: list[Checker]) -> list[str]:
    return [finding for checker in checkers for finding in checker.unsettled()]


def _resident_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
